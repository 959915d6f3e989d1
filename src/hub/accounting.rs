//! Memory of topics by prefix, and eviction when it exceeds the limit.
//!
//! Each prefix of [`Builder::topics`](crate::Builder::topics), and all other topics together, has a reserved part of
//! `max_history`. A prefix may use more while others leave it free. When the sum exceeds the limit, a prefix above its
//! part gives memory back: prefixes that clients can publish to come first, then the prefix that exceeds its part most.
//! Within a prefix, topics without a message are evicted first, then the oldest messages of a topic that is large and
//! old. So a prefix within its part never loses a message to another one.

use super::index::{Index, TopicKey};
use super::{Millis, OwnedTopic, SettingsTable};
use crate::memory::Shrink;

/// Topics compared for one eviction. Comparing all of them would delay the worker's connections; the heaviest of 16 is
/// among the heaviest eighth in 88 of 100 cases.
const SAMPLE: usize = 16;

/// The fraction of a prefix's reserved memory that topics without a message may use: clients can create names at no
/// cost.
const EMPTY_TOPICS_PART: usize = 4;

/// The memory of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TopicUsage {
    pub(super) bytes: usize,
    /// Whether it includes messages.
    pub(super) has_messages: bool,
}

/// Topics that use memory, and the sum.
#[derive(Debug, Default)]
struct TopicSet {
    topics: Vec<TopicKey>,
    bytes: usize,
    /// The index at which the next sample begins.
    cursor: usize,
}

#[derive(Debug, Default)]
struct PrefixAccount {
    /// Bytes that other prefixes can't use.
    reserved: usize,
    /// Clients can create topics here by publishing.
    clients_publish: bool,
    empty_topics: TopicSet,
    histories: TopicSet,
}

impl TopicSet {
    /// Returns the heaviest topic of a sample, and the second largest weight.
    fn heaviest(
        &mut self,
        index: &mut Index,
        now: Millis,
        protected: Option<TopicKey>,
    ) -> Option<(TopicKey, u64)> {
        let (mut heaviest, mut second) = (None, 0);
        for _ in 0..self.topics.len().min(SAMPLE) {
            self.cursor = if self.cursor + 1 < self.topics.len() { self.cursor + 1 } else { 0 };
            let key = self.topics[self.cursor];
            let in_use = !index.subscribers(key).is_empty();
            let Some(owned) = index.owned_mut(key).filter(|_| protected != Some(key)) else { continue };
            let weight = owned.eviction_weight(now, in_use);
            match heaviest {
                Some((_, most)) if weight <= most => second = second.max(weight),
                _ => second = heaviest.replace((key, weight)).map_or(0, |(_, weight)| weight),
            }
        }
        heaviest.map(|(key, _)| (key, second))
    }
}

impl PrefixAccount {
    fn held(&self) -> usize {
        self.empty_topics.bytes + self.histories.bytes
    }

    fn list(&mut self, held: TopicUsage) -> Option<&mut TopicSet> {
        match held {
            TopicUsage { bytes: 0, .. } => None,
            TopicUsage { has_messages: false, .. } => Some(&mut self.empty_topics),
            TopicUsage { has_messages: true, .. } => Some(&mut self.histories),
        }
    }
}

/// What was evicted since the counters were last read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Evicted {
    /// Messages, and how many of them made room for another prefix.
    pub(crate) messages: u64,
    pub(crate) for_others: u64,
    /// Topics without a message, with their positions and idempotency keys.
    pub(crate) topics: u64,
}

/// The memory accounting of one worker.
#[derive(Debug)]
pub(crate) struct MemoryAccounting {
    by_prefix: Box<[PrefixAccount]>,
    held: usize,
    limit: usize,
    /// Prefixes with topics that were added since room was last made.
    grown_prefixes: Vec<u32>,
    pub(crate) evicted: Evicted,
}

impl MemoryAccounting {
    /// Each worker has an equal part of the limit and of each reservation.
    pub(super) fn new(settings: &SettingsTable, workers: usize) -> Self {
        let account = |prefix: usize| {
            let (reserved, clients_publish) = settings.reservation(prefix);
            PrefixAccount { reserved: reserved / workers, clients_publish, ..PrefixAccount::default() }
        };
        Self {
            by_prefix: (0..settings.prefixes()).map(account).collect(),
            held: 0,
            limit: settings.max_history / workers,
            grown_prefixes: Vec::new(),
            evicted: Evicted::default(),
        }
    }

    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Adds a new topic. Room is made later, by [`MemoryAccounting::evict_pending`], since the caller still uses the
    /// topic.
    pub(super) fn add_topic(&mut self, owned: &mut OwnedTopic, key: TopicKey) {
        let held = owned.held();
        if let Some(list) = self.by_prefix[owned.prefix as usize].list(held) {
            self.held += held.bytes;
            list.bytes += held.bytes;
            owned.list_index = list.topics.len() as u32;
            list.topics.push(key);
            if self.grown_prefixes.last() != Some(&owned.prefix) {
                self.grown_prefixes.push(owned.prefix);
            }
        }
    }

    /// Makes room for new topics.
    pub(super) fn evict_pending(&mut self, index: &mut Index, now: Millis) {
        while let Some(prefix) = self.grown_prefixes.pop() {
            self.make_room(index, now, prefix, None);
        }
    }

    /// Changes a topic that is owned here and updates the accounting.
    pub(super) fn change<R>(
        &mut self,
        index: &mut Index,
        key: TopicKey,
        change: impl FnOnce(&mut OwnedTopic) -> R,
    ) -> Option<R> {
        let owned = index.owned_mut(key)?;
        let before = owned.held();
        let result = change(owned);
        let after = owned.held();
        if before != after {
            self.record_change(index, key, before, after);
        }
        Some(result)
    }

    fn record_change(&mut self, index: &mut Index, key: TopicKey, before: TopicUsage, after: TopicUsage) {
        let Some(owned) = index.owned_mut(key) else { return };
        self.held = self.held - before.bytes + after.bytes;
        let account = &mut self.by_prefix[owned.prefix as usize];
        let at = owned.list_index as usize;
        let moves = before.bytes == 0 || after.bytes == 0 || before.has_messages != after.has_messages;
        if let Some(list) = account.list(after) {
            list.bytes += after.bytes;
            if moves {
                owned.list_index = list.topics.len() as u32;
                list.topics.push(key);
            }
        }
        if let Some(list) = account.list(before) {
            list.bytes -= before.bytes;
            if moves {
                list.topics.swap_remove(at);
                list.topics.shrink();
                if let Some(moved) = list.topics.get(at).and_then(|moved| index.owned_mut(*moved)) {
                    moved.list_index = at as u32;
                }
            }
        }
    }

    /// Evicts until the prefix that has grown, and the sum, are within their limits. The topic `protected`, which has
    /// just grown, is spared.
    pub(super) fn make_room(
        &mut self,
        index: &mut Index,
        now: Millis,
        grown: u32,
        protected: Option<TopicKey>,
    ) {
        let grown = grown as usize;
        while self.by_prefix[grown].empty_topics.bytes > self.by_prefix[grown].reserved / EMPTY_TOPICS_PART {
            let empty_topics = &mut self.by_prefix[grown].empty_topics;
            let Some((name, _)) = empty_topics.heaviest(index, now, protected) else { break };
            self.evict_empty_topic(index, name);
        }
        while self.held > self.limit {
            let over = |account: &PrefixAccount| account.held().saturating_sub(account.reserved);
            let victims = self.by_prefix.iter_mut().enumerate().filter(|(_, account)| over(account) > 0);
            let Some((victim, account)) = victims.max_by_key(|(_, a)| (a.clients_publish, over(a))) else {
                return;
            };
            let over = over(account);
            if let Some((name, _)) = account.empty_topics.heaviest(index, now, protected) {
                self.evict_empty_topic(index, name);
            } else if let Some((topic, next)) = account.histories.heaviest(index, now, protected) {
                let messages = self.evict_messages(index, now, topic, over, next);
                self.evicted.for_others += if victim == grown { 0 } else { messages };
            } else {
                return;
            }
        }
    }

    fn evict_empty_topic(&mut self, index: &mut Index, key: TopicKey) {
        self.change(index, key, OwnedTopic::evict);
        self.evicted.topics += 1;
        index.remove_unused(key);
    }

    /// Evicts the oldest messages of a topic until there is room, its prefix is no longer `over` its part, or another
    /// topic is heavier. Returns their number.
    fn evict_messages(
        &mut self,
        index: &mut Index,
        now: Millis,
        key: TopicKey,
        over: usize,
        next: u64,
    ) -> u64 {
        let excess = self.held.saturating_sub(self.limit).min(over);
        let messages = self.change(index, key, |owned| {
            let (before, mut messages) = (owned.held().bytes, 0);
            while !owned.history.is_empty() {
                owned.history.pop();
                messages += 1;
                if before - owned.held().bytes >= excess || owned.eviction_weight(now, true) < next {
                    break;
                }
            }
            messages
        });
        let messages = messages.unwrap_or(0);
        self.evicted.messages += messages;
        index.remove_unused(key);
        messages
    }

    /// Bytes of topics without and with messages, by prefix.
    #[cfg(test)]
    pub(super) fn sums(&self) -> Vec<(usize, usize)> {
        self.by_prefix.iter().map(|account| (account.empty_topics.bytes, account.histories.bytes)).collect()
    }

    #[cfg(test)]
    pub(super) fn reserved(&self, prefix: usize) -> usize {
        self.by_prefix[prefix].reserved
    }
}
