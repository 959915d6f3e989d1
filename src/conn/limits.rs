//! Every limit and timeout of a connection, with its default, its cost and when to change it.

use crate::protocol::CloseCode;
use core::time::Duration;

/// What happens to a message for a connection whose backlog is at its limit ([`Limits::max_backlog`]). Messages are
/// dropped whole and counted, and the application is told ([`Handler::dropped`](crate::Handler::dropped)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlowConsumer {
    /// The connection is closed with this code. Nothing is lost silently: the client knows and reconnects. The backlog
    /// is dropped, so that the close frame can still be sent.
    Close(CloseCode),
    /// The new message is dropped; queued ones stay. For streams whose beginning matters.
    DropNewest,
    /// The oldest messages that have not begun to be written are dropped until the new one fits. For streams where only
    /// recent messages matter.
    DropOldest,
    /// As `DropOldest`, and a message with a key ([`Message::with_key`](crate::Message::with_key)) also replaces a
    /// queued one with the same key before the limit is reached, once the kernel accepts no more for the connection: a
    /// consumer that keeps up receives every message. For tickers and images.
    LatestByKey,
}

impl SlowConsumer {
    /// Whether newer messages replace older ones, so that old ones must not wait in the kernel.
    pub(crate) const fn replaces_older(self) -> bool {
        matches!(self, Self::DropOldest | Self::LatestByKey)
    }
}

/// What a route allows each of its connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) limits: Limits,
    pub(crate) slow_consumer: SlowConsumer,
}

/// What one connection may cost. All limits are on by default.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of one incoming message, all fragments together; over it the connection ends with 1009. Default 64 KiB.
    /// A message that does not fit in one read is held in memory while it comes.
    pub max_message_size: usize,
    /// Frames of one incoming message, empty ones too; over it the connection ends with 1008. Default 1,024.
    pub max_fragments: u32,
    /// Bytes waiting to be sent, frame heads included, and 96 for each buffer that they wait in (messages of up to 512
    /// bytes share theirs). A message that finds others waiting and does not fit meets
    /// [`SlowConsumer`]; one that finds none waiting is always taken, so a connection holds at most this or one
    /// message. The replay of a recovery does not count; messages of its topic that wait behind it have the same bound of
    /// their own. Default 1 MiB.
    pub max_backlog: usize,
    /// Bytes that the kernel may hold for the peer before it begins to send them, on TCP; above it the kernel takes
    /// nothing more, and further messages wait in the backlog, where [`SlowConsumer`] can act on them. The kernel fills
    /// the packet that it is building, of up to 64 KiB, in any case, and the peer's receive buffer is beyond this. Default
    /// `None`: 16 KiB where the policy of the route, or of any topics, drops the oldest messages
    /// ([`SlowConsumer::DropOldest`], [`SlowConsumer::LatestByKey`]), else as the system says, which is up to 4 MiB.
    /// Price: one system call for each connection, and up to 10 % of the processor time of messages of 64 KB and more, which
    /// leave in more pieces.
    pub max_unsent: Option<u32>,
    /// Topics that one connection may subscribe to. Default 1,024; each costs 16 bytes.
    pub max_subscriptions: usize,
    /// Timers that one connection may have set ([`Conn::set_timer`](crate::Conn::set_timer)). Default 16; each costs 24 bytes.
    pub max_timers: usize,
    /// From the first byte of a message to its last; over it the connection ends with 1008. Default 30 s.
    pub message_timeout: Duration,
    /// A connection from which nothing was received for this long is pinged. Default 25 s; zero disables the heartbeat,
    /// and then a peer that vanished is only noticed when the kernel reports an error.
    pub ping_interval: Duration,
    /// A pinged connection from which nothing is received for this long is ended, however busy the network is. Default
    /// 10 s.
    pub pong_timeout: Duration,
    /// A connection that sends no message for this long is closed with 1000, whether or not it answers pings. Default
    /// zero: never.
    pub idle_timeout: Duration,
    /// A connection from whose backlog the kernel has accepted nothing for this long is ended, paused or not: its peer
    /// does not read. Default 30 s.
    pub write_timeout: Duration,
    /// How long the peer has for its part of the closing handshake. Default 5 s.
    pub close_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_size: 64 << 10,
            max_fragments: 1024,
            max_backlog: 1 << 20,
            max_unsent: None,
            max_subscriptions: 1024,
            max_timers: 16,
            message_timeout: Duration::from_secs(30),
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(10),
            idle_timeout: Duration::ZERO,
            write_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(5),
        }
    }
}
