//! Masking with NEON on 64-bit ARM.
//!
//! Nothing but the four operations of its register and a function that enables the feature; the algorithm is
//! [`Span::run`]. [`run`] is safe: a CPU without NEON, and what is shorter than one register, goes to [`words`].

// Allowed here, denied elsewhere: the intrinsics load and store through pointers.
#![allow(unsafe_code)]

use std::arch::aarch64::*;
use std::arch::is_aarch64_feature_detected;

use super::span::{Span, Vector};
use super::{Isa, words};

/// Whether the CPU has what `isa` needs. The standard library asks once and remembers.
#[inline]
pub(super) fn has(isa: Isa) -> bool {
    matches!(isa, Isa::Neon) && is_aarch64_feature_detected!("neon")
}

/// The fastest of those the CPU has.
#[inline]
pub(super) fn best() -> Isa {
    if has(Isa::Neon) { Isa::Neon } else { Isa::Words }
}

/// Masks `span` with the registers of `isa`.
#[inline]
pub(super) fn run(isa: Isa, span: Span<'_>, key: u32) {
    if has(isa) && span.len() >= uint8x16_t::BYTES {
        // SAFETY: the CPU has NEON, as `has` found, and the span is as long as a register.
        unsafe { neon(span, key) }
    } else {
        words::run(span, key);
    }
}

/// # Safety
/// The CPU has NEON, and the span is at least 16 bytes long.
#[target_feature(enable = "neon")]
unsafe fn neon(span: Span<'_>, key: u32) {
    // SAFETY: the caller's two obligations are those of `Span::run`.
    unsafe { span.run::<uint8x16_t>(key) }
}

impl Vector for uint8x16_t {
    const BYTES: usize = 16;

    #[inline(always)]
    unsafe fn splat(key: u32) -> Self {
        // Through memory, so that the bytes keep their order on a big-endian system too.
        let mut bytes = [0; 16];
        for word in bytes.as_chunks_mut::<4>().0 {
            *word = key.to_le_bytes();
        }
        // SAFETY: the caller vouches for NEON, and the array is 16 bytes.
        unsafe { vld1q_u8(bytes.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller vouches for NEON and for 16 readable bytes; elements of one byte have no alignment.
        unsafe { vld1q_u8(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the caller vouches for NEON and for 16 writable bytes; elements of one byte have no alignment.
        unsafe { vst1q_u8(to, self) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: the caller vouches for NEON.
        unsafe { veorq_u8(self, other) }
    }
}
