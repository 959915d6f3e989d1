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

/// Holds the worker for this long, by the clock of the process.
fn hold(time: std::time::Duration) {
    let until = std::time::Instant::now() + time;
    while std::time::Instant::now() < until {
        std::hint::spin_loop();
    }
}

#[test]
fn panics_and_slow_callbacks_are_logged_with_their_route() {
    let _alone = alone();
    isolated(|| {
        tracing::subscriber::set_global_default(Log).unwrap();
        let text = |message: campanile::Message<'_>| message.as_text().unwrap_or_default().to_owned();
        let (handler, _events) = support::recorder();
        let handler = handler.on_message(move |_, message| match &*text(message) {
            "panic" => panic!("on purpose, in message"),
            "hold" => hold(support::millis(30)),
            _ => {}
        });
        let handler = handler.on_open(|conn| {
            if conn.param("room") == Some("slow") {
                hold(support::millis(30));
            }
        });
        let builder = builder().slow_callback(support::millis(5)).route("/chat/:room", handler);
        let server = start(builder.get("/broken", |_: &campanile::Request<'_>| -> campanile::Response {
            panic!("on purpose, over HTTP");
        }));
        let logged = |words: &[&str]| {
            support::until(&format!("a line with {words:?}"), || {
                LINES.lock().unwrap().iter().any(|line| words.iter().all(|word| line.contains(word)))
            });
        };
        let mut client = server.open("/chat/a");
        client.text("hold");
        logged(&["/chat/:room: message held the worker for", "at most 5ms is expected"]);
        client.text("panic");
        logged(&["/chat/:room: a callback for 0.", "panicked: on purpose, in message"]);
        LINES.lock().unwrap().clear();
        let _slow = server.open("/chat/slow");
        // At most one line of a kind in a second: the next one says how many were left out.
        let again = std::time::Instant::now() + support::DEADLINE;
        let is_logged = |word: &str| LINES.lock().unwrap().iter().any(|line| line.contains(word));
        while !is_logged("/chat/:room: open held the worker")
            || !is_logged("/broken: the HTTP handler panicked")
        {
            assert!(std::time::Instant::now() < again, "{:?}", LINES.lock().unwrap());
            drop(server.open("/chat/slow"));
            let mut http = server.dial();
            http.send("GET /broken HTTP/1.1\r\nHost: localhost\r\n\r\n");
            assert_eq!(http.answer().status, 500);
        }
    });
}
