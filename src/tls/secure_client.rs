//! The client's side: whom it trusts, and what it shows of itself.

use super::secure_server::versions;
use super::verifiers::ServerVerifier;
use super::{Certificate, PROVIDER, TlsConfigError, TlsError, TlsSession};
use crate::http::TlsVersion;
use core::fmt;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    SupportedCipherSuite,
};
use std::sync::Arc;

/// Which servers a client trusts.
#[derive(Clone, Debug)]
pub(crate) enum Trust {
    /// Those for which one of these authorities vouches.
    Authorities(Arc<RootCertStore>),
    /// The one that shows the certificate with this SHA-256 of its DER, whatever its name, date and issuer.
    Pinned([u8; 32]),
    /// Every server, and so anyone between it and the client. For tests.
    Anybody,
}

/// Begins a client's sessions; keeps the tickets that servers gave.
#[derive(Clone)]
pub(crate) struct SecureClient(Arc<ClientConfig>);

impl fmt::Debug for SecureClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecureClient").finish_non_exhaustive()
    }
}

/// Sessions that can be resumed, over all servers.
const SESSIONS: usize = 256;

impl SecureClient {
    pub(crate) fn new(
        trust: Trust,
        identity: Option<&Certificate>,
        min: TlsVersion,
    ) -> Result<Self, TlsConfigError> {
        let refused = |reason: String| TlsConfigError::Refused { reason };
        let builder = ClientConfig::builder_with_provider(PROVIDER.clone())
            .with_protocol_versions(versions(min))
            .map_err(|e| refused(e.to_string()))?;
        let builder = match trust {
            Trust::Authorities(roots) => {
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, PROVIDER.clone()).build();
                let verifier = verifier.map_err(|e| refused(e.to_string()))?;
                builder.dangerous().with_custom_certificate_verifier(Arc::new(ServerVerifier(verifier)))
            }
            Trust::Pinned(digest) => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(Some(digest))))
            }
            Trust::Anybody => builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(None))),
        };
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let shown = rustls::sign::SingleCertAndKey::from(own.identity.clone());
                builder.with_client_cert_resolver(Arc::new(shown))
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(Self(Arc::new(config)))
    }

    /// The same without tickets: every handshake is a whole one.
    pub(crate) fn without_resumption(&self) -> Self {
        let mut config = (*self.0).clone();
        config.resumption = Resumption::disabled();
        Self(Arc::new(config))
    }

    /// A session whose first words wait to be sent. The name is a host name, or an IP address.
    pub(crate) fn connect(&self, name: &str) -> Result<TlsSession, TlsError> {
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| Error::General(format!("{name:?} is no name that a certificate can be for")))?;
        TlsSession::client(self.0.clone(), name)
    }
}

/// As the library has it, which needs no other for it.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    if let SupportedCipherSuite::Tls13(suite) = TLS13_AES_128_GCM_SHA256 {
        digest.copy_from_slice(suite.common.hash_provider.hash(bytes).as_ref());
    }
    digest
}

/// Takes any certificate, or only this one; that the server has its key is verified all the same.
#[derive(Debug)]
struct AcceptAny(Option<[u8; 32]>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.0 {
            Some(pinned) if *pinned != sha256(end_entity) => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &PROVIDER.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}
