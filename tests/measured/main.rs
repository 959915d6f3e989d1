//! Tests that measure memory or time, or change what a whole process has one of.

mod allocations;
#[cfg(feature = "deflate")]
mod compression;
mod logging;
mod memory;
#[cfg(feature = "cli")]
mod process;
#[cfg(all(feature = "deflate", feature = "tls"))]
mod rates;
#[path = "../support/mod.rs"]
mod support;
