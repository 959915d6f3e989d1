//! Token buckets: limits on events per second, with a burst after a pause. Pure: the caller passes the time, in
//! nanoseconds since any fixed moment.

use core::time::Duration;

/// Nanoseconds since any fixed moment.
pub(crate) type Nanos = u64;

const SECOND: Nanos = 1_000_000_000;

/// The rate and burst of a bucket. Its state is one number, kept elsewhere: the theoretical arrival time (TAT), up to
/// which tokens are paid for. It is in the past while the bucket is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// The cost of a token in units of 2^-32 ns, so that neither one token a day nor four a nanosecond is rounded away.
    /// 0: unlimited.
    token_cost: u64,
    /// How far the TAT may be ahead of the present.
    tolerance: Nanos,
}

impl Rate {
    pub(crate) const UNLIMITED: Self = Self { token_cost: 0, tolerance: 0 };

    /// Makes a rate; 0 for each second is unlimited.
    pub(crate) const fn new(per_second: u64, burst: u64) -> Self {
        if per_second == 0 {
            return Self::UNLIMITED;
        }
        let rate = Self { token_cost: (SECOND << 32) / per_second, tolerance: 0 };
        Self { tolerance: rate.cost(burst.saturating_sub(1)), ..rate }
    }

    /// Raises the burst to the tokens of at least this time.
    pub(crate) const fn with_burst_of(self, time: Duration) -> Self {
        let time = time.as_nanos() as Nanos;
        if self.token_cost == 0 || self.tolerance >= time { self } else { Self { tolerance: time, ..self } }
    }

    pub(crate) const fn is_unlimited(self) -> bool {
        self.token_cost == 0
    }

    /// The time that this many tokens cost.
    #[inline]
    const fn cost(self, tokens: u64) -> Nanos {
        const MOST: u128 = (Nanos::MAX / 4) as u128; // no overflow if added to any time
        let cost = (tokens as u128 * self.token_cost as u128) >> 32;
        if cost < MOST { cost as Nanos } else { MOST as Nanos }
    }

    /// One of `parts` equal parts of it. Its burst is at least one token.
    pub(crate) fn share(self, parts: u64) -> RateShare {
        let interval = self.cost(parts);
        RateShare { interval, tolerance: (self.tolerance + self.cost(1)).saturating_sub(interval) }
    }

    /// Takes one token.
    ///
    /// # Errors
    /// No token is left: the time until there is one.
    pub(crate) fn take(self, tat: &mut Nanos, now: Nanos) -> Result<(), Nanos> {
        RateShare { interval: self.cost(1), tolerance: self.tolerance }.take(tat, now)
    }

    /// Takes `tokens` for an event that has happened already, also if fewer are left. Returns the time from which on
    /// there is one again, which may be in the past.
    #[inline]
    pub(crate) fn charge(self, tat: &mut Nanos, now: Nanos, tokens: u64) -> Nanos {
        *tat = now.max(*tat).saturating_add(self.cost(tokens));
        self.free_at(*tat)
    }

    /// The time from which on there is a token.
    #[inline]
    pub(crate) fn free_at(self, tat: Nanos) -> Nanos {
        tat.saturating_sub(self.tolerance)
    }
}

/// A share of a rate: a bucket with this interval between tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateShare {
    interval: Nanos,
    tolerance: Nanos,
}

impl RateShare {
    /// Takes one token.
    ///
    /// # Errors
    /// No token is left: the time until there is one.
    pub(crate) fn take(self, tat: &mut Nanos, now: Nanos) -> Result<(), Nanos> {
        let from = now.max(*tat);
        match (from - now).checked_sub(self.tolerance) {
            Some(early) if early > 0 => Err(early),
            _ => {
                *tat = from.saturating_add(self.interval);
                Ok(())
            }
        }
    }

    /// The paid time of a bucket that is empty now: the next token comes after one interval.
    pub(crate) fn empty(self, now: Nanos) -> Nanos {
        now.saturating_add(self.tolerance).saturating_add(self.interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    #[test]
    fn a_bucket_admits_its_burst_then_its_rate() {
        let rate = Rate::new(10, 3);
        let mut tat = 0;
        for _ in 0..3 {
            assert_eq!(rate.take(&mut tat, 7 * MS), Ok(()));
        }
        assert_eq!(rate.take(&mut tat, 7 * MS), Err(100 * MS));
        assert_eq!(rate.take(&mut tat, 106 * MS), Err(MS));
        assert_eq!(rate.take(&mut tat, 107 * MS), Ok(()));
        assert!(rate.take(&mut tat, 107 * MS).is_err());
        // A pause is worth the burst and no more.
        for _ in 0..3 {
            assert_eq!(rate.take(&mut tat, 60_000 * MS), Ok(()));
        }
        assert!(rate.take(&mut tat, 60_000 * MS).is_err());
    }

    #[test]
    fn zero_each_second_is_unlimited_and_a_burst_of_zero_is_one() {
        let (now, mut tat) = (0, 0);
        let unlimited = Rate::new(0, 0);
        assert!((0..1000).all(|_| unlimited.take(&mut tat, now).is_ok()));
        assert_eq!(unlimited.charge(&mut tat, now, u64::MAX), 0);
        let one = Rate::new(1, 0);
        assert!(one.take(&mut tat, now).is_ok() && one.take(&mut tat, now).is_err());
    }

    #[test]
    fn a_charge_above_the_burst_is_paid_back_later() {
        let rate = Rate::new(1000, 500);
        let (now, mut tat) = (5 * SECOND, 0);
        assert!(rate.charge(&mut tat, now, 499) <= now, "one token is left");
        assert_eq!(rate.charge(&mut tat, now, 1), now + MS, "none is left");
        assert_eq!(rate.charge(&mut tat, now, 10_000), now + 10_001 * MS, "ten seconds' worth at once");
        assert!(rate.charge(&mut tat, now + 11 * SECOND, 1) <= now + 11 * SECOND);
    }

    #[test]
    fn rates_keep_their_precision_and_charges_do_not_overflow() {
        for per_second in [1, 3, 1_000_000, 3_000_000_000, 40_000_000_000] {
            let (rate, mut tat) = (Rate::new(per_second, 1), 0);
            rate.charge(&mut tat, 0, 10 * per_second);
            assert!(tat.abs_diff(10 * SECOND) < 100, "{per_second}: {tat}");
        }
        let (rate, mut tat) = (Rate::new(1, u64::MAX), Nanos::MAX - 1);
        assert_eq!(rate.charge(&mut tat, Nanos::MAX / 2, u64::MAX), Nanos::MAX - Nanos::MAX / 4);
    }

    #[test]
    fn a_burst_can_be_raised_to_a_time() {
        let (tenth, mut tat) = (Duration::from_millis(100), 0);
        let rate = Rate::new(100, 1).with_burst_of(tenth);
        assert_eq!((0..100).filter(|_| rate.take(&mut tat, 0).is_ok()).count(), 11);
        assert_eq!(Rate::new(100, 50).with_burst_of(tenth), Rate::new(100, 50));
        assert!(Rate::UNLIMITED.with_burst_of(tenth).is_unlimited());
    }
}
