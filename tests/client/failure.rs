//! A client's thread that panics, which would be a fault of this crate: its clients are told, and those to come are served.

use crate::support::clients::*;
use crate::support::{DEADLINE, echo, serve};
use campanile::client::{Client, ClientEvent, Error, NoEvent, Pool};
use campanile::internal::panic_client;

#[test]
fn a_thread_panic_ends_its_clients_and_new_ones_can_connect() {
    let server = serve(echo());
    let pool = Pool::new(1).unwrap();
    let connect = || Client::builder(&url(&server)).pool(&pool).connect().unwrap();
    let clients = [connect(), connect()];
    for client in &clients {
        assert!(matches!(client.next(DEADLINE), Ok(ClientEvent::Open)));
    }
    let (events, told) = crossbeam_channel::unbounded();
    let called = Client::builder(&url(&server)).pool(&pool).connect_with(move |_, event| {
        let _ = events.send(event);
    });
    assert!(matches!(told.recv_timeout(DEADLINE), Ok(ClientEvent::Open)));
    panic_client(&clients[0]);
    for client in &clients {
        assert!(matches!(client.next(DEADLINE), Ok(ClientEvent::Error(Error::System(_)))));
        assert!(matches!(client.next(DEADLINE), Ok(ClientEvent::Close(close)) if !close.will_reconnect));
        assert!(matches!(client.next(DEADLINE), Err(NoEvent::Ended)));
    }
    assert!(matches!(told.recv_timeout(DEADLINE), Ok(ClientEvent::Error(Error::System(_)))));
    assert!(matches!(told.recv_timeout(DEADLINE), Ok(ClientEvent::Close(_))));
    drop(called);
    let client = connect();
    assert!(matches!(client.next(DEADLINE), Ok(ClientEvent::Open)));
    client.send("still here").unwrap();
    expect_text(&client, "still here");
}
