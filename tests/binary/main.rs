//! The `campanile` binary as a process of its own.

#![cfg(feature = "cli")]

mod dev;
mod stdio;
#[path = "../support/mod.rs"]
mod support;
mod tls;
