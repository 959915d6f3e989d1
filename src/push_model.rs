//! Models of the endpoint for browsers on simulated workers: whatever interleaves, every request has one answer, and what
//! a client is told about its topics holds.

use crate::conn::ConnId;
use crate::hub::{SettingsTable, topic};
use crate::protocol::Message;
use crate::push::{Push, client_state};
use crate::simulation::Simulation;
use crate::{Limits, Publish, Route, SlowConsumer, TopicSettings};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What a client was told about a topic.
#[derive(Debug)]
struct View {
    epoch: Value,
    /// The offset of the next message.
    next: u64,
    /// It is subscribed.
    live: bool,
}

/// A request without an answer.
#[derive(Debug)]
struct PendingRequest {
    what: &'static str,
    topic: String,
    since: Option<u64>,
}

/// A client with what it has asked and what it was told.
struct Client {
    id: ConnId,
    requests: BTreeMap<u64, PendingRequest>,
    views: BTreeMap<String, View>,
    /// Topics that a handle unsubscribes it from, which it is not told.
    tainted: BTreeSet<String>,
}

impl Client {
    fn new(sim: &mut Simulation, worker: usize) -> Self {
        let id = sim.open(worker, client_state(false));
        Self { id, requests: BTreeMap::new(), views: BTreeMap::new(), tainted: BTreeSet::new() }
    }

    /// Breaks the connection and opens another, with what it has seen.
    fn reconnect(&mut self, sim: &mut Simulation, worker: usize) {
        sim.cut(self.id);
        let mut views = core::mem::take(&mut self.views);
        views.values_mut().for_each(|view| view.live = false);
        *self = Self { views, ..Self::new(sim, worker) };
    }

    fn request(&mut self, sim: &mut Simulation, id: u64, mut request: Value) {
        request["id"] = json!(id);
        let name =
            ["topic", "pattern"].iter().find_map(|m| request[*m].as_str()).unwrap_or_default().to_owned();
        let what = match request["type"].as_str() {
            Some("subscribe") => "subscribe",
            Some("unsubscribe") => "unsubscribe",
            Some("publish") => "publish",
            _ => "ping",
        };
        let pending = PendingRequest { what, topic: name, since: request["since"]["offset"].as_u64() };
        self.requests.insert(id, pending);
        sim.text(self.id, &request.to_string());
    }

    fn read(&mut self, sim: &mut Simulation) {
        for (_, payload) in sim.received(self.id) {
            self.receive(&serde_json::from_slice(&payload).expect("JSON"));
        }
    }

    fn receive(&mut self, message: &Value) {
        let number = |name: &str| message[name].as_u64().unwrap_or_else(|| panic!("{name} of {message}"));
        match message["type"].as_str().expect("a type") {
            "hello" => {}
            "message" => {
                let (topic, offset) = (message["topic"].as_str().expect("a topic"), number("offset"));
                assert_eq!(message["data"], offset, "it is another message: {message}");
                if let Some(view) =
                    self.views.get_mut(topic).filter(|v| v.live && !self.tainted.contains(topic))
                {
                    assert_eq!(offset, view.next, "{topic} to {}", self.id);
                    view.next += 1;
                }
            }
            answer => {
                let id = number("id");
                let request =
                    self.requests.remove(&id).unwrap_or_else(|| panic!("{message} answers nothing"));
                match (request.what, answer) {
                    ("subscribe", "subscribed") if topic::is_pattern(&request.topic) => {}
                    ("subscribe", "subscribed") => {
                        let (offset, replayed) = (number("offset"), number("replayed"));
                        let (epoch, next) = (message["epoch"].clone(), offset + 1 - replayed);
                        if message["recovered"] == true {
                            assert_eq!(request.since, Some(next - 1), "{message}");
                        }
                        self.views.insert(request.topic, View { epoch, next, live: true });
                    }
                    ("unsubscribe", "unsubscribed") => {
                        if let Some(view) = self.views.get_mut(&request.topic) {
                            view.live = false;
                        }
                    }
                    ("publish", "published") | ("ping", "pong") => {}
                    ("subscribe" | "unsubscribe", "error") => {
                        let code = message["code"].as_str().expect("a code");
                        assert!(["already", "cancelled", "subscriptions", "not_subscribed"].contains(&code));
                    }
                    _ => panic!("{message} answers {request:?}"),
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Pages subscribe, come back, unsubscribe and publish, while a program subscribes and unsubscribes their connections,
    /// connections break, and workers and sockets go on whenever they like.
    #[test]
    fn every_request_gets_one_correct_answer(
        steps in prop::collection::vec((0u8..16, 0usize..3, 0usize..4, 0usize..9), 1..150),
        workers in 1usize..3,
    ) {
        let kept = TopicSettings::new().history(6);
        let topics = SettingsTable::new(vec![("kept/".to_owned(), kept)], 1 << 20, &[]);
        let push = Push::new().subscribe([""]).publish(["kept/"]).rate(0, 0).max_subscriptions(2);
        let mut sim = Simulation::new(workers, push, topics);
        let mut names: Vec<String> = (0..3).map(|n| sim.topic_of(&format!("kept/{n}-"), n)).collect();
        names.push("kept/*".to_owned());
        let mut clients: Vec<Client> = (0..3).map(|n| Client::new(&mut sim, n % workers)).collect();
        let mut published = [0; 3];
        for (step, (what, client, topic, n)) in steps.into_iter().enumerate() {
            let (id, name, of) = (step as u64, &*names[topic], &mut clients[client]);
            let is_topic = topic < published.len();
            let member = if is_topic { "topic" } else { "pattern" };
            match what {
                0 => of.request(&mut sim, id, json!({"type": "subscribe", member: name})),
                1 | 2 => if let Some(View { epoch, next, .. }) = of.views.get(name) {
                    let since = json!({"epoch": epoch, "offset": next - 1});
                    of.request(&mut sim, id, json!({"type": "subscribe", "topic": name, "since": since}));
                },
                3 if is_topic => {
                    of.request(&mut sim, id, json!({"type": "subscribe", "topic": name, "last": n + 1}));
                }
                4 => of.request(&mut sim, id, json!({"type": "unsubscribe", member: name})),
                5 if is_topic => {
                    published[topic] += 1;
                    let data = published[topic];
                    of.request(&mut sim, id, json!({"type": "publish", "topic": name, "data": data}));
                }
                6 | 7 if is_topic => {
                    published[topic] += 1;
                    sim.publish_by_handle(name, Message::json(&published[topic].to_string()));
                }
                8 if is_topic => sim.handle.subscribe(of.id, name).expect("mailboxes take everything"),
                8 => sim.handle.subscribe_pattern(of.id, name).expect("mailboxes take everything"),
                9 if is_topic => {
                    of.tainted.insert(name.to_owned());
                    sim.handle.unsubscribe(of.id, name).expect("mailboxes take everything");
                }
                9 => sim.handle.unsubscribe_pattern(of.id, name).expect("mailboxes take everything"),
                10 => of.reconnect(&mut sim, n % workers),
                11 => of.request(&mut sim, id, json!({"type": "ping"})),
                12 => sim.take(of.id, 40 * n),
                13 => (0..n).for_each(|_| { sim.command(client % workers); }),
                14 => sim.end_iteration(client % workers),
                _ => sim.take(of.id, 2000),
            }
            clients.iter_mut().for_each(|client| client.read(&mut sim));
        }
        sim.finish();
        for client in &mut clients {
            client.read(&mut sim);
            prop_assert!(client.requests.is_empty(), "no answer: {:?}", client.requests);
            for (name, view) in client.views.iter().filter(|(name, v)| v.live && !client.tainted.contains(*name)) {
                let all = names.iter().position(|n| n == name).map_or(0, |topic| published[topic]);
                prop_assert_eq!(view.next, all + 1, "{} to {}", name, client.id);
            }
        }
    }
}

/// A message as the model remembers it.
struct Published {
    tag: usize,
    /// The client that does not get it.
    except: Option<usize>,
}

/// A client that counts what it receives and what it is told to have missed.
struct Counting {
    id: ConnId,
    received: u64,
    lagged: u64,
    /// By topic: the tag it asked for, the position it was told, the messages from the history, and the last offset.
    begun: BTreeMap<usize, (Option<usize>, u64, u64, u64)>,
    requests: BTreeMap<u64, (usize, Option<usize>)>,
}

impl Counting {
    fn read(&mut self, sim: &mut Simulation, names: &[String]) {
        for (_, payload) in sim.received(self.id) {
            let message: Value = serde_json::from_slice(&payload).expect("JSON");
            let number = |name: &str| message[name].as_u64().unwrap_or_else(|| panic!("{name} of {message}"));
            let topic = names.iter().position(|name| message["topic"] == **name);
            match (message["type"].as_str().expect("a type"), topic) {
                ("hello", _) => {}
                ("lagged", _) => self.lagged += number("messages"),
                ("message", Some(topic)) => self.message(topic, number("offset")),
                ("messages", Some(topic)) => {
                    for member in message["messages"].as_array().expect("a list") {
                        self.message(topic, member["offset"].as_u64().expect("an offset"));
                    }
                }
                ("subscribed", Some(topic)) => {
                    let (_, tag) = self.requests.remove(&number("id")).expect("it was asked for");
                    self.begun.insert(topic, (tag, number("offset"), number("replayed"), 0));
                }
                _ => panic!("{message}"),
            }
        }
    }

    fn message(&mut self, topic: usize, offset: u64) {
        let (.., last) = self.begun.get_mut(&topic).expect("it is subscribed");
        assert!(offset > *last, "{offset} of {topic} after {last} to {}", self.id);
        (*last, self.received) = (offset, self.received + 1);
    }

    /// Messages that it was to get.
    fn expected(&self, me: usize, published: &[Vec<Published>]) -> u64 {
        let of = |(topic, (tag, position, replayed, _)): (&usize, &(Option<usize>, u64, u64, u64))| {
            let live = published[*topic].iter().skip(*position as usize);
            let wanted = |p: &&Published| p.except != Some(me) && tag.is_none_or(|tag| tag == p.tag);
            replayed + live.filter(wanted).count() as u64
        };
        self.begun.iter().map(of).sum()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    /// Whatever policies, replays, filters, batches, workers and sockets do: what a client has got and what it was told of
    /// is all that there was for it.
    #[test]
    fn lagged_counts_exactly_the_missing_messages(
        steps in prop::collection::vec((0u8..14, 0usize..3, 0usize..3, 0usize..40), 1..200),
        workers in 1usize..3,
        batch in any::<bool>(),
    ) {
        let policies = [SlowConsumer::DropOldest, SlowConsumer::DropNewest, SlowConsumer::LatestByKey];
        let prefixes = ["old/", "new/", "key/"];
        let settings = |policy| TopicSettings::new().history(8).slow_consumer(policy).client_subscribe(true);
        let topics = prefixes.iter().zip(policies).map(|(p, policy)| ((*p).to_owned(), settings(policy)));
        let topics = SettingsTable::new(topics.collect(), 1 << 20, &[]);
        let limits = Limits { max_backlog: 3000, ..Limits::default() };
        let route = Route::from(Push::new().subscribe([""]).publish(prefixes).rate(0, 0)).limits(limits);
        let mut sim = Simulation::new(workers, route, topics);
        let names: Vec<String> = prefixes.iter().enumerate().map(|(n, p)| sim.topic_of(p, n)).collect();
        let mut clients: Vec<Counting> = (0..3)
            .map(|n| {
                let id = sim.open(n % workers, client_state(batch));
                let (begun, requests) = (BTreeMap::new(), BTreeMap::new());
                Counting { id, received: 0, lagged: 0, begun, requests }
            })
            .collect();
        let mut published: Vec<Vec<Published>> = names.iter().map(|_| Vec::new()).collect();
        for (step, (what, at, topic, n)) in steps.into_iter().enumerate() {
            let (name, of) = (&*names[topic], &mut clients[at]);
            let text = "x".repeat(10 * n);
            match what {
                0 | 1 if !of.begun.contains_key(&topic) && of.requests.values().all(|(t, _)| *t != topic) => {
                    let tag = (n % 3).checked_sub(1);
                    let mut request = json!({"type": "subscribe", "id": step, "topic": name});
                    if let Some(tag) = tag {
                        request["tags"] = json!([tag.to_string()]);
                    }
                    match n % 4 {
                        0 => request["last"] = json!(n + 1),
                        1 => request["latest"] = json!(true),
                        _ => {}
                    }
                    of.requests.insert(step as u64, (topic, tag));
                    sim.text(of.id, &request.to_string());
                }
                0..=5 => {
                    let (tag, key) = (n % 2, (n % 5).to_string());
                    let mut message = Message::text(&text);
                    if n % 3 > 0 {
                        message = message.with_key(&key);
                    }
                    let publish = Publish::new(name, message);
                    let tags = [&*tag.to_string()];
                    let publish = publish.tags(&tags);
                    published[topic].push(Published { tag, except: None });
                    sim.handle.publish_confirmed(publish).then(drop);
                }
                6 => {
                    let tag = n % 2;
                    let request = json!({
                        "type": "publish", "topic": name, "text": text, "tags": [tag.to_string()], "echo": false,
                    });
                    published[topic].push(Published { tag, except: Some(at) });
                    sim.text(of.id, &request.to_string());
                }
                7..=9 => (0..n).for_each(|_| { sim.command(at % workers); }),
                10 | 11 => sim.end_iteration(at % workers),
                _ => sim.take(of.id, 25 * n),
            }
            clients.iter_mut().for_each(|client| client.read(&mut sim, &names));
        }
        sim.finish();
        for (me, client) in clients.iter_mut().enumerate() {
            client.read(&mut sim, &names);
            let counted = (client.received, client.lagged);
            prop_assert_eq!(counted.0 + counted.1, client.expected(me, &published), "received {}, told of {}", counted.0, counted.1);
        }
    }
}

/// New messages are lost behind a replay in the iteration that sends its end: a client that has seen the message behind
/// the gap and recovers from there would never learn of it.
#[test]
fn messages_lost_after_a_replay_are_reported_before_the_next_message() {
    let settings = TopicSettings::new().history(5).slow_consumer(SlowConsumer::DropOldest);
    let topics = vec![("a".to_owned(), settings.client_subscribe(true))];
    let limits = Limits { max_backlog: 3000, ..Limits::default() };
    let route = Route::from(Push::new().rate(0, 0)).limits(limits);
    let mut sim = Simulation::new(1, route, SettingsTable::new(topics, 1 << 20, &[]));
    let text = "x".repeat(20_000);
    let publish = |sim: &mut Simulation, messages| {
        (0..messages).for_each(|_| sim.publish_by_handle("a", Message::text(&text)));
        while sim.command(0) {}
        sim.end_iteration(0);
    };
    publish(&mut sim, 5);
    let client = sim.open(0, client_state(false));
    sim.text(client, r#"{"type":"subscribe","topic":"a","last":5}"#);
    sim.end_iteration(0); // four of five, as more than a piece waits for the socket then
    sim.take(client, usize::MAX);
    publish(&mut sim, 10); // behind a replay of five, max_backlog and the bytes of five may be queued
    sim.finish();
    let payloads = sim.received(client).into_iter().map(|(_, payload)| {
        let message: Value = serde_json::from_slice(&payload).expect("JSON");
        ["offset", "messages"].iter().find_map(|name| message[*name].as_u64())
    });
    let expected = [5, 1, 2, 3, 4].into_iter().chain([5, 5]).chain(11..=15).map(Some);
    assert_eq!(payloads.skip(1).collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "without the hello");
}
