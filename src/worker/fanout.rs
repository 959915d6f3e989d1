//! The end of a turn: what was published goes to everybody it is for.

use super::Worker;
use super::slots::{Slot, Slots};
use crate::conn::{Frames, Phase, Sink};
use crate::handler::{Command, Context, Route, Turn};
use crate::hub::Run;

use crate::protocol::Key;
use std::ops::Range;
use tracing::warn;

impl Worker {
    /// Delivers until nothing is left to deliver: a connection that ends here may publish its leaving.
    pub(super) fn fan_out(&mut self) {
        loop {
            self.send_away();
            if !self.turn.hub.log.is_empty() {
                let Self { slots, turn, shared, dirty, .. } = self;
                deliver(slots, turn, &shared.routes, dirty);
            }
            self.turn.hub.end_turn();
            self.turn.number = self.turn.number.wrapping_add(1).max(1);
            self.write_dirty();
            if self.doomed.is_empty() {
                return;
            }
            self.sweep();
        }
    }

    /// What other workers are to order or to deliver.
    fn send_away(&mut self) {
        let Self { turn, .. } = self;
        let (handle, me, workers) = (&turn.handle, turn.worker, turn.counters.len());
        let lost = std::cell::Cell::new(0);
        let send = |worker: usize, command: Command| {
            if let Err(e) = handle.command_worker(worker, command, false) {
                lost.set(lost.get() + 1);
                warn!("worker {worker} gets nothing from worker {me}: {e}");
            }
        };
        turn.hub.outgoing(
            |home, publications| send(home, Command::Publish(publications)),
            |delivery| {
                for worker in (0..workers).filter(|w| *w != me) {
                    send(worker, Command::Deliver(delivery.clone()));
                }
            },
        );
        if lost.get() > 0 {
            turn.counters[me].mailbox_full.add(lost.get());
        }
    }

    /// Writes what was queued in this turn.
    pub(super) fn write_dirty(&mut self) {
        let mut dirty = core::mem::take(&mut self.dirty);
        for at in dirty.drain(..) {
            if let Some(slot) = self.slots.get(at as usize) {
                slot.marks.dirty = false;
                self.after(at as usize);
            }
        }
        // What `after` marked in the meantime comes behind.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    /// Has the rest done at the end of the next turn.
    pub(super) fn dirty_later(&mut self, at: usize) {
        if let Some(slot) = self.slots.get(at) {
            mark_dirty(slot, at as u32, &mut self.dirty);
        }
    }

    /// Queues a frame for one connection, to be written at the end of the turn.
    pub(super) fn queue(&mut self, at: usize, frames: &Frames, key: Option<Key>) {
        let Self { slots, turn, shared, dirty, .. } = self;
        let Some(slot) = slots.get(at).filter(|s| s.conn.phase == Phase::Open) else { return };
        let route = &shared.routes[usize::from(slot.conn.route)];
        if !turn.hub.log.is_empty() {
            // What one thread published before it sent comes before.
            Context { conn: &mut slot.conn, turn, sink: &mut slot.stream, route }.catch_up();
        }
        push(slot, turn, route, frames, 0..frames.len(), key);
        turn.count().messages_out.add(1);
        mark_dirty(slot, at as u32, dirty);
    }
}

/// Gives every run to its subscribers: straight to the socket where nothing waits, else to the backlog; the slots
/// with a backlog to write are noted in `dirty`.
pub(crate) fn deliver<S: Sink>(
    slots: &mut Slots<S>,
    turn: &mut Turn,
    routes: &[Route],
    dirty: &mut Vec<u32>,
) {
    let mut runs = turn.hub.log.take_runs();
    let alone = runs.len() == 1;
    let mut deliveries = 0;
    for run in &mut runs {
        let subscribers = turn.hub.index.take_subscribers(run.topic);
        deliveries += subscribers.len() as u64 * u64::from(run.messages());
        for subscriber in &subscribers {
            let Some(slot) = slots.get(subscriber.slot as usize) else { continue };
            if alone && !run.selective && slot.conn.takes_directly(turn.number) {
                // The usual case: the shared bytes, straight to the socket.
                match slot.stream.write(run.bytes(), &mut turn.writer.scratch) {
                    Ok(n) if n == run.bytes().len() => {
                        if !slot.stream.is_written_out() {
                            mark_dirty(slot, subscriber.slot, dirty);
                        }
                    }
                    Ok(n) => {
                        let (frames, range) = (run.share(), 0..run.bytes().len());
                        let Route { limits, slow_consumer, .. } = &routes[usize::from(slot.conn.route)];
                        let (writer, sink) = (&mut turn.writer, &mut slot.stream);
                        let _ = slot.conn.wait_run(
                            writer,
                            sink,
                            &frames,
                            range,
                            n,
                            run.key,
                            limits,
                            *slow_consumer,
                        );
                        mark_dirty(slot, subscriber.slot, dirty);
                    }
                    Err(e) => {
                        slot.conn.broken = Some(e.kind());
                        mark_dirty(slot, subscriber.slot, dirty);
                    }
                }
            } else if slot.conn.phase == Phase::Open {
                let route = &routes[usize::from(slot.conn.route)];
                push_part(slot, turn, route, run);
                mark_dirty(slot, subscriber.slot, dirty);
            }
        }
        turn.hub.index.put_back(run.topic, subscribers);
    }
    turn.count().deliveries.add(deliveries);
    turn.hub.log.put_back(runs);
}

/// What of a run is for this connection and has not been given to it yet.
fn push_part<S: Sink>(slot: &mut Slot<S>, turn: &mut Turn, route: &Route, run: &mut Run) {
    let from = slot.conn.position(turn.number);
    let frames = run.share();
    if run.selective || from > 0 {
        for range in run.part(slot.conn.id, from) {
            push(slot, turn, route, &frames, range, run.key);
        }
    } else {
        push(slot, turn, route, &frames, 0..frames.len(), run.key);
    }
}

fn push<S: Sink>(
    slot: &mut Slot<S>,
    turn: &mut Turn,
    route: &Route,
    frames: &Frames,
    range: Range<usize>,
    key: Option<Key>,
) {
    let (limits, policy) = (&route.limits, route.slow_consumer);
    let _ = slot.conn.push(&mut turn.writer, &mut slot.stream, frames, range, key, limits, policy);
}

fn mark_dirty<S>(slot: &mut Slot<S>, at: u32, dirty: &mut Vec<u32>) {
    if !slot.marks.dirty {
        slot.marks.dirty = true;
        dirty.push(at);
    }
}
