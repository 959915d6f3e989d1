//! The server's side: what all sessions of a listener have in common.

use super::verifiers::ClientVerifier;
use super::{CertificateNames, PROVIDER, TlsConfigError, TlsError, TlsSession};
use crate::http::TlsVersion;
use core::cell::Cell;
use core::fmt;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use std::sync::{Arc, RwLock};

/// Whether clients show certificates (RFC 8446 section 4.3.2).
#[derive(Clone, Debug, Default)]
pub struct ClientAuth(pub(crate) ClientAuthMode);

#[derive(Clone, Debug, Default)]
pub(crate) enum ClientAuthMode {
    #[default]
    Off,
    Optional(Arc<RootCertStore>),
    Required(Arc<RootCertStore>),
}

impl ClientAuth {
    /// Clients are not asked. The default.
    pub const fn off() -> Self {
        Self(ClientAuthMode::Off)
    }

    /// Clients are asked and may have none; one that they show must be valid. The authorities that may have signed it
    /// are in `authorities`, PEM.
    ///
    /// # Errors
    /// There is no certificate in the PEM, or one of them is damaged.
    pub fn optional(authorities: impl AsRef<[u8]>) -> Result<Self, TlsConfigError> {
        Ok(Self(ClientAuthMode::Optional(super::authorities(authorities.as_ref(), ORIGIN)?)))
    }

    /// Clients without a valid certificate end with an alert.
    ///
    /// # Errors
    /// There is no certificate in the PEM, or one of them is damaged.
    pub fn required(authorities: impl AsRef<[u8]>) -> Result<Self, TlsConfigError> {
        Ok(Self(ClientAuthMode::Required(super::authorities(authorities.as_ref(), ORIGIN)?)))
    }
}

const ORIGIN: &str = "the authorities' PEM";

/// What a listener's sessions are held under, beside the certificates.
#[derive(Clone, Debug)]
pub(crate) struct AcceptorSettings {
    pub(crate) client_auth: ClientAuth,
    pub(crate) min_version: TlsVersion,
}

/// The versions from this one on, the newest first.
pub(super) fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    const ALL: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
    match min {
        TlsVersion::Tls12 => ALL,
        TlsVersion::Tls13 => &ALL[..1],
    }
}

/// Bytes of the authorities' names that clients are sent, so that they know which certificate to show. Every handshake
/// has them, and above 64 KiB they cannot be encoded; with more, none are sent and clients show what they have.
const MAX_HINTS: usize = 16 << 10;

fn verifier(roots: &Arc<RootCertStore>, optional: bool) -> Result<Arc<ClientVerifier>, TlsConfigError> {
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots.clone(), PROVIDER.clone());
    if roots.subjects().iter().map(|name| 2 + name.as_ref().len()).sum::<usize>() > MAX_HINTS {
        builder = builder.clear_root_hint_subjects();
    }
    if optional {
        builder = builder.allow_unauthenticated();
    }
    let built = builder.build().map_err(|e| TlsConfigError::Refused { reason: e.to_string() })?;
    Ok(Arc::new(ClientVerifier(built)))
}

/// Begins sessions. Its certificates can be changed for those to come; the keys of tickets stay, are shared by all
/// workers, and are replaced by rustls every six hours, the ones before them being good for as long again.
pub(crate) struct Acceptor {
    config: Arc<ServerConfig>,
    resolver: Arc<Resolver>,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

impl Acceptor {
    pub(crate) fn new(names: CertificateNames, terms: &AcceptorSettings) -> Result<Self, TlsConfigError> {
        let refused = |reason: String| TlsConfigError::Refused { reason };
        let resolver = Arc::new(Resolver(RwLock::new(Arc::new(names))));
        let builder = ServerConfig::builder_with_provider(PROVIDER.clone())
            .with_protocol_versions(versions(terms.min_version))
            .map_err(|e| refused(e.to_string()))?;
        let builder = match &terms.client_auth.0 {
            ClientAuthMode::Off => builder.with_no_client_auth(),
            ClientAuthMode::Optional(roots) => builder.with_client_cert_verifier(verifier(roots, true)?),
            ClientAuthMode::Required(roots) => builder.with_client_cert_verifier(verifier(roots, false)?),
        };
        let mut config = builder.with_cert_resolver(resolver.clone());
        // RFC 7301: a client that offers names and not this one speaks something else.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.ticketer = Ticketer::new().map_err(|e| refused(e.to_string()))?;
        // Tickets alone: nothing to be kept, looked up and locked for clients that don't come back.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { config: Arc::new(config), resolver })
    }

    /// A session that waits for its client's first words.
    pub(crate) fn accept(&self) -> Result<TlsSession, TlsError> {
        TlsSession::server(self.config.clone())
    }

    /// The certificates in use.
    pub(crate) fn names(&self) -> Arc<CertificateNames> {
        self.resolver.names()
    }

    /// The certificates of all handshakes that begin from now on.
    pub(crate) fn replace(&self, names: CertificateNames) {
        let mut current = self.resolver.0.write().unwrap_or_else(|e| e.into_inner());
        *current = Arc::new(names);
    }

    /// The same if those in use are still these; says whether they were.
    pub(crate) fn replace_if(&self, before: &Arc<CertificateNames>, names: CertificateNames) -> bool {
        let mut current = self.resolver.0.write().unwrap_or_else(|e| e.into_inner());
        let same = Arc::ptr_eq(&current, before);
        if same {
            *current = Arc::new(names);
        }
        same
    }
}

#[derive(Debug)]
struct Resolver(RwLock<Arc<CertificateNames>>);

thread_local! {
    /// The name that a client asked for. rustls tells it to the resolver and, of a connection without buffers, to
    /// nobody else: so it is left here for the [`TlsSession`] on whose behalf this thread asks.
    static ASKED_FOR: Cell<Option<Box<str>>> = const { Cell::new(None) };
}

/// The name that the resolver was last asked for by this thread.
pub(super) fn asked_for() -> Option<Box<str>> {
    ASKED_FOR.take()
}

impl Resolver {
    fn names(&self) -> Arc<CertificateNames> {
        self.0.read().unwrap_or_else(|e| e.into_inner()).clone()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let found = self.names().find(name.as_deref()).identity.clone();
        ASKED_FOR.set(name.map(Into::into));
        Some(found)
    }
}
