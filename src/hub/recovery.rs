//! Subscriptions that begin at a position: the request to the topic's owner, its reply, and the requests without a
//! reply.

use super::{HistoryEntry, Hub, Position, SubscribeError, Tags, topic};
use crate::conn::ConnId;
use crate::memory::Shrink;
use std::collections::HashMap;
use std::sync::Arc;

/// A request for a subscription that begins at a position, on its way to the topic's owner.
#[derive(Clone, Debug)]
pub(crate) struct RecoveryRequest {
    pub(crate) conn: ConnId,
    pub(crate) topic: Arc<str>,
    pub(crate) start: Start,
    pub(crate) tags: Option<Tags>,
    /// Assigned by [`PendingRecoveries`].
    pub(crate) request_id: u32,
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Start {
    /// With the next message.
    Now,
    /// With the newest message of each key in the history; messages without a key count as one.
    Latest,
    /// With the last messages of the history, this many at most: what a chat room shows to a new member.
    Last(usize),
    /// Behind this position: with everything that was missed, if the history reaches back that far.
    Since(Position),
}

/// A subscription to a topic or a pattern with its options, for
/// [`Conn::subscribe_with`](crate::Conn::subscribe_with).
///
/// ```
/// use campanile::{Start, Subscribe};
///
/// let subscribe = Subscribe::new("ticks").from(Start::Latest).tags(&["eur", "usd"]);
/// let below = Subscribe::pattern("ticks/*").tags(&["eur"]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Subscribe<'a> {
    pub(crate) target: SubscribeTarget<'a>,
    pub(crate) start: Start,
    pub(crate) tags: &'a [&'a str],
}

/// What a subscription is to, as it was given.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SubscribeTarget<'a> {
    Topic(&'a str),
    Pattern(&'a str),
}

impl<'a> Subscribe<'a> {
    /// Subscribes to what is published to a topic from now on. A pattern is refused with
    /// [`InvalidTopic::Pattern`](super::InvalidTopic::Pattern) when the subscription is made.
    pub const fn new(topic: &'a str) -> Self {
        Self { target: SubscribeTarget::Topic(topic), start: Start::Now, tags: &[] }
    }

    /// Subscribes to what is published from now on to all topics below a prefix: `ticks/*`.
    pub const fn pattern(pattern: &'a str) -> Self {
        Self { target: SubscribeTarget::Pattern(pattern), start: Start::Now, tags: &[] }
    }

    /// Sets where the subscription begins. A pattern allows [`Start::Now`] only.
    #[must_use]
    pub const fn from(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Sets a filter: only messages with one of these [tags](super::Publish::tags) are delivered, also of a replay.
    /// Default: all messages. Cost: a hash lookup for each message and subscriber with a filter.
    #[must_use]
    pub const fn tags(mut self, tags: &'a [&'a str]) -> Self {
        self.tags = tags;
        self
    }
}

/// The reply to a [`RecoveryRequest`].
#[derive(Debug)]
pub(crate) struct RecoveryReply {
    pub(crate) conn: ConnId,
    pub(crate) topic: Arc<str>,
    pub(crate) tags: Option<Tags>,
    pub(crate) request_id: u32,
    pub(crate) subscribed: Subscribed,
    pub(crate) replay: Vec<HistoryEntry>,
    /// Messages that were scanned for it.
    pub(crate) scanned: usize,
}

/// How a subscription began ([`Handler::subscribed`](crate::Handler::subscribed)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subscribed {
    /// The position behind the last message before the subscription went live. If nothing is published meanwhile,
    /// recovering from here misses nothing.
    pub position: Position,
    /// Whether everything behind the requested position follows. False also if none was requested.
    pub recovered: bool,
    /// Messages of the history that follow this call.
    pub replayed: usize,
}

/// The outcome of unsubscribing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unsubscribed {
    /// There was a subscription.
    pub(crate) ended: bool,
    /// A recovery was pending and is cancelled; its requester waits for an answer.
    pub(crate) cancelled: bool,
}

/// Requests without a reply, by connection. A number identifies each request, so a request that was cancelled and made
/// again is another one. Counting is per connection, so a reconnect storm costs no more than its number of requests.
#[derive(Debug, Default)]
pub(crate) struct PendingRecoveries {
    pending: HashMap<ConnId, HashMap<Arc<str>, u32>>,
    last: u32,
}

impl PendingRecoveries {
    pub(crate) fn contains(&self, conn: ConnId, topic: &str) -> bool {
        self.pending.get(&conn).is_some_and(|all| all.contains_key(topic))
    }

    /// Returns how many a connection waits for.
    pub(crate) fn count(&self, conn: ConnId) -> usize {
        self.pending.get(&conn).map_or(0, HashMap::len)
    }

    /// Returns how many a connection waits for, of the topics that satisfy `is_new`.
    fn count_new(&self, conn: ConnId, is_new: impl Fn(&str) -> bool) -> usize {
        self.pending.get(&conn).map_or(0, |all| all.keys().filter(|topic| is_new(topic)).count())
    }

    /// Adds a request and returns its number.
    pub(crate) fn add(&mut self, conn: ConnId, topic: Arc<str>) -> u32 {
        self.last = self.last.wrapping_add(1);
        self.pending.entry(conn).or_default().insert(topic, self.last);
        self.last
    }

    /// Cancels a request. Returns whether there was one.
    pub(crate) fn cancel(&mut self, conn: ConnId, topic: &str) -> bool {
        let Some(all) = self.pending.get_mut(&conn) else { return false };
        let was = all.remove(topic).is_some();
        if all.is_empty() {
            self.pending.remove(&conn);
        }
        was
    }

    /// Returns whether the request with this number is pending.
    pub(crate) fn is_pending(&self, conn: ConnId, topic: &str, request_id: u32) -> bool {
        self.pending.get(&conn).and_then(|all| all.get(topic)) == Some(&request_id)
    }

    /// Completes the request with this number. Returns whether it was pending.
    pub(crate) fn complete(&mut self, conn: ConnId, topic: &str, request_id: u32) -> bool {
        self.is_pending(conn, topic, request_id) && self.cancel(conn, topic)
    }

    /// Frees what the table has beyond its entries.
    pub(crate) fn shrink(&mut self) {
        self.pending.shrink();
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Cancels the requests of a connection that has ended. Returns whether there were any.
    pub(crate) fn remove(&mut self, conn: ConnId) -> bool {
        self.pending.remove(&conn).is_some()
    }
}

impl Hub {
    /// Requests a subscription that begins at a position; the reply comes at the end of this iteration or later. A
    /// subscription made by a handle is restarted, since the connection's handler does not know where it began.
    ///
    /// # Errors
    /// The topic's name is invalid, a request for it is pending, or the connection has as many subscriptions as
    /// allowed.
    pub(crate) fn request_recovery(
        &mut self,
        mut request: RecoveryRequest,
        limit: usize,
    ) -> Result<(), SubscribeError> {
        topic::check(&request.topic).map_err(SubscribeError::Topic)?;
        let slot = request.conn.slot() as u32;
        let RecoveryRequest { conn, topic, .. } = &request;
        if self.pending_recoveries.contains(*conn, topic) {
            return Err(SubscribeError::Already);
        }
        match self.index.is_by_handle(slot, topic) {
            Some(false) => return Err(SubscribeError::Already),
            Some(true) => {}
            None if !self.has_subscription_room(*conn, limit) => {
                return Err(SubscribeError::TooMany { limit });
            }
            None => {}
        }
        request.request_id = self.pending_recoveries.add(*conn, topic.clone());
        self.recovery_requests.push(request);
        Ok(())
    }

    /// Returns whether a connection may have one more subscription, beside its subscriptions and pending requests.
    pub(crate) fn has_subscription_room(&self, conn: ConnId, limit: usize) -> bool {
        let slot = conn.slot() as u32;
        let (has, waits) = (self.index.subscription_count(slot), self.pending_recoveries.count(conn));
        // A topic that is in both counts once; each is looked up only if that matters.
        has + waits < limit
            || has + self.pending_recoveries.count_new(conn, |t| !self.index.is_subscribed(slot, t)) < limit
    }

    /// Takes this iteration's requests that have not been cancelled.
    pub(crate) fn take_recovery_requests(&mut self) -> Vec<RecoveryRequest> {
        let Self { recovery_requests, pending_recoveries, .. } = self;
        recovery_requests.retain(|request| {
            pending_recoveries.is_pending(request.conn, &request.topic, request.request_id)
        });
        core::mem::take(recovery_requests)
    }

    /// Returns whether a request of this worker's is pending.
    pub(crate) fn is_pending(&self, request: &RecoveryRequest) -> bool {
        self.pending_recoveries.is_pending(request.conn, &request.topic, request.request_id)
    }

    /// Completes a request when its reply arrives. Returns whether it was pending.
    pub(crate) fn complete_recovery(&mut self, reply: &RecoveryReply) -> bool {
        self.pending_recoveries.complete(reply.conn, &reply.topic, reply.request_id)
    }

    /// Answers a request on the topic's owner, while the batch log is empty. For another worker, its subscriber counts
    /// from here on.
    pub(crate) fn answer_recovery(&mut self, request: RecoveryRequest, from: usize) -> RecoveryReply {
        let RecoveryRequest { conn, topic, start, tags, request_id } = request;
        let key = self.index.find_or_add(&topic);
        let now = self.now;
        let elsewhere = from != self.worker;
        let owned = self.owned_topic(key);
        if elsewhere {
            owned.change_remote_subscribers(from, 1);
        }
        let Self { index, accounting, .. } = self;
        accounting.change(index, key, |owned| owned.expire(now));
        let owned = self.owned_topic(key);
        let position = owned.position();
        let found = owned.messages_from(start, tags.as_ref(), now, usize::MAX);
        let recovered = found.is_some() && matches!(start, Start::Since(_));
        let replay: Vec<HistoryEntry> = found.unwrap_or_default().into_iter().cloned().collect();
        let subscribed = Subscribed { position, recovered, replayed: replay.len() };
        // A filter scans the whole history, and so does `Latest`.
        let all = tags.is_some() || start == Start::Latest;
        let scanned = if all { self.owned_topic(key).history.len() } else { replay.len() };
        RecoveryReply { conn, topic, tags, request_id, subscribed, replay, scanned }
    }

    /// Discards a reply that leads to no new subscription: the topic's owner has counted one subscriber too many.
    pub(crate) fn discard_recovery(&mut self, topic: &Arc<str>) {
        if self.owns(topic) {
            if let Some(key) = self.index.find(topic) {
                self.index.remove_unused(key);
            }
        } else {
            self.record_subscriber_change(topic, -1);
        }
    }

    /// Subscribes a connection whose request was answered; the topic's owner has counted it. A subscription that a
    /// handle has made meanwhile is restarted: its messages begin at the requested position.
    ///
    /// # Errors
    /// The connection has reached its subscription limit since the request.
    pub(crate) fn subscribe_recovered(
        &mut self,
        slot: u32,
        topic: &Arc<str>,
        tags: Option<Tags>,
        limit: usize,
    ) -> Result<(), SubscribeError> {
        let new = self.index.subscribe(slot, topic, tags.clone(), limit);
        if new == Ok(false) {
            self.index.restart_subscription(slot, topic, tags);
        }
        if new != Ok(true) {
            self.discard_recovery(topic); // the subscriber was counted before
        }
        new.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_to_a_cancelled_recovery_does_not_complete_the_next() {
        let (mut pending_recoveries, conn) = (PendingRecoveries::default(), ConnId::new(0, 1, 1));
        let first = pending_recoveries.add(conn, "a".into());
        assert!(
            pending_recoveries.contains(conn, "a")
                && pending_recoveries.cancel(conn, "a")
                && !pending_recoveries.cancel(conn, "a")
        );
        let second = pending_recoveries.add(conn, "a".into());
        assert_eq!(pending_recoveries.count(conn), 1);
        assert!(
            !pending_recoveries.complete(conn, "a", first) && pending_recoveries.complete(conn, "a", second)
        );
        assert!(!pending_recoveries.contains(conn, "a") && !pending_recoveries.remove(conn));
    }
}
