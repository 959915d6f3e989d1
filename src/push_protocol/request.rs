//! What clients request: one type for both ends, written by clients and read, with every member checked, by servers.

use super::{Epoch, ErrorCode, MAX_EPOCH, MAX_LAST, TargetName, WirePosition};
use crate::hub::{InvalidPattern, InvalidTopic, MAX_KEY, MAX_TAG, MAX_TAGS, check_pattern, check_topic};
use crate::json::{self, Integer, MAX_NESTING, Text, present, shorten};
use core::fmt;
use core::time::Duration;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum PushRequest<'a> {
    Subscribe(SubscribeCommand<'a>),
    Unsubscribe(TargetName<'a>),
    Publish(PublishCommand<'a>),
    Ping,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SubscribeCommand<'a> {
    pub(crate) target: TargetName<'a>,
    pub(crate) start: SubscribeStart<'a>,
    pub(crate) tags: Vec<Text<'a>>,
}

/// Where a subscription starts. Patterns start [`SubscribeStart::Live`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SubscribeStart<'a> {
    Live,
    Latest,
    Last(u32),
    Since(WirePosition<'a>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PublishCommand<'a> {
    pub(crate) topic: Text<'a>,
    pub(crate) content: Content<'a>,
    pub(crate) key: Option<Text<'a>>,
    pub(crate) idempotency_key: Option<Text<'a>>,
    /// In whole milliseconds from 1 to 2^32 - 1.
    pub(crate) ttl: Option<Duration>,
    pub(crate) echo: bool,
    pub(crate) tags: Vec<Text<'a>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content<'a> {
    /// As it was written.
    Json(&'a str),
    Text(Text<'a>),
}

/// Why a text is not a request.
#[derive(Debug)]
pub(crate) enum ParseError {
    /// It is not JSON that every receiver can read.
    Json(serde_json::Error),
    /// A member is missing, repeated, invalid or excludes another; in words.
    Invalid(String),
    /// Its type is unknown.
    Type(String),
    Topic(InvalidTopic),
    Pattern(InvalidPattern),
}

impl ParseError {
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Json(_) => ErrorCode::Json,
            Self::Invalid(_) => ErrorCode::Invalid,
            Self::Type(_) => ErrorCode::Type,
            Self::Topic(_) => ErrorCode::Topic,
            Self::Pattern(_) => ErrorCode::Pattern,
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(e) => write!(f, "request: expected JSON that every receiver can read: {e}"),
            Self::Invalid(why) => f.write_str(why),
            Self::Type(name) => {
                write!(f, "type: expected subscribe, unsubscribe, publish or ping, got {:?}", shorten(name))
            }
            Self::Topic(e) => e.fmt(f),
            Self::Pattern(e) => e.fmt(f),
        }
    }
}

// ---- writing ----

/// The members of all requests, in the order in which they are written. Absent ones are omitted.
#[derive(Default, Serialize)]
struct Members<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<&'a Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<&'a WirePosition<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latest: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<u32>,
    #[serde(skip_serializing_if = "<[Text<'_>]>::is_empty")]
    tags: &'a [Text<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<&'a Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    echo: Option<bool>,
}

impl PushRequest<'_> {
    /// The request as it is sent.
    ///
    /// # Errors
    /// [`Content::Json`] is not JSON.
    pub(crate) fn to_json(&self, id: Option<u64>) -> Result<String, serde_json::Error> {
        serde_json::to_string(&match self {
            Self::Subscribe(subscribe) => {
                let members = Members { tags: &subscribe.tags, ..Members::of("subscribe", id) };
                let members = members.target(&subscribe.target);
                match &subscribe.start {
                    SubscribeStart::Live => members,
                    SubscribeStart::Latest => Members { latest: Some(true), ..members },
                    SubscribeStart::Last(n) => Members { last: Some(*n), ..members },
                    SubscribeStart::Since(position) => Members { since: Some(position), ..members },
                }
            }
            Self::Unsubscribe(target) => Members::of("unsubscribe", id).target(target),
            Self::Publish(publish) => {
                let (data, text) = match &publish.content {
                    Content::Json(json) => (Some(serde_json::from_str(json)?), None),
                    Content::Text(text) => (None, Some(text)),
                };
                Members {
                    topic: Some(&publish.topic),
                    data,
                    text,
                    key: publish.key.as_ref(),
                    idempotency_key: publish.idempotency_key.as_ref(),
                    ttl: publish.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
                    echo: (!publish.echo).then_some(false),
                    tags: &publish.tags,
                    ..Members::of("publish", id)
                }
            }
            Self::Ping => Members::of("ping", id),
        })
    }
}

impl<'a> Members<'a> {
    fn of(kind: &'static str, id: Option<u64>) -> Self {
        Self { kind, id, ..Self::default() }
    }

    fn target(self, target: &'a TargetName<'a>) -> Self {
        match target {
            TargetName::Topic(topic) => Self { topic: Some(topic), ..self },
            TargetName::Pattern(pattern) => Self { pattern: Some(pattern), ..self },
        }
    }
}

// ---- reading ----

/// The members of all requests, unparsed, since their meaning depends on the type. Others are ignored; repeated ones are
/// refused.
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

/// Reads a request and its id. The id is `None` where the request has none, or none that can be read.
pub(crate) fn parse(text: &str) -> (Option<u64>, Result<PushRequest<'_>, ParseError>) {
    if let Err(e) = json::check(text, MAX_NESTING + 1) {
        return (None, Err(ParseError::Json(e)));
    }
    let members = match members(text) {
        Ok(members) => members,
        Err(error) => return (None, Err(error)),
    };
    match id(&members) {
        Ok(id) => (id, request(&members)),
        Err(error) => (None, Err(error)),
    }
}

fn members(text: &str) -> Result<RawMembers<'_>, ParseError> {
    object(text)
        .ok_or_else(|| ParseError::Invalid(format!("request: expected an object, got {}", shorten(text))))?
}

/// Reads an object; `None` if the text is something else. Serde would accept arrays too.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Option<Result<T, ParseError>> {
    let is_object = text.trim_start().starts_with('{');
    is_object.then(|| serde_json::from_str(text).map_err(|e| ParseError::Invalid(format!("request: {e}"))))
}

fn id(members: &RawMembers<'_>) -> Result<Option<u64>, ParseError> {
    let id: Option<Integer> = optional(members.id, "id", "an integer from 0 to 2^53 - 1", |_| true)?;
    Ok(id.map(|Integer(id)| id))
}

fn request<'a>(members: &RawMembers<'a>) -> Result<PushRequest<'a>, ParseError> {
    let kind: Text<'_> = required(members.kind, "type", "a string", |_| true)?;
    Ok(match &*kind {
        "subscribe" => subscribe(members)?,
        "unsubscribe" => PushRequest::Unsubscribe(target(members)?),
        "publish" => PushRequest::Publish(publish(members)?),
        "ping" => PushRequest::Ping,
        _ => return Err(ParseError::Type(kind.0.into_owned())),
    })
}

fn topic<'a>(members: &RawMembers<'a>) -> Result<Text<'a>, ParseError> {
    required(members.topic, "topic", "a string", |_| true)
}

/// Reads a topic or a pattern. Both are checked here, since the hub checks them after other things.
fn target<'a>(members: &RawMembers<'a>) -> Result<TargetName<'a>, ParseError> {
    match (members.topic, members.pattern) {
        (Some(_), Some(_)) => {
            Err(ParseError::Invalid("\"topic\" and \"pattern\" exclude each other: send one".to_owned()))
        }
        (None, Some(_)) => {
            let pattern: Text<'_> = required(members.pattern, "pattern", "a string", |_| true)?;
            check_pattern(&pattern).map_err(ParseError::Pattern)?;
            Ok(TargetName::Pattern(pattern))
        }
        _ => {
            let topic = topic(members)?;
            check_topic(&topic).map_err(ParseError::Topic)?;
            Ok(TargetName::Topic(topic))
        }
    }
}

fn subscribe<'a>(members: &RawMembers<'a>) -> Result<PushRequest<'a>, ParseError> {
    let target = target(members)?;
    let latest = optional(members.latest, "latest", "true or false", |_| true)?.unwrap_or(false);
    let last = optional(members.last, "last", "an integer from 1 to 65536", |n| (1..=MAX_LAST).contains(n))?;
    let since = members.since.map(since).transpose()?;
    if matches!(target, TargetName::Pattern(_)) && (latest || last.is_some() || since.is_some()) {
        let message = "pattern: has no history; leave out \"since\", \"last\" and \"latest\"";
        return Err(ParseError::Invalid(message.to_owned()));
    }
    let start = match (since, last, latest) {
        (None, None, false) => SubscribeStart::Live,
        (None, None, true) => SubscribeStart::Latest,
        (None, Some(last), false) => SubscribeStart::Last(last),
        (Some(since), None, false) => SubscribeStart::Since(since),
        _ => {
            let message = "\"since\", \"last\" and \"latest\" exclude each other: send one";
            return Err(ParseError::Invalid(message.to_owned()));
        }
    };
    Ok(PushRequest::Subscribe(SubscribeCommand { target, start, tags: tags(members)? }))
}

fn tags<'a>(members: &RawMembers<'a>) -> Result<Vec<Text<'a>>, ParseError> {
    let fits = |tags: &Vec<Text<'_>>| {
        (1..=MAX_TAGS).contains(&tags.len()) && tags.iter().all(|tag| (1..=MAX_TAG).contains(&tag.len()))
    };
    let tags = optional(members.tags, "tags", "an array of 1 to 16 strings of 1 to 64 bytes", fits)?;
    Ok(tags.unwrap_or_default())
}

fn since(raw: &RawValue) -> Result<WirePosition<'_>, ParseError> {
    let no_object = || invalid(raw, "since", "an object with \"epoch\" and \"offset\"");
    let since: Since<'_> = object(raw.get()).ok_or_else(no_object)??;
    let fits = |epoch: &Text<'_>| epoch.len() <= MAX_EPOCH;
    let epoch = required(since.epoch, "since.epoch", "a string of up to 64 bytes", fits)?;
    let Integer(offset) = required(since.offset, "since.offset", "an integer from 0 to 2^53 - 1", |_| true)?;
    Ok(WirePosition { epoch: Epoch::Text(epoch), offset })
}

fn publish<'a>(members: &RawMembers<'a>) -> Result<PublishCommand<'a>, ParseError> {
    let topic = topic(members)?;
    let content = match (members.data, members.text) {
        (Some(data), None) => Content::Json(data.get()),
        (None, Some(_)) => Content::Text(required(members.text, "text", "a string", |_| true)?),
        _ => return Err(ParseError::Invalid("publish: expected either \"data\" or \"text\"".to_owned())),
    };
    let key = |raw, name| {
        optional(raw, name, "a string of 1 to 255 bytes", |s: &Text<'_>| (1..=MAX_KEY).contains(&s.len()))
    };
    let ttl: Option<u32> = optional(members.ttl, "ttl", "an integer from 1 to 2^32 - 1", |n| *n > 0)?;
    Ok(PublishCommand {
        topic,
        content,
        key: key(members.key, "key")?,
        idempotency_key: key(members.idempotency_key, "idempotency_key")?,
        ttl: ttl.map(|ms| Duration::from_millis(ms.into())),
        echo: optional(members.echo, "echo", "true or false", |_| true)?.unwrap_or(true),
        tags: tags(members)?,
    })
}

fn invalid(raw: &RawValue, name: &str, expected: &str) -> ParseError {
    ParseError::Invalid(format!("{name}: expected {expected}, got {}", shorten(raw.get())))
}

fn optional<'a, T: Deserialize<'a>>(
    raw: Option<&'a RawValue>,
    name: &str,
    expected: &str,
    fits: impl FnOnce(&T) -> bool,
) -> Result<Option<T>, ParseError> {
    let Some(raw) = raw else { return Ok(None) };
    let value = serde_json::from_str(raw.get()).ok().filter(fits);
    value.map(Some).ok_or_else(|| invalid(raw, name, expected))
}

fn required<'a, T: Deserialize<'a>>(
    raw: Option<&'a RawValue>,
    name: &str,
    expected: &str,
    fits: impl FnOnce(&T) -> bool,
) -> Result<T, ParseError> {
    let missing = || ParseError::Invalid(format!("{name}: missing, expected {expected}"));
    optional(raw, name, expected, fits)?.ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::write_string;
    use proptest::prelude::*;

    fn parse_err(text: &str) -> (Option<u64>, String, String) {
        match parse(text) {
            (id, Err(error)) => (id, error.code().to_string(), error.to_string()),
            (_, Ok(request)) => panic!("{text} was read as {request:?}"),
        }
    }

    fn parse_ok(text: &str) -> (Option<u64>, PushRequest<'_>) {
        match parse(text) {
            (id, Ok(request)) => (id, request),
            (_, Err(error)) => panic!("{text}: {error}"),
        }
    }

    #[test]
    fn subscribe_members_select_the_start() {
        let start = |more: &str| {
            let text = format!(r#"{{"type":"subscribe","id":1,"topic":"t"{more}}}"#);
            match parse_ok(&text) {
                (Some(1), PushRequest::Subscribe(SubscribeCommand { target, start, .. })) => {
                    assert_eq!(target, TargetName::Topic("t".into()));
                    match start {
                        SubscribeStart::Since(position) => {
                            format!("since {}:{}", position.epoch, position.offset)
                        }
                        other => format!("{other:?}"),
                    }
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(start(""), "Live");
        assert_eq!(start(r#","latest":false"#), "Live");
        assert_eq!(start(r#","latest":true"#), "Latest");
        assert_eq!(start(r#","last":65536,"latest":false"#), "Last(65536)");
        assert_eq!(start(r#","since":{"epoch":"1f","offset":12}"#), "since 1f:12");
        assert_eq!(start(r#","since":{"offset":12,"more":[],"epoch":"1\u0066"}"#), "since 1f:12");
        let foreign = start(r#","since":{"epoch":"of another server","offset":12}"#);
        assert_eq!(foreign, "since of another server:12");
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
            ("[]".to_owned(), None, "invalid", "expected an object"),
            (r#"["ping",1]"#.to_owned(), None, "invalid", "expected an object"),
            (r#""ping""#.to_owned(), None, "invalid", "expected an object"),
            (r#"{}"#.to_owned(), None, "invalid", "type: missing"),
            (r#"{"type":null,"id":7}"#.to_owned(), Some(7), "invalid", "got null"),
            (r#"{"type":"dance","id":7}"#.to_owned(), Some(7), "type", "\"dance\""),
            (r#"{"type":"ping","type":"ping"}"#.to_owned(), None, "invalid", "duplicate field `type`"),
            (r#"{"type":"ping","id":1,"id":2}"#.to_owned(), None, "invalid", "duplicate field `id`"),
            (r#"{"type":"ping","id":-1}"#.to_owned(), None, "invalid", "got -1"),
            (r#"{"type":"ping","id":1.0}"#.to_owned(), None, "invalid", "got 1.0"),
            (r#"{"type":"ping","id":"1"}"#.to_owned(), None, "invalid", "got \"1\""),
            (r#"{"type":"ping","id":null}"#.to_owned(), None, "invalid", "got null"),
            (r#"{"type":"ping","id":9007199254740992}"#.to_owned(), None, "invalid", "2^53"),
            (r#"{"type":"unsubscribe","id":7}"#.to_owned(), Some(7), "invalid", "topic: missing"),
            (r#"{"type":"subscribe","id":7,"topic":5}"#.to_owned(), Some(7), "invalid", "got 5"),
            (sub(r#""latest":1"#), Some(7), "invalid", "latest: "),
            (sub(r#""last":0"#), Some(7), "invalid", "last: "),
            (sub(r#""last":65537"#), Some(7), "invalid", "got 65537"),
            (sub(r#""last":1,"latest":true"#), Some(7), "invalid", "exclude"),
            (sub(r#""tags":[]"#), Some(7), "invalid", "tags: "),
            (sub(r#""tags":"a""#), Some(7), "invalid", "got \"a\""),
            (sub(r#""tags":["a",""]"#), Some(7), "invalid", "1 to 64 bytes"),
            (sub(r#""since":5"#), Some(7), "invalid", "since: "),
            (sub(r#""since":["1f",12]"#), Some(7), "invalid", "since: "),
            (sub(r#""since":{"epoch":"1f"}"#), Some(7), "invalid", "since.offset: missing"),
            (sub(r#""since":{"offset":1}"#), Some(7), "invalid", "since.epoch: missing"),
            (sub(r#""since":{"epoch":1,"offset":1}"#), Some(7), "invalid", "since.epoch: "),
            (sub(r#""since":{"epoch":"1","offset":-1}"#), Some(7), "invalid", "got -1"),
            (sub(r#""since":{"epoch":"1","epoch":"1","offset":1}"#), Some(7), "invalid", "duplicate"),
            (sub(r#""latest":true,"since":{"epoch":"1","offset":1}"#), Some(7), "invalid", "exclude"),
            (
                r#"{"type":"subscribe","pattern":"a/*","latest":true}"#.to_owned(),
                None,
                "invalid",
                "has no history",
            ),
            (publish(r#""x":1"#), Some(7), "invalid", "either"),
            (publish(r#""data":1,"text":"a""#), Some(7), "invalid", "either"),
            (publish(r#""text":1"#), Some(7), "invalid", "text: "),
            (publish(r#""text":"a","key":"""#), Some(7), "invalid", "key: "),
            (
                publish(&format!(r#""text":"a","idempotency_key":"{}""#, "x".repeat(256))),
                Some(7),
                "invalid",
                "idempotency_key: ",
            ),
            (publish(r#""text":"a","ttl":0"#), Some(7), "invalid", "ttl: "),
            (publish(r#""text":"a","ttl":4294967296"#), Some(7), "invalid", "ttl: "),
            (publish(r#""text":"a","tags":[1]"#), Some(7), "invalid", "tags: "),
            (publish(&format!(r#""text":"a","tags":["{}"]"#, "x".repeat(65))), Some(7), "invalid", "tags: "),
            (publish(r#""text":"a","echo":"no""#), Some(7), "invalid", "echo: "),
        ] {
            let (got_id, got_code, message) = parse_err(&text);
            assert_eq!((got_id, &*got_code), (id, code), "{text}: {message}");
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

    fn text() -> impl Strategy<Value = Text<'static>> {
        any::<String>().prop_map(Text::from)
    }

    fn key() -> impl Strategy<Value = Text<'static>> {
        "[a-zé\"/]{1,40}".prop_map(Text::from)
    }

    fn target() -> impl Strategy<Value = TargetName<'static>> {
        prop_oneof![
            "[a-zé\"/]{0,40}[a-z]".prop_map(|topic| TargetName::Topic(topic.into())),
            "[a-zé\"/]{0,40}/\\*".prop_map(|pattern| TargetName::Pattern(pattern.into())),
        ]
    }

    fn request() -> impl Strategy<Value = PushRequest<'static>> {
        let tags = || prop::collection::vec(key(), 0..4);
        let start = prop_oneof![
            Just(SubscribeStart::Live),
            Just(SubscribeStart::Latest),
            (1..=MAX_LAST).prop_map(SubscribeStart::Last),
            ("[0-9a-f]{1,16}", 0u64..1 << 53).prop_map(|(epoch, offset)| {
                SubscribeStart::Since(WirePosition { epoch: Epoch::Text(epoch.into()), offset })
            }),
        ];
        let subscribe = (target(), start, tags()).prop_map(|(target, start, tags)| {
            let start = if matches!(target, TargetName::Pattern(_)) { SubscribeStart::Live } else { start };
            PushRequest::Subscribe(SubscribeCommand { target, start, tags })
        });
        let content =
            prop_oneof![text().prop_map(Content::Text), Just(Content::Json(r#"{"x": [1.0, null]}"#))];
        let keys = || prop::option::of(key());
        let ttl = prop::option::of((1..=u32::MAX).prop_map(|ms| Duration::from_millis(ms.into())));
        let publish = (text(), content, keys(), keys(), ttl, any::<bool>(), tags());
        let publish = publish.prop_map(|(topic, content, key, idempotency_key, ttl, echo, tags)| {
            PushRequest::Publish(PublishCommand { topic, content, key, idempotency_key, ttl, echo, tags })
        });
        prop_oneof![subscribe, target().prop_map(PushRequest::Unsubscribe), publish, Just(PushRequest::Ping)]
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_parsed_or_refused(text in r#"[\[\]{}",:a-z0-9.\\ -]{0,60}"#) {
            let _ = parse(&text);
        }

        /// A server reads what a client has written.
        #[test]
        fn requests_survive_writing_and_reading(request in request(), id in prop::option::of(0u64..1 << 53)) {
            let text = request.to_json(id).unwrap();
            let (got_id, got) = parse(&text);
            prop_assert_eq!((got_id, got.map_err(|e| e.to_string())), (id, Ok(request)), "{}", text);
        }

        #[test]
        fn any_topic_and_text_survive_encoding(topic in any::<String>(), text in any::<String>()) {
            let (mut t, mut x) = (Vec::new(), Vec::new());
            write_string(&mut t, &topic);
            write_string(&mut x, &text);
            let (t, x) = (String::from_utf8(t).unwrap(), String::from_utf8(x).unwrap());
            let request = format!(r#"{{"type":"publish","topic":{t},"text":{x}}}"#);
            match parse_ok(&request).1 {
                PushRequest::Publish(PublishCommand { topic: got, content: Content::Text(text_got), .. }) => {
                    prop_assert_eq!((&*got, &*text_got), (&*topic, &*text));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn requests_contain_only_the_given_members() {
        let subscribe = |target, start, tags: &[&'static str]| {
            let tags = tags.iter().map(|tag| (*tag).into()).collect();
            PushRequest::Subscribe(SubscribeCommand { target, start, tags })
        };
        let topic = || TargetName::Topic("t".into());
        let pattern = || TargetName::Pattern("t/*".into());
        let position = WirePosition { epoch: Epoch::Text("1f".into()), offset: 12 };
        let publish = |content, more: bool| {
            let key = |name: &'static str| more.then(|| name.into());
            PushRequest::Publish(PublishCommand {
                topic: "t".into(),
                content,
                key: key("k"),
                idempotency_key: Some("d".into()),
                ttl: more.then_some(Duration::from_millis(1)),
                echo: !more,
                tags: key("a").into_iter().collect(),
            })
        };
        for (request, expected) in [
            (subscribe(topic(), SubscribeStart::Live, &[]), r#"{"type":"subscribe","id":1,"topic":"t"}"#),
            (
                subscribe(topic(), SubscribeStart::Since(position), &["a", "b\""]),
                r#"{"type":"subscribe","id":1,"topic":"t","since":{"epoch":"1f","offset":12},"tags":["a","b\""]}"#,
            ),
            (
                subscribe(topic(), SubscribeStart::Latest, &[]),
                r#"{"type":"subscribe","id":1,"topic":"t","latest":true}"#,
            ),
            (
                subscribe(topic(), SubscribeStart::Last(5), &[]),
                r#"{"type":"subscribe","id":1,"topic":"t","last":5}"#,
            ),
            (
                subscribe(pattern(), SubscribeStart::Live, &[]),
                r#"{"type":"subscribe","id":1,"pattern":"t/*"}"#,
            ),
            (PushRequest::Unsubscribe(topic()), r#"{"type":"unsubscribe","id":1,"topic":"t"}"#),
            (PushRequest::Unsubscribe(pattern()), r#"{"type":"unsubscribe","id":1,"pattern":"t/*"}"#),
            (
                publish(Content::Text("\"ding\"\n".into()), false),
                r#"{"type":"publish","id":1,"topic":"t","text":"\"ding\"\n","idempotency_key":"d"}"#,
            ),
            (
                publish(Content::Json(r#"{"x": 1.0}"#), true),
                r#"{"type":"publish","id":1,"topic":"t","tags":["a"],"data":{"x": 1.0},"key":"k","idempotency_key":"d","ttl":1,"echo":false}"#,
            ),
        ] {
            assert_eq!(request.to_json(Some(1)).unwrap(), expected);
        }
        assert_eq!(PushRequest::Ping.to_json(None).unwrap(), r#"{"type":"ping"}"#);
        for invalid in ["", "{", r#"1,"topic":"other""#, "1 2"] {
            assert!(publish(Content::Json(invalid), false).to_json(None).is_err(), "{invalid}");
        }
    }
}
