//! Sockets: the only folder that makes system calls on them. Above it, a connection sees a
//! [`Sink`](crate::sink::Sink).

#[cfg(feature = "server")]
mod heap;
#[cfg(feature = "server")]
pub(crate) mod listener;
#[cfg(feature = "server")]
mod process;
pub(crate) mod stream;
#[cfg_attr(not(feature = "tls"), path = "tls_disabled.rs")]
mod tls_stream;

#[cfg(feature = "server")]
pub(crate) use heap::trim_heap;
#[cfg(feature = "server")]
pub(crate) use listener::Listener;
#[cfg(feature = "server")]
pub use listener::{InvalidAddr, ListenAddr, ListenOptions};
#[cfg(feature = "server")]
pub(crate) use process::{pin_to_cpu, raise_open_files};
pub(crate) use stream::{ReadOutcome, Stream};
#[cfg(feature = "server")]
pub(crate) use tls_stream::TlsAcceptor;
#[cfg(feature = "tls")]
pub(crate) use tls_stream::TlsRead;
