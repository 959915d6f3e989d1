//! Slow readers: what waits, what is given up, and that it is bounded.

use crate::support;
use crate::support::{
    Client, DEADLINE, Event, Events, PING, PONG, Recorder, TestServer, builder, echo, frame, limits, millis,
    recorder, serve, start,
};
use campanile::{
    Cause, CloseCode, Message, Publish, RefusedReason, Route, Sent, SlowConsumer, TopicSettings,
};
use crossbeam_channel::unbounded;
use std::time::Instant;

const KIB: usize = 1 << 10;
const LIMIT: usize = 256 * KIB;
/// A message: its number, and so many bytes.
const SIZE: usize = 10 * KIB;

fn numbered(n: u32) -> Vec<u8> {
    let mut bytes = vec![n as u8; SIZE];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    bytes
}

fn number(bytes: &[u8]) -> u32 {
    assert_eq!(bytes.len(), SIZE, "a message was cut");
    let n = u32::from_be_bytes(*bytes.first_chunk().unwrap());
    assert!(bytes[4..].iter().all(|b| *b == n as u8), "messages were mixed");
    n
}

fn slow_server(handler: Recorder, policy: SlowConsumer) -> TestServer {
    let limits = limits(|l| {
        l.max_backlog = LIMIT;
        l.close_timeout = millis(300);
    });
    serve(Route::new(handler).limits(limits).slow_consumer(policy))
}

/// A client that reads nothing, behind full buffers: `filled` messages have gone to the kernel or wait.
fn fill(server: &TestServer, events: &Events) -> (Client, campanile::ConnId) {
    let client = server.open_slow("/");
    (client, events.opened())
}

fn buffered(server: &TestServer) -> usize {
    let all = server.handle.connections("/").wait().unwrap();
    all.first().map_or(0, |c| c.buffered_amount)
}

/// Sends numbers from the handle; says what waited at most.
fn push(
    server: &TestServer,
    id: campanile::ConnId,
    numbers: std::ops::Range<u32>,
    key: Option<&str>,
) -> usize {
    let mut most = 0;
    for n in numbers {
        let bytes = numbered(n);
        let message = Message::binary(&bytes);
        let message = key.map_or(message, |key| message.with_key(key));
        server.handle.send(id, message).unwrap();
        if n % 16 == 0 {
            most = most.max(buffered(server));
        }
    }
    most.max(buffered(server))
}

/// The numbers that arrive, until the server says it has nothing more.
fn arriving(client: &mut Client, last: u32) -> Vec<u32> {
    let mut all = Vec::new();
    loop {
        let n = number(&client.read_binary());
        all.push(n);
        if n == last {
            return all;
        }
    }
}

#[test]
fn drop_newest_delivers_the_beginning_without_a_gap() {
    let (handler, events) = recorder();
    let server = slow_server(handler, SlowConsumer::DropNewest);
    let (mut client, id) = fill(&server, &events);
    let most = push(&server, id, 0..2000, None);
    assert!(most <= LIMIT && most > LIMIT - 2 * SIZE, "{most} bytes waited");
    server.settle();
    let dropped: u32 =
        events.so_far().iter().map(|e| if let Event::Dropped(_, n) = e { *n } else { 0 }).sum();
    assert!(dropped > 0);
    for n in 0..2000 - dropped {
        assert_eq!(number(&client.read_binary()), n);
    }
    // The backlog has gone: it takes messages again.
    events.drained();
    push(&server, id, 5000..5001, None);
    assert_eq!(number(&client.read_binary()), 5000);
    assert_eq!(server.handle.stats().dropped, u64::from(dropped));
    assert_eq!(server.handle.open_connections(), 1);
}

#[test]
fn drop_oldest_delivers_the_latest_whole_messages() {
    let (handler, events) = recorder();
    let server = slow_server(handler, SlowConsumer::DropOldest);
    let (mut client, id) = fill(&server, &events);
    let most = push(&server, id, 0..2000, None);
    assert!(most <= LIMIT && most > LIMIT - 2 * SIZE, "{most} bytes waited");
    let got = arriving(&mut client, 1999);
    assert!(got.windows(2).all(|w| w[0] < w[1]), "the order is kept");
    let gap = got.windows(2).position(|w| w[1] != w[0] + 1).expect("something was dropped");
    let tail = &got[gap + 1..];
    assert!(tail.windows(2).all(|w| w[1] == w[0] + 1), "there is one gap, behind what had left already");
    assert!(tail.len() >= LIMIT / SIZE - 2, "{} were kept", tail.len());
    events.drained();
    let stats = server.handle.stats();
    assert_eq!(stats.dropped as usize + got.len(), 2000);
    assert_eq!(server.handle.open_connections(), 1);
}

#[test]
fn latest_by_key_queues_one_message_for_each_key() {
    let (handler, events) = recorder();
    let server = slow_server(handler, SlowConsumer::LatestByKey);
    let (mut client, id) = fill(&server, &events);
    // Until the kernel takes no more.
    let mut filled = 0;
    while buffered(&server) == 0 {
        push(&server, id, filled..filled + 1, None);
        filled += 1;
    }
    for n in 10_000..10_500 {
        let bytes = numbered(n);
        let key = format!("key {}", n % 3);
        server.handle.send(id, Message::binary(&bytes).with_key(&key)).unwrap();
    }
    let waiting = buffered(&server);
    assert!(waiting <= 5 * SIZE, "{waiting} bytes wait for three keys");
    push(&server, id, 20_000..20_001, None);
    let got = arriving(&mut client, 20_000);
    let (before, after) = got.split_at(filled as usize);
    assert!(before.iter().copied().eq(0..filled), "what has no key is kept");
    assert_eq!(after, [10_497, 10_498, 10_499, 20_000]);
    let told: u32 = events.so_far().iter().map(|e| if let Event::Dropped(_, n) = e { *n } else { 0 }).sum();
    assert_eq!(told, 497, "every one that was replaced is reported");
}

#[test]
fn latest_by_key_drops_the_oldest_where_keys_do_not_help() {
    let (handler, events) = recorder();
    let server = slow_server(handler, SlowConsumer::LatestByKey);
    let (mut client, id) = fill(&server, &events);
    let most = push(&server, id, 0..1500, None);
    assert!(most <= LIMIT, "{most} bytes waited");
    let got = arriving(&mut client, 1499);
    assert!(got.windows(2).all(|w| w[0] < w[1]) && got.len() < 1500);
}

#[test]
fn a_slow_consumer_is_closed_with_the_code_of_the_policy() {
    for policy in [SlowConsumer::Close(CloseCode::TRY_AGAIN_LATER), SlowConsumer::Close(CloseCode(4004))] {
        let SlowConsumer::Close(code) = policy else { unreachable!() };
        let (handler, events) = recorder();
        let limits = limits(|l| l.max_backlog = LIMIT);
        let server = serve(Route::new(handler).limits(limits).slow_consumer(policy));
        let (mut client, id) = fill(&server, &events);
        let most = push(&server, id, 0..2000, None);
        assert!(most <= LIMIT, "{most} bytes waited");
        let mut arrived = 0;
        let (got, reason) = loop {
            let frame = client.read_frame();
            if frame.opcode == support::CLOSE {
                let (code, reason) = frame.payload.split_first_chunk().unwrap();
                break (u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).unwrap());
            }
            assert_eq!(number(&frame.payload), arrived, "whole messages, then the close frame");
            arrived += 1;
        };
        assert_eq!(CloseCode(got), code);
        assert!(reason.contains("slow"), "{reason}");
        client.expect_eof();
        drop(client);
        let end = events.closed();
        assert_eq!((end.cause, end.code), (Cause::SlowConsumer, code));
        // One of the 2,000 was too many; those before it that did not arrive are counted.
        assert!(end.unsent > 0, "{end:?}");
        server.until("it was counted", |s| s.slow_consumers == 1 && s.sockets == 0);
    }
}

#[test]
fn a_slow_consumer_that_never_reads_ends_at_the_close_timeout() {
    let (handler, events) = recorder();
    let server = slow_server(handler, SlowConsumer::Close(CloseCode::TRY_AGAIN_LATER));
    let (client, id) = fill(&server, &events);
    push(&server, id, 0..1000, None);
    assert_eq!(events.closed().cause, Cause::SlowConsumer);
    server.until("the socket is closed", |s| s.sockets == 0);
    drop(client);
}

#[test]
fn send_returns_whether_a_message_was_sent_queued_or_refused() {
    for policy in [SlowConsumer::DropNewest, SlowConsumer::Close(CloseCode(4000))] {
        let (results, received) = unbounded();
        let (handler, _events) = recorder();
        let handler = handler.on_message(move |conn, _| {
            let bytes = numbered(7);
            for _ in 0..4000 {
                let waiting = conn.buffered_amount();
                match conn.send(&bytes) {
                    Ok(sent) => {
                        assert!(conn.buffered_amount() > waiting || sent == Sent::Sent);
                        results.send(Some(sent)).unwrap();
                    }
                    Err(refused) => {
                        assert_eq!(refused.reason, RefusedReason::BacklogFull);
                        assert_eq!(*refused.message, *bytes);
                        // Each of the larger messages counts a little more than its bytes.
                        assert!(waiting + SIZE > LIMIT * 9 / 10 && waiting <= LIMIT, "{waiting}");
                        results.send(None).unwrap();
                        return;
                    }
                }
            }
        });
        let server = slow_server(handler, policy);
        let mut client = server.open_slow("/");
        client.text("go");
        assert_eq!(received.recv_timeout(DEADLINE).unwrap(), Some(Sent::Sent));
        let mut queued = 0;
        loop {
            match received.recv_timeout(DEADLINE).unwrap() {
                Some(Sent::Sent) => assert_eq!(queued, 0, "nothing passes what waits"),
                Some(Sent::Queued) => queued += 1,
                None => break,
            }
        }
        assert!(queued > 0 && queued <= LIMIT / SIZE + 2, "{queued} were queued");
        assert_eq!(server.handle.stats().panics, 0);
    }
}

#[test]
fn a_message_of_any_size_is_queued_on_an_empty_backlog() {
    let (handler, events) = recorder();
    let server = slow_server(handler, SlowConsumer::Close(CloseCode(4000)));
    let (mut client, id) = fill(&server, &events);
    let big = vec![5; 64 * LIMIT];
    server.handle.send(id, &big).unwrap();
    until_buffered(&server);
    assert!(client.read_binary() == big);
    client.expect_nothing_until_pong();
}

#[test]
fn drain_is_called_once_for_an_emptied_backlog() {
    let (handler, events) = recorder();
    let handler = handler.on_drain(|conn| assert_eq!(conn.buffered_amount(), 0));
    let server = slow_server(handler, SlowConsumer::DropNewest);
    let (mut client, id) = fill(&server, &events);
    for round in 0..3 {
        push(&server, id, 0..1, None);
        assert_eq!(number(&client.read_binary()), 0);
        server.settle();
        assert!(events.so_far().is_empty(), "nothing waited in round {round}");
        server.handle.send(id, vec![1; 8 << 20]).unwrap();
        until_buffered(&server);
        assert_eq!(client.read_binary().len(), 8 << 20);
        events.drained();
        server.settle();
        let more = events.so_far();
        assert!(more.is_empty(), "{more:?}");
    }
    assert_eq!(server.handle.stats().panics, 0);
}

fn until_buffered(server: &TestServer) {
    support::until("something waits", || buffered(server) > 0);
}

#[test]
fn messages_written_in_the_same_iteration_are_no_backlog() {
    let (handler, events) = recorder();
    let handler = handler
        .on_open(|conn| {
            assert_eq!(conn.buffered_amount(), 0, "the 101 is no message");
            conn.pause();
            conn.resume();
        })
        .on_message(|conn, message| {
            assert_eq!(conn.send(message), Ok(Sent::Sent));
            assert_eq!(conn.buffered_amount(), message.len() + 2);
        });
    let server = serve(handler);
    let mut client = server.open("/");
    for _ in 0..3 {
        client.text("little");
        assert_eq!(client.read_text(), "little");
    }
    server.settle();
    assert_eq!(server.handle.stats().panics, 0);
    assert!(!events.so_far().iter().any(|e| matches!(e, Event::Drain(_))), "nothing has waited");
}

#[test]
fn control_frames_overtake_the_backlog() {
    let (handler, events) = recorder();
    let server = serve(Route::new(handler).limits(limits(|l| l.max_backlog = 64 << 20)));
    let (mut client, id) = fill(&server, &events);
    push(&server, id, 0..1200, None);
    let waiting = buffered(&server);
    assert!(waiting > 4 << 20, "{waiting}");
    client.ping(b"now");
    events.find("the ping", |e| matches!(e, Event::Ping(..)).then_some(()));
    server.handle.ping(id, b"from here").unwrap();
    server.settle();
    let (mut messages, mut controls) = (0, Vec::new());
    while messages < 1200 {
        let frame = client.read_frame();
        match frame.opcode {
            PONG | PING => controls.push((frame.opcode, frame.payload, messages)),
            _ => {
                assert_eq!(number(&frame.payload), messages);
                messages += 1;
            }
        }
    }
    let [(PONG, pong, before), (PING, ping, _)] = &controls[..] else { panic!("{controls:?}") };
    assert_eq!((&pong[..], &ping[..]), (&b"now"[..], &b"from here"[..]));
    let passed = (1200 - before) as usize * SIZE;
    assert!(passed + 64 * KIB >= waiting, "it passed {passed} of {waiting} bytes");
}

#[test]
fn many_pings_without_reading_queue_one_pong() {
    let (handler, events) = recorder();
    let server = serve(handler);
    let mut client = server.open_slow("/");
    events.opened();
    client.socket.set_write_timeout(Some(millis(500))).unwrap();
    let burst: Vec<u8> = (0..1000u32).flat_map(|n| frame(true, PING, &[n as u8; 125])).collect();
    let mut most = 0;
    for _ in 0..60 {
        if client.try_send(&burst).is_err() {
            break; // the server may stop reading
        }
        most = most.max(buffered(&server));
        events.so_far();
    }
    assert!(most <= 400 * KIB, "{most} bytes of pongs wait");
    server.open("/").expect_nothing_until_pong();
}

#[test]
fn pausing_at_a_backlog_stops_the_client_without_loss() {
    let (handler, _events) = recorder();
    let handler = handler
        .on_message(|conn, message| {
            conn.send(message).unwrap();
            if conn.buffered_amount() > 64 * KIB {
                conn.pause();
            }
        })
        .on_drain(|conn| conn.resume());
    let server = serve(Route::new(handler).limits(limits(|l| l.max_backlog = 4 << 20)));
    let mut client = server.open_slow("/");
    let mut sender = Client::over(client.socket.try_clone().unwrap());
    let sending = std::thread::spawn(move || {
        for n in 0..3000 {
            sender.binary(&numbered(n));
        }
    });
    for n in 0..3000 {
        assert_eq!(number(&client.read_binary()), n);
    }
    sending.join().unwrap();
    assert_eq!(server.handle.stats().panics, 0);
}

#[test]
fn a_slow_subscriber_does_not_delay_others() {
    let (handler, events) = recorder();
    let handler = handler.on_open(|conn| {
        conn.subscribe("news").unwrap();
    });
    let server = slow_server(handler, SlowConsumer::DropOldest);
    let mut slow = server.open_slow("/");
    let mut quick = server.open("/");
    events.opened();
    events.opened();
    let began = Instant::now();
    for n in 0..1500 {
        server.handle.publish("news", numbered(n)).unwrap();
        assert_eq!(number(&quick.read_binary()), n);
    }
    assert!(began.elapsed() < DEADLINE);
    let waiting = server.handle.connections("/").wait().unwrap().iter().map(|c| c.buffered_amount).max();
    assert!(waiting.is_some_and(|n| n <= LIMIT && n > LIMIT / 2), "{waiting:?}");
    let got = arriving(&mut slow, 1499);
    assert!(got.windows(2).all(|w| w[0] < w[1]) && got.len() < 1500);
}

#[test]
fn a_burst_of_one_iteration_respects_the_backlog_limit() {
    // Everything below leaves its turn as one run of 100 messages, many times the limit.
    let (handler, events) = recorder();
    let handler = handler
        .on_open(|conn| {
            conn.subscribe("news").unwrap();
        })
        .on_message(|conn, _| {
            for n in 0..100 {
                conn.publish_to_others("news", numbered(n)).unwrap();
            }
        });
    const LITTLE: usize = 64 * KIB;
    let limits = limits(|l| l.max_backlog = LITTLE);
    let server = serve(Route::new(handler).limits(limits).slow_consumer(SlowConsumer::DropOldest));
    let (mut slow, _) = fill(&server, &events);
    let mut publisher = server.open("/");
    for _ in 0..30 {
        publisher.text("burst");
        publisher.expect_nothing_until_pong();
        let waiting =
            server.handle.connections("/").wait().unwrap().iter().map(|c| c.buffered_amount).max().unwrap();
        assert!(waiting <= LITTLE, "{waiting} bytes wait, the limit is {LITTLE}");
    }
    publisher.text("the last burst");
    while number(&slow.read_binary()) != 99 {}
    events.drained();
}

#[test]
fn sends_of_one_callback_respect_the_backlog_limit() {
    let (handler, events) = recorder();
    let handler = handler.on_message(|conn, _| {
        for _ in 0..200 {
            let _ = conn.send(&[1; 2000]);
        }
    });
    const LITTLE: usize = 32 * KIB;
    let limits = limits(|l| l.max_backlog = LITTLE);
    let server = serve(Route::new(handler).limits(limits).slow_consumer(SlowConsumer::DropNewest));
    let (mut client, _) = fill(&server, &events);
    for _ in 0..20 {
        client.text("say");
        events.message();
        server.settle();
        let waiting = buffered(&server);
        assert!(waiting <= LITTLE, "{waiting} bytes wait, the limit is {LITTLE}");
    }
}

#[test]
fn a_slow_echo_client_does_not_disturb_another() {
    let server = serve(Route::new(echo()).slow_consumer(SlowConsumer::DropNewest));
    let mut slow = server.open_slow("/");
    slow.socket.set_write_timeout(Some(millis(300))).unwrap();
    let big = frame(true, support::BINARY, &[0; 60 * KIB]);
    for _ in 0..100 {
        if slow.try_send(&big).is_err() {
            break;
        }
    }
    let mut quick = server.open("/");
    for n in 0..100 {
        quick.text(&n.to_string());
        assert_eq!(quick.read_text(), n.to_string());
    }
}

#[test]
fn many_short_messages_of_one_iteration_reach_a_reading_client() {
    const MESSAGES: u32 = 2_000;
    let limits = limits(|l| l.max_backlog = 64 * KIB);
    let many = recorder().0.on_message(|conn, _| {
        // By the handle: they are queued one by one, and written at the end of the turn.
        for n in 0..MESSAGES {
            conn.handle().send(conn.id(), n.to_be_bytes()).unwrap();
        }
    });
    let server = serve(Route::new(many).limits(limits));
    let mut client = server.open("/");
    client.text("go");
    for n in 0..MESSAGES {
        assert_eq!(client.read_binary(), n.to_be_bytes());
    }
}

#[test]
fn a_client_that_resumes_reading_gets_recent_messages() {
    const KEYS: u32 = 10;
    const SECONDS: u32 = 12;
    let close = SlowConsumer::Close(CloseCode::TRY_AGAIN_LATER);
    let ticks = TopicSettings::new().slow_consumer(SlowConsumer::LatestByKey);
    // The policy of the route, and that of the topic.
    for (policy, topics) in [(SlowConsumer::LatestByKey, TopicSettings::new()), (close, ticks)] {
        let handler = recorder().0.on_open(|conn| {
            conn.subscribe("ticks/all").unwrap();
        });
        let route = Route::new(handler).slow_consumer(policy);
        let server = start(builder().route("/", route).topics("ticks/", topics));
        let mut client = server.open("/");
        server.until("it is open", |stats| stats.open == 1);
        let publish = |n: u32| {
            let mut bytes = [n as u8; KIB];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            let key = format!("price {}", n % KEYS);
            let message = Message::binary(&bytes).with_key(&key);
            server.handle.publish_confirmed(Publish::new("ticks/all", message)).wait().unwrap().unwrap();
        };
        let read = |client: &mut Client| u32::from_be_bytes(*client.read_binary().first_chunk().unwrap());
        // What 1,000 messages each second are in 12 s: 12 MB.
        let all = SECONDS * 1000;
        (0..all).for_each(publish);
        let (mut old, mut fresh) = (0, 0);
        while fresh < KEYS {
            match read(&mut client) < all - KEYS {
                true => old += KIB,
                false => fresh += 1,
            }
        }
        assert!(old <= 256 * KIB, "{} KiB of old messages", old / KIB);
        let dropped = u64::from(all - KEYS) - (old / KIB) as u64;
        assert_eq!(server.handle.stats().dropped, dropped, "what did not come is counted");
        // It is written to as before.
        for n in all..all + 1000 {
            publish(n);
            assert_eq!(read(&mut client), n);
        }
    }
}

#[test]
fn a_slow_reader_gets_everything_with_any_max_unsent() {
    for unsent in [1, 16 << 10, u32::MAX] {
        let (handler, events) = recorder();
        let limits = limits(|l| (l.max_backlog, l.max_unsent) = (64 << 20, Some(unsent)));
        let server = serve(Route::new(handler).limits(limits));
        let mut client = server.open("/");
        let id = events.opened();
        let size = |n: usize| [0, 100, 70_000, 3 << 20][n % 4];
        for n in 0..40 {
            server.handle.send(id, Message::binary(&vec![n as u8; size(n)])).unwrap();
        }
        for n in 0..40 {
            let got = client.read_binary();
            assert!(got.len() == size(n) && got.iter().all(|b| *b == n as u8), "message {n}");
        }
        server.until("nothing waits", |stats| stats.held_bytes == 0);
    }
}
