//! The text behind a message: what one message of a connection leaves to the next with context takeover.

/// The last bytes of one direction of one connection, at most a window of them.
///
/// Grows with what is said and never beyond the window: an idle connection that has said little holds little.
#[derive(Clone, Debug)]
pub struct History {
    bytes: Vec<u8>,
    window_bits: u8,
}

impl History {
    /// An empty history for a window of 2 to the power of `window_bits` bytes; values outside 8 to 15 are clamped.
    #[must_use]
    pub fn new(window_bits: u8) -> Self {
        Self { bytes: Vec::new(), window_bits: window_bits.clamp(8, super::MAX_WINDOW_BITS) }
    }

    /// Bytes of memory held, besides the value itself.
    #[must_use]
    pub fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Forgets all of it: something was said that it does not have.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds a message.
    pub(super) fn record(&mut self, message: &[u8]) {
        let window = 1 << self.window_bits;
        let message = &message[message.len().saturating_sub(window)..];
        let kept = self.bytes.len().min(window - message.len());
        self.bytes.drain(..self.bytes.len() - kept);
        let needed = kept + message.len();
        if needed > self.bytes.capacity() {
            // By doubling, but never more than the window.
            let capacity = (self.bytes.capacity() * 2).clamp(needed, window);
            self.bytes.reserve_exact(capacity - kept);
        }
        self.bytes.extend_from_slice(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_history_holds_the_last_bytes_within_its_window(
            bits in 8u8..11,
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1500), 0..12),
        ) {
            let mut history = History::new(bits);
            let mut all = Vec::new();
            for message in &messages {
                history.record(message);
                all.extend_from_slice(message);
                let window = 1 << bits;
                prop_assert_eq!(history.as_bytes(), &all[all.len().saturating_sub(window)..]);
                prop_assert!(history.held() <= window);
            }
        }
    }
}
