//! A panic in a callback costs its connection and nobody else.

use crate::support;
use crate::support::{At, Client, Event, Events, Recorder, TestServer, limits, millis, recorder, serve};
use campanile::{Accept, Cause, CloseCode, Conn, Disconnect, Pending};

/// A server with a client that is to be unaffected.
struct Scene {
    server: TestServer,
    events: Events,
    healthy: Client,
}

impl Scene {
    /// `handler` panics for whoever has asked for it; see [`asked`].
    fn new(handler: Recorder, events: Events) -> Self {
        let handler = handler.on_upgrade(|request| {
            if request.query() == Some("upgrade") {
                panic!("on purpose, in upgrade");
            }
            Ok(Accept::new(request.query().unwrap_or_default().to_owned()))
        });
        let limits = limits(|l| {
            l.ping_interval = millis(100);
            l.max_backlog = 64 << 10;
        });
        let route =
            campanile::Route::new(handler).limits(limits).slow_consumer(campanile::SlowConsumer::DropNewest);
        let server = serve(route);
        let mut healthy = server.open("/?healthy");
        healthy.frame(true, support::PONG, b"");
        Self { server, events, healthy }
    }

    /// The connection has ended with 1011, once, and is counted; the other goes on.
    fn only_that_one_ended(mut self, mut client: Client) {
        assert_eq!(CloseCode(client.skip_to_close()), CloseCode::INTERNAL);
        client.expect_eof();
        drop(client);
        let end = self.events.closed();
        assert_eq!((end.cause, end.code, end.was_clean), (Cause::Panic, CloseCode::INTERNAL, false));
        self.goes_on(1);
        let more = self.events.so_far().into_iter().filter(|e| matches!(e, Event::Close(..))).count();
        assert_eq!(more, 0, "the end is told once");
    }

    fn goes_on(&mut self, panics: u64) {
        self.server.until("the panic is counted", |s| s.panics == panics);
        assert_eq!(self.server.handle.open_connections(), 1);
        self.healthy.text("still here");
        loop {
            let frame = self.healthy.read_frame();
            if frame.opcode == support::TEXT {
                assert_eq!(frame.payload, b"still here");
                return;
            }
        }
    }
}

fn asked(conn: &At<'_, '_>, callback: &str) {
    if conn.state == callback {
        panic!("on purpose, in {callback}");
    }
}

fn scene(change: impl FnOnce(Recorder) -> Recorder) -> Scene {
    let (handler, events) = recorder();
    let handler = handler.on_message(|conn, message| {
        let _ = conn.send(message); // refused only when it is closing
    });
    Scene::new(change(handler), events)
}

#[test]
fn a_panic_in_upgrade_is_a_500() {
    let mut scene = scene(|h| h);
    let mut client = scene.server.dial();
    assert_eq!(client.ask("/?upgrade", "").status, 500);
    scene.goes_on(1);
    client.expect_eof();
}

#[test]
fn a_panic_in_open_closes_with_1011() {
    let scene = scene(|h| h.on_open(|conn| asked(conn, "open")));
    let client = scene.server.open("/?open");
    scene.only_that_one_ended(client);
}

#[test]
fn a_panic_in_open_after_a_send_closes_with_1011() {
    let scene = scene(|h| {
        h.on_open(|conn| {
            if conn.state == "open" {
                conn.send("half of what it wanted to say").unwrap();
            }
            asked(conn, "open");
        })
    });
    let mut client = scene.server.dial();
    let mut all = support::upgrade_request("/?open", "").into_bytes();
    all.extend(support::frame(true, support::TEXT, b"into the void"));
    all.extend(support::frame(true, support::CLOSE, &support::close_payload(1000, "")));
    client.send(all);
    assert_eq!(client.answer().status, 101);
    assert_eq!(client.read_text(), "half of what it wanted to say");
    scene.only_that_one_ended(client);
}

#[test]
fn a_panic_in_message_closes_with_1011() {
    let scene = scene(|h| {
        h.on_message(|conn, message| {
            asked(conn, "message");
            conn.send(message).unwrap();
        })
    });
    let mut client = scene.server.open("/?message");
    let mut both = support::frame(true, support::TEXT, b"one");
    both.extend(support::frame(true, support::TEXT, b"two"));
    client.send(both);
    let events = scene.events.clone();
    assert_eq!(events.message(), b"one");
    scene.only_that_one_ended(client);
    assert!(!events.so_far().iter().any(|e| matches!(e, Event::Message(_, m) if m == b"two")));
}

#[test]
fn a_panic_in_ping_closes_with_1011() {
    let scene = scene(|h| h.on_ping(|conn| asked(conn, "ping")));
    let mut client = scene.server.open("/?ping");
    client.ping(b"");
    scene.only_that_one_ended(client);
}

#[test]
fn a_panic_in_pong_closes_with_1011() {
    let scene = scene(|h| h.on_pong(|conn| asked(conn, "pong")));
    let mut client = scene.server.open("/?pong");
    client.frame(true, support::PONG, b"");
    scene.only_that_one_ended(client);
}

#[test]
fn a_panic_in_drain_closes_with_1011() {
    let scene = scene(|h| h.on_drain(|conn| asked(conn, "drain")));
    let client = scene.server.open_slow("/?drain");
    scene.events.opened();
    let id = scene.events.opened();
    scene.server.handle.send(id, vec![0; 8 << 20]).unwrap();
    scene.only_that_one_ended(client);
}

#[test]
fn a_panic_in_dropped_closes_with_1011() {
    let scene = scene(|h| h.on_dropped(|conn| asked(conn, "dropped")));
    let client = scene.server.open_slow("/?dropped");
    scene.events.opened();
    let id = scene.events.opened();
    scene.server.handle.send(id, vec![0; 8 << 20]).unwrap();
    for _ in 0..100 {
        scene.server.handle.send(id, [1; 4096]).unwrap();
    }
    scene.only_that_one_ended(client);
}

#[test]
fn a_panic_in_close_is_contained() {
    let mut scene = scene(|h| h.on_close(|conn| asked(conn, "close")));
    for (i, reset) in [false, true].into_iter().enumerate() {
        let mut client = scene.server.open("/?close");
        if reset {
            client.reset();
        } else {
            client.close(1000, "");
            assert_eq!(client.skip_to_close(), 1000);
        }
        scene.events.closed();
        scene.goes_on(i as u64 + 1);
    }
    scene.server.until("nothing is left", |s| s.sockets == 1 && s.open == 1);
}

#[test]
fn a_panic_in_message_and_in_close_is_contained() {
    let mut scene = scene(|h| {
        h.on_message(|conn, message| {
            asked(conn, "twice");
            conn.send(message).unwrap();
        })
        .on_close(|conn| asked(conn, "twice"))
    });
    let mut client = scene.server.open("/?twice");
    client.text("x");
    assert_eq!(CloseCode(client.skip_to_close()), CloseCode::INTERNAL);
    drop(client);
    scene.events.closed();
    scene.goes_on(2);
}

#[test]
fn a_panic_ends_the_subscriptions_of_its_connection() {
    let scene = scene(|h| {
        h.on_message(|conn, message| {
            if conn.state == "healthy" {
                conn.send(message).unwrap();
                return;
            }
            conn.subscribe("room").unwrap();
            conn.publish("room", "published before the panic").unwrap();
            panic!("on purpose, after publishing");
        })
    });
    let mut client = scene.server.open("/");
    client.text("x");
    let handle = scene.server.handle.clone();
    scene.only_that_one_ended(client);
    drop(handle);
}

#[test]
fn a_panic_in_drop_of_the_state_is_contained() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("on purpose, in drop");
            }
        }
    }
    struct Bombs;
    impl campanile::Handler for Bombs {
        type State = Option<Bomb>;
        fn upgrade(
            &self,
            request: &campanile::Request<'_>,
        ) -> Result<Accept<Self::State>, campanile::Refuse> {
            Ok(Accept::new((request.query() == Some("bomb")).then(|| Bomb)))
        }
        fn message(
            &self,
            conn: &mut Conn<'_>,
            _: &mut Self::State,
            message: campanile::Message<'_>,
        ) -> Result<(), Disconnect> {
            conn.send(message).unwrap();
            Ok(())
        }
    }
    let server = serve(Bombs);
    let mut healthy = server.open("/");
    for _ in 0..3 {
        server.open("/?bomb").reset();
    }
    server.until("they have gone", |s| s.accepted == 4 && s.sockets == 1);
    healthy.text("still here");
    assert_eq!(healthy.read_text(), "still here");
    assert_eq!(server.handle.stats().panics, 3);
}

#[test]
fn a_panic_while_reading_a_body_aborts_its_connection() {
    struct Bomb;
    impl std::io::Read for Bomb {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            panic!("on purpose, in read");
        }
    }
    let endpoint = |_: &campanile::Request<'_>| {
        campanile::Response::new(200).body(campanile::http::Body::Reader { reader: Box::new(Bomb), len: 10 })
    };
    let server = support::start(support::builder().get("/bomb", endpoint).route("/", recorder().0));
    let mut healthy = server.open("/");
    let mut client = server.dial();
    client.send("GET /bomb HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.read_head().starts_with("HTTP/1.1 200 "));
    client.expect_gone();
    healthy.expect_nothing_until_pong();
    assert_eq!(server.handle.stats().panics, 1);
}

#[test]
fn a_panicking_thread_with_a_pending_upgrade_is_a_503() {
    let (handler, _events) = recorder();
    let handler = handler.on_upgrade(|_| {
        Ok(Accept::later(support::DEADLINE, |pending: Pending<String>| {
            std::thread::spawn(move || {
                let _token = pending;
                panic!("on purpose, while deciding");
            });
        }))
    });
    let server = serve(handler);
    assert_eq!(server.dial().ask("/", "").status, 503);
}

/// Panics when it is dropped.
struct DropBomb;

impl Drop for DropBomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("on purpose, in drop");
        }
    }
}

#[test]
fn a_panic_in_drop_of_a_body_is_contained() {
    struct Bomb(DropBomb);
    impl std::io::Read for Bomb {
        fn read(&mut self, piece: &mut [u8]) -> std::io::Result<usize> {
            let _ = &self.0;
            piece.fill(b'a');
            Ok(piece.len())
        }
    }
    let endpoint = |request: &campanile::Request<'_>| {
        let len = if request.query() == Some("long") { 1 << 30 } else { 10 };
        let body = campanile::http::Body::Reader { reader: Box::new(Bomb(DropBomb)), len };
        campanile::Response::new(200).body(body)
    };
    let builder = support::builder().get("/bomb", endpoint).route("/", recorder().0);
    let server = support::start(builder);
    let mut healthy = server.open("/");
    let mut client = server.dial();
    client.send("GET /bomb HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().text(), "aaaaaaaaaa");
    server.until("one was sent to its end", |s| s.panics == 1);
    client.send("HEAD /bomb HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer_to_head().status, 200);
    server.until("one was not sent at all", |s| s.panics == 2);
    let mut gone = server.dial();
    gone.send("GET /bomb?long HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(gone.read_head().starts_with("HTTP/1.1 200 "));
    gone.reset();
    server.until("one lost its client", |s| s.panics == 3);
    healthy.expect_nothing_until_pong();
}

#[test]
fn a_panic_in_drop_of_a_late_state_is_contained() {
    struct Bombs;
    impl campanile::Handler for Bombs {
        type State = Option<DropBomb>;
        fn upgrade(&self, _: &campanile::Request<'_>) -> Result<Accept<Self::State>, campanile::Refuse> {
            Ok(Accept::new(None))
        }
        fn message(
            &self,
            _: &mut Conn<'_>,
            _: &mut Self::State,
            _: campanile::Message<'_>,
        ) -> Result<(), Disconnect> {
            Ok(())
        }
    }
    let server = serve(Bombs);
    let mut open = server.open("/");
    server.handle.shutdown(support::DEADLINE);
    assert_eq!(open.skip_to_close(), 1001); // and does not answer yet, so the server is there
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().unwrap();
    server.handle.adopt_open(socket, Vec::new(), "/", Some(DropBomb), None).unwrap();
    server.until("the state was dropped", |s| s.panics == 1);
    open.close(1001, "");
    server.ended();
}
