//! Publishing over HTTP: every operation, every refusal, and who is let in.

use crate::support;
use crate::support::data;
#[cfg(feature = "push")]
use crate::support::push;
use crate::support::{Answer, Client, DEADLINE, Events, TestServer, builder, recorder, start, start_built};
use campanile::api::{Api, InvalidKey};
use campanile::{BuildError, Builder, TopicSettings};
use serde_json::{Value, json};
use std::process::Command;

fn kept() -> TopicSettings {
    TopicSettings::new().history(5).max_message_size(1000)
}

fn routes(builder: Builder) -> (Builder, Events) {
    let (handler, events) = recorder();
    (builder.topics("kept/", kept()).route("/", handler), events)
}

fn serve(workers: usize) -> (TestServer, Events) {
    let (builder, events) = routes(builder().workers(workers));
    (start(Api::new().without_key().mount(builder)), events)
}

fn post_with(client: &mut Client, path: &str, more: &str, body: &str) -> Answer {
    let len = body.len();
    client.send(format!(
        "POST {path} HTTP/1.1\r\nHost: localhost:9001\r\nContent-Length: {len}\r\n{more}\r\n{body}"
    ));
    client.answer()
}

const JSON: &str = "Content-Type: application/json\r\n";

fn post(client: &mut Client, path: &str, body: &Value) -> (u16, Value) {
    let answer = post_with(client, path, JSON, &body.to_string());
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    (answer.status, serde_json::from_slice(&answer.body).unwrap())
}

fn get(client: &mut Client, path: &str) -> (u16, Value) {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    let answer = client.answer();
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    (answer.status, serde_json::from_slice(&answer.body).unwrap())
}

/// The refusal of a request: its status and code, with these words in its message.
#[track_caller]
fn refused((status, body): (u16, Value), expected: (u16, &str), words: &str) {
    assert_eq!((status, body["code"].as_str().unwrap_or_default()), expected, "{body}");
    assert!(body["message"].as_str().is_some_and(|m| m.contains(words)), "{body}");
}

/// A listener to these topics, and its id.
fn listener(server: &TestServer, events: &Events, topics: &[&str]) -> (Client, String) {
    let client = server.open("/");
    let id = events.opened();
    for topic in topics {
        server.handle.subscribe(id, topic).unwrap();
    }
    server.settle();
    server.settle(); // the homes have been told
    (client, id.to_string())
}

#[test]
fn publish_answers_with_the_position() {
    for workers in [1, 3] {
        let (server, events) = serve(workers);
        let (mut listening, _) = listener(&server, &events, &["room"]);
        let mut client = server.dial();
        let (status, first) = post(&mut client, "/api/publish", &json!({"topic": "room", "text": "hello"}));
        assert_eq!((status, &first["receivers"], first.get("repeated")), (200, &json!(1), None));
        assert_eq!(first["offset"], 1);
        assert_eq!(listening.read_text(), "hello");
        let (_, second) =
            post(&mut client, "/api/publish", &json!({"topic": "room", "base64": "AAH/", "key": "k"}));
        assert_eq!((&second["offset"], &second["epoch"]), (&json!(2), &first["epoch"]));
        assert_eq!(listening.read_binary(), [0, 1, 255]);
        assert_eq!(
            post(&mut client, "/api/publish", &json!({"topic": "nobody", "text": ""})),
            (200, json!({"receivers": 0}))
        );
        let once = json!({"topic": "kept/a", "text": "once", "idempotency_key": "1", "ttl": 60_000.0});
        let (_, first) = post(&mut client, "/api/publish", &once);
        let (_, again) = post(&mut client, "/api/publish", &once);
        assert_eq!((first.get("repeated"), again.get("repeated")), (None, Some(&json!(true))));
        assert_eq!(first["offset"], again["offset"]);
        assert_eq!(server.handle.stats().accepted, 2, "the connection was kept");
    }
}

#[test]
fn a_rate_limited_topic_answers_429_with_retry_after() {
    let (builder, _) = routes(builder());
    let server = start(Api::new().without_key().mount(builder.topics("slow/", kept().rate(1, 2))));
    let mut client = server.dial();
    let message = json!({"topic": "slow/a", "text": "x", "tags": ["a", "b"]});
    for _ in 0..2 {
        assert_eq!(post(&mut client, "/api/publish", &message).0, 200);
    }
    let answer = post_with(&mut client, "/api/publish", JSON, &message.to_string());
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("1")));
    refused(post(&mut client, "/api/publish", &message), (429, "rate_limited"), "wait ");
    let (status, body) =
        post(&mut client, "/api/batch", &json!({"messages": [{"topic": "kept/a", "text": "x"}, message]}));
    assert_eq!(
        (status, &body["results"][0]["offset"], &body["results"][1]["code"]),
        (429, &json!(1), &json!("rate_limited"))
    );
}

#[test]
fn data_is_delivered_byte_for_byte() {
    let (server, events) = serve(1);
    let (mut listening, _) = listener(&server, &events, &["room"]);
    let mut client = server.dial();
    for data in ["null", "1.50", r#"{"b": [1,  2],"a":"\u00e9"}"#, "\"text\"", "[]"] {
        let body = format!(r#"{{"topic":"room","data":{data}}}"#);
        assert_eq!(post_with(&mut client, "/api/publish", JSON, &body).status, 200, "{data}");
        assert_eq!(listening.read_text(), data);
    }
}

#[test]
fn data_has_the_limits_of_the_push_protocol() {
    let (server, events) = serve(1);
    let (mut listening, _) = listener(&server, &events, &["room"]);
    let mut client = server.dial();
    let bodies = |data: &str| {
        let batch =
            format!(r#"{{"messages":[{{"topic":"room","text":"good"}},{{"topic":"room","data":{data}}}]}}"#);
        [
            ("publish", format!(r#"{{"topic":"room","data":{data}}}"#)),
            ("broadcast", format!(r#"{{"topics":["room"],"data":{data}}}"#)),
            ("batch", batch),
        ]
    };
    for data in data::taken() {
        for (what, body) in bodies(&data) {
            let answer = post_with(&mut client, &format!("/api/{what}"), JSON, &body);
            assert_eq!(answer.status, 200, "{body}: {answer:?}");
            if what == "batch" {
                assert_eq!(listening.read_text(), "good");
            }
            assert_eq!(listening.read_text(), data);
        }
    }
    for data in data::refused() {
        for (what, body) in bodies(&data) {
            let answer = post_with(&mut client, &format!("/api/{what}"), JSON, &body);
            let value = serde_json::from_slice(&answer.body).unwrap_or_else(|e| panic!("{e}: {body}"));
            refused((answer.status, value), (400, "json"), "JSON");
        }
    }
    let nested =
        format!(r#"{{"messages":[{{"topic":"room","data":{0}1{1}}}]}}"#, "[".repeat(127), "]".repeat(127));
    let answer = post_with(&mut client, "/api/batch", JSON, &nested);
    let words = "messages[0]: data: expected JSON that every client can read: nested in more than 126 levels";
    refused((answer.status, serde_json::from_slice(&answer.body).unwrap()), (400, "json"), words);
    listening.expect_nothing_until_pong();
}

#[test]
fn batch_publishes_in_order() {
    for workers in [1, 3] {
        let (server, events) = serve(workers);
        let (mut listening, _) = listener(&server, &events, &["a", "b"]);
        let mut client = server.dial();
        let messages: Vec<_> = (0..20).map(|n| json!({"topic": "a", "text": n.to_string()})).collect();
        let (status, body) = post(&mut client, "/api/batch", &json!({"messages": messages}));
        assert_eq!(status, 200);
        let offsets: Vec<_> =
            body["results"].as_array().unwrap().iter().map(|r| r["offset"].as_u64()).collect();
        assert_eq!(offsets, (1..=20).map(Some).collect::<Vec<_>>());
        for n in 0..20 {
            assert_eq!(listening.read_text(), n.to_string());
        }
        let topics = json!({"topics": ["a", "nobody", "b"], "text": "to both"});
        let (status, body) = post(&mut client, "/api/broadcast", &topics);
        assert_eq!((status, &body["results"][1]), (200, &json!({"receivers": 0})));
        assert_eq!((&body["results"][0]["offset"], &body["results"][2]["offset"]), (&json!(21), &json!(1)));
        assert_eq!([listening.read_text(), listening.read_text()], ["to both", "to both"]);
    }
}

#[test]
fn a_batch_is_checked_before_anything_is_published() {
    let (server, events) = serve(1);
    let (mut listening, _) = listener(&server, &events, &["a"]);
    let mut client = server.dial();
    let good = json!({"topic": "a", "text": "x"});
    for (bad, words) in [
        (json!({"topic": "a/*", "text": "x"}), "messages[1]: topic: \"a/*\" is a pattern"),
        (json!({"topic": "a"}), "messages[1]: message: missing"),
        (json!({"topic": 1, "text": "x"}), "messages[1].topic: expected a string, got 1"),
    ] {
        let answer = post(&mut client, "/api/batch", &json!({"messages": [good, bad]}));
        assert_eq!(answer.0, 400);
        assert!(answer.1["message"].as_str().unwrap().contains(words), "{}", answer.1);
    }
    let long = json!({"topic": "kept/a", "text": "x".repeat(1001)});
    refused(
        post(&mut client, "/api/batch", &json!({"messages": [good, long]})),
        (413, "too_big"),
        "messages[1]: ",
    );
    let topics = json!({"topics": ["a", ""], "text": "x"});
    refused(post(&mut client, "/api/broadcast", &topics), (400, "topic"), "topics[1]: ");
    listening.expect_nothing_until_pong();
}

#[test]
fn errors_name_the_field_and_its_value() {
    let (server, _events) = serve(1);
    let mut client = server.dial();
    for (path, body, code, words) in [
        ("publish", r#"{"topic":"a""#, "json", "body: expected JSON"),
        ("publish", "", "json", "body: expected JSON"),
        ("publish", "[]", "invalid", "body: expected an object, got []"),
        ("publish", r#"{"text":"x"}"#, "invalid", "topic: missing"),
        ("publish", r#"{"topic":"a"}"#, "invalid", "message: missing"),
        ("publish", r#"{"topic":"a","text":"x","data":1}"#, "invalid", "only one of"),
        ("publish", r#"{"topic":"a","text":null}"#, "invalid", "text: expected a string, got null"),
        ("publish", r#"{"topic":"a","text":"x","ttl":0}"#, "invalid", "ttl: "),
        ("publish", r#"{"topic":"a","text":"x","ttl":4294967296}"#, "invalid", "got 4294967296"),
        (
            "publish",
            r#"{"topic":"a","text":"x","idempotency_key":""}"#,
            "invalid",
            "idempotency_key: expected 1 to 255 bytes, got 0",
        ),
        ("publish", r#"{"topic":"a","text":"x","more":1}"#, "invalid", "more: not a field"),
        ("publish", r#"{"topics":["a"],"text":"x"}"#, "invalid", "topics: not a field"),
        ("publish", r#"{"topic":"a","base64":"AB"}"#, "invalid", "base64"),
        ("publish", r#"{"topic":"","text":"x"}"#, "topic", "1 to 255 bytes"),
        ("publish", r#"{"topic":"a/*","text":"x"}"#, "topic", "\"a/*\""),
        ("publish", "{\"topic\":\"a\",\"text\":\"\u{1}\"}", "json", "control character"),
        ("batch", r#"{"messages":[["a",null,"x"]]}"#, "invalid", "messages[0]: expected an object, got ["),
        ("batch", r#"{"messages":[]}"#, "invalid", "1 to 1000 members, got 0"),
        ("batch", r#"{"messages":{}}"#, "invalid", "an array of messages, got {}"),
        ("broadcast", r#"{"topics":[],"text":"x"}"#, "invalid", "1 to 1000 members, got 0"),
        ("broadcast", r#"{"topics":[1],"text":"x"}"#, "invalid", "an array of strings, got [1]"),
        ("subscribe", r#"{"connection":"7","topic":"a"}"#, "invalid", "\"7\""),
        ("subscribe", r#"{"connection":"0.0.1"}"#, "invalid", "topic: missing"),
        ("subscribe", r#"{"connection":"0.0.1","topic":"a","code":1000}"#, "invalid", "code: not a field"),
        ("subscribe", r#"{"connection":"0.0.1","topic":"\u0000"}"#, "topic", "control"),
        ("subscribe", r#"{"connection":"0.0.1","topic":"\u0085"}"#, "topic", "U+0085"),
        ("subscribe", r#"{"connection":"0.0.1","topic":"users/*"}"#, "topic", "is a pattern"),
        ("unsubscribe", r#"{"connection":"0.0.1","topic":"users/*"}"#, "topic", "is a pattern"),
        ("subscribe", r#"{"connection":"0.0.1","pattern":"users"}"#, "pattern", "ticks/*"),
        ("subscribe", r#"{"connection":"0.0.1","topic":"a","pattern":"a/*"}"#, "invalid", "exclude"),
        ("close", r#"{"connection":"0.0.1","code":999}"#, "invalid", "got 999"),
        ("close", r#"{"connection":"0.0.1","topic":"a"}"#, "invalid", "topic: not a field"),
    ] {
        let answer = post_with(&mut client, &format!("/api/{path}"), JSON, body);
        let value = serde_json::from_slice(&answer.body).unwrap_or_else(|e| panic!("{e}: {body}"));
        refused((answer.status, value), (400, code), words);
    }
    for (path, words) in [
        ("topics?limit=0", "got 0"),
        ("topics?limit=1001", "got \"1001\""),
        ("topics?limit=many", "limit: expected an integer from 0 to 1000, got \"many\""),
        ("topics?page=2", "page: not a parameter"),
        ("topics?limit=1&limit=2", "twice"),
        ("history", "topic: missing"),
        ("history?topic=a&since=12", "EPOCH:OFFSET, such as 18f2a6c0b1:12, got \"12\""),
        ("history?topic=a&since=1:-1", "got \"1:-1\""),
        ("history?topic=a&since=none:1", "got \"none:1\""),
    ] {
        refused(get(&mut client, &format!("/api/{path}")), (400, "invalid"), words);
    }
    refused(get(&mut client, "/api/history?topic="), (400, "topic"), "1 to 255 bytes");
    refused(
        get(&mut client, "/api/history?topic=nothing"),
        (404, "not_found"),
        "neither subscribers nor history",
    );
    refused(get(&mut client, "/api/none"), (404, "not_found"), "openapi");
    let long = json!({"topic": "kept/a", "text": "x".repeat(1001)});
    refused(post(&mut client, "/api/publish", &long), (413, "too_big"), "1001 bytes");
    refused(get(&mut client, "/api/publish"), (405, "method"), "POST");
    client.send("GET /api/publish HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.answer().header("allow"), Some("POST"));
    client.send("DELETE /api/info HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.answer().header("allow"), Some("GET, HEAD"));
    assert_eq!(server.handle.stats().panics, 0);
}

#[test]
fn a_connection_is_subscribed_unsubscribed_and_closed_by_its_id() {
    for workers in [1, 2] {
        let (server, events) = serve(workers);
        let (mut listening, id) = listener(&server, &events, &[]);
        let mut client = server.dial();
        let room = json!({"connection": id, "topic": "room"});
        for _ in 0..2 {
            assert_eq!(post(&mut client, "/api/subscribe", &room), (200, json!({"subscribed": true})));
        }
        let say = json!({"topic": "room", "text": "hello"});
        assert_eq!(post(&mut client, "/api/publish", &say).1["receivers"], 1);
        assert_eq!(listening.read_text(), "hello");
        assert_eq!(post(&mut client, "/api/unsubscribe", &room), (200, json!({"subscribed": false})));
        listening.expect_nothing_until_pong();
        let rooms = json!({"connection": id, "pattern": "rooms/*"});
        assert_eq!(post(&mut client, "/api/subscribe", &rooms), (200, json!({"subscribed": true})));
        let say = json!({"topic": "rooms/7", "text": "hello, all"});
        assert_eq!(post(&mut client, "/api/publish", &say).1["receivers"], 1);
        assert_eq!(listening.read_text(), "hello, all");
        assert_eq!(post(&mut client, "/api/unsubscribe", &rooms), (200, json!({"subscribed": false})));
        post(&mut client, "/api/publish", &say);
        listening.expect_nothing_until_pong();
        let bye = json!({"connection": id, "code": 4001, "reason": "logged out"});
        assert_eq!(post(&mut client, "/api/close", &bye), (200, json!({"closed": true})));
        assert_eq!(listening.read_close(), (4001, "logged out".to_owned()));
        listening.close(4001, "");
        listening.expect_eof();
        events.closed();
        for path in ["/api/subscribe", "/api/unsubscribe"] {
            refused(post(&mut client, path, &room), (404, "gone"), &id);
        }
        refused(post(&mut client, "/api/close", &bye), (404, "gone"), &id);
        let nowhere = json!({"connection": "900.0.1"});
        refused(post(&mut client, "/api/close", &nowhere), (404, "gone"), "900.0.1");
        let nowhere = json!({"connection": "200.0.1"});
        refused(post(&mut client, "/api/close", &nowhere), (404, "gone"), "200.0.1");
    }
}

#[cfg(feature = "push")]
#[test]
fn the_connection_of_hello_is_the_connection_of_the_api() {
    for workers in [1, 2] {
        // Pages may not ask for anything themselves.
        let push = campanile::push::Push::new().subscribe([] as [&str; 0]);
        let server = start(Api::new().without_key().mount(builder().workers(workers).route("/push", push)));
        let mut client = server.dial();
        for (mut page, hello) in (0..4).map(|_| push::Page::over(server.dial())) {
            let connection = hello["connection"].as_str().unwrap();
            let topic = format!("users/{connection}");
            let request = json!({"type": "subscribe", "id": 1, "topic": topic});
            page.refused(&request, "forbidden");
            let users = json!({"connection": connection, "topic": topic});
            assert_eq!(post(&mut client, "/api/subscribe", &users), (200, json!({"subscribed": true})));
            let unread = json!({"topic": topic, "data": {"unread": 3}});
            assert_eq!(post(&mut client, "/api/publish", &unread).1["receivers"], 1);
            page.expect(&json!({"type": "message", "topic": topic, "offset": 1, "data": {"unread": 3}}));
            let bye = json!({"connection": connection, "code": 4001, "reason": "logged out"});
            assert_eq!(post(&mut client, "/api/close", &bye), (200, json!({"closed": true})));
            assert_eq!(page.0.read_close(), (4001, "logged out".to_owned()));
        }
    }
}

#[test]
fn subscribe_over_the_limit_answers_409() {
    let (handler, events) = recorder();
    let limits = support::limits(|l| l.max_subscriptions = 1);
    let route = campanile::Route::new(handler).limits(limits);
    let server = start(Api::new().without_key().mount(builder().route("/", route)));
    let (_listening, id) = listener(&server, &events, &["one"]);
    let mut client = server.dial();
    let more = json!({"connection": id, "topic": "two"});
    refused(post(&mut client, "/api/subscribe", &more), (409, "subscriptions"), "limit of the connection");
}

#[test]
fn topics_and_history_can_be_queried() {
    let (server, events) = serve(2);
    let (_listening, _) = listener(&server, &events, &["kept/b", "room"]);
    let mut client = server.dial();
    for n in 1..=7 {
        let publish = json!({"topic": "kept/a", "text": n.to_string()});
        assert_eq!(post(&mut client, "/api/publish", &publish).0, 200);
    }
    let (_, last) = post(&mut client, "/api/publish", &json!({"topic": "kept/a", "base64": "AAE="}));
    let epoch = last["epoch"].as_str().unwrap().to_owned();
    let (status, body) = get(&mut client, "/api/topics?prefix=kept%2F");
    assert_eq!((status, &body["more"]), (200, &json!(false)));
    assert_eq!(
        body["topics"][0],
        json!({"topic": "kept/a", "subscribers": 0, "history": 5, "epoch": epoch, "offset": 8})
    );
    assert_eq!(
        (&body["topics"][1]["topic"], &body["topics"][1]["subscribers"]),
        (&json!("kept/b"), &json!(1))
    );
    assert_eq!(get(&mut client, "/api/topics?limit=1").1["more"], json!(true));
    let (_, newest) = get(&mut client, "/api/history?topic=kept/a&limit=2");
    assert_eq!(
        newest,
        json!({"topic": "kept/a", "epoch": epoch, "offset": 8, "recovered": false, "more": false,
               "messages": [{"offset": 7, "text": "7"}, {"offset": 8, "base64": "AAE="}]})
    );
    let mut read = |offset: u64, epoch: &str| {
        let path = format!("/api/history?topic=kept/a&since={epoch}:{offset}&limit=2");
        let (_, page) = get(&mut client, &path);
        (page["recovered"] == true, page["messages"].as_array().unwrap().len(), page["more"] == true)
    };
    assert_eq!(read(4, &epoch), (true, 2, true));
    assert_eq!(read(6, &epoch), (true, 2, false));
    assert_eq!(read(8, &epoch), (true, 0, false));
    assert_eq!(read(2, &epoch), (false, 0, false));
    assert_eq!(read(4, "1"), (false, 0, false));
    assert_eq!(read(u64::MAX, &epoch), (false, 0, false));
    let (_, info) = get(&mut client, "/api/info");
    assert_eq!((&info["version"], &info["connections"]), (&json!(env!("CARGO_PKG_VERSION")), &json!(1)));
    assert_eq!((&info["workers"], &info["stats"]["open"]), (&json!(2), &json!(1)));
}

#[test]
fn an_overloaded_server_answers_503_with_retry_after() {
    // The API of a server whose worker does nothing yet, so that its mailbox is full at once.
    let (builder, _events) = routes(builder().mailbox(1).listen("127.0.0.1:0"));
    let stuck = builder.build().unwrap();
    let server = start(Api::new().without_key().for_server(stuck.handle()).mount(support::builder()));
    stuck.handle().publish("kept/a", "fills it").unwrap();
    let mut client = server.dial();
    let body = json!({"topic": "kept/a", "text": "x"}).to_string();
    let answer = post_with(&mut client, "/api/publish", JSON, &body);
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert!(answer.text().contains("\"busy\""), "{}", answer.text());
    let batch = json!({"messages": [{"topic": "kept/a", "text": "x"}]});
    let (status, body) = post(&mut client, "/api/batch", &batch);
    assert_eq!((status, &body["code"], &body["results"][0]["code"]), (503, &json!("busy"), &json!("busy")));
    let gone = support::builder().build().unwrap().handle();
    let server = start(Api::new().without_key().for_server(gone).mount(support::builder()));
    let mut client = server.dial();
    let ended = post(&mut client, "/api/publish", &json!({"topic": "kept/a", "text": "x"}));
    refused(ended, (503, "ended"), "ended");
}

// ---- who may ----

fn with_key() -> TestServer {
    let (builder, _) = routes(builder().listen("127.0.0.1:0"));
    start_built(Api::new().key("open-sesame").unwrap().key("second").unwrap().mount(builder))
}

const MESSAGE: &str = r#"{"topic":"a","text":"x"}"#;

#[test]
fn with_keys_only_requests_with_a_key_are_accepted() {
    let server = with_key();
    let mut client = server.dial();
    for (line, status) in [
        ("", 401),
        ("Authorization: Bearer open-sesame\r\n", 200),
        ("authorization: bearer second\r\n", 200),
        ("X-API-Key: open-sesame\r\n", 200),
        ("X-API-Key: open-sesam\r\n", 401),
        ("X-API-Key: open-sesame2\r\n", 401),
        ("X-API-Key:\r\n", 401),
        ("Authorization: Basic open-sesame\r\n", 401),
        ("Authorization: Bearer\r\n", 401),
        ("Authorization: Bearer open-sesame\r\nX-Forwarded-For: 1.2.3.4\r\nHost2: x\r\n", 200),
    ] {
        let answer = post_with(&mut client, "/api/publish", &format!("{JSON}{line}"), MESSAGE);
        assert_eq!(answer.status, status, "{line}");
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401, "{line}");
    }
    refused(get(&mut client, "/api/info"), (401, "unauthorized"), "key");
    // The description tells nobody anything.
    assert_eq!(get(&mut client, "/api/openapi.json").0, 200);
}

#[test]
fn keys_that_do_not_fit_a_header_are_refused() {
    assert_eq!(Api::new().key("").err(), Some(InvalidKey::Empty));
    assert_eq!(Api::new().key("a b").err(), Some(InvalidKey::Byte { byte: b' ' }));
}

#[test]
fn requests_from_pages_of_other_hosts_are_refused() {
    for (server, key) in [(serve(1).0, ""), (with_key(), "X-API-Key: second\r\n")] {
        let mut client = server.dial();
        for (line, status) in [
            ("", 200),
            ("Origin: http://localhost:9001\r\n", 200),
            ("Sec-Fetch-Site: same-origin\r\n", 200),
            ("Origin: http://evil.example\r\n", 403),
            ("Origin: http://localhost:9002\r\n", 403),
            ("Origin: null\r\n", 403),
            ("Sec-Fetch-Site: cross-site\r\n", 403),
            ("Sec-Fetch-Site: same-site\r\n", 403),
            ("Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n", 403),
        ] {
            let answer = post_with(&mut client, "/api/publish", &format!("{JSON}{key}{line}"), MESSAGE);
            assert_eq!(answer.status, status, "{line}");
        }
        // What a page may send without asking first is no JSON; and nobody who asks gets leave.
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
            let answer =
                post_with(&mut client, "/api/publish", &format!("{key}Content-Type: {kind}\r\n"), MESSAGE);
            assert_eq!(answer.status, 415, "{kind}");
        }
        assert_eq!(post_with(&mut client, "/api/publish", key, MESSAGE).status, 415);
        client
            .send("OPTIONS /api/publish HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n");
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (405, None));
    }
}

#[test]
fn without_a_key_build_fails_unless_without_key_is_called() {
    let (routes, _events) = routes(builder());
    let error = Api::new().mount(routes).build().map(drop).unwrap_err();
    assert!(matches!(error, BuildError::ApiWithoutKey), "{error}");
    let text = error.to_string();
    assert!(["Api::key", "Api::without_key"].iter().all(|way| text.contains(way)), "{text}");
    // A key that is added to one that was opened is asked for.
    let (routes, _events) = self::routes(builder());
    let server = start(Api::new().without_key().key("k").unwrap().mount(routes));
    refused(get(&mut server.dial(), "/api/info"), (401, "unauthorized"), "key");
}

#[test]
fn without_a_key_a_foreign_host_header_is_refused() {
    let (server, _events) = serve(1);
    let mut client = server.dial();
    for (host, status) in [
        ("localhost", 200),
        ("127.0.0.1:9001", 200),
        ("[::1]:80", 200),
        ("evil.example", 403),
        ("localhost.evil.example:9001", 403),
        ("192.168.1.1", 403),
    ] {
        client.send(format!("GET /api/info HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n\r\n"));
        assert_eq!(client.answer().status, status, "{host}");
    }
    // What nginx makes of `proxy_pass http://127.0.0.1:9001;` and nothing else.
    let mut passed_on = server.dial();
    passed_on.send("GET /api/info HTTP/1.0\r\nHost: 127.0.0.1:9001\r\nConnection: close\r\n\r\n");
    assert_eq!(passed_on.answer().status, 403);
    for line in [
        "X-Forwarded-For: 1.2.3.4",
        "X-Forwarded-Proto: https",
        "Forwarded: for=1.2.3.4",
        "Via: 1.1 proxy",
        "X-Real-IP: 1.2.3.4",
        "CF-Connecting-IP: 1.2.3.4",
    ] {
        client.send(format!("GET /api/info HTTP/1.1\r\nHost: localhost\r\n{line}\r\n\r\n"));
        assert_eq!(client.answer().status, 403, "{line}");
    }
}

#[test]
fn without_a_key_the_api_is_refused_on_public_addresses() {
    let (builder, _events) = routes(builder().listen("0.0.0.0:0"));
    let server = Api::new().without_key().mount(builder).listen("127.0.0.1:0").build().unwrap();
    let addrs = server.local_addrs().to_vec();
    let (handle, running) = (server.handle(), server.spawn().unwrap());
    for addr in addrs {
        let campanile::ListenAddr::Tcp(addr) = addr else { panic!("{addr}") };
        let mut client = Client::dial((std::net::Ipv4Addr::LOCALHOST, addr.port()).into());
        refused(get(&mut client, "/api/info"), (403, "forbidden"), "--api-key-file");
    }
    handle.shutdown(DEADLINE);
    running.join().expect("no worker failed");
}

#[test]
fn a_unix_socket_needs_no_key() {
    let path = std::env::temp_dir().join(format!("campanile-api-{}.sock", std::process::id()));
    let (builder, _events) = routes(builder().listen(&format!("unix:{}", path.display())));
    let server = start(Api::new().without_key().mount(builder));
    let mut client = Client::dial_unix(&path);
    for (host, status) in [("localhost", 200), ("whatever", 403), ("127.0.0.1:9001", 200)] {
        client.send(format!("GET /api/info HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.answer().status, status, "{host}");
    }
    drop(server);
}

#[test]
fn the_api_can_run_on_its_own_server() {
    let (builder, events) = routes(builder().workers(2));
    let main = start(builder.get("/", |_: &campanile::Request<'_>| campanile::Response::new(200)));
    let apart = start(Api::new().without_key().for_server(main.handle.clone()).mount(support::builder()));
    let (mut listening, _) = listener(&main, &events, &["room"]);
    let mut client = apart.dial();
    for n in 1..=3 {
        let (_, body) = post(&mut client, "/api/publish", &json!({"topic": "room", "text": "hello"}));
        assert_eq!((&body["receivers"], &body["offset"]), (&json!(1), &json!(n)));
        assert_eq!(listening.read_text(), "hello");
    }
    let mut outside = main.dial();
    outside.send("GET /api/info HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(outside.answer().status, 404);
}

// ---- the description and the page ----

/// The examples in docs/reference/http-api.md, run by curl: each answer has the shape that the page shows.
#[test]
fn the_examples_in_the_documentation_are_correct() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("no curl here: the examples are not run");
        return;
    }
    let (builder, events) = routes(builder().topics("orders/", kept()));
    let server = start(Api::new().without_key().mount(builder));
    let (_listening, _) = listener(&server, &events, &["orders/42"]);
    let page = include_str!("../../docs/reference/http-api.md");
    let block = page.split("```console\n").nth(1).and_then(|b| b.split("```").next()).unwrap();
    let (mut functions, mut run) = (String::new(), 0);
    for example in block.split("$ ").filter(|example| !example.trim().is_empty()) {
        let (command, answer) = example.split_once('\n').unwrap_or((example, ""));
        let command = command.replace("localhost:9001", &server.addr.to_string());
        if answer.is_empty() {
            functions.push_str(&format!("{command}\n"));
            continue;
        }
        let out = Command::new("sh").arg("-c").arg(format!("{functions}{command}")).output().unwrap();
        let expected: Value = serde_json::from_str(answer).unwrap();
        let got: Value = serde_json::from_slice(&out.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out.stdout)));
        assert_eq!(shape(&got), shape(&expected), "{command}\n{got}");
        run += 1;
    }
    assert!(run >= 9, "{run} examples");
}

/// A value with its numbers and epochs made the same.
fn shape(value: &Value) -> Value {
    match value {
        Value::Number(_) => json!(0),
        Value::Array(all) => all.iter().map(shape).collect(),
        Value::Object(members) => {
            let same = |(name, value): (&String, &Value)| {
                (name.clone(), if name == "epoch" { json!("") } else { shape(value) })
            };
            members.iter().map(same).collect()
        }
        other => other.clone(),
    }
}

#[test]
fn the_description_names_every_operation() {
    let description: Value = serde_json::from_str(Api::openapi()).unwrap();
    assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
    let page = include_str!("../../docs/reference/http-api.md");
    let (server, _events) = serve(1);
    let mut client = server.dial();
    let paths = description["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 9);
    for (path, methods) in paths {
        assert!(page.contains(path), "{path} is not on the page");
        for method in methods.as_object().unwrap().keys().map(|m| m.to_uppercase()) {
            client.send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            let answer = client.answer();
            assert!(
                ![404, 405].contains(&answer.status) || path == "/api/history",
                "{method} {path}: {answer:?}"
            );
        }
    }
}
