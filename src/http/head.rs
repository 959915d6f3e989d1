//! Finds where the head of a request ends, while it is still arriving.
//!
//! The scanner remembers what it has looked at, so a head that comes one byte at a time costs as much as one that comes
//! whole: every byte is looked at once (a lone CR at the end of what there is, twice). What it finds doesn't depend on
//! how the bytes were cut. It also keeps out all that a lenient reader further on might take for the end of a line, so
//! the parser behind it never sees such a byte.

use memchr::memchr;

use super::HttpError;

/// The position in a head that is arriving. One for each connection that hasn't finished its head; 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadScanner {
    /// All bytes before this one have been looked at and are good.
    scanned: usize,
    /// Where the current line begins. Never more than `scanned`.
    line_start: usize,
}

impl HeadScanner {
    /// A scanner at the beginning of a head.
    #[must_use]
    pub const fn new() -> Self {
        Self { scanned: 0, line_start: 0 }
    }

    /// Goes on where the last call stopped. `bytes` is everything received of this head so far, what was there at the
    /// last call included; `limit` is how many bytes the head may have, its empty line included.
    ///
    /// `Ok(Some(len))` is the length of the head with its empty line. The next head wants a new scanner.
    ///
    /// # Errors
    /// When the head breaks a rule on lines or grows over `limit`. The connection is then of no more use.
    pub fn scan(&mut self, bytes: &[u8], limit: usize) -> Result<Option<usize>, HttpError> {
        debug_assert!(self.scanned <= bytes.len(), "bytes of the head went missing between two calls");
        // What lies beyond the limit is never looked at: a flood costs no more than the limit.
        let window = &bytes[..bytes.len().min(limit)];
        while let Some(new) = window.get(self.scanned..).filter(|new| !new.is_empty()) {
            let Some(at) = memchr(b'\n', new) else {
                // A CR at the very end waits for the LF that may follow.
                let settled = new.strip_suffix(b"\r").unwrap_or(new);
                refuse_control_bytes(settled)?;
                self.scanned += settled.len();
                break;
            };
            let line = &new[..at];
            let text = line.strip_suffix(b"\r");
            refuse_control_bytes(text.unwrap_or(line))?;
            // RFC 9112, section 2.2 lets a recipient take a lone LF for the end of a line. Where one party does and
            // another doesn't, they read different messages; so it is refused.
            if text.is_none() {
                return Err(HttpError::BareLf);
            }
            let empty = self.scanned + at - 1 == self.line_start;
            self.scanned += at + 1;
            match self.line_start {
                _ if !empty => {}
                // RFC 9112, section 2.2: a server should ignore at least one empty line before the request line.
                // This one ignores one, so a flood of them is no way to keep a connection busy.
                0 => {}
                2 => return Err(HttpError::Malformed { part: "request line" }),
                _ => return Ok(Some(self.scanned)),
            }
            self.line_start = self.scanned;
        }
        // All of the window is seen and the end isn't in it, so a full window can't become a good head any more.
        // RFC 6585, section 5.
        if bytes.len() >= limit { Err(HttpError::HeadTooLarge { limit }) } else { Ok(None) }
    }
}

/// RFC 9110, section 5.5: CR, LF and NUL in a field are dangerous; RFC 9112, section 2.2: a CR without its LF makes the
/// element invalid. Other control characters have no business in a head either, save the tab, which is white space.
fn refuse_control_bytes(bytes: &[u8]) -> Result<(), HttpError> {
    // No early exit: so the compiler makes vector code of it. The search for the culprit is for the rare case.
    if !bytes.iter().fold(false, |found, &byte| found | is_control(byte)) {
        return Ok(());
    }
    let byte = bytes.iter().copied().find(|&byte| is_control(byte)).unwrap_or_default();
    Err(HttpError::ControlByte { byte })
}

const fn is_control(byte: u8) -> bool {
    (byte < b' ') & (byte != b'\t') | (byte == 0x7f)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 8192;

    fn whole(bytes: &[u8], limit: usize) -> Result<Option<usize>, HttpError> {
        HeadScanner::new().scan(bytes, limit)
    }

    /// Feeds `bytes` so that the scanner sees them up to each of `cuts` in turn, and then all.
    fn in_pieces(
        bytes: &[u8],
        cuts: impl IntoIterator<Item = usize>,
        limit: usize,
    ) -> Result<Option<usize>, HttpError> {
        let mut scanner = HeadScanner::new();
        for cut in cuts {
            match scanner.scan(&bytes[..cut], limit) {
                Ok(None) => {}
                done => return done,
            }
        }
        scanner.scan(bytes, limit)
    }

    #[test]
    fn a_head_ends_at_its_empty_line() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(whole(head, LIMIT), Ok(Some(head.len())));
        let mut with_body = head.to_vec();
        with_body.extend_from_slice(b"\0\n\r\xff");
        assert_eq!(whole(&with_body, LIMIT), Ok(Some(head.len())));
        assert_eq!(whole(&head[..head.len() - 1], LIMIT), Ok(None));
    }

    #[test]
    fn one_empty_line_before_the_request_line_is_skipped_and_a_second_is_not() {
        assert_eq!(whole(b"\r\nGET / HTTP/1.1\r\n\r\n", LIMIT), Ok(Some(20)));
        assert_eq!(whole(b"\r\n", LIMIT), Ok(None));
        assert_eq!(whole(b"\r\n\r\n", LIMIT), Err(HttpError::Malformed { part: "request line" }));
    }

    #[test]
    fn lines_that_do_not_end_in_crlf_are_refused() {
        assert_eq!(whole(b"GET / HTTP/1.1\nHost: a\r\n\r\n", LIMIT), Err(HttpError::BareLf));
        assert_eq!(whole(b"GET / HTTP/1.1\r\n\n", LIMIT), Err(HttpError::BareLf));
        assert_eq!(whole(b"\n", LIMIT), Err(HttpError::BareLf));
        let lone_cr = Err(HttpError::ControlByte { byte: b'\r' });
        assert_eq!(whole(b"GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n", LIMIT), lone_cr);
        assert_eq!(whole(b"A: b\r\r\n", LIMIT), lone_cr);
    }

    #[test]
    fn control_bytes_are_refused_at_once() {
        for byte in [0, 1, 8, 0x0b, 0x1f, 0x7f] {
            let head = [b"GET / HTTP/1.1\r\nA: ", &[byte][..]].concat();
            assert_eq!(whole(&head, LIMIT), Err(HttpError::ControlByte { byte }));
        }
        assert_eq!(whole(b"GET / HTTP/1.1\r\nA:\t\x80\xff\r\n\r\n", LIMIT), Ok(Some(25)));
    }

    #[test]
    fn a_head_at_the_limit_passes_and_one_byte_more_is_refused() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(whole(head, head.len()), Ok(Some(head.len())));
        let limit = head.len() - 1;
        assert_eq!(whole(head, limit), Err(HttpError::HeadTooLarge { limit }));
        assert_eq!(in_pieces(head, 1..head.len(), limit), Err(HttpError::HeadTooLarge { limit }));
    }

    #[test]
    fn a_long_header_in_pieces_is_refused_at_the_limit() {
        let mut bytes = b"GET / HTTP/1.1\r\nA: ".to_vec();
        bytes.resize(16 << 20, b'x');
        let cuts = (1024..bytes.len()).step_by(1024);
        assert_eq!(in_pieces(&bytes, cuts, LIMIT), Err(HttpError::HeadTooLarge { limit: LIMIT }));
    }

    #[test]
    fn a_long_name_and_many_headers_are_refused_at_the_limit() {
        let name = [b"GET / HTTP/1.1\r\n".to_vec(), vec![b'x'; 64 << 10], b": a\r\n\r\n".to_vec()].concat();
        let many = [b"GET / HTTP/1.1\r\n".to_vec(), b"A: b\r\n".repeat(10_000), b"\r\n".to_vec()].concat();
        for head in [name, many] {
            assert_eq!(whole(&head, LIMIT), Err(HttpError::HeadTooLarge { limit: LIMIT }));
            assert_eq!(whole(&head, head.len()), Ok(Some(head.len())));
        }
    }

    /// Bytes of which heads, good and bad, are made: mostly those that matter.
    fn head_like() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            6 => Just(b"\r\n".to_vec()),
            4 => Just(b"Host: a".to_vec()),
            1 => Just(b"\r".to_vec()),
            1 => Just(b"\n".to_vec()),
            1 => any::<u8>().prop_map(|byte| vec![byte]),
        ];
        prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn a_head_is_found_however_it_is_cut(
            bytes in head_like(),
            cuts in prop::collection::vec(0usize..200, 0..8),
            limit in 0usize..120,
        ) {
            let expected = whole(&bytes, limit);
            prop_assert_eq!(in_pieces(&bytes, 0..bytes.len(), limit), expected);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            prop_assert_eq!(in_pieces(&bytes, cuts, limit), expected);
        }

        #[test]
        fn a_found_head_ends_in_the_first_empty_line(bytes in head_like()) {
            if let Ok(Some(len)) = whole(&bytes, usize::MAX) {
                prop_assert!(bytes[..len].ends_with(b"\r\n\r\n"));
                let first = bytes.windows(4).position(|four| four == b"\r\n\r\n");
                prop_assert_eq!(first, Some(len - 4));
            }
        }
    }
}
