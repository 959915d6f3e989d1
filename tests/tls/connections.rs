//! TLS over real sockets: handshakes, certificates and names, tickets, reloading, and that nothing is lost or out of order
//! when the kernel takes only a part. What hostile peers try is in `attacks.rs`.

use crate::support;
use crate::support::tls;
use crate::support::tls::{Authority, dial, open, shake, start_tls};
use crate::support::{
    Client, TEXT, builder, echo, frame, limits, millis, recorder, start_built, upgrade_request,
};
use campanile::{Accept, Cause, Certificate, ClientAuth, Response, Route, Tls, TlsConfigError, TlsVersion};
use crossbeam_channel::unbounded;
use rustls::client::Resumption;
use rustls::{HandshakeKind, ProtocolVersion};
use std::sync::Arc;

const KIB: usize = 1 << 10;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

fn large() -> campanile::Limits {
    limits(|l| l.max_message_size = 4 << 20)
}

#[test]
fn messages_are_exchanged_under_tls_1_2_and_1_3() {
    let ca = Authority::new();
    let server = start_tls(builder().route("/", Route::new(echo()).limits(large())), &ca.tls());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut client = open(server.addr, &ca.client_of(&[version]));
        client.text("");
        client.text("hello");
        assert_eq!((client.read_text(), client.read_text()), (String::new(), "hello".into()));
        for len in [125, 126, 16_370, 16_384, 16_385, 65_536, 65_537, 1 << 20] {
            let payload = pattern(len);
            client.binary(&payload);
            assert!(client.read_binary() == payload, "{len}");
        }
        client.close(1000, "");
        assert_eq!(client.read_close().0, 1000);
        client.expect_eof(); // with a close_notify: an end without one is an error to rustls
    }
    server.until("two handshakes", |s| (s.tls_handshakes, s.tls_failed, s.tls_resumed) == (2, 0, 0));
}

#[test]
fn messages_and_tls_records_may_be_split_anywhere() {
    let ca = Authority::new();
    let server = start_tls(builder().route("/", echo()), &ca.tls());
    let mut client = open(server.addr, &ca.client());
    let many: Vec<u8> = (0..1000).flat_map(|n| frame(true, TEXT, format!("{n}").as_bytes())).collect();
    client.send(&many);
    for n in 0..1000 {
        assert_eq!(client.read_text(), n.to_string());
    }
    for byte in frame(true, TEXT, b"byte by byte") {
        client.send([byte]);
    }
    assert_eq!(client.read_text(), "byte by byte");
}

#[test]
fn a_tls_connection_works_byte_by_byte() {
    let ca = Authority::new();
    let server = start_tls(builder().route("/", echo()), &ca.tls());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut client = dial(server.addr, &ca.client_of(&[version]), "localhost");
        let say = |client: &mut Client, plain: &[u8]| {
            let tls = client.tls.as_mut().unwrap();
            std::io::Write::write_all(&mut tls.writer(), plain).unwrap();
            while client.tls.as_ref().unwrap().wants_write() {
                let mut out = Vec::new();
                client.tls.as_mut().unwrap().write_tls(&mut out).unwrap();
                for byte in out {
                    std::io::Write::write_all(&mut &client.socket, &[byte]).unwrap();
                }
            }
        };
        while client.tls.as_ref().unwrap().is_handshaking() {
            say(&mut client, b"");
            let tls = client.tls.as_mut().unwrap();
            if tls.is_handshaking() {
                tls.read_tls(&mut &client.socket).unwrap();
                tls.process_new_packets().unwrap();
            }
        }
        say(&mut client, upgrade_request("/", "").as_bytes());
        assert_eq!(client.answer().status, 101);
        say(&mut client, &frame(true, TEXT, b"slowly"));
        assert_eq!(client.read_text(), "slowly");
    }
}

#[test]
fn either_side_can_update_tls_keys() {
    let ca = Authority::new();
    let server = start_tls(builder().route("/", echo()), &ca.tls());
    let mut client = open(server.addr, &ca.client_of(&[&rustls::version::TLS13]));
    for n in 0..20 {
        client.tls.as_mut().unwrap().refresh_traffic_keys().unwrap();
        client.text(&n.to_string());
        assert_eq!(client.read_text(), n.to_string());
    }
}

#[test]
fn requests_know_whether_they_came_over_tls() {
    let ca = Authority::new();
    let builder = builder().get("/", |r: &campanile::Request<'_>| {
        let tls = r.tls().map(|t| format!("{} {} {:?} {}", t.version, t.cipher, t.server_name, t.resumed));
        Response::new(200).text(format!("{} {tls:?}", r.is_secure()))
    });
    let server = builder.listen("127.0.0.1:0").listen_tls("127.0.0.1:0", &ca.tls()).build().unwrap();
    let addrs: Vec<_> = server.local_addrs().iter().map(|a| a.to_string().parse().unwrap()).collect();
    assert!(server.tls_addrs().eq(&server.local_addrs()[1..]));
    let handle = server.handle();
    let running = server.spawn().unwrap();
    let get = |mut client: Client| {
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        client.answer().text().to_owned()
    };
    assert_eq!(get(Client::dial(addrs[0])), "false None");
    let versions = [&rustls::version::TLS12, &rustls::version::TLS13];
    let names = ["TLS 1.2 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS 1.3 TLS_AES_256_GCM_SHA384"];
    for (version, name) in versions.into_iter().zip(names) {
        let client = shake(addrs[1], &ca.client_of(&[version]), "LOCALHOST").unwrap();
        assert_eq!(get(client), format!("true Some({:?})", format!("{name} Some(\"localhost\") false")));
    }
    handle.shutdown(millis(1));
    running.join().expect("no worker failed");
}

#[test]
fn certificates_are_chosen_by_server_name() {
    let ca = Authority::new();
    let tls = Tls::builder(ca.certificate(&["127.0.0.1", "elsewhere.example"]))
        .sni("one.example", ca.certificate(&["one.example"]))
        .sni("*.many.example", ca.certificate(&["*.many.example"]))
        .build()
        .unwrap();
    let server = start_tls(builder(), &tls);
    // The client verifies the name: it only goes on with the certificate that it asked for.
    for name in ["one.example", "a.many.example", "elsewhere.example", "127.0.0.1"] {
        shake(server.addr, &ca.client(), name).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    for name in ["other.example", "a.b.many.example", "many.example"] {
        assert!(shake(server.addr, &ca.client(), name).is_err(), "{name}");
    }
    assert!(matches!(
        Tls::builder(ca.certificate(&["a"])).sni("not a name", ca.certificate(&["a"])).build(),
        Err(TlsConfigError::Name { name }) if name == "not a name"
    ));
}

#[test]
fn alpn_is_negotiated_and_unknown_protocols_are_refused() {
    let ca = Authority::new();
    let server = start_tls(builder(), &ca.tls());
    let with = |names: &[&str]| {
        let mut config = ca.client();
        config.alpn_protocols = names.iter().map(|n| n.as_bytes().to_vec()).collect();
        shake(server.addr, &config, "localhost")
    };
    let client = with(&["h2", "http/1.1"]).unwrap();
    assert_eq!(client.tls.as_ref().unwrap().alpn_protocol(), Some(&b"http/1.1"[..]));
    assert_eq!(with(&[]).unwrap().tls.as_ref().unwrap().alpn_protocol(), None);
    let e = with(&["h2"]).err().unwrap();
    assert!(e.to_string().contains("NoApplicationProtocol"), "{e}");
}

#[test]
fn an_older_version_than_allowed_is_refused() {
    let ca = Authority::new();
    let tls = Tls::builder(ca.certificate(&["localhost"])).min_version(TlsVersion::Tls13).build().unwrap();
    let server = start_tls(builder(), &tls);
    let client = shake(server.addr, &ca.client(), "localhost").unwrap();
    assert_eq!(client.tls.as_ref().unwrap().protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let e = shake(server.addr, &ca.client_of(&[&rustls::version::TLS12]), "localhost").err().unwrap();
    assert!(e.to_string().contains("ProtocolVersion"), "{e}");
    server.until("the refusal is counted", |s| s.tls_failed == 1);
}

#[test]
fn handlers_see_client_certificates() {
    let (ca, other) = (Authority::new(), Authority::new());
    let own = ca.issue(&["client.example"]);
    let stranger = other.issue(&["stranger.example"]);
    // Each kind of client at each kind of listener: whether it gets in, and whether it is known then.
    let kinds = [
        (ClientAuth::off(), [Some(false), Some(false), Some(false)]),
        (ClientAuth::optional(ca.pem()).unwrap(), [Some(false), Some(true), None]),
        (ClientAuth::required(ca.pem()).unwrap(), [None, Some(true), None]),
    ];
    for (auth, expected) in kinds {
        let (seen, sees) = unbounded();
        let handler = recorder().0.on_upgrade(move |request| {
            let identity = request.tls().and_then(|t| t.client_certificate()).map(<[u8]>::to_vec);
            seen.send(identity).unwrap();
            Ok(Accept::new(String::new()))
        });
        let what = format!("{auth:?}").chars().take(30).collect::<String>();
        let tls = Tls::builder(ca.certificate(&["localhost"])).client_auth(auth).build().unwrap();
        let server = start_tls(builder().route("/", handler), &tls);
        let clients = [ca.client(), ca.client_with(&own), ca.client_with(&stranger)];
        for (config, expected) in clients.iter().zip(expected) {
            // In TLS 1.3 a client has shaken hands before the server has looked at its certificate.
            let mut client = shake(server.addr, config, "localhost").unwrap();
            let _ = client.try_send(upgrade_request("/", "").as_bytes());
            match expected {
                Some(known) => {
                    assert_eq!(client.answer().status, 101, "{what}");
                    let identity = sees.recv_timeout(support::DEADLINE).unwrap();
                    assert_eq!(identity, known.then(|| own.der().to_vec()), "{what}");
                }
                None => client.expect_alert(),
            }
        }
    }
}

#[test]
fn sessions_are_resumed_on_any_worker_and_after_a_reload() {
    let ca = Authority::new();
    let tls = ca.tls();
    let server = start_tls(support::builder().workers(2).route("/", echo()), &tls);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut config = ca.client_of(&[version]);
        config.resumption = Resumption::in_memory_sessions(32);
        let mut kept = Vec::new();
        for n in 0..6 {
            if n == 4 {
                tls.replace(ca.certificate(&["localhost"]), []).unwrap();
            }
            // They stay, so that the next one goes to the other worker.
            let mut client = dial(server.addr, &config, "localhost");
            client.upgrade("/");
            client.text("tickets have come before this");
            client.read_text();
            let kind = client.tls.as_ref().unwrap().handshake_kind().unwrap();
            assert_eq!(kind == HandshakeKind::Resumed, n > 0, "{n}: {kind:?}");
            kept.push(client);
        }
    }
    assert_eq!(server.handle.stats().tls_resumed, 10);
}

#[test]
fn certificates_are_reloaded_and_an_invalid_pair_is_ignored() {
    let ca = Authority::new();
    let folder = std::env::temp_dir().join(format!("campanile-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let write = |pair: &tls::Pair| {
        std::fs::write(&cert, &pair.cert).unwrap();
        std::fs::write(&key, &pair.key).unwrap();
    };
    let (first, second) = (ca.issue(&["localhost"]), ca.issue(&["localhost"]));
    write(&first);
    let tls = Tls::new(Certificate::from_files(&cert, &key).unwrap()).unwrap();
    let server = start_tls(builder().route("/", echo()), &tls);
    let shown = || {
        let client = shake(server.addr, &ca.client(), "localhost").unwrap();
        client.tls.as_ref().unwrap().peer_certificates().unwrap()[0].clone()
    };
    let mut old = open(server.addr, &ca.client());
    assert_eq!(shown(), first.der());

    // A key of another pair, as when only one of the files has been renewed.
    std::fs::write(&cert, &second.cert).unwrap();
    let e = tls.reload().unwrap_err();
    assert!(matches!(e, TlsConfigError::KeyMismatch { .. }));
    let (c, k) = (cert.display().to_string(), key.display().to_string());
    assert!(e.to_string().contains(&c) && e.to_string().contains(&k), "{e}");
    std::fs::write(&cert, "no certificate at all").unwrap();
    assert!(matches!(tls.reload().unwrap_err(), TlsConfigError::NoCertificate { origin } if origin == c));
    std::fs::remove_file(&cert).unwrap();
    assert!(matches!(tls.reload().unwrap_err(), TlsConfigError::File(e) if e.path == cert));
    assert_eq!(shown(), first.der(), "the old pair is still in use");

    write(&second);
    tls.reload().unwrap();
    assert_eq!(shown(), second.der());
    old.text("still here");
    assert_eq!(old.read_text(), "still here");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_slow_tls_reader_gets_everything_in_order() {
    const SIZE: usize = 100 * KIB; // more than is sealed at once
    const MESSAGES: usize = 200;
    let ca = Authority::new();
    let (handler, events) = recorder();
    let server = start_tls(
        builder().route("/", Route::new(handler).limits(limits(|l| l.max_backlog = 64 << 20))),
        &ca.tls(),
    );
    let mut client = Client::dial_with(server.addr, Some(4096));
    client.tls = Some(tls::connection(&ca.client(), "localhost"));
    client.upgrade("/");
    let id = events.opened();
    let message = |n: usize| {
        let mut bytes = pattern(SIZE + n);
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        bytes
    };
    for n in 0..MESSAGES {
        server.handle.send(id, campanile::Message::binary(&message(n))).unwrap();
    }
    let waiting = || server.handle.connection(id).wait().unwrap().unwrap().buffered_amount;
    let total: usize = (0..MESSAGES).map(|n| SIZE + n + 10).sum();
    let before = waiting();
    assert!(before > 0 && before < total, "{before} of {total}");
    assert!(server.handle.stats().held_bytes >= before as u64, "memory that it costs is counted");
    let mut least = before;
    for n in 0..MESSAGES {
        assert!(client.read_binary() == message(n), "{n}");
        let now = waiting();
        assert!(now <= least, "what waits grows from {least} to {now} while nothing is sent");
        least = now;
    }
    events.drained();
    support::until("nothing waits", || waiting() == 0);
    support::until("nothing is held", || server.handle.stats().held_bytes == 0);
}

#[test]
fn responses_over_tls_survive_short_writes() {
    let ca = Authority::new();
    let body = pattern(3 << 20);
    let shared: Arc<[u8]> = body.clone().into();
    let server = start_tls(
        builder()
            .get("/", move |_: &campanile::Request<'_>| Response::new(200).body(shared.to_vec()))
            .route("/ws", Route::new(echo()).limits(large())),
        &ca.tls(),
    );
    let mut client = Client::dial_with(server.addr, Some(4096));
    client.tls = Some(tls::connection(&ca.client(), "localhost"));
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(client.answer().body == body);
        assert!(client.answer().body == body);
    }
    client.upgrade("/ws");
    client.binary(&body);
    client.close(1000, "");
    assert!(client.read_binary() == body);
    assert_eq!(client.read_close().0, 1000);
    client.expect_eof();
}

#[test]
fn a_tls_client_that_reads_nothing_is_ended() {
    let ca = Authority::new();
    let (handler, events) = recorder();
    let route = Route::new(handler).limits(limits(|l| {
        l.write_timeout = millis(300);
        l.close_timeout = millis(300);
        l.max_backlog = 64 << 20;
    }));
    let server = start_tls(builder().route("/", route), &ca.tls());
    let mut client = Client::dial_with(server.addr, Some(4096));
    client.tls = Some(tls::connection(&ca.client(), "localhost"));
    client.upgrade("/");
    let id = events.opened();
    server.handle.send(id, campanile::Message::binary(&vec![0; 16 << 20])).unwrap();
    assert_eq!(events.closed().cause, Cause::WriteTimeout);
    server.until("it is gone", |s| s.sockets == 0 && s.held_bytes == 0);
}

#[test]
fn publications_reach_plain_and_tls_clients_in_order() {
    const MESSAGES: usize = 300;
    let ca = Authority::new();
    let (handler, events) = recorder();
    let handler = handler.on_open(|conn| assert!(conn.subscribe("all").unwrap()));
    let route = Route::new(handler).limits(limits(|l| l.max_backlog = 64 << 20));
    let built = builder().route("/", route).listen_tls("127.0.0.1:0", &ca.tls()).listen("127.0.0.1:0");
    let built = built.build().unwrap();
    let addrs: Vec<_> = built.local_addrs().iter().map(|a| a.to_string().parse().unwrap()).collect();
    let handle = built.handle();
    let running = built.spawn().unwrap();
    let mut clients =
        vec![Client::dial(addrs[1]), Client::dial_with(addrs[0], Some(4096)), Client::dial(addrs[0])];
    for client in &mut clients[1..] {
        client.tls = Some(tls::connection(&ca.client(), "localhost"));
    }
    for client in &mut clients {
        client.upgrade("/");
        events.opened();
    }
    for n in 0..MESSAGES {
        let mut bytes = pattern(20 * KIB);
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        handle.publish("all", campanile::Message::binary(&bytes)).unwrap();
    }
    for client in &mut clients {
        for n in 0..MESSAGES {
            let bytes = client.read_binary();
            assert!(bytes[..8] == n.to_be_bytes() && bytes[8..] == pattern(20 * KIB)[8..], "{n}");
        }
    }
    handle.shutdown(millis(1));
    running.join().expect("no worker failed");
}

#[test]
fn shutdown_sends_a_close_frame_and_close_notify() {
    let ca = Authority::new();
    let mut server = start_tls(builder().route("/", echo()), &ca.tls());
    let mut client = open(server.addr, &ca.client());
    let waiting = std::thread::spawn(move || {
        let (code, _) = client.read_close();
        client.close(code, "");
        client.expect_eof();
        code
    });
    server.shutdown(millis(5000));
    assert_eq!(waiting.join().unwrap(), 1001);
}

#[test]
fn an_upgrade_over_tls_can_be_decided_later() {
    let ca = Authority::new();
    let (handler, _) = recorder();
    let handler = handler
        .on_upgrade(|_| {
            Ok(Accept::later(millis(5000), |pending| {
                std::thread::spawn(move || pending.accept(Accept::new("later".into())));
            }))
        })
        .on_message(|conn, message| assert!(conn.send(message).is_ok()));
    let server = start_built(builder().route("/", handler).listen_tls("127.0.0.1:0", &ca.tls()));
    let mut client = shake(server.addr, &ca.client(), "localhost").unwrap();
    // The first frame comes while the upgrade is undecided.
    client.send([upgrade_request("/", "").as_bytes(), &frame(true, TEXT, b"early")].concat());
    assert_eq!(client.answer().status, 101);
    assert_eq!(client.read_text(), "early");
}

/// Their names would be sent to every client, and are too long for the message that has them.
#[test]
fn many_authorities_are_not_listed_to_clients() {
    let long = |n: usize| format!("{n} {}", "x".repeat(240));
    let authorities: Vec<_> = (0..300).map(|n| Authority::named(&long(n))).collect();
    let pem: String = authorities.iter().map(Authority::pem).collect();
    let ca = Authority::new();
    let tls = Tls::builder(ca.certificate(&["localhost"]));
    let tls = tls.client_auth(ClientAuth::required(pem).unwrap()).build().unwrap();
    let server = start_tls(builder().route("/", echo()), &tls);
    let own = authorities[299].issue(&["client.example"]);
    let mut client = open(server.addr, &ca.client_with(&own));
    client.text("known");
    assert_eq!(client.read_text(), "known");
}
