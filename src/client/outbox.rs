//! What a client has to send: masked frames in one buffer, and control frames that pass them.
//!
//! ```text
//!  bytes   [ gone ][ frame | frame | frame ]
//!                  ^at  └ `begun` bytes of the first are with the kernel
//!  control [ pong ][ close ]     go after the frame that has begun, before all others
//! ```
//! Where a frame ends, its own head says, so that nothing is kept beside the bytes: what was gathered in a turn mostly
//! leaves in one write, and then its frames are not even looked at.
//!
//! It outlives its connection: what has not begun to be written can go to the next one, since a masked frame belongs to
//! no connection in particular, and its key has never been on a wire.

use super::compression::Packer;
use crate::protocol::{Kind, Opcode, header, mask};
use std::collections::VecDeque;
use std::io::IoSlice;

/// Memory that an empty outbox keeps, unless [`Outbox::keeping`] says otherwise.
const KEPT: usize = 64 << 10;

/// From so many control frames on, one takes the place of the last of its kind.
const MAX_CONTROL: usize = 32;

/// What is to be sent on one connection.
#[derive(Debug)]
pub struct Outbox {
    /// Initialised once in their life, so that a frame is masked straight into its place; frames up to `end`.
    bytes: Vec<u8>,
    end: usize,
    at: usize,
    /// Bytes of the first frame that are written.
    begun: usize,
    /// Where a close frame begins that stands last.
    close_at: Option<usize>,
    /// At most [`MAX_CONTROL`], and one more of each kind.
    control: VecDeque<Vec<u8>>,
    /// Bytes of the first control frame that are written; then no data frame has begun.
    control_begun: usize,
    /// Bytes of payload of messages.
    payload: usize,
    /// Only what has begun and control frames may leave; messages are too late for this connection.
    held: bool,
    kept: usize,
}

impl Default for Outbox {
    fn default() -> Self {
        Self::keeping(KEPT)
    }
}

/// Bytes of a masked frame's head, and of its payload.
#[inline]
fn measure(frame: &[u8]) -> (usize, usize) {
    match frame[1] & 0x7F {
        126 => (8, usize::from(u16::from_be_bytes([frame[2], frame[3]]))),
        127 => {
            let len = frame[2..10].iter().fold(0, |len, &byte| len << 8 | usize::from(byte));
            (14, len)
        }
        len => (6, usize::from(len)),
    }
}

impl Outbox {
    /// An outbox that keeps so much memory while it is empty.
    pub fn keeping(bytes: usize) -> Self {
        Self {
            bytes: Vec::new(),
            end: 0,
            at: 0,
            begun: 0,
            close_at: None,
            control: VecDeque::new(),
            control_begun: 0,
            payload: 0,
            held: false,
            kept: bytes,
        }
    }

    /// Bytes of payload taken and not yet with the kernel; a message counts until its last byte is.
    pub fn payload(&self) -> usize {
        self.payload
    }

    /// Bytes of frames that the kernel has not taken, without those of control frames.
    #[inline]
    pub fn unwritten(&self) -> usize {
        self.end - self.at - self.begun
    }

    /// Whether no message waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.at == self.end
    }

    /// Whether there is nothing to write now.
    #[inline]
    pub fn is_written(&self) -> bool {
        self.control.is_empty() && (self.is_empty() || self.held && self.begun == 0)
    }

    /// Whether it is as good as new, for whatever connection.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.is_empty() && self.control.is_empty() && !self.held
    }

    /// Whether it holds memory.
    pub fn has_memory(&self) -> bool {
        self.bytes.capacity() > 0
    }

    /// Lets no message begin any more on this connection, nor a close frame that waits behind messages. True if there
    /// was such a close frame.
    pub(super) fn hold(&mut self) -> bool {
        self.held = true;
        let only_begun = self.close_at == Some(self.at) && self.begun > 0;
        !only_begun && self.take_close()
    }

    /// Takes a close frame back that stands last.
    fn take_close(&mut self) -> bool {
        let Some(at) = self.close_at.take() else { return false };
        self.end = at;
        true
    }

    /// Appends `n` bytes, to be overwritten: they hold what was there before.
    #[inline]
    fn space(&mut self, n: usize) -> &mut [u8] {
        let from = self.end;
        self.end += n;
        if self.end > self.bytes.len() {
            self.grow();
        }
        &mut self.bytes[from..self.end]
    }

    #[cold]
    fn grow(&mut self) {
        let len = self.end.max(self.bytes.len() * 2).max(1024);
        self.bytes.resize(len, 0);
    }

    /// Appends a frame's head, and gives the place of its payload of `len` bytes, which the caller writes masked with
    /// this key. `rsv1`: it is compressed.
    #[inline]
    pub fn frame(&mut self, opcode: Opcode, rsv1: bool, len: usize, key: [u8; 4]) -> &mut [u8] {
        self.payload += len;
        if len < 126
            && let Some((head, payload)) = self.space(6 + len).split_first_chunk_mut::<6>()
        {
            // What `header::encode` gives, without a copy of unknown size: that would take as long as the rest.
            let first = 0x80 | u8::from(rsv1) << 6 | opcode as u8;
            *head = [first, 0x80 | len as u8, key[0], key[1], key[2], key[3]];
            // The same bytes again: a borrow that is returned here would last to the end of the function.
            let len = payload.len();
            return &mut self.bytes[self.end - len..self.end];
        }
        let head = header::encode(true, rsv1, opcode, len, Some(key));
        self.space(head.len()).copy_from_slice(&head);
        self.space(len)
    }

    /// Appends a message.
    #[inline]
    pub fn push(&mut self, opcode: Opcode, payload: &[u8], key: [u8; 4]) {
        mask::copy(payload, self.frame(opcode, false, payload.len(), key), key, 0);
    }

    /// Appends a close frame behind everything that waits.
    pub(super) fn push_last(&mut self, payload: &[u8], key: [u8; 4]) {
        self.close_at = Some(self.end);
        self.push(Opcode::Close, payload, key);
        self.payload -= payload.len();
    }

    /// Queues a control frame before everything that has not begun.
    pub(super) fn push_control(&mut self, opcode: Opcode, payload: &[u8], key: [u8; 4]) {
        let mut frame = header::encode(true, false, opcode, payload.len(), Some(key)).to_vec();
        let from = frame.len();
        frame.extend_from_slice(payload);
        mask::apply(&mut frame[from..], key, 0);
        // RFC 6455 section 5.5.3: of several pings only the latest need be answered, so a flood of them from a server
        // that does not read leaves few pongs waiting.
        let begun = usize::from(self.control_begun > 0);
        let replaces = self.control.len() >= MAX_CONTROL;
        match self.control.iter_mut().skip(begun).rfind(|f| replaces && f[0] == frame[0]) {
            Some(same) => *same = frame,
            None => self.control.push_back(frame),
        }
    }

    /// The frames alone, where there is nothing else to write: in most turns.
    #[inline]
    pub(super) fn plain(&self) -> Option<&[u8]> {
        (self.control.is_empty() && !self.held).then(|| &self.bytes[self.at + self.begun..self.end])
    }

    /// The next bytes to write, in order.
    pub(super) fn slices(&self) -> impl Iterator<Item = IoSlice<'_>> {
        let rest = &self.bytes[self.at + self.begun..self.end];
        let first = if self.begun > 0 { self.first() - self.begun } else { 0 };
        let (first, rest) = rest.split_at(first);
        let rest = if self.held { &[] } else { rest };
        let mut skip = self.control_begun;
        let control = self.control.iter().map(move |f| &f[core::mem::take(&mut skip)..]);
        let all = core::iter::once(first).chain(control).chain([rest]);
        all.filter(|s| !s.is_empty()).map(IoSlice::new)
    }

    /// Bytes of the first frame.
    fn first(&self) -> usize {
        let (head, payload) = measure(&self.bytes[self.at..self.end]);
        head + payload
    }

    /// The kernel took so many bytes of [`Outbox::slices`].
    #[inline]
    pub(super) fn advance(&mut self, n: usize) {
        if self.control.is_empty() && self.at + self.begun + n == self.end {
            self.clear();
        } else {
            self.advance_part(n);
        }
    }

    /// All frames are written or given up.
    #[inline]
    fn clear(&mut self) {
        (self.at, self.begun, self.end, self.payload, self.close_at) = (0, 0, 0, 0, None);
        if self.bytes.len() > self.kept {
            self.bytes.truncate(self.kept);
            self.bytes.shrink_to_fit();
        }
    }

    fn advance_part(&mut self, mut n: usize) {
        if self.begun > 0 {
            n = self.advance_data(n, 1);
        }
        while n > 0
            && let Some(first) = self.control.front()
        {
            let left = first.len() - self.control_begun;
            if n < left {
                self.control_begun += n;
                return;
            }
            n -= left;
            self.control_begun = 0;
            self.control.pop_front();
        }
        let left = self.advance_data(n, usize::MAX);
        debug_assert_eq!(left, 0);
        self.tidy();
    }

    /// Takes `n` bytes off at most `most` frames; gives what is left of `n`.
    fn advance_data(&mut self, mut n: usize, most: usize) -> usize {
        for _ in 0..most {
            if self.is_empty() {
                break;
            }
            let left = self.first() - self.begun;
            if n < left {
                self.begun += n;
                return 0;
            }
            n -= left;
            self.pass();
        }
        n
    }

    /// The first frame is done with.
    fn pass(&mut self) {
        let (head, payload) = measure(&self.bytes[self.at..self.end]);
        if self.close_at.take_if(|at| *at == self.at).is_none() {
            self.payload -= payload;
        }
        self.at += head + payload;
        self.begun = 0;
    }

    /// Gives up what was written of the buffer.
    fn tidy(&mut self) {
        if self.is_empty() {
            self.clear();
        } else if self.at >= KEPT && self.at * 2 >= self.end {
            // Each byte is moved at most once for each that was written.
            self.bytes.copy_within(self.at..self.end, 0);
            self.end -= self.at;
            self.close_at = self.close_at.map(|at| at - self.at);
            self.at = 0;
        }
    }

    /// Gives up what has not begun; says how many messages that were.
    fn drop_waiting(&mut self) -> usize {
        let mut dropped = 0;
        let mut at = self.at;
        let (mut end, mut payload) = (self.at, 0);
        while at < self.end {
            let (head, len) = measure(&self.bytes[at..self.end]);
            let is_message = self.close_at != Some(at);
            if at == self.at && self.begun > 0 {
                end = at + head + len;
                payload = if is_message { len } else { 0 };
            } else {
                dropped += usize::from(is_message);
            }
            at += head + len;
        }
        self.close_at.take_if(|at| *at >= end);
        (self.end, self.payload) = (end, payload);
        self.tidy();
        dropped
    }

    /// Makes what is compressed plain again, since it may go to a connection that agreed on nothing; at most so many
    /// bytes in all. Says how many messages are lost because they don't fit. Nothing may have begun to be written.
    pub(super) fn unpack(&mut self, packer: &mut Packer, most: usize) -> usize {
        let mut plain = Self::keeping(self.kept);
        let (mut any, mut lost) = (false, 0);
        while self.at < self.end {
            let (head, len) = measure(&self.bytes[self.at..self.end]);
            let (head, payload) = self.bytes[self.at..self.at + head + len].split_at_mut(head);
            self.at += head.len() + len;
            let mut key = [0; 4];
            key.copy_from_slice(&head[head.len() - 4..]);
            mask::apply(payload, key, 0);
            let kind = if head[0] & 0x0F == Opcode::Text as u8 { Kind::Text } else { Kind::Binary };
            let room = most.saturating_sub(plain.payload);
            let payload = if head[0] & header::RSV1 != 0 {
                any = true;
                packer.unpack_alone(payload, kind, room)
            } else {
                Some(&*payload)
            };
            match payload {
                Some(payload) => plain.push(kind.into(), payload, key),
                None => lost += 1,
            }
        }
        debug_assert!(any || lost == 0);
        *self = plain;
        lost
    }

    /// The connection is gone: with it a frame that had begun, all control frames, and unless they are kept for the
    /// next one, all messages. Says how many messages are lost.
    pub fn end_connection(&mut self, keep: bool) -> usize {
        let mut lost = if keep { 0 } else { self.drop_waiting() };
        // The rest of what has begun stands first, so a close frame can be it.
        if self.begun > 0 {
            lost += usize::from(self.close_at != Some(self.at));
            self.pass();
        }
        // A close frame that stood last was for this connection.
        self.take_close();
        self.held = false;
        self.control.clear();
        self.control_begun = 0;
        self.tidy();
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::buffer::BufferPool;
    use crate::protocol::{Decoder, Item, Role, Rules};
    use proptest::prelude::*;

    fn contents(o: &Outbox) -> Vec<u8> {
        o.slices().flat_map(|s| s.to_vec()).collect()
    }

    /// What a server makes of these bytes.
    fn decode(mut bytes: Vec<u8>) -> Vec<(char, Vec<u8>)> {
        let rules = Rules { role: Role::Server, rsv1: false, max_message_size: 1 << 20, max_fragments: 9 };
        let (mut decoder, mut pool, mut all) = (Decoder::default(), BufferPool::new(0), Vec::new());
        let mut input = &mut bytes[..];
        while let Some(item) = decoder.next(&mut input, &rules, &mut pool).unwrap() {
            all.push(match item {
                Item::Message(m) => ('m', m.message().as_bytes().to_vec()),
                Item::Ping(p) => ('?', p.to_vec()),
                Item::Pong(p) => ('!', p.to_vec()),
                Item::Close(p) => ('c', p.to_vec()),
            });
        }
        assert!(!decoder.is_within_message(), "whole frames");
        all
    }

    #[test]
    fn only_the_latest_of_many_pings_is_answered() {
        let mut o = Outbox::default();
        for i in 0..1000u16 {
            o.push_control(Opcode::Pong, &i.to_be_bytes(), [3; 4]);
        }
        o.push_control(Opcode::Close, b"", [3; 4]);
        let sent = decode(contents(&o));
        assert_eq!(sent.len(), MAX_CONTROL + 1);
        assert_eq!(sent[MAX_CONTROL - 1].1, 999u16.to_be_bytes());
        assert_eq!(sent[MAX_CONTROL].0, 'c');
    }

    #[test]
    fn control_frames_overtake_frames_that_have_not_started() {
        let mut o = Outbox::default();
        o.push(Opcode::Binary, b"one", [1; 4]);
        o.push(Opcode::Binary, b"two", [2; 4]);
        let mut sent = contents(&o)[..4].to_vec();
        o.advance(4);
        o.push_control(Opcode::Pong, b"new", [3; 4]);
        assert_eq!(o.payload(), 6);
        sent.extend(contents(&o));
        let expected = [('m', b"one"), ('!', b"new"), ('m', b"two")].map(|(k, b)| (k, b.to_vec()));
        assert_eq!(decode(sent), expected);
        o.advance(contents(&o).len());
        assert!(o.is_empty() && o.is_written() && o.payload() == 0);
    }

    #[test]
    fn a_partly_written_frame_is_lost_with_its_connection_and_the_rest_is_kept_or_counted() {
        let fill = || {
            let mut o = Outbox::default();
            for m in [b"a", b"b", b"c"] {
                o.push(Opcode::Text, m, [9; 4]);
            }
            o.push_control(Opcode::Ping, b"", [9; 4]);
            o.advance(6 + 3);
            o.push_last(b"", [9; 4]);
            o
        };
        let mut o = fill();
        assert_eq!(o.end_connection(true), 1);
        assert_eq!(o.payload(), 2);
        assert_eq!(decode(contents(&o)), [('m', b"b".to_vec()), ('m', b"c".to_vec())]);
        let mut o = fill();
        assert_eq!(o.end_connection(false), 3);
        assert!(o.is_empty() && o.payload() == 0);
    }

    #[test]
    fn held_messages_wait_for_the_next_connection_and_control_frames_do_not() {
        let mut o = Outbox::default();
        o.push(Opcode::Text, b"a", [9; 4]);
        o.push(Opcode::Text, b"b", [9; 4]);
        o.push_last(b"", [9; 4]);
        let mut sent = contents(&o)[..2].to_vec();
        o.advance(2);
        assert!(o.hold(), "the close frame is taken back");
        o.push_control(Opcode::Close, b"", [9; 4]);
        sent.extend(contents(&o));
        assert_eq!(decode(sent), [('m', b"a".to_vec()), ('c', vec![])]);
        o.advance(contents(&o).len());
        assert!(o.is_written() && !o.is_empty());
        assert_eq!(o.end_connection(true), 0);
        assert_eq!(decode(contents(&o)), [('m', b"b".to_vec())]);
    }

    #[cfg(feature = "deflate")]
    #[test]
    fn compressed_messages_are_decompressed_for_the_next_connection() {
        let mut packer = Packer::default();
        let text = "to and fro ".repeat(100);
        let mut packed = Vec::new();
        crate::deflate::Deflater::new(15, 1).compress(text.as_bytes(), None, &mut packed);
        assert!(packed.len() < 100);
        let mut o = Outbox::default();
        for rsv1 in [true, false, true] {
            let payload = if rsv1 { &packed[..] } else { b"plain" };
            let key = [1, 2, 3, 4];
            mask::copy(payload, o.frame(Opcode::Text, rsv1, payload.len(), key), key, 0);
        }
        assert_eq!(o.end_connection(true), 0);
        // The second of them would be too much.
        assert_eq!(o.unpack(&mut packer, 2000), 1);
        assert_eq!(o.payload(), text.len() + 5);
        assert_eq!(decode(contents(&o)), [('m', text.into_bytes()), ('m', b"plain".to_vec())]);
    }

    #[test]
    fn frame_lengths_are_read_from_frame_heads() {
        for size in [0, 125, 126, 65_535, 65_536, 100_000] {
            let mut o = Outbox::default();
            o.push(Opcode::Binary, &vec![7; size], [1, 2, 3, 4]);
            o.push(Opcode::Binary, b"next", [1, 2, 3, 4]);
            let all = contents(&o);
            let (head, payload) = measure(&all);
            assert_eq!((payload, head + payload + 10), (size, all.len()));
            o.advance(head + payload);
            assert_eq!((o.payload(), decode(contents(&o))), (4, vec![('m', b"next".to_vec())]));
            assert_eq!(o.end_connection(false), 1);
            assert!(o.is_empty() && o.bytes.len() <= KEPT);
        }
    }

    proptest! {
        /// Whatever is pushed and written in whatever steps: whole frames leave, messages in order, none twice.
        #[test]
        fn an_outbox_writes_whole_frames_in_order(steps in prop::collection::vec((0u8..6, 0usize..300), 1..100)) {
            let mut o = Outbox::default();
            let (mut sent, mut pushed, mut gone) = (Vec::new(), Vec::new(), 0);
            for (what, size) in steps {
                match what {
                    0 | 1 => {
                        let payload = vec![pushed.len() as u8; size];
                        o.push(Opcode::Binary, &payload, [what, 2, 3, 4]);
                        pushed.push(payload);
                    }
                    2 => o.push_control(Opcode::Pong, &vec![0; size % 125], [5; 4]),
                    3 if size < 20 => {
                        let dropped = o.drop_waiting();
                        pushed.truncate(pushed.len() - dropped);
                        gone += dropped;
                    }
                    _ => {
                        let all = contents(&o);
                        let n = size.min(all.len());
                        sent.extend_from_slice(&all[..n]);
                        o.advance(n);
                    }
                }
            }
            sent.extend(contents(&o));
            o.advance(contents(&o).len());
            prop_assert!(o.is_empty() && o.is_written() && o.payload() == 0 && gone < 100);
            let messages: Vec<_> = decode(sent).into_iter().filter(|(k, _)| *k == 'm').map(|(_, b)| b).collect();
            prop_assert_eq!(messages, pushed);
        }
    }
}
