//! Connections that are opened and held. Pings are answered below; messages that come unasked are only counted.

use super::{Book, Scenario};
use campanile::protocol::Kind;

/// No state at all.
#[derive(Debug, Default)]
pub(crate) struct Idle;

impl Scenario for Idle {
    fn message(&mut self, _at: usize, _kind: Kind, payload: &[u8], book: &mut Book) {
        book.stats.messages += 1;
        book.stats.bytes += payload.len() as u64;
    }
}
