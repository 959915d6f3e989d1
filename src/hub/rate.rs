//! How often something may be done: so many times each second, and so many at once after a rest.

use core::time::Duration;

/// What is allowed. Times are since any one moment, the same for all calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// What one time uses up; zero: nothing is limited.
    interval: Duration,
    /// How far ahead of the time one may get.
    ahead: Duration,
}

impl Rate {
    /// Zero each second is no limit.
    pub(crate) const fn new(per_second: u32, burst: u32) -> Self {
        let interval = match Duration::from_secs(1).checked_div(per_second) {
            Some(interval) => interval,
            None => Duration::ZERO,
        };
        Self { interval, ahead: interval.saturating_mul(burst.saturating_sub(1)) }
    }

    /// Takes one time. `paid` is up to when the times before have used up what is allowed.
    ///
    /// # Errors
    /// It is too early: by how much.
    pub(crate) fn take(&self, paid: &mut Duration, now: Duration) -> Result<(), Duration> {
        let from = now.max(*paid);
        match (from - now).checked_sub(self.ahead).filter(|early| !early.is_zero()) {
            Some(early) => Err(early),
            None => {
                *paid = from + self.interval;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_so_many_each_second() {
        let rate = Rate::new(10, 3);
        let at = Duration::from_millis;
        let mut paid = Duration::ZERO;
        for _ in 0..3 {
            assert_eq!(rate.take(&mut paid, at(7)), Ok(()));
        }
        assert_eq!(rate.take(&mut paid, at(7)), Err(at(100)));
        assert_eq!(rate.take(&mut paid, at(106)), Err(at(1)));
        assert_eq!(rate.take(&mut paid, at(107)), Ok(()));
        assert!(rate.take(&mut paid, at(107)).is_err());
        // A rest is worth the burst and no more.
        for _ in 0..3 {
            assert_eq!(rate.take(&mut paid, at(60_000)), Ok(()));
        }
        assert!(rate.take(&mut paid, at(60_000)).is_err());
    }

    #[test]
    fn none_each_second_is_no_limit_and_no_burst_is_one() {
        let (now, mut paid) = (Duration::ZERO, Duration::ZERO);
        let unlimited = Rate::new(0, 0);
        assert!((0..1000).all(|_| unlimited.take(&mut paid, now).is_ok()));
        let one = Rate::new(1, 0);
        assert!(one.take(&mut paid, now).is_ok() && one.take(&mut paid, now).is_err());
    }
}
