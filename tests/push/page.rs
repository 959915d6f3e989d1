//! docs/reference/protocol.md is what the endpoint for browsers does: every error code comes up, every example is taken or given.

use crate::support::push::{OFFER, Page, Value, json};
use crate::support::{TEXT, TestServer, builder, frame, limits, start, until};
use campanile::push::Push;
use campanile::{Message, Publish, Route, SlowConsumer, TopicSettings};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/protocol.md");
    std::fs::read_to_string(path).expect("the page is there")
}

/// What stands in the first column of the tables below a heading, without the backticks.
fn column(heading: &str) -> BTreeSet<String> {
    let page = page();
    let (_, after) = page.split_once(heading).expect("the heading is there");
    let section = after.split("\n## ").next().unwrap_or_default();
    let cells = section.lines().filter_map(|l| l.strip_prefix("| `")?.split_once("` |"));
    cells.map(|(cell, _)| cell.to_owned()).collect()
}

/// All objects in the page's JSON.
fn examples() -> Vec<Value> {
    let page = page();
    let blocks = page.split("```json\n").skip(1).map(|b| b.split("```").next().unwrap_or_default());
    let values =
        blocks.flat_map(|b| serde_json::Deserializer::from_str(b).into_iter::<Value>().collect::<Vec<_>>());
    values.map(|value| value.expect("an example is JSON")).collect()
}

/// A topic that takes one message each second, and three at once.
const SLOW: &str = "public/slow";

/// Publishes to that topic until it refuses.
fn too_fast(page: &mut Page) -> Value {
    let publish = json!({"type": "publish", "id": 1, "topic": SLOW, "text": "x"});
    (0..100).map(|_| page.ask(&publish)).find(|answer| answer["type"] == "error").expect("a refusal")
}

fn serve(push: Push) -> TestServer {
    let settings = TopicSettings::new().history(10).max_message_size(1000);
    let slow = TopicSettings::new().history(10).rate(1, 3);
    let builder = builder().workers(2).topics("public/", settings).topics(SLOW, slow);
    start(builder.route("/push", push.publish(["public/"])))
}

/// Two requests in one write, of which the second overtakes the topic's home.
fn cancelled(server: &TestServer) -> Value {
    for n in 0..1000 {
        let mut page = Page::open(server);
        let topic = format!("topic {n}");
        let mut both = Vec::new();
        for (id, kind) in [(1, "subscribe"), (2, "unsubscribe")] {
            let request = json!({"type": kind, "id": id, "topic": topic});
            both.extend(frame(true, TEXT, request.to_string().as_bytes()));
        }
        page.0.send(both);
        let (first, second) = (page.next(), page.next());
        assert_eq!(second, json!({"type": "unsubscribed", "id": 2, "topic": topic}));
        page.0.expect_nothing_until_pong();
        if first["type"] == "error" {
            assert_eq!(first["id"], 1);
            return first;
        }
    }
    panic!("the home was always first");
}

/// More publications than a mailbox takes.
fn busy() -> Value {
    let server = start(builder().mailbox(1).route("/push", Push::new().subscribe([""]).publish([""])));
    for _ in 0..1000 {
        let mut page = Page::open(&server);
        let mut all = Vec::new();
        for id in 0..20 {
            let request = json!({"type": "publish", "id": id, "topic": "a", "data": id});
            all.extend(frame(true, TEXT, request.to_string().as_bytes()));
        }
        page.0.send(all);
        let answers: Vec<Value> = (0..20).map(|_| page.next()).collect();
        if let Some(error) = answers.into_iter().find(|a| a["type"] == "error") {
            return error;
        }
    }
    panic!("the mailbox was never full");
}

#[test]
fn every_documented_error_code_occurs() {
    let server = serve(Push::new().subscribe(["public/", "topic "]).rate(0, 0).max_subscriptions(2));
    let mut page = Page::open(&server);
    let mut errors = Vec::new();
    page.0.text("{");
    errors.push(page.next());
    page.0.binary(b"{}");
    errors.push(page.next());
    let long = "x".repeat(256);
    page.subscribe("public/a");
    for (request, code) in [
        (json!({"type": "subscribe", "id": 1}), "invalid"),
        (json!({"type": "dance", "id": 1}), "type"),
        (json!({"type": "subscribe", "id": 1, "topic": ""}), "topic"),
        (json!({"type": "subscribe", "id": 1, "topic": long}), "topic"),
        (json!({"type": "subscribe", "id": 1, "topic": "public/\n"}), "topic"),
        (json!({"type": "subscribe", "id": 1, "topic": "public/\u{85}"}), "topic"),
        (json!({"type": "publish", "id": 1, "topic": "public/*", "data": 1}), "topic"),
        (json!({"type": "subscribe", "id": 1, "topic": "secret"}), "forbidden"),
        (json!({"type": "subscribe", "id": 1, "topic": "public/*"}), "topic"),
        (json!({"type": "unsubscribe", "id": 1, "topic": "public/*"}), "topic"),
        (json!({"type": "subscribe", "id": 1, "pattern": "public"}), "pattern"),
        (json!({"type": "subscribe", "id": 1, "pattern": "public/\u{85}/*"}), "pattern"),
        (json!({"type": "subscribe", "id": 1, "topic": "public/a", "pattern": "public/*"}), "invalid"),
        (json!({"type": "subscribe", "id": 1, "pattern": "secret/*"}), "forbidden"),
        (json!({"type": "publish", "id": 1, "topic": "topic x", "data": 1}), "forbidden"),
        (json!({"type": "subscribe", "id": 1, "topic": "public/a"}), "already"),
        (json!({"type": "unsubscribe", "id": 1, "topic": "public/b"}), "not_subscribed"),
        (json!({"type": "publish", "id": 1, "topic": "public/a", "text": "x".repeat(1001)}), "too_big"),
    ] {
        errors.push(page.refused(&request, code));
    }
    page.subscribe("public/b");
    for full in [json!({"topic": "public/c"}), json!({"pattern": "public/*"})] {
        let mut request = json!({"type": "subscribe", "id": 1});
        request.as_object_mut().unwrap().extend(full.as_object().unwrap().clone());
        errors.push(page.refused(&request, "subscriptions"));
    }
    errors.push(cancelled(&server));
    errors.push(busy());
    assert_eq!(errors.last().unwrap()["retry"], 100);

    let error = too_fast(&mut page);
    let wait = error["retry"].as_u64().expect("when to try again");
    assert!((1..=1000).contains(&wait), "{error}");
    let publish = json!({"type": "publish", "id": 1, "topic": SLOW, "text": "x"});
    until("it takes messages again", || page.ask(&publish)["type"] == "published");
    errors.push(error);

    let mut codes = BTreeSet::new();
    for error in errors {
        assert_eq!(error["type"], "error");
        assert!(error["message"].as_str().is_some_and(|m| m.len() > 10), "{error}");
        let may_retry = ["rate_limited", "busy"].contains(&error["code"].as_str().unwrap());
        assert_eq!(error.get("retry").is_some(), may_retry, "{error}");
        codes.insert(error["code"].as_str().unwrap().to_owned());
    }
    assert_eq!(codes, column("\n## Error codes"));
}

/// The members of a message and their kinds of value, by its type.
type Shapes = BTreeMap<String, BTreeSet<(String, &'static str)>>;

fn note(shapes: &mut Shapes, message: &Value) {
    let members = message.as_object().expect("a message is an object");
    let kind = message["type"].as_str().expect("it has a type");
    let shape = shapes.entry(kind.to_owned()).or_default();
    for (name, value) in members {
        let kind = match value {
            _ if name == "data" => "any",
            Value::String(_) => "string",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "integer",
            _ => "other",
        };
        shape.insert((name.clone(), kind));
    }
}

#[test]
fn the_examples_of_the_protocol_page_are_correct() {
    const REQUESTS: [&str; 4] = ["subscribe", "unsubscribe", "publish", "ping"];
    let (asked, said): (Vec<Value>, Vec<Value>) =
        examples().into_iter().partition(|e| REQUESTS.contains(&e["type"].as_str().unwrap_or_default()));
    assert!(asked.len() >= 8 && said.len() >= 12, "the examples are gone, or this test has lost them");

    let server = serve(Push::new().subscribe([""]));
    let (mut page, hello) = Page::over(server.dial());
    let mut shapes = Shapes::new();
    note(&mut shapes, &hello);
    for request in &asked {
        let answer = page.ask(request);
        note(&mut shapes, &answer);
        assert!(answer.get("code").is_none_or(|code| code == "already"), "{request}: {answer}");
    }
    // What those did not bring up.
    let mut page = Page::open(&server);
    let publish = json!({"type": "publish", "id": 1, "topic": "public/x", "data": 1, "idempotency_key": "1"});
    for request in [&publish, &publish, &json!({"type": "dance", "id": 1})] {
        note(&mut shapes, &page.ask(request));
    }
    page.subscribe("public/x");
    server.handle.publish("public/x", "text").unwrap();
    note(&mut shapes, &page.next());
    server.handle.publish("public/x", Message::json("1")).unwrap();
    note(&mut shapes, &page.next());
    note(&mut shapes, &too_fast(&mut page));
    note(&mut shapes, &lagged());
    note(&mut shapes, &batch(&server));

    let mut shown = Shapes::new();
    said.iter().for_each(|message| note(&mut shown, message));
    assert_eq!(shapes, shown);
}

/// Several messages as one.
fn batch(server: &TestServer) -> Value {
    let mut client = server.dial();
    assert_eq!(client.ask("/push?batch=true", OFFER).status, 101);
    let mut page = Page(client);
    assert_eq!(page.next()["type"], "hello");
    page.subscribe("public/batch");
    server.handle.publish_batch([1, 2].map(|_| Publish::new("public/batch", "x"))).unwrap();
    page.next()
}

fn lagged() -> Value {
    let route = Route::from(Push::new().subscribe([""])).limits(limits(|l| l.max_backlog = 16 << 10));
    let server = start(builder().route("/push", route.slow_consumer(SlowConsumer::DropOldest)));
    let mut page = Page::open_slow(&server);
    page.subscribe("a");
    let text = "x".repeat(100 << 10);
    for _ in 0..100 {
        server.handle.publish_within(Publish::new("a", &*text), Duration::from_secs(5)).unwrap();
    }
    server.until("some are given up", |s| s.dropped > 0);
    loop {
        let next = page.next();
        if next["type"] != "message" {
            return next;
        }
    }
}
