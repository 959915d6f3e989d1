//! TLS listeners.

#![cfg(feature = "tls")]

mod attacks;
mod certificates;
mod connections;
mod peers;
#[path = "../support/mod.rs"]
mod support;
