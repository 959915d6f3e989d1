//! Words that a message is about, and that a subscriber may ask for: of a topic with a filter it gets only what carries
//! one of them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Tags of one message or filter, and bytes of one, that clients may name.
#[cfg_attr(not(any(feature = "push", feature = "api")), allow(dead_code))]
pub(crate) const MAX_TAGS: usize = 16;
#[cfg_attr(not(any(feature = "push", feature = "api")), allow(dead_code))]
pub(crate) const MAX_TAG: usize = 64;

/// The tags of a message, or those that a subscriber asks for, as hashes of 64 bits: that two words meet by chance is
/// less likely than a broken memory, and comparing them costs a few instructions for each message. They are compared and
/// never put into a table, so the hash needs no secret key: two words with one hash bring a subscriber nothing that it
/// could not ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tags(Arc<[u64]>);

impl Tags {
    /// `None` where there are none.
    pub(crate) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let hash = |name: &str| {
            let mut hasher = DefaultHasher::new();
            name.hash(&mut hasher);
            hasher.finish()
        };
        let hashes: Arc<[u64]> = names.into_iter().map(hash).collect();
        (!hashes.is_empty()).then_some(Self(hashes))
    }

    /// Whether a subscriber that asks for these gets a message that carries those.
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
