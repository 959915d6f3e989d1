//! Connections that are opened and held. Pings are answered below; messages that come unasked are only counted.

use super::{Desk, Scenario};
use campanile::protocol::Kind;

/// No state at all.
#[derive(Debug, Default)]
pub(crate) struct Idle;

impl Scenario for Idle {
    fn message(&mut self, _at: usize, _kind: Kind, payload: &[u8], desk: &mut Desk) {
        desk.stats.messages += 1;
        desk.stats.bytes += payload.len() as u64;
    }
}
