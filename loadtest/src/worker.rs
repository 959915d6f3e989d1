//! One thread's event loop: opens its share of the connections, moves their bytes, keeps their timeouts.
//!
//! A turn has these parts: phase, open, wait, sockets, schedule, sweep, publish. The clock is read once in a turn.
//! Sockets are registered once, edge-triggered; a read that does not fill the buffer has emptied the socket, which
//! saves the read that would say so.

use crate::control::{Control, Phase, Progress};
use crate::pace::Pacer;
use crate::proc;
use crate::raw_tcp::RawTcp;
use crate::scenario::{Counters, Next, Scenario, ScenarioContext, UNSOLICITED, Unanswered};
use crate::slot::{Slot, State, Transport, Wire, io_label, label};
use crate::stats::Stats;
use crate::target::Target;
use campanile::client::opening::Extras;
use campanile::client::socket::{ReadStatus, Setup, Socket, SocketEvent};
use campanile::client::{ClientLimits, Error, Trust};
use campanile::protocol::{CloseCode, Kind, Payload};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Read at most in one call: larger than what the kernel queues for a small pipeline, small enough for the second
/// level cache.
const INPUT: usize = 256 << 10;

/// Events taken in one turn.
const EVENTS: usize = 1024;

/// Full reads of one connection before others have their turn.
const READS: usize = 16;

/// Open loop: a connection with more than this unwritten is passed over.
const MAX_BACKLOG: usize = 1 << 20;

/// Time between two looks at the timeouts, and the longest wait.
const SWEEP_NS: u64 = 100_000_000;

const WAKE: Token = Token(usize::MAX - 1);
const TIMER: Token = Token(usize::MAX - 2);

/// What a worker is to do.
#[derive(Debug)]
pub(crate) struct Job {
    /// Its number.
    pub(crate) worker: usize,
    /// Connections of this worker.
    pub(crate) connections: usize,
    /// Where to connect, and from which addresses, connection by connection in turn; empty: the kernel's choice.
    pub(crate) to: SocketAddr,
    pub(crate) from: Vec<IpAddr>,
    pub(crate) target: Target,
    pub(crate) extras: Extras,
    pub(crate) limits: ClientLimits,
    /// Whom to believe on `wss://`.
    pub(crate) trust: Option<Trust>,
    /// Handshakes in flight at most.
    pub(crate) handshakes: usize,
    /// Connections to begin per second at most.
    pub(crate) ramp: Option<f64>,
    pub(crate) timeout_ns: u64,
    /// Closed loop: bytes that wait to be written on one connection, at most.
    pub(crate) max_unwritten: usize,
    /// Open loop: messages per second of this worker.
    pub(crate) rate: Option<f64>,
    /// No WebSocket: the size of every message.
    pub(crate) raw_tcp: Option<usize>,
    /// Connections that have ended are opened again.
    pub(crate) reopens: bool,
}

/// What a worker has counted.
#[derive(Debug)]
pub(crate) struct WorkerResult {
    pub(crate) stats: Stats,
    pub(crate) unanswered: Unanswered,
    /// Connections open at the end.
    pub(crate) alive: usize,
    /// CPU time of this thread while measuring, and how long that was.
    pub(crate) cpu_ns: u64,
    pub(crate) measured_ns: u64,
}

/// The loop's state.
struct Worker<S> {
    job: Job,
    control: Arc<Control>,
    scenario: S,
    poll: Poll,
    slots: Vec<Slot>,
    context: ScenarioContext,
    input: Vec<u8>,
    pacer: Option<Pacer>,
    phase: Phase,
    /// Slots that have not been opened for the first time begin here.
    fresh: usize,
    /// To be opened again, at once or after the next sweep.
    reopen: Vec<usize>,
    reopen_later: Vec<usize>,
    /// Handshakes in flight.
    opening: usize,
    /// Connections begun, for the ramp.
    begun: u64,
    began_at: u64,
    open: usize,
    /// Connections with more to read, and with more to write.
    again: Vec<usize>,
    dirty: Vec<usize>,
    sweep_at: u64,
    /// Clock and CPU time at the beginning of the measurement.
    measured_from: Option<(u64, u64)>,
}

/// Runs a worker to the end of the run.
pub(crate) fn run<S: Scenario>(job: Job, control: Arc<Control>, scenario: S) -> io::Result<WorkerResult> {
    let poll = Poll::new()?;
    control.set_waker(job.worker, Waker::new(poll.registry(), WAKE)?);
    let pacer = job.rate.map(Pacer::new).transpose()?;
    if let Some(pacer) = &pacer {
        poll.registry().register(&mut SourceFd(&pacer.timer()), TIMER, Interest::READABLE)?;
    }
    let slots = std::iter::repeat_with(Slot::default).take(job.connections).collect();
    let now = control.now();
    let worker = Worker {
        context: ScenarioContext {
            wire: Wire::new(job.raw_tcp.is_some()),
            counters: Counters { now, ..Counters::default() },
        },
        poll,
        slots,
        input: vec![0; INPUT],
        pacer,
        phase: Phase::Opening,
        fresh: 0,
        reopen: Vec::new(),
        reopen_later: Vec::new(),
        opening: 0,
        begun: 0,
        began_at: now,
        open: 0,
        again: Vec::new(),
        dirty: Vec::new(),
        sweep_at: now + SWEEP_NS,
        measured_from: None,
        job,
        control,
        scenario,
    };
    worker.run()
}

/// Messages may be sent from now on; gives what the scenario wants with the connection.
fn open(at: usize, since: u64, scenario: &mut impl Scenario, counters: &mut Counters, now: u64) -> Next {
    counters.stats.opened += 1;
    counters.stats.connect.saturating_record(now - since);
    scenario.opened(at, counters)
}

impl<S: Scenario> Worker<S> {
    fn run(mut self) -> io::Result<WorkerResult> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            self.enter_phase();
            if self.phase == Phase::Ended {
                return Ok(self.finish());
            }
            self.open_more();
            match self.poll.poll(&mut events, Some(self.poll_timeout())) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(e),
                _ => {}
            }
            self.read_clock();
            for again in std::mem::take(&mut self.again) {
                self.read(again);
            }
            for event in &events {
                match event.token() {
                    WAKE | TIMER => {}
                    Token(at) => {
                        self.drive(at, event.is_readable(), event.is_writable(), event.is_read_closed())
                    }
                }
            }
            self.follow_schedule()?;
            self.end_iteration();
            if self.context.now >= self.sweep_at {
                self.sweep();
            }
            self.publish();
        }
    }

    fn read_clock(&mut self) {
        self.context.wire.clock = Instant::now();
        self.context.now = self.control.since(self.context.wire.clock);
    }

    fn end_iteration(&mut self) {
        let Some(first) = self.slots.first_mut() else { return };
        first.enter(&mut self.context.wire);
        if self.scenario.end_iteration(&mut self.context) {
            self.flush(0);
        } else {
            first.leave(&mut self.context.wire);
        }
    }

    fn enter_phase(&mut self) {
        let phase = self.control.phase();
        if phase == self.phase {
            return;
        }
        let before = std::mem::replace(&mut self.phase, phase);
        self.read_clock();
        if before < Phase::WarmUp && phase < Phase::Ended {
            self.measured_from = Some((self.context.now, proc::thread_cpu_ns()));
            if let Some(pacer) = &mut self.pacer {
                pacer.begin(self.context.now, self.job.worker, self.control.workers());
            }
            for at in 0..self.slots.len() {
                if self.slots[at].state == State::Open {
                    self.slots[at].enter(&mut self.context.wire);
                    self.scenario.start(at, &mut self.context);
                    self.flush(at);
                }
            }
        }
        if before < Phase::Measuring && phase == Phase::Measuring {
            self.context.stats.begin();
            self.measured_from = Some((self.context.now, proc::thread_cpu_ns()));
        }
    }

    /// How long the next wait may be.
    fn poll_timeout(&self) -> Duration {
        let late =
            self.pacer.as_ref().is_some_and(|p| self.phase > Phase::Opening && p.next() <= self.context.now);
        if !self.again.is_empty() || late && self.open > 0 && !self.all_blocked() {
            return Duration::ZERO;
        }
        let to_open = self.fresh < self.slots.len() || !self.reopen.is_empty();
        if to_open && self.opening < self.job.handshakes {
            return Duration::from_millis(1); // only the ramp holds it back
        }
        Duration::from_nanos(SWEEP_NS)
    }

    fn all_blocked(&self) -> bool {
        self.slots.iter().all(|s| s.state != State::Open || s.waiting() > MAX_BACKLOG)
    }

    // ---- opening ----

    fn open_more(&mut self) {
        while self.opening < self.job.handshakes && self.phase < Phase::Ended {
            if let Some(ramp) = self.job.ramp {
                let passed = self.control.now() - self.began_at;
                if self.begun as f64 > passed as f64 * ramp / 1e9 {
                    return;
                }
            }
            let at = if let Some(at) = self.reopen.pop() {
                at
            } else if self.fresh < self.slots.len() {
                self.fresh += 1;
                self.fresh - 1
            } else {
                return;
            };
            self.begun += 1;
            self.connect(at);
        }
    }

    fn connect(&mut self, at: usize) {
        let number = at * self.control.workers() + self.job.worker;
        let from = self.job.from.get(number % self.job.from.len().max(1)).copied();
        self.read_clock();
        let job = &self.job;
        let transport = match job.raw_tcp {
            Some(size) => {
                let made = RawTcp::connect(job.to, from, size);
                made.map(|raw_tcp| Transport::RawTcp(raw_tcp.into())).map_err(|e| io_label(e.kind()))
            }
            None => {
                let Job { target, extras, limits, trust, .. } = job;
                let (url, trust) = (&target.url, trust.as_ref());
                let setup = Setup { url, extras, proxy: None, trust, limits, from, no_delay: true };
                let made = Socket::connect(job.to, &setup, &mut self.context.wire.context());
                made.map(|socket| Transport::Web(socket.into())).map_err(|e| label(&e))
            }
        };
        let transport = transport.and_then(|transport| {
            let fd = match &transport {
                Transport::Web(socket) => socket.as_fd(),
                Transport::RawTcp(raw_tcp) => raw_tcp.as_fd(),
                Transport::None => return Ok(transport),
            };
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registered =
                self.poll.registry().register(&mut SourceFd(&fd.as_raw_fd()), Token(at), interest);
            registered.map(|()| transport).map_err(|e| io_label(e.kind()))
        });
        let slot = &mut self.slots[at];
        slot.since = self.context.counters.now;
        slot.state = State::Connecting;
        self.opening += 1;
        match transport {
            Ok(transport) => slot.transport = transport,
            Err(why) => self.lose(at, why),
        }
    }

    /// There is a connection.
    fn connected(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        if self.context.wire.is_raw_tcp() {
            let now = self.control.now();
            slot.state = State::Open;
            let next = open(at, slot.since, &mut self.scenario, &mut self.context, now);
            self.opened(at, next);
            return;
        }
        slot.state = State::Handshaking;
        self.flush(at);
    }

    /// The handshake is done: what the scenario wants with it.
    fn opened(&mut self, at: usize, next: Next) {
        self.opening -= 1;
        match next {
            Next::Stay => self.open += 1,
            Next::Reset => {
                self.release(at, true);
                self.reopen.push(at);
            }
            Next::Close(code) => {
                let slot = &mut self.slots[at];
                slot.enter(&mut self.context.wire);
                if let Transport::Web(socket) = &mut slot.transport {
                    socket.close(code, "", &mut self.context.wire.context());
                }
                slot.state = State::Closing;
                self.flush(at);
            }
        }
    }

    // ---- sockets ----

    fn drive(&mut self, at: usize, readable: bool, writable: bool, read_closed: bool) {
        let slot = &mut self.slots[at];
        if read_closed {
            slot.transport.note_read_closed();
        }
        if writable || read_closed && slot.state == State::Connecting {
            let made = match &mut slot.transport {
                Transport::Web(socket) => socket.writable(self.context.wire.clock),
                Transport::RawTcp(raw_tcp) => raw_tcp.writable(),
                Transport::None => return,
            };
            match made {
                Ok(true) => self.connected(at),
                Ok(false) => {
                    slot.enter(&mut self.context.wire);
                    self.flush(at);
                }
                Err(kind) => return self.lose(at, io_label(kind)),
            }
        }
        if readable || read_closed {
            self.read(at);
        }
    }

    /// Reads until the socket is empty, and sends what the scenario has to say to it in one write.
    fn read(&mut self, at: usize) {
        self.slots[at].enter(&mut self.context.wire);
        let mut reads = 0;
        loop {
            match self.read_once(at) {
                None => return,
                Some(ReadStatus::All) if !self.slots[at].transport.is_read_closed() => break,
                Some(ReadStatus::All | ReadStatus::More) => {}
                Some(ReadStatus::Failed(error)) => return self.fail(at, &error),
                Some(ReadStatus::Ended(kind)) => return self.end_of_stream(at, kind),
            }
            reads += 1;
            if reads == READS {
                self.again.push(at);
                break;
            }
        }
        self.read_done(at);
    }

    /// Lets the scenario send what the messages that came allow.
    fn read_done(&mut self, at: usize) {
        match self.scenario.read_done(at, &mut self.context) {
            Ok(()) => self.flush(at),
            Err(why) => self.lose(at, why),
        }
    }

    /// `None`: there is no connection any more.
    #[inline]
    fn read_once(&mut self, at: usize) -> Option<ReadStatus> {
        let Self { slots, scenario, context: ScenarioContext { wire, counters }, input, control, .. } = self;
        let slot = &mut slots[at];
        let (mut next, mut closes) = (None, false);
        let status = match &mut slot.transport {
            Transport::None => return None,
            Transport::RawTcp(raw_tcp) => {
                raw_tcp.read(input, |message| scenario.message(at, Kind::Binary, message, counters))
            }
            Transport::Web(socket) => socket.read(input, &mut wire.context(), |event, pool| match event {
                SocketEvent::Message(kind, payload) => {
                    scenario.message(at, kind, &payload, counters);
                    if let Payload::Own(buf) = payload {
                        pool.give(buf);
                    }
                }
                SocketEvent::Opened(_) => {
                    next = Some(open(at, slot.since, scenario, counters, control.now()))
                }
                SocketEvent::Closing => closes = true,
            }),
        };
        if let Some(next) = next {
            slot.state = State::Open;
            self.opened(at, next);
            self.slots[at].enter(&mut self.context.wire);
        }
        if closes && self.slots[at].state != State::Closing {
            self.closed(at);
        }
        // Section 7.1.1: the server ends the connection first, so after its own close the client waits for that.
        (self.slots[at].state != State::Empty).then_some(status)
    }

    /// The server's close frame has come unasked.
    fn closed(&mut self, at: usize) {
        let Transport::Web(socket) = &self.slots[at].transport else { return };
        let code = match socket.ending() {
            (CloseCode::NO_STATUS, ..) => "without a code".into(),
            (code, ..) => code.to_string(),
        };
        self.flush(at);
        self.lose(at, format!("closed by the server: {code}"));
    }

    fn end_of_stream(&mut self, at: usize, kind: io::ErrorKind) {
        let slot = &mut self.slots[at];
        let ended = match &slot.transport {
            Transport::Web(socket) => socket.end(kind),
            _ => Err(Error::Transport(kind)),
        };
        match (slot.state, ended) {
            (State::Closing, Ok(())) => {
                self.release(at, false);
                self.reopen.push(at);
            }
            _ if kind != io::ErrorKind::UnexpectedEof => self.lose(at, io_label(kind)),
            (State::Handshaking, _) => self.lose(at, "closed during the handshake"),
            _ => self.lose(at, "closed without a close frame"),
        }
    }

    fn fail(&mut self, at: usize, error: &Error) {
        if let Transport::Web(socket) = &mut self.slots[at].transport {
            socket.answer_breach(&mut self.context.wire.context());
        }
        self.flush(at);
        self.lose(at, label(error));
    }

    #[inline]
    fn flush(&mut self, at: usize) {
        match self.slots[at].flush(&mut self.context.wire) {
            Err(kind) => self.lose(at, io_label(kind)),
            // A server that answers what it has not read.
            Ok(()) if self.slots[at].waiting() > self.job.max_unwritten => self.lose(at, UNSOLICITED),
            Ok(()) => {}
        }
    }

    /// The connection ends here, by an error.
    fn lose(&mut self, at: usize, why: impl Into<String>) {
        match self.slots[at].state {
            State::Empty => return,
            State::Connecting | State::Handshaking => self.opening -= 1,
            State::Open => {
                self.open -= 1;
                self.context.stats.lost += 1;
                if !self.scenario.lost(at, &mut self.context) {
                    self.control.enter(Phase::Ended);
                }
            }
            State::Closing => {}
        }
        self.context.stats.error(why, 1);
        self.release(at, true);
        if self.job.reopens {
            self.reopen_later.push(at);
        }
    }

    fn release(&mut self, at: usize, hard: bool) {
        self.slots[at].release(hard, &mut self.context.wire);
    }

    // ---- schedule and timeouts ----

    fn follow_schedule(&mut self) -> io::Result<()> {
        if self.phase == Phase::Opening || self.pacer.is_none() {
            return Ok(());
        }
        while let Some(due) = self.pacer.as_ref().map(Pacer::next).filter(|&due| due <= self.context.now) {
            let Some(at) = self.pick() else { break };
            self.slots[at].enter(&mut self.context.wire);
            self.scenario.due(at, due, &mut self.context);
            let slot = &mut self.slots[at];
            slot.leave(&mut self.context.wire);
            if !std::mem::replace(&mut slot.dirty, true) {
                self.dirty.push(at);
            }
            if let Some(pacer) = &mut self.pacer {
                pacer.advance();
            }
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        for at in dirty.drain(..) {
            self.slots[at].dirty = false;
            self.slots[at].enter(&mut self.context.wire);
            self.flush(at);
        }
        self.dirty = dirty;
        match &mut self.pacer {
            Some(pacer) => pacer.arm(self.control.now()),
            None => Ok(()),
        }
    }

    /// The next connection that can take a message.
    fn pick(&mut self) -> Option<usize> {
        let pacer = self.pacer.as_mut()?;
        for _ in 0..self.slots.len() {
            let at = self.scenario.sender(pacer.pick);
            pacer.pick += 1;
            let slot = &self.slots[at];
            if slot.state == State::Open && slot.waiting() <= MAX_BACKLOG {
                return Some(at);
            }
        }
        None
    }

    fn sweep(&mut self) {
        self.sweep_at = self.context.now + SWEEP_NS;
        self.reopen.append(&mut self.reopen_later);
        for at in 0..self.slots.len() {
            let slot = &self.slots[at];
            let waited = self.context.now.saturating_sub(slot.since);
            let why = match slot.state {
                State::Empty => continue,
                State::Open if self.scenario.overdue(at, self.context.now) => "timeout: no answer",
                State::Open => continue,
                _ if waited <= self.job.timeout_ns => continue,
                State::Connecting => "timeout: connect",
                State::Handshaking => "timeout: handshake",
                State::Closing => "timeout: close",
            };
            self.lose(at, why);
        }
        if self.scenario.recheck() {
            for at in 0..self.slots.len() {
                if self.slots[at].state == State::Open {
                    self.slots[at].enter(&mut self.context.wire);
                    self.read_done(at);
                }
            }
        }
    }

    fn publish(&mut self) {
        let pending = self.opening > 0 || self.fresh < self.slots.len();
        let progress = Progress {
            messages: self.context.stats.messages,
            open: self.open as u64,
            errors: self.context.stats.error_count(),
            settled: !pending,
            idle: !pending && self.open == 0 && !self.job.reopens,
        };
        self.control.publish(self.job.worker, progress);
    }

    fn finish(mut self) -> WorkerResult {
        let cpu = proc::thread_cpu_ns();
        self.read_clock();
        let (from, cpu_from) = self.measured_from.unwrap_or((self.context.now, cpu));
        let unanswered = self.scenario.finish(&mut self.context);
        let alive = self.open;
        for slot in &mut self.slots {
            slot.release(true, &mut self.context.wire);
        }
        WorkerResult {
            unanswered,
            alive,
            cpu_ns: cpu - cpu_from,
            measured_ns: self.context.now - from,
            stats: self.context.counters.stats,
        }
    }
}
