//! Which web pages may connect (RFC 6455 section 10.2).
//!
//! A browser lets any page open a WebSocket to any server and sends that server's cookies along. The `Origin` header
//! says which page it was; programs that are no browsers leave it out or write what they like, so this protects
//! users of browsers and is no authentication.

use crate::http::{HttpError, Request};
use core::fmt;

/// An allow-list of origins.
#[derive(Clone, Debug, Default)]
pub struct Origins(Rule);

#[derive(Clone, Debug, Default)]
enum Rule {
    Any,
    /// With cookies only from pages of this host; without, from everywhere.
    #[default]
    CookiesFromHere,
    Here,
    List(Vec<Pattern>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    scheme: String,
    /// Below which subdomains are meant; or the host itself.
    wildcard: bool,
    host: String,
    port: Option<u16>,
}

/// A pattern that is no origin.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidOrigin {
    /// The pattern.
    pub pattern: String,
}

impl fmt::Display for InvalidOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expected = "expected scheme://host, scheme://host:port or scheme://*.host";
        write!(f, "{:?} is no origin: {expected}", self.pattern)
    }
}

impl std::error::Error for InvalidOrigin {}

/// Scheme, host and port in lower case; the port of the scheme if none is named.
fn parse(origin: &str) -> Option<(String, String, Option<u16>)> {
    let (scheme, rest) = origin.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let rest = rest.to_ascii_lowercase();
    let is_host = |h: &str| !h.is_empty() && !h.contains(['/', '@', '?', '#', ' ']);
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host.to_owned(), Some(port.parse().ok()?)),
        _ => (rest, default_port(&scheme)),
    };
    (is_host(&host) && !scheme.is_empty()).then_some((scheme, host, port))
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

impl Origins {
    /// Every page. For public data without cookies.
    pub const fn any() -> Self {
        Self(Rule::Any)
    }

    /// Only pages of the host that the request itself is for.
    pub const fn same_host() -> Self {
        Self(Rule::Here)
    }

    /// Only these: `https://example.com` exactly, or `https://*.example.com` for every subdomain, at any depth, and
    /// not `example.com` itself. Scheme and port count; host names in any case.
    ///
    /// # Errors
    /// One of them is no origin.
    pub fn list<T: AsRef<str>>(origins: impl IntoIterator<Item = T>) -> Result<Self, InvalidOrigin> {
        let pattern = |text: &str| {
            let invalid = || InvalidOrigin { pattern: text.to_owned() };
            let (scheme, host, port) = parse(text).ok_or_else(invalid)?;
            let (wildcard, host) = match host.strip_prefix("*.") {
                Some(parent) => (true, parent.to_owned()),
                None => (false, host),
            };
            if host.is_empty() || host.contains('*') {
                return Err(invalid());
            }
            Ok(Pattern { scheme, wildcard, host, port })
        };
        Ok(Self(Rule::List(origins.into_iter().map(|o| pattern(o.as_ref())).collect::<Result<_, _>>()?)))
    }

    /// Whether the page that this request comes from may connect. A request without `Origin` comes from no page.
    ///
    /// # Errors
    /// It may not: 403.
    pub(crate) fn check(&self, request: &Request<'_>) -> Result<(), HttpError> {
        let Some(origin) = request.origin() else { return Ok(()) };
        let allowed = match &self.0 {
            Rule::Any => true,
            Rule::CookiesFromHere => request.header("cookie").is_none() || is_from_here(origin, request),
            Rule::Here => is_from_here(origin, request),
            Rule::List(patterns) => {
                parse(origin).is_some_and(|origin| patterns.iter().any(|p| p.matches(&origin)))
            }
        };
        if allowed { Ok(()) } else { Err(HttpError::Forbidden) }
    }
}

impl Pattern {
    fn matches(&self, (scheme, host, port): &(String, String, Option<u16>)) -> bool {
        let host = if self.wildcard {
            host.strip_suffix(&self.host).is_some_and(|sub| sub.len() > 1 && sub.ends_with('.'))
        } else {
            *host == self.host
        };
        host && self.scheme == *scheme && self.port == *port
    }
}

/// Whether the page comes from the host that is asked; over TLS, that it came over TLS too: anybody on the way could
/// have written one that did not.
fn is_from_here(origin: &str, request: &Request<'_>) -> bool {
    let scheme = origin.split_once("://").map_or("", |(scheme, _)| scheme);
    is_of_host(origin, request.host()) && (!request.is_secure() || scheme.eq_ignore_ascii_case("https"))
}

/// Whether host and port of the origin are those of the `Host` header.
fn is_of_host(origin: &str, host: Option<&str>) -> bool {
    let (Some((scheme, origin_host, port)), Some(host)) = (parse(origin), host) else { return false };
    parse(&format!("{scheme}://{host}")).is_some_and(|(_, h, p)| h == origin_host && p == port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HeaderSlots, Params, Peer, RequestHead, TlsInfo, TlsVersion};

    fn allows(origins: &Origins, headers: &str) -> bool {
        let text = format!("GET / HTTP/1.1\r\nHost: example.com:9001\r\n{headers}\r\n");
        let mut slots = HeaderSlots::new();
        let Ok(head) = RequestHead::parse(text.as_bytes(), &mut slots, 64) else { return false };
        origins.check(&Request::new(&head, &Params::default(), &Peer::Unix, b"")).is_ok()
    }

    #[test]
    fn by_default_cookies_are_taken_from_pages_of_the_same_host_only() {
        let o = Origins::default();
        assert!(allows(&o, ""));
        assert!(allows(&o, "Cookie: a=b\r\n"));
        assert!(allows(&o, "Origin: https://evil.com\r\n"));
        assert!(allows(&o, "Origin: http://example.com:9001\r\nCookie: a=b\r\n"));
        assert!(!allows(&o, "Origin: https://evil.com\r\nCookie: a=b\r\n"));
        assert!(!allows(&o, "Origin: null\r\nCookie: a=b\r\n"));
    }

    #[test]
    fn over_tls_a_page_of_this_host_must_have_come_over_tls() {
        let tls = TlsInfo::new(TlsVersion::Tls13, String::new());
        let allows = |origin: &str| {
            let text =
                format!("GET / HTTP/1.1\r\nHost: example.com\r\nCookie: a=b\r\nOrigin: {origin}\r\n\r\n");
            let mut slots = HeaderSlots::new();
            let head = RequestHead::parse(text.as_bytes(), &mut slots, 64).unwrap();
            let params = Params::default();
            let request = Request::new(&head, &params, &Peer::Unix, b"").over_tls(&tls);
            Origins::default().check(&request).is_ok()
        };
        assert!(allows("https://example.com"));
        assert!(!allows("http://example.com"));
    }

    #[test]
    fn a_list_takes_exact_origins_and_subdomains() {
        let o = Origins::list(["https://good.com", "https://*.shop.com", "http://here:8080"]).unwrap();
        for yes in [
            "https://good.com",
            "https://GOOD.com:443",
            "https://a.shop.com",
            "https://a.b.shop.com",
            "http://here:8080",
        ] {
            assert!(allows(&o, &format!("Origin: {yes}\r\n")), "{yes}");
        }
        for no in [
            "http://good.com",
            "https://good.com.evil.com",
            "https://evilgood.com",
            "https://shop.com",
            "https://xshop.com",
            "https://good.com:444",
            "http://here",
            "null",
            "https://.shop.com",
        ] {
            assert!(!allows(&o, &format!("Origin: {no}\r\n")), "{no}");
        }
        assert!(allows(&o, ""), "no browser, no page");
    }

    #[test]
    fn patterns_are_checked() {
        for bad in ["example.com", "https://", "https://*", "https://*.*.com", "https://a/b", "https://a:x"] {
            assert!(Origins::list([bad]).is_err(), "{bad}");
        }
    }
}
