//! The subscribers of one worker: topic to subscribers and slot to subscriptions. Each side knows its index in the
//! other, so unsubscribing takes constant time.

use super::Tags;
use super::owned_topic::OwnedTopic;
use super::topic::{self, InvalidPattern, InvalidTopic};
use crate::memory::Shrink;
use core::fmt;
use foldhash::fast::RandomState;
use slab::Slab;
use std::collections::HashMap;
use std::sync::Arc;

/// A topic's key in the index of its worker.
pub(crate) type TopicKey = u32;

#[derive(Debug)]
struct Topic {
    name: Arc<str>,
    subscribers: Vec<Subscriber>,
    /// The batch log refers to it, so it stays without subscribers.
    pinned: bool,
    /// Subscribers with a filter.
    filtered: u32,
    /// What the owner knows about it; only on the owner, once something was published or requested.
    owned: Option<Box<OwnedTopic>>,
}

/// An entry of a topic's list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subscriber {
    pub(crate) slot: u32,
    /// The index of this topic in the slot's list.
    subscription_index: u32,
}

/// An entry of a slot's list.
#[derive(Clone, Copy, Debug)]
struct Subscription {
    topic: TopicKey,
    subscriber_index: SubscriberIndex,
}

/// The index of the slot in the topic's list, and whether a handle made the subscription: one word, since there is one
/// for each subscription.
#[derive(Clone, Copy, Debug)]
struct SubscriberIndex(u32);

impl SubscriberIndex {
    /// Slots are below 2^24.
    const BY_HANDLE: u32 = 1 << 31;

    fn new(at: usize) -> Self {
        Self(at as u32)
    }

    fn at(self) -> usize {
        (self.0 & !Self::BY_HANDLE) as usize
    }

    fn move_to(&mut self, at: usize) {
        self.0 = at as u32 | self.0 & Self::BY_HANDLE;
    }

    fn is_by_handle(self) -> bool {
        self.0 & Self::BY_HANDLE != 0
    }

    fn set_by_handle(&mut self, by_handle: bool) {
        self.0 = self.at() as u32 | if by_handle { Self::BY_HANDLE } else { 0 };
    }
}

/// Why a subscription was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The name can't be a topic's; it may be a pattern.
    Topic(InvalidTopic),
    /// The text is not a pattern; it may be a topic's name.
    Pattern(InvalidPattern),
    /// The connection has as many subscriptions as allowed.
    TooMany {
        /// The limit ([`Limits::max_subscriptions`](crate::Limits::max_subscriptions)).
        limit: usize,
    },
    /// The connection is closing or closed.
    Closed,
    /// The connection is subscribed to the topic or has requested it, so there is no position to begin from. A
    /// subscription made by [`Handle::subscribe`](crate::Handle::subscribe) does not count.
    Already,
    /// It was unsubscribed before the subscription began.
    Cancelled,
    /// A pattern with a start other than [`Start::Now`](super::Start::Now): it stands for many topics and has no
    /// history.
    PatternStart,
}

impl fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic(e) => e.fmt(f),
            Self::Pattern(e) => e.fmt(f),
            Self::TooMany { limit } => write!(f, "the connection has {limit} subscriptions, the most it may"),
            Self::Closed => f.write_str("the connection is closing or has gone"),
            Self::Already => f.write_str("the connection listens to the topic already"),
            Self::Cancelled => f.write_str("the connection was unsubscribed before the subscription began"),
            Self::PatternStart => f.write_str(
                "start: a pattern has no history, only Start::Now is allowed; subscribe to single topics for theirs",
            ),
        }
    }
}

impl std::error::Error for SubscribeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Topic(e) => Some(e),
            Self::Pattern(e) => Some(e),
            _ => None,
        }
    }
}

/// Frees what tables have beyond their entries. Topics keep their keys.
impl Shrink for Index {
    fn shrink(&mut self) {
        let used = self
            .by_slot
            .iter()
            .rposition(|subscriptions| !subscriptions.is_empty())
            .map_or(0, |last| last + 1);
        self.by_slot.truncate(used);
        self.by_slot.shrink();
        self.topics.shrink();
        self.by_name.shrink();
        self.filters.shrink();
    }
}

/// The index of one worker.
#[derive(Debug, Default)]
pub(crate) struct Index {
    topics: Slab<Topic>,
    by_name: HashMap<Arc<str>, TopicKey, RandomState>,
    /// By slot.
    by_slot: Vec<Vec<Subscription>>,
    /// Filters of subscribers; those without a filter have no entry.
    filters: HashMap<(u32, TopicKey), Tags, RandomState>,
    /// Patterns with at least one subscriber.
    patterns: usize,
    /// Subscriptions of all slots.
    subscription_count: usize,
}

impl Index {
    pub(crate) fn find(&self, name: &str) -> Option<TopicKey> {
        self.by_name.get(name).copied()
    }

    /// Returns the topic of this name, added if it does not exist. The name has been checked.
    pub(crate) fn find_or_add(&mut self, name: &str) -> TopicKey {
        if let Some(key) = self.find(name) {
            return key;
        }
        let name: Arc<str> = name.into();
        let key = self.topics.insert(Topic {
            name: name.clone(),
            subscribers: Vec::new(),
            pinned: false,
            filtered: 0,
            owned: None,
        }) as u32;
        self.by_name.insert(name, key);
        key
    }

    /// Returns whether the subscription is new. The name has been checked.
    pub(crate) fn subscribe(
        &mut self,
        slot: u32,
        name: &str,
        tags: Option<Tags>,
        limit: usize,
    ) -> Result<bool, SubscribeError> {
        if self.is_subscribed(slot, name) {
            return Ok(false);
        }
        if self.subscriptions_of(slot).len() >= limit {
            return Err(SubscribeError::TooMany { limit });
        }
        let key = self.find_or_add(name);
        if self.by_slot.len() <= slot as usize {
            self.by_slot.resize_with(slot as usize + 1, Vec::new);
        }
        let subscriptions = &mut self.by_slot[slot as usize];
        let subscribers = &mut self.topics[key as usize].subscribers;
        if subscriptions.capacity() == 0 {
            subscriptions.reserve_exact(1); // most have one subscription
        }
        if subscribers.is_empty() && topic::is_pattern(name) {
            self.patterns += 1;
        }
        self.subscription_count += 1;
        subscriptions
            .push(Subscription { topic: key, subscriber_index: SubscriberIndex::new(subscribers.len()) });
        subscribers.push(Subscriber { slot, subscription_index: subscriptions.len() as u32 - 1 });
        if let Some(tags) = tags {
            self.filters.insert((slot, key), tags);
            self.topics[key as usize].filtered += 1;
        }
        Ok(true)
    }

    /// Returns whether there was a subscription.
    pub(crate) fn unsubscribe(&mut self, slot: u32, name: &str) -> bool {
        let Some(key) = self.find(name) else { return false };
        let Some(at) = self.subscriptions_of(slot).iter().position(|l| l.topic == key) else { return false };
        self.remove_subscription(slot, at);
        true
    }

    /// Ends all subscriptions of a slot and frees its list. `left` is called for each topic.
    pub(crate) fn remove(&mut self, slot: u32, mut left: impl FnMut(&Arc<str>)) {
        while let Some(last) = self.subscriptions_of(slot).last() {
            left(&self.topics[last.topic as usize].name);
            self.remove_subscription(slot, self.subscriptions_of(slot).len() - 1);
        }
        if let Some(subscriptions) = self.by_slot.get_mut(slot as usize) {
            *subscriptions = Vec::new();
        }
    }

    fn remove_subscription(&mut self, slot: u32, at: usize) {
        let subscriptions = &mut self.by_slot[slot as usize];
        let subscription = subscriptions.swap_remove(at);
        subscriptions.shrink();
        self.subscription_count -= 1;
        if let Some(moved) = subscriptions.get(at) {
            self.topics[moved.topic as usize].subscribers[moved.subscriber_index.at()].subscription_index =
                at as u32;
        }
        let Topic { name, subscribers, filtered, .. } = &mut self.topics[subscription.topic as usize];
        if *filtered > 0 && self.filters.remove(&(slot, subscription.topic)).is_some() {
            *filtered -= 1;
        }
        subscribers.swap_remove(subscription.subscriber_index.at());
        subscribers.shrink();
        if subscribers.is_empty() && topic::is_pattern(name) {
            self.patterns -= 1;
        }
        if let Some(moved) = subscribers.get(subscription.subscriber_index.at()) {
            self.by_slot[moved.slot as usize][moved.subscription_index as usize]
                .subscriber_index
                .move_to(subscription.subscriber_index.at());
        }
        self.remove_if_unused(subscription.topic);
    }

    fn remove_if_unused(&mut self, key: TopicKey) {
        let topic = &self.topics[key as usize];
        let is_idle = topic.owned.as_ref().is_none_or(|owned| owned.is_idle());
        if topic.subscribers.is_empty() && !topic.pinned && is_idle {
            let topic = self.topics.remove(key as usize);
            self.by_name.remove(&topic.name);
        }
    }

    /// Returns the estimated bytes of memory.
    pub(crate) fn footprint(&self) -> usize {
        const TOPIC: usize = 512;
        const SUBSCRIPTION: usize = 64;
        self.topics.len() * TOPIC + self.subscription_count * SUBSCRIPTION
    }

    /// Keeps a topic while the batch log refers to it.
    pub(crate) fn pin(&mut self, key: TopicKey) {
        self.topics[key as usize].pinned = true;
    }

    pub(crate) fn unpin(&mut self, key: TopicKey) {
        if let Some(topic) = self.topics.get_mut(key as usize) {
            topic.pinned = false;
            self.remove_if_unused(key);
        }
    }

    fn subscriptions_of(&self, slot: u32) -> &[Subscription] {
        self.by_slot.get(slot as usize).map_or(&[], |l| l)
    }

    pub(crate) fn has_subscriptions(&self, slot: u32) -> bool {
        !self.subscriptions_of(slot).is_empty()
    }

    pub(crate) fn subscription_count(&self, slot: u32) -> usize {
        self.subscriptions_of(slot).len()
    }

    pub(crate) fn has_subscription(&self, slot: u32, key: TopicKey) -> bool {
        self.subscriptions_of(slot).iter().any(|l| l.topic == key)
    }

    pub(crate) fn is_subscribed(&self, slot: u32, name: &str) -> bool {
        self.find(name).is_some_and(|key| self.has_subscription(slot, key))
    }

    fn subscription_mut(&mut self, slot: u32, name: &str) -> Option<&mut Subscription> {
        let key = self.find(name)?;
        self.by_slot.get_mut(slot as usize)?.iter_mut().find(|subscription| subscription.topic == key)
    }

    /// Returns whether a handle made the subscription; `None` without one.
    pub(crate) fn is_by_handle(&self, slot: u32, name: &str) -> Option<bool> {
        let key = self.find(name)?;
        self.subscriptions_of(slot)
            .iter()
            .find(|subscription| subscription.topic == key)
            .map(|subscription| subscription.subscriber_index.is_by_handle())
    }

    /// Records that a handle made the subscription: the connection's handler does not know where it began.
    pub(crate) fn set_by_handle(&mut self, slot: u32, name: &str) {
        if let Some(subscription) = self.subscription_mut(slot, name) {
            subscription.subscriber_index.set_by_handle(true);
        }
    }

    /// Makes a subscription the one that the connection's handler requested, with its filter.
    pub(crate) fn restart_subscription(&mut self, slot: u32, name: &str, tags: Option<Tags>) {
        let Some(subscription) = self.subscription_mut(slot, name) else { return };
        subscription.subscriber_index.set_by_handle(false);
        let key = subscription.topic;
        let was = match tags {
            Some(tags) => self.filters.insert((slot, key), tags).is_some(),
            None => self.filters.remove(&(slot, key)).is_some(),
        };
        let is = self.filters.contains_key(&(slot, key));
        let filtered = &mut self.topics[key as usize].filtered;
        *filtered = *filtered + u32::from(is) - u32::from(was);
    }

    /// Returns the topics and patterns of a slot.
    pub(crate) fn names_of(&self, slot: u32) -> impl Iterator<Item = &str> {
        self.subscriptions_of(slot).iter().map(|l| &*self.topics[l.topic as usize].name)
    }

    pub(crate) fn subscribers(&self, key: TopicKey) -> &[Subscriber] {
        self.topics.get(key as usize).map_or(&[], |t| &t.subscribers)
    }

    /// Takes the subscribers of a topic, to be walked over while the rest of the worker is in use, and [put
    /// back](Index::put_back). The topic's subscriptions must not change meanwhile.
    pub(crate) fn take_subscribers(&mut self, key: TopicKey) -> Vec<Subscriber> {
        self.topics.get_mut(key as usize).map(|t| core::mem::take(&mut t.subscribers)).unwrap_or_default()
    }

    pub(crate) fn put_back(&mut self, key: TopicKey, subscribers: Vec<Subscriber>) {
        if let Some(topic) = self.topics.get_mut(key as usize) {
            debug_assert!(topic.subscribers.is_empty());
            topic.subscribers = subscribers;
        }
    }

    /// Returns what the owner knows about a topic.
    pub(crate) fn owned_mut(&mut self, key: TopicKey) -> Option<&mut OwnedTopic> {
        self.topics.get_mut(key as usize)?.owned.as_deref_mut()
    }

    /// The same, made if it does not exist.
    pub(crate) fn owned_or_insert(
        &mut self,
        key: TopicKey,
        make: impl FnOnce(&str) -> OwnedTopic,
    ) -> &mut OwnedTopic {
        let Topic { name, owned, .. } = &mut self.topics[key as usize];
        owned.get_or_insert_with(|| Box::new(make(name)))
    }

    /// Removes the topic if nothing needs it.
    pub(crate) fn remove_unused(&mut self, key: TopicKey) {
        if self.topics.contains(key as usize) {
            self.remove_if_unused(key);
        }
    }

    /// Returns whether a connection of this worker subscribes to a pattern.
    pub(crate) fn has_patterns(&self) -> bool {
        self.patterns > 0
    }

    /// Returns the patterns with subscribers on this worker that match a topic's name, the longest first.
    pub(crate) fn matching_patterns(&self, name: &str) -> Vec<TopicKey> {
        if self.patterns == 0 {
            return Vec::new();
        }
        topic::matching_patterns(name).filter_map(|pattern| self.find(&pattern)).collect()
    }

    /// Returns the subscription by which a slot receives a topic: its name, or the longest pattern.
    pub(crate) fn subscription_for(&self, slot: u32, key: TopicKey) -> Option<TopicKey> {
        if self.has_subscription(slot, key) {
            return Some(key);
        }
        self.matching_patterns(self.name(key))
            .into_iter()
            .find(|pattern| self.has_subscription(slot, *pattern))
    }

    /// Returns whether any subscriber of a topic or pattern has a filter.
    pub(crate) fn is_filtered(&self, key: TopicKey) -> bool {
        self.topics.get(key as usize).is_some_and(|topic| topic.filtered > 0)
    }

    /// Returns a slot's filter for a topic or pattern; `None`: everything.
    pub(crate) fn filter(&self, slot: u32, key: TopicKey) -> Option<&Tags> {
        if self.is_filtered(key) { self.filters.get(&(slot, key)) } else { None }
    }

    /// Returns the first key from this one on, to walk over all topics.
    pub(crate) fn next_from(&self, at: usize) -> Option<TopicKey> {
        (at..self.topics.capacity()).find(|at| self.topics.contains(*at)).map(|at| at as TopicKey)
    }

    #[cfg(test)]
    pub(crate) fn capacities(&self) -> [usize; 4] {
        let Self { topics, by_name, by_slot, filters, .. } = self;
        [topics.capacity(), by_name.capacity(), by_slot.capacity(), filters.capacity()]
    }

    pub(crate) fn name(&self, key: TopicKey) -> &Arc<str> {
        &self.topics[key as usize].name
    }

    #[cfg(test)]
    pub(crate) fn owned(&self, key: TopicKey) -> Option<&OwnedTopic> {
        self.topics[key as usize].owned.as_deref()
    }

    #[cfg(test)]
    pub(crate) fn filters_len(&self) -> usize {
        self.filters.len()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.topics.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn slots(index: &Index, name: &str) -> BTreeSet<u32> {
        index.find(name).map(|k| index.subscribers(k).iter().map(|s| s.slot).collect()).unwrap_or_default()
    }

    #[test]
    fn a_topic_is_removed_with_its_last_subscriber() {
        let mut index = Index::default();
        assert_eq!(index.subscribe(3, "room", None, 9), Ok(true));
        assert_eq!(index.subscribe(3, "room", None, 9), Ok(false));
        assert!(index.is_subscribed(3, "room"));
        assert_eq!(index.len(), 1);
        assert!(index.unsubscribe(3, "room"));
        assert!(!index.unsubscribe(3, "room"));
        assert_eq!(index.len(), 0);
    }

    #[test]
    fn subscriptions_are_bounded() {
        let mut index = Index::default();
        assert_eq!(index.subscribe(0, "a", None, 1), Ok(true));
        assert_eq!(index.subscribe(0, "b", None, 1), Err(SubscribeError::TooMany { limit: 1 }));
        assert_eq!(index.len(), 1);
    }

    #[test]
    fn emptied_index_tables_shrink() {
        let mut index = Index::default();
        for n in 0..20_000u32 {
            index.subscribe(n % 500, &format!("topic {n}"), Tags::new(["x"]), 99).unwrap();
            index.subscribe(n, "all", None, 99).unwrap();
        }
        let before = (index.capacities(), index.footprint());
        assert!(before.0.iter().all(|capacity| *capacity >= 20_000), "{before:?}");
        // Three of them stay, at the front.
        let all = index.find("all").unwrap();
        for n in (0..20_000).rev() {
            if n >= 3 {
                index.remove(n, |_| ());
            }
        }
        for topic in (3..20_000).filter(|n| n % 500 < 3) {
            index.unsubscribe(topic % 500, &format!("topic {topic}"));
        }
        assert!(
            index.topics[all as usize].subscribers.capacity() <= 64,
            "the list of one topic shrinks by itself"
        );
        assert!(index.by_slot[..3].iter().all(|subscriptions| subscriptions.capacity() <= 64));
        index.shrink();
        assert_eq!((index.len(), index.capacities()[0]), (4, 4));
        assert!(index.capacities().iter().all(|capacity| *capacity <= 64), "{:?}", index.capacities());
        assert!(index.footprint() < before.1 / 1000);
        for n in 0..3 {
            assert_eq!(index.subscription_count(n), 2);
            assert!(index.is_subscribed(n, "all") && index.is_subscribed(n, &format!("topic {n}")));
        }
    }

    proptest! {
        #[test]
        fn topics_and_slots_agree_after_any_steps(steps in prop::collection::vec((0u8..3, 0u32..6, 0usize..5), 0..200)) {
            let names = ["a", "b", "c", "d", "e"];
            let mut index = Index::default();
            let mut naive: BTreeSet<(u32, usize)> = BTreeSet::new();
            for (what, slot, t) in steps {
                match what {
                    0 => prop_assert_eq!(index.subscribe(slot, names[t], None, 99).unwrap(), naive.insert((slot, t))),
                    1 => prop_assert_eq!(index.unsubscribe(slot, names[t]), naive.remove(&(slot, t))),
                    _ => {
                        index.remove(slot, |_| ());
                        naive.retain(|(s, _)| *s != slot);
                    }
                }
                for (i, name) in names.iter().enumerate() {
                    let expected: BTreeSet<u32> = naive.iter().filter(|(_, t)| *t == i).map(|(s, _)| *s).collect();
                    prop_assert_eq!(slots(&index, name), expected);
                }
                for slot in 0..6 {
                    let topics: BTreeSet<&str> = index.names_of(slot).collect();
                    let expected = naive.iter().filter(|(s, _)| *s == slot).map(|(_, t)| names[*t]).collect();
                    prop_assert_eq!(topics, expected);
                }
            }
            prop_assert_eq!(index.len(), naive.iter().map(|(_, t)| t).collect::<BTreeSet<_>>().len());
        }
    }
}
