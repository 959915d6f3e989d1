//! The formula of RFC 6455 section 5.3 as it is printed there: octet i of the data, exclusive or octet i modulo 4 of
//! the key.
//!
//! It is the reference implementation with which every other one is compared, so it stays naive: slices, one byte at a
//! time, no code shared with the others. Nothing calls it on the message path.

/// XORs `buf` in place; `phase` is where in the key the first byte falls.
pub(super) fn apply(buf: &mut [u8], key: [u8; 4], phase: usize) {
    for (i, byte) in buf.iter_mut().enumerate() {
        *byte ^= key[(phase % 4 + i) % 4];
    }
}

/// Writes `src` masked to `dst`, as far as the shorter of the two reaches.
pub(super) fn copy(src: &[u8], dst: &mut [u8], key: [u8; 4], phase: usize) {
    for (i, (from, to)) in src.iter().zip(dst).enumerate() {
        *to = *from ^ key[(phase % 4 + i) % 4];
    }
}
