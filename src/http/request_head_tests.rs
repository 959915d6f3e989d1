//! Tests of request heads: what is taken, and what is refused for which reason.

use proptest::prelude::*;

use super::*;

const MAX: usize = 64;

/// Parses a head and hands what was found to `look`, since a head can't leave the slots it borrows from.
fn with_head<T>(bytes: &[u8], look: impl FnOnce(&RequestHead<'_>) -> T) -> Result<T, HttpError> {
    let mut slots = HeaderSlots::new();
    RequestHead::parse(bytes, &mut slots, MAX).map(|head| look(&head))
}

fn error_of(bytes: impl AsRef<[u8]>) -> Option<HttpError> {
    with_head(bytes.as_ref(), |_| ()).err()
}

/// A GET with these lines after its Host.
fn get(lines: &str) -> String {
    format!("GET /chat?room=1&token=a%20b HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n")
}

#[test]
fn a_browser_upgrade_is_parsed() {
    let request = get(
        "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nOrigin: https://a.example\r\n\
         Sec-WebSocket-Protocol: chat.v2, chat.v1\r\nSec-WebSocket-Protocol: json\r\nCookie: id=7; theme=\"dark\"\r\n",
    );
    with_head(request.as_bytes(), |head| {
        assert_eq!((head.method(), head.path(), head.query()), ("GET", "/chat", Some("room=1&token=a%20b")));
        assert_eq!(head.query_value("token").as_deref(), Some("a b"));
        assert_eq!(head.host(), Some("a.example"));
        assert_eq!(head.header("ORIGIN"), Some(&b"https://a.example"[..]));
        assert!(head.has_token("Connection", "upgrade") && head.has_token("upgrade", "WebSocket"));
        assert!(!head.has_token("connection", "close") && head.keep_alive());
        assert_eq!(head.protocols().collect::<Vec<_>>(), ["chat.v2", "chat.v1", "json"]);
        assert_eq!(head.check_protocols(), Ok(()));
        assert_eq!((head.cookie("theme"), head.cookie("Theme")), (Some("dark"), None));
        assert_eq!((head.headers().len(), head.header_count("sec-websocket-protocol")), (7, 2));
        assert_eq!(head.content_length(), None);
    })
    .unwrap();
}

#[test]
fn an_absolute_target_overrides_the_host_header() {
    let request = b"GET ws://host:3000/test?x HTTP/1.1\r\nHost: other\r\n\r\n";
    let found = with_head(request, |head| {
        (head.path().to_owned(), head.query().map(str::to_owned), head.host().map(str::to_owned))
    });
    assert_eq!(found, Ok(("/test".into(), Some("x".into()), Some("host:3000".into()))));
}

#[test]
fn methods_are_case_sensitive() {
    assert_eq!(with_head(b"get / HTTP/1.1\r\nHost: a\r\n\r\n", |head| head.method() == "GET"), Ok(false));
}

#[test]
fn http_1_0_closes_by_default() {
    let keep_alive = with_head(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", |head| head.keep_alive());
    assert_eq!(keep_alive, Ok(false));
}

/// What leniency would make ambiguous, row by row.
#[test]
fn each_malformed_head_is_refused_with_its_error() {
    let malformed = |part| HttpError::Malformed { part };
    let rows: Vec<(String, HttpError)> = vec![
        (get("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), HttpError::LengthAmbiguous),
        (get("Transfer-Encoding: chunked\r\n"), HttpError::LengthRequired),
        (get("Transfer-Encoding: gzip, chunked\r\n"), HttpError::CodingUnknown),
        (get("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"), HttpError::CodingUnknown),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(), HttpError::LengthAmbiguous),
        (get("Content-Length: 5\r\nContent-Length: 6\r\n"), HttpError::LengthConflict),
        (get("Content-Length: 5, 6\r\n"), HttpError::LengthConflict),
        (get("Content-Length: +5\r\n"), HttpError::LengthInvalid),
        (get("Content-Length: -1\r\n"), HttpError::LengthInvalid),
        (get("Content-Length: 0x5\r\n"), HttpError::LengthInvalid),
        (get("Content-Length:\r\n"), HttpError::LengthInvalid),
        (get("Content-Length: 18446744073709551616\r\n"), HttpError::LengthInvalid),
        (get("Host: a.example\r\n"), HttpError::HostRepeated),
        ("GET / HTTP/1.1\r\n\r\n".into(), HttpError::HostMissing),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n".into(), HttpError::HostMissing),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(), HttpError::HostInvalid),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".into(), HttpError::HostInvalid),
        ("GET / HTTP/1.1\r\nHost: user@a\r\n\r\n".into(), HttpError::HostInvalid),
        (get("Origin: https://a\r\nOrigin: https://b\r\n"), HttpError::OriginInvalid),
        (get("Origin: https://\u{e4}\r\n"), HttpError::OriginInvalid),
        (get("A: b\r\n c\r\n"), HttpError::ObsoleteFold),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n".into(), HttpError::ObsoleteFold),
        (get("A : b\r\n"), malformed("name of a header")),
        (get(": b\r\n"), malformed("name of a header")),
        (get("no colon\r\n"), malformed("name of a header")),
        (get("A: b\n"), HttpError::BareLf),
        (get("A: b\0\r\n"), HttpError::ControlByte { byte: 0 }),
        ("GET / HTTP/2.0\r\n\r\n".into(), HttpError::VersionUnsupported),
        ("PRI * HTTP/2.0\r\n\r\n".into(), HttpError::VersionUnsupported),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n".into(), HttpError::VersionUnsupported),
        ("GET / http/1.1\r\nHost: a\r\n\r\n".into(), malformed("request line")),
        ("GET / HTTP/1.11\r\nHost: a\r\n\r\n".into(), malformed("request line")),
        ("GET /\r\nHost: a\r\n\r\n".into(), malformed("request line")),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n".into(), malformed("request line")),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n".into(), malformed("request line")),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n".into(), malformed("request line")),
        ("GET chat HTTP/1.1\r\nHost: a\r\n\r\n".into(), HttpError::BadTarget),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n".into(), HttpError::BadTarget),
        ("GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n".into(), HttpError::BadTarget),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n".into(), HttpError::MethodUnknown),
        ("GET / HTTP/1.1\r\nHost: a\r\n".into(), malformed("head")),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\nbody".into(), malformed("head")),
    ];
    for (request, expected) in rows {
        assert_eq!(error_of(&request), Some(expected), "{request:?}");
    }
}

#[test]
fn equal_content_lengths_are_accepted() {
    let lengths = get("Content-Length: 5\r\nContent-Length: 5, 5\r\n");
    assert_eq!(with_head(lengths.as_bytes(), |head| head.content_length()), Ok(Some(5)));
}

#[test]
fn one_header_above_the_limit_is_refused() {
    let request = |count: usize| get(&"A: b\r\n".repeat(count - 1));
    assert_eq!(with_head(request(MAX).as_bytes(), |head| head.headers().len()), Ok(MAX));
    assert_eq!(error_of(request(MAX + 1)), Some(HttpError::TooManyHeaders { limit: MAX }));
    assert_eq!(error_of(request(10_000)), Some(HttpError::TooManyHeaders { limit: MAX }));
    let many = request(MAX_HEADERS + 1);
    let mut slots = HeaderSlots::new();
    let error = RequestHead::parse(many.as_bytes(), &mut slots, usize::MAX).err();
    assert_eq!(error, Some(HttpError::TooManyHeaders { limit: MAX_HEADERS }));
}

#[test]
fn hostile_subprotocol_offers_are_refused() {
    let offer = |value: &[u8]| {
        [b"GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Protocol: ", value, b"\r\n\r\n"].concat()
    };
    let check = |value: &[u8]| with_head(&offer(value), |head| head.check_protocols()).unwrap();
    let count = |value: &[u8]| with_head(&offer(value), |head| head.protocols().count()).unwrap();

    let spaces = [b"b".as_slice(), &vec![b' '; 60 << 10], b"x"].concat();
    assert_eq!(check(&spaces), Err(HttpError::ProtocolsTooLarge { limit: MAX_PROTOCOL_BYTES }));
    assert_eq!(count(&spaces), 0);
    let many = b"a,".repeat(10_000);
    assert_eq!(check(&many), Err(HttpError::ProtocolsTooLarge { limit: MAX_PROTOCOL_BYTES }));
    assert_eq!(count(&many), MAX_PROTOCOLS);
    assert_eq!(check(&b"a,".repeat(MAX_PROTOCOLS)), Ok(()));
    let limit = Err(HttpError::TooManyProtocols { limit: MAX_PROTOCOLS });
    assert_eq!(check(&b"a,".repeat(MAX_PROTOCOLS + 1)), limit);
    for bad in [&b"a\x80"[..], b"\xff\xfe", b"a b", b"a/b", b"\"a\""] {
        assert_eq!(check(bad), Err(HttpError::ProtocolInvalid), "{bad:?}");
        assert_eq!(count(bad), 0);
    }
}

#[test]
fn header_values_may_be_non_ascii() {
    let request = [get("X: ").trim_end().as_bytes(), b" \xff\x80\r\n\r\n"].concat();
    with_head(&request, |head| {
        assert_eq!(head.header("x"), Some(&b"\xff\x80"[..]));
        assert_eq!(head.header_str("x"), None);
        assert!(!head.has_token("x", "y"));
    })
    .unwrap();
}

#[test]
fn a_path_is_decoded_once() {
    let decoded = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        with_head(request.as_bytes(), |head| head.decoded_path().map(|path| path.into_owned())).unwrap()
    };
    assert_eq!(decoded("/a%20b/%252e").as_deref(), Some("/a b/%2e"));
    assert_eq!(decoded("/%ff"), None);
}

/// Asks a head everything it can be asked.
fn ask_all(head: &RequestHead<'_>) {
    for (name, value) in head.headers() {
        assert_eq!(head.header(name).map(|_| ()), Some(()));
        assert!(value.len() <= 1 << 16);
    }
    let _ =
        (head.decoded_path(), head.query_pairs().count(), head.cookies().count(), head.host(), head.origin());
    let _ = (head.protocols().count(), head.check_protocols(), head.keep_alive(), head.expects_continue());
    let _ = head.tokens("connection").count();
    assert!(head.path().starts_with('/') || head.path() == "*");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_the_request_parser(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = with_head(&bytes, ask_all);
    }

    #[test]
    fn request_like_bytes_never_panic_the_parser(
        method in "[A-Za-z]{0,7}",
        target in "(/|ws://|http://|\\*)?[ -~]{0,20}",
        version in "HTTP/[0-3]\\.[0-3]",
        names in prop::collection::vec(
            "Host|Cookie|Connection|Content-Length|Transfer-Encoding|Origin|Sec-WebSocket-Protocol|[ -~]{0,4}", 0..6),
        values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 6),
    ) {
        let mut request = format!("{method} {target} {version}\r\nHost: a\r\n").into_bytes();
        for (name, value) in names.iter().zip(&values) {
            request.extend_from_slice(name.as_bytes());
            request.extend_from_slice(b": ");
            request.extend_from_slice(value);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        let _ = with_head(&request, ask_all);
    }
}
