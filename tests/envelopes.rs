//! What topics' messages look like to a route's connections.

#[path = "support/packed.rs"]
mod packed;
mod support;

use campanile::deflate::Deflate;
use campanile::protocol::Kind;
use campanile::{
    Accept, Conn, Delivered, Envelope, Handler, Message, Position, Publish, Refuse, Request, Route, Start,
    TopicSettings,
};
use packed::{Packed, SHARED};
use support::{TestServer, builder, start};

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
}

/// Listens to all topics below `kept/`, or, told to, to one of them from a place on.
struct Listens;

impl Handler for Listens {
    type State = ();

    fn upgrade(&self, _: &Request<'_>) -> Result<Accept<()>, Refuse> {
        Ok(Accept::new(()))
    }

    fn message(&self, conn: &mut Conn<'_, ()>, message: Message<'_>) {
        let words: Vec<&str> = message.as_text().unwrap().split(' ').collect();
        match words[..] {
            ["all"] => drop(conn.subscribe_pattern("kept/*").unwrap()),
            ["from", topic, epoch, offset] => {
                let at = Position::new(epoch.parse().unwrap(), offset.parse().unwrap());
                conn.subscribe_from(topic, Start::After(at)).unwrap();
            }
            ["say", topic, text] => {
                conn.publish_all(topic, text);
                conn.send("said").unwrap();
            }
            _ => panic!("{words:?}"),
        }
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
fn each_route_gets_messages_in_its_own_envelope() {
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
fn what_is_replayed_is_in_the_envelope_too_and_what_is_sent_is_not() {
    let server = server(2);
    let first = server.handle.publish_with(Publish::new("kept/x", "1")).unwrap().unwrap().position;
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
fn an_envelope_that_panics_loses_its_message_and_nothing_else() {
    let server = server(1);
    let mut client = server.open("/named");
    client.text("all");
    client.expect_nothing_until_pong();
    server.handle.publish("kept/x", "panic").unwrap();
    server.handle.publish("kept/x", "after").unwrap();
    assert_eq!(client.read_text(), "kept/x 2 text after");
}
