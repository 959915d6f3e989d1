//! What the home of a topic knows of it: the next offset, what is kept, and which other workers have subscribers.

use super::accounting::TopicUsage;
use super::history::{History, HistoryEntry, Millis};
use super::publisher_shares::PublisherShares;
use super::rate::Nanos;
use super::{Placement, Position, Start, Tags, TopicLimitExceeded, TopicSettings};
use crate::conn::ConnId;
use crate::memory::Shrink;
use core::time::Duration;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Ids of publications that are remembered for each topic, so that a repeated one is not published again.
const MAX_IDEMPOTENCY_KEYS: usize = 1024;

/// How long they are remembered.
const IDEMPOTENCY_KEY_AGE: Millis = 5 * 60 * 1000;

const NANOS_PER_MILLI: Nanos = 1_000_000;

/// A topic at its home.
#[derive(Debug)]
pub(crate) struct OwnedTopic {
    /// Names this life of the topic: offsets of another mean nothing.
    pub(crate) epoch: u64,
    /// The offset of the next message; the first is 1.
    pub(crate) next: u64,
    pub(crate) settings: Arc<TopicSettings>,
    /// The prefix that the settings are of.
    pub(super) prefix: u32,
    /// Its place in its list of [`MemoryAccounting`](super::accounting::MemoryAccounting); means nothing while it holds nothing.
    pub(super) list_index: u32,
    pub(crate) history: History,
    /// Subscribers on other workers, by worker.
    remote_subscribers: Vec<(u16, u32)>,
    idempotency_keys: Option<Box<IdempotencyKeys>>,
    /// It stays although it keeps no message: at least until this. So whoever was the only one to listen finds it again,
    /// and what is remembered of its publishers is not forgotten with its last listener.
    retained_until: Option<Millis>,
    /// What its publishers have taken of its rate; none where there is no rate, or nobody has published lately.
    shares: Option<Box<PublisherShares>>,
}

/// A topic that is there because it keeps something: its name, its place in two tables, what its home knows.
const TOPIC_COST: usize = 1024;

#[derive(Debug, Default)]
struct IdempotencyKeys {
    offsets: HashMap<Arc<str>, (u64, Millis)>,
    order: VecDeque<(Arc<str>, Millis)>,
    /// Bytes of memory, about.
    cost: usize,
}

/// What an id costs beside its bytes: its place in the two tables.
const IDEMPOTENCY_KEY_COST: usize = 96;

impl IdempotencyKeys {
    /// Forgets those that are too old, and the oldest where there are too many.
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

    /// Whether the topic needs no owner any more: it has no subscribers on other workers and holds nothing.
    pub(crate) fn is_idle(&self) -> bool {
        self.remote_subscribers.is_empty() && self.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.history.is_empty() && self.retained_until.is_none() && self.idempotency_keys.is_none()
    }

    /// From here on it stays for as long as its messages would, if it is one that keeps any.
    pub(crate) fn retain(&mut self, now: Millis) {
        if self.settings.has_history() {
            self.retain_until(now.saturating_add(self.settings.max_age()));
        }
    }

    /// It stays at least until then.
    fn retain_until(&mut self, until: Millis) {
        self.retained_until = Some(self.retained_until.unwrap_or(0).max(until));
    }

    /// Looks at it once in a while: `in_use` is whether anybody listens here.
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

    /// Removes what is too old.
    pub(crate) fn expire(&mut self, now: Millis) {
        self.history.expire(now);
        if let Some(idempotency_keys) = &mut self.idempotency_keys {
            idempotency_keys.expire(now, MAX_IDEMPOTENCY_KEYS);
            if idempotency_keys.order.is_empty() {
                self.idempotency_keys = None;
            }
        }
    }

    /// Gives up all that it keeps, and its staying.
    pub(crate) fn evict(&mut self) {
        self.history.clear();
        (self.retained_until, self.idempotency_keys) = (None, None);
    }

    /// What it holds beyond what a topic with listeners does, in bytes of memory, about.
    pub(super) fn held(&self) -> TopicUsage {
        let has_messages = !self.history.is_empty();
        if self.is_empty() {
            return TopicUsage { bytes: 0, has_messages };
        }
        let idempotency_keys =
            self.idempotency_keys.as_ref().map_or(0, |idempotency_keys| idempotency_keys.cost);
        TopicUsage { bytes: self.history.cost() + idempotency_keys + TOPIC_COST, has_messages }
    }

    /// What speaks for evicting from this topic rather than from another: of a history its bytes times the age of its
    /// oldest message; of a topic without a message that nobody is there, and that it would be the first to go.
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

    /// What a subscription with this filter that begins at `start` is given, the first `most` of it; `None` where that
    /// is not there.
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

    /// The place behind the last message.
    pub(crate) fn position(&self) -> Position {
        Position { epoch: self.epoch, offset: self.next - 1 }
    }

    /// The place of the next message, which has so many bytes and comes from this connection, or from the program.
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

    /// So many subscribers came to a worker, or left it.
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

    /// The other workers that have subscribers.
    pub(crate) fn workers_with_subscribers(&self) -> impl Iterator<Item = usize> {
        self.remote_subscribers.iter().map(|(worker, _)| usize::from(*worker))
    }

    /// Subscribers on other workers.
    pub(crate) fn remote_subscriber_count(&self) -> usize {
        self.remote_subscribers.iter().map(|(_, count)| *count as usize).sum()
    }

    /// The offset that a publication with this id was given before.
    pub(crate) fn offset_of_key(&self, id: &str, now: Millis) -> Option<u64> {
        let (offset, born) = self.idempotency_keys.as_ref()?.offsets.get(id)?;
        (born + IDEMPOTENCY_KEY_AGE > now).then_some(*offset)
    }

    /// Remembers an id, and the topic stays as long.
    pub(crate) fn remember_key(&mut self, id: &str, offset: u64, now: Millis) {
        let idempotency_keys = self.idempotency_keys.get_or_insert_default();
        idempotency_keys.expire(now, MAX_IDEMPOTENCY_KEYS - 1);
        let id: Arc<str> = id.into();
        idempotency_keys.cost += id.len() + IDEMPOTENCY_KEY_COST;
        idempotency_keys.offsets.insert(id.clone(), (offset, now));
        idempotency_keys.order.push_back((id, now));
        self.retain_until(now + IDEMPOTENCY_KEY_AGE);
    }

    /// Stays until its rate has nothing more to remember.
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
    fn interest_is_a_sum_that_never_goes_below_nothing() {
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
    fn ids_are_remembered_for_a_while_and_up_to_a_number() {
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
