//! From compressed messages to payloads: RFC 7692, section 7.2.2.

use super::{History, MAX_WINDOW_BITS, TAIL};
use crate::protocol::utf8::Validator;
use crate::protocol::{Kind, ProtocolError};
use core::fmt;
use zlib_rs::{InflateFlush, Status};

/// Bytes that are inflated before they are validated and more room is made: they and the window stay in the cache.
const STEP: usize = 32 << 10;

/// A byte of DEFLATE is at most four matches of 258 bytes.
const MAX_EXPANSION: usize = 1032;

/// The tail, and a last block that is empty. If both are read as just that and become nothing, the message ended where
/// its blocks end: one that was cut is not taken for a whole one.
const END: [u8; 9] = {
    let [a, b, c, d] = TAIL;
    [a, b, c, d, 0x01, a, b, c, d]
};

/// A decompressor, for any window. It remembers nothing from one message to the next: what a message refers to is lent
/// as a [`History`].
pub struct Inflater {
    stream: zlib_rs::Inflate,
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").finish_non_exhaustive()
    }
}

impl Default for Inflater {
    fn default() -> Self {
        Self::new()
    }
}

impl Inflater {
    /// A decompressor. It holds the largest window, since zlib-rs has no smaller ones.
    #[must_use]
    pub fn new() -> Self {
        Self { stream: zlib_rs::Inflate::new(false, MAX_WINDOW_BITS) }
    }

    /// Appends what the payload of one message, all its fragments together, stands for to `out`. Text is validated as
    /// it comes. With a `history` (context takeover) the message may refer to what it holds, and is added to it.
    ///
    /// `out` becomes at most `limit` and 1 bytes longer, and while it grows at most 32 KiB are held besides: beyond
    /// those, room for all that the message may become is reserved at once, and is memory only as it is filled.
    ///
    /// # Errors
    /// [`ProtocolError::MessageTooBig`] as soon as there are more than `limit` bytes, [`ProtocolError::CorruptDeflate`],
    /// and [`ProtocolError::InvalidUtf8`] as soon as text can't become valid. `out` is then as it was, and a history
    /// has no use any more: the connection has failed.
    pub fn inflate(
        &mut self,
        payload: &[u8],
        history: Option<&mut History>,
        kind: Kind,
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        let before = history.as_ref().map_or(&[][..], |h| h.as_bytes());
        let mut output = Output {
            before: out.len(),
            filled: out.len(),
            bytes: out,
            limit,
            utf8: (kind == Kind::Text).then(Validator::default),
        };
        let result = self.run(payload, before, &mut output).and_then(|()| output.finish());
        let message =
            if result.is_ok() { output.before..output.filled } else { output.before..output.before };
        out.truncate(message.end);
        if let Some(history) = history {
            history.record(&out[message]);
        }
        result
    }

    fn run(&mut self, payload: &[u8], before: &[u8], output: &mut Output<'_>) -> Result<(), ProtocolError> {
        // Some peers send an empty message so, though section 7.2.3.6 has a byte for it.
        if payload.is_empty() {
            return Ok(());
        }
        self.stream.reset(false);
        if !before.is_empty() {
            self.stream.set_dictionary(before).map_err(|_| ProtocolError::CorruptDeflate)?;
        }
        let (mut input, mut at_end) = (payload, false);
        loop {
            let room = output.room(payload.len())?;
            let space = room.len();
            let (total_in, total_out) = (self.stream.total_in(), self.stream.total_out());
            let status = self
                .stream
                .decompress(input, room, InflateFlush::NoFlush)
                .map_err(|_| ProtocolError::CorruptDeflate)?;
            let written = (self.stream.total_out() - total_out) as usize;
            input = &input[(self.stream.total_in() - total_in) as usize..];
            output.wrote(written)?;
            if at_end && written > 0 {
                return Err(ProtocolError::CorruptDeflate);
            }
            match status {
                // Section 7.2.3.4: a block may say that it is the last. A peer that then also leaves out the byte of
                // the empty block has said all the same where its message ends.
                Status::StreamEnd if input.is_empty() => return Ok(()),
                // Section 7.2.1: blocks may follow it all the same, from the next byte on. For zlib on the other side
                // that is a new stream, with nothing behind it.
                Status::StreamEnd if !at_end => self.stream.reset(false),
                Status::StreamEnd => return Err(ProtocolError::CorruptDeflate),
                // What is inflated already may wait for room.
                Status::Ok | Status::BufError if written == space => {}
                // Nothing waits: what the end became would be its own.
                Status::Ok | Status::BufError if input.is_empty() && !at_end => {
                    (input, at_end) = (&END, true)
                }
                Status::Ok | Status::BufError => return Err(ProtocolError::CorruptDeflate),
            }
        }
    }
}

/// Where a message is inflated to.
struct Output<'a> {
    bytes: &'a mut Vec<u8>,
    /// Bytes that were there before.
    before: usize,
    /// Where to go on; what is behind it is room.
    filled: usize,
    limit: usize,
    utf8: Option<Validator>,
}

impl Output<'_> {
    /// Room for the next step, at least one byte: the one over the limit, if need be, since only writing it shows that
    /// there is more.
    fn room(&mut self, compressed: usize) -> Result<&mut [u8], ProtocolError> {
        let done = self.filled - self.before;
        let rest = self.limit.saturating_sub(done).saturating_add(1);
        // Text becomes three to five times as much.
        let step = if done == 0 { compressed.saturating_mul(6).clamp(256, STEP) } else { STEP }.min(rest);
        if self.filled + step > self.bytes.capacity() {
            // At once, since a buffer that moves is there twice for a moment.
            let most = compressed.saturating_add(1).saturating_mul(MAX_EXPANSION).saturating_sub(done);
            let reserve = if done == 0 { step } else { rest.min(most).max(step) };
            self.bytes.truncate(self.filled);
            self.bytes
                .try_reserve_exact(reserve)
                .map_err(|_| ProtocolError::MessageTooBig { limit: self.limit })?;
        }
        self.bytes.resize(self.filled + step, 0);
        Ok(&mut self.bytes[self.filled..])
    }

    fn wrote(&mut self, n: usize) -> Result<(), ProtocolError> {
        let from = self.filled;
        self.filled += n;
        if self.filled - self.before > self.limit {
            return Err(ProtocolError::MessageTooBig { limit: self.limit });
        }
        match &mut self.utf8 {
            Some(utf8) => utf8.feed(&self.bytes[from..self.filled]).map_err(|_| ProtocolError::InvalidUtf8),
            None => Ok(()),
        }
    }

    fn finish(&self) -> Result<(), ProtocolError> {
        self.utf8.unwrap_or_default().finish().map_err(|_| ProtocolError::InvalidUtf8)
    }
}
