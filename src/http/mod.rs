//! HTTP/1.1 as far as a WebSocket server needs it: the head of a request in, a response out, and the table of routes
//! between them. Pure: bytes and values, no socket, file, thread or clock; the date comes in as a string.
//!
//! ```text
//! received bytes ─▶ RequestParser ─▶ RequestHead ─▶ Router ─▶ Params
//!                   whole or not      what it says    │
//!                                                     ▼
//!                               Request ─▶ handler ─▶ Response ─▶ encode_head ─▶ bytes to send
//! ```
//!
//! It is strict where leniency lets two parties read one message differently (RFC 9112, section 11.2), and it refuses
//! to be a general HTTP server: no chunked bodies, no proxying, no trailers. Every refusal is an [`HttpError`], and
//! after one that came from scanning or parsing a head the connection must be closed, since nobody knows where the
//! next message would begin.

pub mod error;
pub mod head;
pub mod request;
pub mod response;
pub mod router;

mod body;
mod cookies;
mod fields;
mod host;
mod later;
mod limits;
mod params;
mod parser;
mod query;
mod request_head;
mod status;
mod target;
mod tls_info;

pub use body::Body;
pub use cookies::Cookies;
pub use error::HttpError;
pub use fields::{Headers, Tokens};
pub(crate) use fields::{is_token, trim};
pub use head::HeadScanner;
pub(crate) use host::is_this_machine;
pub(crate) use later::DeferredResponse;
pub use later::Responder;
pub use limits::HttpLimits;
pub use params::Params;
pub(crate) use parser::{ParsedRequest, RequestParser};
pub use query::QueryPairs;
pub use request::{Peer, Request};
pub use request_head::{HeaderSlots, MAX_HEADERS, RequestHead, Version};
pub use response::{InvalidHeader, InvalidResponse, Response};
pub use router::{Match, RouteError, Router};
pub use status::reason;
pub use tls_info::{TlsInfo, TlsVersion};
