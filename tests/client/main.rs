//! The client for Rust programs.

#![cfg(all(feature = "client", feature = "server"))]

mod failure;
#[cfg(all(feature = "deflate", feature = "tls"))]
mod foreign;
mod hostile;
mod messages;
mod reconnect;
#[path = "../support/mod.rs"]
mod support;
#[cfg(all(feature = "deflate", feature = "tls"))]
mod tls;
