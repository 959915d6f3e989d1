//! The key and its answer (RFC 6455 sections 1.3 and 4.2.2).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// What the key is hashed with, fixed by section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The value of `Sec-WebSocket-Accept` for this `Sec-WebSocket-Key`: 28 characters. For programs that answer the
/// handshake themselves and then hand the socket over.
///
/// ```
/// let accept = campanile::protocol::handshake::accept_key(b"dGhlIHNhbXBsZSBub25jZQ==");
/// assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
/// ```
pub fn accept_key(key: &[u8]) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// Whether this is a key as section 4.1 has it: 16 bytes in base64.
pub fn is_valid_key(key: &[u8]) -> bool {
    key.len() == 24 && STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16)
}

/// The value of `Sec-WebSocket-Key` for 16 random bytes of the client's.
pub fn client_key(nonce: [u8; 16]) -> String {
    STANDARD.encode(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sixteen_bytes_in_base64() {
        assert!(is_valid_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        assert!(is_valid_key(client_key([7; 16]).as_bytes()));
        for bad in
            [&b""[..], b"dGhlIHNhbXBsZSBub25jZQ", b"dGhlIHNhbXBsZSBub25jZ!==", &[0xff; 24], &[b'A'; 24]]
        {
            assert!(!is_valid_key(bad), "{bad:?}");
        }
    }
}
