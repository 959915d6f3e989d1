//! Workers without sockets, threads and clocks, for tests of what interleaves: mailboxes are emptied, iterations end and
//! sockets take bytes when the test says so. Hub, connections and handlers are the real ones.

use crate::conn::{Codecs, ConnId, Connection, CorkWriter, Encodings, Phase};
use crate::handler::{AnyState, Command, Handle, Route, ServerShared, Timers, WorkerContext, WorkerShared};
use crate::http::Peer;
use crate::hub::{Epochs, Hub, NoReply, Owners, PublishRequest, SettingsTable};
use crate::protocol::{Message, Opcode, header};
use crate::sink::Sink;
use crate::sync::mailbox::{Capacity, Inbox, Wake, Weigh, mailbox};
use crate::worker::deadlines::Timestamps;
use crate::worker::fanout::{deliver_batches, mark_dirty, queue_reply, report_missed, send_to_workers};
use crate::worker::lifecycle::write_out;
use crate::worker::read::{call_handler, decode};
use crate::worker::recovery::{self, RecoveryContext, RecoveryQueue};
use crate::worker::slots::{Slot, SlotFlags, Slots};
use crate::worker::wheel::TimerLinks;
use crossbeam_utils::CachePadded;
use std::hash::RandomState;
use std::io::{self, IoSlice};
use std::sync::Arc;

/// One client's socket: takes as many bytes as there is room for.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    pub(crate) room: usize,
    pub(crate) taken: Vec<u8>,
}

impl Sink for Wire {
    fn write(&mut self, bytes: &[u8], _: &mut Vec<u8>) -> io::Result<usize> {
        let n = bytes.len().min(self.room);
        self.taken.extend_from_slice(&bytes[..n]);
        self.room -= n;
        Ok(n)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>], scratch: &mut Vec<u8>) -> io::Result<usize> {
        let mut n = 0;
        for part in parts {
            n += self.write(part, scratch)?;
        }
        Ok(n)
    }
}

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

/// One worker.
pub(crate) struct SimWorker {
    pub(crate) slots: Slots<Wire>,
    pub(crate) ctx: WorkerContext,
    inbox: Inbox<Command>,
    dirty: Vec<u32>,
    recoveries: RecoveryQueue,
}

pub(crate) struct Simulation {
    pub(crate) workers: Vec<SimWorker>,
    pub(crate) handle: Handle,
    generation: u32,
}

impl Simulation {
    /// Workers with one route.
    pub(crate) fn new(workers: usize, route: impl Into<Route>, topics: SettingsTable) -> Self {
        let route = route.into();
        let unbounded = Capacity { commands: usize::MAX, bytes: usize::MAX };
        let (mailboxes, inboxes): (Vec<_>, Vec<_>) =
            (0..workers).map(|_| mailbox::<Command>(unbounded, Box::new(Nobody))).unzip();
        let shared = |mailbox| {
            let flows = (0..workers).map(|_| CachePadded::default()).collect();
            WorkerShared { mailbox, load: CachePadded::default(), flows }
        };
        let counters: Arc<[_]> = (0..workers).map(|_| CachePadded::default()).collect();
        let shared = Arc::new(ServerShared {
            workers: mailboxes.into_iter().map(shared).collect(),
            routes: vec![route].into(),
            counters: counters.clone(),
            owners: Owners::new(RandomState::new(), workers),
            topics,
            congestion: Arc::default(),
            stopping: Default::default(),
            mailbox: unbounded,
            slow_callback: core::time::Duration::ZERO,
            local: true,
            began: std::time::Instant::now(),
        });
        let handle = Handle { shared: shared.clone() };
        let worker = |(number, inbox)| {
            let epochs = Epochs::new([number as u64 + 1, 1]);
            let mut hub = Hub::new(number, shared.owners.clone(), shared.topics.clone(), epochs);
            hub.set_flow_limits(usize::MAX, shared.congestion.clone());
            let ctx = WorkerContext {
                replays: Default::default(),
                writer: CorkWriter::new(
                    16 << 20,
                    Codecs::new(Encodings::of(shared.routes.iter().map(|r| &r.deflate))),
                ),
                hub,
                iteration: 1,
                handle: handle.clone(),
                worker: number,
                counters: counters.clone(),
                congested: Vec::new(),
                counts: Default::default(),
                now: 0,
                rate_states: Vec::new(),
                timers: Timers::default(),
            };
            let (slots, dirty, recoveries) = (Slots::default(), Vec::new(), RecoveryQueue::default());
            SimWorker { slots, ctx, inbox, dirty, recoveries }
        };
        let workers = inboxes.into_iter().enumerate().map(worker).collect();
        Self { workers, handle, generation: 0 }
    }

    /// A topic's name with this prefix that this worker owns.
    pub(crate) fn topic_of(&self, prefix: &str, worker: usize) -> String {
        let owners = &self.handle.shared.owners;
        let mut names = (0..).map(|n| format!("{prefix}{n}"));
        names.find(|name| owners.of(name) == worker % self.workers.len()).unwrap_or_default()
    }

    /// Opens a connection, with its handler's state.
    pub(crate) fn open(&mut self, worker: usize, state: AnyState) -> ConnId {
        self.generation += 1;
        let SimWorker { slots, ctx, .. } = &mut self.workers[worker];
        let id = ConnId::new(worker, slots.next(), self.generation);
        let mut conn = Connection::new(id, Peer::Unix);
        let route = &self.handle.shared.routes[0];
        (conn.phase, conn.route, conn.transforms) = (Phase::Open, 0, route.envelope.is_some());
        let at = slots.insert(Slot {
            stream: Wire::default(),
            conn,
            state: Some(state),
            http: None,
            timer: TimerLinks::default(),
            timestamps: Timestamps::default(),
            flags: SlotFlags::default(),
            counted_bytes: 0,
        });
        if let Some(slot) = slots.get_mut(at) {
            call_handler(slot, ctx, route, crate::handler::HandlerEvent::Open);
            write_out(slot, ctx, &self.handle.shared.routes);
        }
        id
    }

    pub(crate) fn slot(&mut self, id: ConnId) -> Option<&mut Slot<Wire>> {
        self.workers[id.worker()].slots.find_mut(id)
    }

    /// A client sends a text.
    pub(crate) fn text(&mut self, id: ConnId, text: &str) {
        self.frames(id, Opcode::Text, text.as_bytes(), 1);
    }

    /// A client sends the same frame a number of times, all of which is received in one read.
    pub(crate) fn frames(&mut self, id: ConnId, opcode: Opcode, payload: &[u8], times: usize) {
        let first = header::first_byte(opcode, false);
        let mut bytes = header::encode_as(first, payload.len(), Some([0; 4])).to_vec();
        bytes.extend_from_slice(payload);
        let mut bytes = bytes.repeat(times);
        let routes = &self.handle.shared.routes;
        let SimWorker { slots, ctx, .. } = &mut self.workers[id.worker()];
        let Some(slot) = slots.find_mut(id) else { return };
        let [rules, _] = routes[0].rules();
        decode(slot, ctx, &routes[0], &rules, &mut bytes, 1);
        write_out(slot, ctx, routes);
    }

    /// A client's socket accepts this many bytes more.
    pub(crate) fn take(&mut self, id: ConnId, bytes: usize) {
        let routes = &self.handle.shared.routes;
        let SimWorker { slots, ctx, .. } = &mut self.workers[id.worker()];
        let Some(slot) = slots.find_mut(id) else { return };
        slot.stream.room = slot.stream.room.saturating_add(bytes);
        slot.conn.blocked = false;
        write_out(slot, ctx, routes);
    }

    /// The frames that a client has received since the last call: opcode and payload.
    pub(crate) fn received(&mut self, id: ConnId) -> Vec<(u8, Vec<u8>)> {
        let Some(slot) = self.slot(id) else { return Vec::new() };
        let (taken, mut at, mut frames) = (&mut slot.stream.taken, 0, Vec::new());
        while let Some(len) = frame_len(&taken[at..]) {
            let (head, end) = (at + len.0, at + len.0 + len.1);
            if end > taken.len() {
                break;
            }
            frames.push((taken[at] & 0x0F, taken[head..end].to_vec()));
            at = end;
        }
        taken.drain(..at);
        frames
    }

    /// A connection breaks.
    pub(crate) fn cut(&mut self, id: ConnId) {
        let SimWorker { slots, ctx, .. } = &mut self.workers[id.worker()];
        if slots.find_mut(id).is_some() {
            ctx.hub.remove(id);
            if let Some(mut slot) = slots.remove(id.slot()) {
                ctx.replays.remove(&mut slot.conn);
                slot.conn.release(&mut ctx.writer);
            }
        }
    }

    /// A worker does the next command of its mailbox, if there is one.
    pub(crate) fn command(&mut self, worker: usize) -> bool {
        let Some(command) = self.workers[worker].inbox.take() else { return false };
        if let Some(from) = command.flow_from() {
            self.handle.shared.workers[worker].flows[from].record_received(command.weight());
        }
        match command {
            Command::Subscribe(id, topic) => {
                self.settle(worker);
                let limit = self.handle.shared.routes[0].terms.limits.max_subscriptions;
                let SimWorker { slots, ctx, .. } = &mut self.workers[worker];
                if slots.find_mut(id).is_some_and(|s| s.conn.phase == Phase::Open) {
                    recovery::subscribe(ctx, id.slot() as u32, &topic, limit);
                }
            }
            Command::Unsubscribe(id, topic) => {
                self.settle(worker);
                let routes = &self.handle.shared.routes;
                let SimWorker { slots, ctx, dirty, .. } = &mut self.workers[worker];
                if let Some(slot) = slots.find_mut(id).filter(|s| s.conn.phase == Phase::Open) {
                    recovery::unsubscribe(slot, ctx, routes, &topic);
                    mark_dirty(slot, id.slot() as u32, dirty);
                }
            }
            Command::SubscriberChanges(from, changes) => {
                self.workers[worker].ctx.hub.apply_subscriber_changes(from, changes)
            }
            Command::RecoveryRequest(from, request) => self.workers[worker].recoveries.push(from, request),
            Command::RecoveryReply(reply) => {
                self.settle(worker);
                self.recovery(worker).begin(*reply);
            }
            Command::Publish(all) | Command::Forward(_, all) => {
                all.into_iter().for_each(|one| self.publish(worker, one))
            }
            Command::PublishOne(one) => self.publish(worker, one),
            Command::Batch(_, forwarded) => self.workers[worker].ctx.hub.receive_batch(&forwarded),
            Command::Reply(id, text) => {
                let SimWorker { slots, ctx, dirty, .. } = &mut self.workers[worker];
                queue_reply(slots, ctx, &self.handle.shared.routes, dirty, id, &text);
            }
            Command::Missed(_, missed) => {
                self.settle(worker);
                let SimWorker { slots, ctx, dirty, .. } = &mut self.workers[worker];
                report_missed(slots, ctx, &self.handle.shared.routes, dirty, &missed);
            }
            Command::CongestionCleared => self.workers[worker].ctx.hub.release_publishers(),
            _ => unreachable!("a command that no simulation sends"),
        }
        true
    }

    fn publish(&mut self, worker: usize, publication: PublishRequest) {
        if let Some((answer, outcome)) = self.workers[worker].ctx.hub.publish_owned(publication) {
            assert!(answer.send(outcome.map_err(NoReply::Refused)), "a callback panicked");
        }
    }

    fn recovery(&mut self, worker: usize) -> RecoveryContext<'_, Wire> {
        let SimWorker { slots, ctx, dirty, recoveries, .. } = &mut self.workers[worker];
        RecoveryContext { slots, ctx, routes: &self.handle.shared.routes, dirty, recoveries }
    }

    fn settle(&mut self, worker: usize) {
        if !self.workers[worker].ctx.hub.batch_log.is_empty() {
            self.fan_out(worker);
        }
    }

    /// Ends a worker's iteration.
    pub(crate) fn end_iteration(&mut self, worker: usize) {
        self.workers[worker].recoveries.begin_iteration();
        self.fan_out(worker);
    }

    fn fan_out(&mut self, worker: usize) {
        let routes = self.handle.shared.routes.clone();
        loop {
            let SimWorker { slots, ctx, dirty, .. } = &mut self.workers[worker];
            ctx.hub.record_history();
            send_to_workers(ctx);
            if !ctx.hub.batch_log.is_empty() {
                deliver_batches(slots, ctx, &routes, dirty);
            }
            ctx.hub.end_iteration();
            ctx.iteration += 1;
            self.recovery(worker).answer_requests();
            let SimWorker { slots, ctx, dirty, .. } = &mut self.workers[worker];
            for at in core::mem::take(dirty) {
                if let Some(slot) = slots.get_mut(at as usize) {
                    slot.flags.dirty = false;
                    write_out(slot, ctx, &routes);
                }
            }
            if ctx.hub.batch_log.is_empty() && ctx.hub.recovery_requests.is_empty() {
                return;
            }
        }
    }

    /// Whether a worker has nothing left to do.
    fn is_idle(&self, worker: usize) -> bool {
        let SimWorker { inbox, dirty, recoveries, ctx, .. } = &self.workers[worker];
        let hub = &ctx.hub;
        let sent = !ctx.replays.has_ready()
            && hub.batch_log.is_empty()
            && hub.has_published_all()
            && hub.has_delivered_all();
        inbox.len() == 0 && dirty.is_empty() && recoveries.is_empty() && sent
    }

    /// Everything goes on until nothing is left to do, and every socket takes all.
    pub(crate) fn finish(&mut self) {
        for _ in 0..100_000 {
            for worker in 0..self.workers.len() {
                let ids: Vec<ConnId> = self.workers[worker].slots.iter().map(|(_, s)| s.conn.id).collect();
                ids.into_iter().for_each(|id| self.take(id, usize::MAX));
                while self.command(worker) {}
                self.end_iteration(worker);
            }
            if (0..self.workers.len()).all(|worker| self.is_idle(worker)) {
                return;
            }
        }
        panic!("it never comes to its end");
    }

    /// Publishes by a handle.
    pub(crate) fn publish_by_handle(&self, topic: &str, message: Message<'_>) {
        self.handle.publish(topic, message).expect("mailboxes take everything");
    }
}

/// The length of a frame's head and of its payload, as a server sends them.
fn frame_len(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes.get(1)? {
        126 => Some((4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)))),
        127 => Some((10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize)),
        len => Some((2, usize::from(len))),
    }
}
