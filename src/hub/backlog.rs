//! What waits for another worker whose mailbox has no room: a queue for each topic, served in turn by bytes, so that
//! the flood of one topic delays no other.
//!
//! ```text
//!   topic "flood": [64 KiB][64 KiB][64 KiB]...[missed 12]  ─┐
//!   topic "a":     [1 KiB]                                  ├─▶ one quantum of each in turn ─▶ mailbox
//!   topic "b":     [2 KiB][1 KiB]                          ─┘
//! ```
//! A topic that passes its bound loses its newest messages; in their place the queue keeps how many there were, so that
//! the subscribers are told.

use super::{Congestion, Delivery, Joined, Mark, Position, Reader};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Bytes that a topic may send in its turn.
const QUANTUM: isize = 64 << 10;

/// Bytes of a topic from which on it is congested: publishers wait, until [`LOW`] is reached.
const HIGH: usize = 256 << 10;
const LOW: usize = 64 << 10;

/// What an entry costs beside the bytes of its messages.
const ENTRY: usize = 256;

/// A step in a topic's stream to another worker.
#[derive(Debug)]
pub(crate) enum Step {
    /// Messages.
    Deliver(Delivery),
    /// Messages were lost.
    Missed(Missed),
    /// The answer to a recovery: what comes before it is in its replay.
    Joined(Box<Joined>),
}

/// Messages of a topic that were lost on the way to a worker.
#[derive(Clone, Debug)]
pub(crate) struct Missed {
    pub(crate) topic: Arc<str>,
    /// Behind the last of them.
    pub(crate) position: Position,
    /// Those that were not for all subscribers.
    pub(crate) marks: Vec<Mark>,
    /// The others.
    pub(crate) messages: u32,
}

/// Marks kept of lost messages that were not for all subscribers; of more than these, all subscribers are told.
const MARKS: usize = 1024;

impl Missed {
    fn new(delivery: &Delivery) -> Self {
        let mut missed = Self {
            topic: delivery.topic.clone(),
            position: delivery.position,
            marks: Vec::new(),
            messages: 0,
        };
        missed.add(delivery);
        missed
    }

    fn add(&mut self, delivery: &Delivery) {
        for mark in &*delivery.marks {
            if (mark.except.is_some() || mark.tags.is_some()) && self.marks.len() < MARKS {
                self.marks.push(mark.clone());
            } else {
                self.messages += 1;
            }
        }
        let offset = delivery.position.offset + delivery.marks.len() as u64 - 1;
        self.position = Position { offset, ..delivery.position };
    }
}

impl Missed {
    /// How many of them were for a subscriber.
    pub(crate) fn count_for(&self, reader: Reader<'_>) -> u32 {
        self.messages + self.marks.iter().filter(|mark| mark.is_for(reader)).count() as u32
    }
}

impl Step {
    /// Bytes that it keeps from being freed.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Deliver(delivery) => delivery.frames.len(),
            Self::Missed(missed) => missed.marks.len() * size_of::<Mark>(),
            Self::Joined(joined) => size_of_val(&*joined.replay),
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    steps: VecDeque<Step>,
    bytes: usize,
    /// Bytes that it may still send in its turn; below zero after a step that was larger than what was left.
    credit: isize,
    congested: bool,
    full: bool,
}

/// Of the bytes that may wait for a worker, the part of one topic from which on it is full.
const FULL_PART: usize = 4;

impl Queue {
    /// Takes back its marks.
    fn relax(&mut self, topic: &str, congestion: &Congestion) {
        if core::mem::take(&mut self.full) {
            congestion.set_full(topic, false);
        }
        if core::mem::take(&mut self.congested) {
            congestion.unmark(topic);
        }
    }
}

/// What waits for one other worker.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    topics: HashMap<Arc<str>, Queue>,
    /// The topics in turn; each stands here once.
    turns: VecDeque<Arc<str>>,
    bytes: usize,
}

/// What sending from a backlog came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// A topic is no longer congested: publishers that wait for it may go on.
    pub(crate) released: bool,
}

impl Backlog {
    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Whether something of this topic waits, which has to be sent first.
    pub(crate) fn has(&self, topic: &str) -> bool {
        !self.is_empty() && self.topics.contains_key(topic)
    }

    /// Appends a step of a topic. Over `most` bytes a topic is bound to its part of them, and loses its newest messages.
    /// Returns the number of messages that are lost.
    pub(crate) fn push(
        &mut self,
        topic: &Arc<str>,
        step: Step,
        most: usize,
        congestion: &Congestion,
    ) -> usize {
        let topics = self.topics.len().max(1);
        let queue = self.topics.entry(topic.clone()).or_insert_with(|| {
            self.turns.push_back(topic.clone());
            Queue::default()
        });
        let weight = ENTRY + step.weight();
        let full = self.bytes + weight > most && queue.bytes + weight > most / (2 * topics);
        // A single message always finds room, and so does an answer: there is one for each request that was taken.
        let (step, lost) = match step {
            Step::Deliver(delivery) if full && !queue.steps.is_empty() => {
                let lost = delivery.marks.len();
                if let Some(Step::Missed(missed)) = queue.steps.back_mut() {
                    let before = missed.marks.len();
                    missed.add(&delivery);
                    let more = (missed.marks.len() - before) * size_of::<Mark>();
                    queue.bytes += more;
                    self.bytes += more;
                    return lost;
                }
                (Step::Missed(Missed::new(&delivery)), lost)
            }
            step => (step, 0),
        };
        let weight = ENTRY + step.weight();
        queue.steps.push_back(step);
        queue.bytes += weight;
        self.bytes += weight;
        if queue.bytes > HIGH && !queue.congested {
            queue.congested = true;
            congestion.mark(topic);
        }
        if queue.congested && queue.bytes > most / FULL_PART && !queue.full {
            queue.full = true;
            congestion.set_full(topic, true);
        }
        lost
    }

    /// Sends while there is room, a quantum of each topic in turn. `send` gives back what finds none.
    pub(crate) fn send(
        &mut self,
        congestion: &Congestion,
        mut send: impl FnMut(Step) -> Result<(), Step>,
    ) -> Sent {
        let mut sent = Sent::default();
        while let Some(topic) = self.turns.front().cloned() {
            let Some(queue) = self.topics.get_mut(&topic) else {
                self.turns.pop_front();
                continue;
            };
            if queue.credit <= 0 {
                queue.credit += QUANTUM;
            }
            let mut has_room = true;
            while queue.credit > 0
                && let Some(step) = queue.steps.pop_front()
            {
                let weight = ENTRY + step.weight();
                if let Err(step) = send(step) {
                    queue.steps.push_front(step);
                    has_room = false;
                    break;
                }
                queue.bytes -= weight;
                self.bytes -= weight;
                queue.credit = queue.credit.saturating_sub_unsigned(weight);
            }
            if queue.congested && queue.bytes <= LOW {
                queue.relax(&topic, congestion);
                sent.released = true;
            }
            if queue.steps.is_empty() {
                self.topics.remove(&topic);
                self.turns.pop_front();
            } else if has_room {
                self.turns.rotate_left(1);
            }
            if !has_room {
                break;
            }
        }
        if self.is_empty() {
            // A burst may have made them large.
            *self = Self::default();
        }
        sent
    }

    /// The other worker has ended: nothing is sent any more.
    pub(crate) fn clear(&mut self, congestion: &Congestion) {
        for (topic, mut queue) in self.topics.drain() {
            queue.relax(&topic, congestion);
        }
        *self = Self::default();
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
