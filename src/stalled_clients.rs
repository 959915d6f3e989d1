//! Clients that do not read: what they send and are sent costs the same however much waits for them.
//!
//! A cost that grows with the backlog adds up to minutes in these tests. Without it each takes a second or two.

use crate::conn::ConnId;
use crate::hub::{RecoveryRequest, SettingsTable, Start};
use crate::protocol::Opcode;
use crate::simulation::Simulation;
use crate::{Limits, Message, Publish, Route, SlowConsumer, TopicSettings, on_message};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(15);

const REPLACING: [SlowConsumer; 2] = [SlowConsumer::DropOldest, SlowConsumer::LatestByKey];

fn repeat_in_time(times: usize, mut step: impl FnMut(usize)) {
    let begin = Instant::now();
    for n in 0..times {
        step(n);
        assert!(begin.elapsed() < LIMIT, "{n} of {times} steps took {LIMIT:.0?}");
    }
}

/// One worker with one connection, whose socket takes nothing.
struct Stalled {
    sim: Simulation,
    id: ConnId,
}

impl Stalled {
    /// Topics below `kept/` keep a history.
    fn new(policy: SlowConsumer, max_backlog: usize) -> Self {
        let limits = Limits { max_backlog, max_subscriptions: usize::MAX, ..Limits::default() };
        let route = Route::new(on_message(|_, _| Ok(()))).slow_consumer(policy).limits(limits);
        let kept = TopicSettings::new().history(100_000).history_bytes(64 << 20);
        let topics = SettingsTable::new(vec![("kept/".to_owned(), kept)], 1 << 30, &[]);
        let mut sim = Simulation::new(1, route, topics);
        let id = sim.open(0, Box::new(()));
        Self { sim, id }
    }

    /// Subscribes, with the last messages of the history.
    fn subscribe(&mut self, topic: &str, last: usize) {
        let (conn, start, limit) = (self.id, Start::Last(last), usize::MAX);
        let request = RecoveryRequest { conn, topic: topic.into(), start, tags: None, request_id: 0 };
        self.sim.workers[0].ctx.hub.request_recovery(request, limit).expect("a valid name");
        self.sim.end_iteration(0);
    }

    /// Publishes in one iteration.
    fn publish<'m>(&mut self, topic: &str, messages: impl IntoIterator<Item = Message<'m>>) {
        for message in messages {
            self.sim.workers[0].ctx.hub.publish(Publish::new(topic, message)).expect("a valid name");
        }
        self.sim.end_iteration(0);
    }

    /// Reads all, and returns the messages.
    fn read(&mut self) -> Vec<String> {
        self.sim.finish();
        let received = self.sim.received(self.id).into_iter();
        received.map(|(_, text)| String::from_utf8(text).expect("text")).collect()
    }
}

fn keyed(n: usize) -> Message<'static> {
    Message::text("new").with_key(&n.to_string())
}

#[test]
fn pings_behind_many_written_frames_cost_no_walk() {
    const PINGS: usize = 100_000;
    let Stalled { mut sim, id } = Stalled::new(SlowConsumer::DropOldest, 1 << 20);
    sim.take(id, 2 * PINGS - 11);
    sim.frames(id, Opcode::Ping, b"", PINGS);
    repeat_in_time(PINGS, |_| sim.frames(id, Opcode::Ping, b"", 1));
    sim.take(id, usize::MAX);
    assert_eq!(sim.received(id), vec![(Opcode::Pong as u8, Vec::new()); PINGS + 1], "and the latest one");
}

#[test]
fn dropping_behind_many_written_frames_costs_no_walk() {
    const MESSAGES: usize = 50_000;
    for policy in REPLACING {
        let mut client = Stalled::new(policy, 64 << 10);
        client.subscribe("topic", 0);
        client.sim.take(client.id, 3 * MESSAGES - 1000);
        client.publish("topic", vec![Message::text("1"); MESSAGES]);
        let large = "2".repeat(1000);
        repeat_in_time(MESSAGES, |_| client.publish("topic", [Message::text(&large)]));
        let received = client.read();
        let small = received.iter().filter(|text| *text == "1").count();
        assert!(small > MESSAGES - 400 && received.len() - small > 50, "{small} of {}", received.len());
    }
}

#[test]
fn dropping_by_key_costs_no_walk() {
    const KEYS: usize = 5_000;
    let mut client = Stalled::new(SlowConsumer::LatestByKey, 1 << 20);
    client.subscribe("topic", 0);
    let old = |n: usize| Message::text("old").with_key(&n.to_string());
    for n in 0..KEYS {
        client.publish("topic", [old(n)]);
    }
    // Each replaces the newest message but one, behind all others.
    repeat_in_time(40_000, |n| client.publish("topic", [keyed(KEYS - 1 - n % 2)]));
    let received = client.read();
    assert_eq!(received.len(), KEYS);
    assert_eq!(received.iter().filter(|text| *text == "new").count(), 2);
}

#[test]
fn dropping_behind_many_replies_costs_no_walk() {
    const REPLAYED: usize = 20_000; // as many as are sent at once
    for policy in REPLACING {
        let mut client = Stalled::new(policy, 2 << 20);
        client.publish("kept/a", vec![Message::text("1"); REPLAYED]);
        client.subscribe("kept/a", REPLAYED);
        client.subscribe("topic", 0);
        let large = "2".repeat(2000);
        repeat_in_time(40_000, |_| client.publish("topic", [Message::text(&large)]));
        let received = client.read();
        assert!(received.len() > REPLAYED && received[..REPLAYED].iter().all(|text| text == "1"));
    }
}

#[test]
fn dropping_the_oldest_behind_a_long_replay_costs_no_walk() {
    const REPLAYED: usize = 50_000;
    const LIVE: usize = 10_000;
    for policy in REPLACING {
        let mut client = Stalled::new(policy, 100 * LIVE);
        client.publish("kept/a", vec![Message::text("old"); REPLAYED]);
        client.subscribe("kept/a", REPLAYED);
        repeat_in_time(500, |_| client.publish("kept/a", vec![Message::text("new"); 1000]));
        let received = client.read();
        let old = received.iter().filter(|text| *text == "old").count();
        assert!(old == REPLAYED && received.len() - old > LIVE / 2, "{old} of {}", received.len());
    }
}

#[test]
fn dropping_by_key_behind_a_replay_costs_no_walk() {
    const KEYS: usize = 20_000;
    let mut client = Stalled::new(SlowConsumer::LatestByKey, 64 << 20);
    client.publish("kept/a", vec![Message::text("old"); 30_000]);
    client.subscribe("kept/a", 30_000);
    repeat_in_time(3 * KEYS / 100, |n| {
        let keys: Vec<usize> = (100 * n..100 * (n + 1)).map(|n| n % KEYS).collect();
        client.publish("kept/a", keys.into_iter().rev().map(keyed));
    });
    assert_eq!(client.read().len(), 30_000 + KEYS);
}

#[test]
fn many_replays_of_a_connection_cost_no_walk() {
    const TOPICS: usize = 10_000;
    let mut client = Stalled::new(SlowConsumer::DropOldest, 1 << 20);
    let text = "x".repeat(70_000); // more than is sent before the socket has taken it
    client.publish("kept/0", [Message::text(&text)]);
    client.subscribe("kept/0", 1);
    for n in 1..TOPICS {
        let topic = format!("kept/{n}");
        client.publish(&topic, [Message::text("old")]);
        client.subscribe(&topic, 1);
    }
    let last = format!("kept/{}", TOPICS - 1);
    repeat_in_time(20_000, |_| client.publish(&last, [Message::text("new")]));
    let received = client.read();
    assert_eq!(received.iter().filter(|text| *text == "old").count(), TOPICS - 1);
}
