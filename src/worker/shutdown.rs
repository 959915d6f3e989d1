//! The shutdown of a server: messages published before are delivered on every worker, then connections are closed.
//!
//! ```text
//!  Shutdown ─▶ nothing is read from connections
//!      publications of this worker have been sent to the topics' owners  ─ ShutdownStepDone(Published) ─▶ all workers
//!      all workers have done so, and batches owned here have been sent   ─ ShutdownStepDone(Delivered) ─▶ all workers
//!      all workers have done so                                          ─▶ close frames, and reading again
//! ```
//! A connection that replays gets the rest of its replay first, within the same time: after a restart the history is
//! lost.
//!
//! A mailbox preserves each sender's order, so everything sent before a step has been received when the step is.

use super::Worker;
use crate::conn::{Cause, ConnId, Phase};
use crate::handler::{Command, ShutdownStep};
use crate::log;
use crate::protocol::CloseCode;
use std::time::{Duration, Instant};

/// The fraction of the time until the deadline after which connections are closed although a worker has not finished
/// its steps.
const CLOSE_PART: u32 = 2;

/// The shutdown of a worker, in progress or not. Pure: time is an argument.
#[derive(Debug)]
pub(super) struct ShutdownState {
    /// The number of this worker.
    worker: usize,
    /// The steps that the workers have finished. Others may begin before this one does.
    steps: Box<[Option<ShutdownStep>]>,
    current: Option<Shutdown>,
}

/// A shutdown in progress.
#[derive(Debug)]
struct Shutdown {
    deadline: Instant,
    code: CloseCode,
    /// Connections are closed at this time in any case.
    close_by: Instant,
    /// Connections have been closed.
    closing: bool,
    /// Connections to be closed when their replays have ended.
    replaying: Vec<ConnId>,
    /// Sockets that became readable meanwhile.
    unread: Vec<u32>,
}

/// What a worker does next in its shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// It tells the other workers that it has finished this step.
    Announce(ShutdownStep),
    /// It closes its connections, because all workers have finished.
    Close,
    /// It closes its connections, because the time is over.
    CloseLate,
    /// It closes connections whose replays have ended.
    CloseReplayed,
    /// Nothing in this iteration.
    Wait,
}

impl Shutdown {
    /// Returns whether an open connection may still wait to be closed.
    const fn defers_reads(&self) -> bool {
        !self.closing || !self.replaying.is_empty()
    }
}

impl ShutdownState {
    pub(super) fn new(worker: usize, workers: usize) -> Self {
        Self { worker, steps: vec![None; workers].into(), current: None }
    }

    /// Begins the shutdown. Returns `false` if one is in progress, which may end earlier now.
    fn begin(&mut self, code: CloseCode, now: Instant, deadline: Instant) -> bool {
        let close_by = now + deadline.saturating_duration_since(now) / CLOSE_PART;
        if let Some(current) = &mut self.current {
            current.deadline = current.deadline.min(deadline);
            current.close_by = current.close_by.min(close_by);
            return false;
        }
        let (closing, replaying, unread) = (false, Vec::new(), Vec::new());
        self.current = Some(Shutdown { deadline, code, close_by, closing, replaying, unread });
        true
    }

    pub(super) const fn has_begun(&self) -> bool {
        self.current.is_some()
    }

    /// Returns whether this readable connection is not read yet, because the shutdown waits for the workers' steps or
    /// for replays.
    pub(super) fn defer_read(&mut self, at: usize) -> bool {
        match &mut self.current {
            Some(current) if current.defers_reads() => {
                current.unread.push(at as u32);
                true
            }
            _ => false,
        }
    }

    /// Returns whether connections are closing: a message published now would reach nobody.
    pub(super) fn refuses_publications(&self) -> bool {
        self.is_closing() || self.announced() == Some(ShutdownStep::Delivered)
    }

    /// Returns whether connections have been told to close.
    fn is_closing(&self) -> bool {
        self.current.as_ref().is_some_and(|s| s.closing)
    }

    /// Returns whether the worker ends: its connections are closed, or the time is over.
    pub(super) fn has_ended(&self, now: Instant, connections: usize) -> bool {
        self.current.as_ref().is_some_and(|s| s.closing && connections == 0 || s.deadline <= now)
    }

    /// Returns how long the event loop may wait during a shutdown.
    pub(super) fn timeout(&self, now: Instant) -> Option<Duration> {
        let current = self.current.as_ref()?;
        let until = match current.defers_reads() {
            true => current.deadline.min(current.close_by),
            false => current.deadline,
        };
        Some(until.saturating_duration_since(now))
    }

    /// Records that a worker has finished a step.
    pub(super) fn step_done(&mut self, worker: usize, step: ShutdownStep) {
        if let Some(done) = self.steps.get_mut(worker) {
            *done = (*done).max(Some(step));
        }
    }

    /// Returns the last step that this worker has announced.
    fn announced(&self) -> Option<ShutdownStep> {
        self.current.as_ref().and(self.steps[self.worker])
    }

    /// Returns the numbers of the other workers.
    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let worker = self.worker;
        (0..self.steps.len()).filter(move |other| *other != worker)
    }

    /// Returns whether all other workers have finished a step.
    fn all_done(&self, step: ShutdownStep) -> bool {
        self.others().all(|other| self.steps[other] >= Some(step))
    }

    /// Returns what to do, if this worker has sent its publications to their owners or not, and its batches to the
    /// workers with subscribers or not.
    fn next(&self, now: Instant, published: bool, delivered: bool) -> Next {
        let Some(current) = &self.current else { return Next::Wait };
        if current.closing {
            return Next::CloseReplayed;
        }
        match self.announced() {
            None if published => Next::Announce(ShutdownStep::Published),
            Some(ShutdownStep::Published) if delivered && self.all_done(ShutdownStep::Published) => {
                Next::Announce(ShutdownStep::Delivered)
            }
            Some(ShutdownStep::Delivered) if self.all_done(ShutdownStep::Delivered) => Next::Close,
            _ if current.close_by <= now => Next::CloseLate,
            _ => Next::Wait,
        }
    }

    /// Records that connections are being closed.
    fn begin_closing(&mut self) {
        if let Some(current) = &mut self.current {
            current.closing = true;
        }
    }

    /// Takes the connections that are closed after their replays, and returns whether the time for these is over.
    fn take_replaying(&mut self, now: Instant) -> (Vec<ConnId>, bool) {
        let Some(current) = &mut self.current else { return (Vec::new(), false) };
        (core::mem::take(&mut current.replaying), current.close_by <= now)
    }

    /// Waits for these replays. Returns the connections to read from, if nothing waits any more.
    fn wait_for_replays(&mut self, replaying: Vec<ConnId>) -> Vec<u32> {
        let Some(current) = &mut self.current else { return Vec::new() };
        current.replaying = replaying;
        match current.defers_reads() {
            true => Vec::new(),
            false => core::mem::take(&mut current.unread),
        }
    }
}

impl Worker {
    pub(super) fn shut_down(&mut self, code: CloseCode, deadline: Instant) {
        let now = Instant::now();
        if self.shutdown.begin(code, now, deadline) {
            let (left, open) = (deadline.saturating_duration_since(now), self.slots.len());
            log::line!(info, "worker {} shuts down: {open} connections have {left:.1?}", self.ctx.worker);
            self.sources.close_listeners();
        }
    }

    /// Continues a shutdown, at the end of an iteration.
    pub(super) fn continue_shutdown(&mut self) {
        if !self.shutdown.has_begun() {
            return;
        }
        let now = Instant::now();
        loop {
            let hub = &self.ctx.hub;
            let idle = hub.batch_log.is_empty();
            match self.shutdown.next(now, idle && hub.has_published_all(), idle && hub.has_delivered_all()) {
                Next::Announce(step) => self.announce_step(step),
                Next::Close => return self.close_all(false),
                Next::CloseLate => {
                    log::line!(
                        warn,
                        "worker {}: not all workers have settled in time, closing",
                        self.ctx.worker
                    );
                    return self.close_all(true);
                }
                Next::CloseReplayed => return self.close_after_replay(now),
                Next::Wait => return,
            }
        }
    }

    fn announce_step(&mut self, step: ShutdownStep) {
        let me = self.ctx.worker;
        for worker in self.shutdown.others() {
            let command = Command::ShutdownStepDone(me as u16, step);
            if self.ctx.handle.command_worker(worker, command, true).is_err() {
                // It has ended, and needs nothing more.
                self.shutdown.step_done(worker, ShutdownStep::Delivered);
                self.ctx.hub.forget_worker(worker);
            }
        }
        self.shutdown.step_done(me, step);
    }

    fn close_all(&mut self, late: bool) {
        self.shutdown.begin_closing();
        let mut replaying = Vec::new();
        for at in self.slots.keys() {
            match self.slots.get_mut(at).map(|s| (s.conn.phase, s.conn.is_replaying(), s.conn.id)) {
                Some((Phase::Open, true, id)) if !late => replaying.push(id),
                Some((Phase::Open, ..)) => self.close_for_shutdown(at),
                Some((Phase::Http | Phase::Deciding, ..)) => self.http_shutdown(at),
                _ => {}
            }
        }
        self.wait_for_replays(replaying);
    }

    /// Closes connections whose replays have ended, and all of them when the time is over.
    fn close_after_replay(&mut self, now: Instant) {
        let (mut replaying, late) = self.shutdown.take_replaying(now);
        if replaying.is_empty() {
            return;
        }
        replaying.retain(|id| {
            let Some(slot) = self.slots.find_mut(*id).filter(|s| s.conn.phase == Phase::Open) else {
                return false;
            };
            let waits = slot.conn.is_replaying() && !late;
            if !waits {
                self.close_for_shutdown(id.slot());
            }
            waits
        });
        self.wait_for_replays(replaying);
    }

    fn wait_for_replays(&mut self, replaying: Vec<ConnId>) {
        for at in self.shutdown.wait_for_replays(replaying) {
            self.schedule_read(at as usize);
        }
    }

    fn close_for_shutdown(&mut self, at: usize) {
        let Some(code) = self.shutdown.current.as_ref().map(|s| s.code) else { return };
        self.close(at, code, "the server shuts down", Cause::Shutdown);
        self.write_and_advance(at);
        self.schedule_read(at); // it may have become readable before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ShutdownStep::{Delivered, Published};

    const HOUR: Duration = Duration::from_secs(3600);

    /// Worker 0 of three, told to shut down within an hour.
    fn begun() -> (ShutdownState, Instant) {
        let (mut state, now) = (ShutdownState::new(0, 3), Instant::now());
        assert!(state.begin(CloseCode::GOING_AWAY, now, now + HOUR));
        (state, now)
    }

    #[test]
    fn steps_are_announced_in_order_and_connections_closed_when_all_workers_have_finished() {
        let (mut state, now) = begun();
        assert_eq!(state.next(now, false, false), Next::Wait);
        assert_eq!(state.next(now, true, true), Next::Announce(Published));
        state.step_done(0, Published);
        state.step_done(1, Published);
        assert_eq!(state.next(now, true, true), Next::Wait, "worker 2 has not");
        state.step_done(2, Delivered);
        assert_eq!(state.next(now, true, false), Next::Wait, "own batches wait");
        assert!(!state.refuses_publications());
        assert_eq!(state.next(now, true, true), Next::Announce(Delivered));
        state.step_done(0, Delivered);
        assert!(state.refuses_publications());
        assert_eq!(state.next(now, true, true), Next::Wait);
        state.step_done(1, Delivered);
        assert_eq!(state.next(now, true, true), Next::Close);
    }

    #[test]
    fn a_step_of_another_worker_counts_before_the_shutdown_begins_here() {
        let (mut state, now) = (ShutdownState::new(1, 2), Instant::now());
        state.step_done(0, Published);
        assert!(!state.has_begun() && state.next(now, true, true) == Next::Wait);
        assert!(state.begin(CloseCode::GOING_AWAY, now, now + HOUR));
        state.step_done(0, Delivered);
        state.step_done(0, Published); // steps are never undone
        state.step_done(1, Published);
        assert_eq!(state.next(now, true, true), Next::Announce(Delivered));
        state.step_done(1, Delivered);
        assert_eq!(state.next(now, true, true), Next::Close);
    }

    #[test]
    fn connections_are_closed_after_half_of_the_time_and_a_second_shutdown_shortens_it() {
        let (mut state, now) = begun();
        assert_eq!(state.timeout(now), Some(HOUR / 2));
        assert_eq!(state.next(now + HOUR / 2, false, false), Next::CloseLate);
        assert!(!state.begin(CloseCode::NORMAL, now, now + HOUR / 2));
        assert_eq!(state.timeout(now), Some(HOUR / 4));
        assert!(!state.begin(CloseCode::NORMAL, now, now + HOUR), "a later end changes nothing");
        assert_eq!(state.timeout(now), Some(HOUR / 4));
        assert!(!state.has_ended(now + HOUR / 2 - Duration::from_nanos(1), 1));
        assert!(state.has_ended(now + HOUR / 2, 1));
    }

    #[test]
    fn reads_are_deferred_until_connections_are_closed_and_replays_have_ended() {
        let (mut state, now) = begun();
        assert!(state.defer_read(7) && !state.has_ended(now, 0));
        state.begin_closing();
        assert!(state.refuses_publications() && state.next(now, true, true) == Next::CloseReplayed);
        let id = ConnId::new(0, 3, 1);
        assert!(state.wait_for_replays(vec![id]).is_empty());
        assert!(state.defer_read(3));
        assert_eq!(state.take_replaying(now), (vec![id], false));
        assert_eq!(state.wait_for_replays(Vec::new()), [7, 3]);
        assert!(!state.defer_read(3));
        assert_eq!(state.timeout(now), Some(HOUR));
        assert!(!state.has_ended(now, 1) && state.has_ended(now, 0));
    }
}
