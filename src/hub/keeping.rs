//! What topics keep for those who come back: what a turn published goes into the histories, and a walk over all topics
//! gives up what is too old. What they may hold stands in [`Accounts`](super::accounts::Accounts).

use super::backlog::Backlog;
use super::{Entry, Home, Hub, Millis, Run, history};
use crate::memory::Shrink;

/// Topics looked at in one step of the walk.
const WALK: usize = 1024;

impl Hub {
    /// Keeps what this turn published to topics with a history.
    pub(crate) fn keep(&mut self) {
        let Self { index, log, now, accounts, .. } = self;
        accounts.settle(index, *now);
        for run in log.runs_mut() {
            let key = run.topic;
            let Some(home) = index.home(key).filter(|home| run.begins_here && home.settings.keeps()) else {
                continue;
            };
            let prefix = home.prefix;
            accounts.change(index, key, |home| keep_run(home, run, *now));
            accounts.make_room(index, *now, prefix, None);
        }
    }

    /// Whether anything is kept that will be too old some day.
    pub(crate) fn keeps(&self) -> bool {
        self.accounts.held() > 0
    }

    /// Gives up what is too old in some topics, and goes on with others the next time.
    pub(crate) fn age(&mut self) {
        for _ in 0..WALK {
            let Some(key) = self.index.next_from(self.walk) else {
                self.walk = 0;
                return;
            };
            self.walk = key as usize + 1;
            let now = self.now;
            let in_use = !self.index.subscribers(key).is_empty();
            let Self { index, accounts, .. } = self;
            if accounts.change(index, key, |home| home.age(now, in_use)).is_some() {
                index.settle(key);
            }
        }
    }
}

impl Hub {
    /// Bytes of memory in use, about: what is kept and who subscribes to what.
    pub(crate) fn footprint(&self) -> usize {
        let waiting: usize = self.backlogs.iter().map(Backlog::bytes).sum();
        self.accounts.held() + self.index.footprint() + self.log.spare_bytes() + waiting
    }

    /// Gives back half of the buffers that are kept for later. The log is empty.
    pub(crate) fn trim(&mut self) {
        self.log.trim();
        self.joins.shrink();
    }
}

/// Gives back what its tables have beyond what is in them.
impl Shrink for Hub {
    fn shrink(&mut self) {
        self.index.shrink();
        self.patterns.shrink();
        self.joining.shrink();
    }
}

/// Puts a run into its topic's history.
fn keep_run(home: &mut Home, run: &mut Run, now: Millis) {
    let (key, first, age) = (run.key, run.position.offset, home.settings.age());
    home.history.expire(now);
    let (skip, mut start) = history::room(run.marks(), &home.settings);
    if skip > 0 {
        home.history.clear(); // what came before the messages that find no room goes before them
    }
    // What is kept holds its whole run: of one that is mostly given up at once, it is copied.
    let all = run.bytes().len();
    let (frames, base) = if start > all / 2 { (run.copy_from(start), start) } else { (run.bare(), 0) };
    for (offset, mark) in (first..).zip(run.marks()).skip(skip) {
        let ttl = if mark.ttl == 0 { age } else { age.min(mark.ttl.into()) };
        let (range, until, gone) = (start - base..mark.end - base, now + ttl, now + age);
        let (json, tags, frames) = (mark.json, mark.tags.clone(), frames.clone());
        let entry = Entry { offset, frames, range, key, json, tags, until, gone };
        home.history.push(entry, &home.settings);
        start = mark.end;
    }
}
