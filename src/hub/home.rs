//! What the home of a topic knows of it: the next offset, what is kept, and which other workers have subscribers.

use super::history::{History, Millis};
use super::{Position, TopicSettings};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Ids of publications that are remembered for each topic, so that a repeated one is not published again.
const MAX_IDS: usize = 1024;

/// How long they are remembered.
const ID_AGE: Millis = 5 * 60 * 1000;

/// A topic at its home.
#[derive(Debug)]
pub(crate) struct Home {
    /// Names this life of the topic: offsets of another mean nothing.
    pub(crate) epoch: u64,
    /// The offset of the next message; the first is 1.
    pub(crate) next: u64,
    pub(crate) settings: Arc<TopicSettings>,
    pub(crate) history: History,
    /// Subscribers on other workers, by worker.
    interest: Vec<(u16, u32)>,
    ids: Option<Box<Ids>>,
}

#[derive(Debug, Default)]
struct Ids {
    offsets: HashMap<Arc<str>, u64>,
    order: VecDeque<(Arc<str>, Millis)>,
}

impl Home {
    pub(crate) fn new(epoch: u64, settings: Arc<TopicSettings>) -> Self {
        Self { epoch, next: 1, settings, history: History::default(), interest: Vec::new(), ids: None }
    }

    /// Whether nothing here is worth keeping the topic for.
    pub(crate) fn is_idle(&self) -> bool {
        self.interest.is_empty() && self.history.is_empty()
    }

    /// The place behind the last message.
    pub(crate) fn position(&self) -> Position {
        Position { epoch: self.epoch, offset: self.next - 1 }
    }

    /// The place of the next message.
    pub(crate) fn take_place(&mut self) -> Position {
        self.next += 1;
        self.position()
    }

    /// So many subscribers came to a worker, or left it.
    pub(crate) fn interest(&mut self, worker: usize, change: i32) {
        let worker = worker as u16;
        match self.interest.iter().position(|(w, _)| *w == worker) {
            Some(at) => {
                let count = &mut self.interest[at].1;
                *count = count.saturating_add_signed(change);
                if *count == 0 {
                    self.interest.swap_remove(at);
                }
            }
            None if change > 0 => self.interest.push((worker, change as u32)),
            None => {}
        }
    }

    /// The other workers that have subscribers.
    pub(crate) fn interested(&self) -> impl Iterator<Item = usize> {
        self.interest.iter().map(|(worker, _)| usize::from(*worker))
    }

    /// Subscribers on other workers.
    pub(crate) fn elsewhere(&self) -> usize {
        self.interest.iter().map(|(_, count)| *count as usize).sum()
    }

    /// The offset that a publication with this id was given before.
    pub(crate) fn repeated(&mut self, id: &str, now: Millis) -> Option<u64> {
        let ids = self.ids.as_mut()?;
        while let Some((oldest, _)) = ids.order.front().filter(|(_, born)| born + ID_AGE <= now) {
            ids.offsets.remove(oldest);
            ids.order.pop_front();
        }
        ids.offsets.get(id).copied()
    }

    pub(crate) fn remember(&mut self, id: &str, offset: u64, now: Millis) {
        let ids = self.ids.get_or_insert_default();
        if ids.order.len() >= MAX_IDS
            && let Some((oldest, _)) = ids.order.pop_front()
        {
            ids.offsets.remove(&oldest);
        }
        let id: Arc<str> = id.into();
        ids.offsets.insert(id.clone(), offset);
        ids.order.push_back((id, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> Home {
        Home::new(7, Arc::new(TopicSettings::new()))
    }

    #[test]
    fn interest_is_a_sum_that_never_goes_below_nothing() {
        let mut home = home();
        home.interest(2, 1);
        home.interest(3, 2);
        home.interest(2, -1);
        assert_eq!(home.interested().collect::<Vec<_>>(), [3]);
        home.interest(5, -1);
        assert_eq!(home.elsewhere(), 2);
        home.interest(3, -5);
        assert!(home.is_idle());
    }

    #[test]
    fn ids_are_remembered_for_a_while_and_up_to_a_number() {
        let mut home = home();
        home.remember("a", 1, 0);
        assert_eq!(home.repeated("a", ID_AGE - 1), Some(1));
        assert_eq!(home.repeated("a", ID_AGE), None);
        for n in 0..=MAX_IDS as u64 {
            home.remember(&n.to_string(), n, 1);
        }
        assert_eq!(home.repeated("0", 2), None);
        assert_eq!(home.repeated("1", 2), Some(1));
    }
}
