//! Messages that everyone receives: `broadcast`, where connection 0 publishes, and `chat`, where all do.
//!
//! Each delivery is checked against what its sender has published and in which order. Latency runs from the time at
//! which the sender wrote a message (or was due to) to each of its deliveries; the [`Floor`] keeps these times.

use super::{Book, Desk, Scenario, Unanswered};
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
pub(crate) struct Floor {
    /// Connections that receive.
    live: AtomicI64,
    /// Deliveries of what one publisher has sent that have not come yet, on live connections.
    owed: AtomicI64,
    /// Messages that the one publisher has sent.
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

impl Floor {
    /// For so many senders, each with up to `depth` messages in flight.
    pub(crate) fn new(senders: usize, depth: u32) -> Self {
        let most = (RING_WORDS / senders.next_power_of_two()).max(2);
        let ring =
            (depth as usize * 8).next_power_of_two().clamp(2, most).max(if senders == 1 { 4096 } else { 2 });
        let sent_at = std::iter::repeat_with(AtomicU64::default).take(senders * ring).collect();
        Self { live: AtomicI64::new(0), owed: AtomicI64::new(0), published: AtomicU64::new(0), sent_at, ring }
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
    floor: Arc<Floor>,
    control: Arc<Control>,
    worker: usize,
    publishers: Publishers,
    /// Messages in flight per publisher; `None` in the open loop.
    depth: Option<u32>,
    timeout_ns: u64,
    seats: Vec<Seat>,
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
struct Seat {
    /// Its number in the run.
    sender: u32,
    /// The next message that it publishes.
    next: u32,
    /// Deliveries since it published last.
    got: i64,
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
        floor: Arc<Floor>,
        control: Arc<Control>,
        worker: usize,
        publishers: Publishers,
        depth: Option<u32>,
        timeout_ns: u64,
        all: usize,
        numbers: impl Iterator<Item = u32>,
    ) -> Self {
        let seats: Vec<_> = numbers.map(|sender| Seat { sender, ..Seat::default() }).collect();
        let senders = if publishers == Publishers::One { 1 } else { all };
        let keeps = seats.len().saturating_mul(senders) <= MAX_EXPECTED;
        let expected = if keeps { vec![0; seats.len() * senders] } else { Vec::new() };
        Self {
            payloads,
            floor,
            control,
            worker,
            publishers,
            depth,
            timeout_ns,
            seats,
            expected,
            senders,
            delivered: 0,
            last: 0,
            live: 0,
        }
    }

    fn publish(&mut self, at: usize, n: u32, since: u64, desk: &mut Desk) {
        let seat = &mut self.seats[at];
        for _ in 0..n {
            self.floor.sent(seat.sender, seat.next, since);
            desk.send(&self.payloads, seat.sender, seat.next);
            seat.next = seat.next.wrapping_add(1) & ((1 << 28) - 1);
        }
        if self.publishers == Publishers::One {
            self.floor.published.fetch_add(u64::from(n), Relaxed);
            self.floor.owed.fetch_add(i64::from(n) * self.floor.live.load(Relaxed), Relaxed);
        }
    }

    fn publishes(&self, at: usize) -> bool {
        self.publishers == Publishers::All || self.is_the_one(at)
    }

    fn is_the_one(&self, at: usize) -> bool {
        self.publishers == Publishers::One && self.worker == 0 && at == 0
    }

    /// Something else than the message that was expected next.
    #[cold]
    fn odd(&mut self, at: usize, verdict: Verdict, sender: u32, payload: &[u8], book: &mut Book) -> u32 {
        match verdict {
            Verdict::Gap(missing) => {
                book.stats.error("lost", u64::from(missing));
                missing + 1
            }
            Verdict::Again => {
                book.stats.error("repeated or out of order", 1);
                0
            }
            Verdict::Same | Verdict::Differs => {
                book.stats.error("mismatch", 1);
                let to = self.seats[at].sender;
                book.stats.example.get_or_insert_with(|| {
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
    fn opened(&mut self, at: usize, _book: &mut Book) -> super::Next {
        self.seats[at].open = true;
        self.floor.live.fetch_add(1, Relaxed);
        super::Next::Stay
    }

    fn start(&mut self, at: usize, desk: &mut Desk) {
        self.seats[at].started = true;
        self.last = desk.now;
        if let Some(depth) = self.depth
            && self.publishers == Publishers::All
        {
            let now = desk.now;
            self.publish(at, depth, now, desk);
        }
    }

    #[inline]
    fn message(&mut self, at: usize, kind: Kind, payload: &[u8], book: &mut Book) {
        let (mut sender, mut sequence) = (0, None);
        if self.publishers == Publishers::All {
            // Whose message this is, only its stamp can say.
            let Some((from, number)) = read_stamp(payload) else {
                let n = self.odd(at, Verdict::Differs, u32::MAX, payload, book);
                self.seats[at].got += i64::from(n);
                return;
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
            book.stats.messages += 1;
            book.stats.bytes += payload.len() as u64;
            if let Some(since) = self.floor.sent_at(sender, expected) {
                book.stats.took(book.now.saturating_sub(since), 1);
            }
            1
        } else {
            self.odd(at, verdict, sender, payload, book)
        };
        if let Some(n) = self.expected.get_mut(cell) {
            *n = n.wrapping_add(step) & ((1 << 28) - 1);
        }
        let seat = &mut self.seats[at];
        seat.got += i64::from(step);
        seat.total += u64::from(step);
        self.delivered += i64::from(step);
    }

    fn read_done(&mut self, at: usize, desk: &mut Desk) {
        if self.publishers == Publishers::One
            || self.depth.is_none()
            || desk.ending
            || !self.seats[at].started
        {
            return;
        }
        let live = self.floor.live.load(Relaxed).max(1);
        let rounds = self.seats[at].got / live;
        if rounds > 0 {
            self.seats[at].got -= rounds * live;
            let now = desk.now;
            self.publish(at, rounds as u32, now, desk);
        }
    }

    fn sender(&self, k: u64) -> usize {
        match self.publishers {
            Publishers::One => 0,
            Publishers::All => (k % self.seats.len() as u64) as usize,
        }
    }

    fn due(&mut self, at: usize, due: u64, desk: &mut Desk) {
        self.publish(at, 1, due, desk);
    }

    fn turn(&mut self, desk: &mut Desk) -> bool {
        let delivered = std::mem::take(&mut self.delivered);
        if delivered > 0 {
            self.last = desk.now;
        }
        if self.publishers == Publishers::All {
            return false;
        }
        let owed = if delivered > 0 {
            self.floor.owed.fetch_sub(delivered, Relaxed) - delivered
        } else {
            self.floor.owed.load(Relaxed)
        };
        let Some(depth) = self.depth.map(i64::from) else { return false };
        let live = self.floor.live.load(Relaxed);
        // A message is done when as many deliveries have come as it has receivers, whichever they were.
        let n = if live > 0 { (depth * live - owed) / live } else { 0 };
        if n <= 0 || desk.ending {
            return false;
        }
        if self.worker != 0 {
            if delivered > 0 {
                self.control.wake(0);
            }
            return false;
        }
        if !self.seats[0].started || !self.seats[0].open {
            return false;
        }
        let now = desk.now;
        self.publish(0, n.min(depth) as u32, now, desk);
        true
    }

    fn recheck(&mut self) -> bool {
        let live = self.floor.live.load(Relaxed);
        let fell = live < self.live;
        self.live = live;
        fell && self.publishers == Publishers::All
    }

    fn overdue(&self, at: usize, now: u64) -> bool {
        if self.depth.is_none() || !self.seats[at].started || !self.publishes(at) {
            return false;
        }
        let waits = self.publishers == Publishers::All || self.floor.owed.load(Relaxed) > 0;
        waits && now.saturating_sub(self.last) > self.timeout_ns
    }

    fn lost(&mut self, at: usize, _desk: &mut Desk) -> bool {
        let the_one = self.is_the_one(at);
        let seat = &mut self.seats[at];
        if std::mem::take(&mut seat.open) {
            self.floor.live.fetch_sub(1, Relaxed);
            if self.publishers == Publishers::One {
                // What it was still to receive is not owed any more.
                let missing = self.floor.published.load(Relaxed).saturating_sub(self.seats[at].total);
                self.floor.owed.fetch_sub(missing as i64, Relaxed);
            }
        }
        !the_one
    }

    fn finish(&mut self, desk: &mut Desk) -> Unanswered {
        let mut unanswered = Unanswered::default();
        if self.worker == 0 && self.publishers == Publishers::One {
            let owed = self.floor.owed.load(Relaxed).max(0) as u64;
            if owed > 0 {
                unanswered.add(owed, desk.now.saturating_sub(self.last));
            }
        }
        unanswered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_knows_the_times_of_the_last_messages_and_forgets_older_ones() {
        let floor = Floor::new(3, 4);
        floor.sent(2, 7, 64_000);
        assert_eq!(floor.sent_at(2, 7), Some(64_000));
        assert_eq!(floor.sent_at(1, 7), None);
        let ring = floor.ring as u32;
        floor.sent(2, 7 + ring, 128_000);
        assert_eq!((floor.sent_at(2, 7), floor.sent_at(2, 7 + ring)), (None, Some(128_000)));
        assert_eq!(floor.sent_at(9, 0), None, "a sender that there is not");
    }
}
