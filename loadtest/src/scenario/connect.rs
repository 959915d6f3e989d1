//! Connections that are opened, closed and opened again. What is counted as messages elsewhere are handshakes here.

use super::{Counters, Next, Scenario};
use campanile::protocol::{CloseCode, Kind};

/// Whether they are closed with a closing handshake.
#[derive(Debug)]
pub(crate) struct Connect {
    /// Otherwise they are reset, which leaves no port in TIME_WAIT.
    pub(crate) clean: bool,
}

impl Scenario for Connect {
    fn opened(&mut self, _at: usize, counters: &mut Counters) -> Next {
        counters.stats.messages += 1;
        if self.clean { Next::Close(CloseCode::NORMAL) } else { Next::Reset }
    }

    fn message(&mut self, _at: usize, _kind: Kind, _payload: &[u8], _counters: &mut Counters) {}
}
