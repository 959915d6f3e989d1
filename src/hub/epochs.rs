//! Epochs: numbers that identify the lives of topics. Clients store them for any time, so a number must never repeat,
//! not even after a restart.

/// An epoch has 53 bits, so that a JSON number in a browser holds it.
const MASK: u64 = (1 << 53) - 1;

/// A sequence of epochs that starts at a random number and has a random odd step. One worker's sequence repeats after
/// 2^53 lives. Two given epochs, of two servers or of one before and after a restart, are equal with a probability of
/// 2^-53.
#[derive(Clone, Debug)]
pub(crate) struct Epochs {
    next: u64,
    step: u64,
}

impl Epochs {
    /// The seed must be random and different for each worker and start.
    pub(crate) fn new(seed: [u64; 2]) -> Self {
        Self { next: seed[0] & MASK, step: seed[1] & MASK | 1 }
    }

    /// Returns the next epoch, from 1 to 2^53 - 1.
    pub(crate) fn next(&mut self) -> u64 {
        loop {
            let epoch = self.next;
            self.next = self.next.wrapping_add(self.step) & MASK;
            if epoch != 0 {
                return epoch;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn epochs_are_unique_and_below_2_53(seed in any::<[u64; 2]>()) {
            let mut epochs = Epochs::new(seed);
            let all: HashSet<u64> = (0..10_000).map(|_| epochs.next()).collect();
            prop_assert_eq!(all.len(), 10_000);
            prop_assert!(all.iter().all(|e| (1..1 << 53).contains(e)));
        }
    }

    #[test]
    fn epochs_skip_zero() {
        let mut epochs = Epochs::new([0, 0]);
        assert_eq!((epochs.next(), epochs.next()), (1, 2));
    }
}
