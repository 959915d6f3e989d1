//! What `secure.rs` has, in a build without TLS: nothing is between the machine and the kernel.

use super::Stream;
use crate::http::TlsInfo;
use std::io::{self, IoSlice};

/// No listener is secure.
#[derive(Clone, Debug)]
pub(crate) enum TlsAcceptor {}

impl Stream {
    #[inline]
    pub(crate) fn is_secure(&self) -> bool {
        false
    }

    #[inline]
    pub(super) fn write_tls(&mut self, _: &[IoSlice<'_>], _: &mut Vec<u8>) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn tls_info(&self) -> Option<TlsInfo> {
        None
    }

    #[inline]
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    #[inline]
    pub(crate) fn retry(&mut self) {}

    #[inline]
    pub(crate) fn has_unsent(&self) -> bool {
        false
    }

    #[inline]
    pub(crate) fn unsent_payload(&self) -> usize {
        0
    }

    #[inline]
    pub(crate) fn held(&self) -> usize {
        0
    }

    #[inline]
    pub(crate) fn send_close_notify(&mut self) -> bool {
        true
    }
}
