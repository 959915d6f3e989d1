//! The functions of `tls.rs` in a build without TLS.

use super::wheel::Tick;
use super::{Worker, WorkerSettings};
use crate::metrics::Counters;
use crate::net::{Listener, Stream};
use std::time::Duration;

pub(super) const fn is_at_handshake_limit(_: &Listener, _: &WorkerSettings, _: &Counters) -> bool {
    false
}

pub(super) const fn start(stream: Stream, _: &Listener, _: &WorkerSettings, _: &Counters) -> Option<Stream> {
    Some(stream)
}

impl Worker {
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
