//! Updates that wait for another worker whose mailbox is full: a queue for each topic, served by deficit round robin
//! over bytes, so that a flood of one topic does not delay the others.
//!
//! ```text
//!   topic "flood": [64 KiB][64 KiB][64 KiB]...[missed 12]  ─┐
//!   topic "a":     [1 KiB]                                  ├─▶ one quantum of each in turn ─▶ mailbox
//!   topic "b":     [2 KiB][1 KiB]                          ─┘
//! ```
//! A topic above its limit loses its newest messages. The queue keeps their number in their place, and the subscribers
//! are notified.

use super::{Congestion, ForwardedBatch, FrameMeta, Position, Recipient, RecoveryReply};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Bytes that a topic may send in one round.
const QUANTUM: isize = 64 << 10;

/// Bytes of a topic from which on it is congested, and to which it must drain. Its publishers wait meanwhile.
const HIGH_WATER: usize = 256 << 10;
const LOW_WATER: usize = 64 << 10;

/// The cost of an update beside the bytes of its messages.
const UPDATE_COST: usize = 256;

/// An update of a topic for another worker.
#[derive(Debug)]
pub(crate) enum TopicUpdate {
    /// A batch of messages.
    Batch(ForwardedBatch),
    /// Messages were lost.
    Missed(Missed),
    /// The reply to a recovery request: earlier messages are in its replay.
    RecoveryReply(Box<RecoveryReply>),
}

/// Messages of a topic that were lost on the way to a worker.
#[derive(Clone, Debug)]
pub(crate) struct Missed {
    pub(crate) topic: Arc<str>,
    /// The position behind the last of them.
    pub(crate) position: Position,
    /// Metadata of those that were not for all subscribers.
    pub(crate) metas: Vec<FrameMeta>,
    /// The number of the others.
    pub(crate) messages: u32,
}

/// Metadata kept of lost messages; above it, a message counts as lost for all subscribers.
const MAX_MISSED_METAS: usize = 1024;

impl Missed {
    fn new(forwarded: &ForwardedBatch) -> Self {
        let mut missed = Self {
            topic: forwarded.topic.clone(),
            position: forwarded.position,
            metas: Vec::new(),
            messages: 0,
        };
        missed.add(forwarded);
        missed
    }

    fn add(&mut self, forwarded: &ForwardedBatch) {
        for meta in &*forwarded.metas {
            if (meta.except.is_some() || meta.tags.is_some()) && self.metas.len() < MAX_MISSED_METAS {
                self.metas.push(meta.clone());
            } else {
                self.messages += 1;
            }
        }
        let offset = forwarded.position.offset + forwarded.metas.len() as u64 - 1;
        self.position = Position { offset, ..forwarded.position };
    }
}

impl Missed {
    /// Returns how many of them were for a subscriber.
    pub(crate) fn count_for(&self, recipient: Recipient<'_>) -> u32 {
        self.messages + self.metas.iter().filter(|meta| meta.is_for(recipient)).count() as u32
    }
}

impl TopicUpdate {
    /// Returns the bytes of memory that it holds.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Batch(forwarded) => forwarded.frames.len(),
            Self::Missed(missed) => missed.metas.len() * size_of::<FrameMeta>(),
            Self::RecoveryReply(reply) => size_of_val(&*reply.replay),
        }
    }
}

#[derive(Debug, Default)]
struct TopicQueue {
    updates: VecDeque<TopicUpdate>,
    bytes: usize,
    /// Bytes that it may still send in this round; negative after an update larger than the rest.
    credit: isize,
    congested: bool,
    full: bool,
}

/// The fraction of a worker's limit at which a topic is full.
const FULL_PART: usize = 4;

impl TopicQueue {
    /// Clears the topic's congestion state.
    fn clear_congestion(&mut self, topic: &str, congestion: &Congestion) {
        if core::mem::take(&mut self.full) {
            congestion.set_full(topic, false);
        }
        if core::mem::take(&mut self.congested) {
            congestion.clear_congested(topic);
        }
    }
}

/// The updates that wait for one other worker.
#[derive(Debug, Default)]
pub(crate) struct DeliveryQueue {
    topics: HashMap<Arc<str>, TopicQueue>,
    /// The topics in the order in which they are served, each once.
    round_robin: VecDeque<Arc<str>>,
    bytes: usize,
}

/// The outcome of sending from a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SendOutcome {
    /// A topic is no longer congested: paused publishers may continue.
    pub(crate) congestion_cleared: bool,
}

impl DeliveryQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.round_robin.is_empty()
    }

    /// Returns whether updates of this topic wait, which have to be sent first.
    pub(crate) fn has(&self, topic: &str) -> bool {
        !self.is_empty() && self.topics.contains_key(topic)
    }

    /// Appends an update. Above `limit` bytes in total, a topic may only use its part of them and loses its newest
    /// messages. Returns the number of lost messages.
    pub(crate) fn push(
        &mut self,
        topic: &Arc<str>,
        update: TopicUpdate,
        limit: usize,
        congestion: &Congestion,
    ) -> usize {
        let topics = self.topics.len().max(1);
        let queue = self.topics.entry(topic.clone()).or_insert_with(|| {
            self.round_robin.push_back(topic.clone());
            TopicQueue::default()
        });
        let weight = UPDATE_COST + update.weight();
        let full = self.bytes + weight > limit && queue.bytes + weight > limit / (2 * topics);
        // A single message always finds room, and so does a reply: there is one for each accepted request.
        let (update, lost) = match update {
            TopicUpdate::Batch(forwarded) if full && !queue.updates.is_empty() => {
                let lost = forwarded.metas.len();
                if let Some(TopicUpdate::Missed(missed)) = queue.updates.back_mut() {
                    let before = missed.metas.len();
                    missed.add(&forwarded);
                    let more = (missed.metas.len() - before) * size_of::<FrameMeta>();
                    queue.bytes += more;
                    self.bytes += more;
                    return lost;
                }
                (TopicUpdate::Missed(Missed::new(&forwarded)), lost)
            }
            update => (update, 0),
        };
        let weight = UPDATE_COST + update.weight();
        queue.updates.push_back(update);
        queue.bytes += weight;
        self.bytes += weight;
        if queue.bytes > HIGH_WATER && !queue.congested {
            queue.congested = true;
            congestion.set_congested(topic);
        }
        if queue.congested && queue.bytes > limit / FULL_PART && !queue.full {
            queue.full = true;
            congestion.set_full(topic, true);
        }
        lost
    }

    /// Sends one quantum of each topic in turn while there is room. `send` returns what finds none.
    pub(crate) fn send(
        &mut self,
        congestion: &Congestion,
        mut send: impl FnMut(TopicUpdate) -> Result<(), TopicUpdate>,
    ) -> SendOutcome {
        let mut sent = SendOutcome::default();
        while let Some(topic) = self.round_robin.front().cloned() {
            let Some(queue) = self.topics.get_mut(&topic) else {
                self.round_robin.pop_front();
                continue;
            };
            if queue.credit <= 0 {
                queue.credit += QUANTUM;
            }
            let mut has_room = true;
            while queue.credit > 0
                && let Some(update) = queue.updates.pop_front()
            {
                let weight = UPDATE_COST + update.weight();
                if let Err(update) = send(update) {
                    queue.updates.push_front(update);
                    has_room = false;
                    break;
                }
                queue.bytes -= weight;
                self.bytes -= weight;
                queue.credit = queue.credit.saturating_sub_unsigned(weight);
            }
            if queue.congested && queue.bytes <= LOW_WATER {
                queue.clear_congestion(&topic, congestion);
                sent.congestion_cleared = true;
            }
            if queue.updates.is_empty() {
                self.topics.remove(&topic);
                self.round_robin.pop_front();
            } else if has_room {
                self.round_robin.rotate_left(1);
            }
            if !has_room {
                break;
            }
        }
        if self.is_empty() {
            // A burst may have enlarged the tables.
            *self = Self::default();
        }
        sent
    }

    /// Drops everything: the other worker has ended.
    pub(crate) fn clear(&mut self, congestion: &Congestion) {
        for (topic, mut queue) in self.topics.drain() {
            queue.clear_congestion(&topic, congestion);
        }
        *self = Self::default();
    }

    /// Returns the bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
