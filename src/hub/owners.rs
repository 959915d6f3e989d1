//! Selects the worker that owns a topic. The hash has a random key for each server, so a client can't choose names that
//! all have the same owner.

use std::hash::{BuildHasher, RandomState};

/// Selects a topic's owner. All workers and handles of a server share one key.
#[derive(Clone, Debug)]
pub(crate) struct Owners {
    key: RandomState,
    workers: usize,
}

impl Owners {
    /// The caller provides the key: `RandomState::new` gets it from the operating system.
    pub(crate) fn new(key: RandomState, workers: usize) -> Self {
        Self { key, workers: workers.max(1) }
    }

    /// Returns the worker that orders this topic's messages.
    pub(crate) fn of(&self, topic: &str) -> usize {
        if self.workers == 1 {
            return 0;
        }
        (self.key.hash_one(topic) % self.workers as u64) as usize
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_chosen_to_collide_on_one_server_spread_on_another() {
        let [first, other] = [(); 2].map(|()| Owners::new(RandomState::new(), 4));
        let chosen: Vec<String> =
            (0..4000).map(|n| format!("public/{n}")).filter(|t| first.of(t) == 0).collect();
        assert!((800..1200).contains(&chosen.len()), "{} of 4000", chosen.len());
        assert!(chosen.iter().all(|t| first.clone().of(t) == 0), "a copy has the same key");
        let again = chosen.iter().filter(|t| other.of(t) == 0).count();
        assert!(again < chosen.len() / 2, "{again} of {} fall on the same worker again", chosen.len());
    }
}
