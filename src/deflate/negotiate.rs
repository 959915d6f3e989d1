//! The negotiation of both roles: RFC 7692, sections 5 and 7.1.

use super::extension::{DeflateError, Parameter, Parameters, elements, name_of, parameters};
use super::{Deflate, History, MAX_WINDOW_BITS, MIN_WINDOW_BITS, NAME};
use core::fmt;

/// What one direction may refer back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Context {
    /// The window is 2 to this power, in bytes: 8 to 15, and at least 9 for what this end compresses.
    pub window_bits: u8,
    /// Whether a message may refer to those before it.
    pub takeover: bool,
}

impl Context {
    /// What is needed for context takeover; none without.
    #[must_use]
    pub fn history(self) -> Option<History> {
        self.takeover.then(|| History::new(self.window_bits))
    }
}

/// What both ends agreed on, as one of them sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Agreed {
    /// For what this end compresses.
    pub ours: Context,
    /// For what the peer does.
    pub theirs: Context,
    /// Which windows the server's response names.
    named: Named,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named {
    server: bool,
    client: bool,
}

/// Answers a client's offers, as a server: `values` are those of all `Sec-WebSocket-Extensions` headers, in their order.
/// The first offer that can be met is taken; [`Agreed::write_response`] writes what to say. None: nothing is said, and
/// nothing compressed.
///
/// Other extensions and offers that do not follow RFC 7692 are passed over, as section 5.1 has it, and so is one for a
/// server's window of 256 bytes, which zlib has not.
pub fn negotiate<'a>(values: impl IntoIterator<Item = &'a [u8]>, deflate: &Deflate) -> Option<Agreed> {
    if !deflate.is_on() {
        return None;
    }
    elements(values.into_iter()).find_map(|element| {
        let (name, pieces) = name_of(element);
        if name != NAME.as_bytes() {
            return None;
        }
        accept_offer(parameters(pieces).ok()?, deflate)
    })
}

fn accept_offer(offer: Parameters, deflate: &Deflate) -> Option<Agreed> {
    // Section 7.1.2.1: no value means the largest window.
    let server_max = offer.server_max_window_bits.unwrap_or(MAX_WINDOW_BITS);
    if server_max < MIN_WINDOW_BITS {
        return None;
    }
    // Section 7.1.2.2: a client that does not speak of its window can't be told one, and what it names is its largest.
    let client_max = offer.client_max_window_bits.map(|bits| bits.unwrap_or(MAX_WINDOW_BITS));
    let unlimited = client_max.unwrap_or(MAX_WINDOW_BITS);
    let most = deflate.window().unwrap_or(MAX_WINDOW_BITS);
    let ours = Context {
        window_bits: most.min(server_max),
        takeover: deflate.window().is_some() && !offer.server_no_context_takeover,
    };
    // What a client may go beyond without being told: its window would cost more than the setting says.
    let too_large = unlimited > most;
    let limited = too_large && client_max.is_some() && !offer.client_no_context_takeover;
    let theirs = Context {
        window_bits: if limited { most } else { unlimited },
        // Section 7.1.1.2: a server may ask for no takeover unasked, and does where it can't limit the window.
        takeover: deflate.window().is_some() && !offer.client_no_context_takeover && (limited || !too_large),
    };
    let named = Named { server: offer.server_max_window_bits.is_some(), client: limited };
    Some(Agreed { ours, theirs, named })
}

impl Agreed {
    /// The value of a server's `Sec-WebSocket-Extensions`.
    #[must_use]
    pub fn response(&self) -> String {
        let mut value = String::new();
        let _ = self.write_response(&mut value); // a string takes everything
        value
    }

    /// Writes the value of a server's `Sec-WebSocket-Extensions`.
    ///
    /// # Errors
    /// When `out` has one.
    pub fn write_response(&self, out: &mut impl fmt::Write) -> fmt::Result {
        out.write_str(NAME)?;
        if !self.ours.takeover {
            write!(out, "; {}", Parameter::ServerNoContextTakeover.name())?;
        }
        if !self.theirs.takeover {
            write!(out, "; {}", Parameter::ClientNoContextTakeover.name())?;
        }
        if self.named.server {
            write!(out, "; {}={}", Parameter::ServerMaxWindowBits.name(), self.ours.window_bits)?;
        }
        if self.named.client {
            write!(out, "; {}={}", Parameter::ClientMaxWindowBits.name(), self.theirs.window_bits)?;
        }
        Ok(())
    }
}

/// The value of a client's `Sec-WebSocket-Extensions`; none when compression is off.
#[must_use]
pub fn offer(deflate: &Deflate) -> Option<String> {
    if !deflate.is_on() {
        return None;
    }
    let client = Parameter::ClientMaxWindowBits.name();
    Some(match deflate.window() {
        None => format!(
            "{NAME}; {}; {}; {client}",
            Parameter::ServerNoContextTakeover.name(),
            Parameter::ClientNoContextTakeover.name()
        ),
        Some(MAX_WINDOW_BITS) => format!("{NAME}; {client}"),
        Some(bits) => {
            format!("{NAME}; {}={bits}; {client}={bits}", Parameter::ServerMaxWindowBits.name())
        }
    })
}

/// Reads a server's response to [`offer`], as a client: `values` are those of all `Sec-WebSocket-Extensions` headers.
/// None: nothing is compressed.
///
/// # Errors
/// When the response names what was not offered, leaves out what was insisted on, or does not follow RFC 7692. The
/// client must then fail the connection (section 7.1).
pub fn accept_response<'a>(
    values: impl IntoIterator<Item = &'a [u8]>,
    deflate: &Deflate,
) -> Result<Option<Agreed>, DeflateError> {
    let mut agreed = None;
    for element in elements(values.into_iter()) {
        let (name, pieces) = name_of(element);
        if name != NAME.as_bytes() || !deflate.is_on() {
            return Err(DeflateError::UnknownExtension);
        }
        if agreed.is_some() {
            return Err(DeflateError::ChosenTwice);
        }
        agreed = Some(check_response(parameters(pieces)?, deflate)?);
    }
    Ok(agreed)
}

fn check_response(response: Parameters, deflate: &Deflate) -> Result<Agreed, DeflateError> {
    use Parameter::{ClientMaxWindowBits, ServerMaxWindowBits, ServerNoContextTakeover};
    // Section 7.1.1.1: a server that takes an offer with it says it too.
    if deflate.window().is_none() && !response.server_no_context_takeover {
        return Err(DeflateError::Missing(ServerNoContextTakeover));
    }
    let most = deflate.window().unwrap_or(MAX_WINDOW_BITS);
    // Section 7.1.2.1: the same or a smaller window than offered; a server may also name one unasked.
    let theirs = match response.server_max_window_bits {
        Some(bits) if bits > most => return Err(DeflateError::NotOffered(ServerMaxWindowBits)),
        Some(bits) => bits,
        None if most < MAX_WINDOW_BITS => return Err(DeflateError::Missing(ServerMaxWindowBits)),
        None => most,
    };
    // Section 7.1.2.2: in a response it has a value, and none above the one offered.
    let ours = match response.client_max_window_bits {
        Some(None) => return Err(DeflateError::InvalidValue(ClientMaxWindowBits)),
        Some(Some(bits)) if bits > most => return Err(DeflateError::NotOffered(ClientMaxWindowBits)),
        Some(Some(bits)) if bits < MIN_WINDOW_BITS => {
            return Err(DeflateError::WindowTooSmall(ClientMaxWindowBits));
        }
        Some(Some(bits)) => bits,
        None => most,
    };
    Ok(Agreed {
        ours: Context {
            window_bits: ours,
            takeover: deflate.window().is_some() && !response.client_no_context_takeover,
        },
        theirs: Context { window_bits: theirs, takeover: !response.server_no_context_takeover },
        named: Named {
            server: response.server_max_window_bits.is_some(),
            client: response.client_max_window_bits.is_some(),
        },
    })
}
