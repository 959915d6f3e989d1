//! Putting a server together, starting it, and ending it.

mod builder;
mod checks;
#[cfg(feature = "tls")]
mod tls;

pub use builder::{BuildError, Builder};
pub use checks::InvalidSetting;
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsBuilder};

use crate::handler::Handle;
use crate::net::ListenAddr;
use crate::worker::Worker;
use crate::worker::failure::{GRACE, RunError};
use crossbeam_channel::Receiver;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A server that is bound to its addresses and not running yet.
#[derive(Debug)]
pub struct Server {
    workers: Vec<Worker>,
    addrs: Vec<ListenAddr>,
    /// Which of them are for TLS.
    secure: Vec<bool>,
    handle: Handle,
}

/// A server that runs on threads of its own. Dropping this leaves it running; [`Handle::shutdown`] ends it.
#[derive(Debug)]
pub struct Running {
    threads: Vec<JoinHandle<()>>,
    /// How each of them ended.
    ends: Receiver<Result<(), RunError>>,
    handle: Handle,
}

/// After a worker has failed, how long the others have to end: the grace of their clients, and an iteration. One that is
/// stuck in a callback is not waited for.
const FAILED: Duration = GRACE.saturating_add(Duration::from_secs(1));

impl Server {
    /// Begins to put a server together.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Where it listens, with the ports that the system chose.
    pub fn local_addrs(&self) -> &[ListenAddr] {
        &self.addrs
    }

    /// Those of them that are for TLS ([`Builder::listen_tls`]).
    pub fn tls_addrs(&self) -> impl Iterator<Item = &ListenAddr> {
        self.addrs.iter().zip(&self.secure).filter(|(_, secure)| **secure).map(|(addr, _)| addr)
    }

    /// The first TCP address that it listens on.
    pub fn local_addr(&self) -> Option<std::net::SocketAddr> {
        self.addrs.iter().find_map(|a| if let ListenAddr::Tcp(addr) = a { Some(*addr) } else { None })
    }

    /// The way to the server from any thread.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs on the calling thread and as many others as it takes, until [`Handle::shutdown`].
    ///
    /// # Errors
    /// A thread cannot be started. Or a worker has ended by itself: a panic outside of all callbacks, which is a fault
    /// of this crate, or a failure of its event loop. Then the whole server ends at once, with 1011 for that worker's
    /// clients and 1001 for the others'. A worker that is stuck in a callback is abandoned after 2 s, unless it is the
    /// first, which runs on the calling thread.
    pub fn run(mut self) -> Result<(), RunError> {
        let first = if self.workers.is_empty() { None } else { Some(self.workers.remove(0)) };
        let running = self.spawn()?;
        let ended = first.map_or(Ok(()), Worker::run);
        running.join_after(ended)
    }

    /// Runs on threads of its own and gives the calling one back.
    ///
    /// # Errors
    /// A thread can't be started: then none runs.
    pub fn spawn(self) -> Result<Running, RunError> {
        let (ended, ends) = crossbeam_channel::unbounded();
        let mut running =
            Running { threads: Vec::with_capacity(self.workers.len()), ends, handle: self.handle };
        for worker in self.workers {
            let (number, ended) = (worker.number(), ended.clone());
            let thread = std::thread::Builder::new().name(format!("campanile-{number}"));
            let started = thread.spawn(move || {
                let _ = ended.send(worker.run()); // nobody may join it
            });
            match started {
                Ok(thread) => running.threads.push(thread),
                Err(error) => {
                    running.handle.shutdown(Duration::ZERO);
                    return Err(running.join().err().unwrap_or(RunError::Thread { worker: number, error }));
                }
            }
        }
        Ok(running)
    }
}

impl Running {
    /// The way to the server from any thread.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Waits until the server has ended.
    ///
    /// # Errors
    /// A worker has ended by itself, and the server with it; see [`Server::run`].
    pub fn join(self) -> Result<(), RunError> {
        self.join_after(Ok(()))
    }

    /// The same after another worker has ended like this.
    fn join_after(self, mut outcome: Result<(), RunError>) -> Result<(), RunError> {
        let mut deadline = outcome.is_err().then(|| Instant::now() + FAILED);
        for _ in &self.threads {
            let ended = match deadline {
                None => self.ends.recv().ok(),
                Some(deadline) => self.ends.recv_deadline(deadline).ok(),
            };
            match ended {
                Some(ended) => outcome = outcome.and(ended),
                // It is stuck: a join would wait for it.
                None => return outcome,
            }
            if outcome.is_err() {
                deadline = deadline.or_else(|| Some(Instant::now() + FAILED));
            }
        }
        for thread in self.threads {
            let _ = thread.join(); // it has said how it ended
        }
        outcome
    }
}
