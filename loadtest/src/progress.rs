//! The line that shows a run while it goes on: drawn over itself on a terminal, else written now and then. Always on
//! stderr, so that stdout is the report and nothing else.

use crate::control::{Control, Phase};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

/// Between two lines where there is no terminal.
const PLAIN: Duration = Duration::from_secs(5);

/// Between two readings of the rate.
const RATE: Duration = Duration::from_millis(500);

/// The line.
#[derive(Debug)]
pub(crate) struct Line {
    bar: Option<ProgressBar>,
    conns: usize,
    what: &'static str,
    said: Instant,
    read: Instant,
    messages: u64,
    rate: f64,
}

impl Line {
    /// For a run with so many connections that counts `what`.
    pub(crate) fn new(conns: usize, what: &'static str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_style(
                ProgressStyle::with_template("{spinner} {msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar
        });
        let now = Instant::now();
        Self { bar, conns, what, said: now, read: now, messages: 0, rate: 0.0 }
    }

    /// Shows where the run is.
    pub(crate) fn show(&mut self, control: &Control, left: Duration) {
        let now = Instant::now();
        let p = control.progress();
        let passed = now - self.read;
        if passed >= RATE {
            // A phase that begins counts from zero.
            let new = p.messages.checked_sub(self.messages).unwrap_or(p.messages);
            self.rate = new as f64 / passed.as_secs_f64();
            (self.read, self.messages) = (now, p.messages);
        }
        let plain_is_due = now - self.said >= PLAIN;
        if self.bar.is_none() && !plain_is_due {
            return;
        }
        let phase = match control.phase() {
            Phase::Opening => "opening".to_owned(),
            Phase::WarmUp => "warming up".to_owned(),
            Phase::Measuring => format!("{} s left", left.as_secs_f64().ceil()),
            Phase::Ended => "ending".to_owned(),
        };
        let (open, conns, what, rate, errors) = (p.open, self.conns, self.what, self.rate, p.errors);
        let text = format!("{phase} · {open}/{conns} open · {rate:.0} {what}/s · {errors} errors");
        if let Some(bar) = &self.bar {
            bar.set_message(text);
            bar.tick();
        } else {
            self.said = now;
            crate::output::note(&text);
        }
    }

    /// Removes it.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
