//! Without the feature `deflate` no route and no client can be told to compress, so nothing is ever agreed on and there
//! is never one of these.

use super::History;
use crate::protocol::{Kind, ProtocolError};
use core::convert::Infallible;

/// No compressor.
#[derive(Debug)]
pub(crate) struct Deflater(Infallible);

/// No decompressor.
#[derive(Debug)]
pub(crate) struct Inflater(Infallible);

impl Deflater {
    pub(crate) fn new(_: u8, _: u8) -> Self {
        unreachable!("there is no form to compress for")
    }

    pub(crate) fn compress(&mut self, _: &[u8], _: Option<&mut History>, _: &mut Vec<u8>) {
        match self.0 {}
    }
}

impl Default for Inflater {
    fn default() -> Self {
        unreachable!("nothing was agreed on")
    }
}

impl Inflater {
    pub(crate) fn inflate(
        &mut self,
        _: &[u8],
        _: Option<&mut History>,
        _: Kind,
        _: usize,
        _: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        match self.0 {}
    }
}
