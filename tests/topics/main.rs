//! Topics through the library: who receives what, in which order, what is kept and what is allowed.

#![cfg(feature = "server")]

mod answers;
mod delivery;
#[cfg(feature = "push")]
mod filters;
mod handle;
mod history;
#[cfg(feature = "push")]
mod recovery;
mod replay;
#[cfg(feature = "push")]
mod settings;
#[path = "../support/mod.rs"]
mod support;
