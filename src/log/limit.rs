//! How often one kind of line is logged. Pure: time is an argument.

use std::time::{Duration, Instant};

/// Between two lines of one kind.
const PERIOD: Duration = Duration::from_secs(1);

/// Admits one line a second, and counts those between.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LineLimit {
    last: Option<Instant>,
    suppressed: u64,
}

impl LineLimit {
    pub(crate) const fn new() -> Self {
        Self { last: None, suppressed: 0 }
    }

    /// Whether a line may be logged now, and how many were left out since the last one.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < PERIOD) {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.last = Some(now);
        Some(core::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limited_place_logs_one_line_a_second_and_counts_the_rest() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut limit = LineLimit::new();
        let admitted: Vec<_> = (0..25).map(|i| limit.admit(at(i * 100))).collect();
        let lines: Vec<_> = admitted.iter().enumerate().filter_map(|(i, a)| a.map(|n| (i, n))).collect();
        assert_eq!(lines, [(0, 0), (10, 9), (20, 9)]);
        assert_eq!(limit.admit(at(10_000)), Some(4));
        assert_eq!(limit.admit(at(9_000)), None, "a clock that another thread read a little earlier");
    }
}
