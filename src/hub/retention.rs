//! What topics keep for those who come back: what a turn published goes into the histories, and a walk over all topics
//! gives up what is too old. What they may hold stands in [`MemoryAccounting`](super::accounting::MemoryAccounting).

use super::delivery_queue::DeliveryQueue;
use super::{Batch, HistoryEntry, Hub, Millis, OwnedTopic, history};
use crate::memory::Shrink;

/// Topics looked at in one step of the walk.
const TOPICS_PER_STEP: usize = 1024;

impl Hub {
    /// Keeps what this turn published to topics with a history.
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

    /// Whether anything is kept that will be too old some day.
    pub(crate) fn holds_history(&self) -> bool {
        self.accounting.held() > 0
    }

    /// Gives up what is too old in some topics, and goes on with others the next time.
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
    /// Bytes of memory in use, about: what is kept and who subscribes to what.
    pub(crate) fn footprint(&self) -> usize {
        let waiting: usize = self.delivery_queues.iter().map(DeliveryQueue::bytes).sum();
        self.accounting.held() + self.index.footprint() + self.batch_log.spare_bytes() + waiting
    }

    /// Gives back half of the buffers that are kept for later. The log is empty.
    pub(crate) fn trim(&mut self) {
        self.batch_log.trim();
        self.recovery_requests.shrink();
    }
}

/// Gives back what its tables have beyond what is in them.
impl Shrink for Hub {
    fn shrink(&mut self) {
        self.index.shrink();
        self.remote_patterns.shrink();
        self.pending_recoveries.shrink();
    }
}

/// Puts a run into its topic's history.
fn record_batch(owned: &mut OwnedTopic, batch: &mut Batch, now: Millis) {
    let (key, first, age) = (batch.key, batch.position.offset, owned.settings.max_age());
    owned.history.expire(now);
    let (skip, mut start) = history::skip_to_fit(batch.metas(), &owned.settings);
    if skip > 0 {
        owned.history.clear(); // what came before the messages that find no room goes before them
    }
    // What is kept holds its whole run: of one that is mostly given up at once, it is copied.
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
