//! A broadcast with the least WebSocket that clients accept: the opening handshake, and frames of up to 64 KiB, which
//! are unmasked and sent to all clients.
//!
//! All messages that arrive in an iteration leave in one `send` for each client.

use crate::conns::{Conn, Protocol};
use base64::Engine as _;
use sha1::{Digest as _, Sha1};
use std::io;

/// The receive buffer that all connections share.
const BUFFER: usize = 1 << 20;

/// Section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Sends each message to all clients.
pub(crate) struct Broadcast {
    buffer: Vec<u8>,
    /// Frames of this iteration.
    out: Vec<u8>,
}

impl Default for Broadcast {
    fn default() -> Self {
        Self { buffer: vec![0; BUFFER], out: Vec::with_capacity(BUFFER) }
    }
}

/// A client.
#[derive(Default)]
pub(crate) struct Client {
    open: bool,
    /// The beginning of a frame.
    rest: Vec<u8>,
}

impl Protocol for Broadcast {
    type State = Client;

    fn ready(&mut self, conn: &mut Conn<Client>, all: bool) -> io::Result<()> {
        loop {
            let have = conn.state.rest.len();
            self.buffer[..have].copy_from_slice(&conn.state.rest);
            conn.state.rest.clear();
            let Some(n) = conn.recv(&mut self.buffer[have..])? else {
                conn.state.rest.extend_from_slice(&self.buffer[..have]);
                return Ok(());
            };
            let end = have + n;
            let mut at = 0;
            if !conn.state.open {
                let (answer, len) = handshake(&self.buffer[..end])?;
                send_all(conn, answer.as_bytes())?;
                conn.state.open = true;
                at = len;
            }
            while let Some(len) = frame(&self.buffer[at..end], &mut self.out)? {
                at += len;
            }
            conn.state.rest.extend_from_slice(&self.buffer[at..end]);
            if end < self.buffer.len() && !all {
                return Ok(());
            }
        }
    }

    fn flush(&mut self, conns: &mut [Option<Conn<Client>>]) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        for conn in conns.iter().flatten().filter(|conn| conn.state.open) {
            match send_all(conn, &self.out) {
                // One that has gone is found when it is ready.
                Err(e) if e.kind() != io::ErrorKind::Unsupported => {}
                other => other?,
            }
        }
        self.out.clear();
        Ok(())
    }
}

fn unsupported(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, what)
}

/// A baseline keeps no queues: what would need one is outside of what it measures.
fn send_all(conn: &Conn<Client>, bytes: &[u8]) -> io::Result<()> {
    let sent = conn.send(bytes)?;
    if sent == bytes.len() { Ok(()) } else { Err(unsupported("a client does not read fast enough")) }
}

/// The answer to a request, and the request's length.
fn handshake(bytes: &[u8]) -> io::Result<(String, usize)> {
    let text = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let end = text.find("\r\n\r\n").ok_or_else(|| unsupported("a handshake came in pieces"))? + 4;
    let key = text[..end].lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    });
    let key = key.ok_or_else(|| unsupported("a handshake without a key"))?;
    let hash = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let accept = base64::engine::general_purpose::STANDARD.encode(hash);
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    Ok((answer, end))
}

/// Appends a client's frame as a server's; its length, or `None` if it is not all there.
fn frame(bytes: &[u8], out: &mut Vec<u8>) -> io::Result<Option<usize>> {
    let &[first, second, ..] = bytes else { return Ok(None) };
    if first & 0x0F == 8 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let (len, head) = match second & 0x7F {
        126 if bytes.len() < 4 => return Ok(None),
        126 => (usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
        127 => return Err(unsupported("a message of more than 64 KiB")),
        len => (usize::from(len), 2),
    };
    let from = head + 4;
    if bytes.len() < from + len {
        return Ok(None);
    }
    out.push(first);
    out.push(second & 0x7F);
    out.extend_from_slice(&bytes[2..head]);
    let key = u32::from_ne_bytes([bytes[head], bytes[head + 1], bytes[head + 2], bytes[head + 3]]);
    let start = out.len();
    out.extend_from_slice(&bytes[from..from + len]);
    let (words, tail) = out[start..].as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ key).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key.to_ne_bytes()) {
        *byte ^= key;
    }
    Ok(Some(from + len))
}
