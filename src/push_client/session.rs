//! What a client of topics knows: what it listens to and where it is there, and what it asked for without an answer. No
//! socket, no thread; the time comes in.
//!
//! A subscription and a publication outlive their connection. On the next one, all subscriptions are asked for again,
//! each with the place to go on from; then, when these have begun, the publications that had no answer go out again,
//! which their names (`dedup`) make safe.

use super::event::{Data, Event, Hello, Message, Subscribed};
use super::fault::{Error, Fault, PublishError, SubscribeError};
use super::publication::{Publication, Start, Subscription};
use super::wire::{self, Begin, Incoming};
use super::{Limits, Position, Published};
use crate::hub::topic::is_pattern;
use crate::hub::{MAX_TAG, MAX_TAGS, Target, check_pattern, check_topic};
use core::time::Duration;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

/// Called once, with what became of a publication.
pub(super) type Done = Box<dyn FnOnce(Result<Published, PublishError>) + Send>;

/// What became of a publication, to be said without a lock.
pub(super) type Settled = (Done, Result<Published, PublishError>);

/// After how long what the socket did not take is tried again.
const FULL: Duration = Duration::from_millis(100);

/// The longest time that a server can put a request off.
const MAX_RETRY: Duration = Duration::from_secs(60);

/// What a deadline can hold everywhere.
pub(super) const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The time, and the way to the server; false: it takes nothing now.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) wire: &'a mut dyn FnMut(&str) -> bool,
}

pub(super) struct Session {
    limits: Limits,
    /// Begins the names of publications.
    name: String,
    /// What the server said on this connection; `None`: there is none, or not yet.
    hello: Option<Hello>,
    /// Until when it has to say it.
    greeting: Option<Instant>,
    /// When anything last came, and until when something has to, after a ping.
    heard: Instant,
    probe: Option<Instant>,
    ids: u64,
    /// Requests without an answer, in the order in which they were made.
    asked: BTreeMap<u64, Asked>,
    /// The socket took nothing; when to try again.
    stalled: Option<Instant>,
    pending: usize,
    pending_bytes: usize,
    subs: HashMap<String, Sub>,
    /// What happened, to be taken by the caller.
    pub(super) events: Vec<Event>,
    pub(super) settled: Vec<Settled>,
    /// The connection is dead.
    pub(super) resets: bool,
    /// There will be no other, and nothing can be asked for.
    pub(super) is_over: bool,
}

struct Asked {
    text: String,
    what: What,
    /// It is on its way on this connection.
    sent: bool,
    /// When to send it again, where the server asked for that.
    retry: Option<Instant>,
}

enum What {
    /// By which subscription, and whether it goes on from a place.
    Subscribe {
        topic: String,
        sub: u64,
        since: bool,
    },
    Unsubscribe {
        topic: String,
    },
    Publish {
        done: Done,
        deadline: Instant,
        limit: Duration,
    },
}

struct Sub {
    /// Distinguishes it from others to the same topic.
    number: u64,
    start: Start,
    tags: Vec<String>,
    resumes: bool,
    is_pattern: bool,
    /// Of the last message, or where it went live; none for a pattern.
    place: Option<Position>,
    /// The server has answered on this connection.
    live: bool,
    /// There is something that can have been missed.
    begun: bool,
    /// Messages from the history to come, and the last offset they can have.
    replay: u64,
    until: u64,
}

impl Session {
    pub(super) fn new(limits: Limits, name: String, now: Instant) -> Self {
        Self {
            limits,
            name,
            hello: None,
            greeting: None,
            heard: now,
            probe: None,
            ids: 0,
            asked: BTreeMap::new(),
            stalled: None,
            pending: 0,
            pending_bytes: 0,
            subs: HashMap::new(),
            events: Vec::new(),
            settled: Vec::new(),
            resets: false,
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
        cx: &mut Context<'_>,
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
            && !(1..=65_536).contains(&n)
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
        let (number, begun) = (self.ids, since.is_some());
        let sub = Sub {
            number,
            start,
            tags,
            resumes,
            is_pattern,
            place: since,
            live: false,
            begun,
            replay: 0,
            until: 0,
        };
        self.subs.insert(topic.clone(), sub);
        self.ask_for(&topic, cx);
        Ok(())
    }

    /// False: there was no such subscription.
    pub(super) fn unsubscribe(&mut self, topic: &str, cx: &mut Context<'_>) -> bool {
        let was = self.subs.remove(topic).is_some();
        if was {
            self.leave(topic, cx);
        }
        was
    }

    pub(super) fn publish(
        &mut self,
        publication: &Publication<'_>,
        done: Done,
        cx: &mut Context<'_>,
    ) -> Result<(), PublishError> {
        check_topic(publication.topic).map_err(PublishError::Topic)?;
        let id = self.ids + 1;
        let name = format!("{}-{id}", self.name);
        let text = wire::publish(id, publication, &name).map_err(|e| PublishError::Json(e.to_string()))?;
        let (pending, bytes) = (self.pending, self.pending_bytes);
        let Limits { max_pending, max_pending_bytes, .. } = self.limits;
        if pending >= max_pending || pending > 0 && bytes + text.len() > max_pending_bytes {
            return Err(PublishError::Full { pending, bytes });
        }
        self.ids = id;
        let limit = publication.timeout.min(FAR);
        let what = What::Publish { done, deadline: cx.now + limit, limit };
        self.pending += 1;
        self.pending_bytes += text.len();
        self.asked.insert(id, Asked { text, what, sent: false, retry: None });
        self.flush(cx);
        Ok(())
    }

    // ---- the connection ----

    /// It is there; the server has to say hello.
    pub(super) fn opened(&mut self, now: Instant) {
        self.greeting = Some(now + self.limits.hello_timeout.min(FAR));
    }

    /// It has gone, and there may be another.
    pub(super) fn lost(&mut self) {
        (self.hello, self.greeting, self.probe, self.stalled) = (None, None, None, None);
        self.asked.retain(|_, one| matches!(one.what, What::Publish { .. }));
        for one in self.asked.values_mut() {
            (one.sent, one.retry) = (false, None);
        }
        for sub in self.subs.values_mut() {
            sub.live = false;
        }
    }

    /// There will be no other.
    pub(super) fn closed(&mut self) {
        self.lost();
        self.is_over = true;
        for id in self.asked.keys().copied().collect::<Vec<_>>() {
            self.settle(id, Err(PublishError::Closed));
        }
        self.subs.clear();
    }

    // ---- time ----

    /// When to call [`Session::expire`] next. The server's silence means nothing while nobody reads.
    pub(super) fn deadline(&self, reads: bool) -> Option<Instant> {
        let requests = self.asked.values().flat_map(|one| {
            let given_up = match one.what {
                What::Publish { deadline, .. } => Some(deadline),
                _ => None,
            };
            [one.retry, given_up]
        });
        let silence = if reads { [self.greeting, self.probe, self.asks_at()] } else { [None; 3] };
        requests.chain(silence).chain([self.stalled]).flatten().min()
    }

    /// When a silence has to be asked about.
    fn asks_at(&self) -> Option<Instant> {
        let heartbeat = self.hello.as_ref()?.heartbeat;
        (self.probe.is_none() && !heartbeat.is_zero()).then(|| self.heard + heartbeat.min(FAR))
    }

    /// Does what is due. `reads`: all that came has been taken.
    pub(super) fn expire(&mut self, reads: bool, cx: &mut Context<'_>) {
        let now = cx.now;
        self.stalled = self.stalled.filter(|at| *at > now);
        let mut given_up = Vec::new();
        let mut again = Vec::new();
        for (&id, one) in &mut self.asked {
            match one.what {
                What::Publish { deadline, limit, .. } if deadline <= now => given_up.push((id, limit)),
                _ if one.retry.is_some_and(|at| at <= now) => {
                    one.retry = None;
                    again.push(id);
                }
                _ => {}
            }
        }
        for (id, limit) in given_up {
            self.settle(id, Err(PublishError::Timeout { limit }));
        }
        for id in again {
            let wanted = match self.asked.get(&id).map(|one| &one.what) {
                Some(What::Subscribe { topic, sub, .. }) => {
                    self.subs.get(topic).is_some_and(|s| s.number == *sub)
                }
                _ => true,
            };
            if wanted {
                self.send(id, cx);
            } else {
                self.asked.remove(&id);
            }
        }
        self.flush(cx);
        if reads {
            self.check_silence(cx);
        }
    }

    fn check_silence(&mut self, cx: &mut Context<'_>) {
        let Limits { hello_timeout, pong_timeout, .. } = self.limits;
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= cx.now);
        if passed(self.greeting) {
            self.greeting = None;
            self.resets = true;
            self.events.push(Event::Error(Error::HelloTimeout { limit: hello_timeout }));
        } else if passed(self.probe) {
            self.probe = None;
            self.heard = cx.now;
            self.resets = true;
            self.events.push(Event::Error(Error::PongTimeout { limit: pong_timeout }));
        } else if passed(self.asks_at()) {
            // Where it can't be sent, there is no way to the server either.
            (cx.wire)(wire::PING);
            self.probe = Some(cx.now + pong_timeout.min(FAR));
        }
    }

    /// Nothing was read for a while, by our own choice.
    pub(super) fn rested(&mut self, now: Instant) {
        self.heard = now;
        self.probe = None;
    }

    // ---- what goes out ----

    fn send(&mut self, id: u64, cx: &mut Context<'_>) {
        let Some(hello) = &self.hello else { return };
        let limit = hello.max_message_size;
        let Some(one) = self.asked.get_mut(&id) else { return };
        let len = one.text.len();
        if len > limit {
            return self.refused(id, Fault::too_big(len, limit));
        }
        one.sent = (cx.wire)(&one.text);
        if !one.sent {
            self.stalled = Some(cx.now + FULL);
            // Publications follow in their order by themselves.
            one.retry = self.stalled.filter(|_| !matches!(one.what, What::Publish { .. }));
        }
    }

    /// A publication waits until the subscriptions that were asked for before it have begun, and so is heard by them.
    fn flush(&mut self, cx: &mut Context<'_>) {
        if self.hello.is_none() || self.stalled.is_some() {
            return;
        }
        if self.asked.values().any(|one| matches!(one.what, What::Subscribe { .. })) {
            return;
        }
        let waits =
            self.asked.iter().filter(|(_, one)| matches!(one.what, What::Publish { .. }) && !one.sent);
        for id in waits.map(|(&id, _)| id).collect::<Vec<_>>() {
            if self.stalled.is_none() {
                self.send(id, cx);
            }
        }
    }

    fn is_leaving(&self, topic: &str) -> bool {
        let leaves = |one: &Asked| matches!(&one.what, What::Unsubscribe { topic: left } if left == topic);
        self.asked.values().any(leaves)
    }

    fn ask(&mut self, what: What, text: impl FnOnce(u64) -> String, cx: &mut Context<'_>) {
        self.ids += 1;
        let id = self.ids;
        self.asked.insert(id, Asked { text: text(id), what, sent: false, retry: None });
        self.send(id, cx);
    }

    /// Asks for a subscription, from where it is.
    fn ask_for(&mut self, topic: &str, cx: &mut Context<'_>) {
        // One that is being ended has to be answered first; then this follows.
        if self.hello.is_none() || self.is_leaving(topic) {
            return;
        }
        let Some(sub) = self.subs.get_mut(topic) else { return };
        sub.live = false;
        let begin = match (&sub.place, sub.start) {
            (Some(place), _) if sub.resumes => Begin::Since(place),
            (_, Start::Live) => Begin::Live,
            (_, Start::Latest) => Begin::Latest,
            (_, Start::Last(n)) => Begin::Last(n),
        };
        let what = What::Subscribe {
            topic: topic.to_owned(),
            sub: sub.number,
            since: matches!(begin, Begin::Since(_)),
        };
        let text = wire::subscribe(self.ids + 1, target(topic), begin, &sub.tags);
        self.ask(what, |_| text, cx);
    }

    fn leave(&mut self, topic: &str, cx: &mut Context<'_>) {
        if self.hello.is_some() && !self.is_leaving(topic) {
            let what = What::Unsubscribe { topic: topic.to_owned() };
            self.ask(what, |id| wire::unsubscribe(id, target(topic)), cx);
        }
    }

    // ---- what comes in ----

    pub(super) fn received(&mut self, incoming: Result<Incoming, String>, cx: &mut Context<'_>) {
        self.heard = cx.now;
        self.probe = None;
        let incoming = match incoming {
            Ok(incoming) => incoming,
            Err(why) => return self.events.push(Event::Error(Error::Unreadable { why })),
        };
        match incoming {
            Incoming::Message { topic, offset, data } => self.deliver(topic, offset, data),
            Incoming::Messages { topic, messages } => {
                for (offset, data) in messages {
                    self.deliver(topic.clone(), offset, data);
                }
            }
            Incoming::Hello(hello) => self.greeted(hello, cx),
            Incoming::Subscribed { id, position, recovered, replayed } => {
                self.subscribed(id, position, recovered, replayed, cx);
                self.flush(cx);
            }
            Incoming::Unsubscribed { id } => self.unsubscribed(id, cx),
            Incoming::Published { id, published } => {
                if let Some(id) = id {
                    self.settle(id, Ok(published));
                }
            }
            Incoming::Lagged { messages } => self.events.push(Event::Lagged { messages }),
            Incoming::Error { id: None, fault } => self.events.push(Event::Error(Error::Server(fault))),
            Incoming::Error { id: Some(id), fault } => self.failed(id, fault, cx),
            Incoming::Other => {}
        }
    }

    fn greeted(&mut self, hello: Hello, cx: &mut Context<'_>) {
        // Only the first on a connection says anything.
        if self.hello.is_some() {
            return;
        }
        self.greeting = None;
        self.hello = Some(hello.clone());
        self.events.push(Event::Open(hello));
        // In the order in which they were made, so that those over the server's limit are the last ones.
        let mut topics: Vec<_> = self.subs.iter().map(|(t, sub)| (sub.number, t.clone())).collect();
        topics.sort_unstable();
        for (_, topic) in topics {
            self.ask_for(&topic, cx);
        }
        self.flush(cx);
    }

    /// Takes a publication's answer, or its end.
    fn settle(&mut self, id: u64, result: Result<Published, PublishError>) {
        if !matches!(self.asked.get(&id), Some(Asked { what: What::Publish { .. }, .. })) {
            return;
        }
        let Some(Asked { what: What::Publish { done, .. }, text, .. }) = self.asked.remove(&id) else {
            return;
        };
        self.pending -= 1;
        self.pending_bytes -= text.len();
        self.settled.push((done, result));
    }

    fn subscribed(
        &mut self,
        id: Option<u64>,
        position: Option<Position>,
        recovered: bool,
        replayed: u64,
        cx: &mut Context<'_>,
    ) {
        let Some(id) = id else { return };
        if !matches!(self.asked.get(&id), Some(Asked { what: What::Subscribe { .. }, .. })) {
            return;
        }
        let Some(Asked { what: What::Subscribe { topic, sub: number, since }, .. }) = self.asked.remove(&id)
        else {
            return;
        };
        let Some(sub) = self.subs.get_mut(&topic).filter(|sub| sub.number == number) else { return };
        if since && !recovered && sub.start != Start::Live {
            // What was missed is gone; what everything stands at now may not be.
            sub.place = None;
            return self.leave(&topic, cx);
        }
        let how = sub.begin(topic, position, recovered, replayed);
        self.events.push(Event::Subscribed(how));
    }

    fn unsubscribed(&mut self, id: Option<u64>, cx: &mut Context<'_>) {
        let Some(id) = id else { return };
        if let Some(Asked { what: What::Unsubscribe { .. }, .. }) = self.asked.get(&id)
            && let Some(Asked { what: What::Unsubscribe { topic }, .. }) = self.asked.remove(&id)
        {
            self.ask_for(&topic, cx);
            self.flush(cx);
        }
    }

    fn failed(&mut self, id: u64, fault: Fault, cx: &mut Context<'_>) {
        let Some(one) = self.asked.get_mut(&id) else { return };
        if let Some(retry) = fault.retry {
            one.retry = Some(cx.now + retry.min(MAX_RETRY));
            return;
        }
        self.refused(id, fault);
        if let Some(Asked { what: What::Unsubscribe { .. }, .. }) = self.asked.get(&id) {
            // It does not listen: that is what was wanted.
            self.unsubscribed(Some(id), cx);
        }
        self.flush(cx);
    }

    /// A request will not be sent again; an `unsubscribe` is left to the caller.
    fn refused(&mut self, id: u64, fault: Fault) {
        match self.asked.get(&id).map(|one| &one.what) {
            Some(What::Publish { .. }) => self.settle(id, Err(PublishError::Refused(fault))),
            Some(What::Subscribe { topic, sub, .. }) => {
                let topic = topic.clone();
                let wanted = self.subs.get(&topic).is_some_and(|s| s.number == *sub);
                self.asked.remove(&id);
                if wanted {
                    self.subs.remove(&topic);
                    self.events.push(Event::Refused { topic, fault });
                }
            }
            Some(What::Unsubscribe { .. }) | None => {}
        }
    }

    fn deliver(&mut self, topic: String, offset: u64, data: Data) {
        let named = self.subs.get_mut(&topic).filter(|sub| sub.live);
        let (wanted, epoch, replayed) = match named {
            Some(sub) => sub.take(offset),
            None => {
                let mut patterns = crate::hub::topic::patterns_of(&topic);
                (patterns.any(|p| self.subs.get(&p).is_some_and(|sub| sub.live)), None, false)
            }
        };
        if wanted {
            self.events.push(Event::Message(Message { topic, offset, epoch, replayed, data }));
        }
    }
}

/// What the server is to be asked for. The name has been checked, and no topic is named as a pattern is.
fn target(name: &str) -> Target<'_> {
    if is_pattern(name) { Target::Pattern(name) } else { Target::Topic(name) }
}

impl Sub {
    fn begin(
        &mut self,
        topic: String,
        position: Option<Position>,
        recovered: bool,
        replayed: u64,
    ) -> Subscribed {
        let same = match (&self.place, &position) {
            (Some(old), Some(new)) => old.epoch == new.epoch,
            (old, new) => old.is_none() && new.is_none(),
        };
        if let Some(position) = position.as_ref().filter(|_| !self.is_pattern) {
            let seen = self.place.as_ref().filter(|_| same).map_or(0, |old| old.offset.min(position.offset));
            let offset = if replayed > 0 { seen } else { position.offset };
            self.place = Some(Position { epoch: position.epoch.clone(), offset });
            self.until = position.offset;
        }
        self.live = true;
        self.replay = replayed;
        // The newest of each key is whole by itself, as long as the topic has not begun another life.
        let whole = recovered || same && self.start == Start::Latest && !self.resumes;
        let lost = self.begun && !whole;
        self.begun = true;
        Subscribed { topic, position, recovered, replayed, lost }
    }

    /// Whether a message of the topic's is new, its epoch, and whether it is from the history.
    fn take(&mut self, offset: u64) -> (bool, Option<Arc<str>>, bool) {
        let Some(place) = &mut self.place else { return (true, None, false) };
        let replayed = self.replay > 0 && offset <= self.until;
        if replayed {
            self.replay -= 1;
        }
        let seen = place.offset;
        let now_at = if replayed && self.replay == 0 { self.until } else { offset };
        place.offset = seen.max(now_at);
        (offset > seen, Some(place.epoch.clone()), replayed)
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
