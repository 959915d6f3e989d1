//! Close codes and close payloads (RFC 6455 sections 5.5.1 and 7.4, and the IANA registry).

use super::ProtocolError;
use core::fmt;

/// Why a connection ends. An open number: a peer may send any, and applications own 4000 to 4999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(pub u16);

/// The longest reason that fits a close frame: 125 bytes less the two of the code.
pub const MAX_REASON: usize = 123;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl CloseCode {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// The registered name, such as `Going Away`; an empty string for a code without one.
            pub const fn name(self) -> &'static str {
                match self.0 { $($value => $text,)* _ => "" }
            }
        }
    };
}

codes! {
    /// The purpose is fulfilled.
    NORMAL = 1000, "Normal Closure";
    /// The server goes down, or the page was left.
    GOING_AWAY = 1001, "Going Away";
    /// The peer broke the protocol.
    PROTOCOL_ERROR = 1002, "Protocol Error";
    /// A kind of data that can't be taken, such as binary where only text is spoken.
    UNSUPPORTED_DATA = 1003, "Unsupported Data";
    /// Reserved; never on the wire.
    RESERVED = 1004, "Reserved";
    /// The close frame had no code; never on the wire.
    NO_STATUS = 1005, "No Status Rcvd";
    /// The connection ended without a close frame; never on the wire.
    ABNORMAL = 1006, "Abnormal Closure";
    /// Data that is not what its type says, such as text that is not UTF-8.
    INVALID_DATA = 1007, "Invalid Frame Payload Data";
    /// A rule of the server's was broken, and no other code fits.
    POLICY = 1008, "Policy Violation";
    /// A message over the limit.
    TOO_BIG = 1009, "Message Too Big";
    /// The client needed an extension that the server did not take.
    MANDATORY_EXTENSION = 1010, "Mandatory Extension";
    /// The server met something unexpected, such as a panic in a handler.
    INTERNAL = 1011, "Internal Error";
    /// The server restarts; come back, after a while.
    SERVICE_RESTART = 1012, "Service Restart";
    /// The server is overloaded, or this client too slow; come back later.
    TRY_AGAIN_LATER = 1013, "Try Again Later";
    /// A gateway got an invalid answer from its upstream.
    BAD_GATEWAY = 1014, "Bad Gateway";
    /// The TLS handshake failed; never on the wire.
    TLS_HANDSHAKE = 1015, "TLS Handshake";
    /// Registered with IANA: authentication is missing or wrong.
    UNAUTHORIZED = 3000, "Unauthorized";
    /// Registered with IANA: authenticated, and still not allowed.
    FORBIDDEN = 3003, "Forbidden";
    /// Registered with IANA: something took too long.
    TIMEOUT = 3008, "Timeout";
}

impl CloseCode {
    /// Whether a close frame may carry this code (section 7.4): 1000 to 1003, 1007 to 1014, and the ranges of
    /// libraries (3000 to 3999) and applications (4000 to 4999).
    #[inline]
    pub const fn is_valid_on_wire(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }

    /// The code, if a close frame may carry it.
    pub(crate) const fn on_wire(self) -> Result<Self, InvalidClose> {
        if self.is_valid_on_wire() { Ok(self) } else { Err(InvalidClose::Code(self)) }
    }
}

/// A close that can't be on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidClose {
    /// A code that no close frame may carry: see [`CloseCode::is_valid_on_wire`].
    Code(CloseCode),
    /// A reason of more than 123 bytes.
    ReasonTooLong {
        /// Its bytes.
        len: usize,
    },
}

impl fmt::Display for InvalidClose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(CloseCode(code)) => write!(
                f,
                "close code: {code}, expected 1000 to 1003, 1007 to 1014 or 3000 to 4999 (RFC 6455 section 7.4); 4000 to 4999 \
                 are the application's own"
            ),
            Self::ReasonTooLong { len } => {
                write!(f, "close reason: {len} bytes, at most {MAX_REASON} are allowed")
            }
        }
    }
}

impl core::error::Error for InvalidClose {}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            "" => write!(f, "{}", self.0),
            name => write!(f, "{} ({name})", self.0),
        }
    }
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<u16> for CloseCode {
    fn from(code: u16) -> Self {
        Self(code)
    }
}

/// Reads a close frame's payload: nothing, or a code and a reason.
///
/// # Errors
/// A single byte, a code that may not be on the wire, or a reason that is not UTF-8.
pub fn parse(payload: &[u8]) -> Result<Option<(CloseCode, &str)>, ProtocolError> {
    match *payload {
        [] => Ok(None),
        // Section 5.5.1: if there is a body, its first two bytes are the code.
        [_] => Err(ProtocolError::CloseCodeCut),
        [hi, lo, ref reason @ ..] => {
            let code = CloseCode(u16::from_be_bytes([hi, lo]));
            // Section 7.4.1 and 7.4.2: 1004 to 1006, 1015 and what is outside the ranges is never sent.
            if !code.is_valid_on_wire() {
                return Err(ProtocolError::CloseCodeInvalid { code: code.0 });
            }
            // Section 5.5.1: the reason is UTF-8.
            let reason = core::str::from_utf8(reason).map_err(|_| ProtocolError::CloseReasonUtf8)?;
            Ok(Some((code, reason)))
        }
    }
}

/// The part of `reason` that fits a close frame, cut at a character's end.
pub fn fit_reason(reason: &str) -> &str {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

/// Writes the payload of a close frame behind `out`: the code and as much of the reason as fits. A code that may
/// not be on the wire (1005, 1006, 1015 …) gives an empty payload.
pub fn write_payload(out: &mut Vec<u8>, code: CloseCode, reason: &str) {
    if code.is_valid_on_wire() {
        out.extend_from_slice(&code.0.to_be_bytes());
        out.extend_from_slice(fit_reason(reason).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_wire_codes_match_the_rfc_and_the_registry() {
        let valid = |c: u16| CloseCode(c).is_valid_on_wire();
        for c in
            [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
        {
            assert!(valid(c), "{c}");
        }
        for c in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert!(!valid(c), "{c}");
        }
    }

    #[test]
    fn a_close_payload_round_trips() {
        let mut out = Vec::new();
        write_payload(&mut out, CloseCode::GOING_AWAY, "the bell is fixed");
        assert_eq!(parse(&out), Ok(Some((CloseCode::GOING_AWAY, "the bell is fixed"))));
        assert_eq!(parse(&[]), Ok(None));
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character_boundary() {
        let reason = "é".repeat(100);
        assert_eq!(fit_reason(&reason).len(), 122);
        let mut out = Vec::new();
        write_payload(&mut out, CloseCode::NORMAL, &reason);
        assert!(out.len() <= 125 && parse(&out).is_ok());
    }

    #[test]
    fn each_invalid_close_payload_is_refused_with_its_error() {
        assert_eq!(parse(&[3]), Err(ProtocolError::CloseCodeCut));
        assert_eq!(parse(&[3, 237]), Err(ProtocolError::CloseCodeInvalid { code: 1005 }));
        assert_eq!(parse(&[3, 232, 0xff]), Err(ProtocolError::CloseReasonUtf8));
    }
}
