//! Connection ids, which are never reused.

use core::fmt;
use core::str::FromStr;

/// The id of one connection, unique for the life of the server. It carries worker, slot and generation: the next
/// connection in a slot has another id, so a command for a closed connection has no effect.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

/// Slots that one worker may have: 24 bits.
pub(crate) const MAX_SLOTS: usize = 1 << 24;

impl ConnId {
    /// `worker` below 256, `slot` below [`MAX_SLOTS`], `generation` not 0.
    pub(crate) const fn new(worker: usize, slot: usize, generation: u32) -> Self {
        debug_assert!(worker < 256 && slot < MAX_SLOTS && generation != 0);
        Self((generation as u64) << 32 | (slot as u64) << 8 | worker as u64)
    }

    pub(crate) const fn worker(self) -> usize {
        self.0 as usize & 0xFF
    }

    pub(crate) const fn slot(self) -> usize {
        (self.0 >> 8) as usize & (MAX_SLOTS - 1)
    }

    pub(crate) const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The id as a number, for logs and maps. Never 0.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.worker(), self.slot(), self.generation())
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnId({self})")
    }
}

/// A text that is not a connection id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidConnId;

impl fmt::Display for InvalidConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a connection's name is three numbers with dots between, such as 0.12.7")
    }
}

impl std::error::Error for InvalidConnId {}

impl FromStr for ConnId {
    type Err = InvalidConnId;

    /// Parses an id as `Display` writes it.
    fn from_str(text: &str) -> Result<Self, InvalidConnId> {
        let mut parts = text.split('.').map(|part| {
            let plain = part.bytes().all(|b| b.is_ascii_digit());
            part.parse::<u32>().ok().filter(|_| plain)
        });
        let mut next = || parts.next().flatten().ok_or(InvalidConnId);
        let (worker, slot, generation) = (next()? as usize, next()? as usize, next()?);
        let holds = worker < 256 && slot < MAX_SLOTS && generation != 0 && parts.next().is_none();
        if holds { Ok(Self::new(worker, slot, generation)) } else { Err(InvalidConnId) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_id_holds_worker_slot_and_generation() {
        let id = ConnId::new(255, MAX_SLOTS - 1, u32::MAX);
        assert_eq!((id.worker(), id.slot(), id.generation()), (255, MAX_SLOTS - 1, u32::MAX));
        assert_ne!(ConnId::new(0, 0, 1), ConnId::new(0, 0, 2));
        assert_eq!(ConnId::new(3, 7, 9).to_string(), "3.7.9");
    }

    #[test]
    fn a_connections_name_is_read_as_it_is_written() {
        let id = ConnId::new(3, 70_000, u32::MAX);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "1", "1.2", "1.2.0", "256.0.1", "0.16777216.1", "0.0.1.2", "0.+1.1", "a.b.c", "0..1"]
        {
            assert_eq!(bad.parse::<ConnId>(), Err(InvalidConnId), "{bad:?}");
        }
    }
}
