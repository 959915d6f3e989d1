//! Responses that come later: what an endpoint gives instead of one, and what it answers with.

use super::Response;
use core::fmt;
use core::time::Duration;

/// What a response that comes later is waited for with.
pub(crate) struct DeferredResponse {
    pub(crate) timeout: Duration,
    pub(crate) start: Box<dyn FnOnce(Responder) + Send>,
}

impl fmt::Debug for DeferredResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Later(within {:?})", self.timeout)
    }
}

/// The token for a response that comes later ([`Response::later`]). Goes to any thread; answers once. Dropped without an
/// answer, it answers with 503.
pub struct Responder(Option<Box<dyn FnOnce(Option<Response>) + Send>>);

impl Responder {
    /// `send` is called once: with the response, or with nothing when there is to be none.
    pub(crate) fn new(send: impl FnOnce(Option<Response>) + Send + 'static) -> Self {
        Self(Some(Box::new(send)))
    }

    /// Answers. A client that has gone in the meantime is not an error, nor is a time that is over: then it has had its
    /// 503, and this does nothing.
    pub fn respond(mut self, response: Response) {
        if let Some(send) = self.0.take() {
            send(Some(response));
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(send) = self.0.take() {
            send(None);
        }
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Responder")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_responder_answers_once_even_if_dropped() {
        let (tx, rx) = channel();
        let responder = || {
            let tx = tx.clone();
            Responder::new(move |response| tx.send(response.map(|r| r.status())).unwrap())
        };
        responder().respond(Response::new(204));
        drop(responder());
        assert_eq!(rx.try_iter().collect::<Vec<_>>(), [Some(204), None]);
    }

    #[test]
    fn a_deferred_response_is_503_until_it_is_taken() {
        let mut response = Response::later(Duration::from_secs(1), drop);
        assert_eq!((response.status(), response.body_len()), (503, 0));
        assert!(response.take_later().is_some() && response.take_later().is_none());
    }
}
