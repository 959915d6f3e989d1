//! One connected socket, TCP or Unix, non-blocking.
//!
//! The calls on the message path go to the kernel through rustix, not through the C library: that makes every call a
//! point where a thread may be cancelled, which costs 1 % of an echo as soon as there are two threads.

use crate::sink::Sink;
#[cfg(feature = "tls")]
use crate::tls::TlsSession;
use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
#[cfg(feature = "client")]
use socket2::{Domain, Protocol, Type};
use socket2::{SockRef, Socket};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::Shutdown;
#[cfg(feature = "client")]
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A descriptor, and for a secure connection its TLS: without it the bytes are what they are.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(super) fd: OwnedFd,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<Box<TlsSession>>,
}

/// What one read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadOutcome {
    /// This many bytes were read. Fewer than there was room for means that there are no more now.
    Bytes(usize),
    /// Nothing now.
    WouldBlock,
    /// The peer has ended its half.
    Eof,
}

fn read_outcome(result: Result<usize, Errno>) -> io::Result<ReadOutcome> {
    match result {
        Ok(0) => Ok(ReadOutcome::Eof),
        Ok(n) => Ok(ReadOutcome::Bytes(n)),
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(ReadOutcome::WouldBlock),
        Err(e) => Err(e.into()),
    }
}

#[inline]
pub(super) fn recv_from(fd: &OwnedFd, buf: &mut [u8]) -> io::Result<ReadOutcome> {
    read_outcome(rustix::net::recv(fd, buf, RecvFlags::empty()).map(|(n, _)| n))
}

/// A peer that is gone must not end the process: no SIGPIPE, also in programs that kept its default.
pub(super) const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;

impl Stream {
    /// Takes a connected socket and makes it non-blocking.
    pub(crate) fn from_connected(fd: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(fd);
        socket.set_nonblocking(true)?;
        let is_unix = socket.local_addr()?.is_unix();
        if !is_unix {
            socket.set_tcp_nodelay(true)?;
        }
        Ok(Self::from_accepted(socket.into()))
    }

    /// Begins to connect and does not wait for it: the socket is writable when it is connected or has failed.
    #[cfg(feature = "client")]
    pub(crate) fn connect(addr: SocketAddr, from: Option<IpAddr>, no_delay: bool) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(no_delay)?;
        if let Some(ip) = from {
            socket.bind(&SocketAddr::new(ip, 0).into())?;
        }
        match socket.connect(&addr.into()) {
            Err(e) if e.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => Err(e),
            _ => Ok(Self::from_accepted(socket.into())),
        }
    }

    /// Whether a socket that was connecting has arrived.
    #[cfg(feature = "client")]
    pub(crate) fn is_connected(&self) -> bool {
        SockRef::from(&self.fd).peer_addr().is_ok()
    }

    /// Closing it will reset the connection: nothing more is sent, and no port waits in TIME_WAIT.
    #[cfg(feature = "client")]
    pub(crate) fn reset_on_close(&self) {
        let _ = SockRef::from(&self.fd).set_linger(Some(std::time::Duration::ZERO)); // one that failed needs it not
    }

    /// A socket that is non-blocking already.
    pub(crate) fn from_accepted(fd: OwnedFd) -> Self {
        Self {
            fd,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Registers it, edge-triggered for both directions, for as long as it lives.
    pub(crate) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        SourceFd(&self.fd.as_raw_fd()).register(registry, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Ends the registration of a socket that has copies elsewhere; closing one does not.
    pub(crate) fn deregister(&self, registry: &Registry) {
        let _ = SourceFd(&self.fd.as_raw_fd()).deregister(registry); // it may have gone already
    }

    #[inline]
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        written(rustix::net::send(&self.fd, bytes, NO_SIGNAL))
    }

    #[inline]
    pub(crate) fn recv(&self, buf: &mut [u8]) -> io::Result<ReadOutcome> {
        recv_from(&self.fd, buf)
    }

    /// Receives into `first` and then into `then`.
    pub(crate) fn recv_vectored(&self, first: &mut [u8], then: &mut [u8]) -> io::Result<ReadOutcome> {
        let mut parts = [IoSliceMut::new(first), IoSliceMut::new(then)];
        read_outcome(rustix::io::readv(&self.fd, &mut parts))
    }

    /// The error that the kernel has noted for this socket.
    pub(crate) fn take_error(&self) -> Option<io::ErrorKind> {
        SockRef::from(&self.fd).take_error().ok().flatten().map(|e| e.kind())
    }

    /// Bounds the bytes that the kernel takes before it sends them. A Unix socket has nothing like it: there what was
    /// written is with the peer at once.
    pub(crate) fn set_max_unsent(&self, bytes: u32) {
        let _ = SockRef::from(&self.fd).set_tcp_notsent_lowat(bytes); // refused for a Unix socket
    }

    /// Ends our half: the peer reads to the end and then sees it.
    pub(crate) fn shutdown_write(&self) {
        let _ = SockRef::from(&self.fd).shutdown(Shutdown::Write); // it may have gone already
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

pub(super) fn written(result: Result<usize, Errno>) -> io::Result<usize> {
    match result {
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(0),
        other => Ok(other?),
    }
}

impl Sink for Stream {
    #[inline]
    fn write(&mut self, bytes: &[u8], scratch: &mut Vec<u8>) -> io::Result<usize> {
        if self.is_secure() {
            return self.write_tls(&[IoSlice::new(bytes)], scratch);
        }
        self.send(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>], scratch: &mut Vec<u8>) -> io::Result<usize> {
        if self.is_secure() {
            return self.write_tls(parts, scratch);
        }
        written(rustix::net::sendmsg(&self.fd, parts, &mut SendAncillaryBuffer::default(), NO_SIGNAL))
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        Self::flush(self)
    }

    #[inline]
    fn buffered(&self) -> usize {
        self.unsent_payload()
    }

    #[inline]
    fn is_written_out(&self) -> bool {
        !self.has_unsent()
    }
}
