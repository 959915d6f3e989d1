//! `/echo` sends back what comes, `/broadcast` sends it to all: for trying out, for conformance and for measuring.

use campanile::{Conn, Disconnect, Handler, Limits, Message, Route};
use std::time::Duration;

pub(crate) struct Echo;

/// A client that sends without reading is not read any further while so much waits for it.
const PAUSE_AT: usize = 1 << 20;

/// As large as the Autobahn suite asks in its section 9.
const MAX_ECHO: usize = 16 << 20;

/// Without rates: it is there to measure with, and what a client sends comes back to that client alone.
pub(crate) fn echo() -> Route {
    let mut limits = Limits::default();
    limits.max_message_size = MAX_ECHO;
    limits.max_fragments = 65_536 + 1; // the suite ends a message of so many fragments with an empty one
    limits.max_backlog = 2 * MAX_ECHO;
    limits.message_timeout = Duration::from_secs(120);
    Route::new(Echo).limits(limits)
}

impl Handler for Echo {
    type State = ();

    fn message(&self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) -> Result<(), Disconnect> {
        conn.send(message)?;
        if conn.buffered_amount() > PAUSE_AT {
            conn.pause();
        }
        Ok(())
    }

    fn drain(&self, conn: &mut Conn<'_>, _: &mut ()) -> Result<(), Disconnect> {
        conn.resume();
        Ok(())
    }
}

pub(crate) struct Broadcast;

/// What goes to everybody is shorter than what goes to one.
const MAX_BROADCAST: usize = 1 << 20;

/// Each message costs a delivery for everybody connected. High enough to measure with, and far below what one client can
/// send.
const BROADCASTS: u32 = 10_000;
const BROADCAST_BYTES: u64 = 64 << 20;

const EVERYBODY: &str = "broadcast";

pub(crate) fn broadcast() -> Route {
    let mut limits = Limits::default();
    limits.max_message_size = MAX_BROADCAST;
    limits.max_backlog = 16 * MAX_BROADCAST;
    let route = Route::new(Broadcast).limits(limits);
    route.message_rate(BROADCASTS, BROADCASTS).byte_rate(BROADCAST_BYTES, BROADCAST_BYTES)
}

impl Handler for Broadcast {
    type State = ();

    fn open(&self, conn: &mut Conn<'_>, _: &mut ()) -> Result<(), Disconnect> {
        conn.subscribe(EVERYBODY)?;
        Ok(())
    }

    fn message(&self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) -> Result<(), Disconnect> {
        conn.publish(EVERYBODY, message)?;
        Ok(())
    }
}
