//! Queries: the history of a topic, and the topics of a prefix.

use super::envelope::message_of;
use super::{HistoryEntry, Hub, Position, Start, topic};
use crate::conn::Frames;
use crate::protocol::Message;
use core::fmt;
use core::ops::Range;

/// Topics scanned for one query: a walk over a million of them would delay the worker's connections.
const MAX_SCANNED: usize = 1 << 16;

/// Messages of a topic's history: the answer to [`Handle::history`](crate::Handle::history).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HistoryPage {
    /// The position behind the topic's last message, whether the history has that or not.
    pub position: Position,
    /// Whether everything behind the requested position follows, or can be queried. False also if none was requested.
    pub recovered: bool,
    /// Whether there are more messages behind these.
    pub more: bool,
    /// The messages, oldest first.
    pub messages: Vec<HistoryMessage>,
}

/// A message of a history, which shares its bytes.
#[derive(Clone)]
pub struct HistoryMessage {
    offset: u64,
    frames: Frames,
    range: Range<usize>,
    json: bool,
}

impl HistoryMessage {
    fn of(entry: &HistoryEntry) -> Self {
        let HistoryEntry { offset, frames, range, json, .. } = entry;
        Self { offset: *offset, frames: frames.clone(), range: range.clone(), json: *json }
    }

    /// The message's offset in its topic.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The message, without its key, of which only a hash is stored.
    pub fn message(&self) -> Message<'_> {
        let frame = self.frames.get(self.range.clone()).unwrap_or_default();
        message_of(frame, self.json).unwrap_or(Message::binary(&[]))
    }
}

impl fmt::Debug for HistoryMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.offset, self.message())
    }
}

/// A topic that has subscribers or a history.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// Connections that subscribe to it by name; those with a pattern are not counted.
    pub subscribers: usize,
    /// The position behind its last message; `None` if nothing was published to it.
    pub position: Option<Position>,
    /// Messages in its history.
    pub history: usize,
}

/// Topics of a prefix: the answer to [`Handle::topics`](crate::Handle::topics).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicList {
    /// The topics, by name.
    pub topics: Vec<TopicInfo>,
    /// Whether there are others, or may be.
    pub more: bool,
}

impl TopicList {
    /// Adds the topics of another worker, and keeps the first `limit` of all.
    pub(crate) fn merge(&mut self, other: Self, limit: usize) {
        self.topics.extend(other.topics);
        self.topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.more |= other.more || self.topics.len() > limit;
        self.topics.truncate(limit);
    }
}

impl Hub {
    /// Returns messages of a topic's history, on its owner; `None` if there is no such topic.
    pub(crate) fn history(&mut self, name: &str, start: Start, limit: usize) -> Option<HistoryPage> {
        let key = self.index.find(name)?;
        let now = self.now;
        let owned = &*self.owned_topic(key);
        // One message above the limit shows that there are more.
        let start = match start {
            Start::Last(n) => Start::Last(n.min(limit)),
            start => start,
        };
        let entries = owned.messages_from(start, None, now, limit.saturating_add(1));
        let recovered = matches!(start, Start::Since(_)) && entries.is_some();
        let entries = entries.unwrap_or_default();
        let more = entries.len() > limit;
        let messages = entries.into_iter().take(limit).map(HistoryMessage::of).collect();
        Some(HistoryPage { position: owned.position(), recovered, more, messages })
    }

    /// Returns the topics of a prefix that are owned here.
    pub(crate) fn topics(&mut self, prefix: &str, limit: usize) -> TopicList {
        let mut list = TopicList::default();
        let (mut at, mut scanned) = (0, 0);
        while let Some(key) = self.index.next_from(at) {
            at = key as usize + 1;
            scanned += 1;
            if scanned > MAX_SCANNED || list.topics.len() > limit {
                list.more = true;
                break;
            }
            let name = self.index.name(key).clone();
            if !name.starts_with(prefix) || topic::is_pattern(&name) || !self.owns(&name) {
                continue;
            }
            let here = self.index.subscribers(key).len();
            let owned = self.index.owned_mut(key);
            list.topics.push(TopicInfo {
                name: (*name).to_owned(),
                subscribers: here + owned.as_ref().map_or(0, |h| h.remote_subscriber_count()),
                position: owned.as_ref().map(|h| h.position()),
                history: owned.map_or(0, |h| h.history.len()),
            });
        }
        list.topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        list
    }
}
