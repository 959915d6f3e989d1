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
            "{:?} can't be a topic: a name has 1 to {MAX_TOPIC} bytes and no control characters",
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
        return Err(InvalidTopic { name: name.chars().take(64).collect() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
