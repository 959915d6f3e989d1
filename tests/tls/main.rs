//! TLS listeners.

#![cfg(feature = "tls")]

mod attacks;
mod certificates;
mod connections;
#[cfg(feature = "self-signed")]
mod peers;
#[path = "../support/mod.rs"]
mod support;
