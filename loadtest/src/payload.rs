//! What messages carry: made from a sender and a sequence number, so that a receiver can check every byte of every
//! message without having kept it.
//!
//! ```text
//!  +--------- stamp, 8 bytes ---------+---------------- body ----------------+
//!  | 20 bits sender, 28 bits sequence | a window of the pattern, chosen by   |
//!  | as eight ASCII characters        | both numbers; text ends in full stops |
//!  +----------------------------------+--------------------------------------+
//! ```
//!
//! Messages shorter than a stamp are body only. The pattern is made once for a run: random bytes, or text in groups
//! of four bytes (ASCII, two-, three- and four-byte characters) that can be cut at any group.

use campanile::protocol::{Kind, mask};

/// Bytes of the stamp.
pub(crate) const STAMP: usize = 8;

/// Senders that fit in a stamp.
pub(crate) const MAX_SENDERS: usize = 1 << 20;

/// Sequence numbers wrap here.
const SEQUENCE_BITS: u32 = 28;
const SEQUENCE_MASK: u32 = (1 << SEQUENCE_BITS) - 1;

/// Windows of the pattern, four bytes apart: enough that neighbouring messages differ, few enough to stay in the
/// first-level cache.
const WINDOWS: usize = 256;

/// Bodies up to this length are compared without a call.
const SHORT: usize = 32;

/// Characters of one, two, three and four bytes, every group four bytes long.
const TEXT: [&str; 12] =
    ["hell", "o, w", "rld ", "éé", "naïf", "…z", "消.", "息 ", "€1", "😀", "{\"op", "ж, z"];

/// How a received message compares with the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Byte for byte.
    Same,
    /// A later message of the same sender: so many are missing before it.
    Gap(u32),
    /// An earlier message again, or too late.
    Again,
    /// Neither.
    Differs,
}

/// The messages of a run.
#[derive(Debug)]
pub(crate) struct Payloads {
    kind: Kind,
    min: usize,
    /// How many sizes there are beyond the smallest.
    spread: usize,
    pattern: Vec<u8>,
}

impl Payloads {
    /// Messages of `min` to `max` bytes.
    pub(crate) fn new(kind: Kind, min: usize, max: usize, rng: &mut fastrand::Rng) -> Self {
        let len = max + WINDOWS * 4 + 4;
        let mut pattern = Vec::with_capacity(len);
        match kind {
            Kind::Binary => pattern.extend(std::iter::repeat_with(|| rng.u8(..)).take(len)),
            Kind::Text => {
                while pattern.len() < len {
                    let group = TEXT[rng.usize(..TEXT.len())].as_bytes();
                    pattern.extend_from_slice(group);
                    pattern.resize(pattern.len().next_multiple_of(4), b'.');
                }
            }
        }
        Self { kind, min, spread: max - min, pattern }
    }

    /// Text or binary.
    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Bytes of this message.
    #[inline]
    pub(crate) fn len(&self, sender: u32, sequence: u32) -> usize {
        if self.spread == 0 {
            return self.min;
        }
        // Fibonacci hashing of both numbers: any size of the range, the same on both ends.
        let hash = (u64::from(sender) << 32 | u64::from(sequence & SEQUENCE_MASK))
            .wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.min + (((hash >> 32) * (self.spread as u64 + 1)) >> 32) as usize
    }

    /// Writes this message's payload, masked, to a slice of its length.
    #[inline]
    pub(crate) fn write(&self, out: &mut [u8], key: [u8; 4], sender: u32, sequence: u32) {
        let key32 = u32::from_le_bytes(key);
        let body = match out.split_first_chunk_mut::<STAMP>() {
            // The stamp is two keys long: the body begins with the key's first byte again.
            Some((head, body)) => {
                let key64 = u64::from(key32) << 32 | u64::from(key32);
                *head = (stamp(sender, sequence) ^ key64).to_le_bytes();
                body
            }
            None => out,
        };
        let (same, stops) = self.body(body.len(), sender, sequence);
        let (front, end) = body.split_at_mut(same.len());
        mask::copy(same, front, key, 0);
        // Text's whole groups are four bytes long, so that this too begins with the key's first byte.
        for (byte, k) in end[..stops].iter_mut().zip(key) {
            *byte = b'.' ^ k;
        }
    }

    /// Compares a received payload with the message expected from this sender.
    #[inline]
    pub(crate) fn check(&self, payload: &[u8], sender: u32, sequence: u32) -> Verdict {
        let expected = self.len(sender, sequence);
        if payload.len() == expected {
            let mut body = payload;
            let mut stamped = true;
            if let Some((head, rest)) = payload.split_first_chunk::<STAMP>() {
                stamped = u64::from_le_bytes(*head) == stamp(sender, sequence);
                body = rest;
            }
            if stamped && self.is_body(body, sender, sequence) {
                return Verdict::Same;
            }
        }
        self.compare_by_stamp(payload, sender, sequence)
    }

    #[inline]
    fn is_body(&self, body: &[u8], sender: u32, sequence: u32) -> bool {
        let (same, stops) = self.body(body.len(), sender, sequence);
        let (front, end) = body.split_at(same.len());
        equal(front, same) && (stops == 0 || end == &b"..."[..stops])
    }

    /// What else it may be, if not what was expected.
    #[cold]
    fn compare_by_stamp(&self, payload: &[u8], sender: u32, sequence: u32) -> Verdict {
        let Some((from, number)) = read_stamp(payload) else { return Verdict::Differs };
        let body = &payload[STAMP..];
        if from != sender || payload.len() != self.len(from, number) || !self.is_body(body, from, number) {
            return Verdict::Differs;
        }
        match number.wrapping_sub(sequence) & SEQUENCE_MASK {
            0 => Verdict::Differs,
            ahead if ahead <= SEQUENCE_MASK / 2 => Verdict::Gap(ahead),
            _ => Verdict::Again,
        }
    }

    /// The body's part of the pattern, and the full stops behind it.
    #[inline]
    fn body(&self, len: usize, sender: u32, sequence: u32) -> (&[u8], usize) {
        let window = (sender.wrapping_mul(7).wrapping_add(sequence)) as usize % WINDOWS;
        let stops = if self.kind == Kind::Text { len % 4 } else { 0 };
        (&self.pattern[window * 4..][..len - stops], stops)
    }
}

/// Whether both, of the same length, are equal. Short ones are compared here: for those, the call of `memcmp` costs
/// more than the comparison.
#[inline]
fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() > SHORT {
        return a == b;
    }
    let (a_words, a_rest) = a.as_chunks::<4>();
    let (b_words, b_rest) = b.as_chunks::<4>();
    let mut differ = 0;
    for (x, y) in a_words.iter().zip(b_words) {
        differ |= u32::from_le_bytes(*x) ^ u32::from_le_bytes(*y);
    }
    for (x, y) in a_rest.iter().zip(b_rest) {
        differ |= u32::from(x ^ y);
    }
    differ == 0
}

/// Eight characters of six bits, from `0` (0x30) to `o` (0x6F).
#[inline]
fn stamp(sender: u32, sequence: u32) -> u64 {
    let x = u64::from(sender) << SEQUENCE_BITS | u64::from(sequence & SEQUENCE_MASK);
    // 48 bits: two of 24, four of 12, eight of 6, each in the middle of its lane
    let x = (x & 0xFF_FFFF) | (x >> 24) << 32;
    let x = (x & 0x0000_0FFF_0000_0FFF) | (x & 0x00FF_F000_00FF_F000) << 4;
    let x = (x & 0x003F_003F_003F_003F) | (x & 0x0FC0_0FC0_0FC0_0FC0) << 2;
    x + 0x3030_3030_3030_3030
}

/// Sender and sequence number of a stamped payload.
#[inline]
pub(crate) fn read_stamp(payload: &[u8]) -> Option<(u32, u32)> {
    let (head, _) = payload.split_first_chunk::<STAMP>()?;
    let x = u64::from_le_bytes(*head).wrapping_sub(0x3030_3030_3030_3030);
    if x & 0xC0C0_C0C0_C0C0_C0C0 != 0 {
        return None;
    }
    let x = (x & 0x003F_003F_003F_003F) | (x & 0x3F00_3F00_3F00_3F00) >> 2;
    let x = (x & 0x0000_0FFF_0000_0FFF) | (x & 0x0FFF_0000_0FFF_0000) >> 4;
    let x = (x & 0xFF_FFFF) | (x >> 32) << 24;
    Some(((x >> SEQUENCE_BITS) as u32, x as u32 & SEQUENCE_MASK))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payloads(kind: Kind, min: usize, max: usize) -> Payloads {
        Payloads::new(kind, min, max, &mut fastrand::Rng::with_seed(7))
    }

    fn message(p: &Payloads, sender: u32, sequence: u32) -> Vec<u8> {
        let (mut out, key) = (vec![0; p.len(sender, sequence)], [1, 2, 3, 250]);
        p.write(&mut out, key, sender, sequence);
        mask::apply(&mut out, key, 0);
        out
    }

    #[test]
    fn a_stamp_is_ascii_and_can_be_read_back() {
        for (sender, sequence) in
            [(0, 0), (1, 2), (MAX_SENDERS as u32 - 1, SEQUENCE_MASK), (77_777, 123_456_789)]
        {
            let bytes = stamp(sender, sequence).to_le_bytes();
            assert!(bytes.is_ascii());
            assert_eq!(read_stamp(&bytes), Some((sender, sequence)));
        }
        assert_eq!(read_stamp(b"0000000"), None);
        assert_eq!(read_stamp(b"0000000\xff"), None);
    }

    #[test]
    fn text_is_text_at_every_length() {
        for len in 0..200 {
            let p = payloads(Kind::Text, len, len);
            for sequence in 0..20 {
                let m = message(&p, 3, sequence);
                assert_eq!(m.len(), len);
                assert!(std::str::from_utf8(&m).is_ok(), "{len} {sequence}");
                assert_eq!(p.check(&m, 3, sequence), Verdict::Same);
            }
        }
        let m = message(&payloads(Kind::Text, 500, 500), 0, 0);
        assert!(!m.is_ascii(), "other characters are in it");
    }

    #[test]
    fn sizes_cover_the_range_and_sender_and_receiver_agree() {
        let p = payloads(Kind::Binary, 5, 40);
        let mut seen = [false; 41];
        for sequence in 0..2000 {
            let m = message(&p, 9, sequence);
            seen[m.len()] = true;
            assert_eq!(p.check(&m, 9, sequence), Verdict::Same);
        }
        assert!(seen[5..].iter().all(|&s| s) && !seen[..5].iter().any(|&s| s));
    }

    #[test]
    fn loss_repetition_and_damage_are_reported_separately() {
        for kind in [Kind::Text, Kind::Binary] {
            let p = payloads(kind, 50, 90);
            assert_eq!(p.check(&message(&p, 1, 8), 1, 5), Verdict::Gap(3));
            assert_eq!(p.check(&message(&p, 1, 4), 1, 5), Verdict::Again);
            assert_eq!(p.check(&message(&p, 2, 5), 1, 5), Verdict::Differs);
            let good = message(&p, 1, 5);
            for i in 0..good.len() {
                let mut bad = good.clone();
                bad[i] ^= 0x80;
                assert_eq!(p.check(&bad, 1, 5), Verdict::Differs, "{i}");
            }
            assert_eq!(p.check(&good[..good.len() - 1], 1, 5), Verdict::Differs);
        }
        let wrapped = payloads(Kind::Binary, 20, 20);
        assert_eq!(
            wrapped.check(&message(&wrapped, 1, SEQUENCE_MASK + 1), 1, SEQUENCE_MASK),
            Verdict::Gap(1)
        );
    }

    #[test]
    fn messages_without_room_for_a_stamp_are_checked_by_their_content() {
        let p = payloads(Kind::Binary, 6, 6);
        assert_eq!(p.check(&message(&p, 1, 5), 1, 5), Verdict::Same);
        assert_eq!(p.check(&message(&p, 1, 6), 1, 5), Verdict::Differs);
    }
}
