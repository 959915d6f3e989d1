//! How often one client may ask: so many each second, and so many at once after a rest.

use core::time::Duration;
use std::time::Instant;

/// What a client may.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// What one request uses up; zero: nothing is limited.
    interval: Duration,
    /// How far ahead of the time a client may get.
    ahead: Duration,
}

impl Rate {
    pub(super) fn new((per_second, burst): (u32, u32)) -> Self {
        let interval = Duration::from_secs(1).checked_div(per_second).unwrap_or_default();
        Self { interval, ahead: interval.saturating_mul(burst.max(1) - 1) }
    }

    /// Takes one request at a time. `paid` is up to when the client's requests have used up its share.
    ///
    /// # Errors
    /// It is too early: by how much.
    pub(super) fn take(&self, paid: &mut Instant, now: Instant) -> Result<(), Duration> {
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
        let rate = Rate::new((10, 3));
        let start = Instant::now();
        let mut paid = start;
        let at = |ms| start + Duration::from_millis(ms);
        for _ in 0..3 {
            assert_eq!(rate.take(&mut paid, start), Ok(()));
        }
        assert_eq!(rate.take(&mut paid, start), Err(Duration::from_millis(100)));
        assert_eq!(rate.take(&mut paid, at(99)), Err(Duration::from_millis(1)));
        assert_eq!(rate.take(&mut paid, at(100)), Ok(()));
        assert!(rate.take(&mut paid, at(100)).is_err());
        // A rest is worth the burst and no more.
        for _ in 0..3 {
            assert_eq!(rate.take(&mut paid, at(60_000)), Ok(()));
        }
        assert!(rate.take(&mut paid, at(60_000)).is_err());
    }

    #[test]
    fn none_each_second_is_no_limit_and_no_burst_is_one() {
        let now = Instant::now();
        let mut paid = now;
        let unlimited = Rate::new((0, 0));
        assert!((0..1000).all(|_| unlimited.take(&mut paid, now).is_ok()));
        let one = Rate::new((1, 0));
        assert!(one.take(&mut paid, now).is_ok() && one.take(&mut paid, now).is_err());
    }
}
