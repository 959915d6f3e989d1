//! The opening handshake, from the first byte to the 101 or the refusal.

use crate::support;
use crate::support::{
    ACCEPT, Client, DEADLINE, Event, KEY, TEXT, TestServer, builder, echo, frame, millis, recorder, serve,
    start, upgrade_request,
};
use campanile::http::Body;
use campanile::{Accept, HttpLimits, Origins, Peer, Pending, Refuse, Request, Response, Route};
use crossbeam_channel::{Receiver, unbounded};
use std::time::{Duration, Instant};

fn accepts(answer: &support::Answer) {
    assert_eq!((answer.status, answer.header("sec-websocket-accept")), (101, Some(ACCEPT)), "{answer:?}");
}

#[test]
fn the_101_response_has_the_required_headers_and_no_body() {
    let server = serve(echo());
    let mut client = server.dial();
    let answer = client.ask("/", "");
    accepts(&answer);
    assert!(answer.head.starts_with("HTTP/1.1 101 "));
    assert!(answer.header("upgrade").unwrap().eq_ignore_ascii_case("websocket"));
    assert!(answer.header("connection").unwrap().eq_ignore_ascii_case("upgrade"));
    for absent in
        ["content-length", "transfer-encoding", "sec-websocket-protocol", "sec-websocket-extensions"]
    {
        assert_eq!(answer.header(absent), None, "{absent}");
    }
    client.text("first");
    assert_eq!(client.read_text(), "first");
}

#[test]
fn a_handler_accepts_with_subprotocol_headers_cookies_and_state() {
    let (handler, _events) = recorder();
    let handler = handler
        .on_upgrade(|request| {
            let name = request.cookie("name").unwrap_or("nobody").to_owned();
            let accept = Accept::new(name);
            let offered: Vec<&str> = request.protocols().collect();
            assert_eq!(offered, ["chat.v1", "chat.v2", "other"]);
            Ok(accept
                .protocol("chat.v2")
                .header("Set-Cookie", "a=1; HttpOnly")
                .header("Set-Cookie", "b=2")
                .header("X-Bell", "big"))
        })
        .on_open(|conn| {
            let hello = format!("{} {}", conn.state, conn.protocol().unwrap());
            conn.send(&hello).unwrap();
        })
        .on_message(|conn, message| {
            conn.state.push_str(message.as_text().unwrap());
            let state = conn.state.clone();
            conn.send(&state).unwrap();
        });
    let server = serve(handler);
    let mut client = server.dial();
    let more = "Cookie: theme=dark; name=Ann\r\nSec-WebSocket-Protocol: chat.v1, chat.v2\r\n\
                sec-websocket-protocol: other\r\n";
    let answer = client.ask("/", more);
    accepts(&answer);
    assert_eq!(answer.header("sec-websocket-protocol"), Some("chat.v2"));
    assert_eq!(answer.headers("set-cookie").collect::<Vec<_>>(), ["a=1; HttpOnly", "b=2"]);
    assert_eq!(answer.header("x-bell"), Some("big"));
    assert_eq!(client.read_text(), "Ann chat.v2");
    client.text("+");
    assert_eq!(client.read_text(), "Ann+");
}

#[test]
fn a_subprotocol_that_was_not_offered_is_omitted() {
    let (handler, events) = recorder();
    let handler = handler
        .on_upgrade(|_| Ok(Accept::new(String::new()).protocol("chat.v2")))
        .on_open(|conn| assert_eq!(conn.protocol(), None));
    let server = serve(handler);
    for more in ["", "Sec-WebSocket-Protocol: chat.v1\r\n"] {
        let answer = server.dial().ask("/", more);
        accepts(&answer);
        assert_eq!(answer.header("sec-websocket-protocol"), None);
        events.opened();
    }
    assert_eq!(server.handle.stats().panics, 0);
}

#[test]
fn a_handler_refuses_with_any_status_headers_and_body() {
    let (handler, events) = recorder();
    let handler = handler.on_upgrade(|request| match request.query_value("say").as_deref() {
        Some("teapot") => {
            Err(Refuse::from(Response::new(418).header("X-Why", "short and stout").json("{\"tea\":true}")))
        }
        Some("login") => Err(Refuse::new(401).header("WWW-Authenticate", "Bearer").text("who are you?\n")),
        Some("bare") => Err(Refuse::new(503)),
        _ => Ok(Accept::new(String::new())),
    });
    let server = serve(handler);
    let ask = |path: &str| server.dial().ask(path, "");
    let answer = ask("/?say=teapot");
    assert_eq!((answer.status, answer.text()), (418, "{\"tea\":true}"));
    assert_eq!(answer.header("x-why"), Some("short and stout"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("sec-websocket-accept"), None);
    let answer = ask("/?say=login");
    assert_eq!((answer.status, answer.text()), (401, "who are you?\n"));
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    let answer = ask("/?say=bare");
    assert_eq!((answer.status, answer.text()), (503, ""));
    let mut client = server.open("/");
    client.expect_nothing_until_pong();
    events.opened();
    server.settle();
    assert!(!events.so_far().iter().any(|e| matches!(e, Event::Open(_) | Event::Close(..))));
}

// ---- later ----

/// A server whose upgrades wait for the test, and where their tokens arrive.
fn undecided(timeout: Duration) -> (TestServer, Receiver<Pending<String>>, support::Events) {
    let (tokens, given) = unbounded();
    let (handler, events) = recorder();
    let handler = handler
        .on_upgrade(move |_| {
            let tokens = tokens.clone();
            Ok(Accept::later(timeout, move |pending| tokens.send(pending).unwrap()))
        })
        .on_message(|conn, message| {
            let text = format!("{} {}", conn.state, message.as_text().unwrap());
            conn.send(&text).unwrap();
        });
    (serve(handler), given, events)
}

#[test]
fn an_upgrade_can_be_accepted_later_from_another_thread() {
    let (server, tokens, events) = undecided(DEADLINE);
    let mut client = server.dial();
    client.send(upgrade_request("/", "Sec-WebSocket-Protocol: a, b\r\n"));
    let pending = tokens.recv_timeout(DEADLINE).unwrap();
    // Sent before the decision: it waits for it.
    client.text("early");
    let id = pending.id();
    let accept = Accept::new("Ann".to_owned()).protocol("b").header("X-Late", "yes");
    std::thread::spawn(move || pending.accept(accept)).join().unwrap();
    let answer = client.answer();
    accepts(&answer);
    assert_eq!((answer.header("sec-websocket-protocol"), answer.header("x-late")), (Some("b"), Some("yes")));
    assert_eq!(client.read_text(), "Ann early");
    assert_eq!(events.opened(), id, "the name does not change");
}

#[test]
fn frames_in_the_same_segment_wait_for_a_late_decision() {
    let (server, tokens, _events) = undecided(DEADLINE);
    let mut client = server.dial();
    let mut all = upgrade_request("/", "").into_bytes();
    all.extend(frame(true, TEXT, b"one"));
    all.extend(&frame(true, TEXT, b"two")[..5]);
    client.send(&all);
    tokens.recv_timeout(DEADLINE).unwrap().accept(Accept::new("Ann".to_owned()));
    accepts(&client.answer());
    assert_eq!(client.read_text(), "Ann one");
    client.send(&frame(true, TEXT, b"two")[5..]);
    assert_eq!(client.read_text(), "Ann two");
}

#[test]
fn a_late_refusal_has_its_status_headers_and_body() {
    let (server, tokens, events) = undecided(DEADLINE);
    let mut client = server.dial();
    client.send(upgrade_request("/", ""));
    let refuse = Refuse::new(403).header("X-Why", "late").text("no\n");
    tokens.recv_timeout(DEADLINE).unwrap().refuse(refuse);
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("x-why"), answer.text()), (403, Some("late"), "no\n"));
    client.expect_eof();
    drop(server);
    assert!(events.so_far().iter().all(|e| matches!(e, Event::Upgrade)));
}

#[test]
fn an_upgrade_without_a_decision_is_a_503() {
    let (server, tokens, events) = undecided(millis(100));
    let mut client = server.dial();
    client.send(upgrade_request("/", ""));
    let pending = tokens.recv_timeout(DEADLINE).unwrap();
    let answer = client.answer();
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    pending.accept(Accept::new("too late".to_owned()));
    client.expect_eof();
    drop(server);
    assert!(!events.so_far().iter().any(|e| matches!(e, Event::Open(_))));
}

#[test]
fn a_dropped_pending_upgrade_is_a_503() {
    let (server, tokens, _events) = undecided(DEADLINE);
    let mut client = server.dial();
    client.send(upgrade_request("/", ""));
    drop(tokens.recv_timeout(DEADLINE).unwrap());
    assert_eq!(client.answer().status, 503);
}

#[test]
fn a_client_that_leaves_before_the_decision_is_never_opened() {
    let (server, tokens, events) = undecided(DEADLINE);
    let mut client = server.dial();
    client.send(upgrade_request("/", ""));
    let pending = tokens.recv_timeout(DEADLINE).unwrap();
    client.reset();
    server.until("the socket has gone", |s| s.sockets == 0);
    // The slot's next tenant must not get the answer.
    let mut next = server.dial();
    next.send(upgrade_request("/", ""));
    let its = tokens.recv_timeout(DEADLINE).unwrap();
    assert_ne!(pending.id(), its.id());
    pending.accept(Accept::new("the one who left".to_owned()));
    its.accept(Accept::new("Ben".to_owned()));
    accepts(&next.answer());
    next.text("hi");
    assert_eq!(next.read_text(), "Ben hi");
    assert_eq!(events.opened().as_u64(), events_id(&server));
}

fn events_id(server: &TestServer) -> u64 {
    let all = server.handle.connections("/").wait().unwrap();
    assert_eq!(all.len(), 1);
    all[0].id.as_u64()
}

#[test]
fn a_panicking_or_deferred_decision_is_a_500() {
    let (handler, _events) = recorder();
    let handler = handler.on_upgrade(|request| match request.query() {
        Some("panic") => panic!("in upgrade"),
        Some("start") => Ok(Accept::later(DEADLINE, |_| panic!("in start"))),
        _ => Ok(Accept::later(DEADLINE, |pending: Pending<String>| {
            pending.accept(Accept::later(DEADLINE, |_| {}));
        })),
    });
    let server = serve(handler);
    assert_eq!(server.dial().ask("/?panic", "").status, 500);
    assert_eq!(server.dial().ask("/?start", "").status, 503);
    assert_eq!(server.dial().ask("/", "").status, 500);
    assert_eq!(server.handle.stats().panics, 2);
}

// ---- bytes ----

#[test]
fn frames_in_the_same_segment_as_the_request_are_answered() {
    let server = serve(echo());
    let mut client = server.dial();
    let mut all = upgrade_request("/", "").into_bytes();
    for text in ["one", "two"] {
        all.extend(frame(true, TEXT, text.as_bytes()));
    }
    let third = frame(true, TEXT, &[b'3'; 200]);
    all.extend(&third[..3]);
    client.send(&all);
    accepts(&client.answer());
    assert_eq!((client.read_text(), client.read_text()), ("one".into(), "two".into()));
    client.send(&third[3..]);
    assert_eq!(client.read_text().len(), 200);
}

#[test]
fn a_handshake_may_arrive_byte_by_byte() {
    let server = serve(echo());
    let mut client = server.dial();
    let mut all = upgrade_request("/", "X-Padding: some more bytes\r\n").into_bytes();
    all.extend(frame(false, TEXT, "é🔔".as_bytes()));
    all.extend(frame(true, support::PING, b"p"));
    all.extend(frame(true, support::CONTINUATION, &[b'z'; 126]));
    all.extend(frame(true, support::CLOSE, &support::close_payload(1000, "bye")));
    for byte in all {
        client.send([byte]);
    }
    accepts(&client.answer());
    assert_eq!(client.read_pong(), b"p");
    assert_eq!(client.read_text(), format!("é🔔{}", "z".repeat(126)));
    assert_eq!(client.expect_failed(1000), "");
}

#[test]
fn request_heads_are_parsed_as_http_defines() {
    let (handler, _events) = recorder();
    let handler = handler.on_open(|conn| {
        let room = conn.param("room").unwrap_or_default().to_owned();
        conn.send(&room).unwrap();
    });
    let server =
        start(builder().route("/:room", handler).get("/", |_: &campanile::Request<'_>| Response::new(200)));
    let lines = |target: &str, upgrade: &str, connection: &str| {
        format!(
            "GET {target} HTTP/1.1\r\nhost: bell.example\r\n{upgrade}\r\n{connection}\r\n\
             SEC-WEBSOCKET-KEY:{KEY}  \r\nsec-websocket-version: \t13\r\n\r\n"
        )
    };
    let good = [
        lines("http://bell.example:3000/bell", "Upgrade: websocket", "Connection: Upgrade"),
        lines("ws://bell.example:3000/bell?x=1", "Upgrade: websocket", "Connection: upgrade"),
        lines("/bell", "uPGRADE: WebSocket", "connection: keep-alive, Upgrade"),
        lines("/bell", "Upgrade: h2c, websocket", "Connection: ,Upgrade , close"),
        lines("/bell", "Upgrade: websocket", "Connection: keep-alive\r\nConnection: UPGRADE"),
        lines("/b%65ll", "Upgrade: websocket", "Connection: Upgrade"),
    ];
    for request in good {
        let mut client = server.dial();
        client.send(&request);
        let answer = client.answer();
        assert_eq!(answer.status, 101, "{request}{answer:?}");
        assert_eq!(client.read_text(), "bell", "{request}");
    }
}

#[test]
fn the_handler_sees_the_whole_request() {
    let (handler, _events) = recorder();
    let handler = handler
        .on_upgrade(|request| {
            assert_eq!((request.method(), request.path()), ("GET", "/rooms/a%20b/x/y"));
            assert_eq!((request.param("room"), request.param("*")), (Some("a b"), Some("x/y")));
            assert_eq!(request.query(), Some("token=a+b%21&flag&token=2"));
            assert_eq!(request.query_value("token").as_deref(), Some("a b!"));
            assert_eq!(request.query_value("flag").as_deref(), Some(""));
            assert_eq!(request.query_value("none"), None);
            assert_eq!(request.host(), Some("bell.example"));
            assert_eq!(request.header("x-bytes"), Some(&b"caf\xe9"[..]));
            assert_eq!(request.header_str("X-BYTES"), None);
            assert_eq!(request.origin(), Some("https://bell.example"));
            let Peer::Ip(peer) = request.peer() else { panic!("{:?}", request.peer()) };
            Ok(Accept::new(peer.to_string()))
        })
        .on_open(|conn| {
            assert_eq!(conn.route(), "/rooms/:room/*");
            assert_eq!(
                (conn.param("room"), conn.param("*"), conn.param("no")),
                (Some("a b"), Some("x/y"), None)
            );
            assert_eq!(conn.peer().to_string(), *conn.state);
            let peer = conn.state.clone();
            conn.send(&peer).unwrap();
        });
    let route = Route::new(handler).origins(Origins::list(["https://bell.example"]).unwrap());
    let server = start(builder().route("/rooms/:room/*", route).route("/rooms/:room", echo()));
    let mut client = server.dial();
    let mut request = upgrade_request("/rooms/a%20b/x/y?token=a+b%21&flag&token=2", "").into_bytes();
    request.truncate(request.len() - 2);
    request.extend(b"X-Bytes: caf\xe9\r\nOrigin: https://bell.example\r\n\r\n");
    client.send(request);
    let answer = client.answer();
    assert_eq!((answer.status, server.handle.stats().panics), (101, 0), "{answer:?}");
    assert_eq!(client.read_text(), client.local_addr().to_string());
}

// ---- faults ----

#[test]
fn every_invalid_request_has_its_status_and_a_short_body() {
    let server = start(
        builder()
            .route("/", echo())
            .get("/page", |_: &campanile::Request<'_>| Response::new(200).text("page\n")),
    );
    let good = upgrade_request("/", "");
    let changed = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replace(from, to)
    };
    let key = format!("Sec-WebSocket-Key: {KEY}\r\n");
    let faults = [
        (400, changed("Connection: Upgrade", "Connection: keep-alive")),
        (400, changed("Connection: Upgrade\r\n", "")),
        (400, changed(&key, "")),
        (400, changed(&key, &format!("{key}{key}"))),
        (400, changed(KEY, "AAAA")),
        (400, changed(KEY, "!!!!!!!!!!!!!!!!!!!!!!!!")),
        (400, changed("Host: bell.example\r\n", "")),
        (400, changed("Host: bell.example", "Host: bell.example\r\nHost: bell.example")),
        (400, changed("\r\nUpgrade:", "\nUpgrade:")),
        (400, changed("\r\nUpgrade: ", "\r\n Upgrade: ")),
        (400, changed("GET / HTTP/1.1", "GET  / HTTP/1.1")),
        (404, changed("GET /", "GET /nowhere")),
        (405, changed("GET /", "POST /")),
        (405, changed("GET /", "get /")),
        (405, changed("GET / ", "POST /page ")),
        (413, changed("GET /", "POST /").replace("\r\n\r\n", "\r\nContent-Length: 70000\r\n\r\n")),
        (426, changed("Upgrade: websocket\r\n", "")),
        (426, changed("Upgrade: websocket", "Upgrade: h2c")),
        (426, changed("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8")),
        (426, changed("Sec-WebSocket-Version: 13\r\n", "")),
        (426, changed("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 13, 8")),
        (431, changed("Host:", &format!("X-Long: {}\r\nHost:", "x".repeat(9000)))),
        (431, changed("Host:", &format!("{}Host:", "X: y\r\n".repeat(70)))),
        (505, changed("HTTP/1.1", "HTTP/1.0")),
        (505, changed("HTTP/1.1", "HTTP/2.0")),
    ];
    for (status, request) in faults {
        let mut client = server.dial();
        client.send(&request);
        let answer = client.answer();
        assert_eq!(answer.status, status, "{request}{answer:?}");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"), "{request}");
        assert!((5..120).contains(&answer.body.len()) && answer.body.ends_with(b"\n"), "{answer:?}");
        match status {
            405 => assert!(answer.header("allow").unwrap().contains("GET"), "{answer:?}"),
            426 => {
                assert_eq!(answer.header("sec-websocket-version"), Some("13"));
                assert_eq!(answer.header("upgrade"), Some("websocket"));
            }
            _ => {}
        }
    }
    assert_eq!(server.handle.stats().upgraded, 0);
}

#[test]
fn an_unfinished_request_is_a_408_and_a_silent_connection_is_closed() {
    let mut http = HttpLimits::default();
    http.timeout = millis(150);
    let server = start(builder().http_limits(http).route("/", echo()));
    let began = Instant::now();
    let mut silent = server.dial();
    let mut slow = server.dial();
    slow.send("GET / HTTP/1.1\r\nHost: b");
    let answer = slow.answer();
    assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
    slow.expect_eof();
    silent.expect_eof();
    assert!(began.elapsed() >= millis(150));
    drop(slow);
    server.until("both have gone", |s| s.sockets == 0);
}

#[test]
fn a_slow_request_has_the_same_timeout() {
    let mut http = HttpLimits::default();
    http.timeout = millis(200);
    let server = start(builder().http_limits(http).route("/", echo()));
    let mut client = server.dial();
    let mut dripping = Client::over(client.socket.try_clone().unwrap());
    let began = Instant::now();
    let request = upgrade_request("/", &"X-Drip: y\r\n".repeat(50));
    let drip = std::thread::spawn(move || {
        for byte in request.bytes() {
            if dripping.try_send(&[byte]).is_err() {
                break;
            }
            std::thread::park_timeout(millis(5));
        }
    });
    assert_eq!(client.answer().status, 408);
    assert!(began.elapsed() < millis(2000), "it had {:?}", began.elapsed());
    drop(server);
    drip.join().unwrap();
}

// ---- origins ----

fn with_origin(server: &TestServer, host: &str, origin: &str, cookie: bool) -> u16 {
    let more = if cookie { format!("{origin}Cookie: id=1\r\n") } else { origin.to_owned() };
    let mut client: Client = server.dial();
    client.send(upgrade_request("/", &more).replace("Host: bell.example", &format!("Host: {host}")));
    client.answer().status
}

#[test]
fn an_origin_list_is_matched_exactly() {
    let origins = Origins::list(["https://good.com", "https://*.sub.example", "http://local:8080"]).unwrap();
    let server = serve(Route::new(echo()).origins(origins));
    let status = |origin: &str| with_origin(&server, "bell.example", &format!("Origin: {origin}\r\n"), false);
    for good in [
        "https://good.com",
        "https://GOOD.com",
        "https://good.com:443",
        "https://a.sub.example",
        "https://a.b.SUB.example",
        "http://local:8080",
    ] {
        assert_eq!(status(good), 101, "{good}");
    }
    for bad in [
        "https://good.com.evil.com",
        "https://evilgood.com",
        "http://good.com",
        "https://good.com:444",
        "https://www.good.com",
        "https://sub.example",
        "https://evilsub.example",
        "http://local",
        "null",
        "https://good.com@evil.com",
        "https://bell.example",
        "good.com",
        "",
    ] {
        assert_eq!(status(bad), 403, "{bad}");
    }
    assert_eq!(with_origin(&server, "bell.example", "", true), 101, "no browser");
    let two = "Origin: https://good.com\r\nOrigin: https://evil.com\r\n";
    assert_eq!(with_origin(&server, "bell.example", two, false), 400);
}

/// The tests connect over 127.0.0.1, where any page that this machine's user looks at can connect too.
#[test]
fn on_loopback_other_origins_and_hosts_are_refused_by_default() {
    let server = serve(echo());
    let evil = "Origin: https://evil.example\r\n";
    for cookie in [false, true] {
        let status = |host: &str, origin: &str| with_origin(&server, host, origin, cookie);
        for name in ["localhost:9001", "LOCALHOST:9001", "127.0.0.1:9001", "[::1]:9001"] {
            assert_eq!(status(name, &format!("Origin: http://{name}\r\n")), 101, "{name}");
            assert_eq!(status(name, evil), 403, "{name}");
            assert_eq!(status(name, "Origin: http://localhost:3000\r\n"), 403, "{name}");
            assert_eq!(status(name, "Origin: null\r\n"), 403, "{name}");
            assert_eq!(status(name, ""), 101, "no page");
        }
        // A name of the attacker's that was made to mean 127.0.0.1.
        assert_eq!(status("evil.example", evil), 403);
        assert_eq!(status("evil.example:9001", "Origin: http://evil.example:9001\r\n"), 403);
        assert_eq!(status("bell.example", ""), 101, "no page, as behind a proxy");
    }
    let stats = server.handle.stats();
    assert_eq!((stats.origins_refused, stats.upgraded), (28, 18));
}

#[test]
fn also_allows_a_page_on_another_port() {
    let dev = Origins::default().also(["http://localhost:3000"]).unwrap();
    let server = serve(Route::new(echo()).origins(dev));
    let status =
        |origin: &str| with_origin(&server, "localhost:9001", &format!("Origin: {origin}\r\n"), true);
    assert_eq!(status("http://localhost:3000"), 101);
    assert_eq!(status("http://localhost:9001"), 101);
    assert_eq!(status("http://localhost:3001"), 403);
    assert_eq!(status("http://evil.example"), 403);
}

#[test]
fn a_refused_origin_gets_the_remedy_and_the_connection_ends() {
    let server = serve(echo());
    let mut client: Client = server.dial();
    let request = upgrade_request("/", "Origin: http://localhost:3000\r\n");
    client.send(request.replace("Host: bell.example", "Host: localhost:9001"));
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("connection")), (403, Some("close")));
    let text = String::from_utf8(answer.body).unwrap();
    for words in ["http://localhost:3000", "localhost:9001", "Origins::also", "--origin"] {
        assert!(text.contains(words), "{text}");
    }
    client.expect_eof();
}

/// Behind a proxy that switches to a tunnel whatever the answer is, a client could send what the proxy's rules forbid.
#[test]
fn any_answer_but_101_to_a_request_for_a_websocket_ends_the_connection() {
    let later = |_: &Request<'_>| {
        Response::later(millis(5000), |responder| responder.respond(Response::new(200).text("later\n")))
    };
    let server = start(
        builder()
            .get("/now", |_: &Request<'_>| Response::new(200).text("now\n"))
            .get("/empty", |_: &Request<'_>| Response::new(204))
            .get("/later", later)
            .get("/file", |_: &Request<'_>| {
                Response::new(200).body(Body::Reader { reader: Box::new(&b"a file"[..]), len: 6 })
            })
            .get("/panic", |_: &Request<'_>| -> Response { panic!("in an endpoint") })
            .post("/post", |_: &Request<'_>| Response::new(201))
            .route("/websocket", echo()),
    );
    let next = "GET /now HTTP/1.1\r\nHost: bell.example\r\n\r\n";
    let ends = |request: &str, status: u16| {
        let mut client: Client = server.dial();
        client.send(format!("{request}{next}"));
        let answer = client.answer();
        let connection = answer.header("connection").unwrap_or_default();
        assert!(answer.status == status && connection.ends_with("close"), "{request}: {answer:?}");
        client.expect_eof();
    };
    for (path, status) in
        [("/now", 200), ("/empty", 204), ("/later", 200), ("/file", 200), ("/panic", 500), ("/none", 404)]
    {
        ends(&upgrade_request(path, ""), status);
    }
    let post = upgrade_request("/post", "Content-Length: 2\r\n");
    ends(&format!("{}hi", post.replace("GET ", "POST ")), 201);
    ends(&upgrade_request("/now", "").replace("GET ", "PUT "), 405);
    // As a proxy may read it, and with nothing else that a handshake needs.
    for value in ["WebSocket", "h2c, websocket", "websocket/13", "\"websocket\"", "h2c\r\nUpgrade: websocket"]
    {
        for (path, status) in [("/now", 200), ("/none", 404)] {
            ends(&format!("GET {path} HTTP/1.1\r\nHost: bell.example\r\nUpgrade: {value}\r\n\r\n"), status);
        }
    }
    ends("GET /websocket HTTP/1.1\r\nHost: bell.example\r\nUpgrade: websocket/13\r\n\r\n", 426);
    // Another protocol is ignored, as RFC 9110 section 7.8 allows: Java's client offers h2c with each first request.
    let mut client: Client = server.dial();
    for _ in 0..2 {
        client.send("GET /now HTTP/1.1\r\nHost: bell.example\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
        let answer = client.answer();
        assert_eq!((answer.text(), answer.header("connection")), ("now\n", None));
    }
}

/// Behind a proxy that passes an upgrade on as plain HTTP, what follows would be another client's request.
#[test]
fn a_refused_upgrade_ends_its_connection() {
    let (handler, _events) = recorder();
    let handler = handler.on_upgrade(|request| match request.query() {
        Some("later") => Err(Refuse::from(Response::later(millis(5000), |responder| {
            responder.respond(Response::new(401).text("no\n"));
        }))),
        Some("panic") => panic!("in a handler"),
        _ => Err(Refuse::new(401).text("no\n")),
    });
    let server = serve(Route::new(handler));
    for (path, status) in [("/", 401), ("/?later", 401), ("/?panic", 500)] {
        let mut client: Client = server.dial();
        let request = upgrade_request(path, "");
        client.send(format!("{request}{request}"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{path}");
        client.expect_eof();
    }
    // A request for something else goes on as ever.
    let mut client: Client = server.dial();
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("connection")), (426, Some("upgrade")));
    }
}

#[test]
fn origins_may_be_all_or_only_this_host() {
    let there = "Origin: https://evil.example\r\n";
    let server = serve(Route::new(echo()).origins(Origins::any()));
    assert_eq!(with_origin(&server, "bell.example", there, true), 101);
    let server = serve(Route::new(echo()).origins(Origins::same_host()));
    assert_eq!(with_origin(&server, "localhost", there, false), 403);
    assert_eq!(with_origin(&server, "localhost", "Origin: http://localhost\r\n", false), 101);
    assert_eq!(with_origin(&server, "bell.example", "Origin: https://bell.example\r\n", false), 403);
}
