//! Randomness, from the operating system and nowhere else.
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
pub(super) struct Keys {
    block: [u8; BLOCK],
    at: usize,
}

impl Keys {
    pub(super) fn new() -> Self {
        Self { block: [0; BLOCK], at: BLOCK }
    }

    /// `N` bytes that nobody can guess, and that nobody gets twice.
    ///
    /// # Panics
    /// The system has no randomness: then there is no safe way to send anything.
    pub(super) fn next<const N: usize>(&mut self) -> [u8; N] {
        const { assert!(N <= BLOCK) };
        if BLOCK - self.at < N {
            getrandom::fill(&mut self.block).expect("the operating system's random numbers");
            self.at = 0;
        }
        let from = self.at;
        self.at += N;
        let mut taken = [0; N];
        taken.copy_from_slice(&self.block[from..from + N]);
        taken
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
    fn no_key_comes_twice() {
        let mut keys = Keys::new();
        let seen: HashSet<[u8; 8]> = (0..1000).map(|_| keys.next()).collect();
        assert_eq!(seen.len(), 1000);
        let _: [u8; 3] = keys.next(); // what does not fit the rest of a block is taken from the next
        assert_ne!(keys.next::<200>(), keys.next::<200>());
        assert!((0..1000).map(|_| keys.fraction()).all(|f| (0.0..=1.0).contains(&f)));
    }
}
