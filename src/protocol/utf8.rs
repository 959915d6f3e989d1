//! UTF-8 checked as it comes, across any cut of the stream (RFC 6455 section 8.1), on simdutf8.
//!
//! What is known to be wrong is refused at once, also when it is only the first half of a character: `F4 90` can't
//! become valid, whatever follows.

use simdutf8::basic;

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
        if !rest.is_empty() {
            check_beginning(rest)?;
            self.cut[..cut].copy_from_slice(rest);
            self.len = cut as u8;
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn in_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(), InvalidUtf8> {
        let mut v = Validator::default();
        for p in pieces {
            v.feed(p)?;
        }
        v.finish()
    }

    #[test]
    fn a_character_cut_anywhere_is_taken() {
        let text = "aé消🔔z".as_bytes();
        for a in 0..=text.len() {
            for b in a..=text.len() {
                assert_eq!(in_pieces([&text[..a], &text[a..b], &text[b..]]), Ok(()), "{a} {b}");
            }
        }
        assert_eq!(in_pieces(text.chunks(1)), Ok(()));
    }

    #[test]
    fn what_cannot_become_valid_is_refused_at_its_first_byte() {
        for bad in [&[0xF4, 0x90][..], &[0xED, 0xA0], &[0xC0], &[0xE0, 0x80], &[0xFF], &[0x80], &[0xF5]] {
            let mut v = Validator::default();
            assert_eq!(v.feed(bad), Err(InvalidUtf8), "{bad:x?}");
            let mut v = Validator::default();
            let r = bad.iter().try_for_each(|b| v.feed(&[*b]));
            assert_eq!(r, Err(InvalidUtf8), "{bad:x?} byte by byte");
        }
    }

    #[test]
    fn a_message_that_ends_within_a_character_is_refused() {
        assert_eq!(in_pieces([&[0xE2, 0x82][..]]), Err(InvalidUtf8));
    }

    proptest! {
        #[test]
        fn pieces_agree_with_the_whole(bytes: Vec<u8>, cuts: Vec<u8>, text: String, as_text: bool) {
            let bytes = if as_text { text.into_bytes() } else { bytes };
            let mut rest = &bytes[..];
            let mut pieces = Vec::new();
            for c in cuts {
                let (a, b) = rest.split_at(usize::from(c % 7).min(rest.len()));
                pieces.push(a);
                rest = b;
            }
            pieces.push(rest);
            prop_assert_eq!(in_pieces(pieces).is_ok(), core::str::from_utf8(&bytes).is_ok());
        }
    }
}
