//! What one turn of a worker's loop publishes: runs of neighbouring messages of one topic, joined once, in one buffer
//! that all subscribers share.
//!
//! ```text
//!   run 0: topic "room"             run 1: topic "ticks"   run 2: topic "room"
//!  [frame|frame|frame]             [frame|frame]          [frame]
//!   0     1     2  <- position      3     4                5
//! ```
//! Runs leave in this order at the end of the turn, so what one sender published to several topics keeps its order.
//! A connection that is written to directly in between first takes what the log has for it ([`BatchLog::part`] from its
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
pub(crate) struct FrameMeta {
    pub(crate) end: usize,
    pub(crate) except: Option<ConnId>,
    /// Milliseconds that it may be kept; zero: as long as its topic says.
    pub(crate) ttl: u32,
    /// Its publisher says that it is JSON.
    pub(crate) json: bool,
    /// What it is about, for subscribers with a filter.
    pub(crate) tags: Option<Tags>,
}

impl FrameMeta {
    pub(super) fn is_for(&self, recipient: Recipient<'_>) -> bool {
        self.except != Some(recipient.conn)
            && recipient.filter.is_none_or(|tags| tags.matches(self.tags.as_ref()))
    }
}

/// Who takes a run's messages: a connection with its filter, from this position of the turn on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipient<'a> {
    pub(crate) conn: ConnId,
    pub(crate) filter: Option<&'a Tags>,
    pub(crate) from: u32,
}

/// What a message's run is to know of its topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placement {
    /// The message's place.
    pub(crate) position: Position,
    /// What the topic says of slow consumers.
    pub(crate) policy: Option<SlowConsumer>,
}

#[derive(Debug)]
enum BatchBytes {
    /// Only this turn needs them so far.
    Own(Vec<u8>),
    /// A backlog or another worker has a share.
    Shared(Frames),
}

/// Neighbouring messages of one topic.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) topic: TopicKey,
    pub(crate) key: Option<Key>,
    /// Position in the turn of the first message.
    first_index: u32,
    /// Place of the first message; the others follow without a gap.
    pub(crate) position: Position,
    /// What its topic says of slow consumers; none: what the route says.
    pub(crate) policy: Option<SlowConsumer>,
    bytes: BatchBytes,
    metas: Vec<FrameMeta>,
    /// Its messages are not to be compressed.
    verbatim: bool,
    /// Whether any message is not for everybody.
    pub(crate) selective: bool,
    /// Whether it began on this worker, which then passes it on to the others.
    pub(crate) begins_here: bool,
    /// What the routes' envelopes made of it, shared with the other workers that have it.
    envelopes: Option<Arc<Envelopes>>,
}

impl Batch {
    /// One that begins on this worker.
    fn new(
        topic: TopicKey,
        key: Option<Key>,
        first_index: u32,
        placement: Placement,
        bytes: BatchBytes,
        metas: Vec<FrameMeta>,
        verbatim: bool,
    ) -> Self {
        let Placement { position, policy } = placement;
        let (selective, begins_here, envelopes) = (false, true, None);
        Self {
            topic,
            key,
            first_index,
            position,
            policy,
            bytes,
            metas,
            verbatim,
            selective,
            begins_here,
            envelopes,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            BatchBytes::Own(bytes) => bytes,
            BatchBytes::Shared(frames) => frames,
        }
    }

    /// The bytes, from now on shared.
    pub(crate) fn share(&mut self) -> Frames {
        match &mut self.bytes {
            BatchBytes::Shared(frames) => frames.clone(),
            BatchBytes::Own(bytes) => {
                let mut bytes = core::mem::take(bytes);
                // It may be a buffer of an earlier turn, far larger than what is in it now: whoever keeps the frames
                // would keep all of it, and is charged for what is in it.
                if bytes.capacity() > 2 * bytes.len() {
                    bytes.shrink_to_fit();
                }
                let frames = Frames::with(bytes, self.verbatim);
                self.bytes = BatchBytes::Shared(frames.clone());
                frames
            }
        }
    }

    /// The bytes to be kept for long.
    pub(crate) fn plain(&mut self) -> Frames {
        self.share();
        match &mut self.bytes {
            BatchBytes::Shared(frames) => frames.plain(),
            BatchBytes::Own(bytes) => Frames::with(bytes.clone(), self.verbatim), // it is shared now
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

    pub(crate) fn metas(&self) -> &[FrameMeta] {
        &self.metas
    }

    pub(crate) fn messages(&self) -> u32 {
        self.metas.len() as u32
    }

    /// What the envelopes made of it, to be shared with other workers.
    pub(crate) fn envelopes(&mut self) -> &Arc<Envelopes> {
        self.envelopes.get_or_insert_default()
    }

    /// The run in one of `of` envelopes, once [`Batch::envelopes`] has been called.
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
        self.metas.iter().map(move |meta| {
            let frame = &self.bytes()[start..meta.end];
            start = meta.end;
            (frame, meta.json)
        })
    }

    /// The messages that are for a reader one by one: offset, range of the bytes, and what is known of them.
    pub(crate) fn messages_for<'a>(
        &'a self,
        recipient: Recipient<'a>,
    ) -> impl Iterator<Item = (u64, Range<usize>, &'a FrameMeta)> {
        let skip = recipient.from.saturating_sub(self.first_index) as usize;
        let starts = core::iter::once(0).chain(self.metas.iter().map(|meta| meta.end));
        let all = (self.position.offset..).zip(starts).zip(&self.metas).skip(skip);
        let mine = all.filter(move |(_, meta)| meta.is_for(recipient));
        mine.map(|((offset, start), meta)| (offset, start..meta.end, meta))
    }

    /// The messages that are for a reader, as ranges of the run or of `other` frames made of it; neighbours as one range.
    pub(crate) fn ranges_for<'a>(
        &'a self,
        recipient: Recipient<'a>,
        other: Option<&'a Frames>,
    ) -> impl Iterator<Item = Range<usize>> + 'a {
        let skip = recipient.from.saturating_sub(self.first_index) as usize;
        let mut at = skip.min(self.metas.len());
        let end_of = move |message: usize| match other {
            Some(other) => other.ends()[message],
            None => self.metas[message].end,
        };
        core::iter::from_fn(move || {
            while self.metas.get(at).is_some_and(|m| !m.is_for(recipient)) {
                at += 1;
            }
            let begin = at;
            while self.metas.get(at).is_some_and(|m| m.is_for(recipient)) {
                at += 1;
            }
            (at > begin).then(|| if begin == 0 { 0 } else { end_of(begin - 1) }..end_of(at - 1))
        })
    }
}

/// A run that grew to this is not continued: a slow subscriber keeps whole runs alive.
const MAX_BATCH_BYTES: usize = 256 << 10;

/// Frames published elsewhere that are at least this long are shared instead of being joined to their neighbours.
const MIN_SHARED: usize = 8 << 10;

/// Marks that a buffer keeps for a later turn.
const MAX_SPARE_METAS: usize = 4096;

/// The runs of one turn.
#[derive(Debug, Default)]
pub(crate) struct BatchLog {
    batches: Vec<Batch>,
    /// Messages so far.
    len: u32,
    /// Buffers of earlier turns.
    spare: Vec<(Vec<u8>, Vec<FrameMeta>)>,
}

impl BatchLog {
    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Runs so far.
    pub(crate) fn len(&self) -> usize {
        self.batches.len()
    }

    /// Messages so far: the position of the next.
    pub(crate) fn next_index(&self) -> u32 {
        self.len
    }

    #[cfg(test)]
    pub(crate) fn batches(&self) -> &[Batch] {
        &self.batches
    }

    /// The runs, to be delivered and [put back](BatchLog::put_back).
    pub(crate) fn take_batches(&mut self) -> Vec<Batch> {
        core::mem::take(&mut self.batches)
    }

    pub(crate) fn put_back(&mut self, batches: Vec<Batch>) {
        self.batches = batches;
    }

    pub(crate) fn batches_mut(&mut self) -> &mut [Batch] {
        &mut self.batches
    }

    /// Those with messages at this position or behind it: a connection that is caught up again and again in one turn
    /// does not go through all of them each time.
    pub(crate) fn batches_from(&mut self, from: u32) -> &mut [Batch] {
        let taken = self.batches.partition_point(|batch| batch.first_index + batch.messages() <= from);
        &mut self.batches[taken..]
    }

    /// Encodes a message behind its neighbours.
    pub(crate) fn append(
        &mut self,
        topic: TopicKey,
        message: Message<'_>,
        except: Option<ConnId>,
        placement: Placement,
    ) {
        let batch = self.batch_for(topic, message.key(), message.is_verbatim(), message.len(), placement);
        if let BatchBytes::Own(bytes) = &mut batch.bytes {
            header::write_frame(bytes, message.kind().into(), message.as_bytes());
            let end = bytes.len();
            batch.push_meta(FrameMeta { end, except, ttl: 0, json: message.is_json(), tags: None });
        }
        self.len += 1;
    }

    /// Takes frames that were encoded elsewhere, one message.
    pub(crate) fn append_frames(
        &mut self,
        topic: TopicKey,
        frames: Frames,
        key: Option<Key>,
        meta: FrameMeta,
        placement: Placement,
    ) {
        if frames.len() >= MIN_SHARED {
            let end = frames.len();
            self.append_batch(topic, frames, vec![FrameMeta { end, ..meta }], key, None, placement);
            return;
        }
        let batch = self.batch_for(topic, key, frames.is_verbatim(), frames.len(), placement);
        if let BatchBytes::Own(bytes) = &mut batch.bytes {
            bytes.extend_from_slice(&frames);
            let end = bytes.len();
            batch.push_meta(FrameMeta { end, ..meta });
        }
        self.len += 1;
    }

    /// Takes a run as another worker has joined it; `envelopes`: as it has wrapped it. Without them it begins here.
    pub(crate) fn append_batch(
        &mut self,
        topic: TopicKey,
        frames: Frames,
        metas: Vec<FrameMeta>,
        key: Option<Key>,
        envelopes: Option<Arc<Envelopes>>,
        placement: Placement,
    ) {
        let verbatim = frames.is_verbatim();
        let first_index = self.len;
        let selective = metas.iter().any(|m| m.except.is_some());
        self.len += metas.len() as u32;
        let mut batch =
            Batch::new(topic, key, first_index, placement, BatchBytes::Shared(frames), metas, verbatim);
        (batch.selective, batch.begins_here, batch.envelopes) = (selective, envelopes.is_none(), envelopes);
        self.batches.push(batch);
    }

    /// The run that a message of `len` bytes joins.
    fn batch_for(
        &mut self,
        topic: TopicKey,
        key: Option<Key>,
        verbatim: bool,
        len: usize,
        placement: Placement,
    ) -> &mut Batch {
        let continues = self.batches.last().is_some_and(|batch| {
            batch.topic == topic
                && key.is_none()
                && batch.key.is_none()
                && batch.verbatim == verbatim
                && batch.begins_here
                && matches!(&batch.bytes, BatchBytes::Own(bytes) if bytes.len() + len <= MAX_BATCH_BYTES)
        });
        if !continues {
            let (bytes, metas) = self.spare.pop().unwrap_or_default();
            self.batches.push(Batch::new(
                topic,
                key,
                self.len,
                placement,
                BatchBytes::Own(bytes),
                metas,
                verbatim,
            ));
        }
        let last = self.batches.len() - 1;
        &mut self.batches[last]
    }

    /// Bytes of buffers kept for later turns.
    pub(crate) fn spare_bytes(&self) -> usize {
        let bytes = |(bytes, metas): &(Vec<u8>, Vec<FrameMeta>)| {
            bytes.capacity() + metas.capacity() * size_of::<FrameMeta>()
        };
        self.spare.iter().map(bytes).sum::<usize>() + self.batches.capacity() * size_of::<Batch>()
    }

    /// Gives back half of the buffers kept for later turns. The log is empty.
    pub(crate) fn trim(&mut self) {
        self.spare.truncate(self.spare.len() / 2);
        self.batches.shrink();
    }

    /// The turn is over. Gives the topics it held, and keeps a few buffers for the next.
    pub(crate) fn clear(&mut self, mut released: impl FnMut(TopicKey)) {
        for batch in self.batches.drain(..) {
            released(batch.topic);
            if let BatchBytes::Own(mut bytes) = batch.bytes
                && bytes.capacity() <= 2 * MAX_BATCH_BYTES
                && self.spare.len() < 16
            {
                let mut metas = batch.metas;
                bytes.clear();
                metas.clear();
                metas.shrink_to(MAX_SPARE_METAS);
                self.spare.push((bytes, metas));
            }
        }
        self.len = 0;
    }
}

impl Batch {
    fn push_meta(&mut self, meta: FrameMeta) {
        self.selective |= meta.except.is_some();
        self.metas.push(meta);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACEMENT: Placement = Placement { position: Position::new(1, 1), policy: None };
    const META: FrameMeta = FrameMeta { end: 0, except: None, ttl: 0, json: false, tags: None };

    fn id(slot: usize) -> ConnId {
        ConnId::new(0, slot, 1)
    }

    fn parts(batch: &Batch, conn: ConnId, from: u32) -> Vec<u8> {
        batch
            .ranges_for(Recipient { conn, filter: None, from }, None)
            .flat_map(|r| batch.bytes()[r].to_vec())
            .filter(|b| b.is_ascii_alphabetic())
            .collect()
    }

    #[test]
    fn neighbours_of_one_topic_are_joined_and_others_keep_their_place() {
        let mut log = BatchLog::default();
        log.append(1, "a".into(), None, PLACEMENT);
        log.append(1, "b".into(), None, PLACEMENT);
        log.append(2, "c".into(), None, PLACEMENT);
        log.append(1, "d".into(), None, PLACEMENT);
        let batches: Vec<_> = log.batches().iter().map(|r| (r.topic, r.messages())).collect();
        assert_eq!(batches, [(1, 2), (2, 1), (1, 1)]);
        assert_eq!(log.next_index(), 4);
        let mut topics = Vec::new();
        log.clear(|t| topics.push(t));
        assert_eq!((topics, log.next_index()), (vec![1, 2, 1], 0));
    }

    #[test]
    fn what_was_taken_is_not_looked_at_again() {
        let mut log = BatchLog::default();
        for (topic, text) in [(1, "a"), (1, "b"), (2, "c"), (1, "d")] {
            log.append(topic, text.into(), None, PLACEMENT);
        }
        let left: Vec<usize> = (0..=4).map(|from| log.batches_from(from).len()).collect();
        assert_eq!(left, [3, 3, 2, 1, 0]);
    }

    #[test]
    fn a_sender_is_left_out_of_its_own_messages_only() {
        let mut log = BatchLog::default();
        for (text, except) in [("a", Some(1)), ("b", Some(2)), ("c", Some(1)), ("d", None), ("e", Some(2))] {
            log.append(7, text.into(), except.map(id), PLACEMENT);
        }
        let batch = &log.batches()[0];
        assert_eq!(parts(batch, id(1), 0), b"bde");
        assert_eq!(parts(batch, id(2), 0), b"acd");
        assert_eq!(parts(batch, id(3), 0), b"abcde");
        assert_eq!(parts(batch, id(3), 3), b"de");
        assert_eq!(parts(batch, id(2), 4), b"");
        assert_eq!(batch.ranges_for(Recipient { conn: id(3), filter: None, from: 0 }, None).count(), 1);
    }

    #[test]
    fn a_long_run_is_not_continued_and_a_key_stands_alone() {
        let mut log = BatchLog::default();
        let big = vec![0; MAX_BATCH_BYTES];
        log.append(1, Message::binary(&big), None, PLACEMENT);
        log.append(1, "x".into(), None, PLACEMENT);
        log.append(1, Message::text("x").with_key("k"), None, PLACEMENT);
        log.append(1, "x".into(), None, PLACEMENT);
        assert_eq!(log.batches().len(), 4);
    }

    #[test]
    fn large_frames_from_elsewhere_are_shared_and_small_ones_joined() {
        let mut log = BatchLog::default();
        let small = Frames::new(vec![0x82, 0]);
        let large = Frames::new(vec![0; MIN_SHARED]);
        log.append_frames(1, small.clone(), None, META, PLACEMENT);
        log.append_frames(1, small.clone(), None, META, PLACEMENT);
        log.append_frames(1, large.clone(), None, META, PLACEMENT);
        assert_eq!(log.batches().len(), 2);
        assert_eq!(log.batches()[1].bytes().as_ptr(), large.as_ptr());
        assert_eq!(small.shares(), 1);
    }
}
