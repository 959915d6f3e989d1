//! Publish and subscribe on one worker: the [`Index`] of who listens, the [`Log`] of what this turn published, and the
//! [`mailbox`] by which other threads take part.
//!
//! With several workers each topic has a home, the worker that its name hashes to. What is published goes to the home
//! first, which joins it with its neighbours and passes the run on to the others; since one thread decides the order
//! and channels keep it, every subscriber of the node sees the messages of a topic in one and the same order.

mod index;
mod log;
pub(crate) mod mailbox;
pub(crate) mod topic;

pub use index::SubscribeError;
pub(crate) use index::{Index, TopicKey};
pub(crate) use log::{Log, Mark, Run};
pub use topic::{InvalidTopic, MAX_TOPIC, check as check_topic};

use crate::conn::{ConnId, Frames};
use crate::protocol::{Key, Message};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// A message on its way to its topic's home.
#[derive(Debug)]
pub(crate) struct Publication {
    pub(crate) topic: Arc<str>,
    pub(crate) frames: Frames,
    pub(crate) key: Option<Key>,
    pub(crate) except: Option<ConnId>,
}

impl Publication {
    pub(crate) fn new(topic: &str, message: Message<'_>, except: Option<ConnId>) -> Self {
        Self { topic: topic.into(), frames: Frames::of(message), key: message.key(), except }
    }
}

/// A run on its way from its home to the other workers.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) topic: Arc<str>,
    pub(crate) frames: Frames,
    pub(crate) marks: Arc<[Mark]>,
    pub(crate) key: Option<Key>,
}

/// The worker that orders this topic's messages.
pub(crate) fn home_of(topic: &str, workers: usize) -> usize {
    if workers == 1 {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    topic.hash(&mut hasher);
    (hasher.finish() % workers as u64) as usize
}

/// One worker's part of the hub.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) index: Index,
    pub(crate) log: Log,
    /// For each worker, what this turn published that has its home there.
    away: Vec<Vec<Publication>>,
    worker: usize,
}

impl Hub {
    pub(crate) fn new(worker: usize, workers: usize) -> Self {
        let away = (0..workers).map(|_| Vec::new()).collect();
        Self { index: Index::default(), log: Log::default(), away, worker }
    }

    fn is_alone(&self) -> bool {
        self.away.len() == 1
    }

    /// Publishes from a connection of this worker's. A name that can't be a topic's reaches nobody: nobody could
    /// subscribe to it.
    pub(crate) fn publish(&mut self, topic: &str, message: Message<'_>, except: Option<ConnId>) {
        let home = home_of(topic, self.away.len());
        if !self.is_alone() && topic::check(topic).is_err() {
            return;
        }
        if home != self.worker {
            self.away[home].push(Publication::new(topic, message, except));
            return;
        }
        if let Some(key) = self.topic(topic) {
            self.index.hold(key);
            self.log.publish(key, message, except);
        }
    }

    /// Takes a publication that has its home here.
    pub(crate) fn publish_here(&mut self, publication: Publication) {
        let Publication { topic, frames, key, except } = publication;
        if let Some(topic) = self.topic(&topic) {
            self.index.hold(topic);
            self.log.publish_frames(topic, frames, key, except);
        }
    }

    /// The topic, if anybody could listen to it: on a lone worker only where somebody does.
    fn topic(&mut self, name: &str) -> Option<TopicKey> {
        if self.is_alone() { self.index.find(name) } else { Some(self.index.find_or_add(name)) }
    }

    /// Takes a run from its home.
    pub(crate) fn deliver(&mut self, delivery: &Delivery) {
        if let Some(key) = self.index.find(&delivery.topic) {
            self.index.hold(key);
            self.log.adopt(key, delivery.frames.clone(), delivery.marks.to_vec(), delivery.key, false);
        }
    }

    /// What this turn has for the other workers: publications for their homes, and the runs that began here.
    pub(crate) fn outgoing(
        &mut self,
        mut publications: impl FnMut(usize, Vec<Publication>),
        mut deliveries: impl FnMut(Delivery),
    ) {
        if self.is_alone() {
            return;
        }
        for (home, waiting) in self.away.iter_mut().enumerate() {
            if !waiting.is_empty() {
                publications(home, core::mem::take(waiting));
            }
        }
        for run in self.log.runs_mut() {
            if run.origin {
                run.origin = false;
                deliveries(Delivery {
                    topic: self.index.name(run.topic).clone(),
                    frames: run.share(),
                    marks: run.marks().into(),
                    key: run.key,
                });
            }
        }
    }

    /// The turn is over.
    pub(crate) fn end_turn(&mut self) {
        let Self { index, log, .. } = self;
        log.clear(|topic| index.release(topic));
    }
}
