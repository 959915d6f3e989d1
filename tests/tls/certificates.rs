//! Certificates over their life: which files are read, what replaces a certificate in use, and that reading holds up nobody.

use crate::support;
use crate::support::tls::{Authority, Pair, open, shake, start_tls};
use crate::support::{DEADLINE, builder, echo};
use campanile::{Certificate, FileErrorReason, Tls, TlsConfigError};
use crossbeam_channel::{Receiver, bounded, unbounded};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A folder with a pair of files, which goes with its test.
struct Folder {
    path: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("campanile-certs-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self { cert: path.join("cert.pem"), key: path.join("key.pem"), path }
    }

    fn write(&self, pair: &Pair) {
        std::fs::write(&self.cert, &pair.cert).unwrap();
        std::fs::write(&self.key, &pair.key).unwrap();
    }

    /// Reads the pair, on a thread, since a file that is waited for would never let the test end.
    fn read(&self) -> Result<Certificate, TlsConfigError> {
        let (cert, key) = (self.cert.clone(), self.key.clone());
        within_deadline(move || Certificate::from_files(cert, key))
    }

    fn tls(&self) -> Tls {
        Tls::new(self.read().unwrap()).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path); // it is in the folder for temporary files
    }
}

fn within_deadline<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = bounded(1);
    std::thread::spawn(move || drop(done.send(work())));
    result.recv_timeout(DEADLINE).expect("it returns")
}

fn fifo(path: &std::path::Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// The certificate that a client is shown.
fn shown(server: &support::TestServer, ca: &Authority) -> rustls::pki_types::CertificateDer<'static> {
    let client = shake(server.addr, &ca.client(), "localhost").unwrap();
    client.tls.as_ref().unwrap().peer_certificates().unwrap()[0].clone().into_owned()
}

#[test]
fn an_unsuitable_certificate_file_is_refused_and_the_current_one_stays() {
    let (ca, folder) = (Authority::new(), Folder::new());
    let pair = ca.issue(&["localhost"]);
    folder.write(&pair);
    let tls = folder.tls();
    let server = start_tls(builder().route("/", echo()), &tls);
    let reload = || {
        let tls = tls.clone();
        let e = within_deadline(move || tls.reload()).unwrap_err();
        let told = e.to_string();
        assert_eq!(shown(&server, &ca), pair.der(), "{told}");
        match e {
            TlsConfigError::File(e) => (e, told),
            e => panic!("{e}"),
        }
    };
    for file in [&folder.cert, &folder.key] {
        folder.write(&pair);
        std::fs::remove_file(file).unwrap();
        fifo(file);
        let (e, told) = reload();
        assert!(
            matches!(e.reason, FileErrorReason::NotRegular { found: "a FIFO" }) && e.path == *file,
            "{told}"
        );
        assert!(folder.read().is_err());

        std::fs::remove_file(file).unwrap();
        std::os::unix::fs::symlink("/dev/zero", file).unwrap();
        let (e, told) = reload();
        assert!(matches!(e.reason, FileErrorReason::NotRegular { found: "a device" }), "{told}");

        std::fs::remove_file(file).unwrap();
        std::fs::File::create(file).unwrap().set_len(1 << 30).unwrap();
        let (e, told) = reload();
        assert!(
            matches!(e.reason, FileErrorReason::TooLarge { size: 0x4000_0000, below: 0x1_0000 }),
            "{told}"
        );
        assert!(told.contains("1073741824 bytes, less than 65536 are allowed"), "{told}");
    }
}

/// What a thread that reloads has reported, one by one; it waits each time until it is told to go on.
fn reports() -> (impl Fn(Result<(), TlsConfigError>) + Clone + Send + 'static, Receiver<bool>, impl Fn()) {
    let (report, reports) = unbounded();
    let (go_on, told) = unbounded::<()>();
    let hold = move |outcome: Result<(), TlsConfigError>| {
        report.send(outcome.is_ok()).unwrap();
        told.recv_timeout(DEADLINE).unwrap();
    };
    (hold, reports, move || go_on.send(()).unwrap())
}

#[test]
fn a_background_reload_blocks_no_connection_and_runs_once() {
    let (ca, folder) = (Authority::new(), Folder::new());
    let (first, second) = (ca.issue(&["localhost"]), ca.issue(&["localhost"]));
    folder.write(&first);
    let tls = folder.tls();
    let (hold, reports, go_on) = reports();
    let (reader, mut writer) = UnixStream::pair().unwrap();
    let (called, calls) = unbounded();
    let watched = tls.clone();
    let built = builder().route("/", echo()).watch(reader, move |_| {
        watched.reload_in_background(hold.clone()).unwrap();
        called.send(()).unwrap();
    });
    let server = start_tls(built, &tls);
    let mut client = open(server.addr, &ca.client());
    let mut ring = || {
        writer.write_all(b"x").unwrap();
        calls.recv_timeout(DEADLINE).unwrap();
    };

    folder.write(&second);
    ring();
    assert_eq!(reports.recv_timeout(DEADLINE), Ok(true));
    // The thread is held up, and nobody else.
    client.text("meanwhile");
    assert_eq!(client.read_text(), "meanwhile");
    assert_eq!(shown(&server, &ca), second.der());
    // However often it is asked for meanwhile, the files are read once more.
    folder.write(&first);
    ring();
    ring();
    ring();
    assert!(reports.is_empty());
    go_on();
    assert_eq!(reports.recv_timeout(DEADLINE), Ok(true));
    assert_eq!(shown(&server, &ca), first.der());
    std::fs::remove_file(&folder.key).unwrap();
    go_on();
    // Whether the thread has ended by now or not, one call is one more report.
    ring();
    assert_eq!(reports.recv_timeout(DEADLINE), Ok(false));
    go_on();
    assert_eq!(shown(&server, &ca), first.der());
    assert!(reports.is_empty());
}

#[test]
fn a_panicking_reload_callback_does_not_end_reloading() {
    let (ca, folder) = (Authority::new(), Folder::new());
    folder.write(&ca.issue(&["localhost"]));
    let tls = folder.tls();
    let (called, calls) = unbounded();
    let report = move |_| {
        called.send(()).unwrap();
        panic!("the program's");
    };
    for _ in 0..2 {
        tls.reload_in_background(report.clone()).unwrap();
        calls.recv_timeout(DEADLINE).unwrap();
    }
}

#[test]
fn a_valid_certificate_is_not_replaced_by_one_that_clients_refuse() {
    let (ca, folder) = (Authority::new(), Folder::new());
    let (good, better) = (ca.issue(&["localhost"]), ca.issue(&["localhost"]));
    let expired = ca.issue_between(&["localhost"], (2000, 2020));
    let early = ca.issue_between(&["localhost"], (2090, 2100));
    folder.write(&good);
    let tls = folder.tls();
    let server = start_tls(builder().route("/", echo()), &tls);
    for (pair, told) in
        [(&expired, "expired on Wed, 01 Jan 2020"), (&early, "is valid from Sun, 01 Jan 2090")]
    {
        folder.write(pair);
        let results = [
            tls.reload(),
            tls.replace(pair.certificate(), []),
            tls.replace(good.certificate(), [("localhost", pair.certificate())]),
        ];
        for result in results {
            let e = result.unwrap_err();
            assert!(matches!(e, TlsConfigError::NotValid { .. }), "{e}");
            assert!(e.to_string().contains(told), "{e}");
            assert!(e.to_string().ends_with("the one in use is valid and stays"), "{e}");
        }
        assert_eq!(shown(&server, &ca), good.der());
    }
    folder.write(&better);
    tls.reload().unwrap();
    assert_eq!(shown(&server, &ca), better.der());

    // Where nothing better is there, it is used: from the start, or in the place of another that has expired.
    folder.write(&expired);
    let tls = folder.tls();
    assert!(tls.not_after() < std::time::SystemTime::now());
    tls.reload().unwrap();
    folder.write(&good);
    tls.reload().unwrap();
    assert!(tls.not_after() > std::time::SystemTime::now());
}

#[test]
fn a_chain_has_at_most_ten_certificates() {
    let (ca, folder) = (Authority::new(), Folder::new());
    let pair = ca.issue(&["localhost"]);
    let chain =
        |others: usize| Pair { cert: pair.cert.clone() + &ca.pem().repeat(others), key: pair.key.clone() };
    folder.write(&chain(9));
    let tls = folder.tls();
    let server = start_tls(builder().route("/", echo()), &tls);
    folder.write(&chain(10));
    let e = tls.reload().unwrap_err();
    assert!(matches!(e, TlsConfigError::ChainTooLong { certificates: 11, .. }), "{e}");
    assert!(e.to_string().contains("11 certificates"), "{e}");
    // The whole file has its bound before.
    folder.write(&chain(5000));
    assert!(matches!(tls.reload(), Err(TlsConfigError::File(_))));
    let pem = chain(5000);
    let e = Certificate::from_pem(pem.cert, pem.key).unwrap_err();
    assert!(matches!(e, TlsConfigError::ChainTooLong { certificates: 5001, .. }), "{e}");
    assert_eq!(shown(&server, &ca), pair.der());
}

/// Made by `openssl x509 -req` without extensions.
const VERSION_1: &str = "\
-----BEGIN CERTIFICATE-----
MIIBIzCBywIUTrpUdhsvolpog53HqO0O9cOUrwUwCgYIKoZIzj0EAwIwFDESMBAG
A1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyODE5MDYyNVoYDzIxMjYxMTA0MTkwNjI1
WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AAS2QVw6IHA8AoAMqU9VQuwZ09qIviS37CJKWtTaIT1vFzL0uGHrH7k6X2YBqbC2
+zvb7UuDfIV1XSbXavjV0ArLMAoGCCqGSM49BAMCA0cAMEQCIBBGkBoL/4X1WFl6
wn1i+zgUKAOG6AxQC/YCN9jtPvfmAiA1kYY0cYBsZw3UiePj57BAquOibORHkAfd
tRAelbplMA==
-----END CERTIFICATE-----
";
const VERSION_1_KEY: &str = "\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIAZyz9cBVINJ8g/WH4zBolkSjDCQnU2cYF4Eb2l3QY7OoAoGCCqGSM49
AwEHoUQDQgAEtkFcOiBwPAKADKlPVULsGdPaiL4kt+wiSlrU2iE9bxcy9Lhh6x+5
Ol9mAamwtvs72+1Lg3yFdV0m12r41dAKyw==
-----END EC PRIVATE KEY-----
";

#[test]
fn errors_of_certificates_and_keys_are_described() {
    let pair = Authority::new().issue(&["localhost"]);
    let told = |cert: &str, key: &str| Certificate::from_pem(cert, key).unwrap_err().to_string();
    let cut = |pem: &str| pem[..pem.len() - 40].to_owned();
    for (told, expected) in [
        (told(VERSION_1, VERSION_1_KEY), "is of X.509 version 1 or 2, which clients refuse"),
        (told(&cut(&pair.cert), &pair.key), "-----END CERTIFICATE----- is missing, is it cut short?"),
        (told(&pair.cert, &cut(&pair.key)), "-----END PRIVATE KEY----- is missing, is it cut short?"),
        (told(&pair.cert.replacen("MI", "!!", 1), &pair.key), "what is between two markers is not base64"),
        (
            told(&pair.cert.replacen("MI", "AA", 1), &pair.key),
            "certificate 1 in the certificate's PEM can't be used",
        ),
        (
            told(&(pair.cert.clone() + &pair.cert.replacen("MI", "AA", 1)), &pair.key),
            "certificate 2 in the certificate's PEM can't be used",
        ),
    ] {
        assert!(told.contains(expected), "{told}");
        assert!(!told.contains('['), "a list of numbers: {told}");
    }
}
