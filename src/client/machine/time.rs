//! The machine's waits, each with its end.

use super::{Machine, SocketContext, Stage};
use crate::client::Error;
use crate::protocol::buffer::BufferPool;
use crate::protocol::{CloseCode, Opcode};
use std::time::Instant;

/// What an expired deadline asks for.
#[derive(Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // an owner has to deal with each
pub enum Expired {
    /// Nothing, or only that what was queued is written.
    No,
    /// The connection is over, though its end was not seen.
    Over,
    /// The connection failed.
    Failed(Error),
}

impl Machine {
    /// Whether reading rests because nobody takes what comes. Then the server's silence says nothing.
    pub(in crate::client) fn pause(&mut self, paused: bool, now: Instant) {
        if self.paused && !paused {
            self.last_received = now;
            self.pinged = None;
            self.within = self.within.map(|_| now);
        }
        self.paused = paused;
    }

    pub(super) fn note_progress(&mut self, now: Instant) {
        self.within = match self.within {
            _ if !self.decoder.is_within_message() => None,
            Some(since) => Some(since),
            None => Some(now),
        };
    }

    pub(super) fn enter(&mut self, stage: Stage, now: Instant) {
        self.since = now;
        self.stage = stage;
    }

    /// When [`Machine::expire`] is to be called.
    pub(in crate::client) fn deadline(&self) -> Option<Instant> {
        let limits = &self.limits;
        match self.stage {
            Stage::Opening(_) => self.since.checked_add(limits.handshake_timeout),
            Stage::Open if self.paused => None,
            Stage::Open => {
                let heartbeat = match self.pinged {
                    _ if limits.ping_interval.is_zero() => None,
                    Some(pinged) => pinged.checked_add(limits.pong_timeout),
                    None => self.last_received.checked_add(limits.ping_interval),
                };
                heartbeat.into_iter().chain(self.message_deadline()).min()
            }
            Stage::Breached(_) | Stage::Closing | Stage::Ending | Stage::Failed => {
                self.since.checked_add(limits.close_timeout)
            }
        }
    }

    fn message_deadline(&self) -> Option<Instant> {
        let timeout = self.limits.message_timeout;
        self.within.filter(|_| !timeout.is_zero())?.checked_add(timeout)
    }

    /// Does what is due at this time.
    pub(in crate::client) fn expire(&mut self, cx: &mut SocketContext<'_>) -> Expired {
        if self.deadline().is_none_or(|at| at > cx.now) {
            return Expired::No;
        }
        let limits = self.limits;
        match self.stage {
            Stage::Opening(_) => Expired::Failed(Error::HandshakeTimeout { limit: limits.handshake_timeout }),
            Stage::Open if self.message_deadline().is_some_and(|at| at <= cx.now) => {
                self.refuse(CloseCode::POLICY, cx);
                Expired::Failed(Error::MessageTimeout { limit: limits.message_timeout })
            }
            Stage::Open if self.pinged.is_some() => {
                Expired::Failed(Error::PongTimeout { limit: limits.pong_timeout })
            }
            Stage::Open => {
                cx.outbox.push_control(Opcode::Ping, b"", cx.keys.next());
                self.pinged = Some(cx.now);
                Expired::No
            }
            // Nobody has taken the messages that came before it.
            Stage::Breached(_) => {
                self.answer_breach(cx);
                Expired::No
            }
            Stage::Closing => Expired::Failed(Error::CloseTimeout { limit: limits.close_timeout }),
            Stage::Ending | Stage::Failed => Expired::Over,
        }
    }

    /// Gives its memory back.
    pub(in crate::client) fn clear(&mut self, pool: &mut BufferPool) {
        self.decoder.clear(pool);
    }
}
