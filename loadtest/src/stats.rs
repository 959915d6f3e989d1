//! What one thread counts, and the sum of it.

use hdrhistogram::Histogram;
use std::collections::BTreeMap;

/// The longest latency that is told apart from longer ones: an hour.
const MAX_NS: u64 = 3_600_000_000_000;

/// Kinds of errors that are told apart, and characters of each: a server chooses some of them.
const MAX_KINDS: usize = 64;
const MAX_KIND_LEN: usize = 120;

/// Further kinds are counted together.
const OTHER_KINDS: &str = "of further kinds";

/// Counts and latencies.
#[derive(Debug)]
pub(crate) struct Stats {
    /// Messages that came back or were delivered, while measuring.
    pub(crate) messages: u64,
    /// Bytes of their payloads.
    pub(crate) bytes: u64,
    /// Messages sent, while measuring.
    pub(crate) sent: u64,
    /// Handshakes done, from the beginning.
    pub(crate) opened: u64,
    /// Connections closed by the server with a close frame or otherwise lost, from the beginning.
    pub(crate) lost: u64,
    /// Nanoseconds from sent (or due) to received.
    latency: Histogram<u64>,
    /// Nanoseconds from connect to open.
    pub(crate) connect: Histogram<u64>,
    /// Where nothing is asked for: nanoseconds between two deliveries of one connection, and messages of each.
    pub(crate) gaps: Histogram<u64>,
    pub(crate) per_connection: Vec<u64>,
    /// How often each kind of error happened, from the beginning.
    pub(crate) errors: BTreeMap<String, u64>,
    /// The first message that was not as expected, in words.
    pub(crate) example: Option<String>,
    /// Equal latencies in a row are recorded as one: a turn of the loop has one clock reading, so that whole batches
    /// share theirs.
    pending: (u64, u64),
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            messages: 0,
            bytes: 0,
            sent: 0,
            opened: 0,
            lost: 0,
            latency: histogram(),
            connect: histogram(),
            gaps: histogram(),
            per_connection: Vec::new(),
            errors: BTreeMap::new(),
            example: None,
            pending: (0, 0),
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_NS, 3).expect("constant bounds are valid")
}

impl Stats {
    /// `n` messages took `ns` nanoseconds each.
    #[inline]
    pub(crate) fn record_latency(&mut self, ns: u64, n: u64) {
        if self.pending.0 != ns {
            self.flush_pending();
            self.pending.0 = ns;
        }
        self.pending.1 += n;
    }

    fn flush_pending(&mut self) {
        if self.pending.1 > 0 {
            self.latency.saturating_record_n(self.pending.0, self.pending.1);
            self.pending.1 = 0;
        }
    }

    /// A message for this connection.
    #[inline]
    pub(crate) fn received(&mut self, at: usize) {
        self.track_connection(at);
        self.per_connection[at] += 1;
    }

    /// This connection could have received.
    #[inline]
    pub(crate) fn track_connection(&mut self, at: usize) {
        if self.per_connection.len() <= at {
            self.per_connection.resize(at + 1, 0);
        }
    }

    /// Nothing came for so long on a connection.
    #[inline]
    pub(crate) fn gap(&mut self, ns: u64) {
        self.gaps.saturating_record(ns);
    }

    /// Latencies, all of them.
    pub(crate) fn latency(&mut self) -> &Histogram<u64> {
        self.flush_pending();
        &self.latency
    }

    /// Counts `n` errors of a kind.
    #[cold]
    pub(crate) fn error(&mut self, kind: impl Into<String>, n: u64) {
        let kind: String = kind.into();
        let shown = kind.chars().take(MAX_KIND_LEN).map(|c| if c.is_control() { '?' } else { c });
        let mut kind: String = shown.collect();
        if self.errors.len() >= MAX_KINDS && !self.errors.contains_key(&kind) {
            kind = OTHER_KINDS.into();
        }
        let count = self.errors.entry(kind).or_default();
        *count = count.saturating_add(n);
    }

    /// Errors of all kinds.
    pub(crate) fn error_count(&self) -> u64 {
        self.errors.values().fold(0, |sum, &n| sum.saturating_add(n))
    }

    /// The measurement begins: what was counted while warming up is forgotten, errors and connects are not.
    pub(crate) fn begin(&mut self) {
        self.flush_pending();
        self.latency.reset();
        self.gaps.reset();
        self.per_connection.fill(0);
        (self.messages, self.bytes, self.sent) = (0, 0, 0);
    }

    /// Adds another thread's.
    pub(crate) fn add(&mut self, mut other: Self) {
        other.flush_pending();
        self.flush_pending();
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.sent += other.sent;
        self.opened += other.opened;
        self.lost += other.lost;
        // Both have the same bounds.
        let _ = self.latency.add(&other.latency);
        let _ = self.connect.add(&other.connect);
        let _ = self.gaps.add(&other.gaps);
        self.per_connection.append(&mut other.per_connection);
        for (kind, n) in other.errors {
            self.error(kind, n);
        }
        self.example = self.example.take().or(other.example);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_equal_latencies_count_each_message() {
        let mut s = Stats::default();
        for ns in [5, 5, 5, 900, 900, 5] {
            s.record_latency(ns, 2);
        }
        assert_eq!((s.latency().len(), s.latency().min(), s.latency().max()), (12, 5, 900));
        assert_eq!(s.latency().value_at_quantile(0.5), 5);
    }

    #[test]
    fn kinds_of_errors_that_a_server_chooses_are_bounded_and_printable() {
        let (mut a, mut b) = (Stats::default(), Stats::default());
        a.error("reset", 1);
        for n in 0..10_000 {
            a.error(format!("refused: {n}{}", "\u{1b}[2J".repeat(100)), 1);
            b.error(format!("refused: {}", n + 5_000), 1);
        }
        a.error("reset", 1);
        a.add(b);
        assert_eq!((a.errors.len(), a.errors["reset"], a.error_count()), (MAX_KINDS + 1, 2, 20_002));
        assert!(a.errors.keys().all(|kind| kind.len() <= MAX_KIND_LEN && !kind.contains('\u{1b}')));
    }

    #[test]
    fn stats_of_threads_are_added_without_the_warm_up() {
        let mut a = Stats { messages: 3, opened: 1, ..Stats::default() };
        a.record_latency(1, 1);
        a.error("reset", 1);
        a.begin();
        assert_eq!((a.messages, a.opened, a.error_count(), a.latency().len()), (0, 1, 1, 0));
        let mut b = Stats { messages: 4, ..Stats::default() };
        b.record_latency(10, 1);
        b.error("reset", 2);
        a.add(b);
        assert_eq!((a.messages, a.error_count(), a.latency().len()), (4, 3, 1));
    }
}
