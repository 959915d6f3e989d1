//! JSON that every parser can read, and what the push protocol and the HTTP API share of reading and writing it.
//! serde_json's [`RawValue`](serde_json::value::RawValue) alone accepts lone surrogates, huge numbers and deep nesting,
//! which other parsers refuse. Pure.

mod members;

#[cfg(feature = "api")]
pub(crate) use members::quoted;
#[cfg(feature = "push")]
pub(crate) use members::{Integer, MAX_INTEGER};
pub(crate) use members::{Text, present, shorten, write_payload, write_string};

use core::fmt;
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

/// Levels that a message's data may be nested. With the request around it these are the 127 that serde_json itself
/// would take, and as many as the other parsers in use do at least.
pub(crate) const MAX_NESTING: u32 = 126;

/// Checks that a text is one JSON value without lone surrogates, numbers out of the range of a 64-bit float, and arrays
/// or objects that are nested deeper than `levels`, up to 127.
///
/// # Errors
/// What is wrong, and where.
pub(crate) fn check(text: &str, levels: u32) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Checked { levels, left: levels }.deserialize(&mut deserializer)?;
    deserializer.end()
}

#[derive(Clone, Copy)]
struct Checked {
    levels: u32,
    left: u32,
}

impl Checked {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        let too_deep = || E::custom(format_args!("nested in more than {} levels", self.levels));
        Ok(Self { left: self.left.checked_sub(1).ok_or_else(too_deep)?, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Checked {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while items.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while members.next_entry_seed(inner, inner)?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_limited_and_the_error_is_named() {
        let fault = |text: &str, levels| check(text, levels).err().map(|e| e.to_string());
        assert_eq!(fault("1", 0), None);
        assert_eq!(fault(r#"[{"a":[]},[[]]]"#, 3), None);
        for (text, words) in [
            (r#"[[[[[[]]]]]]"#, "nested in more than 5 levels at line 1"),
            (r#"["\ud800"]"#, "hex escape"),
            ("[1e400]", "out of range"),
            ("1 1", "trailing"),
            ("", "EOF"),
            ("[1,]", "trailing comma"),
        ] {
            assert!(fault(text, 5).is_some_and(|e| e.contains(words)), "{text}");
        }
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert_eq!((fault(&deep(127), 127), fault(&deep(128), 127).is_some()), (None, true));
    }
}
