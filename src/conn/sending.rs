//! The way of a message from a connection to its sink: gathered in the worker's cork, written at once, or queued in the
//! backlog.

use super::outbox::MAX_SLICES;
use super::{
    Cause, Connection, CorkWriter, Frames, Phase, PushOutcome, RefusedReason, Sent, SlowConsumer, Terms,
};
use crate::protocol::{Message, Opcode, header};
use crate::sink::Sink;
use core::ops::Range;

impl Connection {
    /// Sends a message to the connection of the running callback: gathered in the cork, or behind a backlog.
    #[inline]
    pub(crate) fn send(
        &mut self,
        writer: &mut CorkWriter,
        sink: &mut dyn Sink,
        terms: &Terms,
        message: Message<'_>,
    ) -> Result<Sent, RefusedReason> {
        if self.phase != Phase::Open {
            return Err(RefusedReason::NotOpen);
        }
        // The usual case, in as few steps as possible: gathered behind what this iteration has gathered, which may have
        // to be queued and is bounded like the backlog.
        let gathered = writer.cork.len() + message.len() + header::MAX_HEAD;
        let fits = gathered <= terms.limits.max_backlog;
        if fits && self.outbox.is_none() && self.encoding.is_plain() && writer.should_cork(message.len()) {
            header::write_frame(&mut writer.cork, message.kind().into(), message.as_bytes());
            return Ok(Sent::Sent);
        }
        if !fits && self.outbox.is_none() && !writer.cork.is_empty() {
            self.flush_cork(writer, sink);
        }
        if !self.encoding.is_plain()
            && let Some(compressed) = self.compress(&mut writer.codecs, message)
        {
            let sent = self.send_payload(writer, sink, terms, message, true, &compressed);
            writer.codecs.recycle_compressed(compressed);
            return sent;
        }
        self.send_payload(writer, sink, terms, message, false, message.as_bytes())
    }

    /// Sends a message as this payload.
    pub(super) fn send_payload(
        &mut self,
        writer: &mut CorkWriter,
        sink: &mut dyn Sink,
        terms: &Terms,
        message: Message<'_>,
        compressed: bool,
        payload: &[u8],
    ) -> Result<Sent, RefusedReason> {
        let first = header::first_byte(message.kind().into(), compressed);
        if self.outbox.is_none() {
            self.write(writer, sink, first, payload);
            return Ok(if self.outbox.is_none() { Sent::Sent } else { Sent::Queued });
        }
        let mut frames = Vec::with_capacity(payload.len() + header::MAX_HEAD);
        header::write_frame_as(&mut frames, first, payload);
        let len = frames.len();
        match self.push(writer, sink, &Frames::new(frames), 0..len, message.key(), terms) {
            PushOutcome::Queued => Ok(Sent::Queued),
            PushOutcome::Dropped(_) if terms.slow_consumer != SlowConsumer::DropNewest => Ok(Sent::Queued),
            PushOutcome::Dropped(_) | PushOutcome::Overflow => Err(RefusedReason::BacklogFull),
        }
    }

    /// Gathers a frame, or writes it through if a copy would cost more.
    #[inline]
    pub(super) fn write(&mut self, writer: &mut CorkWriter, sink: &mut dyn Sink, first: u8, payload: &[u8]) {
        if writer.should_cork(payload.len()) {
            header::write_frame_as(&mut writer.cork, first, payload);
        } else {
            let head = header::encode_as(first, payload.len(), None);
            self.write_through(writer, sink, &head, payload);
        }
    }

    /// Writes the cork, a head and a payload at once; copies only what the kernel does not accept.
    pub(super) fn write_through(
        &mut self,
        writer: &mut CorkWriter,
        sink: &mut dyn Sink,
        head: &[u8],
        payload: &[u8],
    ) {
        let parts = [&writer.cork[..], head, payload];
        let len: usize = parts.iter().map(|p| p.len()).sum();
        match sink.write_vectored(&parts.map(std::io::IoSlice::new), &mut writer.scratch) {
            Ok(n) if n == len => {}
            Ok(n) => {
                // Everything in one buffer that begins at the boundary of a frame, as the outbox requires.
                let mut rest = writer.pool.take(len).into_empty_vec();
                rest.reserve(len);
                parts.iter().for_each(|p| rest.extend_from_slice(p));
                self.queue_rest(writer, Frames::new(rest), n, None);
            }
            Err(e) => self.write_error = Some(e.kind()),
        }
        writer.clear();
    }

    /// Queues the rest of frames of which the kernel accepted only `written` bytes.
    pub(crate) fn queue_rest(
        &mut self,
        writer: &mut CorkWriter,
        frames: Frames,
        written: usize,
        key: Option<crate::protocol::Key>,
    ) {
        let len = frames.len();
        let mut outbox = writer.outbox();
        outbox.push_rest(&frames, 0..len, written, key, core::mem::take(&mut writer.undroppable));
        self.outbox = Some(outbox);
        self.blocked = true;
        self.backlogged = true;
    }

    /// As [`Connection::queue_rest`] for a batch, of which no more may be queued than the limit: behind the frame that
    /// has begun to be written, or the first, the policy decides.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn queue_batch_rest(
        &mut self,
        writer: &mut CorkWriter,
        sink: &mut dyn Sink,
        frames: &Frames,
        range: Range<usize>,
        written: usize,
        key: Option<crate::protocol::Key>,
        terms: &Terms,
    ) -> PushOutcome {
        let mut end = range.start;
        while end <= range.start + written {
            end += header::own_frame_len(&frames[end..range.end]);
        }
        let mut outbox = writer.outbox();
        outbox.push_rest(frames, range.start..end, written, key, false);
        self.outbox = Some(outbox);
        self.blocked = true;
        self.backlogged = true;
        if end == range.end {
            return PushOutcome::Queued;
        }
        self.push(writer, sink, frames, end..range.end, key, terms)
    }

    /// Queues whole frames at the end of the backlog, by the policy. If they would not fit and the kernel has not
    /// refused anything yet, a write is tried first.
    pub(crate) fn push(
        &mut self,
        writer: &mut CorkWriter,
        sink: &mut dyn Sink,
        frames: &Frames,
        range: Range<usize>,
        key: Option<crate::protocol::Key>,
        terms: &Terms,
    ) -> PushOutcome {
        let waits = self.outbox.as_ref().map_or(0, |o| o.cost());
        if !self.blocked && waits + range.len() > terms.limits.max_backlog {
            self.flush_outbox(writer, sink);
        }
        if self.outbox.is_none() && range.len() > terms.limits.max_backlog {
            match sink.write(&frames[range.clone()], &mut writer.scratch) {
                Ok(n) if n == range.len() => {}
                Ok(n) => return self.queue_batch_rest(writer, sink, frames, range, n, key, terms),
                Err(e) => self.write_error = Some(e.kind()),
            }
            return PushOutcome::Queued;
        }
        let outbox = self.outbox.get_or_insert_with(|| writer.outbox());
        let pushed = outbox.push(frames, range, key, terms.limits.max_backlog, terms.slow_consumer);
        match pushed {
            PushOutcome::Queued => {}
            PushOutcome::Dropped(n) => self.dropped += n,
            PushOutcome::Overflow => {
                self.overflow(writer, sink, terms);
            }
        }
        pushed
    }

    /// Closes the connection: its backlog is over the limit, and that is its policy.
    pub(crate) fn overflow(&mut self, writer: &mut CorkWriter, sink: &mut dyn Sink, terms: &Terms) {
        if let SlowConsumer::Close(code) = terms.slow_consumer {
            self.fail(writer, sink, code, "too slow: the backlog is full", Cause::SlowConsumer);
        }
    }

    /// Queues a message of a replay that the peer asked for: no policy for slow consumers drops it.
    pub(crate) fn replay(&mut self, writer: &mut CorkWriter, frames: &Frames, range: Range<usize>) {
        self.outbox.get_or_insert_with(|| writer.outbox()).push_undroppable(frames, range);
    }

    /// Applies the policy after messages for this connection were lost on their way from another worker: closes the
    /// connection, or tells the application how many are missing.
    pub(crate) fn report_missed(
        &mut self,
        writer: &mut CorkWriter,
        sink: &mut dyn Sink,
        messages: u32,
        terms: &Terms,
    ) {
        match terms.slow_consumer {
            SlowConsumer::Close(code) => {
                self.fail(
                    writer,
                    sink,
                    code,
                    "messages were lost: the server is overloaded",
                    Cause::Congestion,
                );
                // The close frame may be in the cork, which the next connection uses.
                self.flush(writer, sink);
            }
            _ => self.dropped = self.dropped.saturating_add(messages),
        }
    }

    /// Queues a control frame: written at once if nothing is queued, otherwise before the queued messages.
    pub(crate) fn control(&mut self, writer: &mut CorkWriter, opcode: Opcode, payload: &[u8]) {
        match &mut self.outbox {
            None => header::write_frame(&mut writer.cork, opcode, payload),
            Some(outbox) => {
                let mut frame = Vec::with_capacity(payload.len() + 2);
                header::write_frame(&mut frame, opcode, payload);
                outbox.push_control(frame);
            }
        }
    }

    /// Writes bytes that are not frames: an HTTP response.
    pub(crate) fn write_raw(&mut self, writer: &mut CorkWriter, bytes: &[u8]) {
        if self.outbox.is_none() {
            writer.gather_raw(bytes);
        } else if let Some(outbox) = &mut self.outbox {
            outbox.push_raw(bytes.to_vec());
        }
    }

    /// Writes what the iteration gathered, or the backlog, to the kernel.
    #[inline]
    pub(crate) fn flush(&mut self, writer: &mut CorkWriter, sink: &mut dyn Sink) {
        if self.outbox.is_some() {
            // Frames were corked while nothing was queued, or these are raw bytes: they are never behind a backlog.
            debug_assert!(writer.cork.is_empty());
            if !self.blocked {
                self.flush_outbox(writer, sink);
            }
        } else if !writer.cork.is_empty() {
            self.flush_cork(writer, sink);
        }
    }

    pub(crate) fn flush_cork(&mut self, writer: &mut CorkWriter, sink: &mut dyn Sink) {
        match sink.write(&writer.cork, &mut writer.scratch) {
            Ok(n) if n == writer.cork.len() => writer.clear(),
            Ok(n) => {
                let cork = writer.take();
                self.queue_rest(writer, Frames::new(cork), n, None);
            }
            Err(e) => {
                writer.clear();
                self.write_error = Some(e.kind());
            }
        }
    }

    pub(super) fn flush_outbox(&mut self, writer: &mut CorkWriter, sink: &mut dyn Sink) {
        let Some(outbox) = &mut self.outbox else { return };
        while !outbox.is_empty() {
            let mut slices = [std::io::IoSlice::new(&[]); MAX_SLICES];
            let (mut n, mut asked) = (0, 0);
            for slice in outbox.slices() {
                asked += slice.len();
                slices[n] = slice;
                n += 1;
            }
            match sink.write_vectored(&slices[..n], &mut writer.scratch) {
                Ok(taken) => {
                    outbox.advance(taken, asked);
                    if taken < asked {
                        self.blocked = true;
                        self.backlogged = true;
                        return;
                    }
                }
                Err(e) => {
                    self.write_error = Some(e.kind());
                    break;
                }
            }
        }
        if let Some(outbox) = self.outbox.take() {
            writer.reuse(outbox);
        }
    }
}
