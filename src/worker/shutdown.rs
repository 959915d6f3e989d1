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

/// A shutdown in progress.
pub(super) struct Shutdown {
    pub(super) deadline: Instant,
    code: CloseCode,
    /// Connections are closed at this time in any case.
    close_by: Instant,
    /// The last step that this worker has announced.
    announced: Option<ShutdownStep>,
    /// Connections have been closed.
    closing: bool,
    /// Connections to be closed when their replays have ended.
    replaying: Vec<ConnId>,
    /// Sockets that became readable meanwhile.
    unread: Vec<u32>,
}

impl Shutdown {
    /// Returns whether an open connection may still wait to be closed.
    fn defers_reads(&self) -> bool {
        !self.closing || !self.replaying.is_empty()
    }
}

impl Worker {
    pub(super) fn shut_down(&mut self, code: CloseCode, deadline: Instant) {
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        let close_by = now + left / CLOSE_PART;
        if let Some(stopping) = &mut self.stopping {
            stopping.deadline = stopping.deadline.min(deadline);
            stopping.close_by = stopping.close_by.min(close_by);
            return;
        }
        log::line!(
            info,
            "worker {} shuts down: {} connections have {left:.1?}",
            self.ctx.worker,
            self.slots.len()
        );
        self.sources.close_listeners();
        let (announced, closing, replaying, unread) = (None, false, Vec::new(), Vec::new());
        self.stopping = Some(Shutdown { deadline, code, close_by, announced, closing, replaying, unread });
    }

    /// Returns whether this readable connection is not read yet, because the shutdown waits for the workers' steps or
    /// for replays.
    pub(super) fn defer_read(&mut self, at: usize) -> bool {
        match &mut self.stopping {
            Some(stopping) if stopping.defers_reads() => {
                stopping.unread.push(at as u32);
                true
            }
            _ => false,
        }
    }

    /// Returns whether connections are closing: a message published now would reach nobody.
    pub(super) fn refuses_publications(&self) -> bool {
        let stopping = self.stopping.as_ref();
        stopping.is_some_and(|s| s.closing || s.announced == Some(ShutdownStep::Delivered))
    }

    /// Returns whether connections have been told to close.
    pub(super) fn is_closing(&self) -> bool {
        self.stopping.as_ref().is_some_and(|s| s.closing)
    }

    /// Returns how long the event loop may wait during a shutdown.
    pub(super) fn shutdown_timeout(&self) -> Option<Duration> {
        let stopping = self.stopping.as_ref()?;
        let until = if stopping.defers_reads() {
            stopping.deadline.min(stopping.close_by)
        } else {
            stopping.deadline
        };
        Some(until.saturating_duration_since(Instant::now()))
    }

    /// Records that another worker has finished a step.
    pub(super) fn shutdown_step_done(&mut self, worker: usize, step: ShutdownStep) {
        if let Some(settled) = self.shutdown_steps.get_mut(worker) {
            *settled = (*settled).max(Some(step));
        }
    }

    /// Returns whether all others have finished a step.
    fn all_done(&self, step: ShutdownStep) -> bool {
        let mut others =
            self.shutdown_steps.iter().enumerate().filter(|(worker, _)| *worker != self.ctx.worker);
        others.all(|(_, settled)| *settled >= Some(step))
    }

    /// Continues a shutdown, at the end of an iteration.
    pub(super) fn continue_shutdown(&mut self) {
        let Some(stopping) = &self.stopping else { return };
        if stopping.closing {
            return self.close_after_replay();
        }
        let (late, mut announced) = (stopping.close_by <= Instant::now(), stopping.announced);
        let idle = self.ctx.hub.batch_log.is_empty();
        if announced.is_none() && idle && self.ctx.hub.has_published_all() {
            announced = self.announce_step(ShutdownStep::Published);
        }
        if announced == Some(ShutdownStep::Published)
            && idle
            && self.all_done(ShutdownStep::Published)
            && self.ctx.hub.has_delivered_all()
        {
            announced = self.announce_step(ShutdownStep::Delivered);
        }
        let settled = announced == Some(ShutdownStep::Delivered) && self.all_done(ShutdownStep::Delivered);
        if settled || late {
            if !settled {
                log::line!(warn, "worker {}: not all workers have settled in time, closing", self.ctx.worker);
            }
            self.close_all(late);
        }
    }

    fn announce_step(&mut self, step: ShutdownStep) -> Option<ShutdownStep> {
        let me = self.ctx.worker;
        for worker in (0..self.shutdown_steps.len()).filter(|worker| *worker != me) {
            let command = Command::ShutdownStepDone(me as u16, step);
            if self.ctx.handle.command_worker(worker, command, true).is_err() {
                // It has ended, and needs nothing more.
                self.shutdown_steps[worker] = Some(ShutdownStep::Delivered);
                self.ctx.hub.forget_worker(worker);
            }
        }
        if let Some(stopping) = &mut self.stopping {
            stopping.announced = Some(step);
        }
        Some(step)
    }

    fn close_all(&mut self, late: bool) {
        let Some(stopping) = &mut self.stopping else { return };
        stopping.closing = true;
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
    fn close_after_replay(&mut self) {
        let Some(stopping) = self.stopping.as_mut().filter(|s| !s.replaying.is_empty()) else { return };
        let (late, mut replaying) =
            (stopping.close_by <= Instant::now(), core::mem::take(&mut stopping.replaying));
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
        let Some(stopping) = &mut self.stopping else { return };
        stopping.replaying = replaying;
        if !stopping.defers_reads() {
            let unread = core::mem::take(&mut stopping.unread);
            unread.into_iter().for_each(|at| self.schedule_read(at as usize));
        }
    }

    fn close_for_shutdown(&mut self, at: usize) {
        let Some(code) = self.stopping.as_ref().map(|s| s.code) else { return };
        self.close(at, code, "the server shuts down", Cause::Shutdown);
        self.write_and_advance(at);
        self.schedule_read(at); // it may have become readable before
    }
}
