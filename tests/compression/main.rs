//! permessage-deflate over real connections.

#![cfg(feature = "deflate")]

mod attacks;
mod messages;
#[path = "../support/mod.rs"]
mod support;
