//! How connections end, and what both sides hear of it.

use crate::support;
use crate::support::{
    CLOSE, Event, Events, Recorder, TEXT, TestServer, frame, limits, millis, recorder, serve,
};
use campanile::{Cause, CloseCode, ReadyState, RefusedReason, Route};
use std::io::ErrorKind;
use std::time::Instant;

/// Closes with the code and reason in the message, or does what it says.
fn closer() -> (Recorder, Events) {
    let (handler, events) = recorder();
    let handler = handler.on_message(|conn, message| {
        let text = message.as_text().unwrap_or_default();
        match text.split_once(' ') {
            Some(("close", rest)) => {
                let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
                conn.close(code.parse::<u16>().unwrap(), reason).unwrap();
            }
            _ if text == "terminate" => conn.terminate(),
            _ => {
                let _ = conn.send(message);
            }
        }
    });
    (handler, events)
}

fn server() -> (TestServer, Events) {
    let (handler, events) = closer();
    (serve(handler), events)
}

/// The one end of the one connection, after the server has gone: nothing may follow it.
fn only_end(server: TestServer, events: &Events) -> campanile::Closed {
    server.until("the connection has gone", |s| s.sockets == 0);
    assert_eq!(server.handle.open_connections(), 0);
    drop(server);
    let mut ends: Vec<_> = events
        .so_far()
        .into_iter()
        .filter_map(|e| if let Event::Close(_, end) = e { Some(end) } else { None })
        .collect();
    assert_eq!(ends.len(), 1, "{ends:?}");
    ends.remove(0)
}

#[test]
fn a_client_close_is_answered_with_its_code() {
    for (code, reason) in [(1000, ""), (1001, "page left"), (3000, "é"), (4999, &*"x".repeat(123))] {
        let (server, events) = server();
        let mut client = server.open("/");
        client.close(code, reason);
        client.expect_failed(code);
        let end = only_end(server, &events);
        assert_eq!((end.code, &*end.reason, end.cause), (CloseCode(code), reason, Cause::Peer));
        assert!(end.was_clean && end.unsent == 0, "{end:?}");
    }
}

#[test]
fn a_close_frame_without_a_code_is_answered_with_one_without() {
    let (server, events) = server();
    let mut client = server.open("/");
    client.frame(true, CLOSE, b"");
    client.expect_failed(1005);
    let end = only_end(server, &events);
    assert_eq!((end.code, end.cause, end.was_clean), (CloseCode::NO_STATUS, Cause::Peer, true));
}

#[test]
fn a_server_close_waits_for_the_answer() {
    let (server, events) = server();
    let mut client = server.open("/");
    client.text("before");
    client.text("close 4001 go away now");
    assert_eq!(client.read_text(), "before");
    assert_eq!(client.read_close(), (4001, "go away now".to_owned()));
    client.close(4001, "");
    client.expect_eof();
    let end = only_end(server, &events);
    assert_eq!((end.code, &*end.reason, end.cause), (CloseCode(4001), "go away now", Cause::Application));
    assert!(end.was_clean);
}

#[test]
fn a_long_reason_is_cut() {
    let (server, _events) = server();
    let mut client = server.open("/");
    client.text(&format!("close 1000 {}", "é".repeat(100)));
    assert_eq!(client.read_close(), (1000, "é".repeat(61)));
}

#[test]
fn both_may_close_at_once() {
    let (server, events) = server();
    let mut client = server.open("/");
    // The close frame of each is on its way before the other's has arrived.
    let mut both = frame(true, TEXT, b"close 4000 mine");
    both.extend(frame(true, CLOSE, &support::close_payload(4010, "theirs")));
    client.send(both);
    assert_eq!(client.expect_failed(4000), "mine");
    let end = only_end(server, &events);
    assert!(end.was_clean && end.cause == Cause::Application, "{end:?}");
}

#[test]
fn after_our_close_messages_and_pings_are_ignored() {
    let (server, events) = server();
    let mut client = server.open("/");
    let mut all = frame(true, TEXT, b"close 1000 done");
    all.extend(frame(true, TEXT, b"in the same segment"));
    client.send(all);
    assert_eq!(client.read_close(), (1000, "done".to_owned()));
    client.text("later");
    client.ping(b"are you there?");
    client.close(1000, "");
    client.expect_eof();
    server.until("the connection has gone", |s| s.sockets == 0);
    drop(server);
    let messages =
        events.so_far().iter().filter(|e| matches!(e, Event::Message(..) | Event::Ping(..))).count();
    assert_eq!(messages, 1);
}

#[test]
fn messages_after_the_peers_close_are_not_delivered() {
    let (server, events) = server();
    let mut client = server.open("/");
    let mut all = frame(true, CLOSE, &support::close_payload(1000, ""));
    all.extend(frame(true, TEXT, b"behind it"));
    client.send(all);
    assert_eq!(client.read_close(), (1000, String::new()));
    let end = only_end(server, &events);
    assert!(end.was_clean);
    assert!(!events.so_far().iter().any(|e| matches!(e, Event::Message(..))));
}

#[test]
fn a_peer_that_ignores_our_close_is_dropped_at_the_timeout() {
    let (handler, events) = closer();
    let server = serve(Route::new(handler).limits(limits(|l| l.close_timeout = millis(150))));
    let mut client = server.open("/");
    let began = Instant::now();
    client.text("close 1000 bye");
    assert_eq!(client.read_close(), (1000, "bye".to_owned()));
    client.expect_eof();
    assert!(began.elapsed() >= millis(100), "{:?}", began.elapsed());
    let end = only_end(server, &events);
    assert_eq!((end.code, end.cause, end.was_clean), (CloseCode::NORMAL, Cause::Application, false));
}

#[test]
fn a_sending_peer_that_ignores_our_close_is_dropped_at_the_timeout() {
    let (handler, events) = closer();
    let server = serve(Route::new(handler).limits(limits(|l| l.close_timeout = millis(150))));
    let mut client = server.open("/");
    client.text("close 1000 bye");
    let began = Instant::now();
    while client.try_send(&frame(true, TEXT, b"more and more")).is_ok() {
        assert!(began.elapsed() < support::DEADLINE, "it listens for ever");
        std::thread::park_timeout(millis(5));
    }
    assert!(!only_end(server, &events).was_clean);
}

#[test]
fn a_paused_connection_can_be_closed_cleanly() {
    let (handler, events) = recorder();
    let handler = handler.on_message(|conn, message| {
        if message.as_bytes() == b"pause" {
            conn.pause();
        }
    });
    let server = serve(handler);
    let mut client = server.open("/");
    client.text("pause");
    let id = events.opened();
    assert_eq!(events.message(), b"pause");
    server.handle.close(id, 4000, "while paused").unwrap();
    assert_eq!(client.read_close(), (4000, "while paused".to_owned()));
    client.text("not delivered");
    client.close(4000, "");
    let began = Instant::now();
    client.expect_eof();
    assert!(began.elapsed() < millis(2500), "the answer was not read for {:?}", began.elapsed());
    let end = only_end(server, &events);
    assert!(end.was_clean, "{end:?}");
}

#[test]
fn a_reset_ends_the_connection_abnormally() {
    let (server, events) = server();
    let client = server.open("/");
    events.opened();
    client.reset();
    let end = events.closed();
    assert_eq!((end.code, end.was_clean), (CloseCode::ABNORMAL, false));
    assert_eq!(end.cause, Cause::Transport(ErrorKind::ConnectionReset));
    only_nothing(server, &events);
}

fn only_nothing(server: TestServer, events: &Events) {
    server.until("the connection has gone", |s| s.sockets == 0 && s.open == 0);
    drop(server);
    assert!(events.so_far().is_empty());
}

#[test]
fn a_reset_in_the_middle_of_a_message_gives_no_message() {
    let (server, events) = server();
    let mut client = server.open("/");
    let half = frame(true, TEXT, &[b'x'; 30_000]);
    client.send(&half[..20_000]);
    server.settle();
    client.reset();
    let end = only_end(server, &events);
    assert_eq!(end.code, CloseCode::ABNORMAL);
    assert!(!events.so_far().iter().any(|e| matches!(e, Event::Message(..))));
}

#[test]
fn end_of_stream_without_a_close_frame_is_abnormal() {
    let (server, events) = server();
    let mut client = server.open("/");
    client.text("last words");
    client.end();
    assert_eq!(client.read_text(), "last words");
    client.expect_eof();
    let end = only_end(server, &events);
    assert_eq!((end.code, end.was_clean), (CloseCode::ABNORMAL, false));
    assert_eq!(end.cause, Cause::Transport(ErrorKind::UnexpectedEof));
}

#[test]
fn a_half_closed_client_still_reads_the_answer_to_its_close() {
    let (server, events) = server();
    let mut client = server.open("/");
    let mut all = frame(true, TEXT, b"answer this");
    all.extend(frame(true, CLOSE, &support::close_payload(1000, "")));
    client.send(all);
    client.end();
    assert_eq!(client.read_text(), "answer this");
    client.expect_failed(1000);
    assert!(only_end(server, &events).was_clean);
}

#[test]
fn a_terminated_connection_ends_without_a_close_frame() {
    let (server, events) = server();
    let mut client = server.open("/");
    client.text("terminate");
    client.expect_gone();
    let end = only_end(server, &events);
    assert_eq!((end.code, end.cause, end.was_clean), (CloseCode::ABNORMAL, Cause::Terminated, false));
}

#[test]
fn a_message_after_close_is_refused_and_comes_back() {
    let (handler, events) = recorder();
    let handler = handler
        .on_message(|conn, message| {
            assert_eq!(conn.ready_state(), ReadyState::Open);
            conn.send("before").unwrap();
            conn.close(1000, "done").unwrap();
            conn.close(4000, "closing twice does nothing").unwrap();
            assert_eq!(conn.ready_state(), ReadyState::Closing);
            let refused = conn.send(message).unwrap_err();
            assert_eq!(refused.reason, RefusedReason::NotOpen);
            assert_eq!(refused.message.as_text(), Some("give it back"));
            assert!(conn.subscribe("topic").is_err());
            conn.ping(b"not any more").unwrap();
        })
        .on_close(|conn| {
            assert_eq!(conn.ready_state(), ReadyState::Closed);
            assert_eq!(conn.send("too late").unwrap_err().reason, RefusedReason::NotOpen);
        });
    let server = serve(handler);
    let mut client = server.open("/");
    client.text("give it back");
    assert_eq!(client.read_text(), "before");
    assert_eq!(client.read_close(), (1000, "done".to_owned()));
    client.close(1000, "");
    client.expect_eof();
    server.until("the connection has gone", |s| s.sockets == 0);
    assert_eq!(server.handle.stats().panics, 0, "an assertion in the handler failed");
    only_end(server, &events);
}

#[test]
fn what_was_sent_before_close_arrives_before_it_however_slow_the_peer() {
    let (handler, events) = recorder();
    let handler = handler.on_message(|conn, _| {
        for _ in 0..64 {
            conn.send(&[7; 64 << 10]).unwrap();
        }
        conn.close(1000, "that was all").unwrap();
    });
    let server = serve(Route::new(handler).limits(limits(|l| l.max_backlog = 8 << 20)));
    let mut client = server.open_slow("/");
    client.text("go");
    for _ in 0..64 {
        assert_eq!(client.read_binary().len(), 64 << 10);
    }
    assert_eq!(client.read_close(), (1000, "that was all".to_owned()));
    client.close(1000, "");
    client.expect_eof();
    let end = only_end(server, &events);
    assert!(end.was_clean && end.unsent == 0, "{end:?}");
}

#[test]
fn unsent_messages_are_counted_in_closed() {
    let (handler, events) = recorder();
    let handler = handler.on_message(|conn, message| {
        // The first fills the kernel's buffers, so that all the others wait.
        conn.send(&vec![0; 16 << 20]).unwrap();
        for _ in 0..9 {
            conn.send("waiting").unwrap();
        }
        if message.as_bytes() == b"close" {
            conn.close(1000, "").unwrap();
        }
    });
    let limits = limits(|l| {
        l.max_backlog = 32 << 20;
        l.close_timeout = millis(100);
    });
    let server = serve(Route::new(handler).limits(limits));
    for (how, cause) in [("close", Cause::Application), ("reset", Cause::Terminated)] {
        let mut client = server.open_slow("/");
        client.text(how);
        let id = events.opened();
        events.message();
        if how == "reset" {
            server.handle.terminate(id).unwrap();
        }
        let end = events.closed();
        assert_eq!((end.unsent, end.was_clean, end.cause), (10, false, cause), "{end:?}");
    }
}

#[test]
fn messages_in_the_kernel_do_not_count_as_unsent() {
    let (handler, events) = recorder();
    let handler = handler.on_message(|conn, _| {
        for _ in 0..9 {
            conn.send("taken at once").unwrap();
        }
        conn.send(&vec![0; 16 << 20]).unwrap(); // begun and not finished
        conn.send("waiting").unwrap();
    });
    let server = serve(Route::new(handler).limits(limits(|l| l.max_backlog = 32 << 20)));
    let mut client = server.open_slow("/");
    client.text("go");
    let id = events.opened();
    assert_eq!(client.read_text(), "taken at once");
    server.handle.terminate(id).unwrap();
    assert_eq!(events.closed().unsent, 2);
}
