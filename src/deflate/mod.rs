//! permessage-deflate (RFC 7692) as values and functions: the settings, the negotiation of both roles, a compressor
//! and a decompressor. Pure: no socket, thread or clock.
//!
//! ```text
//! Deflate ──negotiate (server) / offer, accept_response (client)──▶ Agreed { ours, theirs }
//!
//! payload ──▶ Deflater ──▶ message with RSV1          message with RSV1 ──▶ Inflater ──▶ payload
//!                ▲                                                             ▲
//!                └── History of what was sent                                  └── History of what was received
//! ```
//!
//! A message ends on the boundary of a byte and of a block (section 7.2.1), so all that one message leaves to the next
//! is the text behind it: the sliding window. Therefore [`Deflater`] and [`Inflater`], which are large, belong to a
//! worker and serve all its connections, and "context takeover" is a [`History`] of the connection's own, at most as
//! large as the window, that is lent for one message. Without takeover a connection owns nothing.
//!
//! What a mode costs is in `docs/guide/compression.md`.

#[cfg(feature = "deflate")]
mod deflater;
mod extension;
mod history;
#[cfg(feature = "deflate")]
mod inflater;
mod negotiate;
#[cfg(not(feature = "deflate"))]
mod off;
mod settings;

#[cfg(feature = "deflate")]
pub use deflater::Deflater;
pub use extension::{DeflateError, Parameter};
pub use history::History;
#[cfg(feature = "deflate")]
pub use inflater::Inflater;
pub use negotiate::{Agreed, Context, accept_response, negotiate, offer};
#[cfg(not(feature = "deflate"))]
pub(crate) use off::{Deflater, Inflater};
pub use settings::{Deflate, InvalidDeflate};

/// The extension's name in `Sec-WebSocket-Extensions`.
pub const NAME: &str = "permessage-deflate";

/// The smallest window that zlib compresses for; RFC 7692 also has 8.
pub const MIN_WINDOW_BITS: u8 = 9;

/// The largest window of DEFLATE: 32 KiB.
pub const MAX_WINDOW_BITS: u8 = 15;

/// What every message ends with and none carries: an empty stored block, but for its first bits (section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

#[cfg(all(test, feature = "deflate"))]
mod tests;
