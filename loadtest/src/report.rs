//! What a run has shown, for people and for scripts.

use crate::plan::{Load, Plan};
use crate::worker::WorkerResult;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

/// A client thread that was busy for this share of the time was the bottleneck, or next to it.
const SATURATED: f64 = 0.97;

/// The whole report; `--json` writes it as it is. Times are in nanoseconds where the name says so.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    mode: &'static str,
    url: String,
    /// What was asked for, in words.
    load: String,
    /// What `messages` counts: messages, deliveries or handshakes.
    counted: &'static str,
    /// How long was measured.
    seconds: f64,
    interrupted: bool,
    /// It ended before its time, by Ctrl-C or because no connection was left: the rates are of what there was.
    aborted: bool,
    connections: Connections,
    messages: u64,
    messages_per_second: f64,
    bytes_per_second: f64,
    /// Messages sent while measuring.
    sent: u64,
    unanswered: u64,
    oldest_unanswered_ns: u64,
    latency_ns: Option<Percentiles>,
    connect_ns: Option<Percentiles>,
    /// listen: messages of each connection, and the time between two deliveries of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    per_connection: Option<Spread>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gaps_ns: Option<Percentiles>,
    server: Option<Server>,
    client: Client,
    errors: BTreeMap<String, u64>,
    /// The first message that was not as expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    mismatch: Option<String>,
}

#[derive(Debug, Serialize)]
struct Connections {
    asked: usize,
    opened: u64,
    /// Lost after they had opened.
    lost: u64,
    alive_at_end: usize,
    /// Opened per second, from the first to the last.
    opened_per_second: f64,
}

#[derive(Debug, Serialize)]
struct Spread {
    min: u64,
    median: u64,
    mean: f64,
    max: u64,
    /// Connections that received nothing.
    silent: usize,
}

impl Spread {
    fn of(mut counts: Vec<u64>) -> Option<Self> {
        counts.sort_unstable();
        Some(Self {
            min: *counts.first()?,
            median: counts[counts.len() / 2],
            mean: counts.iter().sum::<u64>() as f64 / counts.len() as f64,
            max: *counts.last()?,
            silent: counts.iter().filter(|&&n| n == 0).count(),
        })
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Percentiles {
    count: u64,
    min: u64,
    mean: f64,
    p50: u64,
    p90: u64,
    p99: u64,
    p99_9: u64,
    max: u64,
}

#[derive(Debug, Serialize)]
struct Server {
    cpu_ns_per_message: Option<f64>,
    /// CPU time per second.
    cores: f64,
    bytes_per_connection: Option<f64>,
    resident_bytes_before: u64,
    resident_bytes_after: u64,
}

#[derive(Debug, Serialize)]
struct Client {
    cpu_ns_per_message: Option<f64>,
    cores: f64,
    /// Some thread had no time left: the server may be faster than this.
    saturated: bool,
}

/// What the one who watched the run has measured around it.
#[derive(Debug, Default)]
pub(crate) struct Measurements {
    pub(crate) measured: Duration,
    pub(crate) opening: Duration,
    pub(crate) interrupted: bool,
    /// Measured for as long as was asked.
    pub(crate) whole: bool,
    pub(crate) server_cpu_ns: u64,
    pub(crate) resident_before: u64,
    pub(crate) resident_after: u64,
}

impl Report {
    /// Puts together what the threads and the watcher have counted.
    pub(crate) fn new(plan: &Plan, done: Vec<WorkerResult>, measurements: &Measurements) -> Self {
        let mut stats = crate::stats::Stats::default();
        let (mut unanswered, mut alive, mut cpu_ns, mut saturated) =
            (crate::scenario::Unanswered::default(), 0, 0, false);
        for d in done {
            saturated |= d.measured_ns > 0 && d.cpu_ns as f64 / d.measured_ns as f64 >= SATURATED;
            cpu_ns += d.cpu_ns;
            alive += d.alive;
            unanswered.add(d.unanswered.count, d.unanswered.oldest_ns);
            stats.add(d.stats);
        }
        let seconds = measurements.measured.as_secs_f64();
        let per_second = |n: f64| if seconds > 0.0 { n / seconds } else { 0.0 };
        let per_message = |ns: u64| (stats.messages > 0).then(|| ns as f64 / stats.messages as f64);
        let server = (!plan.pids.is_empty()).then(|| {
            let grown = measurements.resident_after.saturating_sub(measurements.resident_before);
            let held = if matches!(plan.mode, crate::plan::Mode::Connect { .. }) { 0 } else { stats.opened };
            Server {
                cpu_ns_per_message: per_message(measurements.server_cpu_ns),
                cores: per_second(measurements.server_cpu_ns as f64 / 1e9),
                bytes_per_connection: (held > 0).then(|| grown as f64 / held as f64),
                resident_bytes_before: measurements.resident_before,
                resident_bytes_after: measurements.resident_after,
            }
        });
        let opening = measurements.opening.as_secs_f64();
        Self {
            mode: plan.mode.name(),
            url: plan.target.to_string(),
            load: describe(plan),
            counted: plan.mode.counts(),
            seconds,
            interrupted: measurements.interrupted,
            aborted: !measurements.whole,
            connections: Connections {
                asked: plan.conns,
                opened: stats.opened,
                lost: stats.lost,
                alive_at_end: alive,
                opened_per_second: if opening > 0.0 { stats.opened as f64 / opening } else { 0.0 },
            },
            messages: stats.messages,
            messages_per_second: per_second(stats.messages as f64),
            bytes_per_second: per_second(stats.bytes as f64),
            sent: stats.sent,
            unanswered: unanswered.count,
            oldest_unanswered_ns: unanswered.oldest_ns,
            server,
            client: Client {
                cpu_ns_per_message: per_message(cpu_ns),
                cores: per_second(cpu_ns as f64 / 1e9),
                saturated,
            },
            connect_ns: Percentiles::of(&stats.connect),
            latency_ns: Percentiles::of(stats.latency()),
            per_connection: Spread::of(stats.per_connection),
            gaps_ns: Percentiles::of(&stats.gaps),
            errors: stats.errors,
            mismatch: stats.example,
        }
    }

    /// Whether nothing went wrong.
    pub(crate) fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }
}

impl Percentiles {
    pub(crate) fn of(h: &Histogram<u64>) -> Option<Self> {
        // A bucket's name may be a little above the largest value in it.
        let at = |q| h.value_at_quantile(q).min(h.max());
        (!h.is_empty()).then(|| Self {
            count: h.len(),
            min: h.min(),
            mean: h.mean(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: h.max(),
        })
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, ns) in [("p50", self.p50), ("p90", self.p90), ("p99", self.p99), ("p99.9", self.p99_9)] {
            write!(f, "{name} {:<11}", time(ns as f64))?;
        }
        write!(f, "max {}", time(self.max as f64))
    }
}

fn describe(plan: &Plan) -> String {
    let mut text = format!("{} connections", group(plan.conns as u64));
    if plan.mode.has_traffic() {
        let size = match (plan.min_size, plan.max_size) {
            (min, max) if min == max => group(min as u64),
            (min, max) => format!("{} to {}", group(min as u64), group(max as u64)),
        };
        let kind = format!("{:?}", plan.kind).to_lowercase();
        let _ = write!(text, ", {size} bytes {kind}");
        let _ = match plan.load {
            Load::Closed(depth) => write!(text, ", depth {depth}"),
            Load::Open(rate) => write!(text, ", {} messages/s due", group(rate.round() as u64)),
        };
    }
    if plan.extras.deflate.is_on() {
        text.push_str(", deflate");
    }
    text
}

/// Three significant digits and a unit.
pub(crate) fn time(ns: f64) -> String {
    match ns {
        n if n < 1e3 => format!("{n:.0} ns"),
        n if n < 1e6 => figure(n / 1e3, "µs"),
        n if n < 1e9 => figure(n / 1e6, "ms"),
        n => figure(n / 1e9, "s"),
    }
}

fn figure(x: f64, unit: &str) -> String {
    let decimals = if x < 9.995 { 2 } else { usize::from(x < 99.95) };
    format!("{x:.decimals$} {unit}")
}

/// Thousands set apart.
pub(crate) fn group(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} · {} · {:.1} s", self.mode, self.url, self.load, self.seconds)?;
        let mut line = |name: &str, text: String| writeln!(f, "  {name:<12}{text}");
        let c = &self.connections;
        if self.mode != "idle" || self.messages > 0 {
            let rate = group(self.messages_per_second.round() as u64);
            let mut text = format!("{rate}/s   {} in all", group(self.messages));
            if self.bytes_per_second > 0.0 {
                let _ = write!(text, "   {} MB/s", group_decimal(self.bytes_per_second / 1e6));
            }
            line(self.counted, text)?;
        }
        if self.sent > 0 && self.counted == "deliveries" {
            line(
                "published",
                format!("{}/s", group((self.sent as f64 / self.seconds.max(1e-9)).round() as u64)),
            )?;
        }
        if let Some(latency) = &self.latency_ns {
            line("latency", latency.to_string())?;
        }
        if let Some(connect) = &self.connect_ns {
            line("connect", connect.to_string())?;
        }
        if self.mode != "connect" {
            let alive = group(c.alive_at_end as u64);
            let (asked, rate) = (group(c.asked as u64), group(c.opened_per_second.round() as u64));
            line("open", format!("{alive} of {asked} at the end   opened at {rate}/s"))?;
        }
        if let Some(each) = &self.per_connection {
            let [min, median, max] = [each.min, each.median, each.max].map(group);
            let silent = if each.silent > 0 {
                format!("   {} silent", group(each.silent as u64))
            } else {
                String::new()
            };
            line("each", format!("min {min}   median {median}   max {max}{silent}"))?;
        }
        if let Some(gaps) = &self.gaps_ns {
            line("gaps", gaps.to_string())?;
        }
        if self.unanswered > 0 {
            let oldest = time(self.oldest_unanswered_ns as f64);
            line("in flight", format!("{} at the end, the oldest {oldest} old", group(self.unanswered)))?;
        }
        let one = self.counted.trim_end_matches('s').replace("deliverie", "delivery");
        let cpu = |ns: Option<f64>, cores: f64| match ns {
            Some(ns) => format!("{} ns per {one}   {cores:.2} cores", group(ns.round() as u64)),
            None => format!("{cores:.2} cores"),
        };
        if let Some(server) = &self.server {
            line("server CPU", cpu(server.cpu_ns_per_message, server.cores))?;
            if let Some(bytes) = server.bytes_per_connection {
                line("memory", format!("{} bytes per connection", group(bytes.round() as u64)))?;
            }
        }
        line("client CPU", cpu(self.client.cpu_ns_per_message, self.client.cores))?;
        if self.client.saturated {
            line(
                "warning",
                "the client was at 100 % of a core: it, not the server, may be the limit (--threads)".into(),
            )?;
        }
        if self.interrupted {
            line("note", "interrupted; this is what was measured until then".into())?;
        } else if self.aborted {
            line("note", "ended before its time; this is what was measured until then".into())?;
        }
        if self.errors.is_empty() {
            line("errors", "none".into())?;
        }
        for (i, (kind, n)) in self.errors.iter().enumerate() {
            line(if i == 0 { "errors" } else { "" }, format!("{} × {kind}", group(*n)))?;
        }
        if let Some(example) = &self.mismatch {
            line("", format!("first: {example}"))?;
        }
        Ok(())
    }
}

fn group_decimal(x: f64) -> String {
    if x < 100.0 { format!("{x:.2}") } else { group(x.round() as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([group(7), group(1_000), group(1_234_567)], ["7", "1,000", "1,234,567"]);
        assert_eq!(
            [time(999.0), time(1_500.0), time(99_960.0), time(123e6), time(2.5e9)],
            ["999 ns", "1.50 µs", "100 µs", "123 ms", "2.50 s"]
        );
    }

    #[test]
    fn percentiles_never_exceed_the_largest_value() {
        let mut h = Histogram::new(3).unwrap();
        assert!(Percentiles::of(&h).is_none());
        h.record(1_000_003).unwrap();
        let p = Percentiles::of(&h).unwrap();
        assert!(p.p50 <= p.p99_9 && p.p99_9 <= p.max && p.count == 1);
    }
}
