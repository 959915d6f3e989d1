//! Queries: what the workers know, asked from any thread.

use super::{Answer, Command, Handle, HandleError};
use crate::conn::{ConnId, ReadyState};
use crate::http::Peer;
use crate::hub::{HistoryPage, NoReply, ReplySender, Start, TopicList, check_topic};
use crate::sync::gather;

/// A connection's facts, as of the moment in which its worker answered.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnInfo {
    /// Its name.
    pub id: ConnId,
    /// Where it comes from.
    pub peer: Peer,
    /// Open or closing.
    pub ready_state: ReadyState,
    /// Bytes that wait for it.
    pub buffered_amount: usize,
    /// The subprotocol that was chosen.
    pub protocol: Option<String>,
    /// The pattern of its route.
    pub route: String,
    /// The parameters of its route, by name.
    pub params: Vec<(String, String)>,
    /// The topics that it subscribed to by their names, in no order.
    pub topics: Vec<String>,
    /// The patterns that it subscribed to, in no order.
    pub patterns: Vec<String>,
}

impl Handle {
    /// Counts the connections that subscribed to a topic by its name, on all workers.
    ///
    /// # Errors
    /// The answer is an error where the name can't be a topic's, a mailbox is full, or the server has ended.
    pub fn subscribers(&self, topic: &str) -> Answer<usize> {
        match check_topic(topic) {
            Ok(()) => {
                let count = |reply| Command::CountSubscribers(topic.into(), reply);
                self.query_all(0, |sum, count| *sum += count, count)
            }
            Err(e) => Answer::failed(HandleError::Topic(e)),
        }
    }

    /// Describes one connection; `None`: it has gone. Commands of this thread for the connection are executed before.
    ///
    /// # Errors
    /// The answer is an error where the mailbox is full or the server has ended.
    pub fn connection(&self, id: ConnId) -> Answer<Option<ConnInfo>> {
        Answer::new(|reply| self.send_query(id.worker(), Command::Info(id, reply)))
    }

    /// Lists the open connections of a route, given by its pattern, on all workers.
    ///
    /// # Errors
    /// The answer is an error where there is no such route, a mailbox is full, or the server has ended.
    pub fn connections(&self, route: &str) -> Answer<Vec<ConnInfo>> {
        match self.route(route) {
            Ok(route) => self.query_all(
                Vec::new(),
                |all, part| all.extend::<Vec<_>>(part),
                |reply| Command::List(route, reply),
            ),
            Err(e) => Answer::failed(e),
        }
    }

    /// Counts the open connections of a route, given by its pattern, on all workers.
    ///
    /// # Errors
    /// As [`Handle::connections`].
    pub fn open_on(&self, route: &str) -> Answer<usize> {
        match self.route(route) {
            Ok(route) => {
                self.query_all(0, |sum, count| *sum += count, |reply| Command::CountOpen(route, reply))
            }
            Err(e) => Answer::failed(e),
        }
    }

    /// Reads a topic's history: the messages with which a subscription from `start` would begin, at most the first `limit`
    /// of them. `None`: there is no such topic.
    ///
    /// ```
    /// # use campanile::{Handle, HandleError, Position, Start};
    /// # async fn example(handle: &Handle, seen: Position) -> Result<(), HandleError> {
    /// if let Some(page) = handle.history("orders/42", Start::Since(seen), 100).await? {
    ///     for kept in &page.messages {
    ///         println!("{}: {:?}", kept.offset(), kept.message());
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The answer is an error where the name can't be a topic's, the mailbox is full, or the server has ended.
    pub fn history(&self, topic: &str, start: Start, limit: usize) -> Answer<Option<HistoryPage>> {
        if let Err(e) = check_topic(topic) {
            return Answer::failed(HandleError::Topic(e));
        }
        let owner = self.shared.owners.of(topic);
        Answer::new(|reply| self.send_query(owner, Command::History(topic.into(), start, limit, reply)))
    }

    /// Lists up to `limit` topics whose names begin with `prefix`, without patterns. A worker looks at no more than 65,536
    /// topics for one query; [`TopicList::more`] says whether there may be others.
    ///
    /// # Errors
    /// The answer is an error where a mailbox is full or the server has ended.
    pub fn topics(&self, prefix: &str, limit: usize) -> Answer<TopicList> {
        let merge = move |all: &mut TopicList, list| all.merge(list, limit);
        self.query_all(TopicList::default(), merge, |reply| Command::Topics(prefix.into(), limit, reply))
    }

    /// Asks every worker, and answers when the last one has.
    fn query_all<T: Send + 'static, P: 'static>(
        &self,
        all: T,
        merge: impl Fn(&mut T, P) + Clone + Send + 'static,
        command: impl Fn(ReplySender<P>) -> Command,
    ) -> Answer<T> {
        Answer::new(|reply| {
            for (worker, part) in gather(self.shared.workers.len(), all, reply, merge).enumerate() {
                self.send_query(worker, command(part));
            }
        })
    }

    pub(super) fn send_query(&self, worker: usize, command: Command) {
        let Some(worker) = self.shared.workers.get(worker) else {
            return command.fail(NoReply::Ended);
        };
        if let Err(refused) = worker.mailbox.send(command) {
            let (command, why) = refused.into_parts();
            command.fail(why);
        }
    }
}
