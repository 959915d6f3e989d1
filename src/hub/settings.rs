//! Settings of topics, by the longest prefix of their names.

use super::history::Millis;
use super::topic::is_pattern;
use crate::conn::SlowConsumer;
use crate::sync::rate::Rate;
use core::time::Duration;
use std::sync::Arc;

/// The settings of a prefix's topics: history, limits and grants. Given with
/// [`Builder::topics`](crate::Builder::topics).
///
/// ```
/// use campanile::{Server, SlowConsumer, TopicSettings};
/// use std::time::Duration;
///
/// let server = Server::builder()
///     .topics("chat/", TopicSettings::new().history(100).history_age(Duration::from_secs(3600)))
///     .topics("ticks/", TopicSettings::new().history(1).slow_consumer(SlowConsumer::LatestByKey));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    pub(crate) history: usize,
    pub(crate) history_bytes: usize,
    pub(crate) history_age: Duration,
    pub(crate) history_reserved: Option<usize>,
    pub(crate) slow_consumer: Option<SlowConsumer>,
    pub(crate) max_message_size: usize,
    pub(crate) rate: Option<Rate>,
    pub(crate) client_subscribe: bool,
    pub(crate) client_publish: bool,
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self::new()
    }
}

impl TopicSettings {
    /// No history, no limit on messages, the route's policy for slow consumers.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            history: 0,
            history_bytes: 1 << 20,
            history_age: Duration::from_secs(300),
            history_reserved: None,
            slow_consumer: None,
            max_message_size: usize::MAX,
            rate: None,
            client_subscribe: false,
            client_publish: false,
        }
    }

    /// Sets the number of messages in the history. Default 0: no history. Cost: the frames, shared with connections
    /// that they still wait for, and 80 bytes for each message.
    #[must_use]
    pub const fn history(mut self, messages: usize) -> Self {
        self.history = messages;
        self
    }

    /// Sets the bytes of frames in the history. The oldest are removed first; a message larger than this is not kept.
    /// Default 1 MiB.
    #[must_use]
    pub const fn history_bytes(mut self, bytes: usize) -> Self {
        self.history_bytes = bytes;
        self
    }

    /// Sets how long a message is kept. Default 5 minutes. A topic without subscribers is removed with its last
    /// message. A topic that had subscribers and no messages stays as long, so that they can reconnect and recover.
    #[must_use]
    pub const fn history_age(mut self, age: Duration) -> Self {
        self.history_age = age;
        self
    }

    /// Sets the bytes of [`Builder::max_history`](crate::Builder::max_history) that only this prefix can use; each
    /// worker has an equal part. The prefix may use more while others leave it free, and gives it back when needed.
    /// What it holds within its part is never evicted for other prefixes. Default: an equal part of what the other
    /// prefixes have not reserved. 0: only what is free.
    #[must_use]
    pub const fn history_reserved(mut self, bytes: usize) -> Self {
        self.history_reserved = Some(bytes);
        self
    }

    /// What happens to this topic's messages for a connection whose backlog is full. Default: the policy of its route.
    #[must_use]
    pub const fn slow_consumer(mut self, policy: SlowConsumer) -> Self {
        self.slow_consumer = Some(policy);
        self
    }

    /// Sets the bytes of one message; larger ones are refused. Default: no limit beside the others.
    #[must_use]
    pub const fn max_message_size(mut self, bytes: usize) -> Self {
        self.max_message_size = bytes;
        self
    }

    /// Sets how many messages the topic accepts each second from all connections together, and at once after a pause;
    /// the program, its handles and the API have as many of their own. Above that publishing is refused with
    /// [`HandleError::RateLimited`](crate::HandleError::RateLimited); without a publisher that waits for an answer, it
    /// is counted in [`Stats::publications_refused`](crate::Stats::publications_refused). Default, and 0 each second:
    /// unlimited.
    ///
    /// Above the rate, `n` connections that publish have equal shares, and one more share is for new ones. Whatever
    /// others do, each gets at least `per_second / (n + 1)`, and a burst of `burst / (n + 1)` or one. So the topic may
    /// accept up to twice the burst at once, and one message more for each connection. A connection counts for 30 s
    /// after its last attempt; at most 1,024 count. Cost: a hash lookup for each message, and about 50 bytes for each
    /// connection that counts.
    #[must_use]
    pub const fn rate(mut self, per_second: u32, burst: u32) -> Self {
        self.rate = if per_second == 0 { None } else { Some(Rate::new(per_second as u64, burst as u64)) };
        self
    }

    /// Sets whether clients may subscribe through an endpoint such as [`Push`](crate::push::Push). They may subscribe to
    /// a pattern if they may subscribe to all topics below it. Default: no. The program can subscribe them in any case,
    /// with its handlers, a [`Handle`](crate::Handle) and the API.
    #[must_use]
    pub const fn client_subscribe(mut self, may: bool) -> Self {
        self.client_subscribe = may;
        self
    }

    /// Sets whether clients may publish through an endpoint such as [`Push`](crate::push::Push). Default: no. The program
    /// can publish in any case, with its handlers, a [`Handle`](crate::Handle) and the API.
    #[must_use]
    pub const fn client_publish(mut self, may: bool) -> Self {
        self.client_publish = may;
        self
    }

    pub(crate) const fn max_age(&self) -> Millis {
        let age = self.history_age.as_millis();
        if age < LONGEST_AGE as u128 { age as Millis } else { LONGEST_AGE }
    }

    pub(crate) const fn has_history(&self) -> bool {
        self.history > 0
    }
}

/// The longest age: no overflow if added to any time.
const LONGEST_AGE: Millis = Millis::MAX >> 1;

/// The settings of one prefix.
#[derive(Debug)]
struct Prefix {
    prefix: Box<str>,
    settings: Arc<TopicSettings>,
    /// Bytes of history reserved for its topics.
    reserved: usize,
    /// Clients can create topics here by publishing.
    clients_publish: bool,
}

/// The settings of all prefixes of a server.
#[derive(Clone, Debug)]
pub(crate) struct SettingsTable {
    /// The longest prefix first; the last is empty.
    by_prefix: Arc<[Prefix]>,
    /// Bytes of all histories together.
    pub(crate) max_history: usize,
}

/// The default limit of all histories together.
pub(crate) const DEFAULT_MAX_HISTORY: usize = 256 << 20;

impl SettingsTable {
    /// Makes the table. Routes let clients publish to the prefixes `open`, whatever the settings say. The reservations
    /// have been [checked](total_reserved).
    pub(crate) fn new(mut given: Vec<(String, TopicSettings)>, max_history: usize, open: &[&str]) -> Self {
        if given.iter().all(|(prefix, _)| !prefix.is_empty()) {
            given.push((String::new(), TopicSettings::new()));
        }
        let rest = max_history.saturating_sub(total_reserved(&given));
        let sharers = given.iter().filter(|(_, s)| s.history_reserved.is_none()).count();
        let share = rest / sharers.max(1);
        let of = |(prefix, settings): (String, TopicSettings)| Prefix {
            reserved: settings.history_reserved.unwrap_or(share),
            clients_publish: settings.client_publish || open.iter().any(|open| prefix.starts_with(open)),
            prefix: prefix.into(),
            settings: Arc::new(settings),
        };
        let mut by_prefix: Vec<Prefix> = given.into_iter().map(of).collect();
        by_prefix.sort_by_key(|prefix| core::cmp::Reverse(prefix.prefix.len()));
        for open in open {
            if let Some(prefix) = by_prefix.iter_mut().find(|p| open.starts_with(&*p.prefix)) {
                prefix.clients_publish = true;
            }
        }
        Self { by_prefix: by_prefix.into(), max_history }
    }

    /// Returns whether clients may subscribe to a topic, or to all topics below a pattern.
    #[cfg_attr(not(feature = "push"), allow(dead_code))]
    pub(crate) fn may_subscribe(&self, topic: &str) -> bool {
        let stem = if is_pattern(topic) { topic.trim_end_matches('*') } else { topic };
        let below = |prefix: &str| is_pattern(topic) && prefix.starts_with(stem);
        let all_below = self.by_prefix.iter().all(|p| !below(&p.prefix) || p.settings.client_subscribe);
        self.of(stem).client_subscribe && all_below
    }

    pub(crate) fn of(&self, topic: &str) -> &Arc<TopicSettings> {
        self.find(topic).1
    }

    /// Returns a topic's settings and the index of their prefix.
    pub(crate) fn find(&self, topic: &str) -> (u32, &Arc<TopicSettings>) {
        let last = self.by_prefix.len() - 1;
        let at = self.by_prefix.iter().position(|p| topic.starts_with(&*p.prefix)).unwrap_or(last);
        (at as u32, &self.by_prefix[at].settings)
    }

    /// Returns whether the policy of any topic drops old messages for new ones.
    pub(crate) fn replaces_older(&self) -> bool {
        self.by_prefix
            .iter()
            .any(|prefix| prefix.settings.slow_consumer.is_some_and(SlowConsumer::replaces_older))
    }

    /// Returns the number of prefixes, the empty one included.
    pub(crate) fn prefixes(&self) -> usize {
        self.by_prefix.len()
    }

    /// Returns a prefix's reserved bytes, and whether clients can publish to it.
    pub(crate) fn reservation(&self, prefix: usize) -> (usize, bool) {
        let Prefix { reserved, clients_publish, .. } = self.by_prefix[prefix];
        (reserved, clients_publish)
    }
}

/// Returns the bytes of history that prefixes reserve explicitly.
pub(crate) fn total_reserved(given: &[(String, TopicSettings)]) -> usize {
    given.iter().filter_map(|(_, s)| s.history_reserved).fold(0, usize::saturating_add)
}

impl Default for SettingsTable {
    fn default() -> Self {
        Self::new(Vec::new(), DEFAULT_MAX_HISTORY, &[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_decides_the_settings() {
        let of = |n| TopicSettings::new().history(n);
        let given = [("ticks/", 4), ("", 2), ("ticks/eur", 3)];
        let table =
            SettingsTable::new(given.map(|(p, n)| (p.to_owned(), of(n))).into(), DEFAULT_MAX_HISTORY, &[]);
        for (topic, n) in [("ticks/usd", 4), ("ticks/eurusd", 3), ("room", 2), ("tick", 2)] {
            assert_eq!(table.of(topic).history, n, "{topic}");
        }
        assert_eq!(SettingsTable::default().of("room").history, 0);
    }

    #[test]
    fn prefixes_share_the_unreserved_history_equally() {
        let of =
            |reserved: Option<usize>| TopicSettings { history_reserved: reserved, ..TopicSettings::new() };
        let given = [("a/", Some(50)), ("a/b/", None), ("c/", Some(0)), ("public/", None)];
        let mut given: Vec<_> = given.map(|(p, reserved)| (p.to_owned(), of(reserved))).into();
        given[3].1.client_publish = true;
        let account = |table: &SettingsTable, topic: &str| table.reservation(table.find(topic).0 as usize);
        let table = SettingsTable::new(given.clone(), 200, &[]);
        let expected = [("a/x", 50, false), ("a/b/x", 50, false), ("c/x", 0, false), ("public/x", 50, true)];
        for (topic, reserved, clients_publish) in expected.into_iter().chain([("x", 50, false)]) {
            assert_eq!(account(&table, topic), (reserved, clients_publish), "{topic}");
        }
        for (open, topics) in [("a/", &["a/x", "a/b/x", "public/x"][..]), ("c/d/", &["c/x", "public/x"])] {
            let table = SettingsTable::new(given.clone(), 200, &[open]);
            for topic in ["a/x", "a/b/x", "c/x", "public/x", "x"] {
                assert_eq!(account(&table, topic).1, topics.contains(&topic), "{topic} with {open}");
            }
        }
        assert_eq!(total_reserved(&given), 50);
    }

    #[test]
    fn a_pattern_is_allowed_if_all_topics_below_it_are() {
        let of = |may| TopicSettings::new().client_subscribe(may);
        let given =
            [("a/", true), ("a/secret/", false), ("a/secret/not/", true), ("b/", false), ("b/open/", true)];
        let given = given.map(|(p, may)| (p.to_owned(), of(may))).into();
        let table = SettingsTable::new(given, DEFAULT_MAX_HISTORY, &[]);
        for yes in ["a/x", "a/x/*", "a/secret/not/x", "a/secret/not/*", "b/open/*"] {
            assert!(table.may_subscribe(yes), "{yes}");
        }
        for no in ["a/*", "a/secret/*", "a/secret/x", "b/x", "b/*", "b/open*/*", "c/*", "c"] {
            assert!(!table.may_subscribe(no), "{no}");
        }
    }
}
