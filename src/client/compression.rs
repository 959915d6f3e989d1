//! permessage-deflate (RFC 7692) in the client's role: what a connection remembers, and what a thread lends to all of
//! them.

use crate::deflate::{Agreed, Deflate, Deflater, History, Inflater};
use crate::protocol::{Kind, ProtocolError};

/// A buffer that one large message has grown is not kept.
const MAX_KEPT: usize = 1 << 20;

/// What makes bytes anew on their way, for any number of connections: compressors and a decompressor, made as they are
/// needed, some 100 to 300 KiB each, and buffers.
#[derive(Debug, Default)]
pub struct Packer {
    /// By window and level.
    deflaters: Vec<((u8, u8), Box<Deflater>)>,
    inflater: Option<Box<Inflater>>,
    packed: Vec<u8>,
    unpacked: Vec<u8>,
    /// What was received, decrypted; and what is to be sent, sealed.
    #[cfg_attr(not(feature = "tls"), allow(dead_code))]
    pub(super) plain: Vec<u8>,
    pub(super) sealed: Vec<u8>,
}

/// How a connection's messages are compressed, and what it remembers of those it has sent.
#[derive(Debug)]
pub struct Sent {
    deflate: Deflate,
    window_bits: u8,
    history: Option<History>,
}

/// What a connection remembers of the messages it has received.
#[derive(Debug)]
pub(super) struct ReceiveHistory(Option<History>);

/// Both directions of what was agreed on.
pub(super) fn directions(deflate: Deflate, agreed: &Agreed) -> (Sent, ReceiveHistory) {
    let window_bits = agreed.ours.window_bits;
    (Sent { deflate, window_bits, history: agreed.ours.history() }, ReceiveHistory(agreed.theirs.history()))
}

impl Sent {
    /// From now on no message refers to another, so that each can be read by itself.
    pub(super) fn stand_alone(&mut self) {
        self.history = None;
    }

    /// The message compressed, which is then to be sent, with RSV1 set, before any other. `None`: it is sent as it is,
    /// since it is too short or does not get shorter.
    pub fn pack<'p>(&mut self, payload: &[u8], packer: &'p mut Packer) -> Option<&'p [u8]> {
        if !self.deflate.compresses(payload.len()) {
            return None;
        }
        let form = (self.window_bits, self.deflate.compression_level());
        let at = packer.deflaters.iter().position(|(other, _)| *other == form).unwrap_or_else(|| {
            packer.deflaters.push((form, Box::new(Deflater::new(form.0, form.1))));
            packer.deflaters.len() - 1
        });
        let Packer { deflaters, packed, .. } = packer;
        renew(packed);
        // With a history it has to be sent, whatever comes of it: the history has gone on.
        let remembers = self.history.is_some();
        deflaters[at].1.compress(payload, self.history.as_mut(), packed);
        (remembers || packed.len() < payload.len()).then_some(&packed[..])
    }
}

impl Packer {
    /// What a compressed message stands for, text validated, in a buffer of the packer's.
    ///
    /// # Errors
    /// It is over the limit, no deflate stream, or not the text that it should be.
    pub(super) fn unpack(
        &mut self,
        payload: &[u8],
        received_history: &mut ReceiveHistory,
        kind: Kind,
        limit: usize,
    ) -> Result<&mut [u8], ProtocolError> {
        renew(&mut self.unpacked);
        let inflater = self.inflater.get_or_insert_default();
        inflater.inflate(payload, received_history.0.as_mut(), kind, limit, &mut self.unpacked)?;
        Ok(&mut self.unpacked)
    }

    /// The same for a message that stands alone.
    pub(super) fn unpack_alone(&mut self, payload: &[u8], kind: Kind, limit: usize) -> Option<&[u8]> {
        self.unpack(payload, &mut ReceiveHistory(None), kind, limit).ok().map(|bytes| &*bytes)
    }
}

pub(super) fn renew(buffer: &mut Vec<u8>) {
    if buffer.capacity() > MAX_KEPT {
        *buffer = Vec::new();
    }
    buffer.clear();
}
