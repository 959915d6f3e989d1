//! What the program writes beside its log: help, the addresses it listens on, and why it can't start. None of it panics,
//! and what standard output does not take is an error, unless its reader has closed the pipe.

use campanile::log::Writer;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

/// How long standard output may take for the addresses. A server does not wait for their reader.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the last lines of the log may take.
pub(crate) const FLUSH: Duration = Duration::from_millis(500);

/// Says why the program ends.
pub(crate) fn fail(log: &mut Writer, why: &dyn std::fmt::Display) -> ExitCode {
    let _ = log.write(format!("campanile: {why}\n").as_bytes()); // never fails
    ExitCode::FAILURE
}

/// Shows help, the version, or what is wrong with an option.
pub(crate) fn usage(log: &mut Writer, usage: &clap::Error) -> ExitCode {
    if usage.use_stderr() {
        match io::stderr().is_terminal() {
            true => drop(usage.print()), // in colour; the exit code says it too
            false => drop(log.write(usage.render().to_string().as_bytes())), // never waits for a reader
        }
        return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
    }
    match usage.print().and_then(|()| io::stdout().flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            fail(log, &format_args!("can't write to standard output: {e}"))
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Writes to standard output, and gives up when nobody reads it in time.
pub(crate) fn announce(text: String) -> io::Result<()> {
    let (done, written) = mpsc::channel();
    std::thread::Builder::new().name("campanile-stdout".into()).spawn(move || {
        let mut out = io::stdout();
        let _ = done.send(out.write_all(text.as_bytes()).and_then(|()| out.flush())); // nobody waits any more
    })?;
    let in_time = written.recv_timeout(PATIENCE);
    in_time.unwrap_or_else(|_| Err(io::Error::new(ErrorKind::TimedOut, "nobody reads standard output")))
}
