//! What the library logs, with a subscriber of the program's: lines that a peer can cause are limited, and a subscriber
//! that panics, as one that prints to a full standard error does, ends nothing. Each test has a process of its own: a
//! process has one subscriber and one panic hook.

use crate::alone;
use crate::support;
use crate::support::isolated::isolated;
use crate::support::{builder, echo, start};
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

static PANICS: AtomicBool = AtomicBool::new(false);
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Log;

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("campanile")
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        if PANICS.load(Ordering::SeqCst) {
            panic!("failed printing to stderr: No space left on device");
        }
        if *event.metadata().level() <= Level::INFO {
            let mut text = Text(String::new());
            event.record(&mut text);
            LINES.lock().unwrap().push(text.0);
        }
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[test]
fn log_lines_caused_by_peers_are_limited_and_a_panicking_subscriber_ends_nothing() {
    let _alone = alone();
    isolated(|| {
        tracing::subscriber::set_global_default(Log).unwrap();
        let (handler, events) = support::recorder();
        let route = campanile::Route::new(handler).limits(support::limits(|l| l.max_subscriptions = 1));
        let mut server = start(builder().workers(2).route("/", route).route("/echo", echo()));
        let _client = server.open("/");
        let id = events.opened();
        for i in 0..1000 {
            server.handle.subscribe(id, &format!("topic-{i}")).unwrap(); // all but one are refused
        }
        server.settle();
        let lines: Vec<_> = LINES.lock().unwrap().iter().filter(|l| l.contains("refused")).cloned().collect();
        assert!(!lines.is_empty() && lines.len() < 20, "{} lines for 999 refusals: {lines:?}", lines.len());

        PANICS.store(true, Ordering::SeqCst);
        for _ in 0..10 {
            let mut client = server.open("/echo");
            client.text("still here");
            assert_eq!(client.read_text(), "still here");
        }
        assert!(server.handle.stats().log_lines_lost >= 10);
        server.shutdown(support::millis(100)); // which logs too, and fails if a worker has panicked
    });
}

#[test]
fn a_writer_reports_panics_once_a_second_for_each_place() {
    let _alone = alone();
    isolated(|| {
        struct Lines(crossbeam_channel::Sender<String>);
        impl std::io::Write for Lines {
            fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
                let _ = self.0.send(String::from_utf8_lossy(line).into_owned()); // the test may be over
                Ok(line.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (tx, lines) = crossbeam_channel::unbounded();
        let writer = campanile::log::Writer::new(Lines(tx));
        writer.report_panics();
        for i in 0..1000 {
            let _ = std::panic::catch_unwind(|| panic!("a peer made this happen: {i}"));
        }
        let _ = std::panic::catch_unwind(|| panic!("elsewhere"));
        assert!(writer.flush_within(support::DEADLINE));
        let lines: Vec<_> = lines.try_iter().collect();
        let of = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
        assert!((1..20).contains(&of("a peer made this happen")), "{lines:?}");
        assert!(lines[0].contains("panicked at tests/measured/logging.rs:"), "{}", lines[0]);
        assert_eq!(of("elsewhere"), 1);
    });
}
