//! What a client of topics knows: what it listens to and where it is there, and what it asked for without an answer. No
//! socket, no thread; the time comes in.
//!
//! A subscription and a publication outlive their connection. On the next one, all subscriptions are asked for again,
//! each with the place to go on from; then, when these have begun, the publications that had no answer go out again
//! (`outgoing.rs`), which their names (`idempotency_key`) make safe.

use super::error::{Error, PublishError, ServerError, SubscribeError};
use super::event::{Data, Hello, Message, PushEvent, Subscribed};
use super::outgoing::{NewPublication, OnPublished, Outgoing, retry_delay};
use super::publication::{Publication, Start, Subscription};
use super::{Position, Published, PushClientLimits, convert};
use crate::hub::topic::is_pattern;
use crate::hub::{MAX_TAG, MAX_TAGS, check_pattern, check_topic};
use crate::push_protocol::{
    Incoming, MAX_LAST, PushRequest, ServerMessage, SubscribeCommand, SubscribeStart, TargetName,
};
use core::time::Duration;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

/// After how long what the socket did not take is tried again.
const SEND_RETRY: Duration = Duration::from_millis(100);

/// What a deadline can hold everywhere.
pub(super) const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// The time, and the way to the server; false: it takes nothing now.
pub(super) struct MachineContext<'a> {
    pub(super) now: Instant,
    pub(super) send: &'a mut dyn FnMut(&str) -> bool,
}

pub(super) struct PushMachine {
    limits: PushClientLimits,
    /// Begins the names of publications.
    key_prefix: String,
    /// What the server said on this connection; `None`: there is none, or not yet.
    hello: Option<Hello>,
    /// Until when it has to say it.
    hello_deadline: Option<Instant>,
    /// When anything last came, and until when something has to, after a ping.
    last_received: Instant,
    pong_deadline: Option<Instant>,
    ids: u64,
    /// Subscriptions that were asked for or ended, without an answer, in the order in which they were made.
    pending: BTreeMap<u64, PendingRequest>,
    pub(super) outgoing: Outgoing,
    /// The socket took nothing; when to try again.
    send_retry_at: Option<Instant>,
    subs: HashMap<String, SubscriptionState>,
    /// What happened, to be taken by the caller.
    pub(super) events: Vec<PushEvent>,
    /// The connection is dead.
    pub(super) wants_reset: bool,
    /// There will be no other, and nothing can be asked for.
    pub(super) is_over: bool,
}

struct PendingRequest {
    text: String,
    kind: PendingKind,
    /// When to send it again, where the server asked for that or the socket took nothing; `None`: it is on its way.
    retry: Option<Instant>,
    /// How often the server has put it off.
    deferrals: u32,
}

enum PendingKind {
    /// By which subscription, and whether it goes on from a place.
    Subscribe {
        topic: String,
        sub: u64,
        since: bool,
    },
    Unsubscribe {
        topic: String,
    },
}

struct SubscriptionState {
    /// Distinguishes it from others to the same topic.
    number: u64,
    start: Start,
    tags: Vec<String>,
    resumes: bool,
    is_pattern: bool,
    /// Of the last message, or where it went live; none for a pattern.
    position: Option<Position>,
    /// The server has answered on this connection.
    live: bool,
    /// There is something that can have been missed.
    had_position: bool,
    /// Messages from the history to come, and the last offset they can have.
    replay: u64,
    until: u64,
}

impl PushMachine {
    pub(super) fn new(limits: PushClientLimits, key_prefix: String, now: Instant) -> Self {
        Self {
            limits,
            key_prefix,
            hello: None,
            hello_deadline: None,
            last_received: now,
            pong_deadline: None,
            ids: 0,
            pending: BTreeMap::new(),
            outgoing: Outgoing::default(),
            send_retry_at: None,
            subs: HashMap::new(),
            events: Vec::new(),
            wants_reset: false,
            is_over: false,
        }
    }

    pub(super) fn hello(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    // ---- what the program asks for ----

    pub(super) fn subscribe(
        &mut self,
        subscription: Subscription,
        cx: &mut MachineContext<'_>,
    ) -> Result<(), SubscribeError> {
        let resumes = subscription.resumes();
        let Subscription { name: topic, is_pattern, start, since, tags, .. } = subscription;
        if is_pattern {
            check_pattern(&topic).map_err(SubscribeError::Pattern)?;
            if start != Start::Live || since.is_some() {
                return Err(SubscribeError::PatternStart { pattern: topic });
            }
        } else {
            check_topic(&topic).map_err(SubscribeError::Topic)?;
        }
        if let Start::Last(n) = start
            && !(1..=MAX_LAST).contains(&n)
        {
            return Err(SubscribeError::Last { n });
        }
        if tags.len() > MAX_TAGS || tags.iter().any(|tag| !(1..=MAX_TAG).contains(&tag.len())) {
            return Err(SubscribeError::Tags);
        }
        if self.subs.contains_key(&topic) {
            return Err(SubscribeError::Already { topic });
        }
        let limit = self.limits.max_subscriptions;
        if self.subs.len() >= limit {
            return Err(SubscribeError::TooMany { limit });
        }
        self.ids += 1;
        let (number, had_position) = (self.ids, since.is_some());
        let sub = SubscriptionState {
            number,
            start,
            tags,
            resumes,
            is_pattern,
            position: since,
            live: false,
            had_position,
            replay: 0,
            until: 0,
        };
        self.subs.insert(topic.clone(), sub);
        self.request_subscribe(&topic, cx);
        Ok(())
    }

    /// False: there was no such subscription.
    pub(super) fn unsubscribe(&mut self, topic: &str, cx: &mut MachineContext<'_>) -> bool {
        let was = self.subs.remove(topic).is_some();
        if was {
            self.request_unsubscribe(topic, cx);
        }
        was
    }

    pub(super) fn publish(
        &mut self,
        publication: &Publication<'_>,
        done: OnPublished,
        cx: &mut MachineContext<'_>,
    ) -> Result<(), PublishError> {
        check_topic(publication.topic).map_err(PublishError::Topic)?;
        let id = self.ids + 1;
        let idempotency_key = format!("{}-{id}", self.key_prefix);
        let text = convert::publish_request(publication, &idempotency_key)
            .to_json(Some(id))
            .map_err(|e| PublishError::Json(e.to_string()))?;
        let (pending, bytes) = (self.outgoing.len(), self.outgoing.bytes());
        let PushClientLimits { max_pending, max_pending_bytes, .. } = self.limits;
        if pending >= max_pending || pending > 0 && bytes + text.len() > max_pending_bytes {
            return Err(PublishError::Full { pending, bytes });
        }
        self.ids = id;
        let limit = publication.timeout.min(MAX_TIMEOUT);
        let topic = publication.topic.to_owned();
        self.outgoing.push(id, NewPublication { text, topic, done, deadline: cx.now + limit, limit });
        self.flush_topic(publication.topic, cx);
        Ok(())
    }

    // ---- the connection ----

    /// It is there; the server has to say hello.
    pub(super) fn opened(&mut self, now: Instant) {
        self.hello_deadline = Some(now + self.limits.hello_timeout.min(MAX_TIMEOUT));
    }

    /// It has gone, and there may be another.
    pub(super) fn lost(&mut self) {
        (self.hello, self.hello_deadline, self.pong_deadline, self.send_retry_at) = (None, None, None, None);
        self.pending.clear();
        self.outgoing.lost();
        for sub in self.subs.values_mut() {
            sub.live = false;
        }
    }

    /// There will be no other.
    pub(super) fn closed(&mut self) {
        self.lost();
        self.is_over = true;
        self.outgoing.close();
        self.subs.clear();
    }

    // ---- time ----

    /// When to call [`PushMachine::expire`] next. The server's silence means nothing while nobody reads.
    pub(super) fn deadline(&self, reads: bool) -> Option<Instant> {
        let requests = self.pending.values().map(|one| one.retry);
        let silence =
            if reads { [self.hello_deadline, self.pong_deadline, self.ping_due()] } else { [None; 3] };
        requests.chain(silence).chain([self.send_retry_at, self.outgoing.deadline()]).flatten().min()
    }

    /// When a silence has to be asked about.
    fn ping_due(&self) -> Option<Instant> {
        let heartbeat = self.hello.as_ref()?.heartbeat;
        (self.pong_deadline.is_none() && !heartbeat.is_zero())
            .then(|| self.last_received + heartbeat.min(MAX_TIMEOUT))
    }

    /// Does what is due. `reads`: all that came has been taken.
    pub(super) fn expire(&mut self, reads: bool, cx: &mut MachineContext<'_>) {
        let now = cx.now;
        self.send_retry_at = self.send_retry_at.filter(|at| *at > now);
        self.outgoing.expire(now);
        let is_due = |one: &PendingRequest| one.retry.is_some_and(|at| at <= now);
        for id in self.pending.iter().filter(|(_, one)| is_due(one)).map(|(&id, _)| id).collect::<Vec<_>>() {
            let wanted = match self.pending.get(&id).map(|one| &one.kind) {
                Some(PendingKind::Subscribe { topic, sub, .. }) => {
                    self.subs.get(topic).is_some_and(|s| s.number == *sub)
                }
                _ => true,
            };
            if wanted {
                self.send(id, cx);
            } else {
                self.pending.remove(&id);
            }
        }
        self.flush(cx);
        if reads {
            self.check_silence(cx);
        }
    }

    fn check_silence(&mut self, cx: &mut MachineContext<'_>) {
        let PushClientLimits { hello_timeout, pong_timeout, .. } = self.limits;
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= cx.now);
        if passed(self.hello_deadline) {
            self.hello_deadline = None;
            self.wants_reset = true;
            self.events.push(PushEvent::Error(Error::HelloTimeout { limit: hello_timeout }));
        } else if passed(self.pong_deadline) {
            self.pong_deadline = None;
            self.last_received = cx.now;
            self.wants_reset = true;
            self.events.push(PushEvent::Error(Error::PongTimeout { limit: pong_timeout }));
        } else if passed(self.ping_due()) {
            // Where it can't be sent, there is no way to the server either.
            (cx.send)(&json(&PushRequest::Ping, None));
            self.pong_deadline = Some(cx.now + pong_timeout.min(MAX_TIMEOUT));
        }
    }

    /// Nothing was read for a while, by our own choice.
    pub(super) fn resumed_reading(&mut self, now: Instant) {
        self.last_received = now;
        self.pong_deadline = None;
    }

    // ---- what goes out ----

    fn send(&mut self, id: u64, cx: &mut MachineContext<'_>) {
        let Some(hello) = &self.hello else { return };
        let limit = hello.max_message_size;
        let Some(one) = self.pending.get_mut(&id) else { return };
        let len = one.text.len();
        if len > limit {
            return self.refused(id, ServerError::too_big(len, limit), cx);
        }
        one.retry = None;
        if !(cx.send)(&one.text) {
            self.send_retry_at = Some(cx.now + SEND_RETRY);
            one.retry = self.send_retry_at;
        }
    }

    /// A publication waits until the subscriptions that were asked for before it have begun, and so is heard by them.
    fn takes_publications(&self) -> bool {
        let begins = |one: &PendingRequest| matches!(one.kind, PendingKind::Subscribe { .. });
        self.hello.is_some() && self.send_retry_at.is_none() && !self.pending.values().any(begins)
    }

    /// Sends the publications that may go out.
    fn flush(&mut self, cx: &mut MachineContext<'_>) {
        if self.takes_publications() {
            for id in self.outgoing.ready() {
                self.send_from(id, cx);
            }
        }
    }

    /// The same for one topic.
    fn flush_topic(&mut self, topic: &str, cx: &mut MachineContext<'_>) {
        if let Some(id) = self.outgoing.after(topic).filter(|_| self.takes_publications()) {
            self.send_from(id, cx);
        }
    }

    /// Sends this publication and those to the same topic that may follow it.
    fn send_from(&mut self, id: u64, cx: &mut MachineContext<'_>) {
        let Some(limit) = self.hello.as_ref().map(|hello| hello.max_message_size) else { return };
        let Some(topic) = self.outgoing.topic(id) else { return };
        let mut next = Some(id);
        while let Some(id) = next.filter(|_| self.send_retry_at.is_none())
            && let Some(text) = self.outgoing.text(id)
        {
            if text.len() > limit {
                let error = ServerError::too_big(text.len(), limit);
                self.outgoing.settle(id, Err(PublishError::Refused(error)));
            } else if (cx.send)(text) {
                self.outgoing.sent(id);
            } else {
                self.send_retry_at = Some(cx.now + SEND_RETRY);
            }
            next = self.outgoing.after(&topic);
        }
    }

    fn is_unsubscribing(&self, topic: &str) -> bool {
        let leaves = |one: &PendingRequest| matches!(&one.kind, PendingKind::Unsubscribe { topic: left } if left == topic);
        self.pending.values().any(leaves)
    }

    /// Sends a request whose id is the next one.
    fn request(&mut self, kind: PendingKind, text: String, cx: &mut MachineContext<'_>) {
        self.ids += 1;
        let id = self.ids;
        self.pending.insert(id, PendingRequest { text, kind, retry: None, deferrals: 0 });
        self.send(id, cx);
    }

    /// Asks for a subscription, from where it is.
    fn request_subscribe(&mut self, topic: &str, cx: &mut MachineContext<'_>) {
        // One that is being ended has to be answered first; then this follows.
        if self.hello.is_none() || self.is_unsubscribing(topic) {
            return;
        }
        let Some(sub) = self.subs.get_mut(topic) else { return };
        sub.live = false;
        let start = match (&sub.position, sub.start) {
            (Some(position), _) if sub.resumes => SubscribeStart::Since(position.into()),
            (_, Start::Live) => SubscribeStart::Live,
            (_, Start::Latest) => SubscribeStart::Latest,
            (_, Start::Last(n)) => SubscribeStart::Last(n),
        };
        let kind = PendingKind::Subscribe {
            topic: topic.to_owned(),
            sub: sub.number,
            since: matches!(start, SubscribeStart::Since(_)),
        };
        let tags = sub.tags.iter().map(|tag| (&**tag).into()).collect();
        let request = PushRequest::Subscribe(SubscribeCommand { target: target(topic), start, tags });
        let text = json(&request, Some(self.ids + 1));
        self.request(kind, text, cx);
    }

    fn request_unsubscribe(&mut self, topic: &str, cx: &mut MachineContext<'_>) {
        if self.hello.is_some() && !self.is_unsubscribing(topic) {
            let kind = PendingKind::Unsubscribe { topic: topic.to_owned() };
            let text = json(&PushRequest::Unsubscribe(target(topic)), Some(self.ids + 1));
            self.request(kind, text, cx);
        }
    }

    // ---- what comes in ----

    pub(super) fn received(&mut self, incoming: Result<Incoming<'_>, String>, cx: &mut MachineContext<'_>) {
        self.last_received = cx.now;
        self.pong_deadline = None;
        match incoming.unwrap_or_else(|why| {
            self.events.push(PushEvent::Error(Error::Unreadable { why }));
            Incoming::Other
        }) {
            Incoming::Message { topic, offset, payload } => {
                self.deliver(topic.0.into(), offset, payload.into())
            }
            Incoming::Messages { topic, messages } => {
                let topic: Arc<str> = topic.0.into();
                for (offset, payload) in messages {
                    self.deliver(topic.clone(), offset, payload.into());
                }
            }
            Incoming::Server(message) => self.answered(message, cx),
            Incoming::Other => {}
        }
        // A server that never falls silent has to greet in time all the same.
        if self.hello_deadline.is_some_and(|at| at <= cx.now) {
            self.check_silence(cx);
        }
    }

    fn answered(&mut self, message: ServerMessage<'_>, cx: &mut MachineContext<'_>) {
        match message {
            ServerMessage::Hello(hello) => self.hello_received(hello.into(), cx),
            ServerMessage::Subscribed { id: Some(id), position, recovered, replayed, .. } => {
                self.subscribed(id, position.map(Into::into), recovered, replayed, cx);
                self.flush(cx);
            }
            ServerMessage::Unsubscribed { id: Some(id), .. } => self.unsubscribed(id, cx),
            ServerMessage::Published { id: Some(id), position, receivers, repeated } => {
                self.published(id, Published::new(position, receivers, repeated), cx);
            }
            ServerMessage::Lagged { messages } => self.events.push(PushEvent::Lagged { messages }),
            ServerMessage::Error { id, code, message, retry } => {
                let error = ServerError::new(code, message.0.into_owned(), retry);
                match id {
                    Some(id) => self.failed(id, error, cx),
                    None => self.events.push(PushEvent::Error(Error::Server(error))),
                }
            }
            // Without an id it answers nothing.
            ServerMessage::Subscribed { .. }
            | ServerMessage::Unsubscribed { .. }
            | ServerMessage::Published { .. }
            | ServerMessage::Pong { .. } => {}
        }
    }

    fn hello_received(&mut self, hello: Hello, cx: &mut MachineContext<'_>) {
        // Only the first on a connection says anything.
        if self.hello.is_some() {
            return;
        }
        self.hello_deadline = None;
        self.hello = Some(hello.clone());
        self.events.push(PushEvent::Open(hello));
        // In the order in which they were made, so that those over the server's limit are the last ones.
        let mut topics: Vec<_> = self.subs.iter().map(|(t, sub)| (sub.number, t.clone())).collect();
        topics.sort_unstable();
        for (_, topic) in topics {
            self.request_subscribe(&topic, cx);
        }
        self.flush(cx);
    }

    fn published(&mut self, id: u64, published: Published, cx: &mut MachineContext<'_>) {
        if self.outgoing.is_in_flight(id) {
            let topic = self.outgoing.topic(id);
            self.outgoing.published(id, published);
            self.flush_topic(topic.as_deref().unwrap_or_default(), cx);
        }
    }

    /// Whether this request is on its way, and so may have an answer.
    fn pending_kind(&self, id: u64) -> Option<&PendingKind> {
        self.pending.get(&id).filter(|one| one.retry.is_none()).map(|one| &one.kind)
    }

    fn subscribed(
        &mut self,
        id: u64,
        position: Option<Position>,
        recovered: bool,
        replayed: u64,
        cx: &mut MachineContext<'_>,
    ) {
        let Some(PendingKind::Subscribe { topic, sub: number, since }) = self.pending_kind(id) else {
            return;
        };
        // A pattern has no place, and nothing else goes without one.
        let position = position.filter(|_| !is_pattern(topic));
        if position.is_none() && !is_pattern(topic) {
            let why = format!("subscribed to {topic:?} without a place in it");
            return self.events.push(PushEvent::Error(Error::Unreadable { why }));
        }
        let (topic, number, since) = (topic.clone(), *number, *since);
        self.pending.remove(&id);
        let Some(sub) = self.subs.get_mut(&topic).filter(|sub| sub.number == number) else { return };
        if since && !recovered && sub.start != Start::Live {
            // What was missed is gone; what everything stands at now may not be.
            sub.position = None;
            return self.request_unsubscribe(&topic, cx);
        }
        let how = sub.begin(topic, position, recovered, replayed);
        self.events.push(PushEvent::Subscribed(how));
    }

    fn unsubscribed(&mut self, id: u64, cx: &mut MachineContext<'_>) {
        if let Some(PendingKind::Unsubscribe { topic }) = self.pending_kind(id) {
            let topic = topic.clone();
            self.pending.remove(&id);
            self.request_subscribe(&topic, cx);
            self.flush(cx);
        }
    }

    fn failed(&mut self, id: u64, error: ServerError, cx: &mut MachineContext<'_>) {
        if self.outgoing.is_in_flight(id) {
            match error.retry {
                Some(retry) => self.outgoing.defer(id, error, retry, cx.now),
                None => self.outgoing.settle(id, Err(PublishError::Refused(error))),
            }
        } else if self.pending_kind(id).is_some()
            && let Some(one) = self.pending.get_mut(&id)
        {
            if let Some(retry) = error.retry {
                one.retry = Some(cx.now + retry_delay(retry, one.deferrals));
                one.deferrals += 1;
            } else {
                self.refused(id, error, cx);
            }
        }
        self.flush(cx);
    }

    /// A request will not be sent again.
    fn refused(&mut self, id: u64, error: ServerError, cx: &mut MachineContext<'_>) {
        match self.pending.remove(&id).map(|one| one.kind) {
            Some(PendingKind::Subscribe { topic, sub, .. })
                if self.subs.get(&topic).is_some_and(|s| s.number == sub) =>
            {
                self.subs.remove(&topic);
                self.events.push(PushEvent::Refused { topic, error });
            }
            // It does not listen: that is what was wanted.
            Some(PendingKind::Unsubscribe { topic }) => self.request_subscribe(&topic, cx),
            Some(PendingKind::Subscribe { .. }) | None => {}
        }
    }

    fn deliver(&mut self, topic: Arc<str>, offset: u64, data: Data) {
        let named = self.subs.get_mut(&*topic).filter(|sub| sub.live);
        let (wanted, epoch, replayed) = match named {
            Some(sub) => sub.take(offset),
            None => {
                let mut patterns = crate::hub::topic::matching_patterns(&topic);
                (patterns.any(|p| self.subs.get(&p).is_some_and(|sub| sub.live)), None, false)
            }
        };
        if wanted {
            self.events.push(PushEvent::Message(Message { topic, offset, epoch, replayed, data }));
        }
    }
}

/// What a request subscribes to. The name has been checked, and no topic is named like a pattern.
fn target(name: &str) -> TargetName<'_> {
    if is_pattern(name) { TargetName::Pattern(name.into()) } else { TargetName::Topic(name.into()) }
}

/// A request without JSON of the program's, which therefore can be written.
fn json(request: &PushRequest<'_>, id: Option<u64>) -> String {
    request.to_json(id).unwrap_or_default()
}

impl SubscriptionState {
    fn begin(
        &mut self,
        topic: String,
        position: Option<Position>,
        recovered: bool,
        replayed: u64,
    ) -> Subscribed {
        let same = match (&self.position, &position) {
            (Some(old), Some(new)) => old.epoch == new.epoch,
            (old, new) => old.is_none() && new.is_none(),
        };
        if let Some(position) = position.as_ref().filter(|_| !self.is_pattern) {
            let seen =
                self.position.as_ref().filter(|_| same).map_or(0, |old| old.offset.min(position.offset));
            let offset = if replayed > 0 { seen } else { position.offset };
            self.position = Some(Position { epoch: position.epoch.clone(), offset });
            self.until = position.offset;
        }
        self.live = true;
        self.replay = replayed;
        // The newest of each key is whole by itself, as long as the topic has not begun another life.
        let whole = recovered || same && self.start == Start::Latest && !self.resumes;
        let lost = self.had_position && !whole;
        self.had_position = true;
        Subscribed { topic, position, recovered, replayed, lost }
    }

    /// Whether a message of the topic's is new, its epoch, and whether it is from the history.
    fn take(&mut self, offset: u64) -> (bool, Option<Arc<str>>, bool) {
        let Some(position) = &mut self.position else { return (true, None, false) };
        let replayed = self.replay > 0 && offset <= self.until;
        if replayed {
            self.replay -= 1;
        }
        let seen = position.offset;
        let now_at = if replayed && self.replay == 0 { self.until } else { offset };
        position.offset = seen.max(now_at);
        (offset > seen, Some(position.epoch.clone()), replayed)
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
