//! Sessions of both roles beside each other, without a socket.

use super::*;
use crate::tls::certificate::tests::made;
use crate::tls::{
    Acceptor, AcceptorSettings, Certificate, CertificateNames, ClientAuth, SecureClient, Trust, authorities,
};

const BOTH: [TlsVersion; 2] = [TlsVersion::Tls12, TlsVersion::Tls13];

fn acceptor(min_version: TlsVersion) -> (Acceptor, String) {
    let (cert, key) = made(&["localhost"]);
    let names = CertificateNames::new(Certificate::from_pem(&cert, key).unwrap());
    let terms = AcceptorSettings { client_auth: ClientAuth::off(), min_version };
    (Acceptor::new(names, &terms).unwrap(), cert)
}

fn trusting(cert: &str, version: TlsVersion) -> SecureClient {
    let trust = Trust::Authorities(authorities(cert.as_bytes(), "test").unwrap());
    SecureClient::new(trust, None, version).unwrap()
}

/// What one side has to say, given to the other in pieces of this size; and what came of it as plaintext.
fn pass(from: &mut TlsSession, to: &mut TlsSession, size: usize) -> Result<Vec<u8>, TlsError> {
    let said = from.unsent().to_vec();
    from.advance(said.len());
    deliver(to, &said, size)
}

fn deliver(to: &mut TlsSession, said: &[u8], size: usize) -> Result<Vec<u8>, TlsError> {
    let (mut plain, mut buf) = (Vec::new(), vec![0; MAX_KEPT + size + 1]);
    for piece in said.chunks(size) {
        let kept = to.restore_kept(&mut buf);
        buf[kept..kept + piece.len()].copy_from_slice(piece);
        to.open(&mut buf[..kept + piece.len()], &mut plain)?;
    }
    Ok(plain)
}

fn shake(client: &mut TlsSession, server: &mut TlsSession, size: usize) -> Result<(), TlsError> {
    while !client.unsent().is_empty() || !server.unsent().is_empty() {
        pass(client, server, size)?;
        pass(server, client, size)?;
    }
    assert!(client.is_established() && server.is_established());
    Ok(())
}

fn sealed(session: &mut TlsSession, plain: &[u8]) -> Vec<u8> {
    let mut out = vec![0; SEALED];
    let n = session.seal(plain, &mut out).unwrap();
    out.truncate(n);
    out
}

#[test]
fn a_session_passes_bytes_however_they_are_cut() {
    for version in BOTH {
        let (acceptor, cert) = acceptor(version);
        for size in [1, 2, 5, 6, 100, 1000, 40_000] {
            let mut client = trusting(&cert, version).connect("localhost").unwrap();
            let mut server = acceptor.accept().unwrap();
            shake(&mut client, &mut server, size).unwrap();
            for len in [1, 100, RECORD, RECORD + 1, PIECE] {
                let plain: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
                let there = sealed(&mut client, &plain);
                assert!(there.len() <= len + OVERHEAD * len.div_ceil(RECORD), "{} for {len}", there.len());
                assert!(deliver(&mut server, &there, size).unwrap() == plain);
                let back = sealed(&mut server, &plain);
                assert!(deliver(&mut client, &back, size).unwrap() == plain);
            }
            assert_eq!((client.held(), server.held()), (0, 0));
            let info = server.info().unwrap();
            assert!(info.version >= version && info.server_name.as_deref() == Some("localhost"));
        }
    }
}

#[test]
fn only_incomplete_records_are_kept() {
    let (acceptor, cert) = acceptor(TlsVersion::Tls13);
    let (mut client, mut server) =
        (trusting(&cert, TlsVersion::Tls13).connect("localhost").unwrap(), acceptor.accept().unwrap());
    shake(&mut client, &mut server, 1 << 14).unwrap();
    let there = [sealed(&mut client, b"one"), sealed(&mut client, b"two")].concat();
    let (begin, rest) = there.split_at(there.len() - 3);
    assert_eq!(deliver(&mut server, begin, 1 << 14).unwrap(), b"one");
    assert_eq!(server.held(), begin.len() - there.len() / 2);
    // What is said meanwhile does not disturb it.
    let back = sealed(&mut server, b"meanwhile");
    assert_eq!(deliver(&mut client, &back, 1 << 14).unwrap(), b"meanwhile");
    assert_eq!(deliver(&mut server, rest, 1 << 14).unwrap(), b"two");
    assert_eq!(server.held(), 0);
}

#[test]
fn unsent_records_count_as_application_bytes() {
    let (acceptor, cert) = acceptor(TlsVersion::Tls13);
    let (mut client, mut server) =
        (trusting(&cert, TlsVersion::Tls13).connect("localhost").unwrap(), acceptor.accept().unwrap());
    shake(&mut client, &mut server, 1 << 14).unwrap();
    let all = sealed(&mut server, &[7; 1000]);
    server.keep_unsent(&all[10..], 1000);
    assert!(server.is_blocked());
    assert_eq!(
        server.payload(),
        1000,
        "the header of the record has gone, and some of it that nobody can name"
    );
    server.unblock();
    server.advance(all.len() - 10 - 300);
    assert_eq!((server.payload(), server.is_blocked(), server.unsent().len()), (300, true, 300));
    server.unblock();
    server.advance(300);
    assert_eq!((server.payload(), server.is_blocked(), server.held()), (0, false, 0));
}

#[test]
fn close_notify_is_sent_once_and_ends_reading() {
    for version in BOTH {
        let (acceptor, cert) = acceptor(version);
        let (mut client, mut server) =
            (trusting(&cert, version).connect("localhost").unwrap(), acceptor.accept().unwrap());
        shake(&mut client, &mut server, 1 << 14).unwrap();
        let mut said = sealed(&mut client, b"last");
        client.close_notify();
        client.close_notify();
        said.extend_from_slice(client.unsent());
        said.extend_from_slice(b"no record at all");
        assert_eq!(deliver(&mut server, &said, 1 << 14).unwrap(), b"last");
        assert!(server.has_ended() && !server.has_failed());
        assert_eq!(server.held(), 0);
        assert_eq!(client.seal(b"more", &mut vec![0; SEALED]), Err(TlsError::NotOpen));
        // The other direction is still open.
        let back = sealed(&mut server, b"and you");
        client.advance(client.unsent().len());
        assert_eq!(deliver(&mut client, &back, 1 << 14).unwrap(), b"and you");
    }
}

#[test]
fn a_failed_session_stays_failed_and_sends_its_alert() {
    let (acceptor, _) = acceptor(TlsVersion::Tls12);
    let mut server = acceptor.accept().unwrap();
    assert!(matches!(deliver(&mut server, b"GET / HTTP/1.1\r\n\r\n", 1000), Err(TlsError::Failed(_))));
    assert!(server.has_failed());
    assert_eq!(server.unsent()[0], 21, "an alert");
    assert_eq!(deliver(&mut server, b"more", 10), Ok(Vec::new()));
    assert_eq!(server.seal(b"more", &mut vec![0; SEALED]), Err(TlsError::NotOpen));
    // Before the handshake is finished nothing can be sealed either.
    assert_eq!(acceptor.accept().unwrap().seal(b"early", &mut vec![0; SEALED]), Err(TlsError::NotOpen));
}

#[test]
fn a_client_trusts_its_authorities_only() {
    let (acceptor, cert) = acceptor(TlsVersion::Tls12);
    let (_, other) = self::acceptor(TlsVersion::Tls12);
    let tries = |trust: Trust, name: &str| {
        let client = SecureClient::new(trust, None, TlsVersion::Tls12).unwrap();
        let (mut client, mut server) = (client.connect(name).unwrap(), acceptor.accept().unwrap());
        shake(&mut client, &mut server, 1 << 14)
    };
    let roots = |pem: &str| Trust::Authorities(authorities(pem.as_bytes(), "test").unwrap());
    assert_eq!(tries(roots(&cert), "localhost"), Ok(()));
    assert!(tries(roots(&cert), "elsewhere.example").is_err());
    assert!(tries(roots(&other), "localhost").is_err());
    assert_eq!(tries(Trust::Pinned(first(&cert)), "elsewhere.example"), Ok(()));
    assert!(tries(Trust::Pinned(first(&other)), "localhost").is_err());
    assert_eq!(tries(Trust::Anybody, "10.0.0.1"), Ok(()));
    let client = SecureClient::new(Trust::Anybody, None, TlsVersion::Tls12).unwrap();
    assert!(client.connect("no name").is_err());
}

fn first(pem: &str) -> [u8; 32] {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    crate::tls::secure_client::sha256(&der)
}

#[test]
fn a_returning_client_resumes_with_its_ticket() {
    for version in BOTH {
        let (acceptor, cert) = acceptor(version);
        let client = trusting(&cert, version);
        for n in 0..3 {
            let (mut client, mut server) = (client.connect("localhost").unwrap(), acceptor.accept().unwrap());
            shake(&mut client, &mut server, 1 << 14).unwrap();
            assert_eq!((client.is_resumed(), server.is_resumed()), (n > 0, n > 0));
        }
    }
}

#[test]
fn key_updates_are_bounded_by_received_data() {
    for (data, updates, good) in
        [(1, 4, false), (1, 0, true), (BYTES_PER_DATALESS_RECORD as usize, 1, true), (0, 30, true)]
    {
        let (acceptor, cert) = acceptor(TlsVersion::Tls13);
        let (mut client, mut server) =
            (trusting(&cert, TlsVersion::Tls13).connect("localhost").unwrap(), acceptor.accept().unwrap());
        shake(&mut client, &mut server, 1 << 14).unwrap();
        let mut results = Vec::new();
        for _ in 0..if data == 0 { 1 } else { 100 } {
            let mut handshake = Vec::new();
            for _ in 0..updates {
                let SessionRole::Client(conn) = &mut client.role else { panic!("a client") };
                let ConnectionState::WriteTraffic(traffic) = conn.process(&mut []).state.unwrap() else {
                    panic!("an open connection")
                };
                traffic.refresh_traffic_keys().unwrap();
                // The library puts it before what is sealed next.
                handshake.extend(sealed(&mut client, b""));
            }
            handshake.extend(sealed(&mut client, &vec![7; data]));
            let result = deliver(&mut server, &handshake, 1 << 14);
            results.push(result.map(|plain| plain.len()));
            if results.last().unwrap().is_err() {
                break;
            }
            let told = server.unsent().to_vec();
            server.advance(told.len());
            deliver(&mut client, &told, 1 << 14).unwrap();
        }
        let failed = results.contains(&Err(TlsError::Barren));
        assert_eq!(!failed, good, "{updates} for {data} bytes: {results:?}");
        assert_eq!(server.has_failed(), failed, "{updates} for {data} bytes: {results:?}");
    }
}

#[test]
fn whole_records_counts_a_cut_record_with_the_last() {
    let record = |len: u8| [&[23, 3, 3, 0, len][..], &vec![1; usize::from(len)]].concat();
    let all = [record(0), record(1), record(200)].concat();
    assert_eq!(whole_records(&all, 9), (all.len(), 3));
    assert_eq!(whole_records(&all, 2), (11, 2));
    assert_eq!(whole_records(&all[..all.len() - 1], 9), (all.len() - 1, 2));
    assert_eq!(whole_records(&all[..8], 9), (8, 1));
    assert_eq!(whole_records(&[], 9), (0, 0));
}
