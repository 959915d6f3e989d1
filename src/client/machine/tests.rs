//! Tests of the machine, without a socket: bytes and times in, bytes and happenings out.

use super::*;
use crate::client::event::Data;
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
    packer: Packer,
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
    fn opening(limits: ClientLimits) -> Self {
        let now = Instant::now();
        let url = "ws://h/".parse().unwrap();
        Self {
            machine: Machine::open(&url, &Extras::default(), limits, [7; 16], now),
            outbox: Outbox::default(),
            keys: Keys::new(),
            pool: BufferPool::new(0),
            packer: Packer::default(),
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
        let mut rig = Self::opening(ClientLimits::default());
        rig.write();
        rig.receive(&Self::answer(), usize::MAX).unwrap();
        assert_eq!(rig.seen, ["opened"]);
        rig.seen.clear();
        rig
    }

    fn receive(&mut self, stream: &[u8], step: usize) -> Result<(), Error> {
        let Self { machine, outbox, keys, pool, packer, now, seen, .. } = self;
        for piece in stream.chunks(step.min(stream.len())) {
            let cx = &mut SocketContext { now: *now, outbox, keys, pool, packer };
            machine.receive(&mut piece.to_vec(), cx, &mut |h, pool| {
                seen.push(match h {
                    SocketEvent::Opened(_) => "opened".into(),
                    SocketEvent::Message(kind, payload) => format!("{:?}", Data::take(kind, payload, pool)),
                    SocketEvent::Closing => "closing".into(),
                });
            })?;
        }
        Ok(())
    }

    fn with<T>(&mut self, f: impl FnOnce(&mut Machine, &mut SocketContext<'_>) -> T) -> T {
        let Self { machine, outbox, keys, pool, packer, now, .. } = self;
        f(machine, &mut SocketContext { now: *now, outbox, keys, pool, packer })
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
fn messages_are_assembled_from_any_fragmentation() {
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
fn protocol_errors_are_answered_with_their_close_code() {
    for (stream, code) in [
        (&[0x83, 0][..], 1002u16),
        (&[0x81, 0x81, 0, 0, 0, 0, 0], 1002),
        (&[0x81, 1, 0xFF], 1007),
        (&[0x82, 127, 0, 0, 0, 1, 0, 0, 0, 0], 1009),
    ] {
        let mut rig = Rig::open();
        assert!(matches!(rig.receive(stream, 99), Err(Error::Protocol(_))));
        rig.write();
        assert!(rig.sent.is_empty(), "not yet");
        rig.outbox.push(Opcode::Text, b"an answer to what came before", [0; 4]);
        rig.with(|m, cx| m.answer_breach(cx));
        rig.with(|m, cx| m.answer_breach(cx));
        rig.write();
        let answer = b"an answer to what came before".to_vec();
        assert_eq!(rig.sent, [('m', answer), ('c', code.to_be_bytes().to_vec())]);
        assert_eq!(rig.machine.ending(), (CloseCode::ABNORMAL, "", false));
        assert_eq!(rig.expire(), Expired::Over);
    }
    let mut rig = Rig::open();
    assert_eq!(rig.receive(&[0x83], 1), Err(Error::Protocol(ProtocolError::ReservedOpcode { opcode: 3 })));
}

#[test]
fn close_is_sent_after_queued_messages_and_later_input_is_discarded() {
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
fn crossing_closes_send_one_close_frame_each_and_keep_the_queue() {
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
fn a_silent_server_is_pinged_and_then_given_up() {
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
fn our_own_pause_does_not_count_as_silence() {
    let mut rig = Rig::open();
    rig.machine.pause(true, rig.now);
    assert_eq!(rig.machine.deadline(), None);
    rig.now += 1000 * SECOND;
    rig.machine.pause(false, rig.now);
    assert_eq!(rig.machine.deadline(), Some(rig.now + 25 * SECOND));
}

#[test]
fn every_stage_has_a_timeout() {
    let mut rig = Rig::opening(ClientLimits::default());
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

    let limits = ClientLimits { handshake_timeout: Duration::MAX, ..ClientLimits::default() };
    assert_eq!(Rig::opening(limits).machine.deadline(), None, "for ever, and no overflow");
}

#[test]
fn frames_may_follow_the_handshake_response_in_one_read() {
    let mut rig = Rig::opening(ClientLimits::default());
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
    fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>, step in 1usize..9, opened: bool) {
        let mut rig = if opened { Rig::open() } else { Rig::opening(ClientLimits::default()) };
        rig.write();
        if !bytes.is_empty() && rig.receive(&bytes, step).is_err() {
            let _ = rig.receive(b"after the end", 99);
        }
        rig.write();
        prop_assert!(rig.machine.deadline().is_some());
    }

    /// The same of an honest server's answer and frames in which some bytes are others, and of what it sends after that.
    #[test]
    fn mutated_handshakes_and_frames_do_not_panic(
        frames in proptest::collection::vec((0usize..8, proptest::collection::vec(any::<u8>(), 0..200)), 0..12),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        in_answer: bool,
        step in 1usize..99,
    ) {
        let mut stream = Vec::new();
        for (kind, payload) in &frames {
            let small = &payload[..payload.len().min(125)];
            stream.extend(match kind {
                0 => server_frame(Opcode::Text, "gö".repeat(payload.len()).as_bytes()),
                1 => server_frame(Opcode::Binary, payload),
                2 => server_frame(Opcode::Ping, small),
                3 => server_frame(Opcode::Pong, small),
                4 => vec![0x02, 1, 7, 0x80, 1, 8],
                5 => vec![0xC1, 3, 0x4A, 0x04, 0x00], // compressed, which was not agreed on
                6 => close_frame(1001, "so"),
                _ => vec![0x82, 127, 0, 0, 0, 0xFF, 0, 0, 0, 0],
            });
        }
        let mut answer = Rig::answer();
        let changed = if in_answer { &mut answer } else { &mut stream };
        for (at, byte) in changes {
            if !changed.is_empty() {
                let at = at.index(changed.len());
                changed[at] = byte;
            }
        }
        let mut rig = Rig::opening(ClientLimits::default());
        rig.write();
        answer.extend(stream);
        let failed = rig.receive(&answer, step).is_err();
        for _ in 0..3 {
            let _ = rig.receive(&answer, step);
        }
        prop_assert!(!failed || !rig.machine.is_open());
        // Whatever it was, it has an end that no further byte can put off.
        rig.with(|machine, cx| machine.close(CloseCode(1000), "", cx));
        rig.write();
        for _ in 0..9 {
            match rig.expire() {
                Expired::No => { let _ = rig.receive(b"more", 4); }
                Expired::Over | Expired::Failed(_) => return Ok(()),
            }
        }
        prop_assert!(false, "it goes on");
    }
}

#[test]
fn end_of_stream_without_a_close_frame_is_a_transport_error() {
    let rig = Rig::open();
    assert_eq!(rig.machine.end(ErrorKind::UnexpectedEof), Err(Error::Transport(ErrorKind::UnexpectedEof)));
}
