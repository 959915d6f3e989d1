//! What the endpoint says: answers, and the refusals behind each error code.

use crate::handler::{HandleError, in_millis};
use crate::hub::{InvalidPattern, InvalidTopic, Position, SubscribeError, SubscribeTarget};
use core::fmt;
use serde::{Serialize, Serializer};

/// One message of the endpoint's own. Members as in `docs/reference/protocol.md`.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ServerMessage<'a> {
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
        id: RequestId,
        #[serde(flatten)]
        to: TargetMember<'a>,
        #[serde(flatten)]
        position: Option<WirePosition>,
        recovered: bool,
        replayed: usize,
    },
    Unsubscribed {
        #[serde(flatten)]
        id: RequestId,
        #[serde(flatten)]
        from: TargetMember<'a>,
    },
    Published {
        #[serde(flatten)]
        id: RequestId,
        #[serde(flatten)]
        position: Option<WirePosition>,
        receivers: usize,
        #[serde(skip_serializing_if = "core::ops::Not::not")]
        repeated: bool,
    },
    Lagged {
        messages: u64,
    },
    Pong {
        #[serde(flatten)]
        id: RequestId,
    },
    Error {
        #[serde(flatten)]
        id: RequestId,
        code: &'static str,
        message: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry: Option<u64>,
    },
}

/// A request's name, by the client that made it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct RequestId {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<u64>,
}

/// A topic or a pattern, each as a member of its own.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TargetMember<'a> {
    Topic(&'a str),
    Pattern(&'a str),
}

impl<'a> From<SubscribeTarget<'a>> for TargetMember<'a> {
    fn from(target: SubscribeTarget<'a>) -> Self {
        match target {
            SubscribeTarget::Topic(name) => Self::Topic(name),
            SubscribeTarget::Pattern(name) => Self::Pattern(name),
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct WirePosition {
    #[serde(serialize_with = "hexadecimal")]
    epoch: u64,
    offset: u64,
}

impl From<Position> for WirePosition {
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

impl ServerMessage<'_> {
    pub(super) fn error(id: RequestId, error: &RequestError) -> Self {
        Self::Error { id, code: error.code(), message: error.to_string(), retry: error.retry() }
    }

    pub(super) fn to_json(&self) -> String {
        // Only strings and numbers, which can be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What is wrong with a request.
#[derive(Debug)]
pub(super) enum RequestError {
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

impl RequestError {
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
    pub(super) fn from_subscribe(topic: &str, error: &SubscribeError) -> Self {
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

/// A client's word as a log can take it.
pub(super) fn shorten(text: &str) -> String {
    const MOST: usize = 64;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(e) => write!(f, "not the JSON that is understood here: {e}"),
            Self::Invalid(what) => f.write_str(what),
            Self::Type(name) => {
                let known = "subscribe, unsubscribe, publish and ping are known";
                write!(f, "type {:?} is unknown to this server: {known}", shorten(name))
            }
            Self::Binary => f.write_str("a binary message is no request: send JSON as text"),
            Self::Topic(e) => e.fmt(f),
            Self::Pattern(e) => e.fmt(f),
            Self::Forbidden { topic, what, prefixes } => {
                write!(f, "topic {:?} refused: clients may ", shorten(topic))?;
                match prefixes.as_deref() {
                    None => write!(f, "not {what} it, by the settings of the server's topics"),
                    Some([]) => write!(f, "{what} nothing here"),
                    Some(prefixes) => write!(f, "{what} what begins with {}", prefixes.join(", ")),
                }
            }
            Self::Already { topic } => write!(f, "the connection listens to {:?} already", shorten(topic)),
            Self::NotSubscribed { topic } => {
                write!(f, "the connection does not listen to {:?}", shorten(topic))
            }
            Self::Cancelled { topic } => {
                write!(f, "an unsubscribe came before the subscription to {:?} began", shorten(topic))
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
    fn absent_members_are_omitted() {
        let place = || Some(WirePosition::from(Position::new(u64::MAX, 14)));
        let id = RequestId { id: Some(2) };
        let no = RequestId::default();
        for (reply, expected) in [
            (
                ServerMessage::Subscribed {
                    id,
                    to: TargetMember::Topic("a\"b"),
                    position: place(),
                    recovered: true,
                    replayed: 2,
                },
                r#"{"type":"subscribed","id":2,"topic":"a\"b","epoch":"ffffffffffffffff","offset":14,"recovered":true,"replayed":2}"#,
            ),
            (
                ServerMessage::Unsubscribed { id, from: TargetMember::Pattern("a/*") },
                r#"{"type":"unsubscribed","id":2,"pattern":"a/*"}"#,
            ),
            (
                ServerMessage::Published { id: no, position: None, receivers: 0, repeated: false },
                r#"{"type":"published","receivers":0}"#,
            ),
            (ServerMessage::Pong { id: no }, r#"{"type":"pong"}"#),
            (
                ServerMessage::error(
                    id,
                    &HandleError::RateLimited { retry: Duration::from_micros(1500) }.into(),
                ),
                r#"{"type":"error","id":2,"code":"rate_limited","message":"more is published to the topic than it takes: wait 2 ms","retry":2}"#,
            ),
        ] {
            assert_eq!(reply.to_json(), expected);
        }
    }
}
