//! One event loop on one thread. A worker owns its connections for their lifetime, and nothing on the message path
//! takes a lock or writes a cache line that another core writes.
//!
//! An iteration has these phases, always in this order:
//!
//! 1. wait until a socket, the mailbox or a timer has something;
//! 2. events: accept, read (which calls handlers and writes their answers), write;
//! 3. scheduled reads: connections that had more than one iteration's share, or were resumed; TLS handshakes, within a
//!    budget;
//! 4. mailbox: commands of other threads;
//! 5. timers;
//! 6. fan-out: what the iteration published goes to all subscribers, and closed connections are removed.

mod accept;
mod callbacks;
mod commands;
pub(crate) mod deadlines;
pub(crate) mod failure;
pub(crate) mod fanout;
pub(crate) mod http;
pub(crate) mod http_state;
pub(crate) mod lifecycle;
#[cfg_attr(not(feature = "tls"), allow(dead_code))] // used only there so far
mod paced;
mod rates;
pub(crate) mod read;
pub(crate) mod recovery;
mod shutdown;
pub(crate) mod slots;
mod sources;
#[cfg_attr(not(feature = "tls"), path = "tls_disabled.rs")]
pub(crate) mod tls;
mod trim;
pub(crate) mod wheel;

use crate::conn::{Codecs, CorkWriter, Encodings, Phase};
use crate::handler::{Command, Handle, ServerShared, Timers, WorkerContext, mark_worker};
use crate::http::HttpLimits;
use crate::http::Router;
use crate::hub::{Epochs, Hub};
use crate::log;
use crate::net::{Listener, pin_to_cpu};
use crate::protocol::Rules;
use crate::sync::mailbox::{Inbox, Wake, Weigh};
use failure::{RunError, caught};
use http::Resource;
use mio::{Events, Poll, Token, Waker};
use shutdown::ShutdownState;
use slots::Slots;
pub(crate) use sources::WatchedFd;
use sources::{Source, Sources};
use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime};
use wheel::{TICK_MS, Tick, Wheel};

/// The waker's token. Below it, counting down, are the tokens of the listeners and of the program's own descriptors. A
/// connection's token has its generation in the upper 32 bits and its slot, below 2^24, in the lower ones, so it is
/// never one of these.
const WAKER: Token = Token(usize::MAX);

/// Events taken from the kernel at once.
const MAX_EVENTS: usize = 1024;

/// With more ready sockets than this, each is read in smaller pieces.
const CROWDED_FROM: usize = 8;

/// Bytes of such a piece. It bounds how long other connections wait, down to frames of 6 bytes.
const CROWDED_READ: usize = 64 << 10;

/// Bytes of one read from a connection of a route with rates. Such a connection may have to wait between any two
/// messages, and what was received behind the first of them is kept meanwhile. Reading 16 KiB at a time, which is 2,700
/// small messages, costs 1 %.
const RATED_READ: usize = 16 << 10;

/// Commands executed in one iteration, so that a flood of publications does not starve the sockets.
const MAX_COMMANDS: usize = 4096;

/// Estimated bytes that one iteration's commands may write to sockets, with 8 KiB for each write: about 10 ms. A flood
/// of publications to many subscribers delays the worker's other work by no more.
const MAX_WORK: u64 = 32 << 20;

/// How often an iteration checks the mailbox while its own commands put something there: a request that publishes is
/// answered in the same iteration.
const MAX_MAILBOX_ROUNDS: usize = 4;

/// Timers fired in one iteration. With a million connections pinged every 25 s, 2,560 fire in a tick.
const MAX_TIMERS: usize = 4096;

/// An iteration that compresses much and takes longer than this delays everybody. The following iterations send their
/// messages uncompressed, until one takes less than half of it.
const SLOW_ITERATION: Duration = Duration::from_millis(50);

/// Bytes that take 3 to 20 ms to compress, by level. With less to compress something else took the time: sending one
/// message of 4 KiB to 12,000 subscribers takes longer than [`SLOW_ITERATION`], and compressing it is 10 µs of that.
const MIN_COMPRESSED: u64 = 1 << 20;

/// Bytes inflated in one iteration, after which connections that compress wait for the next. Each may bring a message
/// that grows a thousandfold, and the others would wait for all of them.
const MAX_INFLATED: u64 = 4 << 20;

/// Iterations after which compression is tried again: those that send to very many subscribers are never short.
const COMPRESSION_PAUSE: u32 = 16;

/// How often some topics with a history are checked for what is too old. Expired messages are never replayed in any
/// case.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(250);

/// The settings that all workers share.
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
    /// The receive buffer of all connections. Bytes that are not processed at the end of a read are copied out.
    recv: Box<[u8]>,
    /// The decrypted bytes of a read.
    #[cfg(feature = "tls")]
    plaintext: Vec<u8>,
    wheel: Wheel,
    inbox: Inbox<Command>,
    shared: Arc<ServerShared>,
    settings: Arc<WorkerSettings>,
    /// By route: the rules without and with compression.
    rules: Vec<[Rules; 2]>,
    sources: Sources,
    scheduled_reads: Vec<u32>,
    /// Handshakes whose clients have sent something, in order of arrival.
    #[cfg(feature = "tls")]
    handshake_queue: paced::Paced<crate::conn::ConnId>,
    /// Certificates whose expiry this worker logs.
    #[cfg(feature = "tls")]
    certificates: tls::Certificates,
    /// The codecs' count of inflated bytes at the beginning of this iteration.
    inflated: u64,
    dirty: Vec<u32>,
    closed_slots: Vec<u32>,
    recoveries: recovery::RecoveryQueue,
    /// How many of them this iteration has removed.
    removed: usize,
    began: Instant,
    /// When this iteration began, since `began`.
    iteration_start: Duration,
    /// When topics and memory are next checked.
    next_expiry: Duration,
    trimming: trim::Trimming,
    now: Tick,
    date: Date,
    generation: u32,
    /// Pending responses so far; the number identifies one.
    responses: u64,
    /// Many sockets are ready in this iteration, so each is read in smaller pieces.
    is_crowded: bool,
    /// The mailbox may have commands.
    woken: bool,
    shutdown: ShutdownState,
    pin: Option<usize>,
}

/// The `Date` header of responses, formatted once a second.
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

/// Wakes a worker from its poll. A command that a worker puts into its own mailbox needs no system call: the worker
/// checks the mailbox before it waits.
struct PollWaker {
    waker: Waker,
    poll: RawFd,
}

thread_local! {
    /// The poll of the worker on this thread.
    static OWN_POLL: Cell<RawFd> = const { Cell::new(-1) };
    /// This thread's worker has put a command into its own mailbox.
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

/// Returns a random seed from the key that the operating system gives to std's hash tables. A clock would not do:
/// epochs counted from the start time could run ahead of it and repeat after a restart.
fn seed() -> [u64; 2] {
    let key = RandomState::new();
    [key.hash_one(0), key.hash_one(1)]
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("number", &self.number()).finish_non_exhaustive()
    }
}

/// Makes a worker's poll. This happens before its thread starts, so that others can wake it.
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
        let sources = Sources::new(poll.registry(), listeners, watched)?;
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
            timers: Timers::default(),
        };
        Ok(Self {
            poll,
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
            sources,
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
            shutdown: ShutdownState::new(number, workers),
            pin,
        })
    }

    pub(crate) fn number(&self) -> usize {
        self.ctx.worker
    }

    /// Runs until a shutdown.
    ///
    /// # Errors
    /// The worker failed; the other workers have been told to end.
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
                // Only a bug of ours gets here (a bad descriptor), and a worker can't continue without its poll.
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
            self.arm_app_timers();
            self.continue_shutdown();
            self.adjust_compression();
        }
        Ok(())
    }

    /// Returns how long to wait for events.
    fn poll_timeout(&self) -> Option<Duration> {
        if self.woken
            || OWN_MAILBOX_USED.get()
            || !self.scheduled_reads.is_empty()
            || self.has_handshakes()
            || !self.dirty.is_empty()
            || !self.closed_slots.is_empty()
            || self.ctx.replays.has_ready()
            || self.sources.has_ready()
            || !self.ctx.congested.is_empty() && self.ctx.hub.can_release_publishers()
        {
            return Some(Duration::ZERO);
        }
        let timer = self.wheel.sleep(self.now).map(|t| Duration::from_millis(u64::from(t) * TICK_MS));
        let stop = self.shutdown.has_begun().then(|| self.shutdown.timeout(Instant::now())).flatten();
        let age = (self.ctx.hub.holds_history() || self.must_check_memory()).then_some(EXPIRY_INTERVAL);
        [timer, self.sources.timeout(), self.recoveries.timeout(), stop, age, self.expiry_timeout()]
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
        count.iterations.add(1);
    }

    /// Counts what this iteration compressed, and pauses compression while iterations take too long.
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
            } else {
                self.handle_source(token);
            }
            return;
        };
        if event.is_writable()
            && self.slots.get_mut(at).is_some_and(|s| s.conn.blocked || s.stream.has_unsent())
        {
            self.continue_writing(at);
        }
        if event.is_error() {
            // Reset: nothing can be read or written any more, paused or not.
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

    fn handle_source(&mut self, token: Token) {
        match self.sources.at_token(token) {
            Some(Source::Listener(listener)) => self.accept(listener),
            Some(Source::Watched(watched)) => {
                self.sources.run_action(watched, &self.ctx);
            }
            None => {} // of a connection that was removed
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
        // Connections that were postponed come before those that were just served.
        if !postponed.is_empty() {
            postponed.append(&mut self.scheduled_reads);
            self.scheduled_reads = postponed;
        }
        self.resume_accepting();
    }

    /// Returns whether this connection may have something to inflate, and the iteration has inflated enough.
    pub(super) fn must_wait_to_inflate(&mut self, at: usize) -> bool {
        self.ctx.writer.codecs.inflated() - self.inflated > MAX_INFLATED
            && self
                .slots
                .get_mut(at)
                .is_some_and(|s| s.conn.phase == Phase::Open && !s.conn.encoding.is_plain())
    }

    /// Executes the commands of other threads, if one of them has woken this worker, and its own.
    fn run_mailbox(&mut self) {
        let mut left = MAX_COMMANDS;
        let worked = self.ctx.hub.work();
        self.woken |= OWN_MAILBOX_USED.take();
        for _ in 0..MAX_MAILBOX_ROUNDS {
            if !core::mem::take(&mut self.woken) {
                break;
            }
            // Before the commands are taken: later ones wake the worker again.
            self.inbox.disarm();
            // Only those that are there now: a thread may continue as soon as one is answered and send another, and the
            // iteration would not end.
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

    /// Wakes the workers that wait for room in this worker's mailbox, where there is some again.
    fn wake_waiting_senders(&self) {
        let flows = &self.shared.workers[self.ctx.worker].flows;
        if flows.len() == 1 {
            return;
        }
        for (worker, _) in flows.iter().enumerate().filter(|(_, flow)| flow.take_wake()) {
            self.shared.workers[worker].mailbox.wake();
        }
    }

    /// Expires topics and checks memory, when it is time.
    fn expire_topics(&mut self) {
        if self.iteration_start >= self.next_expiry {
            self.next_expiry = self.iteration_start + EXPIRY_INTERVAL;
            self.ctx.hub.expire_topics();
            self.check_memory();
        }
    }

    fn has_ended(&self) -> bool {
        self.shutdown.has_begun() && self.shutdown.has_ended(Instant::now(), self.slots.len())
    }

    /// Terminates the remaining connections.
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
