//! The head of a request, parsed and checked. The grammar is httparse's; what a server must refuse beyond it (two
//! lengths, two hosts, a target of no known form) is refused here, once, so that nobody further on has to think of it.
//!
//! A parsed head owns nothing: it borrows from the received bytes and from [`HeaderSlots`] on the caller's stack.

use core::mem::MaybeUninit;
use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::fields::{self, Field};
use super::target::{Target, is_authority};
use super::{Cookies, HeadScanner, Headers, HttpError, QueryPairs, Tokens};

/// The most headers any configuration may allow. Browsers send about 20, the worst proxies add 20 more; this leaves
/// room for that twice over and keeps the slots at 4 KiB of stack.
pub const MAX_HEADERS: usize = 128;

/// The most subprotocols a client may offer, and the bytes their headers may take. Clients offer one to three. Every
/// one is compared with those the application knows, so the numbers bound that work.
pub(super) const MAX_PROTOCOLS: usize = 32;
pub(super) const MAX_PROTOCOL_BYTES: usize = 1024;

/// Room on the stack for the headers of one request. Making it costs nothing; nothing is written before parsing.
#[derive(Debug)]
pub struct HeaderSlots<'b>([MaybeUninit<Field<'b>>; MAX_HEADERS]);

impl HeaderSlots<'_> {
    /// Empty slots.
    #[must_use]
    pub const fn new() -> Self {
        Self([const { MaybeUninit::uninit() }; MAX_HEADERS])
    }
}

impl Default for HeaderSlots<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// The versions of HTTP whose messages look like this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0: no WebSocket, and the connection closes after the response.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// The head of a request: method, target, version and headers.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    method: &'a str,
    target: Target<'a>,
    version: Version,
    fields: &'a [Field<'a>],
    content_length: Option<u64>,
}

impl<'a> RequestHead<'a> {
    /// Parses a head. `bytes` is just the head, as long as [`HeadScanner::scan`] says; `max_headers` is how many
    /// headers it may have, at most [`MAX_HEADERS`].
    ///
    /// # Errors
    /// When the head breaks a rule. The connection is then to be closed after the response.
    pub fn parse<'b: 'a>(
        bytes: &'b [u8],
        slots: &'a mut HeaderSlots<'b>,
        max_headers: usize,
    ) -> Result<Self, HttpError> {
        // httparse takes a lone LF for the end of a line. The scanner in front of this has refused them, but the cost
        // of asking again is small against that of a caller who forgot.
        if HeadScanner::new().scan(bytes, usize::MAX)? != Some(bytes.len()) {
            return Err(HttpError::Malformed { part: "head" });
        }
        let limit = max_headers.min(MAX_HEADERS);
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(bytes, &mut slots.0[..limit]) {
            Ok(httparse::Status::Complete(len)) if len == bytes.len() => {}
            Ok(_) => return Err(HttpError::Malformed { part: "head" }),
            Err(error) => return Err(refusal(error, bytes, limit)),
        }
        let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
            return Err(HttpError::Malformed { part: "request line" });
        };
        let version = if parsed.version == Some(1) { Version::Http11 } else { Version::Http10 };
        let fields: &'a [Field<'a>] = parsed.headers;
        // RFC 9112, section 3.2.3: CONNECT, the one method with a target of its own form, is for proxies.
        if method == "CONNECT" {
            return Err(HttpError::MethodUnknown);
        }
        let target = Target::parse(method, target)?;
        check_host(fields, version)?;
        check_origin(fields)?;
        let content_length = content_length(fields, version)?;
        Ok(Self { method, target, version, fields, content_length })
    }

    /// The method, as it stands there: methods are case-sensitive (RFC 9110, section 9.1), `get` is not GET.
    #[must_use]
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The path of the target, not decoded. Begins with a slash, save for the `*` of OPTIONS.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.target.path
    }

    /// The path with its percent triplets decoded, once; `None` if that isn't UTF-8. An encoded slash is a slash now,
    /// so this is for looking at, not for splitting.
    #[must_use]
    pub fn decoded_path(&self) -> Option<Cow<'a, str>> {
        percent_decode_str(self.target.path).decode_utf8().ok()
    }

    /// The query of the target, not decoded and without the question mark.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        self.target.query
    }

    /// The pairs of the query, decoded.
    #[must_use]
    pub fn query_pairs(&self) -> QueryPairs<'a> {
        QueryPairs::new(self.target.query)
    }

    /// The first value the query has under this name, decoded.
    #[must_use]
    pub fn query_value(&self, name: &str) -> Option<Cow<'a, str>> {
        self.query_pairs().find(|(found, _)| found == name).map(|(_, value)| value)
    }

    /// The version of HTTP.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Host and port the client meant. RFC 9112, section 3.2.2: an absolute target goes before the Host header.
    #[must_use]
    pub fn host(&self) -> Option<&'a str> {
        self.target.authority.or_else(|| self.header_str("host"))
    }

    /// All headers in their order.
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        Headers::new(self.fields)
    }

    /// The value of the first header of this name, whatever the case of its letters.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        fields::values(self.fields, name).next()
    }

    /// The same as text; `None` also when it isn't UTF-8. Where the absence of a header allows something, ask for the
    /// bytes.
    #[must_use]
    pub fn header_str(&self, name: &str) -> Option<&'a str> {
        core::str::from_utf8(self.header(name)?).ok()
    }

    /// The values of all headers of this name, in order.
    pub fn header_values(&self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        fields::values(self.fields, name)
    }

    /// How many headers of this name there are.
    #[must_use]
    pub fn header_count(&self, name: &str) -> usize {
        fields::values(self.fields, name).count()
    }

    /// The members of a comma-separated list, over all headers of this name.
    #[must_use]
    pub fn tokens(&self, name: &'a str) -> Tokens<'a> {
        Tokens::new(self.fields, name)
    }

    /// Whether a comma-separated list has this member, whatever the case of its letters.
    #[must_use]
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        Tokens::new(self.fields, name).any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// The cookies in their order.
    #[must_use]
    pub fn cookies(&self) -> Cookies<'a> {
        Cookies::new(self.fields)
    }

    /// The value of the first cookie of this name. Cookie names are case-sensitive.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<&'a str> {
        self.cookies().find(|&(found, _)| found == name).map(|(_, value)| value)
    }

    /// The origin of the page that sent the request; `None` only if there is no such header. One that can't be judged
    /// has been refused in parsing.
    #[must_use]
    pub fn origin(&self) -> Option<&'a str> {
        self.header_str("origin")
    }

    /// The subprotocols the client offers, in its order of preference: at most 32, and only those that are tokens.
    pub fn protocols(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        Tokens::new(self.fields, "sec-websocket-protocol")
            .filter(|token| fields::is_token(token))
            .filter_map(|token| core::str::from_utf8(token).ok())
            .take(MAX_PROTOCOLS)
    }

    /// Whether the offered subprotocols keep the rules: at most 32 and 1 KiB, each a token. For an upgrade to ask
    /// before it chooses one.
    ///
    /// # Errors
    /// When they don't.
    pub fn check_protocols(&self) -> Result<(), HttpError> {
        const NAME: &str = "sec-websocket-protocol";
        if fields::values(self.fields, NAME).map(<[u8]>::len).sum::<usize>() > MAX_PROTOCOL_BYTES {
            return Err(HttpError::ProtocolsTooLarge { limit: MAX_PROTOCOL_BYTES });
        }
        let mut count = 0;
        for token in Tokens::new(self.fields, NAME) {
            count += 1;
            if count > MAX_PROTOCOLS {
                return Err(HttpError::TooManyProtocols { limit: MAX_PROTOCOLS });
            }
            // RFC 6455, section 4.1, step 10 of the client's requirements: each is a token. The chosen one goes back
            // in a header, so nothing else may get this far.
            if !fields::is_token(token) {
                return Err(HttpError::ProtocolInvalid);
            }
        }
        Ok(())
    }

    /// The length of the body that follows; `None` without a body.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// Whether another request may follow on this connection. RFC 9112, section 9.3; what HTTP/1.0 had in its place is
    /// optional there and not offered.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        self.version == Version::Http11 && !self.has_token("connection", "close")
    }

    /// Whether the client waits for `100 Continue` before it sends its body: RFC 9110, section 10.1.1.
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        self.version == Version::Http11 && self.has_token("expect", "100-continue")
    }
}

/// What httparse's refusal means. It says which rule was broken only by and large, so two cases are told apart here.
fn refusal(error: httparse::Error, bytes: &[u8], limit: usize) -> HttpError {
    match error {
        httparse::Error::TooManyHeaders => HttpError::TooManyHeaders { limit },
        httparse::Error::Version if names_a_version(bytes) => HttpError::VersionUnsupported,
        httparse::Error::HeaderName if has_fold(bytes) => HttpError::ObsoleteFold,
        httparse::Error::HeaderName => HttpError::Malformed { part: "name of a header" },
        httparse::Error::HeaderValue if has_fold(bytes) => HttpError::ObsoleteFold,
        httparse::Error::HeaderValue => HttpError::Malformed { part: "value of a header" },
        _ => HttpError::Malformed { part: "request line" },
    }
}

/// Whether the third and last word of the request line is some version of HTTP, if not one of ours: RFC 9110, section 15.6.6.
fn names_a_version(bytes: &[u8]) -> bool {
    let lines = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let line = lines.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ').skip(2);
    let version = words.next().unwrap_or_default();
    words.next().is_none()
        && matches!(version, [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'])
}

/// RFC 9112, section 5.2: a server must refuse a folded header line, or unfold it; section 2.2: white space before the
/// first header likewise. Two parties that unfold differently read two messages, so it is refused.
fn has_fold(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|at| matches!(bytes.get(at + 1), Some(b' ' | b'\t')))
}

fn check_host(fields: &[Field<'_>], version: Version) -> Result<(), HttpError> {
    let mut hosts = fields::values(fields, "host");
    let host = hosts.next();
    // RFC 9112, section 3.2: a server must answer 400 to a request of HTTP/1.1 without Host, to any with more than one,
    // and to any whose Host isn't valid. Equal ones are no better: some party in front may have looked at one only.
    if hosts.next().is_some() {
        return Err(HttpError::HostRepeated);
    }
    match host {
        // RFC 9110, section 4.2.1: an http URL with an empty host is invalid, and an empty Host makes one.
        None | Some(b"") if version == Version::Http11 => Err(HttpError::HostMissing),
        None | Some(b"") => Ok(()),
        Some(host) if core::str::from_utf8(host).is_ok_and(is_authority) => Ok(()),
        Some(_) => Err(HttpError::HostInvalid),
    }
}

/// RFC 6454, section 7.3: there is one Origin at most, and it is ASCII. One that can't be read must not pass for one
/// that isn't there: a missing Origin is what lets programs in that are no browser.
fn check_origin(fields: &[Field<'_>]) -> Result<(), HttpError> {
    let mut origins = fields::values(fields, "origin");
    let Some(origin) = origins.next() else { return Ok(()) };
    let readable = origin.iter().all(|byte| matches!(byte, b' '..=b'~'));
    if readable && origins.next().is_none() { Ok(()) } else { Err(HttpError::OriginInvalid) }
}

/// RFC 9112, section 6.3: how long the body is. What a lenient server would guess here is what request smuggling lives
/// on (section 11.2).
fn content_length(fields: &[Field<'_>], version: Version) -> Result<Option<u64>, HttpError> {
    let has_length = fields::values(fields, "content-length").next().is_some();
    let mut codings = fields::values(fields, "transfer-encoding");
    if let Some(coding) = codings.next() {
        // RFC 9112, section 6.1: both together ought to be handled as an error, and so must a transfer coding in
        // HTTP/1.0.
        if has_length || version == Version::Http10 {
            return Err(HttpError::LengthAmbiguous);
        }
        // RFC 9112, section 6.1: 501 to a coding that isn't understood. Section 6.3: 411 to a body whose length isn't
        // told beforehand, even if it could be read; bodies here are small and have bounds, so chunks would buy nothing.
        let chunked = fields::trim(coding).eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
        return Err(if chunked { HttpError::LengthRequired } else { HttpError::CodingUnknown });
    }
    if !has_length {
        return Ok(None);
    }
    // RFC 9110, section 8.6: the same number several times, in one header or more, may pass; anything else must not.
    let mut found = None;
    for number in Tokens::new(fields, "content-length") {
        let number = parse_digits(number).ok_or(HttpError::LengthInvalid)?;
        if *found.get_or_insert(number) != number {
            return Err(HttpError::LengthConflict);
        }
    }
    found.map(Some).ok_or(HttpError::LengthInvalid)
}

/// Digits only: no sign, no white space, as `u64::from_str` alone would not see to.
fn parse_digits(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.iter().all(u8::is_ascii_digit);
    core::str::from_utf8(bytes).ok().filter(|_| digits)?.parse().ok()
}

#[cfg(test)]
#[path = "request_head_tests.rs"]
mod tests;
