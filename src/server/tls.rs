//! TLS for listeners: certificates from files, and exchanging them while the server runs.

use crate::file::{self, FileKind};
use crate::http::TlsVersion;
use crate::log;
use crate::tls::{Acceptor, AcceptorSettings, Certificate, CertificateNames, ClientAuth, TlsConfigError};
use rustls::pki_types::UnixTime;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::SystemTime;

/// Room for a chain of ten certificates with their descriptions. Both may be in one file.
const CERTIFICATE: FileKind = FileKind { name: "certificate", below: 64 << 10 };
const KEY: FileKind = FileKind { name: "private key", below: 64 << 10 };

/// TLS for one or more listeners: certificates by name, whether clients show theirs, the oldest version. Cheap to
/// clone; with a clone kept, certificates are exchanged while the server runs, and no connection notices.
///
/// ```no_run
/// use campanile::{Certificate, Server, Tls, on_message};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tls = Tls::new(Certificate::from_files("cert.pem", "key.pem")?)?;
/// let server = Server::builder()
///     .listen_tls("[::]:443", &tls)
///     .route("/echo", on_message(|conn, message| { conn.send(message)?; Ok(()) }))
///     .build()?;
/// // Later, from any thread, when the files have been renewed:
/// tls.reload()?;
/// # server.run()?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Tls {
    acceptor: Arc<Acceptor>,
    /// What [`Tls::reload_in_background`] does: one of the states below.
    reloading: Arc<AtomicU8>,
}

/// No thread reads the files.
const IDLE: u8 = 0;
/// One does.
const READING: u8 = 1;
/// One does, and begins again when it is done.
const AGAIN: u8 = 2;

/// Puts a [`Tls`] together.
#[derive(Debug)]
pub struct TlsBuilder {
    names: Result<CertificateNames, TlsConfigError>,
    terms: AcceptorSettings,
}

impl Certificate {
    /// From files with PEM: the chain, the server's own certificate first, and its private key (PKCS #8, SEC1 or
    /// PKCS #1). Both may be in one file. [`Tls::reload`] reads them again.
    ///
    /// Each must be a regular file below 64 KiB: a FIFO, such as a shell's `<(…)`, or `/dev/stdin` is refused, since it
    /// can be read only once, and may have to be waited for.
    ///
    /// # Errors
    /// A file can't be read, something is missing in it or of a kind that is not supported, or the two do not belong
    /// together.
    pub fn from_files(
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, TlsConfigError> {
        read(Arc::new((certificate.into(), key.into())))
    }
}

/// Reads a pair of files.
fn read(files: Arc<(PathBuf, PathBuf)>) -> Result<Certificate, TlsConfigError> {
    let certificate = file::read(&files.0, CERTIFICATE).map_err(TlsConfigError::File)?;
    let key = file::read(&files.1, KEY).map_err(TlsConfigError::File)?;
    Certificate::from_read(&certificate, &key, files)
}

impl Tls {
    /// With one certificate, for whatever name a client asks, and the defaults of [`TlsBuilder`].
    ///
    /// # Errors
    /// The library refuses, as where there is no randomness.
    pub fn new(certificate: Certificate) -> Result<Self, TlsConfigError> {
        Self::builder(certificate).build()
    }

    /// Begins with the certificate for clients that ask for none of the names added later, or for no name at all.
    pub fn builder(fallback: Certificate) -> TlsBuilder {
        let terms = AcceptorSettings { client_auth: ClientAuth::off(), min_version: TlsVersion::Tls12 };
        TlsBuilder { names: Ok(CertificateNames::new(fallback)), terms }
    }

    /// Reads the files of all certificates again, for the handshakes that begin from now on. Connections stay, and so
    /// do the keys of tickets: clients resume as before. Certificates that did not come from files stay too.
    ///
    /// It waits for the disk: on a worker's thread, as in [`Builder::watch`](crate::Builder::watch), call
    /// [`Tls::reload_in_background`].
    ///
    /// # Errors
    /// A pair can't be used, or has expired while the one in use has not. Then nothing has changed, also not for the
    /// others.
    pub fn reload(&self) -> Result<(), TlsConfigError> {
        loop {
            let before = self.acceptor.names();
            let mut names = CertificateNames::clone(&before);
            for certificate in names.all_mut() {
                if let Some(files) = certificate.files.clone() {
                    *certificate = read(files)?;
                }
            }
            let now = UnixTime::now();
            before.check_successor(&names, now)?;
            // What was put in their place while the files were read is newer.
            if self.acceptor.replace_if(&before, names) {
                self.tell_expiries(now);
                return Ok(());
            }
        }
    }

    /// Does the same on a thread of its own, which ends when it is done, and calls `report` there with the outcome. It
    /// returns at once: a disk that hangs holds up no connection.
    ///
    /// There is at most one such thread. A call while it runs has it read the files once more, and report again; that
    /// call's own `report` is dropped.
    ///
    /// # Errors
    /// The system can't start a thread.
    pub fn reload_in_background(
        &self,
        report: impl Fn(Result<(), TlsConfigError>) + Send + 'static,
    ) -> io::Result<()> {
        if self.reloading.swap(AGAIN, Ordering::AcqRel) != IDLE {
            return Ok(());
        }
        let tls = self.clone();
        let work = move || {
            loop {
                tls.reloading.store(READING, Ordering::Release);
                // A panic of the program's must not be the end of all reloading.
                let _ = catch_unwind(AssertUnwindSafe(|| report(tls.reload())));
                let done = tls.reloading.compare_exchange(READING, IDLE, Ordering::AcqRel, Ordering::Acquire);
                if done.is_ok() {
                    return;
                }
            }
        };
        let started = std::thread::Builder::new().name("campanile-reload".into()).spawn(work);
        started.map(drop).inspect_err(|_| self.reloading.store(IDLE, Ordering::Release))
    }

    /// Other certificates for the handshakes that begin from now on: the fallback, and those for names, instead of all
    /// that there were.
    ///
    /// # Errors
    /// A name is invalid, or a certificate has expired while the one that it replaces has not. Then nothing has changed.
    pub fn replace<'n>(
        &self,
        fallback: Certificate,
        named: impl IntoIterator<Item = (&'n str, Certificate)>,
    ) -> Result<(), TlsConfigError> {
        let mut names = CertificateNames::new(fallback);
        for (name, certificate) in named {
            names.add(name, certificate)?;
        }
        let now = UnixTime::now();
        self.acceptor.names().check_successor(&names, now)?;
        self.acceptor.replace(names);
        self.tell_expiries(now);
        Ok(())
    }

    /// Until when all its certificates are valid: the end of the first of them. A log line a day warns from 14 days before
    /// it.
    pub fn not_after(&self) -> SystemTime {
        let names = self.acceptor.names();
        names.all().map(Certificate::not_after).min().unwrap_or(SystemTime::UNIX_EPOCH)
    }

    fn tell_expiries(&self, now: UnixTime) {
        for expiry in self.acceptor.names().expiries(now) {
            log::line!(warn, "{expiry}");
        }
    }

    pub(crate) fn acceptor(&self) -> Arc<Acceptor> {
        self.acceptor.clone()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("names", &self.acceptor.names()).finish()
    }
}

impl TlsBuilder {
    /// The certificate for clients that ask for this name (SNI, RFC 6066 section 3): `www.example.com`, or
    /// `*.example.com` for one label in the place of the star. The exact name wins.
    #[must_use]
    pub fn sni(mut self, name: &str, certificate: Certificate) -> Self {
        if let Ok(names) = &mut self.names
            && let Err(e) = names.add(name, certificate)
        {
            self.names = Err(e);
        }
        self
    }

    /// Whether clients show certificates; handlers see them in [`Request::tls`](crate::Request::tls). Default off.
    #[must_use]
    pub fn client_auth(mut self, auth: ClientAuth) -> Self {
        self.terms.client_auth = auth;
        self
    }

    /// The oldest version that is spoken. Default [`TlsVersion::Tls12`]; what is older is not possible.
    #[must_use]
    pub fn min_version(mut self, version: TlsVersion) -> Self {
        self.terms.min_version = version;
        self
    }

    /// Checks it.
    ///
    /// # Errors
    /// A name is not valid, or the library refuses.
    pub fn build(self) -> Result<Tls, TlsConfigError> {
        let acceptor = Arc::new(Acceptor::new(self.names?, &self.terms)?);
        Ok(Tls { acceptor, reloading: Arc::default() })
    }
}
