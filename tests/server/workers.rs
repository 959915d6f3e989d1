//! Several event loops.

use crate::support;
use crate::support::{Client, builder, echo, recorder, start};
use campanile::{
    Accept, Conn, ConnId, Disconnect, Handler, ListenOptions, Message, Refuse, Request, Route, SlowConsumer,
    TopicSettings,
};
use crossbeam_channel::{Receiver, unbounded};
use std::collections::HashMap;

/// The worker in a name's text, `worker.slot.generation`.
fn worker(id: ConnId) -> usize {
    id.to_string().split('.').next().unwrap().parse().unwrap()
}

fn spread(ids: impl IntoIterator<Item = ConnId>) -> HashMap<usize, usize> {
    let mut spread = HashMap::new();
    for id in ids {
        *spread.entry(worker(id)).or_insert(0) += 1;
    }
    spread
}

#[test]
fn connections_are_spread_evenly_over_workers() {
    for workers in [2, 3, 4] {
        let (handler, events) = recorder();
        let server = start(builder().workers(workers).route("/", handler));
        let clients: Vec<Client> = (0..workers * 10).map(|_| server.open("/")).collect();
        let spread = spread((0..clients.len()).map(|_| events.opened()));
        assert_eq!(spread.len(), workers);
        assert!(spread.values().all(|n| *n == 10), "{spread:?}");
    }
}

#[test]
fn new_connections_go_to_the_emptiest_worker() {
    let (handler, events) = recorder();
    let server = start(builder().workers(2).route("/", handler));
    let mut clients: Vec<(usize, Client)> = Vec::new();
    for _ in 0..20 {
        let client = server.open("/");
        clients.push((worker(events.opened()), client));
    }
    let (gone, mut stay): (Vec<_>, Vec<_>) = clients.into_iter().partition(|(w, _)| *w == 0);
    gone.into_iter().for_each(|(_, c)| c.reset());
    server.until("ten have gone", |s| s.sockets == 10);
    for _ in 0..10 {
        let client = server.open("/");
        stay.push((worker(events.opened()), client));
    }
    assert!(stay[10..].iter().all(|(w, _)| *w == 0), "{:?}", stay.iter().map(|(w, _)| w).collect::<Vec<_>>());
}

#[test]
fn a_shared_port_serves_connections() {
    let mut options = ListenOptions::default();
    options.reuse_port = true;
    let (handler, events) = recorder();
    let server = start(builder().workers(3).listen_options(options).route("/", handler));
    let clients: Vec<Client> = (0..30).map(|_| server.open("/")).collect();
    let spread = spread((0..30).map(|_| events.opened()));
    assert!(spread.values().all(|n| *n == 10), "{spread:?}");
    drop(clients);
}

#[test]
fn a_broadcast_and_a_publication_reach_all_workers() {
    let (handler, _events) = recorder();
    let handler = handler
        .on_open(|conn| {
            conn.subscribe("all").unwrap();
        })
        .on_message(|conn, message| conn.publish("all", message).unwrap());
    let server = start(builder().workers(4).route("/", handler));
    let mut clients: Vec<Client> = (0..16).map(|_| server.open("/")).collect();
    clients.iter_mut().for_each(Client::expect_nothing_until_pong);
    server.handle.broadcast("/", "from outside").unwrap();
    for client in &mut clients {
        assert_eq!(client.read_text(), "from outside");
    }
    server.handle.publish("all", "to the topic").unwrap();
    for client in &mut clients {
        assert_eq!(client.read_text(), "to the topic");
    }
    for i in 0..16 {
        clients[i].text(&format!("from {i}"));
        for client in &mut clients {
            assert_eq!(client.read_text(), format!("from {i}"));
        }
    }
    assert_eq!(server.handle.subscribers("all").wait(), Ok(16));
    assert_eq!(server.handle.connections("/").wait().unwrap().len(), 16);
}

#[test]
fn large_messages_reach_all_workers_unchanged() {
    let (handler, _events) = recorder();
    let handler = handler.on_open(|conn| {
        conn.subscribe("images").unwrap();
    });
    let server = start(builder().workers(3).route("/", handler));
    let mut clients: Vec<Client> = (0..6).map(|_| server.open("/")).collect();
    clients.iter_mut().for_each(Client::expect_nothing_until_pong);
    let image: Vec<u8> = (0..500_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for n in 0..4 {
        server.handle.publish("images", &image[n..]).unwrap();
        server.handle.publish("images", "caption").unwrap();
    }
    for client in &mut clients {
        for n in 0..4 {
            assert!(client.read_binary() == image[n..]);
            assert_eq!(client.read_text(), "caption");
        }
    }
}

#[test]
fn pinned_workers_serve_connections() {
    let server = start(builder().workers(2).pin_workers(true).route("/", echo()));
    for _ in 0..4 {
        let mut client = server.open("/");
        client.text("pinned");
        assert_eq!(client.read_text(), "pinned");
    }
}

#[test]
fn a_late_decision_and_an_adopted_socket_find_their_worker() {
    let (handler, events) = recorder();
    let handler = handler
        .on_upgrade(|_| {
            Ok(campanile::Accept::later(support::DEADLINE, |pending| {
                std::thread::spawn(move || {
                    let id = pending.id().to_string();
                    pending.accept(campanile::Accept::new(id));
                });
            }))
        })
        .on_open(|conn| assert_eq!(*conn.state, conn.id().to_string()));
    let server = start(builder().workers(3).route("/", handler));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut clients = Vec::new();
    for i in 0..12 {
        let mut client = if i % 2 == 0 {
            server.dial()
        } else {
            let client = Client::dial(listener.local_addr().unwrap());
            server.handle.adopt(listener.accept().unwrap().0, Vec::new()).unwrap();
            client
        };
        client.upgrade("/");
        clients.push(client);
    }
    let spread = spread((0..12).map(|_| events.opened()));
    assert!(spread.values().all(|n| *n == 4), "{spread:?}");
    assert_eq!(server.handle.stats().panics, 0);
}

const TOPICS: usize = 8;
const BURST: u64 = 600;

/// Subscribes to all topics, and counts what it is told to have missed. Told so, it blocks its worker until the test lets
/// it go on, or publishes a burst to each topic.
struct Flooder {
    gate: Receiver<()>,
}

impl Handler for Flooder {
    type State = u64;

    fn upgrade(&self, _: &Request<'_>) -> Result<Accept<u64>, Refuse> {
        Ok(Accept::new(0))
    }

    fn message(&self, conn: &mut Conn<'_>, _: &mut u64, message: Message<'_>) -> Result<(), Disconnect> {
        match message.as_text() {
            Some("subscribe") => {
                for topic in 0..TOPICS {
                    conn.subscribe(&format!("t{topic}")).unwrap();
                }
                conn.send(&conn.id().to_string()).unwrap();
            }
            Some("stop") => self.gate.recv_timeout(support::DEADLINE).unwrap(),
            Some("burst") => {
                for n in 0..BURST {
                    for topic in 0..TOPICS {
                        conn.publish_to_others(&format!("t{topic}"), &*format!("{n:0>4000}")).unwrap();
                    }
                }
                conn.send("published").unwrap();
            }
            other => panic!("{other:?}"),
        }
        Ok(())
    }

    fn dropped(&self, conn: &mut Conn<'_>, state: &mut u64, messages: u32) -> Result<(), Disconnect> {
        *state += u64::from(messages);
        let told = format!("missed {}", state);
        let _ = conn.handle().send(conn.id(), &*told);
        Ok(())
    }
}

/// A handler blocks a worker, and another worker publishes more than may wait for it: the blocked worker's subscriber gets
/// each message, or is told that it is missing.
#[test]
fn messages_lost_on_the_way_to_a_blocked_worker_are_reported() {
    let (release, gate) = unbounded();
    let mut limits = campanile::Limits::default();
    limits.max_backlog = 256 << 20;
    let server = start(
        builder()
            .workers(2)
            .mailbox_bytes(1 << 20)
            .topics("t", TopicSettings::new().slow_consumer(SlowConsumer::DropNewest))
            .route("/", Route::new(Flooder { gate }).limits(limits)),
    );
    let mut clients: Vec<Client> = (0..2).map(|_| server.open("/")).collect();
    let ids: Vec<String> = clients
        .iter_mut()
        .map(|client| {
            client.text("subscribe");
            client.read_text()
        })
        .collect();
    assert_ne!(ids[0].split('.').next(), ids[1].split('.').next(), "one on each worker");
    server.settle();
    server.settle(); // the owners know of all subscribers
    let [blocked, flooding] = &mut clients[..] else { unreachable!() };
    blocked.text("stop");
    // The publisher's own subscriptions bring it nothing: it publishes to all others.
    flooding.text("burst");
    assert_eq!(flooding.read_text(), "published");
    release.send(()).unwrap();
    let (mut received, mut missed) = (0, 0);
    let published = BURST * TOPICS as u64;
    // What belongs to topics of the blocked worker and found no room was refused, and never published.
    while received + missed + server.handle.stats().publications_refused < published {
        let text = blocked.read_text();
        match text.strip_prefix("missed ") {
            Some(n) => missed = n.parse().unwrap(),
            None => received += 1,
        }
    }
    let stats = server.handle.stats();
    assert_eq!(received + missed + stats.publications_refused, published, "{stats:?}");
    assert!(stats.missed + stats.publications_refused > 0, "the test lost nothing: {stats:?}");
    assert_eq!(stats.missed, missed);
    blocked.expect_nothing_until_pong();
}

/// The same where the policy is to close: each subscriber of the blocked worker gets its own close frame.
#[test]
fn every_subscriber_that_missed_messages_is_closed() {
    let (release, gate) = unbounded();
    let mut limits = campanile::Limits::default();
    limits.max_backlog = 256 << 20;
    let route = Route::new(Flooder { gate }).limits(limits);
    let server = start(builder().workers(2).mailbox_bytes(1 << 20).route("/", route));
    let mut clients: Vec<(String, Client)> = (0..8)
        .map(|_| {
            let mut client = server.open("/");
            client.text("subscribe");
            (client.read_text(), client)
        })
        .collect();
    server.settle();
    server.settle(); // the owners know of all subscribers
    let worker = |id: &str| id.split('.').next().unwrap().to_owned();
    let of_blocked = worker(&clients[0].0);
    clients[0].1.text("stop");
    let flooding = clients.iter_mut().find(|(id, _)| worker(id) != of_blocked).unwrap();
    flooding.1.text("burst");
    assert_eq!(flooding.1.read_text(), "published");
    release.send(()).unwrap();
    server.settle();
    if server.handle.stats().missed == 0 {
        return; // the blocked worker owns all topics, as in one of 256 servers: what found no room was refused
    }
    for (id, client) in clients.iter_mut().filter(|(id, _)| worker(id) == of_blocked) {
        let code = loop {
            let frame = client.read_frame();
            if frame.opcode == 8 {
                break u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
            }
        };
        assert_eq!(code, 1013, "{id}");
        client.expect_gone();
    }
    assert_eq!(server.handle.stats().panics, 0);
}
