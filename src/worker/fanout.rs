//! The end of an iteration: delivery of what it published.

use super::Worker;
use super::slots::{Slot, Slots};
#[cfg(feature = "push")]
use crate::conn::ConnId;
use crate::conn::{Frames, PauseReason, Phase, Terms};
use crate::handler::{Command, ConnParts, Route, WorkerContext, push_batch, transformed};
use crate::hub::{Batch, Evicted, Hub, Missed, Outgoing, Recipient, TopicKey};
use crate::log;
use crate::protocol::Key;
use crate::sink::Sink;
use crate::sync::mailbox::Weigh;
use foldhash::fast::RandomState;
use std::collections::HashSet;
use std::time::Instant;

impl Worker {
    fn count_evicted(&mut self) {
        let evicted = core::mem::take(&mut self.ctx.hub.accounting.evicted);
        if evicted != Evicted::default() {
            let count = self.ctx.count();
            count.history_evicted.add(evicted.messages);
            count.history_evicted_for_others.add(evicted.for_others);
            count.topics_evicted.add(evicted.topics);
        }
    }

    /// Delivers until nothing is left: the `close` callback of a connection that is removed here may publish.
    pub(super) fn fan_out(&mut self) {
        loop {
            self.ctx.hub.record_history();
            self.count_evicted();
            let refused = core::mem::take(&mut self.ctx.hub.refused_publications);
            if refused > 0 {
                self.ctx.count().publications_refused.add(refused);
            }
            send_to_workers(&mut self.ctx);
            if !self.ctx.hub.batch_log.is_empty() {
                let Self { slots, ctx, shared, dirty, .. } = self;
                deliver_batches(slots, ctx, &shared.routes, dirty);
            }
            self.ctx.hub.end_iteration();
            self.ctx.iteration = self.ctx.iteration.wrapping_add(1).max(1);
            self.recovery().answer_requests();
            self.write_dirty();
            let removed = self.removed;
            self.reap_closed();
            // None was removed, or as many as an iteration may, and no callback published or subscribed.
            let Hub { batch_log, recovery_requests, .. } = &self.ctx.hub;
            if self.removed == removed && batch_log.is_empty() && recovery_requests.is_empty() {
                return;
            }
        }
    }

    /// Resumes the connections that were paused because of congestion. One that publishes to a topic that is still
    /// congested is paused again after its next message.
    pub(super) fn resume_congested(&mut self) {
        if self.ctx.congested.is_empty() || !self.ctx.hub.take_release() {
            return;
        }
        for id in core::mem::take(&mut self.ctx.congested) {
            if let Some(slot) = self.slots.find_mut(id) {
                slot.conn.resume(PauseReason::Congestion);
                self.write_and_advance(id.slot());
            }
        }
    }

    /// Writes what was queued in this iteration.
    pub(super) fn write_dirty(&mut self) {
        let mut dirty = core::mem::take(&mut self.dirty);
        for at in dirty.drain(..) {
            if let Some(slot) = self.slots.get_mut(at as usize) {
                slot.flags.dirty = false;
                self.write_and_advance(at as usize);
            }
        }
        // Connections that `write_and_advance` has marked meanwhile come behind.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    /// Schedules the rest for the end of the next iteration.
    pub(super) fn write_later(&mut self, at: usize) {
        if let Some(slot) = self.slots.get_mut(at) {
            mark_dirty(slot, at as u32, &mut self.dirty);
        }
    }

    /// Queues a frame for one connection, to be written at the end of the iteration. A frame that goes `to_many` is
    /// compressed once for all of them.
    pub(super) fn queue(&mut self, at: usize, frames: &Frames, key: Option<Key>, to_many: bool) {
        let Self { slots, ctx, shared, dirty, .. } = self;
        let Some(slot) = slots.get_mut(at).filter(|s| s.conn.phase == Phase::Open) else { return };
        let route = &shared.routes[usize::from(slot.conn.route)];
        if !ctx.hub.batch_log.is_empty() {
            // Messages that a thread published before it sent this one come first.
            ConnParts { conn: &mut slot.conn, ctx, sink: &mut slot.stream, route }.catch_up();
        }
        let Slot { conn, stream, .. } = slot;
        let writer = &mut ctx.writer;
        let own = if to_many { None } else { conn.compress_frame(&mut writer.codecs, frames) };
        let variant = if to_many { frames.variant(conn.encoding, &mut writer.codecs) } else { None };
        if variant.is_some() {
            conn.reset_context();
        }
        let frames = own.as_ref().or(variant).unwrap_or(frames);
        let _ = conn.push(writer, stream, frames, 0..frames.len(), key, &route.terms);
        ctx.count().messages_out.add(1);
        mark_dirty(slot, at as u32, dirty);
    }
}

/// Sends publications and batches to other workers, as far as their mailboxes have room.
pub(crate) fn send_to_workers(ctx: &mut WorkerContext) {
    ctx.send_subscriber_changes();
    let (me, shared) = (ctx.worker, &ctx.handle.shared);
    ctx.hub.send_to_workers(|to, outgoing| {
        let worker = &shared.workers[to];
        let flow = &worker.flows[me];
        if !flow.has_room() && !flow.wait_for_room() {
            return Err(outgoing);
        }
        let command = match outgoing {
            Outgoing::Publications(publications) => Command::Forward(me as u16, publications),
            Outgoing::Update(update) => Command::from_update(me, update),
        };
        if command.flow_from().is_some() {
            flow.record_sent(command.weight());
        }
        let _ = worker.mailbox.send_unbounded(command); // a worker that has ended delivers nothing more
        Ok(())
    });
    let missed = core::mem::take(&mut ctx.hub.lost_messages);
    if missed > 0 {
        ctx.count().missed.add(missed);
        log::limited!(
            warn,
            Instant::now(),
            "worker {me}: {missed} messages are lost: too much waits for other workers, publish more slowly"
        );
    }
    if core::mem::take(&mut ctx.hub.congestion_cleared) {
        for worker in 0..ctx.handle.shared.workers.len() {
            let _ = ctx.handle.command_worker(worker, Command::CongestionCleared, true); // as above
        }
    }
}

/// Reports to each subscriber of a topic how many of its messages were lost on their way to this worker.
pub(crate) fn report_missed<S: Sink>(
    slots: &mut Slots<S>,
    ctx: &mut WorkerContext,
    routes: &[Route],
    dirty: &mut Vec<u32>,
    missed: &Missed,
) {
    let policy = ctx.hub.settings.of(&missed.topic).slow_consumer;
    let mut reported = HashSet::with_hasher(RandomState::default());
    let own = ctx.hub.index.find(&missed.topic);
    for key in own.into_iter().chain(ctx.hub.index.matching_patterns(&missed.topic)) {
        let subscribers = ctx.hub.index.take_subscribers(key);
        for subscriber in &subscribers {
            let slot = slots.get_mut(subscriber.slot as usize);
            let Some(slot) = slot.filter(|s| s.conn.phase == Phase::Open && reported.insert(subscriber.slot))
            else {
                continue;
            };
            let filter = ctx.hub.index.filter(subscriber.slot, key);
            let messages = missed.count_for(Recipient { conn: slot.conn.id, filter, from: 0 });
            if messages > 0 {
                let Slot { conn, stream, .. } = &mut *slot;
                let route = &routes[usize::from(conn.route)].terms;
                let terms = Terms { slow_consumer: policy.unwrap_or(route.slow_consumer), ..*route };
                conn.report_missed(&mut ctx.writer, stream, messages, &terms);
                mark_dirty(slot, subscriber.slot, dirty);
            }
        }
        ctx.hub.index.put_back(key, subscribers);
    }
}

/// Queues a reply for one connection, to be written at the end of the iteration.
#[cfg(feature = "push")]
pub(crate) fn queue_reply<S: Sink>(
    slots: &mut Slots<S>,
    ctx: &mut WorkerContext,
    routes: &[Route],
    dirty: &mut Vec<u32>,
    to: ConnId,
    text: &str,
) {
    let Some(slot) = slots.find_mut(to).filter(|s| s.conn.phase == Phase::Open) else { return };
    let route = &routes[usize::from(slot.conn.route)];
    if !ctx.hub.batch_log.is_empty() {
        ConnParts { conn: &mut slot.conn, ctx, sink: &mut slot.stream, route }.catch_up();
    }
    if slot.conn.queue_reply(&mut ctx.writer, text) {
        ctx.count().messages_out.add(1);
        mark_dirty(slot, to.slot() as u32, dirty);
    }
}

/// Delivers every batch to its subscribers: directly to the socket if nothing waits, otherwise to the outbox. Slots
/// with an outbox to write are added to `dirty`.
pub(crate) fn deliver_batches<S: Sink>(
    slots: &mut Slots<S>,
    ctx: &mut WorkerContext,
    routes: &[Route],
    dirty: &mut Vec<u32>,
) {
    // Once for each connection that replays, so that the others pay nothing for it in the loop below.
    for at in ctx.replays.slots() {
        if let Some(slot) = slots.get_mut(at as usize) {
            slot.conn.force_queueing(ctx.iteration);
        }
    }
    let mut batches = ctx.hub.batch_log.take_batches();
    let alone = batches.len() == 1;
    let mut deliveries = 0;
    for batch in &mut batches {
        let subscribers = ctx.hub.index.take_subscribers(batch.topic);
        deliveries += subscribers.len() as u64 * u64::from(batch.messages());
        let direct = alone && !batch.has_exclusions && !ctx.hub.index.is_filtered(batch.topic);
        for subscriber in &subscribers {
            let Some(slot) = slots.get_mut(subscriber.slot as usize) else { continue };
            if direct && slot.conn.can_write_directly(ctx.iteration) {
                if !write_batch(slot, ctx, routes, batch) {
                    mark_dirty(slot, subscriber.slot, dirty);
                }
            } else if slot.conn.phase == Phase::Open {
                queue_batch(slot, ctx, routes, batch, batch.topic);
                mark_dirty(slot, subscriber.slot, dirty);
            }
        }
        ctx.hub.index.put_back(batch.topic, subscribers);
        if ctx.hub.index.has_patterns() {
            deliveries += deliver_to_patterns(slots, ctx, routes, batch, dirty);
        }
    }
    ctx.count().deliveries.add(deliveries);
    ctx.hub.batch_log.put_back(batches);
}

/// Delivers a batch to subscribers of patterns that match the topic's name, once to each. Returns the number of
/// deliveries.
#[inline(never)]
fn deliver_to_patterns<S: Sink>(
    slots: &mut Slots<S>,
    ctx: &mut WorkerContext,
    routes: &[Route],
    batch: &mut Batch,
    dirty: &mut Vec<u32>,
) -> u64 {
    let mut deliveries = 0;
    let patterns = ctx.hub.index.matching_patterns(ctx.hub.index.name(batch.topic));
    // A name matches up to 127 patterns, and a connection may subscribe to all of them. Its subscriptions are searched
    // once, not for each pattern.
    let mut seen = HashSet::with_hasher(RandomState::default());
    for pattern in &patterns {
        let subscribers = ctx.hub.index.take_subscribers(*pattern);
        for subscriber in &subscribers {
            let first = patterns.len() == 1 || seen.insert(subscriber.slot);
            let once = first && !ctx.hub.index.has_subscription(subscriber.slot, batch.topic);
            let open =
                slots.get_mut(subscriber.slot as usize).filter(|s| once && s.conn.phase == Phase::Open);
            if let Some(slot) = open {
                queue_batch(slot, ctx, routes, batch, *pattern);
                mark_dirty(slot, subscriber.slot, dirty);
                deliveries += u64::from(batch.messages());
            }
        }
        ctx.hub.index.put_back(*pattern, subscribers);
    }
    deliveries
}

/// Queues a batch for a connection. `by` is its subscription: the topic or a pattern.
fn queue_batch<S: Sink>(
    slot: &mut Slot<S>,
    ctx: &mut WorkerContext,
    routes: &[Route],
    batch: &mut Batch,
    by: TopicKey,
) {
    let Slot { conn, stream, .. } = slot;
    let (from, route) = (conn.caught_up_index(ctx.iteration), &routes[usize::from(conn.route)]);
    let WorkerContext { writer, hub, replays, .. } = ctx;
    let recipient = Recipient { conn: conn.id, filter: hub.index.filter(conn.id.slot() as u32, by), from };
    push_batch(conn, writer, stream, replays, route, batch, hub.index.name(batch.topic), recipient);
}

/// Writes the shared bytes directly to the socket, the common case. Returns false if something is left to do.
#[inline]
fn write_batch<S: Sink>(
    slot: &mut Slot<S>,
    ctx: &mut WorkerContext,
    routes: &[Route],
    batch: &mut Batch,
) -> bool {
    let Slot { conn, stream, .. } = slot;
    let WorkerContext { writer, hub, .. } = ctx;
    let transformed = match conn.transforms {
        false => None,
        true => {
            transformed(conn, writer, &routes[usize::from(conn.route)], batch, hub.index.name(batch.topic))
        }
    };
    let bytes = transformed.as_deref().unwrap_or_else(|| batch.bytes());
    match stream.write(bytes, &mut writer.scratch) {
        Ok(n) if n == bytes.len() => return stream.is_written_out(),
        Ok(n) => {
            let frames = transformed.unwrap_or_else(|| batch.share());
            let terms = &batch.terms(&routes[usize::from(conn.route)].terms);
            // The policy decides about the rest, and counts it.
            let _ = conn.queue_batch_rest(writer, stream, &frames, 0..frames.len(), n, batch.key, terms);
        }
        Err(e) => conn.write_error = Some(e.kind()),
    }
    false
}

pub(crate) fn mark_dirty<S>(slot: &mut Slot<S>, at: u32, dirty: &mut Vec<u32>) {
    if !slot.flags.dirty {
        slot.flags.dirty = true;
        dirty.push(at);
    }
}
