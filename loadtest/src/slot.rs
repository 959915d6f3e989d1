//! A socket, its connection and what could not be written yet.

use crate::connection::Connection;
use crate::outbox::Outbox;
use mio::net::TcpStream;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

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

/// One connection's place.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) stream: Option<TcpStream>,
    pub(crate) connection: Connection,
    pub(crate) state: State,
    /// When this state's patience began: connect, or close.
    pub(crate) since: u64,
    /// Waiting to be written; the first `written` bytes have been.
    backlog: Outbox,
    written: usize,
    /// The kernel takes no more until it says so.
    blocked: bool,
    /// Is in the list of those to be flushed at the end of the turn.
    pub(crate) dirty: bool,
}

/// Buffers for what could not be written, kept by a thread.
pub(crate) type Spares = Vec<Outbox>;

/// How many of them.
const MAX_SPARES: usize = 64;

impl Slot {
    /// Bytes that wait to be written.
    pub(crate) fn waiting(&self) -> usize {
        self.backlog.len() - self.written
    }

    /// Puts `out` behind what waits, without writing.
    pub(crate) fn defer(&mut self, out: &mut Outbox) {
        self.backlog.extend(out);
        out.clear();
    }

    /// Writes what waits and then `out`, in one call to the kernel; keeps what it does not take. Leaves `out` empty.
    #[inline]
    pub(crate) fn flush(&mut self, out: &mut Outbox, spares: &mut Spares) -> io::Result<()> {
        let Some(stream) = &mut self.stream else {
            out.clear();
            return Ok(());
        };
        if self.backlog.is_empty() {
            if out.is_empty() {
                return Ok(());
            }
            let n = write(stream, out)?;
            if n == out.len() {
                out.clear();
            } else {
                self.blocked = true;
                self.written = n;
                self.backlog = std::mem::replace(out, spares.pop().unwrap_or_default());
            }
            return Ok(());
        }
        if !out.is_empty() {
            self.defer(out);
        }
        if self.blocked { Ok(()) } else { self.write_backlog(spares) }
    }

    /// The kernel takes more: writes what waits.
    pub(crate) fn unblock(&mut self, spares: &mut Spares) -> io::Result<()> {
        self.blocked = false;
        if self.backlog.is_empty() { Ok(()) } else { self.write_backlog(spares) }
    }

    fn write_backlog(&mut self, spares: &mut Spares) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        self.written += write(stream, &self.backlog[self.written..])?;
        self.blocked = self.written < self.backlog.len();
        if !self.blocked {
            self.give_backlog(spares);
        }
        Ok(())
    }

    fn give_backlog(&mut self, spares: &mut Spares) {
        self.written = 0;
        let mut empty = std::mem::take(&mut self.backlog);
        empty.clear();
        if empty.has_memory() && spares.len() < MAX_SPARES {
            spares.push(empty);
        }
    }

    /// Lets the socket go, by a reset if `hard`: that leaves no port in TIME_WAIT.
    pub(crate) fn drop_stream(&mut self, hard: bool, spares: &mut Spares) {
        if let Some(stream) = self.stream.take()
            && hard
        {
            // A socket that has already failed does not need it.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
        self.give_backlog(spares);
        self.blocked = false;
        self.state = State::Empty;
    }
}

/// Bytes that the kernel has taken. Not by `std`, whose calls go through libc's cancellation points: 1 % of the CPU
/// time at small messages.
fn write(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match rustix::net::send(stream, bytes, SendFlags::NOSIGNAL) {
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(0),
        other => Ok(other?),
    }
}

/// Bytes that the kernel had, 0 at the end of the stream.
#[inline]
pub(crate) fn read(stream: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::net::recv(stream, into, RecvFlags::empty())?.0)
}

/// Begins to connect, from the given source address.
pub(crate) fn connect(to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket =
        Socket::new(Domain::for_address(to), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(ip) = from {
        socket.bind(&SocketAddr::new(ip, 0).into())?;
    }
    match socket.connect(&to.into()) {
        Err(e) if e.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(e),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

/// How an error of the kernel's is called in the report.
pub(crate) fn io_label(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::ConnectionRefused => "refused".into(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "reset".into(),
        io::ErrorKind::TimedOut => "timeout".into(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse => {
            "no free local port (use more --sources)".into()
        }
        _ => e.to_string(),
    }
}
