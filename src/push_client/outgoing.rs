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
use super::error::{PublishError, ServerError};
use crate::push_protocol::bounds::ERROR_RETRY;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

/// Called once, with what became of a publication.
pub(super) type OnPublished = Box<dyn FnOnce(Result<Published, PublishError>) + Send>;

/// What became of a publication, to be said without a lock.
pub(super) type Settled = (OnPublished, Result<Published, PublishError>);

/// Publications to one topic that may be on their way. It bounds how many can be overtaken at once, and allows 640 each
/// second over a round trip of 50 ms.
const WINDOW: usize = 32;

pub(super) struct NewPublication {
    pub(super) text: String,
    pub(super) topic: String,
    pub(super) done: OnPublished,
    pub(super) deadline: Instant,
    pub(super) limit: Duration,
}

struct PendingPublication {
    text: String,
    topic: Arc<str>,
    done: OnPublished,
    deadline: Instant,
    limit: Duration,
    /// The server put it off and it has not been sent since.
    deferred: Option<ServerError>,
    /// How often the server has put it off.
    deferrals: u32,
}

/// The publications to one topic. Ids grow in the order in which they were made.
#[derive(Default)]
struct TopicQueue {
    waiting: BTreeSet<u64>,
    /// Sent on this connection, without an answer.
    in_flight: BTreeSet<u64>,
    /// The greatest that was published while earlier ones were flying.
    published: u64,
    /// One at a time.
    one_at_a_time: bool,
    /// Nothing is sent before.
    until: Option<Instant>,
}

#[derive(Default)]
pub(super) struct Outgoing {
    all: BTreeMap<u64, PendingPublication>,
    queues: HashMap<Arc<str>, TopicQueue>,
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
    pub(super) fn push(&mut self, id: u64, new: NewPublication) {
        let NewPublication { text, topic, done, deadline, limit } = new;
        let topic: Arc<str> = topic.into();
        self.bytes += text.len();
        self.deadlines.insert((deadline, id));
        self.queues.entry(topic.clone()).or_default().waiting.insert(id);
        self.all.insert(
            id,
            PendingPublication { text, topic, done, deadline, limit, deferred: None, deferrals: 0 },
        );
    }

    // ---- what may go out ----

    /// The publications that may be sent now, one of each topic, in the order in which they were made.
    pub(super) fn ready(&self) -> Vec<u64> {
        let mut ready: Vec<u64> = self.queues.values().filter_map(TopicQueue::next).collect();
        ready.sort_unstable();
        ready
    }

    /// The one that may follow this one, to the same topic.
    pub(super) fn after(&self, topic: &str) -> Option<u64> {
        self.queues.get(topic)?.next()
    }

    pub(super) fn topic(&self, id: u64) -> Option<Arc<str>> {
        self.all.get(&id).map(|one| one.topic.clone())
    }

    pub(super) fn text(&self, id: u64) -> Option<&str> {
        self.all.get(&id).map(|one| &*one.text)
    }

    pub(super) fn sent(&mut self, id: u64) {
        let Some(one) = self.all.get_mut(&id) else { return };
        let Some(queue) = self.queues.get_mut(&one.topic) else { return };
        one.deferred = None;
        queue.waiting.remove(&id);
        queue.in_flight.insert(id);
    }

    /// It was sent on this connection and has no answer yet.
    pub(super) fn is_in_flight(&self, id: u64) -> bool {
        let queue = self.all.get(&id).and_then(|one| self.queues.get(&one.topic));
        queue.is_some_and(|queue| queue.in_flight.contains(&id))
    }

    // ---- what became of them ----

    pub(super) fn published(&mut self, id: u64, published: Published) {
        let Some(topic) = self.topic(id) else { return };
        self.settle(id, Ok(published));
        let Some(queue) = self.queues.get_mut(&topic) else { return };
        queue.published = queue.published.max(id);
        // Those that wait and were made before it have been put off.
        let overtaken: Vec<u64> = queue.waiting.range(..id).copied().collect();
        overtaken.into_iter().for_each(|id| self.overtaken(id));
    }

    /// The server wants it later.
    pub(super) fn defer(&mut self, id: u64, error: ServerError, retry: Duration, now: Instant) {
        let Some(one) = self.all.get_mut(&id) else { return };
        let Some(queue) = self.queues.get_mut(&one.topic) else { return };
        queue.one_at_a_time = true;
        queue.in_flight.remove(&id);
        queue.waiting.insert(id);
        let wait = retry_delay(retry, one.deferrals);
        one.deferrals += 1;
        one.deferred = Some(error);
        if id < queue.published {
            return self.overtaken(id);
        }
        let until = queue.until.map_or(now + wait, |until| until.max(now + wait));
        let before = queue.until.replace(until);
        let topic = one.topic.clone();
        if let Some(before) = before {
            self.waits.remove(&(before, topic.clone()));
        }
        self.waits.insert((until, topic));
    }

    fn overtaken(&mut self, id: u64) {
        if let Some(error) = self.all.get_mut(&id).and_then(|one| one.deferred.take()) {
            self.settle(id, Err(PublishError::Overtaken(error)));
        }
    }

    /// Ends one.
    pub(super) fn settle(&mut self, id: u64, result: Result<Published, PublishError>) {
        let Some(PendingPublication { text, topic, done, deadline, .. }) = self.all.remove(&id) else {
            return;
        };
        self.bytes -= text.len();
        self.deadlines.remove(&(deadline, id));
        if let Some(queue) = self.queues.get_mut(&topic) {
            queue.waiting.remove(&id);
            queue.in_flight.remove(&id);
            if queue.waiting.is_empty() && queue.in_flight.is_empty() {
                if let Some(until) = queue.until {
                    self.waits.remove(&(until, topic.clone()));
                }
                self.queues.remove(&topic);
            }
        }
        self.settled.push((done, result));
    }

    /// The connection has gone: all that has no answer is to be sent again.
    pub(super) fn lost(&mut self) {
        let mut overtaken = Vec::new();
        for queue in self.queues.values_mut() {
            // What went behind one that was put off may have been published.
            if let Some(last) = queue.in_flight.last() {
                overtaken.extend(queue.waiting.range(..last));
            }
            queue.waiting.append(&mut queue.in_flight);
            (queue.published, queue.until) = (0, None);
        }
        self.waits.clear();
        overtaken.into_iter().for_each(|id| self.overtaken(id));
        self.all.values_mut().for_each(|one| one.deferred = None);
    }

    pub(super) fn close(&mut self) {
        while let Some((&id, _)) = self.all.first_key_value() {
            self.settle(id, Err(PublishError::Closed));
        }
    }

    // ---- time ----

    pub(super) fn deadline(&self) -> Option<Instant> {
        let given_up = self.deadlines.first().map(|(at, _)| *at);
        let retry_delay = self.waits.first().map(|(at, _)| *at);
        given_up.into_iter().chain(retry_delay).min()
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
            if let Some(queue) = self.queues.get_mut(&topic) {
                queue.until = None;
            }
        }
    }
}

impl TopicQueue {
    fn next(&self) -> Option<u64> {
        let window = if self.one_at_a_time { 1 } else { WINDOW };
        let goes = self.until.is_none() && self.in_flight.len() < window;
        self.waiting.first().copied().filter(|_| goes)
    }
}

/// How long a request waits that the server has put off so many times before.
pub(super) fn retry_delay(retry: Duration, deferrals: u32) -> Duration {
    let (least, most) = (*ERROR_RETRY.start(), *ERROR_RETRY.end());
    retry.clamp(least.saturating_mul(1 << deferrals.min(16)).min(most), most)
}
