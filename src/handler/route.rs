//! A WebSocket route: its handler and its settings.

use super::{ErasedHandler, Handler, Origins, Rates};
use crate::conn::{Limits, SlowConsumer, Terms};
use crate::deflate::Deflate;
use crate::hub::Envelope;
use crate::protocol::{CloseCode, Role, Rules};
use core::ops::RangeInclusive;
use core::time::Duration;

/// A handler with the settings of its route. A plain handler becomes one with the defaults.
///
/// ```
/// # use campanile::{Conn, Disconnect, Handler, Limits, Message, Origins, Route, SlowConsumer};
/// # struct Ticker;
/// # impl Handler for Ticker {
/// #     type State = ();
/// #     fn message(&self, _: &mut Conn<'_>, _: &mut (), _: Message<'_>) -> Result<(), Disconnect> { Ok(()) }
/// # }
/// let mut limits = Limits::default();
/// limits.max_backlog = 64 << 10;
/// let route = Route::new(Ticker)
///     .limits(limits)
///     .slow_consumer(SlowConsumer::LatestByKey)
///     .origins(Origins::list(["https://example.com", "https://*.example.com"]).unwrap());
/// ```
pub struct Route {
    pub(crate) handler: Box<dyn ErasedHandler>,
    pub(crate) terms: Terms,
    /// What one connection may send; none: as much as it likes.
    pub(crate) rates: Option<Rates>,
    pub(crate) origins: Origins,
    pub(crate) deflate: Deflate,
    pub(crate) envelope: Option<RouteEnvelope>,
    pub(crate) pattern: String,
    /// Beginnings of topics that its clients can publish to under names of their own choice.
    pub(crate) publish_prefixes: Vec<String>,
    /// Beginnings of topics that it was given, and by which setting: checked when the server is built.
    pub(crate) prefixes: Vec<(&'static str, String)>,
    /// A setting that the server will not be built with.
    pub(crate) out_of_range: Option<OutOfRange>,
}

/// A time that a route was given, and what it may be.
#[derive(Clone, Debug)]
pub(crate) struct OutOfRange {
    pub(crate) setting: &'static str,
    pub(crate) given: Duration,
    pub(crate) bounds: RangeInclusive<Duration>,
    /// Zero is allowed as well: none.
    pub(crate) or_zero: bool,
}

/// A route's envelope, and its place among those of the server.
pub(crate) struct RouteEnvelope {
    pub(crate) index: usize,
    pub(crate) count: usize,
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
            rates: None,
            origins: Origins::default(),
            deflate: Deflate::off(),
            envelope: None,
            pattern: String::new(),
            publish_prefixes: Vec::new(),
            prefixes: Vec::new(),
            out_of_range: None,
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

    /// Messages that one connection may send each second, and how many at once after a pause; pings and pongs count as
    /// messages. Over it nothing is refused or lost: the connection is not read from until it may send again, and TCP
    /// makes the client wait ([`Stats::rate_pauses`](crate::Stats::rate_pauses)). Default, and 0 each second: unlimited.
    /// A burst below an eighth of a second's worth is raised to that. Price: one addition for each message; 16 bytes for
    /// each connection of a server that has such a route.
    #[must_use]
    pub fn message_rate(self, per_second: u32, burst: u32) -> Self {
        self.rates(|rates| rates.messages(per_second.into(), burst.into()))
    }

    /// Bytes of messages that one connection may send each second, and how many at once after a pause. Compressed
    /// messages count with the bytes that they inflate to. A message larger than the burst is taken whole, and the next
    /// one waits accordingly longer. Otherwise as [`Route::message_rate`]; both may be given.
    #[must_use]
    pub fn byte_rate(self, per_second: u64, burst: u64) -> Self {
        self.rates(|rates| rates.bytes(per_second, burst))
    }

    fn rates(mut self, change: impl FnOnce(Rates) -> Rates) -> Self {
        let rates = change(self.rates.unwrap_or(Rates::UNLIMITED));
        self.rates = (!rates.is_unlimited()).then_some(rates);
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
        self.envelope = Some(RouteEnvelope { index: 0, count: 1, envelope: Box::new(envelope) });
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
            .field("rates", &self.rates)
            .field("origins", &self.origins)
            .field("deflate", &self.deflate)
            .finish_non_exhaustive()
    }
}
