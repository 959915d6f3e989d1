//! The limits of plain HTTP.

use core::time::Duration;

/// The limits of plain HTTP, before any route is known.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct HttpLimits {
    /// Bytes of a request's head; over it the answer is 431. Default 8 KiB.
    pub max_head: usize,
    /// Headers of a request; over it the answer is 431. Default 64, at most 128.
    pub max_headers: usize,
    /// Bytes of a request's body; over it the answer is 413. Default 64 KiB.
    pub max_body: usize,
    /// From accepting a connection to the end of its first request, and between the end of one and that of the next;
    /// over it the answer is 408. Default 10 s.
    pub timeout: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self { max_head: 8 << 10, max_headers: 64, max_body: 64 << 10, timeout: Duration::from_secs(10) }
    }
}
