//! The client's machine against a model of a server, over interleavings of requests, refusals, answers, losses, restarts and a
//! socket that takes nothing. What is promised: the publications to a topic keep their order, each is answered once and
//! truly, and a subscription has no gap and nothing twice unless it was told that something is lost.

use super::error::PublishError;
use super::event::{Message, PushEvent};
use super::machine::{MachineContext, PushMachine};
use super::publication::{Publication, Subscription};
use super::{Published, PushClientLimits};
use crate::push_protocol::parse_incoming;
use core::time::Duration;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::mpsc;
use std::time::Instant;

/// Messages that a topic keeps.
const KEPT: usize = 6;

const TOPICS: [&str; 2] = ["a", "b"];

#[derive(Clone, Debug)]
enum Step {
    Publish {
        topic: usize,
        times: u8,
    },
    /// The application publishes by itself.
    Foreign {
        topic: usize,
    },
    /// The server takes so many requests, and refuses those whose turn says so.
    Take {
        requests: u8,
        refused: u32,
        retry: u64,
    },
    /// So many of the server's messages arrive.
    Arrive {
        messages: u8,
    },
    Pass {
        ms: u64,
    },
    Cut,
    Restart,
    /// The socket takes nothing, or does so again.
    Full(bool),
    Unsubscribe {
        topic: usize,
    },
    Subscribe {
        topic: usize,
        last: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let topic = 0..TOPICS.len();
    prop_oneof![
        6 => (topic.clone(), 0u8..8).prop_map(|(topic, times)| Step::Publish { topic, times }),
        2 => topic.clone().prop_map(|topic| Step::Foreign { topic }),
        6 => (0u8..16, prop_oneof![Just(0u32), any::<u32>()], prop_oneof![Just(0u64), 1u64..400])
            .prop_map(|(requests, refused, retry)| Step::Take { requests, refused, retry }),
        6 => (0u8..16).prop_map(|messages| Step::Arrive { messages }),
        3 => (0u64..300).prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Cut),
        1 => Just(Step::Restart),
        1 => any::<bool>().prop_map(Step::Full),
        1 => topic.clone().prop_map(|topic| Step::Unsubscribe { topic }),
        1 => (topic, any::<bool>()).prop_map(|(topic, last)| Step::Subscribe { topic, last }),
    ]
}

// ---- the server ----

#[derive(Default)]
struct Topic {
    epoch: String,
    /// All that was published in this life: what the client made has its number.
    log: Vec<Option<u32>>,
    known: HashMap<String, u64>,
}

/// A message on its way to the client, and what the client will not know if it is lost.
struct SentMessage {
    text: String,
    defer: Option<u32>,
    published: Option<u32>,
}

#[derive(Default)]
struct Server {
    lives: u32,
    topics: HashMap<String, Topic>,
    /// Of the connection.
    requests: VecDeque<String>,
    sent: VecDeque<SentMessage>,
    subscribed: BTreeSet<String>,
    /// Messages that were deferred, or published, without the client's knowledge.
    deferred: BTreeSet<u32>,
    doubtful: BTreeSet<u32>,
    /// What each publication's place was.
    places: HashMap<u32, BTreeSet<(String, u64)>>,
}

impl Server {
    fn topic(&mut self, name: &str) -> &mut Topic {
        let lives = &mut self.lives;
        self.topics.entry(name.to_owned()).or_insert_with(|| {
            *lives += 1;
            Topic { epoch: format!("e{lives}"), ..Topic::default() }
        })
    }

    fn send(&mut self, message: &Value) {
        self.sent.push_back(SentMessage { text: message.to_string(), defer: None, published: None });
    }

    fn open(&mut self) {
        self.send(&json!({"type": "hello", "heartbeat": 0, "max_message_size": 65_536}));
    }

    fn cut(&mut self) {
        self.requests.clear();
        self.subscribed.clear();
        for message in self.sent.drain(..) {
            self.deferred.extend(message.defer);
            self.doubtful.extend(message.published);
        }
    }

    fn publish(&mut self, name: &str, number: Option<u32>) -> u64 {
        let topic = self.topic(name);
        topic.log.push(number);
        let (epoch, offset) = (topic.epoch.clone(), topic.log.len() as u64);
        if let Some(number) = number {
            self.places.entry(number).or_default().insert((epoch, offset));
        }
        if self.subscribed.contains(name) {
            self.send(&json!({"type": "message", "topic": name, "offset": offset, "data": number}));
        }
        offset
    }

    fn take(&mut self, is_refused: bool, retry: u64) {
        let Some(request) = self.requests.pop_front() else { return };
        let request: Value = serde_json::from_str(&request).unwrap();
        let (id, kind) = (&request["id"], request["type"].as_str().unwrap());
        let Some(name) = request["topic"].as_str() else { return }; // a ping
        let number = request["data"].as_u64().map(|n| n as u32);
        if is_refused {
            self.send(&json!({"type": "error", "id": id, "code": "rate_limited", "message": "wait", "retry": retry}));
            self.sent.back_mut().unwrap().defer = number;
            return;
        }
        match kind {
            "subscribe" => self.subscribe(id, name, &request),
            "unsubscribe" if self.subscribed.remove(name) => {
                self.send(&json!({"type": "unsubscribed", "id": id, "topic": name}));
            }
            "unsubscribe" => {
                self.send(&json!({"type": "error", "id": id, "code": "not_subscribed", "message": "no"}));
            }
            "publish" => {
                let idempotency_key = request["idempotency_key"].as_str().unwrap().to_owned();
                let known = self.topic(name).known.get(&idempotency_key).copied();
                let offset = known.unwrap_or_else(|| self.publish(name, number));
                let topic = self.topic(name);
                topic.known.insert(idempotency_key, offset);
                let epoch = topic.epoch.clone();
                let repeated = known.is_some();
                self.send(&json!({"type": "published", "id": id, "epoch": epoch, "offset": offset, "receivers": 1, "repeated": repeated}));
                self.sent.back_mut().unwrap().published = number;
            }
            other => panic!("{other}"),
        }
    }

    fn subscribe(&mut self, id: &Value, name: &str, request: &Value) {
        assert!(self.subscribed.insert(name.to_owned()), "{name} twice");
        let topic = self.topic(name);
        let (epoch, offset) = (topic.epoch.clone(), topic.log.len());
        let oldest = offset.saturating_sub(KEPT);
        let since = request["since"]["offset"].as_u64().map(|n| n as usize);
        let recovered =
            request["since"]["epoch"] == *epoch && since.is_some_and(|n| (oldest..=offset).contains(&n));
        let from = match (since.filter(|_| recovered), request["last"].as_u64()) {
            (Some(since), _) => since,
            (None, Some(last)) => oldest.max(offset.saturating_sub(last as usize)),
            (None, None) => offset,
        };
        let replay: Vec<_> = topic.log.iter().copied().enumerate().skip(from).collect();
        let replayed = replay.len();
        self.send(&json!({"type": "subscribed", "id": id, "topic": name, "epoch": epoch, "offset": offset, "recovered": recovered, "replayed": replayed}));
        for (at, number) in replay {
            self.send(&json!({"type": "message", "topic": name, "offset": at + 1, "data": number}));
        }
    }
}

// ---- the client, and what its program sees ----

type Fate = Result<Published, PublishError>;

struct World {
    server: Server,
    machine: PushMachine,
    now: Instant,
    takes: bool,
    made: u32,
    fates: BTreeMap<u32, mpsc::Receiver<Fate>>,
    settled: BTreeMap<u32, Fate>,
    /// The next offset of each subscription's topic; `None`: it has not begun.
    next: HashMap<&'static str, Option<(String, u64)>>,
    /// Those that begin with the last messages, of which none has come: after a cut they may begin earlier.
    untouched: BTreeSet<String>,
}

impl World {
    fn new() -> Self {
        let limits = PushClientLimits { max_pending: 10_000, ..PushClientLimits::default() };
        let now = Instant::now();
        let mut world = Self {
            server: Server::default(),
            machine: PushMachine::new(limits, "n".into(), now),
            now,
            takes: true,
            made: 0,
            fates: BTreeMap::new(),
            settled: BTreeMap::new(),
            next: HashMap::new(),
            untouched: BTreeSet::new(),
        };
        world.open();
        world
    }

    fn with<T>(&mut self, f: impl FnOnce(&mut PushMachine, &mut MachineContext<'_>) -> T) -> T {
        let Self { server, machine, now, takes, .. } = self;
        let mut send = |text: &str| {
            if *takes {
                server.requests.push_back(text.to_owned());
            }
            *takes
        };
        f(machine, &mut MachineContext { now: *now, send: &mut send })
    }

    fn open(&mut self) {
        self.machine.opened(self.now);
        self.server.open();
        self.arrive();
    }

    fn cut(&mut self) {
        self.server.cut();
        self.machine.lost();
    }

    fn arrive(&mut self) {
        let Some(SentMessage { text, .. }) = self.server.sent.pop_front() else { return };
        let incoming = parse_incoming(&text).map_err(|e| e.to_string());
        self.with(|machine, cx| machine.received(incoming, cx));
    }

    fn publish(&mut self, topic: &str) {
        self.made += 1;
        let number = self.made;
        let (tx, rx) = mpsc::channel();
        let done = Box::new(move |fate| tx.send(fate).expect("an answer comes once"));
        let content = number.to_string();
        let publication = Publication::json(topic, &content).timeout(Duration::from_secs(10_000));
        self.with(|machine, cx| machine.publish(&publication, done, cx)).unwrap();
        self.fates.insert(number, rx);
    }

    fn subscribe(&mut self, topic: &'static str, last: bool) {
        let subscription = Subscription::new(topic);
        let subscription = if last { subscription.last(3) } else { subscription };
        if self.with(|machine, cx| machine.subscribe(subscription, cx)).is_ok() {
            self.next.insert(topic, None);
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Publish { topic, times } => (0..times).for_each(|_| self.publish(TOPICS[topic])),
            Step::Foreign { topic } => drop(self.server.publish(TOPICS[topic], None)),
            Step::Take { requests, refused, retry } => {
                (0..requests).for_each(|n| self.server.take(refused >> n & 1 == 1, retry));
            }
            Step::Arrive { messages } => (0..messages).for_each(|_| self.arrive()),
            Step::Pass { ms } => {
                self.now += Duration::from_millis(ms);
                self.with(|machine, cx| machine.expire(true, cx));
            }
            Step::Cut => {
                self.cut();
                self.open();
            }
            Step::Restart => {
                self.cut();
                self.server.topics.clear();
                self.open();
            }
            Step::Full(full) => self.takes = !full,
            Step::Unsubscribe { topic } => {
                self.next.remove(TOPICS[topic]);
                self.untouched.remove(TOPICS[topic]);
                self.with(|machine, cx| machine.unsubscribe(TOPICS[topic], cx));
            }
            Step::Subscribe { topic, last } => self.subscribe(TOPICS[topic], last),
        }
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        for event in std::mem::take(&mut self.machine.events) {
            self.event(event)?;
        }
        for (done, fate) in std::mem::take(&mut self.machine.outgoing.settled) {
            done(fate);
        }
        for (&number, fate) in &self.fates {
            if let Ok(fate) = fate.try_recv() {
                prop_assert!(self.settled.insert(number, fate).is_none(), "{number} was answered twice");
            }
        }
        // Each topic's publications are in order.
        for (name, topic) in &self.server.topics {
            let mut most = 0;
            for number in topic.log.iter().flatten() {
                let in_order = *number > most || self.server.deferred.contains(number);
                prop_assert!(in_order, "{number} after {most} in {name}: {:?}", topic.log);
                most = most.max(*number);
            }
        }
        Ok(())
    }

    fn event(&mut self, event: PushEvent) -> Result<(), TestCaseError> {
        match event {
            PushEvent::Subscribed(how) => {
                let topic = TOPICS.into_iter().find(|t| *t == how.topic).unwrap();
                let Some(next) = self.next.get_mut(topic) else { return Ok(()) };
                let position = how.position.expect("no pattern");
                if how.lost || next.is_none() || self.untouched.contains(topic) {
                    self.untouched.remove(topic);
                    if how.replayed > 0 {
                        self.untouched.insert(how.topic);
                    }
                    *next = Some((position.epoch.to_string(), position.offset - how.replayed + 1));
                }
            }
            PushEvent::Message(Message { topic, offset, epoch, .. }) => {
                let expected = self.next.get_mut(&*topic).and_then(Option::as_mut);
                let Some(expected) = expected else { return Err(TestCaseError::fail("not subscribed")) };
                self.untouched.remove(&*topic);
                prop_assert_eq!((epoch.unwrap().to_string(), offset), expected.clone());
                expected.1 += 1;
            }
            PushEvent::Open(_) => {}
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        }
        Ok(())
    }

    /// All is well from now on: nothing waits any more.
    fn end(&mut self) -> Result<(), TestCaseError> {
        self.takes = true;
        for _ in 0..2_000 {
            self.now += Duration::from_secs(60);
            self.with(|machine, cx| machine.expire(true, cx));
            while !self.server.requests.is_empty() || !self.server.sent.is_empty() {
                self.server.take(false, 0);
                self.arrive();
            }
            self.check()?;
            if self.settled.len() == self.fates.len() && self.machine.deadline(false).is_none() {
                break;
            }
        }
        prop_assert_eq!(self.settled.len(), self.fates.len());
        prop_assert_eq!((self.machine.outgoing.len(), self.machine.outgoing.bytes()), (0, 0));
        for (number, fate) in &self.settled {
            let places = self.server.places.get(number);
            match fate {
                Ok(published) => {
                    let place = published.position.as_ref().unwrap();
                    let place = (place.epoch.to_string(), place.offset);
                    prop_assert!(places.is_some_and(|all| all.contains(&place)), "{number}: {place:?}");
                }
                Err(PublishError::Overtaken(_)) => {
                    let is_true = places.is_none() || self.server.doubtful.contains(number);
                    prop_assert!(is_true, "{number} was published");
                }
                Err(other) => return Err(TestCaseError::fail(format!("{number}: {other}"))),
            }
        }
        for (name, next) in &self.next {
            let topic = self.server.topic(name);
            let expected = Some((topic.epoch.clone(), topic.log.len() as u64 + 1));
            prop_assert_eq!(next, &expected, "all of {} has come", name);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 400 } else { 20_000 }))]

    #[test]
    fn order_is_kept_and_gaps_are_reported_under_refusals_losses_and_restarts(steps in vec(step(), 1..150)) {
        let mut world = World::new();
        world.subscribe("a", false);
        for step in &steps {
            world.step(step);
            world.check()?;
        }
        world.end()?;
    }
}
