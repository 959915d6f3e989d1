//! TLS listeners.

#![cfg(all(feature = "server", feature = "tls"))]

mod attacks;
mod certificates;
mod connections;
mod peers;
#[path = "../support/mod.rs"]
mod support;
