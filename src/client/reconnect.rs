//! When to try again, and when not to. Values only: the time is the caller's and so is the die.

use crate::protocol::CloseCode;
use core::ops::RangeInclusive;
use core::time::Duration;

/// What becomes of messages that are sent while there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Offline {
    /// They are refused, and so is what was waiting when the connection went. What is sent has a connection to go to.
    Refuse,
    /// They wait for the next connection, up to [`ClientLimits::max_backlog`](super::ClientLimits::max_backlog); so does what
    /// had not begun to be written when the last one went. Whether what was written has arrived, nobody knows: no
    /// message is sent twice, and some may be lost.
    Keep,
}

/// How a client comes back.
///
/// The wait before a try is drawn from zero to a bound that doubles with each failure in a row ("full jitter"), so
/// that ten thousand clients of a server that went down spread their return evenly instead of coming in waves.
///
/// ```
/// use campanile::client::{Offline, Reconnect};
/// use std::time::Duration;
///
/// let reconnect = Reconnect::default()
///     .max_delay(Duration::from_secs(10))
///     .max_attempts(20)
///     .final_code(4001..=4001)
///     .offline(Offline::Keep);
/// ```
#[derive(Clone, Debug)]
pub struct Reconnect {
    initial_delay: Duration,
    max_delay: Duration,
    max_attempts: Option<u32>,
    stable_after: Duration,
    final_codes: Vec<RangeInclusive<u16>>,
    final_statuses: Vec<RangeInclusive<u16>>,
    hint: Hint,
    max_hint: Duration,
    offline: Offline,
    jitter: bool,
}

/// Reads a delay from a close frame.
type Hint = fn(CloseCode, &str) -> Option<Duration>;

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            initial_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(30),
            max_attempts: None,
            stable_after: Duration::from_secs(5),
            // Where the same would happen again, or where the server said that it is done: 1000; a breach of the
            // protocol; data or a policy that won't change; a missing extension; missing rights (3000 and 3003); and
            // what the application says. Not 1009: one message that is too big for this client may be the last one.
            final_codes: vec![
                1000..=1000,
                1002..=1003,
                1007..=1008,
                1010..=1010,
                3000..=3000,
                3003..=3003,
                4000..=4999,
            ],
            // The request is wrong, except where the server means "later".
            final_statuses: vec![400..=407, 409..=424, 426..=428, 430..=499],
            hint: |_, _| None,
            max_hint: Duration::from_secs(300),
            offline: Offline::Refuse,
            jitter: true,
        }
    }
}

impl Reconnect {
    /// The bound of the wait before the first try. Default 500 ms.
    #[must_use]
    pub fn initial_delay(mut self, bound: Duration) -> Self {
        self.initial_delay = bound;
        self
    }

    /// What the bound grows to. Default 30 s.
    #[must_use]
    pub fn max_delay(mut self, bound: Duration) -> Self {
        self.max_delay = bound;
        self
    }

    /// Failures in a row after which the client gives up. Default: never.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }

    /// How long a connection has to last for its end to count as the first failure. Default 5 s: a server that
    /// accepts and closes at once is not asked every half second for ever.
    #[must_use]
    pub fn stable_after(mut self, time: Duration) -> Self {
        self.stable_after = time;
        self
    }

    /// Adds close codes of the server after which the client stays away. Default: 1000, 1002, 1003, 1007, 1008, 1010,
    /// 3000, 3003 and 4000 to 4999.
    #[must_use]
    pub fn final_code(mut self, codes: RangeInclusive<u16>) -> Self {
        self.final_codes.push(codes);
        self
    }

    /// Takes close codes out of the final ones: those after which your application wants to come back, such as 4000,
    /// or 3000 where a hook renews the token.
    #[must_use]
    pub fn retry_code(mut self, codes: RangeInclusive<u16>) -> Self {
        take_out(&mut self.final_codes, &codes);
        self
    }

    /// Adds statuses that refuse the handshake for good. Default: 400 to 499 without 408, 425 and 429.
    #[must_use]
    pub fn final_status(mut self, statuses: RangeInclusive<u16>) -> Self {
        self.final_statuses.push(statuses);
        self
    }

    /// Takes statuses out of the final ones, such as 401 where a hook renews the token.
    #[must_use]
    pub fn retry_status(mut self, statuses: RangeInclusive<u16>) -> Self {
        take_out(&mut self.final_statuses, &statuses);
        self
    }

    /// Reads from a close frame how long the server wants the client to stay away; there is no standard for it. The
    /// wait is then at least that long, and at most [`Reconnect::max_hint`]. A `Retry-After` of a refused handshake is
    /// always heeded so.
    #[must_use]
    pub fn hint(mut self, read: fn(code: CloseCode, reason: &str) -> Option<Duration>) -> Self {
        self.hint = read;
        self
    }

    /// The longest time that a server can make the client wait. Default 5 minutes.
    #[must_use]
    pub fn max_hint(mut self, longest: Duration) -> Self {
        self.max_hint = longest;
        self
    }

    /// Whether the wait is drawn from zero to its bound. Default on; off, it is the bound itself, and the clients of a
    /// server that went down all come back at the same time, again and again: for measuring what that does.
    #[must_use]
    pub fn jitter(mut self, jitter: bool) -> Self {
        self.jitter = jitter;
        self
    }

    /// What becomes of messages that are sent meanwhile. Default: [`Offline::Refuse`].
    #[must_use]
    pub fn offline(mut self, offline: Offline) -> Self {
        self.offline = offline;
        self
    }

    pub(super) fn keeps_messages(&self) -> bool {
        self.offline == Offline::Keep
    }

    /// The same with the first bound that the server would have: it may not keep a client away for longer than
    /// [`Reconnect::max_hint`].
    pub(super) fn beginning_at(&self, initial_delay: Duration) -> Self {
        self.clone().initial_delay(initial_delay.min(self.max_hint))
    }

    /// What came before a possible try.
    pub(super) fn is_final(&self, end: &End) -> bool {
        let within = |ranges: &[RangeInclusive<u16>], n| ranges.iter().any(|r| r.contains(&n));
        match *end {
            End::Closed { code, .. } => within(&self.final_codes, code.0),
            End::Refused { status, .. } => within(&self.final_statuses, status),
            End::Failed => false,
            End::Permanent => true,
        }
    }
}

fn take_out(ranges: &mut Vec<RangeInclusive<u16>>, gone: &RangeInclusive<u16>) {
    let rest = ranges.iter().flat_map(|r| {
        let below = (*gone.start() > *r.start()).then(|| *r.start()..=(*r.end()).min(gone.start() - 1));
        let above = (*gone.end() < *r.end()).then(|| (*r.start()).max(gone.end() + 1)..=*r.end());
        [below, above].into_iter().flatten()
    });
    *ranges = rest.filter(|r| !r.is_empty()).collect();
}

/// How a try or a connection ended, as far as the policy asks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum End<'a> {
    /// The server's close frame, or a breach of the protocol by it.
    Closed { code: CloseCode, reason: &'a str },
    /// The handshake was refused.
    Refused { status: u16, retry_after: Option<Duration> },
    /// Anything that may go better next time.
    Failed,
    /// What can't go better: a scheme that is not built in, a redirect that is not followed.
    Permanent,
}

/// Failures in a row, and what follows from them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// A connection that lasted so long has gone.
    pub(super) fn lasted(&mut self, time: Duration, policy: &Reconnect) {
        if time >= policy.stable_after {
            self.failures = 0;
        }
    }

    /// The number of the next try, from 1, and how long to wait before it; `None` gives up. `fraction` is from 0 to 1.
    pub(super) fn next(&mut self, policy: &Reconnect, end: &End, fraction: f64) -> Option<(u32, Duration)> {
        if policy.is_final(end) || policy.max_attempts.is_some_and(|max| self.failures >= max) {
            return None;
        }
        let bound = policy
            .initial_delay
            .saturating_mul(1 << self.failures.min(20))
            .min(policy.max_delay.max(policy.initial_delay));
        self.failures = self.failures.saturating_add(1);
        let jitter = if policy.jitter { bound.mul_f64(fraction.clamp(0.0, 1.0)) } else { bound };
        let hint = match *end {
            End::Closed { code, reason } => (policy.hint)(code, reason),
            End::Refused { retry_after, .. } => retry_after,
            _ => None,
        };
        // On top of what the server asks for: everybody was asked the same.
        let delay = jitter.saturating_add(hint.unwrap_or_default().min(policy.max_hint));
        Some((self.failures, delay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(code: u16) -> End<'static> {
        End::Closed { code: CloseCode(code), reason: "" }
    }

    fn refused(status: u16) -> End<'static> {
        End::Refused { status, retry_after: None }
    }

    #[test]
    fn the_delay_bound_doubles_up_to_the_maximum_with_full_jitter() {
        let policy =
            Reconnect::default().initial_delay(Duration::from_secs(1)).max_delay(Duration::from_secs(10));
        let mut highest = Backoff::default();
        let bounds: Vec<u64> =
            (0..40).map(|_| highest.next(&policy, &End::Failed, 1.0).unwrap().1.as_secs()).collect();
        assert_eq!(bounds[..6], [1, 2, 4, 8, 10, 10]);
        assert_eq!(bounds[39], 10);
        let mut lowest = Backoff::default();
        assert_eq!(lowest.next(&policy, &End::Failed, 0.0), Some((1, Duration::ZERO)));
        assert_eq!(lowest.next(&policy, &End::Failed, 0.5), Some((2, Duration::from_secs(1))));
        let mut rigid = Backoff::default();
        let policy = policy.jitter(false);
        assert_eq!(rigid.next(&policy, &End::Failed, 0.0), Some((1, Duration::from_secs(1))));
    }

    #[test]
    fn delays_spread_over_the_whole_bound() {
        let policy = Reconnect::default().initial_delay(Duration::from_secs(1));
        let mut seed = 7u32;
        let mut quarters = [0; 4];
        for _ in 0..1000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let fraction = f64::from(seed) / f64::from(u32::MAX);
            let (_, delay) = Backoff::default().next(&policy, &End::Failed, fraction).unwrap();
            quarters[(delay.as_millis() / 250).min(3) as usize] += 1;
        }
        assert!(quarters.iter().all(|q| (200..300).contains(q)), "{quarters:?}");
    }

    #[test]
    fn attempts_are_counted_until_a_connection_is_stable() {
        let policy = Reconnect::default().max_attempts(2).stable_after(Duration::from_secs(5));
        let mut b = Backoff::default();
        assert_eq!(b.next(&policy, &End::Failed, 0.0).unwrap().0, 1);
        b.lasted(Duration::from_secs(4), &policy);
        assert_eq!(b.next(&policy, &End::Failed, 0.0).unwrap().0, 2);
        assert_eq!(b.next(&policy, &End::Failed, 0.0), None);
        b.lasted(Duration::from_secs(5), &policy);
        assert_eq!(b.next(&policy, &End::Failed, 0.0).unwrap().0, 1);
    }

    #[test]
    fn final_codes_and_statuses_can_be_added_and_removed() {
        let policy = Reconnect::default();
        for code in [1000, 1002, 1003, 1007, 1008, 1010, 3000, 3003, 4000, 4999] {
            assert!(policy.is_final(&closed(code)), "{code}");
        }
        for code in [1001, 1005, 1006, 1009, 1011, 1012, 1013, 1014, 3001, 3999] {
            assert!(!policy.is_final(&closed(code)), "{code}");
        }
        for status in [400, 401, 403, 404, 407, 409, 424, 426, 499] {
            assert!(policy.is_final(&refused(status)), "{status}");
        }
        for status in [200, 302, 408, 425, 429, 500, 502, 503] {
            assert!(!policy.is_final(&refused(status)), "{status}");
        }
        assert!(policy.is_final(&End::Permanent) && !policy.is_final(&End::Failed));

        let policy = policy.retry_code(4100..=4199).retry_code(1000..=1000).final_code(1012..=1012);
        let finals: Vec<u16> = [1000, 1012, 4099, 4100, 4199, 4200]
            .into_iter()
            .filter(|&c| policy.is_final(&closed(c)))
            .collect();
        assert_eq!(finals, [1012, 4099, 4200]);
        let policy = policy.retry_status(0..=u16::MAX).final_status(503..=503);
        assert!(!policy.is_final(&refused(404)) && policy.is_final(&refused(503)));
    }

    #[test]
    fn a_delay_requested_by_the_server_is_a_bounded_minimum() {
        let policy = Reconnect::default().hint(|_, reason| reason.parse().ok().map(Duration::from_secs));
        let end = End::Closed { code: CloseCode::SERVICE_RESTART, reason: "60" };
        let mut b = Backoff::default();
        assert_eq!(b.next(&policy, &end, 0.0).unwrap().1, Duration::from_secs(60));
        assert!(b.next(&policy, &end, 1.0).unwrap().1 > Duration::from_secs(60));
        for seconds in [86_400, u64::MAX] {
            let end = End::Refused { status: 503, retry_after: Some(Duration::from_secs(seconds)) };
            assert_eq!(b.next(&policy, &end, 0.0).unwrap().1, Duration::from_secs(300));
        }
    }
}
