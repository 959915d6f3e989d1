//! One connection in the client's role: bytes and times in, bytes and happenings out; no socket, no clock, no die.
//!
//! ```text
//!  Opening ── 101 ──▶ Open ── our close ──▶ Closing ── server's close ──▶ Ending ── EOF or timeout ──▶ over
//!                      ├────── server's close, answered ────────────────────▲
//!                      └────── breach of the protocol ──▶ Failed ── EOF or timeout ──▶ over
//! ```
//! Ending waits for the server to end the connection, as RFC 6455 section 7.1.1 asks of a client. In both last states
//! what still comes is thrown away: a socket closed with unread bytes in it resets the connection, and the server would
//! lose the close frame.

use super::event::Data;
use super::keys::Keys;
use super::opening::{Agreed, Extras, Opening};
use super::outbox::Outbox;
use super::{Error, Limits, Url};
use crate::protocol::buffer::BufferPool;
use crate::protocol::{CloseCode, Decoder, Item, Opcode, Payload, Role, Rules, close};
use core::time::Duration;
use std::io::{ErrorKind, IoSlice};
use std::time::Instant;

#[derive(Debug)]
pub(super) struct Machine {
    stage: Stage,
    decoder: Decoder,
    limits: Limits,
    /// The request, until it is written.
    request: Vec<u8>,
    request_at: usize,
    /// When this stage began; in `Closing`, when the last progress was made.
    since: Instant,
    /// When the last bytes came.
    heard: Instant,
    /// A ping waits for an answer since.
    pinged: Option<Instant>,
    /// A message has begun and is not whole since.
    within: Option<Instant>,
    /// The server's close frame.
    received: Option<(CloseCode, String)>,
    close_sent: bool,
    opened: Option<Instant>,
    paused: bool,
}

#[derive(Debug)]
enum Stage {
    Opening(Box<Opening>),
    Open,
    Closing,
    Ending,
    Failed,
}

/// What came of received bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Happening {
    Opened(Agreed),
    Message(Data),
    /// The server's close frame has come.
    Closing,
}

/// What an expired deadline asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Expired {
    /// Nothing, or only that what was queued is written.
    No,
    /// The connection is over, though its end was not seen.
    Over,
    /// The connection failed.
    Failed(Error),
}

/// What the connections of one thread share.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) outbox: &'a mut Outbox,
    pub(super) keys: &'a mut Keys,
    pub(super) pool: &'a mut BufferPool,
}

/// A large message is received straight into its own buffer from here on.
const LARGE: usize = 64 << 10;

impl Machine {
    /// A connection that has just been made, and the request to be sent on it.
    pub(super) fn open(url: &Url, extras: &Extras, limits: Limits, nonce: [u8; 16], now: Instant) -> Self {
        let mut request = Vec::new();
        let opening = Box::new(Opening::begin(url, extras, nonce, &mut request));
        Self {
            stage: Stage::Opening(opening),
            decoder: Decoder::default(),
            limits,
            request,
            request_at: 0,
            since: now,
            heard: now,
            pinged: None,
            within: None,
            received: None,
            close_sent: false,
            opened: None,
            paused: false,
        }
    }

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
            // RFC 7692 will set this where the handshake agreed on it.
            rsv1: false,
            max_message_size: self.limits.max_message_size,
            max_fragments: self.limits.max_fragments,
        }
    }

    // ---- bytes in ----

    /// Takes all of `input`, and says what came of it.
    pub(super) fn receive(
        &mut self,
        mut input: &mut [u8],
        cx: &mut Context<'_>,
        mut happened: impl FnMut(Happening),
    ) -> Result<(), Error> {
        self.heard = cx.now;
        self.pinged = None;
        if let Stage::Opening(opening) = &mut self.stage {
            match opening.receive(&mut input) {
                Ok(None) => return Ok(()),
                Ok(Some(agreed)) => {
                    self.enter(Stage::Open, cx.now);
                    self.opened = Some(cx.now);
                    happened(Happening::Opened(agreed));
                }
                Err(e) => {
                    self.enter(Stage::Failed, cx.now);
                    return Err(Error::Handshake(e));
                }
            }
        }
        let rules = self.rules();
        while self.reads() {
            match self.decoder.next(&mut input, &rules, cx.pool) {
                Ok(Some(item)) => self.item(item, cx, &mut happened),
                Ok(None) => break,
                Err(e) => return Err(self.fail(e, cx)),
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
        cx: &mut Context<'_>,
        mut happened: impl FnMut(Happening),
    ) -> Result<(), Error> {
        self.heard = cx.now;
        self.pinged = None;
        match self.decoder.fill(n) {
            Ok(Some(item)) => self.item(item, cx, &mut happened),
            Ok(None) => {}
            Err(e) => return Err(self.fail(e, cx)),
        }
        self.note_progress(cx.now);
        Ok(())
    }

    /// Whether received bytes are still of interest.
    fn reads(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::Closing)
    }

    fn note_progress(&mut self, now: Instant) {
        self.within = match self.within {
            _ if !self.decoder.is_within_message() => None,
            Some(since) => Some(since),
            None => Some(now),
        };
    }

    fn item(&mut self, item: Item<'_>, cx: &mut Context<'_>, happened: &mut impl FnMut(Happening)) {
        // Several messages may end in one read: the next one begins its own time.
        self.within = None;
        match item {
            Item::Message(incoming) => {
                let text = incoming.message().as_text().map(str::to_owned);
                let data = match (text, incoming.into_payload()) {
                    (Some(text), payload) => {
                        give(payload, cx.pool);
                        Data::Text(text)
                    }
                    (None, Payload::Lent(bytes)) => Data::Binary(bytes.to_vec()),
                    (None, Payload::Own(buf)) => Data::Binary(buf.into_vec()),
                };
                // As in a browser, what comes after `close` is not heard.
                if self.is_open() {
                    happened(Happening::Message(data));
                }
            }
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
                happened(Happening::Closing);
            }
        }
    }

    /// Section 7.1.7: fails the connection with the code that fits.
    fn fail(&mut self, error: crate::protocol::ProtocolError, cx: &mut Context<'_>) -> Error {
        self.refuse(error.close_code(), cx);
        Error::Protocol(error)
    }

    /// Ends it with this code, ahead of what waits.
    pub(super) fn refuse(&mut self, code: CloseCode, cx: &mut Context<'_>) {
        let taken_back = cx.outbox.hold();
        if self.reads() && (!self.close_sent || taken_back) {
            cx.outbox.push_control(Opcode::Close, &code.0.to_be_bytes(), cx.keys.next());
            self.close_sent = true;
        }
        self.enter(Stage::Failed, cx.now);
    }

    /// The server has ended its half, or the connection broke. `Ok`: as it should.
    pub(super) fn end(&mut self, kind: ErrorKind) -> Result<(), Error> {
        match self.stage {
            Stage::Ending | Stage::Failed => Ok(()),
            _ => Err(Error::Transport(kind)),
        }
    }

    // ---- commands ----

    /// Begins the closing handshake, behind what waits.
    pub(super) fn close(&mut self, code: CloseCode, reason: &str, cx: &mut Context<'_>) {
        if self.is_open() {
            let mut payload = Vec::new();
            close::write_payload(&mut payload, code, reason);
            cx.outbox.push_last(&payload, cx.keys.next());
            self.close_sent = true;
            self.enter(Stage::Closing, cx.now);
        }
    }

    /// Whether reading rests because nobody takes what comes. Then the server's silence says nothing.
    pub(super) fn pause(&mut self, paused: bool, now: Instant) {
        if self.paused && !paused {
            self.heard = now;
            self.pinged = None;
            self.within = self.within.map(|_| now);
        }
        self.paused = paused;
    }

    // ---- bytes out ----

    /// The next bytes to write: the request, and once that was answered, frames.
    pub(super) fn slices<'a>(&'a self, outbox: &'a Outbox) -> impl Iterator<Item = IoSlice<'a>> {
        let request = &self.request[self.request_at..];
        let frames = (self.has_opened() && request.is_empty()).then(|| outbox.slices());
        let request = (!request.is_empty()).then(|| IoSlice::new(request));
        request.into_iter().chain(frames.into_iter().flatten())
    }

    /// The kernel took so many bytes.
    pub(super) fn advance(&mut self, n: usize, outbox: &mut Outbox, now: Instant) {
        if self.request_at < self.request.len() {
            self.request_at += n;
            return;
        }
        self.request = Vec::new();
        self.request_at = 0;
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

    // ---- time ----

    fn enter(&mut self, stage: Stage, now: Instant) {
        self.since = now;
        self.stage = stage;
    }

    /// When [`Machine::expire`] is to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let limits = &self.limits;
        match self.stage {
            Stage::Opening(_) => self.since.checked_add(limits.handshake_timeout),
            Stage::Open if self.paused => None,
            Stage::Open => {
                let heartbeat = match self.pinged {
                    _ if limits.ping_interval.is_zero() => None,
                    Some(pinged) => pinged.checked_add(limits.pong_timeout),
                    None => self.heard.checked_add(limits.ping_interval),
                };
                heartbeat.into_iter().chain(self.message_deadline()).min()
            }
            Stage::Closing | Stage::Ending | Stage::Failed => self.since.checked_add(limits.close_timeout),
        }
    }

    fn message_deadline(&self) -> Option<Instant> {
        let timeout = self.limits.message_timeout;
        self.within.filter(|_| !timeout.is_zero())?.checked_add(timeout)
    }

    /// Does what is due at this time.
    pub(super) fn expire(&mut self, cx: &mut Context<'_>) -> Expired {
        if self.deadline().is_none_or(|at| at > cx.now) {
            return Expired::No;
        }
        let limits = self.limits;
        match self.stage {
            Stage::Opening(_) => Expired::Failed(Error::HandshakeTimeout { limit: limits.handshake_timeout }),
            Stage::Open if self.message_deadline().is_some_and(|at| at <= cx.now) => {
                self.refuse(CloseCode::POLICY, cx);
                Expired::Failed(Error::MessageTimeout { limit: limits.message_timeout })
            }
            Stage::Open if self.pinged.is_some() => {
                Expired::Failed(Error::PongTimeout { limit: limits.pong_timeout })
            }
            Stage::Open => {
                cx.outbox.push_control(Opcode::Ping, b"", cx.keys.next());
                self.pinged = Some(cx.now);
                Expired::No
            }
            Stage::Closing => Expired::Failed(Error::CloseTimeout { limit: limits.close_timeout }),
            Stage::Ending | Stage::Failed => Expired::Over,
        }
    }

    /// Gives its memory back.
    pub(super) fn clear(&mut self, pool: &mut BufferPool) {
        self.decoder.clear(pool);
    }
}

fn give(payload: Payload<'_>, pool: &mut BufferPool) {
    if let Payload::Own(buf) = payload {
        pool.give(buf);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::handshake::accept_key;
    use crate::protocol::{ProtocolError, header};
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A machine with all that it is given, and what it did.
    struct Rig {
        machine: Machine,
        outbox: Outbox,
        keys: Keys,
        pool: BufferPool,
        now: Instant,
        seen: Vec<String>,
        sent: Vec<(char, Vec<u8>)>,
    }

    fn server_frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        header::write_frame(&mut out, opcode, payload);
        out
    }

    fn close_frame(code: u16, reason: &str) -> Vec<u8> {
        let mut payload = Vec::new();
        close::write_payload(&mut payload, CloseCode(code), reason);
        server_frame(Opcode::Close, &payload)
    }

    impl Rig {
        fn opening(limits: Limits) -> Self {
            let now = Instant::now();
            let url = "ws://h/".parse().unwrap();
            Self {
                machine: Machine::open(&url, &Extras::default(), limits, [7; 16], now),
                outbox: Outbox::default(),
                keys: Keys::new(),
                pool: BufferPool::new(0),
                now,
                seen: Vec::new(),
                sent: Vec::new(),
            }
        }

        fn answer() -> Vec<u8> {
            let accept = accept_key(crate::protocol::handshake::client_key([7; 16]).as_bytes());
            let head = "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept:";
            format!("{head} {accept}\r\n\r\n").into_bytes()
        }

        fn open() -> Self {
            let mut rig = Self::opening(Limits::default());
            rig.write();
            rig.receive(&Self::answer(), usize::MAX).unwrap();
            assert_eq!(rig.seen, ["opened"]);
            rig.seen.clear();
            rig
        }

        fn receive(&mut self, stream: &[u8], step: usize) -> Result<(), Error> {
            let Self { machine, outbox, keys, pool, now, seen, .. } = self;
            for piece in stream.chunks(step.min(stream.len())) {
                let cx = &mut Context { now: *now, outbox, keys, pool };
                machine.receive(&mut piece.to_vec(), cx, |h| {
                    seen.push(match h {
                        Happening::Opened(_) => "opened".into(),
                        Happening::Message(data) => format!("{data:?}"),
                        Happening::Closing => "closing".into(),
                    });
                })?;
            }
            Ok(())
        }

        fn with<T>(&mut self, f: impl FnOnce(&mut Machine, &mut Context<'_>) -> T) -> T {
            let Self { machine, outbox, keys, pool, now, .. } = self;
            f(machine, &mut Context { now: *now, outbox, keys, pool })
        }

        fn write(&mut self) {
            let bytes: Vec<u8> = self.machine.slices(&self.outbox).flat_map(|s| s.to_vec()).collect();
            self.machine.advance(bytes.len(), &mut self.outbox, self.now);
            let rules = Rules { role: Role::Server, ..self.machine.rules() };
            let (mut decoder, mut pool) = (Decoder::default(), BufferPool::new(0));
            let mut bytes = bytes;
            if bytes.starts_with(b"GET") {
                return;
            }
            let mut input = &mut bytes[..];
            while let Some(item) = decoder.next(&mut input, &rules, &mut pool).unwrap() {
                self.sent.push(match item {
                    Item::Message(m) => ('m', m.message().as_bytes().to_vec()),
                    Item::Ping(p) => ('?', p.to_vec()),
                    Item::Pong(p) => ('!', p.to_vec()),
                    Item::Close(p) => ('c', p.to_vec()),
                });
            }
        }

        fn expire(&mut self) -> Expired {
            self.now = self.machine.deadline().expect("a deadline");
            let expired = self.with(Machine::expire);
            self.write();
            expired
        }
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let mut stream = server_frame(Opcode::Text, "gö".as_bytes());
        stream.extend(server_frame(Opcode::Ping, b"?"));
        stream.extend([0x02, 1, 7, 0x80, 1, 8]); // two fragments
        stream.extend(close_frame(1001, "so"));
        stream.extend(server_frame(Opcode::Text, b"too late"));
        for step in 1..=stream.len() {
            let mut rig = Rig::open();
            rig.receive(&stream, step).unwrap();
            assert_eq!(rig.seen, ["Text(\"gö\")", "Binary([7, 8])", "closing"]);
            rig.write();
            assert_eq!(rig.sent, [('!', b"?".to_vec()), ('c', vec![3, 233])]);
            assert_eq!(rig.machine.ending(), (CloseCode::GOING_AWAY, "so", true));
            assert!(rig.machine.is_done_sending(&rig.outbox));
            assert_eq!(rig.machine.end(ErrorKind::UnexpectedEof), Ok(()));
        }
    }

    #[test]
    fn what_breaks_the_protocol_is_answered_with_its_code() {
        for (stream, code) in [
            (&[0x83, 0][..], 1002u16),
            (&[0x81, 0x81, 0, 0, 0, 0, 0], 1002),
            (&[0x81, 1, 0xFF], 1007),
            (&[0x82, 127, 0, 0, 0, 1, 0, 0, 0, 0], 1009),
        ] {
            let mut rig = Rig::open();
            assert!(matches!(rig.receive(stream, 99), Err(Error::Protocol(_))));
            rig.outbox.push(Opcode::Text, b"too late", [0; 4]);
            rig.write();
            assert_eq!(rig.sent, [('c', code.to_be_bytes().to_vec())]);
            assert_eq!(rig.machine.ending(), (CloseCode::ABNORMAL, "", false));
            assert_eq!(rig.expire(), Expired::Over);
        }
        let mut rig = Rig::open();
        assert_eq!(
            rig.receive(&[0x83], 1),
            Err(Error::Protocol(ProtocolError::ReservedOpcode { opcode: 3 }))
        );
    }

    #[test]
    fn a_close_goes_behind_what_waits_and_what_comes_after_it_is_not_heard() {
        let mut rig = Rig::open();
        rig.outbox.push(Opcode::Text, b"last words", [1; 4]);
        rig.with(|m, cx| m.close(CloseCode::NORMAL, "bye", cx));
        rig.with(|m, cx| m.close(CloseCode::GOING_AWAY, "again", cx));
        rig.write();
        rig.receive(&server_frame(Opcode::Text, b"unheard"), 99).unwrap();
        rig.receive(&server_frame(Opcode::Ping, b""), 99).unwrap();
        rig.receive(&close_frame(1000, ""), 99).unwrap();
        rig.write();
        assert_eq!(rig.sent, [('m', b"last words".to_vec()), ('c', b"\x03\xe8bye".to_vec())]);
        assert_eq!(rig.machine.ending(), (CloseCode::NORMAL, "", true));
        assert_eq!(rig.seen, ["closing"]);
    }

    #[test]
    fn two_closes_that_cross_are_one_close_frame_each_and_what_waited_is_kept() {
        let mut rig = Rig::open();
        rig.outbox.push(Opcode::Text, b"unsent", [1; 4]);
        rig.with(|m, cx| m.close(CloseCode::NORMAL, "", cx));
        rig.receive(&close_frame(1012, ""), 99).unwrap();
        rig.write();
        assert_eq!(rig.sent, [('c', vec![3, 244])]);
        assert_eq!(rig.outbox.end_connection(true), 0);
        assert_eq!(rig.outbox.payload(), 6);
    }

    #[test]
    fn silence_is_asked_and_then_ends_it() {
        let mut rig = Rig::open();
        let begin = rig.now;
        assert_eq!(rig.expire(), Expired::No);
        assert_eq!((rig.now - begin, &rig.sent[..]), (25 * SECOND, &[('?', vec![])][..]));
        rig.now += 9 * SECOND;
        rig.receive(&server_frame(Opcode::Pong, b""), 99).unwrap();
        assert_eq!(rig.expire(), Expired::No);
        assert_eq!(rig.sent.len(), 2);
        assert_eq!(rig.expire(), Expired::Failed(Error::PongTimeout { limit: 10 * SECOND }));
    }

    #[test]
    fn a_pause_of_ours_is_no_silence_of_the_servers() {
        let mut rig = Rig::open();
        rig.machine.pause(true, rig.now);
        assert_eq!(rig.machine.deadline(), None);
        rig.now += 1000 * SECOND;
        rig.machine.pause(false, rig.now);
        assert_eq!(rig.machine.deadline(), Some(rig.now + 25 * SECOND));
    }

    #[test]
    fn every_wait_has_an_end() {
        let mut rig = Rig::opening(Limits::default());
        assert_eq!(rig.expire(), Expired::Failed(Error::HandshakeTimeout { limit: 10 * SECOND }));

        let mut rig = Rig::open();
        rig.receive(&[0x82, 10, 0], 99).unwrap();
        for _ in 0..5 {
            rig.now += 11 * SECOND;
            rig.receive(&[0], 1).unwrap(); // a drop now and then keeps the heartbeat quiet
        }
        assert_eq!(rig.expire(), Expired::Failed(Error::MessageTimeout { limit: 60 * SECOND }));
        assert_eq!(rig.sent, [('c', vec![3, 240])]);

        let mut rig = Rig::open();
        rig.with(|m, cx| m.close(CloseCode::NORMAL, "", cx));
        rig.write();
        assert_eq!(rig.expire(), Expired::Failed(Error::CloseTimeout { limit: 5 * SECOND }));

        let limits = Limits { handshake_timeout: Duration::MAX, ..Limits::default() };
        assert_eq!(Rig::opening(limits).machine.deadline(), None, "for ever, and no overflow");
    }

    #[test]
    fn frames_may_come_with_the_answer_and_messages_wait_for_it() {
        let mut rig = Rig::opening(Limits::default());
        rig.outbox.push(Opcode::Text, b"kept", [1; 4]);
        rig.write();
        rig.write();
        assert!(rig.sent.is_empty());
        let mut stream = Rig::answer();
        stream.extend(server_frame(Opcode::Text, b"hello"));
        rig.receive(&stream, stream.len()).unwrap();
        rig.write();
        assert_eq!(rig.seen, ["opened", "Text(\"hello\")"]);
        assert_eq!(rig.sent, [('m', b"kept".to_vec())]);
    }

    proptest! {
        /// Whatever a server sends, in whatever pieces: it is taken or refused, and every wait still has its end.
        #[test]
        fn any_bytes_are_taken_or_refused(bytes: Vec<u8>, step in 1usize..9, opened: bool) {
            let mut rig = if opened { Rig::open() } else { Rig::opening(Limits::default()) };
            rig.write();
            if !bytes.is_empty() && rig.receive(&bytes, step).is_err() {
                let _ = rig.receive(b"after the end", 99);
            }
            rig.write();
            prop_assert!(rig.machine.deadline().is_some());
        }
    }

    #[test]
    fn a_connection_that_ends_without_a_close_frame_broke() {
        let mut rig = Rig::open();
        assert_eq!(
            rig.machine.end(ErrorKind::UnexpectedEof),
            Err(Error::Transport(ErrorKind::UnexpectedEof))
        );
    }
}
