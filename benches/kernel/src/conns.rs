//! The event loop: accepts, waits for readiness, and gives each ready connection to a [`Protocol`].

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

/// Events taken from the kernel at once, as many as campanile takes.
const EVENTS: usize = 1024;

const BACKLOG: i32 = 4096;

/// The listener's key; those of connections are their places.
const LISTENER: u64 = u64::MAX;

/// What happens between the system calls.
pub(crate) trait Protocol {
    /// What a connection holds.
    type State: Default;

    /// Takes what has come on a connection. The connection ends where this returns an error.
    fn ready(&mut self, conn: &mut Conn<Self::State>, all: bool) -> io::Result<()>;

    /// Runs after all ready connections of an iteration.
    fn flush(&mut self, _conns: &mut [Option<Conn<Self::State>>]) -> io::Result<()> {
        Ok(())
    }
}

/// A connection.
pub(crate) struct Conn<S> {
    fd: OwnedFd,
    pub(crate) state: S,
}

impl<S> Conn<S> {
    /// Receives once; `None` if nothing has come. The end of the stream is an error.
    pub(crate) fn recv(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::net::recv(&self.fd, buffer, RecvFlags::empty()) {
            Ok((_, 0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((_, n)) => Ok(Some(n)),
            Err(Errno::AGAIN) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Sends once; how much the kernel took.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match rustix::net::send(&self.fd, bytes, SendFlags::NOSIGNAL) {
            Err(Errno::AGAIN) => Ok(0),
            other => Ok(other?),
        }
    }
}

/// The listener and its connections.
pub(crate) struct Conns {
    epoll: OwnedFd,
    listener: OwnedFd,
}

impl Conns {
    /// Listens on a port of 127.0.0.1, and says which.
    pub(crate) fn listen(port: u16) -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let listener = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        sockopt::set_socket_reuseaddr(&listener, true)?;
        rustix::net::bind(&listener, &SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        rustix::net::listen(&listener, BACKLOG)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        let addr: SocketAddr = rustix::net::getsockname(&listener)?.try_into()?;
        println!("kernel-baseline listening on http://{addr}/");
        Ok(Self { epoll, listener })
    }

    /// Serves for ever.
    pub(crate) fn run<P: Protocol>(&mut self, protocol: &mut P) -> io::Result<Infallible> {
        let mut conns: Vec<Option<Conn<P::State>>> = Vec::new();
        let mut free: Vec<usize> = Vec::new();
        let mut events = Vec::<Event>::with_capacity(EVENTS);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            for &Event { flags, data } in &events {
                if data.u64() == LISTENER {
                    self.accept(&mut conns, &mut free)?;
                    continue;
                }
                let at = data.u64() as usize;
                let Some(conn) = &mut conns[at] else { continue };
                // The edge of an end may be one with that of the last bytes.
                let ended = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
                let Err(e) = protocol.ready(conn, flags.intersects(ended)) else { continue };
                if e.kind() == io::ErrorKind::Unsupported {
                    return Err(e);
                }
                conns[at] = None;
                free.push(at);
            }
            protocol.flush(&mut conns)?;
        }
    }

    fn accept<S: Default>(&self, conns: &mut Vec<Option<Conn<S>>>, free: &mut Vec<usize>) -> io::Result<()> {
        loop {
            let fd = match rustix::net::accept_with(
                &self.listener,
                SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            ) {
                Ok(fd) => fd,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            };
            sockopt::set_tcp_nodelay(&fd, true)?;
            let at = free.pop().unwrap_or_else(|| {
                conns.push(None);
                conns.len() - 1
            });
            // Both directions from the beginning, so that no connection costs a second call.
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            epoll::add(&self.epoll, &fd, EventData::new_u64(at as u64), flags)?;
            conns[at] = Some(Conn { fd, state: S::default() });
        }
    }
}
