//! What topics hold, by prefix, and what is evicted when they hold more than they may.
//!
//! Each prefix of [`Builder::topics`](crate::Builder::topics), and all other topics together, has a reserved part of
//! `max_history`. A prefix may take more as long as others leave it free. When all together hold more than they may, a
//! prefix that holds more than its part gives back: first one that clients can publish to, then the one that is over by
//! the most. In a prefix, topics without a message go first, then the oldest messages of a topic that is large and old.
//! So a prefix within its part never loses a message to another, whatever is published there.

use super::index::{Index, TopicKey};
use super::{Millis, OwnedTopic, SettingsTable};
use crate::memory::Shrink;

/// Topics compared for one eviction. Comparing all of them would hold up the worker's connections; of 16, one is among the
/// eighth with the most weight in 88 of 100 cases.
const SAMPLE: usize = 16;

/// Topics without a message hold at most this part of what is reserved for their prefix: names cost their inventor
/// nothing.
const EMPTY_TOPICS_PART: usize = 4;

/// What one topic holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TopicUsage {
    pub(super) bytes: usize,
    /// Whether any of it is a message.
    pub(super) has_messages: bool,
}

/// Topics that hold something, and the sum.
#[derive(Debug, Default)]
struct TopicSet {
    topics: Vec<TopicKey>,
    bytes: usize,
    /// Where the next sample begins.
    cursor: usize,
}

#[derive(Debug, Default)]
struct PrefixAccount {
    /// Bytes that other prefixes can't take.
    reserved: usize,
    /// Clients can name topics here and publish to them.
    clients_publish: bool,
    empty_topics: TopicSet,
    histories: TopicSet,
}

impl TopicSet {
    /// Of a sample, the topic with the most weight, and the second weight.
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

/// What was evicted since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Evicted {
    /// Messages, and those among them that another prefix needed the room of.
    pub(crate) messages: u64,
    pub(crate) for_others: u64,
    /// Topics without a message, with their positions and idempotency keys.
    pub(crate) topics: u64,
}

/// The accounts of one worker.
#[derive(Debug)]
pub(crate) struct MemoryAccounting {
    by_prefix: Box<[PrefixAccount]>,
    held: usize,
    limit: usize,
    /// Prefixes that have got topics since room was last made.
    grown_prefixes: Vec<u32>,
    pub(crate) evicted: Evicted,
}

impl MemoryAccounting {
    /// Each worker has an equal part of everything.
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

    /// Books a topic that is new. Room for it is made later ([`MemoryAccounting::settle`]): whoever has just made it goes on with it.
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

    /// Makes room for topics that are new.
    pub(super) fn evict_pending(&mut self, index: &mut Index, now: Millis) {
        while let Some(prefix) = self.grown_prefixes.pop() {
            self.make_room(index, now, prefix, None);
        }
    }

    /// Changes a topic, if it has an owner's part here, and books what it holds then.
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

    /// Evicts what a prefix has grown by too much, for it or for all together; of `protected`, the topic that has just grown,
    /// nothing.
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

    /// Evicts the oldest messages of a topic: until there is room, or its prefix is no longer `over` its part, or another
    /// topic has more weight. Says how many.
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

    /// Bytes of topics without a message and of others, by prefix.
    #[cfg(test)]
    pub(super) fn sums(&self) -> Vec<(usize, usize)> {
        self.by_prefix.iter().map(|account| (account.empty_topics.bytes, account.histories.bytes)).collect()
    }

    #[cfg(test)]
    pub(super) fn reserved(&self, prefix: usize) -> usize {
        self.by_prefix[prefix].reserved
    }
}
