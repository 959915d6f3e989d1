//! What a client has to send: masked frames in one buffer, and control frames that pass them.
//!
//! ```text
//!  bytes   [ gone ][ frame | frame | frame ]
//!                  ^at  └ `begun` bytes of the first are with the kernel
//!  control [ pong ][ close ]     go after the frame that has begun, before all others
//! ```
//! It outlives its connection: what has not begun to be written can go to the next one, since a masked frame belongs to
//! no connection in particular, and its key has never been on a wire.

use crate::protocol::{Opcode, header, mask};
use std::collections::VecDeque;
use std::io::IoSlice;

/// Memory that an empty outbox keeps.
const KEPT: usize = 64 << 10;

/// From so many control frames on, one takes the place of the last of its kind.
const MAX_CONTROL: usize = 32;

#[derive(Clone, Copy, Debug)]
struct Frame {
    len: usize,
    payload: usize,
    message: bool,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    at: usize,
    frames: VecDeque<Frame>,
    /// Bytes of the first frame that are written.
    begun: usize,
    /// At most [`MAX_CONTROL`], and one more of each kind.
    control: VecDeque<Vec<u8>>,
    /// Bytes of the first control frame that are written; then no data frame has begun.
    control_begun: usize,
    /// Bytes of payload in `frames`.
    payload: usize,
    /// Only what has begun and control frames may leave; messages are too late for this connection.
    held: bool,
}

fn encode(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], key: [u8; 4]) -> usize {
    let head = header::encode(true, false, opcode, payload.len(), Some(key));
    out.reserve(head.len() + payload.len());
    out.extend_from_slice(&head);
    let from = out.len();
    out.extend_from_slice(payload);
    mask::apply(&mut out[from..], key, 0);
    head.len() + payload.len()
}

impl Outbox {
    /// Bytes of payload taken and not yet with the kernel; a message counts until its last byte is.
    pub(super) fn payload(&self) -> usize {
        self.payload
    }

    /// Whether no message waits.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether there is nothing to write now.
    pub(super) fn is_written(&self) -> bool {
        self.control.is_empty() && (self.frames.is_empty() || self.held && self.begun == 0)
    }

    /// Lets no message begin any more on this connection, nor a close frame that waits behind messages. True if there
    /// was such a close frame.
    pub(super) fn hold(&mut self) -> bool {
        self.held = true;
        let only_begun = self.frames.len() == 1 && self.begun > 0;
        !only_begun && self.take_close()
    }

    /// Takes a close frame back that stands last.
    fn take_close(&mut self) -> bool {
        let Some(last) = self.frames.back().copied().filter(|f| !f.message) else { return false };
        self.frames.pop_back();
        self.bytes.truncate(self.bytes.len() - last.len);
        true
    }

    /// Appends a message.
    pub(super) fn push(&mut self, opcode: Opcode, payload: &[u8], key: [u8; 4]) {
        let len = encode(&mut self.bytes, opcode, payload, key);
        self.frames.push_back(Frame { len, payload: payload.len(), message: true });
        self.payload += payload.len();
    }

    /// Appends a close frame behind everything that waits.
    pub(super) fn push_last(&mut self, payload: &[u8], key: [u8; 4]) {
        let len = encode(&mut self.bytes, Opcode::Close, payload, key);
        self.frames.push_back(Frame { len, payload: 0, message: false });
    }

    /// Queues a control frame before everything that has not begun.
    pub(super) fn push_control(&mut self, opcode: Opcode, payload: &[u8], key: [u8; 4]) {
        let mut frame = Vec::new();
        encode(&mut frame, opcode, payload, key);
        // RFC 6455 section 5.5.3: of several pings only the latest need be answered, so a flood of them from a server
        // that does not read leaves few pongs waiting.
        let begun = usize::from(self.control_begun > 0);
        let replaces = self.control.len() >= MAX_CONTROL;
        match self.control.iter_mut().skip(begun).rfind(|f| replaces && f[0] == frame[0]) {
            Some(same) => *same = frame,
            None => self.control.push_back(frame),
        }
    }

    /// The next bytes to write, in order.
    pub(super) fn slices(&self) -> impl Iterator<Item = IoSlice<'_>> {
        let rest = &self.bytes[self.at..];
        let first = match self.frames.front() {
            Some(frame) if self.begun > 0 => frame.len - self.begun,
            _ => 0,
        };
        let (first, rest) = rest.split_at(first);
        let rest = if self.held { &[] } else { rest };
        let mut skip = self.control_begun;
        let control = self.control.iter().map(move |f| &f[core::mem::take(&mut skip)..]);
        let all = core::iter::once(first).chain(control).chain([rest]);
        all.filter(|s| !s.is_empty()).map(IoSlice::new)
    }

    /// The kernel took so many bytes of [`Outbox::slices`].
    pub(super) fn advance(&mut self, mut n: usize) {
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
            let Some(first) = self.frames.front().copied() else { break };
            let left = first.len - self.begun;
            if n < left {
                self.begun += n;
                self.at += n;
                return 0;
            }
            n -= left;
            self.at += left;
            self.payload -= first.payload;
            self.begun = 0;
            self.frames.pop_front();
        }
        n
    }

    /// Gives up what was written of the buffer.
    fn tidy(&mut self) {
        if self.frames.is_empty() {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT);
            self.at = 0;
        } else if self.at >= KEPT && self.at * 2 >= self.bytes.len() {
            // Each byte is moved at most once for each that was written.
            self.bytes.drain(..self.at);
            self.at = 0;
        }
    }

    /// Gives up what has not begun; says how many messages that were.
    fn drop_waiting(&mut self) -> usize {
        let begun = usize::from(self.begun > 0);
        let dropped = self.frames.iter().skip(begun).filter(|f| f.message).count();
        self.frames.truncate(begun);
        let rest = self.frames.front().map_or(0, |f| f.len - self.begun);
        self.bytes.truncate(self.at + rest);
        self.payload = self.frames.front().map_or(0, |f| f.payload);
        self.tidy();
        dropped
    }

    /// The connection is gone: with it a frame that had begun, all control frames, and unless they are kept for the
    /// next one, all messages. Says how many messages are lost.
    pub(super) fn end_connection(&mut self, keep: bool) -> usize {
        let mut lost = if keep { 0 } else { self.drop_waiting() };
        // The rest of what has begun stands first, so a close frame can be it.
        if self.begun > 0
            && let Some(first) = self.frames.pop_front()
        {
            self.at += first.len - self.begun;
            self.begun = 0;
            self.payload -= first.payload;
            lost += usize::from(first.message);
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
    fn of_a_flood_of_pings_the_latest_is_answered() {
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
    fn control_frames_pass_what_has_not_begun() {
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
    fn what_has_begun_goes_with_its_connection_and_the_rest_is_kept_or_counted() {
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
    fn what_is_held_waits_for_the_next_connection_while_control_frames_leave() {
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

    proptest! {
        /// Whatever is pushed and written in whatever steps: whole frames leave, messages in order, none twice.
        #[test]
        fn only_whole_frames_leave(steps in prop::collection::vec((0u8..6, 0usize..300), 1..100)) {
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
