//! How the publishers of one topic share its rate, so that none can use up another's share.
//!
//! All connections have one common bucket with the topic's rate and burst: while it has a token, any connection may
//! take it. When it is empty, each connection has a share of its own: with `n` connections that publish, and one part
//! for new ones, an equal part of rate and burst. Tokens of a share are charged to the common bucket too, so the sum
//! stays at the topic's rate. The program (its handles, the API) is no client and has its own bucket.
//!
//! So a connection that publishes no faster than `rate / (n + 1)` is never refused, whatever others do, and unused
//! tokens are available to all.

use crate::conn::ConnId;
use crate::sync::rate::{Nanos, Rate};
use foldhash::fast::RandomState;
use std::collections::HashMap;

/// Connections of a topic that have a share. Others use the part for new ones.
pub(crate) const MAX_SHARES: usize = 1024;

/// A connection that has published nothing for this long loses its share, and is new when it publishes again.
const MAX_IDLE: Nanos = 30_000_000_000;

/// How often idle connections are removed, which scans all of them.
const EXPIRY_INTERVAL: Nanos = 1_000_000_000;

/// The state of a topic's rate for its publishers. At most 24 bytes for each of [`MAX_SHARES`] connections, and their
/// table.
#[derive(Debug, Default)]
pub(crate) struct PublisherShares {
    program: Nanos,
    clients: Nanos,
    newcomers: Nanos,
    by_conn: HashMap<ConnId, PublisherShare, RandomState>,
    last_expiry: Nanos,
}

#[derive(Debug)]
struct PublisherShare {
    tat: Nanos,
    /// When the connection last published.
    last_seen: Nanos,
}

impl PublisherShares {
    /// Takes a token for a publication of this connection, or of the program.
    ///
    /// # Errors
    /// No share is free for this publisher: the time until one is.
    pub(crate) fn take(&mut self, rate: Rate, publisher: Option<ConnId>, now: Nanos) -> Result<(), Nanos> {
        let Some(conn) = publisher else { return rate.take(&mut self.program, now) };
        self.expire(now);
        let known = self.by_conn.contains_key(&conn);
        let is_new = !known && self.by_conn.len() < MAX_SHARES;
        let part = rate.share(self.by_conn.len() as u64 + u64::from(is_new) + 1);
        let common = rate.take(&mut self.clients, now);
        if is_new {
            // While there are no tokens, a new connection begins with an empty share: connections that come and go
            // would have a full one each time.
            let tat = if common.is_ok() { now } else { part.empty(now) };
            self.by_conn.insert(conn, PublisherShare { tat, last_seen: now });
        }
        let share = self.by_conn.get_mut(&conn);
        let own = match share {
            Some(share) => {
                share.last_seen = now;
                &mut share.tat
            }
            None => &mut self.newcomers,
        };
        let Err(early) = common else { return Ok(()) };
        let taken = part.take(own, now).or_else(|own| match known {
            true => Err(own),
            false => part.take(&mut self.newcomers, now).map_err(|part| own.min(part)),
        });
        match taken {
            Ok(()) => {
                rate.charge(&mut self.clients, now, 1);
                Ok(())
            }
            Err(own) => Err(early.min(own)),
        }
    }

    /// Returns until when the state matters.
    pub(crate) fn tat(&self) -> Nanos {
        self.program.max(self.clients)
    }

    /// Removes connections that have not published for a while. Scans at an interval.
    pub(crate) fn expire(&mut self, now: Nanos) {
        if now < self.last_expiry + EXPIRY_INTERVAL || self.by_conn.is_empty() {
            return;
        }
        self.last_expiry = now;
        self.by_conn.retain(|_, share| share.last_seen + MAX_IDLE > now);
        if self.by_conn.capacity() > 4 * self.by_conn.len() + 16 {
            self.by_conn.shrink_to_fit();
        }
    }

    #[cfg(test)]
    pub(crate) fn connections(&self) -> usize {
        self.by_conn.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Nanos = 1_000_000_000;

    fn client(n: usize) -> Option<ConnId> {
        Some(ConnId::new(0, n, 1))
    }

    #[test]
    fn a_single_client_has_the_whole_rate() {
        let (rate, mut shares) = (Rate::new(20, 40), PublisherShares::default());
        let taken = |shares: &mut PublisherShares, now| {
            (0..1000).filter(|_| shares.take(rate, client(1), now).is_ok()).count()
        };
        // The burst of all, and of its share: half of that, since one part is for new connections.
        assert_eq!(taken(&mut shares, 0), 60);
        let total: usize = (0..=100).map(|tenth| taken(&mut shares, tenth * SECOND / 10)).sum();
        // What its share gave above the burst is paid for.
        assert!((180..=181).contains(&total), "{total} in ten seconds");
    }

    #[test]
    fn a_flood_leaves_the_program_and_other_shares_alone() {
        let (rate, mut shares) = (Rate::new(20, 40), PublisherShares::default());
        assert!(shares.take(rate, client(1), 0).is_ok());
        for second in 0..60 {
            for part in 0..50 {
                let now = second * SECOND + part * SECOND / 50;
                for _ in 0..10 {
                    let _ = shares.take(rate, client(2), now);
                }
            }
            let now = (second + 1) * SECOND - 1;
            for _ in 0..6 {
                assert_eq!(shares.take(rate, client(1), now), Ok(()), "second {second}");
            }
            for _ in 0..20 {
                assert_eq!(shares.take(rate, None, now), Ok(()), "second {second}");
            }
        }
    }

    #[test]
    fn a_new_client_waits_once_during_a_flood() {
        let (rate, mut shares) = (Rate::new(20, 40), PublisherShares::default());
        for n in 0..200 {
            for _ in 0..100 {
                let _ = shares.take(rate, client(n), 0);
            }
        }
        let wait = shares.take(rate, client(1000), 0).unwrap_err();
        assert!(wait <= 11 * SECOND, "a part of 1 / 202: {wait}");
        assert_eq!(shares.take(rate, client(1000), wait), Ok(()));
    }

    #[test]
    fn shares_are_bounded_and_forgotten_when_idle() {
        let (rate, mut shares) = (Rate::new(1, 1), PublisherShares::default());
        for n in 0..10 * MAX_SHARES {
            let _ = shares.take(rate, client(n), 0);
        }
        assert_eq!(shares.connections(), MAX_SHARES);
        let _ = shares.take(rate, client(1), MAX_IDLE - 1);
        shares.expire(MAX_IDLE + EXPIRY_INTERVAL);
        assert_eq!(shares.connections(), 1);
        assert!(shares.by_conn.capacity() < 64, "{}", shares.by_conn.capacity());
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// Some time passes, in thousandths of the honest client's interval.
        Wait(u64),
        /// One of the others publishes so often.
        Flood(usize, u8),
        /// A new connection publishes.
        Stranger(u8),
        /// The program publishes.
        Program(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1u64..700).prop_map(Step::Wait),
            (0usize..OTHERS, 1u8..50).prop_map(|(who, times)| Step::Flood(who, times)),
            (1u8..5).prop_map(Step::Stranger),
            (1u8..50).prop_map(Step::Program),
        ]
    }

    const OTHERS: usize = 6;
    const STRANGERS: usize = 10;

    proptest! {
        /// Whatever others do, a client within its share is not refused, except perhaps at its first attempt, and all
        /// together get no more than the topic's rate.
        #[test]
        fn a_client_within_its_share_is_never_refused(
            per_second in 1u64..200,
            burst in 0u64..100,
            steps in prop::collection::vec(step(), 1..400),
        ) {
            let (rate, mut shares) = (Rate::new(per_second, burst), PublisherShares::default());
            let honest = client(0);
            // All others, the honest client, and the part for new ones.
            let publishers = (OTHERS + STRANGERS + 2) as u64;
            let interval = SECOND * publishers / per_second + publishers;
            let (mut now, mut next, mut strangers) = (0, 0, 0);
            let mut taken = 0;
            let mut program = (0, 0);
            for step in steps {
                match step {
                    Step::Wait(part) => {
                        now += interval * part / 1000;
                        if now >= next {
                            let first = next == 0;
                            match shares.take(rate, honest, now) {
                                Ok(()) => taken += 1,
                                Err(wait) => prop_assert!(first && wait <= interval, "{wait} ns early"),
                            }
                            next = now + interval;
                        }
                    }
                    Step::Flood(who, times) => {
                        let from = client(1 + who);
                        taken += (0..times).filter(|_| shares.take(rate, from, now).is_ok()).count() as u64;
                    }
                    Step::Stranger(times) if strangers < STRANGERS => {
                        strangers += 1;
                        let from = client(100 + strangers);
                        taken += (0..times).filter(|_| shares.take(rate, from, now).is_ok()).count() as u64;
                    }
                    Step::Stranger(_) => {}
                    Step::Program(times) => {
                        let alone = (0..times).filter(|_| rate.take(&mut program.0, now).is_ok()).count();
                        let here = (0..times).filter(|_| shares.take(rate, None, now).is_ok()).count();
                        prop_assert_eq!(here, alone, "as if there were no clients");
                        program.1 += here as u64;
                    }
                }
            }
            let burst = burst.max(1);
            let most = now * per_second / SECOND + 1 + 2 * burst + 2 * publishers;
            prop_assert!(taken <= most, "{} of at most {} in {} ms", taken, most, now / 1_000_000);
            prop_assert!(program.1 <= now * per_second / SECOND + 1 + burst);
        }

        /// Connections that come and go get no more than the rate.
        #[test]
        fn connections_that_come_and_go_do_not_raise_the_total(
            per_second in 1u64..50,
            burst in 1u64..50,
            each in 1usize..5,
            gap in 0u64..50_000_000,
        ) {
            let (rate, mut shares) = (Rate::new(per_second, burst), PublisherShares::default());
            let mut taken = 0;
            for n in 0..3000 {
                let now = n as u64 * gap;
                taken += (0..each).filter(|_| shares.take(rate, client(n), now).is_ok()).count() as u64;
            }
            let elapsed = 3000 * gap;
            // Shares from before others came are worth a little more than their part.
            let most = 2 * (elapsed * per_second / SECOND) + 4 * burst + 40;
            prop_assert!(taken <= most, "{} of at most {} in {} ms", taken, most, elapsed / 1_000_000);
        }
    }
}
