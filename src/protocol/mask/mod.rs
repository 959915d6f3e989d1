//! temporary
/// x
pub fn apply(buf: &mut [u8], key: [u8; 4], phase: usize) { for (i, b) in buf.iter_mut().enumerate() { *b ^= key[(i + phase) & 3]; } }
