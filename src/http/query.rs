//! The query of a target, read as a form: `a=1&b=two+words`.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The pairs of a query in their order, decoded as the URL standard has it for forms: a plus is a space, percent
/// triplets are bytes, what isn't UTF-8 becomes U+FFFD. A pair without an equals sign has an empty value.
///
/// A pair with nothing to decode is borrowed.
#[derive(Clone, Debug)]
pub struct QueryPairs<'a> {
    rest: Option<&'a str>,
}

impl<'a> QueryPairs<'a> {
    pub(super) fn new(query: Option<&'a str>) -> Self {
        Self { rest: query }
    }
}

impl<'a> Iterator for QueryPairs<'a> {
    type Item = (Cow<'a, str>, Cow<'a, str>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.rest?;
            let pair = match rest.split_once('&') {
                Some((pair, rest)) => {
                    self.rest = Some(rest);
                    pair
                }
                None => {
                    self.rest = None;
                    rest
                }
            };
            if !pair.is_empty() {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                return Some((decode(name), decode(value)));
            }
        }
    }
}

fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('+') {
        return percent_decode_str(text).decode_utf8_lossy();
    }
    // The plus goes first: `%2B` means a plus and must stay one.
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(query: &str) -> Vec<(String, String)> {
        QueryPairs::new(Some(query)).map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
    }

    #[test]
    fn a_query_is_parsed_as_a_form() {
        let expected = [("a", "1"), ("b", "two words"), ("c", "+&"), ("d", ""), ("", "e")];
        let expected: Vec<_> = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(pairs("a=1&b=two+words&&c=%2B%26&d&=e&"), expected);
    }

    #[test]
    fn invalid_percent_triplets_stay_and_invalid_utf8_is_replaced() {
        assert_eq!(pairs("a=%zz%4"), [("a".to_owned(), "%zz%4".to_owned())]);
        assert_eq!(pairs("a=%ff"), [("a".to_owned(), "\u{fffd}".to_owned())]);
        assert!(QueryPairs::new(None).next().is_none());
    }

    #[test]
    fn query_pairs_without_escapes_are_borrowed() {
        let pair = QueryPairs::new(Some("token=abc")).next();
        assert!(matches!(pair, Some((Cow::Borrowed("token"), Cow::Borrowed("abc")))));
    }
}
