//! What the parameters of a route stand for in one path.

use std::sync::Arc;

/// Names and decoded values, in the order of the pattern. It is kept as long as the connection lives, so it owns its
/// values, takes 16 bytes, is cheap to clone, and when empty owns nothing else. `*` names what a trailing `*` stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(Arc<[(Box<str>, Box<str>)]>);

impl Params {
    /// The value of a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|&(found, _)| found == name).map(|(_, value)| value)
    }

    /// Names and values, in the order of the pattern.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<N: Into<Box<str>>, V: Into<Box<str>>> FromIterator<(N, V)> for Params {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_params_do_not_allocate() {
        assert_eq!(size_of::<Params>(), 16);
        assert!(Params::default().is_empty());
        assert_eq!(Params::default().get("room"), None);
    }

    #[test]
    fn params_are_found_by_name() {
        let params: Params = [("room", "blue"), ("*", "a/b")].into_iter().collect();
        assert_eq!((params.get("room"), params.get("*"), params.get("a")), (Some("blue"), Some("a/b"), None));
        assert_eq!(params.iter().len(), 2);
    }
}
