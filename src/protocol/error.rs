//! What a peer can do wrong, and the close code that answers it.

use super::CloseCode;
use core::fmt;

/// A breach of the protocol by the peer. The connection fails with [`ProtocolError::close_code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A reserved bit is set and no extension was negotiated that uses it.
    ReservedBits {
        /// The three bits as they stood, RSV1 being 4.
        bits: u8,
    },
    /// An opcode that RFC 6455 reserves.
    ReservedOpcode {
        /// The four bits.
        opcode: u8,
    },
    /// A frame from a client without a mask.
    Unmasked,
    /// A frame from a server with a mask.
    Masked,
    /// A length written in more bytes than it needs.
    NonMinimalLength,
    /// A 64-bit length with its highest bit set.
    LengthOverflow,
    /// A control frame of more than 125 bytes.
    ControlTooLong,
    /// A control frame without FIN.
    ControlFragmented,
    /// A continuation without a message to continue.
    UnexpectedContinuation,
    /// A new message before the fragmented one was finished.
    UnfinishedMessage,
    /// Text that is not UTF-8.
    InvalidUtf8,
    /// A close frame with one byte of payload.
    CloseCodeCut,
    /// A close code that may not be on the wire.
    CloseCodeInvalid {
        /// The code as it came.
        code: u16,
    },
    /// A close reason that is not UTF-8.
    CloseReasonUtf8,
    /// A message over the limit.
    MessageTooBig {
        /// The limit, in bytes.
        limit: usize,
    },
    /// A compressed message that is no DEFLATE, refers to what was never said, or is cut (RFC 7692 section 7.2.2).
    CorruptDeflate,
    /// A message in more fragments than allowed.
    TooManyFragments {
        /// The limit.
        limit: u32,
    },
}

impl ProtocolError {
    /// The close code that answers this error on the wire.
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::ReservedBits { .. }
            | Self::ReservedOpcode { .. }
            | Self::Unmasked
            | Self::Masked
            | Self::NonMinimalLength
            | Self::LengthOverflow
            | Self::ControlTooLong
            | Self::ControlFragmented
            | Self::UnexpectedContinuation
            | Self::UnfinishedMessage
            | Self::CloseCodeCut
            | Self::CloseCodeInvalid { .. } => CloseCode::PROTOCOL_ERROR,
            Self::InvalidUtf8 | Self::CloseReasonUtf8 | Self::CorruptDeflate => CloseCode::INVALID_DATA,
            Self::MessageTooBig { .. } => CloseCode::TOO_BIG,
            Self::TooManyFragments { .. } => CloseCode::POLICY,
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ReservedBits { bits } => write!(f, "reserved bits {bits:03b} set without an extension"),
            Self::ReservedOpcode { opcode } => write!(f, "reserved opcode {opcode:#x}"),
            Self::Unmasked => f.write_str("frame from a client is not masked"),
            Self::Masked => f.write_str("frame from a server is masked"),
            Self::NonMinimalLength => f.write_str("length not in its shortest form"),
            Self::LengthOverflow => f.write_str("length of more than 63 bits"),
            Self::ControlTooLong => f.write_str("control frame of more than 125 bytes"),
            Self::ControlFragmented => f.write_str("fragmented control frame"),
            Self::UnexpectedContinuation => f.write_str("continuation without a message"),
            Self::UnfinishedMessage => f.write_str("new message before the last one was finished"),
            Self::InvalidUtf8 => f.write_str("text is not UTF-8"),
            Self::CloseCodeCut => f.write_str("close frame with one byte"),
            Self::CloseCodeInvalid { code } => write!(f, "close code {code} is not allowed on the wire"),
            Self::CloseReasonUtf8 => f.write_str("close reason is not UTF-8"),
            Self::MessageTooBig { limit } => write!(f, "message over the limit of {limit} bytes"),
            Self::CorruptDeflate => f.write_str("compressed message can't be decompressed"),
            Self::TooManyFragments { limit } => write!(f, "message in more than {limit} fragments"),
        }
    }
}

impl core::error::Error for ProtocolError {}
/// A ping that can't be on the wire: control frames carry up to 125 bytes (RFC 6455 section 5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidPing {
    /// Bytes of its payload.
    pub len: usize,
}

impl InvalidPing {
    pub(crate) const fn check(payload: &[u8]) -> Result<(), Self> {
        if payload.len() <= 125 { Ok(()) } else { Err(Self { len: payload.len() }) }
    }
}

impl fmt::Display for InvalidPing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ping: a payload of {} bytes, at most 125 are allowed", self.len)
    }
}

impl core::error::Error for InvalidPing {}
