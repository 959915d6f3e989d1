//! What topics keep for those who come back: what a turn published goes into the histories, and a walk over all topics
//! gives up what is too old.

use super::{Entry, Hub, history};

/// Topics looked at in one step of the walk.
const WALK: usize = 1024;

impl Hub {
    /// Keeps what this turn published to topics with a history.
    pub(crate) fn keep(&mut self) {
        let Self { index, log, now, kept, kept_most, gave_up, .. } = self;
        for run in log.runs_mut() {
            let (topic, key, first) = (run.topic, run.key, run.position.offset);
            let Some(home) = index.home(topic).filter(|home| run.begins_here && home.settings.keeps()) else {
                continue;
            };
            *kept -= home.cost();
            home.history.expire(*now);
            let age = home.settings.age();
            let (skip, mut start) = history::room(run.marks(), &home.settings);
            if skip > 0 {
                home.history.clear(); // what came before the messages that find no room goes before them
            }
            // What is kept holds its whole run: of one that is mostly given up at once, it is copied.
            let all = run.bytes().len();
            let (frames, base) =
                if start > all / 2 { (run.copy_from(start), start) } else { (run.bare(), 0) };
            for (offset, mark) in (first..).zip(run.marks()).skip(skip) {
                let ttl = if mark.ttl == 0 { age } else { age.min(mark.ttl.into()) };
                let (range, until, gone) = (start - base..mark.end - base, *now + ttl, *now + age);
                let (json, tags, frames) = (mark.json, mark.tags.clone(), frames.clone());
                let entry = Entry { offset, frames, range, key, json, tags, until, gone };
                home.history.push(entry, &home.settings);
                start = mark.end;
            }
            // All of it, since a history has no gaps: whoever comes back is told that something is missing.
            if *kept + home.cost() > *kept_most {
                home.give_up();
                *gave_up += 1;
            }
            *kept += home.cost();
        }
    }

    /// Whether anything is kept that will be too old some day.
    pub(crate) fn keeps(&self) -> bool {
        self.kept > 0
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
            if let Some(home) = self.index.home(key) {
                let before = home.cost();
                home.age(now, in_use);
                self.kept -= before - home.cost();
                self.index.settle(key);
            }
        }
    }
}
