//! The functions of `tls.rs` in a build without TLS.

use super::Worker;
use super::wheel::Tick;
use crate::net::Stream;
use std::time::Duration;

impl Worker {
    pub(super) fn is_at_handshake_limit(&self, _: usize) -> bool {
        false
    }

    pub(super) fn start_tls(&self, stream: Stream, _: usize) -> Option<Stream> {
        Some(stream)
    }

    pub(super) fn next_handshake_check(&mut self, _: usize, deadline: Tick) -> Option<Tick> {
        Some(deadline)
    }

    pub(super) fn defer_handshake(&mut self, _: usize) -> bool {
        false
    }

    pub(super) fn has_handshakes(&self) -> bool {
        false
    }

    pub(super) fn run_handshakes(&mut self) {}

    pub(super) fn log_expiries(&mut self) {}

    pub(super) fn expiry_timeout(&self) -> Option<Duration> {
        None
    }

    pub(super) fn read_tls(&mut self, _: usize) {}

    pub(super) fn count_failed_handshake(&mut self, _: usize) {}
}
