//! What a route or a client says about compression.

use super::{MAX_WINDOW_BITS, MIN_WINDOW_BITS};
use core::fmt;

/// Whether and how messages are compressed: the settings of a route or a client. With values beyond their range a server
/// is not built and a client does not connect.
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

/// The hardest search.
const MAX_LEVEL: u8 = 9;

/// A setting that zlib does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidDeflate {
    /// A window of [`Deflate::dedicated`] that is not from 9 to 15 bits.
    Window {
        /// The bits.
        bits: u8,
    },
    /// A level that is not from 0 to 9.
    Level {
        /// The level.
        level: u8,
    },
}

impl InvalidDeflate {
    pub(crate) const fn setting(self) -> &'static str {
        match self {
            Self::Window { .. } => "Deflate::dedicated",
            Self::Level { .. } => "Deflate::level",
        }
    }

    pub(crate) const fn given(self) -> u8 {
        match self {
            Self::Window { bits } => bits,
            Self::Level { level } => level,
        }
    }

    pub(crate) const fn expected(self) -> &'static str {
        match self {
            Self::Window { .. } => "9 to 15 bits",
            Self::Level { .. } => "0 to 9",
        }
    }
}

impl fmt::Display for InvalidDeflate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, expected {}", self.setting(), self.given(), self.expected())
    }
}

impl core::error::Error for InvalidDeflate {}

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
    /// in each direction, from 9 to 15. A connection holds at most twice a window, and no more than it has sent and
    /// received: 4 KiB with 11, 64 KiB with 15. A message to many is compressed once for all of them, and refers to
    /// none before it.
    #[must_use]
    pub const fn dedicated(window_bits: u8) -> Self {
        Self::new(Mode::Dedicated { window_bits }, 128)
    }

    /// How hard to search, as zlib has it: 0 not at all, 1 fast, 9 long. 0 to 9; default 1.
    #[must_use]
    pub const fn level(mut self, level: u8) -> Self {
        self.level = level;
        self
    }

    /// Bytes below which a message is sent as it is. Default 1,024 for [`Deflate::shared`], 128 for
    /// [`Deflate::dedicated`].
    #[must_use]
    pub const fn threshold(mut self, bytes: usize) -> Self {
        self.threshold = bytes;
        self
    }

    /// Checks what was given.
    pub(crate) const fn check(&self) -> Result<(), InvalidDeflate> {
        match self.mode {
            Mode::Dedicated { window_bits: bits } if bits < MIN_WINDOW_BITS || bits > MAX_WINDOW_BITS => {
                Err(InvalidDeflate::Window { bits })
            }
            _ if self.level > MAX_LEVEL => Err(InvalidDeflate::Level { level: self.level }),
            _ => Ok(()),
        }
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

    /// Whether a message of `len` bytes is worth compressing.
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
