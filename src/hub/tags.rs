//! Tags: words that a message is about, for subscribers with a filter.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// The number of tags of one message or filter, and the bytes of one, for clients.
#[cfg_attr(not(any(feature = "push", feature = "api")), allow(dead_code))]
pub(crate) const MAX_TAGS: usize = 16;
#[cfg_attr(not(any(feature = "push", feature = "api")), allow(dead_code))]
pub(crate) const MAX_TAG: usize = 64;

/// Bytes of a message's key, and of its idempotency key, that clients may set.
#[cfg_attr(not(any(feature = "push", feature = "api")), allow(dead_code))]
pub(crate) const MAX_KEY: usize = 255;

/// The tags of a message or a filter, as 64-bit hashes. An accidental collision is less likely than a memory error, and
/// comparing hashes costs a few instructions for each message. They are never keys of a table, so the hash needs no
/// secret: a client that finds a collision gains nothing that it could not request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tags(Arc<[u64]>);

impl Tags {
    /// Makes tags; `None` without any.
    pub(crate) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let hash = |name: &str| {
            let mut hasher = DefaultHasher::new();
            name.hash(&mut hasher);
            hasher.finish()
        };
        let hashes: Arc<[u64]> = names.into_iter().map(hash).collect();
        (!hashes.is_empty()).then_some(Self(hashes))
    }

    /// Returns whether a filter with these tags matches a message with those.
    pub(crate) fn matches(&self, carried: Option<&Self>) -> bool {
        carried.is_some_and(|carried| carried.0.iter().any(|tag| self.0.contains(tag)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_common_tag_matches() {
        let tags = |names: &[&'static str]| Tags::new(names.iter().copied());
        let asked = tags(&["eur", "usd"]).unwrap();
        assert!(asked.matches(tags(&["gbp", "usd"]).as_ref()));
        assert!(!asked.matches(tags(&["gbp"]).as_ref()));
        assert!(!asked.matches(tags(&[]).as_ref()) && !asked.matches(None));
    }
}
