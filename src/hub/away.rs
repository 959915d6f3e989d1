//! What goes from this worker to the others: publications to the owners of their topics, and what it owns to the workers
//! with subscribers. What finds no room in a mailbox waits here, and publishers are held meanwhile.

use super::backlog::{Backlog, Step};
use super::{Congestion, Delivery, Hub, Joined, Millis, Publication, TopicKey, topic};
use std::collections::VecDeque;
use std::sync::Arc;

/// What a write to a socket takes, in bytes that could be copied meanwhile; and a message in a run, for its place.
const WRITE: u64 = 8 << 10;
const MESSAGE: u64 = 64;

/// What goes to another worker.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// Messages to topics that it owns.
    Publications(Vec<Publication>),
    /// A step of a topic that has subscribers there.
    Step(Step),
}

fn step_with(
    send: &mut impl FnMut(usize, Outgoing) -> Result<(), Outgoing>,
    worker: usize,
    step: Step,
) -> Result<(), Step> {
    match send(worker, Outgoing::Step(step)) {
        Err(Outgoing::Step(step)) => Err(step),
        Ok(()) | Err(Outgoing::Publications(_)) => Ok(()),
    }
}

/// Publications on their way to the owner of their topics.
#[derive(Debug, Default)]
pub(super) struct Away {
    publications: VecDeque<Publication>,
    pub(super) bytes: usize,
    /// So much waits that the publishers of this worker wait.
    is_full: bool,
}

/// Bytes of publications that may wait for one owner before the publishers of this worker wait, until no more than
/// [`AWAY_LOW`] do.
const AWAY_HIGH: usize = 256 << 10;
const AWAY_LOW: usize = 64 << 10;

/// Bytes of publications in one command.
const AWAY_PIECE: usize = 64 << 10;

/// What a publication costs beside the bytes of its message.
const PUBLICATION_COST: usize = size_of::<Publication>() + 64;

impl Away {
    /// Sends them in pieces, in order, while there is room.
    fn send(&mut self, mut send: impl FnMut(Vec<Publication>) -> Result<(), Outgoing>) {
        while !self.publications.is_empty() {
            let (mut count, mut bytes) = (0, 0);
            for publication in &self.publications {
                if count > 0 && bytes >= AWAY_PIECE {
                    break;
                }
                bytes += publication.frames.len() + PUBLICATION_COST;
                count += 1;
            }
            let piece: Vec<Publication> = match count == self.publications.len() {
                true => core::mem::take(&mut self.publications).into(),
                false => self.publications.drain(..count).collect(),
            };
            if let Err(refused) = send(piece) {
                if let Outgoing::Publications(piece) = refused {
                    for publication in piece.into_iter().rev() {
                        self.publications.push_front(publication);
                    }
                }
                return;
            }
            self.bytes -= bytes;
        }
    }
}

impl Hub {
    /// Bounds what may wait for one other worker, and shares the marks of congested topics with all.
    pub(crate) fn connect(&mut self, most_waiting: usize, congestion: Arc<Congestion>) {
        (self.most_waiting, self.congestion) = (most_waiting, congestion);
    }

    /// Queues a publication for the owner of its topic. One that finds no room is refused and counted.
    pub(super) fn pass_on(&mut self, publication: Publication) {
        let away = &mut self.away[self.owners.of(&publication.topic)];
        let bytes = away.bytes + publication.frames.len() + PUBLICATION_COST;
        if !away.publications.is_empty() && bytes > self.most_waiting {
            self.refused += 1;
            return;
        }
        away.bytes = bytes;
        away.publications.push_back(publication);
        away.is_full |= bytes > AWAY_HIGH;
        self.awaits_room |= away.is_full;
    }

    /// Whether a publisher of the topic should wait: more of it waits for other workers than may without delaying
    /// others.
    #[inline]
    pub(crate) fn is_congested(&self, topic: &str) -> bool {
        !self.is_alone()
            && (self.awaits_room && self.away[self.owners.of(topic)].is_full || self.congestion.has(topic))
    }

    /// Another worker says that a topic is no longer congested.
    pub(crate) fn go_on(&mut self) {
        self.may_go_on = true;
    }

    /// Whether publishers of this worker that wait may go on. They wait again where their topic is still congested.
    pub(crate) fn can_go_on(&self) -> bool {
        self.may_go_on
            || self.awaits_room && self.away.iter().any(|away| away.is_full && away.bytes <= AWAY_LOW)
    }

    /// The same; the publishers that wait now do go on.
    pub(crate) fn take_go_on(&mut self) -> bool {
        let can = self.can_go_on();
        if can {
            self.away.iter_mut().for_each(|away| away.is_full &= away.bytes > AWAY_LOW);
            self.awaits_room = self.away.iter().any(|away| away.is_full);
            self.may_go_on = false;
        }
        can
    }

    /// An iteration of the event loop begins.
    pub(crate) fn begin_iteration(&mut self, now: Millis) {
        (self.now, self.largest) = (now, 0);
    }

    /// Whether what was published since `work` was `before` takes more than `most` to deliver. A single topic's
    /// subscribers may take longer: its messages are better delivered together.
    pub(crate) fn is_over(&self, before: u64, most: u64) -> bool {
        let work = self.work - before;
        work > most && work > 2 * self.largest
    }

    /// Estimated bytes that what came by the mailbox takes to deliver here.
    pub(crate) fn work(&self) -> u64 {
        self.work
    }

    /// Counts what a message takes to deliver: for each subscriber its bytes, and where it begins a run a write.
    pub(super) fn count_work(&mut self, key: TopicKey, len: usize, begins: bool) {
        let subscribers = self.index.subscribers(key).len() as u64;
        let work = subscribers * (len as u64 + if begins { WRITE } else { MESSAGE });
        self.work += work;
        if begins {
            self.largest = self.largest.max(work);
        }
    }

    /// Whether nothing that was published here waits for its topic's owner.
    pub(crate) fn has_published_all(&self) -> bool {
        self.away.iter().all(|away| away.publications.is_empty())
    }

    /// Whether nothing waits for subscribers of other workers.
    pub(crate) fn has_delivered_all(&self) -> bool {
        self.backlogs.iter().all(Backlog::is_empty)
    }

    /// A worker has ended: nothing is sent to it any more.
    pub(crate) fn forget_worker(&mut self, worker: usize) {
        self.away[worker] = Away::default();
        self.backlogs[worker].clear(&self.congestion);
    }

    /// Sends to the other workers what waits for them, and the runs that began in this iteration: publications to the
    /// topics' owners, deliveries to the workers with subscribers. `send` gives back what finds no room in the mailbox.
    pub(crate) fn send_away(&mut self, mut send: impl FnMut(usize, Outgoing) -> Result<(), Outgoing>) {
        if self.is_alone() {
            return;
        }
        let Self { index, log, patterns, away, backlogs, congestion, released, lost, most_waiting, .. } =
            self;
        for (owner, away) in away.iter_mut().enumerate() {
            away.send(|publications| send(owner, Outgoing::Publications(publications)));
        }
        for (worker, backlog) in backlogs.iter_mut().enumerate().filter(|(_, backlog)| !backlog.is_empty()) {
            let sent = backlog.send(congestion, |step| step_with(&mut send, worker, step));
            *released |= sent.released;
        }
        for run in log.runs_mut() {
            if !core::mem::take(&mut run.begins_here) {
                continue;
            }
            let topic = index.name(run.topic).clone();
            let mut workers: Vec<usize> =
                index.home(run.topic).into_iter().flat_map(|h| h.interested()).collect();
            if !patterns.is_empty() {
                let more = topic::patterns_of(&topic).filter_map(|p| patterns.get(&*p)).flatten();
                workers.extend(more.map(|(worker, _)| *worker));
                workers.sort_unstable();
                workers.dedup();
            }
            if workers.is_empty() {
                continue;
            }
            let (frames, marks, key, position) = (run.share(), run.marks().into(), run.key, run.position);
            let envelopes = run.envelopes().clone();
            let delivery = Delivery { topic: topic.clone(), frames, marks, key, position, envelopes };
            for worker in workers {
                let backlog = &mut backlogs[worker];
                let step = Step::Deliver(delivery.clone());
                let waits = if backlog.is_empty() { step_with(&mut send, worker, step) } else { Err(step) };
                if let Err(step) = waits {
                    *lost += backlog.push(&topic, step, *most_waiting, congestion) as u64;
                }
            }
        }
    }

    /// Queues the answer to a recovery behind what waits of its topic for that worker; `None`: nothing waits, and it can
    /// be sent at once.
    pub(crate) fn queue_joined(&mut self, worker: usize, joined: Box<Joined>) -> Option<Box<Joined>> {
        let backlog = &mut self.backlogs[worker];
        if !backlog.has(&joined.topic) {
            return Some(joined);
        }
        let topic = joined.topic.clone();
        backlog.push(&topic, Step::Joined(joined), self.most_waiting, &self.congestion);
        None
    }
}
