//! A queue of which any entry can be dropped: the oldest one, or those with a key. Every operation has a constant cost,
//! amortized, however many entries are queued.
//!
//! ```text
//!   places   [ a ][ - ][ b ][ - ][ c ]    a dropped entry leaves a gap, except at both ends
//!   number     7    8    9    10   11     of a place, counted from the first push
//!   newest   key of b → 9, key of c → 11  exists once an entry was dropped by its key
//! ```
//! Gaps are removed when there are more of them than entries.

use crate::memory::Shrink;
use crate::protocol::Key;
use foldhash::fast::RandomState;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

/// Gaps that are never removed: with a few entries a walk over them costs nothing.
const MIN_GAPS: usize = 32;

/// The memory that a key takes in the index: key and number, in a table that is half full on average.
const KEY_COST: usize = 2 * (size_of::<(Key, i64)>() + 1);

/// An entry of a [`KeyedQueue`].
pub(crate) trait Keyed {
    /// Whether the entry may be dropped. Without that it has no key.
    fn is_droppable(&self) -> bool;

    /// The key that the entry can be dropped by.
    fn key(&self) -> Option<Key>;

    /// A field for the queue: how many places before this one is the next older entry with the same key; 0: there is no
    /// other.
    fn older(&mut self) -> &mut u32;
}

/// See the module.
#[derive(Debug)]
pub(crate) struct KeyedQueue<T> {
    places: VecDeque<Option<T>>,
    /// The number of the first place.
    first: i64,
    /// Entries, without gaps.
    len: usize,
    /// No droppable entry has a lower number, apart from those that [`KeyedQueue::oldest`] was told to skip.
    oldest: i64,
    /// The place of the newest entry of each key. Entries that were pushed before the index was built are in it too.
    newest: Option<HashMap<Key, i64, RandomState>>,
}

impl<T> Default for KeyedQueue<T> {
    fn default() -> Self {
        Self { places: VecDeque::new(), first: 0, len: 0, oldest: 0, newest: None }
    }
}

impl<T: Keyed> KeyedQueue<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The memory of the index.
    pub(crate) fn index_cost(&self) -> usize {
        self.newest.as_ref().map_or(0, |newest| newest.len() * KEY_COST)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().flatten()
    }

    pub(crate) fn front(&self) -> Option<&T> {
        self.places.front()?.as_ref()
    }

    pub(crate) fn front_mut(&mut self) -> Option<&mut T> {
        self.places.front_mut()?.as_mut()
    }

    pub(crate) fn back_mut(&mut self) -> Option<&mut T> {
        self.places.back_mut()?.as_mut()
    }

    /// The entry in a place, which may be a gap.
    pub(crate) fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.places.get_mut(place)?.as_mut()
    }

    pub(crate) fn push_back(&mut self, mut entry: T) {
        if let Some(newest) = &mut self.newest
            && let Some(key) = entry.key()
        {
            let number = self.first + self.places.len() as i64;
            let before = newest.insert(key, number);
            *entry.older() = before.map_or(0, |before| (number - before) as u32);
        }
        self.places.push_back(Some(entry));
        self.len += 1;
    }

    /// Inserts an entry near the front. Entries before the place must not be droppable any more. A droppable entry may
    /// be inserted only as the second half of the entry before it, whose key and number it takes over.
    pub(crate) fn insert(&mut self, place: usize, entry: T) {
        if !entry.is_droppable() {
            (0..place).for_each(|before| self.remove_from_index(before));
        }
        self.first -= 1;
        if entry.is_droppable() {
            self.oldest = self.oldest.min(self.first + place as i64);
        }
        self.places.insert(place, Some(entry));
        self.len += 1;
    }

    pub(crate) fn pop_front(&mut self) -> Option<T> {
        self.remove(0)
    }

    /// Removes the entry in a place.
    pub(crate) fn remove(&mut self, place: usize) -> Option<T> {
        self.remove_from_index(place);
        let entry = self.places.get_mut(place)?.take()?;
        self.len -= 1;
        self.tidy();
        Some(entry)
    }

    /// The place of the oldest droppable entry, without the first `skip` places.
    pub(crate) fn oldest(&mut self, skip: usize) -> Option<usize> {
        let mut place = ((self.oldest - self.first).max(0) as usize).max(skip);
        while !self.places.get(place)?.as_ref().is_some_and(Keyed::is_droppable) {
            place += 1;
            self.oldest = self.first + place as i64;
        }
        Some(place)
    }

    /// Drops the entries with this key, without the first `skip` places.
    pub(crate) fn drop_key(&mut self, key: Key, skip: usize, mut dropped: impl FnMut(T)) {
        if self.newest.is_none() {
            self.build_index();
        }
        let Some(newest) = &mut self.newest else { return };
        let Some(mut number) = newest.remove(&key) else { return };
        // Entries of a key are dropped from the oldest on or all at once, and what has left at the front may have given its
        // number to another one: there are no more behind a place without the key.
        while let Ok(place) = usize::try_from(number - self.first) {
            let Some(found) = self.places.get_mut(place) else { break };
            if found.as_ref().and_then(Keyed::key) != Some(key) {
                break;
            }
            if place < skip {
                // The rest of it may become droppable.
                newest.insert(key, number);
                break;
            }
            let Some(mut entry) = found.take() else { break };
            self.len -= 1;
            let older = *entry.older();
            dropped(entry);
            if older == 0 {
                break;
            }
            number -= i64::from(older);
        }
        self.tidy();
    }

    /// Drops all droppable entries, without the first `skip` places.
    pub(crate) fn drop_all(&mut self, skip: usize, mut dropped: impl FnMut(T)) {
        for place in self.places.iter_mut().skip(skip) {
            if let Some(entry) = place.take_if(|entry| entry.is_droppable()) {
                self.len -= 1;
                dropped(entry);
            }
        }
        self.remove_gaps();
    }

    /// Empties the queue and keeps memory for `capacity` entries.
    pub(crate) fn clear(&mut self, capacity: usize) {
        self.places.clear();
        self.places.shrink_to(capacity);
        *self = Self { places: core::mem::take(&mut self.places), ..Self::default() };
    }

    fn remove_from_index(&mut self, place: usize) {
        if let Some(newest) = &mut self.newest
            && let Some(key) = self.places.get(place).and_then(Option::as_ref).and_then(Keyed::key)
            && let Entry::Occupied(newest) = newest.entry(key)
            && *newest.get() == self.first + place as i64
        {
            newest.remove();
        }
    }

    fn tidy(&mut self) {
        while let Some(None) = self.places.front() {
            self.places.pop_front();
            self.first += 1;
        }
        while let Some(None) = self.places.back() {
            self.places.pop_back();
            self.oldest = self.oldest.min(self.first + self.places.len() as i64);
        }
        if self.len == 0 {
            self.newest = None;
        }
        if self.places.len() - self.len > self.len.max(MIN_GAPS) {
            self.remove_gaps();
        } else if let Some(newest) = &mut self.newest {
            newest.shrink();
        }
    }

    fn remove_gaps(&mut self) {
        self.places.retain(Option::is_some);
        self.places.shrink();
        self.oldest = self.first;
        if self.newest.is_some() {
            self.build_index();
        }
    }

    fn build_index(&mut self) {
        let mut newest = HashMap::with_hasher(RandomState::default());
        for (entry, number) in self.places.iter_mut().zip(self.first..) {
            if let Some(entry) = entry
                && let Some(key) = entry.key()
            {
                *entry.older() = newest.insert(key, number).map_or(0, |before: i64| (number - before) as u32);
            }
        }
        self.newest = (!newest.is_empty()).then_some(newest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Message;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[derive(Clone, Debug)]
    struct Item {
        id: u32,
        droppable: bool,
        key: Option<Key>,
        older: u32,
    }

    impl Keyed for Item {
        fn is_droppable(&self) -> bool {
            self.droppable
        }
        fn key(&self) -> Option<Key> {
            self.key.filter(|_| self.droppable)
        }
        fn older(&mut self) -> &mut u32 {
            &mut self.older
        }
    }

    fn key(name: u32) -> Option<Key> {
        Message::text("").with_key(&name.to_string()).key()
    }

    fn item(id: u32, droppable: bool, key: Option<Key>) -> Item {
        Item { id, droppable, key, older: 0 }
    }

    /// A queue and the same entries in a plain list.
    #[derive(Debug, Default)]
    struct Checked {
        queue: KeyedQueue<Item>,
        naive: Vec<Item>,
        /// The first entry has begun to be written and stays.
        begun: usize,
        /// It may be several frames.
        may_be_cut: bool,
    }

    impl Checked {
        fn drop_where(&mut self, drop: impl Fn(&Item) -> bool) -> Vec<u32> {
            let (mut at, mut dropped) = (0, Vec::new());
            self.naive.retain(|e| {
                at += 1;
                let stays = at <= self.begun || !e.droppable || !drop(e);
                if !stays {
                    dropped.push(e.id);
                }
                stays
            });
            dropped
        }

        fn step(&mut self, what: u8, name: u32, id: u32) {
            let mut dropped = Vec::new();
            match what {
                0..4 => {
                    let item = item(id, what != 0, key(name).filter(|_| name != 0));
                    self.queue.push_back(item.clone());
                    self.naive.push(item);
                }
                4 => {
                    let popped = self.queue.pop_front().map(|e| e.id);
                    let expected = (!self.naive.is_empty()).then(|| self.naive.remove(0).id);
                    assert_eq!(popped, expected);
                    self.begun = 0;
                }
                5 => {
                    self.may_be_cut |= self.begun == 0;
                    self.begun = self.naive.len().min(1);
                }
                6 if self.begun > 0 && self.may_be_cut => {
                    self.may_be_cut = false;
                    // The first entry is cut behind the frame that is being written.
                    let rest = Item { id, ..self.queue.front().expect("it has begun").clone() };
                    self.queue.insert(1, rest.clone());
                    self.naive.insert(1, rest);
                }
                7 => {
                    self.may_be_cut = false;
                    let control = item(id, false, None);
                    self.queue.insert(self.begun, control.clone());
                    self.naive.insert(self.begun, control);
                }
                8 | 9 => {
                    let oldest = self.queue.oldest(self.begun).and_then(|place| self.queue.remove(place));
                    let at = (self.begun..self.naive.len()).find(|at| self.naive[*at].droppable);
                    assert_eq!(oldest.map(|e| e.id), at.map(|at| self.naive.remove(at).id));
                }
                10..13 => {
                    let key = key(name).expect("it has a name");
                    self.queue.drop_key(key, self.begun, |e| dropped.push(e.id));
                    dropped.reverse();
                    assert_eq!(dropped, self.drop_where(|e| e.key == Some(key)));
                }
                13 if name == 0 => {
                    self.queue.drop_all(self.begun, |e| dropped.push(e.id));
                    assert_eq!(dropped, self.drop_where(|_| true));
                }
                _ => {}
            }
        }

        fn check(&mut self) {
            let ids = |e: &Item| e.id;
            assert_eq!(
                self.queue.iter().map(ids).collect::<Vec<_>>(),
                self.naive.iter().map(ids).collect::<Vec<_>>()
            );
            assert_eq!((self.queue.len(), self.queue.is_empty()), (self.naive.len(), self.naive.is_empty()));
            assert_eq!(self.queue.front_mut().map(|e| e.id), self.naive.first().map(ids));
            assert_eq!(self.queue.back_mut().map(|e| e.id), self.naive.last().map(ids));
            let keys: HashSet<Key> = self.naive.iter().filter_map(Keyed::key).collect();
            assert!(self.queue.index_cost() <= keys.len() * KEY_COST, "keys that nothing waits for");
            let gaps = self.queue.places.len() - self.queue.len();
            assert!(gaps <= self.queue.len().max(MIN_GAPS), "{gaps} gaps");
        }
    }

    proptest! {
        #[test]
        fn a_keyed_queue_agrees_with_a_list(steps in prop::collection::vec((0u8..14, 0u32..20), 1..400)) {
            let mut checked = Checked::default();
            for (id, (what, name)) in (0..).zip(steps) {
                checked.step(what, name, id);
                checked.check();
            }
        }
    }

    #[test]
    fn the_index_exists_only_while_something_waits_that_was_dropped_by_key() {
        let mut queue = KeyedQueue::default();
        (0..10).for_each(|id| queue.push_back(item(id, true, key(id))));
        assert_eq!(queue.index_cost(), 0, "no entry was dropped by its key");
        queue.drop_key(key(3).unwrap(), 0, drop);
        assert_eq!((queue.len(), queue.index_cost()), (9, 9 * KEY_COST));
        while queue.pop_front().is_some() {}
        assert!(queue.index_cost() == 0 && queue.newest.is_none());
    }
}
