//! Whom a client believes on `wss://`.

use crate::http::TlsVersion;
use crate::tls::{self, SecureClient, TlsConfigError, TlsError, TlsSession, authorities};
use core::fmt;
use std::sync::{Arc, OnceLock};

/// Which servers a client believes to be who they say. Cheap to clone; connections that share one also share their
/// tickets, so that who comes back saves a handshake.
///
/// TLS 1.2 and 1.3, as the server's side.
#[derive(Clone)]
pub struct Trust(SecureClient);

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}

impl Trust {
    fn new(trust: tls::Trust) -> Result<Self, TlsConfigError> {
        SecureClient::new(trust, None, TlsVersion::Tls12).map(Self)
    }

    /// Those for which an authority vouches that this machine trusts: the system's own list, or the file or folder
    /// that the variables `SSL_CERT_FILE` and `SSL_CERT_DIR` name. What clients use that name nothing else. A list
    /// that is built into the program would know no private authority, and trust one that has been struck off until
    /// the program is built anew.
    ///
    /// # Errors
    /// There is no such list, or nothing in it.
    pub fn system() -> Result<Self, TlsConfigError> {
        static SYSTEM: OnceLock<Trust> = OnceLock::new();
        if let Some(trust) = SYSTEM.get() {
            return Ok(trust.clone());
        }
        let found = rustls_native_certs::load_native_certs();
        let mut roots = rustls::RootCertStore::empty();
        let (known, _) = roots.add_parsable_certificates(found.certs);
        if known == 0 {
            let why = found.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            let reason = format!("this machine trusts no authority {why}").trim_end().to_owned();
            return Err(TlsConfigError::Refused { reason });
        }
        let trust = Self::new(tls::Trust::Authorities(Arc::new(roots)))?;
        Ok(SYSTEM.get_or_init(|| trust).clone())
    }

    /// Those for which one of these authorities vouches, PEM.
    ///
    /// # Errors
    /// There is no certificate in it, or one that can't be read.
    pub fn authorities(pem: impl AsRef<[u8]>) -> Result<Self, TlsConfigError> {
        Self::new(tls::Trust::Authorities(authorities(pem.as_ref(), "the authorities")?))
    }

    /// The one that shows the certificate with this SHA-256 of its DER (`openssl x509 -fingerprint -sha256`), whatever
    /// its name, its date and its issuer.
    ///
    /// # Errors
    /// TLS can't be set up.
    pub fn pinned(sha256: [u8; 32]) -> Result<Self, TlsConfigError> {
        Self::new(tls::Trust::Pinned(sha256))
    }

    /// Everybody, and so also whoever sits on the way and reads and changes everything. For tests.
    ///
    /// # Errors
    /// TLS can't be set up.
    pub fn danger_accept_any_certificate() -> Result<Self, TlsConfigError> {
        Self::new(tls::Trust::Anybody)
    }

    /// The same without tickets: every handshake is a whole one, as with clients that come for the first time.
    #[must_use]
    pub fn without_resumption(&self) -> Self {
        Self(self.0.without_resumption())
    }

    pub(super) fn session(&self, host: &str) -> Result<TlsSession, TlsError> {
        self.0.connect(host)
    }
}
