//! Plain HTTP on the same port.

use crate::support;
use crate::support::{Client, TestServer, builder, echo, millis, start, until};
use campanile::endpoint::static_files::Files;
use campanile::http::Body;
use campanile::{BuildError, HttpLimits, ListenAddr, Request, Response, Server, TopicSettings};
use std::path::PathBuf;

fn page(request: &Request<'_>) -> Response {
    Response::new(200).text(format!("{} {}\n", request.method(), request.path()))
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: bell.example\r\n\r\n")
}

fn served() -> TestServer {
    let post = |request: &Request<'_>| Response::new(201).body(request.body().to_vec());
    start(
        builder()
            .get("/", page)
            .get("/pages/:name", |r: &Request<'_>| {
                Response::new(200).text(r.param("name").unwrap().to_owned())
            })
            .post("/post", post)
            .on("PUT", "/post", page)
            .on("*", "/any", page)
            .get("/both", page)
            .route("/both", echo())
            .get("/panic", |_: &Request<'_>| -> Response { panic!("in an endpoint") })
            .get("/empty", |_: &Request<'_>| Response::new(204)),
    )
}

#[test]
fn a_connection_serves_requests_in_sequence() {
    let server = served();
    let mut client = server.dial();
    for path in ["/", "/pages/a%20b", "/none", "/"] {
        client.send(get(path));
        let answer = client.answer();
        match path {
            "/" => assert_eq!((answer.status, answer.text()), (200, "GET /\n")),
            "/none" => assert_eq!(answer.status, 404),
            _ => assert_eq!(answer.text(), "a b"),
        }
        assert!(answer.header("date").is_some_and(|d| d.ends_with(" GMT")));
        assert_ne!(answer.header("connection"), Some("close"));
    }
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    client.expect_eof();
    assert_eq!(server.handle.stats().accepted, 1);
}

#[test]
fn http_1_0_gets_one_response_and_the_connection_ends() {
    let server = served();
    let mut client = server.dial();
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.answer().text(), "GET /\n");
    client.expect_eof();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = served();
    let mut client = server.dial();
    let mut all = String::new();
    for n in 0..200 {
        all += &get(&format!("/pages/{n}"));
    }
    let cut = all.len() - 17;
    client.send(&all[..cut]);
    for n in 0..199 {
        assert_eq!(client.answer().text(), n.to_string());
    }
    client.send(&all[cut..]);
    assert_eq!(client.answer().text(), "199");
}

#[test]
fn an_upgrade_may_follow_other_requests() {
    let server = served();
    let mut client = server.dial();
    let mut all = get("/").into_bytes();
    all.extend(support::upgrade_request("/both", "").into_bytes());
    all.extend(support::frame(true, support::TEXT, b"at once"));
    client.send(all);
    assert_eq!(client.answer().text(), "GET /\n");
    assert_eq!(client.answer().status, 101);
    assert_eq!(client.read_text(), "at once");
}

#[test]
fn one_path_serves_a_page_and_a_websocket() {
    let server = served();
    let mut client = server.dial();
    client.send(get("/both"));
    assert_eq!(client.answer().text(), "GET /both\n");
    client.upgrade("/both");
    client.text("and now this");
    assert_eq!(client.read_text(), "and now this");
}

#[test]
fn head_answers_like_get_without_a_body() {
    let server = served();
    let mut client = server.dial();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.answer_to_head();
    assert_eq!((head.status, head.header("content-length")), (200, Some("7")));
    client.send(get("/empty"));
    assert_eq!(client.answer().status, 204);
    client.send(get("/"));
    assert_eq!(client.answer().text(), "GET /\n");
}

#[test]
fn methods_are_routed_separately() {
    let server = served();
    let mut client = server.dial();
    for (method, path, status) in [
        ("PUT", "/post", 200),
        ("DELETE", "/post", 405),
        ("POST", "/", 405),
        ("DELETE", "/any", 200),
        ("OPTIONS", "/any", 200),
    ] {
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let answer = client.answer();
        assert_eq!(answer.status, status, "{method} {path}");
        match path {
            "/post" if status == 405 => assert_eq!(answer.header("allow"), Some("POST, PUT")),
            "/" => assert_eq!(answer.header("allow"), Some("GET, HEAD")),
            _ => {}
        }
    }
}

#[test]
fn a_body_is_assembled_from_any_segments() {
    let server = served();
    let mut client = server.dial();
    let body: Vec<u8> = (0..60_000u32).map(|n| n as u8).collect();
    let head = format!("POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    let all = [head.as_bytes(), &body].concat();
    for cut in [1, head.len() - 1, head.len(), head.len() + 1, 30_000] {
        client.send(&all[..cut]);
        server.settle();
        client.send(&all[cut..]);
        let answer = client.answer();
        assert!(answer.status == 201 && answer.body == body, "cut at {cut}");
    }
    client.send("POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.answer().body, b"");
    // Two in one segment.
    client.send("POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nonePOST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\ntwo");
    assert_eq!((client.answer().text(), client.answer().text()), ("one", "two"));
}

#[test]
fn expect_100_continue_is_answered_before_the_body() {
    let server = served();
    let mut client = server.dial();
    let head = "POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    client.send(head);
    assert!(client.read_head().starts_with("HTTP/1.1 100 "));
    client.send("bo");
    server.settle();
    client.send("dy");
    assert_eq!(client.answer().text(), "body");
    // Whoever sends the body at once needs no leave.
    client.send(format!("{head}body"));
    assert_eq!(client.answer().text(), "body");
}

#[test]
fn a_body_that_is_too_large_or_of_unknown_length_is_refused() {
    let server = served();
    for (lines, status) in [
        ("Content-Length: 65537", 413),
        ("Content-Length: 18446744073709551615", 413),
        ("Content-Length: 99999999999999999999999", 400),
        ("Content-Length: -1", 400),
        ("Transfer-Encoding: chunked", 411),
        ("Transfer-Encoding: gzip", 501),
    ] {
        let mut client = server.dial();
        client.send(format!("POST /post HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n"));
        assert_eq!(client.answer().status, status, "{lines}");
        client.expect_eof();
    }
}

#[test]
fn a_panic_in_an_http_handler_is_a_500() {
    let server = served();
    let mut client = server.dial();
    client.send(get("/panic"));
    assert_eq!(client.answer().status, 500);
    client.send(get("/"));
    assert_eq!(client.answer().status, 200);
    assert_eq!(server.handle.stats().panics, 1);
}

#[test]
fn an_idle_keep_alive_connection_is_closed() {
    let mut http = HttpLimits::default();
    http.timeout = millis(150);
    let server = start(builder().http_limits(http).get("/", page));
    let mut client = server.dial();
    client.send(get("/"));
    assert_eq!(client.answer().status, 200);
    client.expect_eof();
}

#[test]
fn a_half_closed_client_gets_its_responses() {
    let large = vec![b'x'; 20 << 20];
    let server =
        start(builder().get("/large", move |_: &Request<'_>| Response::new(200).body(large.clone())));
    let mut client = Client::dial_with(server.addr, Some(4096));
    client.send(get("/large"));
    client.end();
    assert_eq!(client.answer().body.len(), 20 << 20);
}

#[test]
fn shutdown_finishes_started_responses() {
    const LEN: usize = 20 << 20;
    let memory = |_: &Request<'_>| Response::new(200).body(vec![b'x'; LEN]);
    let reader = |_: &Request<'_>| {
        Response::new(200).body(Body::Reader { reader: Box::new(std::io::repeat(b'x')), len: LEN as u64 })
    };
    let mut server = start(builder().get("/memory", memory).get("/reader", reader));
    let mut clients: Vec<Client> = ["/memory", "/reader"]
        .map(|path| {
            let mut client = Client::dial_with(server.addr, Some(4096));
            client.send(get(path));
            client
        })
        .into();
    server.until("both are being answered", |s| s.requests == 2);
    let mut idle = server.dial();
    server.until("the third is there", |s| s.accepted == 3);
    server.handle.shutdown(support::DEADLINE);
    idle.expect_gone();
    for client in &mut clients {
        assert_eq!(client.answer().body.len(), LEN);
        client.expect_eof();
    }
    drop(clients);
    server.shutdown(support::DEADLINE);
}

// ---- what a client does not read ----

#[test]
fn requests_without_reading_are_paused() {
    const EACH: usize = 1 << 20;
    let body: std::sync::Arc<[u8]> = vec![b'x'; EACH].into();
    let server = start(builder().get("/", move |_: &Request<'_>| Response::new(200).body(body.clone())));
    let mut client = Client::dial_with(server.addr, Some(4096));
    let asked = 2000;
    client.send(get("/").repeat(asked));
    // What the worker answers without being read is its memory.
    let mut seen = server.handle.stats().requests;
    server.settle();
    until("it stops answering", || {
        let now = server.handle.stats().requests;
        server.settle();
        std::mem::replace(&mut seen, now) == now
    });
    assert!(seen < 64, "{seen} answers of {EACH} bytes wait");
    for _ in 0..20 {
        assert_eq!(client.answer().body.len(), EACH);
    }
    until("it goes on", || server.handle.stats().requests > seen);
}

#[test]
fn slowly_read_responses_are_complete() {
    let server = start(
        builder()
            .get("/:n", |r: &Request<'_>| {
                let n: usize = r.param("n").unwrap().parse().unwrap();
                let bytes = vec![n as u8; 50_000 + n];
                match n % 3 {
                    0 => Response::new(200).body(bytes),
                    1 => Response::new(200).body(Body::Reader {
                        len: bytes.len() as u64,
                        reader: Box::new(std::io::Cursor::new(bytes)),
                    }),
                    _ => Response::new(200).text("short"),
                }
            })
            .route("/", echo()),
    );
    let mut client = Client::dial_with(server.addr, Some(4096));
    let mut all: Vec<u8> = (0..150).flat_map(|n| get(&format!("/{n}")).into_bytes()).collect();
    all.extend(support::upgrade_request("/", "").into_bytes());
    all.extend(support::frame(true, support::PING, b"behind it all"));
    all.extend(support::frame(true, support::TEXT, b"the end"));
    client.send(&all);
    for n in 0..150 {
        let answer = client.answer();
        let expected = if n % 3 == 2 { b"short".to_vec() } else { vec![n as u8; 50_000 + n] };
        assert!(answer.body == expected, "answer {n}");
    }
    assert_eq!(client.answer().status, 101);
    assert_eq!(client.read_pong(), b"behind it all");
    assert_eq!(client.read_text(), "the end");
}

#[test]
fn many_pipelined_requests_behind_a_body_are_answered() {
    let len = 8 << 20;
    let server = start(builder().get("/long", move |_: &Request<'_>| {
        Response::new(200).body(Body::Reader { reader: Box::new(std::io::repeat(b'x')), len })
    }));
    let mut client = Client::dial_with(server.addr, Some(4096));
    let mut sender = Client::over(client.socket.try_clone().unwrap());
    let all = get("/long")
        + &format!("HEAD /long HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(4000)).repeat(300);
    let sending = std::thread::spawn(move || sender.send(all));
    assert_eq!(client.answer().body.len(), len as usize);
    for _ in 0..300 {
        assert_eq!(client.answer_to_head().status, 200);
    }
    sending.join().unwrap();
}

#[test]
fn a_response_body_that_ends_early_aborts_the_connection() {
    let server = start(builder().get("/", |_: &Request<'_>| {
        Response::new(200)
            .body(Body::Reader { reader: Box::new(std::io::Cursor::new(vec![1; 10])), len: 100 })
    }));
    let mut client = server.dial();
    client.send(get("/"));
    assert!(client.read_head().contains("100"));
    assert!(client.read_to_end().len() <= 10);
}

// ---- files ----

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("campanile-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_large_file_is_streamed_to_slow_readers_and_in_ranges() {
    let folder = Folder::new("files");
    let content: Vec<u8> = (0..6_000_001u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(folder.0.join("large.bin"), &content).unwrap();
    let server = start(builder().get("/files/*", Files::new(&folder.0).unwrap()).route("/", echo()));
    let mut slow = Client::dial_with(server.addr, Some(4096));
    slow.send(get("/files/large.bin") + &get("/files/large.bin"));
    // While it waits, others are served.
    server.open("/").expect_nothing_until_pong();
    for _ in 0..2 {
        let answer = slow.answer();
        assert_eq!(answer.status, 200);
        assert!(answer.body == content, "{} bytes", answer.body.len());
    }
    let mut range = |lines: &str| {
        slow.send(format!("GET /files/large.bin HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n"));
        slow.answer()
    };
    let answer = range("Range: bytes=5999990-");
    assert_eq!((answer.status, answer.header("content-range")), (206, Some("bytes 5999990-6000000/6000001")));
    assert_eq!(answer.body, content[5_999_990..]);
    assert_eq!(range("Range: bytes=3-1000000").body, content[3..=1_000_000]);
    assert_eq!(range("Range: bytes=-4").body, content[5_999_997..]);
    assert_eq!(range("Range: bytes=6000001-").status, 416);
    let tag = range("").header("etag").unwrap().to_owned();
    assert_eq!(range(&format!("If-None-Match: {tag}")).status, 304);
}

#[test]
fn a_client_that_leaves_during_a_file_leaves_nothing_behind() {
    let folder = Folder::new("gone");
    std::fs::write(folder.0.join("large.bin"), vec![7; 20 << 20]).unwrap();
    let server = start(builder().get("/*", Files::new(&folder.0).unwrap()));
    for _ in 0..5 {
        let mut client = Client::dial_with(server.addr, Some(4096));
        client.send(get("/large.bin"));
        client.read_head();
        client.reset();
    }
    server.until("all are closed", |s| s.accepted == 5 && s.sockets == 0);
}

// ---- other ways in ----

#[test]
fn a_unix_socket_serves_http_and_websockets() {
    let path = std::env::temp_dir().join(format!("campanile-http-{}.sock", std::process::id()));
    let server = start(
        builder()
            .listen(&format!("unix:{}", path.display()))
            .get("/", page)
            .get("/peer", |r: &Request<'_>| Response::new(200).text(r.peer().to_string()))
            .route("/ws", echo()),
    );
    let mut client = Client::dial_unix(&path);
    client.send(get("/peer"));
    assert_eq!(client.answer().text(), "unix");
    client.upgrade("/ws");
    client.text("over a file");
    assert_eq!(client.read_text(), "over a file");
    drop(server);
    client.skip_to_close();
    until("the socket file is removed", || !path.exists());
}

#[test]
fn ipv6_is_served_and_several_addresses_at_once() {
    let build = || builder().listen("[::1]:0").listen("127.0.0.1:0").route("/", echo()).build();
    let Ok(server) = build() else { return }; // a machine without IPv6
    let addrs: Vec<_> = server.local_addrs().to_vec();
    let (handle, running) = (server.handle(), server.spawn().unwrap());
    for addr in addrs {
        let ListenAddr::Tcp(addr) = addr else { panic!("{addr}") };
        let mut client = Client::dial(addr);
        client.upgrade("/");
        client.text("hello");
        assert_eq!(client.read_text(), "hello");
        let all = handle.connections("/").wait().unwrap();
        assert!(all.iter().any(|c| c.peer.to_string() == client.local_addr().to_string()));
    }
    handle.shutdown(millis(1));
    running.join().expect("no worker failed");
}

#[test]
fn an_address_in_use_is_reported() {
    let server = served();
    let again = Server::builder().listen(&server.addr.to_string()).build();
    let message = again.err().map(|e| e.to_string()).unwrap_or_default();
    assert!(message.contains("in use") && message.contains(&server.addr.to_string()), "{message}");
    assert!(Server::builder().listen("nonsense").build().is_err());
    let twice = Server::builder().route("/a", echo()).route("/a", echo()).build();
    assert!(twice.is_err());
}

#[test]
fn an_impossible_topic_prefix_is_refused() {
    let build = |prefix: &str| Server::builder().topics(prefix, TopicSettings::new().history(1)).build();
    for prefix in ["", "chat", "chat/", "/"] {
        assert!(build(prefix).is_ok(), "{prefix:?}");
    }
    for prefix in ["chat/*", "a\n", &"x".repeat(256)] {
        assert!(
            matches!(build(prefix), Err(BuildError::TopicPrefix { prefix: p }) if p == prefix),
            "{prefix:?}"
        );
    }
}

#[test]
fn a_full_server_refuses_connections_with_503() {
    let server = start(builder().max_connections(2).route("/", echo()));
    let (a, b) = (server.open("/"), server.open("/"));
    let mut third = server.dial();
    assert_eq!(third.answer().status, 503);
    third.expect_eof();
    assert_eq!(server.handle.stats().turned_away, 1);
    drop((a, b));
    server.until("there is room", |s| s.sockets == 0);
    server.open("/").expect_nothing_until_pong();
}
