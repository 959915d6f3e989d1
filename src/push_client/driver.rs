//! The thread of a client of topics, and what it shares with the handles: the session, and what waits to be taken. One
//! lock, held for no wait, and never while something of the program's runs.
//!
//! The thread waits for the connection's next event or for the session's next deadline, whichever comes first. While
//! too much waits to be taken it takes nothing from the connection, which then stops reading.

use super::builder::{Callback, PushClientLimits};
use super::error::Error;
use super::event::PushEvent;
use super::machine::{MAX_TIMEOUT, MachineContext, PushMachine};
use super::outgoing::Settled;
use super::{PushClient, PushClientInner};
use crate::client::{self, Client, Data, InvalidClose, NoEvent, Reconnect};
use crate::conn::ReadyState;
use crate::log;
use crate::protocol::CloseCode;
use crate::push_protocol::{SUBPROTOCOL, parse_binary, parse_incoming};
use core::fmt;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::ThreadId;
use std::time::Instant;

pub(super) struct Shared {
    pub(super) client: Client,
    state: Mutex<State>,
    /// There is an event, or room for more.
    changed: Condvar,
    /// The thread is to look at the session again.
    woken: AtomicBool,
    thread: OnceLock<ThreadId>,
    has_callback: bool,
    max_inbox: usize,
}

struct State {
    machine: PushMachine,
    /// The number of the connection that the session knows of. There may be another already.
    connection: u64,
    events: VecDeque<PushEvent>,
    weight: usize,
    /// When the thread will look at the time next.
    due: Option<Instant>,
    /// Nobody wants the connection any more.
    is_closing: bool,
    /// The last event is in the queue.
    ended: bool,
}

impl State {
    /// Takes over what happened. True: there is something for those who wait.
    fn collect_events(&mut self) -> bool {
        let any = !self.machine.events.is_empty();
        for event in self.machine.events.drain(..) {
            self.weight += event.weight();
            self.events.push_back(event);
        }
        any
    }

    fn pop(&mut self) -> Option<PushEvent> {
        let event = self.events.pop_front()?;
        self.weight -= event.weight();
        if self.events.is_empty() {
            self.events.shrink_to(64);
        }
        Some(event)
    }
}

impl PushClient {
    pub(super) fn start(
        connections: client::ClientBuilder,
        limits: PushClientLimits,
        callback: Option<Callback>,
    ) -> Result<Self, client::Error> {
        let mut name = [0; 12];
        getrandom::fill(&mut name).map_err(|_| client::Error::System(std::io::ErrorKind::Other))?;
        let name = name.iter().map(|byte| format!("{byte:02x}")).collect();
        // A request or a message that is too long would be so again.
        let default = Reconnect::default().final_code(1009..=1009);
        let client = connections.without_offline(default).subprotocol(SUBPROTOCOL).connect()?;
        let state = State {
            machine: PushMachine::new(limits, name, Instant::now()),
            connection: 0,
            events: VecDeque::new(),
            weight: 0,
            due: None,
            is_closing: false,
            ended: false,
        };
        let shared = Arc::new(Shared {
            client,
            state: Mutex::new(state),
            changed: Condvar::new(),
            woken: AtomicBool::new(false),
            thread: OnceLock::new(),
            has_callback: callback.is_some(),
            max_inbox: limits.max_inbox,
        });
        let push = Self(Arc::new(PushClientInner(shared.clone())));
        let callback = callback.map(|callback| (callback, push.clone()));
        let driver = Driver { shared: shared.clone(), callback };
        let thread = std::thread::Builder::new().name("campanile-push".into()).spawn(move || {
            let shared = driver.shared.clone();
            shared.guard(|| driver.run());
        });
        let thread = thread.map_err(|e| client::Error::System(e.kind()))?;
        let _ = shared.thread.set(thread.thread().id()); // the thread itself may have been first
        Ok(push)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing of the program's runs under the lock, so a poisoned one is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is called by the client's own thread.
    pub(super) fn is_current(&self) -> bool {
        self.thread.get() == Some(&std::thread::current().id())
    }

    /// Runs the thread. A panic in it is a fault of this crate: the client is over, and whoever waits is reported.
    fn guard(&self, run: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(run)).is_ok() {
            return;
        }
        log::line!(error, "the thread of a client of topics panicked outside of a callback: the client ends");
        let _ = self.client.close(CloseCode::INTERNAL, ""); // the code fits
        let mut state = self.lock();
        (state.is_closing, state.ended) = (true, true);
        let error = PushEvent::Error(Error::Client(client::Error::System(std::io::ErrorKind::Other)));
        state.weight += error.weight();
        state.events.push_back(error);
        drop(state);
        self.changed.notify_all();
    }

    /// Does something with the session, which is reported whether it is over, and sees to what follows from it.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut PushMachine, bool, &mut MachineContext<'_>) -> T) -> T {
        let mut state = self.lock();
        let is_over = state.is_closing || state.machine.is_over;
        let connection = state.connection;
        let mut send = |text: &str| self.client.send_on(connection, text.into()).is_ok();
        let result =
            f(&mut state.machine, is_over, &mut MachineContext { now: Instant::now(), send: &mut send });
        let has_events = state.collect_events();
        if std::mem::take(&mut state.machine.wants_reset) {
            self.client.reset();
        }
        let settled: Vec<Settled> = std::mem::take(&mut state.machine.outgoing.settled);
        let sooner = match (state.machine.deadline(true), state.due) {
            (Some(wanted), Some(due)) => wanted < due,
            (wanted, _) => wanted.is_some(),
        };
        drop(state);
        let is_current = self.is_current();
        if has_events && !self.has_callback {
            self.changed.notify_all();
        }
        if !is_current && (sooner || has_events && self.has_callback) {
            self.wake();
        }
        for (done, result) in settled {
            if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
                log::limited!(error, Instant::now(), "a callback for the answer to a publication panicked");
            }
        }
        result
    }

    fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        self.client.wake();
        // Where it waits for room: under the lock, so that it is before or within its wait.
        drop(self.lock());
        self.changed.notify_all();
    }

    pub(super) fn next(&self, deadline: Option<Instant>) -> Result<PushEvent, NoEvent> {
        let deadline = deadline.filter(|_| !self.is_current());
        let mut state = self.lock();
        loop {
            if self.has_callback {
                return Err(NoEvent::Ended);
            }
            let was_full = state.weight > self.max_inbox;
            if let Some(event) = state.pop() {
                if was_full && state.weight <= self.max_inbox {
                    self.changed.notify_all();
                }
                return Ok(event);
            }
            if state.ended {
                return Err(NoEvent::Ended);
            }
            let left = deadline.and_then(|d| d.checked_duration_since(Instant::now()));
            let left = left.filter(|d| !d.is_zero()).ok_or(NoEvent::Timeout)?;
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn close(&self, code: CloseCode, reason: &str) -> Result<(), InvalidClose> {
        self.client.close(code, reason)?;
        self.lock().is_closing = true;
        self.wake();
        Ok(())
    }

    pub(super) fn ready_state(&self) -> ReadyState {
        let greeted = self.lock().machine.hello().is_some();
        match self.client.ready_state() {
            ReadyState::Open if !greeted => ReadyState::Connecting,
            state => state,
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("client", &self.client).finish_non_exhaustive()
    }
}

/// What the thread has.
struct Driver {
    shared: Arc<Shared>,
    callback: Option<(Callback, PushClient)>,
}

impl Driver {
    fn run(mut self) {
        let _ = self.shared.thread.set(std::thread::current().id());
        let shared = self.shared.clone();
        loop {
            let deadline = self.wait_for_room();
            match shared.client.next_unless(deadline, || shared.woken.swap(false, Ordering::AcqRel)) {
                Ok(event) => self.handle_event(event),
                Err(NoEvent::Timeout) => shared.with(|machine, _, cx| machine.expire(true, cx)),
                Err(_) => break,
            }
            self.call_back();
        }
        shared.with(|machine, _, _| machine.closed());
        shared.lock().ended = true;
        shared.changed.notify_all();
        self.call_back();
    }

    /// Waits until there is room for what comes next, doing what is due meanwhile. Gives the next deadline.
    fn wait_for_room(&self) -> Instant {
        let shared = &*self.shared;
        let mut rested = false;
        loop {
            let mut state = shared.lock();
            let now = Instant::now();
            let is_full = state.weight > shared.max_inbox && !state.is_closing;
            if rested && !is_full {
                state.machine.resumed_reading(now);
            }
            rested = is_full;
            // With something to read, an answer may be there: what is due may be settled by it, but not put off for
            // ever by a busy server.
            state.due = state.machine.deadline(!is_full);
            let due = state.due.unwrap_or(now + MAX_TIMEOUT);
            if !is_full {
                return due;
            }
            if let Some(left) = due.checked_duration_since(now).filter(|left| !left.is_zero()) {
                drop(shared.changed.wait_timeout(state, left));
            } else {
                drop(state);
                shared.with(|machine, _, cx| machine.expire(false, cx));
            }
        }
    }

    fn handle_event(&self, event: client::ClientEvent) {
        let shared = &*self.shared;
        let client = &shared.client;
        if let client::ClientEvent::Open = event {
            shared.lock().connection += 1;
        }
        shared.with(|machine, is_over, cx| {
            // A server that never falls silent must not keep a publication from its end.
            if machine.deadline(false).is_some_and(|due| due <= cx.now) {
                machine.expire(false, cx);
            }
            match event {
                client::ClientEvent::Open => machine.opened(cx.now),
                client::ClientEvent::Message(data) if !is_over => {
                    let was_greeted = machine.hello().is_some();
                    match data {
                        Data::Text(text) => {
                            machine.received(parse_incoming(&text).map_err(|e| e.to_string()), cx);
                        }
                        Data::Binary(bytes) => machine.received(parse_binary(bytes), cx),
                    }
                    if let Some(hello) = machine.hello().filter(|_| !was_greeted) {
                        client.set_initial_delay(hello.retry);
                    }
                }
                client::ClientEvent::Error(error) => {
                    machine.events.push(PushEvent::Error(Error::Client(error)))
                }
                client::ClientEvent::Close(close) => {
                    machine.lost();
                    if !close.will_reconnect {
                        machine.closed();
                    }
                    machine.events.push(PushEvent::Close(close));
                }
                client::ClientEvent::Reconnecting { attempt, delay } => {
                    machine.lost();
                    machine.events.push(PushEvent::Reconnecting { attempt, delay });
                }
                _ => {}
            }
        });
    }

    fn call_back(&mut self) {
        let Some((callback, push)) = &mut self.callback else { return };
        loop {
            let Some(event) = self.shared.lock().pop() else { return };
            if catch_unwind(AssertUnwindSafe(|| callback(push, event))).is_err() {
                break;
            }
        }
        log::limited!(error, Instant::now(), "a callback of a client of topics panicked");
        self.callback = None;
        let _ = self.shared.close(CloseCode::INTERNAL, ""); // the code fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_panic_of_the_thread_is_reported_and_ends_the_client() {
        let client = PushClient::builder(Client::builder("ws://127.0.0.1:1/push")).connect().unwrap();
        let shared = &client.0.0;
        shared.guard(|| panic!("on purpose"));
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut reported = false;
        loop {
            match shared.next(Some(deadline)) {
                Ok(PushEvent::Error(Error::Client(client::Error::System(_)))) => reported = true,
                Ok(_) => {}
                Err(end) => {
                    assert!(reported && matches!(end, NoEvent::Ended), "{end:?}");
                    return;
                }
            }
        }
    }
}
