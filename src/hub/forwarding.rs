//! Traffic from this worker to the others: publications to the owners of their topics, and updates of topics owned here
//! to the workers with subscribers. What finds no room in a mailbox waits here, and publishers are paused meanwhile.

use super::delivery_queue::{DeliveryQueue, TopicUpdate};
use super::{Congestion, ForwardedBatch, Hub, Millis, PublishRequest, RecoveryReply, TopicKey, topic};
use std::collections::VecDeque;
use std::sync::Arc;

/// The cost of a write to a socket, in bytes that could be copied meanwhile, and of one message in a batch.
const WRITE_COST: u64 = 8 << 10;
const MESSAGE_COST: u64 = 64;

/// A command for another worker.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// Publications to topics that it owns.
    Publications(Vec<PublishRequest>),
    /// An update of a topic that has subscribers there.
    Update(TopicUpdate),
}

fn send_update(
    send: &mut impl FnMut(usize, Outgoing) -> Result<(), Outgoing>,
    worker: usize,
    update: TopicUpdate,
) -> Result<(), TopicUpdate> {
    match send(worker, Outgoing::Update(update)) {
        Err(Outgoing::Update(update)) => Err(update),
        Ok(()) | Err(Outgoing::Publications(_)) => Ok(()),
    }
}

/// Publications on their way to the owner of their topics.
#[derive(Debug, Default)]
pub(super) struct ForwardQueue {
    publications: VecDeque<PublishRequest>,
    pub(super) bytes: usize,
    /// Publishers of this worker wait until it has drained to [`FORWARD_LOW_WATER`].
    is_full: bool,
}

/// Bytes of publications for one owner from which on publishers of this worker wait, and at which they continue.
const FORWARD_HIGH_WATER: usize = 256 << 10;
const FORWARD_LOW_WATER: usize = 64 << 10;

/// Bytes of publications in one command.
const FORWARD_CHUNK: usize = 64 << 10;

/// The cost of a publication beside the bytes of its message.
const PUBLISH_COST: usize = size_of::<PublishRequest>() + 64;

impl ForwardQueue {
    /// Sends the publications in chunks, in order, while there is room.
    fn send(&mut self, mut send: impl FnMut(Vec<PublishRequest>) -> Result<(), Outgoing>) {
        while !self.publications.is_empty() {
            let (mut count, mut bytes) = (0, 0);
            for publication in &self.publications {
                if count > 0 && bytes >= FORWARD_CHUNK {
                    break;
                }
                bytes += publication.frames.len() + PUBLISH_COST;
                count += 1;
            }
            let piece: Vec<PublishRequest> = match count == self.publications.len() {
                true => core::mem::take(&mut self.publications).into(),
                false => self.publications.drain(..count).collect(),
            };
            if let Err(refused) = send(piece) {
                if let Outgoing::Publications(piece) = refused {
                    for publication in piece.into_iter().rev() {
                        self.publications.push_front(publication);
                    }
                }
                return;
            }
            self.bytes -= bytes;
        }
    }
}

impl Hub {
    /// Sets the limit of what may wait for one other worker, and the state of congested topics that all workers share.
    pub(crate) fn set_flow_limits(&mut self, max_waiting: usize, congestion: Arc<Congestion>) {
        (self.max_waiting, self.congestion) = (max_waiting, congestion);
    }

    /// Queues a publication for the owner of its topic. It is refused and counted if there is no room.
    pub(super) fn forward(&mut self, publication: PublishRequest) {
        let forward_queue = &mut self.forward_queues[self.owners.of(&publication.topic)];
        let bytes = forward_queue.bytes + publication.frames.len() + PUBLISH_COST;
        if !forward_queue.publications.is_empty() && bytes > self.max_waiting {
            self.refused_publications += 1;
            return;
        }
        forward_queue.bytes = bytes;
        forward_queue.publications.push_back(publication);
        forward_queue.is_full |= bytes > FORWARD_HIGH_WATER;
        self.awaits_room |= forward_queue.is_full;
    }

    /// Returns whether a publisher of the topic should wait, because too much of it waits for other workers.
    #[inline]
    pub(crate) fn is_congested(&self, topic: &str) -> bool {
        !self.is_single_worker()
            && (self.awaits_room && self.forward_queues[self.owners.of(topic)].is_full
                || self.congestion.is_congested(topic))
    }

    /// Notes that another worker's topic is no longer congested.
    pub(crate) fn release_publishers(&mut self) {
        self.release_pending = true;
    }

    /// Returns whether paused publishers of this worker may continue. They are paused again if their topic is still
    /// congested.
    pub(crate) fn can_release_publishers(&self) -> bool {
        self.release_pending
            || self.awaits_room
                && self.forward_queues.iter().any(|queue| queue.is_full && queue.bytes <= FORWARD_LOW_WATER)
    }

    /// The same, and resets the state: the caller resumes all paused publishers.
    pub(crate) fn take_release(&mut self) -> bool {
        let can = self.can_release_publishers();
        if can {
            self.forward_queues.iter_mut().for_each(|queue| queue.is_full &= queue.bytes > FORWARD_LOW_WATER);
            self.awaits_room = self.forward_queues.iter().any(|queue| queue.is_full);
            self.release_pending = false;
        }
        can
    }

    /// Begins an iteration of the event loop.
    pub(crate) fn begin_iteration(&mut self, now: Millis) {
        (self.now, self.largest) = (now, 0);
    }

    /// Returns whether delivering what was published since `work` was `before` exceeds `most` bytes. A single topic may
    /// exceed it: its messages are better delivered together.
    pub(crate) fn exceeds_work(&self, before: u64, most: u64) -> bool {
        let work = self.work - before;
        work > most && work > 2 * self.largest
    }

    /// Returns the estimated bytes needed to deliver what arrived through the mailbox, in total.
    pub(crate) fn work(&self) -> u64 {
        self.work
    }

    /// Adds the work of delivering a message: its bytes for each subscriber, and a write if it begins a batch.
    pub(super) fn count_work(&mut self, key: TopicKey, len: usize, begins: bool) {
        let subscribers = self.index.subscribers(key).len() as u64;
        let work = subscribers * (len as u64 + if begins { WRITE_COST } else { MESSAGE_COST });
        self.work += work;
        if begins {
            self.largest = self.largest.max(work);
        }
    }

    /// Returns whether every publication has been sent to its topic's owner.
    pub(crate) fn has_published_all(&self) -> bool {
        self.forward_queues.iter().all(|queue| queue.publications.is_empty())
    }

    /// Returns whether no update waits for subscribers of other workers.
    pub(crate) fn has_delivered_all(&self) -> bool {
        self.delivery_queues.iter().all(DeliveryQueue::is_empty)
    }

    /// Drops the queue for a worker that has ended.
    pub(crate) fn forget_worker(&mut self, worker: usize) {
        self.forward_queues[worker] = ForwardQueue::default();
        self.delivery_queues[worker].clear(&self.congestion);
    }

    /// Sends the queues for other workers, then the batches that began in this iteration: publications to the topics'
    /// owners, batches to the workers with subscribers. `send` returns what finds no room in the mailbox.
    pub(crate) fn send_to_workers(&mut self, mut send: impl FnMut(usize, Outgoing) -> Result<(), Outgoing>) {
        if self.is_single_worker() {
            return;
        }
        let Self {
            index,
            batch_log,
            remote_patterns,
            forward_queues,
            delivery_queues,
            congestion,
            congestion_cleared,
            lost_messages,
            max_waiting,
            ..
        } = self;
        for (owner, forward_queue) in forward_queues.iter_mut().enumerate() {
            forward_queue.send(|publications| send(owner, Outgoing::Publications(publications)));
        }
        for (worker, delivery_queue) in
            delivery_queues.iter_mut().enumerate().filter(|(_, delivery_queue)| !delivery_queue.is_empty())
        {
            let sent = delivery_queue.send(congestion, |update| send_update(&mut send, worker, update));
            *congestion_cleared |= sent.congestion_cleared;
        }
        for batch in batch_log.batches_mut() {
            if !core::mem::take(&mut batch.begins_here) {
                continue;
            }
            let topic = index.name(batch.topic).clone();
            let mut workers: Vec<usize> =
                index.owned_mut(batch.topic).into_iter().flat_map(|h| h.workers_with_subscribers()).collect();
            if !remote_patterns.is_empty() {
                let more =
                    topic::matching_patterns(&topic).filter_map(|p| remote_patterns.get(&*p)).flatten();
                workers.extend(more.map(|(worker, _)| *worker));
                workers.sort_unstable();
                workers.dedup();
            }
            if workers.is_empty() {
                continue;
            }
            let (frames, metas, key, position) =
                (batch.share(), batch.metas().into(), batch.key, batch.position);
            let envelopes = batch.envelopes().clone();
            let forwarded = ForwardedBatch { topic: topic.clone(), frames, metas, key, position, envelopes };
            for worker in workers {
                let delivery_queue = &mut delivery_queues[worker];
                let update = TopicUpdate::Batch(forwarded.clone());
                let waits = if delivery_queue.is_empty() {
                    send_update(&mut send, worker, update)
                } else {
                    Err(update)
                };
                if let Err(update) = waits {
                    *lost_messages += delivery_queue.push(&topic, update, *max_waiting, congestion) as u64;
                }
            }
        }
    }

    /// Queues a recovery reply behind the updates of its topic that wait for that worker. Returns it without such updates,
    /// and it can be sent at once.
    pub(crate) fn queue_recovery_reply(
        &mut self,
        worker: usize,
        reply: Box<RecoveryReply>,
    ) -> Option<Box<RecoveryReply>> {
        let delivery_queue = &mut self.delivery_queues[worker];
        if !delivery_queue.has(&reply.topic) {
            return Some(reply);
        }
        let topic = reply.topic.clone();
        delivery_queue.push(&topic, TopicUpdate::RecoveryReply(reply), self.max_waiting, &self.congestion);
        None
    }
}
