//! The examples of RFC 7692, tables of offers and responses, and what no bytes may do.

use super::*;
use crate::protocol::{Kind, ProtocolError};
use proptest::prelude::*;

fn inflate(
    inflater: &mut Inflater,
    payload: &[u8],
    history: Option<&mut History>,
) -> Result<Vec<u8>, ProtocolError> {
    let mut out = b"before".to_vec();
    let result = inflater.inflate(payload, history, Kind::Binary, 1 << 20, &mut out);
    assert!(out.starts_with(b"before"));
    result.map(|()| out.split_off(6))
}

fn compress(deflater: &mut Deflater, payload: &[u8], history: Option<&mut History>) -> Vec<u8> {
    let mut out = b"before".to_vec();
    deflater.compress(payload, history, &mut out);
    assert!(out.starts_with(b"before"));
    out.split_off(6)
}

// ---- the examples of section 7.2.3 ----

const HELLO: [u8; 7] = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];

#[test]
fn section_7_2_3_1_one_block() {
    assert_eq!(compress(&mut Deflater::new(15, 6), b"Hello", None), HELLO);
    assert_eq!(inflate(&mut Inflater::new(), &HELLO, None).unwrap(), b"Hello");
}

#[test]
fn section_7_2_3_2_the_window_is_shared() {
    let again = [0xf2, 0x00, 0x11, 0x00, 0x00];
    for window_bits in 9..=15 {
        let mut deflater = Deflater::new(window_bits, 6);
        let mut history = History::new(window_bits);
        assert_eq!(compress(&mut deflater, b"Hello", Some(&mut history)), HELLO);
        assert_eq!(compress(&mut deflater, b"Hello", Some(&mut history)), again, "{window_bits}");
        assert_eq!(compress(&mut deflater, b"Hello", None), HELLO, "another connection's");

        let (mut inflater, mut history) = (Inflater::new(), History::new(window_bits));
        assert_eq!(inflate(&mut inflater, &HELLO, Some(&mut history)).unwrap(), b"Hello");
        assert_eq!(inflate(&mut inflater, &again, None), Err(ProtocolError::CorruptDeflate), "another's");
        assert_eq!(inflate(&mut inflater, &again, Some(&mut history)).unwrap(), b"Hello");
    }
}

#[test]
fn section_7_2_3_3_a_block_without_compression() {
    let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
    assert_eq!(inflate(&mut Inflater::new(), &stored, None).unwrap(), b"Hello");
    assert_eq!(compress(&mut Deflater::new(15, 0), b"Hello", None), stored);
}

#[test]
fn section_7_2_3_4_a_final_block() {
    let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
    let (mut inflater, mut history) = (Inflater::new(), History::new(15));
    assert_eq!(inflate(&mut inflater, &last, Some(&mut history)).unwrap(), b"Hello");
    // Further messages, with what was said before still there.
    let again = [0xf2, 0x00, 0x11, 0x00, 0x00];
    assert_eq!(inflate(&mut inflater, &again, Some(&mut history)).unwrap(), b"Hello");
    assert_eq!(inflate(&mut inflater, &last, None).unwrap(), b"Hello");
    assert_eq!(inflate(&mut inflater, &HELLO, None).unwrap(), b"Hello");
    // Without the byte of the empty block.
    assert_eq!(inflate(&mut inflater, &last[..7], None).unwrap(), b"Hello");
    // With blocks behind it (section 7.2.1).
    assert_eq!(inflate(&mut inflater, &[&last[..7], &HELLO].concat(), None).unwrap(), b"HelloHello");
}

#[test]
fn bytes_after_a_final_block_are_refused() {
    let mut inflater = Inflater::new();
    for garbage in
        [&b"\x07"[..], b"g", b"garbage", b"\x00\x00", b"\x00\x00\x00\xff\xff", b"\x02", b"\xff\xff"]
    {
        let payload = [&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], garbage].concat();
        assert_eq!(
            inflate(&mut inflater, &payload, None),
            Err(ProtocolError::CorruptDeflate),
            "{garbage:x?}"
        );
    }
}

#[test]
fn section_7_2_3_5_two_blocks_in_one_message() {
    let two = [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
    assert_eq!(inflate(&mut Inflater::new(), &two, None).unwrap(), b"Hello");
}

#[test]
fn section_7_2_3_6_an_empty_message() {
    assert_eq!(compress(&mut Deflater::new(15, 6), b"", None), [0x00]);
    let mut history = History::new(9);
    assert_eq!(inflate(&mut Inflater::new(), &[0x00], Some(&mut history)).unwrap(), b"");
    assert_eq!(
        inflate(&mut Inflater::new(), &[0x02, 0x00], None).unwrap(),
        b"",
        "an empty fixed block first"
    );
    assert_eq!(inflate(&mut Inflater::new(), &[], None).unwrap(), b"", "no byte at all");
}

// ---- what is refused ----

#[test]
fn a_truncated_message_or_one_with_its_tail_is_refused() {
    let text = "a text, a text, and another text: ".repeat(40);
    let mut inflater = Inflater::new();
    for level in [0, 1, 6] {
        let whole = compress(&mut Deflater::new(15, level), text.as_bytes(), None);
        assert_eq!(inflate(&mut inflater, &whole, None).unwrap(), text.as_bytes());
        // The first byte of a stored block alone is an empty message.
        for len in 2..whole.len() {
            let cut = inflate(&mut inflater, &whole[..len], None);
            assert_eq!(cut, Err(ProtocolError::CorruptDeflate), "level {level}: {len} of {}", whole.len());
        }
        let tailed = [&whole[..], &TAIL].concat();
        assert_eq!(inflate(&mut inflater, &tailed, None), Err(ProtocolError::CorruptDeflate));
    }
}

#[test]
fn a_reference_beyond_the_negotiated_window_is_refused() {
    let mut deflater = Deflater::new(15, 6);
    let (mut ours, mut theirs) = (History::new(15), History::new(9));
    let first: Vec<u8> = (0..1000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut inflater = Inflater::new();
    let bytes = compress(&mut deflater, &first, Some(&mut ours));
    inflate(&mut inflater, &bytes, Some(&mut theirs)).unwrap();
    let bytes = compress(&mut deflater, &first[..100], Some(&mut ours));
    assert_eq!(inflate(&mut inflater, &bytes, Some(&mut theirs)), Err(ProtocolError::CorruptDeflate));
}

#[test]
fn inflating_above_the_limit_closes_with_1009() {
    let mut inflater = Inflater::new();
    for len in [1usize, 255, 256, 257, 32 << 10, (32 << 10) + 1, 100_000] {
        let bytes = compress(&mut Deflater::new(15, 1), &vec![b'z'; len], None);
        let mut out = Vec::new();
        inflater.inflate(&bytes, None, Kind::Text, len, &mut out).unwrap();
        assert_eq!(out.len(), len);
        let mut out = vec![7];
        let error = inflater.inflate(&bytes, None, Kind::Text, len - 1, &mut out).unwrap_err();
        assert_eq!(error, ProtocolError::MessageTooBig { limit: len - 1 });
        assert_eq!((error.close_code().0, &out[..]), (1009, &[7][..]));
    }
    assert_eq!(ProtocolError::CorruptDeflate.close_code().0, 1007);
}

#[test]
fn inflated_text_is_refused_at_the_first_invalid_byte() {
    let mut deflater = Deflater::new(15, 1);
    let mut inflater = Inflater::new();
    let mut text = "€".repeat(100_000).into_bytes();
    let bytes = compress(&mut deflater, &text, None);
    let mut out = Vec::new();
    inflater.inflate(&bytes, None, Kind::Text, 1 << 20, &mut out).unwrap();
    assert_eq!(out, text);
    // Half a character at the end.
    text.pop();
    let bytes = compress(&mut deflater, &text, None);
    let wrong = inflater.inflate(&bytes, None, Kind::Text, 1 << 20, &mut Vec::new());
    assert_eq!(wrong, Err(ProtocolError::InvalidUtf8));
    inflater.inflate(&bytes, None, Kind::Binary, 1 << 20, &mut Vec::new()).unwrap();
    // A wrong byte at the beginning, and a limit that the rest would break.
    text[0] = 0xFF;
    let bytes = compress(&mut deflater, &text, None);
    let wrong = inflater.inflate(&bytes, None, Kind::Text, 100_000, &mut Vec::new());
    assert_eq!(wrong, Err(ProtocolError::InvalidUtf8));
}

// ---- negotiation ----

fn answer(deflate: &Deflate, headers: &[&str]) -> Option<String> {
    let agreed = negotiate(headers.iter().map(|h| h.as_bytes()), deflate)?;
    let mut out = String::new();
    agreed.write_response(&mut out).unwrap();
    Some(out)
}

const SHARED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

#[test]
fn a_server_without_context_takeover_announces_it() {
    for (offer, response) in [
        ("permessage-deflate", SHARED),
        ("permessage-deflate; client_max_window_bits", SHARED),
        ("permessage-deflate;client_max_window_bits=8", SHARED),
        ("permessage-deflate; client_no_context_takeover; server_no_context_takeover", SHARED),
        (
            "permessage-deflate; server_max_window_bits=10",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
             server_max_window_bits=10",
        ),
    ] {
        assert_eq!(answer(&Deflate::shared(), &[offer]).as_deref(), Some(response), "{offer}");
        assert_eq!(answer(&Deflate::off(), &[offer]), None);
    }
}

#[test]
fn a_server_with_context_takeover_keeps_to_its_window() {
    for (bits, offer, response) in [
        (15, "permessage-deflate", "permessage-deflate"),
        (15, "permessage-deflate; client_max_window_bits", "permessage-deflate"),
        (15, "permessage-deflate; client_max_window_bits=9", "permessage-deflate"),
        (11, "permessage-deflate; client_max_window_bits", "permessage-deflate; client_max_window_bits=11"),
        (
            11,
            "permessage-deflate; client_max_window_bits=12",
            "permessage-deflate; client_max_window_bits=11",
        ),
        (11, "permessage-deflate; client_max_window_bits=8", "permessage-deflate"),
        // It can't be told a window, so it has none.
        (11, "permessage-deflate", "permessage-deflate; client_no_context_takeover"),
        (
            11,
            "permessage-deflate; server_max_window_bits=13",
            "permessage-deflate; client_no_context_takeover; server_max_window_bits=11",
        ),
        (
            15,
            "permessage-deflate; server_max_window_bits=9; client_max_window_bits",
            "permessage-deflate; server_max_window_bits=9",
        ),
        (
            12,
            "permessage-deflate; client_no_context_takeover; client_max_window_bits",
            "permessage-deflate; client_no_context_takeover",
        ),
        (
            12,
            "permessage-deflate; server_no_context_takeover; client_max_window_bits",
            "permessage-deflate; server_no_context_takeover; client_max_window_bits=12",
        ),
    ] {
        assert_eq!(answer(&Deflate::dedicated(bits), &[offer]).as_deref(), Some(response), "{bits}: {offer}");
    }
}

#[test]
fn invalid_offers_are_skipped() {
    for bad in [
        "",
        ",",
        "x-webkit-deflate-frame",
        "Permessage-Deflate",
        "permessage-deflate2",
        "permessage-deflate;",
        "permessage-deflate; ; client_max_window_bits",
        "permessage-deflate; unknown",
        "permessage-deflate; Server_no_context_takeover",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover=10",
        "permessage-deflate; client_no_context_takeover=",
        "permessage-deflate; client_no_context_takeover=\"\"",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=",
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits=16",
        "permessage-deflate; client_max_window_bits=08",
        "permessage-deflate; client_max_window_bits=010",
        "permessage-deflate; client_max_window_bits=+9",
        "permessage-deflate; client_max_window_bits=9.0",
        "permessage-deflate; client_max_window_bits=1000000000000000000000009",
        "permessage-deflate; client_max_window_bits=\"10",
        "permessage-deflate; client_max_window_bits=\"",
        "permessage-deflate; client_max_window_bits=10\"",
        "permessage-deflate; client_max_window_bits=\"10\\\"",
        "permessage-deflate; client_max_window_bits=\" 10\"",
        "permessage-deflate; client_max_window_bits = 10",
        "permessage-deflate client_max_window_bits",
        "permessage-deflate; client_max_window_bits=10 11",
        "permessage-deflate; =10",
        "permessage-deflate=1",
        "x=\"unterminated, permessage-deflate",
    ] {
        for deflate in [Deflate::shared(), Deflate::dedicated(12)] {
            assert_eq!(answer(&deflate, &[bad]), None, "{bad}");
            // The next offer is looked at, in the next header always.
            assert!(answer(&deflate, &[bad, "permessage-deflate"]).is_some(), "{bad}");
        }
    }
}

#[test]
fn the_first_acceptable_offer_is_accepted() {
    let shared = Deflate::shared();
    for headers in [
        &["foo, bar; baz=1; q=\"a,b;c\", permessage-deflate"][..],
        &["permessage-deflate; server_max_window_bits=8, permessage-deflate"],
        &["permessage-deflate; nonsense", "permessage-deflate; client_max_window_bits=\"1\\0\""],
        &[
            "permessage-deflate; client_max_window_bits=99 , , permessage-deflate;\tclient_max_window_bits=\"9\"",
        ],
        &["foo; p=\"\\\", permessage-deflate; server_max_window_bits=9\"", "permessage-deflate"],
    ] {
        assert_eq!(answer(&shared, headers).as_deref(), Some(SHARED), "{headers:?}");
    }
    let two = "permessage-deflate; server_max_window_bits=10, permessage-deflate; server_max_window_bits=12";
    let agreed = negotiate([two.as_bytes()], &shared).unwrap();
    assert_eq!(agreed.ours, Context { window_bits: 10, takeover: false });
    assert!(size_of::<Agreed>() <= 8);
}

#[test]
fn a_client_offers_its_settings() {
    assert_eq!(offer(&Deflate::off()), None);
    assert_eq!(
        offer(&Deflate::shared()).unwrap(),
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits"
    );
    assert_eq!(offer(&Deflate::dedicated(15)).unwrap(), "permessage-deflate; client_max_window_bits");
    assert_eq!(
        offer(&Deflate::dedicated(10)).unwrap(),
        "permessage-deflate; server_max_window_bits=10; client_max_window_bits=10"
    );
}

fn response(deflate: &Deflate, headers: &[&str]) -> Result<Option<(Context, Context)>, DeflateError> {
    accept_response(headers.iter().map(|h| h.as_bytes()), deflate).map(|a| a.map(|a| (a.ours, a.theirs)))
}

#[test]
fn a_client_accepts_responses_that_match_its_offer() {
    let context = |window_bits, takeover| Context { window_bits, takeover };
    for (deflate, header, ours, theirs) in [
        (Deflate::shared(), SHARED, context(15, false), context(15, false)),
        (
            Deflate::shared(),
            "permessage-deflate; server_no_context_takeover; client_max_window_bits=\"9\"",
            context(9, false),
            context(15, false),
        ),
        (Deflate::dedicated(15), "permessage-deflate", context(15, true), context(15, true)),
        (Deflate::dedicated(15), SHARED, context(15, false), context(15, false)),
        (
            Deflate::dedicated(15),
            "permessage-deflate; server_max_window_bits=8; client_max_window_bits=10",
            context(10, true),
            context(8, true),
        ),
        (
            Deflate::dedicated(11),
            "permessage-deflate; server_max_window_bits=10; client_no_context_takeover",
            context(11, false),
            context(10, true),
        ),
    ] {
        assert_eq!(response(&deflate, &[header]), Ok(Some((ours, theirs))), "{header}");
    }
    assert_eq!(response(&Deflate::shared(), &[]), Ok(None));
    assert_eq!(response(&Deflate::off(), &["", " , "]), Ok(None));
}

#[test]
fn a_client_refuses_responses_beyond_its_offer() {
    use DeflateError::*;
    use Parameter::*;
    let d11 = Deflate::dedicated(11);
    for (deflate, headers, error) in [
        (Deflate::off(), &[SHARED][..], UnknownExtension),
        (d11, &["foo"], UnknownExtension),
        (Deflate::shared(), &[SHARED, SHARED], ChosenTwice),
        (Deflate::shared(), &[SHARED, "foo"], UnknownExtension),
        (Deflate::shared(), &["permessage-deflate"], Missing(ServerNoContextTakeover)),
        (d11, &["permessage-deflate"], Missing(ServerMaxWindowBits)),
        (d11, &["permessage-deflate; server_max_window_bits=12"], NotOffered(ServerMaxWindowBits)),
        (
            d11,
            &["permessage-deflate; server_max_window_bits=11; client_max_window_bits=12"],
            NotOffered(ClientMaxWindowBits),
        ),
        (
            d11,
            &["permessage-deflate; server_max_window_bits=11; client_max_window_bits"],
            InvalidValue(ClientMaxWindowBits),
        ),
        (
            d11,
            &["permessage-deflate; server_max_window_bits=11; client_max_window_bits=8"],
            WindowTooSmall(ClientMaxWindowBits),
        ),
        (d11, &["permessage-deflate; server_max_window_bits=07"], InvalidValue(ServerMaxWindowBits)),
        (d11, &["permessage-deflate; server_max_window_bits"], InvalidValue(ServerMaxWindowBits)),
        (d11, &["permessage-deflate; x"], UnknownParameter),
        (d11, &["permessage-deflate;"], Malformed),
        (
            d11,
            &["permessage-deflate; server_max_window_bits=9; server_max_window_bits=9"],
            DuplicateParameter(ServerMaxWindowBits),
        ),
    ] {
        assert_eq!(response(&deflate, headers), Err(error), "{headers:?}");
    }
}

#[test]
fn client_and_server_agree_for_all_settings() {
    let all: Vec<Deflate> = [Deflate::shared()].into_iter().chain((9..=15).map(Deflate::dedicated)).collect();
    for client in &all {
        for server in &all {
            let offered = offer(client).unwrap();
            let at_server = negotiate([offered.as_bytes()], server).unwrap();
            let mut said = String::new();
            at_server.write_response(&mut said).unwrap();
            let at_client = accept_response([said.as_bytes()], client).unwrap().unwrap();
            assert_eq!(at_client.theirs.takeover, at_server.ours.takeover, "{offered} / {said}");
            assert_eq!(at_client.ours.takeover, at_server.theirs.takeover, "{offered} / {said}");
            assert!(at_client.theirs.window_bits >= at_server.ours.window_bits, "{offered} / {said}");
            assert!(at_client.ours.window_bits <= at_server.theirs.window_bits, "{offered} / {said}");
            // No side pays more than it said.
            for (end, set) in [(at_client, client), (at_server, server)] {
                for context in [end.ours, end.theirs].into_iter().filter(|c| c.takeover) {
                    assert!(context.window_bits <= set.window().unwrap());
                }
            }
        }
    }
}

#[test]
fn settings_out_of_range_are_refused() {
    for bits in 0..=u8::MAX {
        let good = (9..=15).contains(&bits);
        let expected = if good { Ok(()) } else { Err(InvalidDeflate::Window { bits }) };
        assert_eq!(Deflate::dedicated(bits).check(), expected);
    }
    assert_eq!(Deflate::shared().level(9).check(), Ok(()));
    assert_eq!(Deflate::shared().level(10).check(), Err(InvalidDeflate::Level { level: 10 }));
    assert_eq!(Deflate::default(), Deflate::off());
    let shared = Deflate::shared();
    assert!(!shared.compresses(1023) && shared.compresses(1024) && shared.threshold(0).compresses(0));
    assert!(!Deflate::off().threshold(0).compresses(1 << 20));
    let (deflater, least) = (Deflater::new(200, 200), Deflater::new(0, 0));
    assert_eq!((deflater.window_bits(), deflater.level(), least.window_bits()), (15, 9, 9));
}

// ---- for all inputs ----

/// Bytes that repeat themselves at distances around all windows.
fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let chunk = prop::collection::vec(any::<u8>(), 1..600);
    let message = (chunk, 0usize..8, any::<bool>()).prop_map(|(chunk, times, few)| {
        let chunk: Vec<u8> = if few { chunk.iter().map(|b| b'a' + b % 5).collect() } else { chunk };
        chunk.repeat(times)
    });
    prop::collection::vec(message, 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn messages_survive_compression_and_inflation(
        messages in payloads(),
        window_bits in 9u8..=15,
        level in 0u8..=9,
        takeover: bool,
    ) {
        let (mut deflater, mut inflater) = (Deflater::new(window_bits, level), Inflater::new());
        let (mut ours, mut theirs) = (History::new(window_bits), History::new(window_bits));
        for message in messages.iter().chain(&messages) {
            let bytes = compress(&mut deflater, message, takeover.then_some(&mut ours));
            prop_assert_eq!(&inflate(&mut inflater, &bytes, takeover.then_some(&mut theirs)).unwrap(), message);
            prop_assert!(bytes.len() <= message.len() + message.len() / 8 + message.len() / 64 + 24);
        }
    }

    #[test]
    fn connections_with_context_takeover_share_codecs_in_any_order(
        messages in payloads(),
        order in prop::collection::vec(0usize..3, 1..30),
    ) {
        let (mut deflater, mut inflater) = (Deflater::new(10, 6), Inflater::new());
        let mut connections: Vec<_> = (0..3).map(|_| (History::new(10), History::new(10))).collect();
        for (i, who) in order.into_iter().enumerate() {
            let message = &messages[i % messages.len()];
            let (ours, theirs) = &mut connections[who];
            let bytes = compress(&mut deflater, message, Some(ours));
            prop_assert_eq!(&inflate(&mut inflater, &bytes, Some(theirs)).unwrap(), message);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic_the_inflater(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..6),
        text: bool,
        limit in 0usize..5000,
    ) {
        let (mut inflater, mut history) = (Inflater::new(), History::new(9));
        let kind = if text { Kind::Text } else { Kind::Binary };
        for payload in &payloads {
            let mut out = vec![1, 2, 3];
            match inflater.inflate(payload, Some(&mut history), kind, limit, &mut out) {
                Ok(()) => prop_assert!(out.len() <= limit + 3),
                Err(_) => prop_assert_eq!(out, [1, 2, 3]),
            }
        }
        prop_assert_eq!(inflate(&mut inflater, &HELLO, None).unwrap(), b"Hello");
    }

    #[test]
    fn a_changed_byte_never_panics_the_inflater(message in payloads(), at: prop::sample::Index, byte: u8) {
        let message = message.concat();
        let mut bytes = compress(&mut Deflater::new(12, 6), &message, None);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let mut inflater = Inflater::new();
        let _ = inflate(&mut inflater, &bytes, None);
        prop_assert_eq!(inflate(&mut inflater, &HELLO, None).unwrap(), b"Hello");
    }

    #[test]
    fn arbitrary_headers_never_panic_the_parser(
        noise: Vec<u8>,
        words in prop::collection::vec(prop::sample::select(vec![
            "permessage-deflate", "server_no_context_takeover", "client_no_context_takeover",
            "server_max_window_bits", "client_max_window_bits", "=", ";", ",", " ", "\"", "\\", "8", "9", "10", "15",
        ]), 0..24),
    ) {
        let words = words.concat();
        for deflate in [Deflate::shared(), Deflate::dedicated(11)] {
            for values in [[&noise[..], words.as_bytes()], [words.as_bytes(), &noise]] {
                let _ = accept_response(values, &deflate);
                if let Some(agreed) = negotiate(values, &deflate) {
                    prop_assert!((9..=15).contains(&agreed.ours.window_bits));
                    prop_assert!((8..=15).contains(&agreed.theirs.window_bits));
                }
            }
        }
    }
}

#[test]
fn parsing_extensions_takes_linear_time() {
    // Each pass is linear, so a header of the largest size is read in no time; this would take minutes if it were not.
    let many = ",".repeat(1 << 20);
    assert_eq!(answer(&Deflate::shared(), &[&many]), None);
    let many = "permessage-deflate; client_max_window_bits=7,".repeat(1 << 15);
    assert_eq!(answer(&Deflate::shared(), &[&many]), None);
    let many = format!("permessage-deflate{}", "; \"".repeat(1 << 19));
    assert_eq!(answer(&Deflate::shared(), &[&many]), None);
}
