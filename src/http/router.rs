//! Which route a path takes. A pattern is a path whose segments are fixed (`/chat`), named (`/chat/:room`), or, as the
//! last one, open (`/files/*`). Where several match, the more special segment wins, from left to right:
//! fixed, then named, then open.
//!
//! ```text
//! /a/b/c   /a/:x   /a/*          /a/b    takes /a/:x, after looking below the fixed b in vain
//!                                /a/b/c  takes /a/b/c
//!    a ─┬─ b ─ c ●               /a/b/d  takes /a/*
//!       ├─ :x ●
//!       └─ * ●
//! ```
//!
//! Going back and trying the next branch costs little: a node is reached by one way only, so a search visits each node
//! once at most, however long the path and whatever it says. Methods are no business of the router; the value of a
//! route may hold a choice by method.

use core::fmt;
use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::Params;

/// The most segments a pattern may have. The search goes one call deeper with each; no sensible path comes near.
const MAX_SEGMENTS: usize = 32;

/// Routes by path.
#[derive(Clone, Debug)]
pub struct Router<T> {
    root: Node<T>,
}

/// The segments before this one are settled; these may follow.
#[derive(Clone, Debug)]
struct Node<T> {
    /// Sorted by segment.
    fixed: Vec<(Box<str>, Self)>,
    named: Option<Box<Self>>,
    open: Option<RouteEntry<T>>,
    /// The route of a path that ends here.
    route: Option<RouteEntry<T>>,
}

#[derive(Clone, Debug)]
struct RouteEntry<T> {
    pattern: Box<str>,
    value: T,
}

/// A route found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Match<'r, T> {
    /// What was inserted.
    pub value: &'r T,
    /// The pattern it was inserted under: for metrics and logs, where a path would be boundless.
    pub pattern: &'r str,
    /// What its parameters stand for.
    pub params: Params,
}

impl<T> Router<T> {
    /// A router without routes.
    #[must_use]
    pub const fn new() -> Self {
        Self { root: Node::new() }
    }

    /// Adds a route. The pattern is written decoded: `/a b`, not `/a%20b`.
    ///
    /// # Errors
    /// The pattern is not valid, or there is already one that matches the same paths.
    pub fn insert(&mut self, pattern: &str, value: T) -> Result<(), RouteError> {
        let segments = check(pattern)?;
        let mut node = &mut self.root;
        let mut open = false;
        for segment in segments {
            node = match segment.as_bytes() {
                b"*" => {
                    open = true;
                    break;
                }
                [b':', ..] => node.named.get_or_insert_with(|| Box::new(Node::new())),
                _ => node.fixed_child(segment),
            };
        }
        let place = if open { &mut node.open } else { &mut node.route };
        match place {
            Some(route) => Err(RouteError::Taken { pattern: pattern.into(), by: route.pattern.to_string() }),
            None => {
                *place = Some(RouteEntry { pattern: pattern.into(), value });
                Ok(())
            }
        }
    }

    /// The route of a path, as it stands in the target: not decoded, without the query.
    ///
    /// Segments are split first and decoded then, so an encoded slash is part of its segment; `/%61` is `/a`. A
    /// parameter that doesn't decode to UTF-8 matches nothing, nor does a named one match an empty segment. An open one
    /// matches what is left, even if that is empty, but not the lack of its slash.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Match<'_, T>> {
        let path = path.strip_prefix('/')?;
        let mut values = Vec::new();
        let route = self.root.find(Some(path), &mut values)?;
        let names = route.pattern.split('/').filter_map(param_name);
        let params = names.zip(values).map(|(name, value)| (name, value.into_owned())).collect();
        Some(Match { value: &route.value, pattern: &route.pattern, params })
    }

    /// Whether there is no route.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Node { fixed, named, open, route } = &self.root;
        fixed.is_empty() && named.is_none() && open.is_none() && route.is_none()
    }
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Node<T> {
    const fn new() -> Self {
        Self { fixed: Vec::new(), named: None, open: None, route: None }
    }

    fn fixed_child(&mut self, segment: &str) -> &mut Self {
        let at = match self.fixed.binary_search_by(|(known, _)| (**known).cmp(segment)) {
            Ok(at) => at,
            Err(at) => {
                self.fixed.insert(at, (segment.into(), Self::new()));
                at
            }
        };
        &mut self.fixed[at].1
    }

    /// `rest` is what follows the slash after the settled segments, `None` if there is no such slash. `values` are
    /// those of the parameters so far; it is left as it was if nothing is found.
    fn find<'p>(&self, rest: Option<&'p str>, values: &mut Vec<Cow<'p, str>>) -> Option<&RouteEntry<T>> {
        let Some(rest) = rest else { return self.route.as_ref() };
        let (segment, below) = match rest.split_once('/') {
            Some((segment, below)) => (segment, Some(below)),
            None => (rest, None),
        };
        let decoded = percent_decode_str(segment).decode_utf8().ok();
        if let Some(segment) = &decoded
            && let Ok(at) = self.fixed.binary_search_by(|(known, _)| (**known).cmp(segment))
            && let Some(route) = self.fixed[at].1.find(below, values)
        {
            return Some(route);
        }
        if let Some(named) = &self.named
            && let Some(value) = decoded.filter(|value| !value.is_empty())
        {
            values.push(value);
            if let Some(route) = named.find(below, values) {
                return Some(route);
            }
            values.pop();
        }
        let open = self.open.as_ref()?;
        values.push(percent_decode_str(rest).decode_utf8().ok()?);
        Some(open)
    }
}

/// The name a segment of a pattern gives to what it stands for.
fn param_name(segment: &str) -> Option<&str> {
    if segment == "*" { Some(segment) } else { segment.strip_prefix(':') }
}

/// Whether a pattern is one; its segments if so.
fn check(pattern: &str) -> Result<impl Iterator<Item = &str>, RouteError> {
    let owned = || pattern.to_owned();
    let Some(path) = pattern.strip_prefix('/') else {
        return Err(RouteError::NotRooted { pattern: owned() });
    };
    if let Some(found) = path.chars().find(|&found| matches!(found, '?' | '#' | '%') || found.is_control()) {
        return Err(RouteError::BadCharacter { pattern: owned(), found });
    }
    let count = path.split('/').count();
    if count > MAX_SEGMENTS {
        return Err(RouteError::TooLong { pattern: owned(), limit: MAX_SEGMENTS });
    }
    let mut names: Vec<&str> = Vec::new();
    for (at, segment) in path.split('/').enumerate() {
        if segment.contains(['{', '}', '<', '>']) {
            let (segment, instead) = (segment.to_owned(), native(segment));
            return Err(RouteError::OtherSyntax { pattern: owned(), segment, instead });
        }
        if segment.contains('*') && (segment != "*" || at + 1 < count) {
            return Err(RouteError::StrayStar { pattern: owned() });
        }
        let Some(name) = param_name(segment) else { continue };
        if name.is_empty() {
            return Err(RouteError::Nameless { pattern: owned() });
        }
        if name != "*" && !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')) {
            return Err(RouteError::BadName { pattern: owned(), name: name.to_owned() });
        }
        if names.contains(&name) {
            return Err(RouteError::RepeatedName { pattern: owned(), name: name.to_owned() });
        }
        names.push(name);
    }
    Ok(path.split('/'))
}

/// How a parameter of another router is written here: `{id}`, `<id>`, `<int:id>`, `{id:[0-9]+}`, `{*rest}`, `{rest...}`.
fn native(segment: &str) -> String {
    let inner = segment.trim_matches(['{', '}', '<', '>']);
    if inner.starts_with('*') || inner.ends_with('*') || inner.ends_with("...") {
        return "*".to_owned();
    }
    let is_name = |part: &&str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    let mut parts = inner.split(':').filter(is_name);
    let part = if segment.starts_with('<') { parts.next_back() } else { parts.next() };
    format!(":{}", part.unwrap_or("name"))
}

/// Why a pattern can't be a route. All of them are mistakes in a program or a configuration, none a client's doing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RouteError {
    /// It doesn't begin with a slash.
    NotRooted {
        /// The pattern.
        pattern: String,
    },
    /// It holds a character no decoded path has.
    BadCharacter {
        /// The pattern.
        pattern: String,
        /// The character.
        found: char,
    },
    /// It has too many segments.
    TooLong {
        /// The pattern.
        pattern: String,
        /// The most it may have.
        limit: usize,
    },
    /// A star that isn't the whole of the last segment.
    StrayStar {
        /// The pattern.
        pattern: String,
    },
    /// A parameter in the syntax of another router, which would be a segment like any other here.
    OtherSyntax {
        /// The pattern.
        pattern: String,
        /// The segment.
        segment: String,
        /// How it is written here.
        instead: String,
    },
    /// The name of a parameter has other characters than ASCII letters, digits, `_` and `-`.
    BadName {
        /// The pattern.
        pattern: String,
        /// The name.
        name: String,
    },
    /// A colon without a name.
    Nameless {
        /// The pattern.
        pattern: String,
    },
    /// Two parameters of one name.
    RepeatedName {
        /// The pattern.
        pattern: String,
        /// The name.
        name: String,
    },
    /// The paths it matches have a route.
    Taken {
        /// The pattern.
        pattern: String,
        /// The pattern that is there.
        by: String,
    },
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRooted { pattern } => write!(f, "route {pattern:?} doesn't begin with a slash"),
            Self::BadCharacter { pattern, found } => {
                write!(f, "route {pattern:?} contains {found:?}; write the path decoded and without a query")
            }
            Self::TooLong { pattern, limit } => write!(f, "route {pattern:?} has more than {limit} segments"),
            Self::StrayStar { pattern } => {
                write!(f, "route {pattern:?}: a star must be the whole of the last segment, as in /files/*")
            }
            Self::OtherSyntax { pattern, segment, instead } => {
                write!(f, "route {pattern:?}: {segment:?} is not a parameter here, expected {instead:?}")
            }
            Self::BadName { pattern, name } => write!(
                f,
                "route {pattern:?}: parameter {name:?}, expected a name of letters, digits, _ and -, as in /user/:id"
            ),
            Self::Nameless { pattern } => write!(f, "route {pattern:?} has a : without a name"),
            Self::RepeatedName { pattern, name } => write!(f, "route {pattern:?} has two parameters :{name}"),
            Self::Taken { pattern, by } => write!(f, "route {pattern:?} matches the same paths as {by:?}"),
        }
    }
}

impl core::error::Error for RouteError {}

#[cfg(test)]
#[path = "router_tests.rs"]
mod tests;
