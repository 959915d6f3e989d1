//! Subscriptions that begin at a certain place: what is asked of a topic's home, its answer, and what has been asked for
//! and not answered.

use super::{Entry, Position, Tags};
use crate::conn::ConnId;
use std::collections::HashMap;
use std::sync::Arc;

/// A connection that wants to listen from a certain place on, on its way to the topic's home.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    pub(crate) conn: ConnId,
    pub(crate) topic: Arc<str>,
    pub(crate) start: Start,
    pub(crate) tags: Option<Tags>,
    /// Given by [`Joining`].
    pub(crate) number: u32,
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Start {
    /// With the next message.
    Now,
    /// With the newest message of each key that the history has; messages without a key count as one.
    Latest,
    /// With the last so many messages that the history has: what a room shows to whoever enters.
    Last(usize),
    /// Behind this place: with what was missed, if all of it is still there.
    After(Position),
}

/// A subscription to a topic or a pattern with its options, for
/// [`Conn::subscribe_with`](crate::Conn::subscribe_with).
///
/// ```
/// use campanile::{Start, Subscribe};
///
/// let subscribe = Subscribe::new("ticks").from(Start::Latest).tags(&["eur", "usd"]);
/// let below = Subscribe::pattern("ticks/*").tags(&["eur"]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Subscribe<'a> {
    pub(crate) target: Target<'a>,
    pub(crate) start: Start,
    pub(crate) tags: &'a [&'a str],
}

/// What a subscription is to, as it was named.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    Topic(&'a str),
    Pattern(&'a str),
}

impl<'a> Subscribe<'a> {
    /// Subscribes to what is published to a topic from now on. A pattern is refused where the subscription is made, with
    /// [`InvalidTopic::Pattern`](super::InvalidTopic::Pattern).
    pub const fn new(topic: &'a str) -> Self {
        Self { target: Target::Topic(topic), start: Start::Now, tags: &[] }
    }

    /// Subscribes to what is published from now on to every topic below a prefix: `ticks/*`.
    pub const fn pattern(pattern: &'a str) -> Self {
        Self { target: Target::Pattern(pattern), start: Start::Now, tags: &[] }
    }

    /// Begins at this place. A pattern takes [`Start::Now`] alone.
    #[must_use]
    pub const fn from(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// A filter: only the messages that carry one of these [tags](super::Publish::tags), also of those that are replayed.
    /// Default: all messages. Price: a look into a table for each message and subscriber with a filter.
    #[must_use]
    pub const fn tags(mut self, tags: &'a [&'a str]) -> Self {
        self.tags = tags;
        self
    }
}

/// The answer to a [`Join`].
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) conn: ConnId,
    pub(crate) topic: Arc<str>,
    pub(crate) tags: Option<Tags>,
    pub(crate) number: u32,
    pub(crate) subscribed: Subscribed,
    pub(crate) replay: Vec<Entry>,
    /// Messages that had to be looked at for it.
    pub(crate) looked_at: usize,
}

/// How a subscription began ([`Handler::subscribed`](crate::Handler::subscribed)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subscribed {
    /// The place behind the last message before it went live. With nothing published since, resuming from here misses
    /// nothing.
    pub position: Position,
    /// Whether everything behind the position that was asked for follows. False also where none was asked for.
    pub recovered: bool,
    /// Messages from the history that follow this call.
    pub replayed: usize,
}

/// What has been asked for and not answered, by connection.
/// Each with its number: one that was called off and asked for again is another. Each connection counts only its own, so
/// that a storm of those who come back costs no more than their number.
#[derive(Debug, Default)]
pub(crate) struct Joining {
    asked: HashMap<ConnId, HashMap<Arc<str>, u32>>,
    last: u32,
}

impl Joining {
    pub(crate) fn contains(&self, conn: ConnId, topic: &str) -> bool {
        self.asked.get(&conn).is_some_and(|all| all.contains_key(topic))
    }

    /// How many a connection waits for.
    pub(crate) fn count(&self, conn: ConnId) -> usize {
        self.asked.get(&conn).map_or(0, HashMap::len)
    }

    /// Notes that one has been asked for, and gives its number.
    pub(crate) fn ask(&mut self, conn: ConnId, topic: Arc<str>) -> u32 {
        self.last = self.last.wrapping_add(1);
        self.asked.entry(conn).or_default().insert(topic, self.last);
        self.last
    }

    /// Says whether there was one.
    pub(crate) fn call_off(&mut self, conn: ConnId, topic: &str) -> bool {
        let Some(all) = self.asked.get_mut(&conn) else { return false };
        let was = all.remove(topic).is_some();
        if all.is_empty() {
            self.asked.remove(&conn);
        }
        was
    }

    /// Whether the one with this number has not been called off.
    pub(crate) fn is_wanted(&self, conn: ConnId, topic: &str, number: u32) -> bool {
        self.asked.get(&conn).and_then(|all| all.get(topic)) == Some(&number)
    }

    /// Whether the one with this number, which has been answered, is still wanted.
    pub(crate) fn answered(&mut self, conn: ConnId, topic: &str, number: u32) -> bool {
        self.is_wanted(conn, topic, number) && self.call_off(conn, topic)
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// A connection has ended. Says whether it waited for any.
    pub(crate) fn remove(&mut self, conn: ConnId) -> bool {
        self.asked.remove(&conn).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_one_that_was_called_off_is_not_the_answer_to_the_next() {
        let (mut joining, conn) = (Joining::default(), ConnId::new(0, 1, 1));
        let first = joining.ask(conn, "a".into());
        assert!(joining.contains(conn, "a") && joining.call_off(conn, "a") && !joining.call_off(conn, "a"));
        let second = joining.ask(conn, "a".into());
        assert_eq!(joining.count(conn), 1);
        assert!(!joining.answered(conn, "a", first) && joining.answered(conn, "a", second));
        assert!(!joining.contains(conn, "a") && !joining.remove(conn));
    }
}
