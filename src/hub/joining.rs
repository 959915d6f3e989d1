//! Subscriptions that have been asked for at their topics' homes and not answered, by connection.

use crate::conn::ConnId;
use std::collections::HashMap;
use std::sync::Arc;

/// Each with its number: one that was called off and asked for again is another.
#[derive(Debug, Default)]
pub(crate) struct Joining {
    asked: HashMap<ConnId, Vec<(Arc<str>, u32)>>,
    last: u32,
}

impl Joining {
    pub(crate) fn contains(&self, conn: ConnId, topic: &str) -> bool {
        self.asked.get(&conn).is_some_and(|all| all.iter().any(|(t, _)| **t == *topic))
    }

    /// How many a connection waits for.
    pub(crate) fn count(&self, conn: ConnId) -> usize {
        self.asked.get(&conn).map_or(0, Vec::len)
    }

    /// Notes that one has been asked for, and gives its number.
    pub(crate) fn ask(&mut self, conn: ConnId, topic: Arc<str>) -> u32 {
        self.last = self.last.wrapping_add(1);
        self.asked.entry(conn).or_default().push((topic, self.last));
        self.last
    }

    /// Says whether there was one.
    pub(crate) fn call_off(&mut self, conn: ConnId, topic: &str) -> bool {
        self.take(conn, |(t, _)| **t == *topic)
    }

    /// Whether the one with this number, which has been answered, is still wanted.
    pub(crate) fn answered(&mut self, conn: ConnId, number: u32) -> bool {
        self.take(conn, |(_, n)| *n == number)
    }

    fn take(&mut self, conn: ConnId, is: impl Fn(&(Arc<str>, u32)) -> bool) -> bool {
        let Some(all) = self.asked.get_mut(&conn) else { return false };
        let Some(at) = all.iter().position(is) else { return false };
        all.swap_remove(at);
        if all.is_empty() {
            self.asked.remove(&conn);
        }
        true
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
        assert!(!joining.answered(conn, first) && joining.answered(conn, second));
        assert!(!joining.contains(conn, "a") && !joining.remove(conn));
    }
}
