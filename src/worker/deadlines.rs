//! When a connection must be checked, and what is due then. Pure: time is given in ticks.

use super::wheel::{TICK_MS, Tick};
use crate::conn::{Cause, Limits, PauseReason, Pauses};
use crate::protocol::CloseCode;
use core::time::Duration;

/// When things happened, in ticks; 0: never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timestamps {
    /// Data was received.
    pub(crate) received: Tick,
    /// A message was received.
    pub(crate) message: Tick,
    /// The unfinished message began.
    pub(crate) message_began: Tick,
    /// A ping was sent, and nothing received since.
    pub(crate) pinged: Tick,
    /// The backlog began to wait, or the kernel last accepted some of it.
    pub(crate) stalled: Tick,
    /// When the current phase times out. While open: when a peer that has ended its half is disconnected, if its rate
    /// still pauses reading.
    pub(crate) deadline: Tick,
}

/// Returns a duration in ticks, at least one.
pub(crate) fn ticks(duration: Duration) -> Tick {
    let ticks = duration.as_millis().div_ceil(u128::from(TICK_MS));
    u32::try_from(ticks).unwrap_or(u32::MAX / 2).clamp(1, u32::MAX / 2)
}

/// What is due for an open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing until this tick.
    At(Tick),
    /// A ping.
    Ping,
    /// The connection must end.
    End(CloseCode, &'static str, Cause),
}

/// Checks an open connection. While it is paused nothing is read, so silence means nothing; but a peer that does not
/// read its backlog holds memory, paused or not. Pauses for the rate don't extend the time for an unfinished message:
/// they come between two messages, so only a peer that sends pings within a message can be paused there.
pub(crate) fn check_deadlines(timestamps: &Timestamps, limits: &Limits, pauses: Pauses, now: Tick) -> Due {
    let mut next = now + ticks(Duration::from_secs(60));
    if timestamps.stalled != 0 {
        let due = timestamps.stalled + ticks(limits.write_timeout);
        if due <= now {
            return Due::End(CloseCode::TIMEOUT, "nothing was read in time", Cause::WriteTimeout);
        }
        next = next.min(due);
    }
    if !pauses.is_empty() && !pauses.is_only(PauseReason::Rate) {
        return Due::At(next);
    }
    if timestamps.message_began != 0 {
        let due = timestamps.message_began + ticks(limits.message_timeout);
        if due <= now {
            return Due::End(CloseCode::POLICY, "message not finished in time", Cause::MessageTimeout);
        }
        next = next.min(due);
    }
    if !pauses.is_empty() {
        return Due::At(next);
    }
    if limits.idle_timeout > Duration::ZERO {
        let due = timestamps.message + ticks(limits.idle_timeout);
        if due <= now {
            return Due::End(CloseCode::NORMAL, "idle", Cause::IdleTimeout);
        }
        next = next.min(due);
    }
    if limits.ping_interval > Duration::ZERO {
        // Only received data resets the liveness timer: sending to a dead peer succeeds until the kernel's buffers are
        // full.
        if timestamps.pinged != 0 && timestamps.received < timestamps.pinged {
            let due = timestamps.pinged + ticks(limits.pong_timeout);
            if due <= now {
                return Due::End(CloseCode::TIMEOUT, "no pong", Cause::PongTimeout);
            }
            return Due::At(next.min(due));
        }
        let due = timestamps.received + ticks(limits.ping_interval);
        if due <= now {
            return Due::Ping;
        }
        next = next.min(due);
    }
    Due::At(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Pauses = Pauses::none();

    fn paused(reason: PauseReason) -> Pauses {
        let mut pauses = READ;
        pauses.insert(reason);
        pauses
    }

    fn seconds(s: u64) -> Tick {
        ticks(Duration::from_secs(s))
    }

    #[test]
    fn a_silent_connection_is_pinged_then_ended() {
        let limits = Limits::default();
        let mut timestamps = Timestamps { received: 10, message: 10, ..Default::default() };
        assert_eq!(check_deadlines(&timestamps, &limits, READ, 11), Due::At(10 + seconds(25)));
        let now = 10 + seconds(25);
        assert_eq!(check_deadlines(&timestamps, &limits, READ, now), Due::Ping);
        timestamps.pinged = now;
        assert_eq!(check_deadlines(&timestamps, &limits, READ, now + 1), Due::At(now + seconds(10)));
        assert!(matches!(
            check_deadlines(&timestamps, &limits, READ, now + seconds(10)),
            Due::End(CloseCode::TIMEOUT, _, Cause::PongTimeout)
        ));
        for reason in [PauseReason::Application, PauseReason::Rate] {
            assert!(matches!(
                check_deadlines(&timestamps, &limits, paused(reason), now + seconds(10)),
                Due::At(_)
            ));
        }
        timestamps.received = now + 3;
        assert_eq!(
            check_deadlines(&timestamps, &limits, READ, now + seconds(10)),
            Due::At(now + 3 + seconds(25))
        );
    }

    #[test]
    fn unfinished_messages_and_idle_connections_time_out() {
        let mut limits = Limits::default();
        let timestamps = Timestamps { received: 900, message: 100, message_began: 200, ..Default::default() };
        let end = check_deadlines(&timestamps, &limits, READ, 200 + seconds(30));
        assert!(matches!(end, Due::End(CloseCode::POLICY, _, Cause::MessageTimeout)));
        assert_eq!(check_deadlines(&timestamps, &limits, paused(PauseReason::Rate), 200 + seconds(30)), end);
        assert!(matches!(
            check_deadlines(&timestamps, &limits, paused(PauseReason::Application), 9999),
            Due::At(_)
        ));
        limits.idle_timeout = Duration::from_secs(20);
        let end = check_deadlines(&timestamps, &limits, READ, 100 + seconds(20));
        assert!(matches!(end, Due::End(CloseCode::NORMAL, _, Cause::IdleTimeout)));
    }
}
