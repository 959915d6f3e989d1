//! Lookups in header fields. Values are bytes, since a peer may send any byte from 0x80 up: code that takes them for
//! text without a check can be made to panic.
//!
//! A lookup walks the headers; their number is bounded and small, and a connection needs a handful of lookups in its
//! life. Every iterator here is a single pass over the bytes.

/// One header as the parser leaves it.
pub(super) type Field<'a> = httparse::Header<'a>;

/// The values of all headers of one name, in their order.
pub(super) fn values<'a>(fields: &'a [Field<'a>], name: &str) -> impl Iterator<Item = &'a [u8]> + Clone {
    fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}

/// The headers of a request in their order, as name and value.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    fields: core::slice::Iter<'a, Field<'a>>,
}

impl<'a> Headers<'a> {
    pub(super) fn new(fields: &'a [Field<'a>]) -> Self {
        Self { fields: fields.iter() }
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.fields.next().map(|field| (field.name, field.value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.fields.size_hint()
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// The members of a comma-separated list, over all headers of its name: RFC 9110, section 5.6.1. White space around a
/// member is gone and empty members are skipped. A comma in a quoted string counts as a comma; for headers that have
/// such strings this is the wrong tool.
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    fields: core::slice::Iter<'a, Field<'a>>,
    name: &'a str,
    /// What is left of the value at hand.
    rest: Option<&'a [u8]>,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(fields: &'a [Field<'a>], name: &'a str) -> Self {
        Self { fields: fields.iter(), name, rest: None }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let Some(rest) = self.rest else {
                let name = self.name;
                self.rest = Some(self.fields.find(|field| field.name.eq_ignore_ascii_case(name))?.value);
                continue;
            };
            let member = match memchr::memchr(b',', rest) {
                Some(comma) => {
                    self.rest = Some(&rest[comma + 1..]);
                    &rest[..comma]
                }
                None => {
                    self.rest = None;
                    rest
                }
            };
            // Trimmed once, from both ends inwards, so a member of nothing but spaces costs its length and no more.
            let member = trim(member);
            if !member.is_empty() {
                return Some(member);
            }
        }
    }
}

/// Without the spaces and tabs on both ends: RFC 9110, section 5.6.3.
pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let Some(start) = bytes.iter().position(is_text) else { return &[] };
    let end = bytes.iter().rposition(is_text).map_or(start, |last| last + 1);
    &bytes[start..end]
}

/// Whether this is a token: RFC 9110, section 5.6.2.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(is_tchar)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(values: &[&str]) -> Vec<String> {
        let fields: Vec<_> =
            values.iter().map(|value| Field { name: "List", value: value.as_bytes() }).collect();
        Tokens::new(&fields, "list").map(|token| String::from_utf8(token.to_vec()).unwrap()).collect()
    }

    #[test]
    fn tokens_of_repeated_headers_form_one_list() {
        assert_eq!(tokens(&["keep-alive, Upgrade"]), ["keep-alive", "Upgrade"]);
        assert_eq!(tokens(&["a,\tb ,", "", ",,  ,", " c d "]), ["a", "b", "c d"]);
        assert!(tokens(&[]).is_empty());
    }

    #[test]
    fn a_token_is_ascii_without_separators() {
        assert!(is_token(b"chat.v2+json"));
        for bad in [&b""[..], b"a b", b"a,b", b"a\r\nb", b"a\xff", b"\"a\"", b"a/b"] {
            assert!(!is_token(bad), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn tokens_equal_split_and_trimmed_members(values in prop::collection::vec("[ab ,\t]{0,12}", 0..4)) {
            let fields: Vec<_> = values.iter().map(|value| Field { name: "L", value: value.as_bytes() }).collect();
            let found: Vec<_> = Tokens::new(&fields, "l").map(<[u8]>::to_vec).collect();
            let joined = values.join(",");
            let expected: Vec<_> = joined
                .split(',')
                .map(|member| member.trim_matches([' ', '\t']).as_bytes().to_vec())
                .filter(|member| !member.is_empty())
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
