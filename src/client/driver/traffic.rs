//! Bytes between a live client's socket and its events.

use super::{Driver, Stage};
use crate::client::Error;
use crate::client::event::{ClientEvent, Data};
use crate::client::link::Inner;
use crate::client::machine::{Expired, Machine, SocketContext, SocketEvent};
use crate::client::socket;
use crate::conn::ReadyState;
use std::io::ErrorKind;

/// Reads of one client in one turn, so that a fast server does not starve the others.
const READS: u32 = 16;

/// What became of one read.
enum ReadResult {
    /// Reading rests until events are taken.
    Rests,
    /// All that was there, and the end is not to be looked for.
    Enough,
    /// There may be more.
    More,
    /// The connection failed; it may still have a close frame to send.
    Failed(Error),
    /// The server ended its half, or the connection broke.
    Ended(ErrorKind),
}

impl Driver {
    /// The socket is connected, has failed to, or takes more.
    pub(super) fn writable(&mut self, key: usize) {
        let mut inner = self.slots[key].link.lock();
        let Some(socket) = &mut inner.socket else { return };
        let made = socket.writable(self.now);
        drop(inner);
        match made {
            Ok(true) => self.connected(key),
            Ok(false) => self.flush(key),
            Err(kind) => self.next_addr(key, kind),
        }
    }

    /// Writes what waits, as far as the kernel takes it.
    pub(super) fn flush(&mut self, key: usize) {
        let slot = &mut self.slots[key];
        let Stage::Live { .. } = slot.stage else { return };
        let mut inner = slot.link.lock();
        let Inner { socket: Some(socket), outbox, .. } = &mut *inner else { return };
        let flushed = socket.flush(outbox, &mut self.packer, self.now);
        drop(inner);
        if let Err(kind) = flushed {
            self.write_broke(key, kind);
        }
    }

    /// The server does not take more. What it said before, such as why, may still be there to be read.
    fn write_broke(&mut self, key: usize, kind: ErrorKind) {
        for _ in 0..READS {
            match self.read_once(key) {
                Some(ReadResult::Ended(_)) | None => break,
                Some(ReadResult::Failed(error)) => {
                    self.failed(key, error);
                    break;
                }
                Some(ReadResult::Enough | ReadResult::More | ReadResult::Rests) => {
                    if self.slots[key].link.lock().state != ReadyState::Open {
                        break;
                    }
                }
            }
        }
        self.ended(key, kind);
    }

    /// Reads what has come, and writes the answers.
    pub(super) fn read(&mut self, key: usize) {
        let mut reads = 0;
        loop {
            match self.read_once(key) {
                None | Some(ReadResult::Rests | ReadResult::Enough) => break,
                Some(ReadResult::More) => {}
                Some(ReadResult::Failed(error)) => {
                    self.failed(key, error);
                    break;
                }
                Some(ReadResult::Ended(kind)) => {
                    self.ended(key, kind);
                    return;
                }
            }
            reads += 1;
            if reads == READS {
                self.again.push(key);
                break;
            }
        }
        self.flush(key);
    }

    fn read_once(&mut self, key: usize) -> Option<ReadResult> {
        let Self { slots, receive, pool, packer, now, .. } = self;
        let slot = &mut slots[key];
        let Stage::Live { .. } = &slot.stage else { return None };
        let mut inner = slot.link.lock();
        if inner.state == ReadyState::Open && inner.is_full() {
            inner.is_paused = true;
            inner.socket.as_mut()?.machine.pause(true, *now);
            return Some(ReadResult::Rests);
        }
        let Inner { socket, outbox, keys, queue, state, agreed, keeps_messages, opened, .. } = &mut *inner;
        let socket = socket.as_mut()?;
        let mut cx = SocketContext { now: *now, outbox, keys, pool, packer };
        let status = socket.read(receive, &mut cx, |event, pool| match event {
            SocketEvent::Opened(agrees) => {
                *agreed = agrees;
                *state = ReadyState::Open;
                *opened += 1;
                queue.push(ClientEvent::Open);
            }
            SocketEvent::Message(kind, payload) => {
                queue.push(ClientEvent::Message(Data::take(kind, payload, pool)))
            }
            SocketEvent::Closing => *state = ReadyState::Closing,
        });
        // What waits may have to go to another connection, which does not know what this one has said.
        if let Some(sent) = socket.machine.sent.as_mut().filter(|_| *keeps_messages) {
            sent.stand_alone();
        }
        let looks_for_end = socket.is_read_closed();
        drop(inner);
        slot.link.notify();
        Some(match status {
            socket::ReadStatus::All if !looks_for_end => ReadResult::Enough,
            socket::ReadStatus::All | socket::ReadStatus::More => ReadResult::More,
            socket::ReadStatus::Failed(error) => ReadResult::Failed(error),
            socket::ReadStatus::Ended(kind) => ReadResult::Ended(kind),
        })
    }

    /// Received bytes, or a deadline, showed that this can't go on.
    fn failed(&mut self, key: usize, error: Error) {
        let slot = &mut self.slots[key];
        let mut inner = slot.link.lock();
        if inner.machine().is_some_and(Machine::has_opened) {
            // The close frame that says so is written, and the server's end awaited, for a while; after a breach not
            // before the messages that came first have been taken.
            inner.push(ClientEvent::Error(error.clone()));
            if !inner.machine().is_some_and(Machine::is_breached) {
                inner.state = ReadyState::Closing;
            }
            slot.failure = Some(error);
            drop(inner);
            slot.link.notify();
            self.flush(key);
        } else {
            drop(inner);
            self.refused(key, error);
        }
    }

    /// The server has ended its half, or the connection broke.
    fn ended(&mut self, key: usize, kind: ErrorKind) {
        let Some(slot) = self.slots.get(key) else { return };
        let Stage::Live { .. } = slot.stage else { return };
        let end = slot.link.lock().machine().map(|machine| machine.end(kind));
        self.over(key, end.and_then(Result::err));
    }

    /// A deadline of the machine's has come.
    pub(super) fn machine_due(&mut self, key: usize) {
        let Self { slots, pool, packer, now, .. } = self;
        let mut inner = slots[key].link.lock();
        let expired = inner.with((*now, pool, packer), |socket, cx| socket.expire(cx));
        if inner.state == ReadyState::Open && !inner.machine().is_some_and(Machine::is_open) {
            inner.state = ReadyState::Closing;
        }
        drop(inner);
        match expired {
            Some(Expired::No) | None => self.flush(key),
            Some(Expired::Over) => self.over(key, None),
            Some(Expired::Failed(error @ Error::MessageTimeout { .. })) => self.failed(key, error),
            Some(Expired::Failed(error)) => self.over(key, Some(error)),
        }
    }
}
