//! Memory that is no longer needed: tables shrink when most of them is empty, and [`MemoryLevel`] decides when so much was freed
//! that the heap should be trimmed.

mod level;

pub(crate) use level::MemoryLevel;

use core::hash::{BuildHasher, Hash};
use slab::Slab;
use std::collections::{HashMap, VecDeque};

/// Entries up to which a table is never shrunk.
const MIN_CAPACITY: usize = 64;

/// Whether a table has grown far beyond what is in it.
const fn is_mostly_empty(len: usize, capacity: usize) -> bool {
    capacity > MIN_CAPACITY && len < capacity / 4
}

/// A table that can give memory back.
pub(crate) trait Shrink {
    /// Halves the capacity at least, if less than a quarter of it is in use. To call it at each removal costs two
    /// comparisons: a table that is emptied one by one moves each entry at most once.
    fn shrink(&mut self);
}

impl<T> Shrink for Vec<T> {
    #[inline]
    fn shrink(&mut self) {
        if is_mostly_empty(self.len(), self.capacity()) {
            self.shrink_to(2 * self.len());
        }
    }
}

impl<T> Shrink for VecDeque<T> {
    #[inline]
    fn shrink(&mut self) {
        if is_mostly_empty(self.len(), self.capacity()) {
            self.shrink_to(2 * self.len());
        }
    }
}

impl<K: Eq + Hash, V, S: BuildHasher> Shrink for HashMap<K, V, S> {
    #[inline]
    fn shrink(&mut self) {
        if is_mostly_empty(self.len(), self.capacity()) {
            self.shrink_to(2 * self.len());
        }
    }
}

/// Entries of a slab keep their places, so only what is free behind the last one is given back. What is free before it is
/// used again from the front. Costs a look at all entries: not for each removal.
impl<T> Shrink for Slab<T> {
    fn shrink(&mut self) {
        if is_mostly_empty(self.len(), self.capacity()) {
            self.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills a table with 10,000 entries and empties it one by one: capacity and length after each removal.
    fn emptied<T: Shrink + Default>(
        add: impl Fn(&mut T, usize),
        remove: impl Fn(&mut T),
        size: impl Fn(&T) -> (usize, usize),
    ) -> Vec<(usize, usize)> {
        let mut table = T::default();
        (0..10_000).for_each(|n| add(&mut table, n));
        assert!(size(&table).0 >= 10_000);
        let shrunk = (0..10_000).map(|_| {
            remove(&mut table);
            table.shrink();
            size(&table)
        });
        shrunk.collect()
    }

    #[test]
    fn an_emptied_table_shrinks_to_four_times_its_entries() {
        let vec =
            emptied::<Vec<usize>>(|t, n| t.push(n), |t| t.truncate(t.len() - 1), |t| (t.capacity(), t.len()));
        let deque = emptied::<VecDeque<usize>>(
            |t, n| t.push_back(n),
            |t| t.truncate(t.len() - 1),
            |t| (t.capacity(), t.len()),
        );
        let map = emptied::<HashMap<usize, usize>>(
            |t, n| assert!(t.insert(n, n).is_none()),
            |t| {
                let key = *t.keys().next().unwrap();
                t.remove(&key);
            },
            |t| (t.capacity(), t.len()),
        );
        let slab = emptied::<Slab<usize>>(
            |t, n| assert_eq!(t.insert(n), n),
            |t| assert_eq!(t.remove(t.len() - 1), t.len()),
            |t| (t.capacity(), t.len()),
        );
        for (name, sizes) in [("vec", vec), ("deque", deque), ("map", map), ("slab", slab)] {
            for (capacity, len) in sizes {
                assert!(capacity <= (4 * len + 3).max(2 * MIN_CAPACITY), "{name}: {capacity} for {len}");
            }
        }
    }

    #[test]
    fn a_shrunk_slab_keeps_its_keys_and_reuses_low_ones() {
        let mut slab: Slab<usize> = (0..1000).map(|n| (n, n)).collect();
        for n in (0..1000).filter(|n| *n != 3 && *n != 100) {
            slab.remove(n);
        }
        slab.shrink();
        assert_eq!((slab.capacity(), slab[3], slab[100]), (101, 3, 100));
        assert_eq!([slab.insert(7), slab.insert(7), slab.insert(7), slab.insert(7)], [0, 1, 2, 4]);
    }
}
