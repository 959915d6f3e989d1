//! Clients that do not read: what they send and are sent costs the same however much waits for them.
//!
//! A cost that grows with the backlog adds up to minutes in these tests, and without it each takes less than a second.

use crate::conn::ConnId;
use crate::hub::{SettingsTable, TopicOrPattern};
use crate::protocol::Opcode;
use crate::simulation::Simulation;
use crate::{Limits, Message, Route, SlowConsumer, on_message};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(10);

fn repeat_in_time(times: usize, mut step: impl FnMut(usize)) {
    let begin = Instant::now();
    for n in 0..times {
        step(n);
        assert!(begin.elapsed() < LIMIT, "{n} of {times} steps took {LIMIT:.0?}");
    }
}

/// One worker with one connection that subscribes to `topic`, and whose socket takes nothing.
fn stalled(policy: SlowConsumer, max_backlog: usize) -> (Simulation, ConnId) {
    let limits = Limits { max_backlog, ..Limits::default() };
    let route = Route::new(on_message(|_, _| Ok(()))).slow_consumer(policy).limits(limits);
    let mut sim = Simulation::new(1, route, SettingsTable::default());
    let id = sim.open(0, Box::new(()));
    let topic = TopicOrPattern::topic("topic").expect("a valid name");
    sim.workers[0].ctx.hub.subscribe(id.slot() as u32, &topic, None, 1).expect("one subscription is allowed");
    (sim, id)
}

fn publish(sim: &mut Simulation, messages: usize, message: Message<'_>) {
    for _ in 0..messages {
        let published = sim.workers[0].ctx.hub.publish(crate::Publish::new("topic", message));
        published.expect("a valid name");
    }
    sim.end_iteration(0);
}

#[test]
fn pings_behind_many_written_frames_cost_no_walk() {
    const PINGS: usize = 100_000;
    let (mut sim, id) = stalled(SlowConsumer::DropOldest, 1 << 20);
    sim.take(id, 2 * PINGS - 11);
    sim.frames(id, Opcode::Ping, b"", PINGS);
    repeat_in_time(PINGS, |_| sim.frames(id, Opcode::Ping, b"", 1));
    sim.take(id, usize::MAX);
    assert_eq!(sim.received(id), vec![(Opcode::Pong as u8, Vec::new()); PINGS + 1], "and the latest one");
}

#[test]
fn dropping_behind_many_written_frames_costs_no_walk() {
    const MESSAGES: usize = 50_000;
    for policy in [SlowConsumer::DropOldest, SlowConsumer::LatestByKey] {
        let (mut sim, id) = stalled(policy, 64 << 10);
        sim.take(id, 3 * MESSAGES - 1000);
        publish(&mut sim, MESSAGES, Message::text("1"));
        let large = "2".repeat(1000);
        repeat_in_time(MESSAGES, |_| publish(&mut sim, 1, Message::text(&large)));
        sim.take(id, usize::MAX);
        let received = sim.received(id);
        let (small, large) = received.split_at(received.iter().filter(|(_, text)| text == b"1").count());
        assert!(small.len() > MESSAGES - 400 && large.len() > 50, "{} and {}", small.len(), large.len());
    }
}
