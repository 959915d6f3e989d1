//! The numbers that name the lives of topics. A client keeps one for as long as it likes, so a number must not return,
//! also not after a restart.

/// A number has 53 bits, so that a JSON number in a browser holds it.
const MASK: u64 = (1 << 53) - 1;

/// A sequence of epochs: from a random number on, by a random odd step. One worker's sequence returns after 2^53 lives; two
/// servers, or one before and after a restart, meet in two given lives of a topic with a probability of 2^-53.
#[derive(Clone, Debug)]
pub(crate) struct Epochs {
    next: u64,
    step: u64,
}

impl Epochs {
    /// The seed must be random, and another for each worker and start.
    pub(crate) fn new(seed: [u64; 2]) -> Self {
        Self { next: seed[0] & MASK, step: seed[1] & MASK | 1 }
    }

    /// The next one, from 1 to 2^53 - 1.
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
