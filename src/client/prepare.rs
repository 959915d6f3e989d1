//! What may block before a try: the caller's hook and the resolution of names. Done on a few threads of their own, so
//! that no connection waits for another's, and started only when there is something to do.

use super::opening::Extras;
use super::proxy::Proxy;
use super::{Close, Error, Url};
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Whether the URL can be connected to at all.
pub(super) fn check_scheme(url: &Url) -> Result<(), Error> {
    if url.is_secure() && cfg!(not(feature = "tls")) {
        Err(Error::TlsNotBuiltIn { url: url.to_string() })
    } else {
        Ok(())
    }
}

/// A name server that does not answer holds one of them for the resolver's timeout, often 5 s or more.
const THREADS: usize = 4;

/// A try to connect, as the hook of [`ClientBuilder::before_attempt`](super::ClientBuilder::before_attempt) sees and changes it. It begins
/// with what the builder was given, each time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// 0 for the first, then as [`ClientEvent::Reconnecting`](super::ClientEvent::Reconnecting) counts.
    pub number: u32,
    /// Where to.
    pub url: String,
    /// The further headers.
    pub headers: Vec<(String, String)>,
    /// The subprotocols to offer.
    pub subprotocols: Vec<String>,
    /// What went wrong last, if something did.
    pub last_error: Option<Error>,
    /// How the last connection ended, if there was one.
    pub last_close: Option<Close>,
}

/// The hook. Called before each try, on a thread where it may block.
pub(super) type Hook =
    Box<dyn FnMut(&mut Attempt) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + Send>;

/// Where a try goes, with what.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) url: Url,
    pub(super) extras: Extras,
    pub(super) addrs: Vec<SocketAddr>,
}

pub(super) type Done = Box<dyn FnOnce(Result<Target, Error>, Option<Hook>) + Send>;

pub(super) struct Job {
    pub(super) hook: Option<(Hook, Attempt)>,
    pub(super) url: Url,
    pub(super) extras: Extras,
    /// Whose name is to be resolved, if there is one.
    pub(super) proxy: Option<Proxy>,
    /// Called with the result, and the hook to use again.
    pub(super) done: Done,
}

pub(super) struct Preparers {
    jobs: Sender<Job>,
    work: Receiver<Job>,
    threads: usize,
    /// Jobs waiting or being done.
    busy: Arc<AtomicUsize>,
}

impl Preparers {
    pub(super) fn new() -> Self {
        let (jobs, work) = unbounded();
        Self { jobs, work, threads: 0, busy: Arc::default() }
    }

    /// Has a job done. Where no thread can be started for it, it is done here.
    pub(super) fn prepare(&mut self, job: Job) {
        let busy = self.busy.fetch_add(1, Ordering::Relaxed) + 1;
        if self.threads < busy.min(THREADS) {
            let (work, busy) = (self.work.clone(), self.busy.clone());
            let run = move || {
                // Ends when the sending side has gone.
                for job in work {
                    run(job);
                    busy.fetch_sub(1, Ordering::Relaxed);
                }
            };
            match std::thread::Builder::new().name("campanile-resolve".into()).spawn(run) {
                Ok(_) => self.threads += 1,
                Err(e) if self.threads == 0 => {
                    self.busy.fetch_sub(1, Ordering::Relaxed);
                    (job.done)(Err(Error::System(e.kind())), job.hook.map(|(hook, _)| hook));
                    return;
                }
                Err(_) => {}
            }
        }
        let _ = self.jobs.send(job); // this side holds a receiver
    }
}

fn run(job: Job) {
    let Job { hook, mut url, mut extras, proxy, done } = job;
    let mut result = Ok(());
    let hook = hook.and_then(|(mut hook, mut attempt)| {
        // A hook that panics is not called again: who knows what it left behind.
        let called = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| hook(&mut attempt)));
        result = match called {
            Ok(Ok(())) => take(attempt, &mut url, &mut extras),
            Ok(Err(e)) => Err(Error::Hook(e.to_string())),
            Err(_) => Err(Error::Hook("it panicked".into())),
        };
        (!matches!(&result, Err(Error::Hook(why)) if why == "it panicked")).then_some(hook)
    });
    let result = result.and_then(|()| resolve(proxy.as_ref().map_or(&url, Proxy::url))).map(|addrs| Target {
        url,
        extras,
        addrs,
    });
    done(result, hook);
}

fn take(attempt: Attempt, url: &mut Url, extras: &mut Extras) -> Result<(), Error> {
    *url = attempt.url.parse()?;
    extras.headers = attempt.headers;
    extras.subprotocols = attempt.subprotocols;
    Ok(extras.check()?)
}

/// Names that only tests know.
#[cfg(test)]
pub(super) static NAMES: std::sync::Mutex<Vec<(String, Vec<SocketAddr>)>> = std::sync::Mutex::new(Vec::new());

fn resolve(url: &Url) -> Result<Vec<SocketAddr>, Error> {
    #[cfg(test)]
    if let Some((_, addrs)) = NAMES.lock().unwrap().iter().find(|(name, _)| name == url.host()) {
        return Ok(addrs.clone());
    }
    let failed = |why: String| Error::Resolve { host: url.host().to_owned(), why };
    let found = (url.host(), url.port()).to_socket_addrs().map_err(|e| failed(e.to_string()))?;
    let addrs: Vec<_> = found.collect();
    if addrs.is_empty() { Err(failed("it has no address".into())) } else { Ok(addrs) }
}
