//! Putting a server together, starting it, and ending it.

mod builder;
#[cfg(feature = "tls")]
mod tls;

pub use builder::{BuildError, Builder};
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsBuilder};

use crate::handler::Handle;
use crate::net::ListenAddr;
use crate::worker::Worker;
use std::io;
use std::thread::JoinHandle;

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
    handle: Handle,
}

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
    /// A thread can't be started.
    pub fn run(mut self) -> io::Result<()> {
        let first = if self.workers.is_empty() { None } else { Some(self.workers.remove(0)) };
        let running = self.spawn()?;
        if let Some(worker) = first {
            worker.run();
        }
        running.join();
        Ok(())
    }

    /// Runs on threads of its own and gives the calling one back.
    ///
    /// # Errors
    /// A thread can't be started.
    pub fn spawn(self) -> io::Result<Running> {
        let mut threads = Vec::with_capacity(self.workers.len());
        for worker in self.workers {
            let name = format!("campanile-{}", worker.number());
            threads.push(std::thread::Builder::new().name(name).spawn(move || worker.run())?);
        }
        Ok(Running { threads, handle: self.handle })
    }
}

impl Running {
    /// The way to the server from any thread.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Waits until the server has ended.
    pub fn join(self) {
        for thread in self.threads {
            let _ = thread.join(); // a worker that panicked has already said so
        }
    }
}
