//! The messages that one iteration of a worker publishes: batches of neighbouring messages of one topic, encoded into
//! one buffer that all subscribers share.
//!
//! ```text
//!   batch 0: topic "room"           batch 1: topic "ticks"  batch 2: topic "room"
//!  [frame|frame|frame]             [frame|frame]           [frame]
//!   0     1     2  <- index         3     4                 5
//! ```
//! Batches are delivered in this order at the end of the iteration, so messages that one sender published to several
//! topics keep their order. A connection that is written to directly before that first receives its part of the log
//! ([`Batch::ranges_for`] from its own index), and at the end of the iteration the rest.

use super::envelope::{self, Envelope, Envelopes};
use super::index::TopicKey;
use super::{Position, Tags};
use crate::conn::{ConnId, Frames, SlowConsumer, Terms};
use crate::memory::Shrink;
use crate::protocol::{Key, Message, header};
use core::ops::Range;
use std::sync::Arc;

/// Metadata of one message in a batch.
#[derive(Clone, Debug)]
pub(crate) struct FrameMeta {
    pub(crate) end: usize,
    pub(crate) except: Option<ConnId>,
    /// Milliseconds that it may be kept; 0: as long as its topic's settings say.
    pub(crate) ttl: u32,
    /// Its publisher declared it as JSON.
    pub(crate) json: bool,
    /// Its tags, for subscribers with a filter.
    pub(crate) tags: Option<Tags>,
}

impl FrameMeta {
    pub(super) fn is_for(&self, recipient: Recipient<'_>) -> bool {
        self.except != Some(recipient.conn)
            && recipient.filter.is_none_or(|tags| tags.matches(self.tags.as_ref()))
    }
}

/// A connection that receives messages of a batch: its filter, and the index from which on it needs them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipient<'a> {
    pub(crate) conn: ConnId,
    pub(crate) filter: Option<&'a Tags>,
    pub(crate) from: u32,
}

/// The position that the owner assigned to a message, and the topic's policy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placement {
    /// The message's position.
    pub(crate) position: Position,
    /// The topic's policy for slow consumers.
    pub(crate) policy: Option<SlowConsumer>,
}

#[derive(Debug)]
enum BatchBytes {
    /// Used by this iteration only, so far.
    Own(Vec<u8>),
    /// Shared with a backlog or another worker.
    Shared(Frames),
}

/// Neighbouring messages of one topic.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) topic: TopicKey,
    pub(crate) key: Option<Key>,
    /// The index of the first message in the batch log.
    first_index: u32,
    /// The position of the first message; the others follow without a gap.
    pub(crate) position: Position,
    /// The topic's policy for slow consumers; none: the route's applies.
    pub(crate) policy: Option<SlowConsumer>,
    bytes: BatchBytes,
    metas: Vec<FrameMeta>,
    /// Its messages must not be compressed.
    verbatim: bool,
    /// Whether a message excludes a connection.
    pub(crate) has_exclusions: bool,
    /// Whether the batch began on this worker, which then forwards it to the others.
    pub(crate) begins_here: bool,
    /// The batch in the routes' envelopes, shared with the other workers that have it.
    envelopes: Option<Arc<Envelopes>>,
}

impl Batch {
    /// Makes a batch that begins on this worker.
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
        let (has_exclusions, begins_here, envelopes) = (false, true, None);
        Self {
            topic,
            key,
            first_index,
            position,
            policy,
            bytes,
            metas,
            verbatim,
            has_exclusions,
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

    /// Returns the bytes as shared frames.
    pub(crate) fn share(&mut self) -> Frames {
        match &mut self.bytes {
            BatchBytes::Shared(frames) => frames.clone(),
            BatchBytes::Own(bytes) => {
                let mut bytes = core::mem::take(bytes);
                // A buffer of an earlier iteration may be far larger than its contents. Frames keep the whole buffer,
                // and are charged for the contents.
                if bytes.capacity() > 2 * bytes.len() {
                    bytes.shrink_to_fit();
                }
                let frames = Frames::with_verbatim(bytes, self.verbatim);
                self.bytes = BatchBytes::Shared(frames.clone());
                frames
            }
        }
    }

    /// Returns the bytes for a history, without the variants that will be made of them.
    pub(crate) fn plain(&mut self) -> Frames {
        self.share();
        match &mut self.bytes {
            BatchBytes::Shared(frames) => frames.plain(),
            BatchBytes::Own(bytes) => Frames::with_verbatim(bytes.clone(), self.verbatim), // it is shared now
        }
    }

    /// Copies the messages from this byte on.
    pub(crate) fn copy_from(&self, at: usize) -> Frames {
        Frames::with_verbatim(self.bytes()[at..].to_vec(), self.verbatim)
    }

    /// Returns the terms for this batch on a connection of a route: the topic's policy overrides the route's.
    pub(crate) fn terms(&self, route: &Terms) -> Terms {
        Terms { slow_consumer: self.policy.unwrap_or(route.slow_consumer), ..*route }
    }

    pub(crate) fn metas(&self) -> &[FrameMeta] {
        &self.metas
    }

    pub(crate) fn messages(&self) -> u32 {
        self.metas.len() as u32
    }

    /// Returns the batch's envelopes, to be shared with other workers.
    pub(crate) fn envelopes(&mut self) -> &Arc<Envelopes> {
        self.envelopes.get_or_insert_default()
    }

    /// Returns the batch in envelope `at` of `of`. [`Batch::envelopes`] must have been called.
    pub(crate) fn wrapped(
        &self,
        index: usize,
        count: usize,
        wrap: impl FnOnce() -> Frames,
    ) -> Option<&Frames> {
        self.envelopes.as_ref()?.get(index, count, wrap)
    }

    /// Wraps each message in an envelope.
    pub(crate) fn wrap(&self, topic: &str, envelope: &dyn Envelope) -> Frames {
        envelope::wrap(envelope, topic, self.position, self.frames(), self.verbatim)
    }

    /// Wraps the messages as one, for a connection that accepts that; each by itself if the envelope can't.
    pub(crate) fn wrap_all(&self, topic: &str, envelope: &dyn Envelope) -> Frames {
        envelope::wrap_all(envelope, topic, self.position, self.frames(), self.verbatim)
            .unwrap_or_else(|| self.wrap(topic, envelope))
    }

    /// Returns each message's frame, and whether it is JSON.
    fn frames(&self) -> impl Iterator<Item = (&[u8], bool)> {
        let mut start = 0;
        self.metas.iter().map(move |meta| {
            let frame = &self.bytes()[start..meta.end];
            start = meta.end;
            (frame, meta.json)
        })
    }

    /// Returns the messages for a recipient: offset, range of bytes, metadata.
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

    /// Returns the messages for a recipient as ranges of the batch, or of `other` frames made of it. Neighbours share a
    /// range.
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

/// A batch of this size is not continued: a slow subscriber keeps whole batches in memory.
const MAX_BATCH_BYTES: usize = 256 << 10;

/// Frames of at least this length that another thread encoded are shared instead of copied into a batch.
const MIN_SHARED: usize = 8 << 10;

/// Metadata entries that a spare buffer keeps.
const MAX_SPARE_METAS: usize = 4096;

/// The batches of one iteration.
#[derive(Debug, Default)]
pub(crate) struct BatchLog {
    batches: Vec<Batch>,
    /// Messages so far.
    len: u32,
    /// Buffers of earlier iterations.
    spare: Vec<(Vec<u8>, Vec<FrameMeta>)>,
}

impl BatchLog {
    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Returns the number of batches.
    pub(crate) fn len(&self) -> usize {
        self.batches.len()
    }

    /// Returns the index of the next message.
    pub(crate) fn next_index(&self) -> u32 {
        self.len
    }

    #[cfg(test)]
    pub(crate) fn batches(&self) -> &[Batch] {
        &self.batches
    }

    /// Takes the batches, to be delivered and [put back](BatchLog::put_back).
    pub(crate) fn take_batches(&mut self) -> Vec<Batch> {
        core::mem::take(&mut self.batches)
    }

    pub(crate) fn put_back(&mut self, batches: Vec<Batch>) {
        self.batches = batches;
    }

    pub(crate) fn batches_mut(&mut self) -> &mut [Batch] {
        &mut self.batches
    }

    /// Returns the batches with messages at this index or behind it. A connection that is caught up repeatedly in one
    /// iteration does not walk over the others again.
    pub(crate) fn batches_from(&mut self, from: u32) -> &mut [Batch] {
        let taken = self.batches.partition_point(|batch| batch.first_index + batch.messages() <= from);
        &mut self.batches[taken..]
    }

    /// Encodes a message into the current batch, or a new one.
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

    /// Appends one message that was encoded elsewhere.
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

    /// Appends a batch of another worker with its envelopes. Without envelopes the batch begins here.
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
        let has_exclusions = metas.iter().any(|m| m.except.is_some());
        self.len += metas.len() as u32;
        let mut batch =
            Batch::new(topic, key, first_index, placement, BatchBytes::Shared(frames), metas, verbatim);
        (batch.has_exclusions, batch.begins_here, batch.envelopes) =
            (has_exclusions, envelopes.is_none(), envelopes);
        self.batches.push(batch);
    }

    /// Returns the batch for a message of `len` bytes: the last one if it can be continued, otherwise a new one.
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

    /// Returns the bytes of spare buffers.
    pub(crate) fn spare_bytes(&self) -> usize {
        let bytes = |(bytes, metas): &(Vec<u8>, Vec<FrameMeta>)| {
            bytes.capacity() + metas.capacity() * size_of::<FrameMeta>()
        };
        self.spare.iter().map(bytes).sum::<usize>() + self.batches.capacity() * size_of::<Batch>()
    }

    /// Frees half of the spare buffers. The log must be empty.
    pub(crate) fn trim(&mut self) {
        self.spare.truncate(self.spare.len() / 2);
        self.batches.shrink();
    }

    /// Ends the iteration: releases the topics of its batches, and keeps a few buffers for the next.
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
        self.has_exclusions |= meta.except.is_some();
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
    fn neighbouring_messages_of_a_topic_share_a_batch() {
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
    fn batches_from_skips_earlier_batches() {
        let mut log = BatchLog::default();
        for (topic, text) in [(1, "a"), (1, "b"), (2, "c"), (1, "d")] {
            log.append(topic, text.into(), None, PLACEMENT);
        }
        let left: Vec<usize> = (0..=4).map(|from| log.batches_from(from).len()).collect();
        assert_eq!(left, [3, 3, 2, 1, 0]);
    }

    #[test]
    fn an_excluded_sender_misses_only_its_own_messages() {
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
    fn a_full_batch_and_a_keyed_message_are_not_continued() {
        let mut log = BatchLog::default();
        let big = vec![0; MAX_BATCH_BYTES];
        log.append(1, Message::binary(&big), None, PLACEMENT);
        log.append(1, "x".into(), None, PLACEMENT);
        log.append(1, Message::text("x").with_key("k"), None, PLACEMENT);
        log.append(1, "x".into(), None, PLACEMENT);
        assert_eq!(log.batches().len(), 4);
    }

    #[test]
    fn large_foreign_frames_are_shared_and_small_ones_are_copied() {
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
