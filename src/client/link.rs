//! What a client's handles and its thread share: the machine, what waits to be sent, and what waits to be taken. One
//! lock for each connection, held for no system call that waits, and never while a callback runs.

use super::compression::Packer;
use super::event::ClientEvent;
use super::keys::Keys;
use super::machine::{Machine, SocketContext};
use super::opening::Agreed;
use super::outbox::Outbox;
use super::socket::Socket;
use super::{Error, InvalidClose, NoEvent, NotOpened, Url};
use crate::conn::{ReadyState, RefusedReason};
use crate::protocol::buffer::BufferPool;
use crate::protocol::close::MAX_REASON;
use crate::protocol::{CloseCode, Message, mask};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Link {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) state: ReadyState,
    pub(super) socket: Option<Socket>,
    pub(super) outbox: Outbox,
    pub(super) keys: Keys,
    pub(super) agreed: Agreed,
    pub(super) url: Url,
    /// Where the thread keeps it, once it has been taken in.
    pub(super) key: Option<usize>,
    /// The thread has been asked to look and has not done so yet.
    pub(super) touched: bool,
    /// What was asked for, until the thread has seen to it.
    pub(super) pending_action: Option<PendingAction>,
    /// Someone asked for the end: whatever happens, no further try.
    pub(super) is_closing: bool,
    /// Reading and reconnecting rest until events are taken.
    pub(super) is_paused: bool,
    /// Messages are taken while there is no connection.
    pub(super) keeps_messages: bool,
    /// Connections that were opened so far.
    pub(super) opened: u64,
    /// What the server would have as the bound of the wait before the first try.
    pub(super) initial_delay: Option<Duration>,
    pub(super) max_backlog: usize,
    max_inbox: usize,
    pub(super) queue: Queue,
    ended: bool,
    has_callback: bool,
}

/// Events that wait to be taken.
#[derive(Debug, Default)]
pub(super) struct Queue {
    events: VecDeque<ClientEvent>,
    weight: usize,
    last_error: Option<Error>,
}

impl Queue {
    pub(super) fn push(&mut self, event: ClientEvent) {
        if let ClientEvent::Error(error) = &event {
            self.last_error = Some(error.clone());
        }
        self.weight += event.weight();
        self.events.push_back(event);
    }

    fn pop(&mut self) -> Option<ClientEvent> {
        let event = self.events.pop_front()?;
        self.weight -= event.weight();
        if self.events.is_empty() {
            self.events.shrink_to(64);
        }
        Some(event)
    }
}

/// What the thread is to do with a connection.
#[derive(Debug)]
pub(super) enum PendingAction {
    Close(CloseCode, String),
    Reset,
}

/// Whether the thread has to be told.
pub(super) type Touch = bool;

impl Link {
    pub(super) fn new(
        url: Url,
        keeps_messages: bool,
        max_backlog: usize,
        max_inbox: usize,
        has_callback: bool,
    ) -> Self {
        let inner = Inner {
            state: ReadyState::Connecting,
            socket: None,
            outbox: Outbox::default(),
            keys: Keys::new(),
            agreed: Agreed::default(),
            url,
            key: None,
            touched: false,
            pending_action: None,
            is_closing: false,
            is_paused: false,
            keeps_messages,
            opened: 0,
            initial_delay: None,
            max_backlog,
            max_inbox,
            queue: Queue::default(),
            ended: false,
            has_callback,
        };
        Self { inner: Mutex::new(inner), changed: Condvar::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing of the caller's runs under the lock, so a poisoned one is still whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever waits for events or a state.
    pub(super) fn notify(&self) {
        self.changed.notify_all();
    }

    /// `on`: by this connection and no other.
    pub(super) fn send(
        &self,
        message: Message<'_>,
        on: Option<u64>,
        packer: &Mutex<Packer>,
    ) -> Result<Touch, RefusedReason> {
        let mut inner = self.lock();
        let open = inner.state == ReadyState::Open;
        let offline = inner.state == ReadyState::Connecting && inner.keeps_messages;
        let reason = if !open && !offline || inner.is_closing || on.is_some_and(|on| on != inner.opened) {
            Some(RefusedReason::NotOpen)
        } else if !inner.outbox.is_empty() && inner.outbox.payload() + message.len() > inner.max_backlog {
            Some(RefusedReason::BacklogFull)
        } else {
            None
        };
        if let Some(reason) = reason {
            return Err(reason);
        }
        inner.push_message(message, packer);
        Ok(open && inner.touch())
    }

    pub(super) fn close(&self, code: CloseCode, reason: &str) -> Result<Touch, InvalidClose> {
        if !code.is_valid_on_wire() {
            return Err(InvalidClose::Code(code));
        }
        if reason.len() > MAX_REASON {
            return Err(InvalidClose::ReasonTooLong { len: reason.len() });
        }
        let mut inner = self.lock();
        if inner.is_closing || inner.ended {
            return Ok(false);
        }
        inner.is_closing = true;
        inner.pending_action = Some(PendingAction::Close(code, reason.to_owned()));
        inner.state = ReadyState::Closing;
        Ok(inner.touch())
    }

    pub(super) fn reset(&self) -> Touch {
        let mut inner = self.lock();
        if inner.is_closing || inner.ended {
            return false;
        }
        inner.pending_action = Some(PendingAction::Reset);
        inner.touch()
    }

    /// `is_woken` is asked before each wait: where it holds, there is nothing yet.
    pub(super) fn next(
        &self,
        deadline: Option<Instant>,
        is_woken: impl Fn() -> bool,
    ) -> Result<(ClientEvent, Touch), NoEvent> {
        let mut inner = self.lock();
        loop {
            if inner.has_callback {
                return Err(NoEvent::Ended);
            }
            if let Some((event, flush)) = inner.pop() {
                let resumes = inner.is_paused && inner.has_room();
                let touch = (flush || resumes) && inner.touch();
                return Ok((event, touch));
            }
            if inner.ended {
                return Err(NoEvent::Ended);
            }
            if is_woken() {
                return Err(NoEvent::Timeout);
            }
            inner = self.wait(inner, deadline).ok_or(NoEvent::Timeout)?;
        }
    }

    pub(super) fn wait_open(&self, deadline: Instant) -> Result<(), NotOpened> {
        let mut inner = self.lock();
        loop {
            match inner.state {
                ReadyState::Open => return Ok(()),
                ReadyState::Closed => return Err(NotOpened::Ended(inner.queue.last_error.clone())),
                _ => inner = self.wait(inner, Some(deadline)).ok_or(NotOpened::Timeout)?,
            }
        }
    }

    /// Waits for a change; `None` at the deadline, and at once without one.
    fn wait<'a>(
        &self,
        inner: MutexGuard<'a, Inner>,
        deadline: Option<Instant>,
    ) -> Option<MutexGuard<'a, Inner>> {
        let left = deadline?.checked_duration_since(Instant::now()).filter(|d| !d.is_zero())?;
        let (inner, _) = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner);
        Some(inner)
    }
}

impl Inner {
    /// Notes that the thread is to look. True: nobody has told it yet.
    pub(super) fn touch(&mut self) -> Touch {
        self.key.is_some() && !std::mem::replace(&mut self.touched, true)
    }

    pub(super) fn push(&mut self, event: ClientEvent) {
        self.queue.push(event);
    }

    /// Masks a message into the outbox, compressed where that was agreed on and is worth while.
    fn push_message(&mut self, message: Message<'_>, packer: &Mutex<Packer>) {
        let Self { socket, outbox, keys, .. } = self;
        let (opcode, key) = (message.kind().into(), keys.next());
        let sent = socket.as_mut().and_then(|socket| socket.machine.sent.as_mut());
        if let Some(sent) = sent.filter(|_| !message.is_verbatim()) {
            let mut packer = packer.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(packed) = sent.pack(message.as_bytes(), &mut packer) {
                mask::copy(packed, outbox.frame(opcode, true, packed.len(), key), key, 0);
                return;
            }
        }
        outbox.push(opcode, message.as_bytes(), key);
    }

    /// The next event, and whether there is something to be flushed now.
    pub(super) fn pop(&mut self) -> Option<(ClientEvent, bool)> {
        let event = self.queue.pop()?;
        // A server that broke the protocol is told when all messages before that have been taken, and what was sent
        // for them is on its way: as in a browser, where the state changes in the order of events.
        let flush = matches!(event, ClientEvent::Error(Error::Protocol(_))) && self.answer_breach();
        Some((event, flush))
    }

    /// Bytes of messages that the kernel does not have.
    pub(super) fn buffered(&self) -> usize {
        self.outbox.payload() + self.socket.as_ref().map_or(0, Socket::unsent_payload)
    }

    /// True: a close frame waits to be flushed.
    pub(super) fn answer_breach(&mut self) -> bool {
        let Self { socket: Some(Socket { machine, .. }), outbox, keys, .. } = self else { return false };
        let breached = machine.is_breached();
        if breached {
            let (pool, packer) = (&mut BufferPool::new(0), &mut Packer::default());
            machine.answer_breach(&mut SocketContext { now: Instant::now(), outbox, keys, pool, packer });
            self.state = ReadyState::Closing;
        }
        breached
    }

    pub(super) fn machine(&self) -> Option<&Machine> {
        self.socket.as_ref().map(|socket| &socket.machine)
    }

    /// Does something with the connection, if there is one.
    pub(super) fn with<T>(
        &mut self,
        (now, pool, packer): (Instant, &mut BufferPool, &mut Packer),
        f: impl FnOnce(&mut Socket, &mut SocketContext<'_>) -> T,
    ) -> Option<T> {
        let Self { socket, outbox, keys, .. } = self;
        socket.as_mut().map(|socket| f(socket, &mut SocketContext { now, outbox, keys, pool, packer }))
    }

    /// More waits to be taken than may.
    pub(super) fn is_full(&self) -> bool {
        self.queue.weight > self.max_inbox
    }

    /// So much has been taken that reading is worth while.
    pub(super) fn has_room(&self) -> bool {
        self.queue.weight <= self.max_inbox / 2
    }

    /// Nothing more will happen.
    pub(super) fn end(&mut self) {
        self.state = ReadyState::Closed;
        self.ended = true;
        self.socket = None;
    }

    pub(super) fn last_error(&self) -> Option<&Error> {
        self.queue.last_error.as_ref()
    }
}
