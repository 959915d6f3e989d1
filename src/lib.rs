//! campanile: a WebSocket server for pushing to very many clients.

pub mod endpoint;
pub mod http;
pub mod protocol;
pub use protocol::{CloseCode, Message};
#[doc(hidden)]
pub enum SlowConsumer { /** x */ LatestByKey }
