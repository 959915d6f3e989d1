//! What plain HTTP keeps of a connection between two reads: half a request, a body on its way, an upgrade that is not
//! decided. Most connections are whole in one read and never have one.

use crate::deflate::Agreed;
use crate::http::{HeadScanner, Params, RequestHead};
use std::io::Read;

/// What HTTP keeps between reads.
#[derive(Default)]
pub(crate) struct Exchange {
    /// The beginning of a request, or requests that came while another was being answered.
    pub(super) buf: Vec<u8>,
    pub(super) scanner: HeadScanner,
    /// Bytes that the whole request has, once its head is known.
    pub(super) need: usize,
    /// A body that is being sent.
    pub(super) body: Option<(Box<dyn Read + Send>, u64)>,
    /// The connection ends with this response.
    pub(super) last: bool,
    /// What the client of an undecided upgrade is to be answered with.
    pub(super) upgrade: Option<Undecided>,
    /// A response that comes later.
    pub(super) waiting: Option<Waiting>,
}

impl Exchange {
    /// Whether nothing in it is needed any more.
    pub(super) fn is_over(&self) -> bool {
        self.buf.is_empty() && self.body.is_none() && self.waiting.is_none() && !self.last
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
