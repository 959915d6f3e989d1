//! TLS connections: the limit on handshakes, and reading. Plaintext is processed as on every other connection.

use super::deadlines::ticks;
use super::http::HTTP_READ;
use super::paced::{Budget, Paced};
use super::wheel::Tick;
use super::{CROWDED_READ, RATED_READ, Worker, WorkerSettings};
use crate::conn::{Cause, ConnId, Phase};
use crate::log;
use crate::metrics::Counters;
use crate::net::{Listener, ReadOutcome, Stream, TlsAcceptor, TlsRead};
use crate::tls::{HandshakeCounter, MAX_KEPT};
use rustls::pki_types::UnixTime;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The least size of a receive buffer with TLS: an incomplete record, and a read behind it.
pub(crate) const MIN_RECEIVE: usize = MAX_KEPT + (64 << 10);

/// A handshake without data for this long is closed if others wait for its place. Below the limit, a handshake has the
/// whole time of a first request.
const HANDSHAKE_IDLE: Duration = Duration::from_secs(2);

/// How long an iteration works on handshakes. The rest waits for the next one, which serves established connections
/// first: a handshake takes 0.1 ms, with an RSA key of 4,096 bits several times as much, and 4,096 may be in progress.
const HANDSHAKE_TIME: Duration = Duration::from_millis(2);

/// Makes a worker's queue of handshakes to continue.
pub(super) const fn handshake_queue() -> Paced<ConnId> {
    Paced::new(Budget::of_time(HANDSHAKE_TIME))
}

/// The handshakes in progress on all workers, and their limit.
#[derive(Debug)]
pub(crate) struct Handshakes {
    counter: HandshakeCounter,
    most: usize,
}

impl Handshakes {
    pub(crate) fn new(most: usize) -> Self {
        Self { counter: HandshakeCounter::default(), most }
    }
}

/// How often expiring certificates are logged.
const EXPIRY_LOG_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// The certificates of all listeners, for the worker that logs their expiry.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    acceptors: Vec<TlsAcceptor>,
    /// When they are checked next, since the start.
    due: Duration,
}

impl Certificates {
    pub(crate) fn new(all: impl IntoIterator<Item = TlsAcceptor>) -> Self {
        let mut acceptors: Vec<TlsAcceptor> = Vec::new();
        for acceptor in all {
            // Listeners may share one.
            if !acceptors.iter().any(|known| Arc::ptr_eq(known, &acceptor)) {
                acceptors.push(acceptor);
            }
        }
        Self { acceptors, due: Duration::ZERO }
    }

    /// Returns whether it is time to check, at the start and once a day.
    fn is_due(&mut self, now: Duration) -> bool {
        let is_due = now >= self.due && !self.acceptors.is_empty();
        if is_due {
            self.due = now + EXPIRY_LOG_INTERVAL;
        }
        is_due
    }

    /// Returns how long the worker may wait.
    fn timeout(&self, now: Duration) -> Option<Duration> {
        (!self.acceptors.is_empty()).then(|| self.due.saturating_sub(now))
    }
}

/// Returns whether this listener must wait because too many handshakes are in progress.
pub(super) fn is_at_handshake_limit(
    listener: &Listener,
    settings: &WorkerSettings,
    count: &Counters,
) -> bool {
    let Handshakes { counter, most } = &settings.handshakes;
    let crowded_out = listener.security.is_some() && counter.count() >= *most;
    if crowded_out {
        count.tls_pauses.add(1);
    }
    crowded_out
}

/// Starts TLS on a stream, if its listener uses it.
pub(super) fn start(
    mut stream: Stream,
    listener: &Listener,
    settings: &WorkerSettings,
    count: &Counters,
) -> Option<Stream> {
    if let Some(acceptor) = &listener.security {
        match acceptor.accept() {
            Ok(mut session) => {
                session.count(settings.handshakes.counter.begin());
                stream.start_tls(session);
            }
            Err(e) => {
                log::line!(debug, "a TLS session can't begin: {e}");
                count.tls_failed.add(1);
                return None;
            }
        }
    }
    Some(stream)
}

impl Worker {
    /// Logs certificates that clients refuse, or will refuse soon.
    #[inline]
    pub(super) fn log_expiries(&mut self) {
        if !self.certificates.is_due(self.iteration_start) {
            return;
        }
        let now = UnixTime::now();
        for expiry in self.certificates.acceptors.iter().flat_map(|a| a.names().expiries(now)) {
            match expiry.is_refused() {
                true => log::line!(error, "{expiry}"),
                false => log::line!(warn, "{expiry}"),
            }
        }
    }

    /// Returns how long until the next check.
    pub(super) fn expiry_timeout(&self) -> Option<Duration> {
        self.certificates.timeout(self.iteration_start)
    }

    /// Returns when a connection whose phase has this deadline is checked next; `None` if its handshake is idle and
    /// others wait for its place.
    pub(super) fn next_handshake_check(&mut self, at: usize, deadline: Tick) -> Option<Tick> {
        let Some(slot) = self.slots.get_mut(at) else { return Some(deadline) };
        if slot.stream.session().is_none_or(|s| s.is_established()) {
            return Some(deadline);
        }
        // Its client has sent something, and waits for us.
        if slot.flags.read_scheduled {
            return Some(deadline.min(self.now + ticks(HANDSHAKE_IDLE / 4)));
        }
        let next = slot.timestamps.received + ticks(HANDSHAKE_IDLE);
        let Handshakes { counter, most } = &self.settings.handshakes;
        if next <= self.now && counter.count() >= *most {
            return None;
        }
        Some(deadline.min(next.max(self.now + ticks(HANDSHAKE_IDLE / 4))))
    }

    /// Defers a socket until [`Self::run_handshakes`]; `false` if its handshake is finished.
    pub(super) fn defer_handshake(&mut self, at: usize) -> bool {
        let Some(slot) = self.slots.get_mut(at) else { return false };
        if slot.stream.session().is_none_or(|s| s.is_established()) {
            return false;
        }
        if !slot.flags.read_scheduled {
            slot.flags.read_scheduled = true;
            self.handshake_queue.push(slot.conn.id);
        }
        true
    }

    pub(super) fn has_handshakes(&self) -> bool {
        !self.handshake_queue.is_empty()
    }

    /// Continues handshakes whose clients have sent something, in order of arrival, within the iteration's budget.
    pub(super) fn run_handshakes(&mut self) {
        if self.handshake_queue.is_empty() {
            return;
        }
        self.handshake_queue.renew();
        let mut before = Instant::now();
        while let Some(id) = self.handshake_queue.take() {
            let Some(slot) = self.slots.find_mut(id) else { continue };
            slot.flags.read_scheduled = false;
            let (at, phase) = (id.slot(), slot.conn.phase);
            match phase {
                Phase::Http => {
                    self.read_http(at);
                    self.finish_read(at);
                }
                _ => self.read(at),
            }
            let now = Instant::now();
            self.handshake_queue.spend_time(now - before);
            before = now;
        }
        self.ctx.count().tls_deferred.add(u64::from(!self.handshake_queue.is_empty()));
        self.handshake_queue.tidy();
    }

    /// Reads from a TLS connection that is readable.
    pub(super) fn read_tls(&mut self, at: usize) {
        let Self { slots, recv, plaintext, is_crowded, ctx, shared, .. } = self;
        let Some(slot) = slots.get_mut(at) else { return };
        let rated = || shared.routes.get(usize::from(slot.conn.route)).is_some_and(|r| r.rates.is_some());
        let share = match slot.conn.phase {
            Phase::Http => HTTP_READ,
            _ if rated() => RATED_READ,
            _ if *is_crowded => CROWDED_READ,
            _ => recv.len(),
        };
        let opened = slot.stream.recv_tls(recv, share, plaintext);
        let TlsRead { received, full, established } = match opened {
            Ok(opened) => opened,
            Err(e) => {
                self.plaintext.clear();
                return self.tls_failed(at, &e);
            }
        };
        match received {
            ReadOutcome::Bytes(_) => {}
            ReadOutcome::WouldBlock => return,
            ReadOutcome::Eof => {
                slot.stream.send_close_notify(); // the peer may still be reading
                return self.disconnected(at, io::ErrorKind::UnexpectedEof);
            }
        }
        let session = slot.stream.session();
        if established {
            ctx.count().tls_handshakes.add(1);
            ctx.count().tls_resumed.add(u64::from(session.is_some_and(|s| s.is_resumed())));
        }
        // The end is read in another iteration, so that what came before it is answered first.
        if full || session.is_some_and(|s| s.has_ended()) {
            self.schedule_read(at);
        }
        let mut plaintext = core::mem::take(&mut self.plaintext);
        if !plaintext.is_empty() {
            self.handle_plaintext(at, &mut plaintext);
        }
        plaintext.clear();
        self.plaintext = plaintext;
    }

    fn handle_plaintext(&mut self, at: usize, plaintext: &mut [u8]) {
        let now = self.now;
        let Some(slot) = self.slots.get_mut(at) else { return };
        if slot.conn.phase == Phase::Http {
            return self.http_input(at, plaintext);
        }
        (slot.timestamps.received, slot.timestamps.pinged) = (now, 0);
        self.open_input(at, plaintext);
    }

    /// Handles a socket that failed, or input that is no TLS. In the latter case the alert is sent and the input is
    /// discarded: a reset would overtake the alert.
    fn tls_failed(&mut self, at: usize, error: &io::Error) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        let Some(session) = slot.stream.session().filter(|s| s.has_failed()) else {
            return self.disconnected(at, error.kind());
        };
        log::line!(debug, "{}: TLS failed: {error}", slot.conn.id);
        self.ctx.count().protocol_errors.add(u64::from(session.is_established()));
        slot.http = None;
        slot.conn.fail_transport(&mut self.ctx.writer, Cause::Transport(io::ErrorKind::InvalidData));
    }

    /// Counts a connection that is removed before its handshake was finished.
    pub(super) fn count_failed_handshake(&mut self, at: usize) {
        let unfinished = |s: &crate::tls::TlsSession| !s.is_established();
        if self.slots.get_mut(at).is_some_and(|s| s.stream.session().is_some_and(unfinished)) {
            self.ctx.count().tls_failed.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::TlsVersion;
    use crate::tls::{Acceptor, AcceptorSettings, Certificate, CertificateNames, ClientAuth};

    #[test]
    fn certificates_are_checked_at_start_and_once_a_day() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let own = Certificate::from_pem(made.cert.pem(), made.signing_key.serialize_pem()).unwrap();
        let terms = AcceptorSettings { client_auth: ClientAuth::off(), min_version: TlsVersion::Tls12 };
        let acceptor = Arc::new(Acceptor::new(CertificateNames::new(own), &terms).unwrap());
        let mut certificates = Certificates::new([acceptor.clone(), acceptor]);
        assert_eq!(certificates.acceptors.len(), 1, "two listeners share one");
        let hours = |n: u64| Duration::from_secs(n * 3600);
        assert_eq!(certificates.timeout(hours(0)), Some(Duration::ZERO));
        let due: Vec<u64> = (0..100).filter(|h| certificates.is_due(hours(*h))).collect();
        assert_eq!(due, [0, 24, 48, 72, 96]);
        assert_eq!(certificates.timeout(hours(100)), Some(hours(20)));
        let mut none = Certificates::default();
        assert!(!none.is_due(hours(24)) && none.timeout(hours(24)).is_none());
    }
}
