//! Connections that exceed their route's rates: they are not read from until they may send again.

use super::Worker;
use super::deadlines::ticks;
use super::wheel::{TICK_MS, Tick};
use crate::conn::{PauseReason, Phase};
use crate::sync::rate::Nanos;
use std::io::ErrorKind;

/// Nanoseconds of one tick.
const TICK: Nanos = TICK_MS * 1_000_000;

/// Returns the first tick that does not begin before this time. Ticks count from 1.
pub(super) fn tick_from(time: Nanos) -> Tick {
    Tick::try_from(time.div_ceil(TICK) + 1).unwrap_or(Tick::MAX)
}

impl Worker {
    /// Returns when a connection that is paused for its rate must be checked.
    pub(super) fn rate_due(&mut self, at: usize) -> Option<Tick> {
        let slot = self.slots.get_mut(at).filter(|s| s.conn.pauses.contains(PauseReason::Rate))?;
        let rates = self.shared.routes.get(usize::from(slot.conn.route))?.rates.as_ref()?;
        let due = tick_from(self.ctx.free_at(slot.conn.id, rates));
        Some(if slot.flags.ended { due.min(slot.timestamps.deadline) } else { due })
    }

    /// Handles the timer of a connection that is paused for its rate: resumes it, or disconnects it if its peer has
    /// ended and its time is over. Returns whether that was all there was to do.
    pub(super) fn rate_is_due(&mut self, at: usize) -> bool {
        if self.rate_due(at).is_none_or(|due| due > self.now) {
            return false;
        }
        let Some(slot) = self.slots.get_mut(at) else { return true };
        let rates = self.shared.routes.get(usize::from(slot.conn.route)).and_then(|r| r.rates.as_ref());
        if rates.is_none_or(|rates| self.ctx.free_at(slot.conn.id, rates) <= self.ctx.now) {
            slot.conn.resume(PauseReason::Rate);
            if slot.conn.is_paused() {
                return false; // for another reason
            }
            self.write_and_advance(at);
        } else {
            self.disconnected(at, ErrorKind::UnexpectedEof);
        }
        true
    }

    /// Notes that the peer has ended its half: the end of the stream must be read behind the last bytes. A peer above
    /// its rate has the time of a closing handshake for these, since it may have sent minutes' worth, and is
    /// disconnected then.
    pub(super) fn peer_ended(&mut self, at: usize) {
        let due = self.now + ticks(self.limits_of(at).close_timeout);
        let Some(slot) = self.slots.get_mut(at).filter(|s| !s.flags.ended) else { return };
        slot.flags.ended = true;
        if slot.conn.phase == Phase::Open {
            slot.timestamps.deadline = due;
            if slot.conn.pauses.contains(PauseReason::Rate) {
                self.wheel.arm_earlier(&mut self.slots, at as u32, due);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_pause_ends_in_the_tick_that_allows_sending() {
        for (millis, tick) in [(0, 1), (1, 2), (64, 2), (65, 3), (6400, 101)] {
            assert_eq!(tick_from(millis * 1_000_000), tick, "{millis} ms");
        }
    }
}
