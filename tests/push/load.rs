//! The endpoint for browsers under load: several messages as one, clients that read too slowly, and clients that ask
//! without reading.

use crate::support;
use crate::support::push::{OFFER, Page, json, message, text};
use crate::support::{Client, TEXT, TestServer, builder, frame, limits, millis, start, until};
use campanile::push::Push;
use campanile::{Message, Publish, Route, SlowConsumer, TopicSettings};
use std::io::Write;
use std::time::Duration;

/// Clients may publish below `public/`.
fn serve(workers: usize) -> TestServer {
    let push = Push::new().subscribe([""]).publish(["public/"]).rate(0, 0);
    start(builder().workers(workers).route("/push", push))
}

#[test]
fn messages_of_one_iteration_are_batched_on_request() {
    for workers in [1, 2] {
        let server = serve(workers);
        let mut client = server.dial();
        assert_eq!(client.ask("/push?batch=true", OFFER).status, 101);
        let mut all = Page(client);
        assert_eq!(all.next()["type"], "hello");
        let mut one_by_one = Page::open(&server);
        for page in [&mut all, &mut one_by_one] {
            page.subscribe("public/t");
        }
        let batch = |messages: &[Message<'static>]| {
            server
                .handle
                .publish_batch(messages.iter().map(|m| Publish::new("public/t", *m)).collect::<Vec<_>>())
                .unwrap();
        };
        batch(&[Message::json("[1]"), Message::text("two"), Message::json("3")]);
        let members = json!([
            {"offset": 1, "data": [1]}, {"offset": 2, "text": "two"}, {"offset": 3, "data": 3},
        ]);
        all.expect(&json!({"type": "messages", "topic": "public/t", "messages": members}));
        one_by_one.expect(&message("public/t", 1, &json!([1])));
        one_by_one.expect(&text("public/t", 2, "two"));
        one_by_one.expect(&message("public/t", 3, &json!(3)));
        // Alone it is as ever, and with bytes beside it too.
        batch(&[Message::text("alone")]);
        all.expect(&text("public/t", 4, "alone"));
        batch(&[Message::text("beside"), Message::binary(b"x")]);
        all.expect(&text("public/t", 5, "beside"));
        assert_eq!(all.0.read_binary(), b"\x01\x08public/t\0\0\0\0\0\0\0\x06x");
        // Nor is anything together that is not all for this client.
        all.say(&json!({"type": "publish", "topic": "public/t", "text": "not to me", "echo": false}));
        let pong = all.ask(&json!({"type": "ping"}));
        assert_eq!(pong["type"], "pong", "{pong}");
        for n in [4, 5] {
            assert_eq!(one_by_one.next()["offset"], n);
        }
        one_by_one.0.read_binary();
        one_by_one.expect(&text("public/t", 7, "not to me")); // its turn is over
        batch(&[Message::text("8"), Message::text("9")]);
        let next = all.next();
        assert_eq!((&next["type"], &next["messages"][1]["text"]), (&json!("messages"), &json!("9")));
    }
}

fn slow(policy: SlowConsumer) -> TestServer {
    let route =
        Route::from(Push::new().subscribe([""]).rate(0, 0)).limits(limits(|l| l.max_backlog = 64 << 10));
    start(builder().route("/push", route).topics("fast/", TopicSettings::new().slow_consumer(policy)))
}

#[test]
fn a_lagging_client_gets_lagged_and_every_answer() {
    for policy in [SlowConsumer::DropOldest, SlowConsumer::DropNewest, SlowConsumer::LatestByKey] {
        let server = slow(policy);
        let mut page = Page::open_slow(&server);
        page.subscribe("fast/a");
        let filler = "x".repeat(20 << 10);
        let flood = |from: u64, to: u64| {
            for n in from..to {
                let message = format!("{n} {filler}");
                let publish = Publish::new("fast/a", Message::text(&message));
                server.handle.publish_within(publish, Duration::from_secs(5)).unwrap();
            }
        };
        flood(0, 400);
        server.until("some are given up", |s| s.dropped > 0);
        // Asked while everything is full, and then pushed at by more.
        for id in 0..50 {
            page.say(&json!({"type": "ping", "id": id}));
        }
        server.until("the requests are read", |s| s.messages_in == 51);
        flood(400, 800);
        server.until("all are published", |s| s.deliveries == 800);
        server.settle();
        let given_up = server.handle.stats().dropped;
        let (mut messages, mut pongs, mut lagged) = (0, 0, 0);
        while messages + lagged < 800 || pongs < 50 {
            let next = page.next();
            match next["type"].as_str().unwrap() {
                "message" => messages += 1,
                "pong" => {
                    assert_eq!(next["id"], pongs);
                    pongs += 1;
                }
                "lagged" => lagged += next["messages"].as_u64().unwrap(),
                other => panic!("{other}"),
            }
        }
        assert_eq!((messages + lagged, lagged, pongs), (800, given_up, 50), "{policy:?}");
        page.0.expect_nothing_until_pong();
    }
}

#[test]
fn dropped_batches_count_each_message() {
    let server = slow(SlowConsumer::DropOldest);
    let mut client = Client::dial_with(server.addr, Some(4096));
    assert_eq!(client.ask("/push?batch=true", OFFER).status, 101);
    let mut page = Page(client);
    assert_eq!(page.next()["type"], "hello");
    page.subscribe("fast/t");
    let long = "x".repeat(1000);
    let mut sent = 0;
    until("some are given up", || {
        server
            .handle
            .publish_batch([
                Publish::new("fast/t", &*long),
                Publish::new("fast/t", &*long),
                Publish::new("fast/t", &*long),
            ])
            .unwrap();
        sent += 3;
        server.handle.stats().dropped > 20
    });
    page.say(&json!({"type": "ping"}));
    let (mut seen, mut lost, mut pong) = (0, 0, false);
    while seen + lost < sent {
        let next = page.next();
        match next["type"].as_str().unwrap() {
            "messages" => seen += next["messages"].as_array().unwrap().len() as u64,
            "message" => seen += 1,
            "lagged" => lost += next["messages"].as_u64().unwrap(),
            "pong" => pong = true,
            other => panic!("{other}"),
        }
    }
    assert!(lost > 20 && seen + lost == sent, "{seen} seen, {lost} lost of {sent}");
    if !pong {
        assert_eq!(page.next()["type"], "pong");
    }
    assert_eq!(server.handle.stats().dropped, lost);
}

#[test]
fn a_client_that_does_not_read_answers_is_paused() {
    let server = slow(SlowConsumer::DropOldest);
    let mut page = Page::open_slow(&server);
    page.0.socket.set_write_timeout(Some(millis(300))).unwrap();
    let request = json!({"type": "x".repeat(60), "id": 1}).to_string();
    let request = frame(true, TEXT, request.as_bytes());
    let burst = request.repeat(1000);
    let mut sent = 0;
    let stopped = (0..20_000).any(|_| {
        let mut left = &burst[..];
        while !left.is_empty() {
            match (&page.0.socket).write(left) {
                Ok(n) => (sent, left) = (sent + n, &left[n..]),
                Err(_) => return true,
            }
        }
        false
    });
    assert!(stopped, "the server read everything");
    let held = server.handle.stats().held_bytes;
    assert!(held < 1 << 20, "{held} bytes are held for it");
    // Every request is answered once it reads.
    page.0.socket.set_write_timeout(Some(support::DEADLINE)).unwrap();
    for _ in 0..sent / request.len() {
        assert_eq!(page.next()["code"], "type");
    }
    if !sent.is_multiple_of(request.len()) {
        page.0.send(&request[sent % request.len()..]);
        assert_eq!(page.next()["code"], "type");
    }
    page.0.expect_nothing_until_pong();
}
