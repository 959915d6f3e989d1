//! What a topic keeps and allows, by the longest prefix of its name.

use super::history::Millis;
use super::topic::is_pattern;
use crate::conn::SlowConsumer;
use crate::sync::rate::Rate;
use core::time::Duration;
use std::sync::Arc;

/// What the topics of a prefix keep and allow. Given with [`Builder::topics`](crate::Builder::topics).
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
    /// No history, messages of whatever size, the route's policy for slow consumers.
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

    /// Messages kept for those who come back. Default 0: none. Price: the frames themselves, which are shared with
    /// whoever they still wait for, and 80 bytes each.
    #[must_use]
    pub const fn history(mut self, messages: usize) -> Self {
        self.history = messages;
        self
    }

    /// Bytes of frames kept; the oldest go first, and one that is larger alone is not kept. Default 1 MiB.
    #[must_use]
    pub const fn history_bytes(mut self, bytes: usize) -> Self {
        self.history_bytes = bytes;
        self
    }

    /// How long a message is kept. Default 5 minutes. A topic that nobody listens to is gone when its last message is; one
    /// that had listeners and no messages stays as long, so that they can come back to it.
    #[must_use]
    pub const fn history_age(mut self, age: Duration) -> Self {
        self.history_age = age;
        self
    }

    /// Bytes of [`Builder::max_history`](crate::Builder::max_history) that only the topics of this prefix can use, each
    /// worker an equal part. They may hold more where others leave it free, and give that back when it is needed; what
    /// they hold within this part is never evicted for other prefixes. Default: an equal part of what the other prefixes
    /// have not reserved. 0: they only use what is free.
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

    /// Bytes of one message; over it publishing is refused. Default: no limit beside the others.
    #[must_use]
    pub const fn max_message_size(mut self, bytes: usize) -> Self {
        self.max_message_size = bytes;
        self
    }

    /// Messages that the topic takes each second from all connections together, and how many at once after a pause; and
    /// as many from the program, its handles and the API. Over it publishing is refused
    /// ([`HandleError::RateLimited`](crate::HandleError::RateLimited); where nobody waits for an answer, counted in
    /// [`Stats::publications_refused`](crate::Stats::publications_refused)). Default, and 0 each second: unlimited.
    ///
    /// Where there are more messages than that, `n` connections that publish have equal shares, and one more share is
    /// kept for those who are new: each gets at least `per_second / (n + 1)`, and `burst / (n + 1)` at once or one, whatever
    /// others do. For that the topic may take up to twice the burst at once, and one more for each connection. A
    /// connection counts for 30 s after its last try, at most 1,024 do. Price: a look into a table for each message, and
    /// some 50 bytes for each connection that counts.
    #[must_use]
    pub const fn rate(mut self, per_second: u32, burst: u32) -> Self {
        self.rate = if per_second == 0 { None } else { Some(Rate::new(per_second as u64, burst as u64)) };
        self
    }

    /// Whether clients may subscribe by themselves, through an endpoint such as [`Push`](crate::push::Push). A pattern
    /// may be subscribed to where all that is below it may. Default: they may not. The program subscribes them by its
    /// handlers, a [`Handle`](crate::Handle) and the API whatever this says.
    #[must_use]
    pub const fn client_subscribe(mut self, may: bool) -> Self {
        self.client_subscribe = may;
        self
    }

    /// Whether clients may publish by themselves. Default: they may not. The program itself always may, by its handlers,
    /// a [`Handle`](crate::Handle) and the API.
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

/// The longest age: added to any time it is still one.
const LONGEST_AGE: Millis = Millis::MAX >> 1;

/// The settings of one prefix.
#[derive(Debug)]
struct Prefix {
    prefix: Box<str>,
    settings: Arc<TopicSettings>,
    /// Bytes of history that its topics have to themselves.
    reserved: usize,
    /// Clients can name topics here and publish to them.
    clients_publish: bool,
}

/// The settings of all prefixes of a server.
#[derive(Clone, Debug)]
pub(crate) struct SettingsTable {
    /// The longest prefix first; the last is the empty one.
    by_prefix: Arc<[Prefix]>,
    /// Bytes that all topics together may keep.
    pub(crate) max_history: usize,
}

/// What all topics together may keep by default.
pub(crate) const DEFAULT_MAX_HISTORY: usize = 256 << 20;

impl SettingsTable {
    /// `open` are prefixes that routes let clients publish to, whatever the settings say. What the settings reserve has
    /// been [checked](reserved).
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

    /// Whether clients may subscribe to a topic, or to all that is below a pattern.
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

    /// The settings of a topic, and the number of the prefix that they are of.
    pub(crate) fn find(&self, topic: &str) -> (u32, &Arc<TopicSettings>) {
        let last = self.by_prefix.len() - 1;
        let at = self.by_prefix.iter().position(|p| topic.starts_with(&*p.prefix)).unwrap_or(last);
        (at as u32, &self.by_prefix[at].settings)
    }

    /// Whether any topics have a policy for slow consumers that gives up old messages for new ones.
    pub(crate) fn replaces_older(&self) -> bool {
        self.by_prefix
            .iter()
            .any(|prefix| prefix.settings.slow_consumer.is_some_and(SlowConsumer::replaces_older))
    }

    /// How many prefixes have settings, the empty one included.
    pub(crate) fn prefixes(&self) -> usize {
        self.by_prefix.len()
    }

    /// Of a prefix, the bytes of history that are reserved for it, and whether clients can publish to it.
    pub(crate) fn reservation(&self, prefix: usize) -> (usize, bool) {
        let Prefix { reserved, clients_publish, .. } = self.by_prefix[prefix];
        (reserved, clients_publish)
    }
}

/// The bytes of history that prefixes reserve, without those that take an equal part.
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
