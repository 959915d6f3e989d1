//! Who may use the API: clients with a key; during development, and only where that was asked for, programs of this machine
//! without one. Web pages of other hosts never.
//!
//! A page in a browser can send requests to any address that its user can reach, the user's own machine included. So a
//! request that says it comes from a page must come from one of this host; a body must say that it is JSON, which no page
//! can without asking first; and where no key is asked for, the `Host` must be a name of this machine, since a name of
//! the attacker's may come to mean this machine (DNS rebinding).

use super::response::ApiError;
use crate::handler::{Handle, is_from_this_host};
use crate::http::{Peer, Request, Version, is_this_machine};
use core::fmt;

/// Bytes of a key.
const MAX_KEY: usize = 256;

/// Headers that a proxy adds, beside those that begin with [`X_FORWARDED`]: who asks is then not who connects.
const FORWARDED: [&str; 9] = [
    "forwarded",
    "via",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-forwarded-for",
    "cf-connecting-ip",
    "fastly-client-ip",
    "true-client-ip",
];

const X_FORWARDED: &str = "x-forwarded-";

/// Whether a header says that a proxy has passed the request on.
fn is_proxy_header(name: &str) -> bool {
    let begins = name.get(..X_FORWARDED.len()).is_some_and(|n| n.eq_ignore_ascii_case(X_FORWARDED));
    begins || FORWARDED.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// A text that can't be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidKey {
    /// It is empty.
    Empty,
    /// It is longer than 256 bytes.
    TooLong {
        /// Its length.
        len: usize,
    },
    /// It has this byte in it, which is not printable ASCII or is a space.
    Byte {
        /// The byte.
        byte: u8,
    },
}

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the API key is empty"),
            Self::TooLong { len } => write!(f, "the API key has {len} bytes, the most is {MAX_KEY}"),
            Self::Byte { byte } => {
                write!(f, "the API key contains the byte 0x{byte:02x}; it is printable ASCII without spaces")
            }
        }
    }
}

impl std::error::Error for InvalidKey {}

#[derive(Default)]
pub(super) struct Guard {
    keys: Vec<Box<[u8]>>,
    /// Without keys it takes what comes from this machine.
    open: bool,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guard({} keys)", self.keys.len())
    }
}

impl Guard {
    pub(super) const fn open(&mut self) {
        self.open = true;
    }

    /// Whether nobody could pass.
    pub(super) const fn is_closed(&self) -> bool {
        self.keys.is_empty() && !self.open
    }

    pub(super) fn add(&mut self, key: &str) -> Result<(), InvalidKey> {
        let bytes = key.as_bytes();
        if bytes.is_empty() {
            return Err(InvalidKey::Empty);
        }
        if bytes.len() > MAX_KEY {
            return Err(InvalidKey::TooLong { len: bytes.len() });
        }
        if let Some(byte) = bytes.iter().copied().find(|b| !b.is_ascii_graphic()) {
            return Err(InvalidKey::Byte { byte });
        }
        self.keys.push(bytes.into());
        Ok(())
    }

    /// `own` is the server that was asked.
    pub(super) fn check(&self, request: &Request<'_>, own: &Handle) -> Result<(), ApiError> {
        check_origin(request)?;
        if self.keys.is_empty() && self.open {
            check_local(request, own.shared.local)?;
        } else {
            self.check_key(request)?;
        }
        if request.method() == "POST" && !request.header_str("content-type").is_some_and(is_json) {
            return Err(ApiError::new(
                415,
                "media_type",
                "the body is to be JSON: Content-Type: application/json",
            ));
        }
        Ok(())
    }

    fn check_key(&self, request: &Request<'_>) -> Result<(), ApiError> {
        let refused = |message: &'static str| ApiError::new(401, "unauthorized", message);
        let Some(presented) = presented(request) else {
            return Err(refused("an API key is needed: Authorization: Bearer KEY, or X-API-Key: KEY"));
        };
        // All of them, so that the time does not tell which one is near.
        let known = self.keys.iter().fold(false, |known, key| known | equal_in_constant_time(presented, key));
        if known { Ok(()) } else { Err(refused("the API key is not known here")) }
    }
}

fn presented<'a>(request: &Request<'a>) -> Option<&'a [u8]> {
    let bearer = request.header("authorization").and_then(|value| {
        let (scheme, key) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
    });
    bearer.or_else(|| request.header("x-api-key")).map(<[u8]>::trim_ascii)
}

/// Takes the same time whatever is different. `key` is not empty.
fn equal_in_constant_time(presented: &[u8], key: &[u8]) -> bool {
    let different = |sum: u8, (at, byte): (usize, &u8)| sum | (byte ^ key[at % key.len()]);
    let sum = presented.iter().enumerate().fold(u8::from(presented.len() != key.len()), different);
    core::hint::black_box(sum) == 0
}

fn check_origin(request: &Request<'_>) -> Result<(), ApiError> {
    let mut sites = request.headers().filter(|(name, _)| name.eq_ignore_ascii_case("sec-fetch-site"));
    let elsewhere = sites.any(|(_, site)| site != b"same-origin" && site != b"none");
    if elsewhere || request.origin().is_some_and(|origin| !is_from_this_host(origin, request)) {
        return Err(forbidden("web pages of other hosts may not use the API"));
    }
    Ok(())
}

fn check_local(request: &Request<'_>, local: bool) -> Result<(), ApiError> {
    if !local {
        return Err(forbidden(
            "without a key the API answers only where the server listens on loopback addresses and Unix sockets alone: \
             give it a key (--api-key-file FILE, the variable CAMPANILE_API_KEY, or Api::key)",
        ));
    }
    let own_address = match request.peer() {
        Peer::Ip(addr) => addr.ip().to_canonical().is_loopback(),
        Peer::Unix => true,
    };
    if !own_address || request.headers().any(|(name, _)| is_proxy_header(name)) {
        return Err(forbidden(
            "without a key the API is for programs on this machine, and not for what a proxy passes on: give it a key \
             (--api-key-file FILE, the variable CAMPANILE_API_KEY, or Api::key)",
        ));
    }
    // nginx before 1.29.7 speaks HTTP/1.0 to what it passes requests on to, with the server's own address as Host and no
    // header of its own, unless it is told otherwise.
    if request.version() != Version::Http11 {
        return Err(forbidden(
            "version: HTTP/1.0, without a key only HTTP/1.1 is answered, since proxies may speak the former; give the API a \
             key",
        ));
    }
    if !request.host().is_some_and(is_this_machine) {
        return Err(forbidden("without a key the Host is to be localhost or a loopback address"));
    }
    Ok(())
}

fn forbidden(message: &'static str) -> ApiError {
    ApiError::new(403, "forbidden", message)
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_compared_over_their_whole_length() {
        for (presented, same) in
            [("secret", true), ("secreT", false), ("secre", false), ("secretsecret", false), ("", false)]
        {
            assert_eq!(equal_in_constant_time(presented.as_bytes(), b"secret"), same, "{presented}");
        }
    }

    #[test]
    fn a_key_consists_of_printable_ascii() {
        let add = |key: &str| Guard::default().add(key);
        assert_eq!(add("k-1_~/+="), Ok(()));
        assert_eq!(add(""), Err(InvalidKey::Empty));
        assert_eq!(add("a b"), Err(InvalidKey::Byte { byte: b' ' }));
        assert_eq!(add("k\n"), Err(InvalidKey::Byte { byte: b'\n' }));
        assert_eq!(add(&"k".repeat(257)), Err(InvalidKey::TooLong { len: 257 }));
    }

    #[test]
    fn proxies_are_recognized_by_their_headers() {
        for name in
            ["Via", "forwarded", "X-Forwarded-For", "x-forwarded-proto", "X-FORWARDED-PORT", "X-Real-IP"]
        {
            assert!(is_proxy_header(name), "{name}");
        }
        for name in ["", "x-forwarded", "x-request-id", "User-Agent", "viable"] {
            assert!(!is_proxy_header(name), "{name}");
        }
    }

    #[test]
    fn json_is_recognized_by_its_media_type() {
        assert!(is_json("application/json") && is_json("Application/JSON; charset=utf-8"));
        assert!(!is_json("text/plain") && !is_json("application/jsonp") && !is_json(""));
    }
}
