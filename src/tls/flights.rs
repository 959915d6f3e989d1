//! How many handshakes are under way, over all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts handshakes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flights(Arc<AtomicUsize>);

/// One handshake; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Flight(Arc<AtomicUsize>);

impl Flights {
    pub(crate) fn begin(&self) -> Flight {
        self.0.fetch_add(1, Ordering::Relaxed);
        Flight(self.0.clone())
    }

    pub(crate) fn under_way(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
