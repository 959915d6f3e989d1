//! The opening handshake (RFC 6455 section 4.2), on a request that has been parsed.

use crate::deflate::Agreed;
use crate::http::{HttpError, RequestHead, Version};
use crate::protocol::handshake;

/// What a valid request for an upgrade results in: the answer to its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UpgradeHead {
    pub(crate) accept: String,
}

/// Whether the client asks for a WebSocket at all: whether it names one in `Upgrade`.
pub(crate) fn asks_for_websocket(head: &RequestHead<'_>) -> bool {
    head.has_token("upgrade", "websocket")
}

/// Whether `Upgrade` contains `websocket` in any form, such as `websocket/13`. [`asks_for_websocket`] is stricter; a proxy
/// in front may not be.
pub(crate) fn mentions_websocket(head: &RequestHead<'_>) -> bool {
    let name = b"websocket";
    head.header_values("upgrade").any(|value| value.windows(name.len()).any(|w| w.eq_ignore_ascii_case(name)))
}

/// Checks what RFC 6455 section 4.2.1 asks of the client.
pub(crate) fn check_upgrade(head: &RequestHead<'_>) -> Result<UpgradeHead, HttpError> {
    // Section 4.1, 2: the method is GET and the version at least 1.1.
    if head.method() != "GET" {
        return Err(HttpError::MethodNotAllowed { allow: "GET" });
    }
    if head.version() != Version::Http11 {
        return Err(HttpError::VersionUnsupported);
    }
    // Section 4.2.1, 3: a path that accepts only WebSockets tells other clients so.
    if !asks_for_websocket(head) {
        return Err(HttpError::UpgradeRequired);
    }
    // Section 4.2.1, 4: Connection is a list of tokens; browsers send `keep-alive, Upgrade`.
    if !head.has_token("connection", "upgrade") {
        return Err(HttpError::Malformed { part: "Connection header: it lacks the token Upgrade" });
    }
    // Section 4.2.2, 4: another version is answered with the supported one.
    if head.header("sec-websocket-version").map(<[u8]>::trim_ascii) != Some(b"13") {
        return Err(HttpError::UpgradeRequired);
    }
    // Section 4.2.1, 5: one key of 16 bytes in base64.
    let key = head.header("sec-websocket-key").map(<[u8]>::trim_ascii);
    let key = key.filter(|k| head.header_count("sec-websocket-key") == 1 && handshake::is_valid_key(k));
    let Some(key) = key else {
        return Err(HttpError::Malformed { part: "Sec-WebSocket-Key: it is 16 bytes in base64, once" });
    };
    head.check_protocols()?;
    Ok(UpgradeHead { accept: handshake::accept_key(key) })
}

/// Writes the 101 (section 4.2.2, 5). `headers` are lines that have been checked, each with its end.
pub(crate) fn write_accept(
    out: &mut Vec<u8>,
    accept: &str,
    protocol: Option<&str>,
    agreed: Option<&Agreed>,
    headers: &[u8],
) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
    );
    out.extend_from_slice(accept.as_bytes());
    out.extend_from_slice(b"\r\n");
    if let Some(protocol) = protocol {
        out.extend_from_slice(b"Sec-WebSocket-Protocol: ");
        out.extend_from_slice(protocol.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if let Some(agreed) = agreed {
        out.extend_from_slice(b"Sec-WebSocket-Extensions: ");
        out.extend_from_slice(agreed.response().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(headers);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HeaderSlots;

    const GOOD: &str = "GET /chat HTTP/1.1\r\nHost: h\r\nupgrade: WebSocket\r\nCONNECTION: keep-alive, Upgrade\r\n\
                        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

    fn check(request: &str) -> Result<UpgradeHead, HttpError> {
        let mut slots = HeaderSlots::new();
        check_upgrade(&RequestHead::parse(request.as_bytes(), &mut slots, 64)?)
    }

    #[test]
    fn upgrade_headers_match_in_any_case() {
        assert_eq!(check(GOOD).unwrap().accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn each_invalid_upgrade_has_its_status() {
        let status =
            |from: &str, to: &str| check(&GOOD.replace(from, to)).map(|_| 101).unwrap_or_else(|e| e.status());
        assert_eq!(status("GET", "POST"), 405);
        assert_eq!(status("upgrade: WebSocket\r\n", ""), 426);
        assert_eq!(status("keep-alive, Upgrade", "keep-alive"), 400);
        assert_eq!(status("Version: 13", "Version: 8"), 426);
        assert_eq!(status("Sec-WebSocket-Version: 13\r\n", ""), 426);
        assert_eq!(status("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400);
        assert_eq!(status("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), 400);
        assert_eq!(status("\r\n\r\n", "\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"), 400);
        assert_eq!(status("GET /chat", "GET ws://h:3000/chat"), 101);
    }

    #[test]
    fn the_upgrade_response_ends_with_an_empty_line() {
        let mut out = Vec::new();
        write_accept(&mut out, "KEY", Some("chat.v1"), None, b"X-A: b\r\n");
        let out = String::from_utf8(out).unwrap();
        assert!(out.starts_with("HTTP/1.1 101 ") && out.ends_with("\r\nX-A: b\r\n\r\n"), "{out}");
        assert!(out.contains("\r\nSec-WebSocket-Protocol: chat.v1\r\n"));
    }
}
