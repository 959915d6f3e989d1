//! A response: status, headers, body. What frames it on the wire (Content-Length, Connection, Date) is the server's to
//! write, so a handler can't contradict the bytes that follow.
//!
//! No header can smuggle a line in, and nothing is rewritten: a response with a status or a header that can't be sent is
//! not sent. [`Response::header`] is for a program's own words and notes the mistake, which the server logs when it answers
//! with 500 instead. [`Response::try_header`] is for names and values from elsewhere and returns it.

use core::fmt;
use core::time::Duration;
use std::io::Write;

pub use super::body::Body;
use super::fields::is_token;
use super::later::{DeferredResponse, Responder};
use super::reason;

/// The headers the server writes itself. From a handler they are ignored or refused.
const RESERVED: [&str; 4] = ["Content-Length", "Transfer-Encoding", "Connection", "Date"];

/// A response that is being made or about to be sent.
#[derive(Debug)]
pub struct Response {
    status: u16,
    /// As on the wire: `name: value CR LF` each.
    headers: Vec<u8>,
    body: Body,
    /// It comes later.
    later: Option<Box<DeferredResponse>>,
    /// The first thing about it that can't be sent.
    fault: Option<InvalidResponse>,
}

/// Why a response can't be sent. The client gets a 500 instead, and the log a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidResponse {
    /// A status outside 200 to 599: 1xx are not final responses, and there are no others.
    Status {
        /// The status.
        status: u16,
    },
    /// A status of a [`Refuse`](crate::Refuse) that is not from 400 to 599.
    RefusalStatus {
        /// The status.
        status: u16,
    },
    /// A header.
    Header {
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        error: InvalidHeader,
    },
    /// A subprotocol that is not a token ([`Accept::protocol`](crate::Accept::protocol)).
    Protocol,
    /// A handler whose state is not `()` does not implement [`Handler::upgrade`](crate::Handler::upgrade).
    NoUpgrade,
}

impl fmt::Display for InvalidResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status { status } => write!(f, "response: status {status}, expected 200 to 599"),
            Self::RefusalStatus { status } => {
                write!(
                    f,
                    "refusal: status {status}, expected 400 to 599; to take the client, return an Accept"
                )
            }
            Self::Header { name, error } => write!(f, "response: header {name:?}: {error}"),
            Self::Protocol => f.write_str("accept: the subprotocol is not a token (RFC 9110 section 5.6.2)"),
            Self::NoUpgrade => f.write_str(
                "handler: upgrade has a default only where the state is (); implement Handler::upgrade",
            ),
        }
    }
}

impl core::error::Error for InvalidResponse {}

/// A header that can't be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidHeader {
    /// The name isn't a token.
    Name,
    /// The value contains a CR, LF or another control character.
    Value,
    /// The server writes this header itself.
    Reserved,
}

impl fmt::Display for InvalidHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "its name is not a token (RFC 9110 section 5.6.2); use letters, digits and -",
            Self::Value => "its value contains a control character, none but a tab is allowed",
            Self::Reserved => "the server writes this header itself; leave it out",
        })
    }
}

impl core::error::Error for InvalidHeader {}

impl Response {
    /// A response without headers and body. The status is from 200 to 599; with another one the response can't be sent,
    /// the client gets a 500 and the log an error.
    #[must_use]
    pub const fn new(status: u16) -> Self {
        let mut response = Self::unchecked(status);
        if !matches!(status, 200..=599) {
            response.status = 500;
            response.fault = Some(InvalidResponse::Status { status });
        }
        response
    }

    /// The same with whatever status, for the server's own.
    pub(crate) const fn unchecked(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Body::Empty, later: None, fault: None }
    }

    /// Why this can't be sent, if it can't: the first mistake.
    pub fn fault(&self) -> Option<InvalidResponse> {
        self.fault
    }

    /// Notes a mistake; the first one counts.
    pub(crate) fn set_fault(&mut self, fault: InvalidResponse) {
        self.fault.get_or_insert(fault);
    }

    /// A response that comes later. `start` is called at once, on the worker, with the token to answer with; it hands the
    /// token to a thread of the application's, or to something that will call it back, and returns. Meanwhile nothing
    /// more is read from this client: requests behind this one wait, all other connections go on. If no answer has come
    /// after `timeout`, or the token is dropped, the client gets a 503; the connection then goes on. Given to
    /// [`Refuse`](crate::Refuse) after an upgrade was [decided later](crate::Accept::later), it is a 503.
    ///
    /// ```
    /// # use campanile::{Request, Response};
    /// # use std::time::Duration;
    /// # fn look_up(name: &str) -> String { String::new() }
    /// fn endpoint(request: &Request<'_>) -> Response {
    ///     let name = request.param("name").unwrap_or("").to_owned();
    ///     Response::later(Duration::from_secs(3), move |responder| {
    ///         std::thread::spawn(move || responder.respond(Response::new(200).text(look_up(&name))));
    ///     })
    /// }
    /// ```
    pub fn later(timeout: Duration, start: impl FnOnce(Responder) + Send + 'static) -> Self {
        let later = DeferredResponse { timeout, start: Box::new(start) };
        Self { later: Some(Box::new(later)), ..Self::new(503) }
    }

    /// What it is waited for with, if it comes later.
    pub(crate) fn take_later(&mut self) -> Option<Box<DeferredResponse>> {
        self.later.take()
    }

    /// Adds a header. One that can't be sent, or that the server writes itself (Content-Length, Transfer-Encoding,
    /// Connection, Date), makes the response one that can't be sent: the client gets a 500 and the log an error. Use
    /// [`Response::try_header`] for values from elsewhere. A second Content-Type replaces the first.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        match check_header(name.as_bytes(), value) {
            Ok(()) => self.push(name.as_bytes(), value),
            Err(error) => self.set_fault(InvalidResponse::Header { name, error }),
        }
        self
    }

    /// Adds a header or says why that can't be.
    ///
    /// # Errors
    /// When name or value may not stand on the wire, or the server writes this header itself.
    pub fn try_header(mut self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, InvalidHeader> {
        let (name, value) = (name.as_bytes(), value.as_ref());
        check_header(name, value)?;
        self.push(name, value);
        Ok(self)
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets a body of plain text.
    #[must_use]
    pub fn text(self, text: impl Into<Body>) -> Self {
        self.header("Content-Type", "text/plain; charset=utf-8").body(text)
    }

    /// Sets a body of HTML.
    #[must_use]
    pub fn html(self, html: impl Into<Body>) -> Self {
        self.header("Content-Type", "text/html; charset=utf-8").body(html)
    }

    /// Sets a body of JSON, which the caller has encoded.
    #[must_use]
    pub fn json(self, json: impl Into<Body>) -> Self {
        self.header("Content-Type", "application/json").body(json)
    }

    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The headers set so far, as name and value.
    pub fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines().filter_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            Some((&line[..colon], line.get(colon + 2..)?.strip_suffix(b"\r\n")?))
        })
    }

    /// How many bytes the body has: what a GET would be sent.
    #[must_use]
    pub fn body_len(&self) -> u64 {
        if self.may_have_body() { self.body.len() } else { 0 }
    }

    /// Takes the body to send after the head; empty where the status allows none.
    #[must_use]
    pub fn into_body(self) -> Body {
        if self.may_have_body() { self.body } else { Body::Empty }
    }

    /// Writes the head to `out`: status line, Date, Content-Length, Connection, the handler's headers, the empty line.
    ///
    /// `date` is the time as HTTP writes it; `keep_alive` says whether another response may follow; `head_only` that
    /// this answers a HEAD and no body follows.
    pub fn encode_head(&self, out: &mut Vec<u8>, date: &str, keep_alive: bool, head_only: bool) {
        out.reserve(160 + self.headers.len());
        // Writing to a Vec doesn't fail.
        let _ = write!(out, "HTTP/1.1 {} {}\r\nDate: {date}\r\n", self.status, reason(self.status));
        // RFC 9110, section 8.6: no length with 1xx and 204, nor here with 304; with HEAD only the one a GET would get,
        // which an empty body doesn't tell.
        if self.may_have_body() && !(head_only && matches!(self.body, Body::Empty)) {
            let _ = write!(out, "Content-Length: {}\r\n", self.body.len());
        }
        // RFC 9110, section 7.8: who sends Upgrade must name it in Connection. RFC 9112, section 9.6: who closes must
        // say so.
        let upgrade = self.headers().any(|(name, _)| name.eq_ignore_ascii_case(b"upgrade"));
        out.extend_from_slice(match (upgrade, keep_alive) {
            (true, true) => b"Connection: upgrade\r\n".as_slice(),
            (true, false) if self.status == 101 => b"Connection: upgrade\r\n",
            (true, false) => b"Connection: upgrade, close\r\n",
            (false, true) => b"",
            (false, false) => b"Connection: close\r\n",
        });
        out.extend_from_slice(&self.headers);
        out.extend_from_slice(b"\r\n");
    }

    /// RFC 9112, section 6.3, rule 1: these responses end with their head, whatever their headers say.
    fn may_have_body(&self) -> bool {
        !matches!(self.status, 100..=199 | 204 | 304)
    }

    /// `name` and `value` are good to send.
    fn push(&mut self, name: &[u8], value: &[u8]) {
        const UNIQUE: &[u8] = b"content-type";
        if name.eq_ignore_ascii_case(UNIQUE) {
            let is_old =
                |line: &&[u8]| line.get(..UNIQUE.len()).is_some_and(|old| old.eq_ignore_ascii_case(UNIQUE));
            self.headers = self.lines().filter(|line| !is_old(line)).collect::<Vec<_>>().concat();
        }
        for part in [name, b": ", value, b"\r\n"] {
            self.headers.extend_from_slice(part);
        }
    }

    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.headers.split_inclusive(|&byte| byte == b'\n')
    }
}

fn check_header(name: &[u8], value: &[u8]) -> Result<(), InvalidHeader> {
    if !is_token(name) {
        return Err(InvalidHeader::Name);
    }
    if !value.iter().copied().all(is_value_byte) {
        return Err(InvalidHeader::Value);
    }
    if is_reserved(name) { Err(InvalidHeader::Reserved) } else { Ok(()) }
}

fn is_reserved(name: &[u8]) -> bool {
    RESERVED.iter().any(|reserved| reserved.as_bytes().eq_ignore_ascii_case(name))
}

const fn is_value_byte(byte: u8) -> bool {
    !byte.is_ascii_control() || byte == b'\t'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn encode(response: &Response, keep_alive: bool, head_only: bool) -> String {
        let mut out = Vec::new();
        response.encode_head(&mut out, DATE, keep_alive, head_only);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_server_sets_the_framing_headers() {
        let response = Response::new(200).html("<p>").header("X-A", "b");
        let head = format!(
            "HTTP/1.1 200 OK\r\nDate: {DATE}\r\nContent-Length: 3\r\n\
             Content-Type: text/html; charset=utf-8\r\nX-A: b\r\n\r\n"
        );
        assert_eq!(encode(&response, true, false), head);
        assert_eq!(encode(&response, true, true), head, "a HEAD is told the length");
        assert!(encode(&response, false, false).contains("\r\nConnection: close\r\n"));
    }

    #[test]
    fn a_status_without_body_has_no_content_length() {
        for status in [100, 101, 204, 304] {
            let response = Response::unchecked(status).body("lost");
            assert!(!encode(&response, true, false).contains("Content-Length"), "{status}");
            assert_eq!(response.body_len(), 0);
            assert!(response.into_body().is_empty());
        }
        assert!(encode(&Response::new(200), true, false).contains("\r\nContent-Length: 0\r\n"));
        assert!(!encode(&Response::new(200), true, true).contains("Content-Length"));
    }

    #[test]
    fn a_101_has_connection_upgrade() {
        let response = Response::unchecked(101).header("Upgrade", "websocket");
        assert!(
            encode(&response, false, false).contains("\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        );
    }

    #[test]
    fn header_values_with_line_breaks_are_refused() {
        let fault = |name: &'static str, value: &str| {
            let response = Response::new(200).header(name, value);
            assert_eq!(response.headers().count(), 0);
            response.fault()
        };
        let header = |name, error| Some(InvalidResponse::Header { name, error });
        assert_eq!(fault("X\r\nEvil", "a"), header("X\r\nEvil", InvalidHeader::Name));
        assert_eq!(fault("X", "a\r\nSet-Cookie: b\0"), header("X", InvalidHeader::Value));
        assert_eq!(fault("connection", "close"), header("connection", InvalidHeader::Reserved));
        assert_eq!(Response::new(200).header("X", "a\tb").fault(), None);
        let refusal = |name: &str, value: &[u8]| Response::new(200).try_header(name, value).unwrap_err();
        assert_eq!(refusal("X", b"a\nb"), InvalidHeader::Value);
        assert_eq!(refusal("X", b"a\0"), InvalidHeader::Value);
        assert_eq!(refusal("X: a\r\nY", b"b"), InvalidHeader::Name);
        assert_eq!(refusal("", b"b"), InvalidHeader::Name);
        assert_eq!(refusal("transfer-encoding", b"chunked"), InvalidHeader::Reserved);
    }

    #[test]
    fn content_type_is_replaced_and_other_headers_are_added() {
        let response = Response::new(200).text("a").header("Set-Cookie", "a=1").header("Set-Cookie", "b=2");
        let response = response.header("content-type", "text/css");
        let names: Vec<_> = response.headers().map(|(name, _)| name).collect();
        assert_eq!(names, [&b"Set-Cookie"[..], b"Set-Cookie", b"content-type"]);
    }

    #[test]
    fn an_invalid_status_is_reported_as_fault() {
        for status in [0, 99, 100, 101, 199, 600, 999, 1000, u16::MAX] {
            let response = Response::new(status);
            assert_eq!(
                (response.status(), response.fault()),
                (500, Some(InvalidResponse::Status { status }))
            );
        }
        let twice = Response::new(101).header("", "x");
        assert_eq!(twice.fault(), Some(InvalidResponse::Status { status: 101 }), "the first mistake");
        assert!([200, 299, 404, 599].iter().all(|status| Response::new(*status).fault().is_none()));
        assert!(encode(&Response::new(299), true, false).starts_with("HTTP/1.1 299 \r\n"));
    }

    #[test]
    fn a_response_is_send() {
        fn is_send<T: Send>() {}
        is_send::<Response>();
    }

    proptest! {
        #[test]
        fn an_accepted_header_is_one_line(value in prop::collection::vec(any::<u8>(), 0..40)) {
            let response = Response::new(200).header("X", &value);
            let mut out = Vec::new();
            response.encode_head(&mut out, DATE, true, false);
            let lines = out.iter().filter(|&&byte| byte == b'\n').count();
            let refused = Response::new(200).try_header("X", &value).is_err();
            prop_assert_eq!(lines, if refused { 4 } else { 5 });
            prop_assert_eq!(refused, response.fault().is_some());
            prop_assert_eq!(refused, response.headers().next().map(|(_, sent)| sent) != Some(&value));
        }
    }
}
