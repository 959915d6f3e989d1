//! The failure of a worker, by a fault of this crate or of the kernel. A server with a dead worker is worse than none,
//! so all workers end.

use super::Worker;
use super::callbacks::panic_message;
use crate::conn::{Cause, Phase};
use crate::log;
use crate::net::ReadOutcome;
use crate::protocol::CloseCode;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// How long the other workers' clients have for their closing handshake.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// Reads of 16 KiB from a connection before it is closed. With unread data the close would be a reset, which may
/// overtake the close frame.
const READS: usize = 4;

/// Why a server could not start or has ended by itself.
#[derive(Debug)]
#[non_exhaustive]
pub enum RunError {
    /// A worker's thread can't be started.
    Thread {
        /// The worker.
        worker: usize,
        /// The system's reason.
        error: io::Error,
    },
    /// A worker's event loop failed.
    Poll {
        /// The worker.
        worker: usize,
        /// The system's reason.
        error: io::Error,
    },
    /// A worker panicked outside of a callback, which is a fault of this crate.
    Panicked {
        /// The worker.
        worker: usize,
        /// What the panic said.
        message: String,
    },
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Thread { worker, error } => {
                write!(f, "worker {worker}: its thread can't be started: {error}")
            }
            Self::Poll { worker, error } => write!(f, "worker {worker}: its event loop failed: {error}"),
            Self::Panicked { worker, message } => {
                write!(f, "worker {worker} panicked outside of a callback: {message}")
            }
        }
    }
}

impl std::error::Error for RunError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Thread { error, .. } | Self::Poll { error, .. } => Some(error),
            Self::Panicked { .. } => None,
        }
    }
}

impl From<RunError> for io::Error {
    fn from(e: RunError) -> Self {
        Self::other(e)
    }
}

/// Runs a closure and returns a panic as an error.
pub(super) fn caught<T>(worker: usize, act: impl FnOnce() -> Result<T, RunError>) -> Result<T, RunError> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|payload| {
        let message = panic_message(&*payload).to_owned();
        std::mem::forget(payload); // dropping it may panic
        Err(RunError::Panicked { worker, message })
    })
}

impl Worker {
    /// Ends the server. The other workers' clients get 1001, this worker's get 1011 if they can still be written to.
    pub(super) fn fail(&mut self, failure: &RunError) {
        log::line!(error, "{failure}; the server ends");
        self.ctx.handle.shutdown(GRACE);
        for at in self.slots.keys() {
            // What has failed may fail again for one connection, and must not affect the others.
            let _ = caught(self.number(), || {
                self.send_internal_error(at);
                Ok(())
            });
        }
        // Each attempt that panics has removed at least one connection.
        let attempts = self.slots.len() + 1;
        let _ = (0..attempts).find(|_| {
            let ended = caught(self.number(), || {
                self.end();
                Ok(())
            });
            ended.is_ok()
        });
    }

    /// Writes the close frame 1011 if the kernel accepts it. The connection is closed afterwards.
    fn send_internal_error(&mut self, at: usize) {
        let (writer, Some(slot)) = (&mut self.ctx.writer, self.slots.get_mut(at)) else { return };
        writer.clear();
        if !matches!(slot.conn.phase, Phase::Open | Phase::CloseSent) {
            return;
        }
        slot.conn.fail(writer, &mut slot.stream, CloseCode::INTERNAL, "internal error", Cause::Panic);
        slot.conn.flush(writer, &mut slot.stream);
        let _ = slot.stream.flush(); // one that failed is closed in any case
        if slot.is_written_out() && slot.stream.send_close_notify() {
            slot.stream.shutdown_write();
            let mut unread = [0; 16 << 10];
            let mut reads = 0..READS;
            while reads.next().is_some() && matches!(slot.stream.recv(&mut unread), Ok(ReadOutcome::Bytes(_)))
            {
            }
        }
    }
}
