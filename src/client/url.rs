//! Where a connection goes: a `ws://` or `wss://` URL taken apart (RFC 6455 section 3), and the one it may be
//! redirected to.
//!
//! No general URL library: host names are taken as they are, so an international one is written in its ASCII form.

use core::fmt;
use core::str::FromStr;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use std::net::IpAddr;

/// What a browser escapes in the path and query of a URL, non-ASCII aside.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'`');

/// Longer ones are refused; servers take a few KiB.
const MAX_URL: usize = 32 << 10;

/// A WebSocket's URL. `http` and `https` are taken for `ws` and `wss`, as browsers do.
///
/// ```
/// let url: campanile::client::Url = "ws://example.com:9001/chat?room=1".parse().unwrap();
/// assert_eq!((url.host(), url.port(), url.path()), ("example.com", 9001, "/chat?room=1"));
/// assert_eq!(url.to_string(), "ws://example.com:9001/chat?room=1");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Url {
    secure: bool,
    /// Lower case; IPv6 without its brackets.
    host: String,
    port: u16,
    path: String,
}

/// A URL that can't be one of a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidUrl {
    /// What was given, as far as a message can show it.
    pub url: String,
    /// What is wrong with it.
    pub why: UrlFault,
}

/// What is wrong with a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UrlFault {
    /// No `://`.
    NoScheme,
    /// A scheme other than `ws`, `wss`, `http` and `https`.
    Scheme,
    /// No host, or one with characters that no host has.
    Host,
    /// A port that is no number from 1 to 65535.
    Port,
    /// A user name or password; send an `Authorization` header instead.
    UserInfo,
    /// A `#fragment`, which RFC 6455 section 3 forbids.
    Fragment,
    /// Longer than 32 KiB.
    TooLong,
}

impl fmt::Display for InvalidUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.why {
            UrlFault::NoScheme => "expected ws://HOST:PORT/PATH",
            UrlFault::Scheme => "its scheme is not ws or wss",
            UrlFault::Host => "it has no host, or one with characters that no host has",
            UrlFault::Port => "its port is not a number from 1 to 65535",
            UrlFault::UserInfo => "it has a user name; send an Authorization header instead",
            UrlFault::Fragment => "it has a #fragment, which a WebSocket's URL may not have",
            UrlFault::TooLong => "it is longer than 32 KiB",
        };
        write!(f, "{:?} is no WebSocket URL: {why}", self.url)
    }
}

impl std::error::Error for InvalidUrl {}

impl FromStr for Url {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        parse(text.trim_ascii()).map_err(|why| InvalidUrl { url: text.chars().take(200).collect(), why })
    }
}

fn parse(text: &str) -> Result<Url, UrlFault> {
    if text.len() > MAX_URL {
        return Err(UrlFault::TooLong);
    }
    let (scheme, rest) = text.split_once("://").ok_or(UrlFault::NoScheme)?;
    let secure = match scheme.to_ascii_lowercase().as_str() {
        "ws" | "http" => false,
        "wss" | "https" => true,
        _ => return Err(UrlFault::Scheme),
    };
    // Section 3: fragment identifiers are meaningless here and MUST NOT be used.
    if rest.contains('#') {
        return Err(UrlFault::Fragment);
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(UrlFault::UserInfo);
    }
    let (host, port) = split_authority(authority)?;
    let port = match port {
        None | Some("") => default_port(secure),
        // Digits alone: `parse` would also take a sign.
        Some(port) if !port.bytes().all(|b| b.is_ascii_digit()) => return Err(UrlFault::Port),
        Some(port) => port.parse().ok().filter(|&p| p != 0).ok_or(UrlFault::Port)?,
    };
    Ok(Url { secure, host, port, path: normal_path(path) })
}

fn split_authority(authority: &str) -> Result<(String, Option<&str>), UrlFault> {
    if let Some(v6) = authority.strip_prefix('[') {
        let (host, after) = v6.split_once(']').ok_or(UrlFault::Host)?;
        let ip: std::net::Ipv6Addr = host.parse().map_err(|_| UrlFault::Host)?;
        return match after.strip_prefix(':') {
            None if !after.is_empty() => Err(UrlFault::Port),
            port => Ok((ip.to_string(), port)),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    if host.is_empty() || host.len() > 253 || !host.bytes().all(fits) {
        return Err(UrlFault::Host);
    }
    Ok((host.to_ascii_lowercase(), port))
}

fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

/// Path and query as the request line has them: never empty, and nothing in them that ends a line or a word.
fn normal_path(path: &str) -> String {
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{slash}{}", utf8_percent_encode(path, ESCAPED))
}

impl Url {
    /// Whether it is a `wss://` URL.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The host, in lower case; an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, also where the URL leaves it to its scheme.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query, as the request has them.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The same server with another path and query.
    #[must_use]
    pub fn with_path(&self, path: &str) -> Self {
        Self { path: normal_path(path), ..self.clone() }
    }

    /// Host and port as the `Host` header has them: the port only where the scheme does not say it.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default_port(self.secure) { host } else { format!("{host}:{}", self.port) }
    }

    /// The host if it is an address and needs no resolution.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether both lead to the same server, so that what was meant for one may be shown to the other.
    pub(crate) fn is_same_origin(&self, other: &Self) -> bool {
        (self.secure, &self.host, self.port) == (other.secure, &other.host, other.port)
    }

    /// Where a `Location` seen at this URL leads (RFC 9110 section 10.2.2): a whole URL, or one relative to this.
    pub(crate) fn join(&self, location: &str) -> Result<Self, InvalidUrl> {
        // Unlike a WebSocket's URL, a redirect's may have a fragment, which says nothing to us.
        let location = location.split('#').next().unwrap_or_default();
        let scheme = if self.secure { "wss" } else { "ws" };
        let is_whole = location.split(['/', '?']).next().is_some_and(|first| first.ends_with(':'));
        if is_whole {
            location.parse()
        } else if location.starts_with("//") {
            format!("{scheme}:{location}").parse()
        } else if location.starts_with('/') {
            Ok(self.with_path(location))
        } else {
            let path = self.path.split('?').next().unwrap_or("/");
            let base = if location.starts_with('?') { path } else { &path[..=path.rfind('/').unwrap_or(0)] };
            Ok(self.with_path(&format!("{base}{location}")))
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "wss" } else { "ws" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn urls_are_parsed_and_formatted() {
        for (text, host, port, path, again) in [
            ("ws://127.0.0.1:9001/echo?x=1", "127.0.0.1", 9001, "/echo?x=1", "ws://127.0.0.1:9001/echo?x=1"),
            ("WS://[::1]:81", "::1", 81, "/", "ws://[::1]:81/"),
            ("ws://Example.org?q", "example.org", 80, "/?q", "ws://example.org/?q"),
            ("wss://h", "h", 443, "/", "wss://h/"),
            ("https://h:80/a", "h", 80, "/a", "wss://h:80/a"),
            ("ws://h:/ä b", "h", 80, "/%C3%A4%20b", "ws://h/%C3%A4%20b"),
            (" ws://h/a%20b ", "h", 80, "/a%20b", "ws://h/a%20b"),
        ] {
            let u = url(text);
            assert_eq!((u.host(), u.port(), u.path()), (host, port, path), "{text}");
            assert_eq!(u.to_string(), again);
            assert_eq!(url(again), u, "it reads itself");
        }
    }

    #[test]
    fn an_invalid_url_is_refused_with_its_reason() {
        use UrlFault::*;
        for (bad, why) in [
            ("", NoScheme),
            ("localhost:9001", NoScheme),
            ("ftp://x/", Scheme),
            ("ws:///p", Host),
            ("ws://a b/", Host),
            ("ws://a\r\nX: y/", Host),
            ("ws://münchen.de/", Host),
            ("ws://[::1", Host),
            ("ws://[h]/", Host),
            ("ws://[::1]9/", Port),
            ("ws://h:0/", Port),
            ("ws://h:99999", Port),
            ("ws://h:+80", Port),
            ("ws://u:p@h/", UserInfo),
            ("ws://h/#top", Fragment),
        ] {
            assert_eq!(bad.parse::<Url>().map_err(|e| e.why), Err(why), "{bad:?}");
        }
        assert_eq!(format!("ws://h/{}", "x".repeat(MAX_URL)).parse::<Url>().unwrap_err().why, TooLong);
    }

    #[test]
    fn paths_with_line_breaks_are_refused() {
        let u = url("ws://h/a\r\nX: y\t\u{7f}");
        assert!(u.path().bytes().all(|b| b.is_ascii_graphic()), "{:?}", u.path());
    }

    #[test]
    fn redirects_may_be_absolute_or_relative() {
        let from = url("ws://h:1/a/b?q=/x");
        for (location, to) in [
            ("ws://other/c", "ws://other/c"),
            ("https://other/c#part", "wss://other/c"),
            ("//other/c", "ws://other/c"),
            ("/c?d", "ws://h:1/c?d"),
            ("c", "ws://h:1/a/c"),
            ("?r", "ws://h:1/a/b?r"),
            ("c?u=ws://x", "ws://h:1/a/c?u=ws://x"),
        ] {
            assert_eq!(from.join(location).unwrap().to_string(), to, "{location}");
        }
        assert!(from.join("mailto://x").is_err());
        assert!(from.is_same_origin(&from.join("c").unwrap()));
        assert!(!from.is_same_origin(&url("wss://h:1/a/b")));
    }
}
