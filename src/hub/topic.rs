//! Names of topics.

use core::fmt;

/// The longest name, in bytes.
pub const MAX_TOPIC: usize = 255;

/// A name that no topic can have: empty, over 255 bytes, or with control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidTopic {
    /// The name, cut after 64 characters.
    pub name: String,
}

impl fmt::Display for InvalidTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} can't be a topic: a name has 1 to {MAX_TOPIC} bytes and no control characters, and one with /* at \
             its end can be subscribed to but not published to",
            self.name
        )
    }
}

impl std::error::Error for InvalidTopic {}

/// Checks a name of a topic, such as one that is made from a path.
///
/// # Errors
/// It is empty, too long, or has control characters in it.
pub fn check(name: &str) -> Result<(), InvalidTopic> {
    if name.is_empty() || name.len() > MAX_TOPIC || name.bytes().any(|b| b < 0x20 || b == 0x7F) {
        return Err(invalid(name));
    }
    Ok(())
}

/// Whether this names all topics below a prefix, as `ticks/*` does.
pub(crate) fn is_pattern(name: &str) -> bool {
    name.ends_with("/*")
}

/// The patterns that a topic's name matches, the longest first: `a/b/*` and `a/*` for `a/b/c`.
pub(crate) fn patterns_of(name: &str) -> impl Iterator<Item = String> {
    name.rmatch_indices('/').map(move |(at, _)| format!("{}*", &name[..=at]))
}

/// Checks the name of a topic that is published to: it is no pattern.
///
/// # Errors
/// As [`check`], and it is a pattern.
pub(crate) fn check_published(name: &str) -> Result<(), InvalidTopic> {
    check(name)?;
    if is_pattern(name) { Err(invalid(name)) } else { Ok(()) }
}

fn invalid(name: &str) -> InvalidTopic {
    InvalidTopic { name: name.chars().take(64).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_prefix_that_ends_with_a_slash() {
        assert_eq!(patterns_of("a/b/c").collect::<Vec<_>>(), ["a/b/*", "a/*"]);
        assert_eq!(patterns_of("room").count(), 0);
        assert!(is_pattern("ticks/*") && !is_pattern("ticks*") && !is_pattern("*"));
        assert!(check_published("ticks/*").is_err() && check("ticks/*").is_ok());
    }

    #[test]
    fn names_are_short_and_printable() {
        for good in ["room", "orders/42", "消息", &"x".repeat(255)] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", "a\nb", "\0", &"x".repeat(256)] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
