//! What a worker lends to the connection that it processes: the cork, in which the frames of one iteration are gathered
//! for one write, and spare outboxes and buffers.

use super::{Codecs, Outbox};
use crate::memory::Shrink;
use crate::protocol::buffer::BufferPool;

/// A payload of at least this many bytes is written without a copy, if nothing follows it in this iteration; below, the
/// copy costs less than the longer list of slices that the kernel then has to walk.
const MIN_WRITE_THROUGH: usize = 4 << 10;

/// The cork is written when it holds this much, so that a handler that sends without end holds no memory.
const MAX_CORK: usize = 256 << 10;

/// Bytes of the cork that are never freed.
const KEPT_CORK: usize = 16 << 10;

/// Outboxes kept for reuse: a fan-out to slow subscribers allocates none.
const MAX_OUTBOXES: usize = 4096;

#[derive(Debug)]
pub(crate) struct CorkWriter {
    pub(crate) cork: Vec<u8>,
    /// Bytes at the beginning of the cork that are not messages: a response.
    preamble: usize,
    /// The cork contains replies: what the kernel does not accept of it is never dropped.
    pub(crate) undroppable: bool,
    /// For the [`Sink`](crate::sink::Sink)'s own use.
    pub(crate) scratch: Vec<u8>,
    pub(crate) pool: BufferPool,
    pub(crate) codecs: Codecs,
    /// Boxed, as connections hold them.
    #[allow(clippy::vec_box)]
    outboxes: Vec<Box<Outbox>>,
    /// More input of this iteration is to be decoded: what is sent now can be gathered with what follows.
    pub(crate) more_input: bool,
}

impl CorkWriter {
    pub(crate) fn new(pool_bytes: usize, codecs: Codecs) -> Self {
        Self {
            cork: Vec::new(),
            preamble: 0,
            undroppable: false,
            scratch: Vec::new(),
            pool: BufferPool::new(pool_bytes),
            codecs,
            outboxes: Vec::new(),
            more_input: false,
        }
    }

    /// Whether a payload of this length is to be copied into the cork.
    #[inline]
    pub(crate) fn should_cork(&self, len: usize) -> bool {
        len < MIN_WRITE_THROUGH || self.more_input && self.cork.len() + len <= MAX_CORK
    }

    /// Bytes of messages in the cork.
    #[inline]
    pub(crate) fn corked(&self) -> usize {
        self.cork.len() - self.preamble
    }

    /// Gathers a response.
    pub(crate) fn gather_raw(&mut self, bytes: &[u8]) {
        debug_assert_eq!(self.cork.len(), self.preamble);
        self.cork.extend_from_slice(bytes);
        self.preamble = self.cork.len();
    }

    /// Clears the cork after it was written or dropped.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.cork.clear();
        self.preamble = 0;
        self.undroppable = false;
    }

    /// Takes what was gathered.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        self.preamble = 0;
        core::mem::take(&mut self.cork)
    }

    /// Whether the cork should be written out before anything else is gathered.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.cork.len() > MAX_CORK
    }

    /// Bytes of buffers and outboxes kept for reuse.
    pub(crate) fn spare_bytes(&self) -> usize {
        self.pool.bytes() + self.outboxes.len() * Outbox::SPARE + self.cork.capacity()
    }

    /// Frees half of the spare memory. Nothing may be gathered.
    pub(crate) fn trim(&mut self) {
        self.pool.trim();
        self.outboxes.truncate(self.outboxes.len() / 2);
        self.outboxes.shrink();
        if self.cork.capacity() > KEPT_CORK {
            self.cork.shrink_to(KEPT_CORK);
        }
        self.codecs.trim();
    }

    /// An empty outbox.
    pub(crate) fn outbox(&mut self) -> Box<Outbox> {
        self.outboxes.pop().unwrap_or_default()
    }

    pub(crate) fn reuse(&mut self, mut outbox: Box<Outbox>) {
        if self.outboxes.len() < MAX_OUTBOXES {
            outbox.clear();
            self.outboxes.push(outbox);
        }
    }
}
