//! TLS against `openssl s_client` and tungstenite.

use crate::support;
use crate::support::folder::Folder;
use crate::support::tls::{self, Authority, Pair, start_tls};
use crate::support::{DEADLINE, TestServer, builder};
use campanile::{ClientAuth, Response, Tls};
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

// ---- openssl ----

/// Asks for `/` through `openssl s_client` with these options; what it printed, or `None` where there is no openssl.
fn s_client(addr: SocketAddr, options: &[&str]) -> Option<String> {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-ign_eof", "-servername", "localhost", "-connect", &addr.to_string()]);
    let piped = command.args(options).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match piped.spawn() {
        Ok(child) => child,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: no openssl; tests/setup installs it");
            return None;
        }
        Err(e) => panic!("openssl: {e}"),
    };
    // It may have ended already, where the handshake fails.
    let _ = child
        .stdin
        .take()
        .unwrap()
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let Output { stdout, stderr, .. } = child.wait_with_output().unwrap();
    Some(format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

fn page(ca: &Authority, auth: ClientAuth) -> TestServer {
    let tls = Tls::builder(ca.certificate(&["localhost"])).client_auth(auth).build().unwrap();
    let builder = builder().get("/", |r: &campanile::Request<'_>| {
        let tls = r.tls().expect("it came over TLS");
        let known = tls.client_certificate().is_some();
        Response::new(200)
            .text(format!("[{} {} resumed={} known={known}]", tls.version, tls.cipher, tls.resumed))
    });
    start_tls(builder, &tls)
}

#[test]
fn openssl_speaks_both_versions_and_all_suites_with_it() {
    let (ca, folder) = (Authority::new(), Folder::new());
    let roots = folder.write("ca.pem", &ca.pem());
    let server = page(&ca, ClientAuth::off());
    let cases: &[(&[&str], &str)] = &[
        (&["-tls1_3"], "TLS 1.3 TLS_AES_256_GCM_SHA384"),
        (&["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"], "TLS 1.3 TLS_AES_128_GCM_SHA256"),
        (
            &["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"],
            "TLS 1.3 TLS_CHACHA20_POLY1305_SHA256",
        ),
        (&["-tls1_2"], "TLS 1.2 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
        (
            &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
            "TLS 1.2 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        ),
        (&["-tls1_3", "-groups", "P-384"], "TLS 1.3 TLS_AES_256_GCM_SHA384"),
        (&["-alpn", "h2,http/1.1"], "TLS 1.3"),
        (&["-split_send_frag", "1", "-max_pipelines", "1"], "TLS 1.3"),
    ];
    for (options, expected) in cases {
        let options = [&["-CAfile", &roots, "-verify_return_error"], *options].concat();
        let Some(told) = s_client(server.addr, &options) else { return };
        assert!(told.contains(&format!("[{expected}")), "{options:?}: {told}");
        assert!(told.contains("Verify return code: 0 (ok)"), "{told}");
    }
    // What is too old, or unknown, is refused and told so.
    for options in [&["-tls1_1"][..], &["-tls1_2", "-cipher", "AES128-SHA"], &["-alpn", "h2"]] {
        let Some(told) = s_client(server.addr, options) else { return };
        assert!(!told.contains("HTTP/1.1 200"), "{options:?}: {told}");
    }
}

#[test]
fn openssl_resumes_its_sessions() {
    let (ca, folder) = (Authority::new(), Folder::new());
    let server = page(&ca, ClientAuth::off());
    for version in ["-tls1_3", "-tls1_2"] {
        let ticket = folder.path(version);
        let Some(told) = s_client(server.addr, &[version, "-sess_out", &ticket]) else { return };
        assert!(told.contains("resumed=false") && told.contains("New, TLS"), "{told}");
        let Some(told) = s_client(server.addr, &[version, "-sess_in", &ticket]) else { return };
        assert!(told.contains("resumed=true") && told.contains("Reused, TLS"), "{told}");
    }
    assert_eq!(server.handle.stats().tls_resumed, 2);
}

#[test]
fn openssl_sends_a_client_certificate() {
    let (ca, folder) = (Authority::new(), Folder::new());
    let Pair { cert, key } = ca.issue(&["client.example"]);
    let (cert, key) = (folder.write("cert.pem", &cert), folder.write("key.pem", &key));
    let server = page(&ca, ClientAuth::required(ca.pem()).unwrap());
    for version in ["-tls1_3", "-tls1_2"] {
        let Some(told) = s_client(server.addr, &[version, "-cert", &cert, "-key", &key]) else { return };
        assert!(told.contains("known=true"), "{told}");
        let Some(told) = s_client(server.addr, &[version]) else { return };
        assert!(!told.contains("HTTP/1.1 200") && told.contains("alert"), "{told}");
    }
}

// ---- tungstenite ----

#[test]
fn tungstenite_echoes_and_closes_over_tls() {
    let authority = Authority::new();
    let server = start_tls(builder().route("/", support::echo()), &authority.tls());
    let socket = std::net::TcpStream::connect(server.addr).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let session = tls::connection(&authority.client(), "localhost");
    let stream = rustls::StreamOwned::new(*session, socket);
    let (mut ws, answer) = tungstenite::client("ws://localhost/", stream).unwrap();
    assert_eq!(answer.status(), 101);
    for size in [0, 1, 125, 126, 16 << 10, 60 << 10] {
        let bytes: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        ws.send(tungstenite::Message::binary(bytes.clone())).unwrap();
        assert_eq!(ws.read().unwrap(), tungstenite::Message::binary(bytes));
    }
    ws.close(None).unwrap();
    let end = std::iter::repeat_with(|| ws.read()).find_map(Result::err);
    assert!(matches!(end, Some(tungstenite::Error::ConnectionClosed)), "{end:?}");
}
