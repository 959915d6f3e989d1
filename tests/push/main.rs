//! The push protocol and the HTTP API, with this crate's client of them.

#![cfg(feature = "server")]

#[cfg(feature = "api")]
mod api;
#[cfg(all(feature = "client", feature = "push"))]
mod client;
#[cfg(all(feature = "api", feature = "deflate"))]
mod envelopes;
#[cfg(feature = "push")]
mod load;
#[cfg(feature = "push")]
mod page;
#[cfg(feature = "push")]
mod requests;
#[cfg(all(feature = "client", feature = "push"))]
mod restarts;
#[path = "../support/mod.rs"]
mod support;
