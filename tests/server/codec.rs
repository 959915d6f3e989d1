//! The codec against itself: any messages, any fragmentation, any cut of the byte stream, both roles.

use campanile::protocol::buffer::BufferPool;
use campanile::protocol::{Decoder, Item, Kind, Opcode, ProtocolError, Role, Rules, close, header, mask};
use proptest::prelude::*;

#[derive(Clone, Debug, PartialEq)]
enum Event {
    Message(Kind, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Vec<u8>),
}

fn rules(role: Role) -> Rules {
    Rules { role, rsv1: false, max_message_size: 1 << 20, max_fragments: 1024 }
}

/// A message, where it is cut, and the control frames in its cuts.
type Fragmented = (Event, Vec<(usize, Option<Event>)>);

/// How the bytes reach the decoder.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Path {
    /// Through a receive buffer.
    Buffer,
    /// Straight into the message's own buffer where there is one.
    Direct,
}

fn decode(
    stream: &[u8],
    cuts: &[usize],
    rules: &Rules,
    path: Path,
) -> (Vec<Event>, Result<(), ProtocolError>) {
    let mut decoder = Decoder::default();
    let mut pool = BufferPool::new(1 << 20);
    let mut events = Vec::new();
    let mut rest = stream;
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let cut = (*cuts.next().unwrap_or(&usize::MAX)).clamp(1, rest.len());
        let (piece, after) = rest.split_at(cut);
        rest = after;
        let mut piece = piece.to_vec();
        let mut piece = &mut piece[..];
        if path == Path::Direct
            && let Some(spare) = decoder.spare(1)
        {
            let n = spare.len().min(piece.len());
            let (direct, after) = piece.split_at_mut(n);
            spare[..n].copy_from_slice(direct);
            piece = after;
            match decoder.fill(n) {
                Ok(item) => events.extend(item.map(event)),
                Err(e) => return (events, Err(e)),
            }
        }
        loop {
            match decoder.next(&mut piece, rules, &mut pool) {
                Ok(Some(item)) => events.push(event(item)),
                Ok(None) => break,
                Err(e) => return (events, Err(e)),
            }
        }
        assert!(piece.is_empty(), "the decoder left bytes and asked for more");
    }
    (events, Ok(()))
}

fn event(item: Item<'_>) -> Event {
    match item {
        Item::Message(m) => {
            let message = m.message();
            if let Some(text) = message.as_text() {
                assert!(core::str::from_utf8(text.as_bytes()).is_ok());
            }
            Event::Message(m.kind(), message.as_bytes().to_vec())
        }
        Item::Ping(p) => Event::Ping(p.to_vec()),
        Item::Pong(p) => Event::Pong(p.to_vec()),
        Item::Close(p) => Event::Close(p.to_vec()),
    }
}

fn write(out: &mut Vec<u8>, fin: bool, opcode: Opcode, payload: &[u8], key: Option<[u8; 4]>) {
    out.extend_from_slice(&header::encode(fin, false, opcode, payload.len(), key));
    let from = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = key {
        mask::apply(&mut out[from..], key, 0);
    }
}

fn a_message() -> impl Strategy<Value = Event> {
    let size = prop_oneof![4 => 0..200usize, 1 => 60_000..70_000usize];
    prop_oneof![
        size.prop_flat_map(|n| prop::collection::vec(any::<u8>(), n))
            .prop_map(|b| Event::Message(Kind::Binary, b)),
        ".{0,80}".prop_map(|s| Event::Message(Kind::Text, s.into_bytes())),
    ]
}

fn a_control() -> impl Strategy<Value = Event> {
    let payload = prop::collection::vec(any::<u8>(), 0..=125);
    (payload, any::<bool>()).prop_map(|(p, ping)| if ping { Event::Ping(p) } else { Event::Pong(p) })
}

prop_compose! {
    fn a_stream()(
        messages in prop::collection::vec(
            (a_message(), prop::collection::vec((0usize..70_000, prop::option::of(a_control())), 0..5)), 0..6),
        keys in prop::collection::vec(any::<[u8; 4]>(), 1..8),
    ) -> (Vec<Fragmented>, Vec<[u8; 4]>) { (messages, keys) }
}

/// Writes messages as fragments with control frames between them, and says what should come out.
fn encode(messages: &[Fragmented], keys: &[[u8; 4]], role: Role) -> (Vec<u8>, Vec<Event>) {
    let (mut out, mut expected) = (Vec::new(), Vec::new());
    let mut keys = keys.iter().cycle();
    let mut key = || if role == Role::Server { keys.next().copied() } else { None };
    for (message, cuts) in messages {
        let Event::Message(kind, bytes) = message else { unreachable!() };
        let mut rest = &bytes[..];
        let mut opcode = Opcode::from(*kind);
        for (cut, control) in cuts {
            let (fragment, after) = rest.split_at((*cut).min(rest.len()));
            write(&mut out, false, opcode, fragment, key());
            opcode = Opcode::Continuation;
            rest = after;
            if let Some(control) = control {
                let (op, p) = match control {
                    Event::Ping(p) => (Opcode::Ping, p),
                    Event::Pong(p) => (Opcode::Pong, p),
                    _ => unreachable!(),
                };
                write(&mut out, true, op, p, key());
                expected.push(control.clone());
            }
        }
        write(&mut out, true, opcode, rest, key());
        expected.push(message.clone());
    }
    (out, expected)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn messages_survive_encoding_and_decoding(
        (messages, keys) in a_stream(),
        cuts in prop::collection::vec(prop_oneof![1usize..20, 1usize..100_000], 1..20),
        server: bool, direct: bool,
    ) {
        let role = if server { Role::Server } else { Role::Client };
        let path = if direct { Path::Direct } else { Path::Buffer };
        let (stream, expected) = encode(&messages, &keys, role);
        let (events, end) = decode(&stream, &cuts, &rules(role), path);
        prop_assert_eq!(end, Ok(()));
        prop_assert_eq!(events, expected);
    }

    #[test]
    fn decoding_does_not_depend_on_read_boundaries(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        heads in prop::collection::vec((0usize..300, prop_oneof![Just(0x81u8), Just(0x01), Just(0x80), Just(0x89), Just(0x88)]), 0..20),
        cuts in prop::collection::vec(1usize..20, 1..20),
        server: bool,
    ) {
        // Random bytes with some plausible heads strewn in.
        for (at, b0) in heads {
            if at + 1 < bytes.len() {
                bytes[at] = b0;
                bytes[at + 1] = (bytes[at + 1] & 0x1F) | if server { 0x80 } else { 0 };
            }
        }
        let role = if server { Role::Server } else { Role::Client };
        let whole = decode(&bytes, &[], &rules(role), Path::Buffer);
        let (events, end) = decode(&bytes, &cuts, &rules(role), Path::Buffer);
        let (direct, direct_end) = decode(&bytes, &cuts, &rules(role), Path::Direct);
        prop_assert_eq!((&direct, direct_end), (&events, end));
        // Cut, the stream may fail earlier in the text, never later, and gives the same events until then.
        prop_assert_eq!(end.is_err(), whole.1.is_err() || end.is_err());
        prop_assert!(whole.0.starts_with(&events) || events.starts_with(&whole.0));
        if end.is_ok() {
            prop_assert_eq!(events, whole.0);
        }
    }
}

#[test]
fn an_idle_decoder_holds_no_memory_and_a_partial_message_little() {
    let mut decoder = Decoder::default();
    let mut pool = BufferPool::new(0);
    let rules = Rules { max_message_size: 1 << 30, ..rules(Role::Server) };
    assert_eq!(size_of::<Decoder>(), 8);
    assert_eq!(decoder.held(), 0);
    // 1 GiB is announced, nothing comes: only the head is kept.
    let mut head = header::encode(true, false, Opcode::Binary, 1 << 30, Some([0; 4])).to_vec();
    assert!(decoder.next(&mut &mut head[..], &rules, &mut pool).unwrap().is_none());
    assert!(decoder.held() < 512, "{}", decoder.held());
    assert!(decoder.spare(1).unwrap().len() <= 64 << 10);
}

#[test]
fn limits_are_checked_before_buffering() {
    let mut pool = BufferPool::new(0);
    let fails = |frames: &[u8], rules: &Rules| {
        decode(frames, &[], rules, Path::Buffer).1.expect_err("should be refused")
    };
    let small = Rules { max_message_size: 10, max_fragments: 3, ..rules(Role::Server) };
    let mut frames = Vec::new();
    write(&mut frames, true, Opcode::Binary, &[0; 11], Some([1; 4]));
    assert_eq!(fails(&frames, &small), ProtocolError::MessageTooBig { limit: 10 });
    // The head alone is enough to know.
    assert_eq!(fails(&frames[..6], &small), ProtocolError::MessageTooBig { limit: 10 });
    let huge = [0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];
    assert_eq!(fails(&huge, &small), ProtocolError::MessageTooBig { limit: 10 });
    let mut frames = Vec::new();
    write(&mut frames, false, Opcode::Binary, &[0; 6], Some([1; 4]));
    write(&mut frames, true, Opcode::Continuation, &[0; 5], Some([1; 4]));
    assert_eq!(fails(&frames, &small), ProtocolError::MessageTooBig { limit: 10 });
    // Empty fragments count.
    let mut frames = Vec::new();
    write(&mut frames, false, Opcode::Text, &[], Some([1; 4]));
    for _ in 0..3 {
        write(&mut frames, false, Opcode::Continuation, &[], Some([1; 4]));
    }
    assert_eq!(fails(&frames, &small), ProtocolError::TooManyFragments { limit: 3 });
    assert_eq!(pool.take(0).capacity(), 0);
}

#[test]
fn misplaced_fragments_are_refused() {
    let r = rules(Role::Server);
    let key = Some([9; 4]);
    let mut frames = Vec::new();
    write(&mut frames, true, Opcode::Continuation, b"x", key);
    assert_eq!(decode(&frames, &[], &r, Path::Buffer).1, Err(ProtocolError::UnexpectedContinuation));
    let mut frames = Vec::new();
    write(&mut frames, false, Opcode::Text, b"x", key);
    write(&mut frames, true, Opcode::Text, b"y", key);
    assert_eq!(decode(&frames, &[], &r, Path::Buffer).1, Err(ProtocolError::UnfinishedMessage));
}

#[test]
fn invalid_utf8_is_refused_within_the_frame() {
    let r = rules(Role::Server);
    let mut frame = Vec::new();
    write(&mut frame, true, Opcode::Text, b"good \xF4\x90 and much more", Some([1, 2, 3, 4]));
    // Six bytes of head, five of good text, and the two that can't be.
    assert_eq!(decode(&frame[..13], &[3], &r, Path::Buffer).1, Err(ProtocolError::InvalidUtf8));
    assert_eq!(decode(&frame[..12], &[3], &r, Path::Buffer).1, Ok(()));
}

#[test]
fn a_close_frame_is_checked_in_one_piece_and_in_many() {
    let r = rules(Role::Server);
    for (payload, ok) in [
        (&b""[..], true),
        (b"\x03\xe8bye", true),
        (b"\x03", false),
        (b"\x03\xed", false),
        (b"\x03\xe8\xff", false),
    ] {
        let mut frame = Vec::new();
        write(&mut frame, true, Opcode::Close, payload, Some([5; 4]));
        for cuts in [&[][..], &[1]] {
            let (events, end) = decode(&frame, cuts, &r, Path::Buffer);
            assert_eq!(end.is_ok(), ok, "{payload:?}");
            assert_eq!(events.len(), usize::from(ok));
        }
        assert_eq!(close::parse(payload).is_ok(), ok);
    }
}
