//! Recoveries: requests to the owner of the topic, its replies, and the replays.

use super::Worker;
use super::fanout::mark_dirty;
use super::read::call_handler;
use super::slots::{Slot, Slots};
use crate::conn::{ConnId, Frames, Phase};
use crate::handler::{Command, HandlerEvent, REPLAY_WINDOW, ReplayedMessage, Route, WorkerContext};
use crate::hub::{Added, Position, RecoveryReply, RecoveryRequest, SubscribeError, TopicOrPattern, envelope};
use crate::log;
use crate::sink::Sink;
use core::ops::Range;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Messages scanned in one iteration for recoveries: about 4 ms. The rest waits for the next iteration, so that many
/// requests for long histories do not delay others; one request is never divided.
const MAX_SCANNED: usize = 16_384;

/// Bytes that one iteration sends to connections that recover, and the cost of a message beside its bytes: about 2 ms.
/// The rest waits, so that long histories do not delay others.
const MAX_REPLAYED_BYTES: usize = 1 << 20;
const REPLAYED_MESSAGE_COST: usize = 256;

/// How often a full mailbox is checked for room.
const ROOM_INTERVAL: Duration = Duration::from_millis(5);

/// Recovery requests to be answered by this worker.
#[derive(Debug, Default)]
pub(crate) struct RecoveryQueue {
    /// Each with the worker of its connection.
    waiting: VecDeque<(usize, RecoveryRequest)>,
    /// Messages scanned for them in this iteration.
    scanned: usize,
    /// Bytes that this iteration has sent to connections that recover.
    replayed: usize,
    /// The first one waits for room in the mailbox of its connection's worker.
    awaits_room: bool,
}

impl RecoveryQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns how long the event loop may wait for the next one; `None` without one. A full mailbox is checked at an
    /// interval: a worker that is blocked would otherwise keep this one awake.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        let timeout = if self.awaits_room { ROOM_INTERVAL } else { Duration::ZERO };
        (!self.is_empty()).then_some(timeout)
    }

    /// Adds a request. It is answered when the batch log is empty: messages published before are in the replay, and on
    /// their way to the topic's other subscribers on that worker.
    pub(crate) fn push(&mut self, from: usize, request: RecoveryRequest) {
        self.waiting.push_back((from, request));
    }

    pub(crate) fn begin_iteration(&mut self) {
        (self.scanned, self.replayed, self.awaits_room) = (0, 0, false);
    }
}

/// The parts of a worker that a recovery needs; in tests, without sockets.
pub(crate) struct RecoveryContext<'a, S> {
    pub(crate) slots: &'a mut Slots<S>,
    pub(crate) ctx: &'a mut WorkerContext,
    pub(crate) routes: &'a [Route],
    pub(crate) dirty: &'a mut Vec<u32>,
    pub(crate) recoveries: &'a mut RecoveryQueue,
}

impl<S: Sink> RecoveryContext<'_, S> {
    /// Passes on this iteration's requests, and answers those for topics owned here. The batch log must be empty.
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
            // A replay for another worker's connection waits in its mailbox, and is bounded like everything there.
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

    /// Sends a reply to another worker, behind the updates of the topic that wait for it.
    fn send(&mut self, to: usize, reply: RecoveryReply) {
        if let Some(reply) = self.ctx.hub.queue_recovery_reply(to, Box::new(reply)) {
            let _ = self.ctx.handle.command_worker(to, Command::RecoveryReply(reply), true); // it has ended
        }
    }

    /// Takes a reply: the connection is subscribed from here on, and its replay begins. The batch log must be empty.
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
        // What the callback sent goes first, the replay follows.
        slot.conn.flush(&mut ctx.writer, &mut slot.stream);
        // The callback may have unsubscribed.
        if slot.conn.phase == Phase::Open && ctx.hub.index.is_subscribed(at as u32, &topic) {
            let now = ctx.hub.now;
            ctx.replays.begin(&mut slot.conn, topic, subscribed.position.epoch, replay, now);
        }
    }

    /// Continues replays within the iteration's budget: a piece for each connection that can accept more, in turn.
    pub(crate) fn replay(&mut self) {
        for _ in 0..self.ctx.replays.ready() {
            let Some(conn) = self.ctx.replays.next_ready() else { return };
            self.replay_to(conn);
            if self.recoveries.replayed >= MAX_REPLAYED_BYTES {
                return;
            }
        }
    }

    /// Sends a connection the next piece of its replays.
    fn replay_to(&mut self, id: ConnId) {
        let Self { slots, ctx, routes, dirty, recoveries } = self;
        let Some(slot) = slots.find_mut(id).filter(|s| s.conn.phase == Phase::Open) else { return };
        let route = &routes[usize::from(slot.conn.route)];
        let mut replayed = 0;
        while slot.buffered() < REPLAY_WINDOW
            && let Some(message) = ctx.replays.next(&mut slot.conn)
        {
            let (frames, range) = wrap_message(route, &message);
            recoveries.replayed += range.len() + REPLAYED_MESSAGE_COST;
            slot.conn.replay(&mut ctx.writer, &frames, range);
            replayed += 1;
        }
        ctx.count().deliveries.add(replayed);
        mark_dirty(slot, id.slot() as u32, dirty);
    }
}

/// Wraps a message of a history in the route's envelope.
fn wrap_message(route: &Route, message: &ReplayedMessage) -> (Frames, Range<usize>) {
    let ReplayedMessage { topic, epoch, entry } = message;
    let Some(route_envelope) = &route.envelope else { return (entry.frames.clone(), entry.range.clone()) };
    let at = Position::new(*epoch, entry.offset);
    let one = core::iter::once((&entry.frames[entry.range.clone()], entry.json));
    let frames = envelope::wrap(&*route_envelope.envelope, topic, at, one, entry.frames.is_verbatim());
    let range = 0..frames.len();
    (frames, range)
}

/// Subscribes a connection on behalf of a handle.
pub(crate) fn subscribe(ctx: &mut WorkerContext, slot: u32, to: &TopicOrPattern<'_>, limit: usize) {
    match ctx.hub.subscribe(slot, to, None, limit) {
        Ok(Added::Already) => {}
        Ok(added) => {
            ctx.hub.index.set_by_handle(slot, to.as_str());
            // The requester may learn at once that it is done, and publish.
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
