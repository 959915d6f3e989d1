//! What the home of a topic knows of it: the next offset, what is kept, and which other workers have subscribers.

use super::accounts::Held;
use super::history::{Entry, History, Millis};
use super::rate::Nanos;
use super::shares::Shares;
use super::{Origin, Position, Refusal, Start, Tags, TopicSettings};
use crate::conn::ConnId;
use crate::memory::Shrink;
use core::time::Duration;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Ids of publications that are remembered for each topic, so that a repeated one is not published again.
const MAX_IDS: usize = 1024;

/// How long they are remembered.
const ID_AGE: Millis = 5 * 60 * 1000;

const NANOS_PER_MILLI: Nanos = 1_000_000;

/// A topic at its home.
#[derive(Debug)]
pub(crate) struct Home {
    /// Names this life of the topic: offsets of another mean nothing.
    pub(crate) epoch: u64,
    /// The offset of the next message; the first is 1.
    pub(crate) next: u64,
    pub(crate) settings: Arc<TopicSettings>,
    /// The prefix that the settings are of.
    pub(super) prefix: u32,
    /// Its place in its list of [`Accounts`](super::accounts::Accounts); means nothing while it holds nothing.
    pub(super) listed: u32,
    pub(crate) history: History,
    /// Subscribers on other workers, by worker.
    interest: Vec<(u16, u32)>,
    ids: Option<Box<Ids>>,
    /// It stays although it keeps no message: at least until this. So whoever was the only one to listen finds it again,
    /// and what is remembered of its publishers is not forgotten with its last listener.
    lingers: Option<Millis>,
    /// What its publishers have taken of its rate; none where there is no rate, or nobody has published lately.
    shares: Option<Box<Shares>>,
}

/// A topic that is there because it keeps something: its name, its place in two tables, what its home knows.
const TOPIC_COST: usize = 1024;

#[derive(Debug, Default)]
struct Ids {
    offsets: HashMap<Arc<str>, (u64, Millis)>,
    order: VecDeque<(Arc<str>, Millis)>,
    /// Bytes of memory, about.
    cost: usize,
}

/// What an id costs beside its bytes: its place in the two tables.
const ID_COST: usize = 96;

impl Ids {
    /// Forgets those that are too old, and the oldest where there are too many.
    fn expire(&mut self, now: Millis, most: usize) {
        while let Some((oldest, _)) =
            self.order.front().filter(|(_, born)| born + ID_AGE <= now || self.order.len() > most)
        {
            self.cost -= oldest.len() + ID_COST;
            self.offsets.remove(oldest);
            self.order.pop_front();
        }
        self.order.shrink();
        self.offsets.shrink();
    }
}

impl Home {
    pub(crate) fn new(epoch: u64, settings: Arc<TopicSettings>, prefix: u32) -> Self {
        let (history, interest, shares) = (History::default(), Vec::new(), None);
        let (ids, lingers, listed) = (None, None, 0);
        Self { epoch, next: 1, settings, prefix, listed, history, interest, ids, lingers, shares }
    }

    /// Whether the topic needs no owner any more: it has no subscribers on other workers and holds nothing.
    pub(crate) fn is_idle(&self) -> bool {
        self.interest.is_empty() && self.holds_nothing()
    }

    fn holds_nothing(&self) -> bool {
        self.history.is_empty() && self.lingers.is_none() && self.ids.is_none()
    }

    /// From here on it stays for as long as its messages would, if it is one that keeps any.
    pub(crate) fn linger(&mut self, now: Millis) {
        if self.settings.keeps() {
            self.linger_until(now.saturating_add(self.settings.age()));
        }
    }

    /// It stays at least until then.
    fn linger_until(&mut self, until: Millis) {
        self.lingers = Some(self.lingers.unwrap_or(0).max(until));
    }

    /// Looks at it once in a while: `in_use` is whether anybody listens here.
    pub(crate) fn age(&mut self, now: Millis, in_use: bool) {
        self.expire(now);
        if let Some(shares) = &mut self.shares {
            shares.expire(now * NANOS_PER_MILLI);
        }
        if self.lingers.is_some() && (in_use || !self.interest.is_empty() || !self.history.is_empty()) {
            self.linger(now);
        }
        self.lingers = self.lingers.filter(|until| *until > now);
    }

    /// Removes what is too old.
    pub(crate) fn expire(&mut self, now: Millis) {
        self.history.expire(now);
        if let Some(ids) = &mut self.ids {
            ids.expire(now, MAX_IDS);
            if ids.order.is_empty() {
                self.ids = None;
            }
        }
    }

    /// Gives up all that it keeps, and its staying.
    pub(crate) fn give_up(&mut self) {
        self.history.clear();
        (self.lingers, self.ids) = (None, None);
    }

    /// What it holds beyond what a topic with listeners does, in bytes of memory, about.
    pub(super) fn held(&self) -> Held {
        let messages = !self.history.is_empty();
        if self.holds_nothing() {
            return Held { bytes: 0, messages };
        }
        let ids = self.ids.as_ref().map_or(0, |ids| ids.cost);
        Held { bytes: self.history.cost() + ids + TOPIC_COST, messages }
    }

    /// What speaks for evicting from this topic rather than from another: of a history its bytes times the age of its
    /// oldest message; of a topic without a message that nobody is there, and that it would be the first to go.
    pub(super) fn weight(&self, now: Millis, in_use: bool) -> u64 {
        const HALF: u64 = u64::MAX / 2;
        match self.history.oldest_gone() {
            Some(gone) => {
                let age = (now + self.settings.age()).saturating_sub(gone);
                (self.held().bytes as u64).saturating_mul(1 + age)
            }
            None => {
                let soon = HALF - self.lingers.unwrap_or(0).min(HALF);
                if in_use || !self.interest.is_empty() { soon } else { HALF + soon }
            }
        }
    }

    /// What a subscription with this filter that begins at `start` is given, the first `most` of it; `None` where that
    /// is not there.
    pub(crate) fn look(
        &self,
        start: Start,
        tags: Option<&Tags>,
        now: Millis,
        most: usize,
    ) -> Option<Vec<&Entry>> {
        let wanted = |e: &&Entry| e.until > now && tags.is_none_or(|tags| tags.want(e.tags.as_ref()));
        match start {
            Start::Now => None,
            Start::Last(n) => Some(self.history.last(n, wanted)),
            Start::Latest => Some(self.history.latest(wanted)),
            Start::After(at) if at.epoch == self.epoch => {
                Some(self.history.since(at.offset, self.next)?.filter(wanted).take(most).collect())
            }
            Start::After(_) => None,
        }
    }

    /// The place behind the last message.
    pub(crate) fn position(&self) -> Position {
        Position { epoch: self.epoch, offset: self.next - 1 }
    }

    /// The place of the next message, which has so many bytes and comes from this connection, or from the program.
    pub(crate) fn take_place(
        &mut self,
        len: usize,
        publisher: Option<ConnId>,
        now: Millis,
    ) -> Result<Origin, Refusal> {
        let limit = self.settings.max_message_size;
        if len > limit {
            return Err(Refusal::TooBig { len, limit });
        }
        if let Some(rate) = self.settings.rate {
            let shares = self.shares.get_or_insert_default();
            let taken = shares.take(rate, publisher, now * NANOS_PER_MILLI);
            taken.map_err(|early| Refusal::TooFast { early: Duration::from_nanos(early) })?;
        }
        self.next += 1;
        Ok(Origin { position: self.position(), policy: self.settings.slow_consumer })
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
    pub(crate) fn repeated(&self, id: &str, now: Millis) -> Option<u64> {
        let (offset, born) = self.ids.as_ref()?.offsets.get(id)?;
        (born + ID_AGE > now).then_some(*offset)
    }

    /// Remembers an id, and the topic stays as long.
    pub(crate) fn remember(&mut self, id: &str, offset: u64, now: Millis) {
        let ids = self.ids.get_or_insert_default();
        ids.expire(now, MAX_IDS - 1);
        let id: Arc<str> = id.into();
        ids.cost += id.len() + ID_COST;
        ids.offsets.insert(id.clone(), (offset, now));
        ids.order.push_back((id, now));
        self.linger_until(now + ID_AGE);
    }

    /// Stays until its rate has nothing more to remember.
    pub(crate) fn remember_rate(&mut self) {
        let paid = self.shares.as_ref().map_or(0, |shares| shares.paid());
        self.linger_until(paid / NANOS_PER_MILLI + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> Home {
        Home::new(7, Arc::new(TopicSettings::new()), 0)
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
