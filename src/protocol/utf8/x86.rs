//! Unmasking and validating in one pass, with AVX-512 and AVX2 on x86-64.
//!
//! Each block is loaded once, unmasked, stored, and checked while it is in a register. The check follows Keiser and
//! Lemire, "Validating UTF-8 in less than one instruction per byte" (arXiv:2010.03090): whatever is wrong in UTF-8 shows
//! in two neighbouring bytes, which tables classify, but for the continuations that a lead asks for two and three bytes
//! further on, which are looked for beside. Every check is of a byte and those before it, so a block needs of the past
//! its last three bytes and no more, and the end of a piece is no end.
//!
//! Groups of blocks that are ASCII are passed over. Errors are gathered and looked at once, when the piece is through.
//! Nothing is aligned: where there are checks to make, loads and stores that straddle cache lines cost nothing that
//! shows, and in ASCII 30 ns in 16 KiB.

// Allowed here, denied elsewhere: the intrinsics load and store through pointers.
#![allow(unsafe_code)]

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::*;

use super::FUSED;
use crate::protocol::mask::{self, Isa};

/// Unmasks `piece` and says whether it is UTF-8 so far; `None`, and nothing is done, where this CPU has no such pass or
/// the piece is short.
///
/// `key` is a little-endian number, turned to where the first byte falls. `before` is, as the end of another, the
/// beginning of a character that `piece` goes on with, or zero. A character may be unfinished at the end of `piece`, and
/// of the last byte alone nothing is said.
///
/// In place and in cache, against masking and simdutf8 one after the other in steps of 16 KiB (Zen 5, 2025, GiB/s):
///
/// ```text
///                 mixed text                ASCII
///   bytes      two   avx2  avx512     two   avx2  avx512
///   100        4.1    6.4     9.4     6.2    6.5     9.5
///   1024      17.0   20.3    54.9    59.5   90.0    77.1
///   16384     20.0   20.7    55.1    91.7  126.8   167.3
///   1048576   18.7   20.8    56.6    73.6   93.4   126.3
/// ```
///
/// Text of two-byte and of three-byte characters alone takes as long as mixed text.
#[inline]
pub(super) fn run(isa: Isa, piece: &mut [u8], key: u32, before: u32) -> Option<bool> {
    if piece.len() < FUSED {
        return None;
    }
    match isa {
        Isa::Avx512
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vbmi") =>
        {
            // SAFETY: the CPU has all three, as was just asked.
            Some(unsafe { avx512::run(piece, key, before) })
        }
        Isa::Avx512 | Isa::Avx2 if is_x86_feature_detected!("avx2") => {
            // SAFETY: the CPU has AVX2, as was just asked.
            Some(unsafe { avx2::run(piece, key, before) })
        }
        _ => None,
    }
}

/// At the end of a block, bytes above these want more than the block has.
const fn complete<const N: usize>() -> [u8; N] {
    let mut most = [0xFF; N];
    [most[N - 3], most[N - 2], most[N - 1]] = [0xEF, 0xDF, 0xBF];
    most
}

/// From such a byte less [`THIRD`], or less [`FOURTH`], the highest bit says whether it is a lead that has a third, or a
/// fourth, byte: `E0` to `FF`, `F0` to `FF`.
const THIRD: i8 = 0x60;
const FOURTH: i8 = 0x70;
/// The highest bit.
const HIGH: i8 = i8::MIN;

/// Unmasks and checks whole blocks, four at a time: where all four are ASCII, as their top bits together say, one look is
/// enough for them. The instructions are those of the module that it stands in.
macro_rules! in_groups {
    ($blocks:expr, $key:expr, $check:expr, $xor:ident, $or:ident, $top_bits:ident) => {
        let (groups, rest) = $blocks.as_chunks_mut::<4>();
        for [a, b, c, d] in groups {
            let in_a = $xor(load(a), $key);
            let in_b = $xor(load(b), $key);
            let in_c = $xor(load(c), $key);
            let in_d = $xor(load(d), $key);
            store(a, in_a);
            store(b, in_b);
            store(c, in_c);
            store(d, in_d);
            if $top_bits($or($or(in_a, in_b), $or(in_c, in_d))) == 0 {
                $check.ascii();
            } else {
                $check.block(in_a);
                $check.block(in_b);
                $check.block(in_c);
                $check.block(in_d);
            }
        }
        for block in rest {
            let bytes = $xor(load(block), $key);
            store(block, bytes);
            $check.block(bytes);
        }
    };
}

mod avx512 {
    //! VBMI looks up all seven bits that tell the bytes above ASCII apart, so there is one table for the first byte of a
    //! pair and one for the second, and ASCII is zero in both.

    use super::*;

    /// What the tables know of a byte.
    struct Tables {
        /// What it, as a lead, forbids the next byte unless that allows it.
        first: [u8; 128],
        /// What it, as a continuation, allows.
        second: [u8; 128],
    }

    /// In both tables: a lead forbids what is not a continuation, and a continuation allows that.
    const CONTINUES: u8 = 1 << 7;

    const fn tables() -> Tables {
        let (mut first, mut second) = ([0; 128], [0; 128]);
        let mut i = 0;
        while i < 128 {
            let byte = 0x80 | i as u8;
            if byte < 0xC0 {
                second[i] = CONTINUES
                    | (byte >= 0xA0) as u8 // after E0: else overlong
                    | ((byte < 0xA0) as u8) << 1 // after ED: else a surrogate
                    | ((byte >= 0x90) as u8) << 2 // after F0: else overlong
                    | ((byte < 0x90) as u8) << 3; // after F4: else above 10FFFF
            } else {
                first[i] = CONTINUES
                    | (byte == 0xE0) as u8
                    | ((byte == 0xED) as u8) << 1
                    | ((byte == 0xF0) as u8) << 2
                    | ((byte == 0xF4) as u8) << 3
                    // Never allowed: overlong, above 10FFFF, never UTF-8.
                    | ((byte < 0xC2 || byte > 0xF4) as u8) << 4;
            }
            i += 1;
        }
        Tables { first, second }
    }

    static TABLES: Tables = tables();

    /// Lanes of two blocks in a row, so that each becomes the one `by` lanes before it.
    const fn back(by: usize) -> [u8; 64] {
        let mut lanes = [0; 64];
        let mut i = 0;
        while i < 64 {
            lanes[i] = (64 + i - by) as u8;
            i += 1;
        }
        lanes
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(block: &[u8; 64]) -> __m512i {
        // SAFETY: a reference is readable, the block is 64 bytes, and this load takes any alignment.
        unsafe { _mm512_loadu_si512(block.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn store(block: &mut [u8; 64], bytes: __m512i) {
        // SAFETY: a reference is writable, the block is 64 bytes, and this store takes any alignment.
        unsafe { _mm512_storeu_si512(block.as_mut_ptr().cast(), bytes) }
    }

    struct Check {
        /// The block before, and what its bytes are as the first of a pair.
        before: __m512i,
        first_before: __m512i,
        /// Not zero where a pair is wrong.
        wrong: __m512i,
        /// The highest bit is set where there is a continuation and none is expected, or the other way round.
        uneven: __m512i,
    }

    impl Check {
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
        fn new(before: u32) -> Self {
            let zero = _mm512_setzero_si512();
            let before = _mm512_maskz_set1_epi32(1 << 15, before.cast_signed());
            Self { before, first_before: Self::look_up(&TABLES.first, before), wrong: zero, uneven: zero }
        }

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
        fn look_up(table: &[u8; 128], bytes: __m512i) -> __m512i {
            let [low, high] = table.as_chunks::<64>().0 else { unreachable!() };
            let above_ascii = _mm512_movepi8_mask(bytes);
            _mm512_maskz_permutex2var_epi8(above_ascii, load(low), bytes, load(high))
        }

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
        fn block(&mut self, bytes: __m512i) {
            let first = Self::look_up(&TABLES.first, bytes);
            let second = Self::look_up(&TABLES.second, bytes);
            let first_1 = _mm512_permutex2var_epi8(self.first_before, load(const { &back(1) }), first);
            let bytes_2 = _mm512_permutex2var_epi8(self.before, load(const { &back(2) }), bytes);
            let bytes_3 = _mm512_permutex2var_epi8(self.before, load(const { &back(3) }), bytes);
            (self.before, self.first_before) = (bytes, first);

            // wrong | first_1 & !second
            self.wrong = _mm512_ternarylogic_epi32::<0xF4>(self.wrong, first_1, second);
            let third = _mm512_subs_epu8(bytes_2, _mm512_set1_epi8(THIRD));
            let fourth = _mm512_subs_epu8(bytes_3, _mm512_set1_epi8(FOURTH));
            // first_1 | third | fourth; CONTINUES is the highest bit too
            let expected = _mm512_ternarylogic_epi32::<0xFE>(first_1, third, fourth);
            // uneven | expected ^ second
            self.uneven = _mm512_ternarylogic_epi32::<0xF6>(self.uneven, expected, second);
        }

        /// Any number of blocks in ASCII. They need not become the block before: one in which all is finished asks as
        /// little of the next.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw")]
        fn ascii(&mut self) {
            let unfinished = _mm512_subs_epu8(self.before, load(const { &complete() }));
            self.wrong = _mm512_or_si512(self.wrong, unfinished);
        }

        /// The end of the piece: of this block only some lanes are bytes.
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
        fn part(&mut self, bytes: __m512i, lanes: __mmask64) {
            let (wrong, uneven) = (self.wrong, self.uneven);
            self.block(bytes);
            self.wrong = _mm512_mask_mov_epi8(wrong, lanes, self.wrong);
            self.uneven = _mm512_mask_mov_epi8(uneven, lanes, self.uneven);
        }

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw")]
        fn is_valid(&self) -> bool {
            _mm512_test_epi8_mask(self.wrong, self.wrong) == 0 && _mm512_movepi8_mask(self.uneven) == 0
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    pub(super) fn run(piece: &mut [u8], key: u32, before: u32) -> bool {
        let key = _mm512_set1_epi32(key.cast_signed());
        let mut check = Check::new(before);
        let (blocks, tail) = piece.as_chunks_mut::<64>();
        in_groups!(blocks, key, check, _mm512_xor_si512, _mm512_or_si512, _mm512_movepi8_mask);
        if !tail.is_empty() {
            let lanes = (1 << tail.len()) - 1;
            // SAFETY: only the lanes that are bytes of the tail are loaded.
            let bytes = unsafe { _mm512_maskz_loadu_epi8(lanes, tail.as_ptr().cast()) };
            let bytes = _mm512_xor_si512(bytes, key);
            // SAFETY: only the lanes that are bytes of the tail are stored.
            unsafe { _mm512_mask_storeu_epi8(tail.as_mut_ptr().cast(), lanes, bytes) };
            check.part(bytes, lanes);
        }
        check.is_valid()
    }
}

mod avx2 {
    //! The lookup of the paper: the high and the low half of the first byte of a pair and the high half of the second,
    //! in three tables of sixteen. A bit that is set in all three is an error.

    use super::*;

    /// Each error as the halves of bytes that make it: high and low of the first, high of the second. A set of halves is
    /// the bits of a number, as they read from the right.
    const ERRORS: [(u16, u16, u16); 8] = [
        // A lead, and no continuation.
        (0xF000, 0xFFFF, 0xF0FF),
        // ASCII, and a continuation.
        (0x00FF, 0xFFFF, 0x0F00),
        // C0, C1: overlong.
        (0x1000, 0x0003, 0x0F00),
        // E0 80 to E0 9F: overlong.
        (0x4000, 0x0001, 0x0300),
        // ED A0 to ED BF: surrogates.
        (0x4000, 0x2000, 0x0C00),
        // F4 90 and on: above 10FFFF.
        (0x8000, 0xFFF0, 0x0E00),
        // F0 80 to F0 8F: overlong; F5 80 and on: above 10FFFF.
        (0x8000, 0xFFE1, 0x0100),
        // Two continuations: right if they are a third or a fourth byte, and only then.
        (0x0F00, 0xFFFF, 0x0F00),
    ];

    /// The tables, each twice, since lookups stay within 16 bytes.
    const fn tables() -> [[u8; 32]; 3] {
        let mut tables = [[0; 32]; 3];
        let mut i = 0;
        while i < 32 {
            let mut error = 0;
            while error < 8 {
                let (high, low, next) = ERRORS[error];
                tables[0][i] |= ((high >> (i % 16) & 1) as u8) << error;
                tables[1][i] |= ((low >> (i % 16) & 1) as u8) << error;
                tables[2][i] |= ((next >> (i % 16) & 1) as u8) << error;
                error += 1;
            }
            i += 1;
        }
        tables
    }

    static TABLES: [[u8; 32]; 3] = tables();

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(block: &[u8; 32]) -> __m256i {
        // SAFETY: a reference is readable, the block is 32 bytes, and this load takes any alignment.
        unsafe { _mm256_loadu_si256(block.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn store(block: &mut [u8; 32], bytes: __m256i) {
        // SAFETY: a reference is writable, the block is 32 bytes, and this store takes any alignment.
        unsafe { _mm256_storeu_si256(block.as_mut_ptr().cast(), bytes) }
    }

    struct Check {
        /// The block before.
        before: __m256i,
        /// Not zero where something is wrong.
        wrong: __m256i,
    }

    impl Check {
        #[inline]
        #[target_feature(enable = "avx2")]
        fn block(&mut self, bytes: __m256i) {
            // The second half of the block before and the first of this one: what the bytes of each half come after.
            let between = _mm256_permute2x128_si256::<0x21>(self.before, bytes);
            let bytes_1 = _mm256_alignr_epi8::<15>(bytes, between);
            let bytes_2 = _mm256_alignr_epi8::<14>(bytes, between);
            let bytes_3 = _mm256_alignr_epi8::<13>(bytes, between);
            self.before = bytes;

            let half = _mm256_set1_epi8(0x0F);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes_1), half);
            let low = _mm256_and_si256(bytes_1, half);
            let next = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), half);
            let pairs = _mm256_and_si256(
                _mm256_and_si256(
                    _mm256_shuffle_epi8(load(&TABLES[0]), high),
                    _mm256_shuffle_epi8(load(&TABLES[1]), low),
                ),
                _mm256_shuffle_epi8(load(&TABLES[2]), next),
            );
            let third = _mm256_subs_epu8(bytes_2, _mm256_set1_epi8(THIRD));
            let fourth = _mm256_subs_epu8(bytes_3, _mm256_set1_epi8(FOURTH));
            let expected = _mm256_and_si256(_mm256_or_si256(third, fourth), _mm256_set1_epi8(HIGH));
            self.wrong = _mm256_or_si256(self.wrong, _mm256_xor_si256(pairs, expected));
        }

        /// Any number of blocks in ASCII. They need not become the block before: one in which all is finished asks as
        /// little of the next.
        #[inline]
        #[target_feature(enable = "avx2")]
        fn ascii(&mut self) {
            let unfinished = _mm256_subs_epu8(self.before, load(const { &complete() }));
            self.wrong = _mm256_or_si256(self.wrong, unfinished);
        }
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn run(piece: &mut [u8], key: u32, before: u32) -> bool {
        let zero = _mm256_setzero_si256();
        let mut check = Check { before: _mm256_insert_epi32::<7>(zero, before.cast_signed()), wrong: zero };
        // A part of a block at the end is checked with what precedes it, a block's length in all: loaded before anything
        // is unmasked, stored when all else is.
        let len = piece.len();
        let tail_key = _mm256_set1_epi32(mask::turned(key, len).cast_signed());
        let tail = piece
            .last_chunk()
            .filter(|_| !len.is_multiple_of(32))
            .map(|tail| _mm256_xor_si256(load(tail), tail_key));
        let key = _mm256_set1_epi32(key.cast_signed());
        let (blocks, _) = piece.as_chunks_mut::<32>();
        in_groups!(blocks, key, check, _mm256_xor_si256, _mm256_or_si256, _mm256_movemask_epi8);
        if let (Some(tail), Some((rest, last))) = (tail, piece.split_last_chunk_mut()) {
            check.before = rest.last_chunk().map_or(check.before, |before| load(before));
            check.block(tail);
            store(last, tail);
        }
        _mm256_testz_si256(check.wrong, check.wrong) == 1
    }
}
