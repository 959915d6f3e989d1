//! The way for other threads to reach a worker: a channel, and one wake-up for everything that was sent since the
//! worker last drained it.
//!
//! ```text
//!  producer:  channel.send(command) ; flag.swap(true)  -> was false: wake()
//!  worker:    flag.swap(false)      ; drain the channel
//! ```
//! The flag is cleared before the channel is drained: a command sent after the drain finds it clear and wakes, one sent
//! before is drained. The worker swaps too, because a store could be ordered after the reads of the channel. A wake-up
//! may be superfluous, but none is lost.

use super::NoReply;
use crossbeam_channel::{Receiver, Sender, TryRecvError};
#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Wakes a sleeping worker.
pub(crate) trait Wake: Send + Sync {
    fn wake(&self);
}

/// The coalesced wake-up: all but the first of many sends cost one atomic swap.
#[derive(Debug)]
pub(crate) struct WakeFlag(AtomicBool);

impl WakeFlag {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Called after pushing. Returns whether the worker must be woken.
    pub(crate) fn arm(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// Called before draining.
    pub(crate) fn disarm(&self) {
        // A swap, not a store: it must be ordered before the reads of the channel that follow.
        self.0.swap(false, Ordering::AcqRel);
    }
}

/// A command in a mailbox.
pub(crate) trait Weigh {
    /// Returns the bytes of its messages.
    fn weight(&self) -> usize {
        0
    }
}

/// The capacity of a mailbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    pub(crate) commands: usize,
    pub(crate) bytes: usize,
}

impl Capacity {
    #[cfg_attr(not(feature = "client"), allow(dead_code))]
    pub(crate) const UNBOUNDED: Self = Self { commands: usize::MAX, bytes: usize::MAX };
}

/// The sending side of a mailbox.
pub(crate) struct Mailbox<C> {
    channel: Sender<C>,
    shared: Arc<MailboxShared>,
}

struct MailboxShared {
    flag: WakeFlag,
    /// Commands that wait, and their bytes.
    waiting: AtomicUsize,
    bytes: AtomicUsize,
    capacity: Capacity,
    wake: Box<dyn Wake>,
}

/// A command that was refused.
#[derive(Debug)]
pub(crate) enum TrySendError<C> {
    /// The mailbox is full, by commands or bytes.
    Full(C),
    /// The worker has ended.
    Closed(C),
}

impl<C> TrySendError<C> {
    /// Returns the command and the reason.
    pub(crate) fn into_parts<R>(self) -> (C, NoReply<R>) {
        match self {
            Self::Full(command) => (command, NoReply::Full),
            Self::Closed(command) => (command, NoReply::Ended),
        }
    }
}

impl<C> Clone for Mailbox<C> {
    fn clone(&self) -> Self {
        Self { channel: self.channel.clone(), shared: self.shared.clone() }
    }
}

impl<C: Weigh> Mailbox<C> {
    /// Sends a command, unless the mailbox is full. A command above the limit on bytes is accepted if nothing else has
    /// weight.
    pub(crate) fn send(&self, command: C) -> Result<(), TrySendError<C>> {
        let MailboxShared { waiting, bytes, capacity, .. } = &*self.shared;
        let weight = command.weight();
        let room = waiting.fetch_add(1, Ordering::Relaxed) < capacity.commands;
        let before = if weight > 0 { bytes.fetch_add(weight, Ordering::Relaxed) } else { 0 };
        if !room || before > 0 && before.saturating_add(weight) > capacity.bytes {
            self.shared.subtract(weight);
            return Err(TrySendError::Full(command));
        }
        self.push(command, weight)
    }

    /// Returns whether the limit on bytes is reached.
    pub(crate) fn is_over_bytes(&self) -> bool {
        self.shared.bytes.load(Ordering::Relaxed) >= self.shared.capacity.bytes
    }

    /// Sends a command and bypasses the mailbox's capacity: for commands whose number is bounded otherwise, such as
    /// replies.
    pub(crate) fn send_unbounded(&self, command: C) -> Result<(), TrySendError<C>> {
        let weight = command.weight();
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        self.shared.bytes.fetch_add(weight, Ordering::Relaxed);
        self.push(command, weight)
    }

    /// Makes the worker run an iteration without a command.
    pub(crate) fn wake(&self) {
        if self.shared.flag.arm() {
            self.shared.wake.wake();
        }
    }

    fn push(&self, command: C, weight: usize) -> Result<(), TrySendError<C>> {
        if let Err(e) = self.channel.send(command) {
            self.shared.subtract(weight);
            return Err(TrySendError::Closed(e.into_inner()));
        }
        if self.shared.flag.arm() {
            self.shared.wake.wake();
        }
        Ok(())
    }
}

impl MailboxShared {
    /// Subtracts a command of this weight.
    fn subtract(&self, weight: usize) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        if weight > 0 {
            self.bytes.fetch_sub(weight, Ordering::Relaxed);
        }
    }
}

/// The receiving side of a mailbox.
pub(crate) struct Inbox<C> {
    channel: Receiver<C>,
    shared: Arc<MailboxShared>,
}

impl<C: Weigh> Inbox<C> {
    /// Makes later commands wake the worker again. Called before [`Inbox::take`].
    pub(crate) fn disarm(&self) {
        self.shared.flag.disarm();
    }

    /// Returns the number of commands that wait.
    pub(crate) fn len(&self) -> usize {
        self.channel.len()
    }

    /// Takes the next command.
    pub(crate) fn take(&self) -> Option<C> {
        match self.channel.try_recv() {
            Ok(command) => {
                self.shared.subtract(command.weight());
                Some(command)
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }
}

/// Makes a mailbox of this capacity.
pub(crate) fn mailbox<C>(capacity: Capacity, wake: Box<dyn Wake>) -> (Mailbox<C>, Inbox<C>) {
    let (tx, rx) = crossbeam_channel::unbounded();
    let (waiting, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let shared = Arc::new(MailboxShared { flag: WakeFlag::new(), waiting, bytes, capacity, wake });
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

    /// A command's weight is its number, without the last digit.
    impl Weigh for usize {
        fn weight(&self) -> usize {
            self / 10 * 10
        }
    }

    #[test]
    fn a_mailbox_is_bounded_by_bytes_and_admits_one_command() {
        let capacity = Capacity { commands: 9, bytes: 100 };
        let (tx, rx) = mailbox(capacity, Box::new(Count(Arc::default())));
        tx.send(500).unwrap();
        assert!(matches!(tx.send(10), Err(TrySendError::Full(10))));
        tx.send(5).unwrap(); // weighs nothing
        tx.send_unbounded(20).unwrap();
        assert_eq!([rx.take(), rx.take(), rx.take(), rx.take()], [Some(500), Some(5), Some(20), None]);
        tx.send(60).unwrap();
        tx.send(40).unwrap();
        assert!(matches!(tx.send(10), Err(TrySendError::Full(10))));
    }

    #[test]
    fn many_sends_wake_the_worker_once() {
        let wakes = Arc::new(AtomicUsize::new(0));
        let (tx, rx) = mailbox(Capacity { commands: 3, bytes: 100 }, Box::new(Count(wakes.clone())));
        for i in 0..3 {
            tx.send(i).unwrap();
        }
        assert!(matches!(tx.send(3), Err(TrySendError::Full(3))));
        assert_eq!(wakes.load(Ordering::SeqCst), 1);
        rx.disarm();
        assert_eq!([rx.take(), rx.take(), rx.take(), rx.take()], [Some(0), Some(1), Some(2), None]);
        tx.send(4).unwrap();
        assert_eq!(wakes.load(Ordering::SeqCst), 2);
        drop(rx);
        assert!(matches!(tx.send(5), Err(TrySendError::Closed(5))));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::WakeFlag;
    use loom::sync::Arc;
    use loom::sync::Mutex;
    use loom::sync::atomic::{AtomicUsize, Ordering};

    /// Two producers and a worker that sleeps until it is woken: no command stays in the queue without a wake-up to
    /// come.
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
