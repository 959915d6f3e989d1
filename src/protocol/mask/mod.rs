//! Masking, RFC 6455 section 5.3: every byte a client sends is XORed with a key of four bytes, and so is undone.
//!
//! [`apply`] works in place and [`copy`] on the way to another buffer; both take the phase, the offset of the first
//! byte within its frame's payload, so that a payload may come in pieces cut anywhere. Lengths and alignments are
//! free, and no byte outside the slices is touched. Short payloads are done on the spot with ordinary registers;
//! longer ones go to the widest vectors that pay on this CPU, an [`Isa`], chosen while running.
//!
//! There is one reference (`scalar`), one portable version (`words`), one algorithm for vectors (`span`) and one thin
//! file for each architecture. It makes up no keys, and knows no frames.

mod scalar;
mod span;
mod words;

#[cfg(target_arch = "aarch64")]
#[path = "aarch64.rs"]
mod arch;
#[cfg(target_arch = "x86_64")]
#[path = "x86.rs"]
mod arch;

use std::fmt;

use span::Span;
pub(super) use span::turned;

/// Masks or unmasks `buf` in place.
///
/// `phase` is the offset of `buf[0]` within its frame's payload; only its remainder modulo 4 counts.
///
/// ```
/// use campanile::protocol::mask;
///
/// // A payload in two pieces, cut after its fifth byte.
/// let (mut hel, mut lo) = (*b"Hello", *b", world");
/// mask::apply(&mut hel, [1, 2, 3, 4], 0);
/// mask::apply(&mut lo, [1, 2, 3, 4], 5);
///
/// let mut whole = *b"Hello, world";
/// mask::apply(&mut whole, [1, 2, 3, 4], 0);
/// assert_eq!([&hel[..], &lo[..]].concat(), whole);
/// ```
#[inline]
pub fn apply(buf: &mut [u8], key: [u8; 4], phase: usize) {
    dispatch(Span::in_place(buf), first(key, phase));
}

/// The same where there may be no mask: a server's frames have none, which is a key of zero. Passing over them would
/// cost a client a tenth of 1 MiB.
#[inline]
pub(super) fn unmask(payload: &mut [u8], key: [u8; 4], phase: usize) {
    if key != [0; 4] {
        apply(payload, key, phase);
    }
}

/// Masks or unmasks `src` on its way to `dst`, which is as long.
///
/// `phase` is as in [`apply`]. Lengths that differ are a mistake, caught in debug builds; otherwise the copy ends
/// where the shorter of the two does.
#[inline]
pub fn copy(src: &[u8], dst: &mut [u8], key: [u8; 4], phase: usize) {
    debug_assert_eq!(src.len(), dst.len());
    dispatch(Span::copy(src, dst), first(key, phase));
}

/// The key as a little-endian number, turned to where the first byte falls.
#[inline(always)]
pub(super) fn first(key: [u8; 4], phase: usize) -> u32 {
    turned(u32::from_le_bytes(key), phase)
}

#[inline(always)]
fn dispatch(span: Span<'_>, key: u32) {
    if span.len() <= words::SHORT { words::short(span, key) } else { long(span, key) }
}

/// Kept out of line, so that what callers inline is the short path and one call. Inlining this too saves 0.3 ns.
#[inline(never)]
fn long(span: Span<'_>, key: u32) {
    Isa::chosen().run(span, key);
}

/// A way to mask. [`apply`] and [`copy`] choose by themselves; this is for tests and benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Byte by byte: the reference.
    Scalar,
    /// Ordinary registers, on every platform.
    Words,
    /// x86-64, 16 bytes at a time.
    Sse2,
    /// x86-64, 32 bytes at a time.
    Avx2,
    /// x86-64, 64 bytes at a time.
    Avx512,
    /// 64-bit ARM, 16 bytes at a time.
    Neon,
}

impl Isa {
    const ALL: [Self; 6] = [Self::Scalar, Self::Words, Self::Sse2, Self::Avx2, Self::Avx512, Self::Neon];

    /// Those this CPU has, the plainest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The one [`apply`] and [`copy`] use for all but short payloads.
    ///
    /// The CPU is asked once for the life of the process; from then on this is a load and a test.
    #[inline]
    pub fn chosen() -> Self {
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        return arch::best();
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        Self::Words
    }

    /// Masks as [`apply`] does, at every length in this way; in [`Isa::Words`] if this CPU lacks it or `buf` is
    /// shorter than a register.
    pub fn apply(self, buf: &mut [u8], key: [u8; 4], phase: usize) {
        match self {
            Self::Scalar => scalar::apply(buf, key, phase),
            _ => self.run(Span::in_place(buf), first(key, phase)),
        }
    }

    /// Masks as [`copy`] does, at every length in this way; in [`Isa::Words`] if this CPU lacks it or `src` is
    /// shorter than a register.
    pub fn copy(self, src: &[u8], dst: &mut [u8], key: [u8; 4], phase: usize) {
        debug_assert_eq!(src.len(), dst.len());
        match self {
            Self::Scalar => scalar::copy(src, dst, key, phase),
            _ => self.run(Span::copy(src, dst), first(key, phase)),
        }
    }

    #[inline]
    fn is_available(self) -> bool {
        match self {
            Self::Scalar | Self::Words => true,
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            _ => arch::has(self),
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            _ => false,
        }
    }

    #[inline]
    fn run(self, span: Span<'_>, key: u32) {
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        arch::run(self, span, key);
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        words::run(span, key);
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Scalar => "scalar",
            Self::Words => "words",
            Self::Sse2 => "sse2",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    const GUARD: u8 = 0xa5;
    /// As long as the widest register, so that an access one register off shows.
    const MARGIN: usize = 64;

    /// Bytes of which no two neighbourhoods look alike.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    /// What the buffer must look like afterwards: guards, the masked bytes, guards.
    fn expected(plain: &[u8], start: usize, total: usize, phase: usize) -> Vec<u8> {
        let mut want = vec![GUARD; total];
        scalar::copy(plain, &mut want[start..start + plain.len()], KEY, phase);
        want
    }

    /// The same call by every way there is, the dispatcher's among them (`None`).
    fn ways() -> impl Iterator<Item = Option<Isa>> {
        Isa::available().map(Some).chain([None])
    }

    fn check(way: Option<Isa>, plain: &[u8], want: &[u8], buf: &mut [u8], start: usize, phase: usize) {
        let range = start..start + plain.len();
        buf.fill(GUARD);
        buf[range.clone()].copy_from_slice(plain);
        match way {
            Some(isa) => isa.apply(&mut buf[range.clone()], KEY, phase),
            None => apply(&mut buf[range.clone()], KEY, phase),
        }
        assert!(buf == want, "{way:?} in place: {} bytes at {start}, phase {phase}", plain.len());

        buf.fill(GUARD);
        match way {
            Some(isa) => isa.copy(plain, &mut buf[range], KEY, phase),
            None => copy(plain, &mut buf[range], KEY, phase),
        }
        assert!(buf == want, "{way:?} copy: {} bytes to {start}, phase {phase}", plain.len());
    }

    /// Where in `buf` an address falls on a multiple of 64, past the first margin.
    fn aligned(buf: &[u8]) -> usize {
        MARGIN + buf[MARGIN..].as_ptr().align_offset(64)
    }

    #[test]
    fn the_reference_masks_the_example_of_the_rfc() {
        // RFC 6455 section 5.7: a masked "Hello".
        let mut hello = *b"Hello";
        scalar::apply(&mut hello, KEY, 0);
        assert_eq!(hello, [0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }

    #[test]
    fn every_isa_agrees_with_scalar_at_every_length_alignment_and_phase() {
        // Miri takes a sample: it is some thousand times slower.
        let (lengths, step) = if cfg!(miri) { (140, 13) } else { (300, 1) };
        let plain = noise(lengths);
        let mut buf = vec![GUARD; lengths + 3 * MARGIN + 64];
        let base = aligned(&buf);
        for len in (0..=lengths).step_by(step) {
            for start in (base..base + 64).step_by(step) {
                for phase in 0..4 {
                    let want = expected(&plain[..len], start, buf.len(), phase);
                    for way in ways() {
                        check(way, &plain[..len], &want, &mut buf, start, phase);
                    }
                }
            }
        }
    }

    #[test]
    fn a_copy_does_not_depend_on_the_alignment_of_its_source() {
        let plain = noise(300 + 64);
        let mut buf = vec![GUARD; 300 + 3 * MARGIN];
        let base = aligned(&buf);
        for from in 0..64 {
            for len in [5, 33, 64, 65, 130, 299] {
                let plain = &plain[from..from + len];
                let want = expected(plain, base, buf.len(), 3);
                for way in ways() {
                    check(way, plain, &want, &mut buf, base, 3);
                }
            }
        }
    }

    #[test]
    fn every_isa_agrees_with_scalar_on_large_payloads() {
        let sizes: &[usize] = if cfg!(miri) { &[4099] } else { &[4096, 65_537, 131_071, 1 << 20] };
        for &len in sizes {
            let plain = noise(len);
            let mut buf = vec![GUARD; len + 3 * MARGIN];
            for (start, phase) in [(64, 0), (65, 1), (78, 2), (95, 3)] {
                let want = expected(&plain, start, buf.len(), phase);
                for way in ways() {
                    check(way, &plain, &want, &mut buf, start, phase);
                }
            }
        }
    }

    #[test]
    fn a_payload_cut_anywhere_is_masked_as_the_whole() {
        let plain = noise(200);
        let mut whole = plain.clone();
        apply(&mut whole, KEY, 0);
        for cut in 0..=plain.len() {
            let mut pieces = plain.clone();
            let (front, back) = pieces.split_at_mut(cut);
            apply(front, KEY, 0);
            apply(back, KEY, cut);
            assert!(pieces == whole, "cut at {cut}");
        }
    }

    #[test]
    fn only_the_phase_modulo_four_counts() {
        for phase in [usize::MAX, usize::MAX - 1, 1 << 40] {
            for way in ways() {
                let plain = noise(100);
                let want = expected(&plain, MARGIN, 100 + 2 * MARGIN, phase % 4);
                check(way, &plain, &want, &mut vec![0; want.len()], MARGIN, phase);
            }
        }
    }

    #[test]
    fn an_isa_the_cpu_lacks_still_masks() {
        let plain = noise(100);
        let want = expected(&plain, MARGIN, 100 + 2 * MARGIN, 1);
        for isa in Isa::ALL {
            check(Some(isa), &plain, &want, &mut vec![0; want.len()], MARGIN, 1);
        }
    }

    #[test]
    #[cfg(not(debug_assertions))]
    fn a_copy_between_unequal_slices_ends_with_the_shorter() {
        for way in ways() {
            for (from, to) in [(100, 70), (70, 100), (0, 9), (9, 0)] {
                let (plain, mut out) = (noise(from), vec![GUARD; to]);
                match way {
                    Some(isa) => isa.copy(&plain, &mut out, KEY, 0),
                    None => copy(&plain, &mut out, KEY, 0),
                }
                assert_eq!(out, expected(&plain[..from.min(to)], 0, to, 0));
            }
        }
    }

    #[test]
    fn the_chosen_isa_is_available() {
        assert!(Isa::available().any(|isa| isa == Isa::chosen()));
    }

    #[test]
    fn isa_names_are_padded_by_display() {
        assert_eq!(format!("{:>8}|{}", Isa::Avx2, Isa::Neon), "    avx2|neon");
    }
}
