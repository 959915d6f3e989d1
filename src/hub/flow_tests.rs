//! Hubs of several workers with bounded mailboxes between them: whatever is published, with however little room, each
//! subscriber receives a topic's messages in order and is told how many are missing.

use super::flow_control::FlowControl;
use super::*;
use crate::protocol::Message;
use crate::sync::mailbox::Weigh;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::hash::RandomState;

const TOPICS: [&str; 4] = ["flood", "b", "c/d", "e"];
const SUBSCRIBER: u32 = 7;

/// What a worker's subscriber has seen of a topic.
#[derive(Debug, Default)]
struct Seen {
    /// The offset of the last message that was received or reported as missed.
    offset: u64,
    messages: u64,
    missed: u64,
}

struct Net {
    hubs: Vec<Hub>,
    /// By receiver: the mailbox, and the flow control by sender.
    mailboxes: Vec<VecDeque<(usize, Outgoing)>>,
    flows: Vec<Vec<FlowControl>>,
    seen: Vec<BTreeMap<Arc<str>, Seen>>,
    /// Accepted messages by topic.
    published: BTreeMap<String, u64>,
}

impl Weigh for Outgoing {
    fn weight(&self) -> usize {
        match self {
            Self::Publications(all) => all.iter().map(|p| p.frames.len()).sum(),
            Self::Update(update) => update.weight(),
        }
    }
}

impl Net {
    fn new(workers: usize, max_waiting: usize) -> Self {
        let owners = Owners::new(RandomState::new(), workers);
        let congestion: Arc<Congestion> = Arc::default();
        let hubs = (0..workers).map(|worker| {
            let mut hub = Hub::new(worker, owners.clone(), SettingsTable::default(), Epochs::new([1, 2]));
            hub.set_flow_limits(max_waiting, congestion.clone());
            hub
        });
        Self {
            hubs: hubs.collect(),
            mailboxes: (0..workers).map(|_| VecDeque::new()).collect(),
            flows: (0..workers).map(|_| (0..workers).map(|_| FlowControl::default()).collect()).collect(),
            seen: (0..workers).map(|_| BTreeMap::new()).collect(),
            published: BTreeMap::new(),
        }
    }

    fn subscribe(&mut self, worker: usize, topic: &str) {
        let name = TopicOrPattern::topic(topic).unwrap();
        self.hubs[worker].subscribe(SUBSCRIBER, &name, None, 99).unwrap();
        self.seen[worker].insert(topic.into(), Seen::default());
        let changes: Vec<_> = self.hubs[worker].take_subscriber_changes().collect();
        for (to, changes) in changes {
            self.hubs[to].apply_subscriber_changes(worker, changes);
        }
    }

    fn publish(&mut self, worker: usize, topic: &str, len: usize) {
        let refused = self.hubs[worker].refused_publications;
        self.hubs[worker].publish(Publish::new(topic, Message::binary(&vec![b'x'; len]))).unwrap();
        let taken = self.hubs[worker].refused_publications == refused;
        *self.published.entry(topic.to_owned()).or_default() += u64::from(taken);
    }

    /// Runs an iteration of a worker that takes this number of commands.
    fn iterate(&mut self, worker: usize, commands: usize) {
        for _ in 0..commands {
            let Some((from, outgoing)) = self.mailboxes[worker].pop_front() else { break };
            self.flows[worker][from].record_received(outgoing.weight());
            let hub = &mut self.hubs[worker];
            match outgoing {
                Outgoing::Publications(all) => all.into_iter().for_each(|p| drop(hub.publish_owned(p))),
                Outgoing::Update(TopicUpdate::Batch(forwarded)) => hub.receive_batch(&forwarded),
                Outgoing::Update(TopicUpdate::Missed(missed)) => {
                    self.end(worker);
                    let seen = self.seen[worker].get_mut(&missed.topic).unwrap();
                    assert_eq!(
                        missed.position.offset,
                        seen.offset + u64::from(missed.messages),
                        "{missed:?}"
                    );
                    seen.offset = missed.position.offset;
                    seen.missed += u64::from(missed.messages);
                }
                Outgoing::Update(TopicUpdate::RecoveryReply(_)) => unreachable!("nobody recovers"),
            }
        }
        for flow in &self.flows[worker] {
            flow.take_wake();
        }
        self.end(worker);
    }

    fn end(&mut self, worker: usize) {
        let Self { hubs, mailboxes, flows, seen, .. } = self;
        let hub = &mut hubs[worker];
        hub.send_to_workers(|to, outgoing| {
            let flow = &flows[to][worker];
            if !flow.has_room() && !flow.wait_for_room() {
                return Err(outgoing);
            }
            flow.record_sent(outgoing.weight());
            mailboxes[to].push_back((worker, outgoing));
            Ok(())
        });
        for batch in hub.batch_log.batches() {
            if let Some(seen) = seen[worker].get_mut(hub.index.name(batch.topic)) {
                assert_eq!(batch.position.offset, seen.offset + 1, "in order, and nothing missing untold");
                seen.offset += u64::from(batch.messages());
                seen.messages += u64::from(batch.messages());
            }
        }
        hub.end_iteration();
        for forward_queue in &hub.forward_queues {
            assert!(forward_queue.bytes <= hub.max_waiting.max(1 << 21), "{} wait", forward_queue.bytes);
        }
        for delivery_queue in &hub.delivery_queues {
            assert!(
                delivery_queue.bytes() <= 2 * hub.max_waiting + (4 << 20),
                "{} wait",
                delivery_queue.bytes()
            );
        }
    }

    /// Runs iterations until nothing waits.
    fn settle(&mut self) {
        let waits = |net: &Self| {
            net.mailboxes.iter().any(|m| !m.is_empty())
                || net.hubs.iter().any(|hub| !hub.has_published_all() || !hub.has_delivered_all())
        };
        for _ in 0..100_000 {
            (0..self.hubs.len()).for_each(|worker| self.iterate(worker, usize::MAX));
            if !waits(self) {
                return;
            }
        }
        panic!("something still waits");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn every_message_is_delivered_or_reported_as_missed(
        workers in 2_usize..5,
        max_waiting in prop::sample::select(vec![1000_usize, 50_000, 1 << 20, 64 << 20]),
        subscribed in any::<u16>(),
        steps in prop::collection::vec(
            (0_usize..5, 0_usize..6, 0_usize..4, prop::sample::select(vec![0_usize, 100, 4000, 9000, 40_000]), 1_u32..80),
            1..60,
        ),
    ) {
        let mut net = Net::new(workers, max_waiting);
        for n in (0..4 * workers).filter(|n| subscribed & (1 << n) != 0) {
            net.subscribe(n / 4, TOPICS[n % 4]);
        }
        for (worker, what, topic, len, times) in steps {
            let worker = worker % workers;
            match what {
                0..=3 => for _ in 0..times {
                    net.publish(worker, TOPICS[topic], len);
                },
                4 => net.iterate(worker, times as usize),
                _ => net.iterate(worker, 0),
            }
        }
        net.settle();
        for (worker, seen) in net.seen.iter().enumerate() {
            for (topic, seen) in seen {
                let published = net.published.get(&**topic).copied().unwrap_or_default();
                prop_assert_eq!(seen.messages + seen.missed, published, "{} on worker {}", topic, worker);
            }
        }
        let congestion = &net.hubs[0].congestion;
        prop_assert!(TOPICS.iter().all(|topic| !congestion.is_congested(topic)), "marks are taken back");
    }
}

/// The owner floods a topic; another of its topics has one message in each iteration.
#[test]
fn a_flooded_topic_delays_others_by_few_iterations() {
    let mut net = Net::new(2, 64 << 20);
    let owned: Vec<String> = (0..).map(|n| format!("t{n}")).filter(|t| net.hubs[0].owns(t)).take(2).collect();
    let (flooded, quiet) = (&*owned[0], &*owned[1]);
    owned.iter().for_each(|topic| net.subscribe(1, topic));
    let mut waited = 0;
    for n in 1..200 {
        for _ in 0..20 {
            net.publish(0, flooded, 40_000);
        }
        net.publish(0, quiet, 100);
        net.iterate(0, usize::MAX);
        net.iterate(1, 4); // it takes 160 KB of the 800 KB
        waited = waited.max(n - net.seen[1][quiet].messages);
    }
    assert!(net.hubs[0].is_congested(flooded), "its publishers are held");
    assert!(waited <= 6, "the other topic is {waited} iterations behind");
    net.settle();
    assert_eq!(net.seen[1][quiet].messages, 199);
    assert_eq!(net.seen[1][quiet].missed, 0);
}
