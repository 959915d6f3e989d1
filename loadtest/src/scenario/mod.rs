//! What the connections do. The event loop moves bytes; a scenario says what is sent, checks what comes, and counts.

mod connect;
mod echo;
mod fanout;
mod idle;
mod listen;
mod room;

pub(crate) use connect::Connect;
pub(crate) use echo::Echo;
pub(crate) use fanout::{Fanout, FanoutState, Publishers};
pub(crate) use idle::Idle;
pub(crate) use listen::Listen;
pub(crate) use room::{Room, RoomState, STAMP as ROOM_STAMP, SUBPROTOCOL};

use crate::payload::Payloads;
use crate::slot::Wire;
use crate::stats::Stats;
use campanile::protocol::{CloseCode, Kind};
use std::ops::{Deref, DerefMut};

/// The error of a server that has answered or delivered more than it was sent.
pub(crate) const UNSOLICITED: &str = "more came back than was sent";

/// What a scenario counts with.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Where it counts.
    pub(crate) stats: Stats,
    /// When this turn began, in nanoseconds of the run's clock.
    pub(crate) now: u64,
    /// No new message is to be sent.
    pub(crate) ending: bool,
}

/// What a scenario works with during a turn of the loop, where it may also send.
#[derive(Debug)]
pub(crate) struct ScenarioContext {
    /// Where it writes messages: they go to the connection that the call was about.
    pub(crate) wire: Wire,
    /// Where it counts.
    pub(crate) counters: Counters,
}

impl Deref for ScenarioContext {
    type Target = Counters;
    #[inline]
    fn deref(&self) -> &Counters {
        &self.counters
    }
}

impl DerefMut for ScenarioContext {
    #[inline]
    fn deref_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }
}

impl ScenarioContext {
    /// Writes one message.
    #[inline]
    pub(crate) fn send(&mut self, payloads: &Payloads, sender: u32, sequence: u32) {
        let len = payloads.len(sender, sequence);
        self.wire.message(payloads.kind().into(), len, |out, key| payloads.write(out, key, sender, sequence));
        self.counters.stats.sent += 1;
    }
}

/// What becomes of a connection that has just opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It stays for the run.
    Stay,
    /// It is reset and opened anew.
    Reset,
    /// It is closed with a closing handshake and opened anew.
    Close(CloseCode),
}

/// One thread's part of a scenario. Connections are numbered from 0 in each thread.
pub(crate) trait Scenario {
    /// A connection has opened.
    fn opened(&mut self, _at: usize, _counters: &mut Counters) -> Next {
        Next::Stay
    }

    /// The traffic of an open connection begins.
    fn start(&mut self, _at: usize, _context: &mut ScenarioContext) {}

    /// A message came.
    fn message(&mut self, at: usize, kind: Kind, payload: &[u8], counters: &mut Counters);

    /// Sends what the messages of one read allow to be sent. An error ends the connection: each message that came was
    /// counted, and this says why no more of them can be.
    fn read_done(&mut self, _at: usize, _context: &mut ScenarioContext) -> Result<(), &'static str> {
        Ok(())
    }

    /// Open loop: which connection sends this thread's `k`th message.
    fn sender(&self, _k: u64) -> usize {
        0
    }

    /// Open loop: a message was due at this time and can be sent now.
    fn due(&mut self, _at: usize, _due: u64, _context: &mut ScenarioContext) {}

    /// A turn of the loop ends. What is written is for connection 0; says whether something was.
    fn end_iteration(&mut self, _context: &mut ScenarioContext) -> bool {
        false
    }

    /// Whether [`Scenario::read_done`] is to be called for all connections, since a condition has changed.
    fn recheck(&mut self) -> bool {
        false
    }

    /// Whether this connection has waited longer than it may, at the time `now`.
    fn overdue(&self, _at: usize, _now: u64) -> bool {
        false
    }

    /// An open connection was lost. False: the run can't go on without it.
    fn lost(&mut self, _at: usize, _context: &mut ScenarioContext) -> bool {
        true
    }

    /// The run is over: what was sent and has not been answered.
    fn finish(&mut self, _context: &mut ScenarioContext) -> Unanswered {
        Unanswered::default()
    }
}

/// Messages without an answer at the end of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unanswered {
    /// How many.
    pub(crate) count: u64,
    /// The age of the oldest, in nanoseconds.
    pub(crate) oldest_ns: u64,
}

impl Unanswered {
    /// `n` messages that have waited for `ns`.
    pub(crate) fn add(&mut self, n: u64, ns: u64) {
        self.count += n;
        self.oldest_ns = self.oldest_ns.max(ns);
    }
}
