//! The way to a running server from any thread.

use super::{Adopt, Command, Decision, Route};
use crate::Message;
use crate::conn::{ConnId, Frames, ReadyState};
use crate::http::Peer;
use crate::hub::link::Link;
use crate::hub::mailbox::{Capacity, Mailbox, Refused};
use crate::hub::{
    Congestion, Name, Owners, Publication, Publish, Published, Refusal, Reply, SettingsTable, check_topic,
};
use crate::metrics::{Beat, Counters, Stats};
use crate::net::Stream;
use crate::protocol::{CloseCode, InvalidPing};
use core::cell::Cell;
use core::fmt;
use core::time::Duration;
use crossbeam_channel::RecvTimeoutError;
use crossbeam_utils::CachePadded;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

/// What every thread of a server knows.
pub(crate) struct Shared {
    pub(crate) workers: Vec<WorkerShared>,
    pub(crate) routes: Arc<[Route]>,
    pub(crate) counters: Arc<[CachePadded<Counters>]>,
    /// When the server was built, which heartbeats count from.
    pub(crate) began: Instant,
    pub(crate) topics: SettingsTable,
    pub(crate) owners: Owners,
    /// Topics that take no more publications for now.
    pub(crate) congestion: Arc<Congestion>,
    /// What may wait for one worker.
    pub(crate) mailbox: Capacity,
    /// It is being shut down: nothing more is published.
    pub(crate) stopping: AtomicBool,
    /// Whether it listens on loopback addresses and Unix sockets alone.
    #[cfg_attr(not(feature = "api"), allow(dead_code))]
    pub(crate) local: bool,
}

pub(crate) struct WorkerShared {
    pub(crate) mailbox: Mailbox<Command>,
    /// Sockets placed there: counted by whoever places one, so that a burst does not all go to one worker.
    pub(crate) load: CachePadded<AtomicUsize>,
    /// What the other workers have put into the mailbox and is not taken yet, by worker.
    pub(crate) links: Box<[CachePadded<Link>]>,
}

/// Publishes, sends, closes and asks, from any thread. Cheap to clone. What it says is put into a worker's mailbox
/// and done in order; nothing here waits for a socket, and only the questions wait for an answer.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
}

/// Why a handle could not pass something on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandleError {
    /// As many commands wait for that worker as may ([`Builder::mailbox`](crate::Builder::mailbox)), or as many bytes
    /// ([`Builder::mailbox_bytes`](crate::Builder::mailbox_bytes)). The call did
    /// nothing; try again in a while.
    Full,
    /// The server has ended.
    Ended,
    /// The name can't be a topic's; it may be a pattern.
    Topic(crate::InvalidTopic),
    /// The text is not a pattern; it may be a topic's name.
    Pattern(crate::InvalidPattern),
    /// The close code can't be on the wire.
    Close(crate::InvalidClose),
    /// The ping can't be on the wire.
    Ping(crate::InvalidPing),
    /// The message is longer than its topic allows.
    TooBig {
        /// Its length.
        len: usize,
        /// The limit ([`TopicSettings::max_message_size`](crate::TopicSettings::max_message_size)).
        limit: usize,
    },
    /// More is published to the topic than it takes ([`TopicSettings::rate`](crate::TopicSettings::rate)).
    TooFast {
        /// The same message may be taken after this time.
        retry: Duration,
    },
    /// There is no such route.
    NoRoute {
        /// The pattern that was asked for.
        pattern: String,
    },
    /// The state handed over is not of the type that the route's handler keeps.
    WrongState,
    /// A question was asked on a worker's own thread, in a handler: the worker would wait for itself.
    InHandler,
    /// No answer came in time: a worker is busy or stuck in a handler.
    Timeout,
    /// The socket can't be used.
    Socket(std::io::ErrorKind),
}

impl fmt::Display for HandleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the worker's mailbox is full: publish slower, or raise its limit"),
            Self::Ended => f.write_str("the server has ended"),
            Self::Topic(e) => e.fmt(f),
            Self::Pattern(e) => e.fmt(f),
            Self::Close(e) => e.fmt(f),
            Self::Ping(e) => e.fmt(f),
            Self::TooBig { len, limit } => {
                write!(f, "message of {len} bytes refused: its topic takes up to {limit}")
            }
            Self::TooFast { retry } => {
                write!(f, "more is published to the topic than it takes: wait {} ms", in_millis(*retry))
            }
            Self::NoRoute { pattern } => write!(f, "there is no WebSocket route {pattern:?}"),
            Self::WrongState => f.write_str("the state is not of the type that the route's handler keeps"),
            Self::InHandler => {
                f.write_str("a handler can't wait for a worker's answer: ask from another thread")
            }
            Self::Timeout => f.write_str("a worker did not answer in time: is a handler stuck?"),
            Self::Socket(kind) => write!(f, "the socket can't be used: {kind}"),
        }
    }
}

impl std::error::Error for HandleError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Topic(e) => Some(e),
            Self::Pattern(e) => Some(e),
            Self::Close(e) => Some(e),
            Self::Ping(e) => Some(e),
            _ => None,
        }
    }
}

impl From<Refusal> for HandleError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooBig { len, limit } => Self::TooBig { len, limit },
            Refusal::TooFast { early } => Self::TooFast { retry: early },
        }
    }
}

/// Why a server is not healthy ([`Handle::check_health`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unhealthy {
    /// A worker has ended, and with it the server, now or in a moment.
    Ended {
        /// The worker.
        worker: usize,
    },
    /// A worker's event loop has been in one iteration for longer than is allowed. None of its connections is served
    /// meanwhile.
    Stuck {
        /// The worker.
        worker: usize,
        /// How long the iteration has lasted.
        busy: Duration,
        /// How long it may.
        limit: Duration,
    },
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended { worker } => write!(f, "worker {worker} has ended"),
            Self::Stuck { worker, busy, limit } => write!(
                f,
                "worker {worker}: an iteration of its event loop has lasted {busy:.1?}, at most {limit:.1?} are allowed: does a \
                 callback block?"
            ),
        }
    }
}

impl std::error::Error for Unhealthy {}

/// Whole milliseconds, not fewer than there are.
pub(crate) fn in_millis(time: Duration) -> u64 {
    u64::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}

/// What is told of a connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnInfo {
    /// Its name.
    pub id: ConnId,
    /// Where it comes from.
    pub peer: Peer,
    /// Open or closing.
    pub ready_state: ReadyState,
    /// Bytes that wait for it.
    pub buffered_amount: usize,
    /// The subprotocol that was chosen.
    pub protocol: Option<String>,
    /// The pattern of its route.
    pub route: String,
    /// The parameters of its route, by name.
    pub params: Vec<(String, String)>,
    /// The topics that it subscribed to by their names, in no order.
    pub topics: Vec<String>,
    /// The patterns that it subscribed to, in no order.
    pub patterns: Vec<String>,
}

thread_local! {
    /// Whether this thread is a worker.
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
}

/// Says that the calling thread is a worker from here on, or no more.
pub(crate) fn mark_worker(is: bool) {
    IS_WORKER.set(is);
}

/// Between two tries to put something into a full mailbox: a worker empties one in about that time.
const FULL: Duration = Duration::from_micros(200);

/// How long a question waits for a worker.
const ANSWER: Duration = Duration::from_secs(5);

fn may_wait() -> Result<(), HandleError> {
    if IS_WORKER.get() { Err(HandleError::InHandler) } else { Ok(()) }
}

/// A worker that ends takes the questions in its mailbox with it.
fn no_answer(e: RecvTimeoutError) -> HandleError {
    match e {
        RecvTimeoutError::Timeout => HandleError::Timeout,
        RecvTimeoutError::Disconnected => HandleError::Ended,
    }
}

impl Handle {
    pub(crate) fn command(&self, id: ConnId, command: Command, always: bool) -> Result<(), HandleError> {
        self.command_worker(id.worker(), command, always)
    }

    pub(crate) fn command_worker(
        &self,
        worker: usize,
        command: Command,
        always: bool,
    ) -> Result<(), HandleError> {
        let worker = self.shared.workers.get(worker).ok_or(HandleError::Ended)?;
        let sent = if always { worker.mailbox.send_always(command) } else { worker.mailbox.send(command) };
        sent.map_err(|e| match e {
            Refused::Full(_) => HandleError::Full,
            Refused::Closed(_) => HandleError::Ended,
        })
    }

    fn every_worker(&self, mut command: impl FnMut() -> Command, always: bool) -> Result<(), HandleError> {
        (0..self.shared.workers.len()).try_for_each(|w| self.command_worker(w, command(), always))
    }

    pub(crate) fn decide(&self, id: ConnId, decision: Decision) {
        let _ = self.command(id, Command::Decide(id, decision), true); // with the server the client has gone too
    }

    fn route(&self, pattern: &str) -> Result<u16, HandleError> {
        let found = self.shared.routes.iter().position(|r| r.pattern == pattern);
        found.map(|r| r as u16).ok_or_else(|| HandleError::NoRoute { pattern: pattern.to_owned() })
    }

    /// Publishes to everybody who listens to the topic. Messages of one thread to one topic keep their order, and
    /// every subscriber sees a topic's messages in the same order.
    ///
    /// # Errors
    /// The topic's name is none, or the worker that orders it has a full mailbox: then nothing was published.
    pub fn publish<'m>(&self, topic: &str, message: impl Into<Message<'m>>) -> Result<(), HandleError> {
        self.publish_except(topic, message, None)
    }

    /// Publishes to everybody who listens but this connection.
    ///
    /// # Errors
    /// As [`Handle::publish`].
    pub fn publish_except<'m>(
        &self,
        topic: &str,
        message: impl Into<Message<'m>>,
        except: impl Into<Option<ConnId>>,
    ) -> Result<(), HandleError> {
        let message: Message<'m> = message.into();
        let mut publish = Publish::new(topic, message);
        publish.except = except.into();
        self.send_publication(topic, self.publication(publish)?)
    }

    /// Publishes and waits for what becomes of it: the message's place in its topic, and how many connections it is
    /// queued for. `None`: nobody listens and nothing is kept, so there was nothing to do.
    ///
    /// # Errors
    /// As [`Handle::publish`]; more is published to the topic than it takes; no answer came within 5 s: then it may still be
    /// published. In a handler it is
    /// [`HandleError::InHandler`].
    pub fn publish_with(&self, publish: Publish<'_>) -> Result<Option<Published>, HandleError> {
        may_wait()?;
        let mut publication = self.publication(publish)?;
        let (tx, rx) = crossbeam_channel::bounded(1);
        publication.answer = Some(Reply::new(move |outcome| {
            let _ = tx.send(outcome); // whoever asked may have stopped waiting
        }));
        self.send_publication(publish.topic, publication)?;
        Ok(rx.recv_timeout(ANSWER).map_err(no_answer)?.map_err(HandleError::from)??)
    }

    /// Publishes many messages, to one topic or several, with one command for each worker. Each topic's messages keep
    /// their order.
    ///
    /// # Errors
    /// As [`Handle::publish`]. A name that is none refuses all of them; a full mailbox those of the topics that have
    /// their home there.
    pub fn publish_all<'a>(
        &self,
        messages: impl IntoIterator<Item = Publish<'a>>,
    ) -> Result<(), HandleError> {
        let workers = self.shared.workers.len();
        let mut by_home: Vec<Vec<Publication>> = (0..workers).map(|_| Vec::new()).collect();
        for publish in messages {
            by_home[self.shared.owners.of(publish.topic)].push(self.publication(publish)?);
        }
        let waiting = by_home.into_iter().enumerate().filter(|(_, publications)| !publications.is_empty());
        let sent = waiting.map(|(home, all)| self.command_worker(home, Command::Publish(all), false));
        sent.fold(Ok(()), Result::and)
    }

    /// Publishes, and where the mailbox is full tries again until there is room or the time is over.
    ///
    /// # Errors
    /// As [`Handle::publish`]; [`HandleError::Full`] only after `timeout`. In a handler it is
    /// [`HandleError::InHandler`].
    pub fn publish_within(&self, publish: Publish<'_>, timeout: Duration) -> Result<(), HandleError> {
        may_wait()?;
        let deadline = Instant::now() + timeout;
        loop {
            match self.send_publication(publish.topic, self.publication(publish)?) {
                Err(HandleError::Full) if Instant::now() < deadline => std::thread::sleep(FULL),
                done => return done,
            }
        }
    }

    /// Checks what can be checked on this side.
    pub(crate) fn check_publication(&self, topic: &str, len: usize) -> Result<(), HandleError> {
        check_topic(topic).map_err(HandleError::Topic)?;
        if self.shared.stopping.load(Ordering::Relaxed) {
            return Err(HandleError::Ended);
        }
        if self.shared.congestion.is_full(topic) {
            return Err(HandleError::Full);
        }
        let limit = self.shared.topics.of(topic).max_message_size;
        if len > limit { Err(HandleError::TooBig { len, limit }) } else { Ok(()) }
    }

    pub(crate) fn publication(&self, publish: Publish<'_>) -> Result<Publication, HandleError> {
        self.check_publication(publish.topic, publish.message.len())?;
        Ok(Publication::new(publish))
    }

    fn send_publication(&self, topic: &str, publication: Publication) -> Result<(), HandleError> {
        let home = self.shared.owners.of(topic);
        self.command_worker(home, Command::PublishOne(publication), false)
    }

    /// Sends to every open connection of a route, given by its pattern (`"/chat/:room"`). A message's key has no effect
    /// here, and there is no order between this and what is published.
    ///
    /// # Errors
    /// There is no such route, or a mailbox is full: then some workers may have sent it and others not.
    pub fn broadcast<'m>(&self, route: &str, message: impl Into<Message<'m>>) -> Result<(), HandleError> {
        let route = self.route(route)?;
        let message = message.into();
        let frames = Frames::of(message);
        self.every_worker(|| Command::Broadcast(route, frames.clone(), message.key()), false)
    }

    /// Sends to one connection. Messages of one thread to one connection keep their order. For a connection that has
    /// gone this does nothing: the slot's next tenant has another name.
    ///
    /// # Errors
    /// The mailbox is full or the server has ended.
    pub fn send<'m>(&self, id: ConnId, message: impl Into<Message<'m>>) -> Result<(), HandleError> {
        let message = message.into();
        self.command(id, Command::Send(id, Frames::of(message), message.key()), false)
    }

    /// Answers a request of a connection. Passes the bound of the mailbox: there is one for each request that was taken.
    #[cfg(feature = "push")]
    pub(crate) fn reply(&self, id: ConnId, text: &str) {
        let _ = self.command(id, Command::Reply(id, text.into()), true); // with the server the client has gone too
    }

    /// Begins the closing handshake; see [`Conn::close`](super::Conn::close).
    ///
    /// # Errors
    /// As [`Handle::send`], and for a code that no close frame may carry.
    pub fn close(&self, id: ConnId, code: impl Into<CloseCode>, reason: &str) -> Result<(), HandleError> {
        let code = code.into().on_wire().map_err(HandleError::Close)?;
        self.command(id, Command::Close(id, code, reason.into()), false)
    }

    /// Ends a connection at once, without a close frame.
    ///
    /// # Errors
    /// As [`Handle::send`].
    pub fn terminate(&self, id: ConnId) -> Result<(), HandleError> {
        self.command(id, Command::Terminate(id), false)
    }

    /// Sends a ping.
    ///
    /// # Errors
    /// As [`Handle::send`], and for a payload of more than 125 bytes.
    pub fn ping(&self, id: ConnId, payload: &[u8]) -> Result<(), HandleError> {
        InvalidPing::check(payload).map_err(HandleError::Ping)?;
        self.command(id, Command::Ping(id, payload.to_vec()), false)
    }

    /// Reads nothing more from a connection.
    ///
    /// # Errors
    /// As [`Handle::send`].
    pub fn pause(&self, id: ConnId) -> Result<(), HandleError> {
        self.command(id, Command::Pause(id, true), false)
    }

    /// Reads again.
    ///
    /// # Errors
    /// As [`Handle::send`].
    pub fn resume(&self, id: ConnId) -> Result<(), HandleError> {
        self.command(id, Command::Pause(id, false), false)
    }

    /// Subscribes a connection to a topic. Nothing happens where the connection has gone or has too many subscriptions.
    ///
    /// # Errors
    /// As [`Handle::publish`]; a pattern is refused with [`InvalidTopic::Pattern`](crate::InvalidTopic::Pattern).
    pub fn subscribe(&self, id: ConnId, topic: &str) -> Result<(), HandleError> {
        let to = Name::topic(topic).map_err(HandleError::Topic)?.into_owned();
        self.command(id, Command::Subscribe(id, to), false)
    }

    /// Subscribes a connection to every topic below a prefix: `ticks/*`. Otherwise as [`Handle::subscribe`].
    ///
    /// # Errors
    /// As [`Handle::send`], and the text is not a pattern.
    pub fn subscribe_pattern(&self, id: ConnId, pattern: &str) -> Result<(), HandleError> {
        let to = Name::pattern(pattern).map_err(HandleError::Pattern)?.into_owned();
        self.command(id, Command::Subscribe(id, to), false)
    }

    /// Ends a connection's subscription to a topic.
    ///
    /// # Errors
    /// As [`Handle::subscribe`].
    pub fn unsubscribe(&self, id: ConnId, topic: &str) -> Result<(), HandleError> {
        let from = Name::topic(topic).map_err(HandleError::Topic)?.into_owned();
        self.command(id, Command::Unsubscribe(id, from), false)
    }

    /// Ends a connection's subscription to a pattern.
    ///
    /// # Errors
    /// As [`Handle::subscribe_pattern`].
    pub fn unsubscribe_pattern(&self, id: ConnId, pattern: &str) -> Result<(), HandleError> {
        let from = Name::pattern(pattern).map_err(HandleError::Pattern)?.into_owned();
        self.command(id, Command::Unsubscribe(id, from), false)
    }

    /// What the server has counted: open connections, messages, failures.
    pub fn stats(&self) -> Stats {
        Stats::sum(&self.shared.counters)
    }

    /// Checks that every worker's event loop goes round: none has ended, and none has been in one iteration for longer
    /// than `limit`. A worker that waits for events is healthy. Reads one number for each worker and waits for nothing, so
    /// it can be called in a callback: for a health check. An iteration takes milliseconds; 5 s are a sensible limit.
    ///
    /// # Errors
    /// The first worker that is not healthy.
    pub fn check_health(&self, limit: Duration) -> Result<(), Unhealthy> {
        let now = self.shared.began.elapsed();
        for (worker, counters) in self.shared.counters.iter().enumerate() {
            match counters.heartbeat.beat(now) {
                Beat::Waits => {}
                Beat::Busy(busy) if busy <= limit => {}
                Beat::Busy(busy) => return Err(Unhealthy::Stuck { worker, busy, limit }),
                Beat::Ended => return Err(Unhealthy::Ended { worker }),
            }
        }
        Ok(())
    }

    /// WebSockets that are open now, on all routes.
    pub fn open_connections(&self) -> usize {
        self.stats().open as usize
    }

    /// How many connections subscribed to a topic by its name. Asks every worker.
    ///
    /// # Errors
    /// The name can't be a topic's, a worker did not answer within 5 s, or the server has ended. In a handler it is [`HandleError::InHandler`].
    pub fn subscribers(&self, topic: &str) -> Result<usize, HandleError> {
        may_wait()?;
        check_topic(topic).map_err(HandleError::Topic)?;
        let (tx, rx) = crossbeam_channel::unbounded();
        self.every_worker(|| Command::CountSubscribers(topic.into(), tx.clone()), false)?;
        drop(tx);
        self.answers(&rx).map(|counts| counts.into_iter().sum())
    }

    /// What there is to tell of one connection; `None` when it has gone. Asks its worker.
    ///
    /// # Errors
    /// As [`Handle::subscribers`].
    pub fn connection(&self, id: ConnId) -> Result<Option<ConnInfo>, HandleError> {
        may_wait()?;
        let (tx, rx) = crossbeam_channel::bounded(1);
        let reply = Reply::new(move |info| {
            let _ = tx.send(info); // whoever asked may have stopped waiting
        });
        self.command(id, Command::Info(id, reply), false)?;
        rx.recv_timeout(ANSWER).map_err(no_answer)?.map_err(HandleError::from)
    }

    /// How many open connections a route has, given by its pattern. Asks every worker.
    ///
    /// # Errors
    /// As [`Handle::subscribers`], and there is no such route.
    pub fn open_on(&self, route: &str) -> Result<usize, HandleError> {
        let route = self.route(route)?;
        may_wait()?;
        let (tx, rx) = crossbeam_channel::unbounded();
        self.every_worker(|| Command::CountOpen(route, tx.clone()), false)?;
        drop(tx);
        self.answers(&rx).map(|counts| counts.into_iter().sum())
    }

    /// The open connections of a route, given by its pattern. Asks every worker.
    ///
    /// # Errors
    /// As [`Handle::subscribers`], and there is no such route.
    pub fn connections(&self, route: &str) -> Result<Vec<ConnInfo>, HandleError> {
        let route = self.route(route)?;
        may_wait()?;
        let (tx, rx) = crossbeam_channel::unbounded();
        self.every_worker(|| Command::List(route, tx.clone()), false)?;
        drop(tx);
        self.answers(&rx).map(|lists| lists.into_iter().flatten().collect())
    }

    fn answers<T>(&self, answers: &crossbeam_channel::Receiver<T>) -> Result<Vec<T>, HandleError> {
        let deadline = Instant::now() + ANSWER;
        let answer = |_| answers.recv_deadline(deadline).map_err(no_answer);
        (0..self.shared.workers.len()).map(answer).collect()
    }

    /// Ends the server: no new connections, everything that was published before is delivered, a close frame with 1001 to
    /// every client, and the end of the workers when all have answered or `deadline` has passed.
    /// [`Server::run`](crate::Server::run) returns then. From now on publishing returns [`HandleError::Ended`]. Half of the
    /// time until the deadline is for delivering. Calling it again may only bring the end forward.
    pub fn shutdown(&self, deadline: Duration) {
        let deadline = Instant::now() + deadline;
        let code = CloseCode::GOING_AWAY;
        self.shared.stopping.store(true, Ordering::Relaxed);
        for worker in 0..self.shared.workers.len() {
            let _ = self.command_worker(worker, Command::Shutdown { code, deadline }, true); // ended already
        }
    }

    /// Takes over a socket that another program, or another part of this one, has accepted, together with what was
    /// already read from it: from here on this server speaks HTTP on it, opening handshake first. What `ws` calls
    /// `noServer`.
    ///
    /// # Errors
    /// The socket can't be used, the mailbox is full, or the server has ended. The socket is closed then.
    pub fn adopt(&self, socket: impl Into<OwnedFd>, received: Vec<u8>) -> Result<(), HandleError> {
        self.hand_over(socket.into(), received, None)
    }

    /// The same for a socket whose opening handshake the host program has answered itself: with 101, the
    /// [`accept_key`](crate::protocol::handshake::accept_key) and perhaps a subprotocol. `state` is of the type that
    /// the handler of `route` keeps; its `upgrade` is not called, its `open` is. What RFC 6455 section 4.2.1 asks of the
    /// client, and whether its origin may connect, is for the host program to check. The connection has no parameters.
    ///
    /// # Errors
    /// As [`Handle::adopt`], and there is no such route, or the state is not of its type.
    pub fn adopt_open<S: Send + 'static>(
        &self,
        socket: impl Into<OwnedFd>,
        received: Vec<u8>,
        route: &str,
        state: S,
        protocol: Option<&str>,
    ) -> Result<(), HandleError> {
        let index = self.route(route)?;
        let state: super::AnyState = Box::new(state);
        if !self.shared.routes[usize::from(index)].handler.takes(&state) {
            return Err(HandleError::WrongState);
        }
        self.hand_over(socket.into(), received, Some((index, state, protocol.map(Into::into))))
    }

    fn hand_over(
        &self,
        fd: OwnedFd,
        received: Vec<u8>,
        open: Option<(u16, super::AnyState, Option<Box<str>>)>,
    ) -> Result<(), HandleError> {
        let socket = socket2::Socket::from(fd);
        let peer = socket.peer_addr().map_err(|e| HandleError::Socket(e.kind()))?;
        let peer = peer.as_socket().map_or(Peer::Unix, Peer::Ip);
        let stream = Stream::adopt(socket.into()).map_err(|e| HandleError::Socket(e.kind()))?;
        let adopt = Adopt { stream, peer, received, open, foreign: true };
        self.command_worker(self.least_loaded(), Command::Adopt(Box::new(adopt)), false)
    }

    /// The worker with the fewest sockets.
    pub(crate) fn least_loaded(&self) -> usize {
        let load = |w: &usize| self.shared.workers[*w].load.load(Ordering::Relaxed);
        (0..self.shared.workers.len()).min_by_key(load).unwrap_or_default()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("workers", &self.shared.workers.len()).finish_non_exhaustive()
    }
}
