//! What a topic keeps and allows, by the longest prefix of its name.

use super::history::Millis;
use super::rate::Rate;
use super::topic::is_pattern;
use crate::conn::SlowConsumer;
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
            slow_consumer: None,
            max_message_size: usize::MAX,
            rate: None,
            client_subscribe: true,
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
    /// ([`HandleError::TooFast`](crate::HandleError::TooFast); where nobody waits for an answer, counted in
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
    /// may be subscribed to where all that is below it may. Default: they may.
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

    pub(crate) const fn age(&self) -> Millis {
        let age = self.history_age.as_millis();
        if age < FOREVER as u128 { age as Millis } else { FOREVER }
    }

    pub(crate) const fn keeps(&self) -> bool {
        self.history > 0
    }
}

/// The longest age: added to any time it is still one.
const FOREVER: Millis = Millis::MAX >> 1;

/// The settings of all prefixes of a server.
#[derive(Clone, Debug)]
pub(crate) struct SettingsTable {
    /// The longest prefix first; the last is the empty one.
    by_prefix: Arc<[(Box<str>, Arc<TopicSettings>)]>,
    /// Bytes that all topics together may keep.
    pub(crate) kept_most: usize,
}

/// What all topics together may keep by default.
pub(crate) const KEPT_MOST: usize = 256 << 20;

impl SettingsTable {
    pub(crate) fn new(given: Vec<(String, TopicSettings)>, kept_most: usize) -> Self {
        let of = |(prefix, settings): (String, TopicSettings)| (prefix.into(), Arc::new(settings));
        let default = [(String::new(), TopicSettings::new())];
        let mut by_prefix: Vec<(Box<str>, _)> = given.into_iter().chain(default).map(of).collect();
        by_prefix.sort_by_key(|(prefix, _)| core::cmp::Reverse(prefix.len()));
        Self { by_prefix: by_prefix.into(), kept_most }
    }

    /// Whether clients may subscribe to a topic, or to all that is below a pattern.
    #[cfg_attr(not(feature = "push"), allow(dead_code))]
    pub(crate) fn may_subscribe(&self, topic: &str) -> bool {
        let stem = if is_pattern(topic) { topic.trim_end_matches('*') } else { topic };
        let below = |prefix: &str| is_pattern(topic) && prefix.starts_with(stem);
        let all_below = self.by_prefix.iter().all(|(prefix, s)| !below(prefix) || s.client_subscribe);
        self.of(stem).client_subscribe && all_below
    }

    pub(crate) fn of(&self, topic: &str) -> &Arc<TopicSettings> {
        let last = self.by_prefix.len() - 1;
        let found = self.by_prefix.iter().find(|(prefix, _)| topic.starts_with(&**prefix));
        &found.unwrap_or(&self.by_prefix[last]).1
    }
}

impl Default for SettingsTable {
    fn default() -> Self {
        Self::new(Vec::new(), KEPT_MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_decides() {
        let of = |n| TopicSettings::new().history(n);
        let given = [("ticks/", 4), ("", 2), ("ticks/eur", 3)];
        let table = SettingsTable::new(given.map(|(p, n)| (p.to_owned(), of(n))).into(), KEPT_MOST);
        for (topic, n) in [("ticks/usd", 4), ("ticks/eurusd", 3), ("room", 2), ("tick", 2)] {
            assert_eq!(table.of(topic).history, n, "{topic}");
        }
        assert_eq!(SettingsTable::default().of("room").history, 0);
    }

    #[test]
    fn a_pattern_is_allowed_where_all_below_it_is() {
        let of = |may| TopicSettings::new().client_subscribe(may);
        let given =
            [("a/", true), ("a/secret/", false), ("a/secret/not/", true), ("b/", false), ("b/open/", true)];
        let table = SettingsTable::new(given.map(|(p, may)| (p.to_owned(), of(may))).into(), KEPT_MOST);
        for yes in ["a/x", "a/x/*", "a/secret/not/x", "a/secret/not/*", "b/open/*", "c/*", "c"] {
            assert!(table.may_subscribe(yes), "{yes}");
        }
        for no in ["a/*", "a/secret/*", "a/secret/x", "b/x", "b/*", "b/open*/*"] {
            assert!(!table.may_subscribe(no), "{no}");
        }
    }
}
