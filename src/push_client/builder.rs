//! A client's settings, and its start.

use super::{PushClient, PushEvent};
use crate::client;
use core::time::Duration;

/// What a client of topics may keep, and how long it waits; what its connections may cost is
/// [`client::ClientLimits`](crate::client::ClientLimits)'s.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PushClientLimits {
    /// Bytes of events waiting to be taken, 100-odd for each event itself. Over it nothing is read, answers to
    /// publications included, so that TCP makes the server wait, and then its policy for slow consumers decides.
    /// Default 4 MiB; beside it, as much as [`client::ClientLimits::max_inbox`](crate::client::ClientLimits::max_inbox) waits
    /// unread.
    pub max_inbox: usize,
    /// Publications without an answer. Default 256.
    pub max_pending: usize,
    /// Bytes of publications without an answer, as they are on the wire; one that finds none waiting is always taken.
    /// Default 4 MiB.
    pub max_pending_bytes: usize,
    /// Topics and patterns. Default 1,024; servers have a limit of their own, often 128.
    pub max_subscriptions: usize,
    /// From the opening of a connection to the server's `hello`. Default 10 s.
    pub hello_timeout: Duration,
    /// For anything to come after a `ping`, which is sent after the silence that `hello` names. Default 10 s.
    pub pong_timeout: Duration,
}

impl Default for PushClientLimits {
    fn default() -> Self {
        Self {
            max_inbox: 4 << 20,
            max_pending: 256,
            max_pending_bytes: 4 << 20,
            max_subscriptions: 1024,
            hello_timeout: Duration::from_secs(10),
            pong_timeout: Duration::from_secs(10),
        }
    }
}

/// Called with each event.
pub(super) type Callback = Box<dyn FnMut(&PushClient, PushEvent) + Send>;

/// Puts a client of topics together.
#[derive(Debug)]
pub struct PushClientBuilder {
    client: client::ClientBuilder,
    limits: PushClientLimits,
}

impl PushClientBuilder {
    pub(super) fn new(client: client::ClientBuilder) -> Self {
        Self { client, limits: PushClientLimits::default() }
    }

    /// Sets all bounds and waits.
    #[must_use]
    pub fn limits(mut self, limits: PushClientLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Begins to connect and returns at once; what becomes of it, [`PushClient::next`] says.
    ///
    /// # Errors
    /// As [`client::ClientBuilder::connect`](crate::client::ClientBuilder::connect), or the system refuses a thread.
    pub fn connect(self) -> Result<PushClient, client::Error> {
        PushClient::start(self.client, self.limits, None)
    }

    /// Begins to connect, and calls `callback` with each event, on the client's own thread. It may call everything of
    /// the client, but nothing there waits: see [`PushClient::publish_then`]. While it runs, nothing else is read; if
    /// it panics, the connection is closed with 1011 and there is no other.
    ///
    /// The connection lives on until it is closed, whether or not the returned handle is kept.
    ///
    /// # Errors
    /// As [`PushClientBuilder::connect`].
    pub fn connect_with(
        self,
        callback: impl FnMut(&PushClient, PushEvent) + Send + 'static,
    ) -> Result<PushClient, client::Error> {
        PushClient::start(self.client, self.limits, Some(Box::new(callback)))
    }
}
