//! Listening sockets: TCP over IPv4 and IPv6, and Unix sockets.

use super::{Stream, TlsAcceptor};
use crate::http::Peer;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token, event::Source};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenAddr {
    /// A TCP port. Port 0 lets the system choose; ask [`Server::local_addrs`](crate::Server::local_addrs).
    Tcp(SocketAddr),
    /// A Unix socket at this path. A stale socket file without a listener is replaced.
    Unix(PathBuf),
}

/// An address that could not be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidAddr {
    /// What was given.
    pub addr: String,
}

impl fmt::Display for InvalidAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no address: expected IP:PORT such as 127.0.0.1:9001 or [::1]:9001, localhost:PORT, or unix:/path; a port is at most 65535",
            self.addr
        )
    }
}

impl std::error::Error for InvalidAddr {}

impl FromStr for ListenAddr {
    type Err = InvalidAddr;

    fn from_str(text: &str) -> Result<Self, InvalidAddr> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err(InvalidAddr { addr: text.into() })
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        if let Ok(addr) = text.parse() {
            return Ok(Self::Tcp(addr));
        }
        // `::1:9010` is an address by itself; whether its end was meant as a port nobody knows.
        if text.parse::<std::net::Ipv6Addr>().is_ok() {
            return Err(InvalidAddr { addr: text.into() });
        }
        // A name: what the system resolves it to first. Numbers are tried before, so `localhost` is the usual case.
        let found = text.to_socket_addrs().ok().and_then(|mut all| all.next());
        found.map(Self::Tcp).ok_or_else(|| InvalidAddr { addr: text.into() })
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for ListenAddr {
    fn from(addr: SocketAddr) -> Self {
        Self::Tcp(addr)
    }
}

/// How a server listens.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ListenOptions {
    /// Connections that the kernel keeps waiting for accept; more are refused by it. Default 4,096, bounded by
    /// `net.core.somaxconn`.
    pub backlog: i32,
    /// Whether other processes of the same user may listen on the same port and share what comes (`SO_REUSEPORT`),
    /// as for a restart without a gap. Default off: then a second server on the port is an error and not a silent
    /// half of the traffic. With it on, every worker also has a listening socket of its own.
    pub reuse_port: bool,
    /// Whether small writes leave at once (`TCP_NODELAY`). Default on; the messages of one iteration are gathered in
    /// one write anyway.
    pub no_delay: bool,
    /// Whether an IPv6 socket refuses IPv4 (`IPV6_V6ONLY`). Default off: `[::]:9001` takes both.
    pub only_v6: bool,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { backlog: 4096, reuse_port: false, no_delay: true, only_v6: false }
    }
}

/// A socket that accepts.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    unix: Option<PathBuf>,
    /// For a listener whose connections begin with a TLS handshake.
    pub(crate) security: Option<TlsAcceptor>,
}

impl Listener {
    pub(crate) fn bind(addr: &ListenAddr, options: &ListenOptions) -> io::Result<Self> {
        match addr {
            ListenAddr::Tcp(addr) => Self::bind_tcp(*addr, options),
            ListenAddr::Unix(path) => Self::bind_unix(path, options),
        }
    }

    fn bind_tcp(addr: SocketAddr, options: &ListenOptions) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        // So that a restart finds the port free while old connections are in TIME_WAIT.
        socket.set_reuse_address(true)?;
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        if addr.is_ipv6() {
            socket.set_only_v6(options.only_v6)?;
        }
        socket.bind(&addr.into())?;
        socket.listen(options.backlog)?;
        // Inherited by what it accepts: one system call less for each connection.
        socket.set_tcp_nodelay(options.no_delay)?;
        Ok(Self { socket, unix: None, security: None })
    }

    fn bind_unix(path: &Path, options: &ListenOptions) -> io::Result<Self> {
        let addr = SockAddr::unix(path)?;
        let new = || Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None);
        let socket = new()?;
        if let Err(e) = socket.bind(&addr) {
            // A socket file outlives its server. It is stale if it is a socket and nobody answers there.
            let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
            let refused = is_socket
                && new()?.connect(&addr).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
            if path.exists() && !is_socket {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the path exists and is no socket"));
            }
            if e.kind() != io::ErrorKind::AddrInUse || !refused {
                return Err(e);
            }
            std::fs::remove_file(path)?;
            socket.bind(&addr)?;
        }
        socket.listen(options.backlog)?;
        Ok(Self { socket, unix: Some(path.into()), security: None })
    }

    /// Where it listens, with the port that the system chose.
    pub(crate) fn local_addr(&self) -> io::Result<ListenAddr> {
        match &self.unix {
            Some(path) => Ok(ListenAddr::Unix(path.clone())),
            None => self
                .socket
                .local_addr()?
                .as_socket()
                .map(ListenAddr::Tcp)
                .ok_or_else(|| io::ErrorKind::Unsupported.into()),
        }
    }

    pub(crate) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        SourceFd(&self.socket.as_raw_fd()).register(registry, token, Interest::READABLE)
    }

    /// The next connection that waits, non-blocking and with `TCP_NODELAY` as the listener has it.
    pub(crate) fn accept(&self) -> io::Result<Option<(Stream, Peer)>> {
        loop {
            return match acceptfrom_with(&self.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((fd, addr)) => {
                    let addr = addr.and_then(|a| SocketAddr::try_from(a).ok());
                    Ok(Some((Stream::from_accepted(fd), addr.map_or(Peer::Unix, Peer::Ip))))
                }
                Err(Errno::WOULDBLOCK) => Ok(None),
                // The peer went before it was accepted; the next one may be there.
                Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(e) => Err(e.into()),
            };
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.unix {
            let _ = std::fs::remove_file(path); // it may have been removed already
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses_parse_as_ip_and_port_or_path() {
        assert_eq!("127.0.0.1:9001".parse(), Ok(ListenAddr::Tcp(([127, 0, 0, 1], 9001).into())));
        assert_eq!("unix:/run/x".parse(), Ok(ListenAddr::Unix("/run/x".into())));
        assert!("[::1]:80".parse::<ListenAddr>().is_ok());
        for bad in ["", "9001", "127.0.0.1", "127.0.0.1:99999", "::1:9001", "unix:", "no such host:1"] {
            let e = bad.parse::<ListenAddr>().unwrap_err();
            assert!(e.to_string().contains(&format!("{bad:?}")));
        }
    }

    #[test]
    fn a_port_in_use_is_an_error_without_reuse_port() {
        let any = "127.0.0.1:0".parse().unwrap();
        let first = Listener::bind(&any, &ListenOptions::default()).unwrap();
        let addr = first.local_addr().unwrap();
        let e = Listener::bind(&addr, &ListenOptions::default()).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::AddrInUse);

        let shared = ListenOptions { reuse_port: true, ..Default::default() };
        let first = Listener::bind(&any, &shared).unwrap();
        Listener::bind(&first.local_addr().unwrap(), &shared).unwrap();
    }

    #[test]
    fn a_stale_socket_file_is_replaced_and_one_in_use_is_kept() {
        let path = std::env::temp_dir().join(format!("campanile-listener-{}", std::process::id()));
        let addr = ListenAddr::Unix(path.clone());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap()); // leaves its file behind
        let listener = Listener::bind(&addr, &ListenOptions::default()).unwrap();
        assert!(Listener::bind(&addr, &ListenOptions::default()).is_err());
        drop(listener);
        assert!(!path.exists());
    }
}
