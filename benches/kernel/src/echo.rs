//! Echoes without WebSocket: of bytes as they come, and of whole messages.

use crate::conns::{Conn, Protocol};
use std::io;

/// The receive buffer that all connections share.
const BUFFER: usize = 512 << 10;

/// A large message is received in pieces of at most this size, as campanile does, so that they stay in the cache.
const PIECE: usize = 256 << 10;

/// Sends back the bytes of each read.
pub(crate) struct Stream {
    buffer: Vec<u8>,
}

impl Default for Stream {
    fn default() -> Self {
        Self { buffer: vec![0; BUFFER] }
    }
}

/// What the kernel has not taken yet.
#[derive(Default)]
pub(crate) struct Backlog {
    bytes: Vec<u8>,
    sent: usize,
}

impl Protocol for Stream {
    type State = Backlog;

    fn ready(&mut self, conn: &mut Conn<Backlog>, all: bool) -> io::Result<()> {
        loop {
            if conn.state.sent < conn.state.bytes.len() {
                conn.state.sent += conn.send(&conn.state.bytes[conn.state.sent..])?;
                if conn.state.sent < conn.state.bytes.len() {
                    return Ok(());
                }
                conn.state = Backlog::default();
            }
            let Some(n) = conn.recv(&mut self.buffer)? else { return Ok(()) };
            let sent = conn.send(&self.buffer[..n])?;
            if sent < n {
                conn.state = Backlog { bytes: self.buffer[sent..n].to_vec(), sent: 0 };
            } else if n < self.buffer.len() && !all {
                return Ok(()); // the socket is empty: what comes next is an edge
            }
        }
    }
}

/// Sends back messages of one size, each when all of it is there.
pub(crate) struct Whole {
    size: usize,
    /// Buffers of connections that are between messages; the one used last comes first.
    spares: Vec<Vec<u8>>,
}

impl Whole {
    pub(crate) fn new(size: usize) -> Self {
        Self { size, spares: Vec::new() }
    }
}

/// A message on its way in or out.
#[derive(Default)]
pub(crate) struct Progress {
    buffer: Vec<u8>,
    received: usize,
    sent: usize,
}

impl Protocol for Whole {
    type State = Progress;

    fn ready(&mut self, conn: &mut Conn<Progress>, all: bool) -> io::Result<()> {
        loop {
            if conn.state.received == self.size {
                conn.state.sent += conn.send(&conn.state.buffer[conn.state.sent..])?;
                if conn.state.sent < self.size {
                    return Ok(());
                }
                self.spares.push(std::mem::take(&mut conn.state).buffer);
            }
            if conn.state.buffer.is_empty() {
                conn.state.buffer = self.spares.pop().unwrap_or_else(|| vec![0; self.size]);
            }
            let from = conn.state.received;
            let asked = (self.size - from).min(PIECE);
            let mut buffer = std::mem::take(&mut conn.state.buffer);
            let received = conn.recv(&mut buffer[from..from + asked]);
            conn.state.buffer = buffer;
            let n = received?.unwrap_or(0);
            conn.state.received += n;
            if n == 0 || (n < asked && conn.state.received < self.size && !all) {
                return Ok(());
            }
        }
    }
}
