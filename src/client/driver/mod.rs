//! One thread with any number of clients: sockets, timers and commands. It decides nothing of the protocol, which is
//! the machine's, and nothing of returning, which is the policy's.
//!
//! ```text
//!             ┌────────────────── redirect ◀────────────────┐
//!             ▼                                             │
//!  Preparing (hook, name) ──▶ Connecting (addresses) ──▶ Live (machine) ──▶ Done
//!             ▲                         │                   │
//!             └───────── Waiting ◀──────┴───────────────────┘
//! ```
//! Each step of a client ends in [`Driver::settle`]: its events go to its callback, its timer is set, and where it is
//! done it is taken out.

mod attempts;
mod traffic;

use super::addresses::{AddressHistory, Addresses};
use super::compression::Packer;
use super::event::Close;
use super::link::PendingAction;
use super::opening::Extras;
use super::prepare::{Hook, Preparers, Target};
use super::reconnect::Backoff;
use super::settings::{Callback, Settings};
use super::{Client, ClientEvent, Error, Link, Url};
use crate::conn::ReadyState;
use crate::log;
use crate::protocol::CloseCode;
use crate::protocol::buffer::BufferPool;
use crate::sync::mailbox::{Inbox, Mailbox, Weigh};
use mio::{Events, Poll, Token};
use slab::Slab;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Events taken from the kernel at once.
const EVENTS: usize = 1024;

/// Commands done in one turn, so that a flood of sends does not starve the sockets.
const COMMANDS: usize = 1024;

/// Where everything is received that is no large message.
const RECEIVE: usize = 128 << 10;

/// Memory kept for the next large messages.
const SPARE_BUFFERS: usize = 4 << 20;

/// What wakes the thread for its mailbox; sockets count from 0.
pub(in crate::client) const WAKER: Token = Token(usize::MAX);

pub(in crate::client) enum Command {
    Add(Box<NewClient>),
    /// A handle did something.
    Touch(Arc<Link>),
    Prepared(Box<Prepared>),
    /// Panic outside of every callback, as a fault of this crate would: for tests.
    Panic,
    /// Nobody else can send commands any more.
    Quit,
}

impl Weigh for Command {}

/// What the builder hands over.
pub(in crate::client) struct NewClient {
    pub(in crate::client) link: Arc<Link>,
    pub(in crate::client) url: Url,
    pub(in crate::client) extras: Extras,
    pub(in crate::client) settings: Settings,
    pub(in crate::client) hook: Option<Hook>,
    pub(in crate::client) callback: Option<(Callback, Client)>,
}

/// A try's hook was called and its name resolved.
pub(in crate::client) struct Prepared {
    key: usize,
    client: u64,
    attempt: u64,
    result: Result<Target, Error>,
    hook: Option<Hook>,
}

/// A client.
struct Slot {
    /// Distinguishes it from others that had its place.
    client: u64,
    link: Arc<Link>,
    url: Url,
    extras: Extras,
    settings: Settings,
    has_hook: bool,
    /// Away while it is called.
    hook: Option<Hook>,
    callback: Option<(Callback, Client)>,
    stage: Stage,
    /// Distinguishes the socket from others that this client had.
    generation: u32,
    /// Distinguishes the try from earlier ones, whose preparation may still come.
    attempt: u64,
    backoff: Backoff,
    failures: u32,
    followed: u32,
    history: AddressHistory,
    /// Why the connection that is being ended failed.
    failure: Option<Error>,
    last_close: Option<Close>,
    armed: Option<Instant>,
}

enum Stage {
    Preparing { deadline: Instant },
    Connecting(Box<Connecting>),
    Live { url: Url, extras: Extras, addr: SocketAddr },
    Waiting { until: Instant },
    Done,
}

struct Connecting {
    url: Url,
    extras: Extras,
    addresses: Addresses,
    /// For this address.
    until: Instant,
}

pub(in crate::client) struct Driver {
    poll: Poll,
    inbox: Inbox<Command>,
    mailbox: Mailbox<Command>,
    slots: Slab<Slot>,
    timers: BTreeSet<(Instant, usize)>,
    receive: Box<[u8]>,
    pool: BufferPool,
    packer: Packer,
    preparers: Preparers,
    /// Had more to read than one turn's share.
    again: Vec<usize>,
    now: Instant,
    counter: u64,
    quits: bool,
}

/// Tells a client that its connection has ended with its thread's state.
fn abandon(mut slot: Slot) {
    let link = slot.link.clone();
    let mut inner = link.lock();
    (inner.key, inner.socket) = (None, None);
    let unsent = inner.outbox.end_connection(false);
    inner.push(ClientEvent::Error(Error::System(io::ErrorKind::Other)));
    let (code, reason) = (CloseCode::ABNORMAL, String::new());
    inner.push(ClientEvent::Close(Close { code, reason, was_clean: false, unsent, will_reconnect: false }));
    inner.end();
    drop(inner);
    link.notify();
    let Some((callback, client)) = &mut slot.callback else { return };
    loop {
        let Some((event, _)) = link.lock().pop() else { return };
        callback(client, event);
    }
}

impl Driver {
    pub(in crate::client) fn new(poll: Poll, inbox: Inbox<Command>, mailbox: Mailbox<Command>) -> Self {
        Self {
            poll,
            inbox,
            mailbox,
            slots: Slab::new(),
            timers: BTreeSet::new(),
            receive: vec![0; RECEIVE].into(),
            pool: BufferPool::new(SPARE_BUFFERS),
            packer: Packer::default(),
            preparers: Preparers::new(),
            again: Vec::new(),
            now: Instant::now(),
            counter: 0,
            quits: false,
        }
    }

    /// Runs until nobody is left who could ask for anything.
    pub(in crate::client) fn run(mut self) {
        while catch_unwind(AssertUnwindSafe(|| self.run_loop())).is_err() {
            log::line!(error, "a thread of clients panicked outside of a callback: its connections end");
            self.start_over();
        }
    }

    /// After a panic that is a fault of this crate nothing that the thread has can be relied on: every client is told that
    /// it is over, and the thread goes on with those to come.
    fn start_over(&mut self) {
        self.timers.clear();
        self.again.clear();
        self.pool = BufferPool::new(SPARE_BUFFERS);
        self.packer = Packer::default();
        for (_, slot) in std::mem::take(&mut self.slots) {
            // What has failed may fail again, for one client and not for all behind it.
            let _ = catch_unwind(AssertUnwindSafe(|| abandon(slot)));
        }
    }

    fn run_loop(&mut self) {
        let mut events = Events::with_capacity(EVENTS);
        let mut more = false;
        while !(self.quits && self.slots.is_empty()) {
            let timeout = if more || !self.again.is_empty() {
                Some(Duration::ZERO)
            } else {
                self.timers.first().map(|(at, _)| at.saturating_duration_since(Instant::now()))
            };
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    log::line!(error, "a client's event loop failed: {e}");
                    self.give_up(e.kind());
                    return;
                }
            }
            self.now = Instant::now();
            for event in &events {
                if event.token() != WAKER {
                    self.ready(event);
                }
            }
            for key in std::mem::take(&mut self.again) {
                if self.slots.contains(key) {
                    self.read(key);
                    self.settle(key);
                }
            }
            more = self.commands();
            self.expire();
        }
    }

    /// The loop can't go on: every client hears of it.
    fn give_up(&mut self, kind: io::ErrorKind) {
        for key in self.slots.iter().map(|(key, _)| key).collect::<Vec<_>>() {
            self.slots[key].settings.reconnect = None;
            self.over(key, Some(Error::System(kind)));
            self.settle(key);
        }
    }

    fn ready(&mut self, event: &mio::event::Event) {
        let Token(token) = event.token();
        let key = token & 0xFFFF_FFFF;
        let Some(slot) = self.slots.get_mut(key) else { return };
        // An event of a stream that this client had before.
        if slot.generation as usize != token >> 32 {
            return;
        }
        let ended = event.is_read_closed() || event.is_error();
        let connecting = matches!(slot.stage, Stage::Connecting(_));
        if ended && let Some(socket) = &mut slot.link.lock().socket {
            socket.note_read_closed();
        }
        if event.is_writable() || connecting && event.is_error() {
            self.writable(key);
        }
        if event.is_readable() || ended {
            self.read(key);
        }
        self.settle(key);
    }

    // ---- commands ----

    /// Does what handles ask for; true if there may be more.
    fn commands(&mut self) -> bool {
        self.inbox.disarm();
        for _ in 0..COMMANDS {
            match self.inbox.take() {
                Some(Command::Add(new)) => self.add(*new),
                Some(Command::Touch(link)) => self.touched(&link),
                Some(Command::Prepared(prepared)) => self.prepared(*prepared),
                Some(Command::Panic) => panic!("as a test asked"),
                Some(Command::Quit) => self.quits = true,
                None => return false,
            }
        }
        true
    }

    fn add(&mut self, new: NewClient) {
        self.counter += 1;
        let slot = Slot {
            client: self.counter,
            link: new.link.clone(),
            url: new.url,
            extras: new.extras,
            settings: new.settings,
            has_hook: new.hook.is_some(),
            hook: new.hook,
            callback: new.callback,
            stage: Stage::Waiting { until: self.now },
            generation: 0,
            attempt: 0,
            backoff: Backoff::default(),
            failures: 0,
            followed: 0,
            history: AddressHistory::default(),
            failure: None,
            last_close: None,
            armed: None,
        };
        let key = self.slots.insert(slot);
        let is_closing = {
            let mut inner = new.link.lock();
            inner.key = Some(key);
            inner.is_closing
        };
        if is_closing {
            self.over(key, None);
        } else {
            self.begin(key);
        }
        self.settle(key);
    }

    /// A handle has sent, closed, or taken events.
    fn touched(&mut self, link: &Arc<Link>) {
        let mut inner = link.lock();
        inner.touched = false;
        let Some(key) = inner.key else { return };
        let pending_action = inner.pending_action.take();
        let resumes = inner.is_paused && (inner.has_room() || inner.is_closing);
        if resumes {
            inner.is_paused = false;
            let now = self.now;
            if let Some(socket) = &mut inner.socket {
                socket.machine.pause(false, now);
            }
        }
        drop(inner);
        match pending_action {
            Some(PendingAction::Close(code, reason)) => self.close(key, code, &reason),
            Some(PendingAction::Reset) => self.reset(key),
            None => {}
        }
        if resumes {
            match self.slots[key].stage {
                Stage::Live { .. } => self.read(key),
                Stage::Waiting { .. } => self.begin(key),
                _ => {}
            }
        }
        self.flush(key);
        self.settle(key);
    }

    fn close(&mut self, key: usize, code: CloseCode, reason: &str) {
        let Self { slots, pool, packer, now, .. } = self;
        let link = slots[key].link.clone();
        let mut inner = link.lock();
        let has_opened = inner.machine().is_some_and(|m| m.has_opened());
        if has_opened {
            inner.with((*now, pool, packer), |socket, cx| socket.close(code, reason, cx));
        } else {
            drop(inner);
            // As in a browser: what is not open yet is given up.
            self.over(key, None);
        }
    }

    /// As if the network had broken the connection.
    fn reset(&mut self, key: usize) {
        if let Stage::Live { .. } = self.slots[key].stage {
            if let Some(socket) = &self.slots[key].link.lock().socket {
                socket.reset_on_close();
            }
            self.over(key, Some(Client::RESET));
        }
    }

    // ---- time ----

    fn expire(&mut self) {
        while let Some(&(at, key)) = self.timers.first()
            && at <= self.now
        {
            self.timers.pop_first();
            self.slots[key].armed = None;
            if self.deadline(key).is_some_and(|at| at <= self.now) {
                self.due(key);
            }
            self.settle(key);
        }
    }

    fn deadline(&self, key: usize) -> Option<Instant> {
        let slot = &self.slots[key];
        match &slot.stage {
            Stage::Preparing { deadline } => Some(*deadline),
            Stage::Connecting(connecting) => Some(connecting.until),
            Stage::Live { .. } => slot.link.lock().machine().and_then(|m| m.deadline()),
            Stage::Waiting { until } => (!slot.link.lock().is_paused).then_some(*until),
            Stage::Done => None,
        }
    }

    fn due(&mut self, key: usize) {
        let slot = &self.slots[key];
        let limit = slot.settings.limits.connect_timeout;
        match &slot.stage {
            Stage::Preparing { .. } => self.over(key, Some(Error::ConnectTimeout { limit })),
            Stage::Connecting(connecting) if connecting.addresses.deadline() <= self.now => {
                self.over(key, Some(Error::ConnectTimeout { limit }));
            }
            Stage::Connecting(_) => self.next_addr(key, io::ErrorKind::TimedOut),
            Stage::Live { .. } => self.machine_due(key),
            Stage::Waiting { .. } => {
                let mut inner = slot.link.lock();
                // Nobody takes what happens, so nothing more happens.
                inner.is_paused = inner.is_full();
                if !inner.is_paused {
                    drop(inner);
                    self.begin(key);
                }
            }
            Stage::Done => {}
        }
    }

    // ---- the end of each step ----

    /// Gives its events to its callback, sets its timer, and takes it out where it is done.
    fn settle(&mut self, key: usize) {
        self.call_back(key);
        let due = self.deadline(key);
        let slot = &mut self.slots[key];
        let is_done = matches!(slot.stage, Stage::Done);
        // A timer that fires too early is set anew then, so one that moved back costs nothing here.
        let keeps_timer = !is_done && slot.armed.is_some_and(|armed| due.is_none_or(|due| armed <= due));
        if !keeps_timer {
            if let Some(armed) = slot.armed.take() {
                self.timers.remove(&(armed, key));
            }
            slot.armed = due;
            if let Some(due) = due {
                self.timers.insert((due, key));
            }
        }
        if is_done {
            self.again.retain(|&other| other != key);
            let slot = self.slots.remove(key);
            slot.link.lock().key = None;
        }
    }

    fn call_back(&mut self, key: usize) {
        let slot = &mut self.slots[key];
        let Some((mut callback, client)) = slot.callback.take() else { return };
        let link = slot.link.clone();
        loop {
            let Some((event, flush)) = link.lock().pop() else { break };
            if flush {
                self.flush(key);
            }
            if catch_unwind(AssertUnwindSafe(|| callback(&client, event))).is_err() {
                log::limited!(error, self.now, "a client's callback panicked");
                self.panicked(key);
                return;
            }
        }
        self.slots[key].callback = Some((callback, client));
    }

    /// Its callback is not called again: the connection ends, and there is no other.
    fn panicked(&mut self, key: usize) {
        let Self { slots, pool, packer, now, .. } = self;
        let slot = &mut slots[key];
        if matches!(slot.stage, Stage::Done) {
            return;
        }
        slot.failure = Some(Error::Panicked);
        let link = slot.link.clone();
        let mut inner = link.lock();
        inner.is_closing = true;
        inner.push(ClientEvent::Error(Error::Panicked));
        let lives = inner.machine().is_some_and(|m| m.has_opened());
        if lives {
            inner.state = ReadyState::Closing;
            inner.with((*now, pool, packer), |socket, cx| socket.machine.refuse(CloseCode::INTERNAL, cx));
        }
        drop(inner);
        if lives {
            self.flush(key);
        } else {
            self.over(key, None);
        }
    }
}
