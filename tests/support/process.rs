//! The `campanile` binary as a process of its own, which ends with its test.

use super::until;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

pub(crate) fn campanile() -> Command {
    Command::new(env!("CARGO_BIN_EXE_campanile"))
}

pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) addr: SocketAddr,
    /// What it prints after its first line.
    pub(crate) stdout: Option<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts the server and waits for its first line, which has its address.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let addr = line.split("://").nth(1).and_then(|a| a.trim().trim_end_matches('/').parse().ok());
        let addr = addr.unwrap_or_else(|| panic!("no address in {line:?}"));
        Self { child, addr, stdout: Some(stdout) }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn terminate(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        exit_of(&mut self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

/// Waits for the end of a process.
pub(crate) fn exit_of(child: &mut Child) -> ExitStatus {
    let mut status = None;
    until("the process ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}
