//! Answers to what other threads ask of a worker: a callback that is called once, whatever becomes of the question.

use core::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// The mailbox took no more.
    Full,
    /// The worker has ended.
    Ended,
}

/// Where an answer goes. Dropped, it says that the worker has ended: with its mailbox go the questions in it.
pub(crate) struct Reply<T>(Option<Then<T>>);

type Then<T> = Box<dyn FnOnce(Result<T, Unanswered>) + Send>;

impl<T> Reply<T> {
    pub(crate) fn new(then: impl FnOnce(Result<T, Unanswered>) + Send + 'static) -> Self {
        Self(Some(Box::new(then)))
    }

    /// Answers. The callback is the application's: false says that it panicked.
    #[must_use]
    pub(crate) fn send(mut self, answer: T) -> bool {
        self.call(Ok(answer))
    }

    /// Says why there is none.
    pub(crate) fn fail(mut self, why: Unanswered) {
        self.call(Err(why));
    }

    fn call(&mut self, answer: Result<T, Unanswered>) -> bool {
        let Some(then) = self.0.take() else { return true };
        catch_unwind(AssertUnwindSafe(|| then(answer))).is_ok()
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.call(Err(Unanswered::Ended));
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn whoever_asks_is_told_once_also_when_nobody_answers() {
        let (tx, rx) = channel();
        let reply = || {
            let tx = tx.clone();
            Reply::new(move |answer: Result<u8, Unanswered>| tx.send(answer).unwrap())
        };
        assert!(reply().send(7));
        reply().fail(Unanswered::Full);
        drop(reply());
        assert_eq!(rx.try_iter().collect::<Vec<_>>(), [Ok(7), Err(Unanswered::Full), Err(Unanswered::Ended)]);
    }

    #[test]
    fn a_panic_in_the_callback_is_its_own() {
        assert!(!Reply::new(|_: Result<(), Unanswered>| panic!("in a callback")).send(()));
    }
}
