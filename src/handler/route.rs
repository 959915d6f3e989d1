//! A WebSocket route: its handler and its settings.

use super::{Erased, Handler, Origins};
use crate::conn::{Limits, SlowConsumer};
use crate::protocol::{CloseCode, Role, Rules};

/// A handler with the settings of its route. A plain handler becomes one with the defaults.
///
/// ```
/// # use campanile::{Accept, Conn, Handler, Limits, Message, Origins, Refuse, Request, Route, SlowConsumer};
/// # struct Ticker;
/// # impl Handler for Ticker {
/// #     type State = ();
/// #     fn upgrade(&self, _: &Request<'_>) -> Result<Accept<()>, Refuse> { Ok(Accept::new(())) }
/// #     fn message(&self, _: &mut Conn<'_, ()>, _: Message<'_>) {}
/// # }
/// let mut limits = Limits::default();
/// limits.max_backlog = 64 << 10;
/// let route = Route::new(Ticker)
///     .limits(limits)
///     .slow_consumer(SlowConsumer::LatestByKey)
///     .origins(Origins::list(["https://example.com", "https://*.example.com"]).unwrap());
/// ```
pub struct Route {
    pub(crate) handler: Box<dyn Erased>,
    pub(crate) limits: Limits,
    pub(crate) slow_consumer: SlowConsumer,
    pub(crate) origins: Origins,
    pub(crate) pattern: String,
}

impl Route {
    /// A route with the default settings.
    pub fn new(handler: impl Handler) -> Self {
        Self {
            handler: Box::new(handler),
            limits: Limits::default(),
            slow_consumer: SlowConsumer::Close(CloseCode::TRY_AGAIN_LATER),
            origins: Origins::default(),
            pattern: String::new(),
        }
    }

    /// What one connection may cost.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// What happens to a message for a connection whose backlog is full. Default: the connection is closed with 1013.
    #[must_use]
    pub fn slow_consumer(mut self, policy: SlowConsumer) -> Self {
        self.slow_consumer = policy;
        self
    }

    /// Which web pages may connect. Default: [`Origins::default`].
    #[must_use]
    pub fn origins(mut self, origins: Origins) -> Self {
        self.origins = origins;
        self
    }

    pub(crate) fn rules(&self) -> Rules {
        Rules {
            role: Role::Server,
            rsv1: false,
            max_message_size: self.limits.max_message_size,
            max_fragments: self.limits.max_fragments,
        }
    }
}

impl<H: Handler> From<H> for Route {
    fn from(handler: H) -> Self {
        Self::new(handler)
    }
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Route")
            .field("pattern", &self.pattern)
            .field("limits", &self.limits)
            .field("slow_consumer", &self.slow_consumer)
            .field("origins", &self.origins)
            .finish_non_exhaustive()
    }
}
