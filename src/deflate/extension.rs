//! The words of `Sec-WebSocket-Extensions`: RFC 6455, section 9.1, and the parameters of RFC 7692, section 7.1. One pass
//! over the bytes, and a second over what is in an element.

use super::NAME;
use crate::http::{is_token, trim};
use core::fmt;

/// Why an offer is declined, or a response fails the connection (RFC 7692, sections 5.1, 7 and 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeflateError {
    /// The header does not follow its grammar.
    Malformed,
    /// The server chose an extension that was not offered.
    UnknownExtension,
    /// The server chose permessage-deflate more than once.
    ChosenTwice,
    /// A parameter that RFC 7692 does not have.
    UnknownParameter,
    /// A parameter that stands twice.
    DuplicateParameter(Parameter),
    /// A parameter with a value it may not have, or without one it needs.
    InvalidValue(Parameter),
    /// A window smaller than zlib's smallest.
    WindowTooSmall(Parameter),
    /// The server chose a parameter that was not offered, or a larger window than was.
    NotOffered(Parameter),
    /// The server left out what the offer insisted on.
    Missing(Parameter),
}

impl fmt::Display for DeflateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Malformed => f.write_str("extensions do not follow their grammar"),
            Self::UnknownExtension => f.write_str("an extension was chosen that was not offered"),
            Self::ChosenTwice => write!(f, "{NAME} was chosen twice"),
            Self::UnknownParameter => write!(f, "a parameter that {NAME} does not have"),
            Self::DuplicateParameter(p) => write!(f, "{} stands twice", p.name()),
            Self::InvalidValue(p) => write!(f, "{} has a value that it may not have", p.name()),
            Self::WindowTooSmall(p) => write!(f, "the window of {} is too small to compress for", p.name()),
            Self::NotOffered(p) => write!(f, "{} is not what was offered", p.name()),
            Self::Missing(p) => write!(f, "{} was offered and is missing", p.name()),
        }
    }
}

impl core::error::Error for DeflateError {}

/// A parameter of permessage-deflate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Parameter {
    /// `server_no_context_takeover`
    ServerNoContextTakeover,
    /// `client_no_context_takeover`
    ClientNoContextTakeover,
    /// `server_max_window_bits`
    ServerMaxWindowBits,
    /// `client_max_window_bits`
    ClientMaxWindowBits,
}

impl Parameter {
    const ALL: [Self; 4] = [
        Self::ServerNoContextTakeover,
        Self::ClientNoContextTakeover,
        Self::ServerMaxWindowBits,
        Self::ClientMaxWindowBits,
    ];

    /// As it stands in the header.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ServerNoContextTakeover => "server_no_context_takeover",
            Self::ClientNoContextTakeover => "client_no_context_takeover",
            Self::ServerMaxWindowBits => "server_max_window_bits",
            Self::ClientMaxWindowBits => "client_max_window_bits",
        }
    }
}

/// The parameters of one offer or response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters {
    pub(super) server_no_context_takeover: bool,
    pub(super) client_no_context_takeover: bool,
    pub(super) server_max_window_bits: Option<u8>,
    /// Only an offer may leave out the value.
    pub(super) client_max_window_bits: Option<Option<u8>>,
}

/// The elements of all headers, in their order and without empty ones.
pub(super) fn elements<'a>(values: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    values.flat_map(|value| Pieces::new(value, b',')).filter(|element| !element.is_empty())
}

/// The name of an element, and what follows it.
pub(super) fn name_of(element: &[u8]) -> (&[u8], Pieces<'_>) {
    let mut pieces = Pieces::new(element, b';');
    (pieces.next().unwrap_or_default(), pieces)
}

/// Reads the parameters of permessage-deflate, strictly: section 7 lets neither an unknown one pass nor a second.
pub(super) fn parameters(pieces: Pieces<'_>) -> Result<Parameters, DeflateError> {
    let mut found = Parameters::default();
    for piece in pieces {
        let (name, value) = match memchr::memchr(b'=', piece) {
            Some(at) => (&piece[..at], Some(&piece[at + 1..])),
            None => (piece, None),
        };
        if !is_token(name) {
            return Err(DeflateError::Malformed);
        }
        let parameter = Parameter::ALL
            .into_iter()
            .find(|p| p.name().as_bytes() == name)
            .ok_or(DeflateError::UnknownParameter)?;
        let window = match value {
            Some(value) => Some(window(value).ok_or(DeflateError::InvalidValue(parameter))?),
            None => None,
        };
        let seen = match (parameter, window) {
            (Parameter::ServerNoContextTakeover, None) => {
                core::mem::replace(&mut found.server_no_context_takeover, true)
            }
            (Parameter::ClientNoContextTakeover, None) => {
                core::mem::replace(&mut found.client_no_context_takeover, true)
            }
            (Parameter::ServerMaxWindowBits, Some(bits)) => {
                found.server_max_window_bits.replace(bits).is_some()
            }
            (Parameter::ClientMaxWindowBits, bits) => found.client_max_window_bits.replace(bits).is_some(),
            _ => return Err(DeflateError::InvalidValue(parameter)),
        };
        if seen {
            return Err(DeflateError::DuplicateParameter(parameter));
        }
    }
    Ok(found)
}

/// The value of a window: 8 to 15, without leading zeros (section 7.1.2), as a token or a quoted string, in which any
/// character may stand behind a backslash.
fn window(value: &[u8]) -> Option<u8> {
    let quoted = value.strip_prefix(b"\"").map(|v| v.strip_suffix(b"\""));
    let mut bytes = match quoted {
        Some(inside) => inside?.iter(),
        None => value.iter(),
    };
    let mut next = || match bytes.next() {
        Some(b'\\') if quoted.is_some() => bytes.next().copied().ok_or(()).map(Some),
        other => Ok(other.copied()),
    };
    let (first, second, end) = (next().ok()?, next().ok()?, next().ok()?);
    match (first, second, end) {
        (Some(digit @ b'8'..=b'9'), None, None) => Some(digit - b'0'),
        (Some(b'1'), Some(digit @ b'0'..=b'5'), None) => Some(10 + digit - b'0'),
        _ => None,
    }
}

/// What stands between separators that are not in a quoted string, without white space around it.
#[derive(Clone, Debug)]
pub(super) struct Pieces<'a> {
    rest: Option<&'a [u8]>,
    separator: u8,
}

impl<'a> Pieces<'a> {
    fn new(bytes: &'a [u8], separator: u8) -> Self {
        Self { rest: Some(bytes), separator }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let (mut quoted, mut escaped) = (false, false);
        let at = rest.iter().position(|&byte| {
            if escaped {
                escaped = false;
                return false;
            }
            match byte {
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ => return byte == self.separator && !quoted,
            }
            false
        });
        self.rest = at.map(|at| &rest[at + 1..]);
        Some(trim(&rest[..at.unwrap_or(rest.len())]))
    }
}
