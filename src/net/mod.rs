//! Sockets: the only folder that makes system calls on them. Above it, a connection sees a
//! [`Sink`](crate::sink::Sink).

mod heap;
pub(crate) mod listener;
mod process;
pub(crate) mod stream;
#[cfg_attr(not(feature = "tls"), path = "tls_disabled.rs")]
mod tls_stream;

pub(crate) use heap::trim_heap;
pub(crate) use listener::Listener;
pub use listener::{InvalidAddr, ListenAddr, ListenOptions};
pub(crate) use process::{pin_to_cpu, raise_open_files};
pub(crate) use stream::{ReadOutcome, Stream};
pub(crate) use tls_stream::TlsAcceptor;
#[cfg(feature = "tls")]
pub(crate) use tls_stream::TlsRead;
