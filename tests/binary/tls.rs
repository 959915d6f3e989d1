//! The binary's options for TLS: its certificates, SIGHUP, and what it refuses.

use crate::support::folder::Folder;
use crate::support::process::{Process, campanile};
use crate::support::tls::{self, Authority, Pair, shake};
use crate::support::{DEADLINE, millis};
use rustix::process::Signal;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// A server whose state is in this folder.
fn command(state: &Path, args: &[&str]) -> Command {
    let mut command = campanile();
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

fn start(state: &Path, args: &[&str]) -> Process {
    let args = [&["--tls-listen", "127.0.0.1:0", "--workers", "1", "--dev"], args].concat();
    Process::start(command(state, &args).stderr(Stdio::piped()))
}

#[test]
fn a_self_signed_certificate_is_created_once_with_private_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let file = folder.0.join("campanile/self-signed.pem");
    let mut made = None;
    for _ in 0..2 {
        let server = start(&folder.0, &["--tls-self-signed", "--log", "off"]);
        let pem = std::fs::read_to_string(&file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        for name in ["localhost", "127.0.0.1"] {
            let mut client = shake(server.addr, &tls::trusting(&pem), name).unwrap();
            client.upgrade("/echo");
            client.text("over TLS");
            assert_eq!(client.read_text(), "over TLS");
        }
        let mut client = shake(server.addr, &tls::trusting(&pem), "localhost").unwrap();
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
fn an_expired_self_signed_certificate_is_replaced() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    std::fs::create_dir(folder.0.join("campanile")).unwrap();
    let file = folder.0.join("campanile/self-signed.pem");
    let expired = self_signed(2000, 2020);
    std::fs::write(&file, &expired).unwrap();
    let server = start(&folder.0, &["--tls-self-signed", "--log", "off"]);
    let pem = std::fs::read_to_string(&file).unwrap();
    assert_ne!(pem, expired);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(folder.0.join("campanile")).unwrap().count(), 1, "nothing else is left");
    shake(server.addr, &tls::trusting(&pem), "localhost").unwrap();
    drop(server);
    let days = |n: u64| Duration::from_secs(n * 24 * 3600);
    let end = campanile::Certificate::from_files(&file, &file).unwrap().not_after();
    let valid = end.duration_since(SystemTime::now()).unwrap();
    assert!(valid > days(800) && valid < days(825), "{valid:?}");
}

#[test]
fn an_unusable_certificate_is_reported_at_start_and_at_sighup() {
    let folder = Folder::new();
    let (expired, good) = (self_signed(2000, 2020), self_signed(2000, 2100));
    let file = folder.write("pair.pem", &expired);
    let mut server = start(&folder.0, &["--tls-cert", &file, "--tls-key", &file]);
    let mut told = BufReader::new(server.child.stderr.take().unwrap()).lines();
    let mut hears = |what: &str| {
        let line = told.find(|line| line.as_ref().is_ok_and(|l| l.contains(what)));
        line.unwrap_or_else(|| panic!("the log does not say {what:?}")).unwrap()
    };
    let line = hears("expired on Wed, 01 Jan 2020 00:00:00 GMT, and clients refuse it: renew it");
    assert!(line.contains("ERROR") && line.contains(&file), "{line}");
    folder.write("pair.pem", &good);
    server.signal(Signal::HUP);
    hears("read again and is in use, valid until Fri, 01 Jan 2100");
    folder.write("pair.pem", &expired);
    server.signal(Signal::HUP);
    hears("the certificate stays as it was");
    shake(server.addr, &tls::trusting(&good), "localhost").unwrap();
}

#[test]
fn conflicting_tls_options_are_refused_with_the_missing_one() {
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
fn an_invalid_certificate_file_ends_the_start() {
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
fn sighup_reloads_the_certificate() {
    let (ca, folder) = (Authority::new(), Folder::new());
    let (first, second) = (ca.issue(&["localhost"]), ca.issue(&["localhost"]));
    let (cert, key) = (folder.write("cert.pem", &first.cert), folder.write("key.pem", &first.key));
    let mut server = start(&folder.0, &["--tls-cert", &cert, "--tls-key", &key]);
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
    server.signal(Signal::HUP);
    hears("stays as it was");
    assert_eq!(shown(&server), first.der());
    folder.write("cert.pem", &second.cert);
    server.signal(Signal::HUP);
    hears("in use");
    assert_eq!(shown(&server), second.der());
    old.text("still");
    assert_eq!(old.read_text(), "still");

    // And the other signals do what they did.
    server.signal(Signal::TERM);
    assert_eq!(old.read_close().0, 1001);
    old.close(1001, "");
    old.expect_eof();
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}
