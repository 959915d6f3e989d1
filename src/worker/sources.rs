//! What a worker polls beside its connections and its mailbox: listeners and the program's own descriptors.

use super::callbacks::{self, Stopwatch};
use super::{WorkerSettings, tls};
use crate::handler::{Handle, WorkerContext};
use crate::http::Peer;
use crate::log;
use crate::metrics::Counters;
use crate::net::{Listener, Stream};
use mio::event::Source as _;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Connections accepted from one listener in one iteration, so that others do not wait for more.
pub(super) const MAX_ACCEPTS: usize = 64;

/// After an error such as too many open files, the listener pauses: new clients wait in the kernel's backlog, and the
/// loop does not spin.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// A descriptor of the program's, and what to do when it is readable.
pub(crate) struct WatchedFd {
    pub(crate) fd: OwnedFd,
    pub(crate) action: Box<dyn FnMut(&Handle) + Send>,
}

/// What a token that is not a connection's belongs to, by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Listener(usize),
    Watched(usize),
}

/// Returns the token of a source, below that of [`super::WAKER`]. Listeners come first.
const fn token(number: usize) -> Token {
    Token(usize::MAX - 1 - number)
}

/// Returns the source of a token, if there are this many listeners and watched descriptors.
fn source_of(token: Token, listeners: usize, watched: usize) -> Option<Source> {
    let number = (usize::MAX - 1).checked_sub(token.0).filter(|n| *n < listeners + watched)?;
    Some(number.checked_sub(listeners).map_or(Source::Listener(number), Source::Watched))
}

/// The listeners and watched descriptors of a worker.
pub(super) struct Sources {
    /// Empty after the shutdown has begun.
    listeners: Vec<Listener>,
    /// How many there were at the start: tokens don't change.
    listener_count: usize,
    watched: Vec<WatchedFd>,
    /// Listeners that may have more: they reached the limit of the iteration.
    ready: Vec<usize>,
    /// Listeners that pause after an error, and until when.
    backoff: Option<(Instant, Vec<usize>)>,
}

impl Sources {
    /// Registers all sources with the worker's poll.
    pub(super) fn new(
        registry: &Registry,
        listeners: Vec<Listener>,
        watched: Vec<WatchedFd>,
    ) -> io::Result<Self> {
        for (i, listener) in listeners.iter().enumerate() {
            listener.register(registry, token(i))?;
        }
        for (i, watched) in watched.iter().enumerate() {
            let token = token(listeners.len() + i);
            SourceFd(&watched.fd.as_raw_fd()).register(registry, token, Interest::READABLE)?;
        }
        let listener_count = listeners.len();
        Ok(Self { listeners, listener_count, watched, ready: Vec::new(), backoff: None })
    }

    /// Returns the source that a readiness event belongs to.
    pub(super) fn at_token(&self, token: Token) -> Option<Source> {
        source_of(token, self.listener_count, self.watched.len())
    }

    /// Closes the listeners.
    pub(super) fn close_listeners(&mut self) {
        self.listeners.clear();
    }

    /// Returns whether a listener has more than it was allowed to accept.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Returns how long until a listener that pauses is tried again.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.backoff.as_ref().map(|(until, _)| until.saturating_duration_since(Instant::now()))
    }

    /// Takes the listeners to accept from without an event: those that have more, and those whose pause is over.
    pub(super) fn take_due(&mut self) -> Vec<usize> {
        let mut due = core::mem::take(&mut self.ready);
        if let Some((_, waiting)) = self.backoff.take_if(|(until, _)| *until <= Instant::now()) {
            due.extend(waiting);
        }
        due
    }

    /// Accepts the next connection of a listener, on which TLS has begun if the listener uses it. Returns `None` when
    /// there are no more, when `left` is zero, or when the listener must pause.
    pub(super) fn accept(
        &mut self,
        listener: usize,
        left: &mut usize,
        settings: &WorkerSettings,
        count: &Counters,
    ) -> Option<(Stream, Peer)> {
        let source = self.listeners.get(listener)?;
        while let Some(rest) = left.checked_sub(1) {
            *left = rest;
            if tls::is_at_handshake_limit(source, settings, count) {
                self.back_off(listener);
                return None;
            }
            match source.accept() {
                Ok(Some((stream, peer))) => {
                    if let Some(stream) = tls::start(stream, source, settings, count) {
                        return Some((stream, peer));
                    }
                }
                Ok(None) => return None,
                Err(e) => {
                    count.accept_errors.add(1);
                    log::limited!(
                        warn,
                        Instant::now(),
                        "can't accept: {e}; trying again every {ACCEPT_BACKOFF:?} (is the limit on open files too low?)"
                    );
                    self.back_off(listener);
                    return None;
                }
            }
        }
        if !self.ready.contains(&listener) {
            self.ready.push(listener);
        }
        None
    }

    /// Leaves new clients in the kernel's backlog for a while.
    fn back_off(&mut self, listener: usize) {
        let (_, waiting) = self.backoff.get_or_insert_with(|| (Instant::now() + ACCEPT_BACKOFF, Vec::new()));
        if !waiting.contains(&listener) {
            waiting.push(listener);
        }
    }

    /// Runs the action of a watched descriptor that is readable.
    pub(super) fn run_action(&mut self, watched: usize, ctx: &WorkerContext) {
        let Some(WatchedFd { fd, action }) = self.watched.get_mut(watched) else { return };
        // It is readable, so this does not block. The descriptor becomes ready again with the next byte.
        let _ = rustix::io::read(fd, &mut [0; 4096]);
        let place = format_args!("the action of Builder::watch");
        let stopwatch = Stopwatch::start();
        callbacks::catch(ctx.count(), place, || action(&ctx.handle));
        stopwatch.report(ctx.handle.shared.slow_callback, place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_listener_or_watched_descriptor() {
        let all: Vec<_> = (0..5).map(|n| source_of(token(n), 2, 2)).collect();
        let expected = [Source::Listener(0), Source::Listener(1), Source::Watched(0), Source::Watched(1)];
        assert_eq!(all, [expected.map(Some).as_slice(), &[None]].concat());
        assert_eq!(source_of(crate::worker::WAKER, 2, 2), None);
        assert_eq!(source_of(Token(1 << 32), 2, 2), None, "a connection's");
    }

    #[test]
    fn a_listener_that_pauses_is_due_when_its_pause_is_over() {
        let mut sources = Sources {
            listeners: Vec::new(),
            listener_count: 2,
            watched: Vec::new(),
            ready: vec![1],
            backoff: None,
        };
        sources.back_off(0);
        sources.back_off(0);
        assert!(sources.has_ready() && sources.timeout().is_some_and(|t| t <= ACCEPT_BACKOFF));
        assert_eq!(sources.take_due(), [1]);
        assert!(!sources.has_ready());
        if let Some((until, _)) = &mut sources.backoff {
            *until = Instant::now();
        }
        assert_eq!(sources.take_due(), [0]);
        assert_eq!(sources.timeout(), None);
    }
}
