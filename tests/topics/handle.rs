//! The handle: everything about a connection, from any other thread.

use crate::support;
use crate::support::{
    Client, DEADLINE, Event, Events, TestServer, builder, echo, millis, recorder, serve, start,
};
use campanile::{Builder, Cause, CloseCode, ConnId, HandleError, Message, Publish, ReadyState, Server};
use crossbeam_channel::{Sender, bounded, unbounded};
use std::time::{Duration, Instant};

#[test]
fn a_handle_sends_to_one_connection_in_order() {
    let (handler, events) = recorder();
    let server = serve(handler);
    let mut a = server.open("/");
    let id = events.opened();
    let mut b = server.open("/");
    for n in 0..100 {
        server.handle.send(id, n.to_string()).unwrap();
    }
    server.handle.send(id, &[9u8; 70_000][..]).unwrap();
    for n in 0..100 {
        assert_eq!(a.read_text(), n.to_string());
    }
    assert_eq!(a.read_binary().len(), 70_000);
    b.expect_nothing_until_pong();
}

#[test]
fn a_handle_closes_terminates_and_pings_a_connection() {
    let (handler, events) = recorder();
    let server = serve(handler);
    let mut client = server.open("/");
    let id = events.opened();
    server.handle.ping(id, &[b'p'; 125]).unwrap();
    assert_eq!(client.read_ping(), [b'p'; 125]);
    client.frame(true, support::PONG, b"pong");
    let pong = events.find("the pong", |e| if let Event::Pong(_, bytes) = e { Some(bytes) } else { None });
    assert_eq!(pong, b"pong");
    server.handle.send(id, "last").unwrap();
    server.handle.close(id, 4001, "from outside").unwrap();
    server.handle.send(id, "too late").unwrap();
    assert_eq!(client.read_text(), "last");
    assert_eq!(client.read_close(), (4001, "from outside".to_owned()));
    client.close(4001, "");
    client.expect_eof();
    let end = events.closed();
    assert_eq!((end.cause, end.code, end.was_clean), (Cause::Application, CloseCode(4001), true));

    let mut client = server.open("/");
    let id = events.opened();
    server.handle.terminate(id).unwrap();
    client.expect_gone();
    assert_eq!(events.closed().cause, Cause::Terminated);
}

#[test]
fn a_handle_pauses_and_resumes_reading() {
    let (handler, events) = recorder();
    let server = serve(handler);
    let mut client = server.open("/");
    let id = events.opened();
    server.handle.pause(id).unwrap();
    server.settle();
    client.text("one");
    client.text("two");
    server.handle.send(id, "sending goes on").unwrap();
    assert_eq!(client.read_text(), "sending goes on");
    server.settle();
    assert!(events.so_far().is_empty());
    server.handle.resume(id).unwrap();
    assert_eq!((events.message(), events.message()), (b"one".to_vec(), b"two".to_vec()));
    client.expect_nothing_until_pong();
}

#[test]
fn a_handle_subscribes_and_unsubscribes_a_connection() {
    let (handler, events) = recorder();
    let server = serve(handler);
    let mut client = server.open("/");
    let id = events.opened();
    server.handle.publish("room", "before").unwrap();
    server.handle.subscribe(id, "room").unwrap();
    server.handle.publish("room", "between").unwrap();
    server.handle.unsubscribe(id, "room").unwrap();
    server.handle.publish("room", "after").unwrap();
    server.settle();
    assert_eq!(client.read_text(), "between");
    client.expect_nothing_until_pong();
    assert!(matches!(server.handle.subscribe(id, "a\nb"), Err(HandleError::Topic(_))));
}

#[test]
fn a_broadcast_reaches_one_route_and_no_other() {
    let server = start(builder().workers(2).route("/a", echo()).route("/b/:room", echo()));
    let mut a: Vec<Client> = (0..5).map(|_| server.open("/a")).collect();
    let mut b: Vec<Client> = (0..5).map(|n| server.open(&format!("/b/{n}"))).collect();
    server.handle.broadcast("/a", "for a").unwrap();
    server.handle.broadcast("/b/:room", Message::binary(b"for b")).unwrap();
    for client in &mut a {
        assert_eq!(client.read_text(), "for a");
        client.expect_nothing_until_pong();
    }
    for client in &mut b {
        assert_eq!(client.read_binary(), b"for b");
        client.expect_nothing_until_pong();
    }
    assert!(matches!(server.handle.broadcast("/b/1", "x"), Err(HandleError::NoRoute { .. })));
}

#[test]
fn connections_are_counted_and_listed() {
    let (handler, _events) = recorder();
    let handler = handler
        .on_upgrade(|request| {
            let accept = campanile::Accept::new(String::new());
            Ok(match request.protocols().next() {
                Some(protocol) => accept.protocol(protocol),
                None => accept,
            })
        })
        .on_open(|conn| {
            conn.subscribe("room").unwrap();
        });
    let server = start(builder().workers(2).route("/", handler).route("/other", echo()));
    let mut first = server.dial();
    assert_eq!(first.ask("/", "Sec-WebSocket-Protocol: p\r\n").status, 101);
    let rest: Vec<Client> = (0..3).map(|_| server.open("/")).collect();
    let other = server.open("/other");
    assert_eq!(server.handle.open_connections(), 5);
    assert_eq!(server.handle.subscribers("room").wait(), Ok(4));
    let mut all = server.handle.connections("/").wait().unwrap();
    assert_eq!((all.len(), server.handle.connections("/other").wait().unwrap().len()), (4, 1));
    assert!(matches!(server.handle.connections("/none").wait(), Err(HandleError::NoRoute { .. })));
    all.sort_by_key(|c| c.peer.to_string());
    let its = all.iter().find(|c| c.peer.to_string() == first.local_addr().to_string()).unwrap();
    assert_eq!(
        (its.protocol.as_deref(), its.ready_state, its.buffered_amount),
        (Some("p"), ReadyState::Open, 0)
    );
    assert_eq!(its.topics, ["room"]);
    let id = its.id;
    server.handle.close(id, 1000, "").unwrap();
    server.settle();
    let closing = server.handle.connections("/").wait().unwrap();
    assert_eq!(closing.iter().find(|c| c.id == id).map(|c| c.ready_state), Some(ReadyState::Closing));
    drop((first, rest, other));
    server.until("all have gone", |s| s.open == 0 && s.sockets == 0);
    assert!(server.handle.connections("/").wait().unwrap().is_empty());
}

#[test]
fn every_counter_counts() {
    let server = serve(echo());
    let mut client = server.open("/");
    for _ in 0..10 {
        client.text("12345");
        client.read_text();
    }
    let mut bad = server.open("/");
    bad.send([0xFF, 0xFF]);
    bad.expect_failed(1002);
    let mut http = server.dial();
    assert_eq!(http.ask("/none", "").status, 404);
    let stats = server.handle.stats();
    assert_eq!((stats.accepted, stats.upgraded, stats.requests), (3, 2, 1));
    assert_eq!((stats.messages_in, stats.bytes_in, stats.messages_out), (10, 50, 10));
    assert_eq!((stats.protocol_errors, stats.panics, stats.dropped), (1, 0, 0));
    drop((bad, http));
    server.until("two have gone", |s| s.sockets == 1 && s.open == 1);
}

#[test]
fn protocol_errors_are_counted_for_every_kind_of_message() {
    let server = serve(echo());
    let bad = support::frame(true, support::TEXT, &[0xFF; 60_000]);
    // Cut so that the rest is received straight into the message.
    let mut client = server.open("/");
    let mut good = support::frame(true, support::TEXT, &[b'x'; 60_000]);
    good[50_000..].copy_from_slice(&bad[50_000..]);
    client.send(&good[..100]);
    server.settle();
    client.send(&good[100..]);
    assert_eq!(client.skip_to_close(), 1007);
    assert_eq!(server.handle.stats().protocol_errors, 1);
}

#[test]
fn stale_connection_ids_reach_no_connection() {
    let (handler, events) = recorder();
    let server = serve(handler);
    let mut stale = Vec::new();
    for _ in 0..20 {
        let client = server.open("/");
        stale.push(events.opened());
        client.reset();
        events.closed();
    }
    let mut tenant = server.open("/");
    let id = events.opened();
    assert!(!stale.contains(&id));
    for old in stale {
        let handle = &server.handle;
        handle.send(old, "not for you").unwrap();
        handle.ping(old, b"nor this").unwrap();
        handle.subscribe(old, "room").unwrap();
        handle.pause(old).unwrap();
        handle.close(old, 4000, "").unwrap();
        handle.terminate(old).unwrap();
    }
    server.handle.publish("room", "nobody is there").unwrap();
    server.settle();
    tenant.expect_nothing_until_pong();
    server.handle.send(id, "for you").unwrap();
    assert_eq!(tenant.read_text(), "for you");
}

/// A server whose only worker is in a handler until it is told to go on.
fn busy(builder: Builder) -> (TestServer, Client, ConnId, Sender<()>) {
    let (entered, inside) = unbounded();
    let (go_on, wait) = bounded::<()>(1);
    let (handler, events) = recorder();
    let handler = handler.on_message(move |_, _| {
        entered.send(()).unwrap();
        wait.recv_timeout(DEADLINE).unwrap();
    });
    let server = start(builder.route("/", handler));
    let mut client = server.open("/");
    let id = events.opened();
    client.text("block");
    inside.recv_timeout(DEADLINE).unwrap();
    (server, client, id, go_on)
}

#[test]
fn a_full_mailbox_refuses_commands_until_it_has_room() {
    let (server, mut client, id, go_on) = busy(builder().mailbox(10));
    let results: Vec<_> = (0..15).map(|n| server.handle.send(id, n.to_string())).collect();
    assert!(results[..10].iter().all(Result::is_ok), "{results:?}");
    assert!(results[10..].iter().all(|r| *r == Err(HandleError::Full)), "{results:?}");
    assert_eq!(server.handle.publish("room", "x"), Err(HandleError::Full));
    go_on.send(()).unwrap();
    for n in 0..10 {
        assert_eq!(client.read_text(), n.to_string());
    }
    server.handle.send(id, "again").unwrap();
    assert_eq!(client.read_text(), "again");
}

#[test]
fn a_mailbox_is_bounded_in_bytes() {
    let (server, mut client, id, go_on) = busy(builder().workers(1).mailbox_bytes(1000));
    let text = "x".repeat(400);
    assert_eq!([(); 3].map(|()| server.handle.send(id, &text)), [Ok(()), Ok(()), Err(HandleError::Full)]);
    assert_eq!(server.handle.publish("room", &text), Err(HandleError::Full));
    server.handle.send(id, &text[..100]).unwrap(); // there is room for a short one
    go_on.send(()).unwrap();
    assert_eq!([(); 3].map(|()| client.read_text().len()), [400, 400, 100]);
    // One alone may be larger.
    server.handle.send(id, "x".repeat(5000)).unwrap();
    assert_eq!(client.read_text().len(), 5000);
}

fn clients_of(server: &TestServer) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..6).map(|_| server.open("/")).collect();
    clients.iter_mut().for_each(Client::expect_nothing_until_pong);
    clients
}

#[test]
fn shutdown_closes_with_1001_and_ends_when_all_have_answered() {
    let (handler, events) = recorder();
    let mut server = start(builder().workers(2).route("/", handler));
    let mut clients = clients_of(&server);
    let idle = server.dial();
    let began = Instant::now();
    server.handle.shutdown(DEADLINE);
    for client in &mut clients {
        assert_eq!(client.read_close().0, 1001);
        client.close(1001, "");
        client.expect_eof();
    }
    drop(idle);
    server.shutdown(DEADLINE);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let ends: Vec<_> = events
        .so_far()
        .into_iter()
        .filter_map(|e| if let Event::Close(_, end) = e { Some(end) } else { None })
        .collect();
    assert_eq!(ends.len(), 6);
    assert!(
        ends.iter().all(|e| e.cause == Cause::Shutdown && e.was_clean && e.code == CloseCode::GOING_AWAY)
    );
    assert_eq!(server.handle.open_connections(), 0);
}

#[test]
fn shutdown_waits_for_silent_clients_until_the_deadline() {
    let (handler, events) = recorder();
    let mut server = start(builder().workers(2).route("/", handler));
    let mut clients = clients_of(&server);
    let began = Instant::now();
    server.shutdown(millis(200));
    assert!(
        began.elapsed() >= millis(150) && began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    for client in &mut clients {
        assert_eq!(client.read_close().0, 1001);
        client.expect_gone();
    }
    let ends = events.so_far().into_iter().filter(|e| matches!(e, Event::Close(..))).count();
    assert_eq!(ends, 6, "each hears its end");
}

/// Subscribers of "town", of which each worker has at least one.
fn subscribers(server: &TestServer, events: &Events, workers: usize) -> Vec<Client> {
    let clients: Vec<_> = (0..2 * workers)
        .map(|_| {
            let client = server.open("/");
            server.handle.subscribe(events.opened(), "town").unwrap();
            client
        })
        .collect();
    server.settle();
    server.settle(); // the topic's owner knows of all
    clients
}

#[test]
fn messages_published_before_a_shutdown_are_delivered_on_every_worker() {
    for workers in [1, 2, 4] {
        for _ in 0..5 {
            let (handler, events) = recorder();
            let mut server = start(builder().workers(workers).route("/", handler));
            let mut clients = subscribers(&server, &events, workers);
            for n in 0..100 {
                server.handle.publish("town", &*n.to_string()).unwrap();
            }
            server.handle.shutdown(DEADLINE);
            assert_eq!(server.handle.publish("town", "late"), Err(HandleError::Ended));
            for client in &mut clients {
                for n in 0..100 {
                    assert_eq!(client.read_text(), n.to_string(), "{workers} workers");
                }
                assert_eq!(client.read_close().0, 1001);
                client.close(1001, "");
            }
            server.shutdown(DEADLINE);
        }
    }
}

#[test]
fn publications_acknowledged_during_a_shutdown_are_delivered_before_the_close_frame() {
    for workers in [1, 2, 4] {
        let (handler, events) = recorder();
        let mut server = start(builder().workers(workers).route("/", handler));
        let mut clients = subscribers(&server, &events, workers);
        let (begun, begin) = unbounded();
        let publishers: Vec<_> = (0..3)
            .map(|n| {
                let (handle, begun) = (server.handle.clone(), begun.clone());
                std::thread::spawn(move || {
                    let mut acknowledged = Vec::new();
                    for i in 0.. {
                        let text = format!("{n}:{i}");
                        match handle.publish_confirmed(Publish::new("town", &*text)).wait() {
                            Ok(published) => {
                                assert!(published.is_some(), "there are subscribers");
                                acknowledged.push(text);
                            }
                            Err(HandleError::Full) => std::thread::yield_now(),
                            Err(HandleError::Ended) => return acknowledged,
                            Err(e) => panic!("{e}"),
                        }
                        if i == 20 {
                            begun.send(()).unwrap();
                        }
                    }
                    acknowledged
                })
            })
            .collect();
        for _ in &publishers {
            begin.recv_timeout(DEADLINE).unwrap();
        }
        let readers: Vec<_> = clients
            .drain(..)
            .map(|mut client| {
                std::thread::spawn(move || {
                    let mut received = std::collections::HashSet::new();
                    loop {
                        let frame = client.read_frame();
                        if frame.opcode == 8 {
                            client.close(1001, "");
                            return received;
                        }
                        received.insert(String::from_utf8(frame.payload).unwrap());
                    }
                })
            })
            .collect();
        server.handle.shutdown(DEADLINE);
        let acknowledged: Vec<_> = publishers.into_iter().flat_map(|p| p.join().unwrap()).collect();
        for reader in readers {
            let received = reader.join().unwrap();
            let lost: Vec<_> = acknowledged.iter().filter(|text| !received.contains(*text)).collect();
            assert!(lost.is_empty(), "{workers} workers lost {lost:?} of {}", acknowledged.len());
        }
        server.shutdown(DEADLINE);
    }
}

#[test]
fn a_second_shutdown_can_only_shorten_the_deadline() {
    let (handler, _events) = recorder();
    let mut server = serve(handler);
    let mut client = server.open("/");
    server.handle.shutdown(Duration::from_secs(60));
    assert_eq!(client.read_close().0, 1001);
    let began = Instant::now();
    server.shutdown(millis(50));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn a_server_that_shuts_down_accepts_no_connections() {
    let (handler, _events) = recorder();
    let server = serve(handler);
    let mut client = server.open("/");
    server.handle.shutdown(DEADLINE);
    client.read_close();
    let refused = std::net::TcpStream::connect_timeout(&server.addr, DEADLINE);
    assert!(refused.is_err(), "{refused:?}");
    drop(client);
    server.ended();
}

#[test]
fn an_ended_server_answers_with_ended() {
    let (handler, events) = recorder();
    let mut server = serve(handler);
    let client = server.open("/");
    let id = events.opened();
    server.shutdown(millis(1));
    let handle = &server.handle;
    assert_eq!(handle.send(id, "x"), Err(HandleError::Ended));
    assert_eq!(handle.publish("x", "x"), Err(HandleError::Ended));
    assert_eq!(handle.broadcast("/", "x"), Err(HandleError::Ended));
    assert_eq!(handle.subscribers("x").wait(), Err(HandleError::Ended));
    assert_eq!(handle.connections("/").wait().map(|c| c.len()), Err(HandleError::Ended));
    assert_eq!(handle.open_connections(), 0);
    handle.shutdown(millis(1));
    drop(client);
}

#[test]
fn run_uses_the_calling_thread_and_returns_after_shutdown() {
    let server = Server::builder().workers(2).route("/", echo()).listen("127.0.0.1:0").build().unwrap();
    let (addr, handle) = (server.local_addr().unwrap(), server.handle());
    let (ended, end) = unbounded();
    std::thread::spawn(move || ended.send(server.run().is_ok()).unwrap());
    let mut client = Client::dial(addr);
    client.upgrade("/");
    client.text("running");
    assert_eq!(client.read_text(), "running");
    handle.shutdown(millis(1));
    assert_eq!(end.recv_timeout(DEADLINE), Ok(true));
}
