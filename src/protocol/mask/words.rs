//! Masking with the machine's ordinary registers, on every platform, in safe code.
//!
//! Short payloads end here even where vector units exist: two overlapping words cover every length between one word
//! and two, so there is no loop over odd bytes. Words are read and written little-endian whatever the machine, which
//! makes the key's first byte the lowest everywhere.

use super::span::{Span, turned};

/// The longest payload [`short`] takes; longer ones go through the dispatcher.
///
/// Measured (Zen 5, AVX-512): at 64 bytes 2.5 ns here against 3.1 through the dispatcher. Longer needs a loop here, and
/// words lose: at 65 bytes 4.1 against 3.2, at 125 bytes 4.7 against 3.7.
pub(super) const SHORT: usize = 64;

/// Masks a span of any length.
pub(super) fn run(mut span: Span<'_>, key: u32) {
    let mut at = 0;
    while span.len() - at > SHORT {
        // Blocks of whole keys: the key is not rotated.
        block(&mut span, at, key);
        at += SHORT;
    }
    short(span.skip(at), key);
}

/// Masks [`SHORT`] bytes; the compiler makes vectors of it where the platform always has them.
#[inline(always)]
fn block(span: &mut Span<'_>, at: usize, key: u32) {
    let bytes: [u8; SHORT] = span.load(at);
    let mut masked = [0; SHORT];
    for (to, from) in masked.as_chunks_mut::<8>().0.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *to = xor8(*from, key);
    }
    span.store(at, masked);
}

/// Masks a span of at most [`SHORT`] bytes without a loop.
#[inline(always)]
pub(super) fn short(mut span: Span<'_>, key: u32) {
    let len = span.len();
    debug_assert!(len <= SHORT);
    // In place the halves may overlap, so each branch loads all it needs before it stores anything.
    if len >= 32 {
        let back = turned(key, len);
        let (a, b) = (span.load(0), span.load(16));
        let (c, d) = (span.load(len - 32), span.load(len - 16));
        span.store(0, xor16(a, key));
        span.store(16, xor16(b, key));
        span.store(len - 32, xor16(c, back));
        span.store(len - 16, xor16(d, back));
    } else if len >= 16 {
        let (a, b) = (span.load(0), span.load(len - 16));
        span.store(0, xor16(a, key));
        span.store(len - 16, xor16(b, turned(key, len)));
    } else if len >= 8 {
        let (a, b) = (span.load(0), span.load(len - 8));
        span.store(0, xor8(a, key));
        span.store(len - 8, xor8(b, turned(key, len)));
    } else if len >= 4 {
        let (a, b) = (span.load(0), span.load(len - 4));
        span.store(0, xor4(a, key));
        span.store(len - 4, xor4(b, turned(key, len)));
    } else if len >= 1 {
        // First, middle and last are all bytes of 1, 2 or 3; where they coincide, the last store is the right one.
        let [k0, k1, k2, _] = key.to_le_bytes();
        let [[a], [b], [c]] = [span.load(0), span.load(len / 2), span.load(len - 1)];
        span.store(0, [a ^ k0]);
        span.store(len / 2, [b ^ k1]);
        span.store(len - 1, [c ^ [k0, k1, k2][len.min(3) - 1]]);
    }
}

#[inline(always)]
fn xor4(bytes: [u8; 4], key: u32) -> [u8; 4] {
    (u32::from_le_bytes(bytes) ^ key).to_le_bytes()
}

#[inline(always)]
fn xor8(bytes: [u8; 8], key: u32) -> [u8; 8] {
    // The factor repeats the key in both halves.
    (u64::from_le_bytes(bytes) ^ (u64::from(key) * 0x1_0000_0001)).to_le_bytes()
}

#[inline(always)]
fn xor16(bytes: [u8; 16], key: u32) -> [u8; 16] {
    let twice = u128::from(key) * 0x1_0000_0001;
    (u128::from_le_bytes(bytes) ^ (twice << 64 | twice)).to_le_bytes()
}
