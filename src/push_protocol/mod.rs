//! `campanile.v1.json`, the push protocol, for both ends: each message as a type with one writer and one strict reader.
//! `docs/reference/protocol.md` specifies it.
//!
//! ```text
//!   PushRequest     client ─▶ server    request.rs
//!   ServerMessage   server ─▶ client    message.rs; messages of topics: delivery.rs, read by incoming.rs
//!   ErrorCode       in answers of the type `error`
//! ```
//! Pure: texts and bytes to values and back. What a client may do is [`push`](crate::push)'s decision, and what the
//! messages mean to a client [`push_client`](crate::push_client)'s.

pub(crate) mod bounds;
mod code;
mod delivery;
#[cfg(feature = "client")]
mod incoming;
mod message;
mod request;

pub use code::ErrorCode;
pub(crate) use delivery::{write_message, write_messages};
#[cfg(feature = "client")]
pub(crate) use incoming::{Incoming, Payload, parse as parse_incoming, parse_binary};
pub(crate) use message::{Epoch, Hello, ServerMessage, WirePosition};
pub(crate) use request::{
    Content, ParseError, PublishCommand, PushRequest, SubscribeCommand, SubscribeStart,
    parse as parse_request,
};

use crate::json::Text;

/// The subprotocol (RFC 6455 section 1.9).
pub const SUBPROTOCOL: &str = "campanile.v1.json";

/// Bytes of an epoch.
pub(crate) const MAX_EPOCH: usize = 64;

/// Messages that `last` can request.
pub(crate) const MAX_LAST: u32 = 65_536;

/// A topic or a pattern, each a member of its own: a topic's name never becomes a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TargetName<'a> {
    Topic(Text<'a>),
    Pattern(Text<'a>),
}

impl TargetName<'_> {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Topic(name) | Self::Pattern(name) => name,
        }
    }
}
