//! What the server refuses, and what can go wrong on the way there.

use crate::client;
use crate::hub::{InvalidPattern, InvalidTopic};
use crate::push_protocol::ErrorCode;
use core::fmt;
use core::time::Duration;

/// A refusal of the server's: an `error` of the protocol, `docs/reference/protocol.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerError {
    /// What happened.
    pub code: ErrorCode,
    /// A sentence for whoever reads the log.
    pub message: String,
    /// After how long the same request may work. Those that have it are sent again by the client itself.
    pub retry: Option<Duration>,
}

impl ServerError {
    /// Bytes of what the server said.
    pub(super) fn weight(&self) -> usize {
        self.message.len() + if let ErrorCode::Other(code) = &self.code { code.len() } else { 0 }
    }

    pub(super) fn too_big(len: usize, limit: usize) -> Self {
        let message = format!("a request of {len} bytes; the server takes {limit}");
        Self { code: ErrorCode::TooBig, message, retry: None }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ServerError {}

/// What went wrong apart from any request. The client goes on by itself, unless an
/// [`PushEvent::Close`](super::PushEvent::Close) says that it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A try to connect failed, or a connection broke.
    Client(client::Error),
    /// The server did not say `hello` within [`PushClientLimits::hello_timeout`](super::PushClientLimits::hello_timeout); the connection
    /// was given up.
    HelloTimeout {
        /// The limit.
        limit: Duration,
    },
    /// Nothing came within [`PushClientLimits::pong_timeout`](super::PushClientLimits::pong_timeout) of a `ping`; the connection was given
    /// up.
    PongTimeout {
        /// The limit.
        limit: Duration,
    },
    /// The server complains of no request in particular.
    Server(ServerError),
    /// The server said what is not its protocol; it was ignored.
    Unreadable {
        /// What is wrong with it.
        why: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(e) => e.fmt(f),
            Self::HelloTimeout { limit } => write!(f, "the server did not say hello within {limit:?}"),
            Self::PongTimeout { limit } => write!(f, "nothing came within {limit:?} of a ping"),
            Self::Server(error) => error.fmt(f),
            Self::Unreadable { why } => write!(f, "the server said what is not its protocol: {why}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Client(e) => Some(e),
            Self::Server(error) => Some(error),
            _ => None,
        }
    }
}

/// Why a subscription can't be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The name can't be a topic's; it may be a pattern.
    Topic(InvalidTopic),
    /// The text is not a pattern; it may be a topic's name.
    Pattern(InvalidPattern),
    /// There is one to this topic or pattern.
    Already {
        /// The topic or pattern.
        topic: String,
    },
    /// A pattern has no history to begin with.
    PatternStart {
        /// The pattern.
        pattern: String,
    },
    /// [`Subscription::last`](super::Subscription::last) takes 1 to 65,536 messages.
    Last {
        /// What was given.
        n: u32,
    },
    /// [`Subscription::tags`](super::Subscription::tags) takes up to 16, of 1 to 64 bytes.
    Tags,
    /// There are as many as [`PushClientLimits::max_subscriptions`](super::PushClientLimits::max_subscriptions) allows.
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The client was closed.
    Closed,
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(e) => e.fmt(f),
            Self::Pattern(e) => e.fmt(f),
            Self::Already { topic } => write!(f, "there is a subscription to {topic:?}"),
            Self::PatternStart { pattern } => write!(
                f,
                "start: the pattern {pattern:?} has no history; leave out since, last and latest, or subscribe to single \
                 topics"
            ),
            Self::Last { n } => write!(f, "the last {n} messages can't be asked for: expected 1 to 65536"),
            Self::Tags => f.write_str("a subscription takes up to 16 tags of 1 to 64 bytes"),
            Self::TooMany { limit } => write!(f, "there are {limit} subscriptions, the most there may be"),
            Self::Closed => f.write_str("the client was closed"),
        }
    }
}

impl std::error::Error for SubscribeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Topic(e) => Some(e),
            Self::Pattern(e) => Some(e),
            _ => None,
        }
    }
}

/// Why a publication was not, or perhaps not, published.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// The server refused it.
    Refused(ServerError),
    /// The server put it off, as this says, and has published a later one to the same topic meanwhile: publishing it now
    /// would change the order. It was not published, unless it had been sent on an earlier connection as well.
    Overtaken(ServerError),
    /// No answer came in time: it may have been published. Publishing it again with the same
    /// [`idempotency_key`](super::Publication::idempotency_key) is safe.
    Timeout {
        /// The time it had.
        limit: Duration,
    },
    /// The client was closed, or is: what had been sent may have been published.
    Closed,
    /// Too much waits for an answer: [`PushClientLimits::max_pending`](super::PushClientLimits::max_pending) or
    /// [`PushClientLimits::max_pending_bytes`](super::PushClientLimits::max_pending_bytes).
    Full {
        /// Publications that wait.
        pending: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// No topic that can be published to has this name.
    Topic(InvalidTopic),
    /// What was given as JSON is none, for this reason.
    Json(String),
    /// A callback can't wait for an answer that its own thread brings: use
    /// [`PushClient::publish_then`](super::PushClient::publish_then) there.
    OwnThread,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => error.fmt(f),
            Self::Overtaken(error) => {
                write!(
                    f,
                    "put off by the server ({error}), and a later publication to the topic was published"
                )
            }
            Self::Timeout { limit } => write!(f, "no answer within {limit:?}; it may have been published"),
            Self::Closed => f.write_str("the client was closed"),
            Self::Full { pending, bytes } => {
                write!(f, "{pending} publications of {bytes} bytes wait for an answer, the most that may")
            }
            Self::Topic(e) => e.fmt(f),
            Self::Json(why) => write!(f, "what is to be published as JSON is none: {why}"),
            Self::OwnThread => f.write_str("a callback can't wait for an answer that its own thread brings"),
        }
    }
}

impl std::error::Error for PublishError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused(error) | Self::Overtaken(error) => Some(error),
            Self::Topic(e) => Some(e),
            _ => None,
        }
    }
}
