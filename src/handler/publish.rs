//! Publishing from any thread.

use super::answer::check_may_block;
use super::{Answer, BatchError, Command, Handle, HandleError};
use crate::AsMessage;
use crate::hub::{Publish, PublishRequest, Published, ReplySender, check_topic};
use core::time::Duration;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Between two attempts to put something into a full mailbox: a worker empties one in about that time.
const MAILBOX_RETRY: Duration = Duration::from_micros(200);

impl Handle {
    /// Publishes a message to every subscriber of the topic. Messages of one thread to one topic keep their order, and all
    /// subscribers receive a topic's messages in the same order.
    ///
    /// # Errors
    /// The name can't be a topic's, the message is longer than the topic allows, the mailbox of the worker that owns the
    /// topic is full, or the server is being shut down. Nothing was published then. What is refused later, by the topic's
    /// [rate](crate::TopicSettings::rate), is counted in
    /// [`Stats::publications_refused`](crate::Stats::publications_refused); [`Handle::publish_confirmed`] reports it.
    pub fn publish(&self, topic: &str, message: impl AsMessage) -> Result<(), HandleError> {
        self.publish_with(Publish::new(topic, message.as_message()))
    }

    /// Publishes with an idempotency key, tags or a time to live, to all subscribers or all but one.
    ///
    /// # Errors
    /// As [`Handle::publish`].
    pub fn publish_with(&self, publish: Publish<'_>) -> Result<(), HandleError> {
        self.send_publication(publish.topic, self.publication(publish)?)
    }

    /// Publishes as [`Handle::publish_with`] does, and answers with the message's position in its topic and the number of
    /// connections that it is queued for. `None`: the topic has no subscriber and no history, so there was nothing to do.
    ///
    /// ```
    /// # use campanile::{Handle, HandleError, Publish};
    /// # fn example(handle: &Handle) -> Result<(), HandleError> {
    /// let order = Publish::new("orders/42", "shipped");
    /// if let Some(published) = handle.publish_confirmed(order).wait()? {
    ///     println!("message {} for {} connections", published.position, published.receivers);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The answer is an error where [`Handle::publish`] fails, and where the topic's rate is exceeded
    /// ([`HandleError::RateLimited`]).
    pub fn publish_confirmed(&self, publish: Publish<'_>) -> Answer<Option<Published>> {
        match self.publication(publish) {
            Ok(publication) => Answer::new(|reply| self.send_replied(publication, reply)),
            Err(e) => Answer::failed(e),
        }
    }

    /// Publishes many messages, to one topic or several, with one command for each worker. Messages of one topic keep their
    /// order.
    ///
    /// # Errors
    /// Some messages were not published; [`BatchError::failed`] says which, each with a reason of [`Handle::publish`].
    pub fn publish_batch<'a>(
        &self,
        messages: impl IntoIterator<Item = Publish<'a>>,
    ) -> Result<(), BatchError> {
        let workers = self.shared.workers.len();
        let mut by_owner: Vec<Vec<PublishRequest>> = (0..workers).map(|_| Vec::new()).collect();
        let (mut owners, mut failed) = (Vec::new(), Vec::new());
        for publish in messages {
            let owner = self.shared.owners.of(publish.topic);
            match self.publication(publish) {
                Ok(publication) => by_owner[owner].push(publication),
                Err(e) => failed.push((owners.len(), e)),
            }
            owners.push(owner as u16);
        }
        let invalid = failed.len();
        for (owner, publications) in by_owner.into_iter().enumerate().filter(|(_, all)| !all.is_empty()) {
            if let Err(e) = self.command_worker(owner, Command::Publish(publications), false) {
                let its = owners.iter().enumerate().filter(|(_, of)| usize::from(**of) == owner);
                let unsent: Vec<_> =
                    its.map(|(at, _)| at).filter(|at| !is_among(&failed[..invalid], *at)).collect();
                failed.extend(unsent.into_iter().map(|at| (at, e.clone())));
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        failed.sort_unstable_by_key(|(at, _)| *at);
        Err(BatchError { failed, messages: owners.len() })
    }

    /// Publishes, and where the mailbox is full retries until there is room or `timeout` has passed.
    ///
    /// # Errors
    /// As [`Handle::publish`], with [`HandleError::Full`] only after `timeout`; and [`HandleError::InHandler`].
    pub fn publish_within(&self, publish: Publish<'_>, timeout: Duration) -> Result<(), HandleError> {
        check_may_block()?;
        let deadline = Instant::now() + timeout;
        loop {
            match self.publish_with(publish) {
                Err(HandleError::Full) if Instant::now() < deadline => std::thread::sleep(MAILBOX_RETRY),
                done => return done,
            }
        }
    }

    /// Publishes and calls `then` with the outcome: what [`Answer::then`] does, with one allocation less. For requests of
    /// clients.
    #[cfg(feature = "push")]
    pub(crate) fn publish_then(
        &self,
        publish: Publish<'_>,
        then: impl FnOnce(Result<Option<Published>, HandleError>) + Send + 'static,
    ) {
        match self.publication(publish) {
            Ok(publication) => self.send_then(publication, then),
            Err(e) => then(Err(e)),
        }
    }

    /// The same for a publication that has been checked.
    #[cfg(any(feature = "push", feature = "api"))]
    pub(crate) fn send_then(
        &self,
        publication: PublishRequest,
        then: impl FnOnce(Result<Option<Published>, HandleError>) + Send + 'static,
    ) {
        let reply = ReplySender::callback(move |published| then(published.map_err(HandleError::from)));
        self.send_replied(publication, reply);
    }

    fn send_replied(&self, mut publication: PublishRequest, reply: ReplySender<Option<Published>>) {
        publication.reply = Some(reply);
        let owner = self.shared.owners.of(&publication.topic);
        self.send_query(owner, Command::PublishOne(publication));
    }

    fn send_publication(&self, topic: &str, publication: PublishRequest) -> Result<(), HandleError> {
        let owner = self.shared.owners.of(topic);
        self.command_worker(owner, Command::PublishOne(publication), false)
    }

    /// Checks what can be checked on this side.
    pub(crate) fn check_publication(&self, topic: &str, len: usize) -> Result<(), HandleError> {
        check_topic(topic).map_err(HandleError::Topic)?;
        if self.shared.stopping.load(Ordering::Relaxed) {
            return Err(HandleError::Ended);
        }
        if self.shared.congestion.is_full(topic) {
            return Err(HandleError::Full);
        }
        let limit = self.shared.topics.of(topic).max_message_size;
        if len > limit { Err(HandleError::TooBig { len, limit }) } else { Ok(()) }
    }

    pub(crate) fn publication(&self, publish: Publish<'_>) -> Result<PublishRequest, HandleError> {
        self.check_publication(publish.topic, publish.message.len())?;
        Ok(PublishRequest::new(publish))
    }
}

/// Whether a message is in a list that is in ascending order.
fn is_among(failed: &[(usize, HandleError)], at: usize) -> bool {
    failed.binary_search_by_key(&at, |(at, _)| *at).is_ok()
}
