//! permessage-deflate on a connection (RFC 7692): the encoding in which its messages are sent, and the history of
//! earlier messages with context takeover. Compressors and decompressors belong to the worker: the [`Codecs`].

use super::SlowConsumer;
use super::frames::Frames;
use crate::deflate::{Agreed, Deflate, Deflater, History, Inflater, MAX_WINDOW_BITS, MIN_WINDOW_BITS};
use crate::protocol::header::{self, Parsed, Role};
use crate::protocol::{Incoming, Message, ProtocolError};
use std::sync::Arc;

/// How messages to many receivers are sent to a connection: plain, or in one of the server's compressed encodings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Encoding(u16);

impl Encoding {
    #[inline]
    pub(crate) const fn is_plain(self) -> bool {
        self.0 == 0
    }

    /// Index of a compressed encoding among them.
    pub(crate) const fn index(self) -> usize {
        self.0 as usize - 1
    }
}

/// The settings that all messages of one encoding share: the route's, and the window that the client allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EncodingSettings {
    deflate: Deflate,
    window_bits: u8,
}

/// All encodings that the routes of a server can lead to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Encodings(Arc<[EncodingSettings]>);

impl Encodings {
    pub(crate) fn of<'a>(routes: impl Iterator<Item = &'a Deflate>) -> Self {
        let mut encodings = Vec::new();
        for deflate in routes.filter(|d| d.is_on()) {
            for window_bits in MIN_WINDOW_BITS..=MAX_WINDOW_BITS {
                let settings = EncodingSettings { deflate: *deflate, window_bits };
                if !encodings.contains(&settings) {
                    encodings.push(settings);
                }
            }
        }
        Self(encodings.into())
    }

    /// Returns the encoding for a connection of a route with these settings.
    fn encoding(&self, deflate: &Deflate, agreed: &Agreed) -> Encoding {
        let wanted = EncodingSettings { deflate: *deflate, window_bits: agreed.ours.window_bits };
        let at = self.0.iter().position(|s| *s == wanted);
        Encoding(at.map_or(0, |at| at as u16 + 1))
    }
}

/// What a connection agreed on, and the history of earlier messages.
#[derive(Debug)]
pub(crate) struct Compression {
    pub(crate) agreed: Agreed,
    /// History of sent, and of received messages; `None` without context takeover.
    sent: Option<History>,
    received: Option<History>,
}

/// A worker's compressors and decompressors, one for each encoding in use, and their output buffers.
#[derive(Debug, Default)]
pub(crate) struct Codecs {
    encodings: Encodings,
    deflaters: Vec<Option<Box<Deflater>>>,
    inflater: Option<Box<Inflater>>,
    compressed: Vec<u8>,
    decompressed: Vec<u8>,
    /// Iterations in which nothing is compressed.
    paused_iterations: u32,
    /// Bytes inflated plus bytes of output, in total: a block may produce no output and have cost as much.
    inflated: u64,
    pub(crate) counts: CompressionCounts,
}

/// What [`Codecs`] compressed since the last report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CompressionCounts {
    pub(crate) compressed: u64,
    pub(crate) decompressed: u64,
    pub(crate) skipped: u64,
    /// Bytes of the messages that were compressed.
    pub(crate) bytes: u64,
}

/// A buffer larger than this, grown by one large message, is freed.
const MAX_SPARE_BUFFER: usize = 1 << 20;

impl Codecs {
    pub(crate) fn new(encodings: Encodings) -> Self {
        let deflaters = encodings.0.iter().map(|_| None).collect();
        Self { encodings, deflaters, ..Self::default() }
    }

    /// Frees the buffers of earlier messages.
    pub(crate) fn trim(&mut self) {
        (self.compressed, self.decompressed) = (Vec::new(), Vec::new());
    }

    pub(crate) fn encodings(&self) -> usize {
        self.encodings.0.len()
    }

    /// Bytes inflated plus bytes of output, in total.
    #[inline]
    pub(crate) fn inflated(&self) -> u64 {
        self.inflated
    }

    /// Whether a message of `len` bytes would be compressed for this encoding.
    pub(crate) fn should_compress(&self, encoding: Encoding, len: usize) -> bool {
        !encoding.is_plain()
            && self.encodings.0.get(encoding.index()).is_some_and(|s| s.deflate.compresses(len))
    }

    /// Whether compression is paused.
    pub(crate) fn is_compression_paused(&self) -> bool {
        self.paused_iterations > 0
    }

    /// Returns what was compressed since the last call; `None` if nothing was.
    #[inline]
    pub(crate) fn take_counts(&mut self) -> Option<CompressionCounts> {
        let counts = core::mem::take(&mut self.counts);
        (counts != CompressionCounts::default()).then_some(counts)
    }

    /// Iterations for which compression stays paused, this one included.
    pub(crate) fn paused_for(&self) -> u32 {
        self.paused_iterations
    }

    pub(crate) fn pause_for(&mut self, iterations: u32) {
        self.paused_iterations = iterations;
    }

    /// Returns the compression state of a connection of this route. If messages may be dropped ([`SlowConsumer`]), no
    /// message refers to another: the peer may never see that one.
    pub(crate) fn accept_agreed(
        &self,
        deflate: &Deflate,
        agreed: Agreed,
        policy: SlowConsumer,
    ) -> (Encoding, Compression) {
        let sent = agreed.ours.history().filter(|_| matches!(policy, SlowConsumer::Close(_)));
        let received = agreed.theirs.history();
        (self.encodings.encoding(deflate, &agreed), Compression { agreed, sent, received })
    }

    /// Compresses frames for this encoding; `None` if none of them gets shorter.
    pub(super) fn compress_frames(&mut self, encoding: Encoding, frames: &Frames) -> Option<Frames> {
        let mut bytes = Vec::with_capacity(frames.len() / 2 + 64);
        let (mut ends, mut at, mut any) = (Vec::new(), 0, false);
        // Frames with explicit message ends have one end for each message, and not for each frame.
        let mut given = frames.ends().iter().peekable();
        while given.next_if(|end| **end == 0).is_some() {
            ends.push(0);
        }
        while at < frames.len() {
            let frame = &frames[at..at + header::own_frame_len(&frames[at..])];
            at += frame.len();
            let compressed = payload_of(frame).and_then(|payload| self.compress(encoding, payload, None));
            match compressed {
                Some(compressed) => {
                    header::write_frame_as(&mut bytes, frame[0] | header::RSV1, compressed);
                    any = true;
                }
                None => bytes.extend_from_slice(frame),
            }
            if frames.ends().is_empty() {
                ends.push(bytes.len());
            }
            while given.next_if(|end| **end <= at).is_some() {
                ends.push(bytes.len());
            }
        }
        any.then(|| Frames::with_ends(bytes, true, frames.messages_per_frame(), ends.into()))
    }

    /// Compresses into the output buffer. With a `history` the result is always used, since the history has advanced.
    /// `None`: the message is too short, or does not get shorter.
    fn compress(
        &mut self,
        encoding: Encoding,
        payload: &[u8],
        history: Option<&mut History>,
    ) -> Option<&[u8]> {
        let settings = self.encodings.0.get(encoding.index())?;
        if !settings.deflate.compresses(payload.len()) {
            return None;
        }
        let deflater = self.deflaters.get_mut(encoding.index())?.get_or_insert_with(|| {
            Box::new(Deflater::new(settings.window_bits, settings.deflate.compression_level()))
        });
        self.compressed.clear();
        let remembers = history.is_some();
        deflater.compress(payload, history, &mut self.compressed);
        self.counts.compressed += 1;
        self.counts.bytes += payload.len() as u64;
        (remembers || self.compressed.len() < payload.len()).then_some(&self.compressed)
    }
}

/// Returns the payload of a frame that this program encoded.
fn payload_of(frame: &[u8]) -> Option<&[u8]> {
    match header::decode(frame, Role::Client, false) {
        Ok(Parsed::Head(head)) if !head.opcode.is_control() => frame.get(usize::from(head.size)..),
        _ => None,
    }
}

impl Compression {
    /// Bytes of memory of the histories.
    pub(crate) fn held(&self) -> usize {
        [&self.sent, &self.received].into_iter().flatten().map(History::held).sum()
    }

    /// Forgets the history of sent messages: a message was sent that it does not contain. The window of the peer has
    /// moved, so nothing may refer to the earlier messages.
    pub(crate) fn reset_context(&mut self) {
        if let Some(sent) = &mut self.sent {
            sent.clear();
        }
    }

    /// Compresses a message for this connection alone into the output buffer and returns that. `None`: it is sent
    /// plain.
    pub(crate) fn compress(
        &mut self,
        encoding: Encoding,
        codecs: &mut Codecs,
        message: Message<'_>,
    ) -> Option<Vec<u8>> {
        if message.is_verbatim() || !codecs.should_compress(encoding, message.len()) {
            return None;
        }
        if codecs.is_compression_paused() {
            codecs.counts.skipped += 1;
            return None;
        }
        codecs.compress(encoding, message.as_bytes(), self.sent.as_mut())?;
        Some(core::mem::take(&mut codecs.compressed))
    }

    /// As [`Compression::compress`], for a frame that was encoded elsewhere.
    pub(crate) fn compress_frame(
        &mut self,
        encoding: Encoding,
        codecs: &mut Codecs,
        frames: &Frames,
    ) -> Option<Frames> {
        if frames.is_verbatim() {
            return None;
        }
        let message = Message::binary(payload_of(frames)?);
        let compressed = self.compress(encoding, codecs, message)?;
        let mut bytes = Vec::with_capacity(compressed.len() + header::MAX_HEAD);
        header::write_frame_as(&mut bytes, frames[0] | header::RSV1, &compressed);
        codecs.recycle_compressed(compressed);
        Some(Frames::with_verbatim(bytes, true))
    }

    /// Inflates a message into the output buffer and returns that; [`Codecs::recycle_decompressed`] takes it back.
    ///
    /// # Errors
    /// The message is over the limit, is not a deflate stream, or is not valid text. The connection has to end: its
    /// context can no longer be trusted.
    pub(crate) fn decompress(
        &mut self,
        codecs: &mut Codecs,
        incoming: &Incoming<'_>,
        limit: usize,
    ) -> Result<Vec<u8>, ProtocolError> {
        let mut decompressed = core::mem::take(&mut codecs.decompressed);
        decompressed.clear();
        codecs.counts.decompressed += 1;
        let inflater = codecs.inflater.get_or_insert_default();
        let history = self.received.as_mut();
        match inflater.inflate(incoming.payload(), history, incoming.kind(), limit, &mut decompressed) {
            Ok(()) => {
                codecs.inflated += (incoming.payload().len() + decompressed.len()) as u64;
                Ok(decompressed)
            }
            Err(e) => {
                codecs.inflated += limit as u64; // upper bound, including what was over the limit
                codecs.recycle_decompressed(decompressed);
                Err(e)
            }
        }
    }
}

impl Codecs {
    /// Takes back the buffer of a message that has been processed.
    pub(crate) fn recycle_decompressed(&mut self, decompressed: Vec<u8>) {
        if decompressed.capacity() <= MAX_SPARE_BUFFER {
            self.decompressed = decompressed;
        }
    }

    /// Takes back the buffer of a message that was sent.
    pub(crate) fn recycle_compressed(&mut self, compressed: Vec<u8>) {
        if compressed.capacity() <= MAX_SPARE_BUFFER {
            self.compressed = compressed;
        }
    }
}
