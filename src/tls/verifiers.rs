//! Verifiers of what a peer shows: webpki's, with a bound on the chain.
//!
//! A chain is a set of certificates through which webpki searches a path to an authority. With certificates that all have
//! one subject and issuer it tries every order: 4 beside the peer's own take 0.15 ms, 6 take 7 ms, 9 and more 120 to 290 ms,
//! where its own bound of 200,000 steps ends it (3.5 KiB sent by a stranger who needs no key). So there are few.

use core::fmt;
#[cfg(feature = "client")]
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::HandshakeSignatureValid;
#[cfg(feature = "client")]
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
#[cfg(feature = "client")]
use rustls::pki_types::ServerName;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use std::sync::Arc;

/// Certificates beside a client's own: in practice one or two, and sometimes the authority's own. A worker waits for them.
const BESIDE_CLIENTS: usize = 4;

/// Bytes of a client's certificates. They are in its tickets, which are sent twice and come back, and have less than 64 KiB:
/// beyond that rustls panics or garbles the ticket.
const CLIENT_BYTES: usize = 32 << 10;

/// The same of a server, which may send some that nobody needs. Only the client's thread waits for them.
#[cfg(feature = "client")]
const BESIDE_SERVERS: usize = 6;

/// Too many certificates in a chain, or bytes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LongChain {
    found: usize,
    most: usize,
    unit: &'static str,
}

impl fmt::Display for LongChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { found, most, unit } = self;
        write!(f, "{found} {unit}, at most {most} are allowed")
    }
}

impl std::error::Error for LongChain {}

fn check(found: usize, most: usize, unit: &'static str) -> Result<(), Error> {
    if found > most {
        return Err(CertificateError::Other(OtherError(Arc::new(LongChain { found, most, unit }))).into());
    }
    Ok(())
}

const CERTIFICATES: &str = "certificates beside the peer's own";

/// Verifies clients.
#[derive(Debug)]
pub(super) struct ClientVerifier(pub(super) Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        check(intermediates.len(), BESIDE_CLIENTS, CERTIFICATES)?;
        let bytes = end_entity.len() + intermediates.iter().map(|c| c.len()).sum::<usize>();
        check(bytes, CLIENT_BYTES, "bytes of certificates")?;
        self.0.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Verifies servers.
#[cfg(feature = "client")]
#[derive(Debug)]
pub(super) struct ServerVerifier(pub(super) Arc<WebPkiServerVerifier>);

#[cfg(feature = "client")]
impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        check(intermediates.len(), BESIDE_SERVERS, CERTIFICATES)?;
        self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[cfg(all(test, feature = "client"))]
mod tests {
    use super::*;
    use crate::tls::PROVIDER;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::RootCertStore;
    use rustls::server::WebPkiClientVerifier;

    /// An authority's certificate, and what `n` of it make: all orders of them are paths.
    fn issuers(n: usize) -> Vec<CertifiedIssuer<'static, KeyPair>> {
        let made = |_| {
            let mut params = CertificateParams::new([]).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, "all the same");
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        };
        (0..n).map(made).collect()
    }

    #[test]
    fn chains_above_the_limit_are_refused() {
        let issuers = issuers(8);
        let own = CertificateParams::new(["a.example".to_owned()]).unwrap();
        let own = own.signed_by(&KeyPair::generate().unwrap(), &issuers[0]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(issuers[0].der().clone()).unwrap();
        let roots = Arc::new(roots);
        let clients = ClientVerifier(
            WebPkiClientVerifier::builder_with_provider(roots.clone(), PROVIDER.clone()).build().unwrap(),
        );
        let servers = ServerVerifier(
            WebPkiServerVerifier::builder_with_provider(roots, PROVIDER.clone()).build().unwrap(),
        );
        let name = ServerName::try_from("a.example").unwrap();
        for n in 0..=8 {
            let beside: Vec<_> = issuers[..n].iter().map(|i| i.der().clone()).collect();
            let client = clients.verify_client_cert(own.der(), &beside, UnixTime::now());
            assert_eq!(client.is_ok(), n <= BESIDE_CLIENTS, "{n}: {client:?}");
            let server = servers.verify_server_cert(own.der(), &beside, &name, &[], UnixTime::now());
            assert_eq!(server.is_ok(), n <= BESIDE_SERVERS, "{n}: {server:?}");
        }
        let e = check(5, 4, CERTIFICATES).unwrap_err();
        assert!(e.to_string().contains("found: 5, most: 4"), "{e}");
    }
}
