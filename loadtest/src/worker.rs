//! One thread's event loop: opens its share of the connections, moves their bytes, keeps their timeouts.
//!
//! A turn has these parts: phase, open, wait, sockets, schedule, sweep, publish. The clock is read once in a turn.
//! Sockets are registered once, edge-triggered; a read that does not fill the buffer has emptied the socket, which
//! saves the read that would say so.

use crate::connection::{Connection, Event, Failure, Wire};
use crate::control::{Control, Phase, Progress};
use crate::opening::Request;
use crate::pace::Pacer;
use crate::proc;
use crate::scenario::{Desk, Next, Scenario, Unanswered};
use crate::slot::{self, Slot, Spares, State, io_label};
use crate::stats::Stats;
use campanile::protocol::CloseCode;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Read at most in one call: larger than what the kernel queues for a small pipeline, small enough for the second
/// level cache.
const INPUT: usize = 256 << 10;

/// Events taken in one turn.
const EVENTS: usize = 1024;

/// Full reads of one connection before others have their turn.
const READS: usize = 16;

/// Open loop: a connection with more than this unwritten is passed over.
const MAX_WAITING: usize = 1 << 20;

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
    pub(crate) request: Arc<Request>,
    /// Handshakes in flight at most.
    pub(crate) handshakes: usize,
    /// Connections to begin per second at most.
    pub(crate) ramp: Option<f64>,
    pub(crate) timeout_ns: u64,
    /// Open loop: messages per second of this worker.
    pub(crate) rate: Option<f64>,
    /// The largest message that may come.
    pub(crate) max_message_size: usize,
    /// No WebSocket: the size of every message.
    pub(crate) bare: Option<usize>,
    /// Connections that have ended are opened again.
    pub(crate) reopens: bool,
}

/// What a worker has counted.
#[derive(Debug)]
pub(crate) struct Done {
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
    spares: Spares,
    desk: Desk,
    input: Vec<u8>,
    pacer: Option<Pacer>,
    phase: Phase,
    /// Slots that have not been opened for the first time begin here.
    fresh: usize,
    /// To be opened again, at once or after the next sweep.
    reopen: Vec<usize>,
    resting: Vec<usize>,
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

/// What a read brought.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Took {
    /// There may be more.
    Full,
    /// Less than there was room for: the socket is empty.
    All,
    /// Nothing.
    Blocked,
    /// There is no connection any more.
    Gone,
}

/// Runs a worker to the end of the run.
pub(crate) fn run<S: Scenario>(job: Job, control: Arc<Control>, scenario: S) -> io::Result<Done> {
    let poll = Poll::new()?;
    control.set_waker(job.worker, Waker::new(poll.registry(), WAKE)?);
    let pacer = job.rate.map(Pacer::new).transpose()?;
    if let Some(pacer) = &pacer {
        poll.registry().register(&mut SourceFd(&pacer.timer()), TIMER, Interest::READABLE)?;
    }
    let slots = std::iter::repeat_with(Slot::default).take(job.connections).collect();
    let now = control.now();
    let wire = job.bare.map_or_else(|| Wire::new(job.max_message_size, u32::MAX, false), Wire::bare);
    let worker = Worker {
        desk: Desk { wire, stats: Stats::default(), now, ending: false },
        poll,
        slots,
        spares: Spares::new(),
        input: vec![0; INPUT],
        pacer,
        phase: Phase::Opening,
        fresh: 0,
        reopen: Vec::new(),
        resting: Vec::new(),
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
fn open(at: usize, slot: &mut Slot, scenario: &mut impl Scenario, desk: &mut Desk, now: u64) -> Next {
    slot.state = State::Open;
    desk.stats.opened += 1;
    desk.stats.connect.saturating_record(now - slot.since);
    scenario.opened(at, desk)
}

impl<S: Scenario> Worker<S> {
    fn run(mut self) -> io::Result<Done> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            self.enter_phase();
            if self.phase == Phase::Ended {
                return Ok(self.finish());
            }
            self.open_more();
            match self.poll.poll(&mut events, Some(self.patience())) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(e),
                _ => {}
            }
            self.desk.now = self.control.now();
            for again in std::mem::take(&mut self.again) {
                // To the end: if that has come, its event has been seen.
                self.read(again, true);
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
            if let Some(at) = self.scenario.turn(&mut self.desk) {
                self.flush(at);
            }
            if self.desk.now >= self.sweep_at {
                self.sweep();
            }
            self.publish();
        }
    }

    fn enter_phase(&mut self) {
        let phase = self.control.phase();
        if phase == self.phase {
            return;
        }
        let before = std::mem::replace(&mut self.phase, phase);
        self.desk.now = self.control.now();
        if before < Phase::WarmUp && phase < Phase::Ended {
            if let Some(pacer) = &mut self.pacer {
                pacer.begin(self.desk.now, self.job.worker, self.control.workers());
            }
            for at in 0..self.slots.len() {
                if self.slots[at].state == State::Open {
                    self.scenario.start(at, &mut self.desk);
                    self.flush(at);
                }
            }
        }
        if before < Phase::Measuring && phase == Phase::Measuring {
            self.desk.stats.begin();
            self.measured_from = Some((self.desk.now, proc::thread_cpu_ns()));
        }
    }

    /// How long the next wait may be.
    fn patience(&self) -> Duration {
        let late =
            self.pacer.as_ref().is_some_and(|p| self.phase > Phase::Opening && p.next() <= self.desk.now);
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
        self.slots.iter().all(|s| s.state != State::Open || s.waiting() > MAX_WAITING)
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
        let now = self.control.now();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let stream = slot::connect(self.job.to, from).and_then(|mut stream| {
            self.poll.registry().register(&mut stream, Token(at), interest)?;
            Ok(stream)
        });
        let slot = &mut self.slots[at];
        slot.since = now;
        self.opening += 1;
        match stream {
            Ok(stream) => {
                slot.stream = Some(stream);
                slot.state = State::Connecting;
            }
            Err(e) => {
                slot.state = State::Connecting;
                self.lose(at, io_label(&e));
            }
        }
    }

    fn connected(&mut self, at: usize) {
        let Some(stream) = &self.slots[at].stream else { return };
        if let Some(e) = stream.take_error().unwrap_or_else(Some) {
            self.lose(at, io_label(&e));
            return;
        }
        let slot = &mut self.slots[at];
        if self.desk.wire.is_bare() {
            slot.connection = Connection::bare();
            let next = open(at, slot, &mut self.scenario, &mut self.desk, self.control.now());
            self.opened(at, next);
            return;
        }
        slot.state = State::Handshaking;
        slot.connection = Connection::open(&self.job.request, &mut self.desk.wire);
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
                slot.connection.close(code, &mut self.desk.wire);
                slot.state = State::Closing;
                self.flush(at);
            }
        }
    }

    // ---- sockets ----

    fn drive(&mut self, at: usize, readable: bool, writable: bool, read_closed: bool) {
        if self.slots[at].state == State::Connecting {
            if !writable && !read_closed {
                return;
            }
            self.connected(at);
            // A server that answers before it is asked: this edge is the only one to say so.
        } else if writable {
            let done = self.slots[at].unblock(&mut self.spares);
            if let Err(e) = done {
                self.lose(at, io_label(&e));
                return;
            }
        }
        if readable || read_closed {
            self.read(at, read_closed);
        }
    }

    /// Reads until the socket is empty, and sends what the scenario has to say to it in one write.
    fn read(&mut self, at: usize, to_the_end: bool) {
        let mut reads = 0;
        loop {
            match self.read_once(at) {
                Took::Gone => return,
                Took::Blocked => break,
                Took::All if !to_the_end => break,
                Took::All | Took::Full => {}
            }
            reads += 1;
            if reads == READS {
                self.again.push(at);
                break;
            }
        }
        self.scenario.read_done(at, &mut self.desk);
        self.flush(at);
    }

    #[inline]
    fn read_once(&mut self, at: usize) -> Took {
        let slot = &mut self.slots[at];
        let Some(stream) = &slot.stream else { return Took::Gone };
        let (n, room, direct) = match slot.connection.spare() {
            Some(spare) => (slot::read(stream, spare), spare.len(), true),
            None => (slot::read(stream, &mut self.input), self.input.len(), false),
        };
        let n = match n {
            Ok(0) => return self.end_of_stream(at),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Took::Blocked,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Took::Full,
            Err(e) => {
                self.lose(at, io_label(&e));
                return Took::Gone;
            }
        };
        let took = if n == room { Took::Full } else { Took::All };
        let (mut next, mut closed) = (None, None);
        let mut input = if direct { &mut [][..] } else { &mut self.input[..n] };
        let mut event = if direct { slot.connection.fill(n, &mut self.desk.wire) } else { Ok(None) };
        loop {
            match event {
                Ok(Some(Event::Message(kind, payload))) => {
                    self.scenario.message(at, kind, &payload, &mut self.desk);
                    self.desk.wire.recycle(payload);
                }
                Ok(Some(Event::Opened)) => {
                    let now = self.control.now();
                    next = Some(open(at, slot, &mut self.scenario, &mut self.desk, now));
                }
                Ok(Some(Event::Closed(code))) => closed = Some(code),
                Ok(None) => {}
                Err(failure) => {
                    self.fail(at, failure);
                    return Took::Gone;
                }
            }
            while let Some((kind, payload)) = slot.connection.whole_message(&mut input, &self.desk.wire) {
                self.scenario.message(at, kind, payload, &mut self.desk);
            }
            if input.is_empty() {
                break;
            }
            event = slot.connection.next(&mut input, &self.job.request, &mut self.desk.wire);
        }
        if let Some(next) = next {
            self.opened(at, next);
        }
        if let Some(code) = closed {
            return self.closed(at, code, took);
        }
        took
    }

    fn closed(&mut self, at: usize, code: Option<CloseCode>, took: Took) -> Took {
        if self.slots[at].state == State::Closing {
            // Section 7.1.1: the server ends the connection first, so the client waits for that.
            return took;
        }
        self.flush(at);
        let code = code.map_or_else(|| "without a code".into(), |c| c.to_string());
        self.lose(at, format!("closed by the server: {code}"));
        Took::Gone
    }

    fn end_of_stream(&mut self, at: usize) -> Took {
        let slot = &mut self.slots[at];
        if slot.state == State::Closing && slot.connection.is_over() {
            self.release(at, false);
            self.reopen.push(at);
        } else {
            let what = match slot.state {
                State::Handshaking => "closed during the handshake",
                _ => "closed without a close frame",
            };
            self.lose(at, what);
        }
        Took::Gone
    }

    fn fail(&mut self, at: usize, failure: Failure) {
        self.flush(at);
        self.lose(at, failure.to_string());
    }

    #[inline]
    fn flush(&mut self, at: usize) {
        if let Err(e) = self.slots[at].flush(&mut self.desk.wire.out, &mut self.spares) {
            self.desk.wire.out.clear();
            self.lose(at, io_label(&e));
        }
    }

    /// The connection ends here, by an error.
    fn lose(&mut self, at: usize, why: impl Into<String>) {
        match self.slots[at].state {
            State::Empty => return,
            State::Connecting | State::Handshaking => self.opening -= 1,
            State::Open => {
                self.open -= 1;
                self.desk.stats.lost += 1;
                if !self.scenario.lost(at, &mut self.desk) {
                    self.control.enter(Phase::Ended);
                }
            }
            State::Closing => {}
        }
        self.desk.stats.error(why, 1);
        self.release(at, true);
        if self.job.reopens {
            self.resting.push(at);
        }
    }

    fn release(&mut self, at: usize, hard: bool) {
        let slot = &mut self.slots[at];
        slot.drop_stream(hard, &mut self.spares);
        slot.connection.clear(&mut self.desk.wire);
    }

    // ---- schedule and timeouts ----

    fn follow_schedule(&mut self) -> io::Result<()> {
        if self.phase == Phase::Opening || self.pacer.is_none() {
            return Ok(());
        }
        while let Some(due) = self.pacer.as_ref().map(Pacer::next).filter(|&due| due <= self.desk.now) {
            let Some(at) = self.pick() else { break };
            self.scenario.due(at, due, &mut self.desk);
            let slot = &mut self.slots[at];
            slot.defer(&mut self.desk.wire.out);
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
            if slot.state == State::Open && slot.waiting() <= MAX_WAITING {
                return Some(at);
            }
        }
        None
    }

    fn sweep(&mut self) {
        self.sweep_at = self.desk.now + SWEEP_NS;
        self.reopen.append(&mut self.resting);
        for at in 0..self.slots.len() {
            let slot = &self.slots[at];
            let waited = self.desk.now.saturating_sub(slot.since);
            let why = match slot.state {
                State::Empty => continue,
                State::Open if self.scenario.overdue(at, self.desk.now) => "timeout: no answer",
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
                    self.scenario.read_done(at, &mut self.desk);
                    self.flush(at);
                }
            }
        }
    }

    fn publish(&mut self) {
        let pending = self.opening > 0 || self.fresh < self.slots.len();
        let progress = Progress {
            messages: self.desk.stats.messages,
            open: self.open as u64,
            errors: self.desk.stats.error_count(),
            settled: !pending,
            idle: !pending && self.open == 0 && !self.job.reopens,
        };
        self.control.publish(self.job.worker, progress);
    }

    fn finish(mut self) -> Done {
        let cpu = proc::thread_cpu_ns();
        self.desk.now = self.control.now();
        let (from, cpu_from) = self.measured_from.unwrap_or((self.desk.now, cpu));
        let unanswered = self.scenario.finish(&mut self.desk);
        let alive = self.open;
        for slot in &mut self.slots {
            slot.drop_stream(true, &mut self.spares);
        }
        Done {
            unanswered,
            alive,
            cpu_ns: cpu - cpu_from,
            measured_ns: self.desk.now - from,
            stats: self.desk.stats,
        }
    }
}
