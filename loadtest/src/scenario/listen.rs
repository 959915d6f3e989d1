//! Connections that only receive, from a server that pushes by itself: what comes is counted for each of them, and the
//! time between two deliveries. What it says is not known here, so nothing of it is checked but the protocol.

use super::{Book, Desk, Scenario, Unanswered};
use campanile::protocol::{Kind, Opcode, mask};

/// One thread's connections.
#[derive(Debug)]
pub(crate) struct Listen {
    /// Sent once by each connection, such as a subscription.
    first: Option<String>,
    /// When each received last, or began; 0 before that.
    heard: Vec<u64>,
}

impl Listen {
    pub(crate) fn new(first: Option<String>, connections: usize) -> Self {
        Self { first, heard: vec![0; connections] }
    }
}

impl Scenario for Listen {
    fn start(&mut self, at: usize, desk: &mut Desk) {
        self.heard[at] = desk.now;
        if let Some(text) = &self.first {
            desk.wire.message(Opcode::Text, text.len(), |out, key| mask::copy(text.as_bytes(), out, key, 0));
            desk.stats.sent += 1;
        }
    }

    #[inline]
    fn message(&mut self, at: usize, _kind: Kind, payload: &[u8], book: &mut Book) {
        book.stats.messages += 1;
        book.stats.bytes += payload.len() as u64;
        book.stats.received(at);
        // Messages that came together are one delivery.
        if self.heard[at] != book.now {
            book.stats.gap(book.now.saturating_sub(self.heard[at]));
            self.heard[at] = book.now;
        }
    }

    fn finish(&mut self, desk: &mut Desk) -> Unanswered {
        for (at, &heard) in self.heard.iter().enumerate() {
            // A silence at the end is at least that long; left out, a server that stalls would look good.
            if heard > 0 {
                let silence = desk.now.saturating_sub(heard);
                desk.stats.gap(silence);
                desk.stats.listened(at);
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
    fn each_connection_has_its_count_and_its_gaps() {
        let mut desk = Desk { wire: Wire::new(false), book: Book { now: 1_000, ..Book::default() } };
        let mut listen = Listen::new(Some("news".into()), 3);
        (0..2).for_each(|at| listen.start(at, &mut desk));
        for (now, at) in [(1_500, 0), (1_500, 0), (2_500, 0), (9_000, 1)] {
            desk.now = now;
            listen.message(at, Kind::Text, b"abc", &mut desk);
        }
        desk.now = 10_000;
        listen.finish(&mut desk);
        assert_eq!((desk.stats.messages, desk.stats.bytes, desk.stats.sent), (4, 12, 2));
        assert_eq!(desk.stats.per_connection, [3, 1], "the third never opened");
        let gaps = &desk.stats.gaps;
        assert_eq!((gaps.len(), gaps.min()), (5, 500));
        assert!(gaps.max().abs_diff(8_000) < 10, "{}", gaps.max());
    }
}
