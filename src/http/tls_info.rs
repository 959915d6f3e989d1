//! What a request over TLS says about the connection below it.

use core::fmt;

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2, RFC 5246.
    Tls12,
    /// TLS 1.3, RFC 8446.
    Tls13,
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "TLS 1.2",
            Self::Tls13 => "TLS 1.3",
        })
    }
}

/// What the handshake agreed on. Made for each request; a handler that needs some of it later keeps that.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsInfo {
    /// The version.
    pub version: TlsVersion,
    /// The cipher suite by its name at IANA: `TLS_AES_128_GCM_SHA256`.
    pub cipher: String,
    /// The host name that the client asked for (SNI, RFC 6066 section 3), in lower case.
    pub server_name: Option<String>,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// The client's certificate as verified, and those that it came with behind it: DER, RFC 5280. Empty where the
    /// client showed none, or was not asked.
    pub client: Vec<Vec<u8>>,
}

impl TlsInfo {
    #[cfg(any(feature = "tls", test))]
    pub(crate) const fn new(version: TlsVersion, cipher: String) -> Self {
        Self { version, cipher, server_name: None, resumed: false, client: Vec::new() }
    }

    /// The client's own certificate, DER. There is one only if the client proved that it has the key, and if one of
    /// the authorities that the listener trusts vouches for it.
    #[must_use]
    pub fn client_certificate(&self) -> Option<&[u8]> {
        self.client.first().map(Vec::as_slice)
    }
}
