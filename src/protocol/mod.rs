//! RFC 6455 as pure functions and values: no socket, no clock, no thread.
//!
//! Both roles, server and client, and every user of the protocol (the server, the clients, the load client, tests) run
//! this code. [`Decoder`] takes received bytes and gives messages; [`header`] writes frames; [`handshake`] answers the
//! key. Nothing here knows where bytes come from or go to.

pub mod buffer;
pub mod close;
pub mod decoder;
mod error;
pub mod handshake;
pub mod header;
pub mod mask;
mod message;
mod opcode;
pub mod utf8;

pub use close::{CloseCode, InvalidClose};
pub use decoder::{Decoder, Incoming, Item, Payload, Rules};
pub use error::{InvalidPing, ProtocolError};
pub use header::Role;
pub use message::{AsMessage, Key, Kind, Message};
pub use opcode::Opcode;
