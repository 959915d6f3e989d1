//! Why a request was refused. One enum for the whole HTTP side; each variant carries the facts its sentence names and
//! maps to one status code in one exhaustive `match`, so that a new refusal can't be forgotten anywhere.
//!
//! Nothing in a message or response is taken from the request but single bytes and numbers: an error page that quotes
//! its request is a reflection attack waiting for a browser.

use core::fmt;
use core::time::Duration;

use super::Response;

/// A refused request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpError {
    /// A line of the head ends in LF without CR.
    BareLf,
    /// A byte that may not stand in a head: NUL, another control character, or a CR without its LF.
    ControlByte {
        /// The byte.
        byte: u8,
    },
    /// The head doesn't follow the grammar.
    Malformed {
        /// The part that doesn't.
        part: &'static str,
    },
    /// A header line begins with white space, once a way to continue the line before.
    ObsoleteFold,
    /// The request target is not valid, or is in a form that this server does not accept.
    BadTarget,
    /// HTTP/1.1 without a Host header, or with an empty one.
    HostMissing,
    /// More than one Host header.
    HostRepeated,
    /// A Host header that is no host and port.
    HostInvalid,
    /// An Origin header that is repeated or isn't printable ASCII, so that no policy could judge it.
    OriginInvalid,
    /// Content-Length isn't a number.
    LengthInvalid,
    /// Content-Length is given more than once, with different values.
    LengthConflict,
    /// Content-Length and Transfer-Encoding together, or Transfer-Encoding in HTTP/1.0.
    LengthAmbiguous,
    /// An offered subprotocol isn't a token.
    ProtocolInvalid,
    /// The request isn't allowed, by its origin, its credentials or the path it asks for.
    Forbidden,
    /// Nothing is served under this path.
    NotFound,
    /// The path exists, the method doesn't.
    MethodNotAllowed {
        /// The methods that do, as the Allow header names them.
        allow: &'static str,
    },
    /// The request didn't arrive in time.
    Timeout {
        /// The time it had.
        limit: Duration,
    },
    /// The body's length isn't told beforehand.
    LengthRequired,
    /// A condition the client set doesn't hold.
    PreconditionFailed,
    /// The body is larger than allowed.
    BodyTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// No part of the range asked for exists.
    RangeUnsatisfiable {
        /// The length of the whole in bytes.
        len: u64,
    },
    /// This path speaks only WebSocket.
    UpgradeRequired,
    /// The head is larger than allowed.
    HeadTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The head has more header lines than allowed.
    TooManyHeaders {
        /// The limit.
        limit: usize,
    },
    /// More subprotocols are offered than allowed.
    TooManyProtocols {
        /// The limit in names.
        limit: usize,
    },
    /// The offered subprotocols take more bytes than allowed.
    ProtocolsTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The server failed.
    Internal,
    /// The method exists nowhere on this server.
    MethodUnknown,
    /// A transfer coding this server doesn't know.
    CodingUnknown,
    /// The server is full or about to stop.
    Unavailable {
        /// When it makes sense to come back.
        retry_after: Duration,
    },
    /// A version of HTTP other than 1.0 and 1.1.
    VersionUnsupported,
}

impl HttpError {
    /// The status code the refusal has on the wire.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::BareLf
            | Self::ControlByte { .. }
            | Self::Malformed { .. }
            | Self::ObsoleteFold
            | Self::BadTarget
            | Self::HostMissing
            | Self::HostRepeated
            | Self::HostInvalid
            | Self::OriginInvalid
            | Self::LengthInvalid
            | Self::LengthConflict
            | Self::LengthAmbiguous
            | Self::ProtocolInvalid => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed { .. } => 405,
            Self::Timeout { .. } => 408,
            Self::LengthRequired => 411,
            Self::PreconditionFailed => 412,
            Self::BodyTooLarge { .. } => 413,
            Self::RangeUnsatisfiable { .. } => 416,
            Self::UpgradeRequired => 426,
            Self::HeadTooLarge { .. }
            | Self::TooManyHeaders { .. }
            | Self::TooManyProtocols { .. }
            | Self::ProtocolsTooLarge { .. } => 431,
            Self::Internal => 500,
            Self::MethodUnknown | Self::CodingUnknown => 501,
            Self::Unavailable { .. } => 503,
            Self::VersionUnsupported => 505,
        }
    }

    /// The response to send: the status, what the status demands by way of headers, and the sentence as its body.
    #[must_use]
    pub fn response(self) -> Response {
        let response = Response::new(self.status()).text(format!("{self}\n"));
        match self {
            // RFC 9110, section 15.5.6: a 405 must say what is allowed.
            Self::MethodNotAllowed { allow } => response.header("Allow", allow),
            // RFC 9110, section 15.5.17: a 416 should say how long the whole is.
            Self::RangeUnsatisfiable { len } => response.header("Content-Range", format!("bytes */{len}")),
            // RFC 9110, section 15.5.22: a 426 must name the protocol. RFC 6455, section 4.4: and its version.
            Self::UpgradeRequired => {
                response.header("Upgrade", "websocket").header("Sec-WebSocket-Version", "13")
            }
            Self::Unavailable { retry_after } => {
                response.header("Retry-After", retry_after.as_secs().max(1).to_string())
            }
            _ => response,
        }
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BareLf => f.write_str("a line of the head ends in LF alone; end it with CR LF"),
            Self::ControlByte { byte } => write!(f, "the head contains the control byte 0x{byte:02x}"),
            Self::Malformed { part } => write!(f, "the {part} is malformed"),
            Self::ObsoleteFold => {
                f.write_str("a header line begins with white space; write each header on one line")
            }
            Self::BadTarget => f.write_str("the request target is neither a path nor an http or ws URL"),
            Self::HostMissing => f.write_str("the Host header is missing or empty"),
            Self::HostRepeated => f.write_str("there is more than one Host header"),
            Self::HostInvalid => f.write_str("the Host header is no host with an optional port"),
            Self::OriginInvalid => f.write_str("the Origin header is repeated or not printable ASCII"),
            Self::LengthInvalid => f.write_str("Content-Length is not a number"),
            Self::LengthConflict => f.write_str("there are different Content-Length headers"),
            Self::LengthAmbiguous => {
                f.write_str("Transfer-Encoding stands beside Content-Length or in HTTP/1.0")
            }
            Self::ProtocolInvalid => f.write_str("an offered subprotocol is not a token"),
            Self::Forbidden => f.write_str("this request is not allowed"),
            Self::NotFound => f.write_str("there is nothing under this path"),
            Self::MethodNotAllowed { allow } => write!(f, "this path allows only {allow}"),
            Self::Timeout { limit } => write!(f, "the request did not arrive within {limit:?}"),
            Self::LengthRequired => {
                f.write_str("the body has no Content-Length; chunked bodies are not taken")
            }
            Self::PreconditionFailed => f.write_str("a precondition of the request does not hold"),
            Self::BodyTooLarge { limit } => write!(f, "the body is larger than {limit} bytes"),
            Self::RangeUnsatisfiable { len } => write!(f, "the range lies outside the {len} bytes there are"),
            Self::UpgradeRequired => f.write_str("this path speaks WebSocket; connect with ws:// or wss://"),
            Self::HeadTooLarge { limit } => write!(f, "the head is larger than {limit} bytes"),
            Self::TooManyHeaders { limit } => write!(f, "there are more than {limit} headers"),
            Self::TooManyProtocols { limit } => write!(f, "more than {limit} subprotocols are offered"),
            Self::ProtocolsTooLarge { limit } => {
                write!(f, "the offered subprotocols take more than {limit} bytes")
            }
            Self::Internal => f.write_str("the server failed to answer"),
            Self::MethodUnknown => f.write_str("this method is not known here"),
            Self::CodingUnknown => f.write_str("this transfer coding is not known here"),
            Self::Unavailable { retry_after } => {
                write!(f, "the server takes no connection now; come back in {retry_after:?}")
            }
            Self::VersionUnsupported => f.write_str("this server speaks HTTP/1.1 and 1.0 only"),
        }
    }
}

impl core::error::Error for HttpError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn head_of(error: HttpError) -> String {
        let mut out = Vec::new();
        error.response().encode_head(&mut out, "now", false, false);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_http_error_fits_24_bytes() {
        assert!(size_of::<HttpError>() <= 24);
    }

    #[test]
    fn upgrade_required_names_protocol_and_version() {
        let head = head_of(HttpError::UpgradeRequired);
        assert!(head.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{head}");
        assert!(head.contains("\r\nUpgrade: websocket\r\n"), "{head}");
        assert!(head.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{head}");
        assert!(head.contains("\r\nConnection: upgrade, close\r\n"), "{head}");
    }

    #[test]
    fn error_responses_have_the_required_headers() {
        assert!(
            head_of(HttpError::MethodNotAllowed { allow: "GET, HEAD" }).contains("\r\nAllow: GET, HEAD\r\n")
        );
        assert!(
            head_of(HttpError::RangeUnsatisfiable { len: 7 }).contains("\r\nContent-Range: bytes */7\r\n")
        );
        let full = HttpError::Unavailable { retry_after: Duration::from_millis(20) };
        assert!(head_of(full).contains("\r\nRetry-After: 1\r\n"));
    }

    #[test]
    fn an_error_names_the_exceeded_limit() {
        assert_eq!(HttpError::TooManyHeaders { limit: 64 }.to_string(), "there are more than 64 headers");
        assert_eq!(HttpError::ControlByte { byte: 0 }.to_string(), "the head contains the control byte 0x00");
    }
}
