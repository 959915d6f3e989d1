//! One connection in the client's role: bytes and times in, bytes and happenings out; no socket, no clock, no die.
//!
//! ```text
//!  Opening ── 101 ──▶ Open ── our close ──▶ Closing ── server's close ──▶ Ending ── EOF or timeout ──▶ over
//!                      ├────── server's close, answered ────────────────────▲
//!                      └── breach ──▶ Breached ── answered ──▶ Failed ── EOF or timeout ──▶ over
//! ```
//! A breach of the protocol is answered by its close frame when its owner says so: what the application sends for the
//! messages before it in the same read goes first.
//!
//! Ending waits for the server to end the connection, as RFC 6455 section 7.1.1 asks of a client. In both last states
//! what still comes is thrown away: a socket closed with unread bytes in it resets the connection, and the server would
//! lose the close frame.

mod time;

pub use time::Expired;

use super::compression::{self, Packer, ReceiveHistory, Sent};
use super::keys::Keys;
use super::opening::{Agreed, Extras, Opening};
use super::outbox::Outbox;
use super::{ClientLimits, Error, Url};
use crate::deflate::Deflate;
use crate::protocol::buffer::BufferPool;
use crate::protocol::{
    CloseCode, Decoder, Item, Kind, Opcode, Payload, ProtocolError, Role, Rules, close, utf8,
};
use core::time::Duration;
use std::io::{ErrorKind, IoSlice};
use std::time::Instant;

#[derive(Debug)]
pub(super) struct Machine {
    stage: Stage,
    decoder: Decoder,
    limits: ClientLimits,
    /// The request, until it is written.
    request: Vec<u8>,
    request_at: usize,
    /// When this stage began; in `Closing`, when the last progress was made.
    since: Instant,
    /// When the last bytes came.
    last_received: Instant,
    /// A ping waits for an answer since.
    pinged: Option<Instant>,
    /// A message has begun and is not whole since.
    within: Option<Instant>,
    /// The server's close frame.
    received: Option<(CloseCode, String)>,
    close_sent: bool,
    opened: Option<Instant>,
    paused: bool,
    /// What to offer; and what was agreed on, for both directions.
    deflate: Deflate,
    pub(super) sent: Option<Box<Sent>>,
    compressed: Option<Box<ReceiveHistory>>,
}

#[derive(Debug)]
enum Stage {
    Opening(Box<Opening>),
    Open,
    /// The server broke the protocol, and is to be told with this code.
    Breached(CloseCode),
    Closing,
    Ending,
    Failed,
}

/// What came of received bytes.
#[derive(Debug)]
#[allow(clippy::exhaustive_enums)] // an owner has to deal with each
pub enum SocketEvent<'b> {
    /// The opening handshake is done.
    Opened(Agreed),
    /// A whole message, text validated. A payload that came in pieces is the receiver's, to be given back to the pool
    /// or kept.
    Message(Kind, Payload<'b>),
    /// The server's close frame has come, and is answered.
    Closing,
}

/// What a connection is lent at each step.
#[derive(Debug)]
#[allow(clippy::exhaustive_structs)] // made by whoever drives a connection
pub struct SocketContext<'a> {
    /// The time.
    pub now: Instant,
    /// What is to be sent on it.
    pub outbox: &'a mut Outbox,
    /// Where masking keys come from.
    pub keys: &'a mut Keys,
    /// Memory for large messages.
    pub pool: &'a mut BufferPool,
    /// For what comes compressed.
    pub packer: &'a mut Packer,
}

/// A large message is received straight into its own buffer from here on.
const LARGE: usize = 64 << 10;

impl Machine {
    /// A connection that is being made, and the request to be sent on it.
    pub(super) fn open(
        url: &Url,
        extras: &Extras,
        limits: ClientLimits,
        nonce: [u8; 16],
        now: Instant,
    ) -> Self {
        let mut request = Vec::new();
        let opening = Box::new(Opening::begin(url, extras, nonce, &mut request));
        Self {
            stage: Stage::Opening(opening),
            decoder: Decoder::default(),
            limits,
            request,
            request_at: 0,
            since: now,
            last_received: now,
            pinged: None,
            within: None,
            received: None,
            close_sent: false,
            opened: None,
            paused: false,
            deflate: extras.deflate,
            sent: None,
            compressed: None,
        }
    }

    /// There is a connection to send the request on: the server's time begins.
    pub(super) fn connected(&mut self, now: Instant) {
        (self.since, self.last_received) = (now, now);
    }

    #[inline]
    pub(super) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open)
    }

    /// Whether it got beyond the opening handshake.
    pub(super) fn has_opened(&self) -> bool {
        self.opened.is_some()
    }

    /// How long it has been open, or zero.
    pub(super) fn opened_for(&self, now: Instant) -> Duration {
        self.opened.map_or(Duration::ZERO, |opened| now.saturating_duration_since(opened))
    }

    fn rules(&self) -> Rules {
        Rules {
            role: Role::Client,
            rsv1: self.compressed.is_some(),
            max_message_size: self.limits.max_message_size,
            max_fragments: self.limits.max_fragments,
        }
    }

    // ---- bytes in ----

    /// Takes all of `input`, and says what came of it.
    pub(super) fn receive(
        &mut self,
        mut input: &mut [u8],
        cx: &mut SocketContext<'_>,
        on_event: &mut impl FnMut(SocketEvent<'_>, &mut BufferPool),
    ) -> Result<(), Error> {
        self.last_received = cx.now;
        self.pinged = None;
        if let Stage::Opening(opening) = &mut self.stage {
            match opening.receive(&mut input) {
                Ok(None) => return Ok(()),
                Ok(Some(agreed)) => {
                    if let Some(deflate) = &agreed.deflate {
                        let (sent, received_history) = compression::directions(self.deflate, deflate);
                        (self.sent, self.compressed) = (Some(sent.into()), Some(received_history.into()));
                    }
                    self.enter(Stage::Open, cx.now);
                    self.opened = Some(cx.now);
                    on_event(SocketEvent::Opened(agreed), cx.pool);
                }
                Err(e) => {
                    self.enter(Stage::Failed, cx.now);
                    return Err(Error::Handshake(e));
                }
            }
        }
        let rules = self.rules();
        while self.reads() {
            if self.is_open()
                && let Some((kind, payload)) = self.decoder.small_message(&mut input, &rules)
            {
                if kind == Kind::Text && utf8::validate(payload).is_err() {
                    return Err(self.breach(ProtocolError::InvalidUtf8, cx));
                }
                self.within = None;
                on_event(SocketEvent::Message(kind, Payload::Lent(payload)), cx.pool);
                continue;
            }
            match self.decoder.next(&mut input, &rules, cx.pool) {
                Ok(Some(item)) => {
                    if let Err(e) = self.item(item, cx, on_event) {
                        return Err(self.breach(e, cx));
                    }
                }
                Ok(None) => break,
                Err(e) => return Err(self.breach(e, cx)),
            }
        }
        self.note_progress(cx.now);
        Ok(())
    }

    /// Where the rest of a large message can be received, to be taken by [`Machine::fill`].
    pub(super) fn spare(&mut self) -> Option<&mut [u8]> {
        if self.reads() { self.decoder.spare(LARGE) } else { None }
    }

    /// Takes `n` bytes that were received into [`Machine::spare`].
    pub(super) fn fill(
        &mut self,
        n: usize,
        cx: &mut SocketContext<'_>,
        on_event: &mut impl FnMut(SocketEvent<'_>, &mut BufferPool),
    ) -> Result<(), Error> {
        self.last_received = cx.now;
        self.pinged = None;
        let item = match self.decoder.fill(n) {
            Ok(Some(item)) => self.item(item, cx, on_event),
            Ok(None) => Ok(()),
            Err(e) => Err(e),
        };
        if let Err(e) = item {
            return Err(self.breach(e, cx));
        }
        self.note_progress(cx.now);
        Ok(())
    }

    /// Whether received bytes are still of interest.
    fn reads(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::Closing)
    }

    #[inline]
    fn item(
        &mut self,
        item: Item<'_>,
        cx: &mut SocketContext<'_>,
        on_event: &mut impl FnMut(SocketEvent<'_>, &mut BufferPool),
    ) -> Result<(), ProtocolError> {
        // Several messages may end in one read: the next one begins its own time.
        self.within = None;
        match item {
            // As in a browser, what comes after `close` is not heard.
            Item::Message(incoming) if self.is_open() => {
                let (kind, is_compressed) = (incoming.kind(), incoming.compressed());
                let payload = incoming.into_payload();
                match &mut self.compressed {
                    Some(received_history) if is_compressed => {
                        let plain =
                            cx.packer.unpack(&payload, received_history, kind, self.limits.max_message_size);
                        give(payload, cx.pool);
                        on_event(SocketEvent::Message(kind, Payload::Lent(plain?)), cx.pool);
                    }
                    _ => on_event(SocketEvent::Message(kind, payload), cx.pool),
                }
            }
            Item::Message(incoming) => give(incoming.into_payload(), cx.pool),
            Item::Ping(payload) => {
                // Section 5.5.2: answered with the same payload, unless a close frame has been sent.
                if self.is_open() {
                    cx.outbox.push_control(Opcode::Pong, &payload, cx.keys.next());
                }
            }
            Item::Pong(_) => {}
            Item::Close(payload) => {
                // The decoder has checked it.
                let close = close::parse(&payload).ok().flatten();
                let (code, reason) = close.unwrap_or((CloseCode::NO_STATUS, ""));
                self.received = Some((code, reason.to_owned()));
                // Messages that still wait are too late, and a close frame of ours behind them would be.
                let taken_back = cx.outbox.hold();
                if !self.close_sent || taken_back {
                    // Section 5.5.1: answered with its own code, unless this is the answer.
                    cx.outbox.push_control(Opcode::Close, &payload[..payload.len().min(2)], cx.keys.next());
                    self.close_sent = true;
                }
                self.enter(Stage::Ending, cx.now);
                on_event(SocketEvent::Closing, cx.pool);
            }
        }
        Ok(())
    }

    /// Section 7.1.7: the connection fails with the code that fits, as soon as [`Machine::answer_breach`] is called.
    fn breach(&mut self, error: ProtocolError, cx: &mut SocketContext<'_>) -> Error {
        if self.is_open() {
            self.enter(Stage::Breached(error.close_code()), cx.now);
        } else {
            self.refuse(error.close_code(), cx);
        }
        Error::Protocol(error)
    }

    /// Whether a breach waits to be answered.
    pub(super) fn is_breached(&self) -> bool {
        matches!(self.stage, Stage::Breached(_))
    }

    /// Tells the server that it broke the protocol, behind what waits.
    pub(super) fn answer_breach(&mut self, cx: &mut SocketContext<'_>) {
        if let Stage::Breached(code) = self.stage {
            cx.outbox.push_last(&code.0.to_be_bytes(), cx.keys.next());
            self.close_sent = true;
            self.enter(Stage::Failed, cx.now);
        }
    }

    /// Ends it with this code, ahead of what waits.
    pub(super) fn refuse(&mut self, code: CloseCode, cx: &mut SocketContext<'_>) {
        let taken_back = cx.outbox.hold();
        if (self.reads() || self.is_breached()) && (!self.close_sent || taken_back) {
            cx.outbox.push_control(Opcode::Close, &code.0.to_be_bytes(), cx.keys.next());
            self.close_sent = true;
        }
        self.enter(Stage::Failed, cx.now);
    }

    /// The server has ended its half, or the connection broke. `Ok`: as it should.
    pub(super) fn end(&self, kind: ErrorKind) -> Result<(), Error> {
        match self.stage {
            Stage::Breached(_) | Stage::Ending | Stage::Failed => Ok(()),
            _ => Err(Error::Transport(kind)),
        }
    }

    // ---- commands ----

    /// Begins the closing handshake, behind what waits.
    pub(super) fn close(&mut self, code: CloseCode, reason: &str, cx: &mut SocketContext<'_>) {
        self.answer_breach(cx);
        if self.is_open() {
            let mut payload = Vec::new();
            close::write_payload(&mut payload, code, reason);
            cx.outbox.push_last(&payload, cx.keys.next());
            self.close_sent = true;
            self.enter(Stage::Closing, cx.now);
        }
    }

    // ---- bytes out ----

    /// The next bytes to write, where they are frames alone: in most turns.
    #[inline]
    pub(super) fn plain<'a>(&self, outbox: &'a Outbox) -> Option<&'a [u8]> {
        if self.has_opened() && self.request.is_empty() { outbox.plain() } else { None }
    }

    /// The next bytes to write: the request, and once that was answered, frames.
    pub(super) fn slices<'a>(&'a self, outbox: &'a Outbox) -> impl Iterator<Item = IoSlice<'a>> {
        let request = &self.request[self.request_at..];
        let frames = (self.has_opened() && request.is_empty()).then(|| outbox.slices());
        let request = (!request.is_empty()).then(|| IoSlice::new(request));
        request.into_iter().chain(frames.into_iter().flatten())
    }

    /// The kernel took so many bytes.
    pub(super) fn advance(&mut self, n: usize, outbox: &mut Outbox, now: Instant) {
        if !self.request.is_empty() {
            self.request_at += n;
            if self.request_at == self.request.len() {
                self.request = Vec::new();
                self.request_at = 0;
            }
            return;
        }
        outbox.advance(n);
        if matches!(self.stage, Stage::Closing) {
            self.since = now;
        }
    }

    /// Whether our half can be ended: everything is written, and nothing will follow.
    pub(super) fn is_done_sending(&self, outbox: &Outbox) -> bool {
        matches!(self.stage, Stage::Ending | Stage::Failed) && outbox.is_written()
    }

    /// How it ended, as far as the server said.
    pub(super) fn ending(&self) -> (CloseCode, &str, bool) {
        match &self.received {
            Some((code, reason)) => (*code, reason, self.close_sent),
            None => (CloseCode::ABNORMAL, "", false),
        }
    }
}

fn give(payload: Payload<'_>, pool: &mut BufferPool) {
    if let Payload::Own(buf) = payload {
        pool.give(buf);
    }
}

#[cfg(test)]
mod tests;
