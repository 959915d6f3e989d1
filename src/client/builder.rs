//! A client's settings, and its start.

use super::driver::NewClient;
use super::limits::ClientLimits;
use super::opening::Extras;
use super::prepare::{Attempt, Hook, check_scheme};
use super::settings::{Callback, Settings};
use super::{Client, ClientEvent, Error, Link, Pool, Reconnect, Url};
use core::fmt;
use core::time::Duration;
use std::net::IpAddr;
use std::sync::Arc;

/// Puts a client together: where it goes, what it offers, what it may cost, and how it comes back.
pub struct ClientBuilder {
    url: String,
    extras: Extras,
    settings: Settings,
    hook: Option<Hook>,
    pool: Option<Pool>,
    proxy: Option<String>,
}

impl ClientBuilder {
    pub(super) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            extras: Extras::default(),
            settings: Settings::default(),
            hook: None,
            pool: None,
            proxy: None,
        }
    }

    /// Offers a subprotocol; several calls offer several, the first one liked best.
    #[must_use]
    pub fn subprotocol(mut self, name: &str) -> Self {
        self.extras.subprotocols.push(name.to_owned());
        self
    }

    /// Adds a header to the request, such as `Authorization` or `Cookie`. A `Host` replaces the URL's.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.extras.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Names the page that a browser would have opened the connection from. Default: none.
    #[must_use]
    pub fn origin(mut self, origin: &str) -> Self {
        self.extras.origin = Some(origin.to_owned());
        self
    }

    /// Whether compression is offered (permessage-deflate, RFC 7692), and which. Default: [`Deflate::off`](crate::deflate::Deflate::off). A server
    /// that does not take the offer is no error; [`Client::extensions`] says what came of it. What it may inflate to is
    /// bounded by [`ClientLimits::max_message_size`]. With [`Offline::Keep`](super::Offline::Keep) no message that is sent
    /// refers to an earlier one.
    #[cfg(feature = "deflate")]
    #[must_use]
    pub fn deflate(mut self, deflate: crate::deflate::Deflate) -> Self {
        self.extras.deflate = deflate;
        self
    }

    /// Sets all bounds and waits.
    #[must_use]
    pub fn limits(mut self, limits: ClientLimits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// Sets [`ClientLimits::ping_interval`] and [`ClientLimits::pong_timeout`]. A zero interval turns the heartbeat off.
    #[must_use]
    pub fn heartbeat(mut self, ping_interval: Duration, pong_timeout: Duration) -> Self {
        self.settings.limits.ping_interval = ping_interval;
        self.settings.limits.pong_timeout = pong_timeout;
        self
    }

    /// Sets [`ClientLimits::max_backlog`].
    #[must_use]
    pub fn max_backlog(mut self, bytes: usize) -> Self {
        self.settings.limits.max_backlog = bytes;
        self
    }

    /// Sets [`ClientLimits::max_message_size`].
    #[must_use]
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.settings.limits.max_message_size = bytes;
        self
    }

    /// Whether small writes leave at once (`TCP_NODELAY`). Default on; what is sent while the thread is at work is
    /// joined anyway.
    #[must_use]
    pub fn no_delay(mut self, no_delay: bool) -> Self {
        self.settings.delay = !no_delay;
        self
    }

    /// Connects from this address of the machine. Default: the kernel chooses.
    #[must_use]
    pub fn local_address(mut self, ip: IpAddr) -> Self {
        self.settings.from = Some(ip);
        self
    }

    /// Whom to believe on `wss://`. Default: whom this machine trusts, [`Trust::system`](super::Trust::system).
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn trust(mut self, trust: &super::Trust) -> Self {
        self.settings.trust = Some(trust.clone());
        self
    }

    /// Goes through an HTTP proxy, `http://[user:password@]host[:port]` (port 80 where it names none), which is asked by
    /// `CONNECT` for a tunnel, for `ws://` as for `wss://`. User name and password, `%` escapes read, go to the proxy
    /// by Basic authentication, in the clear. The proxy resolves the server's name. Its answer has to come within
    /// [`ClientLimits::handshake_timeout`], together with the server's. Default: none; variables such as `HTTP_PROXY` are not
    /// looked at, so that nothing outside the program decides where its connections go.
    #[must_use]
    pub fn proxy(mut self, url: &str) -> Self {
        self.proxy = Some(url.to_owned());
        self
    }

    /// Follows so many redirects of the handshake. Default 0, as browsers do: a redirect is then an
    /// [`Error::Redirect`] that names where to. Headers that carry rights (`Authorization`, `Cookie`,
    /// `Proxy-Authorization`) are not shown to another host, and neither is a `Host` that was set by hand.
    #[must_use]
    pub fn redirects(mut self, most: u32) -> Self {
        self.settings.redirects = most;
        self
    }

    /// Comes back when the connection has gone or could not be made. Default: it does not.
    #[must_use]
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.settings.reconnect = Some(reconnect);
        self
    }

    /// For a protocol above that says again itself what has to be said on each connection: what waits belongs to the
    /// connection it was sent on, and where nothing else was asked for, `default` is how it comes back.
    #[cfg(feature = "push")]
    pub(crate) fn without_offline(mut self, default: Reconnect) -> Self {
        let reconnect = self.settings.reconnect.take().unwrap_or(default);
        self.reconnect(reconnect.offline(super::Offline::Refuse))
    }

    /// Calls `hook` before each try, the first one too; it may change the URL, the headers and the subprotocols, for
    /// instance to bring a fresh token. It runs on a thread where it may block, for as long as
    /// [`ClientLimits::connect_timeout`] allows; if it fails, so does the try.
    ///
    /// ```
    /// # use campanile::client::{Client, Reconnect};
    /// # fn fresh_token() -> Result<String, std::io::Error> { Ok(String::new()) }
    /// let builder = Client::builder("ws://example.com/feed")
    ///     .reconnect(Reconnect::default().retry_status(401..=401))
    ///     .before_attempt(|attempt| {
    ///         attempt.headers.push(("Authorization".into(), format!("Bearer {}", fresh_token()?)));
    ///         Ok(())
    ///     });
    /// ```
    #[must_use]
    pub fn before_attempt(
        mut self,
        hook: impl FnMut(&mut Attempt) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    ) -> Self {
        self.hook = Some(Box::new(hook));
        self
    }

    /// Runs on the threads of this pool.
    #[must_use]
    pub fn pool(mut self, pool: &Pool) -> Self {
        self.pool = Some(pool.clone());
        self
    }

    /// Begins to connect and returns at once; what becomes of it, [`Client::next`] says.
    ///
    /// # Errors
    /// The URL, the proxy's or a header can't be, TLS is asked for and not built in, or the system refuses a thread.
    pub fn connect(self) -> Result<Client, Error> {
        let pool = match &self.pool {
            Some(pool) => pool.clone(),
            None => Pool::shared()?,
        };
        self.start(&pool, None)
    }

    /// Begins to connect, and calls `callback` with each event, on the client's thread: one of its own, unless
    /// [`ClientBuilder::pool`] names others. The callback may call everything of the client; while it runs, the other
    /// connections of that thread wait. If it panics, the connection is closed with 1011.
    ///
    /// The connection lives on until it is closed, whether or not the returned handle is kept.
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`].
    ///
    /// ```no_run
    /// use campanile::client::{Client, ClientEvent};
    ///
    /// Client::builder("ws://127.0.0.1:9001/echo").connect_with(|client, event| match event {
    ///     ClientEvent::Open => drop(client.send("hello")),
    ///     ClientEvent::Message(data) => println!("{data:?}"),
    ///     _ => {}
    /// })?;
    /// # Ok::<(), campanile::client::Error>(())
    /// ```
    pub fn connect_with(
        self,
        callback: impl FnMut(&Client, ClientEvent) + Send + 'static,
    ) -> Result<Client, Error> {
        let pool = match &self.pool {
            Some(pool) => pool.clone(),
            None => Pool::new(1)?,
        };
        self.start(&pool, Some(Box::new(callback)))
    }

    fn start(mut self, pool: &Pool, callback: Option<Callback>) -> Result<Client, Error> {
        let url: Url = self.url.parse()?;
        self.extras.check()?;
        check_scheme(&url)?;
        self.settings.proxy = self.proxy.map(|p| p.parse()).transpose().map_err(Error::InvalidProxy)?;
        let keeps_messages = self.settings.reconnect.as_ref().is_some_and(Reconnect::keeps_messages);
        let ClientLimits { max_backlog, max_inbox, .. } = self.settings.limits;
        let link = Link::new(url.clone(), keeps_messages, max_backlog, max_inbox, callback.is_some());
        let client = Client::new(Arc::new(link), pool.thread());
        let new = NewClient {
            link: client.link().clone(),
            url,
            extras: self.extras,
            settings: self.settings,
            hook: self.hook,
            callback: callback.map(|callback| (callback, client.clone())),
        };
        client.thread().add(Box::new(new))?;
        Ok(client)
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("url", &self.url)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
