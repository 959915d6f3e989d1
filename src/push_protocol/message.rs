//! What a server sends beside messages of topics: `hello`, answers, `lagged`.

use super::{ErrorCode, SUBPROTOCOL, TargetName};
use crate::json::{Integer, Text, present};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A message of a server that is not a topic's.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ServerMessage<'a> {
    Hello(Hello<'a>),
    Subscribed {
        id: Option<u64>,
        target: Option<TargetName<'a>>,
        position: Option<WirePosition<'a>>,
        recovered: bool,
        replayed: u64,
    },
    Unsubscribed {
        id: Option<u64>,
        target: Option<TargetName<'a>>,
    },
    Published {
        id: Option<u64>,
        position: Option<WirePosition<'a>>,
        receivers: u64,
        repeated: bool,
    },
    Lagged {
        messages: u64,
    },
    Pong {
        id: Option<u64>,
    },
    Error {
        id: Option<u64>,
        code: ErrorCode,
        message: Text<'a>,
        retry: Option<u64>,
    },
}

/// The first message on a connection. Times in milliseconds, sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Hello<'a> {
    pub(crate) connection: Text<'a>,
    pub(crate) time: u64,
    pub(crate) heartbeat: u64,
    pub(crate) retry: Option<u64>,
    pub(crate) max_message_size: Option<u64>,
    pub(crate) max_subscriptions: Option<u64>,
}

/// A position in a topic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct WirePosition<'a> {
    pub(crate) epoch: Epoch<'a>,
    pub(crate) offset: u64,
}

/// An epoch: a number for servers, opaque text for clients.
#[derive(Clone, Debug)]
pub(crate) enum Epoch<'a> {
    /// Written in hexadecimal digits, since browsers do not read integers of 64 bits exactly.
    Number(u64),
    Text(Text<'a>),
}

impl Epoch<'_> {
    /// The number, if it is one.
    pub(crate) fn number(&self) -> Option<u64> {
        match self {
            Self::Number(epoch) => Some(*epoch),
            Self::Text(epoch) => u64::from_str_radix(epoch, 16).ok(),
        }
    }
}

impl core::fmt::Display for Epoch<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Number(epoch) => write!(f, "{epoch:x}"),
            Self::Text(epoch) => f.write_str(epoch),
        }
    }
}

impl PartialEq for Epoch<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Serialize for Epoch<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Epoch<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Text::deserialize(deserializer).map(Self::Text)
    }
}

impl From<crate::hub::Position> for WirePosition<'_> {
    fn from(position: crate::hub::Position) -> Self {
        Self { epoch: Epoch::Number(position.epoch), offset: position.offset }
    }
}

/// The members of all these messages, in the order in which they are written. Absent ones are `None`.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Members<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    id: Option<Integer>,
    #[serde(borrow, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    topic: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pattern: Option<Text<'a>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    epoch: Option<Epoch<'a>>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    offset: Option<Integer>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    recovered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    replayed: Option<Integer>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    receivers: Option<Integer>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    repeated: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    messages: Option<Integer>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    code: Option<ErrorCode>,
    #[serde(borrow, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    message: Option<Text<'a>>,
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    protocol: Option<&'static str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    connection: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    time: Option<Integer>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    heartbeat: Option<Integer>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    retry: Option<Integer>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    max_message_size: Option<Integer>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    max_subscriptions: Option<Integer>,
}

impl<'a> Members<'a> {
    fn of(kind: &'static str, id: Option<u64>) -> Self {
        Self { kind: kind.into(), id: id.map(Integer), ..Self::default() }
    }

    fn target(self, target: Option<TargetName<'a>>) -> Self {
        match target {
            None => self,
            Some(TargetName::Topic(topic)) => Self { topic: Some(topic), ..self },
            Some(TargetName::Pattern(pattern)) => Self { pattern: Some(pattern), ..self },
        }
    }

    fn position(self, position: Option<WirePosition<'a>>) -> Self {
        let Some(WirePosition { epoch, offset }) = position else { return self };
        Self { epoch: Some(epoch), offset: Some(Integer(offset)), ..self }
    }
}

impl<'a> From<ServerMessage<'a>> for Members<'a> {
    fn from(message: ServerMessage<'a>) -> Self {
        let integer = |n| Some(Integer(n));
        match message {
            ServerMessage::Hello(hello) => Self {
                protocol: Some(SUBPROTOCOL),
                connection: Some(hello.connection),
                time: integer(hello.time),
                heartbeat: integer(hello.heartbeat),
                retry: hello.retry.map(Integer),
                max_message_size: hello.max_message_size.map(Integer),
                max_subscriptions: hello.max_subscriptions.map(Integer),
                ..Self::of("hello", None)
            },
            ServerMessage::Subscribed { id, target, position, recovered, replayed } => Self {
                recovered: Some(recovered),
                replayed: integer(replayed),
                ..Self::of("subscribed", id).target(target).position(position)
            },
            ServerMessage::Unsubscribed { id, target } => Self::of("unsubscribed", id).target(target),
            ServerMessage::Published { id, position, receivers, repeated } => Self {
                receivers: integer(receivers),
                repeated: repeated.then_some(true),
                ..Self::of("published", id).position(position)
            },
            ServerMessage::Lagged { messages } => {
                Self { messages: integer(messages), ..Self::of("lagged", None) }
            }
            ServerMessage::Pong { id } => Self::of("pong", id),
            ServerMessage::Error { id, code, message, retry } => Self {
                code: Some(code),
                message: Some(message),
                retry: retry.map(Integer),
                ..Self::of("error", id)
            },
        }
    }
}

impl<'a> ServerMessage<'a> {
    /// The message as it is sent.
    pub(crate) fn into_json(self) -> String {
        // Only strings, integers and booleans, which can be written.
        serde_json::to_string(&Members::from(self)).unwrap_or_default()
    }

    /// Reads a message of the type `kind`; `None` if it is not one of these.
    ///
    /// # Errors
    /// A member is missing or has the wrong type.
    #[cfg(feature = "client")]
    pub(super) fn parse(kind: &str, text: &'a str) -> Result<Option<Self>, serde_json::Error> {
        let is_known =
            ["hello", "subscribed", "unsubscribed", "published", "lagged", "error"].contains(&kind);
        if !is_known {
            return Ok(None);
        }
        let members: Members<'a> = serde_json::from_str(text)?;
        let integer = |n: Option<Integer>| n.map(|Integer(n)| n);
        let id = integer(members.id);
        let position = members.epoch.zip(integer(members.offset));
        let position = position.map(|(epoch, offset)| WirePosition { epoch, offset });
        let topic = members.topic.map(TargetName::Topic);
        let target = topic.or_else(|| members.pattern.map(TargetName::Pattern));
        Ok(Some(match kind {
            "hello" => Self::Hello(Hello {
                connection: members.connection.unwrap_or_default(),
                time: integer(members.time).unwrap_or_default(),
                heartbeat: integer(members.heartbeat).unwrap_or_default(),
                retry: integer(members.retry),
                max_message_size: integer(members.max_message_size),
                max_subscriptions: integer(members.max_subscriptions),
            }),
            "subscribed" => Self::Subscribed {
                id,
                target,
                position,
                recovered: members.recovered.unwrap_or_default(),
                replayed: integer(members.replayed).unwrap_or_default(),
            },
            "unsubscribed" => Self::Unsubscribed { id, target },
            "published" => Self::Published {
                id,
                position,
                receivers: integer(members.receivers).unwrap_or_default(),
                repeated: members.repeated.unwrap_or_default(),
            },
            "lagged" => match members.messages {
                Some(Integer(messages)) => Self::Lagged { messages },
                None => return Err(serde_json::Error::missing_field("messages")),
            },
            _ => Self::Error {
                id,
                code: members.code.unwrap_or_else(|| ErrorCode::new("")),
                message: members.message.unwrap_or_default(),
                retry: integer(members.retry),
            },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Position;

    fn messages() -> Vec<(ServerMessage<'static>, &'static str)> {
        let position = || Some(WirePosition::from(Position::new(u64::MAX, 14)));
        let id = Some(2);
        vec![
            (
                ServerMessage::Hello(Hello {
                    connection: "0.17.3".into(),
                    time: 1_767_225_600_000,
                    heartbeat: 25_000,
                    retry: Some(1_000),
                    max_message_size: Some(65_536),
                    max_subscriptions: Some(128),
                }),
                r#"{"type":"hello","protocol":"campanile.v1.json","connection":"0.17.3","time":1767225600000,"heartbeat":25000,"retry":1000,"max_message_size":65536,"max_subscriptions":128}"#,
            ),
            (
                ServerMessage::Subscribed {
                    id,
                    target: Some(TargetName::Topic("a\"b".into())),
                    position: position(),
                    recovered: true,
                    replayed: 2,
                },
                r#"{"type":"subscribed","id":2,"topic":"a\"b","epoch":"ffffffffffffffff","offset":14,"recovered":true,"replayed":2}"#,
            ),
            (
                ServerMessage::Unsubscribed { id, target: Some(TargetName::Pattern("a/*".into())) },
                r#"{"type":"unsubscribed","id":2,"pattern":"a/*"}"#,
            ),
            (
                ServerMessage::Published { id: None, position: None, receivers: 0, repeated: false },
                r#"{"type":"published","receivers":0}"#,
            ),
            (
                ServerMessage::Published { id, position: position(), receivers: 3, repeated: true },
                r#"{"type":"published","id":2,"epoch":"ffffffffffffffff","offset":14,"receivers":3,"repeated":true}"#,
            ),
            (ServerMessage::Lagged { messages: 12 }, r#"{"type":"lagged","messages":12}"#),
            (
                ServerMessage::Error {
                    id,
                    code: ErrorCode::RateLimited,
                    message: "wait".into(),
                    retry: Some(2),
                },
                r#"{"type":"error","id":2,"code":"rate_limited","message":"wait","retry":2}"#,
            ),
        ]
    }

    #[test]
    fn absent_members_are_omitted() {
        for (message, text) in messages() {
            assert_eq!(message.into_json(), text);
        }
        assert_eq!(ServerMessage::Pong { id: None }.into_json(), r#"{"type":"pong"}"#);
    }

    #[cfg(feature = "client")]
    #[test]
    fn messages_are_read_as_they_were_written() {
        for (message, text) in messages() {
            let kind = serde_json::from_str::<serde_json::Value>(text).unwrap();
            let read = ServerMessage::parse(kind["type"].as_str().unwrap(), text).unwrap();
            assert_eq!(read, Some(message), "{text}");
        }
    }
}
