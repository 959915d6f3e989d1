//! `campanile-loadtest`: loads a WebSocket server, checks every answer and measures.
//!
//! ```text
//!  args ─> plan ─> run ─┬─ worker (a thread, an epoll) ── slot ── campanile::client::socket::Socket
//!                       │     └─ scenario: what is sent, checked and counted
//!                       └─ progress, proc ─> report
//! ```
//!
//! Its connections are those of `campanile::client`. Threads share a phase, a few counters and, in
//! fan-out runs, the times at which messages were sent.

mod args;
mod autobahn;
mod control;
mod limits;
mod output;
mod pace;
mod payload;
mod plan;
mod proc;
mod progress;
mod raw_tcp;
mod report;
mod run;
mod scenario;
mod slot;
mod stats;
mod storm;
mod target;
mod worker;

use args::{Args, Task};
use clap::Parser as _;
use plan::Plan;
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::fmt::Display;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// There were errors during the run.
const FAILED: u8 = 1;

/// What was asked for can't be done, or its report not written.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    output::begin();
    let done = match Args::try_parse() {
        Ok(args) => args.task().and_then(perform).map(|clean| if clean { 0 } else { FAILED }),
        Err(e) => output::usage(&e).map(|asked| if asked { 0 } else { USAGE }),
    };
    let code = done.unwrap_or_else(|message| {
        output::note(&format!("campanile-loadtest: {message}"));
        USAGE
    });
    output::end();
    ExitCode::from(code)
}

/// True if all went well.
fn perform(task: Task) -> Result<bool, String> {
    match task {
        Task::Run(plan) => {
            let report = run::run(&plan, &*interruption()?)?;
            write(&plan, &report)?;
            Ok(report.is_clean())
        }
        Task::Storm(plan, how) => {
            let report = storm::run(&plan, how, &*interruption()?)?;
            write(&plan, &report)?;
            Ok(report.is_clean())
        }
        Task::Autobahn(suite) => autobahn::run(&suite.url, &suite.agent),
    }
}

/// Set by the first Ctrl-C, which ends the run early; the second ends the process.
fn interruption() -> Result<Arc<AtomicBool>, String> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let registered = signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&flag))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)));
        registered.map_err(|e| format!("no signal handler: {e}"))?;
    }
    Ok(flag)
}

fn write(plan: &Plan, report: &(impl Serialize + Display)) -> Result<(), String> {
    let json = || serde_json::to_string_pretty(report).map_err(|e| e.to_string());
    let to_stdout = plan.json.as_deref() == Some("-");
    if let Some(file) = plan.json.as_ref().filter(|_| !to_stdout) {
        std::fs::write(file, json()? + "\n").map_err(|e| format!("--json {file}: {e}"))?;
    }
    output::write(&if to_stdout { json()? + "\n" } else { report.to_string() })
}
