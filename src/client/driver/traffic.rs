//! Bytes between a live client's socket and its machine.

use super::{Driver, Stage};
use crate::client::Error;
use crate::client::event::Event;
use crate::client::link::Inner;
use crate::client::machine::{Expired, Happening, Machine};
use crate::conn::{ReadyState, Sink};
use crate::net::Received;
use std::io::{ErrorKind, IoSlice};

/// Reads of one client in one turn, so that a fast server does not starve the others.
const READS: u32 = 16;

/// Slices in one write; an outbox without a heap of pongs has at most five.
const SLICES: usize = 8;

/// What became of one read.
enum Took {
    /// Everything that was there.
    All,
    /// There may be more.
    More,
    /// Reading rests until events are taken.
    Rests,
    /// The connection failed; it may still have a close frame to send.
    Failed(Error),
    /// The server ended its half, or the connection broke.
    Ended(ErrorKind),
}

impl Driver {
    /// Writes what waits, as far as the kernel takes it.
    pub(super) fn flush(&mut self, key: usize) {
        let scratch = &mut Vec::new();
        let slot = &mut self.slots[key];
        let (Some(stream), Stage::Live { .. }) = (&mut slot.stream, &slot.stage) else { return };
        let mut inner = slot.link.lock();
        let Inner { machine: Some(machine), outbox, .. } = &mut *inner else { return };
        let broke = loop {
            let (mut slices, mut n, mut all) = ([IoSlice::new(&[]); SLICES], 0, 0);
            for slice in machine.slices(outbox).take(SLICES) {
                all += slice.len();
                slices[n] = slice;
                n += 1;
            }
            let written = match &slices[..n] {
                [] => break None,
                [one] => stream.write(one, scratch),
                several => stream.write_vectored(several, scratch),
            };
            match written {
                // The socket is full; an event will say when it is not.
                Ok(0) => break None,
                Ok(written) => {
                    machine.advance(written, outbox, self.now);
                    if written < all {
                        break None;
                    }
                }
                Err(e) => break Some(e.kind()),
            }
        };
        if machine.is_done_sending(outbox) && !std::mem::replace(&mut slot.sending_ended, true) {
            stream.end_sending();
        }
        drop(inner);
        if let Some(kind) = broke {
            self.write_broke(key, kind);
        }
    }

    /// The server does not take more. What it said before, such as why, may still be there to be read.
    fn write_broke(&mut self, key: usize, kind: ErrorKind) {
        for _ in 0..READS {
            match self.read_once(key) {
                Some(Took::Ended(_)) | None => break,
                Some(Took::Failed(error)) => {
                    self.failed(key, error);
                    break;
                }
                Some(Took::All | Took::More | Took::Rests) => {
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
                None | Some(Took::Rests) => break,
                Some(Took::All) if !self.slots[key].read_closed => break,
                Some(Took::All | Took::More) => {}
                Some(Took::Failed(error)) => {
                    self.failed(key, error);
                    break;
                }
                Some(Took::Ended(kind)) => {
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

    fn read_once(&mut self, key: usize) -> Option<Took> {
        let Self { slots, receive, pool, happenings, now, .. } = self;
        let slot = &mut slots[key];
        let (stream, Stage::Live { .. }) = (slot.stream.as_ref()?, &slot.stage) else { return None };
        let mut inner = slot.link.lock();
        if inner.state == ReadyState::Open && inner.is_full() {
            inner.is_paused = true;
            inner.machine.as_mut()?.pause(true, *now);
            return Some(Took::Rests);
        }
        let machine = inner.machine.as_mut()?;
        // The rest of a large message goes straight to where it belongs.
        let (received, room, direct) = match machine.spare() {
            Some(spare) => (stream.recv(spare), spare.len(), true),
            None => (stream.recv(receive), receive.len(), false),
        };
        let n = match received {
            Ok(Received::Bytes(n)) => n,
            // Nothing now: neither is there an end to be read.
            Ok(Received::Nothing) => {
                slot.read_closed = false;
                return Some(Took::All);
            }
            Ok(Received::End) => return Some(Took::Ended(ErrorKind::UnexpectedEof)),
            Err(e) => return Some(Took::Ended(e.kind())),
        };
        let took = if n == room { Took::More } else { Took::All };
        let result = inner.with(pool, *now, |machine, cx| {
            let note = |happening| happenings.push(happening);
            if direct { machine.fill(n, cx, note) } else { machine.receive(&mut receive[..n], cx, note) }
        })?;
        for happening in happenings.drain(..) {
            match happening {
                Happening::Opened(agreed) => {
                    inner.agreed = agreed;
                    inner.state = ReadyState::Open;
                    inner.push(Event::Open);
                }
                Happening::Message(data) => inner.push(Event::Message(data)),
                Happening::Closing => inner.state = ReadyState::Closing,
            }
        }
        drop(inner);
        slot.link.notify();
        Some(match result {
            Ok(()) => took,
            Err(error) => Took::Failed(error),
        })
    }

    /// Received bytes, or a deadline, showed that this can't go on.
    fn failed(&mut self, key: usize, error: Error) {
        let slot = &mut self.slots[key];
        let mut inner = slot.link.lock();
        if inner.machine.as_ref().is_some_and(Machine::has_opened) {
            // The close frame that says so is written, and the server's end awaited, for a while.
            inner.push(Event::Error(error.clone()));
            inner.state = ReadyState::Closing;
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
        let end = slot.link.lock().machine.as_mut().map(|machine| machine.end(kind));
        self.over(key, end.and_then(Result::err));
    }

    /// A deadline of the machine's has come.
    pub(super) fn machine_due(&mut self, key: usize) {
        let Self { slots, pool, now, .. } = self;
        let expired = slots[key].link.lock().with(pool, *now, |machine, cx| machine.expire(cx));
        match expired {
            Some(Expired::No) | None => self.flush(key),
            Some(Expired::Over) => self.over(key, None),
            Some(Expired::Failed(error @ Error::MessageTimeout { .. })) => self.failed(key, error),
            Some(Expired::Failed(error)) => self.over(key, Some(error)),
        }
    }
}
