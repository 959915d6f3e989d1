//! What hostile and broken peers do to a TLS port: each ends its own connection, soon, and nothing else; the server does
//! not spin meanwhile.

use crate::support::tls;
use crate::support::tls::{Authority, open, shake, start_tls};
use crate::support::{
    Client, DEADLINE, Events, TEXT, TestServer, builder, echo, frame, limits, millis, recorder,
    upgrade_request,
};
use campanile::{Cause, ClientAuth, HttpLimits, Route, Server, Tls, on_message};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::{ErrorKind, Read, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What a handshake may take; and what ends long before that, however busy the machine is.
const TIMEOUT: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_millis(1500);

/// A server with one connection that lives through everything.
struct Target {
    ca: Authority,
    server: TestServer,
    witness: Client,
    events: Events,
}

impl Target {
    fn new() -> Self {
        Self::with(|_| ClientAuth::off())
    }

    fn with(auth: impl Fn(&Authority) -> ClientAuth) -> Self {
        let (handler, events) = recorder();
        let handler = handler.on_message(|conn, message| assert!(conn.send(message).is_ok()));
        let route = Route::new(handler).limits(limits(|l| l.close_timeout = millis(300)));
        let mut http = HttpLimits::default();
        http.timeout = TIMEOUT;
        let ca = Authority::new();
        let tls = Tls::builder(ca.certificate(&["localhost"])).client_auth(auth(&ca)).build().unwrap();
        let server = start_tls(builder().http_limits(http).route("/", route), &tls);
        let witness = open(server.addr, &ca.client());
        events.opened();
        Self { ca, server, witness, events }
    }

    fn dial(&self) -> Client {
        Client::dial(self.server.addr)
    }

    fn open(&self) -> Client {
        let client = open(self.server.addr, &self.ca.client());
        self.events.opened();
        client
    }

    /// Only the witness is left, it is served, and the loop sleeps.
    fn all_is_well(&mut self) {
        self.server.until("only the witness is left", |s| s.sockets == 1);
        self.witness.text("well?");
        assert_eq!(self.witness.read_text(), "well?");
        assert_eq!(self.server.handle.stats().held_bytes, 0);
        self.expect_sleep();
    }

    /// The loop iterates for its timers and for nothing else: 16 times a second at most, and some for what is going on.
    fn expect_sleep(&self) {
        let iterations = || self.server.handle.stats().iterations;
        let (before, began) = (iterations(), Instant::now());
        while began.elapsed() < millis(150) {
            std::thread::park_timeout(millis(10));
        }
        let counted = iterations() - before;
        assert!(counted < 40, "{counted} iterations in 150 ms in which nothing happened");
    }
}

/// Bytes of a record.
fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind, 3, 3], &(payload.len() as u16).to_be_bytes()[..], payload].concat()
}

/// The descriptions of the alerts in what came.
fn alerts(mut bytes: &[u8]) -> Vec<u8> {
    let mut found = Vec::new();
    while let [kind, _, _, a, b, rest @ ..] = bytes {
        let (payload, after) = rest.split_at(usize::from(u16::from_be_bytes([*a, *b])).min(rest.len()));
        if let (21, [2, description]) = (*kind, payload) {
            found.push(*description);
        }
        bytes = after;
    }
    found
}

#[test]
fn plain_text_on_a_tls_port_gets_an_alert() {
    let mut target = Target::new();
    let cases: &[(&str, &[u8])] = &[
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("zeros", &[0; 100]),
        ("letters", &[b'x'; 20_000]),
        ("a record that is too long", &record(22, &[1; 20_000])),
        ("a record of no kind", &record(99, b"hello")),
        ("application data before the handshake", &record(23, &[0; 40])),
        ("a handshake that begins with an end", &record(22, &[20, 0, 0, 0])),
        ("a hello that is none", &record(22, &[1, 0, 0, 4, 9, 9, 9, 9])),
        ("a change of cipher first", &record(20, &[1])),
    ];
    for (what, bytes) in cases {
        let began = Instant::now();
        let mut client = target.dial();
        let _ = client.try_send(bytes);
        let answer = client.read_to_end();
        assert_eq!(alerts(&answer).len(), 1, "{what}: {}", answer.escape_ascii());
        assert!(began.elapsed() < SOON, "{what}: not before a timeout");
        drop(client);
        target.all_is_well();
    }
    assert_eq!(target.server.handle.stats().tls_failed, cases.len() as u64);
}

#[test]
fn alerts_end_the_handshake() {
    let mut target = Target::new();
    for description in [0, 10, 40, 90, 255] {
        let mut client = target.dial();
        client.send(record(21, &[2, description]));
        client.read_to_end();
        drop(client);
        target.all_is_well();
    }
}

#[test]
fn silent_and_endless_handshakes_time_out() {
    let mut target = Target::new();
    let began = Instant::now();
    let mut silent = target.dial();
    let mut cut = target.dial();
    cut.send(&record(22, &[1; 400])[..200]);
    let mut slow = target.dial();
    slow.send(&record(22, &[&[1, 0, 2, 0][..], &[7; 508]].concat())[..5]);
    // A byte now and then does not give it more time.
    while (&slow.socket).write_all(&[1]).is_ok() && began.elapsed() < Duration::from_secs(5) {
        std::thread::park_timeout(millis(20));
    }
    assert!(began.elapsed() < 2 * TIMEOUT);
    silent.expect_gone();
    cut.expect_gone();
    target.all_is_well();
    let stats = target.server.handle.stats();
    assert_eq!((stats.timeouts, stats.tls_failed), (3, 3));
}

#[test]
fn handshake_messages_are_bounded_at_any_split() {
    let mut target = Target::new();
    // Announced as 16 MiB: refused at once.
    let began = Instant::now();
    let mut client = target.dial();
    client.send(record(22, &[1, 0xff, 0xff, 0xff]));
    client.expect_gone();
    assert!(began.elapsed() < SOON, "not before the timeout");
    drop(client);
    target.all_is_well();
    // Within what may be announced, but in records of one byte: what is kept of it has a bound too.
    let began = Instant::now();
    let mut client = target.dial();
    let _ = client.try_send(&[record(22, &[1, 0, 0xea, 0x60]), record(22, &[7]).repeat(40_000)].concat());
    client.expect_gone();
    assert!(began.elapsed() < SOON, "not before the timeout");
    drop(client);
    target.all_is_well();
}

#[test]
fn data_after_close_notify_is_ignored() {
    let mut target = Target::new();
    let mut client = target.open();
    let tls = client.tls.as_mut().unwrap();
    // One write: a whole message, half a message, the goodbye, and what must not be heard any more.
    let mut out = Vec::new();
    tls.writer().write_all(&frame(true, TEXT, b"heard")).unwrap();
    tls.writer().write_all(&frame(true, TEXT, b"half")[..7]).unwrap();
    tls.send_close_notify();
    while tls.wants_write() {
        tls.write_tls(&mut out).unwrap();
    }
    out.extend_from_slice(&record(23, &[0; 50]));
    (&client.socket).write_all(&out).unwrap();
    assert_eq!(target.events.message(), b"heard");
    assert_eq!(target.events.closed().cause, Cause::Transport(ErrorKind::UnexpectedEof));
    assert_eq!(client.read_text(), "heard");
    client.expect_eof(); // answered in kind
    target.all_is_well();
}

#[test]
fn a_request_followed_by_close_notify_is_answered() {
    let ca = Authority::new();
    let server = start_tls(
        builder().get("/", |_: &campanile::Request<'_>| campanile::Response::new(200).text("yes")),
        &ca.tls(),
    );
    let mut client = shake(server.addr, &ca.client(), "localhost").unwrap();
    let tls = client.tls.as_mut().unwrap();
    tls.writer().write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    tls.send_close_notify();
    while tls.wants_write() {
        tls.write_tls(&mut &client.socket).unwrap();
    }
    assert_eq!(client.answer().text(), "yes");
    client.expect_eof();
}

#[test]
fn end_of_stream_without_close_notify_ends_the_connection() {
    let mut target = Target::new();
    let client = target.open();
    client.end();
    assert_eq!(target.events.closed().cause, Cause::Transport(ErrorKind::UnexpectedEof));
    drop(client);
    let client = target.open();
    client.reset();
    assert!(matches!(target.events.closed().cause, Cause::Transport(_)));
    // Within the handshake, and before it.
    target.dial().end();
    let cut = target.dial();
    (&cut.socket).write_all(&record(22, &[1; 400])[..200]).unwrap();
    cut.reset();
    target.all_is_well();
}

#[test]
fn a_modified_record_ends_the_connection() {
    let mut target = Target::new();
    let before = target.server.handle.stats().protocol_errors;
    for at in [5, 20] {
        let mut client = target.open();
        let tls = client.tls.as_mut().unwrap();
        tls.writer().write_all(&frame(true, TEXT, b"never heard")).unwrap();
        let mut out = Vec::new();
        tls.write_tls(&mut out).unwrap();
        out[at] ^= 1;
        (&client.socket).write_all(&out).unwrap();
        let end = target.events.closed();
        assert_eq!(end.cause, Cause::Transport(ErrorKind::InvalidData));
        assert!(!end.was_clean);
        client.expect_alert();
        drop(client);
        target.all_is_well();
    }
    assert_eq!(target.server.handle.stats().protocol_errors - before, 2);
}

#[test]
fn handshake_messages_after_the_handshake_do_not_block() {
    let mut target = Target::new();
    let mut client = target.open();
    for _ in 0..3 {
        client.tls.as_mut().unwrap().refresh_traffic_keys().unwrap();
        client.text("on");
        assert_eq!(client.read_text(), "on");
    }
    // A flood of updates without anything between them.
    let mut flooded = target.open();
    for _ in 0..100 {
        flooded.tls.as_mut().unwrap().refresh_traffic_keys().unwrap();
    }
    let tls = flooded.tls.as_mut().unwrap();
    while tls.wants_write() && tls.write_tls(&mut &flooded.socket).is_ok() {}
    flooded.expect_alert_or_end();
    drop(flooded);
    // The same with a byte of data after each few, which rustls takes.
    let mut flooded = target.open();
    let tls = flooded.tls.as_mut().unwrap();
    let mut bytes = Vec::new();
    tls.writer().write_all(&frame(true, TEXT, &[b'x'; 1000])[..8]).unwrap();
    for _ in 0..50 {
        (0..4).for_each(|_| tls.refresh_traffic_keys().unwrap());
        tls.writer().write_all(b"x").unwrap();
        while tls.wants_write() {
            tls.write_tls(&mut bytes).unwrap();
        }
    }
    let _ = flooded.socket.write_all(&bytes);
    assert_eq!(target.events.closed().cause, Cause::Transport(ErrorKind::InvalidData));
    drop(flooded);
    client.text("still");
    assert_eq!(client.read_text(), "still");
    drop(client);
    target.all_is_well();
}

#[test]
fn concurrent_handshakes_are_limited() {
    let ca = Authority::new();
    let mut http = HttpLimits::default();
    http.timeout = millis(400);
    let server = start_tls(builder().max_handshakes(2).http_limits(http).route("/", echo()), &ca.tls());
    let stats = || server.handle.stats();
    let silent: Vec<_> = (0..5).map(|_| Client::dial(server.addr)).collect();
    server.until("two are in", |s| s.sockets == 2 && s.tls_pauses > 0);
    // They are through when those before them have had their time: an open connection is no handshake.
    let mut client = open(server.addr, &ca.client());
    assert!(stats().tls_failed >= 4, "{:?}", stats());
    client.text("in");
    assert_eq!(client.read_text(), "in");
    drop(silent);
    for _ in 0..4 {
        let mut next = open(server.addr, &ca.client());
        next.text("in");
        assert_eq!(next.read_text(), "in");
        std::mem::forget(next); // stays open
    }
}

/// Silent sockets that come again and again don't shut the port: with their places taken, silence is not waited for.
#[test]
fn a_waiting_client_replaces_a_silent_handshake() {
    let ca = Authority::new();
    let mut http = HttpLimits::default();
    http.timeout = Duration::from_secs(600);
    let server = start_tls(builder().max_handshakes(2).http_limits(http).route("/", echo()), &ca.tls());
    let silent: Vec<_> = (0..4).map(|_| Client::dial(server.addr)).collect();
    server.until("two are in", |s| s.sockets == 2 && s.tls_pauses > 0);
    let mut client = open(server.addr, &ca.client());
    client.text("in");
    assert_eq!(client.read_text(), "in");
    drop(silent);
}

#[test]
fn a_full_tls_server_closes_new_connections() {
    let ca = Authority::new();
    let server = start_tls(Server::builder().workers(1).max_connections(1).route("/", echo()), &ca.tls());
    let mut first = open(server.addr, &ca.client());
    let mut second = Client::dial(server.addr);
    assert_eq!(second.read_to_end(), b"");
    assert_eq!(server.handle.stats().turned_away, 1);
    first.text("still");
    assert_eq!(first.read_text(), "still");
}

#[test]
fn random_bytes_end_only_their_own_tls_connection() {
    let mut target = Target::new();
    let mut seed = 7_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    for _ in 0..60 {
        let mut client = target.dial();
        let mut tls = tls::connection(&target.ca.client(), "localhost");
        let mut out = Vec::new();
        tls.write_tls(&mut out).unwrap();
        // A hello with some bytes changed, cut or repeated; now and then it stays good.
        for _ in 0..random() % 4 {
            let at = random() % out.len();
            out[at] = random() as u8;
        }
        out.truncate(out.len() - random() % 2 * (random() % 40));
        let _ = client.try_send(&out);
        client.end();
        let mut answer = Vec::new();
        let _ = (&client.socket).read_to_end(&mut answer);
    }
    for _ in 0..60 {
        let mut client = target.dial();
        let bytes: Vec<u8> = (0..random() % 3000).map(|_| random() as u8).collect();
        let _ = client.try_send(&bytes);
        client.end();
        let _ = client.read_to_end();
    }
    target.all_is_well();
    let mut client = shake(target.server.addr, &target.ca.client(), "localhost").unwrap();
    client.send(upgrade_request("/", ""));
    assert_eq!(client.answer().status, 101);
}

/// One recorded hello on very many sockets at once: each is some 0.1 ms of computing, and none of it goes before a message
/// on an established connection.
#[test]
fn many_handshakes_do_not_delay_established_connections() {
    const CROWD: usize = 300;
    let ca = Authority::new();
    let crowd: Arc<Mutex<Vec<std::net::TcpStream>>> = Arc::default();
    let (entered, has_entered) = crossbeam_channel::bounded(1);
    let (release, released) = crossbeam_channel::bounded::<()>(1);
    let sockets = crowd.clone();
    let handler = on_message(move |conn, message| {
        match message.as_bytes() {
            b"wait" => {
                entered.send(()).unwrap();
                released.recv_timeout(DEADLINE).unwrap();
            }
            _ => {
                // On the worker's thread: it answers no handshake meanwhile.
                let answered = |s: &&std::net::TcpStream| matches!(s.peek(&mut [0]), Ok(1));
                let answered = sockets.lock().unwrap().iter().filter(answered).count();
                assert!(conn.send(answered.to_string().as_str()).is_ok());
            }
        }
        Ok(())
    });
    let server = start_tls(Server::builder().workers(1).route("/", handler), &ca.tls());
    let (mut first, mut second) = (open(server.addr, &ca.client()), open(server.addr, &ca.client()));
    let mut hello = Vec::new();
    tls::connection(&ca.client(), "localhost").write_tls(&mut hello).unwrap();
    for _ in 0..CROWD {
        let socket = std::net::TcpStream::from(Client::dial(server.addr).socket);
        socket.set_nonblocking(true).unwrap();
        crowd.lock().unwrap().push(socket);
    }
    server.until("all are accepted", |s| s.sockets == CROWD as u64 + 2);
    first.text("wait");
    has_entered.recv_timeout(DEADLINE).unwrap();
    for socket in &*crowd.lock().unwrap() {
        (&*socket).write_all(&hello).unwrap();
    }
    second.text("how many were answered before this?");
    release.send(()).unwrap();
    let answered: usize = second.read_text().parse().unwrap();
    assert!(answered < CROWD / 10, "{answered} of {CROWD} handshakes went before a message");
    // All of them have their turn.
    let sockets = std::mem::take(&mut *crowd.lock().unwrap());
    for socket in sockets {
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        (&socket).read_exact(&mut [0]).unwrap();
    }
    assert!(server.handle.stats().tls_deferred > 0);
}

/// A client's certificate as it is, whether it is one or not.
#[derive(Debug)]
struct Shows(Arc<rustls::sign::CertifiedKey>);

impl rustls::client::ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A pair signed by one of `n` authorities of one name, and the certificates of all of them: every order is a path.
fn maze(n: usize) -> (Vec<CertificateDer<'static>>, String) {
    let issuers: Vec<_> = (0..n).map(|_| Authority::named("all the same")).collect();
    let pair = issuers[0].issue(&["client.example"]);
    let chain = std::iter::once(pair.der()).chain(issuers.iter().map(Authority::der)).collect();
    (chain, pair.key)
}

#[test]
fn bad_client_certificates_get_an_alert() {
    let mut target = Target::with(|ca| ClientAuth::optional(ca.pem()).unwrap());
    let good = target.ca.issue(&["client.example"]);
    let expired = target.ca.issue_between(&["client.example"], (2000, 2020));
    let foreign = Authority::named("nobody's").issue(&["client.example"]);
    let garbage = |bytes: Vec<u8>| vec![CertificateDer::from(bytes)];
    let ballast = [vec![good.der()], vec![CertificateDer::from(vec![0; 15_000]); 4]].concat();
    let (maze, key) = maze(12);
    let cases = [
        ("expired", vec![expired.der()], &expired.key, "CertificateExpired"),
        ("of another authority", vec![foreign.der()], &foreign.key, "UnknownCA"),
        ("another's, without its key", vec![good.der()], &foreign.key, "DecryptError"),
        ("zeros", garbage(vec![0; 1000]), &good.key, "BadCertificate"),
        ("cut short", garbage(good.der()[..100].to_vec()), &good.key, "BadCertificate"),
        ("empty", garbage(Vec::new()), &good.key, ""),
        (
            "with 20,000 bytes behind it",
            garbage([good.der().as_ref(), &[0; 20_000]].concat()),
            &good.key,
            "BadCertificate",
        ),
        ("120 times the same", vec![good.der(); 120], &good.key, "CertificateUnknown"),
        ("good, with 60,000 bytes beside it", ballast, &good.key, "CertificateUnknown"),
        ("a maze", maze, &key, "CertificateUnknown"),
    ];
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (what, chain, key, alert) in &cases {
            let mut config = target.ca.client_of(&[version]);
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
            let shown = rustls::sign::CertifiedKey::new(chain.clone(), key);
            config.client_auth_cert_resolver = Arc::new(Shows(Arc::new(shown)));
            let began = Instant::now();
            // In TLS 1.3 the client is through before the server has looked.
            let told = match shake(target.server.addr, &config, "localhost") {
                Ok(mut client) => client.alert(),
                Err(e) => e.to_string(),
            };
            assert!(told.contains("received fatal alert") && told.contains(alert), "{what}: {told}");
            assert!(began.elapsed() < SOON, "{what}: not before a timeout");
            target.all_is_well();
        }
    }
    let mut known = shake(target.server.addr, &target.ca.client_with(&good), "localhost").unwrap();
    known.upgrade("/");
    target.events.opened();
    drop(known);
    target.all_is_well();
}
