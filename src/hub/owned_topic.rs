//! What a topic's owner knows about it: the next offset, the history, and which other workers have subscribers.

use super::accounting::TopicUsage;
use super::history::{History, HistoryEntry, Millis};
use super::publisher_shares::PublisherShares;
use super::{Placement, Position, Start, Tags, TopicLimitExceeded, TopicSettings};
use crate::conn::ConnId;
use crate::memory::Shrink;
use crate::sync::rate::Nanos;
use core::time::Duration;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Idempotency keys remembered for each topic.
const MAX_IDEMPOTENCY_KEYS: usize = 1024;

/// How long an idempotency key is remembered.
const IDEMPOTENCY_KEY_AGE: Millis = 5 * 60 * 1000;

const NANOS_PER_MILLI: Nanos = 1_000_000;

/// A topic on the worker that owns it.
#[derive(Debug)]
pub(crate) struct OwnedTopic {
    /// Identifies this life of the topic: offsets of another epoch are meaningless.
    pub(crate) epoch: u64,
    /// The offset of the next message; the first is 1.
    pub(crate) next: u64,
    pub(crate) settings: Arc<TopicSettings>,
    /// The index of the prefix that the settings belong to.
    pub(super) prefix: u32,
    /// Its index in its list of [`MemoryAccounting`](super::accounting::MemoryAccounting), while it uses memory.
    pub(super) list_index: u32,
    pub(crate) history: History,
    /// Subscribers on other workers, by worker.
    remote_subscribers: Vec<(u16, u32)>,
    idempotency_keys: Option<Box<IdempotencyKeys>>,
    /// Until when the topic stays without messages and subscribers, so that a sole subscriber can reconnect and
    /// recover, and publishers' keys and rates outlive the last subscriber.
    retained_until: Option<Millis>,
    /// How its publishers have used its rate; none without a rate or recent publishers.
    shares: Option<Box<PublisherShares>>,
}

/// The memory of a topic beside its messages: its name, its entries in two tables, and this struct.
const TOPIC_COST: usize = 1024;

#[derive(Debug, Default)]
struct IdempotencyKeys {
    offsets: HashMap<Arc<str>, (u64, Millis)>,
    order: VecDeque<(Arc<str>, Millis)>,
    /// Estimated bytes of memory.
    cost: usize,
}

/// The cost of an idempotency key beside its bytes: its entries in the two tables.
const IDEMPOTENCY_KEY_COST: usize = 96;

impl IdempotencyKeys {
    /// Removes keys that are too old, and the oldest above `most`.
    fn expire(&mut self, now: Millis, most: usize) {
        while let Some((oldest, _)) = self
            .order
            .front()
            .filter(|(_, born)| born + IDEMPOTENCY_KEY_AGE <= now || self.order.len() > most)
        {
            self.cost -= oldest.len() + IDEMPOTENCY_KEY_COST;
            self.offsets.remove(oldest);
            self.order.pop_front();
        }
        self.order.shrink();
        self.offsets.shrink();
    }
}

impl OwnedTopic {
    pub(crate) fn new(epoch: u64, settings: Arc<TopicSettings>, prefix: u32) -> Self {
        let (history, remote_subscribers, shares) = (History::default(), Vec::new(), None);
        let (idempotency_keys, retained_until, list_index) = (None, None, 0);
        Self {
            epoch,
            next: 1,
            settings,
            prefix,
            list_index,
            history,
            remote_subscribers,
            idempotency_keys,
            retained_until,
            shares,
        }
    }

    /// Returns whether the topic can be removed: it has no subscribers on other workers and uses no memory.
    pub(crate) fn is_idle(&self) -> bool {
        self.remote_subscribers.is_empty() && self.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.history.is_empty() && self.retained_until.is_none() && self.idempotency_keys.is_none()
    }

    /// Retains the topic for as long as its messages would be kept, if it has a history.
    pub(crate) fn retain(&mut self, now: Millis) {
        if self.settings.has_history() {
            self.retain_until(now.saturating_add(self.settings.max_age()));
        }
    }

    /// Retains the topic at least until then.
    fn retain_until(&mut self, until: Millis) {
        self.retained_until = Some(self.retained_until.unwrap_or(0).max(until));
    }

    /// Expires what is too old. `in_use` is whether the topic has subscribers on this worker. Called now and then.
    pub(crate) fn maintain(&mut self, now: Millis, in_use: bool) {
        self.expire(now);
        if let Some(shares) = &mut self.shares {
            shares.expire(now * NANOS_PER_MILLI);
        }
        if self.retained_until.is_some()
            && (in_use || !self.remote_subscribers.is_empty() || !self.history.is_empty())
        {
            self.retain(now);
        }
        self.retained_until = self.retained_until.filter(|until| *until > now);
    }

    /// Removes messages and idempotency keys that are too old.
    pub(crate) fn expire(&mut self, now: Millis) {
        self.history.expire(now);
        if let Some(idempotency_keys) = &mut self.idempotency_keys {
            idempotency_keys.expire(now, MAX_IDEMPOTENCY_KEYS);
            if idempotency_keys.order.is_empty() {
                self.idempotency_keys = None;
            }
        }
    }

    /// Removes the messages, the idempotency keys and the retention.
    pub(crate) fn evict(&mut self) {
        self.history.clear();
        (self.retained_until, self.idempotency_keys) = (None, None);
    }

    /// Returns the estimated memory beyond that of a topic with subscribers only.
    pub(super) fn held(&self) -> TopicUsage {
        let has_messages = !self.history.is_empty();
        if self.is_empty() {
            return TopicUsage { bytes: 0, has_messages };
        }
        let idempotency_keys =
            self.idempotency_keys.as_ref().map_or(0, |idempotency_keys| idempotency_keys.cost);
        TopicUsage { bytes: self.history.cost() + idempotency_keys + TOPIC_COST, has_messages }
    }

    /// Returns the weight for eviction; the heaviest topic is evicted first. A history weighs its bytes times the age
    /// of its oldest message. A topic without a message weighs more if it has no subscribers, and more the sooner its
    /// retention ends.
    pub(super) fn eviction_weight(&self, now: Millis, in_use: bool) -> u64 {
        const HALF: u64 = u64::MAX / 2;
        match self.history.oldest_remove_at() {
            Some(remove_at) => {
                let age = (now + self.settings.max_age()).saturating_sub(remove_at);
                (self.held().bytes as u64).saturating_mul(1 + age)
            }
            None => {
                let soon = HALF - self.retained_until.unwrap_or(0).min(HALF);
                if in_use || !self.remote_subscribers.is_empty() { soon } else { HALF + soon }
            }
        }
    }

    /// Returns the messages for a subscription with this filter that begins at `start`, at most `most`; `None` if the
    /// history does not reach back that far.
    pub(crate) fn messages_from(
        &self,
        start: Start,
        tags: Option<&Tags>,
        now: Millis,
        most: usize,
    ) -> Option<Vec<&HistoryEntry>> {
        let wanted =
            |e: &&HistoryEntry| e.expires_at > now && tags.is_none_or(|tags| tags.matches(e.tags.as_ref()));
        match start {
            Start::Now => None,
            Start::Last(n) => Some(self.history.last(n, wanted)),
            Start::Latest => Some(self.history.latest(wanted)),
            Start::Since(at) if at.epoch == self.epoch => {
                Some(self.history.since(at.offset, self.next)?.filter(wanted).take(most).collect())
            }
            Start::Since(_) => None,
        }
    }

    /// Returns the position behind the last message.
    pub(crate) fn position(&self) -> Position {
        Position { epoch: self.epoch, offset: self.next - 1 }
    }

    /// Assigns a message of `len` bytes its offset. `publisher` is the connection that publishes, or none for the
    /// program.
    pub(crate) fn assign_offset(
        &mut self,
        len: usize,
        publisher: Option<ConnId>,
        now: Millis,
    ) -> Result<Placement, TopicLimitExceeded> {
        let limit = self.settings.max_message_size;
        if len > limit {
            return Err(TopicLimitExceeded::TooBig { len, limit });
        }
        if let Some(rate) = self.settings.rate {
            let shares = self.shares.get_or_insert_default();
            let taken = shares.take(rate, publisher, now * NANOS_PER_MILLI);
            taken.map_err(|early| TopicLimitExceeded::RateLimited { early: Duration::from_nanos(early) })?;
        }
        self.next += 1;
        Ok(Placement { position: self.position(), policy: self.settings.slow_consumer })
    }

    /// Records that subscribers were added on another worker, or removed.
    pub(crate) fn change_remote_subscribers(&mut self, worker: usize, change: i32) {
        let worker = worker as u16;
        match self.remote_subscribers.iter().position(|(w, _)| *w == worker) {
            Some(at) => {
                let count = &mut self.remote_subscribers[at].1;
                *count = count.saturating_add_signed(change);
                if *count == 0 {
                    self.remote_subscribers.swap_remove(at);
                }
            }
            None if change > 0 => self.remote_subscribers.push((worker, change as u32)),
            None => {}
        }
    }

    /// Returns the other workers that have subscribers.
    pub(crate) fn workers_with_subscribers(&self) -> impl Iterator<Item = usize> {
        self.remote_subscribers.iter().map(|(worker, _)| usize::from(*worker))
    }

    /// Returns the number of subscribers on other workers.
    pub(crate) fn remote_subscriber_count(&self) -> usize {
        self.remote_subscribers.iter().map(|(_, count)| *count as usize).sum()
    }

    /// Returns the offset of an earlier message with this idempotency key.
    pub(crate) fn offset_of_key(&self, id: &str, now: Millis) -> Option<u64> {
        let (offset, born) = self.idempotency_keys.as_ref()?.offsets.get(id)?;
        (born + IDEMPOTENCY_KEY_AGE > now).then_some(*offset)
    }

    /// Remembers an idempotency key, and retains the topic as long.
    pub(crate) fn remember_key(&mut self, id: &str, offset: u64, now: Millis) {
        let idempotency_keys = self.idempotency_keys.get_or_insert_default();
        idempotency_keys.expire(now, MAX_IDEMPOTENCY_KEYS - 1);
        let id: Arc<str> = id.into();
        idempotency_keys.cost += id.len() + IDEMPOTENCY_KEY_COST;
        idempotency_keys.offsets.insert(id.clone(), (offset, now));
        idempotency_keys.order.push_back((id, now));
        self.retain_until(now + IDEMPOTENCY_KEY_AGE);
    }

    /// Retains the topic until its rate has recovered.
    pub(crate) fn retain_for_rate(&mut self) {
        let tat = self.shares.as_ref().map_or(0, |shares| shares.tat());
        self.retain_until(tat / NANOS_PER_MILLI + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned() -> OwnedTopic {
        OwnedTopic::new(7, Arc::new(TopicSettings::new()), 0)
    }

    #[test]
    fn remote_subscriber_counts_never_go_below_zero() {
        let mut owned = owned();
        owned.change_remote_subscribers(2, 1);
        owned.change_remote_subscribers(3, 2);
        owned.change_remote_subscribers(2, -1);
        assert_eq!(owned.workers_with_subscribers().collect::<Vec<_>>(), [3]);
        owned.change_remote_subscribers(5, -1);
        assert_eq!(owned.remote_subscriber_count(), 2);
        owned.change_remote_subscribers(3, -5);
        assert!(owned.is_idle());
    }

    #[test]
    fn idempotency_keys_expire_by_age_and_number() {
        let mut owned = owned();
        owned.remember_key("a", 1, 0);
        assert_eq!(owned.offset_of_key("a", IDEMPOTENCY_KEY_AGE - 1), Some(1));
        assert_eq!(owned.offset_of_key("a", IDEMPOTENCY_KEY_AGE), None);
        for n in 0..=MAX_IDEMPOTENCY_KEYS as u64 {
            owned.remember_key(&n.to_string(), n, 1);
        }
        assert_eq!(owned.offset_of_key("0", 2), None);
        assert_eq!(owned.offset_of_key("1", 2), Some(1));
    }
}
