//! `campanile.v1.json` from the client's side: requests to text, and what the server says to values. Pure.

use super::event::{Data, Hello};
use super::fault::Fault;
use super::publication::Publication;
use super::{Position, Published};
use crate::hub::{Target, check_topic};
use core::time::Duration;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The version of the head before bytes, see `docs/protocol.md`.
const BINARY_VERSION: u8 = 1;

/// What can be asked for. Members that are not given are left out.
#[derive(Default, Serialize)]
struct Request<'a> {
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
    dedup: Option<&'a str>,
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
pub(super) enum Begin<'a> {
    Live,
    Since(&'a Position),
    Latest,
    Last(u32),
}

pub(super) const PING: &str = r#"{"type":"ping"}"#;

fn encode(request: &Request<'_>) -> String {
    // Only strings and numbers, and JSON that was checked: all of it can be written.
    serde_json::to_string(request).unwrap_or_default()
}

/// The members that name what a subscription is to.
const fn members<'a>(target: Target<'a>) -> (Option<&'a str>, Option<&'a str>) {
    match target {
        Target::Topic(topic) => (Some(topic), None),
        Target::Pattern(pattern) => (None, Some(pattern)),
    }
}

pub(super) fn subscribe(id: u64, to: Target<'_>, begin: Begin<'_>, tags: &[String]) -> String {
    let (topic, pattern) = members(to);
    let mut request = Request { kind: "subscribe", id, topic, pattern, tags, ..Request::default() };
    match begin {
        Begin::Live => {}
        Begin::Since(place) => request.since = Some(Since { epoch: &place.epoch, offset: place.offset }),
        Begin::Latest => request.latest = Some(true),
        Begin::Last(n) => request.last = Some(n),
    }
    encode(&request)
}

pub(super) fn unsubscribe(id: u64, from: Target<'_>) -> String {
    let (topic, pattern) = members(from);
    encode(&Request { kind: "unsubscribe", id, topic, pattern, ..Request::default() })
}

/// `name` is the publication's own where it has none.
pub(super) fn publish(
    id: u64,
    publication: &Publication<'_>,
    name: &str,
) -> Result<String, serde_json::Error> {
    let json = if publication.is_json { Some(serde_json::from_str(publication.content)?) } else { None };
    Ok(encode(&Request {
        kind: "publish",
        id,
        topic: Some(publication.topic),
        data: json,
        text: (!publication.is_json).then_some(publication.content),
        key: publication.key,
        dedup: Some(publication.dedup.unwrap_or(name)),
        ttl: publication.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).clamp(1, MAX_TTL)),
        echo: (!publication.echo).then_some(false),
        tags: &publication.tags,
        ..Request::default()
    }))
}

/// Milliseconds.
const MAX_TTL: u64 = u32::MAX as u64;

/// What the server says.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
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
        topic: String,
        offset: u64,
        data: Data,
    },
    /// Several of one topic, oldest first.
    Messages {
        topic: String,
        messages: Vec<(u64, Data)>,
    },
    Lagged {
        messages: u64,
    },
    Error {
        id: Option<u64>,
        fault: Fault,
    },
    /// A pong, or what another version of the server says.
    Other,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
}

/// All members of all messages but those with a payload.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Members {
    id: Option<u64>,
    epoch: Option<String>,
    offset: Option<u64>,
    recovered: bool,
    replayed: u64,
    receivers: u64,
    repeated: bool,
    messages: u64,
    code: String,
    message: String,
    retry: Option<u64>,
    session: String,
    time: u64,
    heartbeat: u64,
    max_message_size: Option<usize>,
    max_subscriptions: Option<usize>,
}

#[derive(Deserialize)]
struct Topic {
    #[serde(deserialize_with = "topic")]
    topic: String,
}

#[derive(Deserialize)]
struct Deliveries<'a> {
    #[serde(deserialize_with = "topic")]
    topic: String,
    #[serde(borrow)]
    messages: Vec<Content<'a>>,
}

#[derive(Deserialize)]
struct Content<'a> {
    offset: u64,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    text: Option<String>,
}

impl Content<'_> {
    /// `None`: its payload is of a kind that is not known here.
    fn into_message(self) -> Option<(u64, Data)> {
        let json = || self.data.map(|json| Data::Json(json.get().to_owned()));
        Some((self.offset, self.text.map(Data::Text).or_else(json)?))
    }
}

/// `null` is a payload like any other.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A name that a topic can have here. Each of the messages of one frame has a copy, and its patterns are looked for.
fn topic<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let topic = String::deserialize(deserializer)?;
    check_topic(&topic).map_err(serde::de::Error::custom)?;
    Ok(topic)
}

pub(super) fn parse(text: &str) -> Result<Incoming, serde_json::Error> {
    // A type that is not known here may have any members, so this comes first.
    let Kind { kind } = serde_json::from_str(text)?;
    match &*kind {
        "message" => {
            // Not flattened into one: serde then loses the raw value.
            let topic = serde_json::from_str(text).map(|Topic { topic }| topic)?;
            let content: Content<'_> = serde_json::from_str(text)?;
            let message = content.into_message();
            Ok(message.map_or(Incoming::Other, |(offset, data)| Incoming::Message { topic, offset, data }))
        }
        "messages" => {
            let Deliveries { topic, messages } = serde_json::from_str(text)?;
            let messages = messages.into_iter().filter_map(Content::into_message).collect();
            Ok(Incoming::Messages { topic, messages })
        }
        "hello" | "subscribed" | "unsubscribed" | "published" | "lagged" | "error" => {
            Ok(answer(&kind, serde_json::from_str(text)?))
        }
        _ => Ok(Incoming::Other),
    }
}

fn answer(kind: &str, members: Members) -> Incoming {
    let Members { id, epoch, offset, recovered, replayed, receivers, repeated, messages, .. } = members;
    let position = epoch.zip(offset).map(|(epoch, offset)| Position::new(&epoch, offset));
    match kind {
        "hello" => Incoming::Hello(Hello {
            session: members.session,
            time: Duration::from_millis(members.time),
            heartbeat: Duration::from_millis(members.heartbeat),
            max_message_size: members.max_message_size.unwrap_or(usize::MAX),
            max_subscriptions: members.max_subscriptions.unwrap_or(usize::MAX),
            retry: members.retry.map(Duration::from_millis),
        }),
        "subscribed" => Incoming::Subscribed { id, position, recovered, replayed },
        "unsubscribed" => Incoming::Unsubscribed { id },
        "published" => Incoming::Published { id, published: Published { position, receivers, repeated } },
        "lagged" => Incoming::Lagged { messages },
        _ => Incoming::Error { id, fault: Fault::new(&members.code, members.message, members.retry) },
    }
}

/// A binary message; `Other` for another version, and for one that is cut.
pub(super) fn parse_binary(mut bytes: Vec<u8>) -> Incoming {
    let head = || {
        let (&[version, n], rest) = bytes.split_first_chunk()?;
        let (topic, rest) = rest.split_at_checked(usize::from(n))?;
        let (offset, payload) = rest.split_first_chunk()?;
        let topic = core::str::from_utf8(topic).ok()?.to_owned();
        (version == BINARY_VERSION).then(|| (topic, u64::from_be_bytes(*offset), bytes.len() - payload.len()))
    };
    let Some((topic, offset, start)) = head() else { return Incoming::Other };
    bytes.drain(..start);
    Incoming::Message { topic, offset, data: Data::Binary(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push_client::Code;
    use proptest::prelude::*;

    #[test]
    fn requests_have_the_members_that_were_given_and_no_others() {
        let place = Position::new("1f", 12);
        let tags = ["a".to_owned(), "b\"".to_owned()];
        for (got, expected) in [
            (
                subscribe(1, Target::Topic("t"), Begin::Live, &[]),
                r#"{"type":"subscribe","id":1,"topic":"t"}"#,
            ),
            (
                subscribe(2, Target::Topic("t"), Begin::Since(&place), &tags),
                r#"{"type":"subscribe","id":2,"topic":"t","since":{"epoch":"1f","offset":12},"tags":["a","b\""]}"#,
            ),
            (
                subscribe(3, Target::Topic("t"), Begin::Latest, &[]),
                r#"{"type":"subscribe","id":3,"topic":"t","latest":true}"#,
            ),
            (
                subscribe(4, Target::Topic("t"), Begin::Last(5), &[]),
                r#"{"type":"subscribe","id":4,"topic":"t","last":5}"#,
            ),
            (unsubscribe(5, Target::Topic("t")), r#"{"type":"unsubscribe","id":5,"topic":"t"}"#),
            (
                subscribe(6, Target::Pattern("t/*"), Begin::Live, &[]),
                r#"{"type":"subscribe","id":6,"pattern":"t/*"}"#,
            ),
            (unsubscribe(7, Target::Pattern("t/*")), r#"{"type":"unsubscribe","id":7,"pattern":"t/*"}"#),
        ] {
            assert_eq!(got, expected);
        }
        let text = Publication::text("t", "\"ding\"\n");
        assert_eq!(
            publish(6, &text, "own").unwrap(),
            r#"{"type":"publish","id":6,"topic":"t","text":"\"ding\"\n","dedup":"own"}"#
        );
        let ttl = Duration::from_micros(1);
        let json =
            Publication::json("t", r#"{"x": 1.0}"#).key("k").dedup("d").ttl(ttl).echo(false).tags(["a"]);
        assert_eq!(
            publish(7, &json, "own").unwrap(),
            r#"{"type":"publish","id":7,"topic":"t","tags":["a"],"data":{"x": 1.0},"key":"k","dedup":"d","ttl":1,"echo":false}"#
        );
        for no_json in ["", "{", r#"1,"topic":"other""#, "1 2"] {
            assert!(publish(8, &Publication::json("t", no_json), "own").is_err(), "{no_json}");
        }
    }

    #[test]
    fn what_the_server_says_is_read_and_what_is_new_in_it_is_not() {
        let message = |data| Incoming::Message { topic: "t\"".into(), offset: 13, data };
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
                Incoming::Subscribed {
                    id: Some(2),
                    position: Some(Position::new("1f", 14)),
                    recovered: true,
                    replayed: 2,
                },
            ),
            (
                r#"{"type":"published","id":9,"receivers":0}"#,
                Incoming::Published {
                    id: Some(9),
                    published: Published { position: None, receivers: 0, repeated: false },
                },
            ),
            (
                r#"{"type":"messages","topic":"t","messages":[{"offset":1,"data":[0]},{"offset":3,"text":"x"},{"offset":4,"new":1}]}"#,
                Incoming::Messages {
                    topic: "t".into(),
                    messages: vec![(1, Data::Json("[0]".into())), (3, Data::Text("x".into()))],
                },
            ),
            (r#"{"type":"lagged","messages":12}"#, Incoming::Lagged { messages: 12 }),
            (
                r#"{"type":"error","id":6,"code":"rate","message":"wait","retry":20}"#,
                Incoming::Error { id: Some(6), fault: Fault::new("rate", "wait".into(), Some(20)) },
            ),
            (r#"{"type":"pong","id":"of another kind"}"#, Incoming::Other),
            (r#"{"type":"dance","id":{},"topic":7}"#, Incoming::Other),
        ] {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
        for bad in ["", "[]", "{}", r#"{"type":"message"}"#, r#"{"type":"lagged","messages":-1}"#] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let fault = Fault::new("brand_new", "x".into(), None);
        assert_eq!(fault.code, Code::Other("brand_new".into()));
    }

    #[test]
    fn a_topic_is_no_longer_than_one_can_be() {
        for len in [255, 256] {
            let topic = "a/".repeat(len / 2) + &"a"[..len % 2];
            let one = format!(r#"{{"type":"message","topic":"{topic}","offset":1,"data":0}}"#);
            let more = format!(r#"{{"type":"messages","topic":"{topic}","messages":[]}}"#);
            assert_eq!((parse(&one).is_ok(), parse(&more).is_ok()), (len == 255, len == 255));
        }
    }

    #[test]
    fn hello_may_hint_at_the_backoff() {
        let hello = |text| match parse(text) {
            Ok(Incoming::Hello(hello)) => hello,
            other => panic!("{other:?}"),
        };
        let full = hello(
            r#"{"type":"hello","protocol":"campanile.v1.json","session":"0.17.3","time":1767225600000,"heartbeat":25000,"max_message_size":65536,"max_subscriptions":128,"retry":2000}"#,
        );
        assert_eq!((full.heartbeat, full.retry), (Duration::from_secs(25), Some(Duration::from_secs(2))));
        assert_eq!((full.max_message_size, full.max_subscriptions), (65_536, 128));
        assert_eq!(hello(r#"{"type":"hello"}"#).retry, None);
    }

    #[test]
    fn bytes_have_a_head() {
        let whole = b"\x01\x03bel\x00\x00\x00\x00\x00\x00\x00\x0d\xff\xd8";
        let expected =
            Incoming::Message { topic: "bel".into(), offset: 13, data: Data::Binary(vec![0xFF, 0xD8]) };
        assert_eq!(parse_binary(whole.to_vec()), expected);
        for cut in 0..13 {
            assert_eq!(parse_binary(whole[..cut].to_vec()), Incoming::Other, "{cut}");
        }
        assert_eq!(parse_binary(b"\x02\x03bel\x00\x00\x00\x00\x00\x00\x00\x0d".to_vec()), Incoming::Other);
        assert_eq!(parse_binary(b"\x01\x01\xff\x00\x00\x00\x00\x00\x00\x00\x0d".to_vec()), Incoming::Other);
    }

    proptest! {
        /// Whatever a server says is read or refused.
        #[test]
        fn anything_may_come(text in r#"[\[\]{}",:a-z0-9.\\ -]{0,60}"#, bytes in any::<Vec<u8>>(), n in 0u8..20) {
            let _ = parse(&text);
            for kind in ["message", "messages", "hello", "subscribed", "published", "lagged", "error", "pong"] {
                let _ = parse(&format!(r#"{{"type":"{kind}",{text}}}"#));
            }
            let _ = parse_binary([&[1, n], &bytes[..]].concat());
            let _ = parse_binary(bytes);
        }

        /// Whatever is put into a string comes out of it.
        #[test]
        fn any_topic_and_text_survive(topic in any::<String>(), text in any::<String>()) {
            let request = publish(1, &Publication::text(&topic, &text), "own").unwrap();
            let value: serde_json::Value = serde_json::from_str(&request).unwrap();
            prop_assert_eq!((value["topic"].as_str(), value["text"].as_str()), (Some(&*topic), Some(&*text)));
        }
    }
}
