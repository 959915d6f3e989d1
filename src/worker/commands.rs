//! Commands of other threads, executed in the order in which they were sent.

use super::Worker;
use super::callbacks::Stopwatch;
use super::slots::Slot;
use crate::conn::{Cause, ConnId, Connection, PauseReason, Phase, ReadyState};
use crate::handler::{Command, ConnInfo};
use crate::hub::topic::is_pattern;
use crate::hub::{NoReply, PublishRequest, ReplySender, TopicOrPattern};
use crate::log;
use crate::protocol::{CloseCode, Opcode};
use std::sync::atomic::Ordering;
use std::time::Instant;

impl Worker {
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::AddConnection(new) => {
                if new.shared_fd {
                    self.shared.workers[self.ctx.worker].load.fetch_add(1, Ordering::Relaxed);
                }
                self.add_connection(*new);
            }
            Command::Decide(id, decision) => self.decide(id, decision),
            Command::Respond(id, number, response) => self.complete_response(id, number, response),
            Command::Send(id, frames, key) => {
                if let Some(at) = self.open_slot(id) {
                    self.queue(at, &frames, key, false);
                }
            }
            #[cfg(feature = "push")]
            Command::Reply(id, text) => {
                let Self { slots, ctx, shared, dirty, .. } = self;
                super::fanout::queue_reply(slots, ctx, &shared.routes, dirty, id, &text);
            }
            Command::Ping(id, payload) => self.with_open(id, |w, at| {
                if let Some(slot) = w.slots.get_mut(at) {
                    slot.conn.control(&mut w.ctx.writer, Opcode::Ping, &payload);
                }
            }),
            Command::Close(id, code, reason) => {
                self.with_open(id, |w, at| w.close(at, code, &reason, Cause::Application));
            }
            Command::Terminate(id) => {
                if let Some(at) = self.slots.find_mut(id).map(|s| s.conn.id.slot()) {
                    self.terminate(at);
                }
            }
            Command::Pause(id, pause) => self.with_open(id, |w, at| {
                let Some(slot) = w.slots.get_mut(at) else { return };
                match pause {
                    true => slot.conn.pause(PauseReason::Application),
                    false => slot.conn.resume(PauseReason::Application),
                }
            }),
            Command::Subscribe(id, to) => self.with_open(id, |w, at| w.subscribe(at, &to)),
            Command::Unsubscribe(id, from) => self.with_open(id, |w, at| w.unsubscribe(at, &from)),
            Command::SubscriberChanges(worker, changes) => {
                self.ctx.hub.apply_subscriber_changes(worker, changes)
            }
            Command::RecoveryRequest(from, request) => self.recoveries.push(from, request),
            Command::RecoveryReply(reply) => {
                self.flush_published();
                self.recovery().begin(*reply);
            }
            Command::Publish(publications) | Command::Forward(_, publications) => {
                publications.into_iter().for_each(|p| self.publish(p));
            }
            Command::PublishOne(publication) => self.publish(publication),
            Command::Batch(_, forwarded) => self.ctx.hub.receive_batch(&forwarded),
            Command::Missed(_, missed) => {
                self.flush_published(); // messages published before come before
                let Self { slots, ctx, shared, dirty, .. } = self;
                super::fanout::report_missed(slots, ctx, &shared.routes, dirty, &missed);
            }
            Command::CongestionCleared => self.ctx.hub.release_publishers(),
            Command::ShutdownStepDone(from, step) => self.shutdown.step_done(usize::from(from), step),
            Command::Broadcast(route, frames, key) => {
                for at in self.slots.keys() {
                    if self.slots.get_mut(at).is_some_and(|s| s.conn.route == route) {
                        self.queue(at, &frames, key, true);
                    }
                }
            }
            Command::CountSubscribers(topic, answer) => {
                let index = &self.ctx.hub.index;
                let count = index.find(&topic).map_or(0, |key| index.subscribers(key).len());
                self.send_reply(answer, Ok(count));
            }
            Command::List(route, answer) => {
                let all = self.connections_of(route).map(|s| self.info(s)).collect();
                self.send_reply(answer, Ok(all));
            }
            Command::Info(id, answer) => {
                let info = self.slots.find(id).map(|s| self.info(s));
                self.send_reply(answer, Ok(info));
            }
            Command::History(topic, start, limit, answer) => {
                self.flush_published(); // messages published before are in it
                let page = self.ctx.hub.history(&topic, start, limit);
                self.send_reply(answer, Ok(page));
            }
            Command::Topics(prefix, limit, answer) => {
                self.flush_published();
                let topics = self.ctx.hub.topics(&prefix, limit);
                self.send_reply(answer, Ok(topics));
            }
            Command::CountOpen(route, answer) => {
                let count = self.connections_of(route).count();
                self.send_reply(answer, Ok(count));
            }
            Command::Panic => panic!("as a test asked"),
            Command::Shutdown { code, deadline } => self.shut_down(code, deadline),
        }
    }

    fn publish(&mut self, publication: PublishRequest) {
        if self.shutdown.refuses_publications() {
            // It came after the shutdown had begun: connections are closing already, so it would reach nobody.
            self.ctx.count().publications_refused.add(1);
            if let Some(answer) = publication.reply {
                answer.fail(NoReply::Ended);
            }
            return;
        }
        if let Some((answer, outcome)) = self.ctx.hub.publish_owned(publication) {
            self.send_reply(answer, outcome.map_err(NoReply::Refused));
        }
    }

    /// Answers a query. A panic is the application's: in a callback or in the executor that the answer wakes.
    fn send_reply<T>(&self, reply: ReplySender<T>, answer: Result<T, NoReply>) {
        let stopwatch = Stopwatch::start();
        if !reply.send(answer) {
            self.ctx.count().panics.add(1);
            log::limited!(warn, Instant::now(), "a callback of Answer::then, or a waker, panicked");
        }
        stopwatch.report(self.shared.slow_callback, format_args!("a callback of Answer::then"));
    }

    fn open_slot(&mut self, id: ConnId) -> Option<usize> {
        self.slots.find_mut(id).filter(|s| s.conn.phase == Phase::Open).map(|s| s.conn.id.slot())
    }

    fn with_open(&mut self, id: ConnId, act: impl FnOnce(&mut Self, usize)) {
        if let Some(at) = self.open_slot(id) {
            act(self, at);
            self.write_and_advance(at);
        }
    }

    /// Delivers messages that were published before, so that the following command is ordered after them.
    fn flush_published(&mut self) {
        if !self.ctx.hub.batch_log.is_empty() {
            self.fan_out();
        }
    }

    pub(super) fn close(&mut self, at: usize, code: CloseCode, reason: &str, cause: Cause) {
        self.flush_published();
        if let Some(slot) = self.slots.get_mut(at) {
            slot.conn.close(&mut self.ctx.writer, &mut slot.stream, code, reason, cause);
        }
    }

    fn subscribe(&mut self, at: usize, to: &TopicOrPattern<'_>) {
        self.flush_published();
        let limit = self.limits_of(at).max_subscriptions;
        super::recovery::subscribe(&mut self.ctx, at as u32, to, limit);
    }

    fn unsubscribe(&mut self, at: usize, from: &TopicOrPattern<'_>) {
        self.flush_published();
        let Self { slots, ctx, shared, .. } = self;
        if let Some(slot) = slots.get_mut(at) {
            super::recovery::unsubscribe(slot, ctx, &shared.routes, from);
        }
    }

    /// Returns the connections of a route that are open or closing.
    fn connections_of(&self, route: u16) -> impl Iterator<Item = &Slot> {
        let open = |c: &Connection| matches!(c.ready_state(), ReadyState::Open | ReadyState::Closing);
        self.slots.iter().map(|(_, s)| s).filter(move |s| s.conn.route == route && open(&s.conn))
    }

    fn info(&self, slot: &Slot) -> ConnInfo {
        let conn = &slot.conn;
        let cold = conn.cold.as_ref();
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let route = self.shared.routes.get(usize::from(conn.route));
        let names = self.ctx.hub.index.names_of(conn.id.slot() as u32).map(str::to_owned);
        let (patterns, topics) = names.partition(|name| is_pattern(name));
        ConnInfo {
            id: conn.id,
            peer: conn.peer,
            ready_state: conn.ready_state(),
            buffered_amount: slot.buffered(),
            protocol: cold.and_then(|c| c.protocol.as_deref().map(str::to_owned)),
            route: route.map(|r| r.pattern.clone()).unwrap_or_default(),
            params: cold.map(|c| c.params.iter().map(owned).collect()).unwrap_or_default(),
            topics,
            patterns,
        }
    }
}
