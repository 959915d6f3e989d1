//! campanile: a WebSocket server for pushing to very many clients.

pub mod protocol;
