//! New connections: accepted within bounds, and placed on the worker that has the fewest.

use super::Worker;
use super::deadlines::{Clock, ticks};
use super::slots::{self, Marks, Slot};
use super::wheel::Links;
use crate::conn::{ConnId, Connection, MAX_SLOTS, Sink};
use crate::handler::{Adopt, Command};
use crate::http::Peer;
use crate::log;
use crate::net::Stream;
use mio::Token;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Connections accepted from one listener in one turn: the others of the loop wait for no more than these.
const ACCEPTS: usize = 64;

/// After an error such as too many open files, the listener rests for so long: the kernel keeps what waits, and the
/// loop does not spin.
const REST: Duration = Duration::from_millis(100);

/// What a full server says.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n";

/// The tokens of listeners and of what else is watched, below that of [`super::WAKER`].
pub(super) fn token(number: usize) -> Token {
    Token(usize::MAX - 1 - number)
}

pub(super) fn number_of(token: Token, all: usize) -> Option<usize> {
    (usize::MAX - 1).checked_sub(token.0).filter(|i| *i < all)
}

/// What the worker remembers about accepting.
#[derive(Debug, Default)]
pub(super) struct Accepting {
    /// Listeners that may have more: their turn's share was used up.
    due: Vec<usize>,
    /// Listeners that rest after an error, until then.
    rest: Option<(Instant, Vec<usize>)>,
}

impl Accepting {
    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    pub(super) fn patience(&self) -> Option<Duration> {
        self.rest.as_ref().map(|(until, _)| until.saturating_duration_since(Instant::now()))
    }
}

impl Worker {
    pub(super) fn accept(&mut self, listener: usize) {
        for _ in 0..ACCEPTS {
            if self.is_crowded_out(listener) {
                return self.rest(listener);
            }
            let Some(accepted) = self.listeners.get(listener).map(|l| l.accept()) else { return };
            match accepted {
                Ok(Some((stream, peer))) => {
                    if let Some(stream) = self.secure(stream, listener) {
                        self.place(stream, peer);
                    }
                }
                Ok(None) => return,
                Err(e) => {
                    self.turn.count().accept_errors.add(1);
                    log::limited!(
                        warn,
                        Instant::now(),
                        "can't accept: {e}; trying again every {REST:?} (is the limit on open files too low?)"
                    );
                    return self.rest(listener);
                }
            }
        }
        if !self.accepting.due.contains(&listener) {
            self.accepting.due.push(listener);
        }
    }

    /// Leaves what waits there to the kernel for a while.
    fn rest(&mut self, listener: usize) {
        let (_, resting) = self.accepting.rest.get_or_insert_with(|| (Instant::now() + REST, Vec::new()));
        if !resting.contains(&listener) {
            resting.push(listener);
        }
    }

    pub(super) fn accept_again(&mut self) {
        for listener in core::mem::take(&mut self.accepting.due) {
            self.accept(listener);
        }
        if let Some((_, rested)) = self.accepting.rest.take_if(|(until, _)| *until <= Instant::now()) {
            for listener in rested {
                self.accept(listener);
            }
        }
    }

    /// Takes the connection, or hands it to a worker that has fewer.
    fn place(&mut self, mut stream: Stream, peer: Peer) {
        let load = |w: usize| self.shared.workers[w].load.load(Ordering::Relaxed);
        let total: usize = (0..self.shared.workers.len()).map(load).sum();
        if total >= self.settings.max_connections {
            self.turn.count().turned_away.add(1);
            let _ = stream.write(FULL, &mut self.turn.writer.scratch); // it is turned away in any case
            return;
        }
        let me = self.turn.worker;
        let least = (0..self.shared.workers.len()).min_by_key(|w| (load(*w), *w != me)).unwrap_or(me);
        self.shared.workers[least].load.fetch_add(1, Ordering::Relaxed);
        let adopt = Adopt { stream, peer, received: Vec::new(), open: None, foreign: false };
        if least == me {
            self.adopt(adopt);
        } else {
            // Never full in practice; if the worker has ended, so has the server.
            let _ = self.turn.handle.command_worker(least, Command::Adopt(Box::new(adopt)), true);
        }
    }

    /// A socket becomes this worker's. Its load has been counted already.
    pub(super) fn adopt(&mut self, adopt: Adopt) {
        let Adopt { stream, peer, mut received, open, foreign } = adopt;
        let next = self.slots.next();
        let give_back =
            |worker: &Self| worker.shared.workers[worker.turn.worker].load.fetch_sub(1, Ordering::Relaxed);
        if next >= MAX_SLOTS || self.stopping.is_some() {
            self.turn.count().turned_away.add(1);
            give_back(self);
            return self.drop_foreign(open);
        }
        self.generation = self.generation.wrapping_add(1).max(1);
        let id = ConnId::new(self.turn.worker, next, self.generation);
        if let Err(e) = stream.register(self.poll.registry(), slots::token(id)) {
            self.turn.count().accept_errors.add(1);
            log::limited!(warn, Instant::now(), "can't watch the connection from {peer}: {e}");
            give_back(self);
            return self.drop_foreign(open);
        }
        log::line!(debug, "{id} from {peer}");
        let clock = Clock {
            received: self.now,
            message: self.now,
            deadline: self.now + ticks(self.settings.http.timeout),
            ..Clock::default()
        };
        let at = self.slots.insert(Slot {
            stream,
            conn: Connection::new(id, peer),
            state: None,
            exchange: None,
            timer: Links::default(),
            clock,
            marks: Marks { foreign, ..Marks::default() },
            charged: 0,
        });
        let first_look = self.handshake_look(at, clock.deadline).unwrap_or(clock.deadline);
        self.wheel.arm(&mut self.slots, at as u32, first_look);
        let count = self.turn.count();
        count.accepted.add(1);
        count.sockets.add(1);
        if let Some((route, state, protocol)) = open {
            self.open(at, route, state, protocol, Default::default(), None);
            self.open_input(at, &mut received);
        } else if !received.is_empty() {
            self.http_input(at, &mut received);
        }
        self.after(at);
    }
}
