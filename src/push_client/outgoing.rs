//! Publications without an answer: which may go out, and what becomes of one that the server puts off. Pure.
//!
//! Those to one topic are sent in the order in which they were made, at most [`WINDOW`] of them without an answer. The
//! server may put one off (`rate_limited`, `busy`) and still publish what was sent behind it. So from then on the topic's
//! publications are sent one at a time, until none is left; and one that was put off and then overtaken is not sent
//! again, because that would change the order. Its publisher is told.
//!
//! One case remains: the server puts a publication off, publishes a later one, and the connection breaks before either
//! answer arrives. Then both are sent again, and the first is published after the second; their positions say so.

use super::Published;
use super::fault::{Fault, PublishError};
use crate::push::bounds::AGAIN;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

/// Called once, with what became of a publication.
pub(super) type Done = Box<dyn FnOnce(Result<Published, PublishError>) + Send>;

/// What became of a publication, to be said without a lock.
pub(super) type Settled = (Done, Result<Published, PublishError>);

/// Publications to one topic that may be on their way. It bounds how many can be overtaken at once, and allows 640 each
/// second over a round trip of 50 ms.
const WINDOW: usize = 32;

pub(super) struct New {
    pub(super) text: String,
    pub(super) topic: String,
    pub(super) done: Done,
    pub(super) deadline: Instant,
    pub(super) limit: Duration,
}

struct One {
    text: String,
    topic: Arc<str>,
    done: Done,
    deadline: Instant,
    limit: Duration,
    /// The server put it off and it has not been sent since.
    put_off: Option<Fault>,
    /// How often the server has put it off.
    times: u32,
}

/// The publications to one topic. Ids grow in the order in which they were made.
#[derive(Default)]
struct Lane {
    waiting: BTreeSet<u64>,
    /// Sent on this connection, without an answer.
    flying: BTreeSet<u64>,
    /// The greatest that was published while earlier ones were flying.
    published: u64,
    /// One at a time.
    careful: bool,
    /// Nothing is sent before.
    until: Option<Instant>,
}

#[derive(Default)]
pub(super) struct Outgoing {
    all: BTreeMap<u64, One>,
    lanes: HashMap<Arc<str>, Lane>,
    deadlines: BTreeSet<(Instant, u64)>,
    /// The ends of the lanes' waits.
    waits: BTreeSet<(Instant, Arc<str>)>,
    bytes: usize,
    /// To be taken by the caller.
    pub(super) settled: Vec<Settled>,
}

impl Outgoing {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Bytes of those without an answer, as they are on the wire.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// `id` is greater than all before.
    pub(super) fn push(&mut self, id: u64, new: New) {
        let New { text, topic, done, deadline, limit } = new;
        let topic: Arc<str> = topic.into();
        self.bytes += text.len();
        self.deadlines.insert((deadline, id));
        self.lanes.entry(topic.clone()).or_default().waiting.insert(id);
        self.all.insert(id, One { text, topic, done, deadline, limit, put_off: None, times: 0 });
    }

    // ---- what may go out ----

    /// The publications that may be sent now, one of each topic, in the order in which they were made.
    pub(super) fn ready(&self) -> Vec<u64> {
        let mut ready: Vec<u64> = self.lanes.values().filter_map(Lane::next).collect();
        ready.sort_unstable();
        ready
    }

    /// The one that may follow this one, to the same topic.
    pub(super) fn after(&self, topic: &str) -> Option<u64> {
        self.lanes.get(topic)?.next()
    }

    pub(super) fn topic(&self, id: u64) -> Option<Arc<str>> {
        self.all.get(&id).map(|one| one.topic.clone())
    }

    pub(super) fn text(&self, id: u64) -> Option<&str> {
        self.all.get(&id).map(|one| &*one.text)
    }

    pub(super) fn sent(&mut self, id: u64) {
        let Some(one) = self.all.get_mut(&id) else { return };
        let Some(lane) = self.lanes.get_mut(&one.topic) else { return };
        one.put_off = None;
        lane.waiting.remove(&id);
        lane.flying.insert(id);
    }

    /// It was sent on this connection and has no answer yet.
    pub(super) fn is_flying(&self, id: u64) -> bool {
        let lane = self.all.get(&id).and_then(|one| self.lanes.get(&one.topic));
        lane.is_some_and(|lane| lane.flying.contains(&id))
    }

    // ---- what became of them ----

    pub(super) fn published(&mut self, id: u64, published: Published) {
        let Some(topic) = self.topic(id) else { return };
        self.settle(id, Ok(published));
        let Some(lane) = self.lanes.get_mut(&topic) else { return };
        lane.published = lane.published.max(id);
        // Those that wait and were made before it have been put off.
        let overtaken: Vec<u64> = lane.waiting.range(..id).copied().collect();
        overtaken.into_iter().for_each(|id| self.overtaken(id));
    }

    /// The server wants it later.
    pub(super) fn put_off(&mut self, id: u64, fault: Fault, retry: Duration, now: Instant) {
        let Some(one) = self.all.get_mut(&id) else { return };
        let Some(lane) = self.lanes.get_mut(&one.topic) else { return };
        lane.careful = true;
        lane.flying.remove(&id);
        lane.waiting.insert(id);
        let wait = again(retry, one.times);
        one.times += 1;
        one.put_off = Some(fault);
        if id < lane.published {
            return self.overtaken(id);
        }
        let until = lane.until.map_or(now + wait, |until| until.max(now + wait));
        let before = lane.until.replace(until);
        let topic = one.topic.clone();
        if let Some(before) = before {
            self.waits.remove(&(before, topic.clone()));
        }
        self.waits.insert((until, topic));
    }

    fn overtaken(&mut self, id: u64) {
        if let Some(fault) = self.all.get_mut(&id).and_then(|one| one.put_off.take()) {
            self.settle(id, Err(PublishError::Overtaken(fault)));
        }
    }

    /// Ends one.
    pub(super) fn settle(&mut self, id: u64, result: Result<Published, PublishError>) {
        let Some(One { text, topic, done, deadline, .. }) = self.all.remove(&id) else { return };
        self.bytes -= text.len();
        self.deadlines.remove(&(deadline, id));
        if let Some(lane) = self.lanes.get_mut(&topic) {
            lane.waiting.remove(&id);
            lane.flying.remove(&id);
            if lane.waiting.is_empty() && lane.flying.is_empty() {
                if let Some(until) = lane.until {
                    self.waits.remove(&(until, topic.clone()));
                }
                self.lanes.remove(&topic);
            }
        }
        self.settled.push((done, result));
    }

    /// The connection has gone: all that has no answer is to be sent again.
    pub(super) fn lost(&mut self) {
        let mut overtaken = Vec::new();
        for lane in self.lanes.values_mut() {
            // What went behind one that was put off may have been published.
            if let Some(last) = lane.flying.last() {
                overtaken.extend(lane.waiting.range(..last));
            }
            lane.waiting.append(&mut lane.flying);
            (lane.published, lane.until) = (0, None);
        }
        self.waits.clear();
        overtaken.into_iter().for_each(|id| self.overtaken(id));
        self.all.values_mut().for_each(|one| one.put_off = None);
    }

    pub(super) fn close(&mut self) {
        while let Some((&id, _)) = self.all.first_key_value() {
            self.settle(id, Err(PublishError::Closed));
        }
    }

    // ---- time ----

    pub(super) fn deadline(&self) -> Option<Instant> {
        let given_up = self.deadlines.first().map(|(at, _)| *at);
        let again = self.waits.first().map(|(at, _)| *at);
        given_up.into_iter().chain(again).min()
    }

    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(&(at, id)) = self.deadlines.first()
            && at <= now
        {
            let limit = self.all.get(&id).map_or(Duration::ZERO, |one| one.limit);
            self.deadlines.pop_first();
            self.settle(id, Err(PublishError::Timeout { limit }));
        }
        while let Some((at, _)) = self.waits.first()
            && *at <= now
        {
            let Some((_, topic)) = self.waits.pop_first() else { return };
            if let Some(lane) = self.lanes.get_mut(&topic) {
                lane.until = None;
            }
        }
    }
}

impl Lane {
    fn next(&self) -> Option<u64> {
        let window = if self.careful { 1 } else { WINDOW };
        let goes = self.until.is_none() && self.flying.len() < window;
        self.waiting.first().copied().filter(|_| goes)
    }
}

/// How long a request waits that the server has put off so many times before.
pub(super) fn again(retry: Duration, times: u32) -> Duration {
    let (least, most) = (*AGAIN.start(), *AGAIN.end());
    retry.clamp(least.saturating_mul(1 << times.min(16)).min(most), most)
}
