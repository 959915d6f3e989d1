//! Which topics can't take more publications for now, for all threads that publish.
//!
//! The owner of a topic marks it when much of it waits for other workers. Connections that publish to it then wait; when
//! so much waits that it may be lost, other threads' publications are refused. A publisher reads one counter, and where
//! that is zero nothing else. Names share marks by their hash: a topic that shares one waits with the other for that time.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};

/// Marks for the hashes of names: with ten congested topics another one is held up with a chance of 1 %.
const BUCKETS: usize = 1024;

/// In a mark, one full topic; below it congested ones are counted.
const FULL: u32 = 1 << 16;

/// The marks of all topics of a server.
#[derive(Debug)]
pub(crate) struct Congestion {
    /// Congested topics.
    topics: AtomicU32,
    buckets: Box<[AtomicU32]>,
    hashes: RandomState,
}

impl Default for Congestion {
    fn default() -> Self {
        let buckets = (0..BUCKETS).map(|_| AtomicU32::new(0)).collect();
        Self { topics: AtomicU32::new(0), buckets, hashes: RandomState::new() }
    }
}

impl Congestion {
    fn bucket_of(&self, topic: &str) -> &AtomicU32 {
        &self.buckets[self.hashes.hash_one(topic) as usize % BUCKETS]
    }

    /// Whether the topic, or one that shares its mark, is congested.
    #[inline]
    pub(crate) fn is_congested(&self, topic: &str) -> bool {
        self.topics.load(Ordering::Relaxed) > 0 && self.bucket_of(topic).load(Ordering::Relaxed) > 0
    }

    /// Whether so much of it waits that what is published now may be lost.
    #[inline]
    pub(crate) fn is_full(&self, topic: &str) -> bool {
        self.topics.load(Ordering::Relaxed) > 0 && self.bucket_of(topic).load(Ordering::Relaxed) >= FULL
    }

    /// Marks a topic. To be undone once with [`Congestion::clear_congested`].
    pub(crate) fn set_congested(&self, topic: &str) {
        self.bucket_of(topic).fetch_add(1, Ordering::Relaxed);
        self.topics.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn clear_congested(&self, topic: &str) {
        self.bucket_of(topic).fetch_sub(1, Ordering::Relaxed);
        self.topics.fetch_sub(1, Ordering::Relaxed);
    }

    /// Marks a topic that is marked already as full, or no longer.
    pub(crate) fn set_full(&self, topic: &str, full: bool) {
        let bucket = self.bucket_of(topic);
        if full {
            bucket.fetch_add(FULL, Ordering::Relaxed)
        } else {
            bucket.fetch_sub(FULL, Ordering::Relaxed)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_congested_until_its_last_mark_is_gone() {
        let congestion = Congestion::default();
        assert!(!congestion.is_congested("a"));
        congestion.set_congested("a");
        congestion.set_congested("a");
        congestion.clear_congested("a");
        assert!(congestion.is_congested("a") && !congestion.is_full("a"));
        congestion.set_full("a", true);
        assert!(congestion.is_congested("a") && congestion.is_full("a"));
        congestion.set_full("a", false);
        congestion.clear_congested("a");
        assert!(!congestion.is_congested("a"));
    }
}
