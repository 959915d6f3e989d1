//! The result of a query to the server's workers: blocked on, awaited, or passed to a callback.

use super::HandleError;
use crate::hub::{PendingReply, ReplySender};
use crate::sync::one_shot;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;
use std::cell::Cell;
use std::sync::Arc;
use std::task::Wake;
use std::thread::Thread;
use std::time::Instant;

/// How long [`Answer::wait`] waits.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

thread_local! {
    /// Whether this thread is a worker.
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
}

/// Marks the calling thread as a worker, or clears the mark.
pub(crate) fn mark_worker(is: bool) {
    IS_WORKER.set(is);
}

/// Checks that the calling thread may wait for a worker.
pub(crate) fn check_may_block() -> Result<(), HandleError> {
    if IS_WORKER.get() { Err(HandleError::InHandler) } else { Ok(()) }
}

/// The answer to a question, such as [`Handle::subscribers`](super::Handle::subscribers), or to a publication
/// ([`Handle::publish_confirmed`](super::Handle::publish_confirmed)).
///
/// The question has been asked when the method returns. There are three ways to its answer:
///
/// | where | how |
/// | --- | --- |
/// | on a thread of the program | [`Answer::wait`] blocks, for at most 5 s |
/// | in an async function, of any runtime | `.await`: the worker that answers wakes the task |
/// | in a handler or an HTTP callback, which must not block | [`Answer::then`] calls a closure |
///
/// An answer that is not needed may be dropped; the request is executed all the same.
///
/// ```
/// use campanile::{Handle, HandleError, Publish};
///
/// fn wait(handle: &Handle) -> Result<usize, HandleError> {
///     handle.subscribers("news").wait()
/// }
///
/// async fn awaits(handle: &Handle) -> Result<(), HandleError> {
///     let published = handle.publish_confirmed(Publish::new("news", "it rains")).await?;
///     println!("{} connections receive it", published.map_or(0, |p| p.receivers));
///     Ok(())
/// }
///
/// fn calls(handle: &Handle) {
///     handle.topics("chat/", 100).then(|list| println!("{list:?}"));
/// }
/// ```
#[must_use = "wait for the answer, await it, or call then; drop it if it is not needed"]
pub struct Answer<T>(AnswerState<T>);

enum AnswerState<T> {
    /// Nothing could be asked.
    Failed(HandleError),
    Pending(PendingReply<T>),
    /// It was returned by `poll`.
    Taken,
}

impl<T> Answer<T> {
    pub(crate) fn failed(error: HandleError) -> Self {
        Self(AnswerState::Failed(error))
    }

    /// Asks: `ask` passes on where the answer goes.
    pub(crate) fn new(send: impl FnOnce(ReplySender<T>)) -> Self {
        let (pending, reply) = one_shot();
        send(reply);
        Self(AnswerState::Pending(pending))
    }

    /// Waits for the answer, for at most 5 s.
    ///
    /// # Errors
    /// What the method that asked names. [`HandleError::Timeout`]: no answer came in time; what was asked for may still
    /// happen. [`HandleError::InHandler`]: this thread is a worker, which would wait for itself.
    pub fn wait(self) -> Result<T, HandleError> {
        self.wait_timeout(REPLY_TIMEOUT)
    }

    /// Waits for the answer, for at most this long.
    ///
    /// # Errors
    /// As [`Answer::wait`].
    pub fn wait_timeout(self, timeout: Duration) -> Result<T, HandleError> {
        let pending = match self.0 {
            AnswerState::Failed(error) => return Err(error),
            AnswerState::Pending(pending) => pending,
            AnswerState::Taken => return Err(HandleError::Ended),
        };
        check_may_block()?;
        if let Some(answer) = pending.take() {
            return answer.map_err(HandleError::from);
        }
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if let Poll::Ready(answer) = pending.poll(&waker) {
                return answer.map_err(HandleError::from);
            }
            match deadline {
                None => std::thread::park(),
                Some(deadline) => match deadline.checked_duration_since(Instant::now()) {
                    Some(left) if !left.is_zero() => std::thread::park_timeout(left),
                    _ => return Err(HandleError::Timeout),
                },
            }
        }
    }

    /// Calls `then` with the answer, exactly once: on the thread of the worker that answers, where it must not block, or
    /// here if the answer has come already. A panic on the worker is counted and ends nothing. There is no deadline.
    pub fn then(self, then: impl FnOnce(Result<T, HandleError>) + Send + 'static) {
        match self.0 {
            AnswerState::Failed(error) => then(Err(error)),
            AnswerState::Pending(pending) => {
                pending.then(move |answer| then(answer.map_err(HandleError::from)))
            }
            AnswerState::Taken => then(Err(HandleError::Ended)),
        }
    }
}

/// Wakes a thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl<T> Unpin for Answer<T> {}

/// There is no deadline: a worker that is stuck in a handler answers when it is not any more, and the end of the server is
/// an answer too ([`HandleError::Ended`]).
///
/// # Panics
/// Polled again after it was ready.
impl<T> Future for Answer<T> {
    type Output = Result<T, HandleError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match core::mem::replace(&mut self.0, AnswerState::Taken) {
            AnswerState::Failed(error) => Poll::Ready(Err(error)),
            AnswerState::Pending(pending) => match pending.poll(cx.waker()) {
                Poll::Ready(answer) => Poll::Ready(answer.map_err(HandleError::from)),
                Poll::Pending => {
                    self.0 = AnswerState::Pending(pending);
                    Poll::Pending
                }
            },
            AnswerState::Taken => panic!("`Answer` polled after it was ready"),
        }
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            AnswerState::Failed(_) => "Answer(failed)",
            AnswerState::Pending(_) => "Answer(asked)",
            AnswerState::Taken => "Answer(taken)",
        })
    }
}
