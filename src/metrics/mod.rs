//! Counters: one padded set for each worker, written by it alone, merged when somebody reads.

mod heartbeat;

pub(crate) use heartbeat::{Heartbeat, LoopState};

use crossbeam_utils::CachePadded;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// By the owner only: a load and a store, which costs what a plain addition costs.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    /// By the owner only.
    pub(crate) fn shift(&self, from: u64, to: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(from).wrapping_add(to), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One worker's counters, and whether its event loop goes round.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
            pub(crate) heartbeat: Heartbeat,
        }

        /// What the server has counted since it started, all workers together.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats { $($(#[$doc])* pub $name: u64,)* }

        impl Stats {
            /// Every counter with its name, as the fields have them.
            pub fn entries(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }

            pub(crate) fn sum(workers: &[CachePadded<Counters>]) -> Self {
                let mut sum = Self::default();
                for worker in workers { $(sum.$name = sum.$name.wrapping_add(worker.$name.get());)* }
                sum.log_lines_lost = crate::log::lost(); // the process's, not the workers'
                sum
            }
        }
    };
}

counters! {
    /// Connected sockets: HTTP, WebSockets, and those that are closing.
    sockets,
    /// Open WebSockets.
    open,
    /// Sockets accepted or adopted.
    accepted,
    /// Accepts that failed, for instance for lack of file descriptors; the log gives the reason.
    accept_errors,
    /// Sockets refused because the server was full.
    turned_away,
    /// Opening handshakes that led to a WebSocket.
    upgraded,
    /// TLS handshakes that were finished.
    tls_handshakes,
    /// Those among them that resumed an earlier session.
    tls_resumed,
    /// TLS handshakes that were not finished: aborted, refused, timed out, or never begun.
    tls_failed,
    /// Times that a listener stopped accepting because the maximum of handshakes was in progress.
    tls_pauses,
    /// Iterations that left TLS handshakes to the next one because their time for handshakes was used up.
    tls_deferred,
    /// Upgrades refused because of the page's origin ([`Origins`](crate::Origins)); the log names it.
    origins_refused,
    /// HTTP requests answered, refused upgrades included.
    requests,
    /// Bytes of unfinished messages and backlogs.
    held_bytes,
    /// Connections ended because all together held more memory than the server may.
    over_budget,
    /// Messages received.
    messages_in,
    /// Bytes of messages received.
    bytes_in,
    /// Times that a connection was not read from for a while because it sent more than its route's rates allow.
    rate_pauses,
    /// Messages sent by handlers and handles to one connection.
    messages_out,
    /// Messages sent to connections as subscribers of a topic.
    deliveries,
    /// Messages compressed; one to many subscribers once for each encoding.
    deflated,
    /// Messages inflated.
    inflated,
    /// Times that a message, or what an iteration had for one topic, was sent plain because the loop had fallen behind.
    deflate_skipped,
    /// Messages evicted from histories because all together held more memory than they may.
    history_evicted,
    /// Those among them that made room for topics of another prefix.
    history_evicted_for_others,
    /// Topics without a message that were evicted, with their position and the idempotency keys of their publishers.
    topics_evicted,
    /// Messages refused because they are longer than their topic allows, or over its rate.
    publications_refused,
    /// Times that a connection was not read from for a while because its topic was congested: too much of it was queued
    /// for other workers.
    congestion_pauses,
    /// Messages dropped because a consumer was slow.
    dropped,
    /// Connections closed because a consumer was slow.
    slow_consumers,
    /// Connections ended because the peer broke the protocol or a limit.
    protocol_errors,
    /// Connections ended because no pong was received.
    pong_timeouts,
    /// Connections ended because something else took too long: a handshake, a message, a close.
    timeouts,
    /// Panics in handlers.
    panics,
    /// Connections closed because a callback returned an error ([`Disconnect`](crate::Disconnect)).
    callback_errors,
    /// Messages lost on their way to the subscribers of another worker, because its queue was full. The subscribers were
    /// told.
    missed,
    /// Lines of the log that were lost, in the whole process: a [`Writer`](crate::log::Writer) could not take or write
    /// them, or the subscriber panicked.
    log_lines_lost,
    /// Iterations of the workers' event loops.
    iterations,
}
