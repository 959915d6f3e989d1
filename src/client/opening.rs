//! The client's half of the opening handshake (RFC 6455 section 4.1): the request, and what the answer has to be.
//! Bytes and values; no socket, no clock, and the nonce comes in.

use super::Url;
use crate::deflate::{self, Deflate, DeflateError, InvalidDeflate};
use crate::http::is_token;
use crate::protocol::handshake::{accept_key, client_key};
use core::fmt;

/// An answer's head may be this long; servers send a few hundred bytes.
pub const MAX_HEAD: usize = 16 << 10;

/// Headers in an answer.
const MAX_HEADERS: usize = 64;

/// What the caller adds to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extras {
    /// Offered in this order.
    pub subprotocols: Vec<String>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The `Origin` header. Programs need none; a server that only lets its own pages in may want it.
    pub origin: Option<String>,
    /// Whether compression is offered, and which.
    pub deflate: Deflate,
}

/// What may not be in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidRequest {
    /// A subprotocol that is no token (RFC 6455 section 4.1), or one named twice.
    Subprotocol(String),
    /// A header with bytes that may not be in its name or value.
    Header(String),
    /// A header that the handshake itself writes.
    Reserved(String),
    /// An origin with bytes that may not be in a header.
    Origin(String),
    /// Settings of compression that do not exist.
    Deflate(InvalidDeflate),
}

impl fmt::Display for InvalidRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subprotocol(name) => write!(f, "subprotocol {name:?} is no token, or is named twice"),
            Self::Header(name) => write!(f, "header {name:?} has bytes that may not be in a header"),
            Self::Reserved(name) => write!(f, "header {name:?} is written by the handshake itself"),
            Self::Origin(origin) => write!(f, "origin {origin:?} has bytes that may not be in a header"),
            Self::Deflate(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for InvalidRequest {}

/// RFC 9110 section 5.5, with tabs, without what ends a line.
fn is_value(value: &str) -> bool {
    value.bytes().all(|b| b == b'\t' || b >= b' ' && b != 0x7F)
}

impl Extras {
    /// Whether a request can be made of them.
    ///
    /// # Errors
    /// The first that can't be in a request.
    pub fn check(&self) -> Result<(), InvalidRequest> {
        self.deflate.check().map_err(InvalidRequest::Deflate)?;
        for (i, name) in self.subprotocols.iter().enumerate() {
            // Section 4.1, requirement 10: the elements are tokens, and all of them different.
            if !is_token(name.as_bytes()) || self.subprotocols[..i].contains(name) {
                return Err(InvalidRequest::Subprotocol(name.clone()));
            }
        }
        for (name, value) in &self.headers {
            let lower = name.to_ascii_lowercase();
            let framing = ["connection", "upgrade", "content-length", "transfer-encoding", "origin"];
            if lower.starts_with("sec-websocket-") || framing.contains(&lower.as_str()) {
                return Err(InvalidRequest::Reserved(name.clone()));
            }
            if !is_token(name.as_bytes()) || !is_value(value) {
                return Err(InvalidRequest::Header(name.clone()));
            }
        }
        match &self.origin {
            Some(origin) if !is_value(origin) => Err(InvalidRequest::Origin(origin.clone())),
            _ => Ok(()),
        }
    }
}

/// An opening handshake whose answer has not come yet.
#[derive(Debug)]
pub struct Opening {
    accept: String,
    subprotocols: Vec<String>,
    deflate: Deflate,
    head: Vec<u8>,
}

/// What the server agreed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Agreed {
    /// The subprotocol that it chose, or an empty string.
    pub protocol: String,
    /// The extensions in use, as its header has them, or an empty string.
    pub extensions: String,
    /// The same of permessage-deflate, taken apart.
    pub deflate: Option<deflate::Agreed>,
}

/// An answer other than 101.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedResponse {
    /// Its status, such as 403.
    pub status: u16,
    /// Its headers; what is not UTF-8 in them is replaced.
    pub headers: Vec<(String, String)>,
    /// What of its body came together with its head: often all, never more than 16 KiB.
    pub body: Vec<u8>,
}

impl RefusedResponse {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// Where a redirect leads (RFC 9110 section 15.4), if this is one.
    pub fn location(&self) -> Option<&str> {
        matches!(self.status, 301 | 302 | 303 | 307 | 308).then(|| self.header("location")).flatten()
    }

    /// The seconds of a `Retry-After` (RFC 9110 section 10.2.3), however many digits they have; a date is not read.
    pub fn retry_after(&self) -> Option<core::time::Duration> {
        let digits = self.header("retry-after")?.trim();
        let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| core::time::Duration::from_secs(digits.parse().unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for RefusedResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusal")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .field("body", &String::from_utf8_lossy(&self.body))
            .finish()
    }
}

/// What is wrong with an answer to the opening handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeError {
    /// Another status than 101.
    Refused(Box<RefusedResponse>),
    /// Not HTTP/1.1.
    NotHttp,
    /// A head of more than 16 KiB or 64 headers.
    TooLong,
    /// No `Upgrade: websocket`.
    NoUpgrade,
    /// No `Connection: Upgrade`.
    NoConnection,
    /// `Sec-WebSocket-Accept` is missing, or no answer to this request's key.
    WrongAccept,
    /// An extension that was not offered.
    Extension(String),
    /// An answer to the offer of permessage-deflate that RFC 7692 does not allow.
    Deflate(DeflateError),
    /// A subprotocol that was not offered, or several.
    Subprotocol(String),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(response) => {
                write!(f, "the server refused with status {}", response.status)
            }
            Self::NotHttp => f.write_str("the answer is not HTTP/1.1"),
            Self::TooLong => f.write_str("the answer's head is longer than 16 KiB or 64 headers"),
            Self::NoUpgrade => f.write_str("the answer has no Upgrade: websocket"),
            Self::NoConnection => f.write_str("the answer has no Connection: Upgrade"),
            Self::WrongAccept => f.write_str("the answer's Sec-WebSocket-Accept is missing or wrong"),
            Self::Extension(x) => write!(f, "the server chose the extension {x:?}, which was not offered"),
            Self::Deflate(e) => write!(f, "the server's answer to the offer of permessage-deflate: {e}"),
            Self::Subprotocol(p) => {
                write!(f, "the server chose the subprotocol {p:?}, which was not offered")
            }
        }
    }
}

impl std::error::Error for HandshakeError {}

/// What is wrong with the bytes of an answer's head.
pub(super) enum HeadFault {
    NotHttp,
    TooLong,
}

impl From<HeadFault> for HandshakeError {
    fn from(fault: HeadFault) -> Self {
        match fault {
            HeadFault::NotHttp => Self::NotHttp,
            HeadFault::TooLong => Self::TooLong,
        }
    }
}

/// Appends to `head` what `input` has of an answer's head, which has to begin like this, and leaves there what follows
/// it. True: the head is whole.
pub(super) fn take_head(head: &mut Vec<u8>, input: &mut &mut [u8], begins: &[u8]) -> Result<bool, HeadFault> {
    let known = head.len();
    // One byte more than may be, so that what is too long is seen to be.
    let taken = input.len().min(MAX_HEAD + 1 - known);
    head.extend_from_slice(&input[..taken]);
    let from = known.saturating_sub(3);
    let Some(end) = head[from..].windows(4).position(|w| w == b"\r\n\r\n") else {
        *input = &mut core::mem::take(input)[taken..];
        if !begins.starts_with(&head[..head.len().min(begins.len())]) {
            return Err(HeadFault::NotHttp);
        }
        return if head.len() > MAX_HEAD { Err(HeadFault::TooLong) } else { Ok(false) };
    };
    let end = from + end + 4;
    head.truncate(end);
    *input = &mut core::mem::take(input)[end - known..];
    Ok(true)
}

impl Opening {
    /// Appends the request for `url` to `out`, with a nonce that nobody can guess.
    pub fn begin(url: &Url, extras: &Extras, nonce: [u8; 16], out: &mut Vec<u8>) -> Self {
        let key = client_key(nonce);
        let mut text = format!("GET {} HTTP/1.1\r\n", url.path());
        if !extras.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            text += &format!("Host: {}\r\n", url.authority());
        }
        text += &format!(
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        );
        if let Some(origin) = &extras.origin {
            text += &format!("Origin: {origin}\r\n");
        }
        if !extras.subprotocols.is_empty() {
            text += &format!("Sec-WebSocket-Protocol: {}\r\n", extras.subprotocols.join(", "));
        }
        if let Some(offer) = deflate::offer(&extras.deflate) {
            text += &format!("Sec-WebSocket-Extensions: {offer}\r\n");
        }
        for (name, value) in &extras.headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        out.extend_from_slice(text.as_bytes());
        let accept = accept_key(key.as_bytes());
        Self { accept, subprotocols: extras.subprotocols.clone(), deflate: extras.deflate, head: Vec::new() }
    }

    /// Takes what `input` has of the answer, and leaves there what follows it: frames may come in the same segment.
    /// `None`: more is needed.
    ///
    /// # Errors
    /// The answer is no agreement; the connection is over.
    pub fn receive(&mut self, input: &mut &mut [u8]) -> Result<Option<Agreed>, HandshakeError> {
        if !take_head(&mut self.head, input, b"HTTP/1.1 ")? {
            return Ok(None);
        }
        self.check(input).map(Some)
    }

    /// Section 4.1, the client's six checks of the answer.
    fn check(&self, after: &[u8]) -> Result<Agreed, HandshakeError> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(&self.head) {
            Ok(status) if status.is_complete() && response.version == Some(1) => {}
            Err(httparse::Error::TooManyHeaders) => return Err(HandshakeError::TooLong),
            _ => return Err(HandshakeError::NotHttp),
        }
        // 1: anything but 101 is to be dealt with as HTTP has it.
        let status = response.code.unwrap_or(0);
        if status != 101 {
            let text = |value| String::from_utf8_lossy(value).into_owned();
            let headers = response.headers.iter().map(|h| (h.name.to_owned(), text(h.value))).collect();
            let body = after[..after.len().min(MAX_HEAD)].to_vec();
            return Err(HandshakeError::Refused(Box::new(RefusedResponse { status, headers, body })));
        }
        let values = |name: &'static str| {
            let found = response.headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(name));
            found.map(|h| h.value.trim_ascii())
        };
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        // 2 and 3.
        if !values("Upgrade").any(|v| v.eq_ignore_ascii_case(b"websocket")) {
            return Err(HandshakeError::NoUpgrade);
        }
        let mut tokens = values("Connection").flat_map(|v| v.split(|&b| b == b','));
        if !tokens.any(|t| t.trim_ascii().eq_ignore_ascii_case(b"upgrade")) {
            return Err(HandshakeError::NoConnection);
        }
        // 4: the answer to this very key, so that no cache or other protocol can have given it.
        if !values("Sec-WebSocket-Accept").eq([self.accept.as_bytes()]) {
            return Err(HandshakeError::WrongAccept);
        }
        // 5: only what was offered may be chosen, and once.
        let mut agreed = Agreed::default();
        let extensions: Vec<_> = values("Sec-WebSocket-Extensions").filter(|v| !v.is_empty()).collect();
        agreed.extensions = extensions.iter().map(|v| text(v)).collect::<Vec<_>>().join(", ");
        agreed.deflate = match deflate::accept_response(extensions, &self.deflate) {
            Ok(deflate) => deflate,
            Err(DeflateError::UnknownExtension) => return Err(HandshakeError::Extension(agreed.extensions)),
            Err(e) => return Err(HandshakeError::Deflate(e)),
        };
        // 6.
        for (i, chosen) in values("Sec-WebSocket-Protocol").enumerate() {
            match self.subprotocols.iter().find(|offered| offered.as_bytes() == chosen) {
                Some(offered) if i == 0 => agreed.protocol.clone_from(offered),
                _ => return Err(HandshakeError::Subprotocol(text(chosen))),
            }
        }
        Ok(agreed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(subprotocols: &[&str]) -> (Opening, String) {
        let extras = Extras {
            subprotocols: subprotocols.iter().map(|&s| s.to_owned()).collect(),
            headers: vec![("X-Bell".into(), "big".into())],
            origin: Some("http://example.org".into()),
            deflate: Deflate::off(),
        };
        assert_eq!(extras.check(), Ok(()));
        let mut out = Vec::new();
        let opening = Opening::begin(&"ws://h:1/p".parse().unwrap(), &extras, [1; 16], &mut out);
        (opening, String::from_utf8(out).unwrap())
    }

    fn answer(text: &str, subprotocols: &[&str]) -> Result<Option<Agreed>, HandshakeError> {
        let (mut opening, _) = begin(subprotocols);
        let mut bytes = text.replace("ACCEPT", &opening.accept).into_bytes();
        opening.receive(&mut &mut bytes[..])
    }

    const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
                        Sec-WebSocket-Accept: ACCEPT\r\n";

    #[test]
    fn the_request_contains_the_configured_headers() {
        let (_, text) = begin(&["a", "b"]);
        assert!(text.starts_with("GET /p HTTP/1.1\r\nHost: h:1\r\n"));
        for line in ["Origin: http://example.org", "Sec-WebSocket-Protocol: a, b", "X-Bell: big"] {
            assert!(text.contains(&format!("\r\n{line}\r\n")), "{line}");
        }
        assert!(text.ends_with("\r\n\r\n"));
    }

    #[test]
    fn invalid_headers_and_subprotocols_are_refused() {
        let with = |f: fn(&mut Extras)| {
            let mut extras = Extras::default();
            f(&mut extras);
            extras.check()
        };
        assert!(matches!(
            with(|e| e.headers.push(("A".into(), "b\r\nC: d".into()))),
            Err(InvalidRequest::Header(_))
        ));
        assert!(matches!(
            with(|e| e.headers.push(("A b".into(), String::new()))),
            Err(InvalidRequest::Header(_))
        ));
        for name in ["Upgrade", "sec-websocket-key", "Content-Length"] {
            let extras = Extras { headers: vec![(name.into(), "1".into())], ..Extras::default() };
            assert!(matches!(extras.check(), Err(InvalidRequest::Reserved(_))));
        }
        for list in [&["a b"][..], &[""], &["a", "b", "a"], &["a,b"]] {
            let subprotocols = list.iter().map(|&s| s.to_owned()).collect();
            let extras = Extras { subprotocols, ..Extras::default() };
            assert!(matches!(extras.check(), Err(InvalidRequest::Subprotocol(_))), "{list:?}");
        }
        assert!(matches!(with(|e| e.origin = Some("a\nb".into())), Err(InvalidRequest::Origin(_))));
        assert_eq!(with(|e| e.headers.push(("Host".into(), "elsewhere".into()))), Ok(()));
    }

    #[test]
    fn a_valid_response_is_accepted_at_any_split_and_leaves_the_rest() {
        let whole = |o: &Opening| format!("{GOOD}\r\nREST").replace("ACCEPT", &o.accept).into_bytes();
        for cut in 1..whole(&begin(&[]).0).len() - 4 {
            let (mut opening, _) = begin(&[]);
            let mut bytes = whole(&opening);
            let (first, second) = bytes.split_at_mut(cut);
            let mut first = first;
            assert_eq!(opening.receive(&mut first), Ok(None));
            assert!(first.is_empty());
            let mut second = second;
            assert_eq!(opening.receive(&mut second), Ok(Some(Agreed::default())));
            assert_eq!(second, b"REST");
        }
    }

    #[test]
    fn invalid_responses_are_refused_with_their_reason() {
        use HandshakeError::*;
        let refused = |text: String| answer(&text, &["a"]).unwrap_err();
        assert_eq!(refused("SSH-2.0".into()), NotHttp, "known before its end");
        assert_eq!(refused("HTTP/1.0 101 x\r\n\r\n".into()), NotHttp);
        assert_eq!(refused(format!("{}\r\n", GOOD.replace("WebSocket", "h2c"))), NoUpgrade);
        assert_eq!(refused(format!("{}\r\n", GOOD.replace(", Upgrade", ""))), NoConnection);
        assert_eq!(refused(format!("{}\r\n", GOOD.replace("ACCEPT", "AAAA"))), WrongAccept);
        let text = format!("{GOOD}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n");
        assert_eq!(refused(text), Extension("permessage-deflate".into()));
        let text = format!("{GOOD}Sec-WebSocket-Protocol: b\r\n\r\n");
        assert_eq!(refused(text), Subprotocol("b".into()));
        assert_eq!(refused(format!("HTTP/1.1 101 {}", "x".repeat(MAX_HEAD))), TooLong);
        assert_eq!(refused(format!("HTTP/1.1 101 x\r\n{}\r\n", "A: b\r\n".repeat(65))), TooLong);
        let agreed =
            answer(&format!("{GOOD}Sec-WebSocket-Protocol: a\r\n\r\n"), &["b", "a"]).unwrap().unwrap();
        assert_eq!(agreed.protocol, "a");
    }

    #[test]
    fn a_refused_response_has_status_headers_and_body() {
        let text = "HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nLocation: /x\r\n\r\nlater";
        let Err(HandshakeError::Refused(response)) = answer(text, &[]) else { panic!("taken") };
        assert_eq!((response.status, &response.body[..]), (503, &b"later"[..]));
        assert_eq!(response.retry_after(), Some(core::time::Duration::from_secs(7)));
        let with = |value: &str| {
            let headers = vec![("Retry-After".to_owned(), value.to_owned())];
            RefusedResponse { status: 503, headers, body: Vec::new() }.retry_after()
        };
        assert_eq!(with("99999999999999999999"), Some(core::time::Duration::from_secs(u64::MAX)));
        assert_eq!(with("0"), Some(core::time::Duration::ZERO));
        for none in ["", "+5", "-1", "1.5", "soon", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert_eq!(with(none), None, "{none:?}");
        }
        assert_eq!(response.location(), None, "no redirect");
        let Err(HandshakeError::Refused(response)) = answer(&text.replace("503", "307"), &[]) else {
            panic!()
        };
        assert_eq!(response.location(), Some("/x"));
    }
}
