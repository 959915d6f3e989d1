//! What a route or a client says about compression.

use super::{MAX_WINDOW_BITS, MIN_WINDOW_BITS};

/// Whether and how messages are compressed: the settings of a route or a client. Values beyond their range are taken
/// for the nearest.
///
/// ```
/// use campanile::deflate::Deflate;
/// let deflate = Deflate::dedicated(11).level(2).threshold(256);
/// assert_eq!(deflate.window(), Some(11));
/// assert!(!Deflate::off().is_on());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflate {
    mode: Mode,
    level: u8,
    threshold: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Off,
    Shared,
    Dedicated { window_bits: u8 },
}

impl Deflate {
    const fn new(mode: Mode, threshold: usize) -> Self {
        Self { mode, level: 1, threshold }
    }

    /// Nothing is compressed, and no offer taken.
    #[must_use]
    pub const fn off() -> Self {
        Self::new(Mode::Off, usize::MAX)
    }

    /// Every message is compressed by itself, in both directions: no context takeover. A connection owns nothing for
    /// it, and a message to many is compressed once.
    #[must_use]
    pub const fn shared() -> Self {
        Self::new(Mode::Shared, 1024)
    }

    /// A message may refer to those before it: context takeover with a window of 2 to the power of `window_bits` bytes
    /// in each direction, from 9 to 15. A connection holds at most twice a window, as much as it has said and heard:
    /// 4 KiB with 11, 64 KiB with 15. A message to many is compressed once for all, and refers to none before it.
    #[must_use]
    pub const fn dedicated(window_bits: u8) -> Self {
        let window_bits = match window_bits {
            0..MIN_WINDOW_BITS => MIN_WINDOW_BITS,
            MIN_WINDOW_BITS..=MAX_WINDOW_BITS => window_bits,
            _ => MAX_WINDOW_BITS,
        };
        Self::new(Mode::Dedicated { window_bits }, 128)
    }

    /// How hard to search, as zlib has it: 0 not at all, 1 fast, 9 long. Default 1.
    #[must_use]
    pub const fn level(mut self, level: u8) -> Self {
        self.level = if level > 9 { 9 } else { level };
        self
    }

    /// Bytes below which a message is sent as it is. Default 1,024 for [`Deflate::shared`], 128 for
    /// [`Deflate::dedicated`].
    #[must_use]
    pub const fn threshold(mut self, bytes: usize) -> Self {
        self.threshold = bytes;
        self
    }

    /// Whether offers are made and taken.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        !matches!(self.mode, Mode::Off)
    }

    /// The window of context takeover; none without.
    #[must_use]
    pub const fn window(&self) -> Option<u8> {
        match self.mode {
            Mode::Dedicated { window_bits } => Some(window_bits),
            Mode::Off | Mode::Shared => None,
        }
    }

    /// The level for [`Deflater::new`](super::Deflater::new).
    #[must_use]
    pub const fn compression_level(&self) -> u8 {
        self.level
    }

    /// Whether a message of so many bytes is worth compressing.
    #[must_use]
    pub const fn compresses(&self, len: usize) -> bool {
        self.is_on() && len >= self.threshold
    }
}

impl Default for Deflate {
    /// [`Deflate::off`].
    fn default() -> Self {
        Self::off()
    }
}
