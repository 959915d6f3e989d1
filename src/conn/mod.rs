//! One connection as a state machine without a socket: it decodes what is received, gathers what is sent, and runs the
//! closing handshake. The worker supplies bytes, time and a [`Sink`](crate::sink::Sink) to write to.
//!
//! ```text
//!  Http ──▶ Deciding ──▶ Open ──close()──▶ CloseSent ──peer's close──▶ Ending ──all written──▶ Dead
//!    │          │         ├── peer's close ───────────────────────────▶ Ending
//!    │          │         └── fail ───────────────▶ Failing ──all written──▶ Lingering ──EOF──▶ Dead
//!    └──────────┴──────── last response ──────────▶ Failing
//! ```
//! Ending closes at once, as RFC 6455 section 7.1.1 asks of a server: both close frames are through. Lingering first
//! ends only the sending half and reads on for a while, because closing a socket with unread bytes in it resets the
//! connection, and the peer would lose the close frame with the reason.

mod closed;
mod closing;
mod compression;
mod frames;
mod id;
mod keyed_queue;
mod limits;
mod outbox;
mod pauses;
#[cfg(feature = "push")]
mod protocol_reply;
mod sending;
mod upgrade;
mod writer;

pub use closed::{Cause, Closed};
pub(crate) use compression::{Codecs, Compression, Encoding, Encodings};
pub(crate) use frames::Frames;
pub(crate) use id::MAX_SLOTS;
pub use id::{ConnId, InvalidConnId};
pub(crate) use keyed_queue::{Keyed, KeyedQueue};
pub(crate) use limits::Terms;
pub use limits::{Limits, SlowConsumer};
pub(crate) use outbox::{Outbox, PushOutcome};
pub(crate) use pauses::{PauseReason, Pauses};
pub(crate) use upgrade::{asks_for_websocket, check_upgrade, mentions_websocket, write_accept};
pub(crate) use writer::CorkWriter;

use crate::http::{Params, Peer};
use crate::protocol::{AsMessage, CloseCode, Decoder, Incoming, Message, ProtocolError};
use core::fmt;

/// The state of a connection, with the names and numbers of the browser's API.
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
    /// Plain HTTP: before the upgrade, or without one.
    Http,
    /// A handler decides about the upgrade on another thread.
    Deciding,
    Open,
    /// The close frame was sent, the peer's is awaited.
    CloseSent,
    /// The last bytes are being written, then the socket is closed.
    Ending,
    /// The last bytes are being written to a peer that may still be sending.
    Failing,
    /// The sending half is shut down; further input is discarded.
    Lingering,
    Dead,
}

/// Where an accepted message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Sent {
    /// It is written in this iteration; nothing is queued before it.
    Sent,
    /// It is queued behind a backlog; [`Handler::drain`](crate::Handler::drain) is called when that has been written.
    Queued,
}

/// A message that was not accepted, with the reason. It gives back what was to be sent.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused<M> {
    /// What was to be sent.
    pub message: M,
    /// Why it was refused.
    pub reason: RefusedReason,
}

impl<M> Refused<M> {
    pub(crate) fn new(message: M, reason: RefusedReason) -> Self {
        Self { message, reason }
    }
}

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusedReason {
    /// The connection is not open.
    NotOpen,
    /// The backlog is at its limit. The policy drops the newest message, or closes, which has now begun.
    BacklogFull,
}

impl<M: AsMessage> fmt::Display for Refused<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.message.as_message().len();
        match self.reason {
            RefusedReason::NotOpen => write!(f, "message of {len} bytes refused: the connection is not open"),
            RefusedReason::BacklogFull => write!(f, "message of {len} bytes refused: the backlog is full"),
        }
    }
}

/// As `Display`: the message may be large.
impl<M: AsMessage> fmt::Debug for Refused<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<M: AsMessage> std::error::Error for Refused<M> {}

/// State that most connections never need.
#[derive(Debug, Default)]
pub(crate) struct Cold {
    pub(crate) params: Params,
    pub(crate) protocol: Option<Box<str>>,
    pub(crate) end: Option<CloseRecord>,
    /// Received while reading was paused or the upgrade undecided, or compressed input beyond the share of one
    /// iteration; decoded before anything else is read.
    pub(crate) unread: Vec<u8>,
    /// What was agreed on about compression.
    pub(crate) compression: Option<Compression>,
}

#[derive(Debug)]
pub(crate) struct CloseRecord {
    pub(crate) code: CloseCode,
    pub(crate) reason: Box<str>,
    pub(crate) cause: Cause,
    pub(crate) clean: bool,
}

/// Several messages of a topic as one.
const BATCHED: u8 = 1;
/// A replay is under way.
const REPLAYING: u8 = 2;
/// It has had a timer of the application's.
const TIMED: u8 = 4;

/// The state machine.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnId,
    pub(crate) peer: Peer,
    pub(crate) decoder: Decoder,
    outbox: Option<Box<Outbox>>,
    pub(crate) cold: Option<Box<Cold>>,
    /// Iteration, and the index in its batch log up to which this connection has queued the batches.
    caught_up: (u32, u32),
    pub(crate) route: u16,
    /// How messages are sent to it.
    pub(crate) encoding: Encoding,
    /// Messages of topics are sent to it in other bytes than they were published in: compressed, or in an envelope.
    pub(crate) transforms: bool,
    /// How it receives the messages of topics: [`BATCHED`] and [`REPLAYING`]. One byte, since a second one would make
    /// every slot 8 bytes larger.
    flags: u8,
    pub(crate) phase: Phase,
    /// Why it is not read from; empty: it is.
    pub(crate) pauses: Pauses,
    /// Reasons that were cleared since it was last read from. Once no reason is left, earlier input is decoded first,
    /// then the socket is read although the kernel reports nothing new.
    pub(crate) resumed: Pauses,
    /// The kernel accepted less than it was offered: no write until it reports that the socket is writable.
    pub(crate) blocked: bool,
    /// A backlog exists whose end `drain` has not reported: it is called when the backlog has been written.
    pub(crate) backlogged: bool,
    /// The socket failed while writing.
    pub(crate) write_error: Option<std::io::ErrorKind>,
    /// Messages dropped by the policy since the application was last told.
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
            encoding: Encoding::default(),
            transforms: false,
            flags: 0,
            phase: Phase::Http,
            pauses: Pauses::default(),
            resumed: Pauses::default(),
            blocked: false,
            backlogged: false,
            write_error: None,
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

    /// Whether it receives the messages of one topic in one iteration as one message, if its route's envelope can hold
    /// them.
    pub(crate) fn is_batched(&self) -> bool {
        self.flags & BATCHED != 0
    }

    pub(crate) fn set_batched(&mut self, batched: bool) {
        self.flags = if batched { self.flags | BATCHED } else { self.flags & !BATCHED };
    }

    /// Whether the replay of a recovery has not been sent completely: new messages of that topic follow it.
    #[inline]
    pub(crate) fn is_replaying(&self) -> bool {
        self.flags & REPLAYING != 0
    }

    pub(crate) fn set_replaying(&mut self, replaying: bool) {
        self.flags = if replaying { self.flags | REPLAYING } else { self.flags & !REPLAYING };
    }

    /// Whether it may have timers of the application's.
    #[inline]
    pub(crate) fn is_timed(&self) -> bool {
        self.flags & TIMED != 0
    }

    pub(crate) fn set_timed(&mut self, timed: bool) {
        self.flags = if timed { self.flags | TIMED } else { self.flags & !TIMED };
    }

    /// Whether nothing is read from it, for whatever reason.
    #[inline]
    pub(crate) fn is_paused(&self) -> bool {
        !self.pauses.is_empty()
    }

    /// Stops reading from it, not even what was received together with the current message, until every reason is
    /// cleared.
    pub(crate) fn pause(&mut self, reason: PauseReason) {
        self.pauses.insert(reason);
    }

    /// Clears a reason. If it was the last, the worker's `write_and_advance` continues reading.
    pub(crate) fn resume(&mut self, reason: PauseReason) {
        if self.pauses.remove(reason) {
            self.resumed.insert(reason);
        }
    }

    /// Whether input is to be decoded before anything else is read. False without compression: input received while
    /// paused stays until [`Connection::resume`].
    #[inline]
    pub(crate) fn has_unread(&self) -> bool {
        !self.encoding.is_plain()
            && !self.is_paused()
            && self.cold.as_ref().is_some_and(|c| !c.unread.is_empty())
    }

    pub(crate) fn cold(&mut self) -> &mut Cold {
        self.cold.get_or_insert_default()
    }

    /// Frees the cold part if it is empty.
    pub(crate) fn drop_empty_cold(&mut self) {
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

    /// Bytes of messages accepted and not yet passed to the kernel, with frame heads of 2 to 10 bytes.
    pub(crate) fn buffered(&self) -> usize {
        self.outbox.as_ref().map_or(0, |o| o.bytes())
    }

    /// Bytes of memory in an unfinished message, the backlog, and input that was not decoded.
    #[inline]
    pub(crate) fn held(&self) -> usize {
        let cold = self
            .cold
            .as_ref()
            .map_or(0, |c| c.unread.capacity() + c.compression.as_ref().map_or(0, Compression::held));
        self.decoder.held() + self.outbox.as_ref().map_or(0, |o| o.cost()) + cold
    }

    /// Whether nothing is left to be written.
    pub(crate) fn is_written_out(&self) -> bool {
        self.outbox.is_none()
    }

    /// Whether a shared frame can go to the socket directly.
    pub(crate) fn can_write_directly(&self, iteration: u32) -> bool {
        self.phase == Phase::Open && self.outbox.is_none() && self.caught_up.0 != iteration
    }

    /// The index in the batch log of this iteration that this connection has reached.
    pub(crate) fn caught_up_index(&self, iteration: u32) -> u32 {
        if self.caught_up.0 == iteration { self.caught_up.1 } else { 0 }
    }

    /// Writes nothing directly to the socket in this iteration: batches must follow the replay.
    pub(crate) fn force_queueing(&mut self, iteration: u32) {
        if self.caught_up.0 != iteration {
            self.caught_up = (iteration, 0);
        }
    }

    pub(crate) fn set_caught_up(&mut self, iteration: u32, index: u32) {
        self.caught_up = (iteration, index);
    }

    // ---- compression ----

    /// Enables the compression that was agreed on, from the next message on.
    pub(crate) fn start_compression(&mut self, (encoding, compression): (Encoding, Compression)) {
        self.encoding = encoding;
        self.transforms |= !encoding.is_plain();
        self.cold().compression = Some(compression);
    }

    /// Compresses a message for this connection alone; `None`: it is sent plain.
    fn compress(&mut self, codecs: &mut Codecs, message: Message<'_>) -> Option<Vec<u8>> {
        self.cold.as_mut()?.compression.as_mut()?.compress(self.encoding, codecs, message)
    }

    /// Compresses a frame for this connection alone; `None`: it is sent plain.
    pub(crate) fn compress_frame(&mut self, codecs: &mut Codecs, frames: &Frames) -> Option<Frames> {
        if self.encoding.is_plain() {
            return None;
        }
        self.cold.as_mut()?.compression.as_mut()?.compress_frame(self.encoding, codecs, frames)
    }

    /// Forgets the compression history, since shared frames are sent that it does not contain.
    #[inline]
    pub(crate) fn reset_context(&mut self) {
        if !self.encoding.is_plain()
            && let Some(compression) = self.cold.as_mut().and_then(|c| c.compression.as_mut())
        {
            compression.reset_context();
        }
    }

    /// Inflates a message into a buffer of the codecs.
    ///
    /// # Errors
    /// The message is over the limit, is not a deflate stream, or is not valid text.
    pub(crate) fn decompress(
        &mut self,
        codecs: &mut Codecs,
        incoming: &Incoming<'_>,
        limit: usize,
    ) -> Result<Vec<u8>, ProtocolError> {
        match self.cold.as_mut().and_then(|c| c.compression.as_mut()) {
            Some(compression) => compression.decompress(codecs, incoming, limit),
            // The decoder lets RSV1 pass only where it was agreed on.
            None => Err(ProtocolError::ReservedBits { bits: 4 }),
        }
    }
}
