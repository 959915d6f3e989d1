//! New connections: accepted within limits, and assigned to the worker that has the fewest.

use super::Worker;
use super::deadlines::{Timestamps, ticks};
use super::slots::{self, Slot, SlotFlags};
use super::sources::MAX_ACCEPTS;
use super::wheel::TimerLinks;
use crate::conn::{ConnId, Connection, MAX_SLOTS};
use crate::handler::{Command, NewConnection};
use crate::http::Peer;
use crate::log;
use crate::net::Stream;
use crate::sink::Sink;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// The response of a full server.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n";

impl Worker {
    /// Accepts what a listener has, up to its share of the iteration.
    pub(super) fn accept(&mut self, listener: usize) {
        let mut left = MAX_ACCEPTS;
        while let Some((stream, peer)) =
            self.sources.accept(listener, &mut left, &self.settings, self.ctx.count())
        {
            self.assign_worker(stream, peer);
        }
    }

    pub(super) fn resume_accepting(&mut self) {
        for listener in self.sources.take_due() {
            self.accept(listener);
        }
    }

    /// Keeps the connection, or hands it to a worker that has fewer.
    fn assign_worker(&mut self, mut stream: Stream, peer: Peer) {
        let load = |w: usize| self.shared.workers[w].load.load(Ordering::Relaxed);
        let total: usize = (0..self.shared.workers.len()).map(load).sum();
        if total >= self.settings.max_connections {
            self.ctx.count().turned_away.add(1);
            let _ = stream.write(FULL, &mut self.ctx.writer.scratch); // it is refused in any case
            return;
        }
        let me = self.ctx.worker;
        let least = (0..self.shared.workers.len()).min_by_key(|w| (load(*w), *w != me)).unwrap_or(me);
        self.shared.workers[least].load.fetch_add(1, Ordering::Relaxed);
        let new = NewConnection { stream, peer, received: Vec::new(), open: None, shared_fd: false };
        if least == me {
            self.add_connection(new);
        } else {
            // Never full in practice; if the worker has ended, so has the server.
            let _ = self.ctx.handle.command_worker(least, Command::AddConnection(Box::new(new)), true);
        }
    }

    /// Adds a connection to this worker. It is included in the worker's load already.
    pub(super) fn add_connection(&mut self, new: NewConnection) {
        let NewConnection { stream, peer, mut received, open, shared_fd } = new;
        let next = self.slots.next();
        let give_back =
            |worker: &Self| worker.shared.workers[worker.ctx.worker].load.fetch_sub(1, Ordering::Relaxed);
        if next >= MAX_SLOTS || self.shutdown.has_begun() {
            self.ctx.count().turned_away.add(1);
            give_back(self);
            return self.drop_caught(open);
        }
        self.generation = self.generation.wrapping_add(1).max(1);
        let id = ConnId::new(self.ctx.worker, next, self.generation);
        if let Err(e) = stream.register(self.poll.registry(), slots::token(id)) {
            self.ctx.count().accept_errors.add(1);
            log::limited!(warn, Instant::now(), "can't watch the connection from {peer}: {e}");
            give_back(self);
            return self.drop_caught(open);
        }
        log::line!(debug, "{id} from {peer}");
        let timestamps = Timestamps {
            received: self.now,
            message: self.now,
            deadline: self.now + ticks(self.settings.http.timeout),
            ..Timestamps::default()
        };
        let at = self.slots.insert(Slot {
            stream,
            conn: Connection::new(id, peer),
            state: None,
            http: None,
            timer: TimerLinks::default(),
            timestamps,
            flags: SlotFlags { shared_fd, ..SlotFlags::default() },
            counted_bytes: 0,
        });
        let first_look = self.next_handshake_check(at, timestamps.deadline).unwrap_or(timestamps.deadline);
        self.wheel.arm(&mut self.slots, at as u32, first_look);
        let count = self.ctx.count();
        count.accepted.add(1);
        count.sockets.add(1);
        if let Some((route, state, protocol)) = open {
            self.open(at, route, state, protocol, Default::default(), None);
            self.open_input(at, &mut received);
        } else if !received.is_empty() {
            self.http_input(at, &mut received);
        }
        self.write_and_advance(at);
    }
}
