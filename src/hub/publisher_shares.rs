//! How the publishers of one topic share its rate, so that none of them can use up what belongs to another.
//!
//! Connections have one bucket together, the size and speed of the topic's rate: while there is a token in it, whoever
//! comes takes one. When it is empty, each connection has a share of its own: of `n` connections that publish, and one
//! part for those who are new, an equal part of the rate and of the burst. What a share gives is charged to the common
//! bucket as well, so the sum stays at the topic's rate. The program itself (its handles, the API) is no client: it has a
//! bucket to itself.
//!
//! So a connection that publishes no faster than `rate / (n + 1)` is never refused, whatever others do; what nobody uses is
//! there for all.

use crate::conn::ConnId;
use crate::sync::rate::{Nanos, Rate};
use foldhash::fast::RandomState;
use std::collections::HashMap;

/// Connections of a topic that have a share. More of them get what the part for new ones gives.
pub(crate) const MAX_SHARES: usize = 1024;

/// A connection that has published nothing for so long has no share any more, and is new when it comes again.
const MAX_IDLE: Nanos = 30_000_000_000;

/// How often idle ones are looked for: each time costs a look at all.
const EXPIRY_INTERVAL: Nanos = 1_000_000_000;

/// What the publishers of one topic have taken of its rate. At most 24 bytes for each of [`MAX_SHARES`] connections, and
/// the table around them.
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
    /// When it was last asked for.
    last_seen: Nanos,
}

impl PublisherShares {
    /// Takes a token for a publication of this connection, or of the program.
    ///
    /// # Errors
    /// There is none for this publisher: how long until there is one.
    pub(crate) fn take(&mut self, rate: Rate, publisher: Option<ConnId>, now: Nanos) -> Result<(), Nanos> {
        let Some(conn) = publisher else { return rate.take(&mut self.program, now) };
        self.expire(now);
        let known = self.by_conn.contains_key(&conn);
        let is_new = !known && self.by_conn.len() < MAX_SHARES;
        let part = rate.share(self.by_conn.len() as u64 + u64::from(is_new) + 1);
        let common = rate.take(&mut self.clients, now);
        if is_new {
            // Whoever comes while there is nothing left begins with an empty share: a crowd that comes and goes would have
            // a full one each time.
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

    /// Until when something is to be remembered of what was taken.
    pub(crate) fn tat(&self) -> Nanos {
        self.program.max(self.clients)
    }

    /// Forgets connections that have not published for a while, from time to time.
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
        // The burst of all, and of its share: half of that, since one part is for whoever comes.
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
        /// A connection that was never there before does.
        Stranger(u8),
        /// The program does.
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
        /// Whatever others do, a client within its part of the rate is not refused, but perhaps at its first try, and all
        /// together get no more than the topic's rate.
        #[test]
        fn a_client_within_its_share_is_never_refused(
            per_second in 1u64..200,
            burst in 0u64..100,
            steps in prop::collection::vec(step(), 1..400),
        ) {
            let (rate, mut shares) = (Rate::new(per_second, burst), PublisherShares::default());
            let honest = client(0);
            // Everybody, the honest one, and the part for those who are new.
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

        /// A crowd that comes and goes gets no more than the rate either.
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
            // Shares that were there before more came are worth a little more than their part.
            let most = 2 * (elapsed * per_second / SECOND) + 4 * burst + 40;
            prop_assert!(taken <= most, "{} of at most {} in {} ms", taken, most, elapsed / 1_000_000);
        }
    }
}
