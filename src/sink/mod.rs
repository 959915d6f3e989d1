//! Where a connection writes to: the trait between the pure layers and sockets.

use std::io::{self, IoSlice};

/// Where bytes go: a socket that does not block. Taking nothing (`Ok(0)`) means that it would block. `scratch` is the
/// worker's one buffer for bytes that change on their way, such as TLS records.
pub(crate) trait Sink {
    fn write(&mut self, bytes: &[u8], scratch: &mut Vec<u8>) -> io::Result<usize>;
    fn write_vectored(&mut self, parts: &[IoSlice<'_>], scratch: &mut Vec<u8>) -> io::Result<usize>;
    /// Sends on what was taken, where the sink keeps any of it.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
    /// Bytes of the application's that were taken and that the kernel does not have yet.
    fn buffered(&self) -> usize {
        0
    }
    /// Whether the kernel has all that was taken.
    fn is_written_out(&self) -> bool {
        true
    }
}
