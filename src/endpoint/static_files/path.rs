//! Paths that can't lead out of a folder.

/// The names of a decoded path, each of them a single name. It cannot be built from anything else, so a path that is
/// joined with a folder stays below that folder, symbolic links apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SafePath<'a> {
    names: Vec<&'a str>,
    /// It ends in a slash, or is empty.
    folder: bool,
}

impl<'a> SafePath<'a> {
    /// Reads a path that has been decoded, once, and begins below the folder: without a slash.
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        let (inner, folder) = match path.strip_suffix('/') {
            Some(inner) => (inner, true),
            None => (path, path.is_empty()),
        };
        if path.is_empty() {
            return Some(Self { names: Vec::new(), folder });
        }
        let names: Vec<_> = inner.split('/').collect();
        let hold = names.iter().enumerate().all(|(depth, name)| is_name(name, depth));
        hold.then_some(Self { names, folder })
    }

    /// Whether a folder is meant.
    pub(super) fn is_folder(&self) -> bool {
        self.folder
    }

    /// The names with slashes between them and none around them.
    pub(super) fn join(&self) -> String {
        self.names.join("/")
    }
}

/// Empty names (`//`), `.` and `..` mean another place; hidden files are hidden for a reason, save those RFC 8615 puts
/// below `.well-known`; a NUL ends a name early where C reads it; a backslash is a slash to some, and other control
/// characters have never been in the name of a file anyone meant to serve.
fn is_name(name: &str, depth: usize) -> bool {
    let hidden = name.starts_with('.') && !(depth == 0 && name == ".well-known");
    !name.is_empty() && !hidden && !name.chars().any(|found| found == '\\' || found.is_control())
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    fn parse(path: &str) -> Option<(String, bool)> {
        SafePath::parse(path).map(|path| (path.join(), path.is_folder()))
    }

    #[test]
    fn paths_split_into_names_and_a_trailing_slash_means_a_directory() {
        assert_eq!(parse(""), Some((String::new(), true)));
        assert_eq!(parse("a/b.html"), Some(("a/b.html".into(), false)));
        assert_eq!(parse("a/b/"), Some(("a/b".into(), true)));
        assert_eq!(parse(".well-known/acme"), Some((".well-known/acme".into(), false)));
        assert_eq!(parse("%2e%2e/a..b"), Some(("%2e%2e/a..b".into(), false)));
    }

    #[test]
    fn traversal_and_hidden_names_are_refused() {
        let refused = [
            "..",
            "../a",
            "a/../b",
            "a/..",
            "/..",
            ".",
            "a/./b",
            "/",
            "//",
            "/a",
            "a//b",
            "a//",
            "\\..\\a",
            "a\0b",
            "a\n",
            ".git/config",
            "a/.env",
            "a/.well-known",
            "...",
        ];
        for path in refused {
            assert_eq!(parse(path), None, "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn a_parsed_path_stays_below_the_root(path in "([./\\\\a\0~ ]|\\PC){0,24}") {
            if let Some(safe) = SafePath::parse(&path) {
                let joined = Path::new("/srv/www").join(safe.join());
                prop_assert!(joined.starts_with("/srv/www"));
                prop_assert!(joined.components().skip(1).all(|part| matches!(part, Component::Normal(_))));
            }
        }
    }
}
