//! What the load client writes. Notes go to standard error through a queue, so that a reader that has stalled does not
//! stall the run; the report goes to standard output and is an error where it can't be written.

use campanile::log::Writer;
use std::io::{self, ErrorKind, Write as _};
use std::sync::OnceLock;
use std::time::Duration;

/// What the last notes may take at the end.
const FLUSH: Duration = Duration::from_millis(500);

static NOTES: OnceLock<Writer> = OnceLock::new();

/// Prepares the notes, which panics of all threads are among.
pub(crate) fn begin() {
    if let Ok(notes) = Writer::stderr() {
        notes.report_panics();
        let _ = NOTES.set(notes); // it is called once
    }
}

/// Writes a line to standard error, now or a little later.
pub(crate) fn note(text: &str) {
    if let Some(notes) = NOTES.get() {
        let _ = notes.clone().write(format!("{text}\n").as_bytes()); // never fails
    }
}

/// Gives the last notes a moment.
pub(crate) fn end() {
    if let Some(notes) = NOTES.get() {
        notes.flush_within(FLUSH);
    }
}

/// Writes to standard output. A reader that has closed the pipe is no error: it has what it wanted.
pub(crate) fn write(text: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Shows help, the version, or what is wrong with an option. True: help or the version, which was asked for.
pub(crate) fn usage(usage: &clap::Error) -> Result<bool, String> {
    let printed = usage.print();
    if usage.use_stderr() {
        return Ok(false); // the exit code says it too
    }
    written(printed.and_then(|()| io::stdout().flush())).map(|()| true)
}

fn written(result: io::Result<()>) -> Result<(), String> {
    match result {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(format!("can't write to standard output: {e}")),
        _ => Ok(()),
    }
}
