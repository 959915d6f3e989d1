//! Why a call of a [`Handle`](super::Handle) failed, and why a server is not healthy.

use crate::hub::{NoReply, TopicLimitExceeded};
use core::fmt;
use core::time::Duration;

/// Why a handle could not pass something on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandleError {
    /// As many commands wait for that worker as may ([`Builder::mailbox`](crate::Builder::mailbox)), or as many bytes
    /// ([`Builder::mailbox_bytes`](crate::Builder::mailbox_bytes)). The call did
    /// nothing; try again in a while.
    Full,
    /// The server has ended.
    Ended,
    /// The name can't be a topic's; it may be a pattern.
    Topic(crate::InvalidTopic),
    /// The text is not a pattern; it may be a topic's name.
    Pattern(crate::InvalidPattern),
    /// The close code can't be on the wire.
    Close(crate::InvalidClose),
    /// The ping can't be on the wire.
    Ping(crate::InvalidPing),
    /// The message is longer than its topic allows.
    TooBig {
        /// Its length.
        len: usize,
        /// The limit ([`TopicSettings::max_message_size`](crate::TopicSettings::max_message_size)).
        limit: usize,
    },
    /// More is published to the topic than it takes ([`TopicSettings::rate`](crate::TopicSettings::rate)).
    RateLimited {
        /// The same message may be taken after this time.
        retry: Duration,
    },
    /// There is no WebSocket route with this pattern.
    NoRoute {
        /// The pattern that was asked for.
        pattern: String,
        /// The patterns of the routes there are.
        routes: Vec<String>,
    },
    /// The state handed over is not of the type that the route's handler keeps.
    WrongState,
    /// The calling thread is a worker, such as in a handler: it would wait for itself. [`Answer::then`](crate::Answer::then)
    /// does not wait.
    InHandler,
    /// No answer came in time: a worker is busy or stuck in a handler.
    Timeout,
    /// The socket can't be used.
    Socket(std::io::ErrorKind),
}

impl fmt::Display for HandleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the worker's mailbox is full: publish slower, or raise its limit"),
            Self::Ended => f.write_str("the server has ended"),
            Self::Topic(e) => e.fmt(f),
            Self::Pattern(e) => e.fmt(f),
            Self::Close(e) => e.fmt(f),
            Self::Ping(e) => e.fmt(f),
            Self::TooBig { len, limit } => {
                write!(f, "message of {len} bytes refused: its topic takes up to {limit}")
            }
            Self::RateLimited { retry } => {
                write!(f, "more is published to the topic than it takes: wait {} ms", in_millis(*retry))
            }
            Self::NoRoute { pattern, routes } if routes.is_empty() => {
                write!(f, "route: {pattern:?}, and the server has no WebSocket route")
            }
            Self::NoRoute { pattern, routes } => {
                write!(f, "route: {pattern:?}, expected the pattern of a WebSocket route: {}", routes.join(", "))
            }
            Self::WrongState => f.write_str("the state is not of the type that the route's handler keeps"),
            Self::InHandler => {
                f.write_str("a handler runs on a worker, which can't wait for itself: use Answer::then, or another thread")
            }
            Self::Timeout => f.write_str("a worker did not answer in time: is a handler stuck?"),
            Self::Socket(kind) => write!(f, "the socket can't be used: {kind}"),
        }
    }
}

impl std::error::Error for HandleError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Topic(e) => Some(e),
            Self::Pattern(e) => Some(e),
            Self::Close(e) => Some(e),
            Self::Ping(e) => Some(e),
            _ => None,
        }
    }
}

impl From<NoReply> for HandleError {
    fn from(why: NoReply) -> Self {
        match why {
            NoReply::Full => Self::Full,
            NoReply::Ended => Self::Ended,
            NoReply::Refused(TopicLimitExceeded::TooBig { len, limit }) => Self::TooBig { len, limit },
            NoReply::Refused(TopicLimitExceeded::RateLimited { early }) => Self::RateLimited { retry: early },
        }
    }
}

/// Messages of a batch that were not published ([`Handle::publish_batch`](crate::Handle::publish_batch)); the others were.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchError {
    /// Each by its place in the batch, counted from 0, in ascending order.
    pub failed: Vec<(usize, HandleError)>,
    /// Messages in the batch.
    pub messages: usize,
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch: {} of {} messages were not published", self.failed.len(), self.messages)?;
        match self.failed.first() {
            Some((at, error)) => write!(f, "; message {at}: {error}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for BatchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let (_, error) = self.failed.first()?;
        Some(error)
    }
}

/// Why a server is not healthy ([`Handle::check_health`](crate::Handle::check_health)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unhealthy {
    /// A worker has ended, and with it the server, now or in a moment.
    Ended {
        /// The worker.
        worker: usize,
    },
    /// A worker's event loop has been in one iteration for longer than is allowed. None of its connections is served
    /// meanwhile.
    Stuck {
        /// The worker.
        worker: usize,
        /// How long the iteration has lasted.
        busy: Duration,
        /// How long it may.
        limit: Duration,
    },
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended { worker } => write!(f, "worker {worker} has ended"),
            Self::Stuck { worker, busy, limit } => write!(
                f,
                "worker {worker}: an iteration of its event loop has lasted {busy:.1?}, at most {limit:.1?} are allowed: does a \
                 callback block?"
            ),
        }
    }
}

impl std::error::Error for Unhealthy {}

/// Whole milliseconds, not fewer than there are.
pub(crate) fn in_millis(time: Duration) -> u64 {
    u64::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}
