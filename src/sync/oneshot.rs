//! One-shot replies to queries that other threads send to a worker. A reply is given exactly once, also when there can
//! be no answer any more.
//!
//! ```text
//!  requester                                     worker
//!  one_shot() ─▶ PendingReply ─┐     ┌─ ReplySender ─▶ Command ─▶ send(answer)
//!                              ▼     ▼
//!                    Mutex: Waiting(waiter) ─▶ Answered(answer) ─▶ Taken
//! ```
//! The lock is held while a value is moved, and never while a waker or a callback runs, so a worker waits for nothing
//! here.

use core::fmt;
use core::mem::replace;
use core::task::{Poll, Waker};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Why there is no answer. `R` says why what was asked for was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoReply<R> {
    /// The mailbox is full.
    Full,
    /// The worker has ended.
    Ended,
    /// What was asked for was refused.
    Refused(R),
}

type Outcome<T, R> = Result<T, NoReply<R>>;

type Then<T, R> = Box<dyn FnOnce(Outcome<T, R>) + Send>;

/// The worker's side. Dropping it reports that the worker has ended, since the commands in a mailbox are dropped with
/// it.
pub(crate) struct ReplySender<T, R>(Option<To<T, R>>);

enum To<T, R> {
    Callback(Then<T, R>),
    Pending(Arc<Mutex<State<T, R>>>),
}

enum State<T, R> {
    /// There is no answer yet.
    Waiting(Option<Waiter<T, R>>),
    /// There is an answer that was not taken yet.
    Answered(Outcome<T, R>),
    /// The answer was taken, or nobody waits for it.
    Taken,
}

enum Waiter<T, R> {
    Task(Waker),
    Callback(Then<T, R>),
}

/// The requester's side of a one-shot reply.
pub(crate) struct PendingReply<T, R>(Arc<Mutex<State<T, R>>>);

/// Makes the two sides of a one-shot reply.
pub(crate) fn one_shot<T, R>() -> (PendingReply<T, R>, ReplySender<T, R>) {
    let state = Arc::new(Mutex::new(State::Waiting(None)));
    (PendingReply(state.clone()), ReplySender(Some(To::Pending(state))))
}

/// Nothing that can panic runs under the lock, so it is never poisoned.
fn lock<T, R>(state: &Mutex<State<T, R>>) -> MutexGuard<'_, State<T, R>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T, R> PendingReply<T, R> {
    /// Takes the answer, or registers the waker for it. A second call replaces the first one's waker.
    pub(crate) fn poll(&self, waker: &Waker) -> Poll<Outcome<T, R>> {
        // Cloned before the lock and dropped after it: both run code of an executor.
        let waiter = Waiter::Task(waker.clone());
        let mut state = lock(&self.0);
        match replace(&mut *state, State::Taken) {
            State::Answered(answer) => Poll::Ready(answer),
            State::Waiting(before) => {
                *state = State::Waiting(Some(waiter));
                drop(state);
                drop(before);
                Poll::Pending
            }
            State::Taken => Poll::Ready(Err(NoReply::Ended)),
        }
    }

    /// Takes the answer if there is one.
    pub(crate) fn take(&self) -> Option<Outcome<T, R>> {
        let mut state = lock(&self.0);
        match replace(&mut *state, State::Taken) {
            State::Answered(answer) => Some(answer),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Calls the callback with the answer: on the worker, or here if there is an answer.
    pub(crate) fn then(self, then: impl FnOnce(Outcome<T, R>) + Send + 'static) {
        let mut state = lock(&self.0);
        match replace(&mut *state, State::Taken) {
            State::Waiting(before) => {
                *state = State::Waiting(Some(Waiter::Callback(Box::new(then))));
                drop(state);
                drop(before);
            }
            State::Answered(answer) => {
                drop(state);
                then(answer);
            }
            State::Taken => {}
        }
    }
}

/// Nobody waits any more, unless a callback was registered.
impl<T, R> Drop for PendingReply<T, R> {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        if matches!(*state, State::Waiting(Some(Waiter::Callback(_)))) {
            return;
        }
        let before = replace(&mut *state, State::Taken);
        drop(state);
        drop(before);
    }
}

impl<T, R> ReplySender<T, R> {
    pub(crate) fn callback(then: impl FnOnce(Outcome<T, R>) + Send + 'static) -> Self {
        Self(Some(To::Callback(Box::new(then))))
    }

    /// Sends the answer. Callbacks and wakers are the application's code: false reports that one panicked.
    #[must_use]
    pub(crate) fn send(mut self, answer: Outcome<T, R>) -> bool {
        self.give(answer)
    }

    /// Reports why there is no answer.
    pub(crate) fn fail(mut self, why: NoReply<R>) {
        self.give(Err(why));
    }

    fn give(&mut self, answer: Outcome<T, R>) -> bool {
        let Some(to) = self.0.take() else { return true };
        catch_unwind(AssertUnwindSafe(|| match to {
            To::Callback(then) => then(answer),
            To::Pending(state) => give(&state, answer),
        }))
        .is_ok()
    }
}

fn give<T, R>(state: &Mutex<State<T, R>>, answer: Outcome<T, R>) {
    let mut locked = lock(state);
    match replace(&mut *locked, State::Taken) {
        State::Waiting(Some(Waiter::Callback(then))) => {
            drop(locked);
            then(answer);
        }
        State::Waiting(waiter) => {
            *locked = State::Answered(answer);
            drop(locked);
            if let Some(Waiter::Task(waker)) = waiter {
                waker.wake();
            }
        }
        State::Answered(_) | State::Taken => {
            drop(locked);
            drop(answer);
        }
    }
}

impl<T, R> Drop for ReplySender<T, R> {
    fn drop(&mut self) {
        self.give(Err(NoReply::Ended));
    }
}

impl<T, R> fmt::Debug for ReplySender<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

/// The replies of several workers to one query.
struct Gathered<T, R> {
    left: usize,
    all: Outcome<T, R>,
    reply: Option<ReplySender<T, R>>,
}

/// Splits a reply into `parts`: `all` with what `merge` adds for each is sent with the last part, or the first failure.
pub(crate) fn gather<T, P, R>(
    parts: usize,
    all: T,
    reply: ReplySender<T, R>,
    merge: impl Fn(&mut T, P) + Clone + Send + 'static,
) -> impl Iterator<Item = ReplySender<P, R>>
where
    T: Send + 'static,
    P: 'static,
    R: Send + 'static,
{
    let gathered = Arc::new(Mutex::new(Gathered { left: parts, all: Ok(all), reply: Some(reply) }));
    (0..parts).map(move |_| {
        let (gathered, merge) = (gathered.clone(), merge.clone());
        ReplySender::callback(move |part| {
            let mut gathered = gathered.lock().unwrap_or_else(PoisonError::into_inner);
            match (&mut gathered.all, part) {
                (Ok(all), Ok(part)) => merge(all, part),
                (Ok(_), Err(e)) => gathered.all = Err(e),
                (Err(_), _) => {}
            }
            gathered.left -= 1;
            if gathered.left == 0
                && let Some(reply) = gathered.reply.take()
            {
                let all = replace(&mut gathered.all, Err(NoReply::Ended));
                drop(gathered);
                let _ = reply.send(all); // the reply that this runs in catches a panic
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;
    use std::task::Wake;

    /// No test refuses.
    type NoReply = super::NoReply<()>;
    type ReplySender<T> = super::ReplySender<T, ()>;

    fn one_shot<T>() -> (PendingReply<T, ()>, ReplySender<T>) {
        super::one_shot()
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_reply_is_called_once_also_without_an_answer() {
        let (tx, rx) = channel();
        let reply = || {
            let tx = tx.clone();
            ReplySender::callback(move |answer: Result<u8, NoReply>| tx.send(answer).unwrap())
        };
        assert!(reply().send(Ok(7)));
        reply().fail(NoReply::Full);
        drop(reply());
        assert_eq!(rx.try_iter().collect::<Vec<_>>(), [Ok(7), Err(NoReply::Full), Err(NoReply::Ended)]);
    }

    #[test]
    fn a_panic_in_a_callback_is_caught_wherever_it_was_left() {
        assert!(!ReplySender::callback(|_: Result<(), NoReply>| panic!("in a callback")).send(Ok(())));
        let (pending, reply) = one_shot::<()>();
        pending.then(|_| panic!("in a callback"));
        assert!(!reply.send(Ok(())));
    }

    #[test]
    fn an_answer_is_taken_once_whichever_side_is_first() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let (pending, reply) = one_shot();
        assert!(pending.poll(&waker).is_pending() && pending.poll(&waker).is_pending());
        assert_eq!(pending.take(), None);
        assert!(reply.send(Ok(1)));
        assert_eq!(count.0.load(Ordering::SeqCst), 1, "the last waker is called, and no other");
        assert_eq!(pending.poll(&waker), Poll::Ready(Ok(1)));
        assert_eq!(pending.poll(&waker), Poll::Ready(Err(NoReply::Ended)));
        let (pending, reply) = one_shot();
        assert!(reply.send(Ok(2)));
        assert_eq!(pending.take(), Some(Ok(2)));
        let (pending, reply) = one_shot::<u8>();
        drop(reply);
        assert_eq!(pending.poll(&waker), Poll::Ready(Err(NoReply::Ended)));
        assert_eq!(Arc::strong_count(&count), 2, "no waker is left behind");
    }

    #[test]
    fn a_callback_is_called_whichever_side_is_first() {
        let (tx, rx) = channel();
        for first in [true, false] {
            let (pending, reply) = one_shot();
            let (tx, send) = (tx.clone(), |reply: ReplySender<bool>| assert!(reply.send(Ok(first))));
            let then = move |answer| tx.send(answer).unwrap();
            if first {
                send(reply);
                pending.then(then);
            } else {
                pending.then(then);
                send(reply);
            }
        }
        assert_eq!(rx.try_iter().collect::<Vec<_>>(), [Ok(true), Ok(false)]);
    }

    #[test]
    fn a_dropped_asker_drops_its_waker_and_the_answer() {
        let count = Arc::new(Count::default());
        let (pending, reply) = one_shot();
        assert!(pending.poll(&Waker::from(count.clone())).is_pending());
        drop(pending);
        assert_eq!(Arc::strong_count(&count), 1);
        let answer = Arc::new(());
        assert!(reply.send(Ok(answer.clone())));
        assert_eq!((Arc::strong_count(&answer), count.0.load(Ordering::SeqCst)), (1, 0));
    }

    #[test]
    fn answers_of_several_are_merged_and_the_first_failure_counts() {
        let sum = |parts: [Result<u8, NoReply>; 3]| {
            let (pending, reply) = one_shot();
            for (part, reply) in parts.into_iter().zip(gather(3, 0, reply, |sum, n: u8| *sum += u32::from(n)))
            {
                assert_eq!(pending.take(), None);
                assert!(reply.send(part));
            }
            pending.take()
        };
        assert_eq!(sum([Ok(1), Ok(2), Ok(3)]), Some(Ok(6)));
        let failed = sum([Ok(1), Err(NoReply::Full), Err(NoReply::Ended)]);
        assert_eq!(failed, Some(Err(NoReply::Full)));
    }
}
