//! Reads what a server sends, for clients.

use super::ServerMessage;
use super::delivery::BINARY_VERSION;
use crate::hub::check_topic;
use crate::json::{Integer, MAX_INTEGER, Text, present};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// What a server sent.
#[derive(Debug, PartialEq)]
pub(crate) enum Incoming<'a> {
    Server(ServerMessage<'a>),
    Message {
        topic: Text<'a>,
        offset: u64,
        payload: Payload<'a>,
    },
    /// Several of one topic, oldest first.
    Messages {
        topic: Text<'a>,
        messages: Vec<(u64, Payload<'a>)>,
    },
    /// A `pong`, or what another version of the protocol defines.
    Other,
}

/// The payload of a message.
#[derive(Debug, PartialEq)]
pub(crate) enum Payload<'a> {
    /// JSON as it was published.
    Json(&'a str),
    Text(Text<'a>),
    Binary(Vec<u8>),
}

#[derive(Deserialize)]
struct TypeMember<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
}

#[derive(Deserialize)]
struct TopicMember<'a> {
    #[serde(borrow, deserialize_with = "topic")]
    topic: Text<'a>,
}

#[derive(Deserialize)]
struct MessagesMembers<'a> {
    #[serde(borrow, deserialize_with = "topic")]
    topic: Text<'a>,
    #[serde(borrow)]
    messages: Vec<MessageMembers<'a>>,
}

#[derive(Deserialize)]
struct MessageMembers<'a> {
    offset: Integer,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    text: Option<Text<'a>>,
}

impl<'a> MessageMembers<'a> {
    /// `None`: the payload is of a kind that this version does not know.
    fn into_message(self) -> Option<(u64, Payload<'a>)> {
        let json = || self.data.map(|json| Payload::Json(json.get()));
        Some((self.offset.0, self.text.map(Payload::Text).or_else(json)?))
    }
}

/// Reads a valid topic: a client looks up its patterns, each of them a copy.
fn topic<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Text<'a>, D::Error> {
    let topic = Text::deserialize(deserializer)?;
    check_topic(&topic).map_err(D::Error::custom)?;
    Ok(topic)
}

/// Reads a text message of a server.
///
/// # Errors
/// It is not JSON, or a member is missing or has the wrong type.
pub(crate) fn parse(text: &str) -> Result<Incoming<'_>, serde_json::Error> {
    // A type that this version does not know may have any members, so the type is read first.
    let TypeMember { kind } = serde_json::from_str(text)?;
    Ok(match &*kind {
        "message" => {
            // Not flattened into one struct: serde then loses the raw value.
            let TopicMember { topic } = serde_json::from_str(text)?;
            let message: MessageMembers<'_> = serde_json::from_str(text)?;
            message.into_message().map_or(Incoming::Other, |(offset, payload)| Incoming::Message {
                topic,
                offset,
                payload,
            })
        }
        "messages" => {
            let MessagesMembers { topic, messages } = serde_json::from_str(text)?;
            let messages = messages.into_iter().filter_map(MessageMembers::into_message).collect();
            Incoming::Messages { topic, messages }
        }
        kind => ServerMessage::parse(kind, text)?.map_or(Incoming::Other, Incoming::Server),
    })
}

/// Reads a binary message of a server. The payload stays in `bytes`.
///
/// # Errors
/// It is shorter than its head, or the head is invalid.
pub(crate) fn parse_binary(mut bytes: Vec<u8>) -> Result<Incoming<'static>, String> {
    if bytes.first() != Some(&BINARY_VERSION) {
        return Ok(Incoming::Other);
    }
    let head = || {
        let (&[_, n], rest) = bytes.split_first_chunk()?;
        let (topic, rest) = rest.split_at_checked(usize::from(n))?;
        let (offset, payload) = rest.split_first_chunk()?;
        Some((topic, u64::from_be_bytes(*offset), bytes.len() - payload.len()))
    };
    let Some((topic, offset, start)) = head() else {
        return Err(format!("binary message: {} bytes, shorter than its head", bytes.len()));
    };
    let topic = core::str::from_utf8(topic).map_err(|e| format!("topic of a binary message: {e}"))?;
    check_topic(topic).map_err(|e| e.to_string())?;
    let topic = topic.to_owned().into();
    if offset > MAX_INTEGER {
        return Err(format!("offset of a binary message: {offset}, expected an integer below 2^53"));
    }
    bytes.drain(..start);
    Ok(Incoming::Message { topic, offset, payload: Payload::Binary(bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Message;
    use crate::push_protocol::write_message;
    use proptest::prelude::*;

    #[test]
    fn server_messages_are_parsed_and_unknown_members_ignored() {
        let message = |payload| Incoming::Message { topic: "t\"".to_owned().into(), offset: 13, payload };
        for (text, expected) in [
            (
                r#"{"type":"message","topic":"t\"","offset":13,"data":{"x": 1.0},"new":[]}"#,
                message(Payload::Json(r#"{"x": 1.0}"#)),
            ),
            (r#"{"type":"message","topic":"t\"","offset":13,"data":null}"#, message(Payload::Json("null"))),
            (
                r#"{"type":"message","topic":"t\"","offset":13,"text":"é"}"#,
                message(Payload::Text("é".into())),
            ),
            (
                r#"{"type":"messages","topic":"t","messages":[{"offset":1,"data":[0]},{"offset":3,"text":"x"},{"offset":4,"new":1}]}"#,
                Incoming::Messages {
                    topic: "t".into(),
                    messages: vec![(1, Payload::Json("[0]")), (3, Payload::Text("x".into()))],
                },
            ),
            (
                r#"{"type":"lagged","messages":12,"new":{}}"#,
                Incoming::Server(ServerMessage::Lagged { messages: 12 }),
            ),
            (r#"{"type":"pong","id":"of another kind"}"#, Incoming::Other),
            (r#"{"type":"dance","id":{},"topic":7}"#, Incoming::Other),
        ] {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
        for bad in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"type":null}"#,
            r#"{"type":"message"}"#,
            r#"{"type":"message","topic":"t","offset":9007199254740992,"data":1}"#,
            r#"{"type":"message","topic":"t","offset":1,"text":null}"#,
            r#"{"type":"messages","topic":"t"}"#,
            r#"{"type":"messages","topic":"t","messages":[null]}"#,
            r#"{"type":"lagged"}"#,
            r#"{"type":"lagged","messages":-1}"#,
            r#"{"type":"hello","heartbeat":"soon"}"#,
            r#"{"type":"published","id":null}"#,
            r#"{"type":"error","retry":1.5}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn topics_over_255_bytes_are_refused() {
        for len in [255, 256] {
            let topic = "a/".repeat(len / 2) + &"a"[..len % 2];
            let one = format!(r#"{{"type":"message","topic":"{topic}","offset":1,"data":0}}"#);
            let more = format!(r#"{{"type":"messages","topic":"{topic}","messages":[]}}"#);
            assert_eq!((parse(&one).is_ok(), parse(&more).is_ok()), (len == 255, len == 255));
        }
    }

    #[test]
    fn binary_messages_are_parsed_by_their_head() {
        let whole = b"\x01\x03bel\x00\x00\x00\x00\x00\x00\x00\x0d\xff\xd8";
        let payload = Payload::Binary(vec![0xFF, 0xD8]);
        let expected = Incoming::Message { topic: "bel".into(), offset: 13, payload };
        assert_eq!(parse_binary(whole.to_vec()), Ok(expected));
        for cut in 1..13 {
            assert!(parse_binary(whole[..cut].to_vec()).is_err(), "{cut}");
        }
        for other in [&b""[..], b"\x02", b"\x02\x03bel\x00\x00\x00\x00\x00\x00\x00\x0d"] {
            assert_eq!(parse_binary(other.to_vec()), Ok(Incoming::Other));
        }
        for invalid in [
            &b"\x01\x01\xff\x00\x00\x00\x00\x00\x00\x00\x0d"[..], // not UTF-8
            b"\x01\x00\x00\x00\x00\x00\x00\x00\x00\x0d",          // an empty topic
            b"\x01\x01t\x00\x20\x00\x00\x00\x00\x00\x00",         // 2^53
        ] {
            assert!(parse_binary(invalid.to_vec()).is_err(), "{invalid:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_input_is_parsed_or_refused(text in r#"[\[\]{}",:a-z0-9.\\ -]{0,60}"#, bytes in any::<Vec<u8>>(), n in 0u8..20) {
            let _ = parse(&text);
            for kind in ["message", "messages", "hello", "subscribed", "published", "lagged", "error", "pong"] {
                let _ = parse(&format!(r#"{{"type":"{kind}",{text}}}"#));
            }
            let _ = parse_binary([&[1, n], &bytes[..]].concat());
            let _ = parse_binary(bytes);
        }

        /// A message is read as it was written.
        #[test]
        fn messages_survive_writing_and_reading(topic in "[a-z/é\"]{1,40}", text in any::<String>(), offset in 1u64..1 << 53) {
            let mut out = Vec::new();
            write_message(&mut out, &topic, offset, Message::text(&text));
            let out = String::from_utf8(out).unwrap();
            let expected = Incoming::Message { topic: (&*topic).into(), offset, payload: Payload::Text((&*text).into()) };
            prop_assert_eq!(parse(&out).unwrap(), expected);
        }
    }
}
