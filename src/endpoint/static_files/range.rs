//! The Range header: RFC 9110, section 14. One range of bytes; with several the whole is sent, as section 14.2 allows,
//! for assembling many small overlapping parts is work only an attacker asks for.

/// What of a file is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Range {
    /// All of it: there is no range, or none that is understood.
    Whole,
    /// `len` bytes from `start`. They are there, and at least one.
    Part { start: u64, len: u64 },
    /// Nothing of what was asked for exists.
    Outside,
}

impl Range {
    /// Reads the header for a file of `whole` bytes. Section 14.2: what isn't understood is as if it weren't there.
    pub(super) fn parse(value: &[u8], whole: u64) -> Self {
        parse(value, whole).unwrap_or(Self::Whole)
    }
}

fn parse(value: &[u8], whole: u64) -> Option<Range> {
    let (unit, range) = core::str::from_utf8(value).ok()?.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim_matches([' ', '\t']).split_once('-')?;
    if first.is_empty() {
        // Section 14.1.2: the last `len` bytes, or all if there are fewer.
        let len = parse_position(last)?.min(whole);
        return match (len, whole) {
            // No Content-Range can name a part of nothing.
            (_, 0) => None,
            (0, _) => Some(Range::Outside),
            _ => Some(Range::Part { start: whole - len, len }),
        };
    }
    let first = parse_position(first)?;
    let last = if last.is_empty() { u64::MAX } else { parse_position(last)? };
    if last < first {
        return None;
    }
    if first >= whole {
        return Some(Range::Outside);
    }
    Some(Range::Part { start: first, len: last.min(whole - 1) - first + 1 })
}

/// A number too large for anything is as good as the largest.
fn parse_position(digits: &str) -> Option<u64> {
    let hold = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    hold.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_range_header_has_its_outcome() {
        let part = |start, len| Range::Part { start, len };
        let rows = [
            ("bytes=0-0", 10, part(0, 1)),
            ("bytes=2-5", 10, part(2, 4)),
            ("BYTES= 2-5 ", 10, part(2, 4)),
            ("bytes=2-", 10, part(2, 8)),
            ("bytes=2-99", 10, part(2, 8)),
            ("bytes=-3", 10, part(7, 3)),
            ("bytes=-30", 10, part(0, 10)),
            ("bytes=0-99999999999999999999", 10, part(0, 10)),
            ("bytes=-99999999999999999999", 10, part(0, 10)),
            ("bytes=10-", 10, Range::Outside),
            ("bytes=99999999999999999999-", 10, Range::Outside),
            ("bytes=-0", 10, Range::Outside),
            ("bytes=0-", 0, Range::Outside),
            ("bytes=-1", 0, Range::Whole),
            ("bytes=0-1,3-4", 10, Range::Whole),
            ("bytes=0-,0-,0-,0-", 10, Range::Whole),
            ("bytes=5-2", 10, Range::Whole),
            ("bytes=-", 10, Range::Whole),
            ("bytes=", 10, Range::Whole),
            ("bytes=+1-2", 10, Range::Whole),
            ("bytes=1--2", 10, Range::Whole),
            ("lines=1-2", 10, Range::Whole),
            ("bytes 1-2", 10, Range::Whole),
        ];
        for (value, whole, expected) in rows {
            assert_eq!(Range::parse(value.as_bytes(), whole), expected, "{value} of {whole}");
        }
        assert_eq!(Range::parse(b"bytes=\xff-1", 10), Range::Whole);
    }

    proptest! {
        #[test]
        fn a_range_lies_within_the_file(value in "bytes=[0-9]{0,21}-?[0-9]{0,21}(,[0-9]-)?", whole in any::<u64>()) {
            if let Range::Part { start, len } = Range::parse(value.as_bytes(), whole) {
                prop_assert!(len > 0 && start.checked_add(len).is_some_and(|end| end <= whole));
            }
        }
    }
}
