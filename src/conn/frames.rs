//! Encoded frames, shared by everybody they are for, each with a compressed twin for every form that was asked of it.

use super::{Form, Packer};
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
    /// Messages that each frame is: one, but where an envelope holds several.
    each: u32,
    /// By form. Whoever first needs one makes it, on whichever worker; another that comes meanwhile waits, which is
    /// shorter than making it again.
    twins: OnceLock<Box<[OnceLock<Option<Twin>>]>>,
    /// By envelope, likewise.
    wrapped: OnceLock<Box<[OnceLock<Twin>]>>,
}

#[derive(Debug)]
enum Bytes {
    Own(Vec<u8>),
    /// Others have them too, without what is made of them here.
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

/// The same messages as other bytes.
#[derive(Debug)]
pub(crate) struct Twin {
    pub(crate) frames: Frames,
    /// Where each message ends.
    pub(crate) ends: Box<[usize]>,
}

impl Frames {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self::with(bytes, false)
    }

    /// Whether the frames are to stay as they are.
    pub(crate) fn with(bytes: Vec<u8>, verbatim: bool) -> Self {
        Self::holding(bytes, verbatim, 1)
    }

    /// The same for frames that are so many messages each.
    pub(crate) fn holding(bytes: Vec<u8>, verbatim: bool, each: u32) -> Self {
        Self::encoded(Bytes::Own(bytes), verbatim, each)
    }

    fn encoded(bytes: Bytes, verbatim: bool, each: u32) -> Self {
        Self(Arc::new(Encoded { bytes, verbatim, each, twins: OnceLock::new(), wrapped: OnceLock::new() }))
    }

    /// The same bytes, to be kept for long: without the twins and envelopes that will be made of these, which can be many
    /// times as much. Where others have these frames already, they are shared as a whole.
    pub(crate) fn bare(&mut self) -> Self {
        if let Some(Encoded { bytes, .. }) = Arc::get_mut(&mut self.0)
            && let Bytes::Own(own) = bytes
        {
            *bytes = Bytes::Shared(Arc::new(core::mem::take(own)));
        }
        match &self.0.bytes {
            Bytes::Own(_) => self.clone(),
            Bytes::Shared(bytes) => Self::encoded(Bytes::Shared(bytes.clone()), self.0.verbatim, self.0.each),
        }
    }

    pub(crate) fn of(message: Message<'_>) -> Self {
        let mut bytes = Vec::with_capacity(message.len() + header::MAX_HEAD);
        header::write_frame(&mut bytes, message.kind().into(), message.as_bytes());
        Self::with(bytes, message.is_verbatim())
    }

    pub(crate) fn is_verbatim(&self) -> bool {
        self.0.verbatim
    }

    /// Messages that each frame is.
    pub(crate) fn each(&self) -> u32 {
        self.0.each
    }

    /// Messages in these frames.
    pub(crate) fn messages_in(&self, range: Range<usize>) -> u32 {
        let (mut rest, mut n) = (&self.0.bytes[range], 0);
        while !rest.is_empty() {
            rest = &rest[header::own_frame_len(rest)..];
            n += self.0.each;
        }
        n
    }

    /// Whether both are the same buffer.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The buffer, where nobody else has a share of it.
    pub(crate) fn get_mut(&mut self) -> Option<&mut Vec<u8>> {
        match &mut Arc::get_mut(&mut self.0)?.bytes {
            Bytes::Own(bytes) => Some(bytes),
            Bytes::Shared(_) => None,
        }
    }

    /// The frames as a receiver of this form takes them; `None`: as they are.
    pub(crate) fn twin(&self, form: Form, packer: &mut Packer) -> Option<&Twin> {
        if form.is_plain() || self.0.verbatim || !packer.compresses(form, self.len()) {
            return None;
        }
        let made = self.0.twins.get().and_then(|twins| twins.get(form.index())?.get());
        match made {
            Some(twin) => twin.as_ref(),
            // What exists is sent although the loop has fallen behind; nothing new is made.
            None if packer.is_behind() => {
                packer.counts.skipped += 1;
                None
            }
            None => {
                let twins =
                    self.0.twins.get_or_init(|| (0..packer.forms()).map(|_| OnceLock::new()).collect());
                twins.get(form.index())?.get_or_init(|| packer.pack_frames(form, self)).as_ref()
            }
        }
    }

    /// The frames in an envelope, one of so many.
    pub(crate) fn wrapped(&self, at: usize, of: usize, wrap: impl FnOnce() -> Twin) -> Option<&Twin> {
        let all = self.0.wrapped.get_or_init(|| (0..of).map(|_| OnceLock::new()).collect());
        Some(all.get(at)?.get_or_init(wrap))
    }

    /// Bytes of memory that the buffer has.
    #[cfg(test)]
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
    fn what_is_kept_shares_the_bytes_and_nothing_that_is_made_of_them() {
        let twin = || Twin { frames: Frames::new(vec![0x81, 0]), ends: [2].into() };
        let mut sent = Frames::of("kept".into());
        let kept = sent.bare();
        assert!(sent.wrapped(0, 1, twin).is_some());
        assert_eq!((kept.as_ptr(), &*kept), (sent.as_ptr(), &*sent), "one buffer");
        assert!(kept.0.wrapped.get().is_none() && sent.0.wrapped.get().is_some());
        // Where others have them already there is one whole, and it is not copied.
        let mut shared = Frames::of("shared".into());
        let _other = shared.clone();
        assert!(shared.bare().is(&shared));
    }
}
