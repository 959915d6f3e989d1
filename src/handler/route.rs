//! A WebSocket route: its handler and its settings.

use super::{Erased, Handler, Origins};
use crate::conn::{Limits, SlowConsumer, Terms};
use crate::deflate::Deflate;
use crate::hub::Envelope;
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
    pub(crate) terms: Terms,
    pub(crate) origins: Origins,
    pub(crate) deflate: Deflate,
    pub(crate) envelope: Option<Wrapper>,
    pub(crate) pattern: String,
}

/// A route's envelope, and its place among those of the server.
pub(crate) struct Wrapper {
    pub(crate) at: usize,
    pub(crate) of: usize,
    pub(crate) envelope: Box<dyn Envelope>,
}

impl Route {
    /// A route with the default settings.
    pub fn new(handler: impl Handler) -> Self {
        Self {
            handler: Box::new(handler),
            terms: Terms {
                limits: Limits::default(),
                slow_consumer: SlowConsumer::Close(CloseCode::TRY_AGAIN_LATER),
            },
            origins: Origins::default(),
            deflate: Deflate::off(),
            envelope: None,
            pattern: String::new(),
        }
    }

    /// What one connection may cost.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.terms.limits = limits;
        self
    }

    /// What happens to a message for a connection whose backlog is full. Default: the connection is closed with 1013.
    #[must_use]
    pub fn slow_consumer(mut self, policy: SlowConsumer) -> Self {
        self.terms.slow_consumer = policy;
        self
    }

    /// Which web pages may connect. Default: [`Origins::default`].
    #[must_use]
    pub fn origins(mut self, origins: Origins) -> Self {
        self.origins = origins;
        self
    }

    /// Puts what comes from topics into an envelope; what handlers and handles send to a connection goes as it is.
    /// Default: none.
    #[must_use]
    pub fn envelope(mut self, envelope: impl Envelope) -> Self {
        self.envelope = Some(Wrapper { at: 0, of: 1, envelope: Box::new(envelope) });
        self
    }

    /// Whether messages are compressed where the client offers it (permessage-deflate, RFC 7692). Default:
    /// [`Deflate::off`].
    #[cfg(feature = "deflate")]
    #[must_use]
    pub fn deflate(mut self, deflate: Deflate) -> Self {
        self.deflate = deflate;
        self
    }

    /// What connections that agreed on compression may send, and those that did not.
    pub(crate) fn rules(&self) -> [Rules; 2] {
        [false, true].map(|rsv1| Rules {
            role: Role::Server,
            rsv1,
            max_message_size: self.terms.limits.max_message_size,
            max_fragments: self.terms.limits.max_fragments,
        })
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
            .field("limits", &self.terms.limits)
            .field("slow_consumer", &self.terms.slow_consumer)
            .field("origins", &self.origins)
            .field("deflate", &self.deflate)
            .finish_non_exhaustive()
    }
}
