//! The output queue of a connection whose socket is not writable: offsets into shared frames, without a copy for each
//! subscriber.
//!
//! ```text
//!   written
//!      v
//!  [ entry 0 ........ ][ control ][ entry 1 ][ entry 2 = several frames of one batch ]
//!    |frame|frame|frame|
//! ```
//! Every entry begins and ends at the boundary of a frame. Control frames pass entries that have not begun to be
//! written. Frames are dropped whole.

use super::keyed_queue::{Keyed, KeyedQueue};
use super::{Frames, SlowConsumer};
use crate::protocol::{Key, header};
use std::io::IoSlice;
use std::ops::Range;

#[derive(Debug)]
struct OutboxEntry {
    frames: Frames,
    start: usize,
    end: usize,
    kind: EntryKind,
    key: Option<Key>,
    /// For the queue.
    older: u32,
}

/// Kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryKind {
    /// The policy may drop it.
    Message,
    /// Never dropped, and not counted as a message.
    Reply,
    /// As `Reply`, and replaced by the next notice until it begins to be written.
    #[cfg_attr(not(feature = "push"), allow(dead_code))]
    Notice,
    /// As `Reply`: one control frame, or bytes that are not frames.
    Control,
}

impl OutboxEntry {
    fn is_message(&self) -> bool {
        self.kind == EntryKind::Message
    }

    fn new(frames: Frames, range: Range<usize>, kind: EntryKind, key: Option<Key>) -> Self {
        Self { frames, start: range.start, end: range.end, kind, key, older: 0 }
    }

    fn len(&self) -> usize {
        self.end - self.start
    }
}

impl Keyed for OutboxEntry {
    fn is_droppable(&self) -> bool {
        self.is_message()
    }

    fn key(&self) -> Option<Key> {
        self.key.filter(|_| self.is_message())
    }

    fn older(&mut self) -> &mut u32 {
        &mut self.older
    }
}

/// The backlog of one connection.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: KeyedQueue<OutboxEntry>,
    /// Bytes of the first entry that were written.
    written: usize,
    /// Bytes queued.
    bytes: usize,
    /// The kernel did not accept all of it: new messages will be queued for a while.
    kernel_full: bool,
}

/// What became of a message that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum PushOutcome {
    /// It is queued, and nothing was dropped for it.
    Queued,
    /// The policy dropped this many messages: the new one, or older ones.
    Dropped(u32),
    /// It did not fit and the policy is to close.
    Overflow,
}

/// Behind other entries, frames of up to this many bytes are copied and not shared: an entry and a buffer of their own
/// would cost more than they hold, a hundred times more for an empty message.
const MAX_COPIED: usize = 512;

/// Size of the chunks into which they are copied.
const MAX_CHUNK: usize = 16 << 10;

/// Bytes that an entry costs beside its frames: itself, the reference counts of its buffer and the allocator's
/// overhead.
const ENTRY_COST: usize = 96;

/// The most slices passed to one vectored write. An iteration rarely has more, and the kernel copies the list.
pub(crate) const MAX_SLICES: usize = 64;

impl Outbox {
    /// The largest empty outbox that is kept for reuse, in bytes.
    pub(crate) const SPARE: usize = MAX_SLICES * size_of::<OutboxEntry>();

    /// Bytes queued, frame heads included.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing is queued.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Queues the whole frames of `frames` in `range`, within the limit. `written` bytes of them were written already,
    /// which is only possible if the queue is empty.
    pub(crate) fn push(
        &mut self,
        frames: &Frames,
        range: Range<usize>,
        key: Option<Key>,
        limit: usize,
        policy: SlowConsumer,
    ) -> PushOutcome {
        let mut dropped = 0;
        // A key replaces only what the kernel did not accept: a consumer that keeps up is not slow, and receives
        // everything.
        if let (true, SlowConsumer::LatestByKey, Some(key)) = (self.kernel_full, policy, key) {
            dropped += self.drop_key(key);
        }
        if self.is_empty() || self.cost() + range.len() <= limit {
            self.append(frames, range, key);
            return if dropped == 0 { PushOutcome::Queued } else { PushOutcome::Dropped(dropped) };
        }
        match policy {
            SlowConsumer::Close(_) => return PushOutcome::Overflow,
            SlowConsumer::DropNewest => {
                // Of several frames, as many as fit.
                let mut at = range.start;
                while at < range.end {
                    let len = header::own_frame_len(&frames[at..range.end]);
                    if self.cost() + len <= limit && dropped == 0 {
                        self.append(frames, at..at + len, key);
                    } else {
                        dropped += frames.messages_per_frame();
                    }
                    at += len;
                }
            }
            SlowConsumer::DropOldest | SlowConsumer::LatestByKey => {
                let mut at = range.start;
                while at < range.end {
                    let len = header::own_frame_len(&frames[at..range.end]);
                    while self.cost() + len > limit {
                        let Some(messages) = self.drop_first() else { break };
                        dropped += messages;
                    }
                    self.append(frames, at..at + len, key);
                    at += len;
                }
            }
        }
        PushOutcome::Dropped(dropped)
    }

    /// Queues the rest of a write: `frames` from its beginning, of which `written` bytes were written. The queue must
    /// be empty. If `undroppable`, there are replies among them, and nothing of it is dropped.
    pub(crate) fn push_rest(
        &mut self,
        frames: &Frames,
        range: Range<usize>,
        written: usize,
        key: Option<Key>,
        undroppable: bool,
    ) {
        debug_assert!(self.is_empty() && written < range.len());
        self.append(frames, range, key);
        if let Some(entry) = self.queue.back_mut() {
            entry.kind = if undroppable { EntryKind::Reply } else { EntryKind::Message };
        }
        self.kernel_full = true;
        self.written = written;
        self.bytes -= written;
    }

    fn append(&mut self, frames: &Frames, range: Range<usize>, key: Option<Key>) {
        if range.is_empty() {
            return;
        }
        self.bytes += range.len();
        if let Some(last) = self.queue.back_mut()
            && last.frames.ptr_eq(frames)
            && last.end == range.start
            && last.is_message()
            && last.key == key
        {
            last.end = range.end;
            return;
        }
        if self.kernel_full && key.is_none() && range.len() <= MAX_COPIED && frames.messages_per_frame() == 1
        {
            return self.append_copy(&frames[range]);
        }
        self.queue.push_back(OutboxEntry::new(frames.clone(), range, EntryKind::Message, key));
    }

    /// Copies small frames into a chunk of this connection.
    fn append_copy(&mut self, bytes: &[u8]) {
        if let Some(last) = self
            .queue
            .back_mut()
            .filter(|e| e.is_message() && e.key.is_none() && e.frames.messages_per_frame() == 1)
            && let Some(chunk) = last.frames.get_mut()
            && last.end == chunk.len()
            && chunk.len() + bytes.len() <= MAX_CHUNK
        {
            chunk.extend_from_slice(bytes);
            last.end = chunk.len();
            return;
        }
        let mut chunk = Vec::with_capacity(MAX_COPIED);
        chunk.extend_from_slice(bytes);
        let range = 0..chunk.len();
        self.queue.push_back(OutboxEntry::new(Frames::new(chunk), range, EntryKind::Message, None));
    }

    /// Bytes of memory of the backlog: its frames, and for each entry its place in the queue and the header of a
    /// buffer.
    pub(crate) fn cost(&self) -> usize {
        self.bytes + self.queue.len() * ENTRY_COST + self.queue.index_cost()
    }

    /// Queues a control frame before everything that has not begun to be written, behind other control frames. No limit
    /// applies: it is small, and there is at most one of each kind.
    pub(crate) fn push_control(&mut self, frame: Vec<u8>) {
        let (begun, waiting) = self.head();
        // RFC 6455 section 5.5.3: of several pings only the latest need be answered. So a flood of pings from a peer
        // that does not read leaves one pong queued.
        for place in begun..begun + waiting {
            if let Some(same) = self.queue.get_mut(place).filter(|e| e.frames[0] == frame[0]) {
                self.bytes = self.bytes - same.len() + frame.len();
                (same.end, same.frames) = (frame.len(), Frames::new(frame));
                return;
            }
        }
        self.insert(begun + waiting, frame, EntryKind::Control);
    }

    /// Entries at the front that have begun to be written, and control frames behind them.
    fn head(&mut self) -> (usize, usize) {
        self.split_first();
        let (begun, mut waiting) = (self.begun(), 0);
        while self.queue.get_mut(begun + waiting).is_some_and(|e| e.kind == EntryKind::Control) {
            waiting += 1;
        }
        (begun, waiting)
    }

    /// Entries that have begun to be written: 0 or 1.
    fn begun(&self) -> usize {
        usize::from(self.written > 0)
    }

    fn insert(&mut self, at: usize, frame: Vec<u8>, kind: EntryKind) {
        let range = 0..frame.len();
        self.bytes += frame.len();
        self.queue.insert(at, OutboxEntry::new(Frames::new(frame), range, kind, None));
    }

    /// Whether a notice is queued that can be replaced.
    #[cfg(feature = "push")]
    pub(crate) fn has_notice(&mut self) -> bool {
        let (begun, waiting) = self.head();
        self.queue.get_mut(begun + waiting).is_some_and(|e| e.kind == EntryKind::Notice)
    }

    /// Queues a notice before everything that has not begun to be written, behind control frames, or in place of a
    /// queued notice. There is never more than one.
    #[cfg(feature = "push")]
    pub(crate) fn push_notice(&mut self, frame: Vec<u8>) {
        let (begun, waiting) = self.head();
        if self.has_notice() {
            let old = self.queue.remove(begun + waiting);
            self.bytes -= old.map_or(0, |e| e.len());
        }
        self.insert(begun + waiting, frame, EntryKind::Notice);
    }

    /// Queues bytes at the end without a limit: a close frame, or a response, which is not a frame. They are not a
    /// message, so they are neither counted nor dropped.
    pub(crate) fn push_raw(&mut self, bytes: Vec<u8>) {
        self.push_owned(bytes, EntryKind::Control);
    }

    /// Queues shared frames at the end without a limit; none of them is dropped.
    pub(crate) fn push_undroppable(&mut self, frames: &Frames, range: Range<usize>) {
        if !range.is_empty() {
            self.bytes += range.len();
            self.queue.push_back(OutboxEntry::new(frames.clone(), range, EntryKind::Reply, None));
        }
    }

    /// Queues a reply at the end without a limit.
    #[cfg(feature = "push")]
    pub(crate) fn push_reply(&mut self, frame: Vec<u8>) {
        self.push_owned(frame, EntryKind::Reply);
    }

    fn push_owned(&mut self, bytes: Vec<u8>, kind: EntryKind) {
        let range = 0..bytes.len();
        if !range.is_empty() {
            self.bytes += range.len();
            self.queue.push_back(OutboxEntry::new(Frames::new(bytes), range, kind, None));
        }
    }

    /// Cuts the first entry to the frame that has begun to be written. Frames that are written leave it, so that no frame is
    /// walked over twice: a peer that reads nothing can have this called without limit, by a ping or a message to drop.
    fn split_first(&mut self) {
        let Some(first) = self.queue.front_mut().filter(|_| self.written > 0) else { return };
        let boundary = loop {
            let frame = header::own_frame_len(&first.frames[first.start..first.end]);
            if self.written < frame {
                break first.start + frame;
            }
            first.start += frame;
            self.written -= frame;
        };
        if self.written == 0 {
            return;
        }
        if boundary < first.end {
            let range = boundary..first.end;
            let mut rest = OutboxEntry::new(first.frames.clone(), range, first.kind, first.key);
            (first.end, rest.older) = (boundary, first.older);
            self.queue.insert(1, rest);
        }
    }

    /// Drops the oldest frame of messages that has not begun to be written. Returns the number of its messages; `None`
    /// without such a frame.
    fn drop_first(&mut self) -> Option<u32> {
        self.split_first();
        let place = self.queue.oldest(self.begun())?;
        let entry = self.queue.get_mut(place)?;
        let len = header::own_frame_len(&entry.frames[entry.start..entry.end]);
        entry.start += len;
        self.bytes -= len;
        let messages = entry.frames.messages_per_frame();
        if entry.len() == 0 {
            self.queue.remove(place);
        }
        Some(messages)
    }

    /// Drops the messages with this key that have not begun to be written. Returns their number.
    fn drop_key(&mut self, key: Key) -> u32 {
        let (mut dropped, mut freed) = (0, 0);
        self.queue.drop_key(key, self.begun(), |e| {
            dropped += e.frames.messages_in(e.start..e.end);
            freed += e.len();
        });
        self.bytes -= freed;
        dropped
    }

    /// Drops every message that has not begun to be written, so that a close frame can be sent. Returns their number.
    pub(crate) fn drop_waiting(&mut self) -> u32 {
        self.split_first();
        let (mut dropped, mut freed) = (0, 0);
        self.queue.drop_all(self.begun(), |e| {
            dropped += e.frames.messages_in(e.start..e.end);
            freed += e.len();
        });
        self.bytes -= freed;
        dropped
    }

    /// Queued messages, one that has begun to be written included.
    pub(crate) fn messages(&self) -> u32 {
        let Some(first) = self.queue.front() else { return 0 };
        // Frames of the first entry may have been written already.
        let mut begun = first.start;
        loop {
            let next = begun + header::own_frame_len(&first.frames[begun..first.end]);
            if next > first.start + self.written || next >= first.end {
                break;
            }
            begun = next;
        }
        let from = |i: usize, e: &OutboxEntry| if i == 0 { begun } else { e.start };
        let messages = self.queue.iter().enumerate().filter(|(_, e)| e.is_message());
        messages.map(|(i, e)| e.frames.messages_in(from(i, e)..e.end)).sum()
    }

    /// The next bytes to write, in order.
    pub(crate) fn slices(&self) -> impl Iterator<Item = IoSlice<'_>> {
        let mut skip = self.written;
        self.queue
            .iter()
            .take(MAX_SLICES)
            .map(move |e| IoSlice::new(&e.frames[e.start + core::mem::take(&mut skip)..e.end]))
    }

    /// Removes `n` bytes that the kernel accepted of the `offered` ones.
    pub(crate) fn advance(&mut self, mut n: usize, offered: usize) {
        self.kernel_full = n < offered;
        self.bytes -= n;
        while let Some(first) = self.queue.front() {
            let left = first.len() - self.written;
            if n < left {
                self.written += n;
                return;
            }
            n -= left;
            self.written = 0;
            self.queue.pop_front();
        }
        debug_assert_eq!(n, 0);
    }

    /// Clears it for its next user.
    pub(crate) fn clear(&mut self) {
        self.queue.clear(MAX_SLICES);
        self.written = 0;
        self.bytes = 0;
        self.kernel_full = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{CloseCode, Message, Opcode};
    use proptest::prelude::*;

    fn frames(payloads: &[&[u8]]) -> Frames {
        let mut out = Vec::new();
        for p in payloads {
            header::write_frame(&mut out, Opcode::Binary, p);
        }
        Frames::new(out)
    }

    fn push(o: &mut Outbox, f: &Frames, limit: usize, policy: SlowConsumer) -> PushOutcome {
        o.push(f, 0..f.len(), None, limit, policy)
    }

    fn contents(o: &Outbox) -> Vec<u8> {
        o.slices().flat_map(|s| s.to_vec()).collect()
    }

    const CLOSE: SlowConsumer = SlowConsumer::Close(CloseCode::TRY_AGAIN_LATER);

    #[test]
    fn an_empty_outbox_accepts_any_message_and_a_full_one_overflows() {
        let mut o = Outbox::default();
        let big = frames(&[&[1; 100]]);
        assert_eq!(push(&mut o, &big, 10, CLOSE), PushOutcome::Queued);
        assert_eq!(push(&mut o, &big, 10, CLOSE), PushOutcome::Overflow);
        assert_eq!(o.bytes(), 102);
        o.advance(102, 102);
        assert!(o.is_empty());
    }

    #[test]
    fn drop_newest_drops_the_new_message_and_drop_oldest_waiting_ones() {
        let of = |bytes: [u8; 2]| frames(&[&[bytes[0]; 1000], &[bytes[1]; 1000]]);
        let (first, more) = (of([1, 2]), of([3, 4]));
        // Three messages and what they cost beside their bytes, not four.
        let limit = 3 * (1004 + ENTRY_COST);
        let mut o = Outbox::default();
        let _ = push(&mut o, &first, limit, SlowConsumer::DropNewest);
        assert_eq!(push(&mut o, &more, limit, SlowConsumer::DropNewest), PushOutcome::Dropped(1));
        assert_eq!(contents(&o), frames(&[&[1; 1000], &[2; 1000], &[3; 1000]])[..]);

        let mut o = Outbox::default();
        let _ = push(&mut o, &first, limit, SlowConsumer::DropOldest);
        assert_eq!(push(&mut o, &more, limit, SlowConsumer::DropOldest), PushOutcome::Dropped(1));
        assert_eq!(contents(&o), frames(&[&[2; 1000], &[3; 1000], &[4; 1000]])[..]);
    }

    #[test]
    fn small_messages_behind_a_backlog_are_copied_together() {
        let mut o = Outbox::default();
        let _ = push(&mut o, &frames(&[&[0; 1000]]), 1 << 20, CLOSE);
        o.advance(1, 1004);
        let empty = frames(&[b""]);
        for _ in 0..10_000 {
            assert_eq!(push(&mut o, &empty, 1 << 20, CLOSE), PushOutcome::Queued);
        }
        assert_eq!(empty.shares(), 1);
        assert!(o.cost() < 2 * o.bytes(), "{} for {}", o.cost(), o.bytes());
        assert_eq!(o.messages(), 10_001);
    }

    #[test]
    fn a_partly_written_frame_is_kept_and_control_frames_follow_it() {
        let mut o = Outbox::default();
        let f = frames(&[b"first", b"second"]);
        let _ = push(&mut o, &f, 100, CLOSE);
        o.advance(3, 3);
        let ping = frames(&[b"!"]).to_vec();
        o.push_control(ping);
        let mut expected = f[3..7].to_vec();
        expected.extend_from_slice(&frames(&[b"!", b"second"]));
        assert_eq!(contents(&o), expected);
        assert_eq!(o.drop_waiting(), 1);
        expected.truncate(4 + 3);
        assert_eq!(contents(&o), expected);
        assert_eq!(o.bytes(), expected.len());
    }

    #[test]
    fn partly_written_replies_are_never_dropped() {
        // The first is a pong: another does not replace what was received with it.
        let mut replies = Vec::new();
        header::write_frame(&mut replies, Opcode::Pong, b"first");
        replies.extend_from_slice(&frames(&[b"second", b"third"]));
        let replies = Frames::new(replies);
        let mut o = Outbox::default();
        o.push_rest(&replies, 0..replies.len(), 3, None, true);
        let message = frames(&[&[7; 100]]);
        for _ in 0..3 {
            let _ = push(&mut o, &message, 300, SlowConsumer::DropOldest);
        }
        // A frame that passes the others splits them.
        let mut pong = Vec::new();
        header::write_frame(&mut pong, Opcode::Pong, b"!");
        o.push_control(pong.clone());
        let _ = push(&mut o, &message, 300, SlowConsumer::DropOldest);
        let mut expected = replies[3..7].to_vec();
        expected.extend_from_slice(&pong);
        expected.extend_from_slice(&frames(&[b"second", b"third", &[7; 100]]));
        assert_eq!(contents(&o), expected);
        assert_eq!((o.messages(), o.drop_waiting()), (1, 1));
    }

    #[test]
    fn latest_by_key_replaces_a_waiting_message_of_the_key() {
        let mut o = Outbox::default();
        let key = |k: &str| Message::text("").with_key(k).key();
        let (a, b, c) = (frames(&[b"EUR 1"]), frames(&[b"USD 1"]), frames(&[b"EUR 2"]));
        let policy = SlowConsumer::LatestByKey;
        // As long as the kernel accepts everything, everything is written.
        assert_eq!(o.push(&a, 0..a.len(), key("EUR"), 1000, policy), PushOutcome::Queued);
        assert_eq!(o.push(&c, 0..c.len(), key("EUR"), 1000, policy), PushOutcome::Queued);
        o.advance(a.len() + c.len(), a.len() + c.len());
        // A message that has begun to be written stays.
        assert_eq!(o.push(&a, 0..a.len(), key("EUR"), 1000, policy), PushOutcome::Queued);
        o.advance(1, a.len());
        assert_eq!(o.push(&b, 0..b.len(), key("USD"), 1000, policy), PushOutcome::Queued);
        assert_eq!(o.push(&c, 0..c.len(), key("EUR"), 1000, policy), PushOutcome::Queued);
        assert_eq!(o.push(&b, 0..b.len(), key("USD"), 1000, policy), PushOutcome::Dropped(1));
        assert_eq!(contents(&o)[a.len() - 1..], frames(&[b"EUR 2", b"USD 1"])[..]);
        assert_eq!(o.messages(), 3);
    }

    #[cfg(feature = "push")]
    #[test]
    fn a_notice_goes_first_replaces_another_and_is_never_dropped() {
        let mut o = Outbox::default();
        let message = frames(&[&[7; 100], &[8; 100]]);
        let _ = push(&mut o, &message, 1000, CLOSE);
        o.advance(1, 1);
        assert!(!o.has_notice());
        let notice = |n: u8| frames(&[&[n; 3]]).to_vec();
        o.push_notice(notice(1));
        o.push_control(frames(&[b"!"]).to_vec());
        assert!(o.has_notice());
        o.push_notice(notice(2));
        assert_eq!((o.messages(), o.drop_waiting()), (2, 1));
        let mut expected = message[1..102].to_vec();
        expected.extend_from_slice(&frames(&[b"!", &[2; 3]]));
        assert_eq!(contents(&o), expected);
        // One that has begun to be written is not replaced.
        o.advance(101 + 3 + 1, 1000);
        assert!(!o.has_notice());
        o.push_notice(notice(3));
        assert_eq!(contents(&o)[4..], notice(3)[..]);
        assert_eq!(o.bytes(), contents(&o).len());
    }

    #[test]
    fn shared_frames_are_not_copied() {
        let mut o = Outbox::default();
        let f = frames(&[&[5; 1000], &[6; 1000]]);
        let _ = push(&mut o, &f, 10_000, CLOSE);
        assert_eq!(o.slices().next().unwrap().as_ptr(), f.as_ptr());
        assert_eq!(f.shares(), 2);
        o.clear();
        assert_eq!(f.shares(), 1);
    }

    #[test]
    fn a_frame_that_has_not_begun_to_be_written_can_be_dropped() {
        let mut o = Outbox::default();
        let all = frames(&[b"first", b"second", b"third"]);
        o.push_rest(&all, 0..all.len(), 7 + 8, None, false);
        assert_eq!((o.messages(), o.drop_waiting()), (1, 1));
        assert!(o.is_empty() && o.bytes() == 0, "two frames are with the kernel, and nothing of the third");
    }

    proptest! {
        /// After any sequence of pushes, drops and writes, the output is whole frames, in order, each pushed once, with
        /// every control frame.
        #[test]
        fn an_outbox_writes_whole_frames_in_order(steps in prop::collection::vec((0u8..4, 1usize..40), 1..80), policy in 0usize..3) {
            let policy = [SlowConsumer::DropNewest, SlowConsumer::DropOldest, SlowConsumer::LatestByKey][policy];
            let mut o = Outbox::default();
            let (mut sent, mut n, mut controls) = (Vec::new(), 0u8, 0);
            for (kind, size) in steps {
                match kind {
                    0 => {
                        n += 1;
                        let f = frames(&[&vec![n; size], &vec![n; size / 2]]);
                        let key = Message::text("").with_key(&(size % 3).to_string()).key();
                        prop_assert_ne!(o.push(&f, 0..f.len(), key, 100, policy), PushOutcome::Overflow);
                    }
                    1 => {
                        controls = (controls + 1) & 0x7F;
                        let mut f = Vec::new();
                        header::write_frame(&mut f, Opcode::Pong, &[controls]);
                        o.push_control(f);
                    }
                    _ => {
                        let all = contents(&o);
                        let k = size.min(all.len());
                        sent.extend_from_slice(&all[..k]);
                        o.advance(k, all.len());
                    }
                }
                prop_assert_eq!(o.bytes(), contents(&o).len());
            }
            sent.extend_from_slice(&contents(&o));
            let (mut at, mut last, mut seen) = (0, 0, 0);
            while at < sent.len() {
                let len = header::own_frame_len(&sent[at..]);
                let frame = &sent[at..at + len];
                if frame[0] == 0x8A {
                    prop_assert!(frame[2] > seen);
                    seen = frame[2];
                } else {
                    let id = frame.get(2).copied().unwrap_or(last);
                    prop_assert!(id >= last && frame[2..].iter().all(|b| *b == id));
                    last = id;
                }
                at += len;
            }
            prop_assert_eq!((at, seen), (sent.len(), controls));
        }
    }
}
