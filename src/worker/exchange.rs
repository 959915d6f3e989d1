//! What plain HTTP keeps of a connection between two reads: half a request, a body on its way, an upgrade that is not
//! decided. Most connections are whole in one read and never have one.

use crate::deflate::Agreed;
use crate::handler::Turn;
use crate::http::{HeadScanner, Params, RequestHead};
use crate::metrics::Counters;
use crossbeam_utils::CachePadded;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// What HTTP keeps between reads.
#[derive(Default)]
pub(crate) struct Exchange {
    /// The beginning of a request, or requests that came while another was being answered.
    pub(super) buf: Vec<u8>,
    pub(super) scanner: HeadScanner,
    /// Bytes that the whole request has, once its head is known.
    pub(super) need: usize,
    /// A body that is being sent.
    pub(super) body: Option<(Reader, u64)>,
    /// The connection ends with this response.
    pub(super) last: bool,
    /// What the client of an undecided upgrade is to be answered with.
    pub(super) upgrade: Option<Undecided>,
    /// A response that comes later.
    pub(super) waiting: Option<Waiting>,
}

impl Exchange {
    /// Bytes of memory that hold requests.
    pub(super) fn held(&self) -> usize {
        self.buf.capacity()
    }

    /// Whether nothing in it is needed any more.
    pub(super) fn is_over(&self) -> bool {
        self.buf.is_empty() && self.body.is_none() && self.waiting.is_none() && !self.last
    }
}

/// The application's reader of a body. It is dropped with whatever of its connection ends first; a panic in that is counted
/// and ends nothing.
pub(super) struct Reader {
    /// Until it is dropped.
    reader: Option<Box<dyn Read + Send>>,
    counters: Arc<[CachePadded<Counters>]>,
    worker: usize,
}

impl Reader {
    pub(super) fn new(reader: Box<dyn Read + Send>, turn: &Turn) -> Self {
        Self { reader: Some(reader), counters: turn.counters.clone(), worker: turn.worker }
    }

    /// Reads. A panic is an error, and counted.
    pub(super) fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        let Some(reader) = &mut self.reader else { return Ok(0) };
        catch_unwind(AssertUnwindSafe(|| reader.read(piece))).unwrap_or_else(|_| {
            self.counters[self.worker].panics.add(1);
            Err(io::ErrorKind::Other.into())
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let reader = self.reader.take();
        if catch_unwind(AssertUnwindSafe(|| drop(reader))).is_err() {
            self.counters[self.worker].panics.add(1);
        }
    }
}

/// What a request asks of its response.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    /// It was a HEAD.
    pub(super) head_only: bool,
    /// Others may follow.
    pub(super) keep_alive: bool,
}

impl Asked {
    pub(super) fn by(head: &RequestHead<'_>) -> Self {
        Self { head_only: head.method() == "HEAD", keep_alive: head.keep_alive() }
    }
}

/// A request whose response comes later.
pub(super) struct Waiting {
    /// Which of the worker's: an answer that comes too late is not the next request's.
    pub(super) number: u64,
    pub(super) asked: Asked,
}

/// What the request for an upgrade came to.
pub(super) struct Upgrade {
    /// The answer to the client's key.
    pub(super) accept: String,
    pub(super) route: u16,
    pub(super) params: Params,
    pub(super) agreed: Option<Agreed>,
}

/// An upgrade that a handler decides on another thread.
pub(super) struct Undecided {
    pub(super) upgrade: Upgrade,
    /// The subprotocols that the client offered.
    pub(super) offered: Vec<Box<str>>,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("buf", &self.buf.len()).finish_non_exhaustive()
    }
}
