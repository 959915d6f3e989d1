//! Histories of topics: recording what an iteration published, and expiring what is too old. Limits are in
//! [`MemoryAccounting`](super::accounting::MemoryAccounting).

use super::delivery_queue::DeliveryQueue;
use super::{Batch, HistoryEntry, Hub, Millis, OwnedTopic, history};
use crate::memory::Shrink;

/// Topics checked in one step.
const TOPICS_PER_STEP: usize = 1024;

impl Hub {
    /// Records this iteration's messages of topics with a history.
    pub(crate) fn record_history(&mut self) {
        let Self { index, batch_log, now, accounting, .. } = self;
        accounting.evict_pending(index, *now);
        for batch in batch_log.batches_mut() {
            let key = batch.topic;
            let Some(owned) =
                index.owned_mut(key).filter(|owned| batch.begins_here && owned.settings.has_history())
            else {
                continue;
            };
            let prefix = owned.prefix;
            accounting.change(index, key, |owned| record_batch(owned, batch, *now));
            accounting.make_room(index, *now, prefix, None);
        }
    }

    /// Returns whether anything will expire.
    pub(crate) fn holds_history(&self) -> bool {
        self.accounting.held() > 0
    }

    /// Expires what is too old in some topics, and continues with others at the next call.
    pub(crate) fn expire_topics(&mut self) {
        for _ in 0..TOPICS_PER_STEP {
            let Some(key) = self.index.next_from(self.expiry_cursor) else {
                self.expiry_cursor = 0;
                return;
            };
            self.expiry_cursor = key as usize + 1;
            let now = self.now;
            let in_use = !self.index.subscribers(key).is_empty();
            let Self { index, accounting, .. } = self;
            if accounting.change(index, key, |owned| owned.maintain(now, in_use)).is_some() {
                index.remove_unused(key);
            }
        }
    }
}

impl Hub {
    /// Returns the estimated bytes of memory: histories, subscriptions and queues.
    pub(crate) fn footprint(&self) -> usize {
        let waiting: usize = self.delivery_queues.iter().map(DeliveryQueue::bytes).sum();
        self.accounting.held() + self.index.footprint() + self.batch_log.spare_bytes() + waiting
    }

    /// Frees half of the spare buffers. The batch log must be empty.
    pub(crate) fn trim(&mut self) {
        self.batch_log.trim();
        self.recovery_requests.shrink();
    }
}

/// Frees what tables have beyond their entries.
impl Shrink for Hub {
    fn shrink(&mut self) {
        self.index.shrink();
        self.remote_patterns.shrink();
        self.pending_recoveries.shrink();
    }
}

/// Records a batch in its topic's history.
fn record_batch(owned: &mut OwnedTopic, batch: &mut Batch, now: Millis) {
    let (key, first, age) = (batch.key, batch.position.offset, owned.settings.max_age());
    owned.history.expire(now);
    let (skip, mut start) = history::skip_to_fit(batch.metas(), &owned.settings);
    if skip > 0 {
        owned.history.clear(); // earlier messages are removed before those that don't fit
    }
    // A history keeps the whole buffer of a batch. If most of the batch does not fit, the rest is copied.
    let all = batch.bytes().len();
    let (frames, base) = if start > all / 2 { (batch.copy_from(start), start) } else { (batch.plain(), 0) };
    for (offset, meta) in (first..).zip(batch.metas()).skip(skip) {
        let ttl = if meta.ttl == 0 { age } else { age.min(meta.ttl.into()) };
        let (range, expires_at, remove_at) = (start - base..meta.end - base, now + ttl, now + age);
        let (json, tags, frames) = (meta.json, meta.tags.clone(), frames.clone());
        let entry = HistoryEntry { offset, frames, range, key, json, tags, expires_at, remove_at };
        owned.history.push(entry, &owned.settings);
        start = meta.end;
    }
}
