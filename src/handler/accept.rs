//! A handler's answer to a request for a WebSocket: yes, no, or later.

use super::{Command, Decision, Handle};
use crate::conn::ConnId;
use crate::http::{Body, HttpError, InvalidHeader, InvalidResponse, Response, is_token};
use core::time::Duration;
use std::marker::PhantomData;

/// The upgrade is accepted, or will be decided later.
///
/// ```
/// # use campanile::{Accept, Request};
/// # fn example(request: &Request<'_>) -> Accept<u64> {
/// let mut accept = Accept::new(42); // the connection's state
/// if request.protocols().any(|p| p == "chat.v2") {
///     accept = accept.protocol("chat.v2");
/// }
/// accept.header("X-Served-By", "bell")
/// # }
/// ```
pub struct Accept<S>(pub(crate) AcceptKind<S>);

pub(crate) enum AcceptKind<S> {
    Now { state: S, protocol: Option<Box<str>>, response: Response },
    Later { timeout: Duration, start: Box<dyn FnOnce(Pending<S>) + Send> },
}

impl<S> Accept<S> {
    /// Accepts, with the state that the application keeps for this connection.
    pub fn new(state: S) -> Self {
        Self(AcceptKind::Now { state, protocol: None, response: Response::unchecked(101) })
    }

    /// Decides later. `start` is called at once, on the worker, with the token to answer with; it hands the token to
    /// a thread of the application's and returns. The client waits. If no answer has come after `timeout`, or the
    /// token is dropped, the client gets a 503.
    ///
    /// ```
    /// # use campanile::{Accept, Pending, Refuse};
    /// # use std::time::Duration;
    /// # fn look_up(token: &str) -> Option<u64> { None }
    /// # fn example(token: String) -> Accept<u64> {
    /// Accept::later(Duration::from_secs(3), move |pending| {
    ///     std::thread::spawn(move || match look_up(&token) {
    ///         Some(user) => pending.accept(Accept::new(user)),
    ///         None => pending.refuse(Refuse::new(403)),
    ///     });
    /// })
    /// # }
    /// ```
    pub fn later(timeout: Duration, start: impl FnOnce(Pending<S>) + Send + 'static) -> Self {
        Self(AcceptKind::Later { timeout, start: Box::new(start) })
    }

    /// Chooses one of the subprotocols that the client offered ([`Request::protocols`](crate::Request::protocols);
    /// RFC 6455 section 4.2.2).
    /// A browser fails a connection whose server chose one that it did not offer, so such a choice is left out of
    /// the answer. With one that is not a token the client gets a 500 and the log an error.
    #[must_use]
    pub fn protocol(mut self, chosen: &str) -> Self {
        if let AcceptKind::Now { protocol, response, .. } = &mut self.0 {
            if !is_token(chosen.as_bytes()) {
                response.set_fault(InvalidResponse::Protocol);
            }
            *protocol = Some(chosen.into());
        }
        self
    }

    /// Adds a header to the 101, such as a cookie. With one that can't be sent the client gets a 500 and the log an error,
    /// as with [`Response::header`].
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        if let AcceptKind::Now { response, .. } = &mut self.0 {
            *response = core::mem::replace(response, Response::unchecked(101)).header(name, value);
        }
        self
    }
}

/// Accepts for a handler whose state is `()`, the only one that has a default for `upgrade`.
pub(super) fn without_state<S: 'static>() -> Result<Accept<S>, Refuse> {
    let unit: Box<dyn core::any::Any> = Box::new(());
    match unit.downcast::<S>() {
        Ok(state) => Ok(Accept::new(*state)),
        Err(_) => {
            let mut response = Response::unchecked(500);
            response.set_fault(InvalidResponse::NoUpgrade);
            Err(Refuse(response))
        }
    }
}

/// The upgrade is refused: a plain HTTP response goes to the client instead of the 101.
///
/// Browsers don't show its status to scripts; they see an `error` event and a close with 1006. To tell a script why,
/// accept and close with a code of 4000 to 4999.
#[derive(Debug)]
pub struct Refuse(pub(crate) Response);

impl Refuse {
    /// Refuses with this status, 4xx or 5xx. With another one the client gets a 500 and the log an error.
    pub fn new(status: u16) -> Self {
        Response::unchecked(status).into()
    }

    /// Adds a header, as [`Response::header`] does.
    #[must_use]
    pub fn header(self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        Self(self.0.header(name, value))
    }

    /// Adds a header or says why that can't be.
    ///
    /// # Errors
    /// As [`Response::try_header`].
    pub fn try_header(self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, InvalidHeader> {
        Ok(Self(self.0.try_header(name, value)?))
    }

    /// A plain-text body.
    #[must_use]
    pub fn text(self, text: impl Into<Body>) -> Self {
        Self(self.0.text(text))
    }
}

impl From<Response> for Refuse {
    /// The status must be 4xx or 5xx, as for [`Refuse::new`].
    fn from(mut response: Response) -> Self {
        let status = response.status();
        if !matches!(status, 400..=599) {
            response.set_fault(InvalidResponse::RefusalStatus { status });
        }
        Self(response)
    }
}

impl From<HttpError> for Refuse {
    fn from(error: HttpError) -> Self {
        Self(error.response())
    }
}

/// The token for an upgrade that is decided later. Goes to any thread; answers once. Dropped without an answer, it
/// refuses with 503.
pub struct Pending<S> {
    handle: Handle,
    id: ConnId,
    answered: bool,
    state: PhantomData<fn(S)>,
}

impl<S: Send + 'static> Pending<S> {
    pub(crate) fn new(handle: Handle, id: ConnId) -> Self {
        Self { handle, id, answered: false, state: PhantomData }
    }

    /// Accepts. A client that has gone in the meantime is not an error.
    pub fn accept(mut self, accept: Accept<S>) {
        self.answered = true;
        self.handle.decide(self.id, Decision::from_accept(accept));
    }

    /// Refuses.
    pub fn refuse(mut self, refuse: Refuse) {
        self.answered = true;
        self.handle.decide(self.id, Decision::Refuse(refuse.0));
    }
}

impl<S> Pending<S> {
    /// The name that the connection has and will have.
    pub fn id(&self) -> ConnId {
        self.id
    }
}

impl<S> Drop for Pending<S> {
    fn drop(&mut self) {
        if !self.answered {
            let retry_after = Duration::from_secs(1);
            let refused = HttpError::Unavailable { retry_after }.response();
            let _ = self.handle.command(self.id, Command::Decide(self.id, Decision::Refuse(refused)), true);
        }
    }
}

impl<S> std::fmt::Debug for Pending<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pending({})", self.id)
    }
}

impl<S> std::fmt::Debug for Accept<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            AcceptKind::Now { .. } => "Accept(now)",
            AcceptKind::Later { .. } => "Accept(later)",
        })
    }
}
