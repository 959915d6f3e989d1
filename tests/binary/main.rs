//! The `campanile` binary as a process of its own.

#![cfg(feature = "cli")]

mod dev;
mod signals;
mod stdio;
#[path = "../support/mod.rs"]
mod support;
mod tls;
