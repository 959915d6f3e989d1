//! What signals do to the `campanile` binary.

use crate::support::Client;
use crate::support::process::{Process, campanile, exit_of};
use rustix::process::Signal;

/// Starts the server with a client that never answers the close frame, and sends the signal once.
fn signalled_once(signal: Signal) -> (Process, Client) {
    let process = Process::start(campanile().args(["--listen", "127.0.0.1:0", "--dev"]));
    let mut client = Client::dial(process.addr);
    client.upgrade("/echo");
    process.signal(signal);
    assert_eq!(client.read_close().0, 1001, "the server shuts down and waits for the answer");
    (process, client)
}

#[test]
fn a_second_signal_ends_the_process_at_once_with_128_and_its_number() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let (mut process, _client) = signalled_once(signal);
        process.signal(signal);
        assert_eq!(exit_of(&mut process.child).code(), Some(code));
    }
}

#[test]
fn the_exit_codes_after_signals_are_documented() {
    let help = campanile().arg("--help").output().unwrap().stdout;
    let page = include_str!("../../docs/guide/operating.md");
    for code in ["143", "130"] {
        assert!(String::from_utf8_lossy(&help).contains(code) && page.contains(code), "{code}");
    }
}
