//! Frame heads, in and out (RFC 6455 section 5.2).
//!
//! ```text
//!   byte 0              byte 1
//!  +---+-----+--------+ +------+---------+ +-----------------+ +----------+
//!  |FIN|RSV*3| opcode | | MASK | len 7   | | 0, 2 or 8 bytes | | 0 or 4   | payload …
//!  |   |     |        | |      |126: +2  | | length, big end | | mask key |
//!  |   |     |        | |      |127: +8  | | first           | |          |
//!  +---+-----+--------+ +------+---------+ +-----------------+ +----------+
//! ```

use super::{Opcode, ProtocolError};

/// The longest head: 2 bytes, 8 of length, 4 of mask.
pub const MAX_HEAD: usize = 14;

/// Which end of the connection this is. Clients mask what they send, servers don't (section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Role {
    /// This end accepted the connection.
    Server,
    /// This end opened the connection.
    Client,
}

/// A frame's head, as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct Head {
    /// The last fragment of its message.
    pub fin: bool,
    /// The first reserved bit: with permessage-deflate, the message is compressed.
    pub rsv1: bool,
    /// What the frame carries.
    pub opcode: Opcode,
    /// The key that the payload is masked with; zero for a frame without a mask.
    pub mask: [u8; 4],
    /// Bytes of payload.
    pub len: u64,
    /// Bytes of this head.
    pub size: u8,
}

/// What a few bytes say about a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Parsed {
    /// The whole head.
    Head(Head),
    /// At least this many bytes more are needed.
    Need(usize),
}

/// Reads the head at the beginning of `bytes` as `role` receives it. Whatever the first two bytes show to be wrong
/// is refused before the rest has come. `rsv1` says whether an extension gave the first reserved bit a meaning.
///
/// # Errors
/// Reserved bits and opcodes, a mask where none may be or none where one must, a length not in its shortest form or
/// over 63 bits, a control frame that is fragmented or longer than 125 bytes.
#[inline]
pub fn decode(bytes: &[u8], role: Role, rsv1: bool) -> Result<Parsed, ProtocolError> {
    let [b0, b1, rest @ ..] = bytes else {
        return match bytes {
            [b0] => check_first(*b0, rsv1).map(|_| Parsed::Need(1)),
            _ => Ok(Parsed::Need(2)),
        };
    };
    let opcode = check_first(*b0, rsv1)?;
    let fin = b0 & 0x80 != 0;
    let len7 = b1 & 0x7F;
    // Section 5.1: a server refuses unmasked frames, a client masked ones.
    let masked = b1 & 0x80 != 0;
    match (role, masked) {
        (Role::Server, false) => return Err(ProtocolError::Unmasked),
        (Role::Client, true) => return Err(ProtocolError::Masked),
        _ => {}
    }
    // Section 5.5: control frames have at most 125 bytes and are not fragmented.
    if opcode.is_control() {
        if len7 > 125 {
            return Err(ProtocolError::ControlTooLong);
        }
        if !fin {
            return Err(ProtocolError::ControlFragmented);
        }
    }
    let extended = match len7 {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let key = if masked { 4 } else { 0 };
    if rest.len() < extended + key {
        return Ok(Parsed::Need(extended + key - rest.len()));
    }
    // Section 5.2: the minimal number of bytes MUST be used, and the highest bit of 64 is zero.
    let len = match len7 {
        126 => match u16::from_be_bytes([rest[0], rest[1]]) {
            0..126 => return Err(ProtocolError::NonMinimalLength),
            n => u64::from(n),
        },
        127 => {
            match u64::from_be_bytes([rest[0], rest[1], rest[2], rest[3], rest[4], rest[5], rest[6], rest[7]])
            {
                0..=0xFFFF => return Err(ProtocolError::NonMinimalLength),
                n if n >> 63 != 0 => return Err(ProtocolError::LengthOverflow),
                n => n,
            }
        }
        n => u64::from(n),
    };
    let mask = match rest[extended..] {
        [a, b, c, d, ..] if masked => [a, b, c, d],
        _ => [0; 4],
    };
    let size = (2 + extended + key) as u8;
    Ok(Parsed::Head(Head { fin, rsv1: b0 & 0x40 != 0, opcode, mask, len, size }))
}

#[inline]
fn check_first(b0: u8, rsv1: bool) -> Result<Opcode, ProtocolError> {
    let bits = b0 >> 4 & 0x7;
    let Some(opcode) = Opcode::from_bits(b0 & 0xF) else {
        return Err(ProtocolError::ReservedOpcode { opcode: b0 & 0xF });
    };
    // Section 5.2: a reserved bit is 0 unless an extension says otherwise. RFC 7692 section 6 gives RSV1 a meaning
    // on the first frame of a message only.
    let first_of_message = matches!(opcode, Opcode::Text | Opcode::Binary);
    if bits != 0 && !(bits == 4 && rsv1 && first_of_message) {
        return Err(ProtocolError::ReservedBits { bits });
    }
    Ok(opcode)
}

/// A head ready to be sent: its bytes and how many there are.
#[derive(Clone, Copy, Debug)]
pub struct HeadBytes {
    bytes: [u8; MAX_HEAD],
    len: u8,
}

impl HeadBytes {
    /// The bytes to send.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl core::ops::Deref for HeadBytes {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

/// Makes the head of a frame with `len` bytes of payload: with a mask key for a client's frame, without for a
/// server's.
#[inline]
pub fn encode(fin: bool, rsv1: bool, opcode: Opcode, len: usize, mask: Option<[u8; 4]>) -> HeadBytes {
    encode_as(u8::from(fin) << 7 | u8::from(rsv1) << 6 | opcode as u8, len, mask)
}

/// The first reserved bit in a frame's first byte.
pub const RSV1: u8 = 0x40;

/// The first byte of a whole message, or of a control frame.
#[inline]
pub const fn first_byte(opcode: Opcode, rsv1: bool) -> u8 {
    0x80 | (rsv1 as u8) << 6 | opcode as u8
}

/// The same where the first byte is known.
#[inline]
pub fn encode_as(first: u8, len: usize, mask: Option<[u8; 4]>) -> HeadBytes {
    let mut bytes = [0; MAX_HEAD];
    bytes[0] = first;
    let mut at = match len {
        0..126 => {
            bytes[1] = len as u8;
            2
        }
        126..=0xFFFF => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            4
        }
        _ => {
            bytes[1] = 127;
            bytes[2..10].copy_from_slice(&(len as u64).to_be_bytes());
            10
        }
    };
    if let Some(key) = mask {
        bytes[1] |= 0x80;
        bytes[at..at + 4].copy_from_slice(&key);
        at += 4;
    }
    HeadBytes { bytes, len: at as u8 }
}

/// Appends a server's frame: head and payload.
#[inline]
pub fn write_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    write_frame_as(out, first_byte(opcode, false), payload);
}

/// The same where the first byte is known.
#[inline]
pub fn write_frame_as(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    if payload.len() < 126 {
        out.reserve(2 + payload.len());
        out.extend_from_slice(&[first, payload.len() as u8]);
        out.extend_from_slice(payload);
    } else {
        write_long_frame(out, first, payload);
    }
}

/// Apart, so that the usual frame is written in place.
#[inline(never)]
fn write_long_frame(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    let head = encode_as(first, payload.len(), None);
    out.reserve(head.len() + payload.len());
    out.extend_from_slice(&head);
    out.extend_from_slice(payload);
}

/// Bytes of the server's frame that `bytes` begins with, head included. For frames this program has encoded itself:
/// anything else gives the rest of `bytes`.
pub fn own_frame_len(bytes: &[u8]) -> usize {
    match decode(bytes, Role::Client, true) {
        Ok(Parsed::Head(head)) => (usize::from(head.size) + head.len as usize).min(bytes.len()),
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn server(bytes: &[u8]) -> Result<Parsed, ProtocolError> {
        decode(bytes, Role::Server, false)
    }

    #[test]
    fn lengths_use_the_shortest_encoding() {
        for (len, size) in [(0, 2), (125, 2), (126, 4), (65535, 4), (65536, 10), (1 << 40, 10)] {
            assert_eq!(encode(true, false, Opcode::Binary, len, None).len(), size);
            assert_eq!(encode(true, false, Opcode::Binary, len, Some([1; 4])).len(), size + 4);
        }
    }

    #[test]
    fn invalid_heads_are_refused_at_the_first_invalid_byte() {
        use ProtocolError::*;
        assert_eq!(server(&[0x90]), Err(ReservedBits { bits: 1 }));
        assert_eq!(server(&[0xC1]), Err(ReservedBits { bits: 4 }));
        assert_eq!(server(&[0x83]), Err(ReservedOpcode { opcode: 3 }));
        assert_eq!(server(&[0x8B]), Err(ReservedOpcode { opcode: 11 }));
        assert_eq!(server(&[0x81, 0x05]), Err(Unmasked));
        assert_eq!(decode(&[0x81, 0x85], Role::Client, false), Err(Masked));
        assert_eq!(server(&[0x89, 0xFE]), Err(ControlTooLong));
        assert_eq!(server(&[0x09, 0x80]), Err(ControlFragmented));
        assert_eq!(server(&[0x82, 0xFE, 0, 5, 0, 0, 0, 0]), Err(NonMinimalLength));
        assert_eq!(server(&[0x82, 0xFF, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0, 0, 0]), Err(NonMinimalLength));
        assert_eq!(server(&[0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(LengthOverflow));
    }

    #[test]
    fn rsv1_is_accepted_on_first_frames_when_negotiated() {
        assert!(decode(&[0xC1, 0x80, 0, 0, 0, 0], Role::Server, true).is_ok());
        assert!(decode(&[0xC0, 0x80, 0, 0, 0, 0], Role::Server, true).is_err());
        assert!(decode(&[0xC9, 0x80, 0, 0, 0, 0], Role::Server, true).is_err());
    }

    proptest! {
        #[test]
        fn a_frame_head_round_trips(
            fin: bool, op in 0usize..3, len in prop_oneof![0u64..130, 65_000u64..66_000, 0u64..1 << 62],
            key: Option<[u8; 4]>,
        ) {
            let opcode = [Opcode::Continuation, Opcode::Text, Opcode::Binary][op];
            let bytes = encode(fin, false, opcode, len as usize, key);
            let role = if key.is_some() { Role::Server } else { Role::Client };
            for cut in 0..bytes.len() {
                match decode(&bytes[..cut], role, false).unwrap() {
                    Parsed::Need(n) => prop_assert!(n > 0 && cut + n <= bytes.len()),
                    Parsed::Head(_) => prop_assert!(false, "a head from {cut} bytes"),
                }
            }
            let size = bytes.len() as u8;
            let head = Head { fin, rsv1: false, opcode, mask: key.unwrap_or_default(), len, size };
            prop_assert_eq!(decode(&bytes, role, false).unwrap(), Parsed::Head(head));
        }

        #[test]
        fn arbitrary_bytes_never_panic_the_head_decoder(bytes: [u8; 16], n in 0usize..=16, rsv1: bool) {
            let _ = decode(&bytes[..n], Role::Server, rsv1);
            let _ = decode(&bytes[..n], Role::Client, rsv1);
        }
    }
}
