//! How a connection ended.

use crate::protocol::{CloseCode, ProtocolError};
use core::fmt;

/// Who or what ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The peer began the closing handshake.
    Peer,
    /// This program called `close`.
    Application,
    /// This program called `terminate`.
    Terminated,
    /// The server shuts down.
    Shutdown,
    /// The peer broke the protocol or a limit.
    Protocol(ProtocolError),
    /// Nothing was received within [`Limits::pong_timeout`](crate::Limits::pong_timeout) of a ping.
    PongTimeout,
    /// No message was received within [`Limits::idle_timeout`](crate::Limits::idle_timeout).
    IdleTimeout,
    /// A message was not finished within [`Limits::message_timeout`](crate::Limits::message_timeout).
    MessageTimeout,
    /// Its backlog was at its limit and its policy is to close.
    SlowConsumer,
    /// Messages for it were lost on their way from another worker, and its policy is to close.
    Congestion,
    /// The kernel accepted nothing of its backlog within [`Limits::write_timeout`](crate::Limits::write_timeout).
    WriteTimeout,
    /// All connections together held more than [`Builder::max_memory`](crate::Builder::max_memory), and this one needed
    /// more.
    OverBudget,
    /// A callback panicked.
    Panic,
    /// A callback returned an error ([`Disconnect`](crate::Disconnect)).
    CallbackError,
    /// The connection broke: the peer closed the socket without a close frame (`UnexpectedEof`), sent bytes that are
    /// not TLS on a TLS listener (`InvalidData`), or the kernel reported this error.
    Transport(std::io::ErrorKind),
}

impl Cause {
    /// A short name for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Application => "application",
            Self::Terminated => "terminated",
            Self::Shutdown => "shutdown",
            Self::Protocol(_) => "protocol",
            Self::PongTimeout => "pong_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::MessageTimeout => "message_timeout",
            Self::SlowConsumer => "slow_consumer",
            Self::Congestion => "congestion",
            Self::WriteTimeout => "write_timeout",
            Self::OverBudget => "over_budget",
            Self::Panic => "panic",
            Self::CallbackError => "callback_error",
            Self::Transport(_) => "transport",
        }
    }
}

/// The end of a connection, passed to [`Handler::close`](crate::Handler::close): once for each connection that was
/// opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Closed {
    /// The peer's code if the peer closed; otherwise the code that was sent, or [`CloseCode::ABNORMAL`] without a close
    /// frame.
    pub code: CloseCode,
    /// The reason that was received or sent with the code.
    pub reason: String,
    /// Who or what ended it.
    pub cause: Cause,
    /// Whether the closing handshake was finished: a close frame in both directions.
    pub was_clean: bool,
    /// Queued messages that were not sent and are lost.
    pub unsent: u32,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.code, self.cause.name())?;
        if let Cause::Protocol(e) = self.cause {
            write!(f, " ({e})")?;
        }
        if !self.reason.is_empty() {
            write!(f, ": {}", self.reason)?;
        }
        Ok(())
    }
}
