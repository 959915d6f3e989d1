//! Whether a worker's event loop goes round: when its iteration began, or that it waits. Written by the worker alone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// It waits for events, or has not been started.
const WAITS: u64 = 0;

/// It has ended.
const ENDED: u64 = u64::MAX;

/// Two stores for each iteration, into memory that the worker writes in each iteration anyway.
#[derive(Debug, Default)]
pub(crate) struct Heartbeat(AtomicU64);

/// What a worker's event loop does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoopState {
    /// It waits for events, and will answer them.
    Waiting,
    /// It has been in one iteration for this long.
    Busy(Duration),
    Ended,
}

impl Heartbeat {
    /// An iteration begins at this time since the server was built.
    #[inline]
    pub(crate) fn begin(&self, now: Duration) {
        self.0.store(1 + now.as_millis() as u64, Ordering::Relaxed);
    }

    /// The worker is about to wait for events.
    #[inline]
    pub(crate) fn wait(&self) {
        self.0.store(WAITS, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.0.store(ENDED, Ordering::Relaxed);
    }

    pub(crate) fn state(&self, now: Duration) -> LoopState {
        match self.0.load(Ordering::Relaxed) {
            WAITS => LoopState::Waiting,
            ENDED => LoopState::Ended,
            began => LoopState::Busy(now.saturating_sub(Duration::from_millis(began - 1))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_loop_is_distinguished_from_a_waiting_one() {
        let (beat, at) = (Heartbeat::default(), Duration::from_millis);
        assert_eq!(beat.state(at(9000)), LoopState::Waiting, "not started");
        beat.begin(at(0));
        assert_eq!(beat.state(at(7000)), LoopState::Busy(at(7000)));
        beat.begin(at(100));
        assert_eq!(
            beat.state(at(50)),
            LoopState::Busy(at(0)),
            "a clock that another thread read a little earlier"
        );
        beat.wait();
        assert_eq!(beat.state(at(9000)), LoopState::Waiting);
        beat.end();
        assert_eq!(beat.state(at(9000)), LoopState::Ended);
    }
}
