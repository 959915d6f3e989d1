//! What the kernel alone takes to move messages: the system calls of a WebSocket server with next to nothing between them.
//!
//! ```text
//! usage: kernel-baseline echo PORT         sends back the bytes of each read; no WebSocket
//!        kernel-baseline whole PORT SIZE   the same, but only whole messages of SIZE bytes
//!        kernel-baseline broadcast PORT    WebSocket: sends each message to all clients
//! ```
//!
//! PORT 0 takes a free port; the first line of output names it. One thread, one epoll instance, edge-triggered: each
//! readiness takes one `recv`, and each answer one `send`. This is the cheapest way that Linux offers, so a ratio to
//! these programs says what a server adds. They are no servers: nothing is limited, checked, timed out or closed
//! properly. What they cannot measure honestly, such as a client that does not read, ends them with an error.

mod broadcast;
mod conns;
mod echo;

use conns::{Conns, Protocol};
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u32>().ok();
    let result = match words[..] {
        ["echo", port] => number(port).map(|port| serve(port, &mut echo::Stream::default())),
        ["whole", port, size] => number(port)
            .zip(number(size).filter(|&size| size > 0))
            .map(|(port, size)| serve(port, &mut echo::Whole::new(size as usize))),
        ["broadcast", port] => number(port).map(|port| serve(port, &mut broadcast::Broadcast::default())),
        _ => None,
    };
    match result {
        None => eprintln!("usage: kernel-baseline echo PORT | whole PORT SIZE | broadcast PORT"),
        Some(Ok(never)) => match never {},
        Some(Err(e)) => eprintln!("kernel-baseline: {e}"),
    }
    ExitCode::FAILURE
}

fn serve(port: u32, protocol: &mut impl Protocol) -> Result<std::convert::Infallible, String> {
    let port =
        u16::try_from(port).map_err(|_| format!("port: expected an integer up to 65535, got {port}"))?;
    Conns::listen(port).and_then(|mut conns| conns.run(protocol)).map_err(|e| e.to_string())
}
