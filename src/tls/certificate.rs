//! Certificates with their keys, from PEM, and which of them answers to which name.

use super::validity::{Expiry, ExpiryState, Validity, system_time};
use super::{PROVIDER, TlsConfigError};
use core::fmt;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, DnsName, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;
use webpki::EndEntityCert;

/// Certificates in a chain, and bytes of them: every client is sent all of them in every whole handshake, and takes no
/// more than 64 KiB. Three or four is usual.
const MAX_CHAIN: usize = 10;
const MAX_CHAIN_BYTES: usize = 64 << 10;

/// A certificate chain with its private key; checked when it is made. Cheap to clone.
#[derive(Clone)]
pub struct Certificate {
    pub(crate) identity: Arc<Identity>,
    /// Where it is from, to be read again.
    pub(crate) files: Option<Arc<(PathBuf, PathBuf)>>,
    lifetime: Lifetime,
}

/// When a chain is valid.
#[derive(Clone, Copy, Debug)]
struct Lifetime {
    own: Validity,
    /// Of the others, the one that ends first: its place, counted from 1. Clients that have another way to an authority
    /// don't need it.
    issuers: Option<(usize, Validity)>,
}

/// A chain and its key as the library wants them.
pub(crate) type Identity = CertifiedKey;

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Certificate {
    /// From PEM: the chain, the server's own certificate first, and its private key (PKCS #8, SEC1 or PKCS #1). Both
    /// may be the same bytes.
    ///
    /// # Errors
    /// Something is missing, damaged, of a kind that is not supported, or the two do not belong together.
    pub fn from_pem(certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self, TlsConfigError> {
        let names = (CERTIFICATE_PEM, "the key's PEM");
        let (identity, lifetime) = parse(certificate.as_ref(), key.as_ref(), names)?;
        Ok(Self { identity, files: None, lifetime })
    }

    /// From when it is valid.
    pub fn not_before(&self) -> SystemTime {
        system_time(self.lifetime.own.not_before)
    }

    /// Until when it is valid. It is used beyond that, with an error in the log, since there is nothing better; but
    /// [`Tls::reload`](crate::Tls::reload) and [`Tls::replace`](crate::Tls::replace) don't put one that has expired in the
    /// place of one that has not.
    pub fn not_after(&self) -> SystemTime {
        system_time(self.lifetime.own.not_after)
    }

    fn origin(&self) -> String {
        self.files.as_ref().map_or_else(|| CERTIFICATE_PEM.to_owned(), |files| files.0.display().to_string())
    }

    /// The same with the files' names for errors.
    pub(crate) fn from_read(
        certificate: &[u8],
        key: &[u8],
        files: Arc<(PathBuf, PathBuf)>,
    ) -> Result<Self, TlsConfigError> {
        let names = (files.0.display().to_string(), files.1.display().to_string());
        let (identity, lifetime) = parse(certificate, key, (&names.0, &names.1))?;
        Ok(Self { identity, files: Some(files), lifetime })
    }
}

const CERTIFICATE_PEM: &str = "the certificate's PEM";

/// What is wrong with PEM, for people.
fn malformed(origin: &str, error: &pem::Error) -> TlsConfigError {
    let reason = match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            format!("-----END {}----- is missing, is it cut short?", end_marker.escape_ascii())
        }
        pem::Error::IllegalSectionStart { line } => {
            format!("a line that should begin a section is {:?}", String::from_utf8_lossy(line).trim_end())
        }
        pem::Error::Base64Decode(_) => "what is between two markers is not base64".to_owned(),
        other => other.to_string(),
    };
    TlsConfigError::Malformed { origin: origin.to_owned(), reason }
}

/// The certificates in PEM; at least one.
fn chain(text: &[u8], origin: &str) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let found = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, pem::Error>>();
    let chain = found.map_err(|e| malformed(origin, &e))?;
    if chain.is_empty() {
        return Err(TlsConfigError::NoCertificate { origin: origin.to_owned() });
    }
    Ok(chain)
}

fn bad(origin: &str, place: usize, reason: impl fmt::Display) -> TlsConfigError {
    TlsConfigError::BadCertificate { origin: origin.to_owned(), place, reason: reason.to_string() }
}

/// Checks what clients would check, and says until when they will be content.
fn lifetime(chain: &[CertificateDer<'_>], origin: &str) -> Result<Lifetime, TlsConfigError> {
    let bytes = chain.iter().map(|c| c.len()).sum();
    if chain.len() > MAX_CHAIN || bytes > MAX_CHAIN_BYTES {
        let origin = origin.to_owned();
        return Err(TlsConfigError::ChainTooLong { origin, certificates: chain.len(), bytes });
    }
    let own = match EndEntityCert::try_from(&chain[0]).and_then(|cert| Validity::of(&cert)) {
        Ok(own) => own,
        Err(webpki::Error::UnsupportedCertVersion) => {
            return Err(TlsConfigError::OldVersion { origin: origin.to_owned() });
        }
        Err(e) => return Err(bad(origin, 1, e)),
    };
    let mut issuers: Option<(usize, Validity)> = None;
    for (at, der) in chain.iter().enumerate().skip(1) {
        let validity = match EndEntityCert::try_from(der).and_then(|cert| Validity::of(&cert)) {
            Ok(validity) => validity,
            // An authority may be older than what is asked of others, and is no more than an aid.
            Err(
                webpki::Error::UnsupportedCertVersion
                | webpki::Error::UnsupportedCriticalExtension
                | webpki::Error::MalformedExtensions
                | webpki::Error::ExtensionValueInvalid,
            ) => continue,
            Err(e) => return Err(bad(origin, at + 1, e)),
        };
        if issuers.is_none_or(|(_, first)| validity.not_after < first.not_after) {
            issuers = Some((at + 1, validity));
        }
    }
    Ok(Lifetime { own, issuers })
}

fn parse(
    chain_text: &[u8],
    key: &[u8],
    names: (&str, &str),
) -> Result<(Arc<Identity>, Lifetime), TlsConfigError> {
    let chain = chain(chain_text, names.0)?;
    let lifetime = lifetime(&chain, names.0)?;
    let key = match PrivateKeyDer::from_pem_slice(key) {
        Ok(key) => key,
        Err(pem::Error::NoItemsFound) => return Err(TlsConfigError::NoKey { origin: names.1.to_owned() }),
        Err(e) => return Err(malformed(names.1, &e)),
    };
    let key = PROVIDER
        .key_provider
        .load_private_key(key)
        .map_err(|e| TlsConfigError::UnusableKey { origin: names.1.to_owned(), reason: e.to_string() })?;
    let identity = Identity::new(chain, key);
    match identity.keys_match() {
        // Unknown: a key that does not tell its public half.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {
            Ok((Arc::new(identity), lifetime))
        }
        Err(Error::InconsistentKeys(_)) => {
            Err(TlsConfigError::KeyMismatch { certificate: names.0.to_owned(), key: names.1.to_owned() })
        }
        Err(e) => Err(bad(names.0, 1, e)),
    }
}

/// The authorities in PEM, to verify others with.
pub(crate) fn authorities(text: &[u8], origin: &str) -> Result<Arc<RootCertStore>, TlsConfigError> {
    let mut roots = RootCertStore::empty();
    for (at, certificate) in chain(text, origin)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|e| bad(origin, at + 1, e))?;
    }
    Ok(Arc::new(roots))
}

/// Which certificate is shown to whom.
#[derive(Clone, Debug)]
pub(crate) struct CertificateNames {
    /// For every other name, and for clients that name none.
    pub(crate) fallback: Certificate,
    /// By the name in lower case; `*.` stands for one label.
    pub(crate) named: HashMap<Box<str>, Certificate>,
}

impl CertificateNames {
    pub(crate) fn new(fallback: Certificate) -> Self {
        Self { fallback, named: HashMap::new() }
    }

    pub(crate) fn add(&mut self, name: &str, certificate: Certificate) -> Result<(), TlsConfigError> {
        let lower = name.to_ascii_lowercase();
        let host = lower.strip_prefix("*.").unwrap_or(&lower);
        if DnsName::try_from(host).is_err() {
            return Err(TlsConfigError::Name { name: name.to_owned() });
        }
        self.named.insert(lower.into(), certificate);
        Ok(())
    }

    /// The certificate for a name in lower case.
    pub(crate) fn find(&self, name: Option<&str>) -> &Certificate {
        let Some(name) = name else { return &self.fallback };
        // RFC 6125 section 6.4.3: a wildcard is one label, the leftmost.
        let wildcard = || self.named.get(&*format!("*{}", &name[name.find('.')?..]));
        self.named.get(name).or_else(wildcard).unwrap_or(&self.fallback)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Certificate> {
        std::iter::once(&self.fallback).chain(self.named.values())
    }

    /// Refuses to put certificates that clients refuse now in the place of those that they take.
    pub(crate) fn check_successor(&self, next: &Self, now: UnixTime) -> Result<(), TlsConfigError> {
        let named = next.named.iter().map(|(name, c)| (self.named.get(name).unwrap_or(&self.fallback), c));
        for (old, new) in named.chain([(&self.fallback, &next.fallback)]) {
            let (was, is) = (old.lifetime.own, new.lifetime.own);
            if was.contains(now)
                && !is.contains(now)
                && let Some(state) = ExpiryState::of(is, now)
            {
                return Err(TlsConfigError::NotValid {
                    origin: new.origin(),
                    not_before: new.not_before(),
                    not_after: new.not_after(),
                    reason: state.to_string(),
                });
            }
        }
        Ok(())
    }

    /// The certificates that clients refuse now or will refuse soon.
    pub(crate) fn expiries(&self, now: UnixTime) -> Vec<Expiry> {
        let mut found = Vec::new();
        for certificate in self.all() {
            let Lifetime { own, issuers } = certificate.lifetime;
            for (place, validity) in [(1, own)].into_iter().chain(issuers) {
                let state = ExpiryState::of(validity, now);
                let expiry = state.map(|state| Expiry { origin: certificate.origin(), place, state });
                // One certificate may be for several names.
                found.extend(expiry.filter(|e| !found.contains(e)));
            }
        }
        found
    }

    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Certificate> {
        std::iter::once(&mut self.fallback).chain(self.named.values_mut())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A self-signed certificate for these names: its PEM and its key's.
    pub(crate) fn made(names: &[&str]) -> (String, String) {
        let names: Vec<_> = names.iter().map(|n| (*n).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn certificate() -> Certificate {
        let (cert, key) = made(&["a.example"]);
        Certificate::from_pem(cert, key).unwrap()
    }

    #[test]
    fn names_select_certificates_and_wildcards_match_one_label() {
        let mut names = CertificateNames::new(certificate());
        let (own, any) = (certificate(), certificate());
        names.add("Own.example", own.clone()).unwrap();
        names.add("*.any.example", any.clone()).unwrap();
        let is = |name: Option<&str>, other: &Certificate| {
            Arc::ptr_eq(&names.find(name).identity, &other.identity)
        };
        assert!(is(Some("own.example"), &own));
        assert!(is(Some("x.any.example"), &any));
        for other in [None, Some("any.example"), Some("y.x.any.example"), Some("localhost"), Some("")] {
            assert!(is(other, &names.fallback), "{other:?}");
        }
    }

    #[test]
    fn invalid_server_names_are_refused() {
        let mut names = CertificateNames::new(certificate());
        for bad in ["", "*", "a b", "*.*.example", "a..b"] {
            let e = names.add(bad, certificate()).unwrap_err();
            assert!(matches!(&e, TlsConfigError::Name { name } if name == bad), "{e}");
        }
    }

    #[test]
    fn each_invalid_certificate_or_key_has_its_error() {
        let ((cert, key), (_, other)) = (made(&["a.example"]), made(&["b.example"]));
        let e = |cert: &str, key: &str| Certificate::from_pem(cert, key).unwrap_err();
        assert!(matches!(e(&cert, &other), TlsConfigError::KeyMismatch { .. }));
        assert!(matches!(e(&key, &key), TlsConfigError::NoCertificate { .. }));
        assert!(matches!(e(&cert, &cert), TlsConfigError::NoKey { .. }));
        assert!(matches!(e("", &key), TlsConfigError::NoCertificate { .. }));
        let cut = &cert[..cert.len() / 2];
        assert!(matches!(e(cut, &key), TlsConfigError::Malformed { .. }));
        let damaged = key.replace("MIG", "AAAA");
        assert!(matches!(
            e(&cert, &damaged),
            TlsConfigError::UnusableKey { .. } | TlsConfigError::Malformed { .. }
        ));
        assert!(Certificate::from_pem(format!("{cert}{key}"), format!("{cert}{key}")).is_ok(), "in one file");
    }

    #[test]
    fn expiries_are_reported_once_for_each_certificate() {
        let at = |year, month, day| {
            let date = rcgen::date_time_ymd(year, month, day).unix_timestamp();
            UnixTime::since_unix_epoch(core::time::Duration::from_secs(date as u64))
        };
        let pair = |until: (i32, u8, u8)| {
            let mut params = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(2000, 1, 1);
            params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
            let key = rcgen::KeyPair::generate().unwrap();
            (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
        };
        let (cert, key) = pair((2050, 3, 31));
        let (issuer, _) = pair((2050, 2, 28));
        let certificate = Certificate::from_pem(cert + &issuer, key).unwrap();
        let mut names = CertificateNames::new(certificate.clone());
        names.add("a.example", certificate).unwrap();
        let told = |now| -> Vec<String> { names.expiries(now).iter().map(ToString::to_string).collect() };
        assert_eq!(told(at(2050, 2, 13)), [""; 0]);
        let soon = "expires on Mon, 28 Feb 2050 00:00:00 GMT, in 14 days: renew it";
        assert_eq!(
            told(at(2050, 2, 14)),
            [format!("certificate 2 of the chain in {CERTIFICATE_PEM} {soon}")]
        );
        let all = told(at(2050, 3, 20));
        assert!(all.len() == 2 && all[0].contains("in 11 days") && all[1].contains("expired on"), "{all:?}");
    }
}
