//! Subscriptions that begin somewhere else than now: asked of the topic's home, and begun when it has answered.

use super::Worker;
use super::drive::call;
use super::slots::Slot;
use crate::conn::{Phase, Terms};
use crate::handler::{Command, ErasedEvent as Event};
use crate::hub::{Hub, Joined, Position, envelope};

/// Messages looked at in one turn for connections that come back: some 4 ms. What is over waits for the next turn, so
/// that a crowd that asks for long histories holds up nobody; one join is one piece.
const REPLAYED: usize = 16_384;

impl Worker {
    /// Asks for the joins of this turn, and answers those that were asked here. The log is empty.
    pub(super) fn join(&mut self) {
        let me = self.turn.worker;
        for join in self.turn.hub.take_joins() {
            let home = self.shared.owners.of(&join.topic);
            if home == me {
                self.asked.push_back((me, join));
            } else {
                let _ = self.turn.handle.command_worker(home, Command::Join(me, join), true); // it has ended
            }
        }
        while self.replayed < REPLAYED
            && let Some((from, join)) = self.asked.pop_front()
        {
            if from == me && !self.turn.hub.is_wanted(&join) {
                continue;
            }
            // What is replayed to another worker's connections waits there, and is bounded like all that does.
            if from != me && self.shared.workers[from].mailbox.is_heavy() {
                self.asked.push_front((from, join));
                break;
            }
            let joined = self.turn.hub.joined(join, from);
            self.replayed += 1 + joined.looked_at;
            if from == me {
                self.joined(joined);
            } else {
                self.send_joined(from, joined);
            }
        }
    }

    /// The answer: from here on the connection listens, and what was kept for it comes first.
    pub(super) fn joined(&mut self, joined: Joined) {
        let at = joined.conn.slot();
        let wanted = self.turn.hub.is_joining(&joined);
        let open = self.slots.find(joined.conn).is_some_and(|s| s.conn.phase == Phase::Open);
        let limit = self.limits_of(at).max_subscriptions;
        let Joined { topic, tags, subscribed, replay, .. } = joined;
        // Checked when it was asked for; meanwhile the application may have subscribed otherwise.
        let subscribe = |hub: &mut Hub| hub.subscribe_joined(at as u32, &topic, tags, limit);
        let new = wanted && open && subscribe(&mut self.turn.hub).is_ok_and(|new| new);
        if !new {
            return self.turn.hub.not_joined(&topic);
        }
        let Self { slots, turn, shared, .. } = self;
        let Some(slot) = slots.get(at) else { return };
        let route = &shared.routes[usize::from(slot.conn.route)];
        let terms = Terms {
            slow_consumer: turn.hub.settings.of(&topic).slow_consumer.unwrap_or(route.terms.slow_consumer),
            ..route.terms
        };
        call(slot, turn, route, Event::Subscribed(&topic, &subscribed));
        // What the callback sent is first; what is kept goes behind it, as if it came now.
        slot.conn.flush(&mut turn.writer, &mut slot.stream);
        let mut replayed = 0;
        for entry in &replay {
            // It may have changed its mind.
            if slot.conn.phase != Phase::Open || !turn.hub.index.is_subscribed(at as u32, &topic) {
                break;
            }
            let Slot { conn, stream, .. } = &mut *slot;
            let writer = &mut turn.writer;
            let (frames, range) = match &route.envelope {
                None => (entry.frames.clone(), entry.range.clone()),
                Some(wrapper) => {
                    let at = Position { offset: entry.offset, ..subscribed.position };
                    let frame = (&entry.frames[entry.range.clone()], entry.json);
                    let one = core::iter::once(frame);
                    let verbatim = entry.frames.is_verbatim();
                    let frames = envelope::wrap(&*wrapper.envelope, &topic, at, one, verbatim);
                    let range = 0..frames.len();
                    (frames, range)
                }
            };
            let _ = conn.push(writer, stream, &frames, range, entry.key, &terms);
            replayed += 1;
        }
        turn.count().deliveries.add(replayed);
        self.dirty_later(at);
    }
}
