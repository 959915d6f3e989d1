//! What the tests of TLS share: certificates, and a client that speaks TLS through rustls's other interface.

use crate::support::{Client, DEADLINE, TestServer};
use campanile::{Builder, Certificate, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use std::net::SocketAddr;
use std::sync::Arc;

/// An authority for one test.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self::named("campanile's test authority")
    }

    pub(crate) fn named(name: &str) -> Self {
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority"))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("an authority");
        roots
    }

    /// For servers and clients.
    pub(crate) fn issue(&self, names: &[&str]) -> Pair {
        self.issue_between(names, (2000, 2100))
    }

    /// The same, valid from the first day of one year to that of another.
    pub(crate) fn issue_between(&self, names: &[&str], (from, to): (i32, i32)) -> Pair {
        let names: Vec<_> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }

    pub(crate) fn certificate(&self, names: &[&str]) -> Certificate {
        self.issue(names).certificate()
    }

    /// For `localhost`, and 127.0.0.1.
    pub(crate) fn tls(&self) -> Tls {
        Tls::new(self.certificate(&["localhost", "127.0.0.1"])).expect("TLS")
    }

    /// How a client that trusts this authority behaves. No tickets are kept unless it is told to.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config =
            builder(rustls::ALL_VERSIONS).with_root_certificates(self.roots()).with_no_client_auth();
        config.resumption = Resumption::disabled();
        config
    }

    pub(crate) fn client_of(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        let mut config = builder(versions).with_root_certificates(self.roots()).with_no_client_auth();
        config.resumption = Resumption::disabled();
        config
    }

    /// A client that shows a certificate.
    pub(crate) fn client_with(&self, own: &Pair) -> ClientConfig {
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("a key");
        let mut config = builder(rustls::ALL_VERSIONS)
            .with_root_certificates(self.roots())
            .with_client_auth_cert(vec![own.der()], key)
            .expect("a pair");
        config.resumption = Resumption::disabled();
        config
    }
}

/// A client that trusts these alone.
/// A client's settings that trust this certificate alone.
pub(crate) fn trusting(pem: &str) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    client_trusting(roots)
}

pub(crate) fn client_trusting(roots: RootCertStore) -> ClientConfig {
    let mut config = builder(rustls::ALL_VERSIONS).with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    config
}

fn builder(
    versions: &[&'static SupportedProtocolVersion],
) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("versions")
}

impl Pair {
    pub(crate) fn certificate(&self) -> Certificate {
        Certificate::from_pem(&self.cert, &self.key).expect("a pair")
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).expect("a certificate")
    }
}

/// A server that listens with TLS alone.
pub(crate) fn start_tls(builder: Builder, tls: &Tls) -> TestServer {
    crate::support::start_built(builder.listen_tls("127.0.0.1:0", tls))
}

pub(crate) fn connection(config: &ClientConfig, name: &str) -> Box<ClientConnection> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    Box::new(ClientConnection::new(Arc::new(config.clone()), name).expect("a client"))
}

/// A client that has said nothing yet; the handshake comes with its first words.
pub(crate) fn dial(addr: SocketAddr, config: &ClientConfig, name: &str) -> Client {
    let mut client = Client::dial(addr);
    client.tls = Some(connection(config, name));
    client
}

/// The same with the handshake done.
pub(crate) fn shake(addr: SocketAddr, config: &ClientConfig, name: &str) -> std::io::Result<Client> {
    let mut client = dial(addr, config, name);
    client.shake()?;
    Ok(client)
}

/// An open WebSocket at `/`.
pub(crate) fn open(addr: SocketAddr, config: &ClientConfig) -> Client {
    let mut client = shake(addr, config, "localhost").expect("a handshake");
    client.upgrade("/");
    client
}

impl Client {
    pub(crate) fn shake(&mut self) -> std::io::Result<()> {
        self.socket.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        let tls = self.tls.as_mut().expect("a client with TLS");
        while tls.is_handshaking() {
            tls.complete_io(&mut &self.socket)?;
        }
        Ok(())
    }

    /// What comes next is a fatal alert, or the end without anything else.
    pub(crate) fn expect_alert(&mut self) {
        let mut piece = [0; 4096];
        let tls = self.tls.as_mut().expect("a client with TLS");
        let got = std::io::Read::read(&mut rustls::Stream::new(&mut **tls, &mut &self.socket), &mut piece);
        let e = got.expect_err("no answer");
        assert!(e.to_string().contains("fatal alert"), "{e}");
    }

    /// What the peer's alert says, which comes next.
    pub(crate) fn alert(&mut self) -> String {
        let mut piece = [0; 4096];
        let tls = self.tls.as_mut().expect("a client with TLS");
        let got = std::io::Read::read(&mut rustls::Stream::new(&mut **tls, &mut &self.socket), &mut piece);
        got.expect_err("an alert").to_string()
    }

    /// The connection ends here, with an alert or without.
    pub(crate) fn expect_alert_or_end(&mut self) {
        let mut piece = [0; 4096];
        let tls = self.tls.as_mut().expect("a client with TLS");
        let got = std::io::Read::read(&mut rustls::Stream::new(&mut **tls, &mut &self.socket), &mut piece);
        assert!(!matches!(got, Ok(1..)), "{got:?}");
        assert!(
            !got.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock),
            "it is still there"
        );
    }
}
