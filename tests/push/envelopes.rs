//! What topics' messages look like to a route's connections.

use crate::support::packed::{Packed, SHARED};
use crate::support::{Client, TestServer, builder, start};
use campanile::api::Api;
use campanile::deflate::Deflate;
use campanile::protocol::Kind;
use campanile::{
    Conn, Delivered, Disconnect, Envelope, Handler, Message, Position, Publish, Route, Start, TopicSettings,
};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;

/// `topic offset kind payload`, but for a message that says so a panic.
struct Named;

impl Envelope for Named {
    fn wrap(&self, item: &Delivered<'_>, out: &mut Vec<u8>) -> Kind {
        let message = item.message;
        assert!(message.as_bytes() != b"panic", "as asked");
        let kind = if message.is_json() {
            "json"
        } else if message.is_text() {
            "text"
        } else {
            "binary"
        };
        out.extend_from_slice(format!("{} {} {kind} ", item.topic, item.position.offset).as_bytes());
        out.extend_from_slice(message.as_bytes());
        message.kind()
    }

    fn wrap_all(&self, items: &[Delivered<'_>], out: &mut Vec<u8>) -> Option<Kind> {
        for (n, item) in items.iter().enumerate() {
            out.extend_from_slice(if n == 0 { b"" } else { b"\n" });
            self.wrap(item, out);
        }
        Some(Kind::Text)
    }
}

/// Listens to all topics below `kept/`, or, told to, to one of them from a place on.
struct Listens;

impl Handler for Listens {
    type State = ();

    fn message(&self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) -> Result<(), Disconnect> {
        let words: Vec<&str> = message.as_text().unwrap().split(' ').collect();
        match words[..] {
            ["to", topic, batched] => {
                conn.batch_messages(batched == "batched");
                conn.subscribe(topic).unwrap();
            }
            ["all"] => drop(conn.subscribe_pattern("kept/*").unwrap()),
            ["from", topic, epoch, offset] => {
                let at = Position::new(epoch.parse().unwrap(), offset.parse().unwrap());
                conn.subscribe_from(topic, Start::Since(at)).unwrap();
            }
            ["say", topic, text] => {
                conn.publish(topic, text).unwrap();
                conn.send("said").unwrap();
            }
            ["id"] => drop(conn.send(&conn.id().to_string()).unwrap()),
            _ => panic!("{words:?}"),
        }
        Ok(())
    }
}

fn server(workers: usize) -> TestServer {
    let named = || Route::new(Listens).envelope(Named);
    start(
        builder()
            .workers(workers)
            .route("/plain", Listens)
            .route("/named", named())
            .route("/packed", named().deflate(Deflate::shared().threshold(64)))
            .topics("kept/", TopicSettings::new().history(100)),
    )
}

#[test]
fn messages_are_wrapped_in_the_envelope_of_the_route() {
    for workers in [1, 3] {
        let server = server(workers);
        let mut plain: Vec<_> = (0..3).map(|_| server.open("/plain")).collect();
        let mut named: Vec<_> = (0..3).map(|_| server.open("/named")).collect();
        let mut packed: Vec<_> =
            (0..3).map(|_| Packed::open(&server, "/packed", "permessage-deflate", SHARED)).collect();
        for client in plain.iter_mut().chain(&mut named) {
            client.text("all");
            client.expect_nothing_until_pong();
        }
        for client in &mut packed {
            client.client.text("all");
            client.client.expect_nothing_until_pong();
        }
        let long = "bell ".repeat(100);
        for (n, message) in
            [Message::text("a"), Message::json("{}"), Message::binary(b"b"), Message::text(&long)]
                .into_iter()
                .enumerate()
        {
            server.handle.publish("kept/x", message).unwrap();
            let kind = ["text", "json", "binary", "text"][n];
            let body = String::from_utf8_lossy(message.as_bytes());
            let wanted = format!("kept/x {} {kind} {body}", n + 1);
            for client in &mut plain {
                assert_eq!(client.read_frame().payload, message.as_bytes());
            }
            for client in &mut named {
                let frame = client.read_frame();
                assert_eq!(String::from_utf8(frame.payload).unwrap(), wanted);
                assert_eq!(frame.opcode, if message.is_text() { 1 } else { 2 });
            }
            for client in &mut packed {
                let frame = if message.is_text() { client.read() } else { (String::new(), None) };
                if message.is_text() {
                    assert_eq!((frame.0, frame.1.is_some()), (wanted.clone(), wanted.len() >= 64));
                } else {
                    assert_eq!(client.client.read_frame().payload, wanted.as_bytes());
                }
            }
        }
    }
}

#[test]
fn replays_are_wrapped_and_direct_sends_are_not() {
    let server = server(2);
    let first =
        server.handle.publish_confirmed(Publish::new("kept/x", "1")).wait().unwrap().unwrap().position;
    server.handle.publish("kept/x", Message::json("2")).unwrap();
    let mut client = server.open("/named");
    client.text(&format!("from kept/x {} 0", first.epoch));
    assert_eq!([client.read_text(), client.read_text()], ["kept/x 1 text 1", "kept/x 2 json 2"]);
    client.text("say kept/x 3");
    let mut both = [client.read_text(), client.read_text()];
    both.sort();
    assert_eq!(both, ["kept/x 3 text 3", "said"]);
}

#[test]
fn a_panicking_envelope_loses_only_its_message() {
    let server = server(1);
    let mut client = server.open("/named");
    client.text("all");
    client.expect_nothing_until_pong();
    server.handle.publish("kept/x", "panic").unwrap();
    server.handle.publish("kept/x", "after").unwrap();
    assert_eq!(client.read_text(), "kept/x 2 text after");
}

/// A subscriber of one topic, on one route.
enum Subscriber {
    Plain(Client),
    Packed(Box<Packed>),
}

impl Subscriber {
    fn open(server: &TestServer, path: &str, topic: &str, batched: bool) -> Self {
        let command = format!("to {topic} {}", if batched { "batched" } else { "single" });
        match path {
            "/packed" => {
                let mut packed = Packed::open(server, path, "permessage-deflate", SHARED);
                packed.client.text(&command);
                packed.client.expect_nothing_until_pong();
                Self::Packed(Box::new(packed))
            }
            path => {
                let mut client = server.open(path);
                client.text(&command);
                client.expect_nothing_until_pong();
                Self::Plain(client)
            }
        }
    }

    fn read(&mut self) -> String {
        match self {
            Self::Plain(client) => client.read_text(),
            Self::Packed(packed) => packed.read().0,
        }
    }
}

const TOPICS: [&str; 3] = ["users/alice", "users/bob", "kept/carol"];

/// One message, or one to several topics, in every envelope, plain and compressed, whatever its size: a subscriber is
/// told the topic that it subscribed to and the offset there.
#[test]
fn a_message_to_several_topics_is_wrapped_with_each_position() {
    for workers in [1, 2, 4] {
        let key = "a-key-of-some-length-for-the-API";
        let server = start(
            Api::new().key(key).unwrap().mount(
                builder()
                    .workers(workers)
                    .route("/plain", Listens)
                    .route("/named", Route::new(Listens).envelope(Named))
                    .route(
                        "/packed",
                        Route::new(Listens).envelope(Named).deflate(Deflate::shared().threshold(64)),
                    )
                    .topics("kept/", TopicSettings::new().history(100)),
            ),
        );
        let mut subscribers = Vec::new();
        for topic in TOPICS {
            for path in ["/plain", "/named", "/packed"] {
                for batched in [false, true] {
                    subscribers.push((topic, path, Subscriber::open(&server, path, topic, batched)));
                }
            }
        }
        server.settle();
        let state = RefCell::new((server.dial(), subscribers, HashMap::<&str, u64>::new()));
        let sizes = prop::sample::select(vec![0_usize, 1, 63, 100, 4096, 8181, 8192, 8193, 20_000, 60_000]);
        let steps = prop::collection::vec((sizes, 1_u8..8), 1..8);
        proptest!(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12) }, |(steps in steps)| {
            let (api, subscribers, offsets) = &mut *state.borrow_mut();
            let mut expected = Vec::new();
            for (size, mask) in steps {
                let topics: Vec<&str> =
                    (0..3).filter(|n| mask & (1 << n) != 0).map(|n| TOPICS[n]).collect();
                let text = "ab ".repeat(size / 3 + 1)[..size].to_owned();
                let body = format!(r#"{{"topics": {topics:?}, "text": {text:?}}}"#);
                api.send(format!(
                    "POST /api/broadcast HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                     Authorization: Bearer {key}\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                ));
                let answer = api.answer();
                prop_assert_eq!(answer.status, 200, "{:?}", answer);
                for topic in topics {
                    let offset = offsets.entry(topic).or_default();
                    *offset += 1;
                    expected.push((topic, *offset, text.clone()));
                }
            }
            for (topic, path, subscriber) in subscribers {
                for (_, offset, text) in expected.iter().filter(|e| e.0 == *topic) {
                    let wanted =
                        if *path == "/plain" { text.clone() } else { format!("{topic} {offset} text {text}") };
                    prop_assert!(subscriber.read() == wanted, "{topic} at {offset} on {path}, {workers} workers");
                }
            }
        });
    }
}

#[test]
fn a_panicking_envelope_does_not_shift_the_messages_of_a_filtered_compressed_batch() {
    let server = server(1);
    let mut packed = Packed::open(&server, "/packed", "permessage-deflate", SHARED);
    packed.client.text("to kept/x single");
    packed.client.expect_nothing_until_pong();
    let mut other = server.open("/named");
    other.text("id");
    let except = other.read_text().parse().unwrap();
    let long = "bell ".repeat(50);
    // One batch, of which a message is not for all subscribers, so that it is sent in parts.
    let publish = |text| Publish::new("kept/x", Message::text(text));
    server.handle.publish_batch([publish("panic"), publish(&long).except(except), publish("end")]).unwrap();
    assert_eq!(packed.read().0, format!("kept/x 2 text {long}"));
    assert_eq!(packed.read().0, "kept/x 3 text end");
    assert_eq!(server.handle.open_connections(), 2, "the worker runs on");
}
