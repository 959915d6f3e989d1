//! The command line.

use crate::dev;
use crate::topics::{Topics, bytes, topics};
use campanile::deflate::Deflate;
use campanile::{InvalidAddr, InvalidOrigin, ListenAddr, Origins};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};
use tracing_subscriber::filter::LevelFilter;

/// A WebSocket server for pushing to very many clients.
///
/// Without any options it serves, on 127.0.0.1:9001: /push topics for browsers, of which clients may use those that
/// --topics grants, /campanile.js the module for pages, and /healthz. With a key it serves /api/ for publishing over HTTP,
/// with --dev pages that show it at work.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where to listen: IP:PORT, [IPv6]:PORT, localhost:PORT or unix:/path; port 0 lets the system choose. May be
    /// given several times [default: 127.0.0.1:9001, unless there is --tls-listen]
    #[arg(long, value_name = "ADDR", value_parser = addr)]
    pub(crate) listen: Vec<ListenAddr>,

    /// For development on this machine: serve the demonstration pages / and /live.html with their endpoints /chat, /echo
    /// and /broadcast, let clients subscribe and publish below public/ (keeping history=100,history-bytes=16KiB,
    /// history-age=60s), and open /api/ to this machine without a key. Refused with addresses that are not loopback, and
    /// not meant for a server behind a proxy
    #[arg(long)]
    pub(crate) dev: bool,

    /// A site whose pages may connect, beside those that the server itself serves: https://example.com,
    /// https://*.example.com, or during development http://localhost:3000. A site behind a proxy on this machine has to be
    /// named. May be given several times
    #[arg(long = "origin", value_name = "ORIGIN", value_parser = origin)]
    pub(crate) origins: Vec<String>,

    #[command(flatten)]
    pub(crate) tls: TlsArgs,

    #[command(flatten)]
    pub(crate) api: ApiArgs,

    /// Event loops, one thread each [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: Option<u16>,

    /// What the topics whose names begin with PREFIX keep and allow: PREFIX:NAME=VALUE,… The names are history (messages),
    /// history-bytes, history-age, history-reserved, slow-consumer (close, drop-newest, drop-oldest, latest-by-key), max-message-size, rate
    /// (messages each second, or with a burst: 100/500), and for clients of /push client-subscribe and client-publish (yes, no). The
    /// longest prefix counts; may be given several times. Where it does not say so, topics keep nothing, and clients may
    /// neither subscribe nor publish
    #[arg(long = "topics", value_name = "PREFIX:SETTINGS", value_parser = topics)]
    pub(crate) topics: Vec<Topics>,

    /// What all topics together may keep
    #[arg(long, value_name = "BYTES", value_parser = |text: &str| bytes("max-history", text), default_value = "256MiB")]
    pub(crate) max_history: usize,

    /// Compress messages of at least 1 KiB where a client offers permessage-deflate: each by itself (shared), or with
    /// what was said before in view (dedicated), which takes up to 4 KiB of memory for each client
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Compression::Shared)]
    pub(crate) deflate: Compression,

    /// How much to tell, on standard error. Lines that are not read in time are dropped and counted (log_lines_lost)
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = Level::Info)]
    pub(crate) log: Level,
}

impl Args {
    /// Reads the command line, and checks what no single option can.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        let args = Self::try_parse()?;
        dev::check(&args).map_err(|why| Self::command().error(ErrorKind::ArgumentConflict, why))?;
        Ok(args)
    }

    /// All addresses that were given.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &ListenAddr> {
        self.listen.iter().chain(&self.api.api_listen).chain(&self.tls.tls_listen)
    }

    /// The addresses without TLS.
    pub(crate) fn plain(&self) -> Vec<String> {
        if self.listen.is_empty() && self.tls.tls_listen.is_empty() {
            return vec!["127.0.0.1:9001".to_owned()];
        }
        self.listen.iter().map(ListenAddr::to_string).collect()
    }
}

/// What the binary knows of publishing over HTTP.
#[derive(Debug, clap::Args)]
pub(crate) struct ApiArgs {
    /// A key for the API below /api/, which publishes over HTTP and is served with a key alone (but see --dev). Others on
    /// this machine can see arguments, so rather the variable CAMPANILE_API_KEY or --api-key-file
    #[arg(long, value_name = "KEY")]
    pub(crate) api_key: Option<String>,

    /// Keys for the API, one in each line of this file
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<std::path::PathBuf>,

    /// Where the API listens, and then nowhere else: as --listen. May be given several times
    #[arg(long, value_name = "ADDR", value_parser = addr)]
    pub(crate) api_listen: Vec<ListenAddr>,
}

/// What the binary knows of TLS.
#[derive(Debug, clap::Args)]
pub(crate) struct TlsArgs {
    /// Where to listen with TLS, for https and wss; beside --listen, or instead of it. May be given several times.
    /// Needs a certificate: --tls-cert and --tls-key, or --tls-self-signed
    #[arg(long, value_name = "ADDR", value_parser = addr, requires = "certificate")]
    pub(crate) tls_listen: Vec<ListenAddr>,

    /// The certificate: PEM, the server's own first, then those up to the authority (certbot: fullchain.pem). SIGHUP
    /// has it and its key read again; connections stay
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_listen"], group = "certificate")]
    pub(crate) tls_cert: Option<std::path::PathBuf>,

    /// The certificate's private key: PEM, without a password (certbot: privkey.pem)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<std::path::PathBuf>,

    /// Make a certificate for this machine and keep it for the next start, in $STATE_DIRECTORY,
    /// $XDG_STATE_HOME/campanile or ~/.local/state/campanile. Nobody vouches for it: browsers ask once whether to go on
    #[arg(long, requires = "tls_listen", group = "certificate", conflicts_with = "tls_key")]
    pub(crate) tls_self_signed: bool,
}

const EXAMPLES: &str = "\
Examples:
  campanile --dev                                then open http://127.0.0.1:9001/ in two tabs
  campanile --dev --origin http://localhost:3000 the same for a page that another server on this machine serves
  campanile --listen [::]:80 --topics news/:client-subscribe=yes --api-key-file keys.txt
                                                 on all addresses; clients may read news/, the API publishes
  campanile --listen unix:/run/campanile.sock    behind a proxy on the same machine
  campanile --tls-listen [::]:443 --tls-cert fullchain.pem --tls-key privkey.pem
                                                 https and wss; `kill -HUP` after the files were renewed
  campanile --tls-listen localhost:9443 --tls-self-signed
                                                 the same for trying it out
  campanile --topics orders/:history=1000,history-age=1h,client-subscribe=yes
                                                 clients that come back get what they missed
  campanile --topics chat/:client-subscribe=yes,client-publish=yes
                                                 clients may subscribe and publish below chat/
  CAMPANILE_API_KEY=… campanile --listen [::]:80 --api-listen 127.0.0.1:9002
                                                 the API on a port of its own

Exit codes: 0 after SIGTERM or SIGINT (every client gets 1001), 1 if it can't start,
ends by a fault of its own or can't write what was asked for, 2 for a wrong option,
143 or 130 if a second SIGTERM or SIGINT ends it at once.";

fn addr(text: &str) -> Result<ListenAddr, InvalidAddr> {
    text.parse()
}

fn origin(text: &str) -> Result<String, InvalidOrigin> {
    Origins::list([text]).map(|_| text.to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// The lines of the documents that start the binary, without comments, each as one line.
    fn commands(page: &str) -> Vec<String> {
        let blocks = page.split("```console\n").skip(1).map(|b| b.split("```").next().unwrap_or_default());
        let joined = blocks.map(|block| block.replace("\\\n", " ")).collect::<Vec<_>>().join("\n");
        let lines = joined.lines().filter_map(|line| line.strip_prefix("$ campanile "));
        lines.map(|line| line.split("  #").next().unwrap_or_default().trim().to_owned()).collect()
    }

    #[test]
    fn commands_in_the_documents_are_understood() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut understood = 0;
        for page in ["README.md", "guide", "reference"].map(|name| match name {
            "README.md" => vec![root.join(name)],
            folder => std::fs::read_dir(root.join("docs").join(folder))
                .unwrap()
                .flatten()
                .map(|e| e.path())
                .collect(),
        }) {
            for path in page {
                for command in commands(&std::fs::read_to_string(&path).unwrap()) {
                    let line =
                        command.replace("\"$(openssl rand -hex 16)\"", "0123456789abcdef0123456789abcdef");
                    let args = Args::try_parse_from(format!("campanile {line}").split_whitespace());
                    assert!(args.is_ok(), "{}: {command}: {}", path.display(), args.unwrap_err());
                    understood += 1;
                }
            }
        }
        assert!(understood > 5, "the documents have lost their commands, or this test has: {understood}");
    }
}
