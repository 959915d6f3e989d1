//! What other threads ask for, done one by one in the order in which they asked.

use super::Worker;
use super::slots::Slot;
use crate::conn::{Cause, ConnId, Connection, PauseReason, Phase, ReadyState};
use crate::handler::{Command, ConnInfo};
use crate::hub::topic::is_pattern;
use crate::hub::{NoReply, PublishRequest, ReplySender, TopicOrPattern};
use crate::protocol::{CloseCode, Opcode};
use std::sync::atomic::Ordering;

impl Worker {
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Adopt(adopt) => {
                if adopt.foreign {
                    self.shared.workers[self.turn.worker].load.fetch_add(1, Ordering::Relaxed);
                }
                self.adopt(*adopt);
            }
            Command::Decide(id, decision) => self.decide(id, decision),
            Command::Respond(id, number, response) => self.respond_now(id, number, response),
            Command::Send(id, frames, key) => {
                if let Some(at) = self.open_slot(id) {
                    self.queue(at, &frames, key, false);
                }
            }
            #[cfg(feature = "push")]
            Command::Reply(id, text) => {
                let Self { slots, turn, shared, dirty, .. } = self;
                super::fanout::queue_reply(slots, turn, &shared.routes, dirty, id, &text);
            }
            Command::Ping(id, payload) => self.on_open(id, |w, at| {
                if let Some(slot) = w.slots.get(at) {
                    slot.conn.control(&mut w.turn.writer, Opcode::Ping, &payload);
                }
            }),
            Command::Close(id, code, reason) => {
                self.on_open(id, |w, at| w.close(at, code, &reason, Cause::Application));
            }
            Command::Terminate(id) => {
                if let Some(at) = self.slots.find(id).map(|s| s.conn.id.slot()) {
                    self.terminate(at);
                }
            }
            Command::Pause(id, pause) => self.on_open(id, |w, at| {
                let Some(slot) = w.slots.get(at) else { return };
                match pause {
                    true => slot.conn.pause(PauseReason::Application),
                    false => slot.conn.resume(PauseReason::Application),
                }
            }),
            Command::Subscribe(id, to) => self.on_open(id, |w, at| w.subscribe(at, &to)),
            Command::Unsubscribe(id, from) => self.on_open(id, |w, at| w.unsubscribe(at, &from)),
            Command::SubscriberChanges(worker, changes) => {
                self.turn.hub.apply_subscriber_changes(worker, changes)
            }
            Command::RecoveryRequest(from, request) => self.asked.push(from, request),
            Command::RecoveryReply(reply) => {
                self.settle();
                self.recovery().begin(*reply);
            }
            Command::Publish(publications) | Command::Forward(_, publications) => {
                publications.into_iter().for_each(|p| self.publish(p));
            }
            Command::PublishOne(publication) => self.publish(publication),
            Command::Batch(_, forwarded) => self.turn.hub.receive_batch(&forwarded),
            Command::Missed(_, missed) => {
                self.settle(); // what was published before comes before
                let Self { slots, turn, shared, dirty, .. } = self;
                super::fanout::tell_missed(slots, turn, &shared.routes, dirty, &missed);
            }
            Command::CongestionCleared => self.turn.hub.release_publishers(),
            Command::Settled(from, step) => self.settled(usize::from(from), step),
            Command::Broadcast(route, frames, key) => {
                for at in self.slots.keys() {
                    if self.slots.get(at).is_some_and(|s| s.conn.route == route) {
                        self.queue(at, &frames, key, true);
                    }
                }
            }
            Command::CountSubscribers(topic, answer) => {
                let index = &self.turn.hub.index;
                let count = index.find(&topic).map_or(0, |key| index.subscribers(key).len());
                self.reply(answer, Ok(count));
            }
            Command::List(route, answer) => {
                let all = self.of_route(route).map(|s| self.info(s)).collect();
                self.reply(answer, Ok(all));
            }
            Command::Info(id, answer) => {
                let info = self.slots.peek(id).map(|s| self.info(s));
                self.reply(answer, Ok(info));
            }
            Command::History(topic, start, limit, answer) => {
                self.settle(); // what was published before is in it
                let page = self.turn.hub.history(&topic, start, limit);
                self.reply(answer, Ok(page));
            }
            Command::Topics(prefix, limit, answer) => {
                self.settle();
                let topics = self.turn.hub.topics(&prefix, limit);
                self.reply(answer, Ok(topics));
            }
            Command::CountOpen(route, answer) => {
                let count = self.of_route(route).count();
                self.reply(answer, Ok(count));
            }
            Command::Panic => panic!("as a test asked"),
            Command::Shutdown { code, deadline } => self.shut_down(code, deadline),
        }
    }

    fn publish(&mut self, publication: PublishRequest) {
        if self.takes_no_more() {
            // It came after the shutdown had begun: connections are closing already, so nobody would get it.
            self.turn.count().publications_refused.add(1);
            if let Some(answer) = publication.reply {
                answer.fail(NoReply::Ended);
            }
            return;
        }
        if let Some((answer, outcome)) = self.turn.hub.publish_owned(publication) {
            self.reply(answer, outcome.map_err(NoReply::Refused));
        }
    }

    /// Answers a query. A panic is the application's: in a callback or in the executor that the answer wakes.
    fn reply<T>(&self, reply: ReplySender<T>, answer: Result<T, NoReply>) {
        if !reply.send(answer) {
            self.turn.count().panics.add(1);
        }
    }

    fn open_slot(&mut self, id: ConnId) -> Option<usize> {
        self.slots.find(id).filter(|s| s.conn.phase == Phase::Open).map(|s| s.conn.id.slot())
    }

    fn on_open(&mut self, id: ConnId, act: impl FnOnce(&mut Self, usize)) {
        if let Some(at) = self.open_slot(id) {
            act(self, at);
            self.after(at);
        }
    }

    /// Messages that were published before go out before, so that what follows is ordered after them.
    fn settle(&mut self) {
        if !self.turn.hub.batch_log.is_empty() {
            self.fan_out();
        }
    }

    pub(super) fn close(&mut self, at: usize, code: CloseCode, reason: &str, cause: Cause) {
        self.settle();
        if let Some(slot) = self.slots.get(at) {
            slot.conn.close(&mut self.turn.writer, &mut slot.stream, code, reason, cause);
        }
    }

    fn subscribe(&mut self, at: usize, to: &TopicOrPattern<'_>) {
        self.settle();
        let limit = self.limits_of(at).max_subscriptions;
        super::join::subscribe(&mut self.turn, at as u32, to, limit);
    }

    fn unsubscribe(&mut self, at: usize, from: &TopicOrPattern<'_>) {
        self.settle();
        let Self { slots, turn, shared, .. } = self;
        if let Some(slot) = slots.get(at) {
            super::join::unsubscribe(slot, turn, &shared.routes, from);
        }
    }

    /// The connections of a route, from the end of their opening handshake to the end of their closing one.
    fn of_route(&self, route: u16) -> impl Iterator<Item = &Slot> {
        let open = |c: &Connection| matches!(c.ready_state(), ReadyState::Open | ReadyState::Closing);
        self.slots.iter().map(|(_, s)| s).filter(move |s| s.conn.route == route && open(&s.conn))
    }

    fn info(&self, slot: &Slot) -> ConnInfo {
        let conn = &slot.conn;
        let cold = conn.cold.as_ref();
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let route = self.shared.routes.get(usize::from(conn.route));
        let names = self.turn.hub.index.names_of(conn.id.slot() as u32).map(str::to_owned);
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
