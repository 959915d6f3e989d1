//! A proxy that is asked by `CONNECT` for a tunnel to the server (RFC 6455 section 4.1, RFC 9110 section 9.3.6). Bytes
//! and values; no socket.

use super::opening::{HeadFault, take_head};
use super::url::{Url, UrlFault};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use core::fmt;
use core::str::FromStr;
use percent_encoding::percent_decode_str;

/// Headers in a proxy's answer.
const MAX_HEADERS: usize = 64;

/// An HTTP proxy: `http://[user:password@]host[:port]`. The user name and the password are sent by Basic
/// authentication (RFC 7617), in the clear; `%` escapes in them are read.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    url: Url,
    /// The value of `Proxy-Authorization`.
    authorization: Option<String>,
}

/// What can't be a proxy's URL. The URL is not repeated here: it may have a password in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidProxy {
    /// A scheme other than `http`: the way to the proxy itself is never encrypted, what goes through it may be.
    Scheme,
    /// A path, query or fragment.
    Path,
    /// A user name with a colon (RFC 7617 section 2), or a control character in it or in the password.
    User,
    /// No host, a port that is none, or another fault of a URL.
    Url(UrlFault),
}

impl fmt::Display for InvalidProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => f.write_str("a proxy's URL begins with http://"),
            Self::Path => f.write_str("a proxy's URL has no path: http://host:port"),
            Self::User => {
                f.write_str("the proxy's user name or password can't be sent by Basic authentication")
            }
            Self::Url(fault) => write!(f, "the proxy's URL: {fault:?}"),
        }
    }
}

impl std::error::Error for InvalidProxy {}

impl FromStr for Proxy {
    type Err = InvalidProxy;

    fn from_str(text: &str) -> Result<Self, InvalidProxy> {
        let text = text.trim_ascii();
        let rest = match text.split_at_checked("http://".len()) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http://") => rest,
            _ => return Err(InvalidProxy::Scheme),
        };
        let (user, host) = match rest.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, rest),
        };
        let host = host.strip_suffix('/').unwrap_or(host);
        if host.contains(['/', '?', '#']) {
            return Err(InvalidProxy::Path);
        }
        let url =
            format!("http://{host}/").parse().map_err(|e: super::InvalidUrl| InvalidProxy::Url(e.why))?;
        Ok(Self { url, authorization: user.map(basic).transpose()? })
    }
}

/// RFC 7617 section 2.
fn basic(user: &str) -> Result<String, InvalidProxy> {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let [name, password] = [name, password].map(|part| percent_decode_str(part).collect::<Vec<u8>>());
    let text = [&name[..], b":", &password[..]].concat();
    if name.contains(&b':') || text.iter().any(u8::is_ascii_control) {
        return Err(InvalidProxy::User);
    }
    Ok(format!("Basic {}", STANDARD.encode(text)))
}

/// Without the password.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = if self.authorization.is_some() { "…@" } else { "" };
        write!(f, "Proxy(http://{user}{})", self.url.authority())
    }
}

impl Proxy {
    /// Its host and port.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }
}

/// What is wrong with a proxy's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyError {
    /// Another status than 2xx: 407 where it wants a password, or another one; 403 or 502 where it can't or won't
    /// reach the server.
    Refused {
        /// The status.
        status: u16,
    },
    /// Not HTTP/1.
    NotHttp,
    /// A head of more than 16 KiB or 64 headers.
    TooLong,
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { status } => write!(f, "the proxy refused with status {status}"),
            Self::NotHttp => f.write_str("the proxy's answer is not HTTP/1"),
            Self::TooLong => f.write_str("the proxy's answer has a head longer than 16 KiB or 64 headers"),
        }
    }
}

impl std::error::Error for ProxyError {}

impl From<HeadFault> for ProxyError {
    fn from(fault: HeadFault) -> Self {
        match fault {
            HeadFault::NotHttp => Self::NotHttp,
            HeadFault::TooLong => Self::TooLong,
        }
    }
}

/// A tunnel that has been asked for.
#[derive(Debug)]
pub(super) struct Tunnel {
    request: Vec<u8>,
    sent: usize,
    head: Vec<u8>,
}

impl Tunnel {
    /// Asks for a tunnel to the URL's host.
    pub(super) fn begin(proxy: &Proxy, url: &Url) -> Self {
        // Host and port, the port always (RFC 9110 section 9.3.6).
        let host = url.host();
        let to = if host.contains(':') {
            format!("[{host}]:{}", url.port())
        } else {
            format!("{host}:{}", url.port())
        };
        let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n");
        if let Some(authorization) = &proxy.authorization {
            request += &format!("Proxy-Authorization: {authorization}\r\n");
        }
        request += "\r\n";
        Self { request: request.into_bytes(), sent: 0, head: Vec::new() }
    }

    /// What is still to be written.
    pub(super) fn request(&self) -> Option<&[u8]> {
        Some(&self.request[self.sent..]).filter(|rest| !rest.is_empty())
    }

    /// The kernel took so many bytes of it.
    pub(super) fn advance(&mut self, n: usize) {
        self.sent += n;
    }

    /// Takes what `input` has of the answer, and leaves there what follows it. True: the tunnel is there.
    pub(super) fn receive(&mut self, input: &mut &mut [u8]) -> Result<bool, ProxyError> {
        if !take_head(&mut self.head, input, b"HTTP/1.")? {
            return Ok(false);
        }
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(&self.head) {
            Ok(status) if status.is_complete() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(ProxyError::TooLong),
            _ => return Err(ProxyError::NotHttp),
        }
        // RFC 9110 section 9.3.6: any 2xx, and then the head's end is the answer's, whatever length it names.
        match response.code {
            Some(200..=299) => Ok(true),
            status => Err(ProxyError::Refused { status: status.unwrap_or(0) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::opening::MAX_HEAD;
    use proptest::prelude::*;

    fn proxy(text: &str) -> Proxy {
        text.parse().unwrap()
    }

    fn tunnel() -> Tunnel {
        Tunnel::begin(&proxy("http://p:3128"), &"ws://h:81/path".parse().unwrap())
    }

    #[test]
    fn the_connect_request_names_the_server_and_carries_credentials() {
        let text = |p: &str, url: &str| {
            String::from_utf8(Tunnel::begin(&proxy(p), &url.parse().unwrap()).request).unwrap()
        };
        assert_eq!(text("http://p", "ws://h/x"), "CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n");
        assert!(
            text("http://p", "wss://[::1]/x")
                .starts_with("CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n")
        );
        // RFC 7617 section 2's own example, with an escaped space.
        let with = text("http://Aladdin:open%20sesame@p:1", "ws://h/");
        assert!(
            with.contains("\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"),
            "{with}"
        );
        assert_eq!(proxy("HTTP://u:p%40ss@[::1]:8080/").url().authority(), "[::1]:8080");
        assert!(!format!("{:?}", proxy("http://u:secret@p")).contains("secret"));
    }

    #[test]
    fn an_invalid_proxy_url_is_refused_with_its_reason() {
        use InvalidProxy::*;
        for (text, why) in [
            ("p:3128", Scheme),
            ("https://p", Scheme),
            ("socks5://p", Scheme),
            ("http://p/x", Path),
            ("http://", Url(UrlFault::Host)),
            ("http://p:0", Url(UrlFault::Port)),
            ("http://u%0A:x@p", User),
            ("http://u%3Av:x@p", User),
        ] {
            assert_eq!(text.parse::<Proxy>(), Err(why), "{text}");
        }
    }

    #[test]
    fn a_proxy_response_is_accepted_at_any_split_and_leaves_the_rest() {
        let whole = b"HTTP/1.0 200 Connection established\r\nContent-Length: 5\r\n\r\nREST";
        for cut in 1..whole.len() - 4 {
            let mut t = tunnel();
            let (mut first, mut rest) = (whole[..cut].to_vec(), whole[cut..].to_vec());
            assert_eq!(t.receive(&mut &mut first[..]), Ok(false), "{cut}");
            let mut input = &mut rest[..];
            assert_eq!((t.receive(&mut input), &*input), (Ok(true), &b"REST"[..]));
        }
    }

    #[test]
    fn other_proxy_responses_are_errors_with_their_status() {
        let answer = |text: &str| tunnel().receive(&mut &mut text.to_owned().into_bytes()[..]);
        for status in [407, 403, 502, 301, 101] {
            let refused = Err(ProxyError::Refused { status });
            assert_eq!(
                answer(&format!("HTTP/1.1 {status} No\r\nProxy-Authenticate: Basic\r\n\r\n")),
                refused
            );
        }
        assert_eq!(answer("SSH-2.0"), Err(ProxyError::NotHttp));
        assert_eq!(answer("HTTP/1.1 what\r\n\r\n"), Err(ProxyError::NotHttp));
        assert_eq!(
            answer(&format!("HTTP/1.1 200 k\r\nA: {}", "x".repeat(MAX_HEAD))),
            Err(ProxyError::TooLong)
        );
        assert_eq!(
            answer(&format!("HTTP/1.1 200 k\r\n{}\r\n", "A: b\r\n".repeat(99))),
            Err(ProxyError::TooLong)
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>, step in 1usize..50) {
            let mut t = tunnel();
            for piece in bytes.chunks(step) {
                if t.receive(&mut &mut piece.to_vec()[..]) != Ok(false) {
                    break;
                }
            }
            prop_assert!(t.head.len() <= MAX_HEAD + 1);
        }
    }
}
