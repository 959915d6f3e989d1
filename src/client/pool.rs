//! Threads for clients: each drives any number of connections.

use super::compression::Packer;
use super::driver::{Command, Driver, NewClient, WAKER};
use super::{Error, Link};
use crate::sync::mailbox::{Capacity, Mailbox, Wake, mailbox};
use mio::{Poll, Waker};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;

/// A number of threads that clients share. Without one, all clients of a program share a single thread, except those
/// with a callback, which get one each.
///
/// Its threads end when the pool and all its clients have gone.
///
/// ```no_run
/// use campanile::client::{Client, ClientEvent, Pool};
///
/// let pool = Pool::new(2)?;
/// let clients: Vec<Client> = (0..1000)
///     .map(|i| Client::builder(&format!("ws://127.0.0.1:9001/echo?user={i}")).pool(&pool).connect())
///     .collect::<Result<_, _>>()?;
/// # Ok::<(), campanile::client::Error>(())
/// ```
#[derive(Clone)]
pub struct Pool(Arc<Threads>);

struct Threads {
    threads: Vec<Arc<Thread>>,
    next: AtomicUsize,
}

/// The way to one thread. When the last goes, the thread ends.
pub(super) struct Thread {
    mailbox: Mailbox<Command>,
    id: ThreadId,
    /// For what its clients send; the thread has one of its own for what they receive.
    packer: Mutex<Packer>,
}

struct PollWaker(Waker);

impl Wake for PollWaker {
    fn wake(&self) {
        if let Err(e) = self.0.wake() {
            crate::log::limited!(error, std::time::Instant::now(), "can't wake a client's thread: {e}");
        }
    }
}

impl Thread {
    fn spawn(number: usize) -> std::io::Result<Arc<Self>> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        // No bound of its own: each client has at most a handful of commands waiting.
        let (tx, rx) = mailbox(Capacity::UNBOUNDED, Box::new(PollWaker(waker)));
        let driver = Driver::new(poll, rx, tx.clone());
        let name = format!("campanile-client-{number}");
        let handle = std::thread::Builder::new().name(name).spawn(move || driver.run())?;
        Ok(Arc::new(Self { mailbox: tx, id: handle.thread().id(), packer: Mutex::default() }))
    }

    pub(super) fn packer(&self) -> &Mutex<Packer> {
        &self.packer
    }

    pub(super) fn command(&self, command: Command) {
        let _ = self.mailbox.send_unbounded(command); // a thread that ended has no connections
    }

    /// Gives it a client.
    ///
    /// # Errors
    /// The thread has ended, since its event loop failed.
    pub(super) fn add(&self, client: Box<NewClient>) -> Result<(), Error> {
        let added = self.mailbox.send_unbounded(Command::Add(client));
        added.map_err(|_| Error::System(std::io::ErrorKind::BrokenPipe))
    }

    /// Has the thread look at a connection.
    pub(super) fn touch(&self, link: &Arc<Link>) {
        self.command(Command::Touch(link.clone()));
    }

    /// Whether this is called by the thread itself, in a callback: nothing may wait here for what it has to do.
    pub(super) fn is_current(&self) -> bool {
        std::thread::current().id() == self.id
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.command(Command::Quit);
    }
}

impl Pool {
    /// Starts so many threads, at least one.
    ///
    /// # Errors
    /// The system refuses a thread or its event loop.
    pub fn new(threads: usize) -> Result<Self, Error> {
        let threads: std::io::Result<Vec<_>> = (0..threads.max(1)).map(Thread::spawn).collect();
        match threads {
            Ok(threads) => Ok(Self(Arc::new(Threads { threads, next: AtomicUsize::new(0) }))),
            Err(e) => Err(Error::System(e.kind())),
        }
    }

    /// The one that clients use which name none: a single thread, started when the first needs it, and kept.
    pub(super) fn shared() -> Result<Self, Error> {
        static SHARED: Mutex<Option<Pool>> = Mutex::new(None);
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = &*shared {
            return Ok(pool.clone());
        }
        let pool = Self::new(1)?;
        *shared = Some(pool.clone());
        Ok(pool)
    }

    /// The threads in turn.
    pub(super) fn thread(&self) -> Arc<Thread> {
        let at = self.0.next.fetch_add(1, Ordering::Relaxed) % self.0.threads.len();
        self.0.threads[at].clone()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("threads", &self.0.threads.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Thread({:?})", self.id)
    }
}
