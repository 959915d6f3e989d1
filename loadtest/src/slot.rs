//! A connection's place, and what the connections of one thread share.

use crate::raw_tcp::RawTcp;
use campanile::client::Error;
use campanile::client::HandshakeError;
use campanile::client::socket::{Keys, Outbox, Packer, Sent, Socket, SocketContext};
use campanile::protocol::buffer::BufferPool;
use campanile::protocol::{Opcode, mask};
use std::io::ErrorKind;
use std::time::Instant;

/// Memory that a thread keeps for large messages.
const POOL_BYTES: usize = 64 << 20;

/// Buffers for what could not be written, kept by a thread.
const MAX_SPARES: usize = 64;

/// Where a slot is in the life of its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// No socket.
    #[default]
    Empty,
    /// Waits for the kernel.
    Connecting,
    /// Waits for the server's answer.
    Handshaking,
    /// Open.
    Open,
    /// Waits for the server's close frame, and then for the end of the stream.
    Closing,
}

/// A connection.
#[derive(Debug, Default)]
pub(crate) enum Transport {
    #[default]
    None,
    Web(Box<Socket>),
    RawTcp(Box<RawTcp>),
}

impl Transport {
    /// The server ended its half, or the connection broke: only reading to the end says which.
    pub(crate) fn note_read_closed(&mut self) {
        match self {
            Self::Web(socket) => socket.note_read_closed(),
            Self::RawTcp(raw_tcp) => raw_tcp.read_closed = true,
            Self::None => {}
        }
    }

    /// Whether to read on after a read that took everything.
    pub(crate) fn is_read_closed(&self) -> bool {
        match self {
            Self::Web(socket) => socket.is_read_closed(),
            Self::RawTcp(raw_tcp) => raw_tcp.read_closed,
            Self::None => false,
        }
    }
}

/// One connection's place.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) transport: Transport,
    pub(crate) state: State,
    /// When this state's patience began: connect, or close.
    pub(crate) since: u64,
    /// What the kernel has not taken yet.
    backlog: Outbox,
    has_backlog: bool,
    /// Is in the list of those to be flushed at the end of the turn.
    pub(crate) dirty: bool,
}

/// What the connections of one thread share.
#[derive(Debug)]
pub(crate) struct Wire {
    /// What is to be sent on the connection that was entered last: most of the time all of it leaves at once, and its
    /// memory is warm for the next one.
    out: Outbox,
    /// The same without WebSocket.
    raw_tcp: Option<Vec<u8>>,
    /// Keys need not be hard to guess here: the payloads are this program's own, and no script chooses them.
    keys: Keys,
    pool: BufferPool,
    packer: Packer,
    /// How the messages of the connection that was entered last are compressed.
    sent: Option<Box<Sent>>,
    /// A payload before it is compressed.
    plain: Vec<u8>,
    spares: Vec<Outbox>,
    /// When this turn began.
    pub(crate) clock: Instant,
}

impl Wire {
    /// With WebSocket, or `raw_tcp`.
    pub(crate) fn new(raw_tcp: bool) -> Self {
        Self {
            out: Outbox::keeping(usize::MAX),
            raw_tcp: raw_tcp.then(Vec::new),
            keys: Keys::guessable(fastrand::u64(..)),
            pool: BufferPool::new(POOL_BYTES),
            packer: Packer::default(),
            sent: None,
            plain: Vec::new(),
            spares: Vec::new(),
            clock: Instant::now(),
        }
    }

    /// Whether there is no WebSocket.
    pub(crate) fn is_raw_tcp(&self) -> bool {
        self.raw_tcp.is_some()
    }

    /// What a socket is lent.
    #[inline]
    pub(crate) fn context(&mut self) -> SocketContext<'_> {
        let Self { out, keys, pool, packer, clock, .. } = self;
        SocketContext { now: *clock, outbox: out, keys, pool, packer }
    }

    /// Appends a message of `len` bytes, which `write` is to write masked with the key that it is given. Without
    /// WebSocket the key changes nothing.
    #[inline]
    pub(crate) fn message(&mut self, opcode: Opcode, len: usize, write: impl FnOnce(&mut [u8], [u8; 4])) {
        if let Some(raw_tcp) = &mut self.raw_tcp {
            let from = raw_tcp.len();
            raw_tcp.resize(from + len, 0);
            write(&mut raw_tcp[from..], [0; 4]);
        } else {
            // Section 5.3: a fresh key for each frame.
            let key = self.keys.next();
            if let Some(sent) = &mut self.sent {
                self.plain.resize(len, 0);
                write(&mut self.plain, [0; 4]);
                let packed = sent.pack(&self.plain, &mut self.packer);
                let payload = packed.unwrap_or(&self.plain);
                let out = self.out.frame(opcode, packed.is_some(), payload.len(), key);
                mask::copy(payload, out, key, 0);
            } else {
                write(self.out.frame(opcode, false, len, key), key);
            }
        }
    }
}

impl Slot {
    /// Bytes that wait to be written.
    pub(crate) fn waiting(&self) -> usize {
        match &self.transport {
            Transport::RawTcp(raw_tcp) => raw_tcp.waiting(),
            _ => self.backlog.unwritten(),
        }
    }

    /// What is put into the wire from now on is for this connection, behind what waits.
    #[inline]
    pub(crate) fn enter(&mut self, wire: &mut Wire) {
        if self.has_backlog {
            self.has_backlog = false;
            std::mem::swap(&mut self.backlog, &mut wire.out);
        }
        if let Transport::Web(socket) = &mut self.transport
            && let Some(sent) = socket.compression().take()
        {
            wire.sent = Some(sent);
        }
    }

    /// Keeps what is in the wire, unless that is nothing.
    #[inline]
    pub(crate) fn leave(&mut self, wire: &mut Wire) {
        if let (Transport::RawTcp(raw_tcp), Some(out)) = (&mut self.transport, &mut wire.raw_tcp) {
            raw_tcp.defer(out);
        }
        if let Transport::Web(socket) = &mut self.transport
            && wire.sent.is_some()
        {
            *socket.compression() = wire.sent.take();
        }
        if !wire.out.is_idle() {
            if !self.backlog.has_memory() {
                self.backlog = wire.spares.pop().unwrap_or_else(|| Outbox::keeping(usize::MAX));
            }
            std::mem::swap(&mut self.backlog, &mut wire.out);
            self.has_backlog = true;
        } else if self.backlog.has_memory() {
            wire.spare(std::mem::take(&mut self.backlog));
        }
    }

    /// Writes what is in the wire, as far as the kernel takes it, and leaves.
    #[inline]
    pub(crate) fn flush(&mut self, wire: &mut Wire) -> Result<(), ErrorKind> {
        let flushed = match (&mut self.transport, &mut wire.raw_tcp) {
            (Transport::Web(socket), _) => socket.flush(&mut wire.out, &mut wire.packer, wire.clock),
            (Transport::RawTcp(raw_tcp), Some(out)) => raw_tcp.flush(out),
            _ => Ok(()),
        };
        self.leave(wire);
        flushed
    }

    /// Lets the connection go, by a reset if `hard`: that leaves no port in TIME_WAIT.
    pub(crate) fn release(&mut self, hard: bool, wire: &mut Wire) {
        match std::mem::take(&mut self.transport) {
            Transport::Web(socket) => {
                if hard {
                    socket.reset_on_close();
                }
                socket.release(&mut wire.pool);
            }
            Transport::RawTcp(raw_tcp) if hard => raw_tcp.reset_on_close(),
            _ => {}
        }
        if let Some(out) = &mut wire.raw_tcp {
            out.clear();
        }
        wire.sent = None;
        // Either may hold what was for it.
        wire.out.end_connection(false);
        let mut backlog = std::mem::take(&mut self.backlog);
        backlog.end_connection(false);
        wire.spare(backlog);
        self.has_backlog = false;
        self.state = State::Empty;
    }
}

impl Wire {
    fn spare(&mut self, outbox: Outbox) {
        if outbox.has_memory() && self.spares.len() < MAX_SPARES {
            self.spares.push(outbox);
        }
    }
}

/// How an error of the kernel's is called in the report.
pub(crate) fn io_label(kind: ErrorKind) -> String {
    match kind {
        ErrorKind::ConnectionRefused => "refused".into(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "reset".into(),
        ErrorKind::TimedOut => "timeout".into(),
        ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse => {
            "no free local port (use more --sources)".into()
        }
        kind => kind.to_string(),
    }
}

/// How what ended a connection is called in the report.
pub(crate) fn label(error: &Error) -> String {
    match error {
        Error::Handshake(HandshakeError::Refused(response)) => {
            format!("handshake refused with status {}", response.status)
        }
        Error::Handshake(e) => format!("handshake answer: {e}"),
        Error::Protocol(e) => format!("protocol error: {e}"),
        Error::Connect { kind, .. } | Error::Transport(kind) | Error::System(kind) => io_label(*kind),
        Error::ConnectTimeout { .. } => "timeout: connect".into(),
        Error::HandshakeTimeout { .. } => "timeout: handshake".into(),
        Error::CloseTimeout { .. } => "timeout: close".into(),
        e => e.to_string(),
    }
}
