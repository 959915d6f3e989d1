//! Members of objects: how they are read and written. Pure.

use core::ops::Deref;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;

/// The greatest integer that a browser reads exactly: 2^53 - 1.
#[cfg_attr(not(feature = "push"), allow(dead_code))]
pub(crate) const MAX_INTEGER: u64 = (1 << 53) - 1;

/// Characters of a client's text that an error or a log line repeats.
const MAX_QUOTED: usize = 64;

/// A string, borrowed where it contains no escapes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

/// An integer from 0 to [`MAX_INTEGER`], written without fraction and exponent.
#[cfg_attr(not(feature = "push"), allow(dead_code))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Integer(pub(crate) u64);

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let n = u64::deserialize(deserializer)?;
        if n > MAX_INTEGER {
            return Err(D::Error::custom(format_args!("expected an integer below 2^53, got {n}")));
        }
        Ok(Self(n))
    }
}

/// Reads a member that is present. `null` is a value like any other, and not an absent member.
pub(crate) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Appends a string with its quotation marks.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    let _ = serde_json::to_writer(out, text); // strings can be written, and a Vec takes all
}

/// Appends the member that holds a payload: JSON as it is, text as a string.
pub(crate) fn write_payload(out: &mut Vec<u8>, text: &str, is_json: bool) {
    if is_json {
        out.extend_from_slice(br#""data":"#);
        out.extend_from_slice(text.as_bytes());
    } else {
        out.extend_from_slice(br#""text":"#);
        write_string(out, text);
    }
}

/// A text as errors repeat it: cut to [`MAX_QUOTED`] characters.
pub(crate) fn shorten(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// A text in quotation marks as errors repeat it.
#[cfg(any(feature = "api", test))]
pub(crate) fn quoted(text: impl core::fmt::Debug) -> String {
    shorten(&format!("{text:?}")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_shortened() {
        assert_eq!(shorten(&"é".repeat(65)), "é".repeat(64) + "…");
        assert_eq!(shorten(&"é".repeat(64)), "é".repeat(64));
        assert_eq!(quoted("a\"b"), r#""a\"b""#);
    }

    #[test]
    fn integers_are_exact_in_a_browser() {
        let read = |text: &str| serde_json::from_str::<Integer>(text).ok();
        assert_eq!(read("9007199254740991"), Some(Integer(MAX_INTEGER)));
        for text in ["9007199254740992", "-1", "1.0", "\"1\"", "null"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_text_without_escapes_is_borrowed() {
        let read =
            |text| serde_json::from_str::<Text<'_>>(text).map(|text| matches!(text.0, Cow::Borrowed(_)));
        assert_eq!((read(r#""a""#).unwrap(), read(r#""a\n""#).unwrap()), (true, false));
    }
}
