//! What a topic keeps of its messages: the same shared frames that are sent, each with its offset, bounded in count,
//! bytes and age.

use super::TopicSettings;
use crate::conn::Frames;
use crate::protocol::Key;
use core::ops::Range;
use std::collections::{HashSet, VecDeque};

/// Milliseconds since the worker began.
pub(crate) type Millis = u64;

/// One message that is kept.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) offset: u64,
    pub(crate) frames: Frames,
    pub(crate) range: Range<usize>,
    pub(crate) key: Option<Key>,
    pub(crate) json: bool,
    /// Not given out from then on, by its own time to live.
    pub(crate) until: Millis,
    /// Too old from then on, by its topic's settings.
    pub(crate) gone: Millis,
}

/// The messages of one topic, oldest first, without a gap in their offsets.
#[derive(Debug, Default)]
pub(crate) struct History {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl History {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn push(&mut self, entry: Entry, settings: &TopicSettings) {
        self.bytes += entry.range.len();
        self.entries.push_back(entry);
        while self.entries.len() > settings.history || self.bytes > settings.history_bytes {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry.range.len();
        }
    }

    /// Gives up what is too old for the topic. What has a shorter life of its own stays and is not given out, so that
    /// whoever comes back is not told that something is missing.
    pub(crate) fn expire(&mut self, now: Millis) {
        while self.entries.front().is_some_and(|e| e.gone <= now) {
            self.pop();
        }
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
    }

    /// What came behind `offset`, if nothing of that has been given up. `next` is the offset of the next message.
    pub(crate) fn since(&self, offset: u64, next: u64, now: Millis) -> Option<impl Iterator<Item = &Entry>> {
        let oldest = self.entries.front().map_or(next, |e| e.offset);
        let skip = (offset + 1).checked_sub(oldest).filter(|_| offset < next)? as usize;
        Some(self.entries.range(skip.min(self.entries.len())..).filter(move |e| e.until > now))
    }

    /// The newest messages, in order.
    pub(crate) fn last(&self, limit: usize, now: Millis) -> Vec<&Entry> {
        let mut last: Vec<_> = self.entries.iter().rev().filter(|e| e.until > now).take(limit).collect();
        last.reverse();
        last
    }

    /// The newest message for each key, in order; those without a key count as one.
    pub(crate) fn latest(&self, now: Millis) -> Vec<&Entry> {
        let mut seen = HashSet::new();
        let newest = |e: &&Entry| e.until > now && seen.insert(e.key);
        let mut latest: Vec<_> = self.entries.iter().rev().filter(newest).collect();
        latest.reverse();
        latest
    }
}
