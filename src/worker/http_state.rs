//! The state of plain HTTP between two reads: half a request, a body that is being sent, an upgrade that is not
//! decided. Most connections have none, since their request arrives in one read.

use super::callbacks;
use crate::conn::mentions_websocket;
use crate::deflate::Agreed;
use crate::handler::WorkerContext;
use crate::http::{Params, RequestHead, RequestParser};
use crate::metrics::Counters;
use crossbeam_utils::CachePadded;
use std::io::{self, Read};
use std::sync::Arc;

/// The HTTP state of a connection between reads.
#[derive(Default)]
pub(crate) struct HttpState {
    /// The beginning of a request, or requests that arrived while another was being answered.
    pub(super) buf: Vec<u8>,
    /// Where the parser is in it.
    pub(super) parser: RequestParser,
    /// A body that is being sent.
    pub(super) body: Option<(BodyReader, u64)>,
    /// The connection ends with this response.
    pub(super) close_after: bool,
    /// An upgrade that a handler has not decided.
    pub(super) pending_upgrade: Option<PendingUpgrade>,
    /// A request whose response comes later.
    pub(super) pending_response: Option<PendingResponse>,
}

impl HttpState {
    /// Bytes of memory that hold requests.
    pub(super) fn held(&self) -> usize {
        self.buf.capacity()
    }

    /// Returns whether the state can be dropped.
    pub(super) fn is_idle(&self) -> bool {
        self.buf.is_empty() && self.body.is_none() && self.pending_response.is_none() && !self.close_after
    }
}

/// The application's reader of a body. It may be dropped with any part of its connection; a panic is counted and ends
/// nothing.
pub(super) struct BodyReader {
    /// None once it is dropped.
    reader: Option<Box<dyn Read + Send>>,
    counters: Arc<[CachePadded<Counters>]>,
    worker: usize,
}

impl BodyReader {
    pub(super) fn new(reader: Box<dyn Read + Send>, ctx: &WorkerContext) -> Self {
        Self { reader: Some(reader), counters: ctx.counters.clone(), worker: ctx.worker }
    }

    /// Reads. A panic is counted and returned as an error.
    pub(super) fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        let Some(reader) = &mut self.reader else { return Ok(0) };
        let place = format_args!("the reader of a response body");
        callbacks::catch(&self.counters[self.worker], place, || reader.read(piece))
            .unwrap_or_else(|| Err(io::ErrorKind::Other.into()))
    }
}

impl Drop for BodyReader {
    fn drop(&mut self) {
        let reader = self.reader.take();
        let place = format_args!("dropping the reader of a response body");
        callbacks::catch(&self.counters[self.worker], place, || drop(reader));
    }
}

/// What a request says about its response.
#[derive(Clone, Copy)]
pub(super) struct ResponseOptions {
    /// The method was HEAD.
    pub(super) head_only: bool,
    /// Other requests may follow.
    pub(super) keep_alive: bool,
}

impl ResponseOptions {
    /// Reads the options from the head of a request.
    ///
    /// A request that names a WebSocket is the last of its connection, unless the answer is 101. A proxy may have
    /// switched to a tunnel whatever the answer is, or forwarded the request as plain HTTP: what follows may be frames,
    /// or requests that have not passed the proxy's rules.
    pub(super) fn of(head: &RequestHead<'_>) -> Self {
        let keep_alive = head.keep_alive() && !mentions_websocket(head);
        Self { head_only: head.method() == "HEAD", keep_alive }
    }
}

/// A request whose response comes later.
pub(super) struct PendingResponse {
    /// Identifies the request on this worker: a late response must not answer the next one.
    pub(super) number: u64,
    pub(super) options: ResponseOptions,
}

/// A checked request for an upgrade.
pub(super) struct CheckedUpgrade {
    /// The value of Sec-WebSocket-Accept.
    pub(super) accept: String,
    pub(super) route: u16,
    pub(super) params: Params,
    pub(super) agreed: Option<Agreed>,
}

/// An upgrade that a handler decides on another thread.
pub(super) struct PendingUpgrade {
    pub(super) upgrade: CheckedUpgrade,
    /// The subprotocols that the client offered.
    pub(super) offered: Vec<Box<str>>,
}

impl std::fmt::Debug for HttpState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpState").field("buf", &self.buf.len()).finish_non_exhaustive()
    }
}
