//! Topics: who hears what, and in which order.

use crate::support;
use crate::support::{
    Client, Event, Recorder, TEXT, TestServer, builder, frame, limits, recorder, serve, start,
};
use campanile::{
    Conn, ConnId, HandleError, InvalidTopic, Publish, Route, Start, Subscribe, SubscribeError, check_topic,
};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};

/// Does what messages say: `sub t`, `unsub t`, `pub t text`, `all t text`, `send text`, several divided by `;`.
fn scripted() -> Recorder {
    recorder().0.on_message(|conn, message| {
        for line in message.as_text().unwrap().split(';') {
            run(conn, line);
        }
    })
}

fn run(conn: &mut Conn<'_>, line: &str) {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let (topic, text) = rest.split_once(' ').unwrap_or((rest, ""));
    match word {
        "sub" => {
            let new = conn.subscribe(topic).unwrap();
            assert!(conn.is_subscribed(topic));
            assert!(new || !text.is_empty(), "already");
        }
        "unsub" => {
            assert!(conn.unsubscribe(topic));
            assert!(!conn.is_subscribed(topic) && !conn.unsubscribe(topic));
        }
        "pub" => conn.publish_to_others(topic, text).unwrap(),
        "all" => conn.publish(topic, text).unwrap(),
        "send" => {
            conn.send(rest).unwrap();
        }
        "close" => conn.close(1000, "").unwrap(),
        "topics" => {
            let mut topics: Vec<_> = conn.topics().map(str::to_owned).collect();
            topics.sort();
            conn.send(&topics.join(",")).unwrap();
        }
        _ => panic!("{line}"),
    }
}

/// Several clients of one script, each told something first.
fn clients<const N: usize>(server: &TestServer, first: &str) -> [Client; N] {
    std::array::from_fn(|_| {
        let mut client = server.open("/");
        client.text(first);
        client.expect_nothing_until_pong();
        client
    })
}

#[test]
fn topics_lists_the_subscriptions_of_a_connection() {
    let server = serve(scripted());
    let mut client = server.open("/");
    client.text("topics;sub x;sub y;sub x again;topics;unsub x;topics;sub x;unsub y;unsub x;topics");
    for expected in ["", "x,y", "y", ""] {
        assert_eq!(client.read_text(), expected);
    }
    client.text("sub x;topics");
    assert_eq!(client.read_text(), "x");
    assert_eq!(server.handle.subscribers("x").wait(), Ok(1));
    let infos = server.handle.connections("/").wait().unwrap();
    assert_eq!(infos[0].topics, ["x"]);
    client.close(1000, "");
    client.skip_to_close();
    server.until("it has gone", |s| s.open == 0);
    assert_eq!(server.handle.subscribers("x").wait(), Ok(0));
    assert_eq!(server.handle.stats().panics, 0);
}

#[test]
fn publish_includes_the_sender_and_publish_to_others_excludes_it() {
    let server = serve(scripted());
    let [mut a, mut b, mut c] = clients(&server, "sub room");
    let mut outsider = server.open("/");
    a.text("pub room from a;all room to all;pub room from a again");
    assert_eq!(a.read_text(), "to all");
    for client in [&mut b, &mut c] {
        for expected in ["from a", "to all", "from a again"] {
            assert_eq!(client.read_text(), expected);
        }
    }
    outsider.text("pub room from outside;pub nobody hears this;all room x");
    for client in [&mut a, &mut b, &mut c] {
        assert_eq!((client.read_text(), client.read_text()), ("from outside".into(), "x".into()));
        client.expect_nothing_until_pong();
    }
    outsider.expect_nothing_until_pong();
    assert_eq!(
        server.handle.stats().deliveries,
        2 * 2 + 3 + 6 + 2,
        "the one left out is counted with its run"
    );
}

#[test]
fn publishers_of_one_iteration_receive_each_other() {
    let server = serve(scripted());
    let mut all: [Client; 4] = clients(&server, "sub room");
    for round in 0..50 {
        for (i, client) in all.iter_mut().enumerate() {
            client.text(&format!("pub room {round} {i};pub room {round} {i} b"));
        }
        for (i, client) in all.iter_mut().enumerate() {
            let mut received: Vec<String> = (0..6).map(|_| client.read_text()).collect();
            // Each publisher's two are in order; whose come first is not said.
            for other in (0..4).filter(|o| *o != i) {
                let its: Vec<_> =
                    received.iter().filter(|h| h.starts_with(&format!("{round} {other}"))).collect();
                assert_eq!(its, [&format!("{round} {other}"), &format!("{round} {other} b")]);
            }
            received.retain(|h| h.starts_with(&format!("{round} {i}")));
            assert!(received.is_empty(), "{received:?}");
        }
    }
}

#[test]
fn handles_publish_from_threads_in_order() {
    let (handler, _events) = recorder();
    let handler = handler.on_open(|conn| {
        conn.subscribe("room").unwrap();
    });
    let server = serve(handler);
    let mut client = server.open("/");
    client.expect_nothing_until_pong();
    let threads: Vec<_> = (0..4)
        .map(|t| {
            let handle = server.handle.clone();
            std::thread::spawn(move || {
                for n in 0..500 {
                    handle.publish("room", format!("{t} {n}")).unwrap();
                }
            })
        })
        .collect();
    let mut next = [0; 4];
    for _ in 0..2000 {
        let text = client.read_text();
        let (t, n) = text.split_once(' ').unwrap();
        let t: usize = t.parse().unwrap();
        assert_eq!(n.parse(), Ok(next[t]), "thread {t}");
        next[t] += 1;
    }
    threads.into_iter().for_each(|t| t.join().unwrap());
}

#[test]
fn publish_except_excludes_one_connection() {
    let (handler, events) = recorder();
    let handler = handler.on_open(|conn| {
        conn.subscribe("room").unwrap();
    });
    let server = serve(handler);
    let mut a = server.open("/");
    let id = events.opened();
    let mut b = server.open("/");
    events.opened();
    server.handle.publish_with(Publish::new("room", "not for a").except(id)).unwrap();
    server.handle.publish("room", [1u8, 2, 3]).unwrap();
    assert_eq!(a.read_binary(), [1, 2, 3]);
    assert_eq!((b.read_text(), b.read_binary()), ("not for a".into(), vec![1, 2, 3]));
}

#[test]
fn a_send_after_a_publish_arrives_after_it() {
    let server = serve(scripted());
    let [mut a, mut b] = clients(&server, "sub room");
    a.text("all room 1;send 2;all room 3;pub room for b;send 4;send 5;all room 6");
    for expected in ["1", "2", "3", "4", "5", "6"] {
        assert_eq!(a.read_text(), expected);
    }
    for expected in ["1", "3", "for b", "6"] {
        assert_eq!(b.read_text(), expected);
    }
}

#[test]
fn topics_of_one_worker_keep_their_order() {
    let server = serve(scripted());
    let [mut a] = clients(&server, "sub x;sub y");
    let mut b = server.open("/");
    b.text("pub x 1;pub y 2;pub x 3;pub y 4;pub y 5;pub x 6");
    for expected in 1..=6 {
        assert_eq!(a.read_text(), expected.to_string());
    }
}

#[test]
fn a_subscriber_gets_nothing_published_before_in_the_iteration() {
    let server = serve(scripted());
    let mut client = server.open("/");
    client.text(
        "sub other;all room too early;all other received;sub room;all room in time;unsub room;all room too late",
    );
    assert_eq!((client.read_text(), client.read_text()), ("received".into(), "in time".into()));
    client.expect_nothing_until_pong();
    // Two connections whose messages are read in one turn.
    let [mut a, mut b] = clients(&server, "sub x");
    a.text("all x 1;all room too early");
    b.text("sub room;all x 2");
    let received = [a.read_text(), a.read_text()];
    assert!(received.contains(&"1".to_owned()) && received.contains(&"2".to_owned()));
    server.settle();
    assert_eq!(server.handle.stats().panics, 0);
}

#[test]
fn messages_published_before_unsubscribing_are_delivered() {
    let server = serve(scripted());
    let [mut a, mut b] = clients(&server, "sub room");
    b.text("pub room for a");
    assert_eq!(a.read_text(), "for a");
    a.text("all room 1;unsub room;all room 2;send 3");
    assert_eq!((a.read_text(), a.read_text()), ("1".into(), "3".into()));
    assert_eq!((b.read_text(), b.read_text()), ("1".into(), "2".into()));
    a.expect_nothing_until_pong();
}

#[test]
fn a_closing_connection_can_publish() {
    let (handler, _events) = recorder();
    let handler = handler
        .on_open(|conn| {
            conn.subscribe("room").unwrap();
        })
        .on_message(|conn, message| *conn.state = message.as_text().unwrap().to_owned())
        .on_close(|conn| {
            assert!(conn.is_subscribed("room"));
            let left = format!("{} left", conn.state);
            conn.publish("room", &left).unwrap();
        });
    let server = serve(handler);
    let mut witness = server.open("/");
    witness.expect_nothing_until_pong();
    for (name, reset) in [("Ann", false), ("Ben", true)] {
        let mut client = server.open("/");
        client.text(name);
        client.expect_nothing_until_pong();
        if reset {
            client.reset();
        } else {
            client.close(1000, "");
            client.expect_failed(1000);
        }
        assert_eq!(witness.read_text(), format!("{name} left"));
    }
    // Many at once: everybody who stays hears of all.
    let leaving: [Client; 50] = std::array::from_fn(|_| server.open("/"));
    leaving.into_iter().for_each(Client::reset);
    for _ in 0..50 {
        assert_eq!(witness.read_text(), " left");
    }
    assert_eq!(server.handle.stats().panics, 0);
}

#[test]
fn a_message_published_just_before_closing_arrives() {
    let server = serve(scripted());
    let [mut a, mut b] = clients(&server, "sub room");
    a.text("all room last words;close");
    assert_eq!(b.read_text(), "last words");
    // Its own copy was published before it closed; it comes before the close frame or not at all.
    let first = a.read_frame();
    if first.opcode == TEXT {
        assert_eq!(first.payload, b"last words");
        assert_eq!(a.read_close().0, 1000);
    } else {
        assert_eq!(first.opcode, support::CLOSE);
    }
}

/// Each client subscribes to a topic of its own, named by what the client calls itself, as a program does that makes the
/// name from a path or a token.
#[test]
fn a_name_that_a_client_chose_never_subscribes_to_a_pattern() {
    let ids = ["alice", "*", "/*", "a/*", "alice/*", "**", "*/*", "\u{85}"];
    for workers in [1, 2] {
        let (handler, _events) = recorder();
        let handler = handler.on_message(|conn, message| {
            let id = message.as_text().unwrap();
            let topic = format!("user/{id}");
            let result = conn.subscribe(&topic);
            assert_eq!(result.is_ok(), check_topic(&topic).is_ok());
            for start in [Start::Now, Start::Latest, Start::Last(9)] {
                if result.is_err() {
                    assert!(matches!(conn.subscribe_from(&topic, start), Err(SubscribeError::Topic(_))));
                    let with = Subscribe::new(&topic).from(start).tags(&["x"]);
                    assert!(matches!(conn.subscribe_with(with), Err(SubscribeError::Topic(_))));
                }
            }
            let refused = conn.handle().subscribe(conn.id(), &topic).is_err();
            assert_eq!(refused, result.is_err());
            assert!(conn.patterns().next().is_none() && !conn.unsubscribe("user/*"));
            conn.send(if result.is_ok() { "subscribed" } else { "refused" }).unwrap();
        });
        let server = start(builder().workers(workers).route("/", handler));
        let mut clients: Vec<(&str, Client)> = ids.iter().map(|id| (*id, server.open("/"))).collect();
        for (id, client) in &mut clients {
            client.text(id);
            let expected = if ["*", "/*", "a/*", "alice/*", "*/*", "\u{85}"].contains(id) {
                "refused"
            } else {
                "subscribed"
            };
            assert_eq!(client.read_text(), expected, "{id}");
        }
        for secret in ["user/alice", "user/alice/inbox", "user/a/b", "user//x"] {
            server.handle.publish_confirmed(Publish::new(secret, secret)).wait().unwrap();
        }
        server.settle();
        for (id, client) in &mut clients {
            if *id == "alice" {
                assert_eq!(client.read_text(), "user/alice");
            }
            client.expect_nothing_until_pong();
        }
        assert_eq!(server.handle.stats().panics, 0);
    }
}

#[test]
fn patterns_have_their_own_calls() {
    let (handler, events) = recorder();
    let handler = handler.on_message(|conn, _| {
        for no_pattern in ["ticks", "*", "ticks*", "", "a\u{85}/*", &format!("{}/*", "x".repeat(254))] {
            assert!(
                matches!(conn.subscribe_pattern(no_pattern), Err(SubscribeError::Pattern(_))),
                "{no_pattern}"
            );
        }
        assert_eq!(conn.subscribe_pattern("ticks/*"), Ok(true));
        assert_eq!(conn.subscribe_pattern("ticks/*"), Ok(false));
        assert!(conn.is_subscribed_pattern("ticks/*") && !conn.is_subscribed("ticks/*"));
        assert_eq!((conn.topics().count(), conn.patterns().collect::<Vec<_>>()), (0, vec!["ticks/*"]));
        assert!(!conn.unsubscribe("ticks/*") && conn.unsubscribe_pattern("ticks/*"));
        assert!(!conn.unsubscribe_pattern("ticks/*"));
        let from = Subscribe::pattern("ticks/*").from(Start::Last(1));
        assert_eq!(conn.subscribe_with(from), Err(SubscribeError::PatternStart));
        conn.send("done").unwrap();
    });
    let server = serve(Route::new(handler));
    let mut client = server.open("/");
    let id = events.opened();
    client.text("go");
    assert_eq!(client.read_text(), "done");
    for wrong in [server.handle.subscribe(id, "ticks/*"), server.handle.unsubscribe(id, "ticks/*")] {
        assert!(matches!(wrong, Err(HandleError::Topic(InvalidTopic::Pattern { .. }))), "{wrong:?}");
    }
    assert!(matches!(server.handle.subscribe_pattern(id, "ticks"), Err(HandleError::Pattern(_))));
    assert!(matches!(server.handle.subscribers("ticks/*").wait(), Err(HandleError::Topic(_))));
    server.handle.subscribe_pattern(id, "ticks/*").unwrap();
    let info = server.handle.connection(id).wait().unwrap().unwrap();
    assert_eq!((info.topics.len(), info.patterns), (0, vec!["ticks/*".to_owned()]));
    server.handle.publish("ticks/eur", "1").unwrap();
    assert_eq!(client.read_text(), "1");
    server.handle.unsubscribe_pattern(id, "ticks/*").unwrap();
    server.settle();
    server.handle.publish("ticks/eur", "2").unwrap();
    client.expect_nothing_until_pong();
}

#[test]
fn topic_names_and_subscriptions_are_limited() {
    let (handler, _events) = recorder();
    let handler = handler.on_message(|conn, _| {
        for bad in ["", "a\nb", "a\u{85}b", "a/*", &"x".repeat(256)] {
            assert!(matches!(conn.subscribe(bad), Err(SubscribeError::Topic(_))));
            assert!(conn.publish(bad, "reaches nobody").is_err(), "{bad:?}");
        }
        for n in 0..5 {
            assert_eq!(conn.subscribe(&format!("{n}{}", "x".repeat(250))), Ok(true));
        }
        assert_eq!(conn.subscribe("one more"), Err(SubscribeError::TooMany { limit: 5 }));
        assert_eq!(conn.subscribe(&format!("0{}", "x".repeat(250))), Ok(false));
        conn.send("done").unwrap();
    });
    let server = serve(Route::new(handler).limits(limits(|l| l.max_subscriptions = 5)));
    let mut client = server.open("/");
    client.text("go");
    assert_eq!(client.read_text(), "done");
    assert!(server.handle.publish("a\nb", "x").is_err());
}

// ---- several workers ----

#[test]
fn all_subscribers_see_a_topic_in_one_order() {
    const PUBLISHERS: usize = 6;
    const EACH: usize = 200;
    for workers in [1, 3] {
        let server = start(builder().workers(workers).route("/", scripted()));
        let subscribers: [Client; 7] = clients(&server, "sub room;sub other");
        let barrier = Arc::new(Barrier::new(PUBLISHERS));
        let publishing: Vec<_> = (0..PUBLISHERS)
            .map(|p| {
                let (barrier, handle) = (barrier.clone(), server.handle.clone());
                let mut client = server.open("/");
                std::thread::spawn(move || {
                    barrier.wait();
                    for n in 0..EACH {
                        if p % 2 == 0 {
                            handle.publish("room", format!("{p} {n}")).unwrap();
                        } else {
                            client.text(&format!("pub room {p} {n}"));
                        }
                    }
                    client.expect_nothing_until_pong();
                })
            })
            .collect();
        let received: Vec<Vec<String>> = subscribers
            .into_iter()
            .map(|mut s| std::thread::spawn(move || (0..PUBLISHERS * EACH).map(|_| s.read_text()).collect()))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|t| t.join().unwrap())
            .collect();
        publishing.into_iter().for_each(|t| t.join().unwrap());
        for other in &received[1..] {
            assert!(*other == received[0], "two subscribers saw two orders");
        }
        for p in 0..PUBLISHERS {
            let its = received[0].iter().filter(|h| h.starts_with(&format!("{p} ")));
            assert!(
                its.eq((0..EACH).map(|n| format!("{p} {n}")).collect::<Vec<_>>().iter()),
                "publisher {p}"
            );
        }
    }
}

#[test]
fn the_sender_is_excluded_on_every_worker() {
    let server = start(builder().workers(3).route("/", scripted()));
    let mut all: [Client; 6] = clients(&server, "sub room");
    for i in 0..6 {
        all[i].text(&format!("pub room {i};all room all"));
        for (j, client) in all.iter_mut().enumerate() {
            if i != j {
                assert_eq!(client.read_text(), i.to_string());
            }
            assert_eq!(client.read_text(), "all");
        }
    }
    assert_eq!(server.handle.subscribers("room").wait(), Ok(6));
}

#[test]
fn publishing_in_close_reaches_every_worker() {
    let (handler, _events) = recorder();
    let handler = handler
        .on_open(|conn| {
            conn.subscribe("room").unwrap();
        })
        .on_close(|conn| conn.publish("room", "left").unwrap());
    let server = start(builder().workers(3).route("/", handler));
    let mut all: Vec<Client> = (0..9).map(|_| server.open("/")).collect();
    for client in &mut all {
        client.expect_nothing_until_pong();
    }
    while let Some(leaving) = all.pop() {
        leaving.reset();
        for client in &mut all {
            assert_eq!(client.read_text(), "left");
        }
    }
}

#[test]
fn publishing_while_topics_are_created_and_removed_is_exact() {
    let server = start(builder().workers(2).route("/", scripted()));
    let count = Arc::new(AtomicU32::new(0));
    let threads: Vec<_> = (0..4)
        .map(|t| {
            let mut client = server.open("/");
            let (handle, count) = (server.handle.clone(), count.clone());
            std::thread::spawn(move || {
                for n in 0..100 {
                    let topic = format!("t{}", (t + n) % 3);
                    client.text(&format!("sub {topic};send in"));
                    while client.read_text() != "in" {}
                    handle.publish(&topic, format!("mine {t} {n}")).unwrap();
                    while client.read_text() != format!("mine {t} {n}") {}
                    client.text(&format!("unsub {topic};send out"));
                    while client.read_text() != "out" {}
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!((count.load(Ordering::Relaxed), server.handle.stats().panics), (400, 0));
    assert_eq!((0..3).map(|t| server.handle.subscribers(&format!("t{t}")).wait().unwrap()).sum::<usize>(), 0);
}

#[test]
fn a_reused_slot_has_no_subscriptions() {
    let (handler, events) = recorder();
    let handler = handler.on_message(|conn, message| {
        conn.subscribe(message.as_text().unwrap()).unwrap();
    });
    let server = serve(handler);
    let mut client = server.open("/");
    client.text("room");
    client.expect_nothing_until_pong();
    let first: ConnId = events.opened();
    client.reset();
    events.closed();
    let mut next = server.open("/");
    let second = events.opened();
    assert_ne!(first, second);
    server.handle.publish("room", "for who has gone").unwrap();
    server.handle.publish_with(Publish::new("room", "nor this").except(first)).unwrap();
    server.settle();
    next.expect_nothing_until_pong();
    assert!(matches!(events.so_far()[..], [Event::Ping(..)]));
}

#[test]
fn a_slow_subscriber_gets_whole_messages_of_many_publishers() {
    let server = serve(Route::new(scripted()).limits(limits(|l| l.max_backlog = 64 << 20)));
    let mut slow = server.open_slow("/");
    slow.text("sub room");
    slow.expect_nothing_until_pong();
    let mut publisher = server.open("/");
    let text = "x".repeat(4000);
    for n in 0..50 {
        let burst: Vec<u8> =
            (0..10).flat_map(|i| frame(true, TEXT, format!("pub room {n}.{i} {text}").as_bytes())).collect();
        publisher.send(burst);
    }
    publisher.expect_nothing_until_pong();
    for n in 0..50 {
        for i in 0..10 {
            let received = slow.read_text();
            assert!(received.starts_with(&format!("{n}.{i} ")) && received.len() > 4000);
        }
    }
}
