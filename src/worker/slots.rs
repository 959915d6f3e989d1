//! The connections of one worker: a slab of slots, each with its socket, its connection and its timer.

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

/// One connection, on a socket, or in simulations and benches on another sink.
#[derive(Debug)]
pub(crate) struct Slot<S = Stream> {
    pub(crate) stream: S,
    pub(crate) conn: Connection,
    /// The application's state; none before the upgrade.
    pub(crate) state: Option<AnyState>,
    /// The HTTP state between reads; none for an open WebSocket.
    pub(crate) http: Option<Box<HttpState>>,
    pub(crate) timer: TimerLinks,
    pub(crate) timestamps: Timestamps,
    pub(crate) flags: SlotFlags,
    /// Bytes of its memory that are included in the worker's count.
    pub(crate) counted_bytes: u32,
}

impl<S: Sink> Slot<S> {
    /// Returns whether the kernel has accepted everything.
    #[inline]
    pub(crate) fn is_written_out(&self) -> bool {
        self.conn.is_written_out() && self.stream.is_written_out()
    }

    /// Returns the application's bytes that the kernel has not accepted.
    #[inline]
    pub(crate) fn buffered(&self) -> usize {
        self.conn.buffered() + self.stream.buffered()
    }
}

impl Slot {
    /// Returns the bytes of memory that it holds beside the slot.
    #[inline]
    pub(crate) fn held(&self) -> usize {
        let requests = self.http.as_ref().map_or(0, |http| http.held());
        self.conn.held() + self.stream.held() + requests
    }
}

/// Flags that the worker keeps for a slot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SlotFlags {
    /// It is in the list of scheduled reads.
    pub(crate) read_scheduled: bool,
    /// It is in the list of slots with something to write.
    pub(crate) dirty: bool,
    /// It is in the list of slots to be removed.
    pub(crate) closed: bool,
    /// The peer has ended its half: the end of the stream must be read behind the last bytes.
    pub(crate) ended: bool,
    /// Its descriptor may have copies elsewhere.
    pub(crate) shared_fd: bool,
    /// The phase that `deadline` belongs to.
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

    /// Returns the slot that the next connection will have.
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

    /// Returns the slot of this connection, unless it was reused.
    pub(crate) fn find(&self, id: ConnId) -> Option<&Slot<S>> {
        self.0.get(id.slot()).filter(|s| s.conn.id == id)
    }

    /// Returns the slot of this connection, unless it was reused.
    #[inline]
    pub(crate) fn find_mut(&mut self, id: ConnId) -> Option<&mut Slot<S>> {
        self.0.get_mut(id.slot()).filter(|s| s.conn.id == id)
    }

    /// Returns the slot that a readiness event belongs to.
    #[inline]
    pub(crate) fn at_token(&mut self, token: Token) -> Option<usize> {
        let (at, generation) = (token.0 & (u32::MAX as usize), (token.0 >> 32) as u32);
        self.0.get(at).filter(|s| s.conn.id.generation() == generation).map(|_| at)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Slot<S>)> {
        self.0.iter()
    }

    /// Returns the number of slots, free ones included.
    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Returns the keys of all slots, to walk over them while they change.
    pub(crate) fn keys(&self) -> Vec<usize> {
        self.0.iter().map(|(at, _)| at).collect()
    }
}

/// Frees the slots behind the last connection.
impl<S> Shrink for Slots<S> {
    fn shrink(&mut self) {
        self.0.shrink();
    }
}

/// Returns the token of a connection: slot and generation, so that no stale event reaches the next tenant.
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
