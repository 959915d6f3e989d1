//! Rates that limit what one connection of a route may send: messages and bytes a second. A connection over its rate is
//! not read from until it may send again.

use crate::sync::rate::{Nanos, Rate};
use core::time::Duration;

/// Connections over their rate are looked at once in a tick of the timer wheel (64 ms). A burst worth less than two ticks
/// would keep them below their rate.
const MIN_BURST: Duration = Duration::from_millis(128);

/// A route's rates. A rate that is not set is unlimited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    messages: Rate,
    bytes: Rate,
}

/// What one connection has used of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RateState {
    messages: Nanos,
    bytes: Nanos,
}

impl Rates {
    pub(crate) const UNLIMITED: Self = Self { messages: Rate::UNLIMITED, bytes: Rate::UNLIMITED };

    pub(crate) const fn messages(self, per_second: u64, burst: u64) -> Self {
        Self { messages: Rate::new(per_second, burst).with_burst_of(MIN_BURST), ..self }
    }

    pub(crate) const fn bytes(self, per_second: u64, burst: u64) -> Self {
        Self { bytes: Rate::new(per_second, burst).with_burst_of(MIN_BURST), ..self }
    }

    pub(crate) const fn is_unlimited(self) -> bool {
        self.messages.is_unlimited() && self.bytes.is_unlimited()
    }

    /// Charges a received message. Returns whether the next one may follow at once.
    #[inline]
    pub(crate) fn charge(&self, state: &mut RateState, now: Nanos, bytes: usize) -> bool {
        let messages = self.messages.charge(&mut state.messages, now, 1);
        messages.max(self.bytes.charge(&mut state.bytes, now, bytes as u64)) <= now
    }

    /// Time from which the next message is allowed.
    pub(crate) fn free_at(&self, state: &RateState) -> Nanos {
        self.messages.free_at(state.messages).max(self.bytes.free_at(state.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_of_two_rates_decides() {
        let rates = Rates::UNLIMITED.messages(10, 10).bytes(1000, 1000);
        let mut state = RateState::default();
        assert!(rates.charge(&mut state, 0, 10));
        assert!(!rates.charge(&mut state, 0, 5000), "five seconds' worth of bytes");
        assert_eq!(rates.free_at(&state) / 1_000_000, 4011);
        let mut state = RateState::default();
        assert!((0..9).all(|_| rates.charge(&mut state, 0, 0)) && !rates.charge(&mut state, 0, 0));
        assert_eq!(rates.free_at(&state) / 1_000_000, 100);
        assert!(Rates::UNLIMITED.is_unlimited() && !rates.is_unlimited());
    }
}
