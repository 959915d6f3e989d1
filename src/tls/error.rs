//! What can be wrong with certificates, and with a peer.

use crate::file::FileError;
use core::fmt;
use std::io;
use std::time::SystemTime;

/// Why certificates or keys can't be used. What was in use before stays in use.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsConfigError {
    /// A file can't be read.
    File(FileError),
    /// Something is not PEM (RFC 7468).
    Malformed {
        /// The file, or what it is for.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// There is no certificate.
    NoCertificate {
        /// The file, or what it is for.
        origin: String,
    },
    /// A certificate is damaged, or not one that clients understand.
    BadCertificate {
        /// The file, or what it is for.
        origin: String,
        /// Its place in the file, counted from 1.
        place: usize,
        /// What is wrong.
        reason: String,
    },
    /// A certificate is of version 1 or 2 of X.509: clients refuse what is older than version 3.
    OldVersion {
        /// The file, or what it is for.
        origin: String,
    },
    /// A chain is longer than 10 certificates or 64 KiB.
    ChainTooLong {
        /// The file, or what it is for.
        origin: String,
        /// How many certificates it has.
        certificates: usize,
        /// How many bytes they have.
        bytes: usize,
    },
    /// A certificate that is not valid now would replace one that is.
    NotValid {
        /// The file, or what it is for.
        origin: String,
        /// From when it is valid.
        not_before: SystemTime,
        /// Until when it is valid.
        not_after: SystemTime,
        /// What is wrong.
        reason: String,
    },
    /// There is no private key.
    NoKey {
        /// The file, or what it is for.
        origin: String,
    },
    /// The private key is of a kind that can't be used.
    UnusableKey {
        /// The file, or what it is for.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// The private key belongs to another certificate.
    KeyMismatch {
        /// Where the certificate is from.
        certificate: String,
        /// Where the key is from.
        key: String,
    },
    /// A name that no client can ask for.
    Name {
        /// The name.
        name: String,
    },
    /// The library refuses.
    Refused {
        /// Its reason.
        reason: String,
    },
}

impl fmt::Display for TlsConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(e) => e.fmt(f),
            Self::Malformed { origin, reason } => {
                write!(
                    f,
                    "{origin} can't be understood: {reason}; expected PEM, lines that begin with -----BEGIN"
                )
            }
            Self::NoCertificate { origin } => write!(
                f,
                "there is no certificate in {origin}: expected PEM with -----BEGIN CERTIFICATE-----, the server's own first, then those up to the authority"
            ),
            Self::BadCertificate { origin, place, reason } => write!(
                f,
                "certificate {place} in {origin} can't be used: {reason}; expected an X.509 certificate of version 3"
            ),
            Self::OldVersion { origin } => write!(
                f,
                "the certificate in {origin} is of X.509 version 1 or 2, which clients refuse: make one of version 3, \
                 with the host's names as subject alternative names"
            ),
            Self::ChainTooLong { origin, certificates, bytes } => write!(
                f,
                "the chain in {origin} has {certificates} certificates of {bytes} bytes, at most 10 of 65536 bytes are \
                 allowed: expected the server's own and those up to the authority"
            ),
            Self::NotValid { origin, reason, .. } => {
                write!(f, "the certificate in {origin} {reason}; the one in use is valid and stays")
            }
            Self::NoKey { origin } => write!(
                f,
                "there is no private key in {origin}: expected PEM with -----BEGIN PRIVATE KEY-----, without a password"
            ),
            Self::UnusableKey { origin, reason } => write!(
                f,
                "the private key in {origin} can't be used: {reason}; ECDSA on P-256 or P-384, Ed25519 and RSA from 2048 bits on are possible"
            ),
            Self::KeyMismatch { certificate, key } => write!(
                f,
                "the private key in {key} does not belong to the certificate in {certificate}: they must be of one pair, and the server's own certificate must be the first in its file"
            ),
            Self::Name { name } => write!(
                f,
                "{name:?} is no host name that a client can ask for: expected a name such as www.example.com or *.example.com"
            ),
            Self::Refused { reason } => write!(f, "TLS can't be set up: {reason}"),
        }
    }
}

impl std::error::Error for TlsConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(e) => Some(e),
            _ => None,
        }
    }
}

/// Why a session has failed. There is no going on from it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TlsError {
    /// The peer broke the protocol, sent an alert, showed a certificate that is not trusted, or offered nothing that
    /// both have.
    Failed(rustls::Error),
    /// More came than a handshake message may have (64 KiB).
    TooLong,
    /// More records without data came than an open connection may send: key updates, alerts, empty ones.
    Barren,
    /// There is nothing to seal with: the handshake is not finished, or the session has ended.
    NotOpen,
}

impl From<rustls::Error> for TlsError {
    fn from(e: rustls::Error) -> Self {
        Self::Failed(e)
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(e) => e.fmt(f),
            Self::TooLong => f.write_str("a handshake message is longer than 64 KiB"),
            Self::Barren => f.write_str("too many records without data, such as key updates"),
            Self::NotOpen => f.write_str("the handshake is not finished, or the session has ended"),
        }
    }
}

impl std::error::Error for TlsError {}

impl From<TlsError> for io::Error {
    fn from(e: TlsError) -> Self {
        let kind = match e {
            TlsError::Failed(_) | TlsError::TooLong | TlsError::Barren => io::ErrorKind::InvalidData,
            TlsError::NotOpen => io::ErrorKind::NotConnected,
        };
        Self::new(kind, e)
    }
}
