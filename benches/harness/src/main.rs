//! The programs behind `benches/run` that are of no use without it, as subcommands.

#[path = "../../support/cpu.rs"]
mod cpu;
mod deflate_load;
mod hub_server;
#[path = "../../support/json.rs"]
mod json;
mod publish;

use std::error::Error;
use std::process::ExitCode;

type Outcome<T> = Result<T, Box<dyn Error>>;

const USAGE: &str = "\
usage: bench-harness hub-server PORT [--history N] [--topics N]
       bench-harness deflate-load echo|broadcast|idle PORT PID off|shared|dedicated SIZE CONNECTIONS SECONDS
       bench-harness publish WORKERS [--secs S] [--rate N] [--load N]";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.split_first() {
        Some((first, rest)) if first == "hub-server" => hub_server::run(rest),
        Some((first, rest)) if first == "deflate-load" => deflate_load::run(rest),
        Some((first, rest)) if first == "publish" => publish::run(rest),
        _ => Err(USAGE.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench-harness: {e}");
            ExitCode::FAILURE
        }
    }
}
