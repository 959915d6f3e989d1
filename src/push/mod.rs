//! The server's side of the push protocol, topics over JSON for browsers: `docs/reference/protocol.md` specifies it.
//! [`Push`] says what clients may do and becomes a route.
//!
//! ```text
//!   text frame ─▶ push_protocol ─▶ handler.rs ─┬─ subscribe, unsubscribe ─▶ the connection's worker
//!                                              └─ publish ─▶ the topic's owner ─ published ─▶ the connection
//!   message of a topic ─▶ envelope.rs, once for all connections of the route
//! ```
//! It has no state of the application and no history beside the topics'. Every request with an id gets one answer, and
//! slow-consumer policies drop none of them.

mod envelope;
mod error;
mod handler;

use crate::conn::Limits;
use crate::handler::{OutOfRange, Route};
use crate::hub::SettingsTable;
use crate::push_protocol::bounds::{HEARTBEAT, HELLO_RETRY};
use core::time::Duration;
use handler::PushHandler;

pub use crate::push_protocol::SUBPROTOCOL;

/// Subscriptions of one client, unless [`Push::max_subscriptions`] says otherwise.
const MAX_SUBSCRIPTIONS: usize = 128;

/// What clients of the endpoint for browsers may do. Becomes a [`Route`], whose other settings are the usual ones:
///
/// ```
/// use campanile::push::Push;
/// use campanile::{Origins, Route, Server, TopicSettings};
///
/// let push = Push::new().subscribe(["news/", "public/"]).publish(["public/"]).rate(20, 100);
/// let server = Server::builder()
///     .listen("127.0.0.1:0")
///     .topics("public/", TopicSettings::new().history(100))
///     .route("/push", Route::from(push).origins(Origins::list(["https://example.com"])?))
///     .build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Push {
    subscribe: Option<Vec<String>>,
    publish: Option<Vec<String>>,
    rate: (u32, u32),
    max_subscriptions: usize,
    heartbeat: Duration,
    retry: Duration,
}

impl Default for Push {
    fn default() -> Self {
        Self::new()
    }
}

impl Push {
    /// Clients may do what the settings of the topics say: nothing, unless
    /// [`TopicSettings::client_subscribe`](crate::TopicSettings::client_subscribe) and
    /// [`client_publish`](crate::TopicSettings::client_publish) grant it.
    #[must_use]
    pub fn new() -> Self {
        Self {
            subscribe: None,
            publish: None,
            rate: (50, 200),
            max_subscriptions: MAX_SUBSCRIPTIONS,
            heartbeat: Duration::from_secs(25),
            retry: Duration::from_secs(1),
        }
    }

    /// The beginnings of the topics, and of the patterns, that clients may subscribe to: `news/` allows `news/today`
    /// and `news/*`; without a star, which the server is not built with. They count on this route instead of what the settings of the topics say, which is the default, and
    /// replace what was given before.
    #[must_use]
    pub fn subscribe<T: Into<String>>(mut self, prefixes: impl IntoIterator<Item = T>) -> Self {
        self.subscribe = Some(prefixes.into_iter().map(Into::into).collect());
        self
    }

    /// The beginnings of the topics that clients may publish to; as above.
    #[must_use]
    pub fn publish<T: Into<String>>(mut self, prefixes: impl IntoIterator<Item = T>) -> Self {
        self.publish = Some(prefixes.into_iter().map(Into::into).collect());
        self
    }

    /// Requests of one client each second, of any type, and how many at once after a pause: the
    /// [`Route::message_rate`] of its route, which replaces it. Over it a client is not read from until it may send
    /// again; nothing is refused. Default 50 and 200; 0 each second is unlimited. A client that comes back subscribes to
    /// all its topics at once: `burst` should be above [`Push::max_subscriptions`].
    #[must_use]
    pub fn rate(mut self, per_second: u32, burst: u32) -> Self {
        self.rate = (per_second, burst);
        self
    }

    /// Topics and patterns that one client may listen to. Default 128: clients name their topics themselves, and each
    /// is kept for as long as somebody listens. [`Route::limits`] replaces it.
    #[must_use]
    pub fn max_subscriptions(mut self, subscriptions: usize) -> Self {
        self.max_subscriptions = subscriptions;
        self
    }

    /// After how long a silence a client is to ask whether the server is still there. Default 25 s; 1 s to one day, or
    /// zero: never. What lies outside is a [`BuildError::OutOfRange`](crate::BuildError::OutOfRange). A script does not
    /// see WebSocket's own pings, so the client asks by a message.
    #[must_use]
    pub fn heartbeat(mut self, silence: Duration) -> Self {
        self.heartbeat = silence;
        self
    }

    /// The greatest wait before a client's first attempt to come back, of which it takes a random part and which it
    /// doubles with each failure; said in `hello`, as `retry:` is in server-sent events. Default 1 s; 10 ms to one day, what
    /// lies outside is a [`BuildError::OutOfRange`](crate::BuildError::OutOfRange). It bounds how fast the clients of a server that has ended are back: n of them come at n / `retry`
    /// each second, so that 100,000 are 10,000 handshakes a second with 10 s. Price: after a cut that is nobody's fault
    /// a client hears nothing for half of it.
    #[must_use]
    pub fn retry(mut self, wait: Duration) -> Self {
        self.retry = wait;
        self
    }

    /// Whether a client may subscribe to this topic or pattern. What is below a pattern begins as it does.
    fn may_subscribe(&self, topic: &str, settings: &SettingsTable) -> bool {
        match &self.subscribe {
            Some(prefixes) => prefixes.iter().any(|prefix| topic.starts_with(&**prefix)),
            None => settings.may_subscribe(topic),
        }
    }

    fn may_publish(&self, topic: &str, settings: &SettingsTable) -> bool {
        match &self.publish {
            Some(prefixes) => prefixes.iter().any(|prefix| topic.starts_with(&**prefix)),
            None => settings.of(topic).client_publish,
        }
    }
}

impl From<Push> for Route {
    fn from(push: Push) -> Self {
        let limits = Limits { max_subscriptions: push.max_subscriptions, ..Limits::default() };
        let (per_second, burst) = push.rate;
        let times = [
            OutOfRange {
                setting: "Push::heartbeat",
                given: push.heartbeat,
                bounds: HEARTBEAT,
                or_zero: true,
            },
            OutOfRange { setting: "Push::retry", given: push.retry, bounds: HELLO_RETRY, or_zero: false },
        ];
        let is_wrong =
            |time: &OutOfRange| !(time.bounds.contains(&time.given) || time.or_zero && time.given.is_zero());
        let publish = push.publish.clone().unwrap_or_default();
        let named = |setting, prefixes: &Option<Vec<String>>| {
            prefixes.iter().flatten().map(|prefix| (setting, prefix.clone())).collect::<Vec<_>>()
        };
        let mut prefixes = named("Push::subscribe", &push.subscribe);
        prefixes.extend(named("Push::publish", &push.publish));
        let route = Self::new(PushHandler::new(push)).limits(limits).envelope(envelope::PushEnvelope);
        let mut route = route.message_rate(per_second, burst);
        route.publish_prefixes = publish;
        route.prefixes = prefixes;
        route.out_of_range = times.into_iter().find(is_wrong);
        route
    }
}

/// A client's state, for tests that open connections without a handshake.
#[cfg(test)]
pub(crate) fn client_state(batch: bool) -> Box<dyn core::any::Any + Send> {
    Box::new(handler::ClientState::new(batch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_allows_topics_and_patterns_that_begin_with_it() {
        let settings = SettingsTable::default();
        let push = Push::new().subscribe(["news/", "public/chat"]).publish(["public/"]);
        for yes in ["news/today", "news/*", "news/eur/*", "public/chat", "public/chat/1", "public/chat/*"] {
            assert!(push.may_subscribe(yes, &settings), "{yes}");
        }
        for no in ["news", "public/*", "private", "", "*"] {
            assert!(!push.may_subscribe(no, &settings), "{no}");
        }
        assert!(push.may_publish("public/x", &settings) && !push.may_publish("publicity", &settings));
        let closed = Push::new();
        for name in ["x", "x/*", "public/x", ""] {
            assert!(!closed.may_subscribe(name, &settings) && !closed.may_publish(name, &settings), "{name}");
        }
    }
}
