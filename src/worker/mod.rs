//! One event loop on one thread: it owns its connections for life, and nothing on the way of a message takes a lock or
//! writes a line of memory that another core writes.
//!
//! A turn has its phases, always in this order:
//!
//! 1. wait, until a socket, the mailbox or a timer has something;
//! 2. events: accept, read (which calls handlers and writes their answers), write;
//! 3. again: connections that had more than one turn's share, or were resumed; and TLS handshakes, for a bounded time;
//! 4. mailbox: what other threads ask;
//! 5. timers;
//! 6. fan-out: what the turn published, to everybody it is for; and the connections that have ended are swept out.

mod accept;
mod commands;
pub(crate) mod deadlines;
pub(crate) mod failure;
pub(crate) mod fanout;
pub(crate) mod http;
pub(crate) mod http_state;
pub(crate) mod lifecycle;
#[cfg_attr(not(feature = "tls"), allow(dead_code))] // its only user yet
mod paced;
mod rates;
pub(crate) mod read;
pub(crate) mod recovery;
mod shutdown;
pub(crate) mod slots;
#[cfg_attr(not(feature = "tls"), path = "tls_disabled.rs")]
pub(crate) mod tls;
mod trim;
pub(crate) mod wheel;

use crate::conn::{Codecs, CorkWriter, Encodings, Phase};
use crate::handler::{Command, Handle, ServerShared, ShutdownStep, WorkerContext, mark_worker};
use crate::http::Router;
use crate::hub::{Epochs, Hub};
use crate::log;
use crate::net::{Listener, pin_to_cpu};
use crate::protocol::Rules;
use crate::sync::mailbox::{Inbox, Wake, Weigh};
use failure::{RunError, caught};
use http::{HttpLimits, Resource};
use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use shutdown::Shutdown;
use slots::Slots;
use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime};
use wheel::{TICK_MS, Tick, Wheel};

/// The waker's token; below it count down those of listeners, and then those of the program's own descriptors.
/// Connections have a generation above 32 bits and are never mistaken for any of them, as that is never `u32::MAX` for a
/// slot of all ones.
const WAKER: Token = Token(usize::MAX);

/// Events taken from the kernel at once.
const MAX_EVENTS: usize = 1024;

/// With more sockets ready than this, each is read in smaller pieces.
const CROWDED_FROM: usize = 8;

/// The piece: what it takes to serve others meanwhile is bounded by it, down to frames of 6 bytes.
const CROWDED_READ: usize = 64 << 10;

/// The piece for a connection of a route with rates, which may have to wait between any two messages: what was received
/// behind the first of them is kept meanwhile. A read for each 16 KiB costs one 2,700 small messages a hundredth more.
const RATED_READ: usize = 16 << 10;

/// Commands done in one turn, so that a flood of publications does not starve the sockets.
const MAX_COMMANDS: usize = 4096;

/// Estimated bytes that the commands of one iteration may have written to sockets, a write counted as 8 KiB: some
/// 10 ms. A flood of publications to a crowd delays what else the worker does by no more.
const MAX_WORK: u64 = 32 << 20;

/// Times a turn looks into the mailbox while its own commands put something there: a request that publishes is answered
/// in the turn that it came in.
const MAX_MAILBOX_ROUNDS: usize = 4;

/// Timers fired in one turn; with a million connections pinged every 25 s, 2,560 fire in a tick.
const MAX_TIMERS: usize = 4096;

/// A turn that compresses much and takes longer than this delays everybody: the next ones send their messages as they
/// are, until one takes less than half of it.
const SLOW_ITERATION: Duration = Duration::from_millis(50);

/// Bytes that take 3 to 20 ms to compress, by level. With less to compress it was something else that took so long, and
/// would without compression: 12,000 subscribers on a worker take longer than [`SLOW_ITERATION`] for one message of 4 KiB, of
/// which compressing is 10 µs.
const MIN_COMPRESSED: u64 = 1 << 20;

/// Bytes inflated in one turn, after which connections that compress wait for the next: each may bring a message that
/// becomes a thousand times as much, and those beside them would wait for all of these.
const MAX_INFLATED: u64 = 4 << 20;

/// Turns after which it is tried again, for the same reason: those that send to so many are never short.
const COMPRESSION_PAUSE: u32 = 16;

/// How often topics that keep something are looked at for what is too old, some of them each time. What is too old is
/// not given out in any case.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(250);

/// What a worker needs to know of the server, the same for all.
pub(crate) struct WorkerSettings {
    pub(crate) router: Router<Resource>,
    pub(crate) http: HttpLimits,
    pub(crate) max_connections: usize,
    pub(crate) max_memory: u64,
    #[cfg(feature = "tls")]
    pub(crate) handshakes: tls::Handshakes,
    pub(crate) receive_buffer: usize,
    pub(crate) spare_buffers: usize,
    /// Whether the heap is trimmed, and when it last was, in milliseconds since the server was built.
    pub(crate) trim_heap: bool,
    pub(crate) trimmed: AtomicU64,
}

pub(crate) struct Worker {
    poll: Poll,
    events: Option<Events>,
    slots: Slots,
    ctx: WorkerContext,
    /// Where everything is received; what is not done with at the end of a connection's read is copied out.
    recv: Box<[u8]>,
    /// What a read of a secure connection came to, decrypted.
    #[cfg(feature = "tls")]
    plaintext: Vec<u8>,
    wheel: Wheel,
    inbox: Inbox<Command>,
    shared: Arc<ServerShared>,
    settings: Arc<WorkerSettings>,
    /// By route, without compression and with it.
    rules: Vec<[Rules; 2]>,
    listeners: Vec<Listener>,
    accepting: accept::Accepting,
    scheduled_reads: Vec<u32>,
    /// Handshakes whose client has sent something, in order of arrival.
    #[cfg(feature = "tls")]
    handshake_queue: paced::Paced<crate::conn::ConnId>,
    /// Certificates whose end is told of by this worker.
    #[cfg(feature = "tls")]
    certificates: tls::Certificates,
    /// What the packer had inflated when the turn began.
    inflated: u64,
    dirty: Vec<u32>,
    closed_slots: Vec<u32>,
    recoveries: recovery::RecoveryQueue,
    /// How many of them this turn has removed.
    removed: usize,
    began: Instant,
    /// When this turn began, since `began`.
    iteration_start: Duration,
    /// When topics are next looked at for what is too old, and memory for what is free.
    next_expiry: Duration,
    trimming: trim::Trimming,
    now: Tick,
    date: Date,
    generation: u32,
    /// Responses that came, or are to come, later.
    responses: u64,
    /// Many sockets have something in this turn: each gets a smaller share of it.
    is_crowded: bool,
    /// The mailbox has something.
    woken: bool,
    stopping: Option<Shutdown>,
    /// What the other workers have finished of a shutdown.
    shutdown_steps: Box<[Option<ShutdownStep>]>,
    watched: Vec<WatchedFd>,
    /// Listeners, as there were at the beginning, and watched descriptors: their tokens.
    source_count: usize,
    pin: Option<usize>,
}

/// A descriptor of the program's, and what to do when it can be read.
pub(crate) struct WatchedFd {
    pub(crate) fd: OwnedFd,
    pub(crate) action: Box<dyn FnMut(&Handle) + Send>,
}

/// The `Date` of responses, made once a second.
#[derive(Default)]
struct Date {
    text: String,
    made: Option<Tick>,
}

impl Date {
    fn at(&mut self, now: Tick) -> &str {
        if self.made.is_none_or(|made| now - made >= (1000 / TICK_MS) as u32) {
            self.text = httpdate::fmt_http_date(SystemTime::now());
            self.made = Some(now);
        }
        &self.text
    }
}

/// Wakes a worker from its wait. What a worker puts into its own mailbox needs no system call: it looks there before
/// it waits.
struct PollWaker {
    waker: Waker,
    poll: RawFd,
}

thread_local! {
    /// The poll of the worker that runs on this thread.
    static OWN_POLL: Cell<RawFd> = const { Cell::new(-1) };
    /// It has put something into its own mailbox.
    static OWN_MAILBOX_USED: Cell<bool> = const { Cell::new(false) };
}

impl Wake for PollWaker {
    fn wake(&self) {
        if OWN_POLL.get() == self.poll {
            OWN_MAILBOX_USED.set(true);
        } else if let Err(e) = self.waker.wake() {
            log::limited!(error, Instant::now(), "can't wake a worker: {e}");
        }
    }
}

/// A random seed, from the key that the operating system gives to std's hash tables. No clock: epochs that were counted
/// on from the time of the start could run ahead of it and return after a restart.
fn seed() -> [u64; 2] {
    let key = RandomState::new();
    [key.hash_one(0), key.hash_one(1)]
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("number", &self.number()).finish_non_exhaustive()
    }
}

/// A worker's poll, made before its thread so that others can already wake it.
pub(crate) fn prepare() -> io::Result<(Poll, Box<dyn Wake>)> {
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), WAKER)?;
    let own = poll.as_raw_fd();
    Ok((poll, Box::new(PollWaker { waker, poll: own })))
}

pub(crate) struct WorkerParts {
    pub(crate) number: usize,
    pub(crate) poll: Poll,
    pub(crate) inbox: Inbox<Command>,
    pub(crate) shared: Arc<ServerShared>,
    pub(crate) settings: Arc<WorkerSettings>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) pin: Option<usize>,
    pub(crate) watched: Vec<WatchedFd>,
    #[cfg(feature = "tls")]
    pub(crate) certificates: tls::Certificates,
}

impl Worker {
    pub(crate) fn new(parts: WorkerParts) -> io::Result<Self> {
        #[cfg(feature = "tls")]
        let certificates = parts.certificates;
        let WorkerParts { number, poll, inbox, shared, settings, listeners, pin, watched, .. } = parts;
        for (i, watched) in watched.iter().enumerate() {
            let token = accept::token(listeners.len() + i);
            SourceFd(&watched.fd.as_raw_fd()).register(poll.registry(), token, Interest::READABLE)?;
        }
        for (i, listener) in listeners.iter().enumerate() {
            listener.register(poll.registry(), accept::token(i))?;
        }
        let encodings = Encodings::of(shared.routes.iter().map(|r| &r.deflate));
        let workers = shared.workers.len();
        let mut hub = Hub::new(number, shared.owners.clone(), shared.topics.clone(), Epochs::new(seed()));
        hub.set_flow_limits(shared.mailbox.bytes, shared.congestion.clone());
        let ctx = WorkerContext {
            replays: Default::default(),
            writer: CorkWriter::new(settings.spare_buffers, Codecs::new(encodings)),
            hub,
            iteration: 1,
            handle: Handle { shared: shared.clone() },
            worker: number,
            counters: shared.counters.clone(),
            congested: Vec::new(),
            counts: Default::default(),
            now: 0,
            rate_states: Vec::new(),
        };
        Ok(Self {
            poll,
            source_count: listeners.len() + watched.len(),
            events: Some(Events::with_capacity(MAX_EVENTS)),
            slots: Slots::default(),
            ctx,
            recv: vec![0; settings.receive_buffer].into(),
            #[cfg(feature = "tls")]
            plaintext: Vec::new(),
            wheel: Wheel::new(),
            inbox,
            rules: shared.routes.iter().map(|r| r.rules()).collect(),
            began: shared.began,
            shared,
            settings,
            listeners,
            accepting: accept::Accepting::default(),
            scheduled_reads: Vec::new(),
            #[cfg(feature = "tls")]
            handshake_queue: tls::handshake_queue(),
            #[cfg(feature = "tls")]
            certificates,
            inflated: 0,
            dirty: Vec::new(),
            closed_slots: Vec::new(),
            recoveries: recovery::RecoveryQueue::default(),
            removed: 0,
            iteration_start: Duration::ZERO,
            next_expiry: EXPIRY_INTERVAL,
            trimming: trim::Trimming::default(),
            now: 1, // 0 means never
            date: Date::default(),
            generation: 0,
            responses: 0,
            is_crowded: false,
            woken: false,
            stopping: None,
            shutdown_steps: vec![None; workers].into(),
            watched,
            pin,
        })
    }

    pub(crate) fn number(&self) -> usize {
        self.ctx.worker
    }

    /// Runs until it is told to end.
    ///
    /// # Errors
    /// It ended by itself; the other workers have been told to end with it.
    pub(crate) fn run(mut self) -> Result<(), RunError> {
        let (worker, counters) = (self.number(), self.shared.counters.clone());
        if let Some(cpu) = self.pin
            && let Err(e) = pin_to_cpu(cpu)
        {
            log::line!(warn, "worker {} stays unpinned: core {cpu}: {e}", self.ctx.worker);
        }
        mark_worker(true);
        OWN_POLL.set(self.poll.as_raw_fd());
        let outcome = caught(worker, || {
            self.run_iterations()?;
            self.end();
            Ok(())
        });
        if let Err(failure) = &outcome {
            self.fail(failure);
        }
        counters[worker].heartbeat.end();
        let dropped = caught(worker, move || {
            drop(self);
            Ok(())
        });
        mark_worker(false);
        OWN_POLL.set(-1);
        OWN_MAILBOX_USED.set(false);
        outcome.and(dropped)
    }

    fn run_iterations(&mut self) -> Result<(), RunError> {
        let mut events = self.events.take().unwrap_or_else(|| Events::with_capacity(MAX_EVENTS));
        while !self.has_ended() {
            let timeout = self.poll_timeout();
            self.ctx.count().heartbeat.wait();
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                // Only a bug of ours gets here (a bad descriptor); without the poll there is no going on.
                return Err(RunError::Poll { worker: self.number(), error });
            }
            self.begin_iteration();
            self.is_crowded = events.iter().nth(CROWDED_FROM).is_some();
            for event in &events {
                self.handle_event(event);
            }
            self.run_scheduled_reads();
            self.run_handshakes();
            self.run_mailbox();
            self.run_timers();
            self.expire_topics();
            self.log_expiries();
            self.reap_closed();
            self.resume_congested();
            self.fan_out();
            self.continue_shutdown();
            self.adjust_compression();
        }
        Ok(())
    }

    /// How long to wait for events.
    fn poll_timeout(&self) -> Option<Duration> {
        if self.woken
            || OWN_MAILBOX_USED.get()
            || !self.scheduled_reads.is_empty()
            || self.has_handshakes()
            || !self.dirty.is_empty()
            || !self.closed_slots.is_empty()
            || self.ctx.replays.has_ready()
            || self.accepting.has_ready()
            || !self.ctx.congested.is_empty() && self.ctx.hub.can_release_publishers()
        {
            return Some(Duration::ZERO);
        }
        let timer = self.wheel.sleep(self.now).map(|t| Duration::from_millis(u64::from(t) * TICK_MS));
        let stop = self.shutdown_timeout();
        let age = (self.ctx.hub.holds_history() || self.must_check_memory()).then_some(EXPIRY_INTERVAL);
        [timer, self.accepting.timeout(), self.recoveries.timeout(), stop, age, self.expiry_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    fn begin_iteration(&mut self) {
        self.inflated = self.ctx.writer.codecs.inflated();
        self.removed = 0;
        self.recoveries.begin_iteration();
        self.iteration_start = self.began.elapsed();
        self.ctx.hub.begin_iteration(self.iteration_start.as_millis() as u64);
        self.ctx.now = self.iteration_start.as_nanos() as u64;
        self.now = 1 + (self.iteration_start.as_millis() as u64 / TICK_MS) as Tick;
        self.ctx.iteration = self.ctx.iteration.wrapping_add(1).max(1);
        let count = self.ctx.count();
        count.heartbeat.begin(self.iteration_start);
        count.turns.add(1);
    }

    /// Counts what this turn compressed, and stops compressing while turns take too long.
    fn adjust_compression(&mut self) {
        let codecs = &mut self.ctx.writer.codecs;
        let Some(counts) = codecs.take_counts() else {
            return codecs.pause_for(0);
        };
        let lasted = self.began.elapsed().saturating_sub(self.iteration_start);
        match codecs.paused_for() {
            0 if lasted > SLOW_ITERATION && counts.bytes > MIN_COMPRESSED => {
                codecs.pause_for(COMPRESSION_PAUSE)
            }
            0 => {}
            _ if lasted < SLOW_ITERATION / 2 => codecs.pause_for(0),
            iterations => codecs.pause_for(iterations - 1),
        }
        let count = self.ctx.count();
        count.deflated.add(counts.compressed);
        count.inflated.add(counts.decompressed);
        count.deflate_skipped.add(counts.skipped);
    }

    fn handle_event(&mut self, event: &mio::event::Event) {
        let token = event.token();
        let Some(at) = self.slots.at_token(token) else {
            if token == WAKER {
                self.woken = true;
            } else if let Some(i) = accept::source_index(token, self.source_count) {
                match i.checked_sub(self.source_count - self.watched.len()) {
                    None => self.accept(i),
                    Some(i) => self.run_watched(i),
                }
            }
            return;
        };
        if event.is_writable()
            && self.slots.get_mut(at).is_some_and(|s| s.conn.blocked || s.stream.has_unsent())
        {
            self.continue_writing(at);
        }
        if event.is_error() {
            // Reset: nothing will be read or written any more, paused or not.
            if let Some(error) = self.slots.get_mut(at).and_then(|s| s.stream.take_error()) {
                return self.disconnected(at, error);
            }
        }
        if event.is_read_closed() {
            self.peer_ended(at);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read(at);
        }
    }

    fn run_watched(&mut self, i: usize) {
        let Some(WatchedFd { fd, action }) = self.watched.get_mut(i) else { return };
        // It is readable, so this does not wait. What is left comes with what makes it ring again.
        let _ = rustix::io::read(fd, &mut [0; 4096]);
        let handle = &self.ctx.handle;
        if catch_unwind(AssertUnwindSafe(|| action(handle))).is_err() {
            self.ctx.count().panics.add(1);
        }
    }

    fn run_scheduled_reads(&mut self) {
        let mut postponed = Vec::new();
        for at in core::mem::take(&mut self.scheduled_reads) {
            if self.must_wait_to_inflate(at as usize) {
                postponed.push(at);
            } else if let Some(slot) = self.slots.get_mut(at as usize) {
                slot.flags.read_scheduled = false;
                self.read(at as usize);
            }
        }
        // Who has waited a turn comes before who has just had one.
        if !postponed.is_empty() {
            postponed.append(&mut self.scheduled_reads);
            self.scheduled_reads = postponed;
        }
        self.resume_accepting();
    }

    /// Whether this connection may have something to inflate, and the turn has inflated enough.
    pub(super) fn must_wait_to_inflate(&mut self, at: usize) -> bool {
        self.ctx.writer.codecs.inflated() - self.inflated > MAX_INFLATED
            && self
                .slots
                .get_mut(at)
                .is_some_and(|s| s.conn.phase == Phase::Open && !s.conn.encoding.is_plain())
    }

    /// Does what other threads ask, if one of them has woken this one, and what this one has asked of itself.
    fn run_mailbox(&mut self) {
        let mut left = MAX_COMMANDS;
        let worked = self.ctx.hub.work();
        self.woken |= OWN_MAILBOX_USED.take();
        for _ in 0..MAX_MAILBOX_ROUNDS {
            if !core::mem::take(&mut self.woken) {
                break;
            }
            // Before looking: what comes from here on wakes again.
            self.inbox.disarm();
            // What is there, and not what comes meanwhile: somebody may go on as soon as one of these is answered, and
            // the turn would not end before they do.
            for _ in 0..self.inbox.len().min(left) {
                let Some(command) = self.inbox.take() else { break };
                if let Some(from) = command.flow_from() {
                    self.shared.workers[self.ctx.worker].flows[from].record_received(command.weight());
                }
                self.command(command);
                left -= 1;
                if self.ctx.hub.exceeds_work(worked, MAX_WORK) {
                    left = 0;
                    break;
                }
            }
            self.woken = OWN_MAILBOX_USED.take() || left == 0;
            if left == 0 {
                break;
            }
        }
        self.wake_waiting_senders();
    }

    /// Wakes the workers that wait for room in this one's mailbox, where there is some again.
    fn wake_waiting_senders(&self) {
        let flows = &self.shared.workers[self.ctx.worker].flows;
        if flows.len() == 1 {
            return;
        }
        for (worker, _) in flows.iter().enumerate().filter(|(_, flow)| flow.take_wake()) {
            self.shared.workers[worker].mailbox.wake();
        }
    }

    /// Gives up what topics have kept for too long.
    fn expire_topics(&mut self) {
        if self.iteration_start >= self.next_expiry {
            self.next_expiry = self.iteration_start + EXPIRY_INTERVAL;
            self.ctx.hub.expire_topics();
            self.check_memory();
        }
    }

    fn has_ended(&self) -> bool {
        let stopping = self.stopping.as_ref();
        stopping.is_some_and(|s| self.is_closing() && self.slots.is_empty() || s.deadline <= Instant::now())
    }

    /// What is left is ended without ceremony.
    fn end(&mut self) {
        for at in self.slots.keys() {
            self.terminate(at);
        }
        while !self.closed_slots.is_empty() {
            self.removed = 0;
            self.reap_closed();
        }
    }
}
