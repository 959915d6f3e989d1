//! Endpoints: what answers plain HTTP requests, beside the WebSocket routes. A closure from request to response is one;
//! so are the files of a folder and files built into the program.
//!
//! An endpoint runs on the worker whose connection asked, and all that worker's connections wait for it. It is for
//! short work: a health check, a page, a message to publish. What takes longer is answered
//! [later](crate::Response::later), from another thread; an application that has more to say over HTTP puts a web server
//! in front.

pub mod static_files;

use crate::http::{Request, Response};

/// Answers plain HTTP requests, from any worker at any time.
pub trait Endpoint: Send + Sync + 'static {
    /// The response to this request. To a HEAD it is the one a GET would get; the server leaves out the body.
    fn handle(&self, request: &Request<'_>) -> Response;
}

impl<F> Endpoint for F
where
    F: Fn(&Request<'_>) -> Response + Send + Sync + 'static,
{
    fn handle(&self, request: &Request<'_>) -> Response {
        self(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HeaderSlots, Params, Peer, RequestHead};

    #[test]
    fn a_closure_answers_requests() {
        let endpoint: Box<dyn Endpoint> =
            Box::new(|request: &Request<'_>| Response::new(200).text(request.path().to_owned()));
        let mut slots = HeaderSlots::new();
        let head = RequestHead::parse(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n", &mut slots, 16).unwrap();
        let (params, peer) = (Params::default(), Peer::Unix);
        assert_eq!(endpoint.handle(&Request::new(&head, &params, &peer, b"")).body_len(), 7);
    }
}
