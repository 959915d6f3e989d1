//! What callbacks return and what a handler need not write: errors, reasons, and the default upgrade.

use crate::support;
use crate::support::{DEADLINE, TestServer, builder, millis, serve, start};
use campanile::{
    Cause, CloseCode, Closed, Conn, Disconnect, Handler, InvalidTopic, Message, RefusedReason, Subscribed,
    on_message,
};
use crossbeam_channel::{Receiver, Sender, unbounded};

/// Fails in the callback that the client names, in the way that it names; has no upgrade of its own.
struct Failing(Sender<Closed>);

fn failing() -> (TestServer, Receiver<Closed>) {
    let (tx, rx) = unbounded();
    (start(builder().route("/:callback", Failing(tx))), rx)
}

fn fail(conn: &Conn<'_>, callback: &str) -> Result<(), Disconnect> {
    if conn.param("callback") == Some(callback) {
        "no number".parse::<u8>()?;
    }
    Ok(())
}

impl Handler for Failing {
    type State = ();

    fn open(&self, conn: &mut Conn<'_>, _: &mut ()) -> Result<(), Disconnect> {
        fail(conn, "open")
    }

    fn message(&self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) -> Result<(), Disconnect> {
        fail(conn, "message")?;
        match message.as_text() {
            Some("reason") => Err(Disconnect::new(4001, "the token has expired")),
            Some("not a code") => Err(Disconnect::new(1006, "x")),
            Some("closing") => {
                conn.close(1000, "done").unwrap();
                conn.send("too late")?;
                Ok(())
            }
            Some("subscribe") => Ok(conn.subscribe_from("a", campanile::Start::Now)?),
            _ => Ok(()),
        }
    }

    fn ping(&self, conn: &mut Conn<'_>, _: &mut (), _: &[u8]) -> Result<(), Disconnect> {
        fail(conn, "ping")
    }

    fn pong(&self, conn: &mut Conn<'_>, _: &mut (), _: &[u8]) -> Result<(), Disconnect> {
        fail(conn, "pong")
    }

    fn subscribed(&self, conn: &mut Conn<'_>, _: &mut (), _: &str, _: &Subscribed) -> Result<(), Disconnect> {
        fail(conn, "subscribed")
    }

    fn close(&self, _: &mut Conn<'_>, _: &mut (), end: &Closed) {
        let _ = self.0.send(end.clone()); // a test that is over does not listen
    }
}

#[test]
fn an_error_of_a_callback_closes_the_connection_and_is_not_told_to_the_client() {
    let (server, ends) = failing();
    for (n, callback) in (1..).zip(["open", "message", "ping", "pong", "subscribed"]) {
        let mut client = server.open(&format!("/{callback}"));
        match callback {
            "message" => client.text("x"),
            "ping" => {
                client.frame(true, support::PING, b"");
                assert_eq!(client.read_frame().opcode, support::PONG);
            }
            "pong" => client.frame(true, support::PONG, b""),
            "subscribed" => client.text("subscribe"),
            _ => {}
        }
        assert_eq!(client.read_close(), (1011, "internal error".to_owned()), "{callback}");
        client.close(1011, "");
        client.expect_eof();
        let end = ends.recv_timeout(DEADLINE).unwrap();
        assert_eq!((end.cause, end.code), (Cause::CallbackError, CloseCode::INTERNAL), "{callback}");
        assert_eq!(server.handle.stats().callback_errors, n);
    }
    assert_eq!(server.handle.stats().panics, 0);
}

#[test]
fn a_callback_names_the_code_and_the_reason() {
    let (server, ends) = failing();
    let mut client = server.open("/x");
    client.text("reason");
    assert_eq!(client.read_close(), (4001, "the token has expired".to_owned()));
    client.close(4001, "");
    client.expect_eof();
    let end = ends.recv_timeout(DEADLINE).unwrap();
    assert_eq!((end.cause, end.was_clean), (Cause::Application, true));
    assert_eq!(server.handle.stats().callback_errors, 0);
    let mut client = server.open("/x");
    client.text("not a code");
    assert_eq!(client.read_close(), (1011, "internal error".to_owned()));
    assert_eq!(server.handle.stats().callback_errors, 1);
}

#[test]
fn an_error_has_no_effect_where_the_connection_is_closing() {
    let (server, ends) = failing();
    let mut client = server.open("/x");
    client.text("closing");
    assert_eq!(client.read_close(), (1000, "done".to_owned()));
    client.close(1000, "");
    client.expect_eof();
    assert_eq!(ends.recv_timeout(DEADLINE).unwrap().cause, Cause::Application);
    assert_eq!(server.handle.stats().callback_errors, 0);
}

#[test]
fn a_publication_with_an_invalid_name_is_an_error_on_the_owner_and_elsewhere() {
    for workers in [1, 3] {
        let route = on_message(|conn, message| {
            let bad = message.as_text().unwrap_or_default();
            for publish in [Conn::publish, Conn::publish_to_others] {
                assert!(publish(conn, bad, "x").is_err(), "{bad}");
            }
            assert!(matches!(conn.publish("a/*", "x"), Err(InvalidTopic::Pattern { .. })));
            conn.publish("nobody/subscribes", "x")?;
            conn.send("checked")?;
            Ok(())
        });
        let server = start(builder().workers(workers).route("/", route));
        let mut client = server.open("/");
        for bad in ["", "a\nb", &"x".repeat(256)] {
            client.text(bad);
            assert_eq!(client.read_text(), "checked");
        }
    }
}

#[test]
fn messages_are_made_of_owned_and_of_borrowed_values() {
    let server = serve(on_message(|conn, message| {
        conn.send(message)?;
        conn.send("str")?;
        conn.send(String::from("String"))?;
        conn.send(&String::from("&String"))?;
        conn.send(b"slice".as_slice())?;
        conn.send([1, 2])?;
        conn.send(&[3, 4])?;
        conn.send(vec![5, 6])?;
        #[cfg(feature = "bytes")]
        conn.send(bytes::Bytes::from_static(b"Bytes"))?;
        drop(conn.send(Message::json("{}"))); // no warning
        conn.close(1000, "")?;
        let refused = conn.send(String::from("too late")).unwrap_err();
        assert_eq!((&*refused.message, refused.reason), ("too late", RefusedReason::NotOpen));
        assert_eq!(format!("{refused:?}"), "message of 8 bytes refused: the connection is not open");
        Ok(())
    }));
    let mut client = server.open("/");
    client.text("first");
    for text in ["first", "str", "String", "&String"] {
        assert_eq!(client.read_text(), text);
    }
    for bytes in [&b"slice"[..], &[1, 2], &[3, 4], &[5, 6]] {
        assert_eq!(client.read_binary(), bytes);
    }
    #[cfg(feature = "bytes")]
    assert_eq!(client.read_binary(), b"Bytes");
    assert_eq!(client.read_text(), "{}");
}

/// A state of no size that is not `()` passes the check at compile time.
struct Unit;

struct NoUpgrade;

impl Handler for NoUpgrade {
    type State = Unit;

    fn message(&self, _: &mut Conn<'_>, _: &mut Unit, _: Message<'_>) -> Result<(), Disconnect> {
        Ok(())
    }
}

#[test]
fn a_handler_without_an_upgrade_for_its_state_is_a_500() {
    let mut server = serve(NoUpgrade);
    let mut client = server.dial();
    client.send(support::upgrade_request("/", ""));
    assert_eq!(client.answer().status, 500);
    server.shutdown(millis(1));
}
