//! Connections that only receive, from a server that pushes by itself: what comes is counted for each of them, and the
//! time between two deliveries. What it says is not known here, so nothing of it is checked but the protocol.

use super::{Counters, Scenario, ScenarioContext, Unanswered};
use campanile::protocol::{Kind, Opcode, mask};

/// One thread's connections.
#[derive(Debug)]
pub(crate) struct Listen {
    /// Sent once by each connection, such as a subscription.
    first: Option<String>,
    /// When each received last, or began; 0 before that.
    last_received: Vec<u64>,
}

impl Listen {
    pub(crate) fn new(first: Option<String>, connections: usize) -> Self {
        Self { first, last_received: vec![0; connections] }
    }
}

impl Scenario for Listen {
    fn start(&mut self, at: usize, context: &mut ScenarioContext) {
        self.last_received[at] = context.now;
        if let Some(text) = &self.first {
            context
                .wire
                .message(Opcode::Text, text.len(), |out, key| mask::copy(text.as_bytes(), out, key, 0));
            context.stats.sent += 1;
        }
    }

    #[inline]
    fn message(&mut self, at: usize, _kind: Kind, payload: &[u8], counters: &mut Counters) {
        counters.stats.messages += 1;
        counters.stats.bytes += payload.len() as u64;
        counters.stats.received(at);
        // Messages that came together are one delivery.
        if self.last_received[at] != counters.now {
            counters.stats.gap(counters.now.saturating_sub(self.last_received[at]));
            self.last_received[at] = counters.now;
        }
    }

    fn finish(&mut self, context: &mut ScenarioContext) -> Unanswered {
        for (at, &last_received) in self.last_received.iter().enumerate() {
            // A silence at the end is at least that long; left out, a server that stalls would look good.
            if last_received > 0 {
                let silence = context.now.saturating_sub(last_received);
                context.stats.gap(silence);
                context.stats.track_connection(at);
            }
        }
        Unanswered::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::Wire;

    #[test]
    fn deliveries_and_gaps_are_counted_per_connection() {
        let mut context = ScenarioContext {
            wire: Wire::new(false),
            counters: Counters { now: 1_000, ..Counters::default() },
        };
        let mut listen = Listen::new(Some("news".into()), 3);
        (0..2).for_each(|at| listen.start(at, &mut context));
        for (now, at) in [(1_500, 0), (1_500, 0), (2_500, 0), (9_000, 1)] {
            context.now = now;
            listen.message(at, Kind::Text, b"abc", &mut context);
        }
        context.now = 10_000;
        listen.finish(&mut context);
        assert_eq!((context.stats.messages, context.stats.bytes, context.stats.sent), (4, 12, 2));
        assert_eq!(context.stats.per_connection, [3, 1], "the third never opened");
        let gaps = &context.stats.gaps;
        assert_eq!((gaps.len(), gaps.min()), (5, 500));
        assert!(gaps.max().abs_diff(8_000) < 10, "{}", gaps.max());
    }
}
