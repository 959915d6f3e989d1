//! Replies of a protocol that a handler speaks: no policy for slow consumers drops one, and the limit of the backlog
//! does not apply. The sender bounds their number by not reading more requests.

use super::{Connection, CorkWriter, Phase};
use crate::protocol::{Opcode, header};
use crate::sink::Sink;

impl Connection {
    /// Sends a reply to the connection of the running callback: gathered in the cork, or behind the backlog. Never
    /// compressed: replies are short. Returns whether the connection is open.
    pub(crate) fn reply(&mut self, writer: &mut CorkWriter, sink: &mut dyn Sink, text: &str) -> bool {
        if self.phase != Phase::Open {
            return false;
        }
        if self.outbox.is_some() {
            return self.queue_reply(writer, text);
        }
        header::write_frame(&mut writer.cork, Opcode::Text, text.as_bytes());
        writer.undroppable = true;
        if writer.is_full() {
            self.flush_cork(writer, sink);
        }
        true
    }

    /// Queues a reply behind the backlog, to be written later in the iteration.
    pub(crate) fn queue_reply(&mut self, writer: &mut CorkWriter, text: &str) -> bool {
        if self.phase != Phase::Open {
            return false;
        }
        let mut frame = Vec::with_capacity(text.len() + header::MAX_HEAD);
        header::write_frame(&mut frame, Opcode::Text, text.as_bytes());
        self.outbox.get_or_insert_with(|| writer.outbox()).push_reply(frame);
        true
    }

    /// Whether a [notice](Connection::notice) is queued that can still be replaced.
    pub(crate) fn has_notice(&mut self) -> bool {
        self.outbox.as_mut().is_some_and(|outbox| outbox.has_notice())
    }

    /// Sends a notice before everything that is queued, in place of an earlier notice that has not begun to be written.
    /// So a connection that does not read has one of them queued, however often there is a new one.
    pub(crate) fn notice(&mut self, writer: &mut CorkWriter, sink: &mut dyn Sink, text: &str) -> bool {
        if self.phase != Phase::Open || self.outbox.is_none() {
            return self.reply(writer, sink, text);
        }
        let mut frame = Vec::with_capacity(text.len() + header::MAX_HEAD);
        header::write_frame(&mut frame, Opcode::Text, text.as_bytes());
        self.outbox.get_or_insert_with(|| writer.outbox()).push_notice(frame);
        true
    }
}
