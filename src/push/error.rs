//! Why a request is refused.

use crate::handler::{HandleError, in_millis};
use crate::hub::{InvalidPattern, InvalidTopic, SubscribeError};
use crate::json::shorten;
use crate::push_protocol::{ErrorCode, ParseError, ServerMessage};
use core::fmt;

/// Why a request is refused.
#[derive(Debug)]
pub(super) enum RequestError {
    Parse(ParseError),
    Binary,
    Topic(InvalidTopic),
    Pattern(InvalidPattern),
    Forbidden { topic: String, action: &'static str, prefixes: Option<Vec<String>> },
    Already { topic: String },
    NotSubscribed { topic: String },
    Cancelled { topic: String },
    Subscriptions { limit: usize },
    TooBig(HandleError),
    RateLimited(HandleError),
    Busy(HandleError),
}

/// Milliseconds after which a request that found a full mailbox may be sent again.
const BUSY: u64 = 100;

impl RequestError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Parse(e) => e.code(),
            Self::Binary => ErrorCode::Binary,
            Self::Topic(_) => ErrorCode::Topic,
            Self::Pattern(_) => ErrorCode::Pattern,
            Self::Forbidden { .. } => ErrorCode::Forbidden,
            Self::Already { .. } => ErrorCode::Already,
            Self::NotSubscribed { .. } => ErrorCode::NotSubscribed,
            Self::Cancelled { .. } => ErrorCode::Cancelled,
            Self::Subscriptions { .. } => ErrorCode::Subscriptions,
            Self::RateLimited(_) => ErrorCode::RateLimited,
            Self::TooBig(_) => ErrorCode::TooBig,
            Self::Busy(_) => ErrorCode::Busy,
        }
    }

    /// The answer to the request.
    pub(super) fn answer(&self, id: Option<u64>) -> ServerMessage<'static> {
        ServerMessage::Error { id, code: self.code(), message: self.to_string().into(), retry: self.retry() }
    }

    /// The error of a subscription.
    pub(super) fn from_subscribe(topic: &str, error: &SubscribeError) -> Self {
        let topic = topic.to_owned();
        match error {
            SubscribeError::Topic(e) => Self::Topic(e.clone()),
            SubscribeError::Pattern(e) => Self::Pattern(e.clone()),
            SubscribeError::TooMany { limit } => Self::Subscriptions { limit: *limit },
            SubscribeError::Already => Self::Already { topic },
            SubscribeError::Cancelled => Self::Cancelled { topic },
            SubscribeError::PatternStart | SubscribeError::Closed => {
                Self::Parse(ParseError::Invalid(error.to_string()))
            }
        }
    }

    /// Milliseconds after which the same request may be sent again.
    fn retry(&self) -> Option<u64> {
        match self {
            Self::RateLimited(HandleError::RateLimited { retry }) => Some(in_millis(*retry)),
            Self::Busy(_) => Some(BUSY),
            _ => None,
        }
    }
}

impl From<ParseError> for RequestError {
    fn from(error: ParseError) -> Self {
        Self::Parse(error)
    }
}

impl From<HandleError> for RequestError {
    fn from(error: HandleError) -> Self {
        match error {
            HandleError::Topic(topic) => Self::Topic(topic),
            HandleError::Pattern(pattern) => Self::Pattern(pattern),
            HandleError::TooBig { .. } => Self::TooBig(error),
            HandleError::RateLimited { .. } => Self::RateLimited(error),
            other => Self::Busy(other),
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parse(e) => e.fmt(f),
            Self::Binary => f.write_str("request: expected JSON in a text message, got a binary message"),
            Self::Topic(e) => e.fmt(f),
            Self::Pattern(e) => e.fmt(f),
            Self::Forbidden { topic, action, prefixes } => {
                write!(f, "topic: {:?} refused, clients may ", shorten(topic))?;
                match prefixes.as_deref() {
                    None => write!(f, "not {action} it by the settings of the server's topics"),
                    Some([]) => write!(f, "{action} no topic here"),
                    Some(prefixes) => write!(f, "{action} topics that begin with {}", prefixes.join(", ")),
                }
            }
            Self::Already { topic } => {
                write!(f, "topic: the connection is subscribed to {:?} already", shorten(topic))
            }
            Self::NotSubscribed { topic } => {
                write!(f, "topic: the connection is not subscribed to {:?}", shorten(topic))
            }
            Self::Cancelled { topic } => {
                write!(f, "topic: the subscription to {:?} was ended before it began", shorten(topic))
            }
            Self::Subscriptions { limit } => {
                write!(f, "subscriptions: at most {limit} are allowed; unsubscribe from another topic")
            }
            Self::TooBig(e) | Self::RateLimited(e) | Self::Busy(e) => e.fmt(f),
        }
    }
}
