//! UTF-8 checked as it comes, across any cut of the stream (RFC 6455 section 8.1).
//!
//! What is known to be wrong is refused at once, also when it is only the first half of a character: `F4 90` can't
//! become valid, whatever follows.
//!
//! What has been received is unmasked and checked in one pass where the CPU has one (`x86`); with AVX-512 that takes a
//! third of the time of two. Elsewhere, and for what is short, simdutf8 checks it.

#[cfg(target_arch = "x86_64")]
mod x86;

use super::mask::{self, Isa};
use simdutf8::basic;

/// From here on one pass is quicker than two; a block and a part of one need so much.
const FUSED: usize = 64;

/// Two passes take steps of this size, so that the second finds the bytes in the first-level cache.
const STEP: usize = 16 << 10;

/// The bytes are not UTF-8 and no continuation could make them so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUtf8;

/// Validates text that arrives in pieces. Holds at most the three bytes of an unfinished character.
#[derive(Clone, Copy, Debug, Default)]
pub struct Validator {
    cut: [u8; 3],
    len: u8,
}

/// How many bytes at the end of `bytes` may be the beginning of a character that the next piece finishes: 0 to 3.
fn cut_at_end(bytes: &[u8]) -> usize {
    for back in 1..=3.min(bytes.len()) {
        let needs = match bytes[bytes.len() - back] {
            0x80..=0xBF => continue,
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xFF => 4,
            0x00..=0x7F => 1,
        };
        return if back < needs { back } else { 0 };
    }
    0
}

impl Validator {
    /// Takes the next piece.
    ///
    /// # Errors
    /// As soon as the text so far can't be the beginning of valid UTF-8.
    #[inline]
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), InvalidUtf8> {
        while self.len > 0 && !bytes.is_empty() {
            bytes = self.feed_cut(bytes)?;
        }
        let cut = cut_at_end(bytes);
        let (whole, rest) = bytes.split_at(bytes.len() - cut);
        basic::from_utf8(whole).map_err(|_| InvalidUtf8)?;
        self.keep(rest)
    }

    /// Unmasks the next piece in place, as [`mask::apply`] does, and takes it, as [`Validator::feed`] does.
    ///
    /// `phase` is the offset of `piece[0]` within its frame's payload.
    ///
    /// # Errors
    /// As soon as the text so far can't be the beginning of valid UTF-8. `piece` may then be unmasked or not.
    #[inline]
    pub fn unmask_and_feed(
        &mut self,
        piece: &mut [u8],
        key: [u8; 4],
        phase: usize,
    ) -> Result<(), InvalidUtf8> {
        self.unmask_and_feed_by(Isa::chosen(), piece, key, phase)
    }

    /// The same in a way to choose, for tests and benchmarks: in one pass with [`Isa::Avx2`] and [`Isa::Avx512`], if
    /// this CPU has them and the piece is long enough; in two passes with any other.
    ///
    /// # Errors
    /// As [`Validator::unmask_and_feed`].
    pub fn unmask_and_feed_by(
        &mut self,
        isa: Isa,
        piece: &mut [u8],
        key: [u8; 4],
        phase: usize,
    ) -> Result<(), InvalidUtf8> {
        #[cfg(target_arch = "x86_64")]
        if let Some(valid) = x86::run(isa, piece, mask::first(key, phase), self.before()) {
            if !valid {
                return Err(InvalidUtf8);
            }
            self.len = 0;
            let cut = cut_at_end(piece);
            return self.keep(&piece[piece.len() - cut..]);
        }
        let _ = isa; // where there is no pass to choose
        for step in piece.chunks_mut(STEP) {
            mask::unmask(step, key, phase); // STEP is a multiple of 4
            self.feed(step)?;
        }
        Ok(())
    }

    /// The character that the last piece left unfinished, as the end of a little-endian number.
    #[cfg(target_arch = "x86_64")]
    fn before(&self) -> u32 {
        let [a, b, c] = self.cut;
        // In 64 bits, since of nothing all 32 are shifted out.
        (u64::from(u32::from_le_bytes([a, b, c, 0])) << (32 - 8 * self.len)) as u32
    }

    /// Keeps the beginning of a character, or nothing, for the next piece.
    #[inline]
    fn keep(&mut self, cut: &[u8]) -> Result<(), InvalidUtf8> {
        if !cut.is_empty() {
            check_beginning(cut)?;
            self.cut[..cut.len()].copy_from_slice(cut);
            self.len = cut.len() as u8;
        }
        Ok(())
    }

    /// Adds one byte to the character that the last piece left unfinished.
    fn feed_cut<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], InvalidUtf8> {
        let len = usize::from(self.len);
        let mut char = [0; 4];
        char[..len].copy_from_slice(&self.cut[..len]);
        char[len] = bytes[0];
        let char = &char[..=len];
        match core::str::from_utf8(char) {
            Ok(_) => self.len = 0,
            // No length: more bytes could still make it valid. Four bytes never end up here.
            Err(e) if e.error_len().is_none() && len < 3 => {
                self.cut[len] = bytes[0];
                self.len += 1;
            }
            Err(_) => return Err(InvalidUtf8),
        }
        Ok(&bytes[1..])
    }

    /// The message ends here.
    ///
    /// # Errors
    /// When it ends within a character.
    #[inline]
    pub fn finish(self) -> Result<(), InvalidUtf8> {
        if self.len == 0 { Ok(()) } else { Err(InvalidUtf8) }
    }
}

fn check_beginning(bytes: &[u8]) -> Result<(), InvalidUtf8> {
    match core::str::from_utf8(bytes) {
        Err(e) if e.valid_up_to() == 0 && e.error_len().is_none() => Ok(()),
        _ => Err(InvalidUtf8),
    }
}

/// Whether a whole message is UTF-8.
#[inline]
pub fn validate(bytes: &[u8]) -> Result<&str, InvalidUtf8> {
    basic::from_utf8(bytes).map_err(|_| InvalidUtf8)
}

/// Unmasks a whole message in place and says whether it is UTF-8.
///
/// # Errors
/// When it is not; the bytes may then be unmasked or not.
#[inline]
pub fn unmask_and_validate(bytes: &mut [u8], key: [u8; 4]) -> Result<(), InvalidUtf8> {
    if bytes.len() < FUSED {
        mask::unmask(bytes, key, 0);
        return validate(bytes).map(|_| ());
    }
    let mut validator = Validator::default();
    validator.unmask_and_feed(bytes, key, 0)?;
    validator.finish()
}

#[cfg(test)]
mod tests;
