//! JSON as servers push it, different for each seed, to be compressed.

use std::fmt::Write as _;

/// A list of records, cut at `len` bytes.
pub(crate) fn json(len: usize, seed: u64) -> Vec<u8> {
    const NAMES: [&str; 8] =
        ["tenor", "bourdon", "treble", "angelus", "sanctus", "prayer", "curfew", "vespers"];
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    let mut text = String::from("{\"type\":\"snapshot\",\"items\":[");
    while text.len() < len {
        let (a, b) = (next(), next());
        let name = |shift: u32| NAMES[(b >> shift) as usize % 8];
        write!(
            text,
            "{{\"id\":{},\"name\":\"{} {}\",\"price\":{}.{:02},\"active\":{},\"at\":\"2026-05-{:02}T{:02}:{:02}:{:02}Z\"}},",
            a % 1_000_000,
            name(3),
            name(9),
            (a >> 20) % 10_000,
            (a >> 40) % 100,
            b & 1 == 1,
            1 + (b >> 12) % 28,
            (b >> 20) % 24,
            (b >> 30) % 60,
            (b >> 40) % 60,
        )
        .expect("a string takes everything");
    }
    text.truncate(len);
    text.into_bytes()
}
