//! A WebSocket in the client's role on a non-blocking socket, driven by its owner's event loop: messages are lent from
//! where they were received, and there is no lock, no queue and no thread. [`Client`](super::Client) stands on it, and
//! so may a program that drives very many connections itself, such as a load client.
//!
//! ```text
//!  kernel ──▶ tunnel (a proxy's answer) ──▶ TLS ──▶ machine (handshake, frames) ──▶ owner
//!  kernel ◀── tunnel (CONNECT) ◀── TLS ◀── machine (request), outbox (frames) ◀── owner
//! ```
//! The owner registers the socket once, edge-triggered for both directions, and calls [`Socket::writable`] and
//! [`Socket::read`] as it becomes ready, [`Socket::flush`] when it has put something into the outbox, and
//! [`Socket::expire`] at [`Socket::deadline`].

pub use super::compression::{Packer, Sent};
pub use super::keys::Keys;
pub use super::machine::{Expired, SocketContext, SocketEvent};
pub use super::outbox::Outbox;

#[cfg(feature = "tls")]
use super::compression::renew;
use super::machine::Machine;
use super::opening::Extras;
use super::proxy::{Proxy, ProxyError, Tunnel};
#[cfg(feature = "tls")]
use super::trust::Trust;
use super::{ClientLimits, Error, Url};
use crate::net::{ReadOutcome, Stream};
use crate::protocol::CloseCode;
use crate::protocol::buffer::BufferPool;
use crate::sink::Sink;
#[cfg(feature = "tls")]
use crate::tls::{TlsError, TlsSession};
use std::io::{self, ErrorKind, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

/// Slices in one write; an outbox without a heap of pongs has at most five.
const SLICES: usize = 8;

/// What a connection is made with.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs)] // made by whoever drives a connection
pub struct Setup<'a> {
    /// Where to.
    pub url: &'a Url,
    /// What its request has in addition.
    pub extras: &'a Extras,
    /// The proxy at the other end of the TCP connection, if there is one.
    pub proxy: Option<&'a Proxy>,
    /// Whom to believe on `wss://`; `None` is [`Trust::system`].
    #[cfg(feature = "tls")]
    pub trust: Option<&'a Trust>,
    /// Its bounds and waits. [`ClientLimits::max_backlog`], [`ClientLimits::max_inbox`] and [`ClientLimits::connect_timeout`] are the
    /// owner's to keep.
    pub limits: &'a ClientLimits,
    /// The source address; `None` leaves it to the kernel.
    pub from: Option<IpAddr>,
    /// Whether small writes leave at once (`TCP_NODELAY`).
    pub no_delay: bool,
}

/// A connection.
#[derive(Debug)]
pub struct Socket {
    stream: Stream,
    connecting: bool,
    tunnel: Option<Box<Tunnel>>,
    /// For when the tunnel is through.
    #[cfg(feature = "tls")]
    session: Option<TlsSession>,
    pub(super) machine: Machine,
    /// The server ended its half: read to the end.
    read_closed: bool,
    /// The kernel takes no more until it says so.
    blocked: bool,
    sending_ended: bool,
}

#[cfg(feature = "tls")]
fn begin_session(setup: &Setup<'_>) -> Result<TlsSession, Error> {
    let refused = |e: crate::tls::TlsConfigError| Error::TlsConfig(e.to_string());
    let system;
    let trust = match setup.trust {
        Some(trust) => trust,
        None => {
            system = Trust::system().map_err(refused)?;
            &system
        }
    };
    trust.session(setup.url.host()).map_err(|e| Error::TlsConfig(e.to_string()))
}

/// What became of one read.
#[derive(Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)] // an owner has to deal with each
pub enum ReadStatus {
    /// Everything that was there.
    All,
    /// There may be more.
    More,
    /// The connection failed; it may still have something to send. After [`Error::Protocol`] the server is told by
    /// [`Socket::answer_breach`].
    Failed(Error),
    /// The server ended its half, or the connection broke: [`Socket::end`] says whether it should have.
    Ended(ErrorKind),
}

impl Socket {
    /// Begins to connect. The socket becomes writable when it is connected or has failed.
    ///
    /// # Errors
    /// [`Error::Connect`]: the system refuses the socket, the source address or the connection. Or TLS can't be set up.
    pub fn connect(addr: SocketAddr, setup: &Setup<'_>, cx: &mut SocketContext<'_>) -> Result<Self, Error> {
        #[cfg(not(feature = "tls"))]
        super::prepare::check_scheme(setup.url)?;
        #[cfg(feature = "tls")]
        let session = setup.url.is_secure().then(|| begin_session(setup)).transpose()?;
        let stream = Stream::connect(addr, setup.from, setup.no_delay)
            .map_err(|e| Error::Connect { addr, kind: e.kind() })?;
        let machine = Machine::open(setup.url, setup.extras, *setup.limits, cx.keys.next(), cx.now);
        Ok(Self {
            stream,
            connecting: true,
            tunnel: setup.proxy.map(|proxy| Box::new(Tunnel::begin(proxy, setup.url))),
            #[cfg(feature = "tls")]
            session,
            machine,
            read_closed: false,
            blocked: true,
            sending_ended: false,
        })
    }

    /// Bytes of messages that were sealed, and that the kernel does not have.
    pub(super) fn unsent_payload(&self) -> usize {
        self.stream.unsent_payload()
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Whether the TCP connection is still being made.
    pub fn is_connecting(&self) -> bool {
        self.connecting
    }

    /// Whether messages may be sent.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.machine.is_open()
    }

    /// Whether the opening handshake was finished, at some time.
    pub fn has_opened(&self) -> bool {
        self.machine.has_opened()
    }

    /// The socket became writable. True: it has just been connected, and its request is to be flushed.
    ///
    /// # Errors
    /// It could not be connected.
    pub fn writable(&mut self, now: Instant) -> Result<bool, ErrorKind> {
        if self.connecting {
            if let Some(kind) = self.stream.take_error() {
                return Err(kind);
            }
            if !self.stream.is_connected() {
                return Ok(false);
            }
            self.connecting = false;
            self.machine.connected(now);
            self.blocked = false;
            self.secure();
            return Ok(true);
        }
        self.blocked = false;
        self.stream.retry();
        Ok(false)
    }

    /// The server ended its half, or the connection broke: only reading to the end says which.
    pub fn note_read_closed(&mut self) {
        self.read_closed = true;
    }

    /// Whether to read on after a read that took everything: to the end that has come.
    pub fn is_read_closed(&self) -> bool {
        self.read_closed
    }

    /// Reads once, and calls `happened` with what came. `receive`, of at least 96 KiB, is where the bytes go that are
    /// not the rest of a large message.
    #[inline]
    pub fn read(
        &mut self,
        receive: &mut [u8],
        cx: &mut SocketContext<'_>,
        mut on_event: impl FnMut(SocketEvent<'_>, &mut BufferPool),
    ) -> ReadStatus {
        if self.tunnel.is_some() {
            return self.read_tunnel(receive);
        }
        #[cfg(feature = "tls")]
        if self.stream.is_secure() {
            return self.read_sealed(receive, cx, on_event);
        }
        // The rest of a large message goes straight to where it belongs.
        let (received, room, direct) = match self.machine.spare() {
            Some(spare) => (self.stream.recv(spare), spare.len(), true),
            None => (self.stream.recv(receive), receive.len(), false),
        };
        let n = match self.received(received) {
            Ok(n) => n,
            Err(status) => return status,
        };
        let result = if direct {
            self.machine.fill(n, cx, &mut on_event)
        } else {
            self.machine.receive(&mut receive[..n], cx, &mut on_event)
        };
        match result {
            Ok(()) if n == room => ReadStatus::More,
            Ok(()) => ReadStatus::All,
            Err(error) => ReadStatus::Failed(error),
        }
    }

    #[inline]
    fn received(&mut self, received: io::Result<ReadOutcome>) -> Result<usize, ReadStatus> {
        match received {
            Ok(ReadOutcome::Bytes(n)) => Ok(n),
            // Nothing now: neither is there an end to be read.
            Ok(ReadOutcome::WouldBlock) => {
                self.read_closed = false;
                Err(ReadStatus::All)
            }
            Ok(ReadOutcome::Eof) => Err(ReadStatus::Ended(ErrorKind::UnexpectedEof)),
            Err(e) => Err(ReadStatus::Ended(e.kind())),
        }
    }

    #[cold]
    fn read_tunnel(&mut self, receive: &mut [u8]) -> ReadStatus {
        let received = self.stream.recv(receive);
        let n = match self.received(received) {
            Ok(n) => n,
            Err(status) => return status,
        };
        let Some(tunnel) = &mut self.tunnel else { return ReadStatus::More };
        let mut input = &mut receive[..n];
        match tunnel.receive(&mut input) {
            Ok(false) => return ReadStatus::More,
            Ok(true) => self.tunnel = None,
            Err(e) => return ReadStatus::Failed(Error::Proxy(e)),
        }
        // Nobody has asked the server anything yet, and so what follows is not its answer.
        if !input.is_empty() {
            return ReadStatus::Failed(Error::Proxy(ProxyError::NotHttp));
        }
        self.secure();
        ReadStatus::More
    }

    /// From here on nothing is in the clear, where the URL has it so.
    fn secure(&mut self) {
        #[cfg(feature = "tls")]
        if self.tunnel.is_none()
            && let Some(session) = self.session.take()
        {
            self.stream.start_tls(session);
        }
    }

    #[cfg(feature = "tls")]
    fn read_sealed(
        &mut self,
        receive: &mut [u8],
        cx: &mut SocketContext<'_>,
        mut on_event: impl FnMut(SocketEvent<'_>, &mut BufferPool),
    ) -> ReadStatus {
        let mut plain = std::mem::take(&mut cx.packer.plain);
        renew(&mut plain);
        let share = receive.len();
        let opened = self.stream.recv_tls(receive, share, &mut plain);
        let result = self.machine.receive(&mut plain, cx, &mut on_event);
        cx.packer.plain = plain;
        let opened = match opened {
            Ok(opened) => opened,
            Err(e) => return self.tls_failed(&e),
        };
        if let Err(error) = result {
            return ReadStatus::Failed(error);
        }
        match self.received(Ok(opened.received)) {
            Err(status) => status,
            // After the server's close_notify the next read says so, without asking the kernel.
            Ok(_) if opened.full || self.stream.session().is_some_and(TlsSession::has_ended) => {
                ReadStatus::More
            }
            Ok(_) => ReadStatus::All,
        }
    }

    /// The alert that says why goes out, if it can.
    #[cfg(feature = "tls")]
    fn tls_failed(&mut self, e: &io::Error) -> ReadStatus {
        let _ = self.stream.flush();
        if self.machine.has_opened() {
            return ReadStatus::Ended(e.kind());
        }
        ReadStatus::Failed(match e.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
            Some(TlsError::Failed(rustls::Error::InvalidCertificate(why))) => {
                use rustls::CertificateError::{ApplicationVerificationFailure, UnknownIssuer};
                Error::Certificate(match why {
                    UnknownIssuer => "no authority that is trusted has signed it".into(),
                    ApplicationVerificationFailure => "it is not the one that is pinned".into(),
                    other => other.to_string(),
                })
            }
            Some(TlsError::Failed(rustls::Error::InvalidMessage(
                rustls::InvalidMessage::InvalidContentType,
            ))) => Error::Tls("the answer is no TLS; a port without it wants ws://".into()),
            Some(other) => Error::Tls(other.to_string()),
            None => return ReadStatus::Ended(e.kind()),
        })
    }

    /// Writes what waits, as far as the kernel takes it, and ends our half where nothing will follow.
    ///
    /// # Errors
    /// The server takes no more. What it said before may still be there to be read.
    #[inline]
    pub fn flush(&mut self, outbox: &mut Outbox, packer: &mut Packer, now: Instant) -> Result<(), ErrorKind> {
        if self.blocked {
            return Ok(());
        }
        #[cfg(feature = "tls")]
        if self.stream.is_secure() {
            return self.flush_sealed(outbox, packer, now);
        }
        if self.tunnel.is_none()
            && let Some(bytes) = self.machine.plain(outbox)
        {
            if !bytes.is_empty() {
                let written = self.stream.write(bytes, &mut packer.sealed).map_err(|e| e.kind())?;
                self.blocked = written < bytes.len();
                self.machine.advance(written, outbox, now);
            }
        } else {
            self.flush_all(outbox, packer, now)?;
        }
        if self.machine.is_done_sending(outbox) && !self.sending_ended {
            self.sending_ended = true;
            self.stream.shutdown_write();
        }
        Ok(())
    }

    /// The same where all of it is sealed: first what the session has to say, and what the kernel left.
    #[cfg(feature = "tls")]
    fn flush_sealed(
        &mut self,
        outbox: &mut Outbox,
        packer: &mut Packer,
        now: Instant,
    ) -> Result<(), ErrorKind> {
        self.stream.flush().map_err(|e| e.kind())?;
        self.blocked = self.stream.has_unsent();
        if self.blocked || !self.stream.session().is_some_and(TlsSession::is_established) {
            return Ok(());
        }
        self.flush_all(outbox, packer, now)?;
        self.blocked |= self.stream.has_unsent();
        if self.machine.is_done_sending(outbox) && !self.blocked && !self.sending_ended {
            self.sending_ended = self.stream.send_close_notify();
            if self.sending_ended {
                self.stream.shutdown_write();
            }
        }
        Ok(())
    }

    fn flush_all(&mut self, outbox: &mut Outbox, packer: &mut Packer, now: Instant) -> Result<(), ErrorKind> {
        let scratch = &mut packer.sealed;
        if let Some(tunnel) = &mut self.tunnel {
            while let Some(request) = tunnel.request() {
                let written = self.stream.write(request, scratch).map_err(|e| e.kind())?;
                self.blocked = written < request.len();
                tunnel.advance(written);
                if self.blocked {
                    break;
                }
            }
            return Ok(());
        }
        loop {
            let (mut slices, mut n, mut all) = ([IoSlice::new(&[]); SLICES], 0, 0);
            for slice in self.machine.slices(outbox).take(SLICES) {
                all += slice.len();
                slices[n] = slice;
                n += 1;
            }
            let written = match &slices[..n] {
                [] => return Ok(()),
                [one] => self.stream.write(one, scratch),
                several => self.stream.write_vectored(several, scratch),
            };
            let written = written.map_err(|e| e.kind())?;
            self.blocked = written < all;
            if written > 0 {
                self.machine.advance(written, outbox, now);
            }
            if self.blocked {
                return Ok(());
            }
        }
    }

    /// How messages are compressed, where that was agreed on: taken out, to be put back when what it packed is in the
    /// outbox.
    pub fn compression(&mut self) -> &mut Option<Box<Sent>> {
        &mut self.machine.sent
    }

    /// Begins the closing handshake, behind what waits.
    pub fn close(&mut self, code: CloseCode, reason: &str, cx: &mut SocketContext<'_>) {
        self.machine.close(code, reason, cx);
    }

    /// Tells a server that broke the protocol so, behind what waits.
    pub fn answer_breach(&mut self, cx: &mut SocketContext<'_>) {
        self.machine.answer_breach(cx);
    }

    /// The server's half has ended, or the connection broke, in this way.
    ///
    /// # Errors
    /// It should not have: [`Error::Transport`].
    pub fn end(&self, kind: ErrorKind) -> Result<(), Error> {
        self.machine.end(kind)
    }

    /// How it ended, as far as the server said: code and reason of its close frame ([`CloseCode::ABNORMAL`] without
    /// one), and whether both sides have sent theirs.
    pub fn ending(&self) -> (CloseCode, &str, bool) {
        self.machine.ending()
    }

    /// When [`Socket::expire`] is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        if self.connecting { None } else { self.machine.deadline() }
    }

    /// Does what is due at this time, such as a ping.
    pub fn expire(&mut self, cx: &mut SocketContext<'_>) -> Expired {
        self.machine.expire(cx)
    }

    /// Letting it go will reset the connection: nothing more is sent, and no port waits in TIME_WAIT.
    pub fn reset_on_close(&self) {
        self.stream.reset_on_close();
    }

    /// Lets it go and gives its memory back.
    pub fn release(mut self, pool: &mut BufferPool) {
        self.machine.clear(pool);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
