//! What clients of the endpoint ask: from a text to a checked request, or to what is wrong with it. Pure.

use super::server_message::{RequestError, RequestId, shorten};
use crate::hub::{MAX_TAG, MAX_TAGS, Position, Start, SubscribeTarget, check_pattern, check_topic};
use crate::json::{self, MAX_NESTING};
use core::time::Duration;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Integers above are not exact in a browser.
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// Bytes of a `key` and of an `idempotency_key`.
const MAX_KEY: usize = 255;

/// Messages asked for by `last`.
const MAX_LAST: usize = 65_536;

/// Bytes of an epoch.
const MAX_EPOCH: usize = 64;

#[derive(Debug)]
pub(super) enum PushRequest<'a> {
    Subscribe(SubscribeCommand),
    Unsubscribe(OwnedTarget),
    Publish(PublishCommand<'a>),
    Ping,
}

/// What a subscription is to. A topic's name never becomes a pattern: the two are different members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OwnedTarget {
    Topic(String),
    Pattern(String),
}

impl OwnedTarget {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Topic(name) | Self::Pattern(name) => name,
        }
    }

    pub(super) fn as_target(&self) -> SubscribeTarget<'_> {
        match self {
            Self::Topic(name) => SubscribeTarget::Topic(name),
            Self::Pattern(name) => SubscribeTarget::Pattern(name),
        }
    }
}

#[derive(Debug)]
pub(super) struct SubscribeCommand {
    pub(super) to: OwnedTarget,
    pub(super) start: Start,
    pub(super) tags: Vec<String>,
}

#[derive(Debug)]
pub(super) struct PublishCommand<'a> {
    pub(super) topic: String,
    pub(super) content: Content<'a>,
    pub(super) key: Option<String>,
    pub(super) idempotency_key: Option<String>,
    pub(super) ttl: Option<Duration>,
    pub(super) echo: bool,
    pub(super) tags: Vec<String>,
}

#[derive(Debug)]
pub(super) enum Content<'a> {
    /// As it was written.
    Json(&'a str),
    Text(String),
}

/// All members that any request has, each as it was written: a member means nothing before the type is known. Others
/// are ignored; one that comes twice is refused.
#[derive(Deserialize)]
struct RawMembers<'a> {
    #[serde(borrow, default, rename = "type", deserialize_with = "present")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    topic: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pattern: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    since: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    latest: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    last: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    tags: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    text: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    key: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    idempotency_key: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    ttl: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    echo: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Since<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    epoch: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    offset: Option<&'a RawValue>,
}

/// `null` is a value like any other, and not what is not there.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// The request in a text, and its id as far as that can be told.
pub(super) fn parse(text: &str) -> (RequestId, Result<PushRequest<'_>, RequestError>) {
    if let Err(e) = json::check(text, MAX_NESTING + 1) {
        return (RequestId::default(), Err(RequestError::Json(e)));
    }
    let members = match members(text) {
        Ok(members) => members,
        Err(error) => return (RequestId::default(), Err(error)),
    };
    match id(&members) {
        Ok(id) => (id, request(&members)),
        Err(error) => (RequestId::default(), Err(error)),
    }
}

fn members(text: &str) -> Result<RawMembers<'_>, RequestError> {
    object(text)
        .ok_or_else(|| RequestError::Invalid(format!("{} is no request: send an object", shorten(text))))?
}

/// The members of an object; `None` if it is something else. Arrays would do for serde too.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Option<Result<T, RequestError>> {
    let is_object = text.trim_start().starts_with('{');
    is_object.then(|| {
        serde_json::from_str(text).map_err(|e| RequestError::Invalid(format!("the request has a {e}")))
    })
}

fn id(members: &RawMembers<'_>) -> Result<RequestId, RequestError> {
    let id = optional(members.id, "id", "an integer from 0 to 2^53 - 1", |n| *n <= MAX_INTEGER)?;
    Ok(RequestId { id })
}

fn request<'a>(members: &RawMembers<'a>) -> Result<PushRequest<'a>, RequestError> {
    let kind: String = required(members.kind, "type", "a string", |_| true)?;
    Ok(match &*kind {
        "subscribe" => subscribe(members)?,
        "unsubscribe" => PushRequest::Unsubscribe(target(members)?),
        "publish" => PushRequest::Publish(publish(members)?),
        "ping" => PushRequest::Ping,
        _ => return Err(RequestError::Type(kind)),
    })
}

fn topic(members: &RawMembers<'_>) -> Result<String, RequestError> {
    required(members.topic, "topic", "a string", |_| true)
}

/// A topic or a pattern. Both are checked: the hub would refuse them too, but after other checks.
fn target(members: &RawMembers<'_>) -> Result<OwnedTarget, RequestError> {
    match (members.topic, members.pattern) {
        (Some(_), Some(_)) => {
            Err(RequestError::Invalid("\"topic\" and \"pattern\" exclude each other: send one".to_owned()))
        }
        (None, Some(_)) => {
            let pattern: String = required(members.pattern, "pattern", "a string", |_| true)?;
            check_pattern(&pattern).map_err(RequestError::Pattern)?;
            Ok(OwnedTarget::Pattern(pattern))
        }
        _ => {
            let topic = topic(members)?;
            check_topic(&topic).map_err(RequestError::Topic)?;
            Ok(OwnedTarget::Topic(topic))
        }
    }
}

fn subscribe<'a>(members: &RawMembers<'_>) -> Result<PushRequest<'a>, RequestError> {
    let to = target(members)?;
    let latest = optional(members.latest, "latest", "true or false", |_| true)?.unwrap_or(false);
    let last = optional(members.last, "last", "an integer from 1 to 65536", |n| (1..=MAX_LAST).contains(n))?;
    let since = members.since.map(since).transpose()?;
    if matches!(to, OwnedTarget::Pattern(_)) && (latest || last.is_some() || since.is_some()) {
        let message = "a pattern has no history: leave out \"since\", \"last\" and \"latest\"";
        return Err(RequestError::Invalid(message.to_owned()));
    }
    let start = match (since, last, latest) {
        (None, None, false) => Start::Now,
        (None, None, true) => Start::Latest,
        (None, Some(last), false) => Start::Last(last),
        (Some(start), None, false) => start,
        _ => {
            let message = "\"since\", \"last\" and \"latest\" exclude each other: send one";
            return Err(RequestError::Invalid(message.to_owned()));
        }
    };
    Ok(PushRequest::Subscribe(SubscribeCommand { to, start, tags: tags(members)? }))
}

fn tags(members: &RawMembers<'_>) -> Result<Vec<String>, RequestError> {
    let fits = |tags: &Vec<String>| {
        (1..=MAX_TAGS).contains(&tags.len()) && tags.iter().all(|tag| (1..=MAX_TAG).contains(&tag.len()))
    };
    let tags = optional(members.tags, "tags", "an array of 1 to 16 strings of 1 to 64 bytes", fits)?;
    Ok(tags.unwrap_or_default())
}

fn since(raw: &RawValue) -> Result<Start, RequestError> {
    let no_object = || invalid(raw, "since", "an object with \"epoch\" and \"offset\"");
    let since: Since<'_> = object(raw.get()).ok_or_else(no_object)??;
    let epoch: String = required(since.epoch, "since.epoch", "a string of up to 64 bytes", |e: &String| {
        e.len() <= MAX_EPOCH
    })?;
    let offset =
        required(since.offset, "since.offset", "an integer from 0 to 2^53 - 1", |n| *n <= MAX_INTEGER)?;
    // An epoch that is none of ours is a topic's former life like any other.
    Ok(u64::from_str_radix(&epoch, 16).map_or(Start::Now, |epoch| Start::Since(Position::new(epoch, offset))))
}

fn publish<'a>(members: &RawMembers<'a>) -> Result<PublishCommand<'a>, RequestError> {
    let topic = topic(members)?;
    let content = match (members.data, members.text) {
        (Some(data), None) => Content::Json(data.get()),
        (None, Some(_)) => Content::Text(required(members.text, "text", "a string", |_| true)?),
        _ => return Err(RequestError::Invalid("a publish has either \"data\" or \"text\"".to_owned())),
    };
    let name = |raw, name| {
        optional(raw, name, "a string of 1 to 255 bytes", |s: &String| (1..=MAX_KEY).contains(&s.len()))
    };
    let ttl: Option<u32> = optional(members.ttl, "ttl", "an integer from 1 to 2^32 - 1", |n| *n > 0)?;
    Ok(PublishCommand {
        topic,
        content,
        key: name(members.key, "key")?,
        idempotency_key: name(members.idempotency_key, "idempotency_key")?,
        ttl: ttl.map(|ms| Duration::from_millis(ms.into())),
        echo: optional(members.echo, "echo", "true or false", |_| true)?.unwrap_or(true),
        tags: tags(members)?,
    })
}

fn invalid(raw: &RawValue, name: &str, expected: &str) -> RequestError {
    RequestError::Invalid(format!("\"{name}\" must be {expected}, not {}", shorten(raw.get())))
}

fn optional<T: DeserializeOwned>(
    raw: Option<&RawValue>,
    name: &str,
    expected: &str,
    fits: impl FnOnce(&T) -> bool,
) -> Result<Option<T>, RequestError> {
    let Some(raw) = raw else { return Ok(None) };
    let value = serde_json::from_str(raw.get()).ok().filter(fits);
    value.map(Some).ok_or_else(|| invalid(raw, name, expected))
}

fn required<T: DeserializeOwned>(
    raw: Option<&RawValue>,
    name: &str,
    expected: &str,
    fits: impl FnOnce(&T) -> bool,
) -> Result<T, RequestError> {
    let missing = || RequestError::Invalid(format!("\"{name}\" is missing: {expected}"));
    optional(raw, name, expected, fits)?.ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::server_message::write_string;
    use proptest::prelude::*;

    fn parse_err(text: &str) -> (Option<u64>, &'static str, String) {
        match parse(text) {
            (id, Err(error)) => (id.id, error.code(), error.to_string()),
            (_, Ok(request)) => panic!("{text} is taken for {request:?}"),
        }
    }

    fn parse_ok(text: &str) -> (Option<u64>, PushRequest<'_>) {
        match parse(text) {
            (id, Ok(request)) => (id.id, request),
            (_, Err(error)) => panic!("{text}: {error}"),
        }
    }

    #[test]
    fn subscribe_members_select_the_start() {
        let start = |more: &str| {
            let text = format!(r#"{{"type":"subscribe","id":1,"topic":"t"{more}}}"#);
            match parse_ok(&text) {
                (
                    Some(1),
                    PushRequest::Subscribe(SubscribeCommand { to: OwnedTarget::Topic(topic), start, .. }),
                ) if topic == "t" => start,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(start(""), Start::Now);
        assert_eq!(start(r#","latest":false"#), Start::Now);
        assert_eq!(start(r#","latest":true"#), Start::Latest);
        assert_eq!(start(r#","last":65536,"latest":false"#), Start::Last(65_536));
        let after = Start::Since(Position::new(0x1f, 12));
        assert_eq!(start(r#","since":{"epoch":"1f","offset":12}"#), after);
        assert_eq!(start(r#","since":{"offset":12,"more":[],"epoch":"1\u0066"}"#), after);
        assert_eq!(start(r#","since":{"epoch":"of another server","offset":12}"#), Start::Now);
    }

    #[test]
    fn data_is_kept_byte_for_byte() {
        for data in ["null", "[1, 2 ]", r#"{"a":1,"a":2}"#, "1e5", r#""\u00e9""#, "12345678901234567890123"] {
            let text = format!(r#" {{"type":"publish","topic":"t", "data" : {data} }}"#);
            match parse_ok(&text).1 {
                PushRequest::Publish(PublishCommand { content: Content::Json(got), .. }) => {
                    assert_eq!(got, data)
                }
                other => panic!("{other:?}"),
            };
        }
    }

    #[test]
    fn members_of_other_requests_and_unknown_members_are_ignored() {
        for text in [
            r#"{"type":"ping","topic":5,"data":null,"since":[],"new":{"a":[1]},"new":2}"#,
            r#"{"typ\u0065":"ping"}"#,
            "\t{\"type\":\"ping\"}\r\n",
        ] {
            assert!(matches!(parse_ok(text), (None, PushRequest::Ping)), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let sub = |more: &str| format!(r#"{{"type":"subscribe","id":7,"topic":"t",{more}}}"#);
        let publish = |more: &str| format!(r#"{{"type":"publish","id":7,"topic":"t",{more}}}"#);
        for (text, id, code, word) in [
            ("".to_owned(), None, "json", "EOF"),
            ("hello".to_owned(), None, "json", "line 1"),
            (r#"{"type":"ping"} {}"#.to_owned(), None, "json", "trailing"),
            (r#"{"type":"ping","x":"\ud800"}"#.to_owned(), None, "json", "hex escape"),
            (r#"{"type":"ping","x":"\ud800\u0041"}"#.to_owned(), None, "json", "surrogate"),
            (r#"{"type":"ping","x":1e400}"#.to_owned(), None, "json", "out of range"),
            (r#"{"type":"ping","x":NaN}"#.to_owned(), None, "json", "line 1"),
            ("[]".to_owned(), None, "invalid", "send an object"),
            (r#"["ping",1]"#.to_owned(), None, "invalid", "send an object"),
            (r#""ping""#.to_owned(), None, "invalid", "send an object"),
            (r#"{}"#.to_owned(), None, "invalid", "\"type\" is missing"),
            (r#"{"type":null,"id":7}"#.to_owned(), Some(7), "invalid", "not null"),
            (r#"{"type":"dance","id":7}"#.to_owned(), Some(7), "type", "\"dance\""),
            (r#"{"type":"ping","type":"ping"}"#.to_owned(), None, "invalid", "duplicate field `type`"),
            (r#"{"type":"ping","id":1,"id":2}"#.to_owned(), None, "invalid", "duplicate field `id`"),
            (r#"{"type":"ping","id":-1}"#.to_owned(), None, "invalid", "not -1"),
            (r#"{"type":"ping","id":1.0}"#.to_owned(), None, "invalid", "not 1.0"),
            (r#"{"type":"ping","id":"1"}"#.to_owned(), None, "invalid", "not \"1\""),
            (r#"{"type":"ping","id":null}"#.to_owned(), None, "invalid", "not null"),
            (r#"{"type":"ping","id":9007199254740992}"#.to_owned(), None, "invalid", "2^53"),
            (r#"{"type":"unsubscribe","id":7}"#.to_owned(), Some(7), "invalid", "\"topic\" is missing"),
            (r#"{"type":"subscribe","id":7,"topic":5}"#.to_owned(), Some(7), "invalid", "not 5"),
            (sub(r#""latest":1"#), Some(7), "invalid", "\"latest\""),
            (sub(r#""last":0"#), Some(7), "invalid", "\"last\""),
            (sub(r#""last":65537"#), Some(7), "invalid", "not 65537"),
            (sub(r#""last":1,"latest":true"#), Some(7), "invalid", "exclude"),
            (sub(r#""tags":[]"#), Some(7), "invalid", "\"tags\""),
            (sub(r#""tags":"a""#), Some(7), "invalid", "not \"a\""),
            (sub(r#""tags":["a",""]"#), Some(7), "invalid", "1 to 64 bytes"),
            (sub(r#""since":5"#), Some(7), "invalid", "\"since\""),
            (sub(r#""since":["1f",12]"#), Some(7), "invalid", "\"since\""),
            (sub(r#""since":{"epoch":"1f"}"#), Some(7), "invalid", "\"since.offset\" is missing"),
            (sub(r#""since":{"offset":1}"#), Some(7), "invalid", "\"since.epoch\" is missing"),
            (sub(r#""since":{"epoch":1,"offset":1}"#), Some(7), "invalid", "\"since.epoch\""),
            (sub(r#""since":{"epoch":"1","offset":-1}"#), Some(7), "invalid", "not -1"),
            (sub(r#""since":{"epoch":"1","epoch":"1","offset":1}"#), Some(7), "invalid", "duplicate"),
            (sub(r#""latest":true,"since":{"epoch":"1","offset":1}"#), Some(7), "invalid", "exclude"),
            (
                r#"{"type":"subscribe","pattern":"a/*","latest":true}"#.to_owned(),
                None,
                "invalid",
                "a pattern has no history",
            ),
            (publish(r#""x":1"#), Some(7), "invalid", "either"),
            (publish(r#""data":1,"text":"a""#), Some(7), "invalid", "either"),
            (publish(r#""text":1"#), Some(7), "invalid", "\"text\""),
            (publish(r#""text":"a","key":"""#), Some(7), "invalid", "\"key\""),
            (
                publish(&format!(r#""text":"a","idempotency_key":"{}""#, "x".repeat(256))),
                Some(7),
                "invalid",
                "\"idempotency_key\"",
            ),
            (publish(r#""text":"a","ttl":0"#), Some(7), "invalid", "\"ttl\""),
            (publish(r#""text":"a","ttl":4294967296"#), Some(7), "invalid", "\"ttl\""),
            (publish(r#""text":"a","tags":[1]"#), Some(7), "invalid", "\"tags\""),
            (
                publish(&format!(r#""text":"a","tags":["{}"]"#, "x".repeat(65))),
                Some(7),
                "invalid",
                "\"tags\"",
            ),
            (publish(r#""text":"a","echo":"no""#), Some(7), "invalid", "\"echo\""),
        ] {
            let (got_id, got_code, message) = parse_err(&text);
            assert_eq!((got_id, got_code), (id, code), "{text}: {message}");
            assert!(message.contains(word), "{text}: {message}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_without_recursion() {
        let nested = |depth: usize| {
            format!(r#"{{"type":"publish","topic":"t","data":{}{}}}"#, "[".repeat(depth), "]".repeat(depth))
        };
        parse_ok(&nested(126));
        assert_eq!(parse_err(&nested(127)).1, "json");
        for hostile in ["[".repeat(60_000), format!("{{\"x\":{}", "{\"a\":".repeat(10_000))] {
            assert_eq!(parse_err(&hostile).1, "json");
        }
    }

    proptest! {
        /// Whatever comes is answered.
        #[test]
        fn arbitrary_text_is_parsed_or_refused(text in r#"[\[\]{}",:a-z0-9.\\ -]{0,60}"#) {
            let _ = parse(&text);
        }

        /// Whatever is put into a string comes out of it.
        #[test]
        fn any_topic_and_text_survive_encoding(topic in any::<String>(), text in any::<String>()) {
            let (mut t, mut x) = (Vec::new(), Vec::new());
            write_string(&mut t, &topic);
            write_string(&mut x, &text);
            let (t, x) = (String::from_utf8(t).unwrap(), String::from_utf8(x).unwrap());
            let request = format!(r#"{{"type":"publish","topic":{t},"text":{x}}}"#);
            match parse_ok(&request).1 {
                PushRequest::Publish(PublishCommand { topic: got, content: Content::Text(said), .. }) => {
                    prop_assert_eq!((got, said), (topic, text));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
