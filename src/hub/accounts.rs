//! What topics hold, by prefix, and what is evicted when they hold more than they may.
//!
//! Each prefix of [`Builder::topics`](crate::Builder::topics), and all other topics together, has a reserved part of
//! `max_history`. A prefix may take more as long as others leave it free. When all together hold more than they may, a
//! prefix that holds more than its part gives back: first one that clients can publish to, then the one that is over by
//! the most. In a prefix, topics without a message go first, then the oldest messages of a topic that is large and old.
//! So a prefix within its part never loses a message to another, whatever is published there.

use super::index::{Index, TopicKey};
use super::{Home, Millis, SettingsTable};
use crate::memory::Shrink;

/// Topics compared for one eviction. Comparing all of them would hold up the worker's connections; of 16, one is among the
/// eighth with the most weight in 88 of 100 cases.
const SAMPLE: usize = 16;

/// Topics without a message hold at most this part of what is reserved for their prefix: names cost their inventor
/// nothing.
const NAMES_PART: usize = 4;

/// What one topic holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) bytes: usize,
    /// Whether any of it is a message.
    pub(super) messages: bool,
}

/// Topics that hold something, and the sum.
#[derive(Debug, Default)]
struct List {
    topics: Vec<TopicKey>,
    bytes: usize,
    /// Where the next sample begins.
    hand: usize,
}

#[derive(Debug, Default)]
struct Account {
    /// Bytes that other prefixes can't take.
    reserved: usize,
    /// Clients can name topics here and publish to them.
    is_open: bool,
    names: List,
    histories: List,
}

impl List {
    /// Of a sample, the topic with the most weight, and the second weight.
    fn heaviest(
        &mut self,
        index: &mut Index,
        now: Millis,
        spare: Option<TopicKey>,
    ) -> Option<(TopicKey, u64)> {
        let (mut heaviest, mut second) = (None, 0);
        for _ in 0..self.topics.len().min(SAMPLE) {
            self.hand = if self.hand + 1 < self.topics.len() { self.hand + 1 } else { 0 };
            let key = self.topics[self.hand];
            let in_use = !index.subscribers(key).is_empty();
            let Some(home) = index.home(key).filter(|_| spare != Some(key)) else { continue };
            let weight = home.weight(now, in_use);
            match heaviest {
                Some((_, most)) if weight <= most => second = second.max(weight),
                _ => second = heaviest.replace((key, weight)).map_or(0, |(_, weight)| weight),
            }
        }
        heaviest.map(|(key, _)| (key, second))
    }
}

impl Account {
    fn held(&self) -> usize {
        self.names.bytes + self.histories.bytes
    }

    fn list(&mut self, held: Held) -> Option<&mut List> {
        match held {
            Held { bytes: 0, .. } => None,
            Held { messages: false, .. } => Some(&mut self.names),
            Held { messages: true, .. } => Some(&mut self.histories),
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
    pub(crate) names: u64,
}

/// The accounts of one worker.
#[derive(Debug)]
pub(crate) struct Accounts {
    by_prefix: Box<[Account]>,
    held: usize,
    most: usize,
    /// Prefixes that have got topics since room was last made.
    entered: Vec<u32>,
    pub(crate) evicted: Evicted,
}

impl Accounts {
    /// Each worker has an equal part of everything.
    pub(super) fn new(settings: &SettingsTable, workers: usize) -> Self {
        let account = |prefix: usize| {
            let (reserved, is_open) = settings.account(prefix);
            Account { reserved: reserved / workers, is_open, ..Account::default() }
        };
        Self {
            by_prefix: (0..settings.prefixes()).map(account).collect(),
            held: 0,
            most: settings.kept_most / workers,
            entered: Vec::new(),
            evicted: Evicted::default(),
        }
    }

    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Books a topic that is new. Room for it is made later ([`Accounts::settle`]): whoever has just made it goes on with it.
    pub(super) fn enter(&mut self, home: &mut Home, key: TopicKey) {
        let held = home.held();
        if let Some(list) = self.by_prefix[home.prefix as usize].list(held) {
            self.held += held.bytes;
            list.bytes += held.bytes;
            home.listed = list.topics.len() as u32;
            list.topics.push(key);
            if self.entered.last() != Some(&home.prefix) {
                self.entered.push(home.prefix);
            }
        }
    }

    /// Makes room for topics that are new.
    pub(super) fn settle(&mut self, index: &mut Index, now: Millis) {
        while let Some(prefix) = self.entered.pop() {
            self.make_room(index, now, prefix, None);
        }
    }

    /// Changes a topic, if it has an owner's part here, and books what it holds then.
    pub(super) fn change<R>(
        &mut self,
        index: &mut Index,
        key: TopicKey,
        change: impl FnOnce(&mut Home) -> R,
    ) -> Option<R> {
        let home = index.home(key)?;
        let before = home.held();
        let result = change(home);
        let after = home.held();
        if before != after {
            self.book(index, key, before, after);
        }
        Some(result)
    }

    fn book(&mut self, index: &mut Index, key: TopicKey, before: Held, after: Held) {
        let Some(home) = index.home(key) else { return };
        self.held = self.held - before.bytes + after.bytes;
        let account = &mut self.by_prefix[home.prefix as usize];
        let at = home.listed as usize;
        let moves = before.bytes == 0 || after.bytes == 0 || before.messages != after.messages;
        if let Some(list) = account.list(after) {
            list.bytes += after.bytes;
            if moves {
                home.listed = list.topics.len() as u32;
                list.topics.push(key);
            }
        }
        if let Some(list) = account.list(before) {
            list.bytes -= before.bytes;
            if moves {
                list.topics.swap_remove(at);
                list.topics.shrink();
                if let Some(moved) = list.topics.get(at).and_then(|moved| index.home(*moved)) {
                    moved.listed = at as u32;
                }
            }
        }
    }

    /// Evicts what a prefix has grown by too much, for it or for all together; of `spare`, the topic that has just grown,
    /// nothing.
    pub(super) fn make_room(&mut self, index: &mut Index, now: Millis, grown: u32, spare: Option<TopicKey>) {
        let grown = grown as usize;
        while self.by_prefix[grown].names.bytes > self.by_prefix[grown].reserved / NAMES_PART {
            let names = &mut self.by_prefix[grown].names;
            let Some((name, _)) = names.heaviest(index, now, spare) else { break };
            self.evict_name(index, name);
        }
        while self.held > self.most {
            let over = |account: &Account| account.held().saturating_sub(account.reserved);
            let victims = self.by_prefix.iter_mut().enumerate().filter(|(_, account)| over(account) > 0);
            let Some((victim, account)) = victims.max_by_key(|(_, a)| (a.is_open, over(a))) else { return };
            let over = over(account);
            if let Some((name, _)) = account.names.heaviest(index, now, spare) {
                self.evict_name(index, name);
            } else if let Some((topic, next)) = account.histories.heaviest(index, now, spare) {
                let messages = self.evict_messages(index, now, topic, over, next);
                self.evicted.for_others += if victim == grown { 0 } else { messages };
            } else {
                return;
            }
        }
    }

    fn evict_name(&mut self, index: &mut Index, key: TopicKey) {
        self.change(index, key, Home::give_up);
        self.evicted.names += 1;
        index.settle(key);
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
        let excess = self.held.saturating_sub(self.most).min(over);
        let messages = self.change(index, key, |home| {
            let (before, mut messages) = (home.held().bytes, 0);
            while !home.history.is_empty() {
                home.history.pop();
                messages += 1;
                if before - home.held().bytes >= excess || home.weight(now, true) < next {
                    break;
                }
            }
            messages
        });
        let messages = messages.unwrap_or(0);
        self.evicted.messages += messages;
        index.settle(key);
        messages
    }

    /// Bytes of topics without a message and of others, by prefix.
    #[cfg(test)]
    pub(super) fn sums(&self) -> Vec<(usize, usize)> {
        self.by_prefix.iter().map(|account| (account.names.bytes, account.histories.bytes)).collect()
    }

    #[cfg(test)]
    pub(super) fn reserved(&self, prefix: usize) -> usize {
        self.by_prefix[prefix].reserved
    }
}
