//! When the heap should be trimmed: memory in use has fallen, and stays low.

/// Bytes freed for which trimming pays: it takes some 0.3 ms for each MiB that goes back, and what goes back costs a page
/// fault for each 4 KiB when it is needed again.
const MIN_FREED: u64 = 16 << 20;

/// Looks of one half of the window. What is needed again before two halves are over is not given back.
const HALF_WINDOW: u32 = 8;

/// How much memory is in use, about, and how much was since the heap was last trimmed. It only has to fall when much is
/// freed; its scale means little.
#[derive(Debug, Default)]
pub(crate) struct MemoryLevel {
    /// The most since the last trimming, as far as it lasted.
    high: u64,
    /// The most in this half of the window, and in the one before.
    recent: [u64; 2],
    now: u64,
    samples: u32,
}

impl MemoryLevel {
    /// Notes how much is in use. Says whether much less is needed than was, since half a window or longer.
    pub(crate) fn record(&mut self, now: u64) -> bool {
        self.now = now;
        self.recent[0] = self.recent[0].max(now);
        self.samples += 1;
        if self.samples < HALF_WINDOW {
            return false;
        }
        let needed = self.recent[0].max(self.recent[1]);
        (self.recent, self.samples) = ([now, self.recent[0]], 0);
        self.high = self.high.max(needed);
        if self.high - needed < MIN_FREED {
            return false;
        }
        self.high = needed;
        true
    }

    /// Whether so much memory is or was in use that it must be recorded again without an event.
    pub(crate) fn may_fall(&self) -> bool {
        self.now >= MIN_FREED || self.has_fallen()
    }

    /// Whether it has fallen so far that [`MemoryLevel::record`] will report it later.
    fn has_fallen(&self) -> bool {
        let most = self.high.max(self.recent[0]).max(self.recent[1]);
        most - self.now >= MIN_FREED
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    /// The looks after which it says that the heap should be trimmed.
    fn trimmed(level: &mut MemoryLevel, levels: impl IntoIterator<Item = u64>) -> Vec<usize> {
        levels.into_iter().enumerate().filter(|(_, now)| level.record(*now)).map(|(at, _)| at).collect()
    }

    #[test]
    fn a_lasting_fall_trims_once_after_a_delay() {
        let mut level = MemoryLevel::default();
        assert!(trimmed(&mut level, [500 * MIB; 100]).is_empty() && !level.has_fallen());
        let at = trimmed(&mut level, [MIB; 100]);
        assert!(at.len() == 1 && (8..=24).contains(&at[0]), "{at:?}");
        assert!(!level.has_fallen());
        assert!(trimmed(&mut level, [0; 100]).is_empty(), "a little less is not worth it");
    }

    #[test]
    fn short_falls_do_not_trim() {
        let mut level = MemoryLevel::default();
        let waves = (0..1000).map(|n| if n % 8 == 0 { 500 * MIB } else { MIB });
        assert!(trimmed(&mut level, waves).is_empty());
        assert_eq!(trimmed(&mut level, [MIB; 100]).len(), 1);
    }

    proptest! {
        #[test]
        fn a_lasting_fall_is_always_detected(levels in prop::collection::vec(0u64..1000, 0..200), last in 0u64..1000) {
            let mut level = MemoryLevel::default();
            let mut most = 0;
            for now in levels {
                most = if level.record(now * MIB) { now } else { most.max(now) };
            }
            // A thread that waits for a falling level waits no longer than one window.
            let mut samples = 0;
            let mut noticed = level.record(last * MIB);
            while level.has_fallen() {
                noticed |= level.record(last * MIB);
                samples += 1;
                prop_assert!(samples <= 3 * HALF_WINDOW, "{level:?}");
            }
            prop_assert!(noticed || most < last + 16 || samples == 0);
        }
    }
}
