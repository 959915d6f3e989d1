//! Settings and calls that mean nothing: each is an error that names what was given and what to write instead.

use crate::support;
use crate::support::{recorder, serve, start, upgrade_request};
use campanile::{
    Accept, BuildError, Builder, CloseCode, HandleError, HttpLimits, InvalidClose, Limits, ListenOptions,
    Refuse, Request, Response, Route, Server, SlowConsumer, TopicSettings, on_message,
};
use std::time::Duration;

fn echo() -> Route {
    Route::from(on_message(|conn, message| {
        conn.send(message)?;
        Ok(())
    }))
}

fn ok(_: &Request<'_>) -> Response {
    Response::new(200)
}

/// Why the server is not built.
#[track_caller]
fn fault(change: impl FnOnce(Builder) -> Builder) -> String {
    match change(Server::builder()).build() {
        Ok(_) => panic!("it is built"),
        Err(e) => e.to_string(),
    }
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

fn http(change: impl FnOnce(&mut HttpLimits)) -> HttpLimits {
    let mut limits = HttpLimits::default();
    change(&mut limits);
    limits
}

#[test]
fn route_syntax_of_other_routers_is_refused_with_a_hint() {
    for (pattern, instead) in [
        ("/a/{x}", "\":x\""),
        ("/a/<int:id>", "\":id\""),
        ("/files/{*rest}", "\"*\""),
        ("/files/*rest", "/files/*"),
        ("/a/:id.png", "/user/:id"),
    ] {
        says(&fault(|b| b.route(pattern, echo())), &[pattern, instead]);
        says(&fault(|b| b.get(pattern, ok)), &[pattern, instead]);
    }
}

#[test]
fn a_misspelled_method_is_refused_with_a_hint() {
    for (method, instead) in [("get", "\"GET\""), ("Post", "\"POST\""), ("", "\"GET\""), ("GE T", "\"GET\"")]
    {
        says(&fault(|b| b.on(method, "/x", ok)), &["/x", &format!("{method:?}"), instead]);
    }
    for twice in ["GET", "POST", "*"] {
        let error = Server::builder().on(twice, "/x", ok).on(twice, "/x", ok).build().map(drop).unwrap_err();
        assert!(matches!(&error, BuildError::MethodTaken { method, .. } if method == twice), "{error}");
    }
    let many = Server::builder().get("/x", ok).post("/x", ok).on("*", "/x", ok).on("PURGE", "/y", ok);
    assert!(many.route("/x", echo()).build().is_ok());
}

#[test]
fn a_number_out_of_range_is_refused_with_the_range() {
    says(&fault(|b| b.workers(1000)), &["Builder::workers: 1000", "0 to 256"]);
    says(&fault(|b| b.workers(257)), &["257"]);
    says(&fault(|b| b.max_connections(0)), &["Builder::max_connections: 0", "1 or more"]);
    says(&fault(|b| b.max_memory(0)), &["Builder::max_memory"]);
    says(&fault(|b| b.mailbox(0)), &["Builder::mailbox: 0"]);
    says(&fault(|b| b.mailbox_bytes(0)), &["Builder::mailbox_bytes"]);
    says(&fault(|b| b.receive_buffer(4095)), &["Builder::receive_buffer: 4095", "4096 to 16777216"]);
    says(&fault(|b| b.receive_buffer(1 << 30)), &["Builder::receive_buffer"]);
    #[cfg(feature = "tls")]
    says(&fault(|b| b.max_handshakes(0)), &["Builder::max_handshakes"]);
    let mut options = ListenOptions::default();
    options.backlog = 0;
    says(&fault(|b| b.listen_options(options)), &["ListenOptions::backlog: 0"]);
    says(&fault(|b| b.http_limits(http(|l| l.max_headers = 129))), &["HttpLimits::max_headers: 129", "128"]);
    says(&fault(|b| b.http_limits(http(|l| l.max_head = 0))), &["HttpLimits::max_head"]);
    says(&fault(|b| b.http_limits(http(|l| l.timeout = Duration::ZERO))), &["HttpLimits::timeout: 0ns"]);
    assert!(Server::builder().workers(0).build().is_ok(), "one for each core");
}

#[test]
fn a_meaningless_limit_is_refused_with_its_route() {
    let refused =
        |change: fn(&mut Limits)| fault(|b| b.route("/a", echo()).route("/b", echo().limits(limits(change))));
    says(&refused(|l| l.max_message_size = 0), &["\"/b\"", "Limits::max_message_size: 0", "1 or more"]);
    says(&refused(|l| l.max_fragments = 0), &["Limits::max_fragments"]);
    says(
        &refused(|l| l.message_timeout = Duration::ZERO),
        &["Limits::message_timeout: 0ns", "more than zero"],
    );
    says(&refused(|l| l.pong_timeout = Duration::ZERO), &["Limits::pong_timeout"]);
    says(&refused(|l| l.write_timeout = Duration::ZERO), &["Limits::write_timeout"]);
    says(&refused(|l| l.close_timeout = Duration::ZERO), &["Limits::close_timeout"]);
    let without = limits(|l| (l.ping_interval, l.pong_timeout) = (Duration::ZERO, Duration::ZERO));
    assert!(Server::builder().route("/", echo().limits(without)).build().is_ok(), "no heartbeat");
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000] {
        let policy = SlowConsumer::Close(CloseCode(code));
        let route = fault(|b| b.route("/b", echo().slow_consumer(policy)));
        says(&route, &["\"/b\"", "Route::slow_consumer", &format!("({code})"), "3000 to 4999"]);
        let topics = fault(|b| b.topics("t/", TopicSettings::new().slow_consumer(policy)));
        says(&topics, &["\"t/\"", "TopicSettings::slow_consumer", &format!("({code})")]);
    }
}

#[cfg(feature = "deflate")]
#[test]
fn compression_settings_out_of_range_are_refused() {
    use campanile::deflate::Deflate;
    for bits in [0, 8, 16, 255] {
        says(
            &fault(|b| b.route("/b", echo().deflate(Deflate::dedicated(bits)))),
            &["Deflate::dedicated", "9 to 15"],
        );
    }
    let level = fault(|b| b.route("/b", echo().deflate(Deflate::shared().level(10))));
    says(&level, &["\"/b\"", "Deflate::level: 10", "0 to 9"]);
    #[cfg(feature = "client")]
    {
        use campanile::client::{Client, Error, InvalidRequest};
        let refused =
            Client::builder("ws://127.0.0.1:9/").deflate(Deflate::dedicated(16)).connect().map(drop);
        assert!(matches!(refused, Err(Error::Request(InvalidRequest::Deflate(_)))), "{refused:?}");
    }
}

#[test]
fn meaningless_topic_settings_are_refused_with_their_prefix() {
    let refused = |settings| fault(|b| b.topics("t/", settings));
    let kept = TopicSettings::new().history(5);
    says(&refused(kept.clone().history_bytes(0)), &["\"t/\"", "TopicSettings::history_bytes: 0"]);
    says(&refused(kept.history_age(Duration::ZERO)), &["TopicSettings::history_age: 0ns"]);
    says(&refused(TopicSettings::new().max_message_size(0)), &["TopicSettings::max_message_size"]);
}

#[cfg(feature = "push")]
#[test]
fn a_pattern_as_a_prefix_is_refused_with_a_hint() {
    use campanile::push::Push;
    let refused = |push| fault(|b| b.route("/push", Route::from(push)));
    says(&refused(Push::new().subscribe(["a/", "news/*"])), &["Push::subscribe", "\"news/*\"", "\"news/\""]);
    says(&refused(Push::new().publish(["public/*"])), &["Push::publish", "\"public/\""]);
    says(&refused(Push::new().subscribe(["a\u{85}"])), &["Push::subscribe", "control characters"]);
    let everything = Push::new().subscribe([""]).publish(["public/"]);
    assert!(Server::builder().route("/push", Route::from(everything)).build().is_ok());
}

#[test]
fn an_invalid_close_code_is_an_error_and_does_nothing() {
    let (handler, events) = recorder();
    let handler = handler.on_message(|conn, message| {
        if message.as_text() == Some("close") {
            return conn.close(4999, "good").unwrap();
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, u16::MAX] {
            assert_eq!(conn.close(code, "no"), Err(InvalidClose::Code(CloseCode(code))));
        }
        let text = conn.close(5000, "").unwrap_err().to_string();
        says(&text, &["close code: 5000", "4000 to 4999", "RFC 6455"]);
        says(&conn.ping(&[0; 126]).unwrap_err().to_string(), &["126 bytes", "125"]);
        conn.send("still open").unwrap();
    });
    let server = serve(handler);
    let mut client = server.open("/");
    let id = events.opened();
    client.text("wrong");
    assert_eq!(client.read_text(), "still open");
    let code = InvalidClose::Code(CloseCode(1006));
    assert_eq!(server.handle.close(id, 1006, ""), Err(HandleError::Close(code)));
    assert!(matches!(server.handle.ping(id, &[0; 126]), Err(HandleError::Ping(_))));
    client.expect_nothing_until_pong();
    client.text("close");
    assert_eq!(client.read_close(), (4999, "good".to_owned()));
    assert_eq!(server.handle.stats().panics, 0);
}

#[test]
fn a_refusal_with_a_success_status_is_a_500() {
    let (handler, _events) = recorder();
    let handler = handler.on_upgrade(|request| match request.query().unwrap().parse().unwrap() {
        0 => Err(Refuse::from(Response::new(302).header("Location", "/login"))),
        1 => Err(Refuse::new(403).header("X", "a\r\nSet-Cookie: evil")),
        2 => Ok(Accept::new(String::new()).header("X", "a\r\nSet-Cookie: evil")),
        3 => Ok(Accept::new(String::new()).header("Connection", "close")),
        4 => Ok(Accept::new(String::new()).protocol("no token")),
        status => Err(Refuse::new(status)),
    });
    let server = serve(handler);
    let status = |what: u16| {
        let mut client = server.dial();
        client.send(upgrade_request(&format!("/?{what}"), "Sec-WebSocket-Protocol: a\r\n"));
        let answer = client.answer();
        assert!(!answer.head.contains("evil"), "{answer:?}");
        answer.status
    };
    for wrong in [0, 1, 2, 3, 4, 100, 101, 200, 204, 302, 399, 600, 1000] {
        assert_eq!(status(wrong), 500, "{wrong}");
    }
    for good in [400, 403, 429, 503, 599] {
        assert_eq!(status(good), good);
    }
    assert_eq!(server.handle.stats().upgraded, 0);
}

/// The number of a route has 16 bits; one more was answered by the handler of the first.
#[test]
fn too_many_routes_are_refused() {
    let routes = |builder: Builder| (0..65_537).fold(builder, |b, i| b.route(&format!("/{i}"), echo()));
    says(&fault(routes), &["Builder::route: 65537", "0 to 65536"]);
}

#[test]
fn an_invalid_response_is_a_500_and_the_connection_continues() {
    let answer = |request: &Request<'_>| match request.query().unwrap().parse().unwrap() {
        1 => Response::new(200).header("X", "a\r\nSet-Cookie: evil").text("x"),
        2 => Response::new(200).header("X Y", "a"),
        3 => Response::new(200).header("Content-Length", "9"),
        4 => Response::later(Duration::from_secs(5), |responder| responder.respond(Response::new(101))),
        status => Response::new(status).text("x"),
    };
    let server = start(support::builder().get("/", answer));
    let mut client = server.dial();
    for (what, status) in
        [(1, 500), (2, 500), (3, 500), (4, 500), (101, 500), (199, 500), (600, 500), (200, 200), (404, 404)]
    {
        client.send(format!("GET /?{what} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let answer = client.answer();
        assert_eq!(answer.status, status, "{what}");
        assert!(!answer.head.contains("evil"), "{answer:?}");
    }
    assert_eq!(server.handle.stats().panics, 0);
}
