//! How a callback ends its connection by returning an error.

use crate::protocol::CloseCode;
use core::error::Error;
use core::fmt;

/// The end of a connection that a callback returns: its close code and reason.
///
/// `?` makes one of any error. The client gets [`CloseCode::INTERNAL`] (1011) without the error's text; the text is logged
/// with the route. To tell the client more, name code and reason:
///
/// ```
/// # use campanile::{Conn, Disconnect, Message};
/// fn message(conn: &mut Conn<'_>, message: Message<'_>) -> Result<(), Disconnect> {
///     let text = message.as_text().ok_or_else(|| Disconnect::new(1003, "text only"))?;
///     let topic: u32 = text.parse().map_err(|e| Disconnect::new(4000, format!("expected a number: {e}")))?;
///     conn.subscribe(&format!("orders/{topic}"))?; // 1011, and the error in the log
///     Ok(())
/// }
/// ```
///
/// Where the connection is closing already, it has no effect.
pub struct Disconnect(Box<Parts>);

/// Boxed, so that the result of a callback fits a register.
pub(crate) struct Parts {
    pub(crate) code: CloseCode,
    pub(crate) reason: String,
    /// What went wrong, for the log alone.
    pub(crate) error: Option<String>,
}

impl Disconnect {
    /// Closes with this code and reason, as [`Conn::close`](crate::Conn::close) does: a reason of more than 123 bytes is
    /// cut. With a code that no close frame may carry the client gets 1011 and the log an error.
    pub fn new(code: impl Into<CloseCode>, reason: impl Into<String>) -> Self {
        let (code, reason) = (code.into(), reason.into());
        match code.on_wire() {
            Ok(code) => Self(Box::new(Parts { code, reason, error: None })),
            Err(e) => Self::from(e),
        }
    }

    pub(crate) fn into_parts(self) -> Parts {
        *self.0
    }
}

impl<E: Error> From<E> for Disconnect {
    #[cold]
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        let reason = String::from("internal error");
        Self(Box::new(Parts { code: CloseCode::INTERNAL, reason, error: Some(text) }))
    }
}

impl fmt::Debug for Disconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { code, reason, error } = &*self.0;
        let mut debug = f.debug_struct("Disconnect");
        debug.field("code", code).field("reason", reason);
        if let Some(error) = error {
            debug.field("error", error);
        }
        debug.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_for_the_log_and_a_reason_for_the_client() {
        let fail = || -> Result<(), Disconnect> {
            "x".parse::<u8>()?;
            Ok(())
        };
        let parts = fail().unwrap_err().into_parts();
        assert_eq!((parts.code, &*parts.reason), (CloseCode::INTERNAL, "internal error"));
        assert_eq!(parts.error.as_deref(), Some("invalid digit found in string"));
        let parts = Disconnect::new(4001, "the token has expired").into_parts();
        assert_eq!((parts.code.0, &*parts.reason, parts.error), (4001, "the token has expired", None));
        let parts = Disconnect::new(1006, "x").into_parts();
        assert_eq!(parts.code, CloseCode::INTERNAL);
        assert!(parts.error.is_some_and(|e| e.starts_with("close code: 1006")));
    }

    #[test]
    fn a_result_fits_a_register() {
        assert_eq!(size_of::<Result<(), Disconnect>>(), size_of::<usize>());
    }
}
