//! Conditional requests: RFC 9110, section 13. What the client has of a file decides whether it is sent again.

use std::time::SystemTime;

use crate::http::Request;

/// What the conditions of a request come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precondition {
    /// The request has no preconditions, or they hold.
    Send,
    /// The client has this version.
    NotModified,
    /// The client wants nothing but a version that isn't this one.
    Failed,
}

/// Judges a GET or HEAD in the order of section 13.2.2.
pub(super) fn evaluate(request: &Request<'_>, etag: &str, modified: Option<SystemTime>) -> Precondition {
    let since = |name| date(request, name).zip(modified);
    // Section 13.1.1, and 13.1.4 where it is missing.
    let failed = if request.header("if-match").is_some() {
        !lists(request, "if-match", |tag| same_strong(tag, etag))
    } else {
        since("if-unmodified-since").is_some_and(|(date, modified)| modified > date)
    };
    if failed {
        return Precondition::Failed;
    }
    // Section 13.1.2, and 13.1.3 where it is missing.
    let has_it = if request.header("if-none-match").is_some() {
        lists(request, "if-none-match", |tag| same_weak(tag, etag))
    } else {
        since("if-modified-since").is_some_and(|(date, modified)| modified <= date)
    };
    if has_it { Precondition::NotModified } else { Precondition::Send }
}

/// Whether a list of tags has one that is the same, or is `*`, which stands for any. Tags may contain commas, but no
/// quotes, so splitting at commas can tear a tag apart but never make up one of ours, which has none.
fn lists(request: &Request<'_>, name: &str, same: impl Fn(&[u8]) -> bool) -> bool {
    request.head().tokens(name).any(|tag| tag == b"*" || same(tag))
}

/// Section 8.8.3.2: the same text and neither weak, so the same bytes.
pub(super) fn same_strong(tag: &[u8], etag: &str) -> bool {
    tag == etag.as_bytes() && !etag.starts_with("W/")
}

/// Section 8.8.3.2: the same text, weak or not, so the same for a reader.
fn same_weak(tag: &[u8], etag: &str) -> bool {
    tag.strip_prefix(b"W/").unwrap_or(tag) == etag.strip_prefix("W/").unwrap_or(etag).as_bytes()
}

/// Section 13.1.3: an invalid date is ignored.
fn date(request: &Request<'_>, name: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(request.header_str(name)?).ok()
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;
    use crate::http::{HeaderSlots, Params, Peer, RequestHead};

    const STRONG: &str = "\"abc\"";
    const WEAK: &str = "W/\"abc\"";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    /// The verdict on a file last modified at `SAME`.
    fn judge_lines(lines: &str, etag: &str) -> Precondition {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let mut slots = HeaderSlots::new();
        let head = RequestHead::parse(text.as_bytes(), &mut slots, 16).unwrap();
        let (params, peer) = (Params::default(), Peer::Unix);
        let modified = UNIX_EPOCH + Duration::from_secs(784_111_777);
        evaluate(&Request::new(&head, &params, &peer, b""), etag, Some(modified))
    }

    #[test]
    fn each_condition_has_its_outcome() {
        use Precondition::{Failed, NotModified, Send};
        let rows = [
            (String::new(), STRONG, Send),
            ("If-None-Match: \"abc\"\r\n".into(), STRONG, NotModified),
            ("If-None-Match: \"abc\"\r\n".into(), WEAK, NotModified),
            ("If-None-Match: W/\"abc\"\r\n".into(), STRONG, NotModified),
            ("If-None-Match: \"x,y\", \"abc\"\r\n".into(), STRONG, NotModified),
            ("If-None-Match: \"x\"\r\nIf-None-Match: \"abc\"\r\n".into(), STRONG, NotModified),
            ("If-None-Match: *\r\n".into(), STRONG, NotModified),
            ("If-None-Match: abc, \"abcd\", \"ab\r\n".into(), STRONG, Send),
            (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {SAME}\r\n"), STRONG, Send),
            (format!("If-Modified-Since: {SAME}\r\n"), STRONG, NotModified),
            (format!("If-Modified-Since: {BEFORE}\r\n"), STRONG, Send),
            ("If-Modified-Since: yesterday\r\n".into(), STRONG, Send),
            ("If-Match: \"abc\"\r\n".into(), STRONG, Send),
            ("If-Match: *\r\n".into(), WEAK, Send),
            ("If-Match: W/\"abc\"\r\n".into(), WEAK, Failed),
            ("If-Match: \"x\"\r\n".into(), STRONG, Failed),
            (format!("If-Unmodified-Since: {BEFORE}\r\n"), STRONG, Failed),
            (format!("If-Unmodified-Since: {SAME}\r\n"), STRONG, Send),
        ];
        for (lines, etag, expected) in rows {
            assert_eq!(judge_lines(&lines, etag), expected, "{lines} {etag}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_conditions_are_evaluated(
            name in "If-(None-)?Match|If-(Un)?[mM]odified-Since",
            value in "[ -~]{0,40}|[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT",
        ) {
            judge_lines(&format!("{name}: {value}\r\n"), STRONG);
        }
    }
}
