//! Which web pages may connect (RFC 6455 section 10.2).
//!
//! A browser lets any page open a WebSocket to any server and sends that server's cookies along. The `Origin` header
//! says which page it was; programs that are no browsers leave it out or write what they like, so this protects
//! users of browsers and is no authentication.
//!
//! A server on a loopback address is reached by the pages that this machine's user looks at, whatever site they come
//! from, and by nobody else. So there the default takes pages of the same host only, and that host under a name of this
//! machine: a name of the attacker's own can be made to mean 127.0.0.1 (DNS rebinding), and is then of the same host.

use crate::http::{Peer, Request, Response, is_this_machine};
use core::fmt;

/// Which web pages may connect to a [`Route`](super::Route). Requests without an `Origin` header come from no page and are
/// taken by all of these.
///
/// The default, [`Origins::default`], depends on where the request comes from:
///
/// | from | taken |
/// | --- | --- |
/// | a loopback address: this machine | pages of the same host and port, where the `Host` is `localhost`, in 127.0.0.0/8 or `[::1]` |
/// | elsewhere, or over a Unix socket | pages of the same host and port; others only without cookies |
///
/// Behind a proxy on the same machine every request comes from a loopback address, and the `Host` is the site's: name
/// the site with [`Origins::list`] or [`Origins::also`]. For development with the page on one port and the server on
/// another it is one line:
///
/// ```
/// # use campanile::{Origins, Route, on_message};
/// # fn example(route: Route) -> Result<Route, campanile::InvalidOrigin> {
/// Ok(route.origins(Origins::default().also(["http://localhost:3000"])?))
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Origins {
    rule: OriginRule,
    /// Taken in any case.
    also: Vec<OriginPattern>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum OriginRule {
    Any,
    /// On loopback as `SameHost`; elsewhere pages of other hosts too, if they send no cookies.
    #[default]
    Default,
    SameHost,
    /// None beside those named.
    Listed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct OriginPattern {
    scheme: String,
    /// Below which subdomains are meant; or the host itself.
    wildcard: bool,
    host: String,
    port: Option<u16>,
}

/// Why a page may not connect.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OriginRefused {
    /// The page's origin, at most 128 characters of it.
    pub origin: String,
    /// The host that it asked, at most 128 characters.
    pub host: String,
    /// The rule that it breaks.
    pub reason: OriginReason,
}

/// The rule that a refused origin breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OriginReason {
    /// It is not in the list.
    NotListed,
    /// Its host or port is not that of the request; over TLS also where it did not come over TLS itself.
    OtherHost,
    /// The same, and it sends cookies.
    OtherHostWithCookies,
    /// It asked a loopback address by a `Host` that does not name this machine.
    HostElsewhere,
}

/// Characters of an origin and a host that a refusal repeats.
const SHOWN: usize = 128;

impl fmt::Display for OriginRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, host, reason } = self;
        write!(f, "origin: pages of {origin} may not connect to {host}: ")?;
        f.write_str(match reason {
            OriginReason::NotListed => "expected an origin that the route lists",
            OriginReason::OtherHost => "expected a page of the same host and port, over TLS one that came over TLS",
            OriginReason::OtherHostWithCookies => "expected a page of the same host and port, or one without cookies",
            OriginReason::HostElsewhere => {
                "expected a Host that names this machine (localhost, 127.0.0.0/8 or [::1]), since others can be made to \
                 mean it"
            }
        })?;
        write!(f, "; to allow it, use Origins::also([{origin:?}]), or campanile --origin {origin}")
    }
}

impl std::error::Error for OriginRefused {}

impl OriginRefused {
    /// 403 with the reason as text. What it repeats of the request is printable ASCII, and no browser shows the answer to
    /// a handshake.
    pub fn response(&self) -> Response {
        Response::new(403).header("X-Content-Type-Options", "nosniff").text(format!("{self}\n"))
    }
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
        Self { rule: OriginRule::Any, also: Vec::new() }
    }

    /// Only pages of the host that the request itself is for; on a loopback address that host must name this machine.
    pub const fn same_host() -> Self {
        Self { rule: OriginRule::SameHost, also: Vec::new() }
    }

    /// Only these: `https://example.com` exactly, or `https://*.example.com` for every subdomain, at any depth, and
    /// not `example.com` itself. Scheme and port count; host names in any case.
    ///
    /// # Errors
    /// One of them is no origin.
    pub fn list<T: AsRef<str>>(origins: impl IntoIterator<Item = T>) -> Result<Self, InvalidOrigin> {
        Self { rule: OriginRule::Listed, also: Vec::new() }.also(origins)
    }

    /// Takes these beside what it takes already; written as for [`Origins::list`].
    ///
    /// # Errors
    /// One of them is no origin.
    pub fn also<T: AsRef<str>>(
        mut self,
        origins: impl IntoIterator<Item = T>,
    ) -> Result<Self, InvalidOrigin> {
        for origin in origins {
            self.also.push(OriginPattern::parse(origin.as_ref())?);
        }
        Ok(self)
    }

    /// Whether the page that this request comes from may connect. A route does this before its handler's `upgrade`; it is
    /// for programs that answer the handshake themselves ([`Handle::adopt_open`](super::Handle::adopt_open)).
    ///
    /// # Errors
    /// It may not; [`OriginRefused::response`] is the answer.
    pub fn check(&self, request: &Request<'_>) -> Result<(), OriginRefused> {
        let Some(origin) = request.origin() else { return Ok(()) };
        match self.refuses(origin, request) {
            None => Ok(()),
            Some(reason) => {
                let shown = |text: &str| text.chars().take(SHOWN).collect();
                let host = shown(request.host().unwrap_or_default());
                Err(OriginRefused { origin: shown(origin), host, reason })
            }
        }
    }

    fn refuses(&self, origin: &str, request: &Request<'_>) -> Option<OriginReason> {
        if self.rule == OriginRule::Any {
            return None;
        }
        if !self.also.is_empty()
            && parse(origin).is_some_and(|origin| self.also.iter().any(|p| p.matches(&origin)))
        {
            return None;
        }
        let on_loopback = is_on_loopback(request);
        match self.rule {
            OriginRule::Any => None,
            OriginRule::Listed => Some(OriginReason::NotListed),
            OriginRule::Default if !on_loopback => {
                let refused = request.header("cookie").is_some() && !is_from_this_host(origin, request);
                refused.then_some(OriginReason::OtherHostWithCookies)
            }
            OriginRule::Default | OriginRule::SameHost if !is_from_this_host(origin, request) => {
                Some(OriginReason::OtherHost)
            }
            OriginRule::Default | OriginRule::SameHost => {
                let elsewhere = on_loopback && !request.host().is_some_and(is_this_machine);
                elsewhere.then_some(OriginReason::HostElsewhere)
            }
        }
    }
}

/// Whether a request was made to a loopback address: the kernel gives it a loopback address as its source then.
fn is_on_loopback(request: &Request<'_>) -> bool {
    matches!(request.peer(), Peer::Ip(addr) if addr.ip().to_canonical().is_loopback())
}

impl OriginPattern {
    fn parse(text: &str) -> Result<Self, InvalidOrigin> {
        let invalid = || InvalidOrigin { pattern: text.to_owned() };
        let (scheme, host, port) = parse(text).ok_or_else(invalid)?;
        let (wildcard, host) = match host.strip_prefix("*.") {
            Some(parent) => (true, parent.to_owned()),
            None => (false, host),
        };
        if host.is_empty() || host.contains('*') {
            return Err(invalid());
        }
        Ok(Self { scheme, wildcard, host, port })
    }

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
pub(crate) fn is_from_this_host(origin: &str, request: &Request<'_>) -> bool {
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
        checked(origins, &Peer::Unix, "example.com:9001", headers).is_ok()
    }

    fn checked(origins: &Origins, peer: &Peer, host: &str, headers: &str) -> Result<(), OriginRefused> {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
        let mut slots = HeaderSlots::new();
        let head = RequestHead::parse(text.as_bytes(), &mut slots, 64).expect("a request");
        origins.check(&Request::new(&head, &Params::default(), peer, b""))
    }

    #[test]
    fn on_loopback_only_pages_from_this_machine_may_connect() {
        let loopback = ["127.0.0.1:5000", "[::1]:5000", "127.8.8.8:1", "[::ffff:127.0.0.1]:5000"];
        let names = ["localhost:9001", "127.0.0.1:9001", "[::1]:9001", "LOCALHOST:9001", "127.3.2.1:9001"];
        let reason = |origins: &Origins, peer: &str, host: &str, origin: &str| {
            let peer = Peer::Ip(peer.parse().unwrap());
            checked(origins, &peer, host, &format!("Origin: {origin}\r\n")).err().map(|e| e.reason)
        };
        for (peer, name) in loopback.iter().flat_map(|p| names.map(|n| (p, n))) {
            for origins in [Origins::default(), Origins::same_host()] {
                assert_eq!(reason(&origins, peer, name, &format!("http://{name}")), None, "{peer} {name}");
                for other in ["https://evil.example", "http://localhost:3000", "http://localhost", "null"] {
                    let refused = reason(&origins, peer, name, other);
                    assert_eq!(refused, Some(OriginReason::OtherHost), "{peer} {name} {other}");
                }
                for rebound in ["evil.example:9001", "127.0.0.1.evil.example", "localhost.evil.example:9001"]
                {
                    let refused = reason(&origins, peer, rebound, &format!("http://{rebound}"));
                    assert_eq!(refused, Some(OriginReason::HostElsewhere), "{peer} {rebound}");
                }
                // The two-port set-up.
                let dev = origins.also(["http://localhost:3000"]).unwrap();
                assert_eq!(reason(&dev, peer, name, "http://localhost:3000"), None);
                assert_eq!(reason(&dev, peer, name, &format!("http://{name}")), None);
                assert_eq!(reason(&dev, peer, name, "http://localhost:3001"), Some(OriginReason::OtherHost));
            }
            let site = Origins::list(["https://example.com"]).unwrap();
            assert_eq!(reason(&site, peer, "example.com", "https://example.com"), None, "behind a proxy");
            assert_eq!(reason(&site, peer, name, &format!("http://{name}")), Some(OriginReason::NotListed));
            assert_eq!(reason(&Origins::any(), peer, "evil.example", "https://evil.example"), None);
        }
        assert_eq!(reason(&Origins::default(), "10.0.0.1:5000", "example.com", "https://evil.example"), None);
        let no_page =
            checked(&Origins::default(), &Peer::Ip("127.0.0.1:1".parse().unwrap()), "example.com", "");
        assert_eq!(no_page, Ok(()));
    }

    #[test]
    fn a_refused_origin_error_names_origin_host_and_remedy() {
        let peer = Peer::Ip("127.0.0.1:5000".parse().unwrap());
        let refused =
            checked(&Origins::default(), &peer, "localhost:9001", "Origin: http://localhost:3000\r\n");
        let refused = refused.unwrap_err();
        assert_eq!((&*refused.origin, &*refused.host), ("http://localhost:3000", "localhost:9001"));
        let text = refused.to_string();
        for words in
            ["localhost:9001", "Origins::also([\"http://localhost:3000\"])", "--origin http://localhost:3000"]
        {
            assert!(text.contains(words), "{text}");
        }
        assert_eq!(refused.response().status(), 403);
        let long = format!("Origin: https://{}.example\r\n", "x".repeat(5000));
        assert!(
            checked(&Origins::default(), &peer, "localhost", &long).unwrap_err().to_string().len() < 1000
        );
    }

    #[test]
    fn by_default_cookies_are_accepted_from_the_same_host_only() {
        let o = Origins::default();
        assert!(allows(&o, ""));
        assert!(allows(&o, "Cookie: a=b\r\n"));
        assert!(allows(&o, "Origin: https://evil.com\r\n"));
        assert!(allows(&o, "Origin: http://example.com:9001\r\nCookie: a=b\r\n"));
        assert!(!allows(&o, "Origin: https://evil.com\r\nCookie: a=b\r\n"));
        assert!(!allows(&o, "Origin: null\r\nCookie: a=b\r\n"));
    }

    #[test]
    fn over_tls_the_origin_must_be_https() {
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
    fn an_origin_list_matches_exact_origins_and_subdomains() {
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
    fn invalid_origin_patterns_are_refused() {
        for bad in ["example.com", "https://", "https://*", "https://*.*.com", "https://a/b", "https://a:x"] {
            assert!(Origins::list([bad]).is_err(), "{bad}");
        }
    }
}
