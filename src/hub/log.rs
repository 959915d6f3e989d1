//! What one turn of a worker's loop publishes: runs of neighbouring messages of one topic, joined once, in one buffer
//! that all subscribers share.
//!
//! ```text
//!   run 0: topic "room"             run 1: topic "ticks"   run 2: topic "room"
//!  [frame|frame|frame]             [frame|frame]          [frame]
//!   0     1     2  <- position      3     4                5
//! ```
//! Runs leave in this order at the end of the turn, so what one sender published to several topics keeps its order.
//! A connection that is written to directly in between first takes what the log has for it ([`Log::part`] from its
//! own position), and at the end of the turn only the rest.

use super::envelope::{self, Envelope, Envelopes};
use super::index::TopicKey;
use super::{Position, Tags};
use crate::conn::{ConnId, Frames, SlowConsumer, Terms};
use crate::memory::Shrink;
use crate::protocol::{Key, Message, header};
use core::ops::Range;
use std::sync::Arc;

/// Where a message's frame ends in its run, and whom it is not for.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub(crate) end: usize,
    pub(crate) except: Option<ConnId>,
    /// Milliseconds that it may be kept; zero: as long as its topic says.
    pub(crate) ttl: u32,
    /// Its publisher says that it is JSON.
    pub(crate) json: bool,
    /// What it is about, for subscribers with a filter.
    pub(crate) tags: Option<Tags>,
}

impl Mark {
    pub(super) fn is_for(&self, reader: Reader<'_>) -> bool {
        self.except != Some(reader.conn) && reader.filter.is_none_or(|tags| tags.want(self.tags.as_ref()))
    }
}

/// Who takes a run's messages: a connection with its filter, from this position of the turn on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    pub(crate) conn: ConnId,
    pub(crate) filter: Option<&'a Tags>,
    pub(crate) from: u32,
}

/// What a message's run is to know of its topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// The message's place.
    pub(crate) position: Position,
    /// What the topic says of slow consumers.
    pub(crate) policy: Option<SlowConsumer>,
}

#[derive(Debug)]
enum Bytes {
    /// Only this turn needs them so far.
    Own(Vec<u8>),
    /// A backlog or another worker has a share.
    Shared(Frames),
}

/// Neighbouring messages of one topic.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) topic: TopicKey,
    pub(crate) key: Option<Key>,
    /// Position in the turn of the first message.
    first: u32,
    /// Place of the first message; the others follow without a gap.
    pub(crate) position: Position,
    /// What its topic says of slow consumers; none: what the route says.
    pub(crate) policy: Option<SlowConsumer>,
    bytes: Bytes,
    marks: Vec<Mark>,
    /// Its messages are not to be compressed.
    verbatim: bool,
    /// Whether any message is not for everybody.
    pub(crate) selective: bool,
    /// Whether it began on this worker, which then passes it on to the others.
    pub(crate) begins_here: bool,
    /// What the routes' envelopes made of it, shared with the other workers that have it.
    envelopes: Option<Arc<Envelopes>>,
}

impl Run {
    /// One that begins on this worker.
    fn new(
        topic: TopicKey,
        key: Option<Key>,
        first: u32,
        origin: Origin,
        bytes: Bytes,
        marks: Vec<Mark>,
        verbatim: bool,
    ) -> Self {
        let Origin { position, policy } = origin;
        let (selective, begins_here, envelopes) = (false, true, None);
        Self {
            topic,
            key,
            first,
            position,
            policy,
            bytes,
            marks,
            verbatim,
            selective,
            begins_here,
            envelopes,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Own(bytes) => bytes,
            Bytes::Shared(frames) => frames,
        }
    }

    /// The bytes, from now on shared.
    pub(crate) fn share(&mut self) -> Frames {
        match &mut self.bytes {
            Bytes::Shared(frames) => frames.clone(),
            Bytes::Own(bytes) => {
                let mut bytes = core::mem::take(bytes);
                // It may be a buffer of an earlier turn, far larger than what is in it now: whoever keeps the frames
                // would keep all of it, and is charged for what is in it.
                if bytes.capacity() > 2 * bytes.len() {
                    bytes.shrink_to_fit();
                }
                let frames = Frames::with(bytes, self.verbatim);
                self.bytes = Bytes::Shared(frames.clone());
                frames
            }
        }
    }

    /// The bytes to be kept for long.
    pub(crate) fn bare(&mut self) -> Frames {
        self.share();
        match &mut self.bytes {
            Bytes::Shared(frames) => frames.bare(),
            Bytes::Own(bytes) => Frames::with(bytes.clone(), self.verbatim), // it is shared now
        }
    }

    /// The messages from this byte on, in a buffer of their own.
    pub(crate) fn copy_from(&self, at: usize) -> Frames {
        Frames::with(self.bytes()[at..].to_vec(), self.verbatim)
    }

    /// What holds for this run's messages on a connection of a route: the topic's policy comes before the route's.
    pub(crate) fn terms(&self, route: &Terms) -> Terms {
        Terms { slow_consumer: self.policy.unwrap_or(route.slow_consumer), ..*route }
    }

    pub(crate) fn marks(&self) -> &[Mark] {
        &self.marks
    }

    pub(crate) fn messages(&self) -> u32 {
        self.marks.len() as u32
    }

    /// What the envelopes made of it, to be shared with other workers.
    pub(crate) fn envelopes(&mut self) -> &Arc<Envelopes> {
        self.envelopes.get_or_insert_default()
    }

    /// The run in one of `of` envelopes, once [`Run::envelopes`] has been called.
    pub(crate) fn wrapped(&self, at: usize, of: usize, wrap: impl FnOnce() -> Frames) -> Option<&Frames> {
        self.envelopes.as_ref()?.get(at, of, wrap)
    }

    /// The run as a connection in this envelope takes it.
    pub(crate) fn wrap(&self, topic: &str, envelope: &dyn Envelope) -> Frames {
        envelope::wrap(envelope, topic, self.position, self.frames(), self.verbatim)
    }

    /// The run as a connection in this envelope takes it that takes several messages as one.
    pub(crate) fn wrap_all(&self, topic: &str, envelope: &dyn Envelope) -> Frames {
        envelope::wrap_all(envelope, topic, self.position, self.frames(), self.verbatim)
            .unwrap_or_else(|| self.wrap(topic, envelope))
    }

    /// Each message's frame, and whether it is JSON.
    fn frames(&self) -> impl Iterator<Item = (&[u8], bool)> {
        let mut start = 0;
        self.marks.iter().map(move |mark| {
            let frame = &self.bytes()[start..mark.end];
            start = mark.end;
            (frame, mark.json)
        })
    }

    /// The messages that are for a reader one by one: offset, range of the bytes, and what is known of them.
    pub(crate) fn messages_for<'a>(
        &'a self,
        reader: Reader<'a>,
    ) -> impl Iterator<Item = (u64, Range<usize>, &'a Mark)> {
        let skip = reader.from.saturating_sub(self.first) as usize;
        let starts = core::iter::once(0).chain(self.marks.iter().map(|mark| mark.end));
        let all = (self.position.offset..).zip(starts).zip(&self.marks).skip(skip);
        let mine = all.filter(move |(_, mark)| mark.is_for(reader));
        mine.map(|((offset, start), mark)| (offset, start..mark.end, mark))
    }

    /// The messages that are for a reader, as ranges of the run or of `other` frames made of it; neighbours as one range.
    pub(crate) fn part<'a>(
        &'a self,
        reader: Reader<'a>,
        other: Option<&'a Frames>,
    ) -> impl Iterator<Item = Range<usize>> + 'a {
        let skip = reader.from.saturating_sub(self.first) as usize;
        let mut at = skip.min(self.marks.len());
        let end_of = move |message: usize| match other {
            Some(other) => other.ends()[message],
            None => self.marks[message].end,
        };
        core::iter::from_fn(move || {
            while self.marks.get(at).is_some_and(|m| !m.is_for(reader)) {
                at += 1;
            }
            let begin = at;
            while self.marks.get(at).is_some_and(|m| m.is_for(reader)) {
                at += 1;
            }
            (at > begin).then(|| if begin == 0 { 0 } else { end_of(begin - 1) }..end_of(at - 1))
        })
    }
}

/// A run that grew to this is not continued: a slow subscriber keeps whole runs alive.
const MAX_RUN: usize = 256 << 10;

/// Frames published elsewhere that are at least this long are shared instead of being joined to their neighbours.
const MIN_SHARED: usize = 8 << 10;

/// Marks that a buffer keeps for a later turn.
const MAX_MARKS: usize = 4096;

/// The runs of one turn.
#[derive(Debug, Default)]
pub(crate) struct Log {
    runs: Vec<Run>,
    /// Messages so far.
    len: u32,
    /// Buffers of earlier turns.
    spare: Vec<(Vec<u8>, Vec<Mark>)>,
}

impl Log {
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Runs so far.
    pub(crate) fn len(&self) -> usize {
        self.runs.len()
    }

    /// Messages so far: the position of the next.
    pub(crate) fn position(&self) -> u32 {
        self.len
    }

    #[cfg(test)]
    pub(crate) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The runs, to be delivered and [put back](Log::put_back).
    pub(crate) fn take_runs(&mut self) -> Vec<Run> {
        core::mem::take(&mut self.runs)
    }

    pub(crate) fn put_back(&mut self, runs: Vec<Run>) {
        self.runs = runs;
    }

    pub(crate) fn runs_mut(&mut self) -> &mut [Run] {
        &mut self.runs
    }

    /// Those with messages at this position or behind it: a connection that is caught up again and again in one turn
    /// does not go through all of them each time.
    pub(crate) fn runs_from(&mut self, from: u32) -> &mut [Run] {
        let taken = self.runs.partition_point(|run| run.first + run.messages() <= from);
        &mut self.runs[taken..]
    }

    /// Encodes a message behind its neighbours.
    pub(crate) fn publish(
        &mut self,
        topic: TopicKey,
        message: Message<'_>,
        except: Option<ConnId>,
        origin: Origin,
    ) {
        let run = self.run(topic, message.key(), message.is_verbatim(), message.len(), origin);
        if let Bytes::Own(bytes) = &mut run.bytes {
            header::write_frame(bytes, message.kind().into(), message.as_bytes());
            let end = bytes.len();
            run.mark(Mark { end, except, ttl: 0, json: message.is_json(), tags: None });
        }
        self.len += 1;
    }

    /// Takes frames that were encoded elsewhere, one message.
    pub(crate) fn publish_frames(
        &mut self,
        topic: TopicKey,
        frames: Frames,
        key: Option<Key>,
        mark: Mark,
        origin: Origin,
    ) {
        if frames.len() >= MIN_SHARED {
            let end = frames.len();
            self.adopt(topic, frames, vec![Mark { end, ..mark }], key, None, origin);
            return;
        }
        let run = self.run(topic, key, frames.is_verbatim(), frames.len(), origin);
        if let Bytes::Own(bytes) = &mut run.bytes {
            bytes.extend_from_slice(&frames);
            let end = bytes.len();
            run.mark(Mark { end, ..mark });
        }
        self.len += 1;
    }

    /// Takes a run as another worker has joined it; `envelopes`: as it has wrapped it. Without them it begins here.
    pub(crate) fn adopt(
        &mut self,
        topic: TopicKey,
        frames: Frames,
        marks: Vec<Mark>,
        key: Option<Key>,
        envelopes: Option<Arc<Envelopes>>,
        origin: Origin,
    ) {
        let verbatim = frames.is_verbatim();
        let first = self.len;
        let selective = marks.iter().any(|m| m.except.is_some());
        self.len += marks.len() as u32;
        let mut run = Run::new(topic, key, first, origin, Bytes::Shared(frames), marks, verbatim);
        (run.selective, run.begins_here, run.envelopes) = (selective, envelopes.is_none(), envelopes);
        self.runs.push(run);
    }

    /// The run that a message of `len` bytes joins.
    fn run(
        &mut self,
        topic: TopicKey,
        key: Option<Key>,
        verbatim: bool,
        len: usize,
        origin: Origin,
    ) -> &mut Run {
        let joins = self.runs.last().is_some_and(|run| {
            run.topic == topic
                && key.is_none()
                && run.key.is_none()
                && run.verbatim == verbatim
                && run.begins_here
                && matches!(&run.bytes, Bytes::Own(bytes) if bytes.len() + len <= MAX_RUN)
        });
        if !joins {
            let (bytes, marks) = self.spare.pop().unwrap_or_default();
            self.runs.push(Run::new(topic, key, self.len, origin, Bytes::Own(bytes), marks, verbatim));
        }
        let last = self.runs.len() - 1;
        &mut self.runs[last]
    }

    /// Bytes of buffers kept for later turns.
    pub(crate) fn spare_bytes(&self) -> usize {
        let bytes =
            |(bytes, marks): &(Vec<u8>, Vec<Mark>)| bytes.capacity() + marks.capacity() * size_of::<Mark>();
        self.spare.iter().map(bytes).sum::<usize>() + self.runs.capacity() * size_of::<Run>()
    }

    /// Gives back half of the buffers kept for later turns. The log is empty.
    pub(crate) fn trim(&mut self) {
        self.spare.truncate(self.spare.len() / 2);
        self.runs.shrink();
    }

    /// The turn is over. Gives the topics it held, and keeps a few buffers for the next.
    pub(crate) fn clear(&mut self, mut released: impl FnMut(TopicKey)) {
        for run in self.runs.drain(..) {
            released(run.topic);
            if let Bytes::Own(mut bytes) = run.bytes
                && bytes.capacity() <= 2 * MAX_RUN
                && self.spare.len() < 16
            {
                let mut marks = run.marks;
                bytes.clear();
                marks.clear();
                marks.shrink_to(MAX_MARKS);
                self.spare.push((bytes, marks));
            }
        }
        self.len = 0;
    }
}

impl Run {
    fn mark(&mut self, mark: Mark) {
        self.selective |= mark.except.is_some();
        self.marks.push(mark);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin = Origin { position: Position::new(1, 1), policy: None };
    const MARK: Mark = Mark { end: 0, except: None, ttl: 0, json: false, tags: None };

    fn id(slot: usize) -> ConnId {
        ConnId::new(0, slot, 1)
    }

    fn parts(run: &Run, conn: ConnId, from: u32) -> Vec<u8> {
        run.part(Reader { conn, filter: None, from }, None)
            .flat_map(|r| run.bytes()[r].to_vec())
            .filter(|b| b.is_ascii_alphabetic())
            .collect()
    }

    #[test]
    fn neighbours_of_one_topic_are_joined_and_others_keep_their_place() {
        let mut log = Log::default();
        log.publish(1, "a".into(), None, ORIGIN);
        log.publish(1, "b".into(), None, ORIGIN);
        log.publish(2, "c".into(), None, ORIGIN);
        log.publish(1, "d".into(), None, ORIGIN);
        let runs: Vec<_> = log.runs().iter().map(|r| (r.topic, r.messages())).collect();
        assert_eq!(runs, [(1, 2), (2, 1), (1, 1)]);
        assert_eq!(log.position(), 4);
        let mut topics = Vec::new();
        log.clear(|t| topics.push(t));
        assert_eq!((topics, log.position()), (vec![1, 2, 1], 0));
    }

    #[test]
    fn what_was_taken_is_not_looked_at_again() {
        let mut log = Log::default();
        for (topic, text) in [(1, "a"), (1, "b"), (2, "c"), (1, "d")] {
            log.publish(topic, text.into(), None, ORIGIN);
        }
        let left: Vec<usize> = (0..=4).map(|from| log.runs_from(from).len()).collect();
        assert_eq!(left, [3, 3, 2, 1, 0]);
    }

    #[test]
    fn a_sender_is_left_out_of_its_own_messages_only() {
        let mut log = Log::default();
        for (text, except) in [("a", Some(1)), ("b", Some(2)), ("c", Some(1)), ("d", None), ("e", Some(2))] {
            log.publish(7, text.into(), except.map(id), ORIGIN);
        }
        let run = &log.runs()[0];
        assert_eq!(parts(run, id(1), 0), b"bde");
        assert_eq!(parts(run, id(2), 0), b"acd");
        assert_eq!(parts(run, id(3), 0), b"abcde");
        assert_eq!(parts(run, id(3), 3), b"de");
        assert_eq!(parts(run, id(2), 4), b"");
        assert_eq!(run.part(Reader { conn: id(3), filter: None, from: 0 }, None).count(), 1);
    }

    #[test]
    fn a_long_run_is_not_continued_and_a_key_stands_alone() {
        let mut log = Log::default();
        let big = vec![0; MAX_RUN];
        log.publish(1, Message::binary(&big), None, ORIGIN);
        log.publish(1, "x".into(), None, ORIGIN);
        log.publish(1, Message::text("x").with_key("k"), None, ORIGIN);
        log.publish(1, "x".into(), None, ORIGIN);
        assert_eq!(log.runs().len(), 4);
    }

    #[test]
    fn large_frames_from_elsewhere_are_shared_and_small_ones_joined() {
        let mut log = Log::default();
        let small = Frames::new(vec![0x82, 0]);
        let large = Frames::new(vec![0; MIN_SHARED]);
        log.publish_frames(1, small.clone(), None, MARK, ORIGIN);
        log.publish_frames(1, small.clone(), None, MARK, ORIGIN);
        log.publish_frames(1, large.clone(), None, MARK, ORIGIN);
        assert_eq!(log.runs().len(), 2);
        assert_eq!(log.runs()[1].bytes().as_ptr(), large.as_ptr());
        assert_eq!(small.shares(), 1);
    }
}
