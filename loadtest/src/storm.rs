//! A storm of reconnections: all connections are reset at once, and come back by themselves.
//!
//! These are whole [`Client`]s on a shared [`Pool`], so that what is measured is what a program's clients do: their
//! waits, their jitter, their tries. There is no bound on how many connect at a time; that is the point.

use crate::limits;
use crate::plan::{self, Plan, ReconnectOptions};
use crate::proc;
use crate::report::{Percentiles, group, time};
use crate::run::{HANDSHAKES, SETTLE, TICK};
use crate::slot::label;
use crate::stats::Stats;
use campanile::client::{Client, ClientBuilder, ClientEvent, ClientLimits, Pool, Reconnect};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What the clients have done.
#[derive(Debug, Default)]
struct StormStats {
    /// When they were dropped.
    dropped: Option<Instant>,
    /// Connections open for the first time, and again.
    opened: usize,
    returned: usize,
    /// Clients that have given up.
    gone: usize,
    /// When the last one came back.
    last: Option<Instant>,
    attempts: u64,
    /// Times from the drop to the return, and what tries failed of.
    stats: Stats,
}

/// What is counted once for each client, however often its server ends the connection.
#[derive(Debug, Default)]
struct ClientProgress {
    opened: bool,
    returned: bool,
}

fn lock(storm: &Mutex<StormStats>) -> MutexGuard<'_, StormStats> {
    storm.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StormStats {
    fn take(&mut self, client: &mut ClientProgress, event: &ClientEvent) {
        let now = Instant::now();
        match (event, self.dropped) {
            (ClientEvent::Open, None) if !mem::replace(&mut client.opened, true) => self.opened += 1,
            (ClientEvent::Open, Some(at)) if !mem::replace(&mut client.returned, true) => {
                self.returned += 1;
                self.last = Some(now);
                self.stats.record_latency(now.saturating_duration_since(at).as_nanos() as u64, 1);
            }
            (ClientEvent::Reconnecting { .. }, Some(_)) => self.attempts += 1,
            (ClientEvent::Close(close), _) if !close.will_reconnect => self.gone += 1,
            // What drops it is no failure.
            (ClientEvent::Error(e), _) if *e != Client::RESET => self.stats.error(label(e), 1),
            _ => {}
        }
    }
}

/// What became of it; `--json` writes it as it is.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    mode: &'static str,
    url: String,
    connections: usize,
    jitter: bool,
    initial_delay_ms: u64,
    max_delay_ms: u64,
    interrupted: bool,
    /// From the drop until the last was back; `None` if some were not.
    all_returned_ns: Option<u64>,
    returned: usize,
    return_ns: Option<Percentiles>,
    attempts: u64,
    failed_attempts: u64,
    server: Option<Server>,
    errors: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct Server {
    /// From the drop until all were back.
    cpu_ns: u64,
    cpu_ns_per_return: f64,
    cores: f64,
}

/// Runs a storm. The error is a sentence: it can't be run as asked.
pub(crate) fn run(plan: &Plan, how: ReconnectOptions, interrupted: &AtomicBool) -> Result<Report, String> {
    let to = plan.target.resolve()?;
    let from = plan::sources(to.ip(), plan.conns, plan.sources)?;
    limits::allow_connections(plan.conns)?;
    let pool = Pool::new(plan.threads).map_err(|e| e.to_string())?;
    // Those that return have tickets, as a program's clients have.
    let trust = plan.trust()?;
    let storm = Arc::new(Mutex::new(StormStats::default()));
    let mut clients = Vec::with_capacity(plan.conns);
    let over = |since: Instant| interrupted.load(Relaxed) || since.elapsed() > plan.duration;
    let began = Instant::now();
    while lock(&storm).opened < plan.conns {
        let begin = (lock(&storm).opened + HANDSHAKES).min(plan.conns);
        while clients.len() < begin {
            let source = from.get(clients.len() % from.len().max(1)).copied();
            let mut builder = builder(plan, how).pool(&pool);
            if let Some(trust) = &trust {
                builder = builder.trust(trust);
            }
            if let Some(ip) = source {
                builder = builder.local_address(ip);
            }
            let (storm, mut progress) = (Arc::clone(&storm), ClientProgress::default());
            let client = builder.connect_with(move |_, event| lock(&storm).take(&mut progress, &event));
            clients.push(client.map_err(|e| e.to_string())?);
        }
        if over(began) || lock(&storm).gone > 0 {
            let storm = lock(&storm);
            let why: Vec<_> = storm.stats.errors.iter().map(|(kind, n)| format!("{n} × {kind}")).collect();
            let (opened, conns) = (storm.opened, plan.conns);
            return Err(format!("only {opened} of {conns} connections opened: {}", why.join(", ")));
        }
        thread::sleep(TICK);
    }
    thread::sleep(SETTLE);

    let cpu = proc::cpu_ns(&plan.pids);
    let dropped = Instant::now();
    lock(&storm).dropped = Some(dropped);
    clients.iter().for_each(Client::reset);
    while !over(dropped) {
        let storm = lock(&storm);
        if storm.returned + storm.gone >= plan.conns {
            break;
        }
        drop(storm);
        // Short, since the server's CPU is read at the end of it.
        thread::sleep(Duration::from_millis(1));
    }
    let cpu = proc::cpu_ns(&plan.pids).saturating_sub(cpu);
    let elapsed = dropped.elapsed();
    let report = report(plan, how, &mut lock(&storm), interrupted.load(Relaxed), cpu, elapsed);
    for client in &clients {
        let _ = client.close(1000, ""); // a code that there is
    }
    Ok(report)
}

fn builder(plan: &Plan, how: ReconnectOptions) -> ClientBuilder {
    let mut limits = ClientLimits::default();
    (limits.connect_timeout, limits.handshake_timeout) = (plan.timeout, plan.timeout);
    let reconnect = Reconnect::default()
        .jitter(how.jitter)
        .initial_delay(how.initial_delay)
        .max_delay(how.max_delay)
        .stable_after(Duration::ZERO);
    let mut builder = Client::builder(&plan.target.url.to_string())
        .limits(limits)
        .reconnect(reconnect)
        .deflate(plan.extras.deflate);
    for name in &plan.extras.subprotocols {
        builder = builder.subprotocol(name);
    }
    for (name, value) in &plan.extras.headers {
        builder = builder.header(name, value);
    }
    if let Some(origin) = &plan.extras.origin {
        builder = builder.origin(origin);
    }
    builder
}

fn report(
    plan: &Plan,
    how: ReconnectOptions,
    storm: &mut StormStats,
    interrupted: bool,
    cpu_ns: u64,
    elapsed: Duration,
) -> Report {
    let return_ns = Percentiles::of(storm.stats.latency());
    let all_returned = storm.last.zip(storm.dropped).filter(|_| storm.returned == plan.conns);
    let missing = plan.conns - storm.returned.min(plan.conns);
    let mut errors = storm.stats.errors.clone();
    let failed_attempts = errors.values().sum();
    if missing > 0 {
        errors.insert("not back in time".into(), missing as u64);
    }
    Report {
        mode: plan.mode.name(),
        url: plan.target.to_string(),
        connections: plan.conns,
        jitter: how.jitter,
        initial_delay_ms: how.initial_delay.as_millis() as u64,
        max_delay_ms: how.max_delay.as_millis() as u64,
        interrupted,
        all_returned_ns: all_returned.map(|(last, at)| last.saturating_duration_since(at).as_nanos() as u64),
        returned: storm.returned,
        return_ns,
        attempts: storm.attempts,
        failed_attempts,
        server: (!plan.pids.is_empty()).then(|| Server {
            cpu_ns,
            cpu_ns_per_return: cpu_ns as f64 / storm.returned.max(1) as f64,
            cores: cpu_ns as f64 / elapsed.as_nanos().max(1) as f64,
        }),
        errors,
    }
}

impl Report {
    /// Whether all came back. Tries that failed on the way are what a storm is made of, and no errors.
    pub(crate) fn is_clean(&self) -> bool {
        self.all_returned_ns.is_some()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let jitter = if self.jitter { "with jitter" } else { "without jitter" };
        let n = group(self.connections as u64);
        let bound = |ms: u64| time(ms as f64 * 1e6);
        let (first, cap) = (bound(self.initial_delay_ms), bound(self.max_delay_ms));
        writeln!(
            f,
            "storm {} · {n} connections dropped at once · waits of {first} to {cap} {jitter}",
            self.url
        )?;
        let mut line = |name: &str, text: String| writeln!(f, "  {name:<12}{text}");
        match self.all_returned_ns {
            Some(ns) => line("all back", format!("after {}", time(ns as f64)))?,
            None => line("not back", format!("{} of {n}", group((self.connections - self.returned) as u64)))?,
        }
        if let Some(times) = &self.return_ns {
            line("back", times.to_string())?;
        }
        line("attempts", format!("{}   {} failed", group(self.attempts), group(self.failed_attempts)))?;
        for (kind, n) in &self.errors {
            line("", format!("{} × {kind}", group(*n)))?;
        }
        if let Some(server) = &self.server {
            let each = time(server.cpu_ns_per_return);
            line(
                "server CPU",
                format!("{}   {each} per return   {:.2} cores", time(server.cpu_ns as f64), server.cores),
            )?;
        }
        if self.interrupted {
            line("note", "interrupted; this is what was measured until then".into())?;
        }
        Ok(())
    }
}
