//! Publish and subscribe on one worker: the [`Index`] of who listens, the [`Log`] of what this turn published, what the
//! [`Home`] of a topic knows and keeps, and the [`mailbox`] by which other threads take part.
//!
//! With several workers each topic has a home, the worker that its name hashes to. What is published goes to the home
//! first, which gives it its offset, joins it with its neighbours, keeps it if the topic has a history, and passes the run
//! on to the workers that have subscribers. Since one thread decides the order and channels keep it, every subscriber of
//! the node sees the messages of a topic in one and the same order.
//!
//! ```text
//!   any thread ─ publish ─▶ home ─┬─ offset, history ─▶ its own subscribers
//!                                 └─ run ─▶ other workers with subscribers ─▶ theirs
//!   a connection that comes back: its worker ─ join(epoch, offset) ─▶ home ─ joined(replay) ─▶ its worker
//! ```
//! A join is answered in the stream of the runs: what comes before the answer is in the replay, what comes behind it is
//! live. So nothing is missing and nothing comes twice.

mod accounts;
mod away;
mod backlog;
mod congestion;
pub(crate) mod envelope;
mod epochs;
#[cfg(test)]
mod eviction_tests;
#[cfg(test)]
mod flow_tests;
mod history;
mod home;
mod index;
mod joining;
mod keeping;
pub(crate) mod link;
mod log;
mod look;
pub(crate) mod mailbox;
mod owners;
mod publication;
pub(crate) mod rate;
mod reply;
mod settings;
mod shares;
mod tags;
#[cfg(test)]
mod tests;
pub(crate) mod topic;

pub(crate) use accounts::{Accounts, Evicted};
use away::Away;
pub(crate) use away::Outgoing;
use backlog::Backlog;
pub(crate) use backlog::{Missed, Step};
pub(crate) use congestion::Congestion;
pub(crate) use envelope::Envelopes;
pub use envelope::{Delivered, Envelope};
pub(crate) use epochs::Epochs;
pub(crate) use history::{Entry, Millis};
pub(crate) use home::Home;
pub use index::SubscribeError;
pub(crate) use index::{Index, TopicKey};
use joining::Joining;
pub(crate) use joining::{Join, Joined, Target, Unsubscribed};
pub use joining::{Start, Subscribe, Subscribed};
pub(crate) use log::{Log, Mark, Origin, Reader, Run};
pub use look::{HistoryMessage, HistoryPage, TopicInfo, TopicList};
pub(crate) use owners::Owners;
pub(crate) use publication::{Delivery, Publication, Refusal, Told};
pub use publication::{Publish, Published};
pub(crate) use reply::{Pending, Reply, Unanswered, gather, one_shot};
pub use settings::TopicSettings;
pub(crate) use settings::{KEPT_MOST, SettingsTable, reserved};
pub(crate) use tags::Tags;
#[cfg(any(feature = "push", feature = "api"))]
pub(crate) use tags::{MAX_TAG, MAX_TAGS};
pub(crate) use topic::Name;
pub use topic::{InvalidPattern, InvalidTopic, MAX_TOPIC, check as check_topic, check_pattern};

use crate::conn::ConnId;
use core::fmt;
use std::collections::HashMap;
use std::sync::Arc;

/// A place in a topic's messages: behind the one with this offset. Offsets count from 1 in each life of a topic, which
/// the epoch names: after a restart of the server, or after a topic has been gone, it is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Position {
    /// The topic's life. Below 2^53, so that a JSON number in a browser holds it.
    pub epoch: u64,
    /// The last message seen; 0: none yet.
    pub offset: u64,
}

impl Position {
    /// A position that was noted earlier.
    #[must_use]
    pub const fn new(epoch: u64, offset: u64) -> Self {
        Self { epoch, offset }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}:{}", self.epoch, self.offset)
    }
}

/// What became of a subscription that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    /// It was there.
    Already,
    /// It is new.
    New,
    /// It is the first here of a topic that has its home elsewhere.
    First,
}

/// One worker's part of the hub.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) index: Index,
    pub(crate) log: Log,
    pub(crate) settings: SettingsTable,
    /// Milliseconds since the worker began, as of this turn.
    pub(crate) now: Millis,
    /// For each worker, what was published here to topics that it owns and waits for room in its mailbox.
    away: Vec<Away>,
    /// For each worker, what its subscribers get and waits for room in its mailbox.
    backlogs: Vec<Backlog>,
    /// Bytes that may wait for one worker.
    most_waiting: usize,
    congestion: Arc<Congestion>,
    /// A topic owned here is no longer congested: publishers that wait for it may go on, on all workers.
    pub(crate) released: bool,
    /// Publishers of this worker that wait may go on.
    may_go_on: bool,
    /// An owner's mailbox is so full that publishers of this worker wait for it.
    awaits_room: bool,
    /// Estimated bytes that what came by the mailbox takes to deliver here, in all.
    work: u64,
    /// The largest part of it that one run's first message took in this iteration.
    largest: u64,
    /// Messages lost on their way to other workers, and publications that found no room, since last asked.
    pub(crate) lost: u64,
    /// For each worker, how the subscribers here of topics with their home there have changed.
    changes: Vec<Vec<(Arc<str>, i32)>>,
    /// Patterns that connections of other workers listen to, by worker.
    patterns: HashMap<Arc<str>, Vec<(usize, u32)>>,
    joining: Joining,
    /// Joins of this turn, to be asked for at its end.
    pub(crate) joins: Vec<Join>,
    worker: usize,
    owners: Owners,
    epochs: Epochs,
    /// What topics with their home here hold; a walk over all looks for what is too old.
    pub(crate) accounts: Accounts,
    walk: usize,
    /// Publications refused since it was last asked.
    pub(crate) refused: u64,
}

impl Hub {
    /// `owners` is the same for all workers, `epochs` another one for each and for each start of the server.
    pub(crate) fn new(worker: usize, owners: Owners, settings: SettingsTable, epochs: Epochs) -> Self {
        let workers = owners.workers();
        Self {
            index: Index::default(),
            log: Log::default(),
            accounts: Accounts::new(&settings, workers),
            settings,
            now: 0,
            away: (0..workers).map(|_| Away::default()).collect(),
            backlogs: (0..workers).map(|_| Backlog::default()).collect(),
            most_waiting: usize::MAX,
            congestion: Arc::default(),
            released: false,
            may_go_on: false,
            awaits_room: false,
            work: 0,
            largest: 0,
            lost: 0,
            changes: (0..workers).map(|_| Vec::new()).collect(),
            patterns: HashMap::new(),
            joining: Joining::default(),
            joins: Vec::new(),
            worker,
            owners,
            epochs,
            refused: 0,
            walk: 0,
        }
    }

    pub(crate) fn is_alone(&self) -> bool {
        self.away.len() == 1
    }

    pub(crate) fn is_home(&self, topic: &str) -> bool {
        self.is_alone() || self.owners.of(topic) == self.worker
    }

    // ---- publishing ----

    /// Publishes from a connection of this worker's. A name that can't be a topic's reaches nobody: nobody could
    /// subscribe to it.
    pub(crate) fn publish(&mut self, publish: Publish<'_>) {
        let topic = publish.topic;
        if !self.is_home(topic) {
            if topic::check(topic).is_ok() {
                self.pass_on(Publication::new(publish));
            }
            return;
        }
        if publish.id.is_some() || publish.ttl > 0 || !publish.tags.is_empty() {
            self.publish_here(Publication::new(publish));
            return;
        }
        let Some(key) = self.wanted(topic) else { return };
        if let Ok(origin) = self.origin(key, publish.message.len(), publish.publisher) {
            self.log.publish(key, publish.message, publish.except, origin);
        }
    }

    /// Takes a publication that has its home here. Gives who is to be told, and what.
    pub(crate) fn publish_here(&mut self, publication: Publication) -> Option<Told> {
        let Publication {
            topic,
            frames,
            len,
            key: message_key,
            except,
            publisher,
            id,
            ttl,
            json,
            tags,
            answer,
        } = publication;
        let Some(key) = self.wanted(&topic) else {
            return answer.map(|answer| (answer, Ok(None)));
        };
        let now = self.now;
        let repeated = id.as_deref().and_then(|id| self.home(key).repeated(id, now));
        let offset = match repeated {
            Some(offset) => offset,
            None => match self.origin(key, len, publisher) {
                Ok(origin) => {
                    let mark = Mark { end: 0, except, ttl, json, tags };
                    let runs = self.log.len();
                    self.log.publish_frames(key, frames, message_key, mark, origin);
                    self.count_work(key, len, self.log.len() > runs);
                    if let Some(id) = &id {
                        let offset = origin.position.offset;
                        self.grow(key, |home| home.remember(id, offset, now));
                    }
                    origin.position.offset
                }
                Err(refused) => return answer.map(|answer| (answer, Err(refused))),
            },
        };
        let answer = answer?;
        let position = Position { epoch: self.home(key).epoch, offset };
        let receivers = self.receivers(key);
        Some((answer, Ok(Some(Published { position, receivers, repeated: repeated.is_some() }))))
    }

    /// The topic, if anybody listens to it on any worker, or its messages are kept. To be called at its home.
    fn wanted(&mut self, name: &str) -> Option<TopicKey> {
        if let Some(key) = self.index.find(name) {
            return (!topic::is_pattern(name)).then_some(key);
        }
        let heard = || {
            let elsewhere = |pattern: String| self.patterns.contains_key(&*pattern);
            !self.index.patterns_of(name).is_empty()
                || !self.patterns.is_empty() && topic::patterns_of(name).any(elsewhere)
        };
        let wanted = topic::check(name).is_ok() && (self.settings.of(name).keeps() || heard());
        wanted.then(|| self.index.find_or_add(name))
    }

    fn home(&mut self, key: TopicKey) -> &mut Home {
        let Self { index, settings, epochs, accounts, now, .. } = self;
        index.home_or_insert(key, |name| {
            let (prefix, settings) = settings.find(name);
            let mut home = Home::new(epochs.next(), settings.clone(), prefix);
            home.linger(*now);
            accounts.enter(&mut home, key);
            home
        })
    }

    /// Has a topic hold more; where that is too much, others give something back.
    fn grow(&mut self, key: TopicKey, change: impl FnOnce(&mut Home)) {
        let Self { index, accounts, now, .. } = self;
        let prefix = accounts.change(index, key, |home| {
            change(home);
            home.prefix
        });
        if let Some(prefix) = prefix {
            accounts.make_room(index, *now, prefix, Some(key));
        }
    }

    /// Gives the next message of a topic its offset, and keeps the topic while the log names it.
    fn origin(&mut self, key: TopicKey, len: usize, publisher: Option<ConnId>) -> Result<Origin, Refusal> {
        let now = self.now;
        let home = self.home(key);
        let (origin, is_limited) = (home.take_place(len, publisher, now), home.settings.rate.is_some());
        if is_limited {
            self.grow(key, Home::remember_rate);
        }
        match origin {
            Ok(_) => self.index.hold(key),
            Err(_) => {
                self.refused += 1;
                // It may have been made for this. One that the log names already stays: a run of a topic that is gone
                // would find none, or another in its place.
                self.index.settle(key);
            }
        }
        origin
    }

    /// Connections that hear a topic, as far as its home knows.
    fn receivers(&mut self, key: TopicKey) -> usize {
        let name = self.index.name(key).clone();
        let here: usize =
            self.index.patterns_of(&name).iter().map(|p| self.index.subscribers(*p).len()).sum();
        let elsewhere: usize = match self.patterns.is_empty() {
            true => 0,
            false => topic::patterns_of(&name)
                .filter_map(|pattern| self.patterns.get(&*pattern))
                .flat_map(|workers| workers.iter().map(|(_, count)| *count as usize))
                .sum(),
        };
        let exactly = self.index.subscribers(key).len() + self.home(key).elsewhere();
        exactly + here + elsewhere
    }

    /// Takes a run from its home.
    pub(crate) fn deliver(&mut self, delivery: &Delivery) {
        let Delivery { topic, frames, marks, key: message_key, position, envelopes } = delivery;
        let key = match self.index.find(topic) {
            Some(key) => key,
            None if self.index.patterns_of(topic).is_empty() => return,
            None => self.index.find_or_add(topic),
        };
        self.index.hold(key);
        let origin = Origin { position: *position, policy: self.settings.of(topic).slow_consumer };
        let envelopes = Some(envelopes.clone());
        self.log.adopt(key, frames.clone(), marks.to_vec(), *message_key, envelopes, origin);
        self.count_work(key, frames.len(), true);
    }

    // ---- subscribing ----

    /// Says whether the subscription is new. The first one of a topic here is to be [told](Hub::take_changes) at once:
    /// its home has to know before anything is published by whoever learns of the subscription.
    pub(crate) fn subscribe(
        &mut self,
        slot: u32,
        to: &Name<'_>,
        tags: Option<Tags>,
        limit: usize,
    ) -> Result<Added, SubscribeError> {
        if !self.index.subscribe(slot, to.as_str(), tags, limit)? {
            return Ok(Added::Already);
        }
        let name = self.name_of(to.as_str());
        self.change(&name, 1);
        let first = self.index.find(&name).is_some_and(|key| self.index.subscribers(key).len() == 1);
        let elsewhere = to.is_pattern() || !self.is_home(&name);
        Ok(if first && elsewhere && !self.is_alone() { Added::First } else { Added::New })
    }

    /// What other workers are to be told of subscribers here.
    pub(crate) fn take_changes(&mut self) -> impl Iterator<Item = (usize, Vec<(Arc<str>, i32)>)> {
        let changed = self.changes.iter_mut().enumerate().filter(|(_, changed)| !changed.is_empty());
        changed.map(|(worker, changed)| (worker, core::mem::take(changed)))
    }

    fn name_of(&self, topic: &str) -> Arc<str> {
        self.index.find(topic).map_or_else(|| topic.into(), |key| self.index.name(key).clone())
    }

    /// Ends a subscription, and calls off one that was asked for.
    pub(crate) fn unsubscribe(&mut self, conn: ConnId, from: &Name<'_>) -> Unsubscribed {
        let topic = from.as_str();
        let name = self.name_of(topic);
        let cancelled = self.joining.call_off(conn, &name);
        let ended = self.index.unsubscribe(conn.slot() as u32, topic);
        if ended {
            self.change(&name, -1);
        }
        Unsubscribed { ended, cancelled }
    }

    /// A connection has ended.
    pub(crate) fn remove(&mut self, conn: ConnId) {
        let Self { index, changes, worker, owners, joining, joins, .. } = self;
        let alone = changes.len() == 1;
        index.remove(conn.slot() as u32, |name| {
            if !alone {
                note(changes, *worker, owners, name, -1);
            }
        });
        if joining.remove(conn) {
            joins.retain(|join| join.conn != conn);
        }
    }

    fn change(&mut self, name: &Arc<str>, change: i32) {
        if !self.is_alone() {
            note(&mut self.changes, self.worker, &self.owners, name, change);
        }
    }

    /// Other workers' subscribers have changed.
    pub(crate) fn changed(&mut self, from: usize, changes: Vec<(Arc<str>, i32)>) {
        for (name, change) in changes {
            if topic::is_pattern(&name) {
                self.pattern_changed(from, name, change);
                continue;
            }
            let key = match self.index.find(&name) {
                Some(key) => key,
                None if change < 0 => continue,
                None => self.index.find_or_add(&name),
            };
            self.home(key).interest(from, change);
            self.index.settle(key);
        }
    }

    fn pattern_changed(&mut self, from: usize, name: Arc<str>, change: i32) {
        let workers = self.patterns.entry(name.clone()).or_default();
        match workers.iter_mut().find(|(worker, _)| *worker == from) {
            Some((_, count)) => *count = count.saturating_add_signed(change),
            None => workers.push((from, change.max(0) as u32)),
        }
        workers.retain(|(_, count)| *count > 0);
        if workers.is_empty() {
            self.patterns.remove(&name);
        }
    }

    // ---- the end of a turn ----

    /// The turn is over.
    pub(crate) fn end_turn(&mut self) {
        let Self { index, log, .. } = self;
        log.clear(|topic| index.release(topic));
    }
}

/// Notes that a topic's subscribers have changed, for its home, or for all workers where it is a pattern.
fn note(changes: &mut [Vec<(Arc<str>, i32)>], me: usize, owners: &Owners, name: &Arc<str>, change: i32) {
    if topic::is_pattern(name) {
        for (_, changed) in changes.iter_mut().enumerate().filter(|(worker, _)| *worker != me) {
            changed.push((name.clone(), change));
        }
        return;
    }
    let home = owners.of(name);
    if home != me {
        changes[home].push((name.clone(), change));
    }
}
