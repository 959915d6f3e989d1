//! Requests from bytes that come in pieces: scans for the end of the head, parses it, and waits for the body.
//!
//! The caller keeps the bytes of a request until it is whole and passes all of them again when more have come. The parser
//! remembers what it has looked at, so that a head in a thousand pieces is scanned once.

use super::{HeadScanner, HeaderSlots, HttpError, HttpLimits, RequestHead};

/// How far the request at the beginning of a buffer was parsed. For the next request begin with a new one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RequestParser {
    scanner: HeadScanner,
    /// Bytes of the whole request, once its head is known.
    needed: usize,
}

/// A request, or what is missing of it.
#[derive(Debug)]
pub(crate) enum ParsedRequest<'a> {
    Whole {
        head: RequestHead<'a>,
        body: &'a [u8],
    },
    /// More has to come.
    Incomplete {
        /// RFC 9110 section 10.1.1: the client may wait for a 100 before it sends the body.
        send_continue: bool,
    },
}

impl RequestParser {
    /// Whether parsing makes progress with this many bytes.
    pub(crate) fn can_continue(self, bytes: usize) -> bool {
        bytes >= self.needed
    }

    /// Bytes of the request that [`RequestParser::parse`] has returned.
    pub(crate) fn consumed(self) -> usize {
        self.needed
    }

    /// Parses the request at the beginning of `bytes`: everything received of it, what was there at the last call included.
    ///
    /// # Errors
    /// The request breaks a rule or a limit. Where the next one would begin is unknown, so the connection has to end.
    pub(crate) fn parse<'a, 'b: 'a>(
        &mut self,
        bytes: &'b [u8],
        slots: &'a mut HeaderSlots<'b>,
        limits: &HttpLimits,
    ) -> Result<ParsedRequest<'a>, HttpError> {
        let Some(head_len) = self.scanner.scan(bytes, limits.max_head)? else {
            return Ok(ParsedRequest::Incomplete { send_continue: false });
        };
        let (head, rest) = bytes.split_at(head_len);
        let head = RequestHead::parse(head, slots, limits.max_headers)?;
        let body_len = head.content_length().unwrap_or(0);
        if body_len > limits.max_body as u64 {
            return Err(HttpError::BodyTooLarge { limit: limits.max_body as u64 });
        }
        let body_len = body_len as usize;
        let send_continue = self.needed == 0 && head.expects_continue();
        self.needed = head_len + body_len;
        // The next call parses the head once more: it borrows from the bytes, which may have moved.
        self.scanner = HeadScanner::new();
        match rest.get(..body_len) {
            Some(body) => Ok(ParsedRequest::Whole { head, body }),
            None => Ok(ParsedRequest::Incomplete { send_continue }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] =
        b"POST /a HTTP/1.1\r\nHost: b\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhelloGET /";

    /// What parsing gives with more and more of the bytes: the body, how often a 100 was wanted, and the bytes consumed.
    fn in_pieces(bytes: &[u8], ends: impl Iterator<Item = usize>) -> (Option<Vec<u8>>, usize, usize) {
        let (mut parser, limits, mut continues) = (RequestParser::default(), HttpLimits::default(), 0);
        for end in ends {
            if !parser.can_continue(end) {
                continue;
            }
            let mut slots = HeaderSlots::new();
            match parser.parse(&bytes[..end], &mut slots, &limits).unwrap() {
                ParsedRequest::Whole { head, body } => {
                    assert_eq!((head.method(), head.path()), ("POST", "/a"));
                    return (Some(body.to_vec()), continues, parser.consumed());
                }
                ParsedRequest::Incomplete { send_continue } => continues += usize::from(send_continue),
            }
        }
        (None, continues, 0)
    }

    #[test]
    fn a_request_is_the_same_in_one_piece_and_byte_by_byte() {
        let whole = REQUEST.len() - b"GET /".len();
        let body = || Some(b"hello".to_vec());
        assert_eq!(in_pieces(REQUEST, [REQUEST.len()].into_iter()), (body(), 0, whole));
        assert_eq!(in_pieces(REQUEST, 1..=REQUEST.len()), (body(), 1, whole));
        assert_eq!(in_pieces(REQUEST, 1..whole), (None, 1, 0));
    }

    #[test]
    fn nothing_is_parsed_before_the_body_is_there() {
        let head = REQUEST.len() - b"helloGET /".len();
        let mut parser = RequestParser::default();
        let parsed =
            parser.parse(&REQUEST[..head], &mut HeaderSlots::new(), &HttpLimits::default()).map(|_| ());
        assert_eq!(parsed, Ok(()));
        assert!(!parser.can_continue(head + 4));
        assert!(parser.can_continue(head + 5));
    }

    #[test]
    fn a_body_over_the_limit_is_refused_at_its_head() {
        let limits = HttpLimits { max_body: 4, ..HttpLimits::default() };
        let refused = RequestParser::default().parse(REQUEST, &mut HeaderSlots::new(), &limits).map(|_| ());
        assert_eq!(refused, Err(HttpError::BodyTooLarge { limit: 4 }));
    }
}
