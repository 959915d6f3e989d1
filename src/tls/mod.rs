//! TLS 1.2 and 1.3 as a codec of bytes, on rustls: ciphertext in, plaintext out, and the other way. No socket, no file:
//! `net` brings bytes to a [`TlsSession`] and takes them away, for both roles.
//!
//! ```text
//!   socket ── recv ──▶ receive buffer ── open: decrypted in place ──▶ plaintext ──▶ the machine
//!                          ▲   │                      │
//!                  kept ───┘   └─▶ kept: a record     └─▶ unsent: handshake, tickets, alerts
//!                                  that is cut                            │
//!   socket ◀─ send ─────────── sealed records ◀── seal ◀── the machine    │
//!                  ▲                  └─ what the kernel did not take ──▶ unsent ──┐
//!                  └───────────────────────────────────────────────────────────────┘
//! ```
//! An idle session has neither `kept` nor `unsent`: only what rustls needs to go on.

mod certificate;
mod error;
mod handshakes;
mod secure_server;
mod session;
mod validity;
mod verifiers;

#[cfg(feature = "client")]
mod secure_client;

pub use certificate::Certificate;
pub(crate) use certificate::{CertificateNames, authorities};
pub use error::TlsConfigError;
pub(crate) use error::TlsError;
pub(crate) use handshakes::HandshakeCounter;
#[cfg(feature = "client")]
pub(crate) use secure_client::{SecureClient, Trust};
pub use secure_server::ClientAuth;
pub(crate) use secure_server::{Acceptor, AcceptorSettings};
pub(crate) use session::{MAX_KEPT, PIECE, SEALED, TlsSession};

use rustls::crypto::CryptoProvider;
use std::sync::{Arc, LazyLock};

/// Algorithms as AWS-LC has them; one for the whole process.
static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
