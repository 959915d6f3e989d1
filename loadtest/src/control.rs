//! What the threads of a run share: the phase they are in, the clock, and counters for the progress line.

use mio::Waker;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// A run goes through these in order; `Opening` is left when every connection is open or has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Connections are opened.
    Opening,
    /// Traffic flows and is not counted.
    WarmUp,
    /// Traffic is counted.
    Measuring,
    /// Threads end.
    Ended,
}

/// Shared by all threads of a run.
#[derive(Debug)]
pub(crate) struct Control {
    epoch: Instant,
    phase: AtomicU8,
    workers: Vec<Shared>,
}

/// One worker's part, in cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shared {
    messages: AtomicU64,
    open: AtomicU64,
    errors: AtomicU64,
    /// When that was, and 0 before.
    settled_at: AtomicU64,
    idle: AtomicBool,
    waker: OnceLock<Waker>,
}

/// The sum of all workers' counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Messages so far in this phase.
    pub(crate) messages: u64,
    /// Connections that are open.
    pub(crate) open: u64,
    /// Errors so far.
    pub(crate) errors: u64,
    /// Every connection has opened or failed.
    pub(crate) settled: bool,
    /// No worker has any connection left.
    pub(crate) idle: bool,
}

impl Control {
    /// For so many workers; the clock starts.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            epoch: Instant::now(),
            phase: AtomicU8::new(Phase::Opening as u8),
            workers: std::iter::repeat_with(Shared::default).take(workers).collect(),
        }
    }

    /// Nanoseconds since the clock was started.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// The same, of a reading that was taken.
    #[inline]
    pub(crate) fn since(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_nanos() as u64
    }

    /// How many workers there are.
    pub(crate) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Where the run is.
    #[inline]
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Opening,
            1 => Phase::WarmUp,
            2 => Phase::Measuring,
            _ => Phase::Ended,
        }
    }

    /// Takes the run to its next phase; it never goes back.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Relaxed);
        for i in 0..self.workers.len() {
            self.wake(i);
        }
    }

    /// Wakes a worker from its wait.
    pub(crate) fn wake(&self, worker: usize) {
        if let Some(waker) = self.workers[worker].waker.get() {
            // An eventfd that is full is one that wakes.
            let _ = waker.wake();
        }
    }

    /// Called by each worker once, before anything else.
    pub(crate) fn set_waker(&self, worker: usize, waker: Waker) {
        let _ = self.workers[worker].waker.set(waker);
    }

    /// A worker's counters, once a turn.
    pub(crate) fn publish(&self, worker: usize, progress: Progress) {
        let shared = &self.workers[worker];
        shared.messages.store(progress.messages, Relaxed);
        shared.open.store(progress.open, Relaxed);
        shared.errors.store(progress.errors, Relaxed);
        if progress.settled && shared.settled_at.load(Relaxed) == 0 {
            shared.settled_at.store(self.now().max(1), Relaxed);
        }
        shared.idle.store(progress.idle, Relaxed);
    }

    /// How long it took until every connection was open or had failed, in nanoseconds.
    pub(crate) fn settled_after(&self) -> u64 {
        self.workers.iter().map(|w| w.settled_at.load(Relaxed)).max().unwrap_or(0)
    }

    /// The sum of the workers' counters.
    pub(crate) fn progress(&self) -> Progress {
        let mut sum = Progress { settled: true, idle: true, ..Progress::default() };
        for w in &self.workers {
            sum.messages += w.messages.load(Relaxed);
            sum.open += w.open.load(Relaxed);
            sum.errors += w.errors.load(Relaxed);
            sum.settled &= w.settled_at.load(Relaxed) > 0;
            sum.idle &= w.idle.load(Relaxed);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_only_go_forward() {
        let c = Control::new(1);
        c.enter(Phase::Measuring);
        c.enter(Phase::WarmUp);
        assert_eq!(c.phase(), Phase::Measuring);
        c.enter(Phase::Ended);
        assert_eq!(c.phase(), Phase::Ended);
    }

    #[test]
    fn progress_is_summed_and_settled_when_all_workers_are() {
        let c = Control::new(2);
        c.publish(0, Progress { messages: 3, open: 1, errors: 0, settled: true, idle: false });
        assert!(!c.progress().settled);
        c.publish(1, Progress { messages: 4, open: 2, errors: 1, settled: true, idle: true });
        assert_eq!(c.progress(), Progress { messages: 7, open: 3, errors: 1, settled: true, idle: false });
    }
}
