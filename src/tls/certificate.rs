//! Certificates with their keys, from PEM, and which of them answers to which name.

use super::{PROVIDER, TlsConfigError};
use core::fmt;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, DnsName, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// A certificate chain with its private key; checked when it is made. Cheap to clone.
#[derive(Clone)]
pub struct Certificate {
    pub(crate) identity: Arc<Identity>,
    /// Where it is from, to be read again.
    pub(crate) files: Option<Arc<(PathBuf, PathBuf)>>,
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
        let names = ("the certificate's PEM", "the key's PEM");
        Ok(Self { identity: parse(certificate.as_ref(), key.as_ref(), names)?, files: None })
    }

    /// The same with the files' names for errors.
    pub(crate) fn from_read(
        certificate: &[u8],
        key: &[u8],
        files: Arc<(PathBuf, PathBuf)>,
    ) -> Result<Self, TlsConfigError> {
        let names = (files.0.display().to_string(), files.1.display().to_string());
        Ok(Self { identity: parse(certificate, key, (&names.0, &names.1))?, files: Some(files) })
    }
}

fn malformed(origin: &str, reason: impl fmt::Display) -> TlsConfigError {
    TlsConfigError::Malformed { origin: origin.to_owned(), reason: reason.to_string() }
}

/// The certificates in PEM; at least one.
fn chain(text: &[u8], origin: &str) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let found = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, pem::Error>>();
    let chain = found.map_err(|e| malformed(origin, e))?;
    if chain.is_empty() {
        return Err(TlsConfigError::NoCertificate { origin: origin.to_owned() });
    }
    Ok(chain)
}

fn parse(chain_text: &[u8], key: &[u8], names: (&str, &str)) -> Result<Arc<Identity>, TlsConfigError> {
    let chain = chain(chain_text, names.0)?;
    let key = match PrivateKeyDer::from_pem_slice(key) {
        Ok(key) => key,
        Err(pem::Error::NoItemsFound) => return Err(TlsConfigError::NoKey { origin: names.1.to_owned() }),
        Err(e) => return Err(malformed(names.1, e)),
    };
    let key = PROVIDER
        .key_provider
        .load_private_key(key)
        .map_err(|e| TlsConfigError::UnusableKey { origin: names.1.to_owned(), reason: e.to_string() })?;
    let identity = Identity::new(chain, key);
    match identity.keys_match() {
        // Unknown: a key that does not tell its public half.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(Arc::new(identity)),
        Err(Error::InconsistentKeys(_)) => {
            Err(TlsConfigError::KeyMismatch { certificate: names.0.to_owned(), key: names.1.to_owned() })
        }
        Err(e) => Err(malformed(names.0, e)),
    }
}

/// The authorities in PEM, to verify others with.
pub(crate) fn authorities(text: &[u8], origin: &str) -> Result<Arc<RootCertStore>, TlsConfigError> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(text, origin)? {
        roots.add(certificate).map_err(|e| malformed(origin, e))?;
    }
    Ok(Arc::new(roots))
}

/// Which certificate is shown to whom.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// For every other name, and for clients that name none.
    pub(crate) fallback: Certificate,
    /// By the name in lower case; `*.` stands for one label.
    pub(crate) named: HashMap<Box<str>, Certificate>,
}

impl Names {
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
    fn a_name_has_its_certificate_a_wildcard_is_one_label_and_others_get_the_fallback() {
        let mut names = Names::new(certificate());
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
    fn what_no_client_can_ask_for_is_no_name() {
        let mut names = Names::new(certificate());
        for bad in ["", "*", "a b", "*.*.example", "a..b"] {
            let e = names.add(bad, certificate()).unwrap_err();
            assert!(matches!(&e, TlsConfigError::Name { name } if name == bad), "{e}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_pair_is_told() {
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
}
