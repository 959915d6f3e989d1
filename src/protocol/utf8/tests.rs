//! Every way to validate, against the standard library: all that can be wrong, at every place where a way may cut.

use super::*;
use proptest::prelude::*;
use std::str::from_utf8;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const GUARD: u8 = 0xa5;

fn in_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(), InvalidUtf8> {
    let mut v = Validator::default();
    for p in pieces {
        v.feed(p)?;
    }
    v.finish()
}

/// Feeds one masked piece, between guards, and sees that nothing but the piece was unmasked.
#[track_caller]
fn feed_masked(
    v: &mut Validator,
    isa: Isa,
    plain: &[u8],
    key: [u8; 4],
    phase: usize,
) -> Result<(), InvalidUtf8> {
    let mut buf = vec![GUARD; plain.len() + 128];
    let range = 64..64 + plain.len();
    mask::copy(plain, &mut buf[range.clone()], key, phase);
    let result = v.unmask_and_feed_by(isa, &mut buf[range.clone()], key, phase);
    assert!(buf[..64].iter().chain(&buf[range.end..]).all(|b| *b == GUARD), "{isa:?}: wrote outside");
    if result.is_ok() {
        assert!(buf[range] == *plain, "{isa:?}: {} bytes are not unmasked, phase {phase}", plain.len());
    }
    result
}

#[track_caller]
fn whole_masked(isa: Isa, plain: &[u8]) -> bool {
    let mut v = Validator::default();
    feed_masked(&mut v, isa, plain, KEY, 0).is_ok() && v.finish().is_ok()
}

/// As [`whole_masked`], but quick: no guards, one buffer.
fn whole_in(buf: &mut [u8], isa: Isa, plain: &[u8]) -> bool {
    buf.copy_from_slice(plain);
    let mut v = Validator::default();
    v.unmask_and_feed_by(isa, buf, [0; 4], 0).is_ok() && v.finish().is_ok()
}

/// Text of at least `len` bytes in which every length of character follows every other, and stretches of ASCII.
fn text(len: usize) -> String {
    let some = "naïve café, 消息推送🔔é🔔消é消z🔔z, and so on for a while in nothing but ASCII, which goes on; пример ";
    some.repeat(len / some.len() + 1)
}

/// The first and last byte of every class that matters to UTF-8.
const EDGES: [u8; 26] = [
    0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE,
    0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xF7, 0xF8, 0xFF,
];

/// One of each kind of mistake, and characters at the limits of each length.
const SAMPLES: [&[u8]; 36] = [
    b"\x80",
    b"\xBF",
    b"\xC0\x80",
    b"\xC1\xBF",
    b"\xC2",
    b"\xC2\x80",
    b"\xDF\xBF",
    b"\xDF\xBF\x80",
    b"\xC3\xC3\xA9",
    b"\xE0\x80\x80",
    b"\xE0\x9F\xBF",
    b"\xE0\xA0",
    b"\xE0\xA0\x80",
    b"\xE1\x80",
    b"\xE2\x82\xAC\x80",
    b"\xE2\x82\xE2\x82\xAC",
    b"\xED\x9F\xBF",
    b"\xED\xA0\x80",
    b"\xED\xBF\xBF",
    b"\xEE\x80\x80",
    b"\xEF\xBF\xBF",
    b"\xEF\xBF",
    b"\xF0\x80\x80\x80",
    b"\xF0\x8F\xBF\xBF",
    b"\xF0\x90\x80",
    b"\xF0\x90\x80\x80",
    b"\xF0\x9F\x94\x94\x80",
    b"\xF0\x9F\xF0\x9F\x94\x94",
    b"\xF1",
    b"\xF3\xBF\xBF\xBF",
    b"\xF4\x8F\xBF\xBF",
    b"\xF4\x90\x80\x80",
    b"\xF5\x80\x80\x80",
    b"\xF8\x88\x80\x80\x80",
    b"\xFE",
    b"\xFF\xFF",
];

#[test]
fn a_character_cut_anywhere_is_valid() {
    let text = "aé消🔔z".as_bytes();
    for a in 0..=text.len() {
        for b in a..=text.len() {
            assert_eq!(in_pieces([&text[..a], &text[a..b], &text[b..]]), Ok(()), "{a} {b}");
        }
    }
    assert_eq!(in_pieces(text.chunks(1)), Ok(()));
}

#[test]
fn invalid_utf8_is_refused_at_its_first_byte() {
    for bad in [&[0xF4, 0x90][..], &[0xED, 0xA0], &[0xC0], &[0xE0, 0x80], &[0xFF], &[0x80], &[0xF5]] {
        let mut v = Validator::default();
        assert_eq!(v.feed(bad), Err(InvalidUtf8), "{bad:x?}");
        let mut v = Validator::default();
        let r = bad.iter().try_for_each(|b| v.feed(&[*b]));
        assert_eq!(r, Err(InvalidUtf8), "{bad:x?} byte by byte");
        for isa in Isa::available() {
            for len in [FUSED, FUSED + 1, 127, 128, 129, 191, 192, 193, 256, 257] {
                let mut long = vec![b'a'; len - bad.len()];
                long.extend_from_slice(bad);
                let mut v = Validator::default();
                assert_eq!(
                    feed_masked(&mut v, isa, &long, KEY, 0),
                    Err(InvalidUtf8),
                    "{isa:?} {len} {bad:x?}"
                );
            }
        }
    }
}

#[test]
fn a_message_ending_within_a_character_is_refused() {
    assert_eq!(in_pieces([&[0xE2, 0x82][..]]), Err(InvalidUtf8));
    for len in [2, FUSED, 127, 128, 192, 256, 1000] {
        let mut bytes = vec![b'a'; len - 2];
        bytes.extend_from_slice(&[0xE2, 0x82]);
        mask::apply(&mut bytes, KEY, 0);
        assert_eq!(unmask_and_validate(&mut bytes, KEY), Err(InvalidUtf8), "{len}");
    }
}

#[test]
fn all_byte_pairs_agree_with_the_standard_library() {
    let mut plain = [b'a'; 130];
    let mut buf = plain;
    for pair in 0..=u16::MAX {
        // Across the edge of a block of 64 and of 32.
        plain[63..65].copy_from_slice(&pair.to_be_bytes());
        let want = from_utf8(&plain).is_ok();
        for isa in [Isa::Words, Isa::Avx2, Isa::Avx512] {
            assert_eq!(whole_in(&mut buf, isa, &plain), want, "{isa:?} {pair:x}");
        }
    }
}

#[test]
fn four_byte_edge_cases_agree_with_the_standard_library() {
    // Miri takes a sample.
    let step = if cfg!(miri) { 9973 } else { 1 };
    let mut plain = [b'a'; 130];
    let mut buf = plain;
    let n = EDGES.len();
    for i in (0..n.pow(4)).step_by(step) {
        let four = [EDGES[i % n], EDGES[i / n % n], EDGES[i / n.pow(2) % n], EDGES[i / n.pow(3)]];
        // At every place across the edge of a block, in turn.
        let at = 60 + i % 5;
        plain[60..69].fill(b'a');
        plain[at..at + 4].copy_from_slice(&four);
        let want = from_utf8(&plain).is_ok();
        for isa in [Isa::Avx2, Isa::Avx512] {
            assert_eq!(whole_in(&mut buf, isa, &plain), want, "{isa:?} {four:x?} at {at}");
        }
    }
}

#[test]
fn every_utf8_error_is_detected_at_every_position() {
    // Lengths that end in groups, in blocks and in parts of them.
    let lengths = [FUSED, 65, 96, 127, 128, 129, 191, 256, 300, 575];
    let (lengths, step) = if cfg!(miri) { (&[FUSED, 191][..], 31) } else { (&lengths[..], 1) };
    for &len in lengths {
        for (fill, width) in [("a", 1), ("é", 2), ("消", 3), ("🔔", 4)] {
            let filled = fill.repeat(len);
            for at in (0..=len).step_by(width * step) {
                for sample in SAMPLES {
                    // What is left behind the sample ends with ASCII where no whole character fits.
                    let mut plain = filled.as_bytes()[..at].to_vec();
                    plain.extend_from_slice(sample);
                    let left = len.saturating_sub(plain.len());
                    plain.extend_from_slice(&filled.as_bytes()[..left / width * width]);
                    plain.resize(len.max(plain.len()), b'.');
                    let want = from_utf8(&plain).is_ok();
                    for isa in [Isa::Avx2, Isa::Avx512] {
                        assert_eq!(whole_masked(isa, &plain), want, "{isa:?} {len} {fill} {at} {sample:x?}");
                    }
                }
            }
        }
    }
}

#[test]
fn text_cut_between_differently_masked_pieces_is_validated() {
    let plain = text(400);
    let plain = plain.as_bytes();
    for cut in (0..=plain.len()).step_by(if cfg!(miri) { 37 } else { 1 }) {
        for isa in Isa::available() {
            for (first, second, phase) in [(KEY, [9, 8, 7, 6], 0), (KEY, KEY, cut)] {
                let mut v = Validator::default();
                assert_eq!(feed_masked(&mut v, isa, &plain[..cut], first, 0), Ok(()), "{isa:?} {cut}");
                assert_eq!(feed_masked(&mut v, isa, &plain[cut..], second, phase), Ok(()), "{isa:?} {cut}");
                assert_eq!(v.finish(), Ok(()), "{isa:?} {cut}");
            }
            // Without its first byte, the second piece goes on with another text than the first began.
            if cut < plain.len() {
                let pieces = [&plain[..cut], &plain[cut + 1..]];
                let mut v = Validator::default();
                let r = pieces
                    .iter()
                    .try_for_each(|p| feed_masked(&mut v, isa, p, KEY, 0))
                    .and_then(|()| v.finish());
                assert_eq!(r.is_ok(), from_utf8(&pieces.concat()).is_ok(), "{isa:?} without {cut}");
            }
        }
    }
}

#[test]
fn every_length_and_phase_is_unmasked() {
    let plain = text(700);
    for len in (0..700).step_by(if cfg!(miri) { 83 } else { 1 }) {
        let plain = &plain.as_bytes()[..len];
        for isa in Isa::available() {
            for phase in 0..4 {
                let mut v = Validator::default();
                assert_eq!(feed_masked(&mut v, isa, plain, KEY, phase), Ok(()), "{isa:?} {len} {phase}");
            }
            assert_eq!(whole_masked(isa, plain), from_utf8(plain).is_ok(), "{isa:?} {len}");
        }
    }
}

#[test]
fn two_pass_validation_carries_a_character_across_steps() {
    let mut plain = "a".repeat(STEP - 1);
    plain.push_str("消息");
    plain.push_str(&text(STEP));
    for isa in [Isa::Words, Isa::Avx2, Isa::Avx512] {
        assert!(whole_masked(isa, plain.as_bytes()), "{isa:?}");
        let mut broken = plain.clone().into_bytes();
        broken[STEP] = b'.';
        assert!(!whole_masked(isa, &broken), "{isa:?}");
    }
}

/// Text with, at most, a few bytes wrong; long enough for groups of blocks.
fn nearly_text() -> impl Strategy<Value = Vec<u8>> {
    let chars = prop_oneof![
        Just("plain text, and enough of it that there are blocks without anything else, ".to_owned()),
        "[a-zé-ž]{0,40}",
        "[一-三가-각]{0,40}",
        "\\PC{0,40}",
        "[😀-🙏]{0,20}",
    ];
    let wrong = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (proptest::collection::vec(chars, 0..24), wrong, any::<bool>()).prop_map(|(chars, wrong, valid)| {
        let mut bytes = chars.concat().into_bytes();
        if !valid && !bytes.is_empty() {
            for (at, byte) in wrong {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        bytes
    })
}

proptest! {
    #[test]
    fn pieces_agree_with_the_whole(bytes: Vec<u8>, cuts: Vec<u8>, text: String, as_text: bool) {
        let bytes = if as_text { text.into_bytes() } else { bytes };
        let mut rest = &bytes[..];
        let mut pieces = Vec::new();
        for c in cuts {
            let (a, b) = rest.split_at(usize::from(c % 7).min(rest.len()));
            pieces.push(a);
            rest = b;
        }
        pieces.push(rest);
        prop_assert_eq!(in_pieces(pieces).is_ok(), from_utf8(&bytes).is_ok());
    }

    #[test]
    fn one_pass_agrees_with_two_and_with_the_standard_library(
        bytes in nearly_text(),
        pieces in proptest::collection::vec((1_usize..600, any::<[u8; 4]>(), any::<usize>()), 1..12),
    ) {
        for isa in [Isa::Avx2, Isa::Avx512] {
            let (mut one, mut two) = (Validator::default(), Validator::default());
            let mut rest = &bytes[..];
            let mut refused = false;
            for (len, key, phase) in pieces.iter().cycle() {
                let (piece, after) = rest.split_at((*len).min(rest.len()));
                let result = feed_masked(&mut one, isa, piece, *key, *phase);
                // Not later and not earlier than in two passes.
                prop_assert_eq!(result, two.feed(piece));
                refused = result.is_err();
                rest = after;
                if refused || rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(!refused && one.finish().is_ok(), from_utf8(&bytes).is_ok());
            prop_assert_eq!(basic::from_utf8(&bytes).is_ok(), from_utf8(&bytes).is_ok());
            prop_assert_eq!(whole_masked(isa, &bytes), from_utf8(&bytes).is_ok());
        }
    }
}
