//! The promise as a whole, over real sockets and the protocol for browsers: who is cut anywhere, as often as it happens,
//! sees every message once and in order for as long as the topic keeps what it missed, and is told where it does not;
//! and all who listen see one order.

use crate::support::push::{Page, Value, json};
use crate::support::traveller::{Random, Stay, Traveller};
use crate::support::{DEADLINE, builder, millis, start, start_at, until};
use campanile::push::Push;
use campanile::{Builder, Handle, HandleError, Message, Publish, TopicSettings};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{park_timeout, scope};
use std::time::{Duration, Instant};

const TOPIC: &str = "kept/a";

/// Between two messages. How much comes while a client is away is what is tested, and is so many a second: the one thing
/// here that is a time.
const INTERVAL: Duration = Duration::from_millis(1);

fn server(workers: usize, window: u64) -> Builder {
    let kept = TopicSettings::new().history(window as usize).history_bytes(64 << 20);
    builder().workers(workers).topics("kept/", kept).route("/push", Push::new().subscribe([""]).rate(0, 0))
}

/// What a publisher has said so far, and whether it is to go on.
struct Publishing {
    said: AtomicU64,
    going: AtomicBool,
}

impl Publishing {
    fn new() -> Self {
        Self { said: AtomicU64::new(0), going: AtomicBool::new(true) }
    }

    fn said(&self) -> u64 {
        self.said.load(Ordering::Acquire)
    }

    /// A thousand a second, until it is told or the server has ended.
    fn run(&self, handle: &Handle, life: u64) {
        let began = Instant::now();
        for n in 1_u32.. {
            if !self.going.load(Ordering::Acquire) {
                return;
            }
            // Frames with short heads and with longer ones.
            let pad = "x".repeat(if n % 16 == 0 { 300 } else { 0 });
            let data = json!({"life": life, "n": n, "pad": pad}).to_string();
            match handle.publish_within(Publish::new(TOPIC, Message::json(&data)), DEADLINE) {
                Ok(()) => self.said.store(n.into(), Ordering::Release),
                Err(HandleError::Ended) => return,
                Err(e) => panic!("{n}: {e}"),
            }
            park_timeout((began + INTERVAL * n).saturating_duration_since(Instant::now()));
        }
    }

    fn stop(&self) {
        self.going.store(false, Ordering::Release);
    }
}

/// Ends publishers also where the test fails, which else would wait for them.
struct Stops<'a>(&'a [Publishing]);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(Publishing::stop);
    }
}

/// Cut `cuts` times: mostly in what the server says, and now and then in what the client says.
fn travel(traveller: &mut Traveller, random: &mut Random, cuts: u32) {
    for _ in 0..cuts {
        // The answer to the handshake, `hello` and `subscribed` are some 500 bytes, a message 80.
        let asked = (random.below(20) == 0).then(|| random.below(300));
        traveller.visit(&Stay::Bytes(1 + random.below(1500)), asked);
    }
}

fn a_thousand_cuts_and_a_restart(workers: usize) {
    const HALF: u32 = 500;
    const ALL: u64 = 1_000_000;
    let mut first = start(server(workers, ALL));
    let (addr, handle) = (first.addr, first.handle.clone());
    let publishing = [Publishing::new(), Publishing::new()];
    let [one, two] = &publishing;
    let (halfway, is_halfway) = crossbeam_channel::bounded(1);
    scope(|scope| {
        let stops = Stops(&publishing);
        scope.spawn(move || one.run(&handle, 1));
        let travelling = scope.spawn(move || {
            let mut random = Random::new();
            let mut traveller = Traveller::new(addr, TOPIC, ALL);
            travel(&mut traveller, &mut random, HALF);
            halfway.send(()).unwrap();
            // What these find is the first server, none, or the second.
            travel(&mut traveller, &mut random, HALF);
            (traveller, random)
        });
        // No answer means that it has failed, which it says itself.
        let _ = is_halfway.recv();
        first.shutdown(millis(50));
        let second = start_at(server(workers, ALL), &addr.to_string());
        let handle = second.handle.clone();
        let publisher = scope.spawn(move || two.run(&handle, 2));
        let (mut traveller, _random) = travelling.join().unwrap_or_else(|e| std::panic::resume_unwind(e));
        drop(stops);
        publisher.join().unwrap();
        // All that was said comes, also what was said last.
        traveller.visit(&Stay::Offset(two.said()), None);
        assert_eq!(traveller.offset(), two.said());
        let seen = &traveller.seen;
        assert!(seen.epochs >= 2 && seen.lost == seen.epochs, "{seen:?}");
        assert!(seen.recovered > HALF && seen.in_frame > HALF && seen.in_handshake > 0, "{seen:?}");
        assert!(seen.messages > 1000, "{seen:?}");
    });
}

#[test]
fn a_thousand_cuts_and_a_restart_lose_nothing_on_one_worker() {
    a_thousand_cuts_and_a_restart(1);
}

#[test]
fn a_thousand_cuts_and_a_restart_lose_nothing_on_two_workers() {
    a_thousand_cuts_and_a_restart(2);
}

/// What a topic has given up is never said to be there.
#[test]
fn a_client_away_for_longer_than_the_history_is_told() {
    const KEPT: u64 = 200;
    for workers in [1, 2] {
        let server = start(server(workers, KEPT));
        let publishing = [Publishing::new()];
        let [publisher] = &publishing;
        scope(|scope| {
            let stops = Stops(&publishing);
            let running = scope.spawn(|| publisher.run(&server.handle, 1));
            let mut random = Random::new();
            let mut traveller = Traveller::new(server.addr, TOPIC, KEPT);
            // A topic that nobody listens to begins with its first message.
            until("the topic is there", || publisher.said() > 0);
            server.settle();
            for round in 1..=10 {
                travel(&mut traveller, &mut random, 10);
                let beyond = traveller.offset() + KEPT + 1;
                until("it is gone", || publisher.said() >= beyond);
                server.settle();
                let lost = traveller.seen.lost;
                traveller.visit(&Stay::Offset(beyond), None);
                assert_eq!(traveller.seen.lost, lost + 1, "round {round}: {:?}", traveller.seen);
            }
            drop(stops);
            running.join().unwrap();
            traveller.visit(&Stay::Offset(publisher.said()), None);
            let seen = &traveller.seen;
            assert!(seen.recovered > 0 && seen.lost > 10 && seen.epochs == 1, "{seen:?}");
        });
    }
}

/// Pages publish, each on a thread of its own, and pages listen, on every worker.
#[test]
fn a_hundred_pages_see_one_order_per_topic() {
    const TOPICS: [&str; 3] = ["public/a", "public/b", "public/c"];
    const EACH: usize = 20;
    let push = Push::new().subscribe([""]).publish(["public/"]).rate(0, 0);
    let server = start(builder().workers(3).route("/push", push));
    let mut workers = BTreeSet::new();
    let mut listeners: Vec<Page> = (0..100)
        .map(|_| {
            let (mut page, hello) = Page::over(server.dial());
            workers.insert(hello["connection"].as_str().unwrap().split_once('.').unwrap().0.to_owned());
            TOPICS.iter().for_each(|topic| drop(page.subscribe(topic)));
            page
        })
        .collect();
    assert_eq!(workers.len(), 3, "{workers:?}");
    let mut publishers: Vec<Page> = (0..10).map(|_| Page::open(&server)).collect();
    scope(|scope| {
        for (thread, publisher) in publishers.iter_mut().enumerate() {
            scope.spawn(move || {
                for n in 0..EACH {
                    for topic in TOPICS {
                        publisher.say(&json!({"type": "publish", "topic": topic, "data": [thread, n]}));
                    }
                }
                publisher.0.expect_nothing_until_pong();
            });
        }
    });
    // Each topic's messages as they came; between topics nothing is promised.
    let orders = listeners.iter_mut().map(|page| {
        let mut orders = TOPICS.map(|_| Vec::new());
        for _ in 0..TOPICS.len() * 10 * EACH {
            let text = page.0.read_text();
            let of = |topic: &&str| text.starts_with(&format!(r#"{{"type":"message","topic":"{topic}","#));
            orders[TOPICS.iter().position(of).expect("a message of one of them")].push(text);
        }
        orders
    });
    let orders: Vec<_> = orders.collect();
    for order in &orders[1..] {
        assert!(*order == orders[0]);
    }
    for order in &orders[0] {
        let mut last = BTreeMap::new();
        for (offset, text) in (1..).zip(order) {
            let message: Value = serde_json::from_str(text).unwrap();
            let [thread, n] = [0, 1].map(|at| message["data"][at].as_u64().unwrap());
            assert_eq!(message["offset"], offset);
            assert!(last.insert(thread, n).map_or(n == 0, |before| before + 1 == n), "{text}");
        }
        assert_eq!((order.len(), last.len()), (10 * EACH, 10));
    }
}
