//! Runs the application's code on a worker. A panic is counted, logged with its place and ends nothing else. Code that holds
//! the worker for long is logged with its place and time, because all other connections of the worker wait meanwhile.

use crate::log;
use crate::metrics::Counters;
use core::fmt;
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Runs code of the application; `None` if it panicked.
pub(super) fn catch<R>(count: &Counters, place: fmt::Arguments<'_>, act: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(act)).map_err(|payload| report_panic(count, place, payload)).ok()
}

/// Counts and logs a panic of the application's code.
#[cold]
pub(super) fn report_panic(count: &Counters, place: fmt::Arguments<'_>, payload: Box<dyn Any + Send>) {
    count.panics.add(1);
    log::limited!(warn, Instant::now(), "{place} panicked: {}", panic_message(&*payload));
    std::mem::forget(payload); // dropping it may panic
}

pub(super) fn panic_message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a payload that is no text")
}

/// Measures how long the application's code holds the worker. The clock is coarse: it is late by up to 4 ms and takes a
/// fifth of the time of the exact one.
#[derive(Clone, Copy)]
pub(super) struct Stopwatch(Timespec);

impl Stopwatch {
    #[inline]
    pub(super) fn start() -> Self {
        Self(clock_gettime(ClockId::MonotonicCoarse))
    }

    /// Logs if more than `limit` has passed. A limit of zero logs nothing.
    #[inline]
    pub(super) fn report(self, limit: Duration, place: fmt::Arguments<'_>) {
        let now = clock_gettime(ClockId::MonotonicCoarse);
        // Both are of one clock that does not go back, in whole seconds first.
        let seconds = now.tv_sec - self.0.tv_sec;
        let lasted = seconds * 1_000_000_000 + (now.tv_nsec - self.0.tv_nsec);
        if lasted as u128 > limit.as_nanos() {
            report_slow(lasted as u64, limit, place);
        }
    }
}

#[cold]
fn report_slow(lasted: u64, limit: Duration, place: fmt::Arguments<'_>) {
    if limit.is_zero() {
        return;
    }
    let lasted = Duration::from_nanos(lasted);
    log::limited!(
        warn,
        Instant::now(),
        "{place} held the worker for {lasted:.1?}, at most {limit:?} is expected: its other connections waited; give long \
         work to another thread"
    );
}
