//! A run from beginning to end: starts the threads, takes them through the phases, measures around them.

use crate::control::{Control, Phase};
use crate::limits;
use crate::payload::Payloads;
use crate::plan::{self, Load, Mode, Plan};
use crate::proc;
use crate::progress::Line;
use crate::report::{Measurements, Report};
use crate::scenario::{Connect, Echo, Fanout, FanoutState, Idle, Listen, Publishers, Room, RoomState};
use crate::worker::{self, Job, WorkerResult};
use campanile::client::Trust;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Handshakes in flight, all threads together: below the accept queue of common servers.
pub(crate) const HANDSHAKES: usize = 256;

/// After the last handshake, before traffic or a reading of the server's memory: what a server does after its 101,
/// such as subscribing the connection, may still be on its way.
pub(crate) const SETTLE: Duration = Duration::from_millis(300);

/// How often the phases and the progress line are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(20);

/// More than what a message has besides its payload: the head of a frame, and in a room the request around it.
const OVERHEAD: usize = 128;

/// Bytes that wait to be written on one connection are not limited below this.
const MIN_UNWRITTEN: usize = 1 << 20;

/// What all workers of a run have in common.
struct Common {
    plan: Plan,
    to: SocketAddr,
    from: Vec<IpAddr>,
    payloads: Arc<Payloads>,
    fanout_state: Arc<FanoutState>,
    room_state: Arc<RoomState>,
    control: Arc<Control>,
    trust: Option<Trust>,
}

/// Runs a plan. The error is a sentence: it can't be run as asked.
pub(crate) fn run(plan: &Plan, interrupted: &AtomicBool) -> Result<Report, String> {
    let to = plan.target.resolve()?;
    let from = plan::sources(to.ip(), plan.conns, plan.sources)?;
    limits::allow_connections(plan.conns)?;
    let depth = if let Load::Closed(depth) = plan.load { depth } else { 64 };
    let senders = match plan.mode {
        Mode::Chat | Mode::Room { .. } => plan.conns,
        _ => 1,
    };
    let payloads = Payloads::new(plan.kind, plan.min_size, plan.max_size, &mut fastrand::Rng::new());
    let control = Arc::new(Control::new(plan.threads));
    let common = Arc::new(Common {
        plan: plan.clone(),
        to,
        from,
        payloads: Arc::new(payloads),
        fanout_state: Arc::new(FanoutState::new(senders, depth)),
        room_state: Arc::default(),
        control: Arc::clone(&control),
        // A load's clients stand for as many that come for the first time.
        trust: plan.trust()?.map(|trust| trust.without_resumption()),
    });
    let resident_before = proc::resident_bytes(&plan.pids);
    let mut threads = Vec::new();
    for worker in 0..plan.threads {
        let common = Arc::clone(&common);
        let thread = thread::Builder::new().name(format!("load-{worker}"));
        threads.push(thread.spawn(move || work(worker, &common)).map_err(|e| format!("no thread: {e}"))?);
    }
    let mut monitor = Monitor {
        line: Line::new(plan.conns, plan.mode.counts()),
        interrupted,
        plan,
        control: &control,
        measurements: Measurements { resident_before, ..Measurements::default() },
    };
    monitor.phases(&|| threads.iter().any(thread::JoinHandle::is_finished));
    monitor.line.end();
    let done: io::Result<Vec<WorkerResult>> = threads
        .into_iter()
        .map(|t| t.join().unwrap_or_else(|_| Err(io::Error::other("a thread of the load client panicked"))))
        .collect();
    Ok(Report::new(plan, done.map_err(|e| e.to_string())?, &monitor.measurements))
}

/// Returns the unwritten bytes that one connection may have.
///
/// In a closed loop a server that answers only what it has read leaves no more unwritten than is in flight. Where all
/// publish, other senders keep one going that the server does not read from, up to what all have in flight; a lost
/// receiver lets each sender publish once more. In the open loop a sender with a backlog is passed over.
fn max_unwritten(plan: &Plan) -> usize {
    let Load::Closed(depth) = plan.load else { return usize::MAX };
    let senders = match plan.mode {
        Mode::Chat | Mode::Room { .. } => plan.conns,
        _ => 1,
    };
    let each = (plan.max_size + OVERHEAD).saturating_mul(depth as usize);
    each.saturating_mul(2 * senders).max(MIN_UNWRITTEN)
}

/// One worker's thread.
fn work(worker: usize, common: &Common) -> io::Result<WorkerResult> {
    let plan = &common.plan;
    let threads = plan.threads;
    let numbers = (worker..plan.conns).step_by(threads);
    let connections = numbers.len();
    let numbers = numbers.map(|n| n as u32);
    let timeout_ns = plan.timeout.as_nanos() as u64;
    let (depth, rate) = match plan.load {
        Load::Closed(depth) => (Some(depth), None),
        Load::Open(rate) if plan.mode == Mode::Broadcast => (None, (worker == 0).then_some(rate)),
        Load::Open(rate) => (None, Some(rate * connections as f64 / plan.conns as f64)),
    };
    let in_flight = match plan.mode {
        Mode::Connect { .. } => plan.conns,
        _ => HANDSHAKES,
    };
    let mut limits = campanile::client::ClientLimits::default();
    // An echo that is longer than what was sent is to be seen as a mismatch, not as a limit.
    limits.max_message_size = plan.max_size.max(1 << 20) * 2;
    limits.max_fragments = u32::MAX;
    let job = Job {
        worker,
        connections,
        to: common.to,
        from: common.from.clone(),
        target: plan.target.clone(),
        extras: plan.extras.clone(),
        limits,
        trust: common.trust.clone(),
        handshakes: in_flight.div_ceil(threads),
        ramp: plan.ramp.map(|r| r / threads as f64),
        timeout_ns,
        max_unwritten: max_unwritten(plan),
        rate: rate.filter(|_| plan.mode.has_traffic()),
        raw_tcp: plan.target.raw_tcp.then_some(plan.max_size),
        reopens: matches!(plan.mode, Mode::Connect { .. }),
    };
    let control = Arc::clone(&common.control);
    let payloads = Arc::clone(&common.payloads);
    let fanout = |publishers, numbers| {
        let (fanout_state, control) = (Arc::clone(&common.fanout_state), Arc::clone(&common.control));
        let payloads = Arc::clone(&common.payloads);
        Fanout::new(
            payloads,
            fanout_state,
            control,
            worker,
            publishers,
            depth,
            timeout_ns,
            plan.conns,
            numbers,
        )
    };
    let result = match plan.mode {
        Mode::Echo => worker::run(job, control, Echo::new(payloads, depth, timeout_ns, numbers)),
        Mode::Broadcast => worker::run(job, control, fanout(Publishers::One, numbers)),
        Mode::Chat => worker::run(job, control, fanout(Publishers::All, numbers)),
        Mode::Room { ack } => {
            let (room_state, fanout_state) =
                (Arc::clone(&common.room_state), Arc::clone(&common.fanout_state));
            let room = Room::new(
                room_state,
                fanout_state,
                plan.max_size,
                ack,
                depth,
                timeout_ns,
                plan.conns,
                numbers,
            );
            worker::run(job, control, room)
        }
        Mode::Listen => worker::run(job, control, Listen::new(plan.first.clone(), connections)),
        // A storm has clients of its own.
        Mode::Idle | Mode::Storm => worker::run(job, control, Idle),
        Mode::Connect { clean } => worker::run(job, control, Connect { clean }),
    };
    // However it ended, the others are not to wait for it.
    common.control.enter(Phase::Ended);
    result
}

/// The thread that watches.
struct Monitor<'a> {
    line: Line,
    interrupted: &'a AtomicBool,
    plan: &'a Plan,
    control: &'a Control,
    measurements: Measurements,
}

impl Monitor<'_> {
    fn phases(&mut self, failed: &dyn Fn() -> bool) {
        let cycles = matches!(self.plan.mode, Mode::Connect { .. });
        let over = |w: &Self| w.is_over() || failed();
        if !cycles {
            while !self.control.progress().settled && !over(self) {
                self.tick(Duration::ZERO);
            }
            self.measurements.opening = Duration::from_nanos(self.control.settled_after());
            self.wait(SETTLE, &over);
            self.measurements.resident_after = proc::resident_bytes(&self.plan.pids);
        }
        let (mut cpu, mut from) = (proc::cpu_ns(&self.plan.pids), Instant::now());
        if !over(self) {
            self.control.enter(Phase::WarmUp);
            self.wait(self.plan.warmup, &over);
        }
        // A run that ends while warming up has been measured from there: better than no figures.
        if !over(self) {
            (cpu, from) = (proc::cpu_ns(&self.plan.pids), Instant::now());
            self.control.enter(Phase::Measuring);
            self.measurements.whole = self.wait(self.plan.duration, &over);
        }
        self.measurements.interrupted = self.interrupted.load(Relaxed);
        self.measurements.measured = from.elapsed();
        if self.plan.mode == Mode::Idle {
            // After a while of doing nothing, and before the connections go.
            self.measurements.resident_after = proc::resident_bytes(&self.plan.pids);
        }
        self.control.enter(Phase::Ended);
        self.measurements.server_cpu_ns = proc::cpu_ns(&self.plan.pids).saturating_sub(cpu);
        if cycles {
            self.measurements.opening = self.measurements.measured;
        }
    }

    fn is_over(&self) -> bool {
        self.interrupted.load(Relaxed) || self.control.phase() == Phase::Ended || self.control.progress().idle
    }

    /// True if nothing ended it before its time.
    fn wait(&mut self, time: Duration, over: &dyn Fn(&Self) -> bool) -> bool {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            if over(self) {
                return false;
            }
            self.tick(left);
        }
    }

    fn tick(&mut self, left: Duration) {
        let tick = if left.is_zero() { TICK } else { TICK.min(left) };
        thread::sleep(tick);
        self.line.show(self.control, left);
    }
}
