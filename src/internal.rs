//! The one hidden door for benches and simulations: the worker's parts on a sink that takes everything, without a
//! socket, a thread or a clock. Not part of the API; it changes whenever it likes.

use crate::Publish;
use crate::conn::{Codecs, ConnId, Connection, CorkWriter, Encodings, Pauses, Phase};
use crate::handler::{Command, Handle, Route, ServerShared, Timers, WorkerContext, WorkerShared};
use crate::http::Peer;
use crate::hub::{Epochs, Hub, Owners, TopicOrPattern};
use crate::protocol::{Message, Rules};
use crate::sink::Sink;
use crate::sync::mailbox::{Capacity, Wake, mailbox};
use crate::worker::deadlines::{Due, Timestamps, check_deadlines};
use crate::worker::fanout::deliver_batches;
use crate::worker::read::decode;
use crate::worker::slots::{Slot, SlotFlags, Slots};
use crate::worker::wheel::{TimerLinks, Wheel};
use crossbeam_utils::CachePadded;
use std::hash::RandomState;
use std::io::{self, IoSlice};
use std::sync::Arc;

/// Takes everything and forgets it.
#[derive(Debug)]
struct Void;

impl Sink for Void {
    fn write(&mut self, bytes: &[u8], _: &mut Vec<u8>) -> io::Result<usize> {
        Ok(std::hint::black_box(bytes).len())
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>], _: &mut Vec<u8>) -> io::Result<usize> {
        Ok(std::hint::black_box(parts).iter().map(|p| p.len()).sum())
    }
}

struct Nobody;

impl Wake for Nobody {
    fn wake(&self) {}
}

/// A worker's connections without sockets.
pub struct Machine {
    slots: Slots<Void>,
    ctx: WorkerContext,
    shared: Arc<ServerShared>,
    rules: Rules,
    wheel: Wheel,
    dirty: Vec<u32>,
    now: u32,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("connections", &self.slots.len()).finish_non_exhaustive()
    }
}

impl Machine {
    /// A worker with one route.
    pub fn new(route: impl Into<Route>) -> Self {
        let route = route.into();
        let [rules, _] = route.rules();
        let (tx, _) = mailbox::<Command>(Capacity { commands: 1, bytes: 1 }, Box::new(Nobody));
        let workers = vec![WorkerShared { mailbox: tx, load: CachePadded::default(), flows: Box::default() }];
        let counters: Arc<[_]> = vec![CachePadded::default()].into();
        let shared = Arc::new(ServerShared {
            workers,
            routes: vec![route].into(),
            counters: counters.clone(),
            began: std::time::Instant::now(),
            topics: Default::default(),
            owners: Owners::new(RandomState::new(), 1),
            congestion: Arc::default(),
            stopping: Default::default(),
            mailbox: Capacity { commands: 1, bytes: 1 },
            slow_callback: core::time::Duration::ZERO,
            local: true,
        });
        let ctx = WorkerContext {
            replays: Default::default(),
            writer: CorkWriter::new(
                16 << 20,
                Codecs::new(Encodings::of(shared.routes.iter().map(|r| &r.deflate))),
            ),
            hub: Hub::new(0, shared.owners.clone(), Default::default(), Epochs::new([1, 1])),
            iteration: 1,
            handle: Handle { shared: shared.clone() },
            worker: 0,
            counters,
            congested: Vec::new(),
            counts: Default::default(),
            now: 0,
            rate_states: Vec::new(),
            timers: Timers::default(),
        };
        let wheel = Wheel::new();
        Self { slots: Slots::default(), ctx, shared, rules, wheel, dirty: Vec::new(), now: 1 }
    }

    /// Opens a connection of the route, with this state, and arms its timer.
    pub fn open<S: Send + 'static>(&mut self, state: S) -> usize {
        let at = self.slots.next();
        let mut conn = Connection::new(ConnId::new(0, at, 1), Peer::Unix);
        conn.phase = Phase::Open;
        conn.route = 0;
        // As if connections had come over 25 s, so that their timers don't all fire in one tick.
        let received = self.now + at as u32 % 390;
        let timestamps = Timestamps { received, message: received, ..Timestamps::default() };
        let at = self.slots.insert(Slot {
            stream: Void,
            conn,
            state: Some(Box::new(state)),
            http: None,
            timer: TimerLinks::default(),
            timestamps,
            flags: SlotFlags::default(),
            counted_bytes: 0,
        });
        if let Due::At(due) =
            check_deadlines(&timestamps, &self.shared.routes[0].terms.limits, Pauses::default(), self.now)
        {
            self.wheel.arm(&mut self.slots, at as u32, due);
        }
        at
    }

    /// Makes a connection listen.
    pub fn subscribe(&mut self, at: usize, topic: &str) {
        let topic = TopicOrPattern::topic(topic).expect("a good name");
        self.ctx.hub.subscribe(at as u32, &topic, None, usize::MAX).expect("a good name");
    }

    /// What one read brought: decoded, handled, and what the handler sent written out.
    pub fn receive(&mut self, at: usize, bytes: &mut [u8]) {
        let slot = self.slots.get_mut(at).expect("an open connection");
        slot.timestamps.received = self.now;
        decode(slot, &mut self.ctx, &self.shared.routes[0], &self.rules, bytes, self.now);
        slot.conn.flush(&mut self.ctx.writer, &mut slot.stream);
    }

    /// Publishes, as a handler does.
    pub fn publish(&mut self, topic: &str, message: Message<'_>) {
        self.ctx.hub.publish(Publish::new(topic, message)).expect("a good name");
    }

    /// The same from a connection that does not want it back.
    pub fn publish_from(&mut self, at: usize, topic: &str, message: Message<'_>) {
        let publish = Publish::new(topic, message).except(ConnId::new(0, at, 1));
        self.ctx.hub.publish(publish).expect("a good name");
    }

    /// Ends the iteration: what was published goes to its subscribers.
    pub fn fan_out(&mut self) {
        deliver_batches(&mut self.slots, &mut self.ctx, &self.shared.routes, &mut self.dirty);
        self.ctx.hub.end_iteration();
        self.ctx.iteration += 1;
        for at in self.dirty.drain(..) {
            let slot = self.slots.get_mut(at as usize).expect("an open connection");
            slot.flags.dirty = false;
            slot.conn.flush(&mut self.ctx.writer, &mut slot.stream);
        }
    }

    /// Lets a tick of 64 ms pass and fires the timers: connections are pinged, and answer at once. Says how many fired.
    pub fn tick(&mut self) -> usize {
        self.now += 1;
        let mut fired = 0;
        while let Some(at) = self.wheel.pop(&mut self.slots, self.now) {
            fired += 1;
            let slot = self.slots.get_mut(at as usize).expect("an open connection");
            let due = match check_deadlines(
                &slot.timestamps,
                &self.shared.routes[0].terms.limits,
                slot.conn.pauses,
                self.now,
            ) {
                Due::At(due) => due,
                Due::Ping => {
                    slot.conn.control(&mut self.ctx.writer, crate::protocol::Opcode::Ping, b"");
                    slot.conn.flush(&mut self.ctx.writer, &mut slot.stream);
                    slot.timestamps.received = self.now;
                    self.now + 390
                }
                Due::End(..) => continue,
            };
            self.wheel.arm(&mut self.slots, at, due);
        }
        fired
    }

    /// Messages given to handlers so far.
    pub fn messages(&self) -> u64 {
        self.ctx.handle.stats().messages_in
    }
}

/// Bytes of the slab's entry, which is all of an idle connection.
pub const SLOT: usize = size_of::<Option<Slot>>();

/// Has a worker panic outside of every callback, as a fault of this crate would.
pub fn panic_worker(handle: &crate::Handle, worker: usize) {
    let _ = handle.command_worker(worker, Command::Panic, true); // it has ended
}

/// Has the thread of a client panic outside of every callback, as a fault of this crate would.
#[cfg(feature = "client")]
pub fn panic_client(client: &crate::client::Client) {
    client.panic_thread();
}
