//! Messages that everyone receives: `broadcast`, where connection 0 publishes, and `chat`, where all do.
//!
//! Each delivery is checked against what its sender has published and in which order. Latency runs from the time at
//! which the sender wrote a message (or was due to) to each of its deliveries; the [`FanoutState`] keeps these times.

use super::{Counters, Scenario, ScenarioContext, UNSOLICITED, Unanswered};
use crate::control::Control;
use crate::payload::{Payloads, Verdict, read_stamp};
use campanile::protocol::Kind;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// Who publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Publishers {
    /// Connection 0 of the run.
    One,
    /// Every connection.
    All,
}

/// What all threads of such a run share.
#[derive(Debug)]
pub(crate) struct FanoutState {
    /// Connections that receive.
    live: AtomicI64,
    /// Deliveries of what one publisher has sent that have not come yet, on live connections.
    owed: AtomicI64,
    /// Messages that all publishers have sent: no receiver can have more deliveries.
    published: AtomicU64,
    /// When each sender's last few messages were sent: `ring` for each sender.
    sent_at: Vec<AtomicU64>,
    ring: usize,
}

/// A time in the ring: 24 bits of the sequence number, 40 bits of time in units of 64 ns (19 hours).
const TIME_BITS: u32 = 40;

/// Words for sending times: 8 MiB.
const RING_WORDS: usize = 1 << 20;

/// Sequence numbers expected from each sender by each receiver are kept up to this many in all: 64 MiB. Beyond that,
/// chat deliveries are compared byte by byte and not for their order.
const MAX_EXPECTED: usize = 1 << 24;

impl FanoutState {
    /// For so many senders, each with up to `depth` messages in flight.
    pub(crate) fn new(senders: usize, depth: u32) -> Self {
        let most = (RING_WORDS / senders.next_power_of_two()).max(2);
        let ring =
            (depth as usize * 8).next_power_of_two().clamp(2, most).max(if senders == 1 { 4096 } else { 2 });
        let sent_at = std::iter::repeat_with(AtomicU64::default).take(senders * ring).collect();
        Self { live: AtomicI64::new(0), owed: AtomicI64::new(0), published: AtomicU64::new(0), sent_at, ring }
    }

    /// Counts messages that are about to be written.
    pub(super) fn add_published(&self, n: u32) {
        self.published.fetch_add(u64::from(n), Relaxed);
    }

    /// How many messages have been published, by all.
    #[inline]
    pub(super) fn published(&self) -> u64 {
        self.published.load(Relaxed)
    }

    fn slot(&self, sender: u32, sequence: u32) -> Option<&AtomicU64> {
        self.sent_at.get(sender as usize * self.ring + sequence as usize % self.ring)
    }

    pub(super) fn sent(&self, sender: u32, sequence: u32, at: u64) {
        if let Some(slot) = self.slot(sender, sequence) {
            slot.store(u64::from(sequence) << TIME_BITS | at >> 6, Relaxed);
        }
    }

    /// When this message was sent, if that is still known.
    #[inline]
    pub(super) fn sent_at(&self, sender: u32, sequence: u32) -> Option<u64> {
        let word = self.slot(sender, sequence)?.load(Relaxed);
        (word >> TIME_BITS == u64::from(sequence) & ((1 << (64 - TIME_BITS)) - 1))
            .then_some((word & ((1 << TIME_BITS) - 1)) << 6)
    }
}

/// One thread's connections.
#[derive(Debug)]
pub(crate) struct Fanout {
    payloads: Arc<Payloads>,
    fanout_state: Arc<FanoutState>,
    control: Arc<Control>,
    worker: usize,
    publishers: Publishers,
    /// Messages in flight per publisher; `None` in the open loop.
    depth: Option<u32>,
    timeout_ns: u64,
    connections: Vec<ConnState>,
    /// The next sequence number that each receiver expects from each sender, receiver by receiver.
    expected: Vec<u32>,
    senders: usize,
    /// Deliveries in this turn.
    delivered: i64,
    /// When the last delivery came.
    last: u64,
    /// Receivers alive when last looked.
    live: i64,
}

/// One connection.
#[derive(Debug, Default)]
struct ConnState {
    /// Its number in the run.
    sender: u32,
    /// The next message that it publishes.
    next: u32,
    /// Deliveries since it published last.
    received: i64,
    /// Deliveries in all.
    total: u64,
    open: bool,
    started: bool,
}

impl Fanout {
    /// For connections with these numbers in the run, on the given worker.
    #[expect(clippy::too_many_arguments, reason = "called once, by the one who composes a run")]
    pub(crate) fn new(
        payloads: Arc<Payloads>,
        fanout_state: Arc<FanoutState>,
        control: Arc<Control>,
        worker: usize,
        publishers: Publishers,
        depth: Option<u32>,
        timeout_ns: u64,
        all: usize,
        numbers: impl Iterator<Item = u32>,
    ) -> Self {
        let connections: Vec<_> =
            numbers.map(|sender| ConnState { sender, ..ConnState::default() }).collect();
        let senders = if publishers == Publishers::One { 1 } else { all };
        let keeps = connections.len().saturating_mul(senders) <= MAX_EXPECTED;
        let expected = if keeps { vec![0; connections.len() * senders] } else { Vec::new() };
        Self {
            payloads,
            fanout_state,
            control,
            worker,
            publishers,
            depth,
            timeout_ns,
            connections,
            expected,
            senders,
            delivered: 0,
            last: 0,
            live: 0,
        }
    }

    fn publish(&mut self, at: usize, n: u32, since: u64, context: &mut ScenarioContext) {
        self.fanout_state.add_published(n);
        let conn = &mut self.connections[at];
        for _ in 0..n {
            self.fanout_state.sent(conn.sender, conn.next, since);
            context.send(&self.payloads, conn.sender, conn.next);
            conn.next = conn.next.wrapping_add(1) & ((1 << 28) - 1);
        }
        if self.publishers == Publishers::One {
            self.fanout_state.owed.fetch_add(i64::from(n) * self.fanout_state.live.load(Relaxed), Relaxed);
        }
    }

    fn publishes(&self, at: usize) -> bool {
        self.publishers == Publishers::All || self.is_the_one(at)
    }

    fn is_the_one(&self, at: usize) -> bool {
        self.publishers == Publishers::One && self.worker == 0 && at == 0
    }

    #[inline]
    fn add_deliveries(&mut self, at: usize, n: u32) {
        let conn = &mut self.connections[at];
        conn.received += i64::from(n);
        conn.total += u64::from(n);
        self.delivered += i64::from(n);
    }

    /// Counts a message that was not expected next; gives the deliveries that it stands for.
    #[cold]
    fn count_mismatch(
        &mut self,
        at: usize,
        verdict: Verdict,
        sender: u32,
        payload: &[u8],
        counters: &mut Counters,
    ) -> u32 {
        let left = self.fanout_state.published().saturating_sub(self.connections[at].total);
        match verdict {
            Verdict::Gap(missing) if u64::from(missing) < left => {
                counters.stats.error("lost", u64::from(missing));
                missing + 1
            }
            Verdict::Again => {
                counters.stats.error("repeated or out of order", 1);
                0
            }
            Verdict::Gap(_) | Verdict::Same | Verdict::Differs => {
                counters.stats.error("mismatch", 1);
                let to = self.connections[at].sender;
                counters.stats.example.get_or_insert_with(|| {
                    let start = payload[..payload.len().min(32)].escape_ascii();
                    let len = payload.len();
                    format!("connection {to}, from {sender}: {len} bytes, beginning with \"{start}\"")
                });
                1
            }
        }
    }
}

impl Scenario for Fanout {
    fn opened(&mut self, at: usize, _counters: &mut Counters) -> super::Next {
        self.connections[at].open = true;
        self.fanout_state.live.fetch_add(1, Relaxed);
        super::Next::Stay
    }

    fn start(&mut self, at: usize, context: &mut ScenarioContext) {
        self.connections[at].started = true;
        self.last = context.now;
        if let Some(depth) = self.depth
            && self.publishers == Publishers::All
        {
            let now = context.now;
            self.publish(at, depth, now, context);
        }
    }

    #[inline]
    fn message(&mut self, at: usize, kind: Kind, payload: &[u8], counters: &mut Counters) {
        let (mut sender, mut sequence) = (0, None);
        if self.publishers == Publishers::All {
            // Whose message this is, only its stamp can say.
            let Some((from, number)) = read_stamp(payload) else {
                let n = self.count_mismatch(at, Verdict::Differs, u32::MAX, payload, counters);
                return self.add_deliveries(at, n);
            };
            (sender, sequence) = (from, Some(number));
        }
        let cell = at * self.senders + sender as usize;
        let expected = match self.expected.get(cell) {
            Some(&n) if (sender as usize) < self.senders => n,
            // Too many to keep: the order is not checked, the bytes are.
            _ => sequence.unwrap_or(0),
        };
        let verdict = self.payloads.check(payload, sender, expected);
        let step = if verdict == Verdict::Same && kind == self.payloads.kind() {
            counters.stats.messages += 1;
            counters.stats.bytes += payload.len() as u64;
            if let Some(since) = self.fanout_state.sent_at(sender, expected) {
                counters.stats.record_latency(counters.now.saturating_sub(since), 1);
            }
            1
        } else {
            self.count_mismatch(at, verdict, sender, payload, counters)
        };
        if let Some(n) = self.expected.get_mut(cell) {
            *n = n.wrapping_add(step) & ((1 << 28) - 1);
        }
        self.add_deliveries(at, step);
    }

    fn read_done(&mut self, at: usize, context: &mut ScenarioContext) -> Result<(), &'static str> {
        if self.connections[at].total > self.fanout_state.published() {
            return Err(UNSOLICITED);
        }
        if self.publishers == Publishers::One
            || self.depth.is_none()
            || context.ending
            || !self.connections[at].started
        {
            return Ok(());
        }
        let live = self.fanout_state.live.load(Relaxed).max(1);
        let rounds = self.connections[at].received / live;
        if rounds > 0 {
            self.connections[at].received -= rounds * live;
            let now = context.now;
            self.publish(at, rounds as u32, now, context);
        }
        Ok(())
    }

    fn sender(&self, k: u64) -> usize {
        match self.publishers {
            Publishers::One => 0,
            Publishers::All => (k % self.connections.len() as u64) as usize,
        }
    }

    fn due(&mut self, at: usize, due: u64, context: &mut ScenarioContext) {
        self.publish(at, 1, due, context);
    }

    fn end_iteration(&mut self, context: &mut ScenarioContext) -> bool {
        let delivered = std::mem::take(&mut self.delivered);
        if delivered > 0 {
            self.last = context.now;
        }
        if self.publishers == Publishers::All {
            return false;
        }
        let owed = if delivered > 0 {
            self.fanout_state.owed.fetch_sub(delivered, Relaxed) - delivered
        } else {
            self.fanout_state.owed.load(Relaxed)
        };
        let Some(depth) = self.depth.map(i64::from) else { return false };
        let live = self.fanout_state.live.load(Relaxed);
        // A message is done when as many deliveries have come as it has receivers, whichever they were.
        let n = if live > 0 { (depth * live - owed) / live } else { 0 };
        if n <= 0 || context.ending {
            return false;
        }
        if self.worker != 0 {
            if delivered > 0 {
                self.control.wake(0);
            }
            return false;
        }
        if !self.connections[0].started || !self.connections[0].open {
            return false;
        }
        let now = context.now;
        self.publish(0, n.min(depth) as u32, now, context);
        true
    }

    fn recheck(&mut self) -> bool {
        let live = self.fanout_state.live.load(Relaxed);
        let fell = live < self.live;
        self.live = live;
        fell && self.publishers == Publishers::All
    }

    fn overdue(&self, at: usize, now: u64) -> bool {
        if self.depth.is_none() || !self.connections[at].started || !self.publishes(at) {
            return false;
        }
        let waits = self.publishers == Publishers::All || self.fanout_state.owed.load(Relaxed) > 0;
        waits && now.saturating_sub(self.last) > self.timeout_ns
    }

    fn lost(&mut self, at: usize, _context: &mut ScenarioContext) -> bool {
        let the_one = self.is_the_one(at);
        let conn = &mut self.connections[at];
        if std::mem::take(&mut conn.open) {
            self.fanout_state.live.fetch_sub(1, Relaxed);
            if self.publishers == Publishers::One {
                // What it was still to receive is not owed any more. What it received beyond that was nobody's.
                let missing = self.fanout_state.published() as i64 - self.connections[at].total as i64;
                self.fanout_state.owed.fetch_sub(missing, Relaxed);
            }
        }
        !the_one
    }

    fn finish(&mut self, context: &mut ScenarioContext) -> Unanswered {
        let mut unanswered = Unanswered::default();
        if self.worker == 0 && self.publishers == Publishers::One {
            let owed = self.fanout_state.owed.load(Relaxed).max(0) as u64;
            if owed > 0 {
                unanswered.add(owed, context.now.saturating_sub(self.last));
            }
        }
        unanswered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::Wire;

    /// `n` connections of one thread, open and started, with two messages in flight for each publisher.
    fn started(publishers: Publishers, n: u32) -> (Fanout, ScenarioContext) {
        let payloads = Arc::new(Payloads::new(Kind::Binary, 20, 20, &mut fastrand::Rng::with_seed(1)));
        let state = Arc::new(FanoutState::new(if publishers == Publishers::One { 1 } else { n as usize }, 2));
        let control = Arc::new(Control::new(1));
        let mut fanout =
            Fanout::new(payloads, state, control, 0, publishers, Some(2), 1_000, n as usize, 0..n);
        let mut context = ScenarioContext { wire: Wire::new(false), counters: Counters::default() };
        for at in 0..n as usize {
            fanout.opened(at, &mut context);
        }
        for at in 0..n as usize {
            fanout.start(at, &mut context);
        }
        fanout.end_iteration(&mut context);
        (fanout, context)
    }

    #[test]
    fn more_deliveries_than_were_published_end_the_connection_and_cause_no_messages() {
        for (publishers, published) in [(Publishers::One, 2), (Publishers::All, 6)] {
            // What the server sends instead: nothing that was sent, or a message of a number far ahead.
            for ahead in [None, Some(1 << 26)] {
                let (mut fanout, mut context) = started(publishers, 3);
                assert_eq!(context.stats.sent, published);
                for _ in 0..10_000 {
                    let mut payload = vec![7; 20];
                    if let Some(ahead) = ahead {
                        fanout.payloads.write(&mut payload, [0; 4], 0, ahead);
                    }
                    fanout.message(1, Kind::Binary, &payload, &mut context);
                }
                assert_eq!(fanout.read_done(1, &mut context), Err(UNSOLICITED));
                assert_eq!(context.stats.errors, [("mismatch".into(), 10_000)].into());
                fanout.lost(1, &mut context);
                // What remains is owed to the two others, whatever came.
                fanout.end_iteration(&mut context);
                assert_eq!((fanout.read_done(0, &mut context), context.stats.sent), (Ok(()), published));
                if publishers == Publishers::One {
                    assert_eq!(fanout.fanout_state.owed.load(Relaxed), 4);
                }
            }
        }
    }

    #[test]
    fn send_times_are_known_for_the_latest_messages_only() {
        let fanout_state = FanoutState::new(3, 4);
        fanout_state.sent(2, 7, 64_000);
        assert_eq!(fanout_state.sent_at(2, 7), Some(64_000));
        assert_eq!(fanout_state.sent_at(1, 7), None);
        let ring = fanout_state.ring as u32;
        fanout_state.sent(2, 7 + ring, 128_000);
        assert_eq!((fanout_state.sent_at(2, 7), fanout_state.sent_at(2, 7 + ring)), (None, Some(128_000)));
        assert_eq!(fanout_state.sent_at(9, 0), None, "a sender that there is not");
    }
}
