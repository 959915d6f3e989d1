//! Timers of connections, beside the connections: one without a timer has no entry here and costs nothing.

use crate::memory::Shrink;
use crate::sync::rate::Nanos;
use core::fmt;
use foldhash::fast::RandomState;
use std::collections::HashMap;

/// A connection has as many timers as its route allows ([`Limits::max_timers`](crate::Limits::max_timers)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TooManyTimers {
    /// The limit.
    pub limit: usize,
}

impl fmt::Display for TooManyTimers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit } = self;
        write!(
            f,
            "timers: {limit} are set, at most Limits::max_timers, {limit}, are allowed: clear one, or raise the limit"
        )
    }
}

impl std::error::Error for TooManyTimers {}

#[derive(Clone, Copy, Debug)]
struct Timer {
    number: u32,
    due: Nanos,
    /// Zero for a timer that fires once.
    period: Nanos,
}

/// The timers of one worker's connections, by slot.
#[derive(Default)]
pub(crate) struct Timers {
    by_slot: HashMap<u32, Vec<Timer>, RandomState>,
    /// Slots whose next timer may be earlier than the worker knows.
    changed: Vec<u32>,
}

impl Timers {
    /// Sets a timer. One with the same number is replaced.
    ///
    /// # Errors
    /// The connection has `limit` other timers.
    pub(crate) fn set(
        &mut self,
        slot: u32,
        number: u32,
        due: Nanos,
        period: Nanos,
        limit: usize,
    ) -> Result<(), TooManyTimers> {
        let timers = self.by_slot.entry(slot).or_default();
        timers.retain(|timer| timer.number != number);
        if timers.len() < limit {
            timers.push(Timer { number, due, period });
            self.changed.push(slot);
            return Ok(());
        }
        if timers.is_empty() {
            self.by_slot.remove(&slot);
        }
        Err(TooManyTimers { limit })
    }

    /// Clears a timer. Returns whether it was set.
    pub(crate) fn clear(&mut self, slot: u32, number: u32) -> bool {
        let Some(timers) = self.by_slot.get_mut(&slot) else { return false };
        let before = timers.len();
        timers.retain(|timer| timer.number != number);
        let was_set = timers.len() < before;
        if timers.is_empty() {
            self.remove(slot);
        }
        was_set
    }

    pub(crate) fn remove(&mut self, slot: u32) {
        self.by_slot.remove(&slot);
        self.by_slot.shrink();
    }

    pub(crate) fn next_due(&self, slot: u32) -> Option<Nanos> {
        self.by_slot.get(&slot)?.iter().map(|timer| timer.due).min()
    }

    /// Takes the number of the timer that is due longest. A repeating one is due again after `now`, in its rhythm: what was
    /// missed is skipped.
    pub(crate) fn take_due(&mut self, slot: u32, now: Nanos) -> Option<u32> {
        let timers = self.by_slot.get_mut(&slot)?;
        let due = (0..timers.len()).filter(|at| timers[*at].due <= now).min_by_key(|at| timers[*at].due)?;
        let Timer { number, due: was, period } = timers[due];
        match (now - was).checked_div(period) {
            Some(missed) => timers[due].due = was + (missed + 1) * period,
            None => {
                timers.swap_remove(due);
                if timers.is_empty() {
                    self.remove(slot);
                }
            }
        }
        Some(number)
    }

    /// Takes the slots whose timers were set since the last call.
    pub(crate) fn take_changed(&mut self) -> Option<Vec<u32>> {
        (!self.changed.is_empty()).then(|| core::mem::take(&mut self.changed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(timers: &mut Timers, slot: u32, now: Nanos) -> Vec<u32> {
        core::iter::from_fn(|| timers.take_due(slot, now)).collect()
    }

    #[test]
    fn a_timer_fires_once_and_a_repeating_one_in_its_rhythm() {
        let mut timers = Timers::default();
        timers.set(7, 1, 100, 0, 9).unwrap();
        timers.set(7, 2, 50, 40, 9).unwrap();
        timers.set(8, 1, 10, 0, 9).unwrap();
        assert_eq!(timers.next_due(7), Some(50));
        assert!(due(&mut timers, 7, 49).is_empty());
        assert_eq!(due(&mut timers, 7, 100), [2, 1]);
        assert_eq!(timers.next_due(7), Some(130));
        assert_eq!(due(&mut timers, 7, 1000), [2], "what was missed is skipped");
        assert_eq!(timers.next_due(7), Some(1010));
        assert_eq!(timers.take_changed(), Some(vec![7, 7, 8]));
        assert_eq!((timers.take_changed(), timers.next_due(8)), (None, Some(10)));
    }

    #[test]
    fn a_timer_is_replaced_cleared_and_bounded() {
        let mut timers = Timers::default();
        assert_eq!(timers.set(7, 0, 5, 0, 0), Err(TooManyTimers { limit: 0 }));
        timers.set(7, 1, 100, 0, 2).unwrap();
        timers.set(7, 2, 100, 0, 2).unwrap();
        assert_eq!(timers.set(7, 3, 5, 0, 2), Err(TooManyTimers { limit: 2 }));
        timers.set(7, 2, 20, 0, 2).unwrap();
        assert_eq!(due(&mut timers, 7, 99), [2]);
        assert!(timers.clear(7, 1) && !timers.clear(7, 1) && !timers.clear(8, 1));
        assert!(timers.by_slot.is_empty());
    }
}
