//! What can go wrong between a client and its server, with the facts.

use super::opening::{HandshakeError, InvalidRequest};
use super::proxy::{InvalidProxy, ProxyError};
use super::reconnect::End;
use super::url::InvalidUrl;
use crate::protocol::ProtocolError;
use core::fmt;
use core::time::Duration;
use std::io;
use std::net::SocketAddr;

/// Why a connection was not made, or broke.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The URL, or the one that a hook or a redirect gave, is none.
    Url(InvalidUrl),
    /// A request can't be made of the subprotocols, headers and origin.
    Request(InvalidRequest),
    /// The proxy's URL is none.
    InvalidProxy(InvalidProxy),
    /// The proxy gave no tunnel.
    Proxy(ProxyError),
    /// A `wss://` URL, and TLS, the feature `tls`, is not built in.
    TlsNotBuiltIn {
        /// The URL.
        url: String,
    },
    /// TLS can't be set up, for this reason: no authorities to trust, or a host that no certificate can be for.
    TlsConfig(String),
    /// The server's certificate is not trusted, for this reason.
    Certificate(String),
    /// The handshake of TLS failed, for this reason.
    Tls(String),
    /// The hook before each try failed, with these words, or is still busy with an earlier try.
    Hook(String),
    /// The host's name, or the proxy's, has no address.
    Resolve {
        /// The name.
        host: String,
        /// The system's reason.
        why: String,
    },
    /// No connection to the last of the host's addresses, or of the proxy's.
    Connect {
        /// The address.
        addr: SocketAddr,
        /// The system's reason.
        kind: io::ErrorKind,
    },
    /// [`ClientLimits::connect_timeout`](super::ClientLimits::connect_timeout) went by before there was a connection.
    ConnectTimeout {
        /// The limit.
        limit: Duration,
    },
    /// [`ClientLimits::handshake_timeout`](super::ClientLimits::handshake_timeout) went by before the server answered.
    HandshakeTimeout {
        /// The limit.
        limit: Duration,
    },
    /// The server refused the handshake, or its answer is none.
    Handshake(HandshakeError),
    /// The server is elsewhere, and redirects are not followed, or not so many:
    /// [`ClientBuilder::redirects`](super::ClientBuilder::redirects).
    Redirect {
        /// The status, such as 307.
        status: u16,
        /// Its `Location`, as it came.
        location: String,
        /// How many redirects were followed before.
        followed: u32,
    },
    /// The server broke the protocol or a limit, and was told so by a close frame.
    Protocol(ProtocolError),
    /// Nothing came within [`ClientLimits::pong_timeout`](super::ClientLimits::pong_timeout) of a ping.
    PongTimeout {
        /// The limit.
        limit: Duration,
    },
    /// A message was not finished within [`ClientLimits::message_timeout`](super::ClientLimits::message_timeout).
    MessageTimeout {
        /// The limit.
        limit: Duration,
    },
    /// The closing handshake was not finished within [`ClientLimits::close_timeout`](super::ClientLimits::close_timeout).
    CloseTimeout {
        /// The limit.
        limit: Duration,
    },
    /// The connection broke: the server went without a close frame (`UnexpectedEof`), or the system's error.
    Transport(io::ErrorKind),
    /// The callback panicked; the connection was closed with 1011.
    Panicked,
    /// The system refused a thread or an event loop.
    System(io::ErrorKind),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(e) => e.fmt(f),
            Self::Request(e) => e.fmt(f),
            Self::InvalidProxy(e) => e.fmt(f),
            Self::Proxy(e) => e.fmt(f),
            Self::TlsNotBuiltIn { url } => {
                write!(f, "can't connect to {url}: TLS, the feature `tls`, is not built into this client")
            }
            Self::TlsConfig(why) => f.write_str(why),
            Self::Certificate(why) => write!(f, "the server's certificate is not trusted: {why}"),
            Self::Tls(why) => write!(f, "the handshake of TLS failed: {why}"),
            Self::Hook(why) => write!(f, "the hook before the try failed: {why}"),
            Self::Resolve { host, why } => write!(f, "can't resolve {host}: {why}"),
            Self::Connect { addr, kind } => write!(f, "can't connect to {addr}: {kind}"),
            Self::ConnectTimeout { limit } => write!(f, "no connection within {limit:?}"),
            Self::HandshakeTimeout { limit } => write!(f, "no answer to the handshake within {limit:?}"),
            Self::Handshake(e) => e.fmt(f),
            Self::Redirect { status, location, followed } => {
                write!(f, "the server redirects to {location:?} with status {status}")?;
                match followed {
                    0 => f.write_str("; redirects are not followed unless asked for"),
                    n => write!(f, "; {n} redirects were followed already"),
                }
            }
            Self::Protocol(e) => write!(f, "the server broke the protocol: {e}"),
            Self::PongTimeout { limit } => write!(f, "nothing came within {limit:?} of a ping"),
            Self::MessageTimeout { limit } => write!(f, "a message was not finished within {limit:?}"),
            Self::CloseTimeout { limit } => write!(f, "the server did not finish closing within {limit:?}"),
            Self::Transport(io::ErrorKind::UnexpectedEof) => {
                f.write_str("the connection ended without a close frame")
            }
            Self::Transport(kind) => write!(f, "the connection broke: {kind}"),
            Self::Panicked => f.write_str("the callback panicked"),
            Self::System(kind) => write!(f, "the system refused: {kind}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Url(e) => Some(e),
            Self::Request(e) => Some(e),
            Self::InvalidProxy(e) => Some(e),
            Self::Proxy(e) => Some(e),
            Self::Handshake(e) => Some(e),
            Self::Protocol(e) => Some(e),
            _ => None,
        }
    }
}

impl From<InvalidUrl> for Error {
    fn from(e: InvalidUrl) -> Self {
        Self::Url(e)
    }
}

impl From<InvalidRequest> for Error {
    fn from(e: InvalidRequest) -> Self {
        Self::Request(e)
    }
}

impl Error {
    /// What it means for another try.
    pub(super) fn end(&self) -> End<'static> {
        match self {
            Self::Url(_)
            | Self::Request(_)
            | Self::InvalidProxy(_)
            | Self::TlsNotBuiltIn { .. }
            | Self::TlsConfig(_)
            | Self::Redirect { .. }
            | Self::Panicked => End::Permanent,
            Self::Handshake(HandshakeError::Refused(response)) => {
                End::Refused { status: response.status, retry_after: response.retry_after() }
            }
            Self::Proxy(ProxyError::Refused { status }) => {
                End::Refused { status: *status, retry_after: None }
            }
            // What the server would have said of the same breach on our side.
            Self::Protocol(e) => End::Closed { code: e.close_code(), reason: "" },
            _ => End::Failed,
        }
    }
}
