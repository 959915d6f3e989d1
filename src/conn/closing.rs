//! The end of a connection: the closing handshake of either side, a protocol error, or an immediate end; and the record
//! of it for the application.

use super::{Cause, CloseRecord, Closed, Connection, CorkWriter, Phase};
use crate::protocol::{CloseCode, Opcode, ProtocolError, close, header};
use crate::sink::Sink;

impl Connection {
    pub(super) fn set_end(&mut self, code: CloseCode, reason: &str, cause: Cause) {
        let cold = self.cold();
        if cold.end.is_none() {
            cold.end = Some(CloseRecord { code, reason: reason.into(), cause, clean: false });
        }
    }

    /// Queues a close frame behind everything else.
    pub(super) fn send_close(
        &mut self,
        writer: &mut CorkWriter,
        sink: &mut dyn Sink,
        code: CloseCode,
        reason: &str,
    ) {
        let mut payload = Vec::with_capacity(2 + reason.len());
        close::write_payload(&mut payload, code, reason);
        if self.outbox.is_none() {
            self.write(writer, sink, header::first_byte(Opcode::Close, false), &payload);
        } else if let Some(outbox) = &mut self.outbox {
            let mut frame = Vec::with_capacity(payload.len() + 2);
            header::write_frame(&mut frame, Opcode::Close, &payload);
            outbox.push_raw(frame);
        }
    }

    /// Begins the closing handshake. Queued messages are sent first. Returns false if it has begun already.
    pub(crate) fn close(
        &mut self,
        writer: &mut CorkWriter,
        sink: &mut dyn Sink,
        code: CloseCode,
        reason: &str,
        cause: Cause,
    ) -> bool {
        if self.phase != Phase::Open {
            return false;
        }
        // A code that cannot be sent becomes a close frame without a code, and the application is told the same.
        let (code, reason) =
            if code.is_valid_on_wire() { (code, reason) } else { (CloseCode::NO_STATUS, "") };
        self.set_end(code, reason, cause);
        self.send_close(writer, sink, code, reason);
        self.phase = Phase::CloseSent;
        true
    }

    /// Ends the connection without waiting for the peer's close frame (RFC 6455 section 7.1.7): queued messages are
    /// dropped, the close frame is sent, and further input is discarded.
    pub(crate) fn fail(
        &mut self,
        writer: &mut CorkWriter,
        sink: &mut dyn Sink,
        code: CloseCode,
        reason: &str,
        cause: Cause,
    ) {
        match self.phase {
            Phase::Open => {
                self.set_end(code, reason, cause);
                if let Some(outbox) = &mut self.outbox {
                    self.dropped += outbox.drop_waiting();
                    if outbox.is_empty() {
                        self.outbox = None;
                    }
                }
                self.send_close(writer, sink, code, reason);
                self.phase = Phase::Failing;
            }
            Phase::CloseSent => self.phase = Phase::Failing,
            _ => {}
        }
    }

    pub(crate) fn fail_protocol(
        &mut self,
        writer: &mut CorkWriter,
        sink: &mut dyn Sink,
        error: ProtocolError,
    ) {
        let reason = error.to_string();
        self.fail(writer, sink, error.close_code(), &reason, Cause::Protocol(error));
    }

    /// Processes the peer's close frame (RFC 6455 section 5.5.1): answers with the same code unless a close frame was
    /// sent already.
    pub(crate) fn peer_closed(&mut self, writer: &mut CorkWriter, sink: &mut dyn Sink, payload: &[u8]) {
        let (code, reason) = close::parse(payload).ok().flatten().unwrap_or((CloseCode::NO_STATUS, ""));
        if self.phase == Phase::Open {
            self.set_end(code, reason, Cause::Peer);
            self.send_close(writer, sink, code, "");
        }
        if let Some(end) = self.cold.as_mut().and_then(|c| c.end.as_mut()) {
            end.clean = true;
        }
        self.phase = Phase::Ending;
    }

    /// Ends the connection after a failure of the transport below: nothing more can be sent or received.
    #[cfg(feature = "tls")]
    pub(crate) fn fail_transport(&mut self, writer: &mut CorkWriter, cause: Cause) {
        self.set_end(CloseCode::ABNORMAL, "", cause);
        self.dropped += self.outbox.as_ref().map_or(0, |o| o.messages());
        self.release(writer);
        writer.clear();
        self.phase = Phase::Failing;
    }

    /// Marks the connection as ended, immediately.
    pub(crate) fn mark_dead(&mut self, code: CloseCode, cause: Cause) {
        self.set_end(code, "", cause);
        self.phase = Phase::Dead;
    }

    /// Takes the record of the end for the application. Queued messages are lost.
    pub(crate) fn take_closed(&mut self) -> Closed {
        let unsent = self.outbox.as_ref().map_or(0, |o| o.messages());
        let unsent = unsent + core::mem::take(&mut self.dropped);
        let end = self.cold.as_mut().and_then(|c| c.end.take());
        match end {
            Some(e) => {
                Closed { code: e.code, reason: e.reason.into(), cause: e.cause, was_clean: e.clean, unsent }
            }
            None => Closed {
                code: CloseCode::ABNORMAL,
                reason: String::new(),
                cause: Cause::Transport(self.write_error.unwrap_or(std::io::ErrorKind::UnexpectedEof)),
                was_clean: false,
                unsent,
            },
        }
    }

    /// Returns what it borrowed from its worker.
    pub(crate) fn release(&mut self, writer: &mut CorkWriter) {
        self.decoder.clear(&mut writer.pool);
        if let Some(outbox) = self.outbox.take() {
            writer.reuse(outbox);
        }
    }
}
