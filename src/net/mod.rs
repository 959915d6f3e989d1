//! Sockets: the only folder that makes system calls on them. Above it, a connection sees a
//! [`Sink`](crate::conn::Sink).

mod heap;
pub(crate) mod listener;
#[cfg_attr(not(feature = "tls"), path = "clear.rs")]
mod secure;
pub(crate) mod stream;
mod sys;

pub(crate) use heap::trim_heap;
pub(crate) use listener::Listener;
pub use listener::{InvalidAddr, ListenAddr, ListenOptions};
#[cfg(feature = "tls")]
pub(crate) use secure::Opened;
pub(crate) use secure::Security;
pub(crate) use stream::{Received, Stream};
pub(crate) use sys::{pin_to_cpu, raise_open_files};
