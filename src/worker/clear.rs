//! What `tls.rs` has, in a build without TLS.

use super::Worker;
use super::wheel::Tick;
use crate::net::Stream;
use std::time::Duration;

impl Worker {
    pub(super) fn is_crowded_out(&self, _: usize) -> bool {
        false
    }

    pub(super) fn secure(&self, stream: Stream, _: usize) -> Option<Stream> {
        Some(stream)
    }

    pub(super) fn handshake_look(&mut self, _: usize, deadline: Tick) -> Option<Tick> {
        Some(deadline)
    }

    pub(super) fn defers(&mut self, _: usize) -> bool {
        false
    }

    pub(super) fn has_handshakes(&self) -> bool {
        false
    }

    pub(super) fn shake(&mut self) {}

    pub(super) fn tell_expiries(&mut self) {}

    pub(super) fn expiry_patience(&self) -> Option<Duration> {
        None
    }

    pub(super) fn read_sealed(&mut self, _: usize) {}

    pub(super) fn note_handshake(&mut self, _: usize) {}
}
