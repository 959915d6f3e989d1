//! permessage-deflate over real connections.

#![cfg(all(feature = "deflate", feature = "server"))]

mod attacks;
mod messages;
#[path = "../support/mod.rs"]
mod support;
