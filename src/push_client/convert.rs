//! `campanile.v1.json` from the client's side: requests to text, and what the server says to values. Pure.

use super::error::ServerError;
use super::event::{Data, Hello};
use super::publication::Publication;
use super::{Position, Published};
use crate::hub::{SubscribeTarget, check_topic};
use crate::push::bounds::{HEARTBEAT, HELLO_RETRY};
use core::ops::RangeInclusive;
use core::time::Duration;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::sync::Arc;

/// The version of the head before bytes, see `docs/reference/protocol.md`.
const BINARY_VERSION: u8 = 1;

/// What can be asked for. Members that are not given are left out.
#[derive(Default, Serialize)]
struct RequestMembers<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Since<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latest: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<u32>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    tags: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    echo: Option<bool>,
}

#[derive(Serialize)]
struct Since<'a> {
    epoch: &'a str,
    offset: u64,
}

/// Where a subscription begins, on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WireStart<'a> {
    Live,
    Since(&'a Position),
    Latest,
    Last(u32),
}

pub(super) const PING: &str = r#"{"type":"ping"}"#;

fn encode(request: &RequestMembers<'_>) -> String {
    // Only strings and numbers, and JSON that was checked: all of it can be written.
    serde_json::to_string(request).unwrap_or_default()
}

/// The members that name what a subscription is to.
const fn target_members<'a>(target: SubscribeTarget<'a>) -> (Option<&'a str>, Option<&'a str>) {
    match target {
        SubscribeTarget::Topic(topic) => (Some(topic), None),
        SubscribeTarget::Pattern(pattern) => (None, Some(pattern)),
    }
}

pub(super) fn subscribe(id: u64, to: SubscribeTarget<'_>, begin: WireStart<'_>, tags: &[String]) -> String {
    let (topic, pattern) = target_members(to);
    let mut request =
        RequestMembers { kind: "subscribe", id, topic, pattern, tags, ..RequestMembers::default() };
    match begin {
        WireStart::Live => {}
        WireStart::Since(place) => request.since = Some(Since { epoch: &place.epoch, offset: place.offset }),
        WireStart::Latest => request.latest = Some(true),
        WireStart::Last(n) => request.last = Some(n),
    }
    encode(&request)
}

pub(super) fn unsubscribe(id: u64, from: SubscribeTarget<'_>) -> String {
    let (topic, pattern) = target_members(from);
    encode(&RequestMembers { kind: "unsubscribe", id, topic, pattern, ..RequestMembers::default() })
}

/// `name` is the publication's own where it has none.
pub(super) fn publish(
    id: u64,
    publication: &Publication<'_>,
    name: &str,
) -> Result<String, serde_json::Error> {
    let json = if publication.is_json { Some(serde_json::from_str(publication.content)?) } else { None };
    Ok(encode(&RequestMembers {
        kind: "publish",
        id,
        topic: Some(publication.topic),
        data: json,
        text: (!publication.is_json).then_some(publication.content),
        key: publication.key,
        idempotency_key: Some(publication.idempotency_key.unwrap_or(name)),
        ttl: publication.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).clamp(1, MAX_TTL)),
        echo: (!publication.echo).then_some(false),
        tags: &publication.tags,
        ..RequestMembers::default()
    }))
}

/// Milliseconds.
const MAX_TTL: u64 = u32::MAX as u64;

/// What the server says.
#[derive(Debug, PartialEq)]
pub(super) enum ServerMessage {
    Hello(Hello),
    Subscribed {
        id: Option<u64>,
        position: Option<Position>,
        recovered: bool,
        replayed: u64,
    },
    Unsubscribed {
        id: Option<u64>,
    },
    Published {
        id: Option<u64>,
        published: Published,
    },
    Message {
        topic: Arc<str>,
        offset: u64,
        data: Data,
    },
    /// Several of one topic, oldest first.
    Messages {
        topic: Arc<str>,
        messages: Vec<(u64, Data)>,
    },
    Lagged {
        messages: u64,
    },
    Error {
        id: Option<u64>,
        error: ServerError,
    },
    /// A pong, or what another version of the server says.
    Other,
}

#[derive(Deserialize)]
struct TypeMember<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
}

/// An integer of the protocol's, below 2^53.
#[derive(Clone, Copy, Default)]
struct Integer(u64);

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let n = u64::deserialize(deserializer)?;
        if n > MAX_INTEGER {
            return Err(serde::de::Error::custom(format_args!("expected an integer below 2^53, got {n}")));
        }
        Ok(Self(n))
    }
}

const MAX_INTEGER: u64 = (1 << 53) - 1;

/// All members of all messages but those with a payload.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct ServerMembers {
    #[serde(deserialize_with = "present")]
    id: Option<Integer>,
    #[serde(deserialize_with = "present")]
    epoch: Option<String>,
    #[serde(deserialize_with = "present")]
    offset: Option<Integer>,
    recovered: bool,
    replayed: Integer,
    receivers: Integer,
    repeated: bool,
    #[serde(deserialize_with = "present")]
    messages: Option<Integer>,
    code: String,
    message: String,
    #[serde(deserialize_with = "present")]
    retry: Option<Integer>,
    connection: String,
    time: Integer,
    heartbeat: Integer,
    #[serde(deserialize_with = "present")]
    max_message_size: Option<Integer>,
    #[serde(deserialize_with = "present")]
    max_subscriptions: Option<Integer>,
}

#[derive(Deserialize)]
struct TopicMember {
    #[serde(deserialize_with = "topic")]
    topic: Arc<str>,
}

#[derive(Deserialize)]
struct MessagesMembers<'a> {
    #[serde(deserialize_with = "topic")]
    topic: Arc<str>,
    #[serde(borrow)]
    messages: Vec<MessageMembers<'a>>,
}

#[derive(Deserialize)]
struct MessageMembers<'a> {
    offset: Integer,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "present")]
    text: Option<String>,
}

impl MessageMembers<'_> {
    /// `None`: its payload is of a kind that is not known here.
    fn into_message(self) -> Option<(u64, Data)> {
        let json = || self.data.map(|json| Data::Json(json.get().to_owned()));
        Some((self.offset.0, self.text.map(Data::Text).or_else(json)?))
    }
}

/// A member that is there: `null` is a payload like any other, and a wrong type everywhere else.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A name that a topic can have here. Its patterns are looked for, each of them a copy.
fn topic<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    let topic = String::deserialize(deserializer)?;
    check_topic(&topic).map_err(serde::de::Error::custom)?;
    Ok(topic.into())
}

pub(super) fn parse(text: &str) -> Result<ServerMessage, serde_json::Error> {
    // A type that is not known here may have any members, so this comes first.
    let TypeMember { kind } = serde_json::from_str(text)?;
    match &*kind {
        "message" => {
            // Not flattened into one: serde then loses the raw value.
            let topic = serde_json::from_str(text).map(|TopicMember { topic }| topic)?;
            let content: MessageMembers<'_> = serde_json::from_str(text)?;
            let message = content.into_message();
            Ok(message.map_or(ServerMessage::Other, |(offset, data)| ServerMessage::Message {
                topic,
                offset,
                data,
            }))
        }
        "messages" => {
            let MessagesMembers { topic, messages } = serde_json::from_str(text)?;
            let messages = messages.into_iter().filter_map(MessageMembers::into_message).collect();
            Ok(ServerMessage::Messages { topic, messages })
        }
        "hello" | "subscribed" | "unsubscribed" | "published" | "lagged" | "error" => {
            from_members(&kind, serde_json::from_str(text)?)
        }
        _ => Ok(ServerMessage::Other),
    }
}

fn from_members(kind: &str, members: ServerMembers) -> Result<ServerMessage, serde_json::Error> {
    let ServerMembers { id, epoch, offset, recovered, replayed, receivers, repeated, retry, .. } = members;
    let id = id.map(|Integer(id)| id);
    let retry = retry.map(|Integer(retry)| Duration::from_millis(retry));
    let position = epoch.zip(offset).map(|(epoch, Integer(offset))| Position::new(&epoch, offset));
    let size =
        |size: Option<Integer>| size.and_then(|Integer(n)| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let clamp = |time: Duration, bounds: RangeInclusive<Duration>| time.clamp(*bounds.start(), *bounds.end());
    Ok(match kind {
        "hello" => ServerMessage::Hello(Hello {
            connection: members.connection,
            time: Duration::from_millis(members.time.0),
            heartbeat: match members.heartbeat.0 {
                0 => Duration::ZERO,
                heartbeat => clamp(Duration::from_millis(heartbeat), HEARTBEAT),
            },
            max_message_size: size(members.max_message_size),
            max_subscriptions: size(members.max_subscriptions),
            retry: retry.map(|retry| clamp(retry, HELLO_RETRY)),
        }),
        "subscribed" => ServerMessage::Subscribed { id, position, recovered, replayed: replayed.0 },
        "unsubscribed" => ServerMessage::Unsubscribed { id },
        "published" => ServerMessage::Published {
            id,
            published: Published { position, receivers: receivers.0, repeated },
        },
        "lagged" => match members.messages {
            Some(Integer(messages)) => ServerMessage::Lagged { messages },
            None => return Err(serde::de::Error::missing_field("messages")),
        },
        _ => ServerMessage::Error { id, error: ServerError::new(&members.code, members.message, retry) },
    })
}

/// A binary message; `Other` for another version.
///
/// # Errors
/// It is cut, or its head has what can't be there.
pub(super) fn parse_binary(mut bytes: Vec<u8>) -> Result<ServerMessage, String> {
    if bytes.first() != Some(&BINARY_VERSION) {
        return Ok(ServerMessage::Other);
    }
    let head = || {
        let (&[_, n], rest) = bytes.split_first_chunk()?;
        let (topic, rest) = rest.split_at_checked(usize::from(n))?;
        let (offset, payload) = rest.split_first_chunk()?;
        Some((topic, u64::from_be_bytes(*offset), bytes.len() - payload.len()))
    };
    let Some((topic, offset, start)) = head() else {
        return Err(format!("a binary message of {} bytes, which is shorter than its head", bytes.len()));
    };
    let topic = core::str::from_utf8(topic).map_err(|e| format!("the topic of a binary message: {e}"))?;
    check_topic(topic).map_err(|e| e.to_string())?;
    let topic = topic.into();
    if offset > MAX_INTEGER {
        return Err(format!("the offset {offset} of a binary message: expected an integer below 2^53"));
    }
    bytes.drain(..start);
    Ok(ServerMessage::Message { topic, offset, data: Data::Binary(bytes) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push_client::ErrorCode;
    use proptest::prelude::*;

    #[test]
    fn requests_contain_only_the_given_members() {
        let place = Position::new("1f", 12);
        let tags = ["a".to_owned(), "b\"".to_owned()];
        for (got, expected) in [
            (
                subscribe(1, SubscribeTarget::Topic("t"), WireStart::Live, &[]),
                r#"{"type":"subscribe","id":1,"topic":"t"}"#,
            ),
            (
                subscribe(2, SubscribeTarget::Topic("t"), WireStart::Since(&place), &tags),
                r#"{"type":"subscribe","id":2,"topic":"t","since":{"epoch":"1f","offset":12},"tags":["a","b\""]}"#,
            ),
            (
                subscribe(3, SubscribeTarget::Topic("t"), WireStart::Latest, &[]),
                r#"{"type":"subscribe","id":3,"topic":"t","latest":true}"#,
            ),
            (
                subscribe(4, SubscribeTarget::Topic("t"), WireStart::Last(5), &[]),
                r#"{"type":"subscribe","id":4,"topic":"t","last":5}"#,
            ),
            (unsubscribe(5, SubscribeTarget::Topic("t")), r#"{"type":"unsubscribe","id":5,"topic":"t"}"#),
            (
                subscribe(6, SubscribeTarget::Pattern("t/*"), WireStart::Live, &[]),
                r#"{"type":"subscribe","id":6,"pattern":"t/*"}"#,
            ),
            (
                unsubscribe(7, SubscribeTarget::Pattern("t/*")),
                r#"{"type":"unsubscribe","id":7,"pattern":"t/*"}"#,
            ),
        ] {
            assert_eq!(got, expected);
        }
        let text = Publication::text("t", "\"ding\"\n");
        assert_eq!(
            publish(6, &text, "own").unwrap(),
            r#"{"type":"publish","id":6,"topic":"t","text":"\"ding\"\n","idempotency_key":"own"}"#
        );
        let ttl = Duration::from_micros(1);
        let json = Publication::json("t", r#"{"x": 1.0}"#)
            .key("k")
            .idempotency_key("d")
            .ttl(ttl)
            .echo(false)
            .tags(["a"]);
        assert_eq!(
            publish(7, &json, "own").unwrap(),
            r#"{"type":"publish","id":7,"topic":"t","tags":["a"],"data":{"x": 1.0},"key":"k","idempotency_key":"d","ttl":1,"echo":false}"#
        );
        for no_json in ["", "{", r#"1,"topic":"other""#, "1 2"] {
            assert!(publish(8, &Publication::json("t", no_json), "own").is_err(), "{no_json}");
        }
    }

    #[test]
    fn server_messages_are_parsed_and_unknown_members_ignored() {
        let message = |data| ServerMessage::Message { topic: "t\"".into(), offset: 13, data };
        for (text, expected) in [
            (
                r#"{"type":"message","topic":"t\"","offset":13,"data":{"x": 1.0},"new":[]}"#,
                message(Data::Json(r#"{"x": 1.0}"#.into())),
            ),
            (
                r#"{"type":"message","topic":"t\"","offset":13,"data":null}"#,
                message(Data::Json("null".into())),
            ),
            (r#"{"type":"message","topic":"t\"","offset":13,"text":"é"}"#, message(Data::Text("é".into()))),
            (
                r#"{"type":"subscribed","id":2,"topic":"t","epoch":"1f","offset":14,"recovered":true,"replayed":2}"#,
                ServerMessage::Subscribed {
                    id: Some(2),
                    position: Some(Position::new("1f", 14)),
                    recovered: true,
                    replayed: 2,
                },
            ),
            (
                r#"{"type":"published","id":9,"receivers":0}"#,
                ServerMessage::Published {
                    id: Some(9),
                    published: Published { position: None, receivers: 0, repeated: false },
                },
            ),
            (
                r#"{"type":"messages","topic":"t","messages":[{"offset":1,"data":[0]},{"offset":3,"text":"x"},{"offset":4,"new":1}]}"#,
                ServerMessage::Messages {
                    topic: "t".into(),
                    messages: vec![(1, Data::Json("[0]".into())), (3, Data::Text("x".into()))],
                },
            ),
            (r#"{"type":"lagged","messages":12}"#, ServerMessage::Lagged { messages: 12 }),
            (
                r#"{"type":"error","id":6,"code":"rate_limited","message":"wait","retry":20}"#,
                ServerMessage::Error {
                    id: Some(6),
                    error: ServerError::new("rate_limited", "wait".into(), Some(Duration::from_millis(20))),
                },
            ),
            (r#"{"type":"pong","id":"of another kind"}"#, ServerMessage::Other),
            (r#"{"type":"dance","id":{},"topic":7}"#, ServerMessage::Other),
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
        let error = ServerError::new("brand_new", "x".into(), None);
        assert_eq!(error.code, ErrorCode::Other("brand_new".into()));
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
    fn hello_sets_heartbeat_and_retry_within_bounds() {
        let hello = |text: &str| match parse(text) {
            Ok(ServerMessage::Hello(hello)) => hello,
            other => panic!("{other:?}"),
        };
        let full = hello(
            r#"{"type":"hello","protocol":"campanile.v1.json","connection":"0.17.3","time":1767225600000,"heartbeat":25000,"max_message_size":65536,"max_subscriptions":128,"retry":2000}"#,
        );
        assert_eq!((full.heartbeat, full.retry), (Duration::from_secs(25), Some(Duration::from_secs(2))));
        assert_eq!((full.max_message_size, full.max_subscriptions), (65_536, 128));
        assert_eq!(hello(r#"{"type":"hello"}"#).retry, None);
        let (day, most) = (Duration::from_secs(86_400), (1u64 << 53) - 1);
        for (said, heartbeat, retry) in [
            (0, Duration::ZERO, Duration::from_millis(10)),
            (1, Duration::from_secs(1), Duration::from_millis(10)),
            (most, day, day),
        ] {
            let text = format!(r#"{{"type":"hello","heartbeat":{said},"retry":{said}}}"#);
            let hello = hello(&text);
            assert_eq!((hello.heartbeat, hello.retry), (heartbeat, Some(retry)), "{said}");
        }
    }

    #[test]
    fn binary_messages_are_parsed_by_their_head() {
        let whole = b"\x01\x03bel\x00\x00\x00\x00\x00\x00\x00\x0d\xff\xd8";
        let expected =
            ServerMessage::Message { topic: "bel".into(), offset: 13, data: Data::Binary(vec![0xFF, 0xD8]) };
        assert_eq!(parse_binary(whole.to_vec()), Ok(expected));
        for cut in 1..13 {
            assert!(parse_binary(whole[..cut].to_vec()).is_err(), "{cut}");
        }
        for other in [&b""[..], b"\x02", b"\x02\x03bel\x00\x00\x00\x00\x00\x00\x00\x0d"] {
            assert_eq!(parse_binary(other.to_vec()), Ok(ServerMessage::Other));
        }
        for odd in [
            &b"\x01\x01\xff\x00\x00\x00\x00\x00\x00\x00\x0d"[..], // no UTF-8
            b"\x01\x00\x00\x00\x00\x00\x00\x00\x00\x0d",          // no name
            b"\x01\x01t\x00\x20\x00\x00\x00\x00\x00\x00",         // 2^53
        ] {
            assert!(parse_binary(odd.to_vec()).is_err(), "{odd:?}");
        }
    }

    proptest! {
        /// Whatever a server says is read or refused.
        #[test]
        fn arbitrary_input_is_parsed_or_refused(text in r#"[\[\]{}",:a-z0-9.\\ -]{0,60}"#, bytes in any::<Vec<u8>>(), n in 0u8..20) {
            let _ = parse(&text);
            for kind in ["message", "messages", "hello", "subscribed", "published", "lagged", "error", "pong"] {
                let _ = parse(&format!(r#"{{"type":"{kind}",{text}}}"#));
            }
            let _ = parse_binary([&[1, n], &bytes[..]].concat());
            let _ = parse_binary(bytes);
        }

        /// Whatever is put into a string comes out of it.
        #[test]
        fn any_topic_and_text_survive_encoding(topic in any::<String>(), text in any::<String>()) {
            let request = publish(1, &Publication::text(&topic, &text), "own").unwrap();
            let value: serde_json::Value = serde_json::from_str(&request).unwrap();
            prop_assert_eq!((value["topic"].as_str(), value["text"].as_str()), (Some(&*topic), Some(&*text)));
        }
    }
}
