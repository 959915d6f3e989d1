//! Coarse timers: a wheel of buckets, each a list through the slots themselves. Arming, moving and dropping a timer
//! take constant time. A message arms nothing: it records when it was received, and the timer checks that when it
//! fires.

/// Time in steps of 64 ms since the worker started. Wraps after 8 years.
pub(crate) type Tick = u32;

/// One step, in milliseconds. Timeouts are seconds, so 64 ms are precise enough.
pub(crate) const TICK_MS: u64 = 64;

/// Buckets: a horizon of 65 s. A later timer fires at the horizon and is armed again.
const BUCKETS: u32 = 1024;

const NONE: u32 = u32::MAX;

/// A slot's links in the list of its bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimerLinks {
    next: u32,
    prev: u32,
    /// When it fires; determines the bucket.
    due: Tick,
    armed: bool,
}

impl Default for TimerLinks {
    fn default() -> Self {
        Self { next: NONE, prev: NONE, due: 0, armed: false }
    }
}

/// Access to the slots' links.
pub(crate) trait Store {
    fn links(&mut self, slot: u32) -> &mut TimerLinks;
}

#[derive(Debug)]
pub(crate) struct Wheel {
    heads: Box<[u32]>,
    /// A bit for each bucket that may have a timer.
    occupied: [u64; BUCKETS as usize / 64],
    /// All earlier ticks have fired.
    now: Tick,
}

impl Wheel {
    pub(crate) fn new() -> Self {
        Self { heads: vec![NONE; BUCKETS as usize].into(), occupied: [0; BUCKETS as usize / 64], now: 0 }
    }

    /// Arms the timer of `slot` for `due`, or for the horizon if that is earlier, or for now if it is in the past.
    pub(crate) fn arm(&mut self, store: &mut impl Store, slot: u32, due: Tick) {
        self.disarm(store, slot);
        let due = due.clamp(self.now, self.now + BUCKETS - 1);
        let bucket = due % BUCKETS;
        let head = self.heads[bucket as usize];
        *store.links(slot) = TimerLinks { next: head, prev: NONE, due, armed: true };
        if head != NONE {
            store.links(head).prev = slot;
        }
        self.heads[bucket as usize] = slot;
        self.occupied[bucket as usize / 64] |= 1 << (bucket % 64);
    }

    /// Arms the timer unless it fires earlier already.
    pub(crate) fn arm_earlier(&mut self, store: &mut impl Store, slot: u32, due: Tick) {
        let links = store.links(slot);
        if !links.armed || due < links.due {
            self.arm(store, slot, due);
        }
    }

    pub(crate) fn disarm(&mut self, store: &mut impl Store, slot: u32) {
        let links = core::mem::take(store.links(slot));
        if !links.armed {
            return;
        }
        if links.prev == NONE {
            self.heads[(links.due % BUCKETS) as usize] = links.next;
        } else {
            store.links(links.prev).next = links.next;
        }
        if links.next != NONE {
            store.links(links.next).prev = links.prev;
        }
    }

    /// Takes the next slot whose timer has expired by `now`.
    pub(crate) fn pop(&mut self, store: &mut impl Store, now: Tick) -> Option<u32> {
        while self.now <= now {
            let bucket = (self.now % BUCKETS) as usize;
            let head = self.heads[bucket];
            if head != NONE {
                self.disarm(store, head);
                return Some(head);
            }
            self.occupied[bucket / 64] &= !(1 << (bucket % 64));
            // The last step stays open: a timer may still be armed for this tick.
            if self.now == now {
                return None;
            }
            self.now += 1;
        }
        None
    }

    /// Returns the ticks from `now` until the next bucket that may fire: how long the worker may sleep.
    pub(crate) fn sleep(&self, now: Tick) -> Option<u32> {
        let start = self.now % BUCKETS;
        let words = self.occupied.len() as u32;
        for i in 0..=words {
            let word = (start / 64 + i) % words;
            let mut bits = self.occupied[word as usize];
            if i == 0 {
                bits &= u64::MAX << (start % 64);
            } else if i == words {
                bits &= !(u64::MAX << (start % 64));
            }
            if bits != 0 {
                let bucket = word * 64 + bits.trailing_zeros();
                let due = self.now + (bucket + BUCKETS - start) % BUCKETS;
                return Some(due.saturating_sub(now));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    impl Store for Vec<TimerLinks> {
        fn links(&mut self, slot: u32) -> &mut TimerLinks {
            &mut self[slot as usize]
        }
    }

    fn fired(wheel: &mut Wheel, store: &mut Vec<TimerLinks>, now: Tick) -> Vec<u32> {
        let mut out: Vec<u32> = std::iter::from_fn(|| wheel.pop(store, now)).collect();
        out.sort_unstable();
        out
    }

    #[test]
    fn timers_fire_in_their_tick() {
        let (mut w, mut s) = (Wheel::new(), vec![TimerLinks::default(); 4]);
        w.arm(&mut s, 0, 5);
        w.arm(&mut s, 1, 5);
        w.arm(&mut s, 2, 7);
        assert_eq!(w.sleep(0), Some(5));
        assert!(fired(&mut w, &mut s, 4).is_empty());
        assert_eq!(fired(&mut w, &mut s, 5), [0, 1]);
        w.arm(&mut s, 3, 2); // in the past: now
        assert_eq!(fired(&mut w, &mut s, 6), [3]);
        w.disarm(&mut s, 2);
        assert!(fired(&mut w, &mut s, 100).is_empty());
        assert_eq!(w.sleep(100), None);
    }

    #[test]
    fn a_timer_beyond_the_horizon_fires_at_the_horizon() {
        let (mut w, mut s) = (Wheel::new(), vec![TimerLinks::default(); 1]);
        w.arm(&mut s, 0, 1_000_000);
        assert_eq!(w.sleep(0), Some(BUCKETS - 1));
        assert_eq!(fired(&mut w, &mut s, BUCKETS - 1), [0]);
    }

    proptest! {
        #[test]
        fn the_wheel_agrees_with_a_sorted_map(steps in prop::collection::vec((0u8..4, 0u32..20, 0u32..1500), 1..300)) {
            let (mut w, mut s) = (Wheel::new(), vec![TimerLinks::default(); 20]);
            let mut naive: BTreeMap<u32, Tick> = BTreeMap::new();
            let mut now = 0;
            for (what, slot, n) in steps {
                match what {
                    0 => {
                        w.arm(&mut s, slot, now + n);
                        naive.insert(slot, (now + n).min(w.now + BUCKETS - 1).max(w.now));
                    }
                    1 => {
                        w.disarm(&mut s, slot);
                        naive.remove(&slot);
                    }
                    _ => {
                        now += n % 100;
                        let expected: Vec<u32> = naive.iter().filter(|(_, d)| **d <= now).map(|(s, _)| *s).collect();
                        naive.retain(|_, d| *d > now);
                        prop_assert_eq!(fired(&mut w, &mut s, now), expected);
                    }
                }
                if let Some(first) = naive.values().min() {
                    prop_assert!(w.sleep(now).unwrap() <= first.saturating_sub(now));
                }
            }
        }
    }
}
