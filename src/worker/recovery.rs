//! Subscriptions that begin somewhere else than now: asked of the topic's home, and begun when it has answered.

use super::Worker;
use super::fanout::mark_dirty;
use super::read::call_handler;
use super::slots::{Slot, Slots};
use crate::conn::{ConnId, Frames, Phase};
use crate::handler::{Command, HandlerEvent, REPLAY_WINDOW, Replay, Route, WorkerContext};
use crate::hub::{
    Added, HistoryEntry, Position, RecoveryReply, RecoveryRequest, SubscribeError, TopicOrPattern, envelope,
};
use crate::log;
use crate::sink::Sink;
use core::ops::Range;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Messages looked at in one turn for connections that come back: some 4 ms. What is over waits for the next turn, so
/// that a crowd that asks for long histories holds up nobody; one join is one piece.
const MAX_SCANNED: usize = 16_384;

/// Bytes that one iteration sends to connections that recover, and what a message costs beside its own: some 2 ms. What is
/// over waits, so that long histories hold up nobody.
const MAX_REPLAYED_BYTES: usize = 1 << 20;
const REPLAYED_MESSAGE_COST: usize = 256;

/// Between two looks for room in a mailbox.
const ROOM_INTERVAL: Duration = Duration::from_millis(5);

/// Joins to be answered by this worker.
#[derive(Debug, Default)]
pub(crate) struct RecoveryQueue {
    /// Each with the worker of its connection.
    waiting: VecDeque<(usize, RecoveryRequest)>,
    /// Messages looked at for them in this iteration.
    scanned: usize,
    /// Bytes that this iteration has sent to connections that recover.
    replayed: usize,
    /// The first waits for room in the mailbox of its connection's worker.
    awaits_room: bool,
}

impl RecoveryQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How long the event loop may wait for the next one; `None`: there is none. For room in a mailbox it looks again
    /// after a while: a worker that is blocked would otherwise keep this one awake.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        let timeout = if self.awaits_room { ROOM_INTERVAL } else { Duration::ZERO };
        (!self.is_empty()).then_some(timeout)
    }

    /// Notes a join of another worker's connection. It is answered when the log is empty: what was published before is
    /// in the replay, and with the topic's other subscribers on that worker before the answer.
    pub(crate) fn push(&mut self, from: usize, request: RecoveryRequest) {
        self.waiting.push_back((from, request));
    }

    pub(crate) fn begin_iteration(&mut self) {
        (self.scanned, self.replayed, self.awaits_room) = (0, 0, false);
    }
}

/// The parts of a worker that a recovery needs: those of a worker with sockets, or of one in a test.
pub(crate) struct RecoveryContext<'a, S> {
    pub(crate) slots: &'a mut Slots<S>,
    pub(crate) ctx: &'a mut WorkerContext,
    pub(crate) routes: &'a [Route],
    pub(crate) dirty: &'a mut Vec<u32>,
    pub(crate) recoveries: &'a mut RecoveryQueue,
}

impl<S: Sink> RecoveryContext<'_, S> {
    /// Passes on the joins of this iteration, and answers those that were asked here. The log is empty.
    pub(crate) fn answer_requests(&mut self) {
        let me = self.ctx.worker;
        for request in self.ctx.hub.take_recovery_requests() {
            let owner = self.ctx.handle.shared.owners.of(&request.topic);
            if owner == me {
                self.recoveries.push(me, request);
            } else {
                let _ = self.ctx.handle.command_worker(owner, Command::RecoveryRequest(me, request), true); // it has ended
            }
        }
        while self.recoveries.scanned < MAX_SCANNED
            && let Some((from, request)) = self.recoveries.waiting.pop_front()
        {
            if from == me && !self.ctx.hub.is_pending(&request) {
                continue;
            }
            // What is replayed to another worker's connections waits there, and is bounded like all that does.
            if from != me && self.ctx.handle.shared.workers[from].mailbox.is_over_bytes() {
                self.recoveries.waiting.push_front((from, request));
                self.recoveries.awaits_room = true;
                break;
            }
            let reply = self.ctx.hub.answer_recovery(request, from);
            self.recoveries.scanned += 1 + reply.scanned;
            if from == me {
                self.begin(reply);
            } else {
                self.send(from, reply);
            }
        }
        self.replay();
    }

    /// Answers a join of another worker's connection, behind what waits of its topic for that worker.
    fn send(&mut self, to: usize, reply: RecoveryReply) {
        if let Some(reply) = self.ctx.hub.queue_recovery_reply(to, Box::new(reply)) {
            let _ = self.ctx.handle.command_worker(to, Command::RecoveryReply(reply), true); // it has ended
        }
    }

    /// Takes the answer to a join: from here on the connection is subscribed, and what was kept for it comes first. The
    /// log is empty.
    pub(crate) fn begin(&mut self, reply: RecoveryReply) {
        let at = reply.conn.slot();
        let wanted = self.ctx.hub.complete_recovery(&reply);
        let open = self.slots.find_mut(reply.conn).filter(|s| wanted && s.conn.phase == Phase::Open);
        let RecoveryReply { topic, tags, subscribed, replay, .. } = reply;
        let Some(slot) = open else { return self.ctx.hub.discard_recovery(&topic) };
        let ctx = &mut *self.ctx;
        let route = &self.routes[usize::from(slot.conn.route)];
        let limit = route.terms.limits.max_subscriptions;
        mark_dirty(slot, at as u32, self.dirty);
        if let Err(e) = ctx.hub.subscribe_recovered(at as u32, &topic, tags, limit) {
            call_handler(slot, ctx, route, HandlerEvent::NotSubscribed(&topic, &e));
            return slot.conn.flush(&mut ctx.writer, &mut slot.stream);
        }
        call_handler(slot, ctx, route, HandlerEvent::Subscribed(&topic, &subscribed));
        // What the callback sent is first; what is kept goes behind it.
        slot.conn.flush(&mut ctx.writer, &mut slot.stream);
        // The callback may have changed its mind.
        if slot.conn.phase == Phase::Open && ctx.hub.index.is_subscribed(at as u32, &topic) {
            let now = ctx.hub.now;
            ctx.replays.begin(&mut slot.conn, topic, subscribed.position.epoch, replay, now);
        }
    }

    /// Goes on with replays, as many bytes as an iteration may: a piece for each connection that can take more, in turn.
    /// The rest waits for the next iteration.
    pub(crate) fn replay(&mut self) {
        for _ in 0..self.ctx.replays.ready() {
            let Some(conn) = self.ctx.replays.next_ready() else { return };
            self.replay_to(conn);
            if self.recoveries.replayed >= MAX_REPLAYED_BYTES {
                return;
            }
        }
    }

    /// Gives a connection the next piece of its replays.
    fn replay_to(&mut self, id: ConnId) {
        let Self { slots, ctx, routes, dirty, recoveries } = self;
        let Some(slot) = slots.find_mut(id).filter(|s| s.conn.phase == Phase::Open) else { return };
        let route = &routes[usize::from(slot.conn.route)];
        let mut replayed = 0;
        while slot.buffered() < REPLAY_WINDOW
            && let Some(replay) = ctx.replays.first(id)
        {
            let Some(entry) = replay.next() else {
                ctx.replays.end_first(&mut slot.conn);
                continue;
            };
            let (frames, range) = wrap_entry(route, replay, &entry);
            recoveries.replayed += range.len() + REPLAYED_MESSAGE_COST;
            slot.conn.replay(&mut ctx.writer, &frames, range);
            replayed += 1;
        }
        ctx.count().deliveries.add(replayed);
        mark_dirty(slot, id.slot() as u32, dirty);
    }
}

/// A message of a history as the connections of a route take it.
fn wrap_entry(route: &Route, replay: &Replay, entry: &HistoryEntry) -> (Frames, Range<usize>) {
    let Some(route_envelope) = &route.envelope else { return (entry.frames.clone(), entry.range.clone()) };
    let at = Position::new(replay.epoch, entry.offset);
    let one = core::iter::once((&entry.frames[entry.range.clone()], entry.json));
    let frames =
        envelope::wrap(&*route_envelope.envelope, &replay.topic, at, one, entry.frames.is_verbatim());
    let range = 0..frames.len();
    (frames, range)
}

/// Subscribes a connection on behalf of a handle.
pub(crate) fn subscribe(ctx: &mut WorkerContext, slot: u32, to: &TopicOrPattern<'_>, limit: usize) {
    match ctx.hub.subscribe(slot, to, None, limit) {
        Ok(Added::Already) => {}
        Ok(added) => {
            ctx.hub.index.set_by_handle(slot, to.as_str());
            // Whoever asked may hear at once that it is done, and publish.
            if added == Added::First {
                ctx.send_subscriber_changes();
            }
        }
        Err(e) => log::limited!(info, Instant::now(), "subscription to {:?} refused: {e}", to.as_str()),
    }
}

/// Unsubscribes a connection on behalf of a handle.
pub(crate) fn unsubscribe<S: Sink>(
    slot: &mut Slot<S>,
    ctx: &mut WorkerContext,
    routes: &[Route],
    from: &TopicOrPattern<'_>,
) {
    let unsubscribed = ctx.hub.unsubscribe(slot.conn.id, from);
    ctx.cancel_replay(&mut slot.conn, from.as_str());
    if unsubscribed.cancelled {
        // The requester of the subscription waits for an answer.
        let route = &routes[usize::from(slot.conn.route)];
        call_handler(
            slot,
            ctx,
            route,
            HandlerEvent::NotSubscribed(from.as_str(), &SubscribeError::Cancelled),
        );
        slot.conn.flush(&mut ctx.writer, &mut slot.stream);
    }
}

impl Worker {
    pub(super) fn recovery(&mut self) -> RecoveryContext<'_, crate::net::Stream> {
        let Self { slots, ctx, shared, dirty, recoveries, .. } = self;
        RecoveryContext { slots, ctx, routes: &shared.routes, dirty, recoveries }
    }
}
