//! The client of topics against servers in the same process, which die, forget and refuse. Nothing sleeps.

use crate::support::clients;
use crate::support::clients::{accept, agree, soon};
#[cfg(all(feature = "deflate", feature = "tls"))]
use crate::support::tls;
use crate::support::{DEADLINE, TestServer, builder, limits, millis, start, start_at};
use campanile::client::{self, Client, NoEvent, Reconnect};
use campanile::push::Push;
use campanile::push_client::{
    Data, Error, ErrorCode, Message, Position, Publication, PublishError, PushClient, PushClientLimits,
    PushEvent, Receipt, SubscribeError, Subscribed, Subscription,
};
use campanile::{
    Builder, CloseCode, ConnId, Message as Sent, Publish, ReadyState, Route, SlowConsumer, TopicSettings,
};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::time::Instant;

/// Clients may publish below `public/`, and hear what is below `public/`, `kept/` and `short/`; the first two are kept.
fn route() -> Push {
    Push::new().subscribe(["public/", "kept/", "short/"]).publish(["public/"]).rate(0, 0)
}

fn settings(route: impl Into<Route>) -> Builder {
    builder()
        .topics("public/", TopicSettings::new().history(1000))
        .topics("kept/", TopicSettings::new().history(1000))
        .topics("short/", TopicSettings::new().history(2))
        .route("/push", route)
}

fn serve() -> TestServer {
    start(settings(route()))
}

fn url(addr: SocketAddr) -> String {
    format!("ws://{addr}/push")
}

fn connections(addr: SocketAddr) -> client::ClientBuilder {
    Client::builder(&url(addr)).reconnect(soon())
}

/// A client that comes back at once.
fn connect(server: &TestServer) -> PushClient {
    PushClient::builder(connections(server.addr)).connect().expect("a client")
}

/// The next event that is not about trying to connect.
#[track_caller]
fn next(push: &PushClient) -> PushEvent {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match push.next_before(deadline).expect("an event") {
            PushEvent::Reconnecting { .. } | PushEvent::Error(Error::Client(_)) => {}
            event => return event,
        }
    }
}

#[track_caller]
fn expect_open(push: &PushClient) {
    let event = next(push);
    assert!(matches!(event, PushEvent::Open(_)), "{event:?}");
}

#[track_caller]
fn expect_subscribed(push: &PushClient) -> Subscribed {
    match next(push) {
        PushEvent::Subscribed(how) => how,
        other => panic!("no subscription: {other:?}"),
    }
}

#[track_caller]
fn expect_message(push: &PushClient) -> Message {
    match next(push) {
        PushEvent::Message(message) => message,
        other => panic!("no message: {other:?}"),
    }
}

#[track_caller]
fn expect_close(push: &PushClient) -> client::Close {
    match next(push) {
        PushEvent::Close(close) => close,
        other => panic!("no close: {other:?}"),
    }
}

/// Connected, and listening to this alone.
fn listening(server: &TestServer, to: impl Into<Subscription>) -> PushClient {
    let push = connect(server);
    push.subscribe(to).unwrap();
    expect_open(&push);
    expect_subscribed(&push);
    push
}

fn say(push: &PushClient, topic: &str, text: &str) -> Receipt {
    push.publish(&Publication::text(topic, text)).expect("it is taken")
}

fn ids(server: &TestServer) -> Vec<ConnId> {
    let open = server.handle.connections("/push").wait().expect("the server answers");
    open.iter().map(|info| info.id).collect()
}

/// Ends all connections of the server's as a broken network would.
fn terminate(server: &TestServer) {
    let ids = ids(server);
    assert!(!ids.is_empty());
    for id in ids {
        server.handle.terminate(id).expect("the server runs");
    }
}

#[test]
fn publications_are_delivered_and_acknowledged() {
    let server = serve();
    let push = connect(&server);
    // All before there is a connection.
    push.subscribe("public/a").unwrap();
    let receipt = push.publish(&Publication::json("public/a", r#"{"x": 1.0}"#)).unwrap();
    let published = receipt.wait().unwrap();
    assert_eq!((published.receivers, published.repeated), (1, false));
    expect_open(&push);
    assert_eq!(push.ready_state(), ReadyState::Open);
    assert_eq!(push.hello().unwrap().max_subscriptions, 128);
    let how = expect_subscribed(&push);
    assert_eq!((how.topic.as_str(), how.recovered, how.lost, how.replayed), ("public/a", false, false, 0));
    let message = expect_message(&push);
    assert_eq!((&*message.topic, message.offset, message.replayed), ("public/a", 1, false));
    assert_eq!(message.data, Data::Json(r#"{"x": 1.0}"#.into()));
    assert_eq!(message.position(), published.position);

    // With everything that can be said of it.
    let other = listening(&server, Subscription::pattern("public/*"));
    let full = Publication::text("public/a", "ding")
        .key("k")
        .idempotency_key("once")
        .ttl(millis(60_000))
        .echo(false)
        .tags(["a"])
        .timeout(DEADLINE);
    let first = push.publish(&full).unwrap().wait().unwrap();
    assert_eq!((first.position.as_ref().map(|p| p.offset), first.repeated), (Some(2), false));
    let second = push.publish(&full).unwrap().wait().unwrap();
    assert_eq!((second.position, second.repeated), (first.position, true));
    let received = expect_message(&other);
    assert_eq!((received.offset, received.data.as_str(), received.epoch), (2, Some("ding"), None));

    assert!(push.unsubscribe("public/a") && !push.unsubscribe("public/a"));
    assert_eq!(say(&push, "public/a", "x").wait().unwrap().receivers, 1, "the other one");
    push.subscribe("public/b").unwrap();
    assert_eq!(expect_subscribed(&push).topic, "public/b", "nothing of the echo, nothing after the end");
}

#[test]
fn a_subscription_starts_live_latest_or_since() {
    let server = serve();
    let publish = |text: &str, key: &str| {
        let message = Sent::text(text).with_key(key);
        server.handle.publish_confirmed(Publish::new("kept/t", message)).wait().unwrap().unwrap()
    };
    publish("one", "a");
    publish("two", "b");
    let latest = publish("three", "a").position;
    let texts = |push: &PushClient, n: usize| -> Vec<String> {
        (0..n).map(|_| expect_message(push).data.as_str().unwrap().to_owned()).collect()
    };
    let push = connect(&server);
    push.subscribe(Subscription::new("kept/t").latest()).unwrap();
    expect_open(&push);
    assert_eq!(expect_subscribed(&push).replayed, 2);
    assert_eq!(texts(&push, 2), ["two", "three"]);
    // Another begins where this one is, and goes on from a place that was kept.
    let place = Position::new(&format!("{:x}", latest.epoch), 1);
    let push = connect(&server);
    push.subscribe(Subscription::new("kept/t").since(place.clone())).unwrap();
    expect_open(&push);
    let how = expect_subscribed(&push);
    assert_eq!((how.recovered, how.lost, how.replayed), (true, false, 2));
    let first = expect_message(&push);
    assert!(first.replayed && first.position() == Some(Position::new(&place.epoch, 2)));
    assert_eq!(texts(&push, 1), ["three"]);
    publish("four", "a");
    assert!(!expect_message(&push).replayed);
}

#[test]
fn repeated_cuts_lose_and_repeat_nothing() {
    let server = serve();
    let push = listening(&server, "kept/t");
    // The publisher is at most so far ahead, less than what is kept.
    let (step_done, tokens) = mpsc::channel();
    (0..500).for_each(|_| step_done.send(()).unwrap());
    let handle = server.handle.clone();
    let publisher = std::thread::spawn(move || {
        let mut n = 0u64;
        while tokens.recv_timeout(DEADLINE).is_ok() {
            n += 1;
            handle.publish_confirmed(Publish::new("kept/t", Sent::text(&n.to_string()))).wait().unwrap();
        }
        n
    });
    let (mut received, mut cuts, mut is_open) = (0u64, 0, true);
    let mut step = || {
        match next(&push) {
            PushEvent::Message(message) => {
                received += 1;
                assert_eq!(message.data.as_str(), Some(&*received.to_string()), "cut {cuts} times");
                assert_eq!(message.offset, received);
                if is_open && cuts < 5 && received > 100 * cuts {
                    (is_open, cuts) = (false, cuts + 1);
                    terminate(&server);
                }
            }
            PushEvent::Subscribed(how) => {
                assert!(how.recovered && !how.lost, "{how:?}");
                is_open = true;
            }
            event @ (PushEvent::Lagged { .. } | PushEvent::Refused { .. }) => panic!("{event:?}"),
            _ => {}
        }
        (received, cuts, is_open)
    };
    let mut before = 0;
    while let (received, cuts, is_open) = step()
        && (cuts < 5 || !is_open)
    {
        (before..received).for_each(|_| step_done.send(()).unwrap());
        before = received;
    }
    drop(step_done);
    let all = publisher.join().unwrap();
    while step().0 < all {}
}

#[test]
fn publications_survive_a_reconnect_and_are_published_once() {
    let server = serve();
    let other = listening(&server, "public/t");
    let push = listening(&server, "public/t");
    let mut receipts = Vec::new();
    for n in 1..=200 {
        receipts.push(say(&push, "public/t", &n.to_string()));
        if n % 50 == 0 {
            push.reset();
        }
    }
    for receipt in receipts {
        receipt.wait().unwrap();
    }
    for push in [&push, &other] {
        let mut expected = 1;
        while expected <= 200 {
            match next(push) {
                PushEvent::Message(message) => {
                    assert_eq!(message.data.as_str(), Some(&*expected.to_string()));
                    expected += 1;
                }
                PushEvent::Subscribed(how) => assert!(!how.lost),
                _ => {}
            }
        }
    }
}

#[test]
fn a_restarted_server_reports_lost() {
    let mut server = serve();
    let addr = server.addr;
    let push = listening(&server, "kept/t");
    push.subscribe(Subscription::pattern("kept/*")).unwrap();
    assert!(!expect_subscribed(&push).lost);
    server.handle.publish_confirmed(Publish::new("kept/t", "one")).wait().unwrap();
    assert_eq!(expect_message(&push).offset, 1);
    server.shutdown(DEADLINE);
    let close = expect_close(&push);
    assert_eq!((close.code, close.will_reconnect), (CloseCode::GOING_AWAY, true));
    assert_eq!((push.ready_state(), push.hello()), (ReadyState::Connecting, None));
    // Said meanwhile, it waits.
    let receipt = say(&push, "public/t", "meanwhile");
    let server = start_at(settings(route()), &addr.to_string());
    expect_open(&push);
    let [named, pattern] = [expect_subscribed(&push), expect_subscribed(&push)];
    let how = if named.topic == "kept/t" { &named } else { &pattern };
    assert_eq!((how.topic.as_str(), how.recovered, how.lost), ("kept/t", false, true));
    assert!(named.lost && pattern.lost);
    receipt.wait().unwrap();
    server.handle.publish_confirmed(Publish::new("kept/t", "two")).wait().unwrap();
    let message = expect_message(&push);
    assert_eq!((message.offset, message.data.as_str()), (1, Some("two")));
}

#[test]
fn an_evicted_position_reports_lost_and_starts_over() {
    let server = serve();
    let publish = |text| {
        server.handle.publish_confirmed(Publish::new("short/t", Sent::text(text).with_key("k"))).wait()
    };
    let push = listening(&server, Subscription::new("short/t").latest().resume(true));
    publish("one").unwrap();
    assert_eq!(expect_message(&push).offset, 1);
    // It comes back when the test says so.
    let place = Position::new(&expect_epoch(&push, &server), 1);
    push.close(1000, "").unwrap();
    for text in ["two", "three", "four"] {
        publish(text).unwrap();
    }
    let push = connect(&server);
    push.subscribe(Subscription::new("short/t").latest().since(place.clone())).unwrap();
    expect_open(&push);
    let how = expect_subscribed(&push);
    assert_eq!((how.lost, how.recovered, how.replayed), (true, false, 1));
    assert_eq!(expect_message(&push).data.as_str(), Some("four"));
    let push = connect(&server);
    push.subscribe(Subscription::new("short/t").since(place)).unwrap();
    expect_open(&push);
    let how = expect_subscribed(&push);
    assert_eq!((how.lost, how.recovered, how.replayed), (true, false, 0));
}

/// The epoch of the next message.
fn expect_epoch(push: &PushClient, server: &TestServer) -> String {
    server.handle.publish_confirmed(Publish::new("short/t", Sent::text("x").with_key("k"))).wait().unwrap();
    expect_message(push).epoch.expect("a message of a subscription by name").to_string()
}

#[test]
fn a_slow_reader_gets_lagged() {
    let slow = Route::from(route())
        .slow_consumer(SlowConsumer::DropOldest)
        .limits(limits(|l| (l.max_backlog, l.max_subscriptions) = (64 << 10, 128)));
    let server = start(settings(slow));
    // Little waits anywhere, so the server's backlog fills.
    let mut bounds = client::ClientLimits::default();
    bounds.max_inbox = 64 << 10;
    let mut own = PushClientLimits::default();
    own.max_inbox = 64 << 10;
    let push = PushClient::builder(connections(server.addr).limits(bounds)).limits(own).connect().unwrap();
    push.subscribe("kept/t").unwrap();
    expect_open(&push);
    expect_subscribed(&push);
    let text = "x".repeat(16 << 10);
    let mut published = 0;
    while server.handle.stats().dropped == 0 {
        server.handle.publish_confirmed(Publish::new("kept/t", Sent::text(&text))).wait().unwrap();
        published += 1;
        assert!(published < 100_000);
    }
    server.handle.publish_confirmed(Publish::new("kept/t", "last")).wait().unwrap();
    // Nothing is read, no answer either; the time goes on all the same.
    let limit = millis(20);
    let receipt = push.publish(&Publication::text("public/t", "x").timeout(limit)).unwrap();
    assert_eq!(receipt.wait(), Err(PublishError::Timeout { limit }));
    let (mut received, mut lagged, mut is_last) = (0, 0, false);
    while !is_last || received + lagged < published + 1 {
        match next(&push) {
            PushEvent::Message(message) => {
                received += 1;
                is_last = is_last || message.data.as_str() == Some("last");
            }
            PushEvent::Lagged { messages } => lagged += messages,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(received + lagged, published + 1);
    assert!(lagged > 0);
}

#[test]
fn last_and_tags_select_messages() {
    let server = serve();
    let publish = |n: usize| {
        let text = n.to_string();
        let tags: &[&str] = if n.is_multiple_of(2) { &["even"] } else { &["odd"] };
        server.handle.publish_confirmed(Publish::new("kept/t", &*text).tags(tags)).wait().unwrap();
    };
    (1..=10).for_each(publish);
    let push = listening(&server, Subscription::new("kept/t").last(2).tags(["even"]));
    let texts = |n: usize| -> Vec<Data> { (0..n).map(|_| expect_message(&push).data).collect() };
    assert_eq!(texts(2), ["8", "10"].map(|t| Data::Text(t.into())));
    terminate(&server);
    (11..=14).for_each(publish);
    expect_close(&push);
    expect_open(&push);
    let how = expect_subscribed(&push);
    assert!(how.recovered && !how.lost, "{how:?}");
    assert_eq!(texts(2), ["12", "14"].map(|t| Data::Text(t.into())));
    let odd = push.publish(&Publication::text("public/x", "x").tags(["odd"])).unwrap();
    assert_eq!(odd.wait().unwrap().receivers, 0);
}

#[test]
fn a_batch_becomes_single_events() {
    let server = serve();
    let url = format!("{}?batch=true", url(server.addr));
    let push = PushClient::builder(Client::builder(&url)).connect().unwrap();
    expect_open(&push);
    push.subscribe("public/t").unwrap();
    expect_subscribed(&push);
    server.handle.publish_batch([1, 2, 3].map(|_| Publish::new("public/t", Sent::json("{}")))).unwrap();
    for offset in 1..=3 {
        let message = expect_message(&push);
        assert_eq!((message.offset, message.data), (offset, Data::Json("{}".into())));
    }
}

#[test]
fn binary_messages_arrive_as_bytes() {
    let server = serve();
    let push = listening(&server, "kept/t");
    server.handle.publish_confirmed(Publish::new("kept/t", &[0xFF, 0xD8, 0][..])).wait().unwrap();
    let message = expect_message(&push);
    assert_eq!((message.offset, &message.data), (1, &Data::Binary(vec![0xFF, 0xD8, 0])));
    assert_eq!((message.data.as_str(), message.data.as_bytes().len()), (None, 3));
}

#[test]
fn refusals_carry_code_and_message() {
    let server = start(settings(route().max_subscriptions(1)));
    let push = connect(&server);
    push.subscribe("secret").unwrap();
    expect_open(&push);
    match next(&push) {
        PushEvent::Refused { topic, error } => {
            assert_eq!((&*topic, error.code), ("secret", ErrorCode::Forbidden))
        }
        other => panic!("{other:?}"),
    }
    push.subscribe("kept/t").unwrap();
    expect_subscribed(&push);
    assert!(matches!(push.subscribe("kept/t"), Err(SubscribeError::Already { .. })));
    for no_topic in ["a\nb", "a\u{85}b", "kept/*"] {
        assert!(matches!(push.subscribe(no_topic), Err(SubscribeError::Topic(_))), "{no_topic:?}");
    }
    assert!(matches!(push.subscribe(Subscription::pattern("kept/t")), Err(SubscribeError::Pattern(_))));
    push.subscribe("kept/u").unwrap();
    assert!(
        matches!(next(&push), PushEvent::Refused { error, .. } if error.code == ErrorCode::Subscriptions)
    );
    match say(&push, "kept/t", "x").wait() {
        Err(PublishError::Refused(error)) => assert_eq!(error.code, ErrorCode::Forbidden),
        other => panic!("{other:?}"),
    }
    match say(&push, "public/t", &"x".repeat(64 << 10)).wait() {
        Err(PublishError::Refused(error)) => assert_eq!(error.code, ErrorCode::TooBig),
        other => panic!("{other:?}"),
    }
    let no_json = push.publish(&Publication::json("public/t", "{")).map(drop);
    assert!(matches!(no_json, Err(PublishError::Json(_))));
    let pattern = push.publish(&Publication::text("public/*", "x")).map(drop);
    assert!(matches!(pattern, Err(PublishError::Topic(_))));
    // After all that it is still there.
    say(&push, "public/t", "x").wait().unwrap();
}

#[test]
fn a_refusal_with_retry_is_sent_again() {
    let slow = TopicSettings::new().history(1000).rate(100, 5);
    let server = start(settings(route()).topics("public/slow", slow));
    let push = connect(&server);
    push.subscribe("public/slow").unwrap();
    let receipts: Vec<_> = (0..20).map(|n| say(&push, "public/slow", &n.to_string())).collect();
    for receipt in receipts {
        receipt.wait().unwrap();
    }
    assert!(server.handle.stats().publications_refused > 0);
}

#[test]
fn close_ends_all_pending_publications() {
    let server = serve();
    let push = listening(&server, "public/t");
    push.close(1000, "enough").unwrap();
    let close = expect_close(&push);
    assert_eq!((close.code, close.was_clean, close.will_reconnect), (CloseCode(1000), true, false));
    assert_eq!(push.next(DEADLINE).unwrap_err(), NoEvent::Ended);
    assert_eq!(push.ready_state(), ReadyState::Closed);
    assert_eq!(push.publish(&Publication::text("t", "x")).map(drop), Err(PublishError::Closed));
    assert_eq!(push.subscribe("public/u"), Err(SubscribeError::Closed));

    // A server that has no more use for it, while something waits.
    let push = connect(&server);
    expect_open(&push);
    for id in ids(&server) {
        server.handle.close(id, 4001, "go away").unwrap();
    }
    assert_eq!(expect_close(&push).code, CloseCode(4001));
    assert_eq!(push.next(DEADLINE).unwrap_err(), NoEvent::Ended);

    // The last handle ends it as well.
    let push = connect(&server);
    expect_open(&push);
    server.until("it is open", |stats| stats.open == 1);
    drop(push);
    server.until("it has gone", |stats| stats.open == 0);
}

#[test]
fn publications_time_out() {
    let (_held, addr) = clients::nobody();
    let push = PushClient::builder(connections(addr)).connect().unwrap();
    let limit = millis(20);
    let soon = Publication::text("t", "x").timeout(limit);
    let receipt = push.publish(&soon).unwrap();
    assert_eq!(receipt.wait(), Err(PublishError::Timeout { limit }));
    let (tx, rx) = mpsc::channel();
    push.publish_then(&soon, move |result| tx.send(result).unwrap()).unwrap();
    assert_eq!(rx.recv_timeout(DEADLINE).unwrap(), Err(PublishError::Timeout { limit }));
    let receipt = say(&push, "t", "x");
    push.close(1000, "").unwrap();
    assert_eq!(receipt.wait(), Err(PublishError::Closed));
}

#[test]
fn a_callback_gets_all_events_and_may_call_the_client() {
    let server = serve();
    let (tx, rx) = mpsc::channel();
    let push = PushClient::builder(connections(server.addr))
        .connect_with(move |push, event| {
            match &event {
                PushEvent::Subscribed(_) => {
                    let receipt = say(push, "public/t", "from the callback");
                    assert_eq!(receipt.wait(), Err(PublishError::OwnThread));
                }
                PushEvent::Message(message) if message.data.as_str() == Some("panic") => {
                    panic!("as it was asked to")
                }
                _ => {}
            }
            tx.send(event).unwrap();
        })
        .unwrap();
    push.subscribe("public/t").unwrap();
    let received = || rx.recv_timeout(DEADLINE).expect("an event");
    assert!(matches!(received(), PushEvent::Open(_)));
    assert!(matches!(received(), PushEvent::Subscribed(_)));
    assert!(matches!(received(), PushEvent::Message(m) if m.data.as_str() == Some("from the callback")));
    assert_eq!(push.next(DEADLINE).unwrap_err(), NoEvent::Ended);
    // A refusal that is known at once reaches it too.
    push.subscribe("secret").unwrap();
    assert!(matches!(received(), PushEvent::Refused { .. }));
    let _ = say(&push, "public/t", "panic");
    server.until("it has gone", |stats| stats.open == 0);
}

#[cfg(all(feature = "deflate", feature = "tls"))]
#[test]
fn it_works_over_tls_with_compression() {
    use campanile::client::Trust;
    use campanile::deflate::Deflate;
    let authority = tls::Authority::new();
    let deflate = Deflate::dedicated(15).threshold(0);
    let server = tls::start_tls(settings(Route::from(route()).deflate(deflate)), &authority.tls());
    let connections = Client::builder(&format!("wss://localhost:{}/push", server.addr.port()))
        .trust(&Trust::authorities(authority.pem()).unwrap())
        .reconnect(soon())
        .deflate(deflate);
    let push = PushClient::builder(connections).connect().unwrap();
    push.subscribe("public/t").unwrap();
    expect_open(&push);
    expect_subscribed(&push);
    let text = "to and fro ".repeat(1000);
    say(&push, "public/t", &text).wait().unwrap();
    assert_eq!(expect_message(&push).data.as_str(), Some(&*text));
    push.reset();
    say(&push, "public/t", "again").wait().unwrap();
    assert!(expect_close(&push).will_reconnect);
    expect_open(&push);
    assert!(expect_subscribed(&push).recovered);
    assert_eq!(expect_message(&push).data.as_str(), Some("again"));
    let stats = server.handle.stats();
    assert!(stats.inflated > 0 && stats.deflated > 0, "both ways were compressed");
}

// ---- a server that says every byte itself ----

/// An unmasked frame of text below 126 bytes, or up to 64 KiB.
fn frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match u8::try_from(text.len()) {
        Ok(len @ 0..126) => frame.push(len),
        _ => {
            frame.push(126);
            frame.extend_from_slice(&u16::try_from(text.len()).unwrap().to_be_bytes());
        }
    }
    [&frame[..], text.as_bytes()].concat()
}

#[test]
fn a_silent_server_is_pinged_and_reconnected_to() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let greet = |heartbeat: u32| {
            let (mut socket, request) = accept(&listener);
            assert!(request.contains("Sec-WebSocket-Protocol: campanile.v1.json\r\n"), "{request}");
            socket.write_all(agree(&request, "").as_bytes()).unwrap();
            let hello = format!(r#"{{"type":"hello","heartbeat":{heartbeat},"max_message_size":1000}}"#);
            socket.write_all(&frame(&hello)).unwrap();
            socket
        };
        let mut silent = greet(20);
        let mut all = Vec::new();
        let _ = silent.read_to_end(&mut all); // the client's reset ends it as well
        // A ping is 15 bytes of text, masked.
        assert_eq!(all.get(..2), Some(&[0x81, 0x8f][..]));
        greet(0)
    });
    let mut own = PushClientLimits::default();
    own.pong_timeout = millis(20);
    let push = PushClient::builder(connections(addr)).limits(own).connect().unwrap();
    expect_open(&push);
    let event = next(&push);
    assert!(matches!(event, PushEvent::Error(Error::PongTimeout { .. })), "{event:?}");
    assert!(expect_close(&push).will_reconnect);
    expect_open(&push);
    drop(server.join().unwrap());
}

#[test]
fn the_retry_of_hello_is_the_initial_delay() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (go, goes) = mpsc::channel();
    let server = std::thread::spawn(move || {
        for hint in [r#","retry":30"#, ""] {
            let (mut socket, request) = accept(&listener);
            socket.write_all(agree(&request, "").as_bytes()).unwrap();
            socket.write_all(&frame(&format!(r#"{{"type":"hello"{hint}}}"#))).unwrap();
            goes.recv_timeout(DEADLINE).unwrap();
        }
    });
    let reconnect =
        Reconnect::default().initial_delay(DEADLINE * 100).max_delay(DEADLINE * 200).jitter(false);
    let push = PushClient::builder(Client::builder(&url(addr)).reconnect(reconnect)).connect().unwrap();
    let mut delays = Vec::new();
    while delays.len() < 2 {
        match push.next(DEADLINE).expect("an event") {
            PushEvent::Open(_) => go.send(()).unwrap(),
            PushEvent::Reconnecting { delay, .. } => delays.push(delay),
            _ => {}
        }
    }
    // The second connection took the hint back; it is the second failure in a row.
    assert_eq!(delays, [millis(30), DEADLINE * 200]);
    server.join().unwrap();
}
