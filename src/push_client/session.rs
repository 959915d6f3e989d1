//! What a client of topics knows: what it listens to and where it is there, and what it asked for without an answer. No
//! socket, no thread; the time comes in.
//!
//! A subscription and a publication outlive their connection. On the next one, all subscriptions are asked for again,
//! each with the place to go on from; then, when these have begun, the publications that had no answer go out again
//! (`outgoing.rs`), which their names (`idempotency_key`) make safe.

use super::event::{Data, Event, Hello, Message, Subscribed};
use super::fault::{Error, Fault, PublishError, SubscribeError};
use super::outgoing::{Done, New, Outgoing, again};
use super::publication::{Publication, Start, Subscription};
use super::wire::{self, Begin, Incoming};
use super::{Limits, Position, Published};
use crate::hub::topic::is_pattern;
use crate::hub::{MAX_TAG, MAX_TAGS, SubscribeTarget, check_pattern, check_topic};
use core::time::Duration;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

/// After how long what the socket did not take is tried again.
const FULL: Duration = Duration::from_millis(100);

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
    /// Subscriptions that were asked for or ended, without an answer, in the order in which they were made.
    asked: BTreeMap<u64, Asked>,
    pub(super) outgoing: Outgoing,
    /// The socket took nothing; when to try again.
    stalled: Option<Instant>,
    subs: HashMap<String, Sub>,
    /// What happened, to be taken by the caller.
    pub(super) events: Vec<Event>,
    /// The connection is dead.
    pub(super) resets: bool,
    /// There will be no other, and nothing can be asked for.
    pub(super) is_over: bool,
}

struct Asked {
    text: String,
    what: What,
    /// When to send it again, where the server asked for that or the socket took nothing; `None`: it is on its way.
    retry: Option<Instant>,
    /// How often the server has put it off.
    times: u32,
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
            outgoing: Outgoing::default(),
            stalled: None,
            subs: HashMap::new(),
            events: Vec::new(),
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
        let (pending, bytes) = (self.outgoing.len(), self.outgoing.bytes());
        let Limits { max_pending, max_pending_bytes, .. } = self.limits;
        if pending >= max_pending || pending > 0 && bytes + text.len() > max_pending_bytes {
            return Err(PublishError::Full { pending, bytes });
        }
        self.ids = id;
        let limit = publication.timeout.min(FAR);
        let topic = publication.topic.to_owned();
        self.outgoing.push(id, New { text, topic, done, deadline: cx.now + limit, limit });
        self.flush_topic(publication.topic, cx);
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
        self.asked.clear();
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

    /// When to call [`Session::expire`] next. The server's silence means nothing while nobody reads.
    pub(super) fn deadline(&self, reads: bool) -> Option<Instant> {
        let requests = self.asked.values().map(|one| one.retry);
        let silence = if reads { [self.greeting, self.probe, self.asks_at()] } else { [None; 3] };
        requests.chain(silence).chain([self.stalled, self.outgoing.deadline()]).flatten().min()
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
        self.outgoing.expire(now);
        let is_due = |one: &Asked| one.retry.is_some_and(|at| at <= now);
        for id in self.asked.iter().filter(|(_, one)| is_due(one)).map(|(&id, _)| id).collect::<Vec<_>>() {
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
            return self.refused(id, Fault::too_big(len, limit), cx);
        }
        one.retry = None;
        if !(cx.wire)(&one.text) {
            self.stalled = Some(cx.now + FULL);
            one.retry = self.stalled;
        }
    }

    /// A publication waits until the subscriptions that were asked for before it have begun, and so is heard by them.
    fn takes_publications(&self) -> bool {
        let begins = |one: &Asked| matches!(one.what, What::Subscribe { .. });
        self.hello.is_some() && self.stalled.is_none() && !self.asked.values().any(begins)
    }

    /// Sends the publications that may go out.
    fn flush(&mut self, cx: &mut Context<'_>) {
        if self.takes_publications() {
            for id in self.outgoing.ready() {
                self.send_from(id, cx);
            }
        }
    }

    /// The same for one topic.
    fn flush_topic(&mut self, topic: &str, cx: &mut Context<'_>) {
        if let Some(id) = self.outgoing.after(topic).filter(|_| self.takes_publications()) {
            self.send_from(id, cx);
        }
    }

    /// Sends this publication and those to the same topic that may follow it.
    fn send_from(&mut self, id: u64, cx: &mut Context<'_>) {
        let Some(limit) = self.hello.as_ref().map(|hello| hello.max_message_size) else { return };
        let Some(topic) = self.outgoing.topic(id) else { return };
        let mut next = Some(id);
        while let Some(id) = next.filter(|_| self.stalled.is_none())
            && let Some(text) = self.outgoing.text(id)
        {
            if text.len() > limit {
                let fault = Fault::too_big(text.len(), limit);
                self.outgoing.settle(id, Err(PublishError::Refused(fault)));
            } else if (cx.wire)(text) {
                self.outgoing.sent(id);
            } else {
                self.stalled = Some(cx.now + FULL);
            }
            next = self.outgoing.after(&topic);
        }
    }

    fn is_leaving(&self, topic: &str) -> bool {
        let leaves = |one: &Asked| matches!(&one.what, What::Unsubscribe { topic: left } if left == topic);
        self.asked.values().any(leaves)
    }

    fn ask(&mut self, what: What, text: impl FnOnce(u64) -> String, cx: &mut Context<'_>) {
        self.ids += 1;
        let id = self.ids;
        self.asked.insert(id, Asked { text: text(id), what, retry: None, times: 0 });
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
        match incoming.unwrap_or_else(|why| {
            self.events.push(Event::Error(Error::Unreadable { why }));
            Incoming::Other
        }) {
            Incoming::Message { topic, offset, data } => self.deliver(topic, offset, data),
            Incoming::Messages { topic, messages } => {
                for (offset, data) in messages {
                    self.deliver(topic.clone(), offset, data);
                }
            }
            Incoming::Hello(hello) => self.greeted(hello, cx),
            Incoming::Subscribed { id: Some(id), position, recovered, replayed } => {
                self.subscribed(id, position, recovered, replayed, cx);
                self.flush(cx);
            }
            Incoming::Unsubscribed { id: Some(id) } => self.unsubscribed(id, cx),
            Incoming::Published { id: Some(id), published } => self.published(id, published, cx),
            Incoming::Lagged { messages } => self.events.push(Event::Lagged { messages }),
            Incoming::Error { id: None, fault } => self.events.push(Event::Error(Error::Server(fault))),
            Incoming::Error { id: Some(id), fault } => self.failed(id, fault, cx),
            Incoming::Subscribed { id: None, .. }
            | Incoming::Unsubscribed { id: None }
            | Incoming::Published { id: None, .. }
            | Incoming::Other => {}
        }
        // A server that never falls silent has to greet in time all the same.
        if self.greeting.is_some_and(|at| at <= cx.now) {
            self.check_silence(cx);
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

    fn published(&mut self, id: u64, published: Published, cx: &mut Context<'_>) {
        if self.outgoing.is_flying(id) {
            let topic = self.outgoing.topic(id);
            self.outgoing.published(id, published);
            self.flush_topic(topic.as_deref().unwrap_or_default(), cx);
        }
    }

    /// Whether this request is on its way, and so may have an answer.
    fn asks(&self, id: u64) -> Option<&What> {
        self.asked.get(&id).filter(|one| one.retry.is_none()).map(|one| &one.what)
    }

    fn subscribed(
        &mut self,
        id: u64,
        position: Option<Position>,
        recovered: bool,
        replayed: u64,
        cx: &mut Context<'_>,
    ) {
        let Some(What::Subscribe { topic, sub: number, since }) = self.asks(id) else { return };
        // A pattern has no place, and nothing else goes without one.
        let position = position.filter(|_| !is_pattern(topic));
        if position.is_none() && !is_pattern(topic) {
            let why = format!("subscribed to {topic:?} without a place in it");
            return self.events.push(Event::Error(Error::Unreadable { why }));
        }
        let (topic, number, since) = (topic.clone(), *number, *since);
        self.asked.remove(&id);
        let Some(sub) = self.subs.get_mut(&topic).filter(|sub| sub.number == number) else { return };
        if since && !recovered && sub.start != Start::Live {
            // What was missed is gone; what everything stands at now may not be.
            sub.place = None;
            return self.leave(&topic, cx);
        }
        let how = sub.begin(topic, position, recovered, replayed);
        self.events.push(Event::Subscribed(how));
    }

    fn unsubscribed(&mut self, id: u64, cx: &mut Context<'_>) {
        if let Some(What::Unsubscribe { topic }) = self.asks(id) {
            let topic = topic.clone();
            self.asked.remove(&id);
            self.ask_for(&topic, cx);
            self.flush(cx);
        }
    }

    fn failed(&mut self, id: u64, fault: Fault, cx: &mut Context<'_>) {
        if self.outgoing.is_flying(id) {
            match fault.retry {
                Some(retry) => self.outgoing.put_off(id, fault, retry, cx.now),
                None => self.outgoing.settle(id, Err(PublishError::Refused(fault))),
            }
        } else if self.asks(id).is_some()
            && let Some(one) = self.asked.get_mut(&id)
        {
            if let Some(retry) = fault.retry {
                one.retry = Some(cx.now + again(retry, one.times));
                one.times += 1;
            } else {
                self.refused(id, fault, cx);
            }
        }
        self.flush(cx);
    }

    /// A request will not be sent again.
    fn refused(&mut self, id: u64, fault: Fault, cx: &mut Context<'_>) {
        match self.asked.remove(&id).map(|one| one.what) {
            Some(What::Subscribe { topic, sub, .. })
                if self.subs.get(&topic).is_some_and(|s| s.number == sub) =>
            {
                self.subs.remove(&topic);
                self.events.push(Event::Refused { topic, fault });
            }
            // It does not listen: that is what was wanted.
            Some(What::Unsubscribe { topic }) => self.ask_for(&topic, cx),
            Some(What::Subscribe { .. }) | None => {}
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
            self.events.push(Event::Message(Message { topic, offset, epoch, replayed, data }));
        }
    }
}

/// What the server is to be asked for. The name has been checked, and no topic is named as a pattern is.
fn target(name: &str) -> SubscribeTarget<'_> {
    if is_pattern(name) { SubscribeTarget::Pattern(name) } else { SubscribeTarget::Topic(name) }
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
