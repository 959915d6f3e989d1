//! A WebSocket client for programs, in the words of the browser's API, without an async runtime.
//!
//! [`Client::connect`] begins to connect and returns; [`Client::next`] waits for what happens, with a deadline;
//! [`Client::send`] never waits. Any number of clients share one thread ([`Pool`]), and a client may be used from any.
//! With [`ClientBuilder::reconnect`] it comes back by itself.
//!
//! ```no_run
//! use campanile::client::{Client, ClientEvent, Reconnect};
//! use std::time::Duration;
//!
//! let client = Client::builder("ws://127.0.0.1:9001/echo").reconnect(Reconnect::default()).connect()?;
//! for event in client.events(Duration::from_secs(60)) {
//!     match event {
//!         ClientEvent::Open => drop(client.send("hello")),
//!         ClientEvent::Message(data) => println!("{data:?}"),
//!         ClientEvent::Error(error) => eprintln!("{error}"),
//!         ClientEvent::Close(close) => eprintln!("{close}"),
//!         other => eprintln!("{other:?}"),
//!     }
//! }
//! # Ok::<(), campanile::client::Error>(())
//! ```
//!
//! Pure, and tested without a socket: the [`Url`], the [`opening`] handshake, a proxy's tunnel, the connection's machine,
//! what waits to be sent, and when to try again. Around them a thin shell: a [`socket`] for each connection, which
//! programs with an event loop of their own may use too, one thread with one epoll for many of them, and a few that
//! resolve names. Nothing here waits without an end, and nothing grows without a bound ([`ClientLimits`]).

mod addresses;
mod builder;
mod compression;
mod driver;
mod error;
mod event;
mod keys;
mod limits;
mod link;
mod machine;
pub mod opening;
mod outbox;
mod pool;
mod prepare;
mod proxy;
mod reconnect;
mod settings;
pub mod socket;
#[cfg(feature = "tls")]
mod trust;
mod url;

pub use crate::protocol::InvalidClose;
pub use builder::ClientBuilder;
pub use error::Error;
pub use event::{ClientEvent, Close, Data};
pub use limits::ClientLimits;
pub use opening::{HandshakeError, InvalidRequest, RefusedResponse};
pub use pool::Pool;
pub use prepare::Attempt;
pub use proxy::{InvalidProxy, Proxy, ProxyError};
pub use reconnect::{Offline, Reconnect};
#[cfg(feature = "tls")]
pub use trust::Trust;
pub use url::{InvalidUrl, Url, UrlFault};

use crate::conn::{ReadyState, Refused, RefusedReason};
use crate::protocol::{AsMessage, CloseCode, Message};
use core::fmt;
use core::time::Duration;
use link::Link;
use pool::Thread;
use std::sync::Arc;
use std::time::Instant;

/// A handle on one client: cheap to clone, to be used from any thread, also from several at once; an event goes to one
/// of those who wait for it.
///
/// When the last handle goes, the connection is closed with 1001, and nobody hears how that ended. To see a closing
/// handshake through, call [`Client::close`] and take events until they end.
#[derive(Clone, Debug)]
pub struct Client(Arc<ClientInner>);

struct ClientInner {
    link: Arc<Link>,
    thread: Arc<Thread>,
}

/// Why there is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoEvent {
    /// None came in time.
    Timeout,
    /// The client has ended, and all its events have been taken; or they go to a callback.
    Ended,
}

/// Why [`Client::wait_open`] gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotOpened {
    /// It took too long; the client is still trying.
    Timeout,
    /// The client has ended, with this as its last error.
    Ended(Option<Error>),
}

impl Client {
    /// What [`Client::reset`] ends a connection with.
    pub const RESET: Error = Error::Transport(std::io::ErrorKind::ConnectionAborted);

    /// Begins to connect with the default settings, and returns at once. [`Client::builder`] has the others.
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`]; what goes wrong later is a [`ClientEvent::Error`].
    pub fn connect(url: &str) -> Result<Self, Error> {
        ClientBuilder::new(url).connect()
    }

    /// Begins to put a client together.
    pub fn builder(url: &str) -> ClientBuilder {
        ClientBuilder::new(url)
    }

    fn new(link: Arc<Link>, thread: Arc<Thread>) -> Self {
        Self(Arc::new(ClientInner { link, thread }))
    }

    fn link(&self) -> &Arc<Link> {
        &self.0.link
    }

    fn thread(&self) -> &Thread {
        &self.0.thread
    }

    /// For tests of what becomes of it.
    pub(crate) fn panic_thread(&self) {
        self.thread().command(driver::Command::Panic);
    }

    /// Takes a message to be sent, masked and copied, and returns; the client's thread writes it.
    ///
    /// # Errors
    /// The client is not open (and does not keep messages meanwhile, [`Offline::Keep`]), or its backlog is full
    /// ([`ClientLimits::max_backlog`]). The message comes back with the error.
    pub fn send<M: AsMessage>(&self, message: M) -> Result<(), Refused<M>> {
        self.send_by(message.as_message(), None).map_err(|reason| Refused::new(message, reason))
    }

    fn send_by(&self, message: Message<'_>, on: Option<u64>) -> Result<(), RefusedReason> {
        if self.link().send(message, on, self.thread().packer())? {
            self.thread().touch(self.link());
        }
        Ok(())
    }

    /// Begins the closing handshake, behind all messages that wait; there will be no further try. What comes in from
    /// now on is not heard. While not connected yet, it gives up. Calling it again does nothing.
    ///
    /// # Errors
    /// The code or the reason can't be in a close frame; nothing was done.
    pub fn close(&self, code: impl Into<CloseCode>, reason: &str) -> Result<(), InvalidClose> {
        if self.link().close(code.into(), reason)? {
            self.thread().touch(self.link());
        }
        Ok(())
    }

    /// Ends the connection at once with [`Client::RESET`], without a closing handshake, as if the network had broken
    /// it: the server sees a reset, and what waits is given up or kept as [`Offline`] says. The client comes back where
    /// [`ClientBuilder::reconnect`] has it do so; to end it for good, call [`Client::close`] instead. While there is no
    /// connection this does nothing.
    pub fn reset(&self) {
        if self.link().reset() {
            self.thread().touch(self.link());
        }
    }

    /// Waits for the next event, at most so long.
    ///
    /// # Errors
    /// None came in time, or none will come any more.
    pub fn next(&self, timeout: Duration) -> Result<ClientEvent, NoEvent> {
        let far = Duration::from_secs(365 * 24 * 3600); // what a deadline can hold everywhere
        self.next_before(Instant::now() + timeout.min(far))
    }

    /// Waits for the next event until this time.
    ///
    /// # Errors
    /// As [`Client::next`].
    pub fn next_before(&self, deadline: Instant) -> Result<ClientEvent, NoEvent> {
        // In a callback of the same thread nothing would ever come.
        self.take(if self.thread().is_current() { None } else { Some(deadline) })
    }

    /// The next event, if it is there.
    ///
    /// # Errors
    /// As [`Client::next`].
    pub fn try_next(&self) -> Result<ClientEvent, NoEvent> {
        self.take(None)
    }

    fn take(&self, deadline: Option<Instant>) -> Result<ClientEvent, NoEvent> {
        self.take_unless(deadline, || false)
    }

    fn take_unless(
        &self,
        deadline: Option<Instant>,
        is_woken: impl Fn() -> bool,
    ) -> Result<ClientEvent, NoEvent> {
        let (event, touch) = self.link().next(deadline, is_woken)?;
        if touch {
            self.thread().touch(self.link());
        }
        Ok(event)
    }

    /// The events one after the other, each waited for at most so long: the iterator ends when one does not come in
    /// time, and after the last.
    pub fn events(&self, timeout: Duration) -> impl Iterator<Item = ClientEvent> {
        std::iter::from_fn(move || self.next(timeout).ok())
    }

    /// Waits until the connection is open, without taking an event.
    ///
    /// # Errors
    /// It took too long, or the client has given up.
    pub fn wait_open(&self, timeout: Duration) -> Result<(), NotOpened> {
        let timeout = if self.thread().is_current() { Duration::ZERO } else { timeout };
        self.link().wait_open(Instant::now() + timeout.min(Duration::from_secs(365 * 24 * 3600)))
    }

    /// Where it is in its life. Between two connections it is connecting.
    pub fn ready_state(&self) -> ReadyState {
        self.link().lock().state
    }

    /// Bytes of messages that were taken by [`Client::send`] and have not left for the kernel; frame heads and masks
    /// are not counted, and a message counts until all of it has gone; a compressed one with what it became.
    pub fn buffered_amount(&self) -> usize {
        self.link().lock().buffered()
    }

    /// The subprotocol that the server chose, or an empty string.
    pub fn protocol(&self) -> String {
        self.link().lock().agreed.protocol.clone()
    }

    /// The extensions in use, or an empty string.
    pub fn extensions(&self) -> String {
        self.link().lock().agreed.extensions.clone()
    }

    /// Where it is connected, or tries to: after redirects, and after the hook.
    pub fn url(&self) -> Url {
        self.link().lock().url.clone()
    }
}

/// For the protocol above.
#[cfg(feature = "push")]
impl Client {
    /// As [`Client::next_before`], and ends with a timeout when [`Client::wake`] was called after `is_woken` was made
    /// to hold.
    pub(crate) fn next_unless(
        &self,
        deadline: Instant,
        is_woken: impl Fn() -> bool,
    ) -> Result<ClientEvent, NoEvent> {
        self.take_unless(Some(deadline), is_woken)
    }

    /// As [`Client::send`], on the connection with this number and no other: whoever has not taken the end of one may
    /// not know that there is another already. The number is that of [`ClientEvent::Open`], from 1.
    pub(crate) fn send_on(&self, connection: u64, message: Message<'_>) -> Result<(), RefusedReason> {
        self.send_by(message, Some(connection))
    }

    /// Has whoever waits for an event look again.
    pub(crate) fn wake(&self) {
        // Under the lock, or it could fall between somebody's look and their wait.
        let _inner = self.link().lock();
        self.link().notify();
    }

    /// What the server would have instead of [`Reconnect::initial_delay`], up to [`Reconnect::max_hint`].
    pub(crate) fn set_initial_delay(&self, bound: Option<Duration>) {
        self.link().lock().initial_delay = bound;
    }
}

impl Drop for ClientInner {
    fn drop(&mut self) {
        if let Ok(true) = self.link.close(CloseCode::GOING_AWAY, "") {
            self.thread.touch(&self.link);
        }
    }
}

impl fmt::Debug for ClientInner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.link.lock();
        f.debug_struct("Handle")
            .field("url", &inner.url.to_string())
            .field("ready_state", &inner.state)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for NoEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "no event came in time",
            Self::Ended => "the client has ended, or its events go to a callback",
        })
    }
}

impl std::error::Error for NoEvent {}

impl fmt::Display for NotOpened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("not open yet"),
            Self::Ended(Some(error)) => error.fmt(f),
            Self::Ended(None) => f.write_str("the client was closed"),
        }
    }
}

impl std::error::Error for NotOpened {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Ended(Some(error)) => Some(error),
            _ => None,
        }
    }
}
