//! Every connection sends, and gets its own messages back in order.

use super::{Counters, Scenario, ScenarioContext, UNSOLICITED, Unanswered};
use crate::payload::{Payloads, Verdict};
use campanile::protocol::Kind;
use std::collections::VecDeque;
use std::sync::Arc;

/// One thread's connections.
#[derive(Debug)]
pub(crate) struct Echo {
    payloads: Arc<Payloads>,
    /// Messages in flight per connection; `None` in the open loop.
    depth: Option<u32>,
    timeout_ns: u64,
    connections: Vec<ConnState>,
}

/// One connection's messages in flight.
#[derive(Debug, Default)]
struct ConnState {
    /// Its number in the run.
    sender: u32,
    /// The next message to be sent, and the next to come back.
    next: u32,
    expected: u32,
    /// Came back in this read.
    back: u32,
    /// Something came back while nothing was in flight.
    unsolicited: bool,
    /// When those in flight were sent or due, and how many at that time.
    in_flight: VecDeque<(u64, u32)>,
}

impl Echo {
    /// For connections with these numbers in the run.
    pub(crate) fn new(
        payloads: Arc<Payloads>,
        depth: Option<u32>,
        timeout_ns: u64,
        senders: impl Iterator<Item = u32>,
    ) -> Self {
        let connections = senders.map(|sender| ConnState { sender, ..ConnState::default() }).collect();
        Self { payloads, depth, timeout_ns, connections }
    }

    fn send(&mut self, at: usize, n: u32, since: u64, context: &mut ScenarioContext) {
        let conn = &mut self.connections[at];
        for _ in 0..n {
            context.send(&self.payloads, conn.sender, conn.next);
            conn.next = conn.next.wrapping_add(1);
        }
        conn.in_flight.push_back((since, n));
    }
}

impl ConnState {
    /// Takes `n` answered messages out of those in flight.
    fn answered(&mut self, mut n: u32, counters: &mut Counters) {
        while n > 0 {
            let Some((since, left)) = self.in_flight.front_mut() else { return };
            let take = n.min(*left);
            counters.stats.record_latency(counters.now.saturating_sub(*since), u64::from(take));
            n -= take;
            *left -= take;
            if *left == 0 {
                self.in_flight.pop_front();
            }
        }
    }

    /// Counts a message that was not expected, and resynchronises where the stamp says how. It answers no more than is in
    /// flight: a server that sends without end gets nothing more for it.
    #[cold]
    fn count_mismatch(&mut self, verdict: Verdict, payload: &[u8], counters: &mut Counters) {
        let in_flight = self.next.wrapping_sub(self.expected);
        match verdict {
            Verdict::Again => counters.stats.error("repeated or out of order", 1),
            _ if in_flight == 0 => self.unsolicited = true,
            Verdict::Gap(missing) if missing < in_flight => {
                counters.stats.error("lost", u64::from(missing));
                self.expected = self.expected.wrapping_add(missing + 1);
                self.back += missing + 1;
            }
            Verdict::Gap(_) | Verdict::Same | Verdict::Differs => {
                counters.stats.error("mismatch", 1);
                counters.stats.example.get_or_insert_with(|| {
                    let start = payload[..payload.len().min(32)].escape_ascii();
                    let (sender, n) = (self.sender, self.expected);
                    format!(
                        "connection {sender}, message {n}: {len} bytes came back, beginning with \"{start}\"",
                        len = payload.len()
                    )
                });
                self.expected = self.expected.wrapping_add(1);
                self.back += 1;
            }
        }
    }
}

impl Scenario for Echo {
    fn start(&mut self, at: usize, context: &mut ScenarioContext) {
        if let Some(depth) = self.depth {
            let now = context.now;
            self.send(at, depth, now, context);
        }
    }

    #[inline]
    fn message(&mut self, at: usize, kind: Kind, payload: &[u8], counters: &mut Counters) {
        let conn = &mut self.connections[at];
        let verdict = self.payloads.check(payload, conn.sender, conn.expected);
        if verdict == Verdict::Same && kind == self.payloads.kind() && conn.expected != conn.next {
            conn.expected = conn.expected.wrapping_add(1);
            conn.back += 1;
            counters.stats.messages += 1;
            counters.stats.bytes += payload.len() as u64;
        } else {
            conn.count_mismatch(verdict, payload, counters);
        }
    }

    #[inline]
    fn read_done(&mut self, at: usize, context: &mut ScenarioContext) -> Result<(), &'static str> {
        let conn = &mut self.connections[at];
        let back = std::mem::take(&mut conn.back);
        if back > 0 {
            conn.answered(back, context);
        }
        if conn.unsolicited {
            return Err(UNSOLICITED);
        }
        if back > 0 && self.depth.is_some() && !context.ending {
            let now = context.now;
            self.send(at, back, now, context);
        }
        Ok(())
    }

    fn sender(&self, k: u64) -> usize {
        (k % self.connections.len() as u64) as usize
    }

    fn due(&mut self, at: usize, due: u64, context: &mut ScenarioContext) {
        self.send(at, 1, due, context);
    }

    fn overdue(&self, at: usize, now: u64) -> bool {
        let oldest = self.connections[at].in_flight.front();
        oldest.is_some_and(|&(since, _)| now.saturating_sub(since) > self.timeout_ns)
    }

    fn lost(&mut self, at: usize, context: &mut ScenarioContext) -> bool {
        let n: u64 = self.connections[at].in_flight.drain(..).map(|(_, n)| u64::from(n)).sum();
        if n > 0 {
            context.stats.error("unanswered on a lost connection", n);
        }
        true
    }

    fn finish(&mut self, context: &mut ScenarioContext) -> Unanswered {
        let mut unanswered = Unanswered::default();
        for &(since, n) in self.connections.iter().flat_map(|conn| &conn.in_flight) {
            let age = context.now.saturating_sub(since);
            unanswered.add(u64::from(n), age);
            // Open loop: they have taken at least so long. Left out, a server that stalls to the end would look good.
            if self.depth.is_none() {
                context.stats.record_latency(age, u64::from(n));
            }
        }
        unanswered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::Wire;

    fn context() -> ScenarioContext {
        ScenarioContext { wire: Wire::new(false), counters: Counters { now: 100, ..Counters::default() } }
    }

    fn echo(depth: Option<u32>) -> Echo {
        let payloads = Arc::new(Payloads::new(Kind::Binary, 20, 20, &mut fastrand::Rng::with_seed(1)));
        Echo::new(payloads, depth, 1_000, 0..1)
    }

    fn payload(e: &Echo, sequence: u32) -> Vec<u8> {
        let mut out = vec![0; e.payloads.len(0, sequence)];
        e.payloads.write(&mut out, [0; 4], 0, sequence);
        out
    }

    #[test]
    fn received_messages_are_counted_and_replaced_by_new_ones() {
        let (mut e, mut d) = (echo(Some(4)), context());
        e.start(0, &mut d);
        assert_eq!(d.stats.sent, 4);
        d.now = 350;
        for i in 0..3 {
            e.message(0, Kind::Binary, &payload(&e, i), &mut d);
        }
        assert_eq!(e.read_done(0, &mut d), Ok(()));
        assert_eq!((d.stats.messages, d.stats.bytes, d.stats.sent, d.stats.error_count()), (3, 60, 7, 0));
        assert_eq!((d.stats.latency().len(), d.stats.latency().max()), (3, 250));
        assert!(!e.overdue(0, 1_100) && e.overdue(0, 1_101));
    }

    #[test]
    fn a_wrong_kind_a_gap_and_an_extra_message_are_errors() {
        let (mut e, mut d) = (echo(Some(3)), context());
        e.start(0, &mut d);
        e.message(0, Kind::Text, &payload(&e, 0), &mut d);
        e.message(0, Kind::Binary, &payload(&e, 2), &mut d);
        assert_eq!(d.stats.errors, [("lost".into(), 1), ("mismatch".into(), 1)].into());
        d.ending = true;
        assert_eq!(e.read_done(0, &mut d), Ok(()));
        assert_eq!(d.stats.sent, 3, "nothing new while ending");
        e.message(0, Kind::Binary, &payload(&e, 3), &mut d);
        assert_eq!(e.read_done(0, &mut d), Err(UNSOLICITED));
        assert_eq!(d.stats.messages, 0);
    }

    #[test]
    fn more_echoes_than_are_in_flight_end_the_connection_and_cause_no_messages() {
        // What the server sends instead: right, wrong, and far ahead.
        let answers: [fn(&Echo, u32) -> Vec<u8>; 3] =
            [payload, |_, _| vec![7; 9], |e, n| payload(e, n.wrapping_add(1 << 26))];
        for answer in answers {
            for (depth, size) in [(1, 20), (8, 20), (8, 0)] {
                let payloads = Payloads::new(Kind::Binary, size, size, &mut fastrand::Rng::with_seed(1));
                let mut e = Echo::new(Arc::new(payloads), Some(depth), 1_000, 0..1);
                let mut d = context();
                e.start(0, &mut d);
                for n in 0..10_000 {
                    e.message(0, Kind::Binary, &answer(&e, n), &mut d);
                }
                assert_eq!(e.read_done(0, &mut d), Err(UNSOLICITED));
                assert_eq!((d.stats.sent, d.stats.latency().len()), (u64::from(depth), u64::from(depth)));
                assert!(d.stats.messages + d.stats.error_count() == u64::from(depth), "{:?}", d.stats.errors);
            }
        }
    }

    #[test]
    fn open_loop_latency_counts_from_when_a_message_was_due() {
        let (mut e, mut d) = (echo(None), context());
        d.now = 5_000;
        e.due(0, 1_000, &mut d);
        e.due(0, 2_000, &mut d);
        d.now = 6_000;
        e.message(0, Kind::Binary, &payload(&e, 0), &mut d);
        assert_eq!(e.read_done(0, &mut d), Ok(()));
        assert_eq!((d.stats.latency().max() / 10, d.stats.sent), (500, 2));
        d.now = 12_000;
        assert_eq!(e.finish(&mut d), Unanswered { count: 1, oldest_ns: 10_000 });
        assert_eq!(d.stats.latency().len(), 2, "the unanswered one is in it");
    }
}
