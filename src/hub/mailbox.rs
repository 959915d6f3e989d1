//! How other threads reach a worker: a channel, and one wake for all that was put into it since the worker last
//! looked.
//!
//! ```text
//!  producer:  channel.push(command) ; armed.swap(true)  -> was false: wake()
//!  worker:    armed.store(false)    ; drain the channel
//! ```
//! The flag is cleared before the channel is drained: a command pushed after the drain finds it clear and wakes; one
//! pushed before is drained. A wake may be for nothing, none is lost.

use crossbeam_channel::{Receiver, Sender, TryRecvError};
#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Makes a sleeping worker look into its mailbox.
pub(crate) trait Wake: Send + Sync {
    fn wake(&self);
}

/// The coalesced wake: all but the first of many sends cost one atomic swap.
#[derive(Debug)]
pub(crate) struct WakeFlag(AtomicBool);

impl WakeFlag {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// After pushing: whether the worker has to be woken.
    pub(crate) fn arm(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// Before draining.
    pub(crate) fn disarm(&self) {
        // A swap, not a store: it must be ordered before the reads of the channel that follow.
        self.0.swap(false, Ordering::AcqRel);
    }
}

/// The sending side, one for each thread that wants it.
pub(crate) struct Mailbox<C> {
    channel: Sender<C>,
    shared: Arc<Shared>,
}

struct Shared {
    flag: WakeFlag,
    /// Commands waiting, for the bound.
    waiting: AtomicUsize,
    limit: usize,
    wake: Box<dyn Wake>,
}

/// A command that was not taken.
#[derive(Debug)]
pub(crate) enum Refused<C> {
    /// As many wait as may.
    Full(C),
    /// The worker has ended.
    Closed(C),
}

impl<C> Refused<C> {
    /// The command, and why it was not taken.
    pub(crate) fn into_parts(self) -> (C, super::Unanswered) {
        match self {
            Self::Full(command) => (command, super::Unanswered::Full),
            Self::Closed(command) => (command, super::Unanswered::Ended),
        }
    }
}

impl<C> Clone for Mailbox<C> {
    fn clone(&self) -> Self {
        Self { channel: self.channel.clone(), shared: self.shared.clone() }
    }
}

impl<C> Mailbox<C> {
    /// Puts a command into the mailbox, unless `limit` of them wait already.
    pub(crate) fn send(&self, command: C) -> Result<(), Refused<C>> {
        if self.shared.waiting.fetch_add(1, Ordering::Relaxed) >= self.shared.limit {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::Full(command));
        }
        self.push(command)
    }

    /// The same without the bound: for commands that are few by their nature (shutting down, answers of handlers).
    pub(crate) fn send_always(&self, command: C) -> Result<(), Refused<C>> {
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        self.push(command)
    }

    fn push(&self, command: C) -> Result<(), Refused<C>> {
        if let Err(e) = self.channel.send(command) {
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::Closed(e.into_inner()));
        }
        if self.shared.flag.arm() {
            self.shared.wake.wake();
        }
        Ok(())
    }
}

/// The worker's side.
pub(crate) struct Inbox<C> {
    channel: Receiver<C>,
    shared: Arc<Shared>,
}

impl<C> Inbox<C> {
    /// Says that what comes from now on needs a new wake. To be called before [`Inbox::take`].
    pub(crate) fn disarm(&self) {
        self.shared.flag.disarm();
    }

    /// How many commands there are now.
    pub(crate) fn len(&self) -> usize {
        self.channel.len()
    }

    /// The next command, if there is one.
    pub(crate) fn take(&self) -> Option<C> {
        match self.channel.try_recv() {
            Ok(command) => {
                self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
                Some(command)
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }
}

/// A mailbox that holds at most `limit` commands.
pub(crate) fn mailbox<C>(limit: usize, wake: Box<dyn Wake>) -> (Mailbox<C>, Inbox<C>) {
    let (tx, rx) = crossbeam_channel::unbounded();
    let shared = Arc::new(Shared { flag: WakeFlag::new(), waiting: AtomicUsize::new(0), limit, wake });
    (Mailbox { channel: tx, shared: shared.clone() }, Inbox { channel: rx, shared })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    struct Count(Arc<AtomicUsize>);
    impl Wake for Count {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn many_sends_wake_once_until_the_worker_looks() {
        let wakes = Arc::new(AtomicUsize::new(0));
        let (tx, rx) = mailbox(3, Box::new(Count(wakes.clone())));
        for i in 0..3 {
            tx.send(i).unwrap();
        }
        assert!(matches!(tx.send(3), Err(Refused::Full(3))));
        assert_eq!(wakes.load(Ordering::SeqCst), 1);
        rx.disarm();
        assert_eq!([rx.take(), rx.take(), rx.take(), rx.take()], [Some(0), Some(1), Some(2), None]);
        tx.send(4).unwrap();
        assert_eq!(wakes.load(Ordering::SeqCst), 2);
        drop(rx);
        assert!(matches!(tx.send(5), Err(Refused::Closed(5))));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::WakeFlag;
    use loom::sync::Arc;
    use loom::sync::Mutex;
    use loom::sync::atomic::{AtomicUsize, Ordering};

    /// Two producers and a worker that sleeps unless it was woken: nothing stays in the queue without a wake to come.
    #[test]
    fn no_wake_is_lost() {
        loom::model(|| {
            let flag = Arc::new(WakeFlag::new());
            let queue = Arc::new(Mutex::new(0));
            let wakes = Arc::new(AtomicUsize::new(0));
            let producers: Vec<_> = (0..2)
                .map(|_| {
                    let (flag, queue, wakes) = (flag.clone(), queue.clone(), wakes.clone());
                    loom::thread::spawn(move || {
                        *queue.lock().unwrap() += 1;
                        if flag.arm() {
                            wakes.fetch_add(1, Ordering::SeqCst);
                        }
                    })
                })
                .collect();
            let mut slept = 0;
            if wakes.load(Ordering::SeqCst) > slept {
                slept = wakes.load(Ordering::SeqCst);
                flag.disarm();
                *queue.lock().unwrap() = 0;
            }
            for p in producers {
                p.join().unwrap();
            }
            let left = *queue.lock().unwrap();
            assert!(left == 0 || wakes.load(Ordering::SeqCst) > slept);
        });
    }
}
