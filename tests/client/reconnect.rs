//! The client that comes back: when, how often, with what, and when not. Servers die and rise again on their ports;
//! nothing sleeps.

use crate::support::clients::*;
use crate::support::{DEADLINE, TestServer, builder, echo, millis, recorder, serve, start_at};
use campanile::client::{Client, ClientEvent, ClientLimits, Error, HandshakeError, Offline, Pool, Reconnect};
use campanile::{Accept, CloseCode, ReadyState, Refuse, RefusedReason, Route};
use std::net::SocketAddr;
use std::sync::mpsc;

/// A server at an address that was used before.
fn restart(addr: SocketAddr, route: impl Into<Route>) -> TestServer {
    start_at(builder().route("/", route), &addr.to_string())
}

#[test]
fn a_client_reconnects_and_sends_messages_kept_offline() {
    let mut server = serve(echo());
    let addr = server.addr;
    let client = Client::builder(&url(&server))
        .reconnect(soon().offline(Offline::Keep))
        .max_backlog(10)
        .connect()
        .unwrap();
    expect_open(&client);
    client.send("one").unwrap();
    expect_text(&client, "one");
    server.shutdown(DEADLINE);
    let close = expect_close(&client);
    assert_eq!((close.code, close.was_clean, close.will_reconnect), (CloseCode::GOING_AWAY, true, true));
    assert_eq!(client.ready_state(), ReadyState::Connecting);
    client.send("two").unwrap();
    client.send("three").unwrap();
    assert_eq!(client.send("four").unwrap_err().reason, RefusedReason::BacklogFull);
    assert_eq!(client.buffered_amount(), 8);
    assert!(matches!(next(&client), ClientEvent::Reconnecting { attempt: 1, .. }));
    // At least one try fails before the server is there again.
    assert!(matches!(expect_error(&client), Error::Connect { .. }));
    let _server = restart(addr, echo());
    while !matches!(next(&client), ClientEvent::Open) {}
    expect_text(&client, "two");
    expect_text(&client, "three");
    client.close(1000, "").unwrap();
    expect_end(&client, 1000, true);
}

#[test]
fn by_default_send_is_refused_while_offline() {
    let (_held, addr) = nobody();
    let client = Client::builder(&format!("ws://{addr}/")).reconnect(soon()).connect().unwrap();
    assert!(matches!(expect_error(&client), Error::Connect { .. }));
    assert_eq!(client.send("x").unwrap_err().reason, RefusedReason::NotOpen);
    let _server = restart(addr, echo());
    while !matches!(next(&client), ClientEvent::Open) {}
    client.send("x").unwrap();
    expect_text(&client, "x");
}

#[test]
fn reset_ends_the_connection_and_reconnects() {
    let (handler, events) = recorder();
    let server = serve(handler);
    let client = Client::builder(&url(&server)).reconnect(soon().offline(Offline::Keep)).connect().unwrap();
    expect_open(&client);
    events.opened();
    client.reset();
    assert_eq!(expect_error(&client), Client::RESET);
    let close = expect_close(&client);
    assert_eq!((close.code, close.was_clean, close.will_reconnect), (CloseCode::ABNORMAL, false, true));
    assert_eq!(events.closed().code, CloseCode::ABNORMAL, "no close frame");
    client.send("after").unwrap();
    assert!(matches!(next(&client), ClientEvent::Reconnecting { attempt: 1, .. }));
    expect_open(&client);
    assert_eq!(events.message(), b"after");

    let client = open(&url(&server));
    client.reset();
    assert!(matches!(expect_error(&client), Error::Transport(_)));
    expect_end(&client, 1006, false);
    client.reset();
}

#[cfg(feature = "deflate")]
#[test]
fn kept_compressed_messages_reach_a_server_without_compression() {
    use campanile::client::Data;
    use campanile::deflate::Deflate;
    let deflate = Deflate::dedicated(15).threshold(0);
    let (handler, events) = recorder();
    let server = serve(Route::new(handler.on_open(|conn| conn.pause())).deflate(deflate));
    let plain = serve(echo());
    let urls = [url(&server), url(&plain)];
    let client = Client::builder(&urls[0])
        .reconnect(soon().offline(Offline::Keep))
        .deflate(deflate)
        .before_attempt(move |attempt| {
            attempt.url.clone_from(&urls[attempt.number.min(1) as usize]);
            Ok(())
        })
        .connect()
        .unwrap();
    expect_open(&client);
    events.opened();
    assert!(client.extensions().contains("permessage-deflate"));
    // Noise, which fills the socket; then what compresses well and has to wait.
    let mut noise = vec![0; 64 << 10];
    let mut seed = 7u32;
    noise.fill_with(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    });
    // More than the kernel has room for, some 4 MiB, however late the client's thread comes to write it.
    for _ in 0..(8 << 20) / noise.len() {
        client.send(&noise).unwrap();
    }
    let text = "to and fro ".repeat(1000);
    client.send(&text).unwrap();
    client.reset();
    while !matches!(next(&client), ClientEvent::Open) {}
    assert_eq!(client.extensions(), "");
    while expect_message(&client) != Data::Text(text.clone()) {}
}

#[test]
fn final_codes_end_the_client_and_others_reconnect() {
    let server = serve(recorder().0.on_message(|conn, message| {
        let code: u16 = message.as_text().and_then(|t| t.parse().ok()).unwrap();
        conn.close(code, "as you said").unwrap();
    }));
    let client = Client::builder(&url(&server)).reconnect(soon()).connect().unwrap();
    expect_open(&client);
    for code in [1012, 1011, 3999] {
        client.send(&code.to_string()).unwrap();
        let close = expect_close(&client);
        assert_eq!((close.code, close.will_reconnect), (CloseCode(code), true));
        assert!(matches!(next(&client), ClientEvent::Reconnecting { .. }));
        expect_open(&client);
    }
    client.send("4001").unwrap();
    assert_eq!(expect_end(&client, 4001, true).reason, "as you said");
}

#[test]
fn attempts_are_numbered_and_limited() {
    let (_held, addr) = nobody();
    let client =
        Client::builder(&format!("ws://{addr}/")).reconnect(soon().max_attempts(3)).connect().unwrap();
    for n in 1..=3 {
        assert!(matches!(expect_error(&client), Error::Connect { .. }));
        let event = next(&client);
        assert!(matches!(event, ClientEvent::Reconnecting { attempt, .. } if attempt == n), "{event:?}");
    }
    assert!(matches!(expect_error(&client), Error::Connect { .. }));
    expect_end(&client, 1006, false);
}

#[test]
fn before_attempt_can_change_url_and_headers() {
    let handler = recorder().0.on_upgrade(|request| match request.header("authorization") {
        Some(b"Bearer 2") => Ok(Accept::new(String::new())),
        _ => Err(Refuse::new(401)),
    });
    let server = serve(handler);
    let to = url(&server);
    let client = Client::builder("ws://nowhere.invalid/")
        .reconnect(soon().retry_status(401..=401))
        .before_attempt(move |attempt| {
            assert_eq!(attempt.url, "ws://nowhere.invalid/", "as it was built, each time");
            assert_eq!(attempt.last_error.is_some(), attempt.number > 0);
            if attempt.number == 1 {
                return Err("the token's server is down".into());
            }
            attempt.url.clone_from(&to);
            attempt.headers.push(("Authorization".into(), format!("Bearer {}", attempt.number)));
            Ok(())
        })
        .connect()
        .unwrap();
    let error = expect_error(&client);
    assert!(matches!(&error, Error::Handshake(HandshakeError::Refused(r)) if r.status == 401), "{error:?}");
    assert!(matches!(next(&client), ClientEvent::Reconnecting { attempt: 1, .. }));
    assert_eq!(expect_error(&client), Error::Hook("the token's server is down".into()));
    assert!(matches!(next(&client), ClientEvent::Reconnecting { attempt: 2, .. }));
    expect_open(&client);
    assert_eq!(client.url().to_string(), url(&server));
}

#[test]
fn a_blocked_hook_fails_its_attempts_and_delays_no_other_client() {
    let server = serve(echo());
    let pool = Pool::new(1).unwrap();
    let (release, held) = mpsc::channel::<()>();
    let mut limits = ClientLimits::default();
    limits.connect_timeout = millis(30);
    let client = Client::builder(&url(&server))
        .pool(&pool)
        .limits(limits)
        .reconnect(soon())
        .before_attempt(move |_| {
            let _ = held.recv(); // until the other end has gone
            Ok(())
        })
        .connect()
        .unwrap();
    assert_eq!(expect_error(&client), Error::ConnectTimeout { limit: millis(30) });
    assert!(matches!(next(&client), ClientEvent::Reconnecting { attempt: 1, .. }));
    assert!(matches!(expect_error(&client), Error::Hook(why) if why.contains("busy")));
    let other = Client::builder(&url(&server)).pool(&pool).connect().unwrap();
    expect_open(&other);
    drop(release);
    while !matches!(next(&client), ClientEvent::Open) {}
}

#[test]
fn all_dropped_clients_reconnect() {
    const CROWD: usize = 300;
    let mut server = serve(echo());
    let addr = server.addr;
    let pool = Pool::new(1).unwrap();
    let reconnect =
        || Reconnect::default().initial_delay(millis(50)).max_delay(millis(100)).offline(Offline::Keep);
    let connect = |_| Client::builder(&url(&server)).pool(&pool).reconnect(reconnect()).connect().unwrap();
    let clients: Vec<Client> = (0..CROWD).map(connect).collect();
    clients.iter().for_each(expect_open);
    server.shutdown(DEADLINE);
    clients.iter().for_each(|client| assert!(expect_close(client).will_reconnect));
    clients.iter().enumerate().for_each(|(i, client)| client.send(&i.to_string()).unwrap());
    let server = restart(addr, echo());
    for (i, client) in clients.iter().enumerate() {
        while !matches!(next(client), ClientEvent::Open) {}
        expect_text(client, &i.to_string());
    }
    assert_eq!(server.handle.open_connections(), CROWD);
}
