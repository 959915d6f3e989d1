//! What is answered: results, and refusals with a code and a sentence.

use crate::handler::{HandleError, in_millis};
use crate::http::Response;
use crate::hub::{Position, Published};
use crate::json::write_string;
use std::borrow::Cow;
use std::io::Write;

/// A request that is not done, and why.
#[derive(Clone, Debug)]
pub(super) struct ApiError {
    status: u16,
    code: &'static str,
    message: Cow<'static, str>,
    /// The one method of its path, where the request has another.
    allow: Option<&'static str>,
    /// Seconds after which the same may work, where that is known.
    retry: Option<u64>,
}

impl ApiError {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into(), allow: None, retry: None }
    }

    /// A field, a parameter or a whole body that is not what it is to be.
    pub(super) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, "invalid", message)
    }

    pub(super) fn method(path: &str, method: &'static str) -> Self {
        let message = format!("{path} takes {method} only");
        Self { allow: Some(method), ..Self::new(405, "method", message) }
    }

    /// The same with the place in the request that it is about.
    pub(super) fn at(mut self, place: &str) -> Self {
        self.message = format!("{place}: {}", self.message).into();
        self
    }

    pub(super) fn response(&self) -> Response {
        let mut out = Vec::with_capacity(64 + self.message.len());
        out.push(b'{');
        self.write(&mut out);
        out.push(b'}');
        self.with(out)
    }

    /// The response with this body.
    pub(super) fn with(&self, body: Vec<u8>) -> Response {
        let response = Response::new(self.status).json(body);
        match (self.status, self.allow) {
            // RFC 9110, section 15.5.2: a 401 must say how to come in.
            (401, _) => response.header("WWW-Authenticate", "Bearer"),
            (405, Some(method)) => {
                response.header("Allow", if method == "GET" { "GET, HEAD" } else { method })
            }
            (429 | 503, _) => response.header("Retry-After", self.retry.unwrap_or(1).to_string()),
            _ => response,
        }
    }

    /// Its members, without the braces.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let _ = write!(out, r#""code":"{}","message":"#, self.code); // writing to a Vec doesn't fail
        write_string(out, &self.message);
    }
}

impl From<HandleError> for ApiError {
    fn from(e: HandleError) -> Self {
        let (status, code) = match &e {
            HandleError::Full => {
                return Self::new(503, "busy", "too many commands wait for a worker: try again in a while");
            }
            HandleError::Ended => (503, "ended"),
            HandleError::Timeout => (503, "busy"),
            HandleError::Topic(_) => (400, "topic"),
            HandleError::Pattern(_) => (400, "pattern"),
            HandleError::TooBig { .. } => (413, "too_big"),
            HandleError::RateLimited { retry } => {
                let seconds = in_millis(*retry).div_ceil(1000);
                return Self { retry: Some(seconds), ..Self::new(429, "rate_limited", e.to_string()) };
            }
            _ => (500, "internal"),
        };
        Self::new(status, code, e.to_string())
    }
}

/// What became of a publication.
pub(super) fn published(out: &mut Vec<u8>, published: Option<Published>) {
    let Some(Published { position, receivers, repeated }) = published else {
        return out.extend_from_slice(br#"{"receivers":0}"#);
    };
    let Position { epoch, offset, .. } = position;
    // Writing to a Vec doesn't fail.
    let _ = write!(out, r#"{{"epoch":"{epoch:x}","offset":{offset},"receivers":{receivers}"#);
    out.extend_from_slice(if repeated { br#","repeated":true}"# } else { b"}" });
}

pub(super) fn ok(body: impl Into<crate::http::Body>) -> Response {
    Response::new(200).json(body)
}
