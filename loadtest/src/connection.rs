//! One connection in the client's role, as bytes in and bytes out: no socket, no clock.
//!
//! ```text
//!  Opening ── 101 ──> Open ── close sent ──> Closing ── close received ──> Over
//!                       └───────── close received, and answered ────────────┘
//! ```
//!
//! Pings and close frames are answered here; the answers, as everything to be sent, go to [`Wire::out`].
//!
//! Without WebSocket there is one stage, `Bare`: the bytes that come are cut into messages of the size that was sent.

use crate::opening::{HandshakeError, Opening, Request};
use crate::outbox::Outbox;
use campanile::protocol::buffer::{BufferPool, MessageBuf};
use campanile::protocol::header::{self, Parsed};
use campanile::protocol::{
    CloseCode, Decoder, Item, Kind, Opcode, Payload, ProtocolError, Role, Rules, close, mask,
};
use std::fmt;

/// What the connections of one thread share.
#[derive(Debug)]
pub(crate) struct Wire {
    /// What is to be sent on the connection that was used last.
    pub(crate) out: Outbox,
    /// For masks and nonces.
    pub(crate) rng: fastrand::Rng,
    pool: BufferPool,
    rules: Rules,
    /// Whether text that came in one piece is validated. Where it is compared with text, that would be done twice.
    validate: bool,
    /// Without WebSocket: the size of every message.
    bare: Option<usize>,
}

/// Memory that a thread keeps for large messages.
const POOL_BYTES: usize = 64 << 20;

/// From here on the rest of a message is received straight into its buffer.
const LARGE: usize = 64 << 10;

impl Wire {
    /// For connections that receive messages of up to `max_message_size` bytes.
    pub(crate) fn new(max_message_size: usize, max_fragments: u32, validate: bool) -> Self {
        let rules = Rules { role: Role::Client, rsv1: false, max_message_size, max_fragments };
        Self {
            out: Outbox::default(),
            rng: fastrand::Rng::new(),
            pool: BufferPool::new(POOL_BYTES),
            rules,
            validate,
            bare: None,
        }
    }

    /// For connections without WebSocket, which send and receive messages of `size` bytes.
    pub(crate) fn bare(size: usize) -> Self {
        Self { bare: Some(size), ..Self::new(size, 1, false) }
    }

    /// Whether there is no WebSocket.
    pub(crate) fn is_bare(&self) -> bool {
        self.bare.is_some()
    }

    /// Takes back the buffer of a message that came in pieces.
    pub(crate) fn recycle(&mut self, payload: Payload<'_>) {
        if let Payload::Own(buf) = payload {
            self.pool.give(buf);
        }
    }

    /// Appends a frame with `len` bytes of payload, which the caller writes, masked with the key that it is given.
    /// Without WebSocket there is no head, and a key that changes nothing.
    #[inline]
    pub(crate) fn frame(&mut self, opcode: Opcode, len: usize) -> ([u8; 4], &mut [u8]) {
        if self.bare.is_some() {
            return ([0; 4], self.out.space(len));
        }
        // Section 5.3: a fresh key for each frame. It need not be hard to guess here: no script runs in this client.
        let key = self.rng.u32(..).to_ne_bytes();
        if len < 126
            && let Some((head, _)) = self.out.space(6 + len).split_first_chunk_mut::<6>()
        {
            // What `header::encode` gives, without a copy of unknown size: that would take as long as the rest.
            *head = [0x80 | opcode as u8, 0x80 | len as u8, key[0], key[1], key[2], key[3]];
        } else {
            self.out.extend(&header::encode(true, false, opcode, len, Some(key)));
            self.out.space(len);
        }
        (key, self.out.last_mut(len))
    }

    /// Appends a frame with this payload.
    pub(crate) fn write_frame(&mut self, opcode: Opcode, payload: &[u8]) {
        let (key, masked) = self.frame(opcode, payload.len());
        mask::copy(payload, masked, key, 0);
    }
}

/// The client's end of a connection.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    stage: Stage,
    decoder: Decoder,
}

#[derive(Debug, Default)]
enum Stage {
    Opening(Box<Opening>),
    Open,
    /// No WebSocket; what has come of the next message.
    Bare(MessageBuf),
    Closing,
    #[default]
    Over,
}

/// What came in.
#[derive(Debug)]
pub(crate) enum Event<'b> {
    /// The handshake is done.
    Opened,
    /// A whole message.
    Message(Kind, Payload<'b>),
    /// The peer's close frame, with its code if it had one. Nothing comes after it.
    Closed(Option<CloseCode>),
}

/// Why a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It did not open.
    Handshake(HandshakeError),
    /// The server broke the protocol. A close frame that says so has been written.
    Protocol(ProtocolError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handshake(e) => fmt::Display::fmt(e, f),
            Self::Protocol(e) => write!(f, "protocol error: {e}"),
        }
    }
}

impl Connection {
    /// Writes the request of a new connection.
    pub(crate) fn open(request: &Request, wire: &mut Wire) -> Self {
        let nonce = wire.rng.u128(..).to_ne_bytes();
        let opening = Box::new(request.write(nonce, &mut wire.out));
        Self { stage: Stage::Opening(opening), decoder: Decoder::default() }
    }

    /// A new connection without WebSocket, which is open from the beginning.
    pub(crate) fn bare() -> Self {
        Self { stage: Stage::Bare(MessageBuf::default()), decoder: Decoder::default() }
    }

    /// Whether messages may be sent.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open)
    }

    /// Whether nothing more is to come.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    /// Takes a message that is whole in `input`, if one is next and needs no validation. All else is for
    /// [`Connection::next`]; asking here first costs less than an [`Event`] for every message.
    #[inline(always)]
    pub(crate) fn whole_message<'b>(
        &self,
        input: &mut &'b mut [u8],
        wire: &Wire,
    ) -> Option<(Kind, &'b mut [u8])> {
        if self.is_open() && !wire.validate && !self.decoder.is_within_message() {
            whole_message(input, &wire.rules)
        } else {
            None
        }
    }

    /// Where the rest of a large message can be received, to be taken by [`Connection::fill`].
    pub(crate) fn spare(&mut self) -> Option<&mut [u8]> {
        if self.is_open() { self.decoder.spare(LARGE) } else { None }
    }

    /// Takes `n` bytes that were received into [`Connection::spare`].
    pub(crate) fn fill(&mut self, n: usize, wire: &mut Wire) -> Result<Option<Event<'static>>, Failure> {
        match self.decoder.fill(n) {
            Ok(Some(item)) => Ok(self.event(item, wire)),
            Ok(None) => Ok(None),
            Err(e) => Err(self.fail(e, wire)),
        }
    }

    /// Begins the closing handshake.
    pub(crate) fn close(&mut self, code: CloseCode, wire: &mut Wire) {
        if self.is_open() {
            write_close(code, wire);
            self.stage = Stage::Closing;
        }
    }

    /// Gives its memory back; the connection is gone.
    pub(crate) fn clear(&mut self, wire: &mut Wire) {
        self.decoder.clear(&mut wire.pool);
        self.stage = Stage::Over;
    }

    /// Finds the next event in `input` and leaves there what follows it; `None` when more is needed.
    pub(crate) fn next<'b>(
        &mut self,
        input: &mut &'b mut [u8],
        request: &Request,
        wire: &mut Wire,
    ) -> Result<Option<Event<'b>>, Failure> {
        if let Stage::Opening(opening) = &mut self.stage {
            let opened = opening.receive(input, request).map_err(|e| {
                self.stage = Stage::Over;
                Failure::Handshake(e)
            })?;
            return Ok(opened.then(|| {
                self.stage = Stage::Open;
                Event::Opened
            }));
        }
        if let Stage::Bare(begun) = &mut self.stage {
            let payload = bare_message(begun, input, wire.bare.unwrap_or(1));
            return Ok(payload.map(|p| Event::Message(Kind::Binary, p)));
        }
        loop {
            if self.is_over() {
                *input = &mut [];
                return Ok(None);
            }
            match self.decoder.next(input, &wire.rules, &mut wire.pool) {
                Ok(None) => return Ok(None),
                Ok(Some(item)) => {
                    if let Some(event) = self.event(item, wire) {
                        return Ok(Some(event));
                    }
                }
                Err(e) => return Err(self.fail(e, wire)),
            }
        }
    }

    fn event<'b>(&mut self, item: Item<'b>, wire: &mut Wire) -> Option<Event<'b>> {
        match item {
            Item::Message(incoming) => {
                let kind = incoming.kind();
                return Some(Event::Message(kind, incoming.into_payload()));
            }
            // Section 5.5.2: answered with the same payload, unless a close frame has gone out.
            Item::Ping(payload) if self.is_open() => {
                wire.write_frame(Opcode::Pong, &payload);
            }
            Item::Ping(_) | Item::Pong(_) => {}
            Item::Close(payload) => {
                // The decoder has checked it.
                let code = close::parse(&payload).ok().flatten().map(|(code, _)| code);
                // Section 5.5.1: answered with its own code, unless this is the answer.
                if self.is_open() {
                    write_close(code.unwrap_or(CloseCode::NO_STATUS), wire);
                }
                self.stage = Stage::Over;
                return Some(Event::Closed(code));
            }
        }
        None
    }

    /// Section 7.1.7: fails the connection with the code that fits.
    fn fail(&mut self, error: ProtocolError, wire: &mut Wire) -> Failure {
        if self.is_open() {
            write_close(error.close_code(), wire);
        }
        self.stage = Stage::Over;
        Failure::Protocol(error)
    }
}

/// The next `size` bytes, if all have come; `begun` keeps those of the next message that have.
fn bare_message<'b>(begun: &mut MessageBuf, input: &mut &'b mut [u8], size: usize) -> Option<Payload<'b>> {
    let n = input.len().min(size - begun.len());
    let (piece, rest) = std::mem::take(input).split_at_mut(n);
    *input = rest;
    if n == size {
        return Some(Payload::Lent(piece));
    }
    begun.extend(piece);
    (begun.len() == size).then(|| Payload::Own(std::mem::take(begun)))
}

fn write_close(code: CloseCode, wire: &mut Wire) {
    let mut payload = Vec::new();
    close::write_payload(&mut payload, code, "");
    wire.write_frame(Opcode::Close, &payload);
}

/// A message of a single frame that is whole in `input`, taken from there unvalidated. All else is the decoder's.
#[inline(always)]
fn whole_message<'b>(input: &mut &'b mut [u8], rules: &Rules) -> Option<(Kind, &'b mut [u8])> {
    // FIN, text or binary, unmasked and shorter than 126 bytes: nothing else is to be asked about such a head.
    if let [first @ (0x81 | 0x82), len @ 0..=125, ..] = **input
        && let end = 2 + usize::from(len)
        && end <= input.len()
    {
        let kind = if first == 0x81 { Kind::Text } else { Kind::Binary };
        let (frame, rest) = std::mem::take(input).split_at_mut(end);
        *input = rest;
        return Some((kind, &mut frame[2..]));
    }
    let Ok(Parsed::Head(head)) = header::decode(input, Role::Client, false) else { return None };
    let kind = match head.opcode {
        Opcode::Text => Kind::Text,
        Opcode::Binary => Kind::Binary,
        _ => return None,
    };
    let size = usize::from(head.size);
    if !head.fin || head.len > rules.max_message_size as u64 || head.len > (input.len() - size) as u64 {
        return None;
    }
    let (frame, rest) = std::mem::take(input).split_at_mut(size + head.len as usize);
    *input = rest;
    Some((kind, &mut frame[size..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opening::Extras;
    use crate::target::Target;

    fn request() -> Request {
        Request::new(&Target::parse("ws://h/").unwrap(), &Extras::default())
    }

    fn open(validate: bool) -> (Connection, Wire) {
        (Connection { stage: Stage::Open, decoder: Decoder::default() }, Wire::new(1 << 20, 100, validate))
    }

    fn server_frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        header::write_frame(&mut out, opcode, payload);
        out
    }

    /// Feeds `stream` in pieces of `step` bytes and writes down what happens.
    fn run(stream: &[u8], step: usize, validate: bool) -> (Vec<String>, Outbox) {
        let (mut connection, mut wire) = open(validate);
        let request = request();
        let mut seen = Vec::new();
        for piece in stream.chunks(step) {
            let mut piece = piece.to_vec();
            let mut input = &mut piece[..];
            loop {
                if let Some((kind, payload)) = connection.whole_message(&mut input, &wire) {
                    seen.push(format!("{kind:?} {payload:?}"));
                    continue;
                }
                match connection.next(&mut input, &request, &mut wire) {
                    Ok(None) => break,
                    Ok(Some(Event::Message(kind, payload))) => {
                        seen.push(format!("{kind:?} {payload:?}", payload = &payload[..]))
                    }
                    Ok(Some(Event::Opened)) => seen.push("opened".into()),
                    Ok(Some(Event::Closed(code))) => seen.push(format!("closed {code:?}")),
                    Err(e) => {
                        seen.push(e.to_string());
                        break;
                    }
                }
            }
        }
        (seen, wire.out)
    }

    /// What the client sent, unmasked.
    fn sent(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
        let rules = Rules { role: Role::Server, rsv1: false, max_message_size: 1 << 20, max_fragments: 9 };
        let (mut decoder, mut pool) = (Decoder::default(), BufferPool::new(0));
        let mut all = Vec::new();
        let mut bytes = bytes.to_vec();
        let mut bytes = &mut bytes[..];
        while let Some(item) = decoder.next(&mut bytes, &rules, &mut pool).unwrap() {
            all.push(match item {
                Item::Message(m) => ("message".into(), m.message().as_bytes().to_vec()),
                Item::Ping(p) => ("ping".into(), p.to_vec()),
                Item::Pong(p) => ("pong".into(), p.to_vec()),
                Item::Close(p) => ("close".into(), p.to_vec()),
            });
        }
        all
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let mut stream = server_frame(Opcode::Text, "gö".as_bytes());
        stream.extend(server_frame(Opcode::Ping, b"?"));
        stream.extend([0x02, 1, 7, 0x80, 1, 8]); // two fragments
        stream.extend(server_frame(Opcode::Close, &1001u16.to_be_bytes()));
        stream.extend(server_frame(Opcode::Text, b"too late"));
        for validate in [false, true] {
            for step in 1..=stream.len() {
                let (seen, out) = run(&stream, step, validate);
                assert_eq!(seen, ["Text [103, 195, 182]", "Binary [7, 8]", "closed Some(1001 (Going Away))"]);
                let answers = sent(&out);
                assert_eq!(answers, [("pong".into(), b"?".to_vec()), ("close".into(), vec![3, 233])]);
            }
        }
    }

    #[test]
    fn what_breaks_the_protocol_is_answered_with_its_code() {
        for (stream, code) in [
            (&[0x83, 0][..], 1002u16),
            (&[0x81, 0x81, 0, 0, 0, 0, 0], 1002),
            (&[0x81, 1, 0xFF], 1007),
            (&[0x82, 127, 0, 0, 0, 0, 1, 0, 0, 0], 1009),
        ] {
            let (seen, out) = run(stream, 99, true);
            assert!(seen.len() == 1 && seen[0].starts_with("protocol error"), "{seen:?}");
            assert_eq!(sent(&out), [("close".into(), code.to_be_bytes().to_vec())]);
        }
    }

    #[test]
    fn after_its_own_close_it_waits_for_the_answer_and_says_nothing_more() {
        let (mut connection, mut wire) = open(true);
        connection.close(CloseCode::NORMAL, &mut wire);
        connection.close(CloseCode::NORMAL, &mut wire);
        let mut stream = server_frame(Opcode::Ping, b"");
        stream.extend(server_frame(Opcode::Close, &1000u16.to_be_bytes()));
        let mut input = &mut stream[..];
        let event = connection.next(&mut input, &request(), &mut wire).unwrap();
        assert!(matches!(event, Some(Event::Closed(Some(CloseCode::NORMAL)))));
        assert!(connection.is_over());
        assert_eq!(sent(&wire.out), [("close".into(), vec![3, 232])]);
    }

    #[test]
    fn without_websocket_bytes_go_as_they_are_and_are_cut_by_size_however_they_come() {
        let stream: Vec<u8> = (0..12).collect();
        for step in 1..=stream.len() {
            let (mut connection, mut wire) = (Connection::bare(), Wire::bare(4));
            wire.frame(Opcode::Binary, 4).1.copy_from_slice(&stream[..4]);
            assert_eq!(wire.out[..], stream[..4]);
            let (request, mut seen) = (request(), Vec::new());
            for piece in stream.chunks(step) {
                let mut piece = piece.to_vec();
                let mut input = &mut piece[..];
                while let Ok(Some(Event::Message(Kind::Binary, payload))) =
                    connection.next(&mut input, &request, &mut wire)
                {
                    seen.push(payload.to_vec());
                }
                assert!(input.is_empty());
            }
            assert_eq!(seen, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]], "{step}");
        }
    }

    #[test]
    fn frames_in_the_segment_of_the_handshake_are_not_lost() {
        let request = request();
        let mut wire = Wire::new(1024, 9, true);
        let mut connection = Connection::open(&request, &mut wire);
        let text = String::from_utf8(wire.out.to_vec()).unwrap();
        let key = text.lines().find_map(|l| l.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let accept = campanile::protocol::handshake::accept_key(key.as_bytes());
        let mut stream = format!("HTTP/1.1 101 Ok\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n").into_bytes();
        stream.extend(server_frame(Opcode::Binary, &[5]));
        let mut input = &mut stream[..];
        assert!(matches!(connection.next(&mut input, &request, &mut wire), Ok(Some(Event::Opened))));
        let event = connection.next(&mut input, &request, &mut wire);
        assert!(matches!(event, Ok(Some(Event::Message(Kind::Binary, p))) if p[..] == [5]));
    }
}
