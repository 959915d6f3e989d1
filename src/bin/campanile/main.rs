//! The campanile server.
fn main() {}
