//! Names of topics, and patterns. The two are disjoint: a pattern ends with `/*`, a topic's name never does. So a name
//! with a part that somebody else chose, such as `user/{id}` with the id `*`, can't subscribe to other topics.

use core::fmt;
use std::borrow::Cow;

/// The longest name of a topic and the longest pattern, in bytes.
pub const MAX_TOPIC: usize = 255;

/// Characters of a refused name that the error repeats.
const SHOWN: usize = 64;

/// Why a text is no valid topic name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidTopic {
    /// It is empty.
    Empty,
    /// It is longer than [`MAX_TOPIC`].
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// It contains a control character ([`char::is_control`]).
    Control {
        /// The first 64 characters of the name.
        name: String,
        /// The first control character.
        character: char,
    },
    /// It is a pattern; use [`Conn::subscribe_pattern`](crate::Conn::subscribe_pattern).
    Pattern {
        /// The first 64 characters of the pattern.
        name: String,
    },
}

impl fmt::Display for InvalidTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "topic: empty, expected 1 to {MAX_TOPIC} bytes"),
            Self::TooLong { len } => write!(f, "topic: {len} bytes, at most {MAX_TOPIC} are allowed"),
            Self::Control { name, character } => {
                let code = u32::from(*character);
                write!(f, "topic: {name:?} contains the control character U+{code:04X}, none is allowed")
            }
            Self::Pattern { name } => write!(
                f,
                "topic: {name:?} is a pattern, expected the name of one topic; subscribe to it as a pattern, or rename \
                 the topic"
            ),
        }
    }
}

impl std::error::Error for InvalidTopic {}

/// Why a text is no valid pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidPattern {
    /// It does not end with `/*`.
    NoStar {
        /// The first 64 characters of the text.
        pattern: String,
    },
    /// It is longer than [`MAX_TOPIC`].
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// It contains a control character ([`char::is_control`]).
    Control {
        /// The first 64 characters of the text.
        pattern: String,
        /// The first control character.
        character: char,
    },
}

impl fmt::Display for InvalidPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStar { pattern } => write!(
                f,
                "pattern: {pattern:?}, expected a prefix and \"/*\", such as ticks/*; subscribe to a single topic by its \
                 name"
            ),
            Self::TooLong { len } => write!(f, "pattern: {len} bytes, at most {MAX_TOPIC} are allowed"),
            Self::Control { pattern, character } => {
                let code = u32::from(*character);
                write!(f, "pattern: {pattern:?} contains the control character U+{code:04X}, none is allowed")
            }
        }
    }
}

impl std::error::Error for InvalidPattern {}

/// A valid topic name or a valid pattern. Only its two constructors make one, so a topic name is never used as a
/// pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicOrPattern<'a>(Cow<'a, str>);

impl<'a> TopicOrPattern<'a> {
    pub(crate) fn topic(name: &'a str) -> Result<Self, InvalidTopic> {
        check(name)?;
        Ok(Self(Cow::Borrowed(name)))
    }

    pub(crate) fn pattern(pattern: &'a str) -> Result<Self, InvalidPattern> {
        check_pattern(pattern)?;
        Ok(Self(Cow::Borrowed(pattern)))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_pattern(&self) -> bool {
        is_pattern(&self.0)
    }

    pub(crate) fn into_owned(self) -> TopicOrPattern<'static> {
        TopicOrPattern(Cow::Owned(self.0.into_owned()))
    }
}

/// Checks the name of a topic, such as one that is made from a path.
///
/// ```
/// use campanile::{InvalidTopic, check_topic};
///
/// assert!(check_topic("user/7").is_ok());
/// // A user who is called "*" does not get everybody's messages.
/// assert!(matches!(check_topic("user/*"), Err(InvalidTopic::Pattern { .. })));
/// ```
///
/// # Errors
/// It is empty, longer than [`MAX_TOPIC`], a pattern (it ends with `/*`), or contains control characters.
pub fn check(name: &str) -> Result<(), InvalidTopic> {
    if name.is_empty() {
        return Err(InvalidTopic::Empty);
    }
    if name.len() > MAX_TOPIC {
        return Err(InvalidTopic::TooLong { len: name.len() });
    }
    if let Some(character) = control(name) {
        return Err(InvalidTopic::Control { name: shown(name), character });
    }
    if is_pattern(name) { Err(InvalidTopic::Pattern { name: shown(name) }) } else { Ok(()) }
}

/// Checks a pattern: a prefix followed by `/*`, which stands for every topic below it, at any depth.
///
/// # Errors
/// It does not end with `/*`, is longer than [`MAX_TOPIC`], or contains control characters.
pub fn check_pattern(pattern: &str) -> Result<(), InvalidPattern> {
    if pattern.len() > MAX_TOPIC {
        return Err(InvalidPattern::TooLong { len: pattern.len() });
    }
    if let Some(character) = control(pattern) {
        return Err(InvalidPattern::Control { pattern: shown(pattern), character });
    }
    if is_pattern(pattern) { Ok(()) } else { Err(InvalidPattern::NoStar { pattern: shown(pattern) }) }
}

/// Returns whether a text is a pattern, such as `ticks/*`: all topics below a prefix.
pub(crate) fn is_pattern(name: &str) -> bool {
    name.ends_with("/*")
}

/// Returns the patterns that match a topic's name, the longest first: `a/b/*` and `a/*` for `a/b/c`.
pub(crate) fn matching_patterns(name: &str) -> impl Iterator<Item = String> {
    name.rmatch_indices('/').map(move |(at, _)| format!("{}*", &name[..=at]))
}

/// Returns the first control character. Publishing checks each name, and most are ASCII.
fn control(name: &str) -> Option<char> {
    if name.is_ascii() && !name.bytes().any(|b| b.is_ascii_control()) {
        return None;
    }
    name.chars().find(|c| c.is_control())
}

fn shown(name: &str) -> String {
    name.chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pattern_ends_with_slash_star() {
        assert_eq!(matching_patterns("a/b/c").collect::<Vec<_>>(), ["a/b/*", "a/*"]);
        assert_eq!(matching_patterns("room").count(), 0);
        for pattern in ["ticks/*", "/*", "a/*/b/*", "a/**/*"] {
            assert_eq!(check_pattern(pattern), Ok(()), "{pattern}");
            assert_eq!(check(pattern), Err(InvalidTopic::Pattern { name: pattern.to_owned() }));
        }
        for topic in ["ticks*", "*", "a/*/b", "ticks/**", "ticks/* "] {
            assert_eq!(check(topic), Ok(()), "{topic}");
            assert_eq!(check_pattern(topic), Err(InvalidPattern::NoStar { pattern: topic.to_owned() }));
        }
    }

    #[test]
    fn topic_names_are_bounded_and_without_control_characters() {
        for good in ["room", "orders/42", "消息", "caf\u{e9}", &"x".repeat(255)] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        assert_eq!(check(""), Err(InvalidTopic::Empty));
        assert_eq!(check(&"x".repeat(256)), Err(InvalidTopic::TooLong { len: 256 }));
        assert_eq!(
            check_pattern(&format!("{}/*", "x".repeat(254))),
            Err(InvalidPattern::TooLong { len: 256 })
        );
    }

    #[test]
    fn every_control_character_of_unicode_is_refused_in_a_name_and_in_a_pattern() {
        let controls: Vec<char> = ('\0'..=char::MAX).filter(|c| c.is_control()).collect();
        assert_eq!(controls.len(), 65, "C0, DEL and C1, such as U+0085");
        for character in controls {
            let name = format!("a{character}b");
            assert_eq!(check(&name), Err(InvalidTopic::Control { name: name.clone(), character }));
            let pattern = format!("{name}/*");
            assert!(matches!(check_pattern(&pattern), Err(InvalidPattern::Control { .. })), "{pattern:?}");
        }
    }

    proptest! {
        #[test]
        fn topics_and_patterns_are_disjoint(text in "[a*/\u{85}é]{0,8}(/\\*)?") {
            prop_assert!(check(&text).is_err() || check_pattern(&text).is_err());
            let refused_by_both = check(&text).is_err() && check_pattern(&text).is_err();
            prop_assert_eq!(refused_by_both, text.is_empty() || text.contains('\u{85}'));
        }

        #[test]
        fn a_topic_built_from_a_prefix_stays_below_it(id in ".{0,20}|\\*|[a-z]{0,3}/\\*") {
            let name = format!("user/{id}");
            if let Ok(name) = TopicOrPattern::topic(&name) {
                prop_assert!(!name.is_pattern() && !matching_patterns("user/somebody else").any(|p| p == name.as_str()));
            }
        }
    }
}
