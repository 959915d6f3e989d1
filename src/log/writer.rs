//! A bounded queue between those who log and the file that is logged to.
//!
//! ```text
//!  workers ── line ──▶ queue (4,096 lines, 1 MiB) ──▶ a thread, while there are lines ──▶ standard error
//!                         └─ full: dropped, counted, told in the log when it can be written again
//! ```
//! The thread ends when there was nothing to write for a while. A process with one thread is spared the references on its
//! descriptors by the kernel: 8 % of an echo of 20 bytes, which a log that says nothing is not to cost.

use super::{LineLimit, count_lost};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Lines that may wait.
const LINES: usize = 4096;

/// Bytes of lines that may wait.
const BYTES: usize = 1 << 20;

/// Bytes of one line; what is longer is cut.
const LINE: usize = 8 << 10;

/// How long the thread waits for the next line before it ends.
const LINGER: Duration = Duration::from_millis(250);

/// Between two lines that tell how many were lost.
const TELL: Duration = Duration::from_secs(1);

/// Between two attempts to write to a descriptor that is in non-blocking mode and takes nothing.
const RETRY: Duration = Duration::from_millis(10);

/// A log file that is never waited for: lines go into a bounded queue (4,096 lines, 1 MiB, each line at most 8 KiB) and
/// are written by a thread of their own. Where the queue is full, or the file takes nothing, lines are dropped and
/// counted; the next line that can be written is followed by one that tells how many. Nothing here fails or panics.
///
/// Each call of [`write`](Write::write) is one line. Cheap to clone. With `tracing-subscriber`:
///
/// ```no_run
/// # struct Fmt;
/// # impl Fmt { fn with_writer<W>(self, _: impl Fn() -> W) -> Self { self } fn init(self) {} }
/// # mod tracing_subscriber { pub fn fmt() -> super::Fmt { super::Fmt } }
/// # fn main() -> std::io::Result<()> {
/// let log = campanile::log::Writer::stderr()?;
/// let writer = log.clone();
/// tracing_subscriber::fmt().with_writer(move || writer.clone()).init();
/// log.report_panics();
/// // … the server runs and ends …
/// log.flush_within(std::time::Duration::from_secs(1));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Writer(Arc<WriterShared>);

struct WriterShared {
    state: Mutex<WriterState>,
    /// There is a line.
    pushed: Condvar,
    /// All lines are written.
    written: Condvar,
}

struct WriterState {
    lines: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// Lines lost that the log has not told of.
    untold: u64,
    /// The thread runs, or is about to.
    is_running: bool,
    /// It is within a write.
    is_writing: bool,
    /// Away while the thread runs.
    target: Option<Box<dyn Write + Send>>,
}

impl Writer {
    /// Writes to this. It may block and fail.
    pub fn new(target: impl Write + Send + 'static) -> Self {
        let state = WriterState {
            lines: VecDeque::new(),
            bytes: 0,
            untold: 0,
            is_running: false,
            is_writing: false,
            target: Some(Box::new(target)),
        };
        let (pushed, written) = (Condvar::new(), Condvar::new());
        Self(Arc::new(WriterShared { state: Mutex::new(state), pushed, written }))
    }

    /// Writes to the standard error, without its lock: who uses that meanwhile does not wait for the log's reader.
    ///
    /// # Errors
    /// The descriptor can't be duplicated.
    pub fn stderr() -> io::Result<Self> {
        Ok(Self::new(File::from(io::stderr().as_fd().try_clone_to_owned()?)))
    }

    /// Has panics of all threads reported here instead of by the default hook, which writes to the standard error on the
    /// thread that panics and so waits for its reader. The text is the same, with the backtrace if `RUST_BACKTRACE` asks
    /// for one; of each place in the code at most one report a second, which says how many were left out.
    pub fn report_panics(&self) {
        let writer = self.clone();
        let limits: Mutex<BTreeMap<(String, u32, u32), LineLimit>> = Mutex::default();
        std::panic::set_hook(Box::new(move |info| {
            let place = info
                .location()
                .map_or((String::new(), 0, 0), |at| (at.file().into(), at.line(), at.column()));
            let admitted = limits
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(place)
                .or_insert(const { LineLimit::new() })
                .admit(Instant::now());
            if let Some(suppressed) = admitted {
                writer.push(report(info, suppressed).as_bytes());
            }
        }));
    }

    /// Waits until all lines are written, but not longer than this. False: some are not. For the end of a program. Lines
    /// for which the system gave no thread are written on this one, and then it waits for the file.
    pub fn flush_within(&self, timeout: Duration) -> bool {
        let shared = &*self.0;
        let deadline = Instant::now() + timeout;
        let mut state = shared.lock();
        if !state.is_running && !state.lines.is_empty() {
            state.is_running = true;
            drop(state);
            shared.run();
            state = shared.lock();
        }
        while !state.lines.is_empty() || state.is_writing {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = shared.written.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn push(&self, line: &[u8]) {
        let shared = &*self.0;
        let mut state = shared.lock();
        let line = cut(line);
        if state.lines.len() >= LINES || state.bytes + line.len() > BYTES {
            state.lose(1);
        } else {
            state.bytes += line.len();
            state.lines.push_back(line);
        }
        if std::mem::replace(&mut state.is_running, true) {
            drop(state);
            return shared.pushed.notify_all();
        }
        drop(state);
        let thread = self.0.clone();
        let started = std::thread::Builder::new().name("campanile-log".into()).spawn(move || thread.run());
        if started.is_err() {
            // They wait for the next line, which tries again, or for the end of the program.
            shared.lock().is_running = false;
        }
    }
}

impl WriterShared {
    fn lock(&self) -> MutexGuard<'_, WriterState> {
        // Nothing of the program's runs under the lock, so a poisoned one is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: writes until there is nothing to write.
    fn run(&self) {
        let mut state = self.lock();
        let Some(mut target) = state.target.take() else { return };
        let (mut told, mut works) = (None::<Instant>, true);
        loop {
            let may_tell = state.lines.is_empty() || told.is_none_or(|told| told.elapsed() >= TELL);
            let untold = if works && may_tell { std::mem::take(&mut state.untold) } else { 0 };
            let line = if untold > 0 {
                told = Some(Instant::now());
                format!("{untold} log lines lost: the log was not read, or could not be written\n")
                    .into_bytes()
                    .into()
            } else if let Some(line) = state.lines.pop_front() {
                state.bytes -= line.len();
                line
            } else {
                self.written.notify_all();
                let (waited, timeout) =
                    self.pushed.wait_timeout(state, LINGER).unwrap_or_else(PoisonError::into_inner);
                state = waited;
                if timeout.timed_out() && state.lines.is_empty() {
                    (state.target, state.is_running) = (Some(target), false);
                    return;
                }
                continue;
            };
            state.is_writing = true;
            drop(state);
            works = write(&mut *target, &line);
            state = self.lock();
            state.is_writing = false;
            match works {
                true => {}
                false if untold > 0 => state.untold += untold,
                false => state.lose(1),
            }
        }
    }
}

impl WriterState {
    fn lose(&mut self, lines: u64) {
        self.untold += lines;
        count_lost(lines);
    }
}

/// True if all of it was written.
fn write(target: &mut dyn Write, mut line: &[u8]) -> bool {
    let mut step = || match target.write(line) {
        Ok(0) => Some(false),
        Ok(n) => {
            line = line.get(n..).unwrap_or_default();
            line.is_empty().then_some(true)
        }
        Err(e) if e.kind() == ErrorKind::Interrupted => None,
        // The descriptor is shared with a program that has put it into this mode.
        Err(e) if e.kind() == ErrorKind::WouldBlock => {
            std::thread::sleep(RETRY);
            None
        }
        Err(_) => Some(false),
    };
    loop {
        match catch_unwind(AssertUnwindSafe(&mut step)) {
            Ok(None) => {}
            Ok(Some(done)) => return done,
            Err(_) => return false,
        }
    }
}

/// At most [`LINE`] bytes, with a line break at the end of what was cut.
fn cut(line: &[u8]) -> Box<[u8]> {
    if line.len() <= LINE {
        return line.into();
    }
    let mut end = LINE - "…\n".len();
    while end > 0 && line[end] & 0xC0 == 0x80 {
        end -= 1; // a character is not cut in two
    }
    [&line[..end], "…\n".as_bytes()].concat().into()
}

/// What the default hook says.
fn report(info: &PanicHookInfo<'_>, suppressed: u64) -> String {
    let payload = info.payload();
    let message = payload.downcast_ref::<&str>().copied();
    let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let thread = std::thread::current();
    let mut text = format!("thread '{}' panicked", thread.name().unwrap_or("<unnamed>"));
    // Writing to a string does not fail.
    let _ = info.location().map(|at| write!(text, " at {at}"));
    let _ = writeln!(text, ": {}", message.unwrap_or("a payload that is no text"));
    if suppressed > 0 {
        let _ = writeln!(text, "  {suppressed} more panics there were not reported");
    }
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        let _ = writeln!(text, "{backtrace}");
    }
    text
}

impl Write for Writer {
    /// Takes it as one line, or counts it as lost.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    /// Does nothing; see [`Writer::flush_within`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

    const DEADLINE: Duration = Duration::from_secs(10);

    /// Takes a write for each result that it is given, and shows what was written.
    struct Target {
        results: Receiver<io::Result<()>>,
        written: Sender<String>,
    }

    impl Write for Target {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.results.recv().unwrap_or(Ok(()))?;
            let _ = self.written.send(String::from_utf8_lossy(bytes).into_owned()); // the test may be over
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn target() -> (Writer, Sender<io::Result<()>>, Receiver<String>) {
        let ((results, rx), (tx, written)) = (unbounded(), unbounded());
        (Writer::new(Target { results: rx, written: tx }), results, written)
    }

    #[test]
    fn a_stalled_log_reader_blocks_nobody_and_lost_lines_are_reported() {
        let (mut writer, results, written) = target();
        for i in 0..10_000 {
            writer.write_all(format!("{i}\n").as_bytes()).unwrap();
        }
        assert!(!writer.flush_within(Duration::ZERO));
        let lines = writer.0.lock().lines.len();
        assert!(lines <= LINES, "{lines}");
        drop(results); // the reader goes on
        assert!(writer.flush_within(DEADLINE));
        let all: Vec<_> = written.try_iter().collect();
        let told = all.iter().filter_map(|line| {
            line.strip_suffix(" log lines lost: the log was not read, or could not be written\n")
        });
        let lost: u64 = told.map(|n| n.parse::<u64>().unwrap()).sum();
        let kept = all.iter().filter(|line| line.trim().parse::<u64>().is_ok()).count() as u64;
        assert_eq!(kept + lost, 10_000, "{} lines", all.len());
        assert!(kept >= LINES as u64 && lost > 0, "{kept} kept, {lost} lost");
    }

    #[test]
    fn a_full_disk_loses_lines_and_is_retried() {
        let (mut writer, results, written) = target();
        for result in [Err(ErrorKind::StorageFull), Err(ErrorKind::Interrupted), Ok(()), Ok(())] {
            results.send(result.map_err(io::Error::from)).unwrap();
        }
        writer.write_all(b"lost\n").unwrap();
        writer.write_all(b"written\n").unwrap();
        assert!(writer.flush_within(DEADLINE));
        let all: Vec<_> = written.try_iter().collect();
        assert_eq!(all, ["written\n", "1 log lines lost: the log was not read, or could not be written\n"]);
    }

    #[test]
    fn the_writer_thread_ends_when_idle_and_restarts() {
        let (tx, rx) = bounded(0);
        let (tx2, rx2) = unbounded();
        drop(tx); // every write succeeds
        let mut writer = Writer::new(Target { results: rx, written: tx2 });
        for text in ["first", "second"] {
            writer.write_all(text.as_bytes()).unwrap();
            assert_eq!(rx2.recv_timeout(DEADLINE).unwrap(), text);
            let deadline = Instant::now() + DEADLINE;
            while writer.0.lock().is_running {
                assert!(Instant::now() < deadline, "the thread ends");
                std::thread::yield_now();
            }
        }
    }

    /// What a push leaves behind where the system gives no thread, as with RLIMIT_NPROC.
    #[test]
    fn lines_without_a_writer_thread_are_flushed() {
        let (writer, results, written) = target();
        drop(results); // every write succeeds
        writer.0.lock().lines.push_back(b"why it can't start\n".as_slice().into());
        writer.0.lock().bytes = 19;
        assert!(writer.flush_within(DEADLINE));
        assert_eq!(written.try_iter().collect::<Vec<_>>(), ["why it can't start\n"]);
        assert!(!writer.0.lock().is_running);
    }

    #[test]
    fn a_panicking_target_loses_only_the_line() {
        struct Panics;
        impl Write for Panics {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                panic!("on purpose")
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writer = Writer::new(Panics);
        writer.write_all(b"a").unwrap();
        writer.write_all(b"b").unwrap();
        assert!(writer.flush_within(DEADLINE));
        assert_eq!(writer.0.lock().untold, 2);
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let line = cut("ü".repeat(LINE).as_bytes());
        assert!(line.len() <= LINE && std::str::from_utf8(&line).unwrap().ends_with("ü…\n"));
        assert_eq!(&*cut(b"short\n"), b"short\n");
    }
}
