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

use crate::conn::{ConnId, Connection, Keyed, KeyedQueue, SlowConsumer, Terms};
use crate::hub::{Batch, HistoryEntry, Millis, Recipient};
use crate::protocol::Key;
use foldhash::fast::RandomState;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Bytes of replays that may be queued for a socket: a connection with less in its outbox gets the next piece.
pub(crate) const REPLAY_WINDOW: usize = 64 << 10;

/// Bytes that an entry costs beside its message.
const ENTRY: usize = size_of::<LiveEntry>();

/// A message that was published while its topic's replay was under way.
#[derive(Debug)]
struct LiveEntry {
    entry: HistoryEntry,
    /// For the queue.
    older: u32,
}

impl LiveEntry {
    fn cost(&self) -> usize {
        self.entry.range.len() + ENTRY
    }
}

impl Keyed for LiveEntry {
    fn is_droppable(&self) -> bool {
        true
    }

    fn key(&self) -> Option<Key> {
        self.entry.key
    }

    fn older(&mut self) -> &mut u32 {
        &mut self.older
    }
}

/// The replay of one topic on one connection.
#[derive(Debug)]
struct Replay {
    topic: Arc<str>,
    epoch: u64,
    /// The requested messages that are left, their bytes, and the bytes of all that were requested.
    requested: VecDeque<HistoryEntry>,
    requested_left: usize,
    requested_bytes: usize,
    /// The messages that were published since it began, and their bytes.
    live: KeyedQueue<LiveEntry>,
    live_bytes: usize,
    began: Millis,
    /// The requested messages are charged to the connection.
    charges_requested: bool,
}

/// From this age on the messages of a replay are charged to its connection: the history may have evicted them, and then
/// only the replay holds them. Younger ones share the memory of the history, so that a crowd that recovers at once is
/// not closed for it.
const CHARGED_AFTER: Millis = 10_000;

impl Replay {
    fn new(topic: Arc<str>, epoch: u64, entries: Vec<HistoryEntry>, began: Millis) -> Self {
        let bytes = entries.iter().map(|entry| entry.range.len()).sum();
        Self {
            topic,
            epoch,
            requested: entries.into(),
            requested_left: bytes,
            requested_bytes: bytes,
            live: KeyedQueue::default(),
            live_bytes: 0,
            began,
            charges_requested: false,
        }
    }

    fn len(&self) -> usize {
        self.requested.len() + self.live.len()
    }

    fn next(&mut self) -> Option<HistoryEntry> {
        if let Some(entry) = self.requested.pop_front() {
            self.requested_left -= entry.range.len();
            return Some(entry);
        }
        let live = self.live.pop_front()?;
        self.live_bytes -= live.cost();
        Some(live.entry)
    }

    /// Drops the requested messages. Returns whether live messages are left.
    fn keep_live(&mut self) -> bool {
        self.requested = VecDeque::new();
        (self.requested_left, self.requested_bytes) = (0, 0);
        !self.live.is_empty()
    }

    /// The memory of the live messages.
    fn live_cost(&self) -> usize {
        self.live_bytes + self.live.index_cost()
    }

    /// The memory that is charged to the connection.
    fn cost(&self) -> usize {
        let requested = if self.charges_requested { self.requested_left } else { 0 };
        requested + self.requested.len() * ENTRY + self.live_cost()
    }

    /// Queues a live message within `limit`, by the policy. Returns how many messages were dropped; `None`: there is no
    /// room, and the policy is to close.
    fn push(&mut self, entry: HistoryEntry, limit: usize, policy: SlowConsumer) -> Option<u32> {
        let mut dropped = 0;
        if let (SlowConsumer::LatestByKey, Some(key)) = (policy, entry.key) {
            self.live.drop_key(key, 0, |old| {
                self.live_bytes -= old.cost();
                dropped += 1;
            });
        }
        let entry = LiveEntry { entry, older: 0 };
        let bytes = entry.cost();
        while !self.live.is_empty() && self.live_cost() + bytes > limit {
            dropped += 1;
            match policy {
                SlowConsumer::Close(_) => return None,
                SlowConsumer::DropNewest => return Some(dropped),
                SlowConsumer::DropOldest | SlowConsumer::LatestByKey => {
                    self.live_bytes -= self.live.pop_front().map_or(0, |old| old.cost());
                }
            }
        }
        self.live_bytes += bytes;
        self.live.push_back(entry);
        Some(dropped)
    }
}

/// The replays of one connection.
#[derive(Debug, Default)]
struct ConnectionReplays {
    by_topic: HashMap<Arc<str>, Replay, RandomState>,
    /// The topics in the order in which their replays began, in which they are sent.
    order: VecDeque<Arc<str>>,
    /// How many at the front of `order` have reached [`CHARGED_AFTER`].
    aged: usize,
    /// The memory that all of them are charged for.
    cost: usize,
    /// The memory of the live messages of all of them.
    live_cost: usize,
    /// Bytes of all requested messages since the connection last had no replay, without cancelled ones.
    requested: usize,
    /// It stands in the list of those whose sockets can take more.
    is_ready: bool,
}

impl ConnectionReplays {
    /// Changes the replay of a topic, and the sums.
    fn change<R>(&mut self, topic: &str, change: impl FnOnce(&mut Replay) -> R) -> Option<R> {
        let replay = self.by_topic.get_mut(topic)?;
        let (cost, live_cost) = (replay.cost(), replay.live_cost());
        let result = change(replay);
        self.cost = self.cost - cost + replay.cost();
        self.live_cost = self.live_cost - live_cost + replay.live_cost();
        Some(result)
    }

    fn add(&mut self, replay: Replay) {
        self.requested += replay.requested_bytes;
        self.cost += replay.cost();
        self.order.push_back(replay.topic.clone());
        self.by_topic.insert(replay.topic.clone(), replay);
    }

    fn remove(&mut self, topic: &str) {
        let Some(replay) = self.by_topic.remove(topic) else { return };
        self.cost -= replay.cost();
        self.live_cost -= replay.live_cost();
        if let Some(at) = self.order.iter().position(|other| **other == *topic) {
            self.order.remove(at);
            self.aged -= usize::from(at < self.aged);
        }
    }

    /// Charges the messages of replays that have become old.
    fn charge_aged(&mut self, now: Millis) {
        while let Some(topic) = self.order.get(self.aged).cloned()
            && let Some(replay) = self.by_topic.get(&topic)
            && now.saturating_sub(replay.began) >= CHARGED_AFTER
        {
            self.change(&topic, |replay| replay.charges_requested = true);
            self.aged += 1;
        }
    }
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
        let connection = self.by_slot.entry(conn.id.slot() as u32).or_default();
        connection.add(Replay::new(topic, epoch, entries, now));
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
            let cancelled = connection.change(topic, |replay| (replay.requested_bytes, replay.keep_live()));
            let Some((requested, has_live)) = cancelled else { return };
            connection.requested -= requested;
            if !(still_receives && has_live) {
                connection.remove(topic);
            }
            self.remove_finished(conn);
        }
    }

    /// Removes the replays of a closed connection. Returns the number of messages that were not sent.
    pub(crate) fn remove(&mut self, conn: &mut Connection) -> u32 {
        if !conn.is_replaying() {
            return 0;
        }
        conn.set_replaying(false);
        let connection = self.by_slot.remove(&(conn.id.slot() as u32)).unwrap_or_default();
        connection.by_topic.values().map(|replay| replay.len() as u32).sum()
    }

    /// Takes the messages of a batch for a connection whose replay of the topic is under way: they follow it.
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
        let (all_live, most) = (connection.live_cost, terms.limits.max_backlog + connection.requested);
        let queued = connection.change(topic, |replay| {
            // What the other replays have live counts too: the sum over the connection is what is bounded.
            let limit = most.saturating_sub(all_live - replay.live_cost());
            let frames = batch.share();
            for (offset, range, meta) in batch.messages_for(recipient) {
                let entry = HistoryEntry {
                    offset,
                    frames: frames.clone(),
                    range,
                    key: batch.key,
                    json: meta.json,
                    tags: None,
                    expires_at: u64::MAX,
                    remove_at: u64::MAX,
                };
                match replay.push(entry, limit, terms.slow_consumer) {
                    Some(dropped) => conn.dropped += dropped,
                    None => return ReplayOutcome::Overflow,
                }
            }
            ReplayOutcome::Queued
        });
        queued.unwrap_or(ReplayOutcome::NotReplaying)
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

    /// Takes the next message of the replays of a connection, which are sent one after the other.
    pub(crate) fn next(&mut self, conn: &mut Connection) -> Option<ReplayedMessage> {
        let connection = self.by_slot.get_mut(&(conn.id.slot() as u32))?;
        while let Some(topic) = connection.order.front().cloned() {
            let next = connection.change(&topic, |replay| replay.next().map(|entry| (replay.epoch, entry)));
            if let Some((epoch, entry)) = next.flatten() {
                return Some(ReplayedMessage { topic, epoch, entry });
            }
            connection.remove(&topic);
        }
        self.remove_finished(conn);
        None
    }

    fn remove_finished(&mut self, conn: &mut Connection) {
        let slot = conn.id.slot() as u32;
        if self.by_slot.get(&slot).is_some_and(|connection| connection.order.is_empty()) {
            self.by_slot.remove(&slot);
            conn.set_replaying(false);
        }
    }

    /// Bytes of memory that the replays of a connection hold: places in histories, what came live, and after
    /// [`CHARGED_AFTER`] all of their messages.
    pub(crate) fn held(&mut self, conn: &Connection, now: Millis) -> usize {
        if !conn.is_replaying() {
            return 0;
        }
        let Some(connection) = self.by_slot.get_mut(&(conn.id.slot() as u32)) else { return 0 };
        connection.charge_aged(now);
        connection.cost
    }
}

/// A message of a replay, to be sent.
#[derive(Debug)]
pub(crate) struct ReplayedMessage {
    pub(crate) topic: Arc<str>,
    pub(crate) epoch: u64,
    pub(crate) entry: HistoryEntry,
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
        let sent = replays.next(&mut conn).map(|message| message.entry.offset);
        assert_eq!((sent, replays.held(&conn, old)), (Some(1), 9 * (ENTRY + frames.len())));
        assert_eq!(replays.remove(&mut conn), 9);
        assert_eq!((replays.held(&conn, old), conn.is_replaying()), (0, false));
    }
}
