//! The history of a topic: the shared frames that were sent, each with its offset, bounded in number, bytes and age.

use super::{FrameMeta, Tags, TopicSettings};
use crate::conn::Frames;
use crate::memory::Shrink;
use crate::protocol::Key;
use core::ops::Range;
use std::collections::{HashSet, VecDeque};

/// Milliseconds since the worker started.
pub(crate) type Millis = u64;

/// The cost of an entry beside its bytes.
const ENTRY_COST: usize = size_of::<HistoryEntry>();

/// A message of a history.
#[derive(Clone, Debug)]
pub(crate) struct HistoryEntry {
    pub(crate) offset: u64,
    pub(crate) frames: Frames,
    pub(crate) range: Range<usize>,
    pub(crate) key: Option<Key>,
    pub(crate) json: bool,
    pub(crate) tags: Option<Tags>,
    /// When it expires by its own time to live. It is not replayed from then on.
    pub(crate) expires_at: Millis,
    /// When it is too old by its topic's settings.
    pub(crate) remove_at: Millis,
}

/// Returns how many messages at the beginning of a batch don't fit into the history, and the byte where the others
/// begin.
pub(crate) fn skip_to_fit(metas: &[FrameMeta], settings: &TopicSettings) -> (usize, usize) {
    let all = metas.last().map_or(0, |meta| meta.end);
    let start = |at: usize| if at == 0 { 0 } else { metas[at - 1].end };
    let fits = |at: &usize| all - start(*at) <= settings.history_bytes;
    let skip = (0..metas.len()).rev().take(settings.history).take_while(fits).last().unwrap_or(metas.len());
    (skip, start(skip))
}

/// The messages of one topic, oldest first, without a gap in their offsets.
#[derive(Debug, Default)]
pub(crate) struct History {
    entries: VecDeque<HistoryEntry>,
    bytes: usize,
    /// Bytes of the entries' buffers. A buffer stays as long as any of its messages.
    buffers: usize,
}

impl History {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the estimated bytes of memory: the buffers and the entries.
    pub(crate) fn cost(&self) -> usize {
        self.buffers + self.entries.len() * ENTRY_COST
    }

    /// Returns when the oldest message will be too old for the topic.
    pub(crate) fn oldest_remove_at(&self) -> Option<Millis> {
        self.entries.front().map(|entry| entry.remove_at)
    }

    pub(crate) fn push(&mut self, entry: HistoryEntry, settings: &TopicSettings) {
        self.bytes += entry.range.len();
        if self.entries.back().is_none_or(|last| !last.frames.ptr_eq(&entry.frames)) {
            self.buffers += entry.frames.capacity();
        }
        self.entries.push_back(entry);
        while self.entries.len() > settings.history || self.bytes > settings.history_bytes {
            self.pop();
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Removes the oldest message.
    pub(crate) fn pop(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry.range.len();
            if self.entries.front().is_none_or(|next| !next.frames.ptr_eq(&entry.frames)) {
                self.buffers -= entry.frames.capacity();
            }
            self.entries.shrink();
        }
    }

    /// Removes what is too old for the topic. A message whose own time to live is shorter stays and is not replayed, so
    /// a client that recovers is not told that something is missing.
    pub(crate) fn expire(&mut self, now: Millis) {
        while self.entries.front().is_some_and(|e| e.remove_at <= now) {
            self.pop();
        }
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
    }

    /// Returns the messages behind `offset`, if none of them was removed. `next` is the offset of the next message.
    pub(crate) fn since(&self, offset: u64, next: u64) -> Option<impl Iterator<Item = &HistoryEntry>> {
        let oldest = self.entries.front().map_or(next, |e| e.offset);
        // A client may send any number, so it is compared before anything is added to it.
        let skip = Some(offset).filter(|at| *at < next)?.saturating_add(1).checked_sub(oldest)? as usize;
        Some(self.entries.range(skip.min(self.entries.len())..))
    }

    /// Returns the last `n` messages that are wanted.
    pub(crate) fn last(&self, n: usize, wanted: impl FnMut(&&HistoryEntry) -> bool) -> Vec<&HistoryEntry> {
        let mut last: Vec<_> = self.entries.iter().rev().filter(wanted).take(n).collect();
        last.reverse();
        last
    }

    /// Returns the newest wanted message of each key, in order; those without a key count as one.
    pub(crate) fn latest(&self, mut wanted: impl FnMut(&&HistoryEntry) -> bool) -> Vec<&HistoryEntry> {
        let mut seen = HashSet::new();
        let newest = |e: &&HistoryEntry| wanted(e) && seen.insert(e.key);
        let mut latest: Vec<_> = self.entries.iter().rev().filter(newest).collect();
        latest.reverse();
        latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_costs_what_the_options_page_says() {
        let page = include_str!("../../docs/reference/options.md");
        assert!(page.contains(&format!("{ENTRY_COST} bytes for each message")), "{ENTRY_COST} bytes");
    }
}
