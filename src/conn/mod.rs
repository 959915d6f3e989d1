//! One connection as a machine without a socket: what it receives is decoded, what it sends is gathered, and its
//! ending takes its steps here. The worker brings bytes, time and a [`Sink`] to write to.
//!
//! ```text
//!  Http ──▶ Deciding ──▶ Open ──close()──▶ CloseSent ──peer's close──▶ Ending ──all written──▶ Dead
//!    │          │         ├── peer's close ───────────────────────────▶ Ending
//!    │          │         └── fail ───────────────▶ Failing ──all written──▶ Lingering ──EOF──▶ Dead
//!    └──────────┴──────── last response ──────────▶ Failing
//! ```
//! Ending closes at once, as RFC 6455 section 7.1.1 asks of a server: both close frames are through. Lingering first
//! ends only the sending half and reads on for a while, because closing a socket with unread bytes in it resets the
//! connection, and the peer would lose the close frame that says why.

mod closed;
mod compression;
mod frames;
mod id;
mod limits;
mod outbox;
#[cfg(feature = "push")]
mod reply;
mod upgrade;
mod writer;

pub use closed::{Cause, Closed};
pub(crate) use compression::{Compression, Form, Forms, Packer};
pub(crate) use frames::{Frames, Twin};
pub use id::ConnId;
pub(crate) use id::MAX_SLOTS;
pub(crate) use limits::Terms;
pub use limits::{Limits, SlowConsumer};
pub(crate) use outbox::{MAX_SLICES, Outbox, Pushed};
pub(crate) use upgrade::{asks_for_websocket, check_upgrade, write_accept};
pub(crate) use writer::{Sink, Writer};

use crate::http::{Params, Peer};
use crate::protocol::{CloseCode, Decoder, Incoming, Message, Opcode, ProtocolError, close, header};
use core::fmt;
use core::ops::Range;

/// Where a connection is in its life, in the words of the browser's API, which count from 0 to 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum ReadyState {
    /// The opening handshake is not finished.
    Connecting = 0,
    /// Messages can be sent.
    Open = 1,
    /// The closing handshake has begun.
    Closing = 2,
    /// It has ended.
    Closed = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Plain HTTP: before the upgrade, or for good.
    Http,
    /// A handler decides about the upgrade on another thread.
    Deciding,
    Open,
    /// Our close frame is on its way, the peer's is awaited.
    CloseSent,
    /// The last bytes are being written, then the socket is closed.
    Ending,
    /// The last bytes are being written to a peer that may still be sending.
    Failing,
    /// Our half is ended; what still comes is thrown away.
    Lingering,
    Dead,
}

/// What became of a message that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Sent {
    /// It goes to the kernel with this turn's write; nothing waits before it.
    Sent,
    /// It waits behind a backlog; [`Handler::drain`](crate::Handler::drain) will be called when that has gone.
    Queued,
}

/// A message that was not taken, and why. The message comes back with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused<'m> {
    /// The message.
    pub message: Message<'m>,
    /// Why.
    pub reason: RefusedReason,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusedReason {
    /// The connection is not open any more.
    NotOpen,
    /// The backlog is at its limit and the policy is to drop the newest, or to close, which has now begun.
    BacklogFull,
}

impl fmt::Display for Refused<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.message.len();
        match self.reason {
            RefusedReason::NotOpen => write!(f, "message of {len} bytes refused: the connection is not open"),
            RefusedReason::BacklogFull => write!(f, "message of {len} bytes refused: the backlog is full"),
        }
    }
}

impl std::error::Error for Refused<'_> {}

/// What most connections never need.
#[derive(Debug, Default)]
pub(crate) struct Cold {
    pub(crate) params: Params,
    pub(crate) protocol: Option<Box<str>>,
    pub(crate) end: Option<End>,
    /// Received while reading was paused or the upgrade undecided, or more than one turn inflates; to be decoded first.
    pub(crate) unread: Vec<u8>,
    /// What was agreed on about compression.
    pub(crate) compression: Option<Compression>,
}

#[derive(Debug)]
pub(crate) struct End {
    pub(crate) code: CloseCode,
    pub(crate) reason: Box<str>,
    pub(crate) cause: Cause,
    pub(crate) clean: bool,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnId,
    pub(crate) peer: Peer,
    pub(crate) decoder: Decoder,
    outbox: Option<Box<Outbox>>,
    pub(crate) cold: Option<Box<Cold>>,
    /// Turn and position up to which the turn's log has been taken already.
    caught_up: (u32, u32),
    pub(crate) route: u16,
    /// How messages are sent to it.
    pub(crate) form: Form,
    /// Topics' messages come to it in other bytes than they were published in: compressed, or in an envelope.
    pub(crate) shaped: bool,
    /// It takes what one turn brings of a topic as one message, where the route's envelope can hold that.
    pub(crate) batched: bool,
    pub(crate) phase: Phase,
    pub(crate) paused: bool,
    /// It was paused until just now: what was received before is to be looked at, and the socket to be read although
    /// the kernel reports nothing new.
    pub(crate) resumed: bool,
    /// The kernel took less than it was given: no write until it says that it can take more.
    pub(crate) blocked: bool,
    /// A backlog has been reported to nobody yet: `drain` is due when it has gone.
    pub(crate) backlogged: bool,
    /// The socket failed while writing.
    pub(crate) broken: Option<std::io::ErrorKind>,
    /// Messages given up by the policy since the application was last told.
    pub(crate) dropped: u32,
}

impl Connection {
    pub(crate) fn new(id: ConnId, peer: Peer) -> Self {
        Self {
            id,
            peer,
            decoder: Decoder::default(),
            outbox: None,
            cold: None,
            caught_up: (0, 0),
            route: u16::MAX,
            form: Form::default(),
            shaped: false,
            batched: false,
            phase: Phase::Http,
            paused: false,
            resumed: false,
            blocked: false,
            backlogged: false,
            broken: None,
            dropped: 0,
        }
    }

    pub(crate) fn ready_state(&self) -> ReadyState {
        match self.phase {
            Phase::Http | Phase::Deciding => ReadyState::Connecting,
            Phase::Open => ReadyState::Open,
            Phase::CloseSent | Phase::Ending | Phase::Failing | Phase::Lingering => ReadyState::Closing,
            Phase::Dead => ReadyState::Closed,
        }
    }

    pub(crate) fn resume(&mut self) {
        self.resumed |= core::mem::take(&mut self.paused);
    }

    /// Whether something was received that is to be decoded before anything else is read. Where nothing is compressed
    /// that is never so: what waits there waits for [`Connection::resume`].
    #[inline]
    pub(crate) fn has_unread(&self) -> bool {
        !self.form.is_plain() && !self.paused && self.cold.as_ref().is_some_and(|c| !c.unread.is_empty())
    }

    pub(crate) fn cold(&mut self) -> &mut Cold {
        self.cold.get_or_insert_default()
    }

    /// Drops the cold part where nothing is in it.
    pub(crate) fn tidy(&mut self) {
        if let Some(cold) = &self.cold
            && cold.params.is_empty()
            && cold.protocol.is_none()
            && cold.end.is_none()
            && cold.unread.is_empty()
            && cold.compression.is_none()
        {
            self.cold = None;
        }
    }

    /// Bytes of messages taken and not yet handed to the kernel, their frame heads of 2 to 10 bytes included.
    pub(crate) fn buffered(&self) -> usize {
        self.outbox.as_ref().map_or(0, |o| o.bytes())
    }

    /// Bytes of memory in an unfinished message, the backlog, and what was received and not looked at.
    #[inline]
    pub(crate) fn held(&self) -> usize {
        let cold = self
            .cold
            .as_ref()
            .map_or(0, |c| c.unread.capacity() + c.compression.as_ref().map_or(0, Compression::held));
        self.decoder.held() + self.outbox.as_ref().map_or(0, |o| o.cost()) + cold
    }

    /// Whether nothing waits to be written.
    pub(crate) fn is_written_out(&self) -> bool {
        self.outbox.is_none()
    }

    /// Whether a shared frame can go to the socket directly.
    pub(crate) fn takes_directly(&self, turn: u32) -> bool {
        self.phase == Phase::Open && self.outbox.is_none() && self.caught_up.0 != turn
    }

    /// The position in this turn's log that was reached for this connection.
    pub(crate) fn position(&self, turn: u32) -> u32 {
        if self.caught_up.0 == turn { self.caught_up.1 } else { 0 }
    }

    pub(crate) fn catch_up(&mut self, turn: u32, position: u32) {
        self.caught_up = (turn, position);
    }

    // ---- sending ----

    /// Sends a message to the connection that the turn is about: gathered in the cork, or behind a backlog.
    #[inline]
    pub(crate) fn send<'m>(
        &mut self,
        writer: &mut Writer,
        sink: &mut dyn Sink,
        terms: &Terms,
        message: Message<'m>,
    ) -> Result<Sent, Refused<'m>> {
        if self.phase != Phase::Open {
            return Err(Refused { message, reason: RefusedReason::NotOpen });
        }
        // The usual case, in as few steps as it takes: gathered behind what the turn has gathered already, which may
        // come to wait and is bounded like what waits.
        let gathered = writer.cork.len() + message.len() + header::MAX_HEAD;
        let fits = gathered <= terms.limits.max_backlog;
        if fits && self.outbox.is_none() && self.form.is_plain() && writer.gathers(message.len()) {
            header::write_frame(&mut writer.cork, message.kind().into(), message.as_bytes());
            return Ok(Sent::Sent);
        }
        if !fits && self.outbox.is_none() && !writer.cork.is_empty() {
            self.flush_cork(writer, sink);
        }
        if !self.form.is_plain()
            && let Some(packed) = self.pack(&mut writer.packer, message)
        {
            let sent = self.send_payload(writer, sink, terms, message, true, &packed);
            writer.packer.give_back_packed(packed);
            return sent;
        }
        self.send_payload(writer, sink, terms, message, false, message.as_bytes())
    }

    /// Sends a message as this payload.
    fn send_payload<'m>(
        &mut self,
        writer: &mut Writer,
        sink: &mut dyn Sink,
        terms: &Terms,
        message: Message<'m>,
        compressed: bool,
        payload: &[u8],
    ) -> Result<Sent, Refused<'m>> {
        let first = header::first_byte(message.kind().into(), compressed);
        if self.outbox.is_none() {
            self.write(writer, sink, first, payload);
            return Ok(if self.outbox.is_none() { Sent::Sent } else { Sent::Queued });
        }
        let mut frames = Vec::with_capacity(payload.len() + header::MAX_HEAD);
        header::write_frame_as(&mut frames, first, payload);
        let len = frames.len();
        match self.push(writer, sink, &Frames::new(frames), 0..len, message.key(), terms) {
            Pushed::Queued => Ok(Sent::Queued),
            Pushed::Dropped(_) if terms.slow_consumer != SlowConsumer::DropNewest => Ok(Sent::Queued),
            Pushed::Dropped(_) | Pushed::Overflow => {
                Err(Refused { message, reason: RefusedReason::BacklogFull })
            }
        }
    }

    /// Gathers a frame, or writes it through where copying it would only cost.
    #[inline]
    fn write(&mut self, writer: &mut Writer, sink: &mut dyn Sink, first: u8, payload: &[u8]) {
        if writer.gathers(payload.len()) {
            header::write_frame_as(&mut writer.cork, first, payload);
        } else {
            let head = header::encode_as(first, payload.len(), None);
            self.write_through(writer, sink, &head, payload);
        }
    }

    /// Writes the cork, a head and a payload at once; copies only what the kernel does not take.
    fn write_through(&mut self, writer: &mut Writer, sink: &mut dyn Sink, head: &[u8], payload: &[u8]) {
        let parts = [&writer.cork[..], head, payload];
        let len: usize = parts.iter().map(|p| p.len()).sum();
        match sink.write_vectored(&parts.map(std::io::IoSlice::new), &mut writer.scratch) {
            Ok(n) if n == len => {}
            Ok(n) => {
                // Everything in one buffer that begins at a frame's boundary, as the outbox wants it.
                let mut rest = writer.pool.take(len).into_empty_vec();
                rest.reserve(len);
                parts.iter().for_each(|p| rest.extend_from_slice(p));
                self.wait(writer, Frames::new(rest), n, None);
            }
            Err(e) => self.broken = Some(e.kind()),
        }
        writer.clear();
    }

    /// The kernel took only `written` bytes of these frames; the rest waits.
    pub(crate) fn wait(
        &mut self,
        writer: &mut Writer,
        frames: Frames,
        written: usize,
        key: Option<crate::protocol::Key>,
    ) {
        let len = frames.len();
        let mut outbox = writer.outbox();
        outbox.push_rest(&frames, 0..len, written, key, core::mem::take(&mut writer.kept));
        self.outbox = Some(outbox);
        self.blocked = true;
        self.backlogged = true;
    }

    /// The same for a run, of which no more may wait than the limit: behind the frame that has begun to be written,
    /// or the first, the policy decides.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn wait_run(
        &mut self,
        writer: &mut Writer,
        sink: &mut dyn Sink,
        frames: &Frames,
        range: Range<usize>,
        written: usize,
        key: Option<crate::protocol::Key>,
        terms: &Terms,
    ) -> Pushed {
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
            return Pushed::Queued;
        }
        self.push(writer, sink, frames, end..range.end, key, terms)
    }

    /// Queues whole frames at the end of what waits, by the policy. If they would not fit and the kernel has not
    /// refused anything yet, it is asked first.
    pub(crate) fn push(
        &mut self,
        writer: &mut Writer,
        sink: &mut dyn Sink,
        frames: &Frames,
        range: Range<usize>,
        key: Option<crate::protocol::Key>,
        terms: &Terms,
    ) -> Pushed {
        let waits = self.outbox.as_ref().map_or(0, |o| o.cost());
        if !self.blocked && waits + range.len() > terms.limits.max_backlog {
            self.flush_outbox(writer, sink);
        }
        if self.outbox.is_none() && range.len() > terms.limits.max_backlog {
            match sink.write(&frames[range.clone()], &mut writer.scratch) {
                Ok(n) if n == range.len() => {}
                Ok(n) => return self.wait_run(writer, sink, frames, range, n, key, terms),
                Err(e) => self.broken = Some(e.kind()),
            }
            return Pushed::Queued;
        }
        let outbox = self.outbox.get_or_insert_with(|| writer.outbox());
        let pushed = outbox.push(frames, range, key, terms.limits.max_backlog, terms.slow_consumer);
        match pushed {
            Pushed::Queued => {}
            Pushed::Dropped(n) => self.dropped += n,
            Pushed::Overflow => {
                let SlowConsumer::Close(code) = terms.slow_consumer else { return pushed };
                self.fail(writer, sink, code, "too slow: the backlog is full", Cause::SlowConsumer);
            }
        }
        pushed
    }

    /// Queues a control frame: at once where nothing waits, otherwise before the messages that wait.
    pub(crate) fn control(&mut self, writer: &mut Writer, opcode: Opcode, payload: &[u8]) {
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
    pub(crate) fn write_raw(&mut self, writer: &mut Writer, bytes: &[u8]) {
        if self.outbox.is_none() {
            writer.gather_raw(bytes);
        } else if let Some(outbox) = &mut self.outbox {
            outbox.push_raw(bytes.to_vec());
        }
    }

    /// Hands what the turn gathered, or what waits, to the kernel.
    #[inline]
    pub(crate) fn flush(&mut self, writer: &mut Writer, sink: &mut dyn Sink) {
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

    pub(crate) fn flush_cork(&mut self, writer: &mut Writer, sink: &mut dyn Sink) {
        match sink.write(&writer.cork, &mut writer.scratch) {
            Ok(n) if n == writer.cork.len() => writer.clear(),
            Ok(n) => {
                let cork = writer.take();
                self.wait(writer, Frames::new(cork), n, None);
            }
            Err(e) => {
                writer.clear();
                self.broken = Some(e.kind());
            }
        }
    }

    fn flush_outbox(&mut self, writer: &mut Writer, sink: &mut dyn Sink) {
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
                    self.broken = Some(e.kind());
                    break;
                }
            }
        }
        if let Some(outbox) = self.outbox.take() {
            writer.reuse(outbox);
        }
    }

    // ---- compression ----

    /// What was agreed on about compression is in force from the next message on.
    pub(crate) fn compress(&mut self, (form, compression): (Form, Compression)) {
        self.form = form;
        self.shaped |= !form.is_plain();
        self.cold().compression = Some(compression);
    }

    /// A message of this connection's own, compressed; `None`: it is sent as it is.
    fn pack(&mut self, packer: &mut Packer, message: Message<'_>) -> Option<Vec<u8>> {
        self.cold.as_mut()?.compression.as_mut()?.pack(self.form, packer, message)
    }

    /// A frame for this connection alone, compressed; `None`: it is sent as it is.
    pub(crate) fn pack_frame(&mut self, packer: &mut Packer, frames: &Frames) -> Option<Frames> {
        if self.form.is_plain() {
            return None;
        }
        self.cold.as_mut()?.compression.as_mut()?.pack_frame(self.form, packer, frames)
    }

    /// Shared frames are sent that its own compressor has not seen.
    #[inline]
    pub(crate) fn interrupt(&mut self) {
        if !self.form.is_plain()
            && let Some(compression) = self.cold.as_mut().and_then(|c| c.compression.as_mut())
        {
            compression.interrupt();
        }
    }

    /// A compressed message, inflated into a buffer of the packer's.
    ///
    /// # Errors
    /// It is over the limit, no deflate stream, or not the text that it should be.
    pub(crate) fn unpack(
        &mut self,
        packer: &mut Packer,
        incoming: &Incoming<'_>,
        limit: usize,
    ) -> Result<Vec<u8>, ProtocolError> {
        match self.cold.as_mut().and_then(|c| c.compression.as_mut()) {
            Some(compression) => compression.unpack(packer, incoming, limit),
            // The decoder lets RSV1 pass only where it was agreed on.
            None => Err(ProtocolError::ReservedBits { bits: 4 }),
        }
    }

    // ---- ending ----

    fn set_end(&mut self, code: CloseCode, reason: &str, cause: Cause) {
        let cold = self.cold();
        if cold.end.is_none() {
            cold.end = Some(End { code, reason: reason.into(), cause, clean: false });
        }
    }

    /// Queues a close frame behind everything else.
    fn send_close(&mut self, writer: &mut Writer, sink: &mut dyn Sink, code: CloseCode, reason: &str) {
        let mut payload = Vec::with_capacity(2 + reason.len());
        close::write_payload(&mut payload, code, reason);
        if self.outbox.is_none() {
            self.write(writer, sink, header::first_byte(Opcode::Close, false), &payload);
        } else if let Some(outbox) = &mut self.outbox {
            let mut frame = Vec::with_capacity(payload.len() + 2);
            header::write_frame(&mut frame, Opcode::Close, &payload);
            outbox.push_raw(frame);
        }
    }

    /// Begins the closing handshake. Messages that wait are sent first. False: it has begun already.
    pub(crate) fn close(
        &mut self,
        writer: &mut Writer,
        sink: &mut dyn Sink,
        code: CloseCode,
        reason: &str,
        cause: Cause,
    ) -> bool {
        if self.phase != Phase::Open {
            return false;
        }
        // What can't be on the wire goes as a close frame without a code, which is what both ends then hear of.
        let (code, reason) =
            if code.is_valid_on_wire() { (code, reason) } else { (CloseCode::NO_STATUS, "") };
        self.set_end(code, reason, cause);
        self.send_close(writer, sink, code, reason);
        self.phase = Phase::CloseSent;
        true
    }

    /// Ends the connection without waiting for the peer's consent (RFC 6455 section 7.1.7): messages that wait are
    /// given up, the close frame is sent, what still comes is not looked at.
    pub(crate) fn fail(
        &mut self,
        writer: &mut Writer,
        sink: &mut dyn Sink,
        code: CloseCode,
        reason: &str,
        cause: Cause,
    ) {
        match self.phase {
            Phase::Open => {
                self.set_end(code, reason, cause);
                if let Some(outbox) = &mut self.outbox {
                    self.dropped += outbox.drop_waiting();
                    if outbox.is_empty() {
                        self.outbox = None;
                    }
                }
                self.send_close(writer, sink, code, reason);
                self.phase = Phase::Failing;
            }
            Phase::CloseSent => self.phase = Phase::Failing,
            _ => {}
        }
    }

    pub(crate) fn fail_protocol(&mut self, writer: &mut Writer, sink: &mut dyn Sink, error: ProtocolError) {
        let reason = error.to_string();
        self.fail(writer, sink, error.close_code(), &reason, Cause::Protocol(error));
    }

    /// The peer's close frame (RFC 6455 section 5.5.1): answered with the same code unless ours is out already.
    pub(crate) fn peer_closed(&mut self, writer: &mut Writer, sink: &mut dyn Sink, payload: &[u8]) {
        let (code, reason) = close::parse(payload).ok().flatten().unwrap_or((CloseCode::NO_STATUS, ""));
        if self.phase == Phase::Open {
            self.set_end(code, reason, Cause::Peer);
            self.send_close(writer, sink, code, "");
        }
        if let Some(end) = self.cold.as_mut().and_then(|c| c.end.as_mut()) {
            end.clean = true;
        }
        self.phase = Phase::Ending;
    }

    /// What is below it has failed: nothing more can be said to the peer at this level, and nothing of it is heard.
    #[cfg(feature = "tls")]
    pub(crate) fn fail_below(&mut self, writer: &mut Writer, cause: Cause) {
        self.set_end(CloseCode::ABNORMAL, "", cause);
        self.dropped += self.outbox.as_ref().map_or(0, |o| o.messages());
        self.release(writer);
        writer.clear();
        self.phase = Phase::Failing;
    }

    /// Ends it here and now.
    pub(crate) fn die(&mut self, code: CloseCode, cause: Cause) {
        self.set_end(code, "", cause);
        self.phase = Phase::Dead;
    }

    /// The end, for the application; what waits is lost.
    pub(crate) fn closed(&mut self) -> Closed {
        let unsent = self.outbox.as_ref().map_or(0, |o| o.messages());
        let unsent = unsent + core::mem::take(&mut self.dropped);
        let end = self.cold.as_mut().and_then(|c| c.end.take());
        match end {
            Some(e) => {
                Closed { code: e.code, reason: e.reason.into(), cause: e.cause, was_clean: e.clean, unsent }
            }
            None => Closed {
                code: CloseCode::ABNORMAL,
                reason: String::new(),
                cause: Cause::Transport(self.broken.unwrap_or(std::io::ErrorKind::UnexpectedEof)),
                was_clean: false,
                unsent,
            },
        }
    }

    /// Gives back what it borrowed from its worker.
    pub(crate) fn release(&mut self, writer: &mut Writer) {
        self.decoder.clear(&mut writer.pool);
        if let Some(outbox) = self.outbox.take() {
            writer.reuse(outbox);
        }
    }
}
