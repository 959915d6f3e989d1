//! What a topic keeps of its messages: the same shared frames that are sent, each with its offset, bounded in count,
//! bytes and age.

use super::{FrameMeta, Tags, TopicSettings};
use crate::conn::Frames;
use crate::memory::Shrink;
use crate::protocol::Key;
use core::ops::Range;
use std::collections::{HashSet, VecDeque};

/// Milliseconds since the worker began.
pub(crate) type Millis = u64;

/// What is noted of a message that is kept, beside its bytes.
const ENTRY_COST: usize = size_of::<HistoryEntry>();

/// One message that is kept.
#[derive(Clone, Debug)]
pub(crate) struct HistoryEntry {
    pub(crate) offset: u64,
    pub(crate) frames: Frames,
    pub(crate) range: Range<usize>,
    pub(crate) key: Option<Key>,
    pub(crate) json: bool,
    pub(crate) tags: Option<Tags>,
    /// Not given out from then on, by its own time to live.
    pub(crate) expires_at: Millis,
    /// Too old from then on, by its topic's settings.
    pub(crate) remove_at: Millis,
}

/// Of a run's messages, how many at its beginning find no room behind the others, and the byte where those that do
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
    /// Bytes of memory that the entries' buffers have. A buffer stays as long as any of its messages does.
    buffers: usize,
}

impl History {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of memory, about: the buffers, and what is noted of each message.
    pub(crate) fn cost(&self) -> usize {
        self.buffers + self.entries.len() * ENTRY_COST
    }

    /// When the oldest message will be too old for the topic.
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

    /// Gives up what is too old for the topic. What has a shorter life of its own stays and is not given out, so that
    /// whoever comes back is not told that something is missing.
    pub(crate) fn expire(&mut self, now: Millis) {
        while self.entries.front().is_some_and(|e| e.remove_at <= now) {
            self.pop();
        }
        if self.entries.is_empty() {
            self.entries = VecDeque::new();
        }
    }

    /// What came behind `offset`, if nothing of that has been given up. `next` is the offset of the next message.
    pub(crate) fn since(&self, offset: u64, next: u64) -> Option<impl Iterator<Item = &HistoryEntry>> {
        let oldest = self.entries.front().map_or(next, |e| e.offset);
        // What a client says may be any number, so it is compared before anything is added to it.
        let skip = Some(offset).filter(|at| *at < next)?.saturating_add(1).checked_sub(oldest)? as usize;
        Some(self.entries.range(skip.min(self.entries.len())..))
    }

    /// The last so many of the messages that are wanted.
    pub(crate) fn last(&self, n: usize, wanted: impl FnMut(&&HistoryEntry) -> bool) -> Vec<&HistoryEntry> {
        let mut last: Vec<_> = self.entries.iter().rev().filter(wanted).take(n).collect();
        last.reverse();
        last
    }

    /// The newest wanted message for each key, in order; those without a key count as one.
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
