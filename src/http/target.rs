//! The request target: what stands between method and version.
//!
//! ```text
//! /chat?room=1                      origin-form    what clients send
//! ws://host:3000/chat?room=1        absolute-form  what some send, and clients of proxies; reduced to the above
//! *                                 asterisk-form  only with OPTIONS
//! ```

use super::HttpError;

/// A target taken apart. Nothing in it is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// Begins with a slash, or is `*`.
    pub(super) path: &'a str,
    /// Without the question mark.
    pub(super) query: Option<&'a str>,
    /// Host and port of an absolute-form.
    pub(super) authority: Option<&'a str>,
}

impl<'a> Target<'a> {
    pub(super) fn parse(method: &str, target: &'a str) -> Result<Self, HttpError> {
        // RFC 9112, section 3.2: a target holds no white space; RFC 3986, section 2: nor anything but ASCII; RFC 9110,
        // section 7.1: nor a fragment, which is the client's own business.
        if target.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
            return Err(HttpError::BadTarget);
        }
        if target.starts_with('/') {
            return Ok(Self::split(target, None));
        }
        // RFC 9112, section 3.2.4: the asterisk is for OPTIONS alone.
        if target == "*" && method == "OPTIONS" {
            return Ok(Self { path: target, query: None, authority: None });
        }
        // RFC 9112, section 3.2.2: a server must accept the absolute-form, though few clients send it.
        let (scheme, rest) = target.split_once("://").ok_or(HttpError::BadTarget)?;
        if !["ws", "wss", "http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err(HttpError::BadTarget);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        // RFC 9110, section 4.2.1: an empty host is invalid; section 4.2.4: user information is the mark of a URL that
        // wants to look like another. Neither passes as an authority.
        if !is_authority(authority) {
            return Err(HttpError::BadTarget);
        }
        Ok(Self::split(rest, Some(authority)))
    }

    fn split(target: &'a str, authority: Option<&'a str>) -> Self {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        // RFC 9110, section 4.2.3: an empty path means "/".
        Self { path: if path.is_empty() { "/" } else { path }, query, authority }
    }
}

/// Whether this is a host with an optional port: RFC 3986, sections 3.2.2 and 3.2.3, without user information. It asks
/// for the right characters in the right places, not for an address that exists.
pub(super) fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else { return false };
            let known =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'.' | b'-' | b'_' | b'~');
            if !address.bytes().all(known) {
                return false;
            }
            (address, port)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port_holds = port.is_empty()
        || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()));
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:".contains(&byte);
    !host.is_empty() && host.bytes().all(known) && port_holds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(target: &str) -> Result<(&str, Option<&str>, Option<&str>), HttpError> {
        Target::parse("GET", target).map(|target| (target.path, target.query, target.authority))
    }

    #[test]
    fn origin_form_is_split_at_the_first_question_mark() {
        assert_eq!(parse("/"), Ok(("/", None, None)));
        assert_eq!(parse("/chat?"), Ok(("/chat", Some(""), None)));
        assert_eq!(parse("/chat?a=1?b"), Ok(("/chat", Some("a=1?b"), None)));
        assert_eq!(parse("//evil.example/x"), Ok(("//evil.example/x", None, None)));
    }

    #[test]
    fn absolute_form_is_reduced_to_path_and_query() {
        assert_eq!(parse("ws://host:3000/test?x"), Ok(("/test", Some("x"), Some("host:3000"))));
        assert_eq!(parse("HTTP://[::1]:80"), Ok(("/", None, Some("[::1]:80"))));
        assert_eq!(parse("wss://host?x=/"), Ok(("/", Some("x=/"), Some("host"))));
    }

    #[test]
    fn invalid_targets_are_refused() {
        let bad = [
            "chat",
            "",
            "*",
            "host:80",
            "ftp://host/",
            "ws:///x",
            "ws://",
            "ws://user@host/",
            "ws://host:x/",
            "/a#b",
            "/\u{e4}",
            "ws://[::1/",
            "ws://[::1]x/",
            "ws://ho\\st/",
        ];
        for target in bad {
            assert_eq!(parse(target), Err(HttpError::BadTarget), "{target}");
        }
        assert!(Target::parse("OPTIONS", "*").is_ok());
    }
}
