//! Certificates over their life: which files are read, what replaces a certificate in use, and that reading holds up nobody.

mod support;
#[path = "support/tls.rs"]
mod tls_support;

use campanile::{Certificate, FileErrorReason, Tls, TlsConfigError};
use crossbeam_channel::{Receiver, bounded, unbounded};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{DEADLINE, builder, echo};
use tls_support::{Authority, Pair, open, shake, start_tls};

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

    /// Reads the pair, on a thread, since a file that is waited for would hold up the test for ever.
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
fn a_fifo_a_device_or_a_large_file_is_refused_at_once_and_the_pair_in_use_stays() {
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
fn reloading_in_the_background_holds_up_no_connection_and_runs_once_at_a_time() {
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
fn a_report_that_panics_does_not_end_reloading() {
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
