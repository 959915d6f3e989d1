//! Logging that neither blocks nor ends a worker: guarded and rate-limited lines for the crate, and a [`Writer`] for the
//! program's log.
//!
//! The crate logs with `tracing`, on the thread that has something to say, which mostly is a worker. What the subscriber
//! does there, the worker's connections wait for: one that writes to a pipe whose reader has stalled holds up all of them.
//! A [`Writer`] between the subscriber and the file takes the waiting, and counts what it could not write.
//!
//! Lines that a peer can cause come at most once a second from each place in the code and each thread, with the number
//! left out in the field `suppressed`; those of the levels debug and trace are not limited. A subscriber that panics loses
//! the line and nothing else. Lost lines are counted in [`Stats::log_lines_lost`](crate::Stats::log_lines_lost).

mod limit;
mod writer;

pub(crate) use limit::LineLimit;
pub use writer::Writer;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::LocalKey;
use std::time::Instant;

/// Lines lost in this process. A log belongs to a process and not to one of its servers.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Lines lost in this process so far.
pub(crate) fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

fn count_lost(lines: u64) {
    LOST.fetch_add(lines, Ordering::Relaxed);
}

/// Runs what logs. The subscriber is the program's: one that prints to a standard error that is gone or full may panic,
/// which would end the worker.
pub(crate) fn guarded(log: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(log)).is_err() {
        count_lost(1);
    }
}

/// Logs if the place's limit admits it; `log` is given the number of lines left out, if there are any.
pub(crate) fn within_limit(
    limit: &'static LocalKey<Cell<LineLimit>>,
    now: Instant,
    log: impl FnOnce(Option<u64>),
) {
    let mut state = limit.get();
    let admitted = state.admit(now);
    limit.set(state);
    if let Some(suppressed) = admitted {
        guarded(|| log((suppressed > 0).then_some(suppressed)));
    }
}

/// Logs a line that no peer can cause, or of a level that nobody turns on for long: `line!(debug, "{id} ended")`.
macro_rules! line {
    ($level:ident, $($message:tt)+) => {
        $crate::log::guarded(|| ::tracing::$level!($($message)+))
    };
}

/// Logs a line that a peer can cause, at most once a second for each place and thread: `limited!(warn, now, "…")`.
macro_rules! limited {
    ($level:ident, $now:expr, $($message:tt)+) => {{
        ::std::thread_local! {
            static LIMIT: ::std::cell::Cell<$crate::log::LineLimit> =
                const { ::std::cell::Cell::new($crate::log::LineLimit::new()) };
        }
        $crate::log::within_limit(&LIMIT, $now, |suppressed| ::tracing::$level!(suppressed, $($message)+));
    }};
}

pub(crate) use {limited, line};

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_panic_in_a_log_subscriber_loses_only_the_line() {
        let before = lost();
        guarded(|| panic!("as eprintln does when standard error is full"));
        assert!(lost() > before);
    }

    #[test]
    fn each_log_place_has_its_own_limit() {
        let now = Instant::now();
        let mut said = Vec::new();
        let mut say = |now: Instant| {
            thread_local! { static ONE: Cell<LineLimit> = const { Cell::new(LineLimit::new()) } }
            within_limit(&ONE, now, |suppressed| said.push(suppressed));
        };
        (0..5).for_each(|_| say(now));
        say(now + Duration::from_secs(1));
        assert_eq!(said, [None, Some(4)]);
        thread_local! { static OTHER: Cell<LineLimit> = const { Cell::new(LineLimit::new()) } }
        let mut other = 0;
        within_limit(&OTHER, now, |_| other += 1);
        assert_eq!(other, 1);
    }
}
