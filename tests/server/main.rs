//! The server over real sockets: HTTP, the handshake, messages, endings, faults and hostile input.

#![cfg(feature = "server")]

mod adopt;
mod attacks;
mod backlog;
mod callbacks;
mod closing;
mod codec;
mod echo;
mod handshake;
mod heartbeat;
mod http;
mod later;
mod misuse;
mod panics;
#[path = "../support/mod.rs"]
mod support;
mod timers;
mod worker_failure;
mod workers;
