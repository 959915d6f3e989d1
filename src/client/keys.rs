//! Masking keys and nonces, from the operating system unless the caller asks for less.
//!
//! RFC 6455 section 5.3: a frame's key must come from a strong source of entropy, and the key of one frame must not
//! make it simple to predict that of the next; section 10.3 says what for: whoever chooses the payload must not choose
//! the bytes on the wire, or they could speak HTTP to a proxy on the way. A fast generator such as wyrand or xorshift
//! does not do, however it is seeded: a server sees every key and can work out the state from a few. The kernel's
//! generator does, and read in blocks it costs one system call for 64 frames, about 10 ns a frame.

/// Bytes fetched at once.
const BLOCK: usize = 256;

/// Random bytes not handed out yet.
#[derive(Debug)]
pub struct Keys {
    block: [u8; BLOCK],
    at: usize,
    /// The state of a generator that can be guessed, where that was asked for.
    guessable: Option<u64>,
}

impl Default for Keys {
    fn default() -> Self {
        Self::new()
    }
}

impl Keys {
    /// From the operating system.
    pub fn new() -> Self {
        Self { block: [0; BLOCK], at: BLOCK, guessable: None }
    }

    /// Keys that a server can work out: only for payloads that are the program's own, such as a load client's, for
    /// which 10 ns a frame are much.
    pub fn guessable(seed: u64) -> Self {
        Self { guessable: Some(seed), ..Self::new() }
    }

    /// `N` bytes, at most 256, that nobody gets twice.
    ///
    /// # Panics
    /// The system has no randomness: then there is no safe way to send anything.
    #[inline]
    #[allow(clippy::should_implement_trait)] // never ends, and gives arrays of any size
    pub fn next<const N: usize>(&mut self) -> [u8; N] {
        const { assert!(N <= BLOCK) };
        if BLOCK - self.at < N {
            self.refill();
        }
        let from = self.at;
        self.at += N;
        let mut taken = [0; N];
        taken.copy_from_slice(&self.block[from..from + N]);
        taken
    }

    #[cold]
    fn refill(&mut self) {
        self.at = 0;
        let Some(state) = &mut self.guessable else {
            getrandom::fill(&mut self.block).expect("the operating system's random numbers");
            return;
        };
        // SplitMix64: a counter and a hash of it, so that no state is bad and no seed either.
        for word in self.block.as_chunks_mut::<8>().0 {
            *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = *state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            *word = (z ^ (z >> 31)).to_ne_bytes();
        }
    }

    /// A number from 0 to 1, for the jitter of a delay.
    pub(super) fn fraction(&mut self) -> f64 {
        f64::from(u32::from_ne_bytes(self.next())) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn masking_keys_do_not_repeat() {
        for mut keys in [Keys::new(), Keys::guessable(7)] {
            let seen: HashSet<[u8; 8]> = (0..1000).map(|_| keys.next()).collect();
            assert_eq!(seen.len(), 1000);
            let _: [u8; 3] = keys.next(); // what does not fit the rest of a block is taken from the next
            assert_ne!(keys.next::<200>(), keys.next::<200>());
            assert!((0..1000).map(|_| keys.fraction()).all(|f| (0.0..=1.0).contains(&f)));
        }
    }
}
