//! The endpoint for browsers over real sockets: subscribing, coming back, publishing, and what hostile clients try.

use crate::support;
use crate::support::data;
#[cfg(feature = "deflate")]
use crate::support::packed;
use crate::support::push::{OFFER, Page, Value, json, message, text};
use crate::support::{TEXT, TestServer, builder, frame, millis, start, until};
use campanile::push::Push;
use campanile::{Conn, Disconnect, Handler, Message, Publish, Route, TopicSettings};
use std::time::Duration;

/// Clients may publish below `public/`; everything there and below `kept/` is kept.
fn serve(workers: usize) -> TestServer {
    let kept = || TopicSettings::new().history(100);
    start(
        builder()
            .workers(workers)
            .topics("kept/", kept())
            .topics("public/kept/", kept())
            .route("/push", Push::new().subscribe([""]).publish(["public/"]).rate(0, 0)),
    )
}

fn publish(server: &TestServer, topic: &str, message: &str) -> u64 {
    let published = server.handle.publish_confirmed(Publish::new(topic, message)).wait().unwrap();
    published.expect("it is kept, or received").position.offset
}

// ---- opening ----

#[test]
fn hello_is_the_first_message_and_has_the_limits() {
    let push = Push::new().subscribe([""]).heartbeat(millis(1500)).retry(millis(12_000)).max_subscriptions(7);
    let server = start(builder().route("/push", push));
    let (_, hello) = Page::over(server.dial());
    let time = hello["time"].as_u64().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    assert!(time <= now && now - time < 60_000);
    let expected = json!({
        "type": "hello", "protocol": "campanile.v1.json", "connection": hello["connection"], "time": time,
        "heartbeat": 1500, "retry": 12_000, "max_message_size": 65536, "max_subscriptions": 7,
    });
    assert_eq!(hello, expected);
    assert!(hello["connection"].as_str().is_some_and(|s| !s.is_empty()));
}

/// No wait at all would have clients come in a loop, and timers of browsers end at 2^31 ms.
#[test]
fn times_outside_of_the_client_bounds_are_refused_by_build() {
    let day = millis(86_400_000);
    let built = |push: Push| builder().listen("127.0.0.1:0").route("/push", push).build().map(drop);
    for push in [
        Push::new().heartbeat(Duration::ZERO),
        Push::new().heartbeat(millis(1000)).retry(millis(10)),
        Push::new().heartbeat(day).retry(day),
    ] {
        built(push).unwrap();
    }
    for (push, expected) in [
        (
            Push::new().heartbeat(millis(999)),
            "Push::heartbeat: 999ms, expected 1s to 86400s, or zero for none",
        ),
        (
            Push::new().heartbeat(day + millis(1)),
            "Push::heartbeat: 86400.001s, expected 1s to 86400s, or zero for none",
        ),
        (Push::new().retry(Duration::ZERO), "Push::retry: 0ns, expected 10ms to 86400s"),
        (
            Push::new().retry(Duration::MAX),
            "Push::retry: 18446744073709551615.999999999s, expected 10ms to 86400s",
        ),
    ] {
        assert_eq!(built(push).unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_client_offers_the_subprotocol_or_none() {
    let server = serve(1);
    let mut client = server.dial();
    let answer = client.ask("/push", "Sec-WebSocket-Protocol: other, campanile.v1.json\r\n");
    assert_eq!((answer.status, answer.header("sec-websocket-protocol")), (101, Some("campanile.v1.json")));
    let mut client = server.dial();
    let answer = client.ask("/push", "");
    assert_eq!((answer.status, answer.header("sec-websocket-protocol")), (101, None));
    assert!(client.read_text().contains("hello"));
    let answer = server.dial().ask("/push", "Sec-WebSocket-Protocol: campanile.v2.json\r\n");
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("campanile.v1.json"), "{}", answer.text());
}

#[test]
fn requests_may_come_with_the_handshake() {
    let server = serve(1);
    let mut client = server.dial();
    let mut bytes = support::upgrade_request("/push", OFFER).into_bytes();
    bytes.extend(frame(true, TEXT, br#"{"type":"ping","id":1}"#));
    client.send(bytes);
    assert_eq!(client.answer().status, 101);
    let mut page = Page(client);
    assert_eq!(page.next()["type"], "hello");
    page.expect(&json!({"type": "pong", "id": 1}));
}

#[test]
fn pages_of_other_origins_are_refused_by_the_route() {
    let origins = campanile::Origins::list(["https://good.example"]).unwrap();
    let server = start(builder().route("/push", Route::from(Push::new()).origins(origins)));
    let ask = |origin: &str| server.dial().ask("/push", &format!("Origin: {origin}\r\n{OFFER}")).status;
    assert_eq!((ask("https://good.example"), ask("https://evil.example")), (101, 403));
}

// ---- subscribing and publishing ----

#[test]
fn subscribe_publish_unsubscribe() {
    for workers in [1, 2] {
        let server = serve(workers);
        let (mut listener, mut publisher) = (Page::open(&server), Page::open(&server));
        let answer = listener.ask(&json!({"type": "subscribe", "id": 1, "topic": "public/a", "new": [1]}));
        let epoch = answer["epoch"].as_str().expect("a string").to_owned();
        let expected = json!({
            "type": "subscribed", "id": 1, "topic": "public/a", "epoch": epoch, "offset": 0,
            "recovered": false, "replayed": 0,
        });
        assert_eq!(answer, expected);
        let data = json!({"bell": "St Mary", "strokes": [1, 2, null]});
        let publish = json!({"type": "publish", "id": 7, "topic": "public/a", "data": data});
        let expected = json!({"type": "published", "id": 7, "epoch": epoch, "offset": 1, "receivers": 1});
        assert_eq!(publisher.ask(&publish), expected);
        listener.expect(&message("public/a", 1, &data));
        publisher.say(&json!({"type": "publish", "topic": "public/a", "text": "ding \"dong\"\n"}));
        listener.expect(&text("public/a", 2, "ding \"dong\"\n"));
        publisher.0.expect_nothing_until_pong();
        let answer = listener.ask(&json!({"type": "unsubscribe", "id": 2, "topic": "public/a"}));
        assert_eq!(answer, json!({"type": "unsubscribed", "id": 2, "topic": "public/a"}));
        server.settle();
        // The home may hear of it a moment later than the client.
        support::until("nobody listens", || {
            publisher.ask(&publish) == json!({"type": "published", "id": 7, "receivers": 0})
        });
        listener.0.expect_nothing_until_pong();
    }
}

#[test]
fn requests_without_an_id_get_answers_without_an_id() {
    let server = serve(1);
    let mut page = Page::open(&server);
    assert_eq!(page.ask(&json!({"type": "ping"})), json!({"type": "pong"}));
    let subscribed = page.ask(&json!({"type": "subscribe", "topic": "a"}));
    assert_eq!((&subscribed["type"], subscribed.get("id")), (&json!("subscribed"), None));
    let error = page.ask(&json!({"type": "publish", "topic": "a", "data": 1}));
    assert_eq!((&error["code"], error.get("id")), (&json!("forbidden"), None));
    let unsubscribed = page.ask(&json!({"type": "unsubscribe", "topic": "a"}));
    assert_eq!(unsubscribed, json!({"type": "unsubscribed", "topic": "a"}));
    let greatest = (1u64 << 53) - 1;
    assert_eq!(page.ask(&json!({"type": "ping", "id": greatest})), json!({"type": "pong", "id": greatest}));
}

#[test]
fn data_is_delivered_byte_for_byte_or_refused() {
    let server = serve(2);
    let (mut listener, mut publisher) = (Page::open(&server), Page::open(&server));
    listener.subscribe("public/a");
    let publish = |data: &str| format!(r#"{{"type":"publish","topic":"public/a","data": {data} }}"#);
    for (n, data) in data::taken().iter().enumerate() {
        publisher.0.text(&publish(data));
        let expected = format!(r#"{{"type":"message","topic":"public/a","offset":{},"data":{data}}}"#, n + 1);
        assert_eq!(listener.0.read_text(), expected);
    }
    for data in data::refused() {
        publisher.0.text(&publish(&data));
        assert_eq!(publisher.next()["code"], "json", "{data}");
    }
    listener.0.expect_nothing_until_pong();
}

#[test]
fn a_publisher_receives_its_message_unless_echo_is_false() {
    let server = serve(1);
    let mut page = Page::open(&server);
    page.subscribe("public/a");
    page.say(&json!({"type": "publish", "topic": "public/a", "data": 1, "echo": false}));
    page.say(&json!({"type": "publish", "topic": "public/a", "data": 2}));
    page.expect(&message("public/a", 2, &json!(2)));
    page.0.expect_nothing_until_pong();
}

#[test]
fn a_repeated_idempotency_key_publishes_once() {
    let server = serve(2);
    let mut page = Page::open(&server);
    let publish = |id: u64, idempotency_key: &str| json!({"type": "publish", "id": id, "topic": "public/kept/a", "data": 1, "idempotency_key": idempotency_key});
    let first = page.ask(&publish(1, "x"));
    assert_eq!((&first["offset"], first.get("repeated")), (&json!(1), None));
    let mut again = first.clone();
    again["id"] = json!(2);
    again["repeated"] = json!(true);
    assert_eq!(page.ask(&publish(2, "x")), again);
    assert_eq!(page.ask(&publish(3, "y"))["offset"], 2);
}

#[test]
fn ttl_limits_how_long_a_message_is_stored() {
    let server = serve(1);
    let mut page = Page::open(&server);
    let epoch = page.subscribe("public/kept/a")["epoch"].clone();
    page.say(&json!({"type": "publish", "topic": "public/kept/a", "data": 1, "ttl": 1}));
    page.say(&json!({"type": "publish", "topic": "public/kept/a", "data": 2}));
    page.expect(&message("public/kept/a", 1, &json!(1)));
    page.expect(&message("public/kept/a", 2, &json!(2)));
    until("the first has had its time", || {
        let mut later = Page::open(&server);
        let answer = later.resume("public/kept/a", &epoch, 0);
        assert_eq!(answer["recovered"], true);
        if answer["replayed"] == 1 {
            later.expect(&message("public/kept/a", 2, &json!(2)));
        }
        answer["replayed"] == 1
    });
}

// ---- coming back ----

#[test]
fn since_replays_missed_messages_before_live_ones() {
    for workers in [1, 2] {
        let server = serve(workers);
        let mut page = Page::open(&server);
        let begun = page.subscribe("kept/a");
        publish(&server, "kept/a", "one");
        page.expect(&text("kept/a", 1, "one"));
        drop(page);
        for missed in ["two", "three"] {
            publish(&server, "kept/a", missed);
        }
        for _ in 0..2 * workers {
            let mut page = Page::open(&server);
            let answer = page.resume("kept/a", &begun["epoch"], 1);
            let expected = json!({
                "type": "subscribed", "id": 1, "topic": "kept/a", "epoch": begun["epoch"], "offset": 3,
                "recovered": true, "replayed": 2,
            });
            assert_eq!(answer, expected);
            page.expect(&text("kept/a", 2, "two"));
            page.expect(&text("kept/a", 3, "three"));
            page.0.expect_nothing_until_pong();
        }
        let mut page = Page::open(&server);
        page.resume("kept/a", &begun["epoch"], 3);
        assert_eq!(publish(&server, "kept/a", "four"), 4);
        page.expect(&text("kept/a", 4, "four"));
    }
}

#[test]
fn since_an_evicted_position_is_not_recovered() {
    let server = serve(2);
    let mut page = Page::open(&server);
    let epoch = page.subscribe("kept/a")["epoch"].clone();
    for _ in 0..102 {
        publish(&server, "kept/a", "x");
    }
    for (epoch, offset) in [
        (&epoch, 0),                     // the first is given up
        (&epoch, 1),                     // so is the second, which came behind it
        (&epoch, 103),                   // nobody has seen that
        (&json!("fffffffffffffff"), 50), // another life
        (&json!("not one of ours"), 50),
        (&json!(""), 50),
    ] {
        let answer = Page::open(&server).resume("kept/a", epoch, offset);
        assert_eq!(
            (&answer["type"], &answer["recovered"], &answer["replayed"], &answer["offset"]),
            (&json!("subscribed"), &json!(false), &json!(0), &json!(102)),
            "{epoch} {offset}"
        );
    }
    let answer = Page::open(&server).resume("kept/a", &epoch, 2);
    assert_eq!((&answer["recovered"], &answer["replayed"]), (&json!(true), &json!(100)));
}

#[test]
fn latest_replays_the_newest_message_of_each_key() {
    let server = serve(2);
    let mut page = Page::open(&server);
    let publish = |key: &str, data: u64| json!({"type": "publish", "id": data, "topic": "public/kept/ticks", "data": data, "key": key});
    for (key, data) in [("eur", 1), ("usd", 2), ("eur", 3), ("eur", 4)] {
        assert_eq!(page.ask(&publish(key, data))["offset"], data);
    }
    let answer =
        page.ask(&json!({"type": "subscribe", "id": 9, "topic": "public/kept/ticks", "latest": true}));
    assert_eq!(
        (&answer["offset"], &answer["recovered"], &answer["replayed"]),
        (&json!(4), &json!(false), &json!(2))
    );
    page.expect(&message("public/kept/ticks", 2, &json!(2)));
    page.expect(&message("public/kept/ticks", 4, &json!(4)));
    page.0.expect_nothing_until_pong();
}

#[test]
fn a_cancelled_subscribe_does_not_affect_the_next() {
    let server = serve(2);
    // Half of them have their home elsewhere.
    for n in 0..40 {
        let topic = &*format!("kept/{n}");
        publish(&server, topic, "one");
        let mut page = Page::open(&server);
        let mut all = Vec::new();
        for (id, request) in [
            json!({"type": "subscribe", "topic": topic}),
            json!({"type": "unsubscribe", "topic": topic}),
            json!({"type": "subscribe", "topic": topic, "latest": true}),
        ]
        .iter_mut()
        .enumerate()
        {
            request["id"] = json!(id);
            all.extend(frame(true, TEXT, request.to_string().as_bytes()));
        }
        page.0.send(all);
        let first = page.next();
        assert!(first["code"] == "cancelled" || first["type"] == "subscribed", "{first}");
        page.expect(&json!({"type": "unsubscribed", "id": 1, "topic": topic}));
        let answer = page.next();
        assert_eq!((&answer["id"], &answer["replayed"]), (&json!(2), &json!(1)), "{answer}");
        page.expect(&text(topic, 1, "one"));
        publish(&server, topic, "two");
        page.expect(&text(topic, 2, "two"));
        page.0.expect_nothing_until_pong();
    }
}

#[test]
fn subscribe_recovers_a_topic_that_a_handle_subscribed() {
    for workers in [1, 2] {
        let server = serve(workers);
        let mut page = Page::open(&server);
        let begun = page.subscribe("kept/a");
        drop(page);
        publish(&server, "kept/a", "one");
        let (mut page, hello) = Page::over(server.dial());
        let id: campanile::ConnId = hello["connection"].as_str().unwrap().parse().unwrap();
        server.handle.subscribe(id, "kept/a").unwrap();
        until("it is subscribed", || server.handle.subscribers("kept/a").wait().unwrap() == 1);
        server.settle();
        let answer = page.resume("kept/a", &begun["epoch"], 0);
        assert_eq!((&answer["recovered"], &answer["replayed"]), (&json!(true), &json!(1)), "{answer}");
        page.expect(&text("kept/a", 1, "one"));
        publish(&server, "kept/a", "two");
        page.expect(&text("kept/a", 2, "two"));
        page.refused(&json!({"type": "subscribe", "id": 2, "topic": "kept/a"}), "already");
        page.0.expect_nothing_until_pong();
    }
}

#[test]
fn a_pattern_delivers_messages_with_their_topic() {
    for workers in [1, 2] {
        let server = serve(workers);
        let mut page = Page::open(&server);
        let answer = page.ask(&json!({"type": "subscribe", "id": 4, "pattern": "kept/*"}));
        let expected =
            json!({"type": "subscribed", "id": 4, "pattern": "kept/*", "recovered": false, "replayed": 0});
        assert_eq!(answer, expected);
        server.settle();
        publish(&server, "kept/a", "1");
        publish(&server, "kept/b/c", "2");
        // Topics of different homes have no order among each other.
        let mut received = [page.next(), page.next()];
        received.sort_by_key(|m| m["topic"].as_str().map(str::to_owned));
        assert_eq!(received, [text("kept/a", 1, "1"), text("kept/b/c", 1, "2")]);
        page.subscribe("kept/a");
        publish(&server, "kept/a", "3");
        page.expect(&text("kept/a", 2, "3"));
        page.0.expect_nothing_until_pong();
        page.refused(&json!({"type": "subscribe", "id": 5, "pattern": "kept/*"}), "already");
        let answer = page.ask(&json!({"type": "unsubscribe", "id": 6, "pattern": "kept/*"}));
        assert_eq!(answer, json!({"type": "unsubscribed", "id": 6, "pattern": "kept/*"}));
    }
}

// ---- bytes ----

#[test]
fn binary_messages_have_a_head_live_and_replayed() {
    let server = serve(2);
    let mut page = Page::open(&server);
    let epoch = page.subscribe("kept/bell")["epoch"].clone();
    let payload: &[u8] = &[0xFF, 0xD8, 0, 1];
    for _ in 0..2 {
        server.handle.publish("kept/bell", payload).unwrap();
    }
    let expected = |offset: u8| {
        let mut bytes = vec![1, 9];
        bytes.extend_from_slice(b"kept/bell");
        bytes.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, offset]);
        bytes.extend_from_slice(payload);
        bytes
    };
    assert_eq!(page.0.read_binary(), expected(1));
    assert_eq!(page.0.read_binary(), expected(2));
    let mut back = Page::open(&server);
    assert_eq!(back.resume("kept/bell", &epoch, 1)["replayed"], 1);
    assert_eq!(back.0.read_binary(), expected(2));
    let longest = "x".repeat(255);
    back.subscribe(&longest);
    server.handle.publish(&longest, [7u8; 70_000]).unwrap();
    let bytes = back.0.read_binary();
    assert_eq!((&bytes[..2], &bytes[2..257]), (&[1, 255][..], longest.as_bytes()));
    assert_eq!((bytes.len(), bytes[265]), (2 + 255 + 8 + 70_000, 7));
}

#[cfg(feature = "deflate")]
#[test]
fn wrapped_messages_are_compressed_and_answers_are_not() {
    use campanile::deflate::Deflate;
    let route = Route::from(Push::new().subscribe([""])).deflate(Deflate::shared());
    let server = start(builder().route("/push", route).topics("kept/", TopicSettings::new().history(9)));
    let offer = "permessage-deflate; client_max_window_bits";
    let mut pages: Vec<_> =
        (0..2).map(|_| packed::Packed::open(&server, "/push", offer, packed::SHARED)).collect();
    for page in &mut pages {
        let (hello, len) = page.read();
        assert!(hello.starts_with(r#"{"type":"hello""#) && len.is_none(), "{hello}");
        page.client.text(r#"{"type":"subscribe","topic":"kept/a"}"#);
        assert!(page.read().0.starts_with(r#"{"type":"subscribed""#));
    }
    let said = packed::text(1, 5000);
    for offset in 1..=2 {
        publish(&server, "kept/a", &said);
        for page in &mut pages {
            let (message, len) = page.read();
            let message: Value = serde_json::from_str(&message).unwrap();
            assert_eq!(message, text("kept/a", offset, &said));
            assert!(len.is_some_and(|len| len < 2500), "{len:?}");
        }
    }
    // Once for each message, not for each of those who get it.
    server.until("two are counted", |s| s.deflated == 2);
}

// ---- order ----

#[test]
fn answers_and_messages_keep_their_order() {
    const N: u64 = 500;
    for workers in [1, 2, 3] {
        let server = serve(workers);
        let mut pages: Vec<Page> = (0..4).map(|_| Page::open(&server)).collect();
        for page in &mut pages {
            page.subscribe("public/a");
        }
        server.settle();
        // Two of them publish, each its own numbers.
        for n in 0..N {
            for at in [0, 1] {
                let data = json!([at, n]);
                pages[at].say(&json!({"type": "publish", "id": n, "topic": "public/a", "data": data}));
            }
        }
        let mut orders = Vec::new();
        for (at, page) in pages.iter_mut().enumerate() {
            let (mut seen, mut acks) = (Vec::new(), Vec::new());
            while seen.len() < 2 * N as usize || at < 2 && acks.len() < N as usize {
                let next = page.next();
                if next["type"] == "published" {
                    assert_eq!(
                        (next["id"].as_u64(), &next["receivers"]),
                        (Some(acks.len() as u64), &json!(4))
                    );
                    acks.push(next["offset"].as_u64().unwrap());
                } else {
                    assert_eq!(next["offset"].as_u64(), Some(seen.len() as u64 + 1));
                    seen.push(next["data"].clone());
                }
            }
            for (n, offset) in acks.iter().enumerate() {
                assert_eq!(seen[*offset as usize - 1], json!([at, n]), "an answer names another's place");
            }
            orders.push(seen);
        }
        assert!(orders.iter().all(|order| *order == orders[0]));
    }
}

// ---- with handlers ----

/// Listens to `public/room` and passes what it hears to its client; what the client says goes there, as JSON if it
/// begins like that.
struct Room;

impl Handler for Room {
    type State = ();

    fn open(&self, conn: &mut Conn<'_>, _: &mut ()) -> Result<(), Disconnect> {
        conn.subscribe("public/room").unwrap();
        Ok(())
    }

    fn message(&self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) -> Result<(), Disconnect> {
        let message = match message.as_text().filter(|t| t.starts_with('{')) {
            Some(json) => Message::json(json),
            None => message,
        };
        conn.publish_to_others("public/room", message).unwrap();
        Ok(())
    }
}

#[test]
fn a_handler_and_a_page_share_a_topic() {
    for workers in [1, 2] {
        let server = start(
            builder()
                .workers(workers)
                .route("/room", Room)
                .route("/push", Push::new().subscribe([""]).publish(["public/"])),
        );
        let mut program = server.open("/room");
        let mut page = Page::open(&server);
        page.subscribe("public/room");
        server.settle();
        // One sees the bare text, the other what belongs to it.
        page.say(&json!({"type": "publish", "topic": "public/room", "data": {"a": 1}, "echo": false}));
        assert_eq!(program.read_text(), r#"{"a":1}"#);
        program.text(r#"{"b": 2}"#);
        page.expect(&message("public/room", 2, &json!({"b": 2})));
        program.text("plain \"words\"");
        page.expect(&text("public/room", 3, "plain \"words\""));
        program.binary(&[9, 8]);
        assert_eq!(page.0.read_binary(), b"\x01\x0bpublic/room\0\0\0\0\0\0\0\x04\x09\x08");
        page.0.expect_nothing_until_pong();
        program.expect_nothing_until_pong();
    }
}

// ---- hostile clients ----

#[test]
fn hostile_json_is_refused_and_the_next_request_is_served() {
    let server = serve(1);
    let mut page = Page::open(&server);
    let deep =
        |open: &str, n: usize| format!(r#"{{"type":"publish","topic":"public/a","data":{}"#, open.repeat(n));
    for (text, code) in [
        ("[".repeat(60_000), "json"),
        (deep("[", 30_000), "json"),
        (deep("{\"a\":", 10_000), "json"),
        (format!("{}{}}}", deep("[", 127), "]".repeat(127)), "json"),
        (r#"{"type":"publish","topic":"public/a","data":"\ud800"}"#.to_owned(), "json"),
        (r#"{"type":"publish","topic":"public/a","data":"\udc00\ud800"}"#.to_owned(), "json"),
        (r#"{"type":"publish","topic":"public/a","data":"\u12"}"#.to_owned(), "json"),
        (r#"{"type":"publish","topic":"public/a","data":1e999999}"#.to_owned(), "json"),
        (format!(r#"{{"type":"publish","topic":"public/a","data":{}}}"#, "9".repeat(60_000)), "json"),
        (r#"{"type":"publish","topic":"public/a","data":01}"#.to_owned(), "json"),
        (r#"{"type":"publish","topic":"public/a","data":1,"data":2}"#.to_owned(), "invalid"),
        (r#"{"type":"ping","type":"publish"}"#.to_owned(), "invalid"),
        (r#"{"type":"ping","id":1e3}"#.to_owned(), "invalid"),
        (format!(r#"{{"type":"{}"}}"#, "x".repeat(60_000)), "type"),
        ("\u{feff}{}".to_owned(), "json"),
        ("null".to_owned(), "invalid"),
        (String::new(), "json"),
    ] {
        page.0.text(&text);
        let error = page.next();
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)), "{error}");
        assert!(error.to_string().len() < 2000, "what was sent does not come back whole");
    }
    assert_eq!(page.ask(&json!({"type": "ping", "id": 1})), json!({"type": "pong", "id": 1}));
}

#[test]
fn topics_and_texts_are_escaped() {
    let server = serve(2);
    let (mut page, mut publisher) = (Page::open(&server), Page::open(&server));
    for name in [
        "\",\"offset\":1,\"data\":\"",
        "\\",
        "\\u0041",
        "</script>",
        "消息 🔔",
        "a\u{2028}b",
        "é\u{301}",
        "{}",
    ] {
        let topic = format!("public/{name}");
        page.subscribe(&topic);
        let said = format!("{name}\0\u{1}\u{1f}\u{7f}\r\n\t{name}");
        publisher.say(&json!({"type": "publish", "topic": topic, "text": said}));
        page.expect(&text(&topic, 1, &said));
        let answer = page.ask(&json!({"type": "unsubscribe", "id": 2, "topic": topic}));
        assert_eq!(answer, json!({"type": "unsubscribed", "id": 2, "topic": topic}));
    }
}

#[test]
fn a_request_over_the_size_limit_ends_the_connection() {
    let server = serve(1);
    let mut page = Page::open(&server);
    page.0.text(&format!(r#"{{"type":"ping","pad":"{}"}}"#, "x".repeat(65_536)));
    page.0.expect_failed(1009);
}

#[test]
fn requests_over_the_rate_are_delayed_and_not_refused() {
    let server = start(builder().route("/push", Push::new().subscribe([""]).rate(100, 50)));
    let mut page = Page::open(&server);
    let pings = (0..100).map(|id| json!({"type": "ping", "id": id}).to_string());
    page.0.send(pings.flat_map(|ping| frame(true, TEXT, ping.as_bytes())).collect::<Vec<u8>>());
    for id in 0..100 {
        page.expect(&json!({"type": "pong", "id": id}));
    }
    // What is no request costs no more than an honest one.
    page.0.send((0..10_000).flat_map(|_| frame(true, TEXT, b"{}")).collect::<Vec<u8>>());
    server.until("it is not read from", |s| s.rate_pauses > 0 && s.messages_in > 100);
    assert_eq!(Page::open(&server).ask(&json!({"type": "ping", "id": 1}))["type"], "pong");
    assert!(server.handle.stats().messages_in < 400, "{:?}", server.handle.stats());
}
