//! RFC 6455 as pure functions and values: no socket, no clock, no thread.

pub mod mask;
