//! The bytes to be masked, and the one algorithm all vector units share.
//!
//! A [`Span`] is a source and a destination of one length that are either the very same bytes (in place) or disjoint (a
//! copy). Its two constructors are the only way to get one, so that holds for as long as a span lives, and every
//! implementation is written once for both uses. Whole blocks that overlap stand in for tails of odd length:
//!
//! ```text
//!   head  ████████                            loaded first, stored last
//!   body      ░░░░████████████████████████    stores aligned, four vectors a pass, then one
//!   tail                          ████████    loaded first, stored last
//! ```
//!
//! In place that is right only because head and tail are loaded before anything is stored: no byte is masked twice.

// Allowed here, denied elsewhere: vector units load and store through pointers, and this type fences them in.
#![allow(unsafe_code)]
#![cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(dead_code))]

use std::marker::PhantomData;

/// Equally long source and destination: `src` is readable and `dst` writable for `len` bytes as long as `'a` lasts,
/// and the two are either identical or disjoint.
#[derive(Debug)]
pub(super) struct Span<'a> {
    src: *const u8,
    dst: *mut u8,
    len: usize,
    bytes: PhantomData<&'a mut [u8]>,
}

impl<'a> Span<'a> {
    /// Masks `buf` where it is.
    #[inline]
    pub(super) fn in_place(buf: &'a mut [u8]) -> Self {
        let dst = buf.as_mut_ptr();
        Self { src: dst, dst, len: buf.len(), bytes: PhantomData }
    }

    /// Masks from `src` to `dst`, as far as the shorter of the two reaches. They are disjoint because one of the two
    /// borrows is exclusive.
    #[inline]
    pub(super) fn copy(src: &'a [u8], dst: &'a mut [u8]) -> Self {
        let len = src.len().min(dst.len());
        Self { src: src.as_ptr(), dst: dst.as_mut_ptr(), len, bytes: PhantomData }
    }

    /// How many bytes there are to mask.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What is left after the first `at` bytes.
    #[inline]
    pub(super) fn skip(self, at: usize) -> Self {
        assert!(at <= self.len);
        // SAFETY: `at` is at most `len`, so both pointers stay within, or one past, the bytes they were made from.
        let (src, dst) = unsafe { (self.src.add(at), self.dst.add(at)) };
        Self { src, dst, len: self.len - at, bytes: PhantomData }
    }

    /// The `N` source bytes from `at` on. The check vanishes where the compiler knows the length's range.
    #[inline(always)]
    pub(super) fn load<const N: usize>(&self, at: usize) -> [u8; N] {
        assert!(at <= self.len && self.len - at >= N);
        // SAFETY: the assertion leaves `N` readable bytes at `src + at`, and an array of bytes has no alignment.
        unsafe { self.src.add(at).cast::<[u8; N]>().read() }
    }

    /// Writes `N` destination bytes from `at` on. The check vanishes as in [`Span::load`].
    #[inline(always)]
    pub(super) fn store<const N: usize>(&mut self, at: usize, block: [u8; N]) {
        assert!(at <= self.len && self.len - at >= N);
        // SAFETY: the assertion leaves `N` writable bytes at `dst + at`, and an array of bytes has no alignment.
        unsafe { self.dst.add(at).cast::<[u8; N]>().write(block) }
    }

    /// Masks the whole span with vectors of type `V`.
    ///
    /// # Safety
    /// - The CPU has the instructions of `V`.
    /// - The span is at least `V::BYTES` long.
    // Inlined always: the intrinsics become instructions only inside a function that enables their feature.
    #[inline(always)]
    pub(super) unsafe fn run<V: Vector>(self, key: u32) {
        debug_assert!(self.len >= V::BYTES);
        debug_assert!(V::BYTES.is_power_of_two() && V::BYTES % 4 == 0);
        let Self { src, dst, len, .. } = self;
        let last = len - V::BYTES;
        // Each byte is loaded before it is stored: the loops never go back, head and tail come first. Every access
        // covers `V::BYTES` bytes from 0, from `last`, or from an `at` below `last`; the four of a pass end where its
        // condition says. SAFETY: the CPU has `V` (first obligation), `last` does not wrap (second), and so all
        // accesses are within `len`, for which source and destination are valid.
        unsafe {
            let head = V::load(src).xor(V::splat(key));
            let tail = V::load(src.add(last)).xor(V::splat(turned(key, last)));
            // From 1 to a whole vector: what head covers up to the first aligned store.
            let mut at = V::BYTES - dst.addr() % V::BYTES;
            let mask = V::splat(turned(key, at));
            while at + 4 * V::BYTES <= len {
                let a = V::load(src.add(at)).xor(mask);
                let b = V::load(src.add(at + V::BYTES)).xor(mask);
                let c = V::load(src.add(at + 2 * V::BYTES)).xor(mask);
                let d = V::load(src.add(at + 3 * V::BYTES)).xor(mask);
                a.store(dst.add(at));
                b.store(dst.add(at + V::BYTES));
                c.store(dst.add(at + 2 * V::BYTES));
                d.store(dst.add(at + 3 * V::BYTES));
                at += 4 * V::BYTES;
            }
            while at < last {
                V::load(src.add(at)).xor(mask).store(dst.add(at));
                at += V::BYTES;
            }
            head.store(dst);
            tail.store(dst.add(last));
        }
    }
}

/// A register of bytes, as [`Span::run`] needs it.
pub(super) trait Vector: Copy {
    /// Its length: a power of two, and at least 4.
    const BYTES: usize;

    /// The key, in the order of its bytes, over and over.
    ///
    /// # Safety
    /// The CPU has the instructions of this vector.
    unsafe fn splat(key: u32) -> Self;

    /// Loads from any alignment.
    ///
    /// # Safety
    /// The CPU has the instructions of this vector, and `from` is readable for `BYTES` bytes.
    unsafe fn load(from: *const u8) -> Self;

    /// Stores to any alignment.
    ///
    /// # Safety
    /// The CPU has the instructions of this vector, and `to` is writable for `BYTES` bytes.
    unsafe fn store(self, to: *mut u8);

    /// Exclusive or.
    ///
    /// # Safety
    /// The CPU has the instructions of this vector.
    unsafe fn xor(self, other: Self) -> Self;
}

/// The key as it looks `by` bytes further on. A key is kept as a little-endian number, so its first byte is the lowest.
#[inline(always)]
pub(in crate::protocol) fn turned(key: u32, by: usize) -> u32 {
    // Only the lowest two bits count, so the cast loses nothing.
    key.rotate_right(8 * (by as u32 % 4))
}
