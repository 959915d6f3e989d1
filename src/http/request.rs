//! What a handler sees of a request, be it an upgrade or plain HTTP: the head, what the route made of the path, who is
//! asking, and the body.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use std::borrow::Cow;

pub use super::request_head::{HeaderSlots, MAX_HEADERS, RequestHead, Version};
use super::{Cookies, Headers, HttpError, Params, QueryPairs, TlsInfo, Tokens};

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// A TCP connection from this address.
    Ip(SocketAddr),
    /// A connection over a Unix socket, which has no address worth the name.
    Unix,
}

impl Peer {
    /// The address without its port, if there is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Unix => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// A request. It borrows all it shows and is cheap to copy; what outlives the handler must be taken out of it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    head: &'a RequestHead<'a>,
    params: &'a Params,
    peer: &'a Peer,
    body: &'a [u8],
    tls: Option<&'a TlsInfo>,
}

impl<'a> Request<'a> {
    /// A request from its parts. Servers make them; so do tests of handlers.
    #[must_use]
    pub fn new(head: &'a RequestHead<'a>, params: &'a Params, peer: &'a Peer, body: &'a [u8]) -> Self {
        Self { head, params, peer, body, tls: None }
    }

    /// The same request over TLS.
    #[must_use]
    pub fn over_tls(self, tls: &'a TlsInfo) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// The head as parsed.
    #[must_use]
    pub fn head(&self) -> &'a RequestHead<'a> {
        self.head
    }

    /// The method, as it stands there.
    #[must_use]
    pub fn method(&self) -> &'a str {
        self.head.method()
    }

    /// The path, not decoded.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.head.path()
    }

    /// The path decoded, once; `None` if that isn't UTF-8. See [`RequestHead::decoded_path`].
    #[must_use]
    pub fn decoded_path(&self) -> Option<Cow<'a, str>> {
        self.head.decoded_path()
    }

    /// What the route's parameters stand for in this path.
    #[must_use]
    pub fn params(&self) -> &'a Params {
        self.params
    }

    /// The value of one parameter of the route, decoded.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&'a str> {
        self.params.get(name)
    }

    /// The query, not decoded and without the question mark.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        self.head.query()
    }

    /// The pairs of the query, decoded.
    #[must_use]
    pub fn query_pairs(&self) -> QueryPairs<'a> {
        self.head.query_pairs()
    }

    /// The first value the query has under this name, decoded.
    #[must_use]
    pub fn query_value(&self, name: &str) -> Option<Cow<'a, str>> {
        self.head.query_value(name)
    }

    /// The version of HTTP.
    #[must_use]
    pub fn version(&self) -> Version {
        self.head.version()
    }

    /// Host and port the client meant.
    #[must_use]
    pub fn host(&self) -> Option<&'a str> {
        self.head.host()
    }

    /// All headers in their order.
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        self.head.headers()
    }

    /// The value of the first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.head.header(name)
    }

    /// The same as text; `None` also when it isn't UTF-8.
    #[must_use]
    pub fn header_str(&self, name: &str) -> Option<&'a str> {
        self.head.header_str(name)
    }

    /// The members of a comma-separated list, over all headers of this name.
    #[must_use]
    pub fn tokens(&self, name: &'a str) -> Tokens<'a> {
        self.head.tokens(name)
    }

    /// Whether a comma-separated list has this member, whatever the case of its letters.
    #[must_use]
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.head.has_token(name, token)
    }

    /// The cookies in their order.
    #[must_use]
    pub fn cookies(&self) -> Cookies<'a> {
        self.head.cookies()
    }

    /// The value of the first cookie of this name.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&'a str> {
        self.head.cookie(name)
    }

    /// The origin of the page that sent the request; `None` only if there is no such header.
    #[must_use]
    pub fn origin(&self) -> Option<&'a str> {
        self.head.origin()
    }

    /// The subprotocols the client offers, in its order of preference.
    pub fn protocols(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.head.protocols()
    }

    /// Whether the offered subprotocols keep the rules. See [`RequestHead::check_protocols`].
    ///
    /// # Errors
    /// When they don't.
    pub fn check_protocols(&self) -> Result<(), HttpError> {
        self.head.check_protocols()
    }

    /// Who is asking.
    #[must_use]
    pub fn peer(&self) -> &'a Peer {
        self.peer
    }

    /// What is known of the TLS connection that it came over; `None` for one that came in the clear.
    #[must_use]
    pub fn tls(&self) -> Option<&'a TlsInfo> {
        self.tls
    }

    /// Whether it came over TLS to this server itself: its URL begins with `https` or `wss`. Of a proxy that ends TLS
    /// before it, only that proxy's headers can tell.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// The body, whole. Empty for an upgrade.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_sees_head_params_peer_and_body() {
        let mut slots = HeaderSlots::new();
        let head = b"POST /publish?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n";
        let head = RequestHead::parse(head, &mut slots, 16).unwrap();
        let (params, peer) = (Params::default(), Peer::Ip(([127, 0, 0, 1], 80).into()));
        let request = Request::new(&head, &params, &peer, b"hi");
        assert_eq!((request.method(), request.path(), request.body()), ("POST", "/publish", &b"hi"[..]));
        assert_eq!(request.query_value("x").as_deref(), Some("1"));
        assert_eq!(request.peer().to_string(), "127.0.0.1:80");
        assert_eq!((Peer::Unix.to_string().as_str(), Peer::Unix.ip()), ("unix", None));
    }
}
