//! Responses that come later: from other threads, in order, or not at all; and questions whose answers come by callback.

mod support;

use campanile::{
    Accept, Conn, HandleError, Handler, HttpLimits, Message, Position, Publish, Refuse, Request, Responder,
    Response, Start, TopicSettings,
};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use std::time::{Duration, Instant};
use support::{Client, DEADLINE, TestServer, builder, echo, millis, recorder, start};

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
fn a_response_comes_from_another_thread_and_the_connection_goes_on() {
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
fn requests_behind_it_wait_however_they_come() {
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
fn a_head_and_a_last_request_are_answered_as_such() {
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
fn a_large_body_and_one_that_is_read_can_come_later() {
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
fn without_an_answer_it_is_a_503_and_the_next_request_is_served() {
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
fn an_answer_that_comes_too_late_is_not_the_next_requests() {
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
fn a_client_that_has_said_all_gets_its_answer_and_one_that_has_gone_none() {
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
fn a_panic_is_a_500_and_a_response_that_comes_later_than_later_too() {
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

    fn message(&self, _: &mut Conn<'_, ()>, _: Message<'_>) {}
}

#[test]
fn a_refusal_can_come_later_unless_the_decision_did() {
    let server = start(builder().route("/", Undecided));
    for (path, status) in [("/", 402), ("/?later", 503)] {
        let mut client = server.dial();
        client.send(support::upgrade_request(path, ""));
        assert_eq!(client.answer().status, status);
        client.expect_eof();
    }
}

#[test]
fn a_server_that_shuts_down_waits_for_what_is_to_come() {
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
fn what_a_worker_asks_of_itself_takes_no_turn_of_its_own() {
    // One worker: what it asks of itself is done in the same turn.
    let server =
        start(builder().get("/", |_: &Request<'_>| Response::later(DEADLINE, |r| r.respond(ok("x")))));
    let mut client = server.dial();
    client.send(get("/"));
    client.answer();
    let before = server.handle.stats().turns;
    for _ in 0..50 {
        client.send(get("/"));
        client.answer();
    }
    let turns = server.handle.stats().turns - before;
    assert!(turns <= 75, "{turns} turns for 50 answers");
}

// ---- questions whose answers come by callback ----

/// What a callback is called with.
fn asked<T: Send + 'static>(ask: impl FnOnce(Box<dyn FnOnce(T) + Send>)) -> T {
    let (tx, rx) = bounded(1);
    ask(Box::new(move |answer| tx.send(answer).unwrap()));
    rx.recv_timeout(DEADLINE).expect("the callback is called")
}

fn kept(workers: usize) -> TestServer {
    let settings = TopicSettings::new().history(10).max_message_size(100);
    start(builder().workers(workers).topics("kept/", settings).route("/", recorder().0))
}

#[test]
fn what_became_of_a_publication_is_told_by_a_callback() {
    for workers in [1, 3] {
        let server = kept(workers);
        let say = |topic: &str, text: &str| {
            let (topic, text) = (topic.to_owned(), text.to_owned());
            let handle = server.handle.clone();
            asked(move |then| handle.publish_then(Publish::new(&topic, &*text), then))
        };
        for n in 1..=3 {
            let published = say("kept/a", "x").unwrap().unwrap();
            assert_eq!((published.position.offset, published.receivers, published.repeated), (n, 0, false));
        }
        assert_eq!(say("nobody", "x"), Ok(None));
        assert!(matches!(say("", "x"), Err(HandleError::Topic(_))));
        assert_eq!(say("kept/a", &"x".repeat(101)), Err(HandleError::TooBig { len: 101, limit: 100 }));
    }
}

#[test]
fn a_callback_is_called_also_when_there_is_no_answer() {
    // It does not run yet, so that its mailbox fills.
    let server = builder().mailbox(1).listen("127.0.0.1:0").build().unwrap();
    let handle = server.handle();
    let (tx, rx) = unbounded();
    for _ in 0..2 {
        let tx = tx.clone();
        handle.publish_then(Publish::new("a", "x"), move |published| tx.send(published).unwrap());
    }
    assert_eq!(rx.try_iter().collect::<Vec<_>>(), [Err(HandleError::Full)]);
    drop(server);
    assert_eq!(rx.recv_timeout(DEADLINE), Ok(Err(HandleError::Ended)));
    let gone = builder().listen("127.0.0.1:0").build().unwrap().handle();
    let ended = asked(|then| gone.topics_then("", 1, then));
    assert_eq!(ended.map(|list| list.topics.len()), Err(HandleError::Ended));
}

#[test]
fn a_panic_in_a_callback_ends_nothing() {
    let server = kept(1);
    server.handle.publish_then(Publish::new("kept/a", "x"), |_| panic!("in a callback"));
    server.until("it is counted", |s| s.panics == 1);
    server.open("/").expect_nothing_until_pong();
}

#[test]
fn history_is_read_in_pages() {
    for workers in [1, 2] {
        let server = kept(workers);
        let handle = server.handle.clone();
        let page = |topic: &str, start: Start, limit: usize| {
            asked(|then| handle.history_then(topic, start, limit, then)).unwrap()
        };
        assert!(page("kept/a", Start::Now, 5).is_none());
        let mut first = None;
        for n in 1..=12 {
            let text = format!("{n}");
            let message = if n % 2 == 0 { Message::text(&text) } else { Message::binary(text.as_bytes()) };
            let published = server.handle.publish_with(Publish::new("kept/a", message)).unwrap().unwrap();
            first.get_or_insert(published.position);
        }
        let epoch = first.unwrap().epoch;
        let newest = page("kept/a", Start::Last(3), 5).unwrap();
        assert_eq!(
            (newest.position, newest.recovered, newest.more),
            (Position::new(epoch, 12), false, false)
        );
        let offsets: Vec<u64> = newest.messages.iter().map(|m| m.offset()).collect();
        assert_eq!(offsets, [10, 11, 12]);
        assert_eq!(newest.messages[1].message(), Message::binary(b"11"));
        assert_eq!(newest.messages[2].message(), Message::text("12"));
        let few = |start: Start| page("kept/a", start, 2).unwrap().messages.len();
        assert_eq!([few(Start::Now), few(Start::Latest), few(Start::Last(5))], [0, 1, 2]);
        let read = |offset: u64, limit: usize| {
            let page = page("kept/a", Start::After(Position::new(epoch, offset)), limit).unwrap();
            let offsets: Vec<u64> = page.messages.iter().map(|m| m.offset()).collect();
            (page.recovered, offsets, page.more)
        };
        assert_eq!(read(2, 4), (true, vec![3, 4, 5, 6], true));
        assert_eq!(read(6, 6), (true, (7..=12).collect(), false));
        assert_eq!(read(12, 6), (true, vec![], false));
        assert_eq!(read(1, 6), (false, vec![], false), "2 is gone");
        let other = page("kept/a", Start::After(Position::new(epoch + 1, 2)), 6).unwrap();
        assert!(!other.recovered && other.messages.is_empty());
        let long = "x".repeat(70_000);
        let keeps = start(builder().topics("", TopicSettings::new().history(1)));
        keeps.handle.publish("long", &long).unwrap();
        let page = asked(|then| keeps.handle.history_then("long", Start::Last(1), 1, then)).unwrap().unwrap();
        assert_eq!(page.messages[0].message().as_text(), Some(&*long));
    }
}

#[test]
fn topics_are_listed_by_prefix_from_all_workers() {
    for workers in [1, 3] {
        let (handler, events) = recorder();
        let server = start(
            builder().workers(workers).topics("kept/", TopicSettings::new().history(10)).route("/", handler),
        );
        let clients: Vec<Client> = (0..3).map(|_| server.open("/")).collect();
        let ids: Vec<_> = clients.iter().map(|_| events.opened()).collect();
        for (i, id) in ids.iter().enumerate() {
            server.handle.subscribe(*id, "room/all").unwrap();
            server.handle.subscribe(*id, &format!("room/{i}")).unwrap();
            server.handle.subscribe_pattern(*id, "room/*").unwrap();
        }
        server.settle();
        server.handle.publish_with(Publish::new("kept/a", "x")).unwrap();
        let list = |prefix: &str, limit: usize| {
            asked(|then| server.handle.topics_then(prefix, limit, then)).unwrap()
        };
        support::until("every home knows", || {
            let rooms = list("room/", 10);
            rooms.topics.iter().map(|t| t.subscribers).sum::<usize>() == 6
        });
        let rooms = list("room/", 10);
        let names: Vec<_> = rooms.topics.iter().map(|t| (&*t.name, t.subscribers)).collect();
        assert_eq!(names, [("room/0", 1), ("room/1", 1), ("room/2", 1), ("room/all", 3)]);
        assert!(!rooms.more);
        let all = list("", 10);
        let kept = all.topics.iter().find(|t| t.name == "kept/a").unwrap();
        assert_eq!((kept.kept, kept.subscribers, kept.position.unwrap().offset), (1, 0, 1));
        let few = list("room/", 2);
        assert!(few.topics.len() == 2 && few.more);
        assert_eq!(list("none", 2), Default::default());
    }
}

#[test]
fn a_connection_is_told_of_by_a_callback() {
    let (handler, events) = recorder();
    let server = start(builder().route("/", handler));
    let client = server.open("/");
    let id = events.opened();
    server.handle.subscribe(id, "room").unwrap();
    let info = asked(|then| server.handle.connection_then(id, then)).unwrap().unwrap();
    assert_eq!((info.id, info.topics), (id, vec!["room".to_owned()]));
    drop(client);
    events.closed();
    assert!(asked(|then| server.handle.connection_then(id, then)).unwrap().is_none());
}

#[test]
fn a_handler_asks_without_waiting() {
    // A callback on the worker asks again, and the blocking questions refuse there.
    let server = kept(1);
    let (tx, rx) = unbounded();
    let handle = server.handle.clone();
    server.handle.publish_then(Publish::new("kept/a", "one"), move |_| {
        tx.send(handle.publish_with(Publish::new("kept/a", "two")).is_err()).unwrap();
        let tx = tx.clone();
        handle.publish_then(Publish::new("kept/a", "two"), move |published| {
            tx.send(published.unwrap().unwrap().position.offset == 2).unwrap();
        });
    });
    assert_eq!((rx.recv_timeout(DEADLINE), rx.recv_timeout(DEADLINE)), (Ok(true), Ok(true)));
}
