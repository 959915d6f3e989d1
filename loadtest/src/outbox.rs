//! What is to be sent: bytes that are initialised once in their life, so that frames are masked straight into place.

use std::ops::Deref;

/// A growing buffer that is written in slices.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    filled: usize,
}

impl Outbox {
    /// Appends `n` bytes, to be overwritten by the caller: they hold what was there before.
    #[inline]
    pub(crate) fn space(&mut self, n: usize) -> &mut [u8] {
        let from = self.filled;
        self.filled += n;
        if self.filled > self.bytes.len() {
            self.grow();
        }
        &mut self.bytes[from..self.filled]
    }

    /// Appends a copy.
    #[inline]
    pub(crate) fn extend(&mut self, piece: &[u8]) {
        self.space(piece.len()).copy_from_slice(piece);
    }

    /// The last `n` bytes.
    #[inline]
    pub(crate) fn last_mut(&mut self, n: usize) -> &mut [u8] {
        &mut self.bytes[self.filled - n..self.filled]
    }

    /// Empties it; its memory stays.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.filled = 0;
    }

    /// Whether it holds memory.
    pub(crate) fn has_memory(&self) -> bool {
        self.bytes.capacity() > 0
    }

    #[cold]
    fn grow(&mut self) {
        let len = self.filled.max(self.bytes.len() * 2).max(4096);
        self.bytes.resize(len, 0);
    }
}

impl Deref for Outbox {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_stand_in_order_and_clearing_keeps_the_memory() {
        let mut o = Outbox::default();
        assert!(!o.has_memory());
        o.extend(b"ab");
        o.space(5000).fill(7);
        o.extend(b"c");
        assert_eq!((o.len(), &o[..3], o[5001], o[5002]), (5003, &b"ab\x07"[..], 7, b'c'));
        o.clear();
        assert!(o.is_empty() && o.has_memory());
    }
}
