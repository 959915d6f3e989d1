//! A message on its way from its publisher to the topic's owner, its outcome there, and its way on to the other
//! workers.

use super::tags::Tags;
use super::{Envelopes, FrameMeta, Position, ReplySender};
use crate::conn::{ConnId, Frames};
use crate::protocol::{Key, Message};
use core::time::Duration;
use std::sync::Arc;

/// A message with its topic and options.
///
/// ```
/// use campanile::Publish;
/// use core::time::Duration;
///
/// let publish = Publish::new("orders/42", "shipped").idempotency_key("order-42-3").ttl(Duration::from_secs(60));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Publish<'a> {
    pub(crate) topic: &'a str,
    pub(crate) message: Message<'a>,
    pub(crate) except: Option<ConnId>,
    /// The connection that publishes; none: the program.
    pub(crate) publisher: Option<ConnId>,
    pub(crate) idempotency_key: Option<&'a str>,
    pub(crate) ttl: u32,
    pub(crate) tags: &'a [&'a str],
}

impl<'a> Publish<'a> {
    /// Publishes to all subscribers of the topic.
    pub fn new(topic: &'a str, message: impl Into<Message<'a>>) -> Self {
        Self {
            topic,
            message: message.into(),
            except: None,
            publisher: None,
            idempotency_key: None,
            ttl: 0,
            tags: &[],
        }
    }

    /// Excludes this connection.
    #[must_use]
    pub fn except(mut self, conn: ConnId) -> Self {
        self.except = Some(conn);
        self
    }

    /// Publishes on behalf of this connection, whose share of the topic's rate it uses.
    #[cfg(feature = "push")]
    pub(crate) fn by(mut self, conn: ConnId) -> Self {
        self.publisher = Some(conn);
        self
    }

    /// Publishing again with the same key to the same topic does nothing, so a publisher that got no answer can retry.
    /// A topic remembers its last 1,024 keys, each for 5 minutes, as long as it has a history or subscribers.
    #[must_use]
    pub fn idempotency_key(mut self, key: &'a str) -> Self {
        self.idempotency_key = Some(key);
        self
    }

    /// Sets tags: words that the message is about. A subscriber with a [filter](super::Subscribe::tags) receives it if
    /// it has one of them; a subscriber without one receives it anyway. Tags are compared by 64-bit hashes. Cost: 16
    /// bytes, and 8 for each.
    #[must_use]
    pub fn tags(mut self, tags: &'a [&'a str]) -> Self {
        self.tags = tags;
        self
    }

    /// Sets how long the message is kept in its topic's history, if shorter than the topic's own time.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX).max(1);
        self
    }
}

/// The outcome of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// The position of the message.
    pub position: Position,
    /// Connections that it was queued for, as far as the topic's owner knows.
    pub receivers: usize,
    /// The topic had a message with this idempotency key: nothing was published, and the position is that message's.
    pub repeated: bool,
}

/// What a topic's owner answers: `None` if the topic has neither subscribers nor a history.
pub(crate) type PublishOutcome = Result<Option<Published>, TopicLimitExceeded>;

/// A limit of a topic's [settings](super::TopicSettings) that refuses a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TopicLimitExceeded {
    TooBig {
        len: usize,
        limit: usize,
    },
    RateLimited {
        /// How much later it would have been accepted.
        early: Duration,
    },
}

/// A message on its way to its topic's owner.
#[derive(Debug)]
pub(crate) struct PublishRequest {
    pub(crate) topic: Arc<str>,
    pub(crate) frames: Frames,
    /// Bytes of the message, without the frame's header.
    pub(crate) len: usize,
    pub(crate) key: Option<Key>,
    pub(crate) except: Option<ConnId>,
    /// The connection that published it; none: the program.
    pub(crate) publisher: Option<ConnId>,
    pub(crate) idempotency_key: Option<Box<str>>,
    pub(crate) ttl: u32,
    pub(crate) json: bool,
    pub(crate) tags: Option<Tags>,
    /// The reply that the publisher waits for, if any.
    pub(crate) reply: Option<ReplySender<Option<Published>>>,
}

/// A reply to be sent, and the outcome.
pub(crate) type PublishReply = (ReplySender<Option<Published>>, PublishOutcome);

impl PublishRequest {
    pub(crate) fn new(publish: Publish<'_>) -> Self {
        let Publish { topic, message, except, publisher, idempotency_key, ttl, tags } = publish;
        let idempotency_key = idempotency_key.map(Into::into);
        let frames = Frames::of(message);
        let (key, json) = (message.key(), message.is_json());
        let tags = Tags::new(tags.iter().copied());
        let len = message.len();
        Self {
            topic: topic.into(),
            frames,
            len,
            key,
            except,
            publisher,
            idempotency_key,
            ttl,
            json,
            tags,
            reply: None,
        }
    }

    /// Returns the same message for another topic, with the same encoded bytes.
    #[cfg(feature = "api")]
    pub(crate) fn to(&self, topic: &str) -> Self {
        Self {
            topic: topic.into(),
            frames: self.frames.clone(),
            len: self.len,
            key: self.key,
            except: self.except,
            publisher: self.publisher,
            idempotency_key: self.idempotency_key.clone(),
            ttl: self.ttl,
            json: self.json,
            tags: self.tags.clone(),
            reply: None,
        }
    }
}

/// A batch on its way from its owner to the other workers.
#[derive(Clone, Debug)]
pub(crate) struct ForwardedBatch {
    /// Shared by all workers, as the frames are.
    pub(crate) envelopes: Arc<Envelopes>,
    pub(crate) topic: Arc<str>,
    pub(crate) frames: Frames,
    pub(crate) metas: Arc<[FrameMeta]>,
    pub(crate) key: Option<Key>,
    pub(crate) position: Position,
}
