//! Masking with SSE2, AVX2 and AVX-512 on x86-64.
//!
//! Nothing but the four operations of each register and a function that enables its feature; the algorithm is
//! [`Span::run`]. [`run`] is safe: what the CPU lacks, and what is shorter than one register, goes to [`words`].

// Allowed here, denied elsewhere: the intrinsics load and store through pointers.
#![allow(unsafe_code)]

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::*;

use super::span::{Span, Vector};
use super::{Isa, words};

/// Whether the CPU, and the system it runs, have what `isa` needs. The standard library asks once and remembers.
#[inline]
pub(super) fn has(isa: Isa) -> bool {
    match isa {
        Isa::Sse2 => is_x86_feature_detected!("sse2"),
        Isa::Avx2 => is_x86_feature_detected!("avx2"),
        Isa::Avx512 => is_x86_feature_detected!("avx512f"),
        _ => false,
    }
}

/// The fastest of those the CPU has.
///
/// In place and in cache (Zen 5, 2025, ns):
///
/// ```text
///   bytes      words    sse2    avx2   avx512   memcpy
///   128          4.5     3.8     3.0      2.9      1.6
///   1024        15.1    14.7     9.5      6.9      7.0
///   16384        187     189      88       67       97
///   1048576    13330   12055    8062     7881    17810
/// ```
///
/// AVX-512 wins at every length here. The first CPUs to have it clock down while 512-bit registers are in use, which
/// costs all that runs beside the masking; VBMI2 came with the generation that no longer does, on Intel's side as on
/// AMD's, and so stands for it.
#[inline]
pub(super) fn best() -> Isa {
    if has(Isa::Avx512) && is_x86_feature_detected!("avx512vbmi2") {
        Isa::Avx512
    } else if has(Isa::Avx2) {
        Isa::Avx2
    } else {
        Isa::Sse2
    }
}

/// Masks `span` with the registers of `isa`.
#[inline]
pub(super) fn run(isa: Isa, span: Span<'_>, key: u32) {
    if !has(isa) {
        return words::run(span, key);
    }
    match isa {
        // SAFETY: the CPU has AVX-512F, as `has` found, and the guard saw to the length.
        Isa::Avx512 if span.len() >= __m512i::BYTES => unsafe { avx512(span, key) },
        // SAFETY: the CPU has AVX2, as `has` found, and the guard saw to the length.
        Isa::Avx2 if span.len() >= __m256i::BYTES => unsafe { avx2(span, key) },
        // SAFETY: the CPU has SSE2, as `has` found, and the guard saw to the length.
        Isa::Sse2 if span.len() >= __m128i::BYTES => unsafe { sse2(span, key) },
        _ => words::run(span, key),
    }
}

/// # Safety
/// The CPU has SSE2, and the span is at least 16 bytes long.
#[target_feature(enable = "sse2")]
unsafe fn sse2(span: Span<'_>, key: u32) {
    // SAFETY: the caller's two obligations are those of `Span::run`.
    unsafe { span.run::<__m128i>(key) }
}

/// # Safety
/// The CPU has AVX2, and the span is at least 32 bytes long.
#[target_feature(enable = "avx2")]
unsafe fn avx2(span: Span<'_>, key: u32) {
    // SAFETY: the caller's two obligations are those of `Span::run`.
    unsafe { span.run::<__m256i>(key) }
}

/// # Safety
/// The CPU has AVX-512F, and the span is at least 64 bytes long.
#[target_feature(enable = "avx512f")]
unsafe fn avx512(span: Span<'_>, key: u32) {
    // SAFETY: the caller's two obligations are those of `Span::run`.
    unsafe { span.run::<__m512i>(key) }
}

impl Vector for __m128i {
    const BYTES: usize = 16;

    #[inline(always)]
    unsafe fn splat(key: u32) -> Self {
        // SAFETY: the caller vouches for SSE2.
        unsafe { _mm_set1_epi32(key.cast_signed()) }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller vouches for SSE2 and for 16 readable bytes; this load takes any alignment.
        unsafe { _mm_loadu_si128(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the caller vouches for SSE2 and for 16 writable bytes; this store takes any alignment.
        unsafe { _mm_storeu_si128(to.cast(), self) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: the caller vouches for SSE2.
        unsafe { _mm_xor_si128(self, other) }
    }
}

impl Vector for __m256i {
    const BYTES: usize = 32;

    #[inline(always)]
    unsafe fn splat(key: u32) -> Self {
        // SAFETY: the caller vouches for AVX2.
        unsafe { _mm256_set1_epi32(key.cast_signed()) }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller vouches for AVX2 and for 32 readable bytes; this load takes any alignment.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the caller vouches for AVX2 and for 32 writable bytes; this store takes any alignment.
        unsafe { _mm256_storeu_si256(to.cast(), self) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: the caller vouches for AVX2.
        unsafe { _mm256_xor_si256(self, other) }
    }
}

impl Vector for __m512i {
    const BYTES: usize = 64;

    #[inline(always)]
    unsafe fn splat(key: u32) -> Self {
        // SAFETY: the caller vouches for AVX-512F.
        unsafe { _mm512_set1_epi32(key.cast_signed()) }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the caller vouches for AVX-512F and for 64 readable bytes; this load takes any alignment.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the caller vouches for AVX-512F and for 64 writable bytes; this store takes any alignment.
        unsafe { _mm512_storeu_si512(to.cast(), self) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: the caller vouches for AVX-512F.
        unsafe { _mm512_xor_si512(self, other) }
    }
}
