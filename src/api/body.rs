//! What requests say: bodies of JSON and parameters of the query. What is wrong is named, with its value.

use super::response::ApiError;
use crate::conn::ConnId;
use crate::conn::InvalidConnId;
use crate::http::Request;
use crate::hub::{MAX_KEY, MAX_TAG, MAX_TAGS, SubscribeTarget};
use crate::json::{self, MAX_NESTING, Text, present, quoted, shorten};
use crate::protocol::{CloseCode, Message};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use core::fmt;
use core::marker::PhantomData;
use core::time::Duration;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Number, Value};
use std::borrow::Cow;

/// Milliseconds of a message's time to live.
const MAX_TTL: u64 = u32::MAX as u64;

/// Messages of a batch, topics of a broadcast.
const MAX_ITEMS: usize = 1000;

/// An integer, also where it is written as 5.0 or 5e0: JSON does not distinguish them.
#[derive(Clone, Copy, Debug)]
struct Integer(u64);

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = Number::deserialize(from)?;
        as_integer(&value)
            .map(Self)
            .ok_or_else(|| D::Error::custom(format!("expected an integer, got {value}")))
    }
}

fn as_integer(number: &Number) -> Option<u64> {
    let float = || number.as_f64().filter(|n| n.fract() == 0.0 && (0.0..=MAX_TTL as f64).contains(n));
    number.as_u64().or_else(|| float().map(|n| n as u64))
}

/// A message to be published, to one topic or to several.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PublishBody<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    topic: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    topics: Option<Vec<Text<'a>>>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    text: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    base64: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    key: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    idempotency_key: Option<Text<'a>>,
    #[serde(default, deserialize_with = "present")]
    ttl: Option<Integer>,
    #[serde(borrow, default, deserialize_with = "present")]
    tags: Option<Vec<Text<'a>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchBody<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    messages: Option<Vec<Object<PublishBody<'a>>>>,
}

/// A connection, and what is to be done with it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConnectionBody<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    connection: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    topic: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    pattern: Option<Text<'a>>,
    #[serde(default, deserialize_with = "present")]
    code: Option<Integer>,
    #[serde(borrow, default, deserialize_with = "present")]
    reason: Option<Text<'a>>,
}

/// An object. Left to itself, serde takes an array of a struct's fields for the struct.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        from.deserialize_map(Members(PhantomData))
    }
}

fn missing(field: &str) -> ApiError {
    ApiError::invalid(format!("{field}: missing"))
}

fn unexpected(field: &str) -> ApiError {
    ApiError::invalid(format!("{field}: not a field of this request"))
}

fn short_string<'a>(field: &str, text: &'a Option<Text<'_>>) -> Result<Option<&'a str>, ApiError> {
    match text.as_deref() {
        Some(text) if text.is_empty() || text.len() > MAX_KEY => {
            Err(ApiError::invalid(format!("{field}: expected 1 to {MAX_KEY} bytes, got {}", text.len())))
        }
        text => Ok(text),
    }
}

impl<'a> PublishBody<'a> {
    pub(super) fn topic(&self) -> Result<&str, ApiError> {
        if self.topics.is_some() {
            return Err(unexpected("topics"));
        }
        self.topic.as_deref().ok_or_else(|| missing("topic"))
    }

    pub(super) fn topics(&self) -> Result<&[Text<'a>], ApiError> {
        if self.topic.is_some() {
            return Err(unexpected("topic"));
        }
        let topics = self.topics.as_deref().ok_or_else(|| missing("topics"))?;
        check_count("topics", topics.len())?;
        Ok(topics)
    }

    /// The message. `decoded` takes what has to be decoded.
    pub(super) fn message<'m>(&'m self, decoded: &'m mut Vec<u8>) -> Result<Message<'m>, ApiError> {
        let message = match (self.data, &self.text, &self.base64) {
            (Some(data), None, None) => {
                json::check(data.get(), MAX_NESTING).map_err(|e| {
                    ApiError::new(400, "json", format!("data: expected JSON that every client can read: {e}"))
                })?;
                Message::json(data.get())
            }
            (None, Some(text), None) => Message::text(text),
            (None, None, Some(text)) => {
                STANDARD
                    .decode_vec(text.as_bytes(), decoded)
                    .map_err(|e| ApiError::invalid(format!("base64: expected base64 with padding: {e}")))?;
                Message::binary(decoded)
            }
            (None, None, None) => {
                return Err(ApiError::invalid("message: missing, expected data, text or base64"));
            }
            _ => {
                return Err(ApiError::invalid("message: expected only one of data, text and base64"));
            }
        };
        Ok(short_string("key", &self.key)?.map_or(message, |key| message.with_key(key)))
    }

    pub(super) fn idempotency_key(&self) -> Result<Option<&str>, ApiError> {
        short_string("idempotency_key", &self.idempotency_key)
    }

    pub(super) fn tags(&self) -> Result<Vec<&str>, ApiError> {
        let Some(tags) = &self.tags else { return Ok(Vec::new()) };
        let fit = tags.iter().all(|tag| (1..=MAX_TAG).contains(&tag.len()));
        if !fit || !(1..=MAX_TAGS).contains(&tags.len()) {
            let expected = format!("1 to {MAX_TAGS} strings of 1 to {MAX_TAG} bytes");
            let got = quoted(tags.iter().map(|tag| &**tag).collect::<Vec<_>>());
            return Err(ApiError::invalid(format!("tags: expected {expected}, got {got}")));
        }
        Ok(tags.iter().map(|tag| &**tag).collect())
    }

    pub(super) fn ttl(&self) -> Result<Option<Duration>, ApiError> {
        match self.ttl {
            None => Ok(None),
            Some(Integer(ms @ 1..=MAX_TTL)) => Ok(Some(Duration::from_millis(ms))),
            Some(Integer(ms)) => {
                Err(ApiError::invalid(format!("ttl: expected 1 to {MAX_TTL} milliseconds, got {ms}")))
            }
        }
    }
}

impl<'a> BatchBody<'a> {
    pub(super) fn messages(&self) -> Result<impl Iterator<Item = &PublishBody<'a>>, ApiError> {
        let messages = self.messages.as_deref().ok_or_else(|| missing("messages"))?;
        check_count("messages", messages.len())?;
        Ok(messages.iter().map(|Object(message)| message))
    }
}

fn check_count(field: &str, len: usize) -> Result<(), ApiError> {
    match len {
        1..=MAX_ITEMS => Ok(()),
        _ => Err(ApiError::invalid(format!("{field}: expected 1 to {MAX_ITEMS} members, got {len}"))),
    }
}

/// The error for a connection that is not open.
pub(super) fn gone(id: impl fmt::Display) -> ApiError {
    ApiError::new(404, "gone", format!("connection: {id} is not open"))
}

impl ConnectionBody<'_> {
    pub(super) fn connection(&self) -> Result<ConnId, ApiError> {
        let text = self.connection.as_deref().ok_or_else(|| missing("connection"))?;
        text.parse().map_err(|e: InvalidConnId| {
            let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            if text.split('.').count() == 3 && text.split('.').all(number) {
                return gone(text);
            }
            ApiError::invalid(format!("connection: {}: {e}", quoted(text)))
        })
    }

    /// The close code; only for closing.
    pub(super) fn code(&self) -> Result<CloseCode, ApiError> {
        let Some(Integer(code)) = self.code else { return Ok(CloseCode::NORMAL) };
        let valid = u16::try_from(code).ok().map(CloseCode).filter(|code| code.is_valid_on_wire());
        valid.ok_or_else(|| {
            ApiError::invalid(format!(
                "code: expected 1000 to 1003, 1007 to 1014 or 3000 to 4999, got {code}"
            ))
        })
    }

    /// The topic or the pattern; only for subscribing and unsubscribing.
    pub(super) fn target(&self) -> Result<SubscribeTarget<'_>, ApiError> {
        if self.code.is_some() || self.reason.is_some() {
            return Err(unexpected(if self.code.is_some() { "code" } else { "reason" }));
        }
        match (self.topic.as_deref(), self.pattern.as_deref()) {
            (Some(topic), None) => Ok(SubscribeTarget::Topic(topic)),
            (None, Some(pattern)) => Ok(SubscribeTarget::Pattern(pattern)),
            (None, None) => Err(missing("topic")),
            (Some(_), Some(_)) => Err(ApiError::invalid("topic and pattern exclude each other: send one")),
        }
    }

    /// The close reason; only for closing.
    pub(super) fn reason(&self) -> Result<&str, ApiError> {
        if self.topic.is_some() || self.pattern.is_some() {
            return Err(unexpected(if self.topic.is_some() { "topic" } else { "pattern" }));
        }
        let reason = self.reason.as_deref().unwrap_or_default();
        if reason.len() > 123 {
            // RFC 6455 section 5.5: with the code it is the payload of a control frame.
            let len = reason.len();
            return Err(ApiError::invalid(format!("reason: {len} bytes, at most 123 are allowed")));
        }
        Ok(reason)
    }
}

// ---- bodies ----

/// What a field must be.
#[derive(Clone, Copy)]
pub(super) enum FieldKind {
    Any,
    String,
    Strings,
    /// An integer up to this.
    Integer(u64),
    Messages,
}

pub(super) type Fields = &'static [(&'static str, FieldKind)];

const MESSAGE: Fields = &[
    ("topic", FieldKind::String),
    ("topics", FieldKind::Strings),
    ("data", FieldKind::Any),
    ("text", FieldKind::String),
    ("base64", FieldKind::String),
    ("key", FieldKind::String),
    ("idempotency_key", FieldKind::String),
    ("ttl", FieldKind::Integer(MAX_TTL)),
    ("tags", FieldKind::Strings),
];

/// What a body can be read as.
pub(super) trait Body<'a>: Deserialize<'a> {
    const FIELDS: Fields;
}

impl<'a> Body<'a> for PublishBody<'a> {
    const FIELDS: Fields = MESSAGE;
}

impl<'a> Body<'a> for BatchBody<'a> {
    const FIELDS: Fields = &[("messages", FieldKind::Messages)];
}

impl<'a> Body<'a> for ConnectionBody<'a> {
    const FIELDS: Fields = &[
        ("connection", FieldKind::String),
        ("topic", FieldKind::String),
        ("pattern", FieldKind::String),
        ("code", FieldKind::Integer(u16::MAX as u64)),
        ("reason", FieldKind::String),
    ];
}

pub(super) fn read_body<'a, T: Body<'a>>(request: &Request<'a>) -> Result<T, ApiError> {
    let body = request.body();
    let read = serde_json::from_slice(body).map(|Object(body)| body);
    read.map_err(|e| match serde_json::from_slice::<Value>(body) {
        Err(e) => ApiError::new(400, "json", format!("body: expected JSON: {e}")),
        Ok(value) => {
            ApiError::invalid(describe_mismatch("", &value, T::FIELDS).unwrap_or_else(|| e.to_string()))
        }
    })
}

/// Describes what is wrong with an object: the field, what is expected, the value.
fn describe_mismatch(place: &str, value: &Value, fields: Fields) -> Option<String> {
    let Value::Object(members) = value else {
        let what = if place.is_empty() { "body" } else { place };
        return Some(format!("{what}: expected an object, got {}", shorten(&value.to_string())));
    };
    members.iter().find_map(|(name, value)| {
        let path = format!("{place}{}{name}", if place.is_empty() { "" } else { "." });
        let Some((_, kind)) = fields.iter().find(|(field, _)| field == name) else {
            let known: Vec<_> = fields.iter().map(|(field, _)| *field).collect();
            let name = shorten(&path);
            return Some(format!("{name}: not a field of this request; it has {}", known.join(", ")));
        };
        let got = || shorten(&value.to_string()).into_owned();
        let wrong = |expected: &str| Some(format!("{path}: expected {expected}, got {}", got()));
        match (kind, value) {
            (FieldKind::Any, _) | (FieldKind::String, Value::String(_)) => None,
            (FieldKind::String, _) => wrong("a string"),
            (FieldKind::Integer(most), _) => match value.as_number().and_then(as_integer) {
                Some(n) if n <= *most => None,
                _ => wrong(&format!("an integer from 0 to {most}")),
            },
            (FieldKind::Strings, Value::Array(all)) if all.iter().all(Value::is_string) => None,
            (FieldKind::Strings, _) => wrong("an array of strings"),
            (FieldKind::Messages, Value::Array(all)) => all
                .iter()
                .enumerate()
                .find_map(|(i, one)| describe_mismatch(&format!("{path}[{i}]"), one, MESSAGE)),
            (FieldKind::Messages, _) => wrong("an array of messages"),
        }
    })
}

// ---- the query ----

/// Checks that the query has only these parameters, each once.
pub(super) fn check_query(request: &Request<'_>, known: &[&str]) -> Result<(), ApiError> {
    let mut seen: Vec<Cow<'_, str>> = Vec::new();
    for (name, _) in request.query_pairs() {
        if !known.contains(&&*name) {
            let (name, known) = (shorten(&name), known.join(", "));
            return Err(ApiError::invalid(format!("{name}: not a parameter here; there are {known}")));
        }
        if seen.contains(&name) {
            return Err(ApiError::invalid(format!("{name}: given twice")));
        }
        seen.push(name);
    }
    Ok(())
}

/// An integer in the query.
pub(super) fn query_integer(request: &Request<'_>, name: &str, most: u64) -> Result<Option<u64>, ApiError> {
    let Some(text) = request.query_value(name) else { return Ok(None) };
    let number = text.parse::<u64>().ok().filter(|n| *n <= most && text.bytes().all(|b| b.is_ascii_digit()));
    number.map(Some).ok_or_else(|| {
        let text = quoted(&text);
        ApiError::invalid(format!("{name}: expected an integer from 0 to {most}, got {text}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of<'a, T: Body<'a>>(body: &'a str) -> Option<String> {
        let value = serde_json::from_str(body).unwrap();
        serde_json::from_str::<Object<T>>(body)
            .err()
            .map(|e| describe_mismatch("", &value, T::FIELDS).unwrap_or_else(|| e.to_string()))
    }

    #[test]
    fn errors_name_the_field_and_its_value() {
        for (body, words) in [
            ("[]", "body: expected an object, got []"),
            (r#"{"topic":5}"#, "topic: expected a string, got 5"),
            (r#"{"topic":null,"text":""}"#, "topic: expected a string, got null"),
            (r#"{"topic":"a","ttl":-1}"#, "ttl: expected an integer from 0 to 4294967295, got -1"),
            (r#"{"topic":"a","ttl":1.5}"#, "got 1.5"),
            (r#"{"tpic":"a"}"#, "tpic: not a field of this request; it has topic, "),
            (r#"{"topic":"a","topic":"b"}"#, "duplicate field `topic`"),
        ] {
            let error_of = error_of::<PublishBody<'_>>(body).unwrap();
            assert!(error_of.contains(words), "{error_of}");
        }
        let batch = error_of::<BatchBody<'_>>(r#"{"messages":[{},{"ttl":"long"}]}"#).unwrap();
        assert!(batch.contains("messages[1].ttl: expected an integer"), "{batch}");
        assert_eq!(error_of::<PublishBody<'_>>(r#"{"topic":"a","data":null,"key":"k"}"#), None);
    }
}
