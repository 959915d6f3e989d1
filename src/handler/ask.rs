//! What a handle asks without waiting: the answer comes by a callback. For handlers and endpoints, which must not wait,
//! and for event loops of other kinds.

use super::{Command, ConnInfo, Handle, HandleError};
use crate::conn::{ConnId, MAX_SLOTS};
use crate::hub::{
    HistoryPage, Outcome, Publication, Publish, Published, Reply, Start, TopicList, Unanswered, check_topic,
};
use core::fmt;
use core::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

impl From<Unanswered> for HandleError {
    fn from(why: Unanswered) -> Self {
        match why {
            Unanswered::Full => Self::Full,
            Unanswered::Ended => Self::Ended,
        }
    }
}

fn reply<T>(then: impl FnOnce(Result<T, HandleError>) + Send + 'static) -> Reply<T> {
    Reply::new(move |answer| then(answer.map_err(HandleError::from)))
}

/// The callbacks are called exactly once: on the thread of the worker that answers, where they must not block, or at
/// once on the calling one where nothing could be asked. A panic in one ends nothing. An answer has no deadline: a worker
/// that is stuck in a handler answers when it is not any more.
impl Handle {
    /// Publishes as [`Handle::publish_with`] does and calls `then` with what became of it.
    pub fn publish_then(
        &self,
        publish: Publish<'_>,
        then: impl FnOnce(Result<Option<Published>, HandleError>) + Send + 'static,
    ) {
        match self.publication(publish) {
            Ok(publication) => self.send_then(publication, then),
            Err(e) => then(Err(e)),
        }
    }

    /// The same for one that has been checked.
    pub(crate) fn send_then(
        &self,
        mut publication: Publication,
        then: impl FnOnce(Result<Option<Published>, HandleError>) + Send + 'static,
    ) {
        publication.answer =
            Some(reply(move |outcome| then(outcome.and_then(|o: Outcome| o.map_err(HandleError::from)))));
        let home = self.shared.owners.of(&publication.topic);
        self.ask(home, Command::PublishOne(publication));
    }

    /// Asks for what a subscription that begins at `start` would be given of what the topic keeps, or for the first
    /// `limit` of it. `None`: there is no such topic.
    ///
    /// ```
    /// # use campanile::{Handle, Position, Start};
    /// # fn example(handle: &Handle, seen: Position) {
    /// handle.history_then("orders/42", Start::After(seen), 100, |page| {
    ///     for kept in page.ok().flatten().iter().flat_map(|page| &page.messages) {
    ///         println!("{}: {:?}", kept.offset(), kept.message());
    ///     }
    /// });
    /// # }
    /// ```
    pub fn history_then(
        &self,
        topic: &str,
        start: Start,
        limit: usize,
        then: impl FnOnce(Result<Option<HistoryPage>, HandleError>) + Send + 'static,
    ) {
        if let Err(e) = check_topic(topic) {
            return then(Err(HandleError::Topic(e)));
        }
        let home = self.shared.owners.of(topic);
        self.ask(home, Command::History(topic.into(), start, limit, reply(then)));
    }

    /// Asks for up to `limit` of the topics whose names begin with `prefix`, patterns left out. A worker looks at no more
    /// than 65,536 for one question; [`TopicList::more`] says when that was not all.
    pub fn topics_then(
        &self,
        prefix: &str,
        limit: usize,
        then: impl FnOnce(Result<TopicList, HandleError>) + Send + 'static,
    ) {
        let workers = self.shared.workers.len();
        let gathered = Gathered { left: workers, found: Ok(TopicList::default()), then: Some(then) };
        let gathered = Arc::new(Mutex::new(gathered));
        for worker in 0..workers {
            let gathered = gathered.clone();
            let part = reply(move |list: Result<TopicList, HandleError>| {
                let mut all = gathered.lock().unwrap_or_else(PoisonError::into_inner);
                let found = core::mem::replace(&mut all.found, Err(HandleError::Ended));
                let found = match (found, list) {
                    (Ok(mut found), Ok(list)) => {
                        found.merge(list, limit);
                        Ok(found)
                    }
                    (Err(e), _) | (_, Err(e)) => Err(e),
                };
                all.left -= 1;
                if all.left > 0 {
                    all.found = found;
                    return;
                }
                let then = all.then.take();
                drop(all);
                if let Some(then) = then {
                    then(found);
                }
            });
            self.ask(worker, Command::Topics(prefix.into(), limit, part));
        }
    }

    /// Asks what there is to tell of one connection; `None` when it has gone. What this thread asked of the connection
    /// before is done before.
    pub fn connection_then(
        &self,
        id: ConnId,
        then: impl FnOnce(Result<Option<ConnInfo>, HandleError>) + Send + 'static,
    ) {
        self.ask(id.worker(), Command::Info(id, reply(then)));
    }

    fn ask(&self, worker: usize, command: Command) {
        let Some(worker) = self.shared.workers.get(worker) else {
            return command.fail(Unanswered::Ended);
        };
        if let Err(refused) = worker.mailbox.send(command) {
            let (command, why) = refused.into_parts();
            command.fail(why);
        }
    }
}

/// What the workers have answered so far.
struct Gathered<F> {
    left: usize,
    found: Result<TopicList, HandleError>,
    then: Option<F>,
}

/// A text that names no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidConnId;

impl fmt::Display for InvalidConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a connection's name is three numbers with dots between, such as 0.12.7")
    }
}

impl std::error::Error for InvalidConnId {}

impl FromStr for ConnId {
    type Err = InvalidConnId;

    /// Reads a name as `Display` writes it.
    fn from_str(text: &str) -> Result<Self, InvalidConnId> {
        let mut parts = text.split('.').map(|part| {
            let plain = part.bytes().all(|b| b.is_ascii_digit());
            part.parse::<u32>().ok().filter(|_| plain)
        });
        let mut next = || parts.next().flatten().ok_or(InvalidConnId);
        let (worker, slot, generation) = (next()? as usize, next()? as usize, next()?);
        let holds = worker < 256 && slot < MAX_SLOTS && generation != 0 && parts.next().is_none();
        if holds { Ok(Self::new(worker, slot, generation)) } else { Err(InvalidConnId) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connections_name_is_read_as_it_is_written() {
        let id = ConnId::new(3, 70_000, u32::MAX);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "1", "1.2", "1.2.0", "256.0.1", "0.16777216.1", "0.0.1.2", "0.+1.1", "a.b.c", "0..1"]
        {
            assert_eq!(bad.parse::<ConnId>(), Err(InvalidConnId), "{bad:?}");
        }
    }
}
