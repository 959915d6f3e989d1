//! Flow control from one worker to another: how much of what the one has sent waits in the other's mailbox.
//!
//! ```text
//!  sender:    has_room? ─ yes ─▶ put(weight); send        receiver:  taken(weight)
//!                 └────── no ──▶ wait(): starved = true              feed(): room and starved? ─▶ wake the sender
//!                                then look again
//! ```
//! The sender sets its flag before it looks again, and the receiver takes before it looks at the flag: one of the two
//! sees the other's change, so a sender that waits is always woken.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

/// Bytes of one worker that may wait in another's mailbox, beside a single larger command. What waits there delays all
/// that comes behind it: 256 KiB of 4 KiB messages to 400 subscribers take some 75 ms to deliver.
const WINDOW_BYTES: usize = 256 << 10;

/// Commands of one worker that may wait in another's mailbox: small messages of many topics.
const WINDOW_COMMANDS: usize = 2048;

/// One direction between two workers.
#[derive(Debug)]
pub(crate) struct FlowControl {
    commands: AtomicUsize,
    bytes: AtomicUsize,
    /// The sender waits for room.
    sender_waits: AtomicBool,
}

impl Default for FlowControl {
    fn default() -> Self {
        Self {
            commands: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            sender_waits: AtomicBool::new(false),
        }
    }
}

impl FlowControl {
    // ---- the sender ----

    /// Whether another command may be sent.
    pub(crate) fn has_room(&self) -> bool {
        // Read in this order in both places; SeqCst, as the flag and the counts are two variables (see above).
        self.commands.load(Ordering::SeqCst) < WINDOW_COMMANDS
            && self.bytes.load(Ordering::SeqCst) < WINDOW_BYTES
    }

    /// Asks to be woken when there is room. True: there is room by now.
    pub(crate) fn wait_for_room(&self) -> bool {
        self.sender_waits.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.has_room()
    }

    /// A command is being sent.
    pub(crate) fn record_sent(&self, weight: usize) {
        self.commands.fetch_add(1, Ordering::SeqCst);
        self.bytes.fetch_add(weight, Ordering::SeqCst);
    }

    // ---- the receiver ----

    /// A command was taken from the mailbox.
    pub(crate) fn record_received(&self, weight: usize) {
        self.commands.fetch_sub(1, Ordering::SeqCst);
        self.bytes.fetch_sub(weight, Ordering::SeqCst);
    }

    /// Whether the sender is to be woken: it waits, and there is room.
    pub(crate) fn take_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.sender_waits.load(Ordering::SeqCst)
            && self.has_room()
            && self.sender_waits.swap(false, Ordering::SeqCst)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_full_by_bytes_or_commands_and_one_command_always_fits() {
        let flow = FlowControl::default();
        flow.record_sent(10 * WINDOW_BYTES);
        assert!(!flow.has_room() && !flow.take_wake(), "nobody waits");
        assert!(!flow.wait_for_room() && !flow.take_wake());
        flow.record_received(10 * WINDOW_BYTES);
        assert!(flow.take_wake() && !flow.take_wake(), "woken once");
        (0..WINDOW_COMMANDS).for_each(|_| flow.record_sent(0));
        assert!(!flow.wait_for_room());
        flow.record_received(0);
        assert!(flow.take_wake() && flow.has_room() && flow.wait_for_room());
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;

    #[test]
    fn a_sender_that_waits_is_woken() {
        loom::model(|| {
            let flow = Arc::new(FlowControl::default());
            flow.record_sent(WINDOW_BYTES);
            let receiver = {
                let flow = flow.clone();
                loom::thread::spawn(move || {
                    flow.record_received(WINDOW_BYTES);
                    flow.take_wake()
                })
            };
            let has_room = flow.has_room() || flow.wait_for_room();
            let woken = receiver.join().unwrap();
            assert!(has_room || woken);
        });
    }
}
