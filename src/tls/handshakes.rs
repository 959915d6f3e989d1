//! How many handshakes are under way, over all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts handshakes.
#[derive(Clone, Debug, Default)]
pub(crate) struct HandshakeCounter(Arc<AtomicUsize>);

/// One handshake; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct HandshakeGuard(Arc<AtomicUsize>);

impl HandshakeCounter {
    pub(crate) fn begin(&self) -> HandshakeGuard {
        self.0.fetch_add(1, Ordering::Relaxed);
        HandshakeGuard(self.0.clone())
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for HandshakeGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
