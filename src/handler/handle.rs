//! The handle to a running server, for any thread.

use super::{Command, Decision, HandleError, NewConnection, Route, Unhealthy};
use crate::AsMessage;
use crate::conn::{ConnId, Frames};
use crate::http::Peer;
use crate::hub::flow_control::FlowControl;
use crate::hub::{Congestion, Owners, SettingsTable, TopicOrPattern};
use crate::metrics::{Counters, LoopState, Stats};
use crate::net::Stream;
use crate::protocol::{CloseCode, InvalidPing};
use crate::sync::mailbox::{Capacity, Mailbox, TrySendError};
use core::fmt;
use core::time::Duration;
use crossbeam_utils::CachePadded;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

/// State that all threads of a server share.
pub(crate) struct ServerShared {
    pub(crate) workers: Vec<WorkerShared>,
    pub(crate) routes: Arc<[Route]>,
    pub(crate) counters: Arc<[CachePadded<Counters>]>,
    /// When the server was built; heartbeats count from then.
    pub(crate) began: Instant,
    pub(crate) topics: SettingsTable,
    pub(crate) owners: Owners,
    /// Topics that accept no publications for now.
    pub(crate) congestion: Arc<Congestion>,
    /// The capacity of one worker's mailbox.
    pub(crate) mailbox: Capacity,
    /// The server is shutting down: nothing more is published.
    pub(crate) stopping: AtomicBool,
    /// A callback that holds its worker for longer is logged; zero logs none.
    pub(crate) slow_callback: Duration,
    /// Whether it listens on loopback addresses and Unix sockets only.
    #[cfg_attr(not(feature = "api"), allow(dead_code))]
    pub(crate) local: bool,
}

pub(crate) struct WorkerShared {
    pub(crate) mailbox: Mailbox<Command>,
    /// Sockets placed there: counted by the thread that places one, so that a burst does not all go to one worker.
    pub(crate) load: CachePadded<AtomicUsize>,
    /// What the other workers have put into the mailbox and this worker has not taken, by worker.
    pub(crate) flows: Box<[CachePadded<FlowControl>]>,
}

/// A handle to a running server: publishes, sends, closes and queries, from any thread. Cheap to clone.
///
/// Each call puts a command into a worker's mailbox and returns; one thread's commands for a worker are executed in order.
/// What a worker answers is an [`Answer`](crate::Answer), to be waited for, awaited or given to a callback.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<ServerShared>,
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
        let sent = if always { worker.mailbox.send_unbounded(command) } else { worker.mailbox.send(command) };
        sent.map_err(|e| match e {
            TrySendError::Full(_) => HandleError::Full,
            TrySendError::Closed(_) => HandleError::Ended,
        })
    }

    fn command_every_worker(
        &self,
        mut command: impl FnMut() -> Command,
        always: bool,
    ) -> Result<(), HandleError> {
        (0..self.shared.workers.len()).try_for_each(|w| self.command_worker(w, command(), always))
    }

    pub(crate) fn decide(&self, id: ConnId, decision: Decision) {
        let _ = self.command(id, Command::Decide(id, decision), true); // if the server has ended, so has the client
    }

    pub(super) fn route(&self, pattern: &str) -> Result<u16, HandleError> {
        let found = self.shared.routes.iter().position(|r| r.pattern == pattern);
        found.map(|r| r as u16).ok_or_else(|| HandleError::NoRoute {
            pattern: pattern.to_owned(),
            routes: self.shared.routes.iter().map(|r| r.pattern.clone()).collect(),
        })
    }

    /// Sends to every open connection of a route, given by its pattern (`"/chat/:room"`). A message's key has no effect
    /// here, and there is no order between this and what is published.
    ///
    /// # Errors
    /// There is no such route, or a mailbox is full: then some workers may have sent it and others not.
    pub fn broadcast(&self, route: &str, message: impl AsMessage) -> Result<(), HandleError> {
        let route = self.route(route)?;
        let message = message.as_message();
        let frames = Frames::of(message);
        self.command_every_worker(|| Command::Broadcast(route, frames.clone(), message.key()), false)
    }

    /// Sends to one connection. Messages of one thread to one connection keep their order. For a connection that has
    /// ended this does nothing: the next connection in its slot has another id.
    ///
    /// # Errors
    /// The mailbox is full or the server has ended.
    pub fn send(&self, id: ConnId, message: impl AsMessage) -> Result<(), HandleError> {
        let message = message.as_message();
        self.command(id, Command::Send(id, Frames::of(message), message.key()), false)
    }

    /// Answers a request of a connection. Ignores the capacity of the mailbox: there is one answer for each accepted
    /// request.
    #[cfg(feature = "push")]
    pub(crate) fn reply(&self, id: ConnId, text: &str) {
        let _ = self.command(id, Command::Reply(id, text.into()), true); // if the server has ended, so has the client
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
        let to = TopicOrPattern::topic(topic).map_err(HandleError::Topic)?.into_owned();
        self.command(id, Command::Subscribe(id, to), false)
    }

    /// Subscribes a connection to every topic below a prefix: `ticks/*`. Otherwise as [`Handle::subscribe`].
    ///
    /// # Errors
    /// As [`Handle::send`], and the text is not a pattern.
    pub fn subscribe_pattern(&self, id: ConnId, pattern: &str) -> Result<(), HandleError> {
        let to = TopicOrPattern::pattern(pattern).map_err(HandleError::Pattern)?.into_owned();
        self.command(id, Command::Subscribe(id, to), false)
    }

    /// Ends a connection's subscription to a topic.
    ///
    /// # Errors
    /// As [`Handle::subscribe`].
    pub fn unsubscribe(&self, id: ConnId, topic: &str) -> Result<(), HandleError> {
        let from = TopicOrPattern::topic(topic).map_err(HandleError::Topic)?.into_owned();
        self.command(id, Command::Unsubscribe(id, from), false)
    }

    /// Ends a connection's subscription to a pattern.
    ///
    /// # Errors
    /// As [`Handle::subscribe_pattern`].
    pub fn unsubscribe_pattern(&self, id: ConnId, pattern: &str) -> Result<(), HandleError> {
        let from = TopicOrPattern::pattern(pattern).map_err(HandleError::Pattern)?.into_owned();
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
            match counters.heartbeat.state(now) {
                LoopState::Waiting => {}
                LoopState::Busy(busy) if busy <= limit => {}
                LoopState::Busy(busy) => return Err(Unhealthy::Stuck { worker, busy, limit }),
                LoopState::Ended => return Err(Unhealthy::Ended { worker }),
            }
        }
        Ok(())
    }

    /// WebSockets that are open now, on all routes.
    pub fn open_connections(&self) -> usize {
        self.stats().open as usize
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
            let _ = self.command_worker(worker, Command::Shutdown { code, deadline }, true); // it has ended already
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

    /// As [`Handle::adopt`], for a socket whose opening handshake the host program has answered itself: with 101, the
    /// [`accept_key`](crate::protocol::handshake::accept_key) and perhaps a subprotocol. `state` is of the type that
    /// the handler of `route` keeps; its `upgrade` is not called, its `open` is. The host program has to check what RFC
    /// 6455 section 4.2.1 asks of the client, and whether its origin may connect. The connection has no parameters.
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
        if !self.shared.routes[usize::from(index)].handler.accepts_state(&state) {
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
        let stream = Stream::from_connected(socket.into()).map_err(|e| HandleError::Socket(e.kind()))?;
        let new = NewConnection { stream, peer, received, open, shared_fd: true };
        self.command_worker(self.least_loaded(), Command::AddConnection(Box::new(new)), false)
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
