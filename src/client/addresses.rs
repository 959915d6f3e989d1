//! The addresses of one try: in which order, and for how long each. Pure.
//!
//! They are tried one after the other, as RFC 8305 orders them: the families take turns, so that a broken IPv6 costs one
//! wait. In a first round each has [`FIRST`] at most, which lets a dead address at the head of the list cost a second
//! and not half of all the time; those that said nothing are tried again in a second round, with all the time that is
//! left, since a slow network may need more. The address that served the last connection is the first, and one that was
//! connected to and then gave no WebSocket is the last.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long an address may be silent while others have not been tried: the first SYN, and one that is sent again.
const FIRST: Duration = Duration::from_millis(1500);

/// Addresses of a name that are looked at. Whoever answers for the name chooses their number.
const MOST: usize = 16;

#[derive(Debug)]
pub(super) struct Addresses {
    rest: VecDeque<SocketAddr>,
    /// Those that said nothing in the first round.
    silent: VecDeque<SocketAddr>,
    is_first_round: bool,
    current: SocketAddr,
    deadline: Instant,
}

/// What earlier tries say about addresses.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AddressHistory {
    pub(super) served: Option<SocketAddr>,
    pub(super) failed: Option<SocketAddr>,
}

impl Addresses {
    /// `None`: there are none.
    pub(super) fn new(found: Vec<SocketAddr>, history: AddressHistory, deadline: Instant) -> Option<Self> {
        let mut rest = in_turn(found);
        if let Some(served) = history.served.filter(|addr| rest.contains(addr)) {
            rest.retain(|addr| *addr != served);
            rest.push_front(served);
        }
        if let Some(failed) = history.failed.filter(|addr| rest.contains(addr)) {
            rest.retain(|addr| *addr != failed);
            rest.push_back(failed);
        }
        let current = rest.pop_front()?;
        Some(Self { rest, silent: VecDeque::new(), is_first_round: true, current, deadline })
    }

    pub(super) fn current(&self) -> SocketAddr {
        self.current
    }

    /// When the last of them is given up.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Until when the current one may take.
    pub(super) fn until(&self, now: Instant) -> Instant {
        let left = self.deadline.saturating_duration_since(now);
        let share = left / (self.rest.len() as u32 + 1);
        let is_only = self.rest.is_empty() && self.silent.is_empty();
        now + if self.is_first_round && !is_only { share.min(FIRST) } else { share }
    }

    /// Goes on to the next one. `was_silent`: the current one neither took nor refused the connection. False: that was
    /// the last one.
    pub(super) fn advance(&mut self, was_silent: bool) -> bool {
        if was_silent && self.is_first_round {
            self.silent.push_back(self.current);
        }
        if self.rest.is_empty() && self.is_first_round {
            self.is_first_round = false;
            self.rest = std::mem::take(&mut self.silent);
        }
        match self.rest.pop_front() {
            Some(next) => self.current = next,
            None => return false,
        }
        true
    }
}

/// The first of them, their families in turn, each in the order in which the resolver gave them.
fn in_turn(found: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let leads_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (lead, other): (Vec<_>, Vec<_>) = found.into_iter().partition(|addr| addr.is_ipv6() == leads_v6);
    let (mut lead, mut other) = (lead.into_iter(), other.into_iter());
    let mut all = VecDeque::new();
    while all.len() < MOST {
        let before = all.len();
        all.extend(lead.next());
        all.extend(other.next());
        if all.len() == before {
            break;
        }
    }
    all.truncate(MOST);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn all(mut addresses: Addresses) -> Vec<SocketAddr> {
        let mut all = vec![addresses.current()];
        while addresses.advance(false) {
            all.push(addresses.current());
        }
        all
    }

    #[test]
    fn addresses_alternate_families_and_prefer_those_that_served() {
        let found = ["[::1]:1", "[::2]:1", "1.1.1.1:1", "[::3]:1", "2.2.2.2:1"].map(addr).to_vec();
        let order = |history| all(Addresses::new(found.clone(), history, Instant::now()).unwrap());
        let expected = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"].map(addr);
        assert_eq!(order(AddressHistory::default()), expected);
        let history = AddressHistory { served: Some(addr("2.2.2.2:1")), failed: Some(addr("[::1]:1")) };
        let expected = ["2.2.2.2:1", "1.1.1.1:1", "[::2]:1", "[::3]:1", "[::1]:1"].map(addr);
        assert_eq!(order(history), expected);
        let gone = AddressHistory { served: Some(addr("9.9.9.9:1")), failed: None };
        assert_eq!(order(gone), order(AddressHistory::default()), "an address that the name no longer has");
        assert!(Addresses::new(Vec::new(), history, Instant::now()).is_none());
        let many = (0..1000).map(|n| SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 1))).collect();
        assert_eq!(all(Addresses::new(many, history, Instant::now()).unwrap()).len(), MOST);
    }

    #[test]
    fn a_silent_address_is_skipped_and_tried_again_with_the_remaining_time() {
        let begin = Instant::now();
        let limit = Duration::from_secs(15);
        let two = vec![addr("1.1.1.1:1"), addr("2.2.2.2:1")];
        let mut addresses = Addresses::new(two, AddressHistory::default(), begin + limit).unwrap();
        let mut now = addresses.until(begin);
        assert_eq!(now, begin + FIRST);
        assert!(addresses.advance(true));
        assert_eq!(addresses.current(), addr("2.2.2.2:1"));
        // All of them are silent: the rest of the time is theirs, in equal shares.
        now = addresses.until(now);
        assert_eq!(now, begin + FIRST * 2);
        assert!(addresses.advance(true));
        assert_eq!(addresses.current(), addr("1.1.1.1:1"));
        now = addresses.until(now);
        assert_eq!(now, begin + FIRST * 2 + (limit - FIRST * 2) / 2);
        assert!(addresses.advance(true));
        assert_eq!(addresses.until(now), begin + limit);
        assert!(!addresses.advance(true));

        // One that refuses is not asked again, and one that is alone has all the time.
        let mut addresses =
            Addresses::new(vec![addr("1.1.1.1:1")], AddressHistory::default(), begin + limit).unwrap();
        assert_eq!(addresses.until(begin), begin + limit);
        assert!(!addresses.advance(false));
    }
}
