//! The Cookie header: RFC 6265, section 5.4, read as a server must, with patience and without trust.

use super::fields::{Field, trim};

/// The cookies of a request in their order, as name and value.
///
/// Nothing is decoded: what an encoded value means is between the application and the program that set it. Quotes
/// around a value are removed. A pair without a name or an equals sign is skipped, and so is one that is not UTF-8.
#[derive(Clone, Debug)]
pub struct Cookies<'a> {
    fields: core::slice::Iter<'a, Field<'a>>,
    /// What is left of the header at hand.
    rest: &'a [u8],
}

impl<'a> Cookies<'a> {
    pub(super) fn new(fields: &'a [Field<'a>]) -> Self {
        Self { fields: fields.iter(), rest: &[] }
    }
}

impl<'a> Iterator for Cookies<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.rest.is_empty() {
                self.rest = self.fields.find(|field| field.name.eq_ignore_ascii_case("cookie"))?.value;
            }
            let end = memchr::memchr(b';', self.rest).unwrap_or(self.rest.len());
            let pair = &self.rest[..end];
            self.rest = self.rest.get(end + 1..).unwrap_or_default();
            if let Some(cookie) = parse_pair(pair) {
                return Some(cookie);
            }
        }
    }
}

fn parse_pair(pair: &[u8]) -> Option<(&str, &str)> {
    let equals = memchr::memchr(b'=', pair)?;
    let name = core::str::from_utf8(trim(&pair[..equals])).ok()?;
    let value = core::str::from_utf8(trim(&pair[equals + 1..])).ok()?;
    let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    (!name.is_empty()).then_some((name, unquoted.unwrap_or(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookies(values: &[&'static [u8]]) -> Vec<(String, String)> {
        let fields: Vec<_> = values.iter().map(|value| Field { name: "Cookie", value }).collect();
        Cookies::new(&fields).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn cookies_of_all_headers_are_in_order() {
        assert_eq!(cookies(&[b"a=1; b=\"two\"", b"a=3=4"]), pairs(&[("a", "1"), ("b", "two"), ("a", "3=4")]));
    }

    #[test]
    fn invalid_cookies_are_skipped() {
        assert_eq!(
            cookies(&[b"", b";;=x; lone; \xff=1; b=\xfe; c= ; d=\""]),
            pairs(&[("c", ""), ("d", "\"")])
        );
    }
}
