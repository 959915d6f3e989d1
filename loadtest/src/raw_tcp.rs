//! A connection without WebSocket: payloads go as they are, and what comes is cut into messages of the size that was
//! sent. What the same load costs with the kernel and this client alone.

use campanile::client::socket::ReadStatus;
use campanile::protocol::buffer::MessageBuf;
use mio::net::TcpStream;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// A TCP connection.
#[derive(Debug)]
pub(crate) struct RawTcp {
    stream: TcpStream,
    connecting: bool,
    /// The kernel takes no more until it says so.
    blocked: bool,
    /// The server ended its half: read to the end.
    pub(crate) read_closed: bool,
    /// Bytes of every message, and what has come of the next one.
    size: usize,
    begun: MessageBuf,
    /// Waiting to be written; the first `written` bytes have been.
    backlog: Vec<u8>,
    written: usize,
}

impl RawTcp {
    /// Begins to connect, from the given source address.
    pub(crate) fn connect(to: SocketAddr, from: Option<IpAddr>, size: usize) -> io::Result<Self> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if let Some(ip) = from {
            socket.bind(&SocketAddr::new(ip, 0).into())?;
        }
        match socket.connect(&to.into()) {
            Err(e) if e.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => return Err(e),
            _ => {}
        }
        Ok(Self {
            stream: TcpStream::from_std(socket.into()),
            connecting: true,
            blocked: true,
            read_closed: false,
            size,
            begun: MessageBuf::default(),
            backlog: Vec::new(),
            written: 0,
        })
    }

    /// It became writable. True: it has just been connected.
    pub(crate) fn writable(&mut self) -> Result<bool, ErrorKind> {
        self.blocked = false;
        if !std::mem::take(&mut self.connecting) {
            return Ok(false);
        }
        self.stream.take_error().unwrap_or_else(Some).map_or(Ok(true), |e| Err(e.kind()))
    }

    /// Bytes that wait to be written.
    pub(crate) fn waiting(&self) -> usize {
        self.backlog.len() - self.written
    }

    /// Puts `out` behind what waits.
    pub(crate) fn defer(&mut self, out: &mut Vec<u8>) {
        self.backlog.append(out);
    }

    /// Writes what waits and then `out`; keeps what the kernel does not take.
    #[inline]
    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), ErrorKind> {
        if self.backlog.is_empty() && !self.blocked {
            let written = write(&self.stream, out)?;
            if written == out.len() {
                out.clear();
                return Ok(());
            }
            self.blocked = true;
            out.drain(..written);
        }
        self.defer(out);
        if !self.blocked {
            self.written += write(&self.stream, &self.backlog[self.written..])?;
            self.blocked = self.written < self.backlog.len();
            if !self.blocked {
                self.backlog.clear();
                self.written = 0;
            }
        }
        Ok(())
    }

    /// Reads once, and gives the messages that are whole.
    #[inline]
    pub(crate) fn read(&mut self, receive: &mut [u8], mut message: impl FnMut(&[u8])) -> ReadStatus {
        let n = match rustix::net::recv(&self.stream, &mut *receive, RecvFlags::empty()) {
            Ok((_, 0)) => return ReadStatus::Ended(ErrorKind::UnexpectedEof),
            Ok((_, n)) => n,
            Err(Errno::WOULDBLOCK | Errno::INTR) => {
                self.read_closed = false;
                return ReadStatus::All;
            }
            Err(e) => return ReadStatus::Ended(io::Error::from(e).kind()),
        };
        let mut input = &receive[..n];
        while !input.is_empty() {
            let (piece, rest) = input.split_at(input.len().min(self.size - self.begun.len()));
            input = rest;
            if piece.len() == self.size {
                message(piece);
                continue;
            }
            self.begun.extend(piece);
            if self.begun.len() == self.size {
                message(&std::mem::take(&mut self.begun));
            }
        }
        if n == receive.len() { ReadStatus::More } else { ReadStatus::All }
    }

    /// Closing it will reset the connection.
    pub(crate) fn reset_on_close(&self) {
        // A socket that has already failed does not need it.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
}

impl AsFd for RawTcp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn write(stream: &TcpStream, bytes: &[u8]) -> Result<usize, ErrorKind> {
    if bytes.is_empty() {
        return Ok(0);
    }
    match rustix::net::send(stream, bytes, SendFlags::NOSIGNAL) {
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(0),
        other => other.map_err(|e| io::Error::from(e).kind()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    #[test]
    fn raw_bytes_are_split_into_messages_by_size() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream: Vec<u8> = (0..12).collect();
        for step in 1..=stream.len() {
            let mut raw_tcp = RawTcp::connect(listener.local_addr().unwrap(), None, 4).unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            while raw_tcp.stream.peer_addr().is_err() {
                std::thread::yield_now();
            }
            assert_eq!(raw_tcp.writable(), Ok(true));
            raw_tcp.flush(&mut stream[..4].to_vec()).unwrap();
            let mut sent = [0; 4];
            peer.read_exact(&mut sent).unwrap();
            assert_eq!(sent, stream[..4]);
            let mut seen = Vec::new();
            for piece in stream.chunks(step) {
                peer.write_all(piece).unwrap();
                let mut left = piece.len();
                while left > 0 {
                    // No room for more than what was sent, so that nothing is merged.
                    let mut receive = vec![0; left];
                    if raw_tcp.read(&mut receive, |m| seen.push(m.to_vec())) == ReadStatus::More {
                        left = 0;
                    }
                }
            }
            assert_eq!(seen, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]], "{step}");
        }
    }
}
