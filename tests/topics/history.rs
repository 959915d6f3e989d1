//! What topics keep: offsets, resuming without a gap or a repeat, the latest state, patterns, ids, and their ends.

use crate::support::{Client, DEADLINE, TEXT, TestServer, builder, frame, limits, millis, start, until};
use campanile::{
    Answer, Conn, Disconnect, Handler, Message, Position, Publish, Published, SlowConsumer, Start,
    Subscribed, TopicSettings,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Does what messages say, one command each: `from TOPIC EPOCH OFFSET`, `latest TOPIC`, `now TOPIC`, `sub TOPIC`,
/// `unsub TOPIC`, `pub TOPIC TEXT`. Says how subscriptions begin.
struct Scripted;

impl Handler for Scripted {
    type State = ();

    fn message(&self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) -> Result<(), Disconnect> {
        let words: Vec<&str> = message.as_text().unwrap().splitn(4, ' ').collect();
        let number = |at: usize| words[at].parse().unwrap();
        let result = match words[0] {
            "from" => conn.subscribe_from(words[1], Start::Since(Position::new(number(2), number(3)))),
            "last" => conn.subscribe_from(words[1], Start::Last(number(2) as usize)),
            "latest" => conn.subscribe_from(words[1], Start::Latest),
            "now" => conn.subscribe_from(words[1], Start::Now),
            "sub" => conn.subscribe(words[1]).map(|_| ()),
            "sub-pattern" => conn.subscribe_pattern(words[1]).map(|_| ()),
            "unsub-pattern" => {
                conn.unsubscribe_pattern(words[1]);
                Ok(())
            }
            "unsub" => {
                conn.unsubscribe(words[1]);
                Ok(())
            }
            "pub" => {
                conn.publish(words[1], &*words[2..].join(" ")).unwrap();
                Ok(())
            }
            other => panic!("{other}"),
        };
        if let Err(e) = result {
            conn.send(&format!("refused: {e}")).unwrap();
        }
        Ok(())
    }

    fn subscribed(
        &self,
        conn: &mut Conn<'_>,
        _: &mut (),
        topic: &str,
        how: &Subscribed,
    ) -> Result<(), Disconnect> {
        let Position { epoch, offset, .. } = how.position;
        conn.send(&format!("{topic}: {epoch} {offset} {} {}", how.recovered, how.replayed)).unwrap();
        Ok(())
    }
}

fn serve(workers: usize, settings: TopicSettings) -> TestServer {
    start(builder().workers(workers).route("/", Scripted).topics("kept/", settings))
}

fn kept(messages: usize) -> TopicSettings {
    TopicSettings::new().history(messages)
}

fn confirm(server: &TestServer, publish: Publish<'_>) -> Option<Published> {
    server.handle.publish_confirmed(publish).wait().unwrap()
}

fn say(server: &TestServer, topic: &str, text: &str) -> Published {
    confirm(server, Publish::new(topic, text)).expect("it has a history or subscribers")
}

/// The answer to a subscription that begins elsewhere than now: position, whether it was recovered, what is replayed.
fn begun(client: &mut Client) -> (Position, bool, usize) {
    let text = client.read_text();
    let words: Vec<&str> = text.split(' ').collect();
    assert_eq!(words.len(), 5, "{text}");
    let position = Position::new(words[1].parse().unwrap(), words[2].parse().unwrap());
    (position, words[3] == "true", words[4].parse().unwrap())
}

fn resume(client: &mut Client, topic: &str, at: Position) -> (Position, bool, usize) {
    client.text(&format!("from {topic} {} {}", at.epoch, at.offset));
    begun(client)
}

/// The names of the topics with a prefix.
fn topics(server: &TestServer, prefix: &str) -> Vec<String> {
    let list = server.handle.topics(prefix, 100).wait().unwrap();
    list.topics.into_iter().map(|topic| topic.name).collect()
}

#[test]
fn a_returning_subscriber_recovers_missed_messages() {
    for workers in [1, 2, 3] {
        let server = serve(workers, kept(100));
        for topic in ["kept/a", "kept/b", "kept/c"] {
            let first = say(&server, topic, "1").position;
            assert_eq!(first.offset, 1);
            for n in 2..=5 {
                let at = say(&server, topic, &n.to_string()).position;
                assert_eq!(at, Position::new(first.epoch, n));
            }
            // On each worker.
            for _ in 0..2 * workers {
                let mut client = server.open("/");
                let begun = resume(&mut client, topic, Position::new(first.epoch, 2));
                assert_eq!(begun, (Position::new(first.epoch, 5), true, 3));
                assert_eq!([client.read_text(), client.read_text(), client.read_text()], ["3", "4", "5"]);
                client.expect_nothing_until_pong();
            }
            let mut live = server.open("/");
            assert_eq!(
                resume(&mut live, topic, Position::new(first.epoch, 5)),
                (Position::new(first.epoch, 5), true, 0)
            );
            say(&server, topic, "6");
            assert_eq!(live.read_text(), "6");
        }
    }
}

#[test]
fn evicted_messages_are_not_reported_as_recovered() {
    let server = serve(1, kept(3));
    let first = say(&server, "kept/a", "1").position;
    for n in 2..=5 {
        say(&server, "kept/a", &n.to_string());
    }
    for (at, recovered, replayed) in [
        (Position::new(first.epoch, 0), false, 0),
        (Position::new(first.epoch, 1), false, 0), // 2 is gone
        (Position::new(first.epoch, 2), true, 3),
        (Position::new(first.epoch, 5), true, 0),
        (Position::new(first.epoch, 6), false, 0), // nobody has seen that
        (Position::new(first.epoch + 1, 2), false, 0),
    ] {
        let mut client = server.open("/");
        let (position, was, n) = resume(&mut client, "kept/a", at);
        assert_eq!((position.offset, was, n), (5, recovered, replayed), "{at}");
    }
}

#[test]
fn start_latest_replays_one_message_for_each_key() {
    let server = serve(2, kept(100));
    for (key, text) in [("eur", "1"), ("usd", "2"), ("eur", "3")] {
        confirm(&server, Publish::new("kept/rates", Message::text(text).with_key(key)));
    }
    let mut client = server.open("/");
    client.text("latest kept/rates");
    let (_, recovered, replayed) = begun(&mut client);
    assert_eq!((recovered, replayed), (false, 2));
    assert_eq!([client.read_text(), client.read_text()], ["2", "3"]);
    client.text("latest kept/nothing");
    assert_eq!(begun(&mut client).2, 0);
    client.text("now kept/rates2");
    assert_eq!(begun(&mut client).0.offset, 0);
    client.text("latest kept/rates");
    assert!(client.read_text().contains("listens to the topic already"));
}

#[test]
fn start_last_replays_the_last_messages() {
    let server = serve(2, kept(10));
    for n in 1..=20 {
        say(&server, "kept/room", &n.to_string());
    }
    for (asked, replayed) in [(3, 3), (10, 10), (1000, 10), (0, 0)] {
        let mut client = server.open("/");
        client.text(&format!("last kept/room {asked}"));
        let (position, recovered, n) = begun(&mut client);
        assert_eq!((position.offset, recovered, n), (20, false, replayed));
        for n in 21 - replayed..=20 {
            assert_eq!(client.read_text(), n.to_string());
        }
        client.expect_nothing_until_pong();
    }
    let mut client = server.open("/");
    client.text("last kept/* 3");
    assert!(client.read_text().contains("is a pattern"));
}

#[test]
fn a_history_is_bounded_in_bytes_and_age_and_a_message_in_time() {
    let small = TopicSettings::new().history(1000).history_bytes(100).history_age(millis(300));
    let server = serve(1, small);
    let text = "x".repeat(28); // 30 bytes as a frame
    let first = say(&server, "kept/a", &text).position;
    for _ in 2..=5 {
        say(&server, "kept/a", &text);
    }
    let replayed = |after: u64| {
        let mut client = server.open("/");
        let (_, recovered, n) = resume(&mut client, "kept/a", Position::new(first.epoch, after));
        (recovered, n)
    };
    assert_eq!(replayed(2), (true, 3));
    assert_eq!(replayed(1), (false, 0));
    // Gone with its last message: another life, as soon as somebody asks.
    let publish = || confirm(&server, Publish::new("kept/a", "again")).unwrap();
    until("the topic has gone", || topics(&server, "kept/").is_empty());
    assert_ne!(publish().position.epoch, first.epoch);

    let short = Publish::new("kept/b", "short").ttl(millis(1));
    let at = confirm(&server, short).unwrap().position;
    say(&server, "kept/b", "long");
    // Nothing is missing that should still be there.
    until("the short one has had its time", || {
        let mut client = server.open("/");
        let (_, recovered, replayed) = resume(&mut client, "kept/b", Position::new(at.epoch, 0));
        assert!(recovered);
        let last = std::iter::repeat_with(|| client.read_text()).take(replayed).last();
        assert_eq!(last.as_deref(), Some("long"));
        replayed == 1
    });
}

#[test]
fn all_histories_together_respect_max_history() {
    let topics = builder().route("/", Scripted).topics("kept/", kept(100)).max_history(64 << 10);
    let server = start(topics);
    let text = "x".repeat(1000);
    let positions: Vec<_> = (0..1000).map(|n| say(&server, &format!("kept/{n}"), &text).position).collect();
    // Some thirty of them find room: the newest.
    server.until("most are evicted", |s| s.history_evicted > 900 && s.history_evicted < 1000);
    let mut client = server.open("/");
    let mut recovered = |n: usize| {
        let topic = format!("kept/{n}");
        let (_, recovered, replayed) = resume(&mut client, &topic, Position::new(positions[n].epoch, 0));
        assert_eq!(replayed, usize::from(recovered));
        if recovered {
            assert_eq!(client.read_text(), text);
        }
        recovered
    };
    assert!(recovered(999) && recovered(998) && !recovered(0) && !recovered(500));
}

#[test]
fn new_topics_evict_no_history_of_another_prefix() {
    let open = kept(100).client_publish(true);
    let topics = builder().topics("orders/", kept(100)).topics("public/", open).max_history(1 << 20);
    let server = start(topics.route("/", Scripted));
    let order = "x".repeat(1000);
    let flood = "x".repeat(16 << 10);
    let mut begin = None;
    for n in 0..100 {
        for of in 0..4 {
            say(&server, &format!("public/{n}-{of}"), &flood);
        }
        let Position { epoch, .. } = say(&server, "orders/1", &order).position;
        assert_eq!(*begin.get_or_insert(epoch), epoch);
    }
    // Six megabytes came to where one is kept, and all of the orders are there.
    let mut client = server.open("/");
    let (position, recovered, replayed) = resume(&mut client, "orders/1", Position::new(begin.unwrap(), 0));
    assert_eq!((position.offset, recovered, replayed), (100, true, 100));
    let stats = server.handle.stats();
    assert!(stats.history_evicted > 300, "{stats:?}");
}

#[test]
fn reservations_over_max_history_are_refused() {
    let of = |bytes| TopicSettings::new().history(1).history_reserved(bytes);
    let topics = || builder().topics("a/", of(600)).topics("b/", of(500));
    let error = topics().max_history(1000).build().unwrap_err().to_string();
    assert!(error.contains("history_reserved: 1100 bytes") && error.contains("1000"), "{error}");
    assert!(topics().max_history(1100).build().is_ok());
}

#[test]
fn a_repeated_idempotency_key_publishes_once() {
    let server = serve(2, kept(10));
    let mut client = server.open("/");
    client.text("now kept/a");
    begun(&mut client);
    let publish = |id| confirm(&server, Publish::new("kept/a", "paid").idempotency_key(id)).unwrap();
    let first = publish("order-1");
    assert_eq!((first.position.offset, first.receivers, first.repeated), (1, 1, false));
    let again = publish("order-1");
    assert_eq!((again.position, again.repeated), (first.position, true));
    assert_eq!(publish("order-2").position.offset, 2);
    assert_eq!([client.read_text(), client.read_text()], ["paid", "paid"]);
    client.expect_nothing_until_pong();
}

#[test]
fn publishing_without_subscribers_and_history_does_nothing() {
    let server = serve(2, kept(1));
    assert_eq!(confirm(&server, Publish::new("room", "?")), None);
    let mut clients = [(); 4].map(|()| server.open("/"));
    for client in &mut clients {
        client.text("sub room");
        client.expect_nothing_until_pong();
    }
    until("all are counted", || {
        confirm(&server, Publish::new("room", "!")).is_some_and(|p| p.receivers == 4)
    });
    drop(clients);
    until("none are", || confirm(&server, Publish::new("room", "?")).is_none());
}

#[test]
fn patterns_receive_each_message_below_them_once() {
    for workers in [1, 2] {
        let server = serve(workers, kept(10));
        let mut all = server.open("/");
        for topic in ["sub-pattern ticks/*", "sub-pattern ticks/eur/*", "sub ticks/eur/usd"] {
            all.text(topic);
        }
        let mut some = server.open("/");
        some.text("sub-pattern ticks/eur/*");
        for client in [&mut all, &mut some] {
            client.expect_nothing_until_pong();
        }
        let receivers = |topic| confirm(&server, Publish::new(topic, topic)).map(|p| p.receivers);
        assert_eq!(receivers("ticks/usd"), Some(1));
        assert!(receivers("ticks/eur/usd").is_some());
        assert_eq!(receivers("ticks"), None);
        assert_eq!([all.read_text(), all.read_text()], ["ticks/usd", "ticks/eur/usd"]);
        assert_eq!(some.read_text(), "ticks/eur/usd");
        // Also for who is caught up in the middle of a turn.
        all.text("pub ticks/eur/chf hello");
        assert_eq!([all.read_text(), some.read_text()], ["hello", "hello"]);
        for client in [&mut all, &mut some] {
            client.expect_nothing_until_pong();
        }
        assert!(server.handle.publish("ticks/*", "no").is_err());
        some.text("unsub-pattern ticks/eur/*");
        some.expect_nothing_until_pong();
        server.handle.publish("ticks/eur/gbp", "for one").unwrap();
        assert_eq!(all.read_text(), "for one");
        some.expect_nothing_until_pong();
    }
}

#[test]
fn a_topic_can_have_its_own_slow_consumer_policy_and_size_limit() {
    let settings = TopicSettings::new().slow_consumer(SlowConsumer::DropOldest).max_message_size(100 << 10);
    let limits = limits(|l| l.max_backlog = 256 << 10);
    let route = campanile::Route::new(Scripted).limits(limits);
    let server = start(builder().route("/", route).topics("drops/", settings));
    let mut slow = server.open_slow("/");
    slow.text("sub drops/a");
    slow.expect_nothing_until_pong();
    let text = "x".repeat(50 << 10);
    for _ in 0..200 {
        server.handle.publish_within(Publish::new("drops/a", &*text), Duration::from_secs(5)).unwrap();
    }
    server.until("some are given up", |s| s.dropped > 0 && s.slow_consumers == 0);
    let e = server.handle.publish("drops/a", &*"x".repeat(101 << 10)).unwrap_err();
    assert_eq!(e.to_string(), "message of 103424 bytes refused: its topic takes up to 102400");
}

#[test]
fn batches_keep_the_order_of_each_topic() {
    let server = serve(3, kept(1000));
    let mut client = server.open("/");
    for topic in ["now kept/a", "now kept/b", "now kept/c"] {
        client.text(topic);
        begun(&mut client);
    }
    let texts: Vec<(String, String)> =
        (0..300).map(|n| (format!("kept/{}", ["a", "b", "c"][n % 3]), n.to_string())).collect();
    server.handle.publish_batch(texts.iter().map(|(topic, text)| Publish::new(topic, text))).unwrap();
    let mut last = [None; 3];
    for _ in 0..300 {
        let n: usize = client.read_text().parse().unwrap();
        assert!(last[n % 3] < Some(n));
        last[n % 3] = Some(n);
    }
}

#[test]
fn a_disconnect_during_recovery_leaves_nothing_behind() {
    let server = serve(3, kept(10));
    for round in 0..50 {
        let mut client = server.open("/");
        client.text(&format!("now room{round}"));
        client.text(&format!("unsub room{round}"));
        client.text(&format!("now other{round}"));
        if round % 2 == 0 {
            client.reset();
        }
    }
    server.settle();
    until("nobody is counted", || {
        (0..50).all(|n| {
            ["room", "other"].iter().all(|topic| {
                let topic = format!("{topic}{n}");
                confirm(&server, Publish::new(&topic, "?")).is_none()
            })
        })
    });
}

/// A client that is cut again and again while messages come sees each of them once and in order.
#[test]
fn recovery_after_a_cut_at_any_point_is_exact() {
    const CUTS: u32 = 300;
    for workers in [1, 3] {
        let server = serve(workers, kept(100_000));
        let (more, rounds) = crossbeam_channel::unbounded();
        std::thread::scope(|scope| {
            // As many as the client reads at most between two cuts, and more: while it is cut and comes back.
            scope.spawn(|| {
                let mut n = 0_u32;
                for () in rounds {
                    for _ in 0..32 {
                        n += 1;
                        let text = n.to_string();
                        let publish = Publish::new("kept/a", &*text);
                        server.handle.publish_within(publish, DEADLINE).unwrap();
                    }
                }
            });
            more.send(()).unwrap();
            let mut client = server.open("/");
            client.text("now kept/a");
            let (mut at, ..) = begun(&mut client);
            let mut random = 12345u32;
            for cut in 0..CUTS {
                more.send(()).unwrap();
                random = random.wrapping_mul(1_103_515_245).wrapping_add(12345);
                for _ in 0..random >> 16 & 0xF {
                    at.offset += 1;
                    assert_eq!(client.read_text(), at.offset.to_string(), "after {cut} cuts");
                }
                client.reset();
                client = server.open("/");
                let (_, recovered, _) = resume(&mut client, "kept/a", at);
                assert!(recovered, "after {cut} cuts");
            }
            drop(more);
        });
    }
}

#[test]
fn all_subscribers_see_one_order_per_topic() {
    const TOPICS: [&str; 3] = ["kept/a", "kept/b", "kept/c"];
    const EACH: usize = 30;
    let server = serve(3, kept(10_000));
    // The worker with the fewest gets the next, so they are on all.
    let mut clients: Vec<Client> = (0..100).map(|_| server.open("/")).collect();
    for client in &mut clients {
        for topic in TOPICS {
            client.text(&format!("now {topic}"));
            begun(client);
        }
    }
    std::thread::scope(|scope| {
        for thread in 0..10 {
            let handle = &server.handle;
            scope.spawn(move || {
                for n in 0..EACH {
                    for topic in TOPICS {
                        let text = format!("{topic} {thread} {n}");
                        handle.publish_within(Publish::new(topic, &*text), DEADLINE).unwrap();
                    }
                }
            });
        }
    });
    let orders = clients.iter_mut().map(|client| {
        let mut orders = BTreeMap::<String, Vec<String>>::new();
        for _ in 0..10 * EACH * TOPICS.len() {
            let text = client.read_text();
            let (topic, said) = text.split_once(' ').unwrap();
            orders.entry(topic.to_owned()).or_default().push(said.to_owned());
        }
        orders
    });
    let orders: Vec<_> = orders.collect();
    assert!(orders.iter().all(|order| *order == orders[0]));
    assert!(orders[0].keys().eq(TOPICS.iter()));
    for order in orders[0].values() {
        let mut last = BTreeMap::new();
        for text in order {
            let (thread, n) = text.split_once(' ').unwrap();
            let n: usize = n.parse().unwrap();
            assert!(last.insert(thread, n).map_or(n == 0, |before| before + 1 == n), "{text}");
        }
        assert_eq!((order.len(), last.len()), (10 * EACH, 10));
    }
}

/// Says hello to everybody as soon as it listens.
struct Greets;

impl Handler for Greets {
    type State = ();

    fn message(&self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) -> Result<(), Disconnect> {
        conn.subscribe_from(message.as_text().unwrap(), Start::Now).unwrap();
        Ok(())
    }

    fn subscribed(
        &self,
        conn: &mut Conn<'_>,
        _: &mut (),
        topic: &str,
        _: &Subscribed,
    ) -> Result<(), Disconnect> {
        conn.publish(topic, "hello").unwrap();
        Ok(())
    }
}

#[test]
fn messages_sent_in_subscribed_leave_at_once() {
    for workers in [1, 2] {
        let server = start(builder().workers(workers).route("/", Greets));
        for topic in ["a", "b", "c"] {
            let mut client = server.open("/");
            client.text(topic);
            // Nothing else happens that could wake a worker.
            assert_eq!(client.read_text(), "hello");
        }
    }
}

/// Any number may come from a client.
#[test]
fn unknown_positions_are_not_recovered() {
    let server = serve(1, kept(10));
    let at = say(&server, "kept/a", "1").position;
    let mut client = server.open("/");
    for offset in [at.offset + 1, u64::MAX - 1, u64::MAX] {
        for epoch in [at.epoch, 0, u64::MAX] {
            assert_eq!(resume(&mut client, "kept/a", Position::new(epoch, offset)), (at, false, 0));
            client.text("unsub kept/a");
        }
    }
    client.expect_nothing_until_pong();
}

/// One client's tries must not end what another listens to.
#[test]
fn a_pattern_with_a_start_is_refused() {
    let server = serve(3, kept(10));
    let mut listeners: Vec<Client> = (0..6).map(|_| server.open("/")).collect();
    for listener in &mut listeners {
        listener.text("sub-pattern ticks/*");
        listener.expect_nothing_until_pong();
    }
    for _ in 0..12 {
        let mut other = server.open("/");
        for start in ["now ticks/*", "latest ticks/*", "from ticks/* 1 1"] {
            other.text(start);
            let refused = other.read_text();
            assert!(refused.starts_with("refused: ") && refused.contains("pattern"), "{refused}");
        }
        other.text("unsub-pattern ticks/*");
        other.expect_nothing_until_pong();
    }
    for topic in ["ticks/a", "ticks/b", "ticks/c", "ticks/d", "ticks/e"] {
        server.handle.publish(topic, topic).unwrap();
        for listener in &mut listeners {
            assert_eq!(listener.read_text(), topic);
        }
    }
}

#[test]
fn many_long_replays_are_spread_over_iterations() {
    const LONG: usize = 20_000;
    for workers in [1, 2] {
        let server = serve(workers, kept(LONG));
        let topics: Vec<String> = (0..8).map(|n| format!("kept/{n}")).collect();
        for topic in &topics {
            for _ in 0..LONG / 1000 {
                server.handle.publish_batch((0..1000).map(|_| Publish::new(topic, "x"))).unwrap();
            }
            assert_eq!(say(&server, topic, "x").position.offset, LONG as u64 + 1);
        }
        let mut client = server.open("/");
        let before = server.handle.stats().iterations;
        let asked: Vec<u8> =
            topics.iter().flat_map(|t| frame(true, TEXT, format!("last {t} {LONG}").as_bytes())).collect();
        client.send(asked);
        // Each topic's replay follows its answer; the answers of others may come between.
        let (mut begun, mut messages) = (0, 0);
        while messages < topics.len() * LONG {
            match client.read_text().as_str() {
                "x" => messages += 1,
                answer => {
                    assert!(answer.ends_with(&format!("false {LONG}")), "{answer}");
                    begun += 1;
                }
            }
            assert!(messages <= begun * LONG, "before it was answered");
        }
        let iterations = server.handle.stats().iterations - before;
        assert!(iterations >= 8, "{iterations} iterations: each delayed the others by that many histories");
    }
}

#[test]
fn an_epoch_does_not_return_after_a_restart() {
    let lives = |from: usize, to: usize| {
        let server = serve(1, kept(1));
        let publish = |n| server.handle.publish_confirmed(Publish::new(&format!("kept/{n}"), "x"));
        let answers: Vec<_> = (from..to).map(publish).collect();
        let epoch = |answer: Answer<Option<Published>>| answer.wait().unwrap().unwrap().position.epoch;
        answers.into_iter().map(epoch).collect::<BTreeSet<u64>>()
    };
    // Many lives in a short time, and a restart: epochs that were counted from the clock on would be ahead of it.
    let before = lives(0, 20_000);
    let after = lives(0, 100);
    assert_eq!((before.len(), after.len()), (20_000, 100), "each life has its own");
    assert!(before.is_disjoint(&after));
    assert!(before.iter().chain(&after).all(|epoch| (1..1 << 53).contains(epoch)));
}

/// 3.6 MB of history for a client that takes 64 KiB at a time, with a backlog of 128 KiB and messages that go on coming: it
/// gets all of them in order, and none of what it asked for counts as slow.
#[test]
fn a_replay_larger_than_the_backlog_is_paced_by_the_socket() {
    for workers in [1, 2] {
        for policy in [SlowConsumer::Close(1013.into()), SlowConsumer::LatestByKey, SlowConsumer::DropOldest]
        {
            let limits = limits(|l| l.max_backlog = 128 << 10);
            let server = start(
                builder()
                    .workers(workers)
                    .route("/", campanile::Route::new(Scripted).limits(limits))
                    .topics("kept/", kept(1000).history_bytes(8 << 20).slow_consumer(policy)),
            );
            let text = |n: usize| format!("{n:0>3600}");
            for n in 0..1000 {
                let text = text(n);
                let message = Message::text(&text).with_key("one");
                confirm(&server, Publish::new("kept/a", message));
            }
            let mut client = server.open_slow("/");
            client.text("last kept/a 1000");
            let (position, _, replayed) = begun(&mut client);
            assert_eq!((position.offset, replayed), (1000, 1000));
            for n in 0..1020 {
                if n % 50 == 0 && n < 1000 {
                    say(&server, "kept/a", &text(1000 + n / 50));
                }
                assert_eq!(client.read_text(), text(n), "{policy:?}, {workers} workers");
            }
            client.expect_nothing_until_pong();
            assert_eq!(server.handle.stats().dropped, 0);
        }
    }
}

/// 19 MB of history, more than the kernel takes at once, and a message that is acknowledged while it is on its way.
#[test]
fn shutdown_finishes_a_running_replay_before_the_close_frame() {
    for workers in [1, 2] {
        let settings = kept(300).history_bytes(32 << 20);
        let server = serve(workers, settings);
        let text = |n: usize| format!("{n:0>64000}");
        for n in 0..300 {
            say(&server, "kept/a", &text(n));
        }
        let mut client = server.open_slow("/");
        client.text("last kept/a 300");
        assert_eq!(begun(&mut client).2, 300);
        say(&server, "kept/a", &text(300));
        server.handle.shutdown(DEADLINE);
        for n in 0..=300 {
            assert_eq!(client.read_text(), text(n), "{workers} workers");
        }
        assert_eq!(client.read_close().0, 1001);
        client.close(1001, "");
        server.ended();
    }
}

/// A connection that receives a topic by a pattern too unsubscribes from its name while a replay is under way: what came
/// live meanwhile was for the pattern as well, and is sent.
#[test]
fn unsubscribing_during_a_replay_keeps_the_messages_of_a_pattern() {
    let server = serve(1, kept(1000).history_bytes(8 << 20));
    let text = "x".repeat(3600);
    for _ in 0..1000 {
        say(&server, "kept/a", &text);
    }
    let mut client = server.open_slow("/");
    client.text("sub-pattern kept/*");
    client.text("last kept/a 1000");
    assert_eq!(begun(&mut client).2, 1000);
    say(&server, "kept/a", "live");
    client.text("unsub kept/a");
    let replayed = (0..).take_while(|_| client.read_text() != "live").count();
    assert!(replayed < 1000, "the replay had ended before");
    client.expect_nothing_until_pong();
}
