//! The client's half of the opening handshake (RFC 6455 section 4.1): the request, and what the answer has to be.

use crate::outbox::Outbox;
use crate::target::Target;
use campanile::protocol::handshake::{accept_key, client_key};
use std::fmt;

/// An answer's head may be this long; servers send a few hundred bytes.
const MAX_HEAD: usize = 16 << 10;

/// Headers in an answer.
const MAX_HEADERS: usize = 64;

/// The request of every connection of a run, less the key.
#[derive(Debug)]
pub(crate) struct Request {
    before_key: Vec<u8>,
    after_key: Vec<u8>,
    subprotocols: Vec<String>,
}

/// What the user may add to a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extras {
    /// Offered in this order.
    pub(crate) subprotocols: Vec<String>,
    /// Further headers.
    pub(crate) headers: Vec<(String, String)>,
    /// The `Origin` header.
    pub(crate) origin: Option<String>,
}

impl Request {
    /// A request for `target`.
    pub(crate) fn new(target: &Target, extras: &Extras) -> Self {
        let mut after = String::from("\r\n");
        if let Some(origin) = &extras.origin {
            after += &format!("Origin: {origin}\r\n");
        }
        if !extras.subprotocols.is_empty() {
            after += &format!("Sec-WebSocket-Protocol: {}\r\n", extras.subprotocols.join(", "));
        }
        for (name, value) in &extras.headers {
            after += &format!("{name}: {value}\r\n");
        }
        after += "\r\n";
        let before = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ",
            target.path, target.authority
        );
        Self {
            before_key: before.into_bytes(),
            after_key: after.into_bytes(),
            subprotocols: extras.subprotocols.clone(),
        }
    }

    /// Appends the request with this nonce, and gives what waits for the answer.
    pub(crate) fn write(&self, nonce: [u8; 16], out: &mut Outbox) -> Opening {
        let key = client_key(nonce);
        out.extend(&self.before_key);
        out.extend(key.as_bytes());
        out.extend(&self.after_key);
        Opening { accept: accept_key(key.as_bytes()), head: Vec::new() }
    }
}

/// A handshake whose answer has not come yet.
#[derive(Debug)]
pub(crate) struct Opening {
    accept: String,
    head: Vec<u8>,
}

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandshakeError {
    /// Another status than 101.
    Status(u16),
    /// Not what section 4.1 asks for; says in which way.
    Invalid(&'static str),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "handshake refused with status {status}"),
            Self::Invalid(what) => write!(f, "handshake answer: {what}"),
        }
    }
}

impl Opening {
    /// Takes what `input` has of the answer, and leaves there what follows it: frames may come in the same segment.
    /// True when the connection is open.
    pub(crate) fn receive(
        &mut self,
        input: &mut &mut [u8],
        request: &Request,
    ) -> Result<bool, HandshakeError> {
        let known = self.head.len();
        self.head.extend_from_slice(input);
        let from = known.saturating_sub(3);
        let Some(end) = self.head[from..].windows(4).position(|w| w == b"\r\n\r\n") else {
            *input = &mut [];
            if self.head.len() > MAX_HEAD {
                return Err(HandshakeError::Invalid("its head is longer than 16 KiB"));
            }
            return Ok(false);
        };
        let end = from + end + 4;
        *input = &mut std::mem::take(input)[end - known..];
        self.head.truncate(end);
        self.check(request)?;
        Ok(true)
    }

    /// Section 4.1, the client's six checks.
    fn check(&self, request: &Request) -> Result<(), HandshakeError> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        if !response.parse(&self.head).is_ok_and(|status| status.is_complete()) {
            return Err(HandshakeError::Invalid("it is not HTTP"));
        }
        match response.code {
            Some(101) => {}
            code => return Err(HandshakeError::Status(code.unwrap_or(0))),
        }
        let values = |name: &'static str| {
            let found = response.headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(name));
            found.map(|h| h.value.trim_ascii())
        };
        let mut tokens = values("Connection").flat_map(|v| v.split(|&b| b == b','));
        if !values("Upgrade").any(|v| v.eq_ignore_ascii_case(b"websocket")) {
            return Err(HandshakeError::Invalid("no Upgrade: websocket"));
        }
        if !tokens.any(|t| t.trim_ascii().eq_ignore_ascii_case(b"upgrade")) {
            return Err(HandshakeError::Invalid("no Connection: Upgrade"));
        }
        if !values("Sec-WebSocket-Accept").eq([self.accept.as_bytes()]) {
            return Err(HandshakeError::Invalid("wrong Sec-WebSocket-Accept"));
        }
        if values("Sec-WebSocket-Extensions").next().is_some() {
            return Err(HandshakeError::Invalid("an extension that was not offered"));
        }
        let mut chosen = values("Sec-WebSocket-Protocol");
        if !chosen.all(|c| request.subprotocols.iter().any(|offered| offered.as_bytes() == c)) {
            return Err(HandshakeError::Invalid("a subprotocol that was not offered"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(subprotocols: &[&str]) -> Request {
        let extras = Extras {
            subprotocols: subprotocols.iter().map(|&s| s.to_owned()).collect(),
            headers: vec![("X-Bell".into(), "big".into())],
            origin: Some("http://example.org".into()),
        };
        Request::new(&Target::parse("ws://h:1/p").unwrap(), &extras)
    }

    fn answer(text: &str, subprotocols: &[&str]) -> Result<bool, HandshakeError> {
        let request = request(subprotocols);
        let mut opening = request.write([1; 16], &mut Outbox::default());
        let text = text.replace("ACCEPT", &opening.accept);
        let mut bytes = text.into_bytes();
        opening.receive(&mut &mut bytes[..], &request)
    }

    const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
                        Sec-WebSocket-Accept: ACCEPT\r\n";

    #[test]
    fn the_request_has_what_was_asked_for() {
        let mut out = Outbox::default();
        request(&["a", "b"]).write([1; 16], &mut out);
        let text = String::from_utf8(out.to_vec()).unwrap();
        assert!(text.starts_with("GET /p HTTP/1.1\r\nHost: h:1\r\n"));
        for line in ["Origin: http://example.org", "Sec-WebSocket-Protocol: a, b", "X-Bell: big"] {
            assert!(text.contains(&format!("\r\n{line}\r\n")), "{line}");
        }
        assert!(text.ends_with("\r\n\r\n"));
    }

    #[test]
    fn a_good_answer_opens_however_it_is_cut_and_leaves_what_follows() {
        let request = request(&[]);
        let whole = |o: &Opening| format!("{GOOD}\r\nREST").replace("ACCEPT", &o.accept).into_bytes();
        for cut in 1..whole(&request.write([2; 16], &mut Outbox::default())).len() - 4 {
            let mut opening = request.write([2; 16], &mut Outbox::default());
            let mut bytes = whole(&opening);
            let (first, second) = bytes.split_at_mut(cut);
            let mut first = first;
            assert!(!opening.receive(&mut first, &request).unwrap() && first.is_empty());
            let mut second = second;
            assert!(opening.receive(&mut second, &request).unwrap());
            assert_eq!(second, b"REST");
        }
    }

    #[test]
    fn bad_answers_are_refused_each_for_its_reason() {
        assert_eq!(answer("HTTP/1.1 403 No\r\n\r\n", &[]), Err(HandshakeError::Status(403)));
        assert_eq!(answer("SSH-2.0\r\n\r\n", &[]), Err(HandshakeError::Invalid("it is not HTTP")));
        assert_eq!(answer(&format!("{GOOD}\r\n"), &[]), Ok(true));
        let invalid = |text: String| matches!(answer(&text, &["a"]), Err(HandshakeError::Invalid(_)));
        assert!(invalid(format!("{}\r\n", GOOD.replace("WebSocket", "h2c"))));
        assert!(invalid(format!("{}\r\n", GOOD.replace(", Upgrade", ""))));
        assert!(invalid(format!("{}\r\n", GOOD.replace("ACCEPT", "AAAA"))));
        assert!(invalid(format!("{GOOD}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")));
        assert!(invalid(format!("{GOOD}Sec-WebSocket-Protocol: b\r\n\r\n")));
        assert_eq!(answer(&format!("{GOOD}Sec-WebSocket-Protocol: a\r\n\r\n"), &["a"]), Ok(true));
        assert!(invalid("x".repeat(MAX_HEAD + 1)));
    }
}
