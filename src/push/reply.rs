//! What the endpoint says: answers, and the refusals behind each error code.

use crate::handler::{HandleError, in_millis};
use crate::hub::{InvalidPattern, InvalidTopic, Position, SubscribeError, SubscribeTarget};
use core::fmt;
use serde::{Serialize, Serializer};

/// One message of the endpoint's own. Members as in `docs/reference/protocol.md`.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Reply<'a> {
    Hello {
        protocol: &'static str,
        connection: &'a str,
        time: u64,
        heartbeat: u64,
        retry: u64,
        max_message_size: usize,
        max_subscriptions: usize,
    },
    Subscribed {
        #[serde(flatten)]
        id: Id,
        #[serde(flatten)]
        to: Member<'a>,
        #[serde(flatten)]
        position: Option<Place>,
        recovered: bool,
        replayed: usize,
    },
    Unsubscribed {
        #[serde(flatten)]
        id: Id,
        #[serde(flatten)]
        from: Member<'a>,
    },
    Published {
        #[serde(flatten)]
        id: Id,
        #[serde(flatten)]
        position: Option<Place>,
        receivers: usize,
        #[serde(skip_serializing_if = "core::ops::Not::not")]
        repeated: bool,
    },
    Lagged {
        messages: u64,
    },
    Pong {
        #[serde(flatten)]
        id: Id,
    },
    Error {
        #[serde(flatten)]
        id: Id,
        code: &'static str,
        message: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry: Option<u64>,
    },
}

/// A request's name, by the client that made it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Id {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<u64>,
}

/// A topic or a pattern, each as a member of its own.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Member<'a> {
    Topic(&'a str),
    Pattern(&'a str),
}

impl<'a> From<SubscribeTarget<'a>> for Member<'a> {
    fn from(target: SubscribeTarget<'a>) -> Self {
        match target {
            SubscribeTarget::Topic(name) => Self::Topic(name),
            SubscribeTarget::Pattern(name) => Self::Pattern(name),
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Place {
    #[serde(serialize_with = "hexadecimal")]
    epoch: u64,
    offset: u64,
}

impl From<Position> for Place {
    fn from(position: Position) -> Self {
        Self { epoch: position.epoch, offset: position.offset }
    }
}

/// Numbers of 64 bits don't survive a browser; strings do.
fn hexadecimal<S: Serializer>(epoch: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{epoch:x}"))
}

/// A string as JSON has it, quotation marks included.
pub(super) fn write_string(out: &mut Vec<u8>, text: &str) {
    let _ = serde_json::to_writer(out, text); // a string can be written, and a Vec takes all
}

impl Reply<'_> {
    pub(super) fn error(id: Id, fault: &Fault) -> Self {
        Self::Error { id, code: fault.code(), message: fault.to_string(), retry: fault.retry() }
    }

    pub(super) fn to_json(&self) -> String {
        // Only strings and numbers, which can be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What is wrong with a request.
#[derive(Debug)]
pub(super) enum Fault {
    Json(serde_json::Error),
    Invalid(String),
    Type(String),
    Binary,
    Topic(InvalidTopic),
    Pattern(InvalidPattern),
    Forbidden { topic: String, what: &'static str, prefixes: Option<Vec<String>> },
    Already { topic: String },
    NotSubscribed { topic: String },
    Cancelled { topic: String },
    Subscriptions { limit: usize },
    TooBig(HandleError),
    RateLimited(HandleError),
    Busy(HandleError),
}

/// Milliseconds between two tries of what found a full mailbox.
const BUSY: u64 = 100;

impl Fault {
    pub(super) const fn code(&self) -> &'static str {
        match self {
            Self::Json(_) => "json",
            Self::Invalid(_) => "invalid",
            Self::Type(_) => "type",
            Self::Binary => "binary",
            Self::Topic(_) => "topic",
            Self::Pattern(_) => "pattern",
            Self::Forbidden { .. } => "forbidden",
            Self::Already { .. } => "already",
            Self::NotSubscribed { .. } => "not_subscribed",
            Self::Cancelled { .. } => "cancelled",
            Self::Subscriptions { .. } => "subscriptions",
            Self::RateLimited(_) => "rate_limited",
            Self::TooBig(_) => "too_big",
            Self::Busy(_) => "busy",
        }
    }

    /// Why a client is not subscribed to a topic.
    pub(super) fn of_subscription(topic: &str, error: &SubscribeError) -> Self {
        let topic = topic.to_owned();
        match error {
            SubscribeError::Topic(e) => Self::Topic(e.clone()),
            SubscribeError::Pattern(e) => Self::Pattern(e.clone()),
            SubscribeError::TooMany { limit } => Self::Subscriptions { limit: *limit },
            SubscribeError::Already => Self::Already { topic },
            SubscribeError::Cancelled => Self::Cancelled { topic },
            SubscribeError::PatternStart | SubscribeError::Closed => Self::Invalid(error.to_string()),
        }
    }

    /// After how many milliseconds the same request may work.
    fn retry(&self) -> Option<u64> {
        match self {
            Self::RateLimited(HandleError::RateLimited { retry }) => Some(in_millis(*retry)),
            Self::Busy(_) => Some(BUSY),
            _ => None,
        }
    }
}

impl From<HandleError> for Fault {
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

/// A client's word as a log can take it.
pub(super) fn cut(text: &str) -> String {
    const MOST: usize = 64;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(e) => write!(f, "not the JSON that is understood here: {e}"),
            Self::Invalid(what) => f.write_str(what),
            Self::Type(name) => {
                let known = "subscribe, unsubscribe, publish and ping are known";
                write!(f, "type {:?} is unknown to this server: {known}", cut(name))
            }
            Self::Binary => f.write_str("a binary message is no request: send JSON as text"),
            Self::Topic(e) => e.fmt(f),
            Self::Pattern(e) => e.fmt(f),
            Self::Forbidden { topic, what, prefixes } => {
                write!(f, "topic {:?} refused: clients may ", cut(topic))?;
                match prefixes.as_deref() {
                    None => write!(f, "not {what} it, by the settings of the server's topics"),
                    Some([]) => write!(f, "{what} nothing here"),
                    Some(prefixes) => write!(f, "{what} what begins with {}", prefixes.join(", ")),
                }
            }
            Self::Already { topic } => write!(f, "the connection listens to {:?} already", cut(topic)),
            Self::NotSubscribed { topic } => write!(f, "the connection does not listen to {:?}", cut(topic)),
            Self::Cancelled { topic } => {
                write!(f, "an unsubscribe came before the subscription to {:?} began", cut(topic))
            }
            Self::Subscriptions { limit } => {
                write!(
                    f,
                    "the connection has {limit} subscriptions, the most it may: unsubscribe from something"
                )
            }
            Self::TooBig(e) | Self::RateLimited(e) | Self::Busy(e) => e.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    #[test]
    fn what_is_not_there_is_left_out() {
        let place = || Some(Place::from(Position::new(u64::MAX, 14)));
        let id = Id { id: Some(2) };
        let no = Id::default();
        for (reply, expected) in [
            (
                Reply::Subscribed {
                    id,
                    to: Member::Topic("a\"b"),
                    position: place(),
                    recovered: true,
                    replayed: 2,
                },
                r#"{"type":"subscribed","id":2,"topic":"a\"b","epoch":"ffffffffffffffff","offset":14,"recovered":true,"replayed":2}"#,
            ),
            (
                Reply::Unsubscribed { id, from: Member::Pattern("a/*") },
                r#"{"type":"unsubscribed","id":2,"pattern":"a/*"}"#,
            ),
            (
                Reply::Published { id: no, position: None, receivers: 0, repeated: false },
                r#"{"type":"published","receivers":0}"#,
            ),
            (Reply::Pong { id: no }, r#"{"type":"pong"}"#),
            (
                Reply::error(id, &HandleError::RateLimited { retry: Duration::from_micros(1500) }.into()),
                r#"{"type":"error","id":2,"code":"rate_limited","message":"more is published to the topic than it takes: wait 2 ms","retry":2}"#,
            ),
        ] {
            assert_eq!(reply.to_json(), expected);
        }
    }
}
