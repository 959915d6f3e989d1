//! Subscriptions that begin somewhere else than now: asked of the topic's home, and begun when it has answered.

use super::Worker;
use super::drive::call;
use super::slots::Slot;
use crate::conn::Phase;
use crate::handler::{Command, ErasedEvent as Event};
use crate::hub::{Hub, Joined, Position, envelope, home_of};

impl Worker {
    /// Asks for the joins of this turn. The log is empty.
    pub(super) fn join(&mut self) {
        for join in self.turn.hub.take_joins() {
            let (me, workers) = (self.turn.worker, self.shared.workers.len());
            let home = home_of(&join.topic, workers);
            if home == me {
                let joined = self.turn.hub.joined(join, me);
                self.joined(joined);
            } else {
                let _ = self.turn.handle.command_worker(home, Command::Join(me, join), true); // it has ended
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
                    let frames =
                        envelope::wrap(&*wrapper.envelope, &topic, at, one, entry.frames.is_verbatim())
                            .frames;
                    let range = 0..frames.len();
                    (frames, range)
                }
            };
            let _ = conn.push(writer, stream, &frames, range, entry.key, &route.terms);
            replayed += 1;
        }
        turn.count().deliveries.add(replayed);
        self.dirty_later(at);
    }
}
