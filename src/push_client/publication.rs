//! What a program asks for: a publication, and a subscription.

use super::Position;
use core::time::Duration;

/// Something to publish. Bytes are published over HTTP: `docs/reference/http-api.md`.
///
/// ```
/// use campanile::push_client::Publication;
/// use std::time::Duration;
///
/// let price = Publication::json("public/ticks", r#"{"key":"BEL/EUR","value":42.5}"#)
///     .key("BEL/EUR")
///     .timeout(Duration::from_secs(2));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Publication<'m> {
    pub(super) topic: &'m str,
    pub(super) content: &'m str,
    pub(super) is_json: bool,
    pub(super) key: Option<&'m str>,
    pub(super) idempotency_key: Option<&'m str>,
    pub(super) ttl: Option<Duration>,
    pub(super) echo: bool,
    pub(super) tags: Vec<String>,
    pub(super) timeout: Duration,
}

impl<'m> Publication<'m> {
    /// A text.
    pub fn text(topic: &'m str, text: &'m str) -> Self {
        Self {
            topic,
            content: text,
            is_json: false,
            key: None,
            idempotency_key: None,
            ttl: None,
            echo: true,
            tags: Vec::new(),
            timeout: Duration::from_secs(10),
        }
    }

    /// JSON as it is written, nested up to 126 levels; delivered byte for byte.
    pub fn json(topic: &'m str, json: &'m str) -> Self {
        Self { is_json: true, ..Self::text(topic, json) }
    }

    /// What the message is the latest state of, 1 to 255 bytes. Default: nothing.
    pub fn key(mut self, key: &'m str) -> Self {
        self.key = Some(key);
        self
    }

    /// Publishing again with the same string, 1 to 255 bytes, to the same topic does nothing, and is answered with the
    /// place of the first time. Default: a name of its own for each publication, which makes it safe to send it again
    /// after a cut.
    pub fn idempotency_key(mut self, key: &'m str) -> Self {
        self.idempotency_key = Some(key);
        self
    }

    /// How long the message is kept, in whole milliseconds from 1 to 2^32 − 1, if shorter than the topic's own time.
    /// Default: the topic's own.
    pub fn ttl(mut self, time: Duration) -> Self {
        self.ttl = Some(time);
        self
    }

    /// Whether this client's own subscription gets it too. Default true.
    pub fn echo(mut self, echo: bool) -> Self {
        self.echo = echo;
        self
    }

    /// For those who subscribe with [`Subscription::tags`]. Default: none.
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// How long it may take until it is answered, the time without a connection included. Default 10 s.
    pub fn timeout(mut self, time: Duration) -> Self {
        self.timeout = time;
        self
    }
}

/// A topic to subscribe to, or a pattern such as `ticks/*`, and where to begin. A topic's name alone makes one.
///
/// ```
/// use campanile::push_client::Subscription;
///
/// let room = Subscription::new("public/room").last(20);
/// let prices = Subscription::pattern("prices/*");
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Subscription {
    pub(super) name: String,
    pub(super) is_pattern: bool,
    pub(super) start: Start,
    pub(super) since: Option<Position>,
    pub(super) resume: Option<bool>,
    pub(super) tags: Vec<String>,
}

/// Where to begin without a place to go on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Live,
    Latest,
    Last(u32),
}

impl Subscription {
    /// Subscribes to a topic from now on; and after a cut from where it was. A pattern is refused by
    /// [`PushClient::subscribe`](super::PushClient::subscribe), so `topic` may be made from what others sent.
    pub fn new(topic: &str) -> Self {
        Self::of(topic, false)
    }

    /// Subscribes to every topic below a prefix, at any depth, from now on: `ticks/*`. A pattern has no history.
    pub fn pattern(pattern: &str) -> Self {
        Self::of(pattern, true)
    }

    fn of(name: &str, is_pattern: bool) -> Self {
        let name = name.to_owned();
        Self { name, is_pattern, start: Start::Live, since: None, resume: None, tags: Vec::new() }
    }

    /// Begins with the newest message of each key that is kept, and does so again after a cut, unless
    /// [`Subscription::resume`] or [`Subscription::since`] says otherwise. Replaces [`Subscription::last`].
    pub fn latest(mut self) -> Self {
        self.start = Start::Latest;
        self
    }

    /// Begins with the last `n` messages that are kept. After a cut it goes on from where it was; where that is lost,
    /// it begins so again. Replaces [`Subscription::latest`].
    pub fn last(mut self, n: u32) -> Self {
        self.start = Start::Last(n);
        self
    }

    /// Goes on from here, as an earlier message or [`Subscribed`](super::Subscribed) had it. Where that is lost, it
    /// begins as [`Subscription::latest`] or [`Subscription::last`] says, or with what comes from now on.
    pub fn since(mut self, place: Position) -> Self {
        self.since = Some(place);
        self
    }

    /// Whether what was missed comes after a cut. Default true; with [`Subscription::latest`] alone false, since that
    /// is whole by itself.
    pub fn resume(mut self, resume: bool) -> Self {
        self.resume = Some(resume);
        self
    }

    /// Only messages with at least one of these tags. Default: all.
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    pub(super) fn resumes(&self) -> bool {
        self.resume.unwrap_or_else(|| self.start != Start::Latest || self.since.is_some())
    }
}

impl From<&str> for Subscription {
    fn from(topic: &str) -> Self {
        Self::new(topic)
    }
}
