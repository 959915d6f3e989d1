//! What a client's thread has to know of it.

use super::limits::ClientLimits;
use super::proxy::Proxy;
use super::{Client, ClientEvent, Reconnect};
use std::net::IpAddr;

/// How its connections are made, and what they may cost.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) limits: ClientLimits,
    pub(super) reconnect: Option<Reconnect>,
    pub(super) redirects: u32,
    pub(super) delay: bool,
    pub(super) from: Option<IpAddr>,
    pub(super) proxy: Option<Proxy>,
    #[cfg(feature = "tls")]
    pub(super) trust: Option<super::Trust>,
}

/// Called with each event.
pub(super) type Callback = Box<dyn FnMut(&Client, ClientEvent) + Send>;
