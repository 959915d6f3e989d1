//! Replays in progress: the messages that recovering connections still have to receive from the histories of topics.
//!
//! ```text
//!   begin ──▶ [ history: 1 2 3 4 5 6 | live: 7 8 ] ──▶ a piece whenever less than WINDOW is queued ──▶ outbox ──▶ socket
//!                                          ▲
//!                       the topic's new messages, until nothing is left
//! ```
//! A replay holds pointers into the frames of the history, which are wrapped only when the socket is writable.
//! Requested messages are exempt from the policy for slow consumers; live messages behind them are not, but have a
//! larger limit:
//!
//! A client that reads `r` bytes a second needs `requested / r` seconds for the requested messages. If it reads faster
//! than its topics are published to, less than `requested` bytes arrive live meanwhile. The limit for them is
//! `requested + max_backlog`: every client that can keep up with its topics catches up, and the policy applies to the
//! others.

use crate::conn::{ConnId, Connection, SlowConsumer, Terms};
use crate::hub::{Batch, HistoryEntry, Millis, Recipient};
use foldhash::fast::RandomState;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Bytes of replays that may be queued for a socket: a connection with less in its outbox gets the next piece.
pub(crate) const REPLAY_WINDOW: usize = 64 << 10;

/// Bytes that an entry costs beside its message.
const ENTRY: usize = size_of::<HistoryEntry>();

/// The replay of one topic on one connection.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) topic: Arc<str>,
    pub(crate) epoch: u64,
    entries: VecDeque<HistoryEntry>,
    /// Number of messages at the end that were published since it began, and their bytes.
    live: usize,
    live_bytes: usize,
    /// Bytes of the requested messages, and of all messages left.
    requested: usize,
    bytes: usize,
    began: Millis,
}

/// From this age on the messages of a replay are charged to its connection: the history may have evicted them, and then
/// only the replay holds them. Younger ones share the memory of the history, so that a crowd that recovers at once is
/// not closed for it.
const CHARGED_AFTER: Millis = 10_000;

impl Replay {
    /// Takes the next message.
    pub(crate) fn next(&mut self) -> Option<HistoryEntry> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.range.len();
        if self.entries.len() < self.live {
            self.live = self.entries.len();
            self.live_bytes -= cost(&entry);
        }
        Some(entry)
    }

    /// Drops the requested messages. Returns whether live messages are left.
    fn keep_live(&mut self) -> bool {
        let asked_for = self.entries.len() - self.live;
        self.bytes -= self.entries.drain(..asked_for).map(|entry| entry.range.len()).sum::<usize>();
        self.live > 0
    }

    /// Drops live messages, oldest first, until another one fits. Returns how many.
    fn make_room(&mut self, bytes: usize, limit: usize) -> u32 {
        let mut dropped = 0;
        while self.live > 0 && self.live_bytes + bytes > limit {
            let oldest = self.entries.len() - self.live;
            if let Some(entry) = self.entries.remove(oldest) {
                self.bytes -= entry.range.len();
                self.live_bytes -= cost(&entry);
            }
            self.live -= 1;
            dropped += 1;
        }
        dropped
    }

    /// Drops the live message with the same key. Returns how many.
    fn conflate(&mut self, entry: &HistoryEntry) -> u32 {
        let first = self.entries.len() - self.live;
        let same =
            (first..self.entries.len()).find(|at| entry.key.is_some() && self.entries[*at].key == entry.key);
        let Some(old) = same.and_then(|at| self.entries.remove(at)) else { return 0 };
        self.bytes -= old.range.len();
        self.live_bytes -= cost(&old);
        self.live -= 1;
        1
    }
}

fn cost(entry: &HistoryEntry) -> usize {
    entry.range.len() + ENTRY
}

/// The replays of one connection, in order.
#[derive(Debug, Default)]
struct ConnectionReplays {
    replays: Vec<Replay>,
    /// Bytes of all requested messages since the connection last had no replay, without what was cancelled.
    requested: usize,
    /// It is in the list of connections whose sockets are writable.
    is_ready: bool,
}

/// The replays of a worker's connections.
#[derive(Debug, Default)]
pub(crate) struct Replays {
    by_slot: HashMap<u32, ConnectionReplays, RandomState>,
    /// Connections whose sockets are writable, in round-robin order.
    ready: VecDeque<ConnId>,
}

impl Replays {
    /// Begins a replay, in place of one of the same topic. An empty one has ended.
    pub(crate) fn begin(
        &mut self,
        conn: &mut Connection,
        topic: Arc<str>,
        epoch: u64,
        entries: Vec<HistoryEntry>,
        now: Millis,
    ) {
        self.cancel(conn, &topic, false);
        if entries.is_empty() {
            return;
        }
        let bytes = entries.iter().map(|entry| entry.range.len()).sum();
        let (entries, live, live_bytes) = (entries.into(), 0, 0);
        let replay = Replay { topic, epoch, entries, live, live_bytes, requested: bytes, bytes, began: now };
        let connection = self.by_slot.entry(conn.id.slot() as u32).or_default();
        connection.requested += bytes;
        connection.replays.push(replay);
        conn.set_replaying(true);
        self.wake(conn.id);
    }

    /// Cancels the replay of a topic that the connection no longer subscribes to. If it `still_receives` the topic, by
    /// a pattern, the live messages behind the replay are sent.
    pub(crate) fn cancel(&mut self, conn: &mut Connection, topic: &str, still_receives: bool) {
        if !conn.is_replaying() {
            return;
        }
        let slot = conn.id.slot() as u32;
        if let Some(connection) = self.by_slot.get_mut(&slot) {
            let ConnectionReplays { replays, requested, .. } = connection;
            replays.retain_mut(|replay| {
                if *replay.topic != *topic {
                    return true;
                }
                *requested -= core::mem::take(&mut replay.requested);
                still_receives && replay.keep_live()
            });
            if connection.replays.is_empty() {
                self.by_slot.remove(&slot);
                conn.set_replaying(false);
            }
        }
    }

    /// Removes the replays of a closed connection. Returns the number of messages that were not sent.
    pub(crate) fn remove(&mut self, conn: &mut Connection) -> u32 {
        if !conn.is_replaying() {
            return 0;
        }
        conn.set_replaying(false);
        let connection = self.by_slot.remove(&(conn.id.slot() as u32)).unwrap_or_default();
        connection.replays.iter().map(|replay| replay.entries.len() as u32).sum()
    }

    /// Takes the messages of a batch for a connection whose replay of the topic is in progress: they follow it. Returns
    /// `NotReplaying` without such a replay.
    pub(crate) fn take_batch(
        &mut self,
        conn: &mut Connection,
        topic: &str,
        batch: &mut Batch,
        recipient: Recipient<'_>,
        terms: &Terms,
    ) -> ReplayOutcome {
        let Some(connection) = self.by_slot.get_mut(&(conn.id.slot() as u32)) else {
            return ReplayOutcome::NotReplaying;
        };
        let all_live = connection.replays.iter().map(|replay| replay.live_bytes).sum::<usize>();
        let Some(replay) = connection.replays.iter_mut().find(|r| *r.topic == *topic) else {
            return ReplayOutcome::NotReplaying;
        };
        // The live messages of the other replays count too: the sum over the connection is bounded.
        let limit =
            (terms.limits.max_backlog + connection.requested).saturating_sub(all_live - replay.live_bytes);
        let frames = batch.share();
        for (offset, range, meta) in batch.messages_for(recipient) {
            let (key, json, tags) = (batch.key, meta.json, None);
            let entry = HistoryEntry {
                offset,
                frames: frames.clone(),
                range,
                key,
                json,
                tags,
                expires_at: u64::MAX,
                remove_at: u64::MAX,
            };
            if terms.slow_consumer == SlowConsumer::LatestByKey {
                conn.dropped += replay.conflate(&entry);
            }
            let bytes = cost(&entry);
            if replay.live > 0 && replay.live_bytes + bytes > limit {
                match terms.slow_consumer {
                    SlowConsumer::Close(_) => return ReplayOutcome::Overflow,
                    SlowConsumer::DropNewest => {
                        conn.dropped += 1;
                        continue;
                    }
                    SlowConsumer::DropOldest | SlowConsumer::LatestByKey => {
                        conn.dropped += replay.make_room(bytes, limit);
                    }
                }
            }
            replay.bytes += entry.range.len();
            replay.entries.push_back(entry);
            replay.live += 1;
            replay.live_bytes += bytes;
        }
        ReplayOutcome::Queued
    }

    /// The slots with a replay in progress.
    pub(crate) fn slots(&self) -> impl Iterator<Item = u32> {
        self.by_slot.keys().copied()
    }

    /// Marks a connection as ready for the next piece: its socket has taken the last one.
    pub(crate) fn wake(&mut self, conn: ConnId) {
        if let Some(connection) =
            self.by_slot.get_mut(&(conn.slot() as u32)).filter(|connection| !connection.is_ready)
        {
            connection.is_ready = true;
            self.ready.push_back(conn);
        }
    }

    /// Whether any connection is ready for its next piece.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(crate) fn next_ready(&mut self) -> Option<ConnId> {
        let conn = self.ready.pop_front()?;
        if let Some(connection) = self.by_slot.get_mut(&(conn.slot() as u32)) {
            connection.is_ready = false;
        }
        Some(conn)
    }

    /// Number of connections that are ready for their next piece.
    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// The replay of a connection that continues next; they run one after the other.
    pub(crate) fn first(&mut self, conn: ConnId) -> Option<&mut Replay> {
        self.by_slot.get_mut(&(conn.slot() as u32))?.replays.first_mut()
    }

    /// Removes the first replay of a connection, which is finished.
    pub(crate) fn end_first(&mut self, conn: &mut Connection) {
        let slot = conn.id.slot() as u32;
        let Some(connection) = self.by_slot.get_mut(&slot) else { return };
        connection.replays.remove(0);
        if connection.replays.is_empty() {
            self.by_slot.remove(&slot);
            conn.set_replaying(false);
        }
    }

    /// Bytes of memory that the replays of a connection hold: entries, live messages, and after [`CHARGED_AFTER`] all
    /// of their messages.
    pub(crate) fn held(&self, conn: &Connection, now: Millis) -> usize {
        if !conn.is_replaying() {
            return 0;
        }
        let connection = self.by_slot.get(&(conn.id.slot() as u32));
        connection
            .iter()
            .flat_map(|connection| &connection.replays)
            .map(|replay| match now.saturating_sub(replay.began) < CHARGED_AFTER {
                true => (replay.entries.len() - replay.live) * ENTRY + replay.live_bytes,
                false => replay.entries.len() * ENTRY + replay.bytes,
            })
            .sum()
    }
}

/// What became of a batch for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplayOutcome {
    /// No replay of the topic is in progress: the batch is sent as usual.
    NotReplaying,
    /// It follows the replay, within the policy.
    Queued,
    /// The live messages are over the limit, and the policy is to close.
    Overflow,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conn::Frames;
    use crate::http::Peer;

    #[test]
    fn an_old_replay_is_charged_with_its_messages() {
        let mut conn = Connection::new(ConnId::new(0, 3, 1), Peer::Unix);
        let mut replays = Replays::default();
        let frames = Frames::of("x".into());
        let entry = |offset| {
            let (frames, range) = (frames.clone(), 0..frames.len());
            HistoryEntry {
                offset,
                frames,
                range,
                key: None,
                json: false,
                tags: None,
                expires_at: u64::MAX,
                remove_at: u64::MAX,
            }
        };
        replays.begin(&mut conn, "a".into(), 1, (1..=10).map(entry).collect(), 5);
        assert_eq!(replays.held(&conn, 5), 10 * ENTRY);
        let old = 5 + CHARGED_AFTER;
        assert_eq!(replays.held(&conn, old), 10 * (ENTRY + frames.len()));
        let sent = replays.first(conn.id).and_then(Replay::next).map(|entry| entry.offset);
        assert_eq!((sent, replays.held(&conn, old)), (Some(1), 9 * (ENTRY + frames.len())));
        assert_eq!(replays.remove(&mut conn), 9);
        assert_eq!((replays.held(&conn, old), conn.is_replaying()), (0, false));
    }
}
