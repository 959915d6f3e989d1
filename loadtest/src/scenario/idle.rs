//! Connections that are opened and held. Pings are answered below; messages that come unasked are only counted.

use super::{Counters, Scenario};
use campanile::protocol::Kind;

/// No state at all.
#[derive(Debug, Default)]
pub(crate) struct Idle;

impl Scenario for Idle {
    fn message(&mut self, _at: usize, _kind: Kind, payload: &[u8], counters: &mut Counters) {
        counters.stats.messages += 1;
        counters.stats.bytes += payload.len() as u64;
    }
}
