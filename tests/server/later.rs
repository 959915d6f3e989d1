//! Responses that come later: from other threads, in order, or not at all.

use crate::support;
use crate::support::{Client, DEADLINE, TestServer, builder, echo, millis, start};
use campanile::{
    Accept, Conn, Disconnect, Handler, HttpLimits, Message, Refuse, Request, Responder, Response,
};
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::time::{Duration, Instant};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: bell.example\r\n\r\n")
}

/// Gives its responders away; `/now` answers at once.
fn serve(timeout: Duration) -> (TestServer, Receiver<(String, Responder)>) {
    let (tx, rx) = unbounded();
    let endpoint = move |request: &Request<'_>| {
        let (tx, path): (Sender<_>, _) = (tx.clone(), request.path().to_owned());
        Response::later(timeout, move |responder| tx.send((path, responder)).unwrap())
    };
    let mut http = HttpLimits::default();
    http.timeout = DEADLINE;
    let now = |_: &Request<'_>| Response::new(200).text("now");
    (start(builder().http_limits(http).get("/later/*", endpoint).get("/now", now).route("/ws", echo())), rx)
}

fn next(asked: &Receiver<(String, Responder)>) -> (String, Responder) {
    asked.recv_timeout(DEADLINE).expect("the endpoint is asked")
}

fn ok(text: &str) -> Response {
    Response::new(200).text(text.to_owned())
}

#[test]
fn a_response_can_come_from_another_thread() {
    let (server, asked) = serve(DEADLINE);
    let mut client = server.dial();
    for n in 0..3 {
        client.send(get(&format!("/later/{n}")));
        let (path, responder) = next(&asked);
        assert_eq!(path, format!("/later/{n}"));
        // Nothing waits for it but this client.
        server.open("/ws").expect_nothing_until_pong();
        responder.respond(ok(&path));
        let answer = client.answer();
        assert_eq!((answer.status, answer.text()), (200, &*path));
        assert_ne!(answer.header("connection"), Some("close"));
    }
    client.send(get("/now"));
    assert_eq!(client.answer().text(), "now");
    client.upgrade("/ws");
    client.text("and frames");
    assert_eq!(client.read_text(), "and frames");
    assert_eq!(server.handle.stats().panics, 0);
}

#[test]
fn requests_behind_a_pending_response_wait() {
    let (server, asked) = serve(DEADLINE);
    for together in [true, false] {
        let mut client = server.dial();
        let behind = get("/now") + &get("/later/b") + &get("/now") + &support::upgrade_request("/ws", "");
        if together {
            client.send(get("/later/a") + &behind);
        } else {
            client.send(get("/later/a"));
        }
        let (_, first) = next(&asked);
        if !together {
            let (head, rest) = behind.split_at(20);
            client.send(head);
            server.settle();
            client.send(rest);
        }
        server.settle();
        assert!(asked.is_empty(), "nothing behind it is looked at");
        first.respond(ok("a"));
        let (path, second) = next(&asked);
        assert_eq!(path, "/later/b");
        assert_eq!([client.answer().body, client.answer().body], [b"a".to_vec(), b"now".to_vec()]);
        second.respond(ok("b"));
        assert_eq!([client.answer().body, client.answer().body], [b"b".to_vec(), b"now".to_vec()]);
        assert_eq!(client.answer().status, 101);
        client.expect_nothing_until_pong();
    }
}

#[test]
fn pending_responses_respect_head_and_connection_close() {
    let (server, asked) = serve(DEADLINE);
    let mut client = server.dial();
    client.send("HEAD /later/x HTTP/1.1\r\nHost: a\r\n\r\n");
    next(&asked).1.respond(ok("four"));
    let head = client.answer_to_head();
    assert_eq!((head.status, head.header("content-length")), (200, Some("4")));
    client.send("GET /later/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    next(&asked).1.respond(ok("last"));
    let answer = client.answer();
    assert_eq!((answer.text(), answer.header("connection")), ("last", Some("close")));
    client.expect_eof();
}

#[test]
fn large_and_streamed_bodies_can_come_later() {
    let (server, asked) = serve(DEADLINE);
    let mut client = Client::dial_with(server.addr, Some(4096));
    client.send(get("/later/a") + &get("/later/b") + &get("/now"));
    const LEN: usize = 3 << 20;
    next(&asked).1.respond(Response::new(200).body(vec![b'x'; LEN]));
    assert_eq!(client.answer().body.len(), LEN);
    let reader = Box::new(std::io::repeat(b'y'));
    let body = campanile::http::Body::Reader { reader, len: LEN as u64 };
    next(&asked).1.respond(Response::new(200).body(body));
    assert_eq!(client.answer().body.len(), LEN);
    assert_eq!(client.answer().text(), "now");
}

#[test]
fn a_dropped_responder_is_a_503() {
    let (server, asked) = serve(DEADLINE);
    let mut client = server.dial();
    client.send(get("/later/dropped"));
    drop(next(&asked));
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    client.send(get("/now"));
    assert_eq!(client.answer().text(), "now");
}

#[test]
fn a_late_response_does_not_answer_the_next_request() {
    let (server, asked) = serve(millis(150));
    let mut client = server.dial();
    let began = Instant::now();
    client.send(get("/later/slow"));
    let (_, late) = next(&asked);
    assert_eq!(client.answer().status, 503);
    assert!(began.elapsed() >= millis(100), "{:?}", began.elapsed());
    client.send(get("/later/next"));
    let (_, responder) = next(&asked);
    late.respond(ok("too late"));
    responder.respond(ok("in time"));
    assert_eq!(client.answer().text(), "in time");
    client.send(get("/now"));
    assert_eq!(client.answer().text(), "now");
}

#[test]
fn a_half_closed_client_gets_its_pending_response() {
    let (server, asked) = serve(DEADLINE);
    let mut client = server.dial();
    client.send(get("/later/x"));
    client.end();
    let (_, responder) = next(&asked);
    server.settle();
    responder.respond(ok("still there"));
    assert_eq!(client.answer().text(), "still there");
    client.expect_eof();
    let mut gone = server.dial();
    gone.send(get("/later/x"));
    let (_, responder) = next(&asked);
    gone.reset();
    server.until("it is seen that it has gone", |s| s.sockets == 0);
    // Another has its slot by now.
    let mut other = server.dial();
    other.send(get("/later/y"));
    let (_, others) = next(&asked);
    responder.respond(ok("for nobody"));
    others.respond(ok("for the other"));
    assert_eq!(other.answer().text(), "for the other");
}

#[test]
fn a_panic_or_a_nested_pending_response_is_a_500() {
    let again = |responder: Responder| responder.respond(Response::later(DEADLINE, |_| ()));
    let server = start(
        builder()
            .get("/panic", |_: &Request<'_>| Response::later(DEADLINE, |_| panic!("in start")))
            .get("/again", move |_: &Request<'_>| Response::later(DEADLINE, again))
            .get("/at-once", |_: &Request<'_>| Response::later(DEADLINE, |r| r.respond(ok("at once")))),
    );
    let mut client = server.dial();
    client.send(get("/panic") + &get("/again") + &get("/at-once"));
    assert_eq!((client.answer().status, client.answer().status), (500, 500));
    assert_eq!(client.answer().text(), "at once");
    assert_eq!(server.handle.stats().panics, 1);
}

/// Refuses with a response that comes later, at once or after it was itself decided later.
struct Undecided;

impl Handler for Undecided {
    type State = ();

    fn upgrade(&self, request: &Request<'_>) -> Result<Accept<()>, Refuse> {
        let refuse = || Refuse::from(Response::later(DEADLINE, |r| r.respond(Response::new(402))));
        if request.query().is_none() {
            return Err(refuse());
        }
        Ok(Accept::later(DEADLINE, move |pending| pending.refuse(refuse())))
    }

    fn message(&self, _: &mut Conn<'_>, _: &mut (), _: Message<'_>) -> Result<(), Disconnect> {
        Ok(())
    }
}

#[test]
fn a_refusal_may_have_a_pending_response_unless_deferred() {
    let server = start(builder().route("/", Undecided));
    for (path, status) in [("/", 402), ("/?later", 503)] {
        let mut client = server.dial();
        client.send(support::upgrade_request(path, ""));
        assert_eq!(client.answer().status, status);
        client.expect_eof();
    }
}

#[test]
fn shutdown_waits_for_pending_responses() {
    let (mut server, asked) = serve(DEADLINE);
    let mut client = server.dial();
    client.send(get("/later/x") + &get("/now"));
    let (_, responder) = next(&asked);
    server.handle.shutdown(DEADLINE);
    let answering = std::thread::spawn(move || {
        let answer = client.answer();
        client.expect_eof();
        answer
    });
    responder.respond(ok("the last"));
    let answer = answering.join().unwrap();
    assert_eq!((answer.text(), answer.header("connection")), ("the last", Some("close")));
    server.shutdown(DEADLINE);
}

#[test]
fn queries_of_a_worker_to_itself_are_answered_at_once() {
    // One worker: what it asks of itself is done in the same turn.
    let server =
        start(builder().get("/", |_: &Request<'_>| Response::later(DEADLINE, |r| r.respond(ok("x")))));
    let mut client = server.dial();
    client.send(get("/"));
    client.answer();
    let before = server.handle.stats().iterations;
    for _ in 0..50 {
        client.send(get("/"));
        client.answer();
    }
    let iterations = server.handle.stats().iterations - before;
    assert!(iterations <= 75, "{iterations} iterations for 50 answers");
}
