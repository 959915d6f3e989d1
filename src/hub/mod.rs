//! Publish and subscribe on one worker: the [`Index`] of subscribers, the [`BatchLog`] of what this iteration
//! published, and the [`OwnedTopic`] that a topic's owner keeps.
//!
//! With several workers each topic has an owner: the worker that its name hashes to. A message goes to the owner first,
//! which assigns its offset, puts it into a batch with its neighbours, records it if the topic has a history, and
//! forwards the batch to the workers that have subscribers. One thread decides the order and channels preserve it, so
//! all subscribers of the node see a topic's messages in the same order.
//!
//! ```text
//!   any thread ─ publish ─▶ owner ─┬─ offset, history ─▶ its own subscribers
//!                                  └─ batch ─▶ other workers with subscribers ─▶ theirs
//!   a connection that recovers: its worker ─ RecoveryRequest(position) ─▶ owner ─ RecoveryReply(replay) ─▶ its worker
//! ```
//! The reply to a recovery request takes its place among the batches: messages before it are in the replay, messages
//! behind it are live. So none is missing and none arrives twice.

mod accounting;
mod batch;
mod congestion;
mod delivery_queue;
pub(crate) mod envelope;
mod epochs;
#[cfg(test)]
mod eviction_tests;
pub(crate) mod flow_control;
#[cfg(test)]
mod flow_tests;
mod forwarding;
mod history;
mod index;
mod owned_topic;
mod owners;
mod publication;
mod publisher_shares;
mod query;
mod recovery;
mod retention;
mod settings;
mod tags;
#[cfg(test)]
mod tests;
pub(crate) mod topic;

/// Replies to what is asked of a worker; a publication may be refused.
pub(crate) type ReplySender<T> = crate::sync::ReplySender<T, TopicLimitExceeded>;
pub(crate) type PendingReply<T> = crate::sync::PendingReply<T, TopicLimitExceeded>;
pub(crate) type NoReply = crate::sync::NoReply<TopicLimitExceeded>;

pub(crate) use accounting::{Evicted, MemoryAccounting};
pub(crate) use batch::{Batch, BatchLog, FrameMeta, Placement, Recipient};
pub(crate) use congestion::Congestion;
use delivery_queue::DeliveryQueue;
pub(crate) use delivery_queue::{Missed, TopicUpdate};
pub(crate) use envelope::Envelopes;
pub use envelope::{Delivered, Envelope};
pub(crate) use epochs::Epochs;
use forwarding::ForwardQueue;
pub(crate) use forwarding::Outgoing;
pub(crate) use history::{HistoryEntry, Millis};
pub use index::SubscribeError;
pub(crate) use index::{Index, TopicKey};
pub(crate) use owned_topic::OwnedTopic;
pub(crate) use owners::Owners;
pub(crate) use publication::{ForwardedBatch, PublishReply, PublishRequest, TopicLimitExceeded};
pub use publication::{Publish, Published};
pub use query::{HistoryMessage, HistoryPage, TopicInfo, TopicList};
use recovery::PendingRecoveries;
pub(crate) use recovery::{RecoveryReply, RecoveryRequest, SubscribeTarget, Unsubscribed};
pub use recovery::{Start, Subscribe, Subscribed};
pub use settings::TopicSettings;
pub(crate) use settings::{DEFAULT_MAX_HISTORY, SettingsTable, total_reserved};
pub(crate) use tags::Tags;
#[cfg(any(feature = "push", feature = "api"))]
pub(crate) use tags::{MAX_KEY, MAX_TAG, MAX_TAGS};
pub(crate) use topic::TopicOrPattern;
pub use topic::{InvalidPattern, InvalidTopic, MAX_TOPIC, check as check_topic, check_pattern};

use crate::conn::ConnId;
use core::fmt;
use std::collections::HashMap;
use std::sync::Arc;

/// A position in a topic: behind the message with this offset. Offsets count from 1 in each life of a topic, which the
/// epoch identifies. A topic gets a new epoch after a restart of the server and after it was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Position {
    /// The topic's life. Below 2^53, so that a JSON number in a browser holds it.
    pub epoch: u64,
    /// The last message seen; 0: none yet.
    pub offset: u64,
}

impl Position {
    /// Makes a position that was stored earlier.
    #[must_use]
    pub const fn new(epoch: u64, offset: u64) -> Self {
        Self { epoch, offset }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}:{}", self.epoch, self.offset)
    }
}

/// The outcome of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    /// It existed before.
    Already,
    /// It is new.
    New,
    /// It is the first on this worker of a topic that another worker owns.
    First,
}

/// One worker's part of the hub.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) index: Index,
    pub(crate) batch_log: BatchLog,
    pub(crate) settings: SettingsTable,
    /// Milliseconds since the worker started, at the beginning of this iteration.
    pub(crate) now: Millis,
    /// By owner, publications of this worker that wait for room in the owner's mailbox.
    forward_queues: Vec<ForwardQueue>,
    /// By worker, updates for its subscribers that wait for room in its mailbox.
    delivery_queues: Vec<DeliveryQueue>,
    /// Bytes that may wait for one worker.
    max_waiting: usize,
    congestion: Arc<Congestion>,
    /// A topic owned here is no longer congested: paused publishers may continue, on all workers.
    pub(crate) congestion_cleared: bool,
    /// Another worker has reported that paused publishers may continue.
    release_pending: bool,
    /// Publishers of this worker wait for room in an owner's mailbox.
    awaits_room: bool,
    /// Estimated bytes needed to deliver what arrived through the mailbox, in total.
    work: u64,
    /// The largest share of it that the first message of one batch took in this iteration.
    largest: u64,
    /// Messages lost on their way to other workers since the counter was last read.
    pub(crate) lost_messages: u64,
    /// By owner, changes in the number of subscribers on this worker.
    subscriber_changes: Vec<Vec<(Arc<str>, i32)>>,
    /// Patterns that connections of other workers subscribe to, with the number of subscribers by worker.
    remote_patterns: HashMap<Arc<str>, Vec<(usize, u32)>>,
    pending_recoveries: PendingRecoveries,
    /// Recovery requests of this iteration, sent at its end.
    pub(crate) recovery_requests: Vec<RecoveryRequest>,
    worker: usize,
    owners: Owners,
    epochs: Epochs,
    /// The memory of topics owned here.
    pub(crate) accounting: MemoryAccounting,
    expiry_cursor: usize,
    /// Publications refused since the counter was last read.
    pub(crate) refused_publications: u64,
}

impl Hub {
    /// `owners` is the same for all workers; `epochs` is different for each worker and each start of the server.
    pub(crate) fn new(worker: usize, owners: Owners, settings: SettingsTable, epochs: Epochs) -> Self {
        let workers = owners.workers();
        Self {
            index: Index::default(),
            batch_log: BatchLog::default(),
            accounting: MemoryAccounting::new(&settings, workers),
            settings,
            now: 0,
            forward_queues: (0..workers).map(|_| ForwardQueue::default()).collect(),
            delivery_queues: (0..workers).map(|_| DeliveryQueue::default()).collect(),
            max_waiting: usize::MAX,
            congestion: Arc::default(),
            congestion_cleared: false,
            release_pending: false,
            awaits_room: false,
            work: 0,
            largest: 0,
            lost_messages: 0,
            subscriber_changes: (0..workers).map(|_| Vec::new()).collect(),
            remote_patterns: HashMap::new(),
            pending_recoveries: PendingRecoveries::default(),
            recovery_requests: Vec::new(),
            worker,
            owners,
            epochs,
            refused_publications: 0,
            expiry_cursor: 0,
        }
    }

    pub(crate) fn is_single_worker(&self) -> bool {
        self.forward_queues.len() == 1
    }

    pub(crate) fn owns(&self, topic: &str) -> bool {
        self.is_single_worker() || self.owners.of(topic) == self.worker
    }

    // ---- publishing ----

    /// Publishes on behalf of a connection of this worker.
    pub(crate) fn publish(&mut self, publish: Publish<'_>) -> Result<(), InvalidTopic> {
        let topic = publish.topic;
        if !self.owns(topic) {
            topic::check(topic)?;
            self.forward(PublishRequest::new(publish));
            return Ok(());
        }
        if publish.idempotency_key.is_some() || publish.ttl > 0 || !publish.tags.is_empty() {
            topic::check(topic)?;
            self.publish_owned(PublishRequest::new(publish));
            return Ok(());
        }
        if let Some(key) = self.find_active(topic)?
            && let Ok(placement) = self.assign_offset(key, publish.message.len(), publish.publisher)
        {
            self.batch_log.append(key, publish.message, publish.except, placement);
        }
        Ok(())
    }

    /// Publishes to a topic that this worker owns. Returns the reply to be sent, if one is awaited.
    pub(crate) fn publish_owned(&mut self, publication: PublishRequest) -> Option<PublishReply> {
        let PublishRequest {
            topic,
            frames,
            len,
            key: message_key,
            except,
            publisher,
            idempotency_key,
            ttl,
            json,
            tags,
            reply,
        } = publication;
        let Ok(Some(key)) = self.find_active(&topic) else {
            return reply.map(|reply| (reply, Ok(None)));
        };
        let now = self.now;
        let repeated = idempotency_key.as_deref().and_then(|id| self.owned_topic(key).offset_of_key(id, now));
        let offset = match repeated {
            Some(offset) => offset,
            None => match self.assign_offset(key, len, publisher) {
                Ok(placement) => {
                    let meta = FrameMeta { end: 0, except, ttl, json, tags };
                    let batches = self.batch_log.len();
                    self.batch_log.append_frames(key, frames, message_key, meta, placement);
                    self.count_work(key, len, self.batch_log.len() > batches);
                    if let Some(id) = &idempotency_key {
                        let offset = placement.position.offset;
                        self.grow_topic(key, |owned| owned.remember_key(id, offset, now));
                    }
                    placement.position.offset
                }
                Err(refused) => return reply.map(|reply| (reply, Err(refused))),
            },
        };
        let reply = reply?;
        let position = Position { epoch: self.owned_topic(key).epoch, offset };
        let receivers = self.count_receivers(key);
        Some((reply, Ok(Some(Published { position, receivers, repeated: repeated.is_some() }))))
    }

    /// Finds the topic if it has subscribers on any worker or a history. Called on its owner.
    fn find_active(&mut self, name: &str) -> Result<Option<TopicKey>, InvalidTopic> {
        if let Some(key) = self.index.find(name)
            && !topic::is_pattern(name)
        {
            return Ok(Some(key));
        }
        topic::check(name)?;
        let has_pattern_subscriber = || {
            let elsewhere = |pattern: String| self.remote_patterns.contains_key(&*pattern);
            !self.index.matching_patterns(name).is_empty()
                || !self.remote_patterns.is_empty() && topic::matching_patterns(name).any(elsewhere)
        };
        let wanted = self.settings.of(name).has_history() || has_pattern_subscriber();
        Ok(wanted.then(|| self.index.find_or_add(name)))
    }

    fn owned_topic(&mut self, key: TopicKey) -> &mut OwnedTopic {
        let Self { index, settings, epochs, accounting, now, .. } = self;
        index.owned_or_insert(key, |name| {
            let (prefix, settings) = settings.find(name);
            let mut owned = OwnedTopic::new(epochs.next(), settings.clone(), prefix);
            owned.retain(*now);
            accounting.add_topic(&mut owned, key);
            owned
        })
    }

    /// Changes a topic in a way that adds memory, and evicts from others where the limit is exceeded.
    fn grow_topic(&mut self, key: TopicKey, change: impl FnOnce(&mut OwnedTopic)) {
        let Self { index, accounting, now, .. } = self;
        let prefix = accounting.change(index, key, |owned| {
            change(owned);
            owned.prefix
        });
        if let Some(prefix) = prefix {
            accounting.make_room(index, *now, prefix, Some(key));
        }
    }

    /// Assigns the next message its offset, and pins the topic while the batch log refers to it.
    fn assign_offset(
        &mut self,
        key: TopicKey,
        len: usize,
        publisher: Option<ConnId>,
    ) -> Result<Placement, TopicLimitExceeded> {
        let now = self.now;
        let owned = self.owned_topic(key);
        let (placement, is_limited) =
            (owned.assign_offset(len, publisher, now), owned.settings.rate.is_some());
        if is_limited {
            self.grow_topic(key, OwnedTopic::retain_for_rate);
        }
        match placement {
            Ok(_) => self.index.pin(key),
            Err(_) => {
                self.refused_publications += 1;
                // The topic may have been created for this message. If the batch log refers to it, it is pinned and
                // stays: a batch of a removed topic would find another topic under its key.
                self.index.remove_unused(key);
            }
        }
        placement
    }

    /// Counts the connections that receive a topic's messages, as far as its owner knows.
    fn count_receivers(&mut self, key: TopicKey) -> usize {
        let name = self.index.name(key).clone();
        let here: usize =
            self.index.matching_patterns(&name).iter().map(|p| self.index.subscribers(*p).len()).sum();
        let elsewhere: usize = match self.remote_patterns.is_empty() {
            true => 0,
            false => topic::matching_patterns(&name)
                .filter_map(|pattern| self.remote_patterns.get(&*pattern))
                .flat_map(|workers| workers.iter().map(|(_, count)| *count as usize))
                .sum(),
        };
        let exactly = self.index.subscribers(key).len() + self.owned_topic(key).remote_subscriber_count();
        exactly + here + elsewhere
    }

    /// Takes a batch that the topic's owner forwarded.
    pub(crate) fn receive_batch(&mut self, forwarded: &ForwardedBatch) {
        let ForwardedBatch { topic, frames, metas, key: message_key, position, envelopes } = forwarded;
        let key = match self.index.find(topic) {
            Some(key) => key,
            None if self.index.matching_patterns(topic).is_empty() => return,
            None => self.index.find_or_add(topic),
        };
        self.index.pin(key);
        let placement = Placement { position: *position, policy: self.settings.of(topic).slow_consumer };
        let envelopes = Some(envelopes.clone());
        self.batch_log.append_batch(key, frames.clone(), metas.to_vec(), *message_key, envelopes, placement);
        self.count_work(key, frames.len(), true);
    }

    // ---- subscribing ----

    /// Subscribes and reports whether the subscription is new. After the first one of a topic on this worker, the
    /// [changes](Hub::take_subscriber_changes) must be sent at once: the owner has to know the subscriber before
    /// anybody who learns of the subscription publishes.
    pub(crate) fn subscribe(
        &mut self,
        slot: u32,
        to: &TopicOrPattern<'_>,
        tags: Option<Tags>,
        limit: usize,
    ) -> Result<Added, SubscribeError> {
        if !self.index.subscribe(slot, to.as_str(), tags, limit)? {
            return Ok(Added::Already);
        }
        let name = self.name_of(to.as_str());
        self.record_subscriber_change(&name, 1);
        let first = self.index.find(&name).is_some_and(|key| self.index.subscribers(key).len() == 1);
        let elsewhere = to.is_pattern() || !self.owns(&name);
        Ok(if first && elsewhere && !self.is_single_worker() { Added::First } else { Added::New })
    }

    /// Takes the changes in subscribers that other workers have to know, by worker.
    pub(crate) fn take_subscriber_changes(&mut self) -> impl Iterator<Item = (usize, Vec<(Arc<str>, i32)>)> {
        let changed =
            self.subscriber_changes.iter_mut().enumerate().filter(|(_, changed)| !changed.is_empty());
        changed.map(|(worker, changed)| (worker, core::mem::take(changed)))
    }

    fn name_of(&self, topic: &str) -> Arc<str> {
        self.index.find(topic).map_or_else(|| topic.into(), |key| self.index.name(key).clone())
    }

    /// Ends a subscription and cancels a pending recovery.
    pub(crate) fn unsubscribe(&mut self, conn: ConnId, from: &TopicOrPattern<'_>) -> Unsubscribed {
        let topic = from.as_str();
        let name = self.name_of(topic);
        let cancelled = self.pending_recoveries.cancel(conn, &name);
        let ended = self.index.unsubscribe(conn.slot() as u32, topic);
        if ended {
            self.record_subscriber_change(&name, -1);
        }
        Unsubscribed { ended, cancelled }
    }

    /// Ends the subscriptions of a connection that has ended.
    pub(crate) fn remove(&mut self, conn: ConnId) {
        let Self { index, subscriber_changes, worker, owners, pending_recoveries, recovery_requests, .. } =
            self;
        let alone = subscriber_changes.len() == 1;
        index.remove(conn.slot() as u32, |name| {
            if !alone {
                record_change(subscriber_changes, *worker, owners, name, -1);
            }
        });
        if pending_recoveries.remove(conn) {
            recovery_requests.retain(|request| request.conn != conn);
        }
    }

    fn record_subscriber_change(&mut self, name: &Arc<str>, change: i32) {
        if !self.is_single_worker() {
            record_change(&mut self.subscriber_changes, self.worker, &self.owners, name, change);
        }
    }

    /// Applies changes in another worker's subscribers.
    pub(crate) fn apply_subscriber_changes(&mut self, from: usize, changes: Vec<(Arc<str>, i32)>) {
        for (name, change) in changes {
            if topic::is_pattern(&name) {
                self.apply_pattern_change(from, name, change);
                continue;
            }
            let key = match self.index.find(&name) {
                Some(key) => key,
                None if change < 0 => continue,
                None => self.index.find_or_add(&name),
            };
            self.owned_topic(key).change_remote_subscribers(from, change);
            self.index.remove_unused(key);
        }
    }

    fn apply_pattern_change(&mut self, from: usize, name: Arc<str>, change: i32) {
        let workers = self.remote_patterns.entry(name.clone()).or_default();
        match workers.iter_mut().find(|(worker, _)| *worker == from) {
            Some((_, count)) => *count = count.saturating_add_signed(change),
            None => workers.push((from, change.max(0) as u32)),
        }
        workers.retain(|(_, count)| *count > 0);
        if workers.is_empty() {
            self.remote_patterns.remove(&name);
        }
    }

    // ---- the end of an iteration ----

    /// Clears the batch log.
    pub(crate) fn end_iteration(&mut self) {
        let Self { index, batch_log, .. } = self;
        batch_log.clear(|topic| index.unpin(topic));
    }
}

/// Records a change in a topic's subscribers for its owner, or for all workers where it is a pattern.
fn record_change(
    changes: &mut [Vec<(Arc<str>, i32)>],
    me: usize,
    owners: &Owners,
    name: &Arc<str>,
    change: i32,
) {
    if topic::is_pattern(name) {
        for (_, changed) in changes.iter_mut().enumerate().filter(|(worker, _)| *worker != me) {
            changed.push((name.clone(), change));
        }
        return;
    }
    let owner = owners.of(name);
    if owner != me {
        changes[owner].push((name.clone(), change));
    }
}
