//! TLS against `openssl s_client`, and in the binary as a process of its own: its options, SIGHUP, and what an idle
//! connection costs.

use crate::support;
use crate::support::tls;
use crate::support::tls::{Authority, Pair, shake, start_tls};
use crate::support::{Client, DEADLINE, TestServer, builder, millis, resident_of};
use campanile::{ClientAuth, Response, Tls};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("campanile-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // it is in the folder for temporary files
    }
}

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
fn openssl_shows_its_certificate() {
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

// ---- the binary ----

struct Process {
    child: Child,
    addr: SocketAddr,
    told: BufReader<ChildStdout>,
}

fn command(state: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_campanile"));
    command.env_remove("STATE_DIRECTORY").env("XDG_STATE_HOME", state).args(args);
    command
}

/// Runs it to its end, which is expected at once.
fn ends(mut command: Command) -> (Option<i32>, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() && began.elapsed() < DEADLINE {
        std::thread::park_timeout(millis(5));
    }
    let _ = child.kill(); // it has ended, or should have
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

impl Process {
    fn start(state: &Path, args: &[&str]) -> Self {
        let args = [&["--tls-listen", "127.0.0.1:0", "--workers", "1", "--dev"], args].concat();
        let mut child = command(state, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut told = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        told.read_line(&mut line).unwrap();
        let addr = line.split("https://").nth(1).and_then(|a| a.trim().trim_end_matches('/').parse().ok());
        Self { child, addr: addr.unwrap_or_else(|| panic!("no address in {line:?}")), told }
    }

    fn signal(&self, name: &str) {
        let done = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.told.read_to_end(&mut Vec::new());
    }
}

/// A client's settings that trust this certificate alone.
fn trusting(pem: &str) -> rustls::ClientConfig {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    tls::client_trusting(roots)
}

#[test]
fn a_certificate_of_its_own_is_made_once_and_kept_for_its_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let file = folder.0.join("campanile/self-signed.pem");
    let mut made = None;
    for _ in 0..2 {
        let server = Process::start(&folder.0, &["--tls-self-signed", "--log", "off"]);
        let pem = std::fs::read_to_string(&file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        for name in ["localhost", "127.0.0.1"] {
            let mut client = shake(server.addr, &trusting(&pem), name).unwrap();
            client.upgrade("/echo");
            client.text("over TLS");
            assert_eq!(client.read_text(), "over TLS");
        }
        let mut client = shake(server.addr, &trusting(&pem), "localhost").unwrap();
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(client.answer().text().contains("<html"));
        assert_eq!(made.get_or_insert_with(|| pem.clone()), &pem, "the next start has the same");
        assert_eq!(
            std::fs::read_dir(folder.0.join("campanile")).unwrap().count(),
            1,
            "and nothing else is left"
        );
    }
    // A file that was damaged is not made good in silence.
    std::fs::write(&file, "nothing").unwrap();
    let (code, told) = ends(command(&folder.0, &["--tls-listen", "127.0.0.1:0", "--tls-self-signed"]));
    assert_eq!(code, Some(1));
    assert!(told.contains(&file.display().to_string()) && told.contains("delete it"), "{told}");
}

/// A pair in one file, valid from the first day of one year to that of another.
fn self_signed(from: i32, to: i32) -> String {
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(to, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    format!("{}{}", params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn a_expired_self_signed_certificate_is_replaced() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    std::fs::create_dir(folder.0.join("campanile")).unwrap();
    let file = folder.0.join("campanile/self-signed.pem");
    let expired = self_signed(2000, 2020);
    std::fs::write(&file, &expired).unwrap();
    let server = Process::start(&folder.0, &["--tls-self-signed", "--log", "off"]);
    let pem = std::fs::read_to_string(&file).unwrap();
    assert_ne!(pem, expired);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(folder.0.join("campanile")).unwrap().count(), 1, "nothing else is left");
    shake(server.addr, &trusting(&pem), "localhost").unwrap();
    drop(server);
    let days = |n: u64| Duration::from_secs(n * 24 * 3600);
    let end = campanile::Certificate::from_files(&file, &file).unwrap().not_after();
    let valid = end.duration_since(SystemTime::now()).unwrap();
    assert!(valid > days(800) && valid < days(825), "{valid:?}");
}

#[test]
fn a_certificate_that_clients_refuse_is_told_of_at_the_start_and_at_sighup() {
    let folder = Folder::new();
    let (expired, good) = (self_signed(2000, 2020), self_signed(2000, 2100));
    let file = folder.write("pair.pem", &expired);
    let mut server = Process::start(&folder.0, &["--tls-cert", &file, "--tls-key", &file]);
    let mut told = BufReader::new(server.child.stderr.take().unwrap()).lines();
    let mut hears = |what: &str| {
        let line = told.find(|line| line.as_ref().is_ok_and(|l| l.contains(what)));
        line.unwrap_or_else(|| panic!("the log does not say {what:?}")).unwrap()
    };
    let line = hears("expired on Wed, 01 Jan 2020 00:00:00 GMT, and clients refuse it: renew it");
    assert!(line.contains("ERROR") && line.contains(&file), "{line}");
    folder.write("pair.pem", &good);
    server.signal("HUP");
    hears("read again and is in use, valid until Fri, 01 Jan 2100");
    folder.write("pair.pem", &expired);
    server.signal("HUP");
    hears("the certificate stays as it was");
    shake(server.addr, &trusting(&good), "localhost").unwrap();
}

#[test]
fn options_that_do_not_fit_together_are_refused_with_what_is_missing() {
    let folder = Folder::new();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--tls-listen", "127.0.0.1:0"], 2, "--tls-cert"),
        (&["--tls-self-signed"], 2, "--tls-listen"),
        (&["--tls-listen", "127.0.0.1:0", "--tls-cert", "a"], 2, "--tls-key"),
        (&["--tls-listen", "127.0.0.1:0", "--tls-key", "a", "--tls-self-signed"], 2, "--tls-key"),
        (&["--tls-listen", "127.0.0.1:0", "--tls-cert", "/no/cert", "--tls-key", "/no/key"], 1, "/no/cert"),
    ];
    for (args, code, what) in cases {
        let (ended, told) = ends(command(&folder.0, args));
        assert_eq!(ended, Some(*code), "{args:?}: {told}");
        assert!(told.contains(what), "{args:?}: {told}");
    }
}

/// A FIFO without a writer was waited for at the start, and SIGTERM did not end that.
#[test]
fn a_file_that_is_none_ends_the_start_with_its_reason() {
    let (ca, folder) = (Authority::new(), Folder::new());
    let Pair { cert, key } = ca.issue(&["localhost"]);
    let (cert, key) = (folder.write("cert.pem", &cert), folder.write("key.pem", &key));
    let pipe = folder.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let large = folder.path("large");
    std::fs::File::create(&large).unwrap().set_len(1 << 30).unwrap();
    for (cert, key, api, told) in [
        (&pipe, &key, None, "certificate"),
        (&cert, &pipe, None, "private key"),
        (&cert, &key, Some(&pipe), "API keys"),
        (&large, &key, None, "certificate"),
        (&cert, &key, Some(&large), "API keys"),
    ] {
        let mut args = vec!["--tls-listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key];
        if let Some(file) = api {
            args.extend(["--api-key-file", file]);
        }
        let (code, said) = ends(command(&folder.0, &args));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&format!("{told} {}", folder.0.display())), "{said}");
        assert!(
            said.contains("a FIFO, expected a regular file") || said.contains("1073741824 bytes"),
            "{said}"
        );
    }
}

#[test]
fn sighup_has_the_files_read_again() {
    let (ca, folder) = (Authority::new(), Folder::new());
    let (first, second) = (ca.issue(&["localhost"]), ca.issue(&["localhost"]));
    let (cert, key) = (folder.write("cert.pem", &first.cert), folder.write("key.pem", &first.key));
    let mut server = Process::start(&folder.0, &["--tls-cert", &cert, "--tls-key", &key]);
    let mut told = BufReader::new(server.child.stderr.take().unwrap()).lines();
    let mut hears = |what: &str| {
        let line = told.find(|line| line.as_ref().is_ok_and(|l| l.contains("SIGHUP")));
        let line = line.unwrap().unwrap();
        assert!(line.contains(what), "{line}");
    };
    let shown = |server: &Process| {
        let client = shake(server.addr, &ca.client(), "localhost").unwrap();
        client.tls.as_ref().unwrap().peer_certificates().unwrap()[0].clone()
    };
    let mut old = shake(server.addr, &ca.client(), "localhost").unwrap();
    old.upgrade("/echo");

    folder.write("key.pem", &second.key);
    server.signal("HUP");
    hears("stays as it was");
    assert_eq!(shown(&server), first.der());
    folder.write("cert.pem", &second.cert);
    server.signal("HUP");
    hears("in use");
    assert_eq!(shown(&server), second.der());
    old.text("still");
    assert_eq!(old.read_text(), "still");

    // And the other signals do what they did.
    server.signal("TERM");
    assert_eq!(old.read_close().0, 1001);
    old.close(1001, "");
    old.expect_eof();
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn an_idle_connection_is_small() {
    const CONNECTIONS: usize = 400;
    let folder = Folder::new();
    let server = Process::start(&folder.0, &["--tls-self-signed", "--log", "off"]);
    let pem = std::fs::read_to_string(folder.0.join("campanile/self-signed.pem")).unwrap();
    let config = trusting(&pem);
    let open = |n: usize| -> Vec<Client> {
        let clients = (0..n).map(|_| {
            let mut client = shake(server.addr, &config, "localhost").unwrap();
            client.upgrade("/echo");
            client.text("once");
            assert_eq!(client.read_text(), "once");
            client
        });
        clients.collect()
    };
    let first = open(100);
    let before = resident_of(server.child.id());
    let then = open(CONNECTIONS);
    let each = resident_of(server.child.id()).saturating_sub(before) / CONNECTIONS;
    eprintln!("{each} bytes for an idle connection");
    assert!(each < 6 << 10, "{each} bytes for an idle connection");
    drop((first, then));
}

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
