//! A message on its way from whoever publishes it to its topic's home.

use super::{Publish, Published, Reply};
use crate::conn::{ConnId, Frames};
use crate::protocol::Key;
use std::sync::Arc;

/// A message on its way to its topic's home.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) topic: Arc<str>,
    pub(crate) frames: Frames,
    pub(crate) key: Option<Key>,
    pub(crate) except: Option<ConnId>,
    pub(crate) id: Option<Box<str>>,
    pub(crate) ttl: u32,
    pub(crate) json: bool,
    /// Whoever waits to know what became of it.
    pub(crate) answer: Option<Reply<Option<Published>>>,
}

/// Whoever waits to know what became of a publication, and what did.
pub(crate) type Told = (Reply<Option<Published>>, Option<Published>);

impl Publication {
    pub(crate) fn new(publish: Publish<'_>) -> Self {
        let Publish { topic, message, except, id, ttl } = publish;
        let id = id.map(Into::into);
        let frames = Frames::of(message);
        let (key, json) = (message.key(), message.is_json());
        Self { topic: topic.into(), frames, key, except, id, ttl, json, answer: None }
    }

    /// The same message for another topic. What was encoded is shared.
    #[cfg(feature = "api")]
    pub(crate) fn to(&self, topic: &str) -> Self {
        Self {
            topic: topic.into(),
            frames: self.frames.clone(),
            key: self.key,
            except: self.except,
            id: self.id.clone(),
            ttl: self.ttl,
            json: self.json,
            answer: None,
        }
    }
}
