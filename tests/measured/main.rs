//! What is measured: memory, allocations, time; and what a process has one of. The tests of this suite run one at a time:
//! each begins with [`alone`]. Where other tests of the same process would still be measured, it is [`isolated`] too.
//!
//! [`isolated`]: support::isolated::isolated

#![cfg(feature = "server")]

mod allocations;
#[cfg(feature = "deflate")]
mod compression;
mod logging;
mod memory;
#[cfg(feature = "deflate")]
mod overload;
#[cfg(feature = "cli")]
mod process;
#[cfg(all(feature = "deflate", feature = "tls"))]
mod rates;
#[path = "../support/mod.rs"]
mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Waits until no other test of this suite runs; the next one waits for what this returns to be dropped.
fn alone() -> MutexGuard<'static, ()> {
    static RUNNING: Mutex<()> = Mutex::new(());
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}
