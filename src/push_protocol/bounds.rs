//! What a server can ask of its clients' clocks: the least and the most. Clients clamp what comes, since a server may be
//! broken or hostile; [`Push`](super::Push) refuses what they would clamp. `docs/reference/protocol.md` has the table and
//! `js/campanile.js` the same numbers.

use core::ops::RangeInclusive;
use core::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

/// `heartbeat` of `hello`, where it is not zero. Below a second, idle clients would cost more than busy ones.
pub(crate) const HEARTBEAT: RangeInclusive<Duration> = Duration::from_secs(1)..=DAY;

/// `retry` of `hello`.
pub(crate) const HELLO_RETRY: RangeInclusive<Duration> = Duration::from_millis(10)..=DAY;

/// `retry` of an `error`. The least doubles each time the same request is put off.
#[cfg(feature = "client")]
pub(crate) const ERROR_RETRY: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);

#[cfg(all(test, feature = "client"))]
mod tests {
    use super::*;

    /// The row of the table in `docs/reference/protocol.md` that begins so.
    fn documented(time: &str) -> [u64; 2] {
        let text = include_str!("../../docs/reference/protocol.md");
        let row = text.lines().find_map(|line| line.strip_prefix(&format!("| {time} |"))).expect("a row");
        let cell =
            |cell: &str| cell.trim().strip_suffix(" ms").expect("milliseconds").parse().expect("a number");
        let mut cells = row.split('|').map(cell);
        [(); 2].map(|()| cells.next().expect("a cell"))
    }

    /// The pair of this name in `js/campanile.js`.
    fn of_the_module(name: &str) -> [u64; 2] {
        let text = include_str!("../../js/campanile.js");
        let (_, pair) = text.split_once(&format!("const {name} = [")).expect("the name");
        let (pair, _) = pair.split_once(']').expect("an end");
        let mut numbers = pair.split(", ").map(|n| n.replace('_', "").parse().expect("a number"));
        [(); 2].map(|()| numbers.next().expect("a number"))
    }

    #[test]
    fn time_bounds_are_the_same_in_both_clients_and_the_documentation() {
        let rows = [
            ("`heartbeat` of `hello`", "HEARTBEAT", HEARTBEAT),
            ("`retry` of `hello`", "HELLO_RETRY", HELLO_RETRY),
            ("`retry` of `error`", "ERROR_RETRY", ERROR_RETRY),
        ];
        for (row, name, bounds) in rows {
            let own = [*bounds.start(), *bounds.end()].map(|time| time.as_millis() as u64);
            assert_eq!(own, documented(row), "{row}");
            assert_eq!(own, of_the_module(name), "{name}");
            assert!(own[1] < 1 << 31, "timers of browsers end there");
        }
    }
}
