//! What a client hears, in the words of the browser's API. Plain values.

use super::Error;
use crate::protocol::buffer::BufferPool;
use crate::protocol::{AsMessage, CloseCode, Kind, Message, Payload};
use core::fmt;
use core::time::Duration;

/// A received message, which is the receiver's to keep.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)] // RFC 6455 section 5.6 has these two
pub enum Data {
    /// UTF-8 text.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
}

impl Data {
    /// What was lent, for keeps.
    pub(super) fn take(kind: Kind, payload: Payload<'_>, pool: &mut BufferPool) -> Self {
        match (Message::validated(kind, &payload).as_text().map(str::to_owned), payload) {
            (Some(text), payload) => {
                if let Payload::Own(buf) = payload {
                    pool.give(buf);
                }
                Self::Text(text)
            }
            (None, Payload::Lent(bytes)) => Self::Binary(bytes.to_vec()),
            (None, Payload::Own(buf)) => Self::Binary(buf.into_vec()),
        }
    }

    /// Text or bytes.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Text(_) => Kind::Text,
            Self::Binary(_) => Kind::Binary,
        }
    }

    /// The text, or `None` for a binary message.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// The payload, whatever its kind.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The payload, whatever its kind.
    pub fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.into_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

/// So that it can be sent on.
/// So that received data can be sent on.
impl AsMessage for Data {
    fn as_message(&self) -> Message<'_> {
        match self {
            Self::Text(text) => Message::text(text),
            Self::Binary(bytes) => Message::binary(bytes),
        }
    }
}

/// The end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Close {
    /// The code in the server's close frame; [`CloseCode::NO_STATUS`] where that had none, and
    /// [`CloseCode::ABNORMAL`] where there was no close frame.
    pub code: CloseCode,
    /// The reason in the server's close frame.
    pub reason: String,
    /// Whether the closing handshake was finished: a close frame in both directions.
    pub was_clean: bool,
    /// Messages that were taken by [`Client::send`](super::Client::send) and are given up: not written, or not to
    /// their end. What was written may still not have arrived.
    pub unsent: usize,
    /// Whether the client tries to come back; then a [`ClientEvent::Reconnecting`] follows. Otherwise this is the last
    /// event.
    pub will_reconnect: bool,
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "closed with {}", self.code)?;
        if !self.reason.is_empty() {
            write!(f, ": {}", self.reason)?;
        }
        Ok(())
    }
}

/// What happens to a client.
///
/// ```text
///  Open ─ Message* ─ [Error] ─ Close{will_reconnect} ─┐
///   ▲                                                 │
///   └── Reconnecting ◀── Error ◀── (a try fails) ◀── Reconnecting
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClientEvent {
    /// The connection is open: messages can be sent.
    Open,
    /// A whole message.
    Message(Data),
    /// A try to connect failed, or a connection broke. `Close` or `Reconnecting` follows.
    Error(Error),
    /// The connection has ended, or the client has given up connecting.
    Close(Close),
    /// The client will try to connect again.
    Reconnecting {
        /// Which try in a row this is, from 1.
        attempt: u32,
        /// How long it waits before.
        delay: Duration,
    },
}

impl ClientEvent {
    /// Bytes that it counts for while it waits to be taken: its payload, and what holds it.
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Message(data) => data.as_bytes().len(),
                _ => 0,
            }
    }
}
