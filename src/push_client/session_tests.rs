//! The session without a socket: what it says, and when.

use super::*;
use crate::push_client::Code;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::mpsc;

/// A session with a server that a test plays.
struct Played {
    session: Session,
    now: Instant,
    said: Vec<String>,
    takes: bool,
}

impl Played {
    fn new() -> Self {
        let now = Instant::now();
        Self { session: Session::new(Limits::default(), "n".into(), now), now, said: Vec::new(), takes: true }
    }

    fn open() -> Self {
        let mut played = Self::new();
        played.greet();
        played
    }

    fn with<T>(&mut self, f: impl FnOnce(&mut Session, &mut Context<'_>) -> T) -> T {
        let Self { session, now, said, takes } = self;
        let mut wire = |text: &str| {
            if *takes {
                said.push(text.to_owned());
            }
            *takes
        };
        f(session, &mut Context { now: *now, wire: &mut wire })
    }

    fn greet(&mut self) {
        self.session.opened(self.now);
        self.hear(r#"{"type":"hello","heartbeat":25000,"max_message_size":200}"#);
    }

    fn hear(&mut self, text: &str) {
        let incoming = wire::parse(text).map_err(|e| e.to_string());
        self.with(|session, cx| session.received(incoming, cx));
    }

    fn subscribe(&mut self, subscription: Subscription) {
        self.with(|session, cx| session.subscribe(subscription, cx)).unwrap();
    }

    fn publish(&mut self, text: &str) -> mpsc::Receiver<Result<Published, PublishError>> {
        let (tx, rx) = mpsc::channel();
        let done = Box::new(move |result| drop(tx.send(result)));
        let publication = Publication::text("t", text);
        self.with(|session, cx| session.publish(&publication, done, cx)).unwrap();
        rx
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.with(|session, cx| session.expire(true, cx));
    }

    /// What was said since it was asked last.
    fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.said)
    }

    fn events(&mut self) -> Vec<Event> {
        for (done, result) in std::mem::take(&mut self.session.outgoing.settled) {
            done(result);
        }
        std::mem::take(&mut self.session.events)
    }

    fn offsets(&mut self) -> Vec<u64> {
        let offset = |event: Event| match event {
            Event::Message(message) => Some(message.offset),
            _ => None,
        };
        self.events().into_iter().filter_map(offset).collect()
    }

    fn how(&mut self) -> Subscribed {
        let how = |event| match event {
            Event::Subscribed(how) => Some(how),
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
fn a_subscription_goes_on_from_the_last_message_and_nothing_comes_twice() {
    let mut played = Played::open();
    played.subscribe("t".into());
    assert_eq!(played.said(), [r#"{"type":"subscribe","id":2,"topic":"t"}"#]);
    played.hear(&message(14)); // it has not begun
    played.hear(SUBSCRIBED);
    let how = played.how();
    assert_eq!((how.lost, how.position), (false, Some(Position::new("e", 14))));
    played.hear(&message(15));
    played.session.lost();
    played.greet();
    assert_eq!(
        played.said(),
        [r#"{"type":"subscribe","id":3,"topic":"t","since":{"epoch":"e","offset":15}}"#]
    );
    played.hear(
        r#"{"type":"subscribed","id":3,"topic":"t","epoch":"e","offset":17,"recovered":true,"replayed":2}"#,
    );
    let how = played.how();
    assert_eq!((how.recovered, how.replayed, how.lost), (true, 2, false));
    for offset in [16, 17, 17, 18] {
        played.hear(&message(offset));
    }
    assert_eq!(played.offsets(), [16, 17, 18]);
}

#[test]
fn what_is_lost_is_told_and_another_epoch_begins_anew() {
    let mut played = Played::open();
    played.subscribe("t".into());
    played.hear(SUBSCRIBED);
    played.session.lost();
    played.greet();
    played.events();
    played.hear(
        r#"{"type":"subscribed","id":3,"topic":"t","epoch":"f","offset":3,"recovered":false,"replayed":0}"#,
    );
    let how = played.how();
    assert_eq!((how.lost, how.position), (true, Some(Position::new("f", 3))));
    played.hear(&message(4));
    assert_eq!(played.offsets(), [4]);
}

#[test]
fn where_the_place_is_lost_it_begins_as_at_first() {
    let mut played = Played::open();
    played.subscribe(Subscription::new("t").last(5).tags(["a"]).since(Position::new("e", 7)));
    assert_eq!(
        played.said(),
        [r#"{"type":"subscribe","id":2,"topic":"t","since":{"epoch":"e","offset":7},"tags":["a"]}"#]
    );
    played.hear(SUBSCRIBED);
    assert_eq!(played.said(), [r#"{"type":"unsubscribe","id":3,"topic":"t"}"#]);
    played.hear(r#"{"type":"unsubscribed","id":3,"topic":"t"}"#);
    assert_eq!(played.said(), [r#"{"type":"subscribe","id":4,"topic":"t","last":5,"tags":["a"]}"#]);
    played.hear(
        r#"{"type":"subscribed","id":4,"topic":"t","epoch":"f","offset":3,"recovered":false,"replayed":2}"#,
    );
    let how = played.how();
    assert!(how.lost && how.replayed == 2);
    played.hear(&message(2));
    played.hear(&message(3));
    assert_eq!(played.offsets(), [2, 3]);
}

#[test]
fn a_publication_waits_for_the_subscriptions_before_it_and_outlives_its_connection() {
    let mut played = Played::open();
    played.subscribe("t".into());
    let receipt = played.publish("ding");
    assert_eq!(played.said().len(), 1, "the subscription alone");
    played.hear(SUBSCRIBED);
    let sent = played.said();
    assert_eq!(sent, [r#"{"type":"publish","id":3,"topic":"t","text":"ding","idempotency_key":"n-3"}"#]);
    played.session.lost();
    played.greet();
    assert_eq!(played.said().len(), 1);
    played.hear(
        r#"{"type":"subscribed","id":4,"topic":"t","epoch":"e","offset":15,"recovered":true,"replayed":1}"#,
    );
    assert_eq!(played.said(), sent, "the same again, by the same name");
    played.hear(r#"{"type":"published","id":3,"epoch":"e","offset":15,"receivers":0,"repeated":true}"#);
    played.events();
    let position = Some(Position::new("e", 15));
    assert_eq!(receipt.try_recv().unwrap(), Ok(Published { position, receivers: 0, repeated: true }));
    played.hear(r#"{"type":"published","id":3,"receivers":0}"#); // answered already
    assert!(played.session.outgoing.settled.is_empty());
    assert_eq!((played.session.outgoing.len(), played.session.outgoing.bytes()), (0, 0));
}

#[test]
fn what_the_server_puts_off_is_sent_again() {
    let mut played = Played::open();
    played.subscribe("t".into());
    played.said();
    played.hear(r#"{"type":"error","id":2,"code":"rate_limited","message":"wait","retry":20}"#);
    played.pass(Duration::from_millis(19));
    assert!(played.said().is_empty());
    played.pass(Duration::from_millis(1));
    assert_eq!(played.said(), [r#"{"type":"subscribe","id":2,"topic":"t"}"#]);
    // One that nobody wants any more is not.
    played.hear(r#"{"type":"error","id":2,"code":"rate_limited","message":"wait","retry":20}"#);
    assert!(played.with(|session, cx| session.unsubscribe("t", cx)));
    played.hear(r#"{"type":"error","id":3,"code":"not_subscribed","message":"no"}"#);
    played.said();
    played.pass(Duration::from_secs(1));
    assert!(played.said().is_empty() && played.session.asked.is_empty());
}

#[test]
fn a_server_that_puts_a_request_off_for_no_time_or_for_ever_is_asked_at_bounded_intervals() {
    let mut played = Played::open();
    played.subscribe("t".into());
    let put_off = |played: &mut Played, retry: u64| {
        played.said();
        played.hear(&format!(r#"{{"type":"error","id":2,"code":"busy","message":"","retry":{retry}}}"#));
    };
    for least in [10, 20, 40, 80] {
        put_off(&mut played, 0);
        played.pass(Duration::from_millis(least - 1));
        assert!(played.said().is_empty());
        played.pass(Duration::from_millis(1));
        assert_eq!(played.said().len(), 1, "{least} ms");
    }
    put_off(&mut played, (1 << 53) - 1);
    played.pass(Duration::from_secs(60) - Duration::from_millis(1));
    assert!(played.said().iter().all(|text| text == wire::PING));
    played.pass(Duration::from_millis(1));
    assert_eq!(played.said(), [r#"{"type":"subscribe","id":2,"topic":"t"}"#]);
}

#[test]
fn an_answer_of_another_kind_or_without_a_place_is_no_answer() {
    let mut played = Played::open();
    played.subscribe("t".into());
    let receipt = played.publish("x");
    played.events();
    for id in [2, 3] {
        for kind in ["published", "unsubscribed"] {
            played.hear(&format!(r#"{{"type":"{kind}","id":{id}}}"#));
        }
    }
    played.hear(r#"{"type":"error","id":3,"code":"forbidden","message":"it was not sent yet"}"#);
    assert!(played.events().is_empty());
    played.hear(r#"{"type":"subscribed","id":2,"topic":"t","recovered":true,"replayed":1}"#);
    assert!(matches!(&played.events()[..], [Event::Error(Error::Unreadable { .. })]));
    played.hear(SUBSCRIBED);
    assert!(!played.how().lost && receipt.try_recv().is_err());
    assert!(played.said().iter().any(|text| text.contains("publish")), "it follows the subscription");
}

#[test]
fn a_publication_that_is_put_off_holds_those_behind_it_and_no_other_topic() {
    let mut played = Played::open();
    played.publish("one");
    played.hear(r#"{"type":"error","id":1,"code":"rate_limited","message":"","retry":20}"#);
    played.publish("two");
    played.publish("three");
    let other = Publication::text("u", "other");
    played.with(|session, cx| session.publish(&other, Box::new(|_| ()), cx)).unwrap();
    let texts = |played: &mut Played| -> Vec<String> {
        let text = |said: String| {
            said.split(r#""text":""#).nth(1).map(|rest| rest.split('"').next().unwrap().to_owned())
        };
        played.said().into_iter().filter_map(text).collect()
    };
    assert_eq!(texts(&mut played), ["one", "other"]);
    played.pass(Duration::from_millis(20));
    assert_eq!(texts(&mut played), ["one"], "one at a time");
    for (id, next) in [(1, Some("two")), (2, Some("three")), (3, None)] {
        played.hear(&format!(r#"{{"type":"published","id":{id},"receivers":0}}"#));
        assert_eq!(texts(&mut played), Vec::from_iter(next));
    }
}

#[test]
fn a_publication_that_a_later_one_has_overtaken_is_told_and_not_sent_again() {
    let mut played = Played::open();
    let receipts = ["one", "two", "three"].map(|text| played.publish(text));
    played.hear(r#"{"type":"error","id":1,"code":"rate_limited","message":"","retry":20}"#);
    // Answers may come in any order.
    played.hear(r#"{"type":"published","id":3,"receivers":0}"#);
    played.hear(r#"{"type":"error","id":2,"code":"busy","message":"","retry":20}"#);
    played.events();
    let [one, two, three] = receipts.map(|receipt| receipt.try_recv().unwrap());
    assert!(matches!(one, Err(PublishError::Overtaken(fault)) if fault.code == Code::RateLimited));
    assert!(matches!(two, Err(PublishError::Overtaken(fault)) if fault.code == Code::Busy));
    assert!(three.is_ok());
    played.said();
    played.pass(Duration::from_secs(1));
    assert!(played.said().is_empty() && played.session.deadline(false).is_none());

    // Whether the later one was published is not known when the connection breaks.
    let receipts = ["five", "six"].map(|text| played.publish(text));
    played.hear(r#"{"type":"error","id":4,"code":"rate_limited","message":"","retry":20}"#);
    played.pass(Duration::from_millis(20));
    played.session.lost();
    played.greet();
    played.events();
    let [five, six] = receipts;
    assert!(matches!(five.try_recv().unwrap(), Err(PublishError::Overtaken(_))) && six.try_recv().is_err());
}

#[test]
fn no_more_than_32_publications_to_one_topic_are_without_an_answer() {
    let mut played = Played::open();
    for _ in 0..100 {
        played.publish("x");
    }
    assert_eq!(played.said().len(), 32);
    played.hear(r#"{"type":"published","id":9,"receivers":0}"#);
    assert_eq!(played.said().len(), 1);
}

#[test]
fn who_comes_back_to_a_topic_is_heard_after_the_goodbye() {
    let mut played = Played::open();
    played.subscribe("t".into());
    assert!(played.with(|session, cx| session.unsubscribe("t", cx)));
    played.subscribe(Subscription::new("t").latest());
    played.said();
    played.events();
    played.hear(SUBSCRIBED); // the first one
    assert!(played.events().is_empty() && played.said().is_empty());
    played.hear(r#"{"type":"unsubscribed","id":3,"topic":"t"}"#);
    assert_eq!(played.said(), [r#"{"type":"subscribe","id":5,"topic":"t","latest":true}"#]);
    played.hear(
        r#"{"type":"subscribed","id":5,"topic":"t","epoch":"e","offset":14,"recovered":false,"replayed":0}"#,
    );
    assert!(!played.how().lost);
}

#[test]
fn refusals_end_what_they_refuse_and_nothing_else() {
    let mut played = Played::open();
    played.subscribe("t".into());
    played.hear(r#"{"type":"error","id":2,"code":"forbidden","message":"no"}"#);
    assert!(matches!(&played.events()[..],
        [Event::Open(_), Event::Refused { topic, fault }] if topic == "t" && fault.code == Code::Forbidden));
    let receipt = played.publish("x");
    played.hear(r#"{"type":"error","id":3,"code":"too_big","message":"no"}"#);
    let long = played.publish(&"x".repeat(200));
    played.events();
    for refused in [receipt, long] {
        let Err(PublishError::Refused(fault)) = refused.try_recv().unwrap() else { panic!() };
        assert_eq!(fault.code, Code::TooBig);
    }
    assert_eq!(played.said().len(), 2, "what is too long is not sent");
    played.hear(r#"{"type":"error","code":"json","message":"no"}"#);
    played.hear("what?");
    assert!(matches!(
        &played.events()[..],
        [Event::Error(Error::Server(_)), Event::Error(Error::Unreadable { .. })]
    ));
}

#[test]
fn everything_that_waits_has_a_bound_and_an_end() {
    let mut played = Played::new();
    played.session.limits.max_pending = 2;
    played.session.limits.max_subscriptions = 1;
    let first = played.publish("x");
    played.publish("y");
    let publish = |played: &mut Played, publication: &Publication<'_>| {
        played.with(|session, cx| session.publish(publication, Box::new(|_| ()), cx))
    };
    let full = publish(&mut played, &Publication::text("t", "z"));
    assert!(matches!(full, Err(PublishError::Full { pending: 2, .. })));
    played.session.limits.max_pending = 3;
    played.session.limits.max_pending_bytes = 100;
    let full = publish(&mut played, &Publication::text("t", "z"));
    assert!(matches!(full, Err(PublishError::Full { pending: 2, .. })));
    let pattern = publish(&mut played, &Publication::text("t/*", "z"));
    assert!(matches!(pattern, Err(PublishError::Topic(_))));
    played.subscribe("t".into());
    let again = played.with(|session, cx| session.subscribe("t".into(), cx));
    assert!(matches!(again, Err(SubscribeError::Already { .. })));
    let second = played.with(|session, cx| session.subscribe("u".into(), cx));
    assert_eq!(second, Err(SubscribeError::TooMany { limit: 1 }));
    let pattern = played.with(|session, cx| session.subscribe(Subscription::pattern("u/*").last(1), cx));
    assert!(matches!(pattern, Err(SubscribeError::PatternStart { .. })));
    for (wrong, expected) in
        [(Subscription::new("u/*"), "is a pattern"), (Subscription::pattern("u"), "pattern: \"u\"")]
    {
        let refused = played.with(|session, cx| session.subscribe(wrong, cx)).unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
    }
    let limit = Duration::from_secs(10);
    played.pass(limit);
    played.events();
    assert_eq!(first.try_recv().unwrap(), Err(PublishError::Timeout { limit }));
    let last = played.publish("x");
    played.session.closed();
    played.events();
    assert_eq!(last.try_recv().unwrap(), Err(PublishError::Closed));
    assert_eq!(played.session.outgoing.bytes(), 0);
}

#[test]
fn a_silence_is_asked_about_and_then_believed() {
    let mut played = Played::open();
    played.pass(Duration::from_secs(24));
    assert!(played.said().is_empty());
    played.pass(Duration::from_secs(1));
    assert_eq!(played.said(), [wire::PING]);
    played.pass(Duration::from_secs(9));
    played.hear(r#"{"type":"pong"}"#);
    played.pass(Duration::from_secs(25));
    assert_eq!(played.said(), [wire::PING]);
    played.events();
    played.pass(Duration::from_secs(10));
    assert!(played.session.resets);
    assert!(matches!(&played.events()[..], [Event::Error(Error::PongTimeout { .. })]));

    // Nor does the server keep its hello to itself, whatever else it says.
    for text in [r#"{"type":"message","topic":"t","offset":1,"data":1}"#, r#"{"type":"pong"}"#, "?"] {
        let mut played = Played::new();
        played.session.opened(played.now);
        played.now += Duration::from_secs(9);
        played.hear(text);
        assert!(!played.session.resets);
        played.now += Duration::from_secs(1);
        played.hear(text);
        assert!(played.session.resets, "{text}");
    }
    let mut played = Played::new();
    played.session.opened(played.now);
    played.pass(Duration::from_secs(10));
    assert!(played.session.resets);
    assert!(matches!(&played.events()[..], [Event::Error(Error::HelloTimeout { .. })]));
}

#[test]
fn what_the_socket_does_not_take_is_tried_again() {
    let mut played = Played::open();
    played.takes = false;
    played.subscribe("t".into());
    played.pass(FULL);
    played.takes = true;
    played.pass(FULL);
    assert_eq!(played.said(), [r#"{"type":"subscribe","id":2,"topic":"t"}"#]);
    played.hear(SUBSCRIBED);
    played.takes = false;
    played.publish("x");
    played.takes = true;
    played.publish("y");
    assert!(played.said().is_empty(), "the order is kept");
    played.pass(FULL);
    let said = played.said();
    assert!(said.len() == 2 && said[0].contains("\"x\"") && said[1].contains("\"y\""), "{said:?}");
    played.pass(FULL);
    assert!(played.said().is_empty());
}

#[test]
fn a_pattern_hears_what_no_subscription_by_name_does() {
    let mut played = Played::open();
    played.subscribe(Subscription::pattern("a/*"));
    assert_eq!(played.said(), [r#"{"type":"subscribe","id":2,"pattern":"a/*"}"#]);
    played.hear(r#"{"type":"subscribed","id":2,"pattern":"a/*","recovered":false,"replayed":0}"#);
    played.events();
    played.hear(r#"{"type":"message","topic":"a/b","offset":7,"text":"x"}"#);
    played.hear(r#"{"type":"message","topic":"b/b","offset":7,"text":"x"}"#);
    assert!(matches!(&played.events()[..],
        [Event::Message(message)] if &*message.topic == "a/b" && message.position().is_none()));
    played.session.lost();
    played.greet();
    played.events();
    played.hear(r#"{"type":"subscribed","id":3,"pattern":"a/*","recovered":false,"replayed":0}"#);
    assert!(played.how().lost);
}

#[test]
fn all_that_a_server_makes_long_counts_while_it_waits() {
    let mut played = Played::open();
    played.with(|session, cx| session.subscribe(Subscription::new("a"), cx)).unwrap();
    played.session.events.clear();
    let long = "x".repeat(1000);
    for text in [
        format!(r#"{{"type":"error","code":"x","message":"{long}"}}"#),
        format!(r#"{{"type":"error","code":"{long}","message":""}}"#),
        format!(r#"{{"type":"lagged","messages":"{long}"}}"#),
        format!(r#"{{"type":"error","id":2,"code":"x","message":"{long}"}}"#),
    ] {
        played.hear(&text);
        let weight: usize = played.session.events.drain(..).map(|event| event.weight()).sum();
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
    fn a_server_may_say_anything(
        messages in proptest::collection::vec(prop_oneof![1 => any::<String>(), 1 => honest().prop_map(|m| m.to_string()), 5 => mutated()], 0..40),
        bytes in any::<Vec<u8>>(),
        wait in 0u64..100_000,
    ) {
        let mut played = Played::open();
        played.subscribe("t".into());
        played.subscribe(Subscription::pattern("p/*"));
        let receipt = played.publish("x");
        for message in &messages {
            played.hear(message);
            let incoming = wire::parse_binary([&[1, 1], &bytes[..]].concat());
            played.with(|session, cx| session.received(incoming, cx));
        }
        played.pass(Duration::from_millis(wait));
        let refused = |event: &Event| matches!(event, Event::Refused { .. });
        let ended = played.events().iter().filter(|event| refused(event)).count();
        played.session.lost();
        played.said();
        played.greet();
        let asked: Vec<Value> = played.said().iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        prop_assert_eq!(asked.iter().filter(|request| request["type"] == "subscribe").count() + ended, 2);
        for request in asked {
            let (id, topic) = (&request["id"], &request["topic"]);
            played.hear(&json!({"type": "subscribed", "id": id, "topic": topic, "epoch": "f", "offset": 3, "recovered": false, "replayed": 0}).to_string());
        }
        played.events();
        for topic in ["t", "p/x"] {
            played.hear(&json!({"type": "message", "topic": topic, "offset": 4, "data": 1}).to_string());
        }
        prop_assert_eq!(played.offsets().len() + ended, 2);
        played.session.closed();
        played.events();
        prop_assert!(receipt.try_recv().is_ok(), "it has an answer or an end");
    }
}

/// A hostile server chooses the name and the number of messages in a frame: 600,000 with 255 bytes each are 16 MiB.
#[test]
fn messages_that_came_as_one_share_their_topic() {
    let mut played = Played::open();
    played.subscribe("t".into());
    played.hear(SUBSCRIBED);
    played.events();
    played.hear(
        r#"{"type":"messages","topic":"t","messages":[{"offset":15,"text":""},{"offset":16,"text":""}]}"#,
    );
    let events = played.events();
    let [Event::Message(one), Event::Message(two)] = &events[..] else { panic!("{events:?}") };
    assert!(Arc::ptr_eq(&one.topic, &two.topic));
}
