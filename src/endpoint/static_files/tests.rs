//! Tests of static files: paths that lead nowhere, conditions, ranges.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::*;
use crate::endpoint::Endpoint;
use crate::http::{HeaderSlots, Params, Peer, RequestHead, Router};

const SECRET: &str = "not to be seen";

/// A folder of its own for each test: `root` with files to serve, and a secret beside it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("campanile-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = Self(std::env::temp_dir().join(name));
        fs::create_dir_all(folder.root().join("docs/empty")).unwrap();
        for (name, content) in [
            ("root/index.html", "<h1>top"),
            ("root/app.js", "0123456789"),
            ("root/docs/index.html", "<h1>docs"),
            ("root/.env", SECRET),
            ("secret.txt", SECRET),
        ] {
            fs::write(folder.0.join(name), content).unwrap();
        }
        symlink("app.js", folder.root().join("inside.js")).unwrap();
        symlink("../secret.txt", folder.root().join("outside.txt")).unwrap();
        symlink("..", folder.root().join("up")).unwrap();
        symlink("loop", folder.root().join("loop")).unwrap();
        folder
    }

    fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    fn files(&self) -> Files {
        Files::new(self.root()).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const EMBEDDED: &[(&str, &[u8])] = &[
    ("/index.html", b"<h1>top"),
    ("app.js", b"0123456789"),
    ("docs/index.html", b"<h1>docs"),
    ("empty", b""),
];

/// A response as far as these tests look at it.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Asks an endpoint that sits on `/files/*`, as the server would.
fn ask(endpoint: &dyn Endpoint, method: &str, path: &str, lines: &str) -> Answer {
    let mut router = Router::new();
    router.insert("/files/*", ()).unwrap();
    let text = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let mut slots = HeaderSlots::new();
    let head = RequestHead::parse(text.as_bytes(), &mut slots, 16).unwrap();
    let params = router.find(head.path()).map_or_else(Params::default, |found| found.params);
    let response = endpoint.handle(&Request::new(&head, &params, &Peer::Unix, b""));
    let mut head = Vec::new();
    response.encode_head(&mut head, "now", true, method == "HEAD");
    let mut body = Vec::new();
    let (status, len) = (response.status(), response.body_len());
    match response.into_body() {
        Body::Reader { mut reader, .. } => drop(reader.read_to_end(&mut body).unwrap()),
        Body::Static(bytes) => body.extend_from_slice(bytes),
        Body::Owned(bytes) => body = bytes,
        other => assert!(other.is_empty()),
    }
    assert_eq!(body.len() as u64, len, "the length told is the length there is");
    Answer { status, head: String::from_utf8(head).unwrap(), body: String::from_utf8(body).unwrap() }
}

fn get(endpoint: &dyn Endpoint, path: &str) -> Answer {
    ask(endpoint, "GET", path, "")
}

#[test]
fn a_file_has_type_length_and_etag() {
    let folder = Folder::new();
    let endpoints: [Box<dyn Endpoint>; 2] = [
        Box::new(folder.files().cache_control("public, max-age=60")),
        Box::new(Embedded::new(EMBEDDED).cache_control("public, max-age=60")),
    ];
    for endpoint in &endpoints {
        let answer = get(&**endpoint, "/files/app.js");
        assert_eq!((answer.status, answer.body.as_str()), (200, "0123456789"));
        assert_eq!(answer.header("Content-Type"), Some("text/javascript; charset=utf-8"));
        assert_eq!(answer.header("Content-Length"), Some("10"));
        assert_eq!(answer.header("Accept-Ranges"), Some("bytes"));
        assert_eq!(answer.header("Cache-Control"), Some("public, max-age=60"));
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
        let tag = answer.header("ETag").unwrap();

        let again = ask(&**endpoint, "GET", "/files/app.js", &format!("If-None-Match: {tag}\r\n"));
        assert_eq!((again.status, again.body.as_str(), again.header("ETag")), (304, "", Some(tag)));
        assert_eq!((again.header("Content-Length"), again.header("Content-Type")), (None, None));

        let head = ask(&**endpoint, "HEAD", "/files/app.js", "");
        assert_eq!((head.status, head.header("Content-Length")), (200, Some("10")));
        let post = ask(&**endpoint, "POST", "/files/app.js", "");
        assert_eq!((post.status, post.header("Allow")), (405, Some("GET, HEAD")));
        let stale = ask(&**endpoint, "GET", "/files/app.js", "If-Match: \"other\"\r\n");
        assert_eq!(stale.status, 412);
    }
}

#[test]
fn a_file_has_last_modified_and_an_embedded_one_does_not() {
    let folder = Folder::new();
    let answer = get(&folder.files(), "/files/app.js");
    let date = answer.header("Last-Modified").unwrap();
    let lines = format!("If-Modified-Since: {date}\r\n");
    assert_eq!(ask(&folder.files(), "GET", "/files/app.js", &lines).status, 304);
    assert_eq!(get(&Embedded::new(EMBEDDED), "/files/app.js").header("Last-Modified"), None);
}

#[test]
fn a_date_outside_the_header_format_is_left_out() {
    let now = UNIX_EPOCH + Duration::from_secs(1 << 40);
    assert_eq!(header_time(UNIX_EPOCH - Duration::from_secs(1), now), None);
    assert_eq!(header_time(UNIX_EPOCH + Duration::from_secs(253_402_300_800), now), None);
    assert_eq!(header_time(now + Duration::from_secs(1), now), None);
    let last = UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    assert_eq!(header_time(last + Duration::from_millis(999), now), Some(last));
    assert_eq!(httpdate::fmt_http_date(last), "Fri, 31 Dec 9999 23:59:59 GMT");

    let folder = Folder::new();
    let file = fs::File::options().write(true).open(folder.root().join("app.js")).unwrap();
    file.set_modified(UNIX_EPOCH - Duration::from_secs(86_400)).unwrap();
    let answer = get(&folder.files(), "/files/app.js");
    assert_eq!((answer.status, answer.header("Last-Modified")), (200, None));
}

#[test]
fn one_range_gets_206_and_several_get_the_whole_file() {
    let folder = Folder::new();
    let endpoints: [Box<dyn Endpoint>; 2] = [Box::new(folder.files()), Box::new(Embedded::new(EMBEDDED))];
    for endpoint in &endpoints {
        let ranged = |method: &str, lines: &str| ask(&**endpoint, method, "/files/app.js", lines);
        let part = ranged("GET", "Range: bytes=2-4\r\n");
        assert_eq!((part.status, part.body.as_str()), (206, "234"));
        assert_eq!(part.header("Content-Range"), Some("bytes 2-4/10"));
        assert_eq!(ranged("GET", "Range: bytes=-3\r\n").body, "789");
        let outside = ranged("GET", "Range: bytes=10-\r\n");
        assert_eq!((outside.status, outside.header("Content-Range")), (416, Some("bytes */10")));
        assert_eq!(ranged("GET", "Range: bytes=0-1,3-4\r\n").status, 200);
        assert_eq!(ranged("GET", "Range: bytes=0-1\r\nRange: bytes=3-4\r\n").status, 200);
        assert_eq!(ranged("HEAD", "Range: bytes=0-1\r\n").status, 200);
        assert_eq!(ranged("GET", "Range: bytes=0-1\r\nIf-Range: \"other\"\r\n").status, 200);
    }
    let embedded = Embedded::new(EMBEDDED);
    let tag = get(&embedded, "/files/app.js").header("ETag").unwrap().to_owned();
    let lines = format!("Range: bytes=0-1\r\nIf-Range: {tag}\r\n");
    assert_eq!(ask(&embedded, "GET", "/files/app.js", &lines).status, 206);
    assert_eq!(ask(&embedded, "GET", "/files/empty", "Range: bytes=0-\r\n").status, 416);
}

#[test]
fn a_directory_serves_its_index_and_redirects_to_its_slash() {
    let folder = Folder::new();
    let endpoints: [Box<dyn Endpoint>; 2] = [Box::new(folder.files()), Box::new(Embedded::new(EMBEDDED))];
    for endpoint in &endpoints {
        assert_eq!(get(&**endpoint, "/files/").body, "<h1>top");
        let docs = get(&**endpoint, "/files/docs/");
        assert_eq!((docs.status, docs.header("Content-Type")), (200, Some("text/html; charset=utf-8")));
        let bare = get(&**endpoint, "/files/docs?a=1");
        assert_eq!((bare.status, bare.header("Location")), (301, Some("./docs/?a=1")));
        assert_eq!(get(&**endpoint, "/files/docs/empty/").status, 404);
        assert_eq!(get(&**endpoint, "/files/app.js/").status, 404);
    }
}

#[test]
fn redirects_stay_on_the_host() {
    let folder = Folder::new();
    let endpoints: [Box<dyn Endpoint>; 2] = [Box::new(folder.files()), Box::new(Embedded::new(EMBEDDED))];
    for endpoint in &endpoints {
        for path in ["//docs", "//evil.example/..%2fdocs", "/%2fdocs", "/\\docs", "/files//docs"] {
            let answer = get(&**endpoint, path);
            assert_eq!((answer.status, answer.header("Location")), (404, None), "{path}");
        }
    }
}

/// Paths that want to be somewhere else.
#[test]
fn no_request_path_escapes_the_root() {
    let folder = Folder::new();
    let files = folder.files();
    assert_eq!(get(&files, "/files/inside.js").body, "0123456789", "a link that stays inside is followed");
    let long = format!("/files/{}", "a".repeat(5000));
    let absolute = format!("/files/{}", folder.0.join("secret.txt").display());
    let deep = format!("/files/{}", "docs/".repeat(2000));
    for path in [
        "/files/../secret.txt",
        "/files/docs/../../secret.txt",
        "/files/%2e%2e/secret.txt",
        "/files/%2E%2e%2Fsecret.txt",
        "/files/..%2fsecret.txt",
        "/files/..%5csecret.txt",
        "/files/%252e%252e/secret.txt",
        "/files/%c0%ae%c0%ae/secret.txt",
        "/files/outside.txt",
        "/files/up/secret.txt",
        "/files/loop",
        "/files//etc/passwd",
        "/files/%2fetc/passwd",
        "/files/app.js%00.html",
        "/files/app.js%00",
        "/files/.env",
        "/files/%2eenv",
        "/files/docs/./index.html",
        "/files/nothing",
        "/files/app.js/index.html",
        &long,
        &absolute,
        &deep,
    ] {
        let answer = get(&files, path);
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.body.contains(SECRET), "{path}");
        assert_eq!(get(&Embedded::new(EMBEDDED), path).status, 404, "{path}");
    }
}

#[test]
fn special_files_are_refused_without_blocking() {
    let folder = Folder::new();
    let _socket = std::os::unix::net::UnixListener::bind(folder.root().join("socket")).unwrap();
    assert_eq!(get(&folder.files(), "/files/socket").status, 404);
    // A plain open of a pipe waits for somebody to write to it.
    let made = std::process::Command::new("mkfifo").arg(folder.root().join("pipe")).status();
    assert!(made.is_ok_and(|made| made.success()));
    assert_eq!(get(&folder.files(), "/files/pipe").status, 404);
}

#[test]
fn a_root_that_is_no_directory_is_an_error() {
    let folder = Folder::new();
    assert!(Files::new(folder.root().join("app.js")).is_err());
    assert!(Files::new(folder.root().join("nowhere")).is_err());
}

#[test]
fn a_route_without_wildcard_serves_the_whole_path() {
    let folder = Folder::new();
    assert_eq!(get(&folder.files(), "/app.js").body, "0123456789");
    assert_eq!(get(&folder.files(), "/").body, "<h1>top");
    assert_eq!(get(&folder.files(), "/%2e%2e/secret.txt").status, 404);
}

proptest! {
    #[test]
    fn arbitrary_paths_never_serve_files_outside_the_root(
        pieces in prop::collection::vec(
            "/|\\.|\\.\\.|%2e|%2f|%5c|%00|%25|docs|up|outside\\.txt|secret\\.txt|\\.env|[a-z]", 0..8),
    ) {
        thread_local!(static FOLDER: Folder = Folder::new());
        let answer = FOLDER.with(|folder| get(&folder.files(), &format!("/files/{}", pieces.concat())));
        prop_assert!(!answer.body.contains(SECRET));
        prop_assert!(matches!(answer.status, 200 | 301 | 404));
    }

    #[test]
    fn arbitrary_headers_get_a_response(
        names in prop::collection::vec("Range|If-Range|If-Match|If-None-Match|If-Modified-Since", 0..4),
        values in prop::collection::vec("[ -~]{0,20}|bytes=[0-9]{0,3}-[0-9]{0,3}", 4),
    ) {
        let lines: String = names.iter().zip(&values).map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let answer = ask(&Embedded::new(EMBEDDED), "GET", "/files/app.js", &lines);
        prop_assert!(matches!(answer.status, 200 | 206 | 304 | 412 | 416), "{answer:?}");
    }
}
