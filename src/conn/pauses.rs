//! Why a connection is not read from: a small set of reasons, each with its owner.

/// A reason not to read from a connection. A reason has one owner, which sets and clears it; reading continues when no
/// reason is left. A new one needs a bit here, a call of [`Connection::pause`](super::Connection::pause), and later one
/// of [`Connection::resume`](super::Connection::resume) followed by the worker's `write_and_advance`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PauseReason {
    /// The application asked for it: `Conn::pause`, `Handle::pause`.
    Application = 1,
    /// Plain HTTP: a request was received behind one that is still being answered.
    Request = 2,
    /// It has sent more than its route's rates allow, and may not send yet.
    Rate = 4,
    /// It published to a topic whose queue for other workers is too long: the hub resumes it.
    Congestion = 8,
}

/// The reasons that apply now; empty: the connection is read from. One byte, so that the test on the message path stays
/// one comparison with zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pauses(u8);

impl Pauses {
    #[cfg(test)]
    pub(crate) const fn none() -> Self {
        Self(0)
    }

    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this reason applies and no other.
    pub(crate) fn is_only(self, reason: PauseReason) -> bool {
        self.0 == reason as u8
    }

    pub(crate) fn contains(self, reason: PauseReason) -> bool {
        self.0 & reason as u8 != 0
    }

    pub(crate) fn insert(&mut self, reason: PauseReason) {
        self.0 |= reason as u8;
    }

    /// Removes a reason. Returns whether it was there.
    pub(crate) fn remove(&mut self, reason: PauseReason) -> bool {
        let was = self.contains(reason);
        self.0 &= !(reason as u8);
        was
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_reasons_are_cleared_independently() {
        let mut pauses = Pauses::default();
        pauses.insert(PauseReason::Application);
        pauses.insert(PauseReason::Request);
        assert!(pauses.remove(PauseReason::Application) && !pauses.is_empty());
        assert!(!pauses.remove(PauseReason::Application), "it was cleared before");
        assert!(pauses.contains(PauseReason::Request) && !pauses.contains(PauseReason::Application));
        assert!(pauses.is_only(PauseReason::Request));
        assert!(pauses.remove(PauseReason::Request) && pauses.is_empty());
    }
}
