//! Every bound and wait of a client, each with its default.

use core::time::Duration;

/// What a client's connection may cost, and how long it waits. All limits are on by default.
///
/// ```
/// let mut limits = campanile::client::ClientLimits::default();
/// limits.max_message_size = 64 << 20;
/// let builder = campanile::client::Client::builder("ws://example.com/").limits(limits);
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ClientLimits {
    /// Bytes of one incoming message, all fragments together; over it the connection ends with 1009. Default 16 MiB.
    pub max_message_size: usize,
    /// Frames of one incoming message, empty ones too; over it the connection ends with 1008. Default 65,536.
    pub max_fragments: u32,
    /// Bytes of messages waiting to be sent. A message that finds others waiting and does not fit is refused; one
    /// that finds none waiting is always taken. Default 16 MiB.
    pub max_backlog: usize,
    /// Bytes of events waiting to be taken, 100-odd for each event itself. Over it nothing is read from the socket
    /// until some have been taken, and so the server is held up; nothing is lost. Default 4 MiB; one read's worth
    /// (128 KiB) and one message more may come.
    pub max_inbox: usize,
    /// From the beginning of a try to the TCP connection: the hook, the name's resolution, and all its addresses; the
    /// proxy's, where there is one.
    /// Default 15 s.
    pub connect_timeout: Duration,
    /// From the TCP connection to the end of the opening handshake, a proxy's answer included. Default 10 s.
    pub handshake_timeout: Duration,
    /// From the first byte of a message to its last. Default 60 s; zero is for ever.
    pub message_timeout: Duration,
    /// A connection from which nothing came for so long is pinged. Default 25 s; zero turns the heartbeat off, and
    /// then a server that vanished is only noticed when the kernel gives up on it.
    pub ping_interval: Duration,
    /// A pinged connection from which nothing comes for so long is given up. Default 10 s.
    pub pong_timeout: Duration,
    /// How long the server has for its part of the closing handshake, counted from when our close frame was written,
    /// or from the last progress in writing what goes before it. Default 5 s.
    pub close_timeout: Duration,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            max_message_size: 16 << 20,
            max_fragments: 65_536,
            max_backlog: 16 << 20,
            max_inbox: 4 << 20,
            connect_timeout: Duration::from_secs(15),
            handshake_timeout: Duration::from_secs(10),
            message_timeout: Duration::from_secs(60),
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
        }
    }
}
