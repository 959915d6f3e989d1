//! The consequences of a connection's phase: writing, callbacks, timers, and removal.

use super::Worker;
use super::callbacks;
use super::deadlines::{Due, check_deadlines, ticks};
use super::rates::tick_from;
use super::read::call_handler;
use super::slots::Slot;
use super::wheel::Tick;
use crate::conn::{Cause, Limits, PauseReason, Phase};
use crate::handler::{HandlerEvent, REPLAY_WINDOW, Route, WorkerContext};
use crate::log;
use crate::net::ReadOutcome;
use crate::protocol::{CloseCode, Opcode};
use crate::sink::Sink;
use std::sync::atomic::Ordering;

/// Connections removed in one iteration. This many of their subscriptions count as one more connection. If each was its
/// topic's last, these 32,768 take about 20 ms, which bounds the delay when many connections end at once.
const MAX_REMOVALS: usize = 1024;
const SUBSCRIPTIONS_PER_REMOVAL: usize = 32;

/// Rounds of writing and callbacks, before a connection has to wait for the next iteration.
const MAX_WRITE_ROUNDS: usize = 4;

/// Writes a connection's corked and queued bytes, and reports dropped messages and the end of its backlog to the
/// handler.
#[inline]
pub(crate) fn write_out<S: Sink>(slot: &mut Slot<S>, ctx: &mut WorkerContext, routes: &[Route]) {
    for _ in 0..MAX_WRITE_ROUNDS {
        // Before anything is written: the loss is reported before the message behind it.
        if slot.conn.dropped > 0 && slot.conn.phase == Phase::Open {
            let dropped = core::mem::take(&mut slot.conn.dropped);
            ctx.count().dropped.add(u64::from(dropped));
            call_handler(slot, ctx, &routes[usize::from(slot.conn.route)], HandlerEvent::Dropped(dropped));
        }
        slot.conn.flush(&mut ctx.writer, &mut slot.stream);
        if let Err(e) = slot.stream.flush() {
            slot.conn.write_error = Some(e.kind());
        }
        slot.conn.backlogged |= !slot.stream.is_written_out();
        if let Some(kind) = slot.conn.write_error {
            ctx.writer.clear();
            slot.conn.mark_dead(CloseCode::ABNORMAL, Cause::Transport(kind));
        }
        if slot.conn.phase != Phase::Open {
            return;
        }
        if slot.conn.dropped > 0 {
            continue;
        }
        if !slot.conn.backlogged || !slot.is_written_out() {
            break;
        }
        slot.conn.backlogged = false;
        call_handler(slot, ctx, &routes[usize::from(slot.conn.route)], HandlerEvent::Drain);
    }
    if slot.conn.is_replaying() && slot.buffered() < REPLAY_WINDOW {
        ctx.replays.wake(slot.conn.id);
    }
}

impl Worker {
    /// Writes what a connection was sent, and takes the steps that follow. Called after anything was done with a
    /// connection.
    pub(super) fn write_and_advance(&mut self, at: usize) {
        let Self { slots, ctx, shared, .. } = self;
        let Some(slot) = slots.get_mut(at) else { return };
        write_out(slot, ctx, &shared.routes);
        self.update_held(at);
        self.update_stall(at);
        self.advance(at);
    }

    /// Records since when the backlog has been waiting.
    #[inline]
    fn update_stall(&mut self, at: usize) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        if slot.is_written_out() {
            slot.timestamps.stalled = 0;
        } else if slot.timestamps.stalled == 0 && slot.conn.phase == Phase::Open {
            slot.timestamps.stalled = self.now;
            self.arm_timer(at);
        }
    }

    /// Updates the connection's memory in the server's budget. Above the budget, a connection that needs more is
    /// closed, so the sum can only shrink.
    #[inline]
    fn update_held(&mut self, at: usize) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        let replays = self.ctx.replays.held(&slot.conn, self.ctx.hub.now);
        let held = (slot.held() + replays).min(u32::MAX as usize) as u32;
        if held != slot.counted_bytes {
            self.set_held(at, held);
        }
    }

    fn set_held(&mut self, at: usize, held: u32) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        let before = core::mem::replace(&mut slot.counted_bytes, held);
        let count = &self.ctx.counters[self.ctx.worker];
        count.held_bytes.shift(u64::from(before), u64::from(held));
        let all = || self.ctx.counters.iter().map(|c| c.held_bytes.get()).sum::<u64>();
        if held > before && slot.conn.phase == Phase::Http && all() > self.settings.max_memory {
            count.over_budget.add(1);
            return self.refuse_over_budget(at);
        }
        if held > before && slot.conn.phase == Phase::Open && all() > self.settings.max_memory {
            count.over_budget.add(1);
            let (writer, code) = (&mut self.ctx.writer, CloseCode::TRY_AGAIN_LATER);
            slot.conn.fail(writer, &mut slot.stream, code, "the server is out of memory", Cause::OverBudget);
            slot.conn.decoder.clear(&mut writer.pool);
            slot.conn.flush(writer, &mut slot.stream);
            // Memory that it freed is available to others at once, not when its peer has disconnected.
            let left = slot.held().min(u32::MAX as usize) as u32;
            let held = core::mem::replace(&mut slot.counted_bytes, left);
            count.held_bytes.shift(u64::from(held), u64::from(left));
        }
    }

    /// Advances the phase as far as possible.
    fn advance(&mut self, at: usize) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        let phase = slot.conn.phase;
        match phase {
            Phase::Open => {
                if slot.timestamps.message_began != 0 {
                    let due = slot.timestamps.message_began + ticks(self.limits_of(at).message_timeout);
                    self.wheel.arm_earlier(&mut self.slots, at as u32, due);
                }
                if let Some(due) = self.rate_due(at) {
                    self.wheel.arm_earlier(&mut self.slots, at as u32, due);
                }
                return self.resume(at);
            }
            Phase::Http => return self.continue_response(at),
            Phase::Ending if slot.conn.is_written_out() && slot.stream.send_close_notify() => {
                slot.conn.phase = Phase::Dead;
            }
            Phase::Failing if slot.conn.is_written_out() && slot.stream.send_close_notify() => {
                slot.stream.shutdown_write();
                slot.conn.phase = Phase::Lingering;
            }
            _ => {}
        }
        if slot.conn.phase == Phase::Dead {
            self.mark_closed(at);
            return;
        }
        // A phase that leads to the end has its own deadline.
        if slot.flags.phase != slot.conn.phase as u8 {
            slot.flags.phase = slot.conn.phase as u8;
            if slot.conn.phase != Phase::Deciding {
                let timeout = ticks(self.limits_of(at).close_timeout);
                let due = self.now + timeout;
                let Some(slot) = self.slots.get_mut(at) else { return };
                slot.timestamps.deadline = due;
                let was_paused = !core::mem::take(&mut slot.conn.pauses).is_empty();
                self.wheel.arm(&mut self.slots, at as u32, due);
                // The peer's close frame is awaited; messages before it are not delivered any more.
                if was_paused && phase == Phase::CloseSent {
                    self.read_unread(at);
                }
            }
        }
    }

    pub(super) fn limits_of(&mut self, at: usize) -> Limits {
        let route = self.slots.get_mut(at).map(|s| usize::from(s.conn.route));
        route.and_then(|r| self.shared.routes.get(r)).map_or_else(Limits::default, |r| r.terms.limits)
    }

    /// Continues reading after a pause, first with what was received earlier.
    fn resume(&mut self, at: usize) {
        let now = self.now;
        let Some(slot) = self.slots.get_mut(at).filter(|s| !s.conn.resumed.is_empty() && !s.conn.is_paused())
        else {
            return;
        };
        let resumed = core::mem::take(&mut slot.conn.resumed);
        // We were paused, so the timers restart.
        (slot.timestamps.received, slot.timestamps.message, slot.timestamps.pinged) = (now, now, 0);
        // Not after a pause for the rate: a peer that is paused repeatedly would have unlimited time for one message.
        if slot.timestamps.message_began != 0 && !resumed.is_only(PauseReason::Rate) {
            slot.timestamps.message_began = now;
        }
        self.arm_timer(at);
        self.read_unread(at);
    }

    /// Arms the timer of an open connection for its next deadline.
    pub(super) fn arm_timer(&mut self, at: usize) {
        let limits = self.limits_of(at);
        let Some(slot) = self.slots.get_mut(at) else { return };
        let Due::At(next) = check_deadlines(&slot.timestamps, &limits, slot.conn.pauses, self.now) else {
            return;
        };
        let next = next.min(self.next_app_timer(at));
        self.wheel.arm_earlier(&mut self.slots, at as u32, next);
    }

    /// Returns the tick of the next timer of the application's.
    fn next_app_timer(&mut self, at: usize) -> Tick {
        let is_timed = self.slots.get_mut(at).is_some_and(|s| s.conn.is_timed());
        let due = is_timed.then(|| self.ctx.timers.next_due(at as u32)).flatten();
        due.map_or(Tick::MAX, tick_from)
    }

    /// Arms the timers of connections that have set one of the application's.
    pub(super) fn arm_app_timers(&mut self) {
        for at in self.ctx.timers.take_changed().into_iter().flatten() {
            let due = self.next_app_timer(at as usize);
            if due < Tick::MAX {
                self.wheel.arm_earlier(&mut self.slots, at, due);
            }
        }
    }

    /// Calls the handler of an open connection for its timers that are due. Returns whether it is still open.
    fn run_app_timers(&mut self, at: usize) -> bool {
        let is_open = |slot: &&mut Slot| slot.conn.phase == Phase::Open;
        loop {
            let Self { slots, ctx, shared, .. } = self;
            let Some(slot) = slots.get_mut(at).filter(is_open) else { break };
            let Some(timer) = ctx.timers.take_due(at as u32, ctx.now) else { break };
            call_handler(slot, ctx, &shared.routes[usize::from(slot.conn.route)], HandlerEvent::Timer(timer));
        }
        self.write_and_advance(at);
        self.slots.get_mut(at).filter(is_open).is_some()
    }

    /// Processes input that was received during a pause, or that was too much for one iteration, and then reads from
    /// the kernel.
    pub(super) fn read_unread(&mut self, at: usize) {
        if self.must_wait_to_inflate(at) {
            return self.schedule_read(at);
        }
        let Some(slot) = self.slots.get_mut(at) else { return };
        let mut unread = slot.conn.cold.as_mut().map(|c| core::mem::take(&mut c.unread)).unwrap_or_default();
        slot.conn.drop_empty_cold();
        if !unread.is_empty() {
            self.open_input(at, &mut unread);
            self.write_and_advance(at);
        }
        self.schedule_read(at);
    }

    /// Closes a connection whose peer disconnected or whose socket failed.
    pub(super) fn disconnected(&mut self, at: usize, kind: std::io::ErrorKind) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        slot.conn.mark_dead(CloseCode::ABNORMAL, Cause::Transport(kind));
        self.mark_closed(at);
    }

    /// Closes a connection at once, for a reason of ours.
    pub(super) fn terminate(&mut self, at: usize) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        slot.conn.mark_dead(CloseCode::ABNORMAL, Cause::Terminated);
        self.mark_closed(at);
    }

    fn mark_closed(&mut self, at: usize) {
        if let Some(slot) = self.slots.get_mut(at).filter(|s| !s.flags.closed) {
            slot.conn.phase = Phase::Dead;
            slot.flags.closed = true;
            self.closed_slots.push(at as u32);
        }
    }

    /// Drains the socket so that closing it sends no RST.
    pub(super) fn discard_input(&mut self, at: usize) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        match slot.stream.recv(&mut self.recv) {
            Ok(ReadOutcome::Bytes(n)) if n == self.recv.len() => self.schedule_read(at),
            Ok(ReadOutcome::Bytes(_) | ReadOutcome::WouldBlock) => {}
            // Our last bytes may still be on their way to a peer that only ended its own half.
            Ok(ReadOutcome::Eof) if slot.conn.phase != Phase::Lingering && !slot.is_written_out() => {
                slot.flags.ended = false; // it has been read
            }
            Ok(ReadOutcome::Eof) => self.mark_closed(at),
            Err(e) => self.disconnected(at, e.kind()),
        }
    }

    pub(super) fn run_timers(&mut self) {
        for _ in 0..super::MAX_TIMERS {
            let Some(at) = self.wheel.pop(&mut self.slots, self.now) else { return };
            self.fire_timer(at as usize);
        }
    }

    fn fire_timer(&mut self, at: usize) {
        let limits = self.limits_of(at);
        let now = self.now;
        if self.rate_is_due(at) {
            return;
        }
        let Some(slot) = self.slots.get_mut(at) else { return };
        if slot.conn.is_timed() && slot.conn.phase == Phase::Open && !self.run_app_timers(at) {
            return; // `write_and_advance` has armed the timer of the phase that follows
        }
        let Some(slot) = self.slots.get_mut(at) else { return };
        let next = match slot.conn.phase {
            Phase::Open => match check_deadlines(&slot.timestamps, &limits, slot.conn.pauses, now) {
                Due::At(next) => next,
                Due::Ping => {
                    slot.timestamps.pinged = now + 1; // what was received within this tick was received before the ping
                    slot.conn.control(&mut self.ctx.writer, Opcode::Ping, b"");
                    match check_deadlines(&slot.timestamps, &limits, slot.conn.pauses, now) {
                        Due::At(next) => next,
                        Due::Ping | Due::End(..) => now + 1,
                    }
                }
                Due::End(code, reason, cause) => {
                    self.end_timed_out(at, code, reason, cause);
                    return;
                }
            },
            _ if slot.timestamps.deadline > now => {
                let deadline = slot.timestamps.deadline;
                match self.next_handshake_check(at, deadline) {
                    Some(next) => next,
                    None => return self.phase_timed_out(at),
                }
            }
            _ => return self.phase_timed_out(at),
        };
        let next = next.min(self.next_app_timer(at));
        self.wheel.arm(&mut self.slots, at as u32, next);
        self.write_and_advance(at);
    }

    /// Ends an open connection that has waited too long for something.
    fn end_timed_out(&mut self, at: usize, code: CloseCode, reason: &str, cause: Cause) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        let (writer, stream) = (&mut self.ctx.writer, &mut slot.stream);
        if cause == Cause::IdleTimeout {
            slot.conn.close(writer, stream, code, reason, cause);
        } else {
            slot.conn.fail(writer, stream, code, reason, cause);
        }
        if cause == Cause::PongTimeout {
            // The peer is gone: one attempt to send the close frame, then the socket is closed.
            self.ctx.count().pong_timeouts.add(1);
            self.write_and_advance(at);
            self.mark_closed(at);
        } else {
            self.ctx.count().timeouts.add(1);
            self.write_and_advance(at);
        }
    }

    /// Ends a phase other than open that has lasted too long.
    fn phase_timed_out(&mut self, at: usize) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        self.ctx.count().timeouts.add(1);
        match slot.conn.phase {
            Phase::Http => self.http_timed_out(at),
            Phase::Deciding => self.upgrade_timed_out(at),
            _ => self.mark_closed(at),
        }
    }

    /// Removes closed connections and calls their `close` callbacks, as many as an iteration may.
    pub(super) fn reap_closed(&mut self) {
        while self.removed < MAX_REMOVALS
            && let Some(at) = self.closed_slots.pop()
        {
            self.removed += 1 + self.ctx.hub.index.subscription_count(at) / SUBSCRIPTIONS_PER_REMOVAL;
            self.remove_connection(at as usize);
        }
    }

    fn remove_connection(&mut self, at: usize) {
        let Self { slots, ctx, shared, .. } = self;
        let Some(slot) = slots.get_mut(at) else { return };
        let id = slot.conn.id;
        if slot.state.is_some() {
            let mut end = slot.conn.take_closed();
            end.unsent = end.unsent.saturating_add(ctx.replays.remove(&mut slot.conn));
            log::line!(debug, "{} ended: {end}", slot.conn.id);
            let count = ctx.count();
            count.open.sub(1);
            count.dropped.add(u64::from(end.unsent));
            if end.cause == Cause::SlowConsumer {
                count.slow_consumers.add(1);
            }
            call_handler(slot, ctx, &shared.routes[usize::from(slot.conn.route)], HandlerEvent::Close(&end));
            ctx.writer.clear();
        }
        if slot.conn.is_timed() {
            ctx.timers.remove(at as u32);
        }
        ctx.hub.remove(id);
        self.count_failed_handshake(at);
        self.wheel.disarm(&mut self.slots, at as u32);
        let Some(mut slot) = self.slots.remove(at) else { return };
        // The state is the application's, and so is the code that runs when it is dropped.
        let state = slot.state.take();
        callbacks::catch(self.ctx.count(), format_args!("dropping the state of {id}"), || drop(state));
        slot.conn.release(&mut self.ctx.writer);
        self.ctx.count().held_bytes.sub(u64::from(slot.counted_bytes));
        if slot.flags.shared_fd {
            slot.stream.deregister(self.poll.registry());
        }
        self.ctx.count().sockets.sub(1);
        self.shared.workers[self.ctx.worker].load.fetch_sub(1, Ordering::Relaxed);
        drop::<Slot>(slot);
    }
}
