//! Answers of workers: waited for, awaited, given to a callback, dropped; and what the queries answer.

use crate::support;
use crate::support::{Client, DEADLINE, TestServer, builder, recorder, start};
use campanile::{Answer, HandleError, Message, Position, Publish, Server, Start, TopicSettings};
use crossbeam_channel::{Receiver, bounded, unbounded};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

fn kept(workers: usize) -> TestServer {
    let settings = TopicSettings::new().history(10).max_message_size(100);
    start(builder().workers(workers).topics("kept/", settings).route("/", recorder().0))
}

/// Runs a future to its end on this thread, which sleeps until it is woken.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Signal(crossbeam_channel::Sender<()>);
    impl Wake for Signal {
        fn wake(self: Arc<Self>) {
            let _ = self.0.try_send(()); // it is woken already
        }
    }
    let (tx, woken) = bounded(1);
    let waker = Waker::from(Arc::new(Signal(tx)));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        woken.recv_timeout(DEADLINE).expect("the task is woken");
    }
}

/// What a callback is called with.
fn called<T: Send + 'static>(answer: Answer<T>) -> Result<T, HandleError> {
    let (tx, rx) = bounded(1);
    answer.then(move |answer| tx.send(answer).unwrap());
    rx.recv_timeout(DEADLINE).expect("the callback is called")
}

/// A server whose only worker is in a callback until the sender is dropped.
fn busy() -> (TestServer, Client, crossbeam_channel::Sender<()>) {
    let ((release, released), (entered, inside)) = (bounded::<()>(0), bounded(1));
    let (handler, _events) = recorder();
    let handler = handler.on_message(move |_, _| {
        entered.send(()).unwrap();
        let _ = released.recv(); // disconnected: released
    });
    let server = start(builder().topics("kept/", TopicSettings::new().history(10)).route("/", handler));
    let mut client = server.open("/");
    client.text("block");
    inside.recv_timeout(DEADLINE).unwrap();
    (server, client, release)
}

#[test]
fn a_publication_is_confirmed_by_waiting_by_awaiting_and_by_a_callback() {
    type Way<T> = fn(Answer<T>) -> Result<T, HandleError>;
    let ways: [Way<_>; 3] = [Answer::wait, |answer| block_on(answer), called];
    for workers in [1, 3] {
        let server = kept(workers);
        for (n, way) in (1..).zip(ways) {
            let publish =
                |topic: &str, text: &str| way(server.handle.publish_confirmed(Publish::new(topic, text)));
            let published = publish("kept/a", "x").unwrap().unwrap();
            assert_eq!((published.position.offset, published.receivers, published.repeated), (n, 0, false));
            assert_eq!(publish("nobody", "x"), Ok(None));
            assert!(matches!(publish("", "x"), Err(HandleError::Topic(_))));
            let long = publish("kept/a", &"x".repeat(101));
            assert_eq!(long, Err(HandleError::TooBig { len: 101, limit: 100 }));
        }
    }
}

#[test]
fn questions_are_asked_in_the_order_of_their_calls_whatever_order_they_are_awaited_in() {
    let server = kept(2);
    let answers: Vec<_> =
        (0..5).map(|_| server.handle.publish_confirmed(Publish::new("kept/a", "x"))).collect();
    let offsets: Vec<_> =
        answers.into_iter().rev().map(|a| block_on(a).unwrap().unwrap().position.offset).collect();
    assert_eq!(offsets, [5, 4, 3, 2, 1]);
}

#[test]
fn a_dropped_answer_publishes_all_the_same_and_wakes_nobody() {
    let (server, _client, release) = busy();
    drop(server.handle.publish_confirmed(Publish::new("kept/a", "dropped at once")));
    let mut polled =
        Box::pin(server.handle.publish_confirmed(Publish::new("kept/a", "dropped while it waits")));
    assert!(polled.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(polled);
    drop(release);
    let page = server.handle.history("kept/a", Start::Last(10), 10).wait().unwrap().unwrap();
    let texts: Vec<_> = page.messages.iter().filter_map(|m| m.message().as_text()).collect();
    assert_eq!(texts, ["dropped at once", "dropped while it waits"]);
}

#[test]
fn waiting_ends_at_its_deadline_with_a_timeout() {
    let (server, _client, release) = busy();
    let waited = server.handle.subscribers("x").wait_timeout(Duration::from_millis(1));
    assert_eq!(waited, Err(HandleError::Timeout));
    drop(release);
    assert_eq!(server.handle.subscribers("x").wait_timeout(Duration::MAX), Ok(0));
}

#[test]
fn an_answer_without_a_worker_is_an_error() {
    // It does not run yet, so that its mailbox fills.
    let server = builder().mailbox(1).listen("127.0.0.1:0").build().unwrap();
    let handle = server.handle();
    let (tx, rx) = unbounded();
    for _ in 0..2 {
        let tx = tx.clone();
        handle.publish_confirmed(Publish::new("a", "x")).then(move |published| tx.send(published).unwrap());
    }
    assert_eq!(rx.try_iter().collect::<Vec<_>>(), [Err(HandleError::Full)]);
    drop(server);
    assert_eq!(rx.recv_timeout(DEADLINE), Ok(Err(HandleError::Ended)));
    let gone = builder().listen("127.0.0.1:0").build().unwrap().handle();
    assert_eq!(block_on(gone.topics("", 1)), Err(HandleError::Ended));
    assert_eq!(gone.subscribers("a").wait(), Err(HandleError::Ended));
}

#[test]
fn a_route_that_is_not_there_is_answered_with_those_that_are() {
    let server = start(builder().route("/a", recorder().0).route("/b/:room", recorder().0));
    let error = server.handle.connections("/b/1").wait().unwrap_err();
    let routes = vec!["/a".to_owned(), "/b/:room".to_owned()];
    assert_eq!(error, HandleError::NoRoute { pattern: "/b/1".to_owned(), routes });
    assert!(error.to_string().contains("/a, /b/:room"), "{error}");
    assert_eq!(server.handle.open_on("/c").wait(), server.handle.broadcast("/c", "x").map(|()| 0));
    let none = Server::builder().build().unwrap().handle().open_on("/").wait().unwrap_err();
    assert!(none.to_string().contains("no WebSocket route"), "{none}");
}

#[test]
fn a_panic_in_a_reply_callback_ends_nothing() {
    let (server, mut client, release) = busy();
    server.handle.publish_confirmed(Publish::new("kept/a", "x")).then(|_| panic!("in a callback"));
    drop(release);
    server.until("it is counted", |s| s.panics == 1);
    client.expect_nothing_until_pong();
}

#[test]
fn on_a_worker_an_answer_is_not_waited_for_and_a_callback_may_ask_again() {
    let (server, _client, release) = busy();
    let (tx, rx): (_, Receiver<Result<u64, HandleError>>) = unbounded();
    let handle = server.handle.clone();
    server.handle.publish_confirmed(Publish::new("kept/a", "one")).then(move |_| {
        let offset = |published: Option<campanile::Published>| published.unwrap().position.offset;
        // It is published all the same.
        tx.send(handle.publish_confirmed(Publish::new("kept/a", "two")).wait().map(offset)).unwrap();
        tx.send(handle.publish_within(Publish::new("kept/a", "x"), DEADLINE).map(|()| 0)).unwrap();
        handle.publish_confirmed(Publish::new("kept/a", "three")).then(move |published| {
            tx.send(published.map(offset)).unwrap();
        });
    });
    drop(release);
    for expected in [Err(HandleError::InHandler), Err(HandleError::InHandler), Ok(3)] {
        assert_eq!(rx.recv_timeout(DEADLINE), Ok(expected));
    }
}

#[test]
fn a_batch_says_which_messages_were_not_published() {
    let server = kept(3);
    let long = "x".repeat(101);
    let batch = |texts: &[(&str, &str)]| {
        server.handle.publish_batch(texts.iter().map(|(topic, text)| Publish::new(topic, *text)))
    };
    assert_eq!(batch(&[("kept/a", "1"), ("kept/b", "2")]), Ok(()));
    let error = batch(&[("kept/a", "3"), ("", "x"), ("kept/b", &long), ("kept/b", "4")]).unwrap_err();
    let failed: Vec<_> =
        error.failed.iter().map(|(at, e)| (*at, matches!(e, HandleError::TooBig { .. }))).collect();
    assert_eq!((failed, error.messages), (vec![(1, false), (2, true)], 4));
    assert!(
        error.to_string().starts_with("batch: 2 of 4 messages were not published; message 1: topic: empty")
    );
    assert!(std::error::Error::source(&error).is_some());
    for topic in ["kept/a", "kept/b"] {
        let page = server.handle.history(topic, Start::Last(9), 9).wait().unwrap().unwrap();
        assert_eq!(page.messages.len(), 2, "the others were published");
    }
    // It does not run, so that its mailbox fills.
    let server = Server::builder().workers(1).mailbox(1).build().unwrap();
    let batch = |topics: [&'static str; 3]| {
        server.handle().publish_batch(topics.map(|topic| Publish::new(topic, "x")))
    };
    assert_eq!(batch(["a", "b", "c"]), Ok(()));
    let error = batch(["a", "", "c"]).unwrap_err();
    assert_eq!(error.failed.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!((&error.failed[0].1, &error.failed[2].1), (&HandleError::Full, &HandleError::Full));
}

#[test]
fn a_connection_is_described_after_what_was_asked_before() {
    let (handler, events) = recorder();
    let server = start(builder().route("/", handler));
    let client = server.open("/");
    let id = events.opened();
    server.handle.subscribe(id, "room").unwrap();
    let info = block_on(server.handle.connection(id)).unwrap().unwrap();
    assert_eq!((info.id, info.topics), (id, vec!["room".to_owned()]));
    drop(client);
    events.closed();
    assert!(server.handle.connection(id).wait().unwrap().is_none());
}

#[test]
fn history_is_read_in_pages() {
    for workers in [1, 2] {
        let server = kept(workers);
        let handle = server.handle.clone();
        let page =
            |topic: &str, start: Start, limit: usize| handle.history(topic, start, limit).wait().unwrap();
        assert!(page("kept/a", Start::Now, 5).is_none());
        let mut first = None;
        for n in 1..=12 {
            let text = format!("{n}");
            let message = if n % 2 == 0 { Message::text(&text) } else { Message::binary(text.as_bytes()) };
            let published =
                server.handle.publish_confirmed(Publish::new("kept/a", message)).wait().unwrap().unwrap();
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
            let page = page("kept/a", Start::Since(Position::new(epoch, offset)), limit).unwrap();
            let offsets: Vec<u64> = page.messages.iter().map(|m| m.offset()).collect();
            (page.recovered, offsets, page.more)
        };
        assert_eq!(read(2, 4), (true, vec![3, 4, 5, 6], true));
        assert_eq!(read(6, 6), (true, (7..=12).collect(), false));
        assert_eq!(read(12, 6), (true, vec![], false));
        assert_eq!(read(1, 6), (false, vec![], false), "2 is gone");
        let other = page("kept/a", Start::Since(Position::new(epoch + 1, 2)), 6).unwrap();
        assert!(!other.recovered && other.messages.is_empty());
        let long = "x".repeat(70_000);
        let keeps = start(builder().topics("", TopicSettings::new().history(1)));
        keeps.handle.publish("long", &long).unwrap();
        let page = keeps.handle.history("long", Start::Last(1), 1).wait().unwrap().unwrap();
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
        server.handle.publish_confirmed(Publish::new("kept/a", "x")).wait().unwrap();
        let list = |prefix: &str, limit: usize| server.handle.topics(prefix, limit).wait().unwrap();
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
        assert_eq!((kept.history, kept.subscribers, kept.position.unwrap().offset), (1, 0, 1));
        let few = list("room/", 2);
        assert!(few.topics.len() == 2 && few.more);
        assert_eq!(list("none", 2), Default::default());
    }
}
