//! campanile: a WebSocket server for pushing to very many clients.

#![warn(missing_docs)]

#[cfg(feature = "client")]
pub mod client;
mod conn;
pub mod endpoint;
mod handler;
pub mod http;
mod hub;
mod metrics;
mod net;
pub mod protocol;
mod server;
mod worker;

#[doc(hidden)]
pub mod internal;

pub use conn::{Cause, Closed, ConnId, Limits, ReadyState, Refused, RefusedReason, Sent, SlowConsumer};
pub use handler::{
    Accept, Conn, ConnInfo, Handle, HandleError, Handler, InvalidOrigin, Origins, Pending, Refuse, Route,
};
pub use http::{Peer, Request, Response};
pub use hub::{InvalidTopic, MAX_TOPIC, SubscribeError};
pub use metrics::Stats;
pub use net::{InvalidAddr, ListenAddr, ListenOptions};
pub use protocol::{CloseCode, Message};
pub use server::{BuildError, Builder, Running, Server};
pub use worker::http::HttpLimits;
