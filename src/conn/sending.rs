//! How what a connection has to say gets to its sink: gathered in the worker's cork, written at once, or put into the
//! backlog behind what waits there.

use super::outbox::MAX_SLICES;
use super::{
    Cause, Connection, CorkWriter, Frames, Phase, PushOutcome, RefusedReason, Sent, SlowConsumer, Terms,
};
use crate::protocol::{Message, Opcode, header};
use crate::sink::Sink;
use core::ops::Range;

impl Connection {
    /// Sends a message to the connection that the turn is about: gathered in the cork, or behind a backlog.
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
        // The usual case, in as few steps as it takes: gathered behind what the turn has gathered already, which may
        // come to wait and is bounded like what waits.
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

    /// Gathers a frame, or writes it through where copying it would only cost.
    #[inline]
    pub(super) fn write(&mut self, writer: &mut CorkWriter, sink: &mut dyn Sink, first: u8, payload: &[u8]) {
        if writer.should_cork(payload.len()) {
            header::write_frame_as(&mut writer.cork, first, payload);
        } else {
            let head = header::encode_as(first, payload.len(), None);
            self.write_through(writer, sink, &head, payload);
        }
    }

    /// Writes the cork, a head and a payload at once; copies only what the kernel does not take.
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
                // Everything in one buffer that begins at a frame's boundary, as the outbox wants it.
                let mut rest = writer.pool.take(len).into_empty_vec();
                rest.reserve(len);
                parts.iter().for_each(|p| rest.extend_from_slice(p));
                self.queue_rest(writer, Frames::new(rest), n, None);
            }
            Err(e) => self.write_error = Some(e.kind()),
        }
        writer.clear();
    }

    /// The kernel took only `written` bytes of these frames; the rest waits.
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

    /// The same for a run, of which no more may wait than the limit: behind the frame that has begun to be written,
    /// or the first, the policy decides.
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

    /// Queues whole frames at the end of what waits, by the policy. If they would not fit and the kernel has not
    /// refused anything yet, it is asked first.
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

    /// More waits than may, and the policy is to close.
    pub(crate) fn overflow(&mut self, writer: &mut CorkWriter, sink: &mut dyn Sink, terms: &Terms) {
        if let SlowConsumer::Close(code) = terms.slow_consumer {
            self.fail(writer, sink, code, "too slow: the backlog is full", Cause::SlowConsumer);
        }
    }

    /// Queues a message of a history that the peer has asked for: no policy for slow consumers gives it up.
    pub(crate) fn replay(&mut self, writer: &mut CorkWriter, frames: &Frames, range: Range<usize>) {
        self.outbox.get_or_insert_with(|| writer.outbox()).push_undroppable(frames, range);
    }

    /// Messages for this connection were lost before they got here. The policy decides as for messages that find no
    /// room: the connection is closed, or the application is told how many are missing.
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

    /// Queues a control frame: at once where nothing waits, otherwise before the messages that wait.
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

    /// Bytes that are no frames: an HTTP response.
    pub(crate) fn write_raw(&mut self, writer: &mut CorkWriter, bytes: &[u8]) {
        if self.outbox.is_none() {
            writer.gather_raw(bytes);
        } else if let Some(outbox) = &mut self.outbox {
            outbox.push_raw(bytes.to_vec());
        }
    }

    /// Hands what the turn gathered, or what waits, to the kernel.
    #[inline]
    pub(crate) fn flush(&mut self, writer: &mut CorkWriter, sink: &mut dyn Sink) {
        if self.outbox.is_some() {
            // Frames were corked before anything waited, or raw bytes were: they never come behind a backlog.
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
