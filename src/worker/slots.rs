//! The connections of one worker: a slab of slots, each with its socket, its machine and its place in the timers.

use super::deadlines::Timestamps;
use super::http_state::HttpState;
use super::wheel::{Store, TimerLinks};
use crate::conn::{ConnId, Connection};
use crate::handler::AnyState;
use crate::memory::Shrink;
use crate::net::Stream;
use crate::sink::Sink;
use mio::Token;
use slab::Slab;

/// One connection, on a socket, or in simulations and benches on something else that takes bytes.
#[derive(Debug)]
pub(crate) struct Slot<S = Stream> {
    pub(crate) stream: S,
    pub(crate) conn: Connection,
    /// What the application keeps; none before the upgrade.
    pub(crate) state: Option<AnyState>,
    /// What HTTP keeps between reads; none for an open WebSocket.
    pub(crate) http: Option<Box<HttpState>>,
    pub(crate) timer: TimerLinks,
    pub(crate) timestamps: Timestamps,
    pub(crate) flags: SlotFlags,
    /// Bytes of unfinished message and backlog that have been counted for it.
    pub(crate) counted_bytes: u32,
}

impl<S: Sink> Slot<S> {
    /// Whether the kernel has everything that is to be written.
    #[inline]
    pub(crate) fn is_written_out(&self) -> bool {
        self.conn.is_written_out() && self.stream.is_written_out()
    }

    /// Bytes of the application's that the kernel does not have yet.
    #[inline]
    pub(crate) fn buffered(&self) -> usize {
        self.conn.buffered() + self.stream.buffered()
    }
}

impl Slot {
    /// Bytes of memory that it holds beside itself, for now.
    #[inline]
    pub(crate) fn held(&self) -> usize {
        let requests = self.http.as_ref().map_or(0, |http| http.held());
        self.conn.held() + self.stream.held() + requests
    }
}

/// What the worker has noted about a slot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SlotFlags {
    /// It is in the list of those to be read again.
    pub(crate) read_scheduled: bool,
    /// It is in the list of those with something to write.
    pub(crate) dirty: bool,
    /// It is in the list of those to be removed.
    pub(crate) closed: bool,
    /// The peer has ended its half: there is an end to be read behind the last bytes.
    pub(crate) ended: bool,
    /// Its descriptor may have copies elsewhere.
    pub(crate) shared_fd: bool,
    /// The phase that `deadline` is for.
    pub(crate) phase: u8,
}

/// The slots of a worker.
#[derive(Debug)]
pub(crate) struct Slots<S = Stream>(Slab<Slot<S>>);

impl<S> Default for Slots<S> {
    fn default() -> Self {
        Self(Slab::new())
    }
}

impl<S> Slots<S> {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The slot that the next connection will have.
    pub(crate) fn next(&self) -> usize {
        self.0.vacant_key()
    }

    pub(crate) fn insert(&mut self, slot: Slot<S>) -> usize {
        self.0.insert(slot)
    }

    pub(crate) fn remove(&mut self, at: usize) -> Option<Slot<S>> {
        self.0.try_remove(at)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut Slot<S>> {
        self.0.get_mut(at)
    }

    /// The same, to look at only.
    pub(crate) fn find(&self, id: ConnId) -> Option<&Slot<S>> {
        self.0.get(id.slot()).filter(|s| s.conn.id == id)
    }

    /// The slot of this connection, unless it has another tenant by now.
    #[inline]
    pub(crate) fn find_mut(&mut self, id: ConnId) -> Option<&mut Slot<S>> {
        self.0.get_mut(id.slot()).filter(|s| s.conn.id == id)
    }

    /// The slot that a readiness event is for.
    #[inline]
    pub(crate) fn at_token(&mut self, token: Token) -> Option<usize> {
        let (at, generation) = (token.0 & (u32::MAX as usize), (token.0 >> 32) as u32);
        self.0.get(at).filter(|s| s.conn.id.generation() == generation).map(|_| at)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Slot<S>)> {
        self.0.iter()
    }

    /// Places, free ones included: no slot is at this number or behind it.
    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Where the slots are, to walk over them while they change.
    pub(crate) fn keys(&self) -> Vec<usize> {
        self.0.iter().map(|(at, _)| at).collect()
    }
}

/// Gives back what is free behind the last connection.
impl<S> Shrink for Slots<S> {
    fn shrink(&mut self) {
        self.0.shrink();
    }
}

/// The token of a connection: slot and generation, so that no stale event reaches the next tenant.
pub(crate) fn token(id: ConnId) -> Token {
    Token((id.generation() as usize) << 32 | id.slot())
}

impl<S> Store for Slots<S> {
    fn links(&mut self, slot: u32) -> &mut TimerLinks {
        &mut self.0[slot as usize].timer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_costs_one_small_slab_entry() {
        // The slab's entry is all that a connection without state, parameters and subscriptions has.
        let entry = size_of::<Option<Slot>>();
        // Without TLS the socket is its descriptor alone.
        let most = if cfg!(feature = "tls") { 184 } else { 176 };
        assert!(entry <= most, "{entry} bytes");
        let page = include_str!("../../docs/internals/architecture.md");
        assert!(page.contains("at most 184 bytes, 176 in a build without TLS"), "the page has other figures");
    }
}
