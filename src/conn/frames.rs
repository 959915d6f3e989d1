//! Encoded frames, shared by all their receivers, with the compressed variants that were made of them.
//!
//! A variant depends on the bytes of the frames only, so frames may be shared between topics. Envelopes depend on a
//! topic or a position, so the batch keeps them ([`Envelopes`](crate::hub::Envelopes)).

use super::{Codecs, Encoding};
use crate::protocol::{Message, header};
use core::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};

/// One or more encoded frames. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Frames(Arc<Encoded>);

#[derive(Debug)]
struct Encoded {
    bytes: Bytes,
    /// Not to be compressed, whatever the receiver has agreed on.
    verbatim: bool,
    /// Messages in each frame: one, unless an envelope holds several.
    messages_per_frame: u32,
    /// Where each message ends; empty where each frame is one message.
    ends: Box<[usize]>,
    /// Compressed variants by encoding. The first worker that needs one makes it; another one waits for it, which takes
    /// less time than making it again.
    variants: OnceLock<Box<[OnceLock<Option<Frames>>]>>,
}

#[derive(Debug)]
enum Bytes {
    Own(Vec<u8>),
    /// A buffer shared with others, without the variants that are made here.
    Shared(Arc<Vec<u8>>),
}

impl Deref for Bytes {
    type Target = Vec<u8>;
    #[inline]
    fn deref(&self) -> &Vec<u8> {
        match self {
            Self::Own(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

impl Frames {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self::with_verbatim(bytes, false)
    }

    /// Frames with this setting of `verbatim`.
    pub(crate) fn with_verbatim(bytes: Vec<u8>, verbatim: bool) -> Self {
        Self::with_count(bytes, verbatim, 1)
    }

    /// Frames that hold `messages_per_frame` messages each.
    pub(crate) fn with_count(bytes: Vec<u8>, verbatim: bool, messages_per_frame: u32) -> Self {
        Self::encoded(Bytes::Own(bytes), verbatim, messages_per_frame, Box::default())
    }

    /// Frames whose messages end at `ends`: a message may have no frame, or several may share one.
    pub(crate) fn with_ends(
        bytes: Vec<u8>,
        verbatim: bool,
        messages_per_frame: u32,
        ends: Box<[usize]>,
    ) -> Self {
        Self::encoded(Bytes::Own(bytes), verbatim, messages_per_frame, ends)
    }

    fn encoded(bytes: Bytes, verbatim: bool, messages_per_frame: u32, ends: Box<[usize]>) -> Self {
        Self(Arc::new(Encoded { bytes, verbatim, messages_per_frame, ends, variants: OnceLock::new() }))
    }

    /// Where each message ends; empty where each frame is one message.
    pub(crate) fn ends(&self) -> &[usize] {
        &self.0.ends
    }

    /// The same bytes for a history, without the variants, which can be many times as large. Frames that are already
    /// shared are shared as a whole.
    pub(crate) fn plain(&mut self) -> Self {
        if let Some(Encoded { bytes, .. }) = Arc::get_mut(&mut self.0)
            && let Bytes::Own(own) = bytes
        {
            *bytes = Bytes::Shared(Arc::new(core::mem::take(own)));
        }
        match &self.0.bytes {
            Bytes::Own(_) => self.clone(),
            Bytes::Shared(bytes) => Self::encoded(
                Bytes::Shared(bytes.clone()),
                self.0.verbatim,
                self.0.messages_per_frame,
                self.0.ends.clone(),
            ),
        }
    }

    pub(crate) fn of(message: Message<'_>) -> Self {
        let mut bytes = Vec::with_capacity(message.len() + header::MAX_HEAD);
        header::write_frame(&mut bytes, message.kind().into(), message.as_bytes());
        Self::with_verbatim(bytes, message.is_verbatim())
    }

    pub(crate) fn is_verbatim(&self) -> bool {
        self.0.verbatim
    }

    /// Messages in each frame.
    pub(crate) fn messages_per_frame(&self) -> u32 {
        self.0.messages_per_frame
    }

    /// Messages in these frames.
    pub(crate) fn messages_in(&self, range: Range<usize>) -> u32 {
        let (mut rest, mut n) = (&self.0.bytes[range], 0);
        while !rest.is_empty() {
            rest = &rest[header::own_frame_len(rest)..];
            n += self.0.messages_per_frame;
        }
        n
    }

    /// Whether both are the same buffer.
    pub(crate) fn ptr_eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The buffer, if it is not shared.
    pub(crate) fn get_mut(&mut self) -> Option<&mut Vec<u8>> {
        match &mut Arc::get_mut(&mut self.0)?.bytes {
            Bytes::Own(bytes) => Some(bytes),
            Bytes::Shared(_) => None,
        }
    }

    /// The compressed variant for a receiver of this encoding; `None`: the frames are sent plain.
    pub(crate) fn variant(&self, encoding: Encoding, codecs: &mut Codecs) -> Option<&Self> {
        if encoding.is_plain() || self.0.verbatim || !codecs.should_compress(encoding, self.len()) {
            return None;
        }
        let made = self.0.variants.get().and_then(|variants| variants.get(encoding.index())?.get());
        match made {
            Some(variant) => variant.as_ref(),
            // An existing variant is sent although compression is paused; no new one is made.
            None if codecs.is_compression_paused() => {
                codecs.counts.skipped += 1;
                None
            }
            None => {
                let variants = self
                    .0
                    .variants
                    .get_or_init(|| (0..codecs.encodings()).map(|_| OnceLock::new()).collect());
                variants
                    .get(encoding.index())?
                    .get_or_init(|| codecs.compress_frames(encoding, self))
                    .as_ref()
            }
        }
    }

    /// Bytes of memory that the buffer has.
    pub(crate) fn capacity(&self) -> usize {
        self.0.bytes.capacity()
    }

    #[cfg(test)]
    pub(crate) fn shares(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

impl Deref for Frames {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_frames_share_their_bytes() {
        let mut sent = Frames::of("kept".into());
        let kept = sent.plain();
        assert_eq!((kept.as_ptr(), &*kept), (sent.as_ptr(), &*sent), "one buffer");
        assert!(!kept.ptr_eq(&sent), "without the variants");
        // Frames that are already shared are shared as a whole and not copied.
        let mut shared = Frames::of("shared".into());
        let _other = shared.clone();
        assert!(shared.plain().ptr_eq(&shared));
    }
}
