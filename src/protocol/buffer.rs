//! Buffers for messages that don't fit in one read, and the pool that a worker lends them from.
//!
//! A buffer's bytes are initialised once in its life; `filled` says how many are the message. So a large message can
//! be received straight into it, and a recycled buffer costs neither zeroing nor page faults: for messages of 1 MiB
//! those were a third of the server's time.

use core::ops::Deref;

/// A message in a buffer of its own.
#[derive(Debug, Default)]
pub struct MessageBuf {
    bytes: Vec<u8>,
    filled: usize,
}

/// Bytes that a growing buffer gets at the first step; after that it doubles. A peer that declares a large message
/// and sends little pins little.
const FIRST_STEP: usize = 64 << 10;

impl MessageBuf {
    /// Bytes of memory held, whether filled or not.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Appends a copy.
    pub fn extend(&mut self, piece: &[u8]) {
        let end = self.filled + piece.len();
        if self.bytes.len() < end {
            self.bytes.truncate(self.filled);
            self.bytes.extend_from_slice(piece);
        } else {
            self.bytes[self.filled..end].copy_from_slice(piece);
        }
        self.filled = end;
    }

    /// Up to `want` writable bytes behind what is filled; growing by doubling, never to more than `want` needs.
    pub fn spare(&mut self, want: usize) -> &mut [u8] {
        let free = self.bytes.len() - self.filled;
        if free < want.min(FIRST_STEP) {
            let step = want.min(self.filled.max(FIRST_STEP));
            self.bytes.resize(self.filled + step, 0);
        }
        let end = self.bytes.len().min(self.filled + want);
        &mut self.bytes[self.filled..end]
    }

    /// Says that `n` bytes of [`MessageBuf::spare`] have been written, and gives them for a last touch.
    pub fn fill(&mut self, n: usize) -> &mut [u8] {
        let from = self.filled;
        self.filled = (from + n).min(self.bytes.len());
        &mut self.bytes[from..self.filled]
    }

    /// The last `n` filled bytes.
    pub fn last_mut(&mut self, n: usize) -> &mut [u8] {
        let from = self.filled.saturating_sub(n);
        &mut self.bytes[from..self.filled]
    }

    /// The memory, as an empty vector.
    pub fn into_empty_vec(mut self) -> Vec<u8> {
        self.bytes.clear();
        self.bytes
    }

    /// The message, as a vector.
    pub fn into_vec(mut self) -> Vec<u8> {
        self.bytes.truncate(self.filled);
        self.bytes
    }
}

impl Deref for MessageBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

/// Buffers waiting for their next message. Owned by one worker, bounded in number and bytes.
#[derive(Debug)]
pub struct BufferPool {
    free: Vec<Vec<u8>>,
    bytes: usize,
    max_bytes: usize,
}

impl BufferPool {
    /// A pool that keeps at most `max_bytes` for later.
    pub const fn new(max_bytes: usize) -> Self {
        Self { free: Vec::new(), bytes: 0, max_bytes }
    }

    /// An empty buffer for a message of about `hint` bytes: a recycled one for a large message, a new one for a
    /// small.
    pub fn take(&mut self, hint: usize) -> MessageBuf {
        let bytes = if hint >= FIRST_STEP { self.free.pop() } else { None };
        let bytes = bytes.unwrap_or_default();
        self.bytes -= bytes.capacity();
        MessageBuf { bytes, filled: 0 }
    }

    /// Takes a buffer back, or drops it where the pool is full or the buffer small.
    pub fn give(&mut self, buf: MessageBuf) {
        self.give_vec(buf.bytes);
    }

    /// The same for a plain vector.
    pub fn give_vec(&mut self, bytes: Vec<u8>) {
        let size = bytes.capacity();
        if size >= FIRST_STEP && self.bytes + size <= self.max_bytes {
            self.bytes += size;
            self.free.push(bytes);
        }
    }

    /// Gives back half of the buffers.
    pub fn trim(&mut self) {
        self.free.truncate(self.free.len() / 2);
        self.bytes = self.free.iter().map(Vec::capacity).sum();
    }

    /// Bytes kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_grows_with_received_not_announced_bytes() {
        let mut b = MessageBuf::default();
        assert_eq!(b.spare(1 << 30).len(), FIRST_STEP);
        b.fill(FIRST_STEP);
        assert_eq!(b.spare(1 << 30).len(), FIRST_STEP);
        b.fill(10);
        assert_eq!(b.len(), FIRST_STEP + 10);
        assert!(b.capacity() <= 4 * FIRST_STEP);
    }

    #[test]
    fn a_recycled_buffer_is_empty_and_the_pool_is_bounded() {
        let mut pool = BufferPool::new(300 << 10);
        let mut b = pool.take(1 << 20);
        b.extend(&[7; 200 << 10]);
        pool.give(b);
        assert!(pool.bytes() >= 200 << 10);
        let mut other = MessageBuf::default();
        other.extend(&[1; 200 << 10]);
        pool.give(other);
        assert!(pool.bytes() <= 300 << 10, "a second one does not fit");
        let mut b = pool.take(1 << 20);
        assert_eq!((b.len(), pool.bytes()), (0, 0));
        b.extend(b"abc");
        assert_eq!(&b[..], b"abc");
        assert_eq!(b.into_vec(), b"abc");
    }
}
