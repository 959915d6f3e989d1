//! The command line.

use campanile::deflate::Deflate;
use campanile::{InvalidAddr, ListenAddr};
use clap::{Parser, ValueEnum};
use tracing_subscriber::filter::LevelFilter;

/// A WebSocket server for pushing to very many clients.
///
/// Without any options it serves, on 127.0.0.1:9001: / a page that shows it at work, /chat the room behind it,
/// /echo and /broadcast for measuring, and /healthz.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where to listen: IP:PORT, [IPv6]:PORT, localhost:PORT or unix:/path; port 0 lets the system choose. May be
    /// given several times
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9001", value_parser = addr)]
    pub(crate) listen: Vec<ListenAddr>,

    /// Event loops, one thread each [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: Option<u16>,

    /// Compress messages of at least 1 KiB where a client offers permessage-deflate: each by itself (shared), or with
    /// what was said before in view (dedicated), which takes up to 4 KiB of memory for each client
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Compression::Shared)]
    pub(crate) deflate: Compression,

    /// How much to tell, on standard error
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = Level::Info)]
    pub(crate) log: Level,
}

const EXAMPLES: &str = "\
Examples:
  campanile                                      then open http://127.0.0.1:9001/ in two tabs
  campanile --listen [::]:80 --workers 4         on all addresses, with four event loops
  campanile --listen unix:/run/campanile.sock    behind a proxy on the same machine

Exit codes: 0 after SIGTERM or SIGINT (every client gets 1001), 1 if it can't start, 2 for a wrong option.";

fn addr(text: &str) -> Result<ListenAddr, InvalidAddr> {
    text.parse()
}

/// How the server's own endpoints compress.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Compression {
    Off,
    Shared,
    Dedicated,
}

impl From<Compression> for Deflate {
    fn from(mode: Compression) -> Self {
        match mode {
            Compression::Off => Self::off(),
            Compression::Shared => Self::shared(),
            Compression::Dedicated => Self::dedicated(DEDICATED_WINDOW),
        }
    }
}

/// 2 KiB in each direction: what a JSON message has in common with the one before it.
const DEDICATED_WINDOW: u8 = 11;

/// A log level.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Off => Self::OFF,
            Level::Error => Self::ERROR,
            Level::Warn => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
            Level::Trace => Self::TRACE,
        }
    }
}
