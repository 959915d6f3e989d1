//! A handler that reports what it was told, and does what a test wants done.

use super::DEADLINE;
use campanile::{Accept, Closed, Conn, ConnId, Disconnect, Handler, Message, Refuse, Request};
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::ops::{Deref, DerefMut};
use std::time::Instant;

/// What a handler was told.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Upgrade,
    Open(ConnId),
    Message(ConnId, Vec<u8>),
    Ping(ConnId, Vec<u8>),
    Pong(ConnId, Vec<u8>),
    Drain(ConnId),
    Dropped(ConnId, u32),
    Close(ConnId, Closed),
}

/// A connection and its state, in a callback.
pub(crate) struct At<'c, 'a> {
    conn: &'c mut Conn<'a>,
    pub(crate) state: &'c mut String,
}

impl<'a> Deref for At<'_, 'a> {
    type Target = Conn<'a>;

    fn deref(&self) -> &Conn<'a> {
        self.conn
    }
}

impl DerefMut for At<'_, '_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.conn
    }
}

type Hook = Box<dyn Fn(&mut At<'_, '_>) + Send + Sync>;
type MessageHook = Box<dyn Fn(&mut At<'_, '_>, Message<'_>) + Send + Sync>;
type UpgradeHook = Box<dyn Fn(&Request<'_>) -> Result<Accept<String>, Refuse> + Send + Sync>;

/// Reports everything, and does what the test wants done.
pub(crate) struct Recorder {
    events: Sender<Event>,
    upgrade: Option<UpgradeHook>,
    open: Option<Hook>,
    message: Option<MessageHook>,
    ping: Option<Hook>,
    pong: Option<Hook>,
    drain: Option<Hook>,
    dropped: Option<Hook>,
    close: Option<Hook>,
}

/// A recorder and where its reports arrive.
pub(crate) fn recorder() -> (Recorder, Events) {
    let (events, reports) = unbounded();
    let recorder = Recorder {
        events,
        upgrade: None,
        open: None,
        message: None,
        ping: None,
        pong: None,
        drain: None,
        dropped: None,
        close: None,
    };
    (recorder, Events(reports))
}

/// Sends back what comes.
pub(crate) fn echo() -> Recorder {
    recorder().0.on_message(|conn, message| {
        let _ = conn.send(message); // refused only when it is closing
    })
}

impl Recorder {
    pub(crate) fn on_upgrade(
        mut self,
        hook: impl Fn(&Request<'_>) -> Result<Accept<String>, Refuse> + Send + Sync + 'static,
    ) -> Self {
        self.upgrade = Some(Box::new(hook));
        self
    }

    pub(crate) fn on_open(mut self, hook: impl Fn(&mut At<'_, '_>) + Send + Sync + 'static) -> Self {
        self.open = Some(Box::new(hook));
        self
    }

    pub(crate) fn on_message(
        mut self,
        hook: impl Fn(&mut At<'_, '_>, Message<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.message = Some(Box::new(hook));
        self
    }

    pub(crate) fn on_ping(mut self, hook: impl Fn(&mut At<'_, '_>) + Send + Sync + 'static) -> Self {
        self.ping = Some(Box::new(hook));
        self
    }

    pub(crate) fn on_pong(mut self, hook: impl Fn(&mut At<'_, '_>) + Send + Sync + 'static) -> Self {
        self.pong = Some(Box::new(hook));
        self
    }

    pub(crate) fn on_drain(mut self, hook: impl Fn(&mut At<'_, '_>) + Send + Sync + 'static) -> Self {
        self.drain = Some(Box::new(hook));
        self
    }

    pub(crate) fn on_dropped(mut self, hook: impl Fn(&mut At<'_, '_>) + Send + Sync + 'static) -> Self {
        self.dropped = Some(Box::new(hook));
        self
    }

    pub(crate) fn on_close(mut self, hook: impl Fn(&mut At<'_, '_>) + Send + Sync + 'static) -> Self {
        self.close = Some(Box::new(hook));
        self
    }

    fn report(&self, event: Event) {
        let _ = self.events.send(event); // a test that is over does not listen
    }
}

fn run(hook: &Option<Hook>, conn: &mut Conn<'_>, state: &mut String) {
    if let Some(hook) = hook {
        hook(&mut At { conn, state });
    }
}

impl Handler for Recorder {
    type State = String;

    fn upgrade(&self, request: &Request<'_>) -> Result<Accept<String>, Refuse> {
        self.report(Event::Upgrade);
        self.upgrade.as_ref().map_or_else(|| Ok(Accept::new(String::new())), |hook| hook(request))
    }

    fn open(&self, conn: &mut Conn<'_>, state: &mut String) -> Result<(), Disconnect> {
        self.report(Event::Open(conn.id()));
        run(&self.open, conn, state);
        Ok(())
    }

    fn message(
        &self,
        conn: &mut Conn<'_>,
        state: &mut String,
        message: Message<'_>,
    ) -> Result<(), Disconnect> {
        self.report(Event::Message(conn.id(), message.as_bytes().to_vec()));
        if let Some(hook) = &self.message {
            hook(&mut At { conn, state }, message);
        }
        Ok(())
    }

    fn ping(&self, conn: &mut Conn<'_>, state: &mut String, payload: &[u8]) -> Result<(), Disconnect> {
        self.report(Event::Ping(conn.id(), payload.to_vec()));
        run(&self.ping, conn, state);
        Ok(())
    }

    fn pong(&self, conn: &mut Conn<'_>, state: &mut String, payload: &[u8]) -> Result<(), Disconnect> {
        self.report(Event::Pong(conn.id(), payload.to_vec()));
        run(&self.pong, conn, state);
        Ok(())
    }

    fn drain(&self, conn: &mut Conn<'_>, state: &mut String) -> Result<(), Disconnect> {
        self.report(Event::Drain(conn.id()));
        run(&self.drain, conn, state);
        Ok(())
    }

    fn dropped(&self, conn: &mut Conn<'_>, state: &mut String, messages: u32) -> Result<(), Disconnect> {
        self.report(Event::Dropped(conn.id(), messages));
        run(&self.dropped, conn, state);
        Ok(())
    }

    fn close(&self, conn: &mut Conn<'_>, state: &mut String, end: &Closed) {
        self.report(Event::Close(conn.id(), end.clone()));
        run(&self.close, conn, state);
    }
}

/// Where a recorder's reports arrive.
#[derive(Clone)]
pub(crate) struct Events(pub(crate) Receiver<Event>);

impl Events {
    /// The next report that is one of these; those before it are passed over.
    pub(crate) fn find<T>(&self, what: &str, is_it: impl Fn(Event) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let event = self.0.recv_deadline(deadline).unwrap_or_else(|_| panic!("no report of {what}"));
            if let Some(found) = is_it(event) {
                return found;
            }
        }
    }

    pub(crate) fn opened(&self) -> ConnId {
        self.find("an open connection", |e| if let Event::Open(id) = e { Some(id) } else { None })
    }

    pub(crate) fn message(&self) -> Vec<u8> {
        self.find("a message", |e| if let Event::Message(_, bytes) = e { Some(bytes) } else { None })
    }

    pub(crate) fn closed(&self) -> Closed {
        self.find("an end", |e| if let Event::Close(_, end) = e { Some(end) } else { None })
    }

    pub(crate) fn drained(&self) {
        self.find("a drained backlog", |e| matches!(e, Event::Drain(_)).then_some(()));
    }

    pub(crate) fn dropped(&self) -> u32 {
        self.find("dropped messages", |e| if let Event::Dropped(_, n) = e { Some(n) } else { None })
    }

    /// What has been reported so far.
    pub(crate) fn so_far(&self) -> Vec<Event> {
        self.0.try_iter().collect()
    }
}
