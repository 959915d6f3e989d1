//! Which topics accept no more publications for now, shared by all threads that publish.
//!
//! The owner of a topic sets its bucket when much of the topic waits for other workers. Connections that publish to it
//! are paused; when so much waits that messages may be lost, other threads' publications are refused. While no topic is
//! congested, a publisher reads one counter and nothing else. Topics share buckets by their hash: a topic that shares
//! one waits with the congested one.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};

/// Buckets for the hashes of names. With ten congested topics, another one is delayed with a probability of 1 %.
const BUCKETS: usize = 1024;

/// One full topic in a bucket; the bits below count congested ones.
const FULL: u32 = 1 << 16;

/// The congestion state of a server's topics.
#[derive(Debug)]
pub(crate) struct Congestion {
    /// The number of congested topics.
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

    /// Returns whether the topic, or one that shares its bucket, is congested.
    #[inline]
    pub(crate) fn is_congested(&self, topic: &str) -> bool {
        self.topics.load(Ordering::Relaxed) > 0 && self.bucket_of(topic).load(Ordering::Relaxed) > 0
    }

    /// Returns whether so much of it waits that messages published now may be lost.
    #[inline]
    pub(crate) fn is_full(&self, topic: &str) -> bool {
        self.topics.load(Ordering::Relaxed) > 0 && self.bucket_of(topic).load(Ordering::Relaxed) >= FULL
    }

    /// Marks a topic as congested. Undone once with [`Congestion::clear_congested`].
    pub(crate) fn set_congested(&self, topic: &str) {
        self.bucket_of(topic).fetch_add(1, Ordering::Relaxed);
        self.topics.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn clear_congested(&self, topic: &str) {
        self.bucket_of(topic).fetch_sub(1, Ordering::Relaxed);
        self.topics.fetch_sub(1, Ordering::Relaxed);
    }

    /// Marks a congested topic as full, or no longer full.
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
    fn a_topic_is_congested_until_all_marks_are_cleared() {
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
