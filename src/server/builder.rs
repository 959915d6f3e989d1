//! The one place where a server's settings come together.

use super::Server;
use super::checks::{self, InvalidSetting};
use crate::endpoint::Endpoint;
use crate::handler::{Command, Handle, OutOfRange, Route, ServerShared, WorkerShared};
use crate::http::{HttpError, HttpLimits, Request, Response, RouteError, Router};
use crate::hub::check_topic;
use crate::hub::{DEFAULT_MAX_HISTORY, Owners, SettingsTable, TopicSettings, total_reserved};
use crate::log;
use crate::net::{InvalidAddr, ListenAddr, ListenOptions, Listener, TlsAcceptor, raise_open_files};
use crate::sync::mailbox::{Capacity, mailbox};
use crate::worker::http::Resource;
#[cfg(feature = "tls")]
use crate::worker::tls::{Certificates, Handshakes};
use crate::worker::{WatchedFd, Worker, WorkerParts, WorkerSettings, prepare};
use crossbeam_utils::CachePadded;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::RandomState;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// [`Limits::max_unsent`](crate::Limits::max_unsent) where newer messages replace older ones: a client that stops reading
/// then gets 70 to 170 KB of old messages instead of 4 MB. Less changes nothing, because the kernel fills a packet of
/// up to 64 KiB in any case.
const MAX_UNSENT: u32 = 16 << 10;

/// WebSocket routes of a server: a connection keeps the number of its own in 16 bits.
const MAX_ROUTES: usize = 1 << 16;

/// A connection's id has one byte for its worker.
const MAX_WORKERS: usize = 256;

/// Puts a server together: where it listens, what it serves, what it may cost.
pub struct Builder {
    listen: Vec<(Result<ListenAddr, InvalidAddr>, Option<TlsAcceptor>)>,
    options: ListenOptions,
    routes: Vec<Route>,
    endpoints: Vec<(String, String, Arc<dyn Endpoint>)>,
    /// For endpoints that publish: known once the server is built.
    handle: Arc<OnceLock<Handle>>,
    workers: usize,
    pin: bool,
    topics: Vec<(String, TopicSettings)>,
    max_history: usize,
    http: HttpLimits,
    max_connections: usize,
    max_memory: u64,
    #[cfg(feature = "tls")]
    max_handshakes: usize,
    mailbox: Capacity,
    receive_buffer: usize,
    spare_buffers: usize,
    trim_heap: bool,
    slow_callback: Duration,
    watched: Vec<WatchedFd>,
    /// The first mistake, which [`Builder::build`] reports.
    fault: Option<BuildError>,
}

/// Why a server can't be built.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// An address that was not understood.
    Addr(InvalidAddr),
    /// An address that can't be listened on.
    Listen {
        /// The address.
        addr: ListenAddr,
        /// The kernel's reason.
        error: io::Error,
    },
    /// A route that can't be.
    Route(RouteError),
    /// A prefix for [`Builder::topics`] that no topic's name begins with, such as a pattern.
    TopicPrefix {
        /// The prefix.
        prefix: String,
    },
    /// A prefix was given to [`Builder::topics`] twice.
    TopicPrefixTwice {
        /// The prefix.
        prefix: String,
    },
    /// Prefixes reserve more history ([`TopicSettings::history_reserved`]) than there is ([`Builder::max_history`]).
    HistoryReserved {
        /// Bytes that they reserve.
        reserved: usize,
        /// Bytes that there are.
        max_history: usize,
    },
    /// A time that a route was given is too short or too long.
    OutOfRange {
        /// The setting, such as `Push::heartbeat`.
        setting: &'static str,
        /// What it was given.
        given: Duration,
        /// The shortest that is allowed.
        least: Duration,
        /// The longest that is allowed.
        most: Duration,
        /// Whether zero is allowed as well, for none.
        or_zero: bool,
    },
    /// A setting with a value that means nothing, such as 1,000 workers.
    Setting(InvalidSetting),
    /// A method of a path was given two answers ([`Builder::on`]).
    MethodTaken {
        /// The method.
        method: String,
        /// The path.
        pattern: String,
    },
    /// The API was mounted without a key ([`Api::mount`](crate::api::Api::mount)).
    #[cfg(feature = "api")]
    ApiWithoutKey,
    /// The system refused something else.
    System(io::Error),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(e) => e.fmt(f),
            Self::Listen { addr, error } if error.kind() == io::ErrorKind::AddrInUse => write!(
                f,
                "can't listen on {addr}: the address is in use by another program; end it, or choose another port"
            ),
            Self::Listen { addr, error } => write!(f, "can't listen on {addr}: {error}"),
            Self::Route(e) => e.fmt(f),
            Self::TopicPrefix { prefix } => write!(
                f,
                "no topic's name begins with {prefix:?}: expected a prefix without a star, such as \"chat/\", of at most \
                 255 bytes, without control characters"
            ),
            Self::TopicPrefixTwice { prefix } => {
                write!(f, "topics with the prefix {prefix:?} have settings twice: put them together")
            }
            Self::HistoryReserved { reserved, max_history } => write!(
                f,
                "history_reserved: {reserved} bytes in all prefixes together, at most max_history, {max_history}, are \
                 allowed: reserve less, or raise max_history"
            ),
            Self::OutOfRange { setting, given, least, most, or_zero } => {
                let none = if *or_zero { ", or zero for none" } else { "" };
                write!(f, "{setting}: {given:?}, expected {least:?} to {most:?}{none}")
            }
            Self::Setting(e) => e.fmt(f),
            Self::MethodTaken { method, pattern } => {
                write!(f, "endpoint {pattern:?}: {method} has two answers, expected one; leave one of them out")
            }
            #[cfg(feature = "api")]
            Self::ApiWithoutKey => f.write_str(
                "api: no key, expected at least one; add one with Api::key or Api::key_file, or open the API to this \
                 machine for development with Api::without_key",
            ),
            Self::System(e) => write!(f, "can't set up the event loop: {e}"),
        }
    }
}

impl std::error::Error for BuildError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Addr(e) => Some(e),
            Self::Listen { error, .. } | Self::System(error) => Some(error),
            Self::Route(e) => Some(e),
            Self::Setting(e) => Some(e),
            _ => None,
        }
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            options: ListenOptions::default(),
            routes: Vec::new(),
            endpoints: Vec::new(),
            handle: Arc::default(),
            workers: 0,
            pin: false,
            topics: Vec::new(),
            max_history: DEFAULT_MAX_HISTORY,
            http: HttpLimits::default(),
            max_connections: 1 << 20,
            max_memory: 1 << 30,
            #[cfg(feature = "tls")]
            max_handshakes: 4096,
            mailbox: Capacity { commands: 65_536, bytes: 64 << 20 },
            receive_buffer: 256 << 10,
            spare_buffers: 16 << 20,
            trim_heap: true,
            slow_callback: Duration::from_millis(100),
            watched: Vec::new(),
            fault: None,
        }
    }
}

impl Builder {
    /// Listens on an address: `"127.0.0.1:9001"`, `"[::]:9001"`, `"unix:/run/bell.sock"`, or port 0 for one that the
    /// system chooses. Several calls listen on several. Without any, the server only has what is handed to
    /// [`Handle::adopt`].
    #[must_use]
    pub fn listen(mut self, addr: &str) -> Self {
        self.listen.push((addr.parse(), None));
        self
    }

    /// Listens on an address as [`Builder::listen`] does, for `https` and `wss`: every connection begins with a TLS
    /// handshake, for which it has the time of [`HttpLimits::timeout`]. Listeners with and without TLS can stand side
    /// by side, and several may share one [`Tls`](crate::Tls).
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn listen_tls(mut self, addr: &str, tls: &super::Tls) -> Self {
        self.listen.push((addr.parse(), Some(tls.acceptor())));
        self
    }

    /// How it listens.
    #[must_use]
    pub fn listen_options(mut self, options: ListenOptions) -> Self {
        self.options = options;
        self
    }

    /// Serves WebSockets at a path: `/chat`, `/chat/:room`, `/files/*`. The most specific pattern wins, whatever the
    /// order. A handler alone has the default settings; see [`Route`] for others.
    #[must_use]
    pub fn route(mut self, pattern: &str, route: impl Into<Route>) -> Self {
        let mut route = route.into();
        route.pattern = pattern.to_owned();
        self.routes.push(route);
        self
    }

    /// Answers GET, and with it HEAD, at a path. The same path may also be a WebSocket route, for requests that ask for
    /// an upgrade.
    #[must_use]
    pub fn get(self, pattern: &str, endpoint: impl Endpoint) -> Self {
        self.on("GET", pattern, endpoint)
    }

    /// Answers POST at a path.
    #[must_use]
    pub fn post(self, pattern: &str, endpoint: impl Endpoint) -> Self {
        self.on("POST", pattern, endpoint)
    }

    /// Answers a method at a path, with the way to the server at hand: a POST that publishes.
    ///
    /// ```
    /// use campanile::{Response, Server};
    ///
    /// let server = Server::builder().on_with("POST", "/say/:room", |request, handle| {
    ///     let text = String::from_utf8_lossy(request.body());
    ///     match handle.publish(request.param("room").unwrap_or("lobby"), &*text) {
    ///         Ok(()) => Response::new(202),
    ///         Err(e) => Response::new(503).text(format!("{e}\n")),
    ///     }
    /// });
    /// ```
    #[must_use]
    pub fn on_with<F>(self, method: &str, pattern: &str, endpoint: F) -> Self
    where
        F: Fn(&Request<'_>, &Handle) -> Response + Send + Sync + 'static,
    {
        let handle = self.handle.clone();
        self.on(method, pattern, move |request: &Request<'_>| match handle.get() {
            Some(handle) => endpoint(request, handle),
            None => HttpError::Internal.response(), // no request comes before the server is built
        })
    }

    /// Answers a method at a path; `*` stands for every method that has no answer of its own. Methods are in capitals, and
    /// [`build`](Builder::build) refuses `"get"`.
    #[must_use]
    pub fn on(mut self, method: &str, pattern: &str, endpoint: impl Endpoint) -> Self {
        self.endpoints.push((pattern.to_owned(), method.to_owned(), Arc::new(endpoint)));
        self
    }

    /// How many event loops run, each on a thread of its own: 1 to 256. Default, and for 0: one for each core, at most
    /// 256.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Pins each worker to a core. Default off: it helps on a machine that does nothing else, and hurts on others.
    #[must_use]
    pub fn pin_workers(mut self, pin: bool) -> Self {
        self.pin = pin;
        self
    }

    /// What the topics whose names begin with `prefix` keep and allow; of several prefixes the longest counts, and the
    /// empty one is for all others. It is a prefix and no pattern: `"chat/"`, not `"chat/*"`, which
    /// [`build`](Builder::build) refuses, and so it does the same prefix twice. Default [`TopicSettings::new`]: no history.
    #[must_use]
    pub fn topics(mut self, prefix: &str, settings: TopicSettings) -> Self {
        self.topics.push((prefix.to_owned(), settings));
        self
    }

    /// Bytes that the histories of all topics together may hold, each worker's topics an equal part. Each prefix of
    /// [`Builder::topics`] has a part [to itself](TopicSettings::history_reserved). If a message does not fit, old
    /// messages are evicted from prefixes that hold more than their part, first where clients can publish; a client
    /// that recovers is told that messages are missing. Default 256 MiB.
    #[must_use]
    pub fn max_history(mut self, bytes: usize) -> Self {
        self.max_history = bytes;
        self
    }

    /// The bounds of plain HTTP, which the opening handshake begins as.
    #[must_use]
    pub fn http_limits(mut self, limits: HttpLimits) -> Self {
        self.http = limits;
        self
    }

    /// Sockets in all; above this number a client gets a 503. Default 1,048,576, in practice the limit on open files,
    /// which is raised as far as the system allows.
    #[must_use]
    pub fn max_connections(mut self, most: usize) -> Self {
        self.max_connections = most;
        self
    }

    /// Bytes that all connections together may hold in unfinished messages and backlogs; a frame that waits for several
    /// is counted for each. Over it, a connection that wants more is closed with 1013. Default 1 GiB.
    #[must_use]
    pub fn max_memory(mut self, bytes: u64) -> Self {
        self.max_memory = bytes;
        self
    }

    /// TLS handshakes in progress at once, over all workers. At this number the listeners with TLS pause, new clients
    /// wait in the kernel, and a handshake that sends nothing for 2 s is closed. One takes some 0.1 ms of processor
    /// time, more with an RSA key, and some 5 KiB while it lasts. Default 4,096.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn max_handshakes(mut self, most: usize) -> Self {
        self.max_handshakes = most;
        self
    }

    /// Commands that may wait for one worker; a handle's call beyond gets [`HandleError::Full`](crate::HandleError).
    /// Default 65,536. Memory is taken only as they wait.
    #[must_use]
    pub fn mailbox(mut self, commands: usize) -> Self {
        self.mailbox.commands = commands;
        self
    }

    /// Bytes of messages that may wait for one worker, beside a single larger one; then too publishing fails with
    /// [`HandleError::Full`](crate::HandleError::Full). Default 64 MiB: what publishers that are faster than the worker
    /// can have it hold.
    #[must_use]
    pub fn mailbox_bytes(mut self, bytes: usize) -> Self {
        self.mailbox.bytes = bytes;
        self
    }

    /// Bytes of each worker's receive buffer, which all its connections share: 4 KiB to 16 MiB, with TLS at least 144 KiB.
    /// Default 256 KiB. A message that fits is never copied; a buffer beyond the processor's second-level cache costs more than it saves.
    #[must_use]
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.receive_buffer = bytes;
        self
    }

    /// Bytes of buffers that each worker keeps for its next large messages. Default 16 MiB; taken only by large
    /// messages.
    #[must_use]
    pub fn spare_buffers(mut self, bytes: usize) -> Self {
        self.spare_buffers = bytes;
        self
    }

    /// Whether memory that was freed is given back to the system, by glibc's `malloc_trim`: once in 10 s at most, some
    /// seconds after 16 MiB and more were freed and not needed again. Price: a worker waits some 0.3 ms for each MiB that
    /// goes back, and others that allocate meanwhile wait too. Default on. Switch it off where the program has another
    /// allocator, which gives memory back by itself.
    #[must_use]
    pub fn trim_heap(mut self, trim: bool) -> Self {
        self.trim_heap = trim;
        self
    }

    /// The time for which a callback may hold its worker before a line in the log names its route and how long it took: the
    /// worker's other connections wait meanwhile. The messages of one read count together. Default 100 ms; zero turns it off.
    #[must_use]
    pub fn slow_callback(mut self, limit: Duration) -> Self {
        self.slow_callback = limit;
        self
    }

    /// Ends the server, as [`Handle::shutdown`] with this deadline does, when the descriptor can be read: the pipe that a
    /// signal handler writes to. So a server with one worker needs no second thread, and the kernel then spares it the
    /// locks on its table of descriptors: 2 % of an echo of 20 bytes.
    #[must_use]
    pub fn until(self, readable: impl Into<OwnedFd>, deadline: Duration) -> Self {
        self.watch(readable, move |handle| handle.shutdown(deadline))
    }

    /// Calls this on the first worker's thread whenever the descriptor can be read, once however much has come; what has
    /// come is read away, up to 4 KiB each time. It is meant for the pipe that a signal handler writes to, as
    /// [`Builder::until`] is: SIGHUP to reload certificates with `Tls::reload_in_background`. While it runs, that
    /// worker's connections wait: it must not read files. A panic in it is logged and counted, and the descriptor is
    /// watched on.
    #[must_use]
    pub fn watch(
        mut self,
        readable: impl Into<OwnedFd>,
        action: impl FnMut(&Handle) + Send + 'static,
    ) -> Self {
        self.watched.push(WatchedFd { fd: readable.into(), action: Box::new(action) });
        self
    }

    /// Notes a mistake for [`Builder::build`] to report. The first one counts: those behind it may follow from it.
    #[cfg(feature = "api")]
    pub(crate) fn fault(&mut self, fault: BuildError) {
        self.fault.get_or_insert(fault);
    }

    /// Checks what any single setting may be.
    fn check(&self) -> Result<(), InvalidSetting> {
        checks::in_range("Builder::route", self.routes.len(), 0, MAX_ROUTES)?;
        checks::in_range("Builder::workers", self.workers, 0, MAX_WORKERS)?;
        checks::nonzero("Builder::max_connections", self.max_connections)?;
        checks::nonzero("Builder::max_memory", self.max_memory)?;
        #[cfg(feature = "tls")]
        checks::nonzero("Builder::max_handshakes", self.max_handshakes)?;
        checks::nonzero("Builder::mailbox", self.mailbox.commands)?;
        checks::nonzero("Builder::mailbox_bytes", self.mailbox.bytes)?;
        checks::in_range(
            "Builder::receive_buffer",
            self.receive_buffer,
            self.least_receive_buffer(),
            16 << 20,
        )?;
        checks::in_range("ListenOptions::backlog", self.options.backlog, 1, i32::MAX)?;
        checks::http(&self.http)?;
        self.routes.iter().try_for_each(checks::route)?;
        self.topics.iter().try_for_each(|(prefix, settings)| checks::topics(prefix, settings))?;
        self.endpoints.iter().try_for_each(|(pattern, method, _)| checks::method(pattern, method))
    }

    fn least_receive_buffer(&self) -> usize {
        #[cfg(feature = "tls")]
        if self.listen.iter().any(|(_, security)| security.is_some()) {
            // The unprocessed bytes of a handshake and what is received behind them must be contiguous.
            return crate::worker::tls::MIN_RECEIVE;
        }
        4 << 10
    }

    /// Binds the addresses and prepares the workers; nothing is accepted before [`Server::run`] or [`Server::spawn`].
    ///
    /// # Errors
    /// An address or a route can't be, or the system refuses.
    pub fn build(mut self) -> Result<Server, BuildError> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        self.check().map_err(BuildError::Setting)?;
        let workers = match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS),
            n => n,
        };
        match raise_open_files() {
            Ok(files) => log::line!(debug, "up to {files} open files"),
            Err(e) => log::line!(debug, "can't raise the limit on open files: {e}"),
        }
        if let Some((prefix, _)) = self.topics.iter().find(|(p, _)| !p.is_empty() && check_topic(p).is_err())
        {
            return Err(BuildError::TopicPrefix { prefix: prefix.clone() });
        }
        let mut prefixes: Vec<&str> = self.topics.iter().map(|(prefix, _)| &**prefix).collect();
        prefixes.sort_unstable();
        if let Some(twice) = prefixes.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(BuildError::TopicPrefixTwice { prefix: twice[0].to_owned() });
        }
        let (reserved, max_history) = (total_reserved(&self.topics), self.max_history);
        if reserved > max_history {
            return Err(BuildError::HistoryReserved { reserved, max_history });
        }
        let open: Vec<&str> =
            self.routes.iter().flat_map(|r| &r.publish_prefixes).map(String::as_str).collect();
        let topics = SettingsTable::new(self.topics, max_history, &open);
        if let Some(wrong) = self.routes.iter().find_map(|route| route.out_of_range.clone()) {
            let OutOfRange { setting, given, bounds, or_zero } = wrong;
            let (least, most) = bounds.into_inner();
            return Err(BuildError::OutOfRange { setting, given, least, most, or_zero });
        }
        for terms in self.routes.iter_mut().map(|route| &mut route.terms) {
            if terms.slow_consumer.replaces_older() || topics.replaces_older() {
                terms.limits.max_unsent.get_or_insert(MAX_UNSENT);
            }
        }
        let count = self.routes.iter().filter(|r| r.envelope.is_some()).count();
        for (index, envelope) in self.routes.iter_mut().filter_map(|r| r.envelope.as_mut()).enumerate() {
            (envelope.index, envelope.count) = (index, count);
        }
        let router = router(&self.routes, self.endpoints)?;
        let secure = self.listen.iter().map(|(_, security)| security.is_some()).collect();
        let local = self.listen.iter().all(|(addr, _)| match addr {
            Ok(ListenAddr::Tcp(addr)) => addr.ip().to_canonical().is_loopback(),
            Ok(ListenAddr::Unix(_)) | Err(_) => true,
        });
        #[cfg(feature = "tls")]
        let mut certificates =
            Certificates::new(self.listen.iter().filter_map(|(_, security)| security.clone()));
        let (mut listeners, addrs) = bind(self.listen, &self.options, workers)?;
        let counters = (0..workers).map(|_| CachePadded::default()).collect();
        let (mut polls, mut inboxes, mut shared) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..workers {
            let (poll, wake) = prepare().map_err(BuildError::System)?;
            let (tx, rx) = mailbox::<Command>(self.mailbox, wake);
            polls.push(poll);
            inboxes.push(rx);
            let flows = (0..workers).map(|_| CachePadded::default()).collect();
            shared.push(WorkerShared { mailbox: tx, load: CachePadded::default(), flows });
        }
        let shared = Arc::new(ServerShared {
            workers: shared,
            routes: self.routes.into(),
            counters,
            began: Instant::now(),
            topics,
            owners: Owners::new(RandomState::new(), workers),
            congestion: Arc::default(),
            stopping: AtomicBool::new(false),
            mailbox: self.mailbox,
            slow_callback: self.slow_callback,
            local,
        });
        let settings = Arc::new(WorkerSettings {
            router,
            http: self.http,
            max_connections: self.max_connections,
            max_memory: self.max_memory,
            #[cfg(feature = "tls")]
            handshakes: Handshakes::new(self.max_handshakes),
            receive_buffer: self.receive_buffer,
            spare_buffers: self.spare_buffers,
            trim_heap: self.trim_heap,
            trimmed: AtomicU64::new(0),
        });
        let workers = polls.into_iter().zip(inboxes).enumerate().map(|(number, (poll, inbox))| {
            Worker::new(WorkerParts {
                number,
                poll,
                inbox,
                shared: shared.clone(),
                settings: settings.clone(),
                listeners: core::mem::take(&mut listeners[number]),
                pin: self.pin.then_some(number),
                watched: core::mem::take(&mut self.watched),
                #[cfg(feature = "tls")]
                certificates: core::mem::take(&mut certificates), // the first worker's
            })
        });
        let workers = workers.collect::<io::Result<_>>().map_err(BuildError::System)?;
        let handle = Handle { shared };
        let _ = self.handle.set(handle.clone()); // it is built once
        Ok(Server { workers, addrs, secure, handle })
    }
}

/// Each worker's listeners: with a shared port one of its own for each; otherwise the first accepts and hands over.
type Listeners = Vec<Vec<Listener>>;

fn bind(
    addrs: Vec<(Result<ListenAddr, InvalidAddr>, Option<TlsAcceptor>)>,
    options: &ListenOptions,
    workers: usize,
) -> Result<(Listeners, Vec<ListenAddr>), BuildError> {
    let mut listeners: Listeners = (0..workers).map(|_| Vec::new()).collect();
    let mut bound = Vec::new();
    for (i, (addr, security)) in addrs.into_iter().enumerate() {
        let addr = addr.map_err(BuildError::Addr)?;
        let failed = |error| BuildError::Listen { addr: addr.clone(), error };
        let mut first = Listener::bind(&addr, options).map_err(failed)?;
        first.security = security.clone();
        let local = first.local_addr().map_err(failed)?;
        listeners[i % workers].push(first);
        if options.reuse_port && matches!(local, ListenAddr::Tcp(_)) {
            for worker in (0..workers).filter(|w| *w != i % workers) {
                let mut other = Listener::bind(&local, options).map_err(failed)?;
                other.security = security.clone();
                listeners[worker].push(other);
            }
        }
        bound.push(local);
    }
    Ok((listeners, bound))
}

fn router(
    routes: &[Route],
    endpoints: Vec<(String, String, Arc<dyn Endpoint>)>,
) -> Result<Router<Resource>, BuildError> {
    let mut resources: BTreeMap<&str, Resource> = BTreeMap::new();
    for (i, route) in routes.iter().enumerate() {
        let resource = resources.entry(&route.pattern).or_insert_with(|| Resource::at(&route.pattern));
        if resource.websocket.replace(i as u16).is_some() {
            let pattern = route.pattern.clone();
            return Err(BuildError::Route(RouteError::Taken { by: pattern.clone(), pattern }));
        }
    }
    for (pattern, method, endpoint) in &endpoints {
        let endpoints = &mut resources.entry(pattern).or_insert_with(|| Resource::at(pattern)).endpoints;
        if endpoints.iter().any(|(taken, _)| **taken == **method) {
            return Err(BuildError::MethodTaken { method: method.clone(), pattern: pattern.clone() });
        }
        endpoints.push((method.as_str().into(), endpoint.clone()));
    }
    let mut router = Router::new();
    for (pattern, resource) in resources {
        router.insert(pattern, resource).map_err(BuildError::Route)?;
    }
    Ok(router)
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("listen", &self.listen)
            .field("routes", &self.routes)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}
