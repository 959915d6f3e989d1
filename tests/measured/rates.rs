//! Routes with rates: over them a connection is not read from until it may send again, and nothing else changes for it.

use crate::alone;
use crate::support::tls;
use crate::support::{
    BINARY, Client, DEADLINE, Event, Events, PING, PONG, Recorder, TEXT, TestServer, builder, echo, frame,
    limits, millis, recorder, serve,
};
use campanile::deflate::{Deflate, Deflater};
use campanile::{Cause, CloseCode, Limits, Route};
use std::time::{Duration, Instant};

/// So many messages of one byte.
fn messages(count: usize) -> Vec<u8> {
    (0..count).flat_map(|n| frame(true, TEXT, &[b'a' + (n % 26) as u8])).collect()
}

fn recording(
    handler: Recorder,
    events: Events,
    rated: impl FnOnce(Route) -> Route,
    change: impl FnOnce(&mut Limits),
) -> (TestServer, Events) {
    (serve(rated(Route::new(handler)).limits(limits(change))), events)
}

/// A server that has stopped reading from a client with many messages underway.
fn over(change: impl FnOnce(&mut Limits)) -> (TestServer, Events, Client) {
    let (handler, events) = recorder();
    let (server, events) = recording(handler, events, |route| route.message_rate(1, 2), change);
    let mut client = server.open("/");
    events.opened();
    client.send(messages(1000));
    server.until("it is not read from", |s| s.rate_pauses == 1);
    (server, events, client)
}

#[test]
fn messages_over_the_rate_are_delayed_without_loss() {
    let _alone = alone();
    let server = serve(Route::new(echo()).message_rate(100, 20));
    let mut client = server.open("/");
    let began = Instant::now();
    client.send(messages(60));
    for n in 0..60 {
        assert_eq!(client.read_text().as_bytes(), [b'a' + n % 26]);
    }
    // 20 at once, and 40 at 100 each second.
    assert!(began.elapsed() >= millis(390), "{:?}", began.elapsed());
    assert!(server.handle.stats().rate_pauses > 0);
    // Within it nothing waits.
    let server = serve(Route::new(echo()).message_rate(1, 100));
    let mut client = server.open("/");
    client.send(messages(99));
    (0..99).for_each(|_| drop(client.read_text()));
    assert_eq!(server.handle.stats().rate_pauses, 0);
}

#[test]
fn a_connection_over_its_rate_does_not_delay_others() {
    let _alone = alone();
    let server = serve(Route::new(echo()).message_rate(10, 10));
    let mut flood = server.open("/");
    flood.send(messages(3000));
    server.until("it is not read from", |s| s.rate_pauses > 0);
    let mut other = server.open("/");
    for _ in 0..9 {
        other.text("x");
        assert_eq!(other.read_text(), "x");
    }
    assert!(server.handle.stats().messages_in < 100, "{:?}", server.handle.stats());
    let held = server.handle.stats().held_bytes;
    assert!(held <= 16 << 10, "{held} bytes are held of what was received");
}

#[test]
fn a_message_larger_than_the_burst_is_accepted_and_delays_the_next() {
    let _alone = alone();
    let server = serve(Route::new(echo()).byte_rate(100_000, 1000));
    let mut client = server.open("/");
    let began = Instant::now();
    for _ in 0..2 {
        client.binary(&vec![7; 50_000]);
    }
    for _ in 0..2 {
        assert_eq!(client.read_binary().len(), 50_000);
    }
    // The second waits for half a second, less the burst, which is at least an eighth of a second's worth.
    assert!(began.elapsed() >= millis(360), "{:?}", began.elapsed());
}

#[test]
fn compressed_messages_count_by_their_inflated_size() {
    let _alone = alone();
    let server = serve(Route::new(echo()).deflate(Deflate::shared()).byte_rate(1000, 20_000));
    let mut client = server.dial();
    let answer = client.ask("/", "Sec-WebSocket-Extensions: permessage-deflate\r\n");
    assert_eq!(answer.status, 101);
    let mut packed = Vec::new();
    Deflater::new(15, 9).compress(&[b'x'; 40_000], None, &mut packed);
    assert!(packed.len() < 1000);
    client.send(frame(true, 0x40 | BINARY, &packed));
    server.until("it is not read from", |s| s.rate_pauses == 1);
}

#[test]
fn pings_count_against_the_message_rate() {
    let _alone = alone();
    let (handler, events) = recorder();
    let (server, events) = recording(handler, events, |route| route.message_rate(1, 3), |_| {});
    let mut client = server.open("/");
    events.opened();
    client.send((0..1000).flat_map(|_| frame(true, PING, b"")).collect::<Vec<u8>>());
    server.until("it is not read from", |s| s.rate_pauses == 1);
    let answered = events.so_far().len();
    assert!(answered <= 5, "{answered} pings of 1,000 were answered");
    assert_eq!(client.read_frame().opcode, PONG);
}

#[test]
fn a_connection_over_its_rate_is_not_ended_by_the_heartbeat() {
    let _alone = alone();
    let (server, events, mut client) = over(|l| {
        l.ping_interval = millis(100);
        l.pong_timeout = millis(100);
        l.idle_timeout = millis(300);
    });
    let until = Instant::now() + millis(2500);
    let mut messages = 0;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        match events.0.recv_timeout(left) {
            Ok(Event::Message(..)) => messages += 1,
            Ok(other) => panic!("{other:?}"),
            Err(_) => break,
        }
    }
    assert!((3..=5).contains(&messages), "{messages} messages at one each second, with two at once");
    assert_eq!(server.handle.open_connections(), 1);
    assert!(client.try_send(&frame(true, TEXT, b"x")).is_ok());
}

#[test]
fn pause_of_the_application_and_of_the_rate_are_independent() {
    let _alone = alone();
    let (handler, events) = recorder();
    let handler = handler.on_message(|conn, message| match message.as_text() {
        Some("a") => {
            conn.pause();
            assert!(conn.is_paused());
            conn.resume();
            assert!(!conn.is_paused());
        }
        _ => conn.pause(),
    });
    let (server, events) = recording(handler, events, |route| route.message_rate(2, 1), |_| {});
    let mut client = server.open("/");
    let id = events.opened();
    let began = Instant::now();
    client.send(messages(3));
    assert_eq!(events.message(), b"a");
    assert_eq!(events.message(), b"b");
    assert!(began.elapsed() >= millis(350), "{:?}", began.elapsed());
    // The third is held by the application after the rate would let it through.
    let early = events.0.recv_timeout(millis(900));
    assert!(early.is_err(), "{early:?}");
    server.handle.resume(id).unwrap();
    assert_eq!(events.message(), b"c");
}

#[test]
fn a_peer_over_its_rate_that_resets_is_noticed_at_once() {
    let _alone = alone();
    let (_server, events, client) = over(|l| l.close_timeout = DEADLINE);
    let began = Instant::now();
    client.reset();
    let end = events.closed();
    assert!(matches!(end.cause, Cause::Transport(_)), "{end:?}");
    assert!(began.elapsed() < millis(3000), "{:?}", began.elapsed());
}

#[test]
fn a_peer_over_its_rate_that_leaves_gets_the_close_timeout() {
    let _alone = alone();
    let (server, events, client) = over(|l| l.close_timeout = millis(1200));
    let began = Instant::now();
    client.end();
    let end = events.closed();
    assert_eq!(
        (end.code, end.cause),
        (CloseCode::ABNORMAL, Cause::Transport(std::io::ErrorKind::UnexpectedEof))
    );
    assert!(began.elapsed() >= millis(1100) && began.elapsed() < millis(5000), "{:?}", began.elapsed());
    server.until("it has gone", |s| s.sockets == 0 && s.held_bytes == 0);
}

#[test]
fn messages_before_the_end_of_a_rate_limited_peer_are_handled() {
    let _alone = alone();
    let (handler, events) = recorder();
    let (server, events) = recording(handler, events, |route| route.message_rate(20, 2), |_| {});
    let mut client = server.open("/");
    events.opened();
    client.send(messages(20));
    client.close(4000, "done");
    client.end();
    for n in 0..20 {
        assert_eq!(events.message(), [b'a' + n]);
    }
    assert_eq!(events.closed().code, CloseCode(4000));
}

#[test]
fn a_connection_over_its_rate_is_closed_without_waiting() {
    let _alone = alone();
    let (server, events, mut client) = over(|_| {});
    let began = Instant::now();
    let Some(info) = server.handle.connections("/").wait().unwrap().pop() else { panic!("it is open") };
    server.handle.close(info.id, 4001, "enough").unwrap();
    assert_eq!(client.read_close(), (4001, "enough".to_owned()));
    client.close(4001, "");
    client.expect_eof();
    assert!(events.closed().was_clean);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn pings_do_not_extend_the_message_timeout() {
    let _alone = alone();
    let (handler, events) = recorder();
    let change = |l: &mut Limits| l.message_timeout = millis(500);
    let (server, events) = recording(handler, events, |route| route.message_rate(10, 2), change);
    let mut client = server.open("/");
    events.opened();
    client.frame(false, TEXT, b"begun");
    client.send((0..200).flat_map(|_| frame(true, PING, b"")).collect::<Vec<u8>>());
    assert_eq!(events.closed().cause, Cause::MessageTimeout);
}

#[test]
fn tls_connections_have_the_same_rates() {
    let _alone = alone();
    let authority = tls::Authority::new();
    let route = Route::new(echo()).message_rate(20, 5);
    let server = tls::start_tls(builder().route("/", route), &authority.tls());
    let mut client = tls::open(server.addr, &authority.client());
    let began = Instant::now();
    client.send(messages(20));
    for n in 0..20 {
        assert_eq!(client.read_text().as_bytes(), [b'a' + n]);
    }
    assert!(began.elapsed() >= millis(700), "{:?}", began.elapsed());
    assert!(server.handle.stats().rate_pauses > 0);
}
