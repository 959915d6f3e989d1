//! The open loop's clock: when each message is due, and a timer that wakes the thread for it.
//!
//! The schedule is fixed when the traffic begins and never waits: a message that could not be sent in time keeps the
//! time at which it was due. epoll's own timeout counts milliseconds, which is too coarse here.

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

/// One thread's schedule.
#[derive(Debug)]
pub(crate) struct Pacer {
    timer: OwnedFd,
    start: u64,
    /// Nanoseconds between two messages of this thread.
    interval: f64,
    /// Messages sent.
    sent: u64,
    /// The next connection to be asked.
    pub(crate) pick: u64,
    /// What the timer is set to.
    armed: Option<u64>,
}

impl Pacer {
    /// So many messages per second.
    pub(crate) fn new(per_second: f64) -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self { timer, start: 0, interval: 1e9 / per_second, sent: 0, pick: 0, armed: None })
    }

    /// For the poll.
    pub(crate) fn timer(&self) -> RawFd {
        self.timer.as_raw_fd()
    }

    /// The traffic begins. Threads begin at different parts of an interval, so that they don't send all at once.
    pub(crate) fn begin(&mut self, now: u64, thread: usize, threads: usize) {
        self.start = now + (self.interval * thread as f64 / threads as f64) as u64;
    }

    /// When the next message is due.
    #[inline]
    pub(crate) fn next(&self) -> u64 {
        self.start + (self.sent as f64 * self.interval) as u64
    }

    /// The next message has been sent.
    #[inline]
    pub(crate) fn advance(&mut self) {
        self.sent += 1;
    }

    /// Sets the timer for the next message.
    pub(crate) fn arm(&mut self, now: u64) -> io::Result<()> {
        let next = self.next();
        if self.armed == Some(next) || next <= now {
            return Ok(());
        }
        let wait = next - now;
        let it_value =
            Timespec { tv_sec: (wait / 1_000_000_000) as i64, tv_nsec: (wait % 1_000_000_000) as i64 };
        let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
        self.armed = Some(next);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pacer_keeps_its_schedule_without_drift() {
        let mut p = Pacer::new(3.0).unwrap();
        p.begin(1_000, 1, 2);
        let first = p.next();
        assert!(first.abs_diff(1_000 + 166_666_666) < 2);
        for _ in 0..3_000_000 {
            p.advance();
        }
        assert!(p.next().abs_diff(first + 1_000_000_000_000_000) < 1_000);
        p.arm(first).unwrap();
    }
}
