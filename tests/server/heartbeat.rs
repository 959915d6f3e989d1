//! Life and its limits in time: pings, idleness, unfinished messages and handshakes.

use crate::support;
use crate::support::{
    DEADLINE, Event, Events, PING, PONG, Recorder, TEXT, TestServer, echo, frame, limits, millis, recorder,
    serve,
};
use campanile::{Cause, CloseCode, Limits, Route};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn timed(change: impl FnOnce(&mut Limits)) -> (TestServer, Events) {
    let (handler, events) = recorder();
    (with(handler, change), events)
}

fn with(handler: Recorder, change: impl FnOnce(&mut Limits)) -> TestServer {
    serve(Route::new(handler).limits(limits(change)))
}

#[test]
fn a_silent_connection_is_pinged_in_time() {
    let (server, _events) = timed(|l| l.ping_interval = millis(200));
    let mut client = server.open("/");
    let began = Instant::now();
    assert_eq!(client.read_ping(), b"");
    assert!(began.elapsed() >= millis(130), "{:?}", began.elapsed());
    assert!(began.elapsed() < millis(2000), "{:?}", began.elapsed());
}

#[test]
fn a_peer_that_never_answers_is_ended() {
    let (server, events) = timed(|l| {
        l.ping_interval = millis(150);
        l.pong_timeout = millis(150);
    });
    let mut client = server.open("/");
    let began = Instant::now();
    client.read_ping();
    let (code, _) = client.read_close();
    assert_eq!(CloseCode(code), CloseCode::TIMEOUT);
    client.expect_gone();
    let end = events.closed();
    assert_eq!((end.cause, end.was_clean), (Cause::PongTimeout, false));
    assert!(began.elapsed() < millis(3000), "{:?}", began.elapsed());
    server.until("it was counted", |s| s.pong_timeouts == 1 && s.sockets == 0);
}

#[test]
fn a_peer_that_answers_pings_stays_connected() {
    let (server, events) = timed(|l| {
        l.ping_interval = millis(100);
        l.pong_timeout = millis(100);
    });
    let mut client = server.open("/");
    for _ in 0..8 {
        let ping = client.read_ping();
        client.frame(true, PONG, &ping);
    }
    client.expect_nothing_until_pong();
    assert_eq!(server.handle.open_connections(), 1);
    let pongs = events.so_far().iter().filter(|e| matches!(e, Event::Pong(..))).count();
    assert_eq!(pongs, 8);
}

#[test]
fn a_peer_with_a_slow_pong_stays_connected() {
    let (server, _events) = timed(|l| {
        l.ping_interval = millis(100);
        l.pong_timeout = millis(600);
    });
    let mut client = server.open("/");
    for _ in 0..3 {
        let ping = client.read_ping();
        std::thread::park_timeout(millis(200)); // a slow answer is what is tested
        client.frame(true, PONG, &ping);
    }
    client.expect_nothing_until_pong();
}

#[test]
fn any_received_message_counts_as_a_pong() {
    let server = with(echo(), |l| {
        l.ping_interval = millis(100);
        l.pong_timeout = millis(100);
    });
    let mut client = server.open("/");
    for _ in 0..6 {
        client.read_ping();
        client.text("alive");
        assert_eq!(client.read_text(), "alive");
    }
    client.frame(true, PONG, b"");
    client.expect_nothing_until_pong();
}

#[test]
fn a_dead_peer_is_detected_during_pushes() {
    let (server, events) = timed(|l| {
        l.ping_interval = millis(200);
        l.pong_timeout = millis(200);
        l.max_backlog = 1 << 30;
    });
    // It reads and never says a word: every push succeeds.
    let mut client = server.open("/");
    let id = events.opened();
    let over = Arc::new(AtomicBool::new(false));
    let (handle, stop) = (server.handle.clone(), over.clone());
    let pushing = std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            handle.send(id, "tick").unwrap();
            std::thread::park_timeout(millis(1));
        }
    });
    let began = Instant::now();
    assert_eq!(client.skip_to_close(), CloseCode::TIMEOUT.0);
    over.store(true, Ordering::Relaxed);
    pushing.join().unwrap();
    assert!(began.elapsed() < millis(3000), "{:?}", began.elapsed());
    assert_eq!(events.closed().cause, Cause::PongTimeout);
}

#[test]
fn a_dead_peer_is_detected_with_a_backlog() {
    let (handler, events) = recorder();
    let handler = handler.on_open(|conn| {
        conn.send(&vec![0; 16 << 20]).unwrap(); // more than the kernel takes
    });
    let server = with(handler, |l| {
        l.ping_interval = millis(200);
        l.pong_timeout = millis(200);
    });
    let _client = server.open_slow("/");
    let end = events.closed();
    assert_eq!((end.cause, end.unsent), (Cause::PongTimeout, 1));
    server.until("its socket is closed", |s| s.sockets == 0);
}

#[test]
fn without_a_heartbeat_a_silent_peer_stays_connected() {
    let (server, _events) = timed(|l| {
        l.ping_interval = Duration::ZERO;
        l.pong_timeout = millis(1);
    });
    let mut client = server.open("/");
    client.socket.set_read_timeout(Some(millis(400))).unwrap();
    let frame = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| client.read_frame()));
    assert!(frame.is_err(), "{frame:?}");
    assert_eq!(server.handle.open_connections(), 1);
}

#[test]
fn a_paused_connection_is_not_ended_for_its_silence() {
    let (handler, events) = recorder();
    let handler = handler.on_open(|conn| conn.pause());
    let server = with(handler, |l| {
        l.ping_interval = millis(100);
        l.pong_timeout = millis(100);
    });
    let mut client = server.open("/");
    let id = events.opened();
    client.text("waits");
    let waiting = Instant::now();
    let quiet = events.0.recv_timeout(millis(700));
    assert!(quiet.is_err(), "{quiet:?} after {:?}", waiting.elapsed());
    server.handle.resume(id).unwrap();
    assert_eq!(events.message(), b"waits");
    client.read_ping();
    client.frame(true, PONG, b"");
    client.expect_nothing_until_pong();
    // From here on silence counts again.
    assert_eq!(client.skip_to_close(), CloseCode::TIMEOUT.0);
}

#[test]
fn a_connection_paused_in_open_delivers_nothing_until_it_resumes() {
    let (handler, events) = recorder();
    let handler = handler.on_open(|conn| conn.pause());
    let server = serve(handler);
    let mut client = server.dial();
    let mut all = support::upgrade_request("/", "").into_bytes();
    all.extend(frame(true, TEXT, b"one"));
    all.extend(frame(true, TEXT, b"two"));
    client.send(all);
    assert_eq!(client.answer().status, 101);
    let id = events.opened();
    client.text("three");
    server.settle();
    let early = events.so_far();
    assert!(early.is_empty(), "{early:?}");
    server.handle.resume(id).unwrap();
    for text in ["one", "two", "three"] {
        assert_eq!(events.message(), text.as_bytes());
    }
}

#[test]
fn a_connection_without_messages_is_closed_as_idle_although_it_answers_pings() {
    let (server, events) = timed(|l| {
        l.idle_timeout = millis(500);
        l.ping_interval = millis(100);
    });
    let mut client = server.open("/");
    let began = Instant::now();
    let code = loop {
        let frame = client.read_frame();
        if frame.opcode != PING {
            break u16::from_be_bytes(*frame.payload.first_chunk().unwrap());
        }
        client.frame(true, PONG, &frame.payload);
    };
    assert_eq!(code, 1000);
    assert!(began.elapsed() >= millis(400) && began.elapsed() < millis(3000), "{:?}", began.elapsed());
    client.close(1000, "");
    client.expect_eof();
    let end = events.closed();
    assert_eq!((end.cause, end.was_clean), (Cause::IdleTimeout, true));
}

#[test]
fn messages_keep_a_connection_from_being_idle() {
    let server = with(echo(), |l| l.idle_timeout = millis(400));
    let mut client = server.open("/");
    let began = Instant::now();
    while began.elapsed() < millis(1000) {
        std::thread::park_timeout(millis(50)); // the time between messages is what is tested
        client.text("busy");
        assert_eq!(client.read_text(), "busy");
    }
    assert_eq!(client.read_close().0, 1000);
}

#[test]
fn a_message_that_is_not_finished_in_time_ends_the_connection() {
    for begin in
        [frame(false, TEXT, b"fragment"), frame(true, TEXT, &[b'x'; 60_000])[..50_000].to_vec(), vec![0x81]]
    {
        let (server, events) = timed(|l| {
            l.message_timeout = millis(200);
            l.ping_interval = millis(50);
        });
        let mut client = server.open("/");
        let began = Instant::now();
        client.send(&begin);
        // Only a whole message counts, not that something comes: it answers pings where frames allow it.
        let code = loop {
            let got = client.read_frame();
            if got.opcode != PING {
                break u16::from_be_bytes(*got.payload.first_chunk().unwrap());
            }
            if begin[0] == 0x01 {
                client.frame(true, PONG, &got.payload);
            }
        };
        assert_eq!(code, 1008);
        assert!(began.elapsed() >= millis(150) && began.elapsed() < millis(3000), "{:?}", began.elapsed());
        client.expect_eof();
        drop(client);
        assert_eq!(events.closed().cause, Cause::MessageTimeout);
    }
}

#[test]
fn each_message_has_its_own_message_timeout() {
    let server = with(echo(), |l| l.message_timeout = millis(500));
    let mut client = server.open("/");
    for _ in 0..4 {
        client.frame(false, TEXT, b"a");
        std::thread::park_timeout(millis(200)); // the time within a message is what is tested
        client.frame(true, support::CONTINUATION, b"b");
        assert_eq!(client.read_text(), "ab");
    }
}

#[test]
fn a_pause_does_not_count_against_the_message_timeout() {
    let (handler, events) = recorder();
    let server = with(handler, |l| l.message_timeout = millis(200));
    let mut client = server.open("/");
    let id = events.opened();
    client.frame(false, TEXT, b"first half");
    client.expect_nothing_until_pong();
    server.handle.pause(id).unwrap();
    server.settle();
    client.frame(true, support::CONTINUATION, b", second half");
    let quiet = events.0.recv_timeout(millis(600));
    assert!(matches!(quiet, Ok(Event::Ping(..))), "{quiet:?}");
    let quiet = events.0.recv_timeout(millis(600));
    assert!(quiet.is_err(), "{quiet:?}");
    server.handle.resume(id).unwrap();
    assert_eq!(events.message(), b"first half, second half");
}

#[test]
fn many_connections_are_each_pinged() {
    let (server, _events) = timed(|l| {
        l.ping_interval = millis(300);
        l.pong_timeout = DEADLINE;
    });
    let mut clients: Vec<_> = (0..200).map(|_| server.open("/")).collect();
    for client in &mut clients {
        assert_eq!(client.read_ping(), b"");
        client.frame(true, PONG, b"");
    }
    assert_eq!(server.handle.open_connections(), 200);
}

/// Sends more than any socket takes and pauses, as an echo does that has too much waiting.
fn stalling(change: impl FnOnce(&mut Limits)) -> (TestServer, Events) {
    let (handler, events) = recorder();
    let handler = handler.on_message(|conn, _| {
        conn.send(&vec![7; 16 << 20]).unwrap();
        conn.pause();
    });
    (with(handler, change), events)
}

#[test]
fn a_peer_that_reads_nothing_of_its_backlog_is_ended() {
    let (server, events) = stalling(|l| l.write_timeout = millis(300));
    let mut client = server.open_slow("/");
    client.text("go");
    let end = events.closed();
    assert_eq!((end.cause, end.code, end.unsent), (Cause::WriteTimeout, CloseCode::TIMEOUT, 1));
    server.until("what it held has been given back", |s| s.held_bytes == 0);
}

#[test]
fn a_peer_that_reads_slowly_stays_connected() {
    let (server, _events) = stalling(|l| l.write_timeout = millis(1500));
    let mut client = server.open("/");
    client.text("go");
    let began = Instant::now();
    let all = client.read_binary();
    assert_eq!(all.len(), 16 << 20, "after {:?}", began.elapsed());
    assert_eq!(server.handle.stats().timeouts, 0);
}
