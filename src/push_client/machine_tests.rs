//! The client's machine without a socket: its requests and events.

use super::*;
use crate::push_protocol::{ErrorCode, parse_binary, parse_incoming};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::mpsc;

const PING: &str = r#"{"type":"ping"}"#;

/// A client whose server is the test.
struct TestMachine {
    machine: PushMachine,
    now: Instant,
    sent: Vec<String>,
    takes: bool,
}

impl TestMachine {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            machine: PushMachine::new(PushClientLimits::default(), "n".into(), now),
            now,
            sent: Vec::new(),
            takes: true,
        }
    }

    fn open() -> Self {
        let mut test = Self::new();
        test.greet();
        test
    }

    fn with<T>(&mut self, f: impl FnOnce(&mut PushMachine, &mut MachineContext<'_>) -> T) -> T {
        let Self { machine, now, sent, takes } = self;
        let mut send = |text: &str| {
            if *takes {
                sent.push(text.to_owned());
            }
            *takes
        };
        f(machine, &mut MachineContext { now: *now, send: &mut send })
    }

    fn greet(&mut self) {
        self.machine.opened(self.now);
        self.receive(r#"{"type":"hello","heartbeat":25000,"max_message_size":200}"#);
    }

    fn receive(&mut self, text: &str) {
        let incoming = parse_incoming(text).map_err(|e| e.to_string());
        self.with(|machine, cx| machine.received(incoming, cx));
    }

    fn subscribe(&mut self, subscription: Subscription) {
        self.with(|machine, cx| machine.subscribe(subscription, cx)).unwrap();
    }

    fn publish(&mut self, text: &str) -> mpsc::Receiver<Result<Published, PublishError>> {
        let (tx, rx) = mpsc::channel();
        let done = Box::new(move |result| drop(tx.send(result)));
        let publication = Publication::text("t", text);
        self.with(|machine, cx| machine.publish(&publication, done, cx)).unwrap();
        rx
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.with(|machine, cx| machine.expire(true, cx));
    }

    /// What was sent since the last call.
    fn sent(&mut self) -> Vec<String> {
        std::mem::take(&mut self.sent)
    }

    fn events(&mut self) -> Vec<PushEvent> {
        for (done, result) in std::mem::take(&mut self.machine.outgoing.settled) {
            done(result);
        }
        std::mem::take(&mut self.machine.events)
    }

    fn offsets(&mut self) -> Vec<u64> {
        let offset = |event: PushEvent| match event {
            PushEvent::Message(message) => Some(message.offset),
            _ => None,
        };
        self.events().into_iter().filter_map(offset).collect()
    }

    fn how(&mut self) -> Subscribed {
        let how = |event| match event {
            PushEvent::Subscribed(how) => Some(how),
            _ => None,
        };
        self.events().into_iter().find_map(how).expect("it has begun")
    }
}

fn message(offset: u64) -> String {
    format!(r#"{{"type":"message","topic":"t","offset":{offset},"data":1}}"#)
}

const SUBSCRIBED: &str =
    r#"{"type":"subscribed","id":2,"topic":"t","epoch":"e","offset":14,"recovered":false,"replayed":0}"#;

#[test]
fn a_subscription_recovers_from_the_last_message_without_repeats() {
    let mut test = TestMachine::open();
    test.subscribe("t".into());
    assert_eq!(test.sent(), [r#"{"type":"subscribe","id":2,"topic":"t"}"#]);
    test.receive(&message(14)); // it has not begun
    test.receive(SUBSCRIBED);
    let how = test.how();
    assert_eq!((how.lost, how.position), (false, Some(Position::new("e", 14))));
    test.receive(&message(15));
    test.machine.lost();
    test.greet();
    assert_eq!(test.sent(), [r#"{"type":"subscribe","id":3,"topic":"t","since":{"epoch":"e","offset":15}}"#]);
    test.receive(
        r#"{"type":"subscribed","id":3,"topic":"t","epoch":"e","offset":17,"recovered":true,"replayed":2}"#,
    );
    let how = test.how();
    assert_eq!((how.recovered, how.replayed, how.lost), (true, 2, false));
    for offset in [16, 17, 17, 18] {
        test.receive(&message(offset));
    }
    assert_eq!(test.offsets(), [16, 17, 18]);
}

#[test]
fn lost_messages_are_reported_and_a_new_epoch_starts_over() {
    let mut test = TestMachine::open();
    test.subscribe("t".into());
    test.receive(SUBSCRIBED);
    test.machine.lost();
    test.greet();
    test.events();
    test.receive(
        r#"{"type":"subscribed","id":3,"topic":"t","epoch":"f","offset":3,"recovered":false,"replayed":0}"#,
    );
    let how = test.how();
    assert_eq!((how.lost, how.position), (true, Some(Position::new("f", 3))));
    test.receive(&message(4));
    assert_eq!(test.offsets(), [4]);
}

#[test]
fn a_lost_position_restarts_with_the_initial_options() {
    let mut test = TestMachine::open();
    test.subscribe(Subscription::new("t").last(5).tags(["a"]).since(Position::new("e", 7)));
    assert_eq!(
        test.sent(),
        [r#"{"type":"subscribe","id":2,"topic":"t","since":{"epoch":"e","offset":7},"tags":["a"]}"#]
    );
    test.receive(SUBSCRIBED);
    assert_eq!(test.sent(), [r#"{"type":"unsubscribe","id":3,"topic":"t"}"#]);
    test.receive(r#"{"type":"unsubscribed","id":3,"topic":"t"}"#);
    assert_eq!(test.sent(), [r#"{"type":"subscribe","id":4,"topic":"t","last":5,"tags":["a"]}"#]);
    test.receive(
        r#"{"type":"subscribed","id":4,"topic":"t","epoch":"f","offset":3,"recovered":false,"replayed":2}"#,
    );
    let how = test.how();
    assert!(how.lost && how.replayed == 2);
    test.receive(&message(2));
    test.receive(&message(3));
    assert_eq!(test.offsets(), [2, 3]);
}

#[test]
fn a_publication_waits_for_earlier_subscriptions_and_survives_a_reconnect() {
    let mut test = TestMachine::open();
    test.subscribe("t".into());
    let receipt = test.publish("ding");
    assert_eq!(test.sent().len(), 1, "the subscription alone");
    test.receive(SUBSCRIBED);
    let sent = test.sent();
    assert_eq!(sent, [r#"{"type":"publish","id":3,"topic":"t","text":"ding","idempotency_key":"n-3"}"#]);
    test.machine.lost();
    test.greet();
    assert_eq!(test.sent().len(), 1);
    test.receive(
        r#"{"type":"subscribed","id":4,"topic":"t","epoch":"e","offset":15,"recovered":true,"replayed":1}"#,
    );
    assert_eq!(test.sent(), sent, "the same again, by the same name");
    test.receive(r#"{"type":"published","id":3,"epoch":"e","offset":15,"receivers":0,"repeated":true}"#);
    test.events();
    let position = Some(Position::new("e", 15));
    assert_eq!(receipt.try_recv().unwrap(), Ok(Published { position, receivers: 0, repeated: true }));
    test.receive(r#"{"type":"published","id":3,"receivers":0}"#); // answered already
    assert!(test.machine.outgoing.settled.is_empty());
    assert_eq!((test.machine.outgoing.len(), test.machine.outgoing.bytes()), (0, 0));
}

#[test]
fn a_request_refused_with_retry_is_sent_again() {
    let mut test = TestMachine::open();
    test.subscribe("t".into());
    test.sent();
    test.receive(r#"{"type":"error","id":2,"code":"rate_limited","message":"wait","retry":20}"#);
    test.pass(Duration::from_millis(19));
    assert!(test.sent().is_empty());
    test.pass(Duration::from_millis(1));
    assert_eq!(test.sent(), [r#"{"type":"subscribe","id":2,"topic":"t"}"#]);
    // One that nobody wants any more is not.
    test.receive(r#"{"type":"error","id":2,"code":"rate_limited","message":"wait","retry":20}"#);
    assert!(test.with(|machine, cx| machine.unsubscribe("t", cx)));
    test.receive(r#"{"type":"error","id":3,"code":"not_subscribed","message":"no"}"#);
    test.sent();
    test.pass(Duration::from_secs(1));
    assert!(test.sent().is_empty() && test.machine.pending.is_empty());
}

#[test]
fn retry_times_of_a_hostile_server_are_clamped() {
    let mut test = TestMachine::open();
    test.subscribe("t".into());
    let defer = |test: &mut TestMachine, retry: u64| {
        test.sent();
        test.receive(&format!(r#"{{"type":"error","id":2,"code":"busy","message":"","retry":{retry}}}"#));
    };
    for least in [10, 20, 40, 80] {
        defer(&mut test, 0);
        test.pass(Duration::from_millis(least - 1));
        assert!(test.sent().is_empty());
        test.pass(Duration::from_millis(1));
        assert_eq!(test.sent().len(), 1, "{least} ms");
    }
    defer(&mut test, (1 << 53) - 1);
    test.pass(Duration::from_secs(60) - Duration::from_millis(1));
    assert!(test.sent().iter().all(|text| text == PING));
    test.pass(Duration::from_millis(1));
    assert_eq!(test.sent(), [r#"{"type":"subscribe","id":2,"topic":"t"}"#]);
}

#[test]
fn an_answer_of_another_type_or_without_a_position_is_ignored() {
    let mut test = TestMachine::open();
    test.subscribe("t".into());
    let receipt = test.publish("x");
    test.events();
    for id in [2, 3] {
        for kind in ["published", "unsubscribed"] {
            test.receive(&format!(r#"{{"type":"{kind}","id":{id}}}"#));
        }
    }
    test.receive(r#"{"type":"error","id":3,"code":"forbidden","message":"it was not sent yet"}"#);
    assert!(test.events().is_empty());
    test.receive(r#"{"type":"subscribed","id":2,"topic":"t","recovered":true,"replayed":1}"#);
    assert!(matches!(&test.events()[..], [PushEvent::Error(Error::Unreadable { .. })]));
    test.receive(SUBSCRIBED);
    assert!(!test.how().lost && receipt.try_recv().is_err());
    assert!(test.sent().iter().any(|text| text.contains("publish")), "it follows the subscription");
}

#[test]
fn a_deferred_publication_delays_later_ones_of_its_topic_only() {
    let mut test = TestMachine::open();
    test.publish("one");
    test.receive(r#"{"type":"error","id":1,"code":"rate_limited","message":"","retry":20}"#);
    test.publish("two");
    test.publish("three");
    let other = Publication::text("u", "other");
    test.with(|machine, cx| machine.publish(&other, Box::new(|_| ()), cx)).unwrap();
    let texts = |test: &mut TestMachine| -> Vec<String> {
        let text = |sent: String| {
            sent.split(r#""text":""#).nth(1).map(|rest| rest.split('"').next().unwrap().to_owned())
        };
        test.sent().into_iter().filter_map(text).collect()
    };
    assert_eq!(texts(&mut test), ["one", "other"]);
    test.pass(Duration::from_millis(20));
    assert_eq!(texts(&mut test), ["one"], "one at a time");
    for (id, next) in [(1, Some("two")), (2, Some("three")), (3, None)] {
        test.receive(&format!(r#"{{"type":"published","id":{id},"receivers":0}}"#));
        assert_eq!(texts(&mut test), Vec::from_iter(next));
    }
}

#[test]
fn an_overtaken_publication_fails_and_is_not_sent_again() {
    let mut test = TestMachine::open();
    let receipts = ["one", "two", "three"].map(|text| test.publish(text));
    test.receive(r#"{"type":"error","id":1,"code":"rate_limited","message":"","retry":20}"#);
    // Answers may come in any order.
    test.receive(r#"{"type":"published","id":3,"receivers":0}"#);
    test.receive(r#"{"type":"error","id":2,"code":"busy","message":"","retry":20}"#);
    test.events();
    let [one, two, three] = receipts.map(|receipt| receipt.try_recv().unwrap());
    assert!(matches!(one, Err(PublishError::Overtaken(error)) if error.code == ErrorCode::RateLimited));
    assert!(matches!(two, Err(PublishError::Overtaken(error)) if error.code == ErrorCode::Busy));
    assert!(three.is_ok());
    test.sent();
    test.pass(Duration::from_secs(1));
    assert!(test.sent().is_empty() && test.machine.deadline(false).is_none());

    // Whether the later one was published is not known when the connection breaks.
    let receipts = ["five", "six"].map(|text| test.publish(text));
    test.receive(r#"{"type":"error","id":4,"code":"rate_limited","message":"","retry":20}"#);
    test.pass(Duration::from_millis(20));
    test.machine.lost();
    test.greet();
    test.events();
    let [five, six] = receipts;
    assert!(matches!(five.try_recv().unwrap(), Err(PublishError::Overtaken(_))) && six.try_recv().is_err());
}

#[test]
fn at_most_32_publications_of_a_topic_are_in_flight() {
    let mut test = TestMachine::open();
    for _ in 0..100 {
        test.publish("x");
    }
    assert_eq!(test.sent().len(), 32);
    test.receive(r#"{"type":"published","id":9,"receivers":0}"#);
    assert_eq!(test.sent().len(), 1);
}

#[test]
fn subscribing_again_waits_for_the_unsubscribe_answer() {
    let mut test = TestMachine::open();
    test.subscribe("t".into());
    assert!(test.with(|machine, cx| machine.unsubscribe("t", cx)));
    test.subscribe(Subscription::new("t").latest());
    test.sent();
    test.events();
    test.receive(SUBSCRIBED); // the first one
    assert!(test.events().is_empty() && test.sent().is_empty());
    test.receive(r#"{"type":"unsubscribed","id":3,"topic":"t"}"#);
    assert_eq!(test.sent(), [r#"{"type":"subscribe","id":5,"topic":"t","latest":true}"#]);
    test.receive(
        r#"{"type":"subscribed","id":5,"topic":"t","epoch":"e","offset":14,"recovered":false,"replayed":0}"#,
    );
    assert!(!test.how().lost);
}

#[test]
fn a_refusal_ends_only_the_refused_request() {
    let mut test = TestMachine::open();
    test.subscribe("t".into());
    test.receive(r#"{"type":"error","id":2,"code":"forbidden","message":"no"}"#);
    assert!(matches!(&test.events()[..],
        [PushEvent::Open(_), PushEvent::Refused { topic, error }] if topic == "t" && error.code == ErrorCode::Forbidden));
    let receipt = test.publish("x");
    test.receive(r#"{"type":"error","id":3,"code":"too_big","message":"no"}"#);
    let long = test.publish(&"x".repeat(200));
    test.events();
    for refused in [receipt, long] {
        let Err(PublishError::Refused(error)) = refused.try_recv().unwrap() else { panic!() };
        assert_eq!(error.code, ErrorCode::TooBig);
    }
    assert_eq!(test.sent().len(), 2, "what is too long is not sent");
    test.receive(r#"{"type":"error","code":"json","message":"no"}"#);
    test.receive("what?");
    assert!(matches!(
        &test.events()[..],
        [PushEvent::Error(Error::Server(_)), PushEvent::Error(Error::Unreadable { .. })]
    ));
}

#[test]
fn queues_are_bounded_and_end_with_the_client() {
    let mut test = TestMachine::new();
    test.machine.limits.max_pending = 2;
    test.machine.limits.max_subscriptions = 1;
    let first = test.publish("x");
    test.publish("y");
    let publish = |test: &mut TestMachine, publication: &Publication<'_>| {
        test.with(|machine, cx| machine.publish(publication, Box::new(|_| ()), cx))
    };
    let full = publish(&mut test, &Publication::text("t", "z"));
    assert!(matches!(full, Err(PublishError::Full { pending: 2, .. })));
    test.machine.limits.max_pending = 3;
    test.machine.limits.max_pending_bytes = 100;
    let full = publish(&mut test, &Publication::text("t", "z"));
    assert!(matches!(full, Err(PublishError::Full { pending: 2, .. })));
    let pattern = publish(&mut test, &Publication::text("t/*", "z"));
    assert!(matches!(pattern, Err(PublishError::Topic(_))));
    test.subscribe("t".into());
    let retry_delay = test.with(|machine, cx| machine.subscribe("t".into(), cx));
    assert!(matches!(retry_delay, Err(SubscribeError::Already { .. })));
    let second = test.with(|machine, cx| machine.subscribe("u".into(), cx));
    assert_eq!(second, Err(SubscribeError::TooMany { limit: 1 }));
    let pattern = test.with(|machine, cx| machine.subscribe(Subscription::pattern("u/*").last(1), cx));
    assert!(matches!(pattern, Err(SubscribeError::PatternStart { .. })));
    for (wrong, expected) in
        [(Subscription::new("u/*"), "is a pattern"), (Subscription::pattern("u"), "pattern: \"u\"")]
    {
        let refused = test.with(|machine, cx| machine.subscribe(wrong, cx)).unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
    }
    let limit = Duration::from_secs(10);
    test.pass(limit);
    test.events();
    assert_eq!(first.try_recv().unwrap(), Err(PublishError::Timeout { limit }));
    let last = test.publish("x");
    test.machine.closed();
    test.events();
    assert_eq!(last.try_recv().unwrap(), Err(PublishError::Closed));
    assert_eq!(test.machine.outgoing.bytes(), 0);
}

#[test]
fn a_silent_server_is_pinged_and_then_reset() {
    let mut test = TestMachine::open();
    test.pass(Duration::from_secs(24));
    assert!(test.sent().is_empty());
    test.pass(Duration::from_secs(1));
    assert_eq!(test.sent(), [PING]);
    test.pass(Duration::from_secs(9));
    test.receive(r#"{"type":"pong"}"#);
    test.pass(Duration::from_secs(25));
    assert_eq!(test.sent(), [PING]);
    test.events();
    test.pass(Duration::from_secs(10));
    assert!(test.machine.wants_reset);
    assert!(matches!(&test.events()[..], [PushEvent::Error(Error::PongTimeout { .. })]));

    // Nor does the server keep its hello to itself, whatever else it says.
    for text in [r#"{"type":"message","topic":"t","offset":1,"data":1}"#, r#"{"type":"pong"}"#, "?"] {
        let mut test = TestMachine::new();
        test.machine.opened(test.now);
        test.now += Duration::from_secs(9);
        test.receive(text);
        assert!(!test.machine.wants_reset);
        test.now += Duration::from_secs(1);
        test.receive(text);
        assert!(test.machine.wants_reset, "{text}");
    }
    let mut test = TestMachine::new();
    test.machine.opened(test.now);
    test.pass(Duration::from_secs(10));
    assert!(test.machine.wants_reset);
    assert!(matches!(&test.events()[..], [PushEvent::Error(Error::HelloTimeout { .. })]));
}

#[test]
fn requests_that_the_socket_refuses_are_sent_again() {
    let mut test = TestMachine::open();
    test.takes = false;
    test.subscribe("t".into());
    test.pass(SEND_RETRY);
    test.takes = true;
    test.pass(SEND_RETRY);
    assert_eq!(test.sent(), [r#"{"type":"subscribe","id":2,"topic":"t"}"#]);
    test.receive(SUBSCRIBED);
    test.takes = false;
    test.publish("x");
    test.takes = true;
    test.publish("y");
    assert!(test.sent().is_empty(), "the order is kept");
    test.pass(SEND_RETRY);
    let sent = test.sent();
    assert!(sent.len() == 2 && sent[0].contains("\"x\"") && sent[1].contains("\"y\""), "{sent:?}");
    test.pass(SEND_RETRY);
    assert!(test.sent().is_empty());
}

#[test]
fn a_pattern_receives_topics_without_a_subscription_by_name() {
    let mut test = TestMachine::open();
    test.subscribe(Subscription::pattern("a/*"));
    assert_eq!(test.sent(), [r#"{"type":"subscribe","id":2,"pattern":"a/*"}"#]);
    test.receive(r#"{"type":"subscribed","id":2,"pattern":"a/*","recovered":false,"replayed":0}"#);
    test.events();
    test.receive(r#"{"type":"message","topic":"a/b","offset":7,"text":"x"}"#);
    test.receive(r#"{"type":"message","topic":"b/b","offset":7,"text":"x"}"#);
    assert!(matches!(&test.events()[..],
        [PushEvent::Message(message)] if &*message.topic == "a/b" && message.position().is_none()));
    test.machine.lost();
    test.greet();
    test.events();
    test.receive(r#"{"type":"subscribed","id":3,"pattern":"a/*","recovered":false,"replayed":0}"#);
    assert!(test.how().lost);
}

#[test]
fn event_weight_includes_everything_the_server_sends() {
    let mut test = TestMachine::open();
    test.with(|machine, cx| machine.subscribe(Subscription::new("a"), cx)).unwrap();
    test.machine.events.clear();
    let long = "x".repeat(1000);
    for text in [
        format!(r#"{{"type":"error","code":"x","message":"{long}"}}"#),
        format!(r#"{{"type":"error","code":"{long}","message":""}}"#),
        format!(r#"{{"type":"lagged","messages":"{long}"}}"#),
        format!(r#"{{"type":"error","id":2,"code":"x","message":"{long}"}}"#),
    ] {
        test.receive(&text);
        let weight: usize = test.machine.events.drain(..).map(|event| event.weight()).sum();
        assert!(weight >= 1000, "{weight} for {text:.40}");
    }
}

// ---- a server that says anything ----

/// Values that a member may have, and should not.
fn odd() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        Just(json!(true)),
        Just(json!("")),
        Just(json!("t")),
        Just(json!("p/*")),
        Just(json!("__proto__")),
        Just(json!(-1)),
        Just(json!(1.5)),
        Just(json!(1u64 << 53)),
        Just(json!(u64::MAX)),
        any::<u64>().prop_map(|n| json!(n)),
        any::<String>().prop_map(|text| json!(text)),
    ];
    leaf.prop_recursive(4, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            inner.prop_map(|value| json!({"type": value.clone(), "offset": value})),
        ]
    })
}

fn honest() -> impl Strategy<Value = Value> {
    (0usize..12, 0u64..6).prop_map(|(at, id)| {
        let all = [
            json!({"type": "hello", "connection": "1", "time": 1, "heartbeat": 25_000, "retry": 1_000, "max_message_size": 65_536}),
            json!({"type": "subscribed", "id": id, "topic": "t", "epoch": "e", "offset": 3, "recovered": true, "replayed": 1}),
            json!({"type": "subscribed", "id": id, "pattern": "p/*", "recovered": false, "replayed": 0}),
            json!({"type": "unsubscribed", "id": id, "topic": "t"}),
            json!({"type": "message", "topic": "t", "offset": 4, "data": {"a": [1]}}),
            json!({"type": "message", "topic": "p/*", "offset": 4, "text": "x"}),
            json!({"type": "messages", "topic": "t", "messages": [{"offset": 5, "data": null}, {"offset": 6, "text": "y"}]}),
            json!({"type": "published", "id": id, "epoch": "e", "offset": 4, "receivers": 1, "repeated": true}),
            json!({"type": "lagged", "messages": 12}),
            json!({"type": "pong", "id": id}),
            json!({"type": "error", "id": id, "code": "rate_limited", "message": "wait", "retry": 20}),
            json!({"type": "error", "code": "binary", "message": "no"}),
        ];
        all[at].clone()
    })
}

/// An honest message with a member changed, added or taken away, or cut.
fn mutated() -> impl Strategy<Value = String> {
    (honest(), any::<prop::sample::Index>(), proptest::option::of(odd()), any::<(bool, u16)>()).prop_map(
        |(mut message, at, value, (cuts, len))| {
            if let Some(members) = message.as_object_mut() {
                let name = at.get(&members.keys().cloned().collect::<Vec<_>>()).clone();
                match value {
                    Some(value) => drop(members.insert(name, value)),
                    None => drop(members.remove(&name)),
                }
            }
            let text = message.to_string();
            let len = usize::from(len) % text.len();
            if cuts && text.is_char_boundary(len) { text[..len].to_owned() } else { text }
        },
    )
}

proptest! {
    /// None of it ends the session, and all that it was told to do it still does on the next connection.
    #[test]
    fn arbitrary_server_messages_are_handled(
        messages in proptest::collection::vec(prop_oneof![1 => any::<String>(), 1 => honest().prop_map(|m| m.to_string()), 5 => mutated()], 0..40),
        bytes in any::<Vec<u8>>(),
        wait in 0u64..100_000,
    ) {
        let mut test = TestMachine::open();
        test.subscribe("t".into());
        test.subscribe(Subscription::pattern("p/*"));
        let receipt = test.publish("x");
        for message in &messages {
            test.receive(message);
            let incoming = parse_binary([&[1, 1], &bytes[..]].concat());
            test.with(|machine, cx| machine.received(incoming, cx));
        }
        test.pass(Duration::from_millis(wait));
        let refused = |event: &PushEvent| matches!(event, PushEvent::Refused { .. });
        let ended = test.events().iter().filter(|event| refused(event)).count();
        test.machine.lost();
        test.sent();
        test.greet();
        let requests: Vec<Value> = test.sent().iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        prop_assert_eq!(requests.iter().filter(|request| request["type"] == "subscribe").count() + ended, 2);
        for request in requests {
            let member = if request["topic"].is_null() { "pattern" } else { "topic" };
            let (id, name) = (&request["id"], &request[member]);
            test.receive(&json!({"type": "subscribed", "id": id, member: name, "epoch": "f", "offset": 3, "recovered": false, "replayed": 0}).to_string());
        }
        test.events();
        for topic in ["t", "p/x"] {
            test.receive(&json!({"type": "message", "topic": topic, "offset": 4, "data": 1}).to_string());
        }
        prop_assert_eq!(test.offsets().len() + ended, 2);
        test.machine.closed();
        test.events();
        prop_assert!(receipt.try_recv().is_ok(), "it has an answer or an end");
    }
}

/// A hostile server chooses the name and the number of messages in a frame: 600,000 with 255 bytes each are 16 MiB.
#[test]
fn messages_of_one_batch_share_the_topic_string() {
    let mut test = TestMachine::open();
    test.subscribe("t".into());
    test.receive(SUBSCRIBED);
    test.events();
    test.receive(
        r#"{"type":"messages","topic":"t","messages":[{"offset":15,"text":""},{"offset":16,"text":""}]}"#,
    );
    let events = test.events();
    let [PushEvent::Message(one), PushEvent::Message(two)] = &events[..] else { panic!("{events:?}") };
    assert!(Arc::ptr_eq(&one.topic, &two.topic));
}
