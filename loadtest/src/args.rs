//! The command line: what can be typed, and the [`Plan`] that it means.

use crate::payload::{MAX_SENDERS, STAMP};
use crate::plan::{Load, Mode, Plan, ReconnectOptions};
use crate::proc;
use crate::scenario::{ROOM_STAMP, SUBPROTOCOL};
use crate::target::Target;
use campanile::client::opening::Extras;
use campanile::deflate::Deflate;
use campanile::protocol::Kind;
use clap::{Parser, Subcommand};
use std::time::Duration;

/// Loads a WebSocket server and measures it.
///
/// Every message is masked with a key of its own, and every byte that comes back is compared. Latency is counted in
/// HDR histograms. With --pid, the server's CPU time per message and its memory per connection are reported too.
#[derive(Debug, Parser)]
#[command(name = "campanile-loadtest", version, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples, most against `campanile --dev`:
  # how fast is it? 200 connections, each sends its next 20 bytes when the last have come back
  campanile-loadtest echo ws://127.0.0.1:9001/echo --conns 200 --size 20 --pid $(pidof campanile)

  # how long does it take at 50,000 messages per second? counted from when each was due
  campanile-loadtest echo ws://127.0.0.1:9001/echo --conns 200 --size 50..500 --text --rate 50000

  # the same against a server that sends back plain bytes: what the kernel and this client take
  campanile-loadtest echo tcp://127.0.0.1:9002 --conns 200 --size 20 --rate 50000

  # one publishes, a thousand receive, 16 messages in flight
  campanile-loadtest broadcast ws://127.0.0.1:9001/broadcast --conns 1000 --size 100 --depth 16

  # a hundred in a room, all talk
  campanile-loadtest chat ws://127.0.0.1:9001/broadcast --conns 100 --size 100 --text

  # the same by the protocol for browsers, of a server that grants the topic `room` and does not limit their rate
  campanile-loadtest room ws://127.0.0.1:9001/push --conns 100 --size 100

  # memory per connection, opened at 5,000 per second, held for a minute
  campanile-loadtest idle ws://127.0.0.1:9001/echo --conns 50000 --ramp 5000 --duration 1m \\
    --pid $(pidof campanile)

  # what a server that pushes by itself gives to each of 500 subscribers
  campanile-loadtest listen ws://127.0.0.1:9001/prices --conns 500 --send subscribe --duration 30s

  # a server's clients all lose their connections: when are they back? and with jitter?
  campanile-loadtest storm ws://127.0.0.1:9001/echo --conns 5000 --pid $(pidof campanile)
  campanile-loadtest storm ws://127.0.0.1:9001/echo --conns 5000 --pid $(pidof campanile) --jitter

  # handshakes per second, and a report for a script
  campanile-loadtest connect ws://127.0.0.1:9001/echo --conns 50 --json -

Exit status: 0 all went well, 1 there were errors (they are listed in the report), 2 this command can't be run
or its report not be written.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Every connection sends and gets its own messages back
    Echo(Traffic),
    /// Connection 0 publishes, all receive; counted are deliveries
    Broadcast(Traffic),
    /// All publish, all receive; counted are deliveries
    Chat(Traffic),
    /// All publish to one topic and all hear it, in the protocol for browsers; counted are deliveries
    Room(Room),
    /// Connections that only receive, from a server that pushes by itself
    Listen(Listen),
    /// Opens connections and holds them; answers pings
    Idle(Common),
    /// Opens and closes connections in a loop; counted are handshakes
    Connect(Cycle),
    /// Drops all connections at once and sees how they come back
    Storm(Storm),
    /// Runs the Autobahn suite's client cases against its fuzzing server
    Autobahn(Autobahn),
}

#[derive(Debug, clap::Args)]
struct Common {
    // Not a doc comment: rustdoc would take the brackets for links.
    #[arg(
        help = "Where: ws://HOST[:PORT][/PATH] or wss://…; echo also tcp://HOST:PORT, plain bytes without WebSocket"
    )]
    url: String,

    /// Connections (connect: in flight at a time)
    #[arg(long, short = 'c', value_name = "N", default_value_t = 100)]
    conns: usize,

    /// How long to measure (idle: how long to hold; storm: how long to wait for all); 10s, 500ms, 2m
    #[arg(long, short = 'd', value_name = "TIME", default_value = "10s", value_parser = duration)]
    duration: Duration,

    /// Threads, each with its share of the connections
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,

    /// Source addresses 127.0.0.1, 127.0.0.2 …; by itself one for every 20,000 connections to a loopback address
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    sources: usize,

    /// Patience with a connect, a handshake, a close and an answer
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    timeout: Duration,

    /// Open at most so many connections per second
    #[arg(long, value_name = "N")]
    ramp: Option<f64>,

    /// The server's processes, if it runs on this machine: its CPU time and memory are measured
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pid: Vec<u32>,

    /// Write the report as JSON; - is stdout, in place of the text
    #[arg(long, value_name = "FILE")]
    json: Option<String>,

    /// Offer a subprotocol; several in order of preference
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    subprotocol: Vec<String>,

    /// A further header of the handshake, as in -H 'Authorization: Bearer x'
    #[arg(long, short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(String, String)>,

    /// Offer compression: without a number no message refers to another, with one (9 to 15) they share a window of 2 to
    /// the power of so many bytes
    #[arg(long, value_name = "BITS", num_args = 0..=1, default_missing_value = "0", value_parser = window)]
    deflate: Option<Deflate>,

    /// Believe any certificate of a wss:// server
    #[arg(long)]
    insecure: bool,

    /// The handshake's Origin header
    #[arg(long, value_name = "ORIGIN")]
    origin: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Traffic {
    #[command(flatten)]
    common: Common,

    /// Bytes of payload, one size or a range: 100, 20..2000, 64k, 1m
    #[arg(long, short = 's', value_name = "N|MIN..MAX", default_value = "100", value_parser = sizes)]
    size: (usize, usize),

    /// Send text: ASCII mixed with characters of two, three and four bytes
    #[arg(long, short = 't', conflicts_with = "binary")]
    text: bool,

    /// Send random bytes (the default)
    #[arg(long, short = 'b')]
    binary: bool,

    /// Closed loop: messages in flight per sender
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65536))]
    depth: u32,

    /// Open loop: messages per second in all, sent when they are due, and latency counted from then
    #[arg(long, short = 'r', value_name = "N", conflicts_with = "depth")]
    rate: Option<f64>,

    /// Traffic before the measurement
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    warmup: Duration,
}

#[derive(Debug, clap::Args)]
struct Room {
    #[command(flatten)]
    traffic: Traffic,

    /// Ask for an answer to each publication
    #[arg(long)]
    ack: bool,
}

#[derive(Debug, clap::Args)]
struct Cycle {
    #[command(flatten)]
    common: Common,

    /// Close with a closing handshake; otherwise connections are reset
    #[arg(long)]
    clean: bool,
}

#[derive(Debug, clap::Args)]
struct Listen {
    #[command(flatten)]
    common: Common,

    /// A text message that each connection sends first, such as a subscription
    #[arg(long, value_name = "TEXT")]
    send: Option<String>,

    /// Receiving before the measurement
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    warmup: Duration,
}

#[derive(Debug, clap::Args)]
struct Storm {
    #[command(flatten)]
    common: Common,

    /// Draw each wait from zero to its bound, as a client should; otherwise it is the bound
    #[arg(long)]
    jitter: bool,

    /// The bound of the first wait; it doubles with each failure
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = duration)]
    initial_delay: Duration,

    /// What the bound grows to
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    max_delay: Duration,
}

/// Where the fuzzing server is.
#[derive(Debug, clap::Args)]
pub(crate) struct Autobahn {
    /// The fuzzing server
    #[arg(long, env = "AUTOBAHN_URL", value_name = "URL")]
    pub(crate) url: String,

    /// The name in its report
    #[arg(long, default_value = "campanile")]
    pub(crate) agent: String,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Task {
    /// Load.
    Run(Box<Plan>),
    /// Connections that are dropped and come back.
    Storm(Box<Plan>, ReconnectOptions),
    /// The conformance suite.
    Autobahn(Autobahn),
}

impl Args {
    /// Gives what was typed its meaning, or says what is wrong with it.
    pub(crate) fn task(self) -> Result<Task, String> {
        let plan = match self.command {
            Command::Echo(t) => traffic(Mode::Echo, t)?,
            Command::Broadcast(t) => traffic(Mode::Broadcast, t)?,
            Command::Chat(t) => traffic(Mode::Chat, t)?,
            Command::Room(r) => room(r)?,
            Command::Idle(c) => common(Mode::Idle, c)?,
            Command::Connect(c) => common(Mode::Connect { clean: c.clean }, c.common)?,
            Command::Listen(l) => Plan { warmup: l.warmup, first: l.send, ..common(Mode::Listen, l.common)? },
            Command::Storm(s) => {
                let Storm { common: c, jitter, initial_delay, max_delay } = s;
                let plan = common(Mode::Storm, c)?;
                if plan.ramp.is_some() {
                    return Err("storm: nothing holds the connections back, so there is no --ramp".into());
                }
                return Ok(Task::Storm(
                    Box::new(plan),
                    ReconnectOptions { jitter, initial_delay, max_delay },
                ));
            }
            Command::Autobahn(a) => return Ok(Task::Autobahn(a)),
        };
        Ok(Task::Run(Box::new(plan)))
    }
}

fn traffic(mode: Mode, t: Traffic) -> Result<Plan, String> {
    let load = match t.rate {
        Some(rate) if rate > 0.0 && rate <= 1e8 => Load::Open(rate),
        Some(rate) => return Err(format!("--rate {rate}: expected messages per second, above 0")),
        None => Load::Closed(t.depth),
    };
    let kind = if t.text { Kind::Text } else { Kind::Binary };
    let (min_size, max_size) = t.size;
    if mode == Mode::Chat && min_size < STAMP {
        return Err(format!("--size {min_size}: chat needs {STAMP} bytes, to know whose message it is"));
    }
    let plan = Plan { load, kind, min_size, max_size, warmup: t.warmup, ..common(mode, t.common)? };
    // Where one message ends and the next begins, only their size can say.
    if plan.target.raw_tcp && (kind == Kind::Text || min_size == 0 || min_size != max_size) {
        return Err("tcp:// takes binary messages of one size, at least 1 byte".into());
    }
    Ok(plan)
}

/// The data is JSON, of one size.
fn room(room: Room) -> Result<Plan, String> {
    let Room { traffic: t, ack } = room;
    if t.binary || t.size.0 != t.size.1 || t.size.0 < ROOM_STAMP {
        return Err(format!("room takes text of one size, at least {ROOM_STAMP} bytes"));
    }
    let mut plan = traffic(Mode::Room { ack }, Traffic { text: true, ..t })?;
    if plan.extras.subprotocols.is_empty() {
        plan.extras.subprotocols.push(SUBPROTOCOL.into());
    }
    Ok(plan)
}

fn common(mode: Mode, c: Common) -> Result<Plan, String> {
    let within = |name: &str, n: usize, max: usize| match n {
        0 => Err(format!("--{name} 0: expected at least 1")),
        n if n > max => Err(format!("--{name} {n}: at most {max}")),
        _ => Ok(()),
    };
    within("conns", c.conns, MAX_SENDERS)?;
    within("threads", c.threads, 256)?;
    if c.ramp.is_some_and(|r| !(r > 0.0 && r.is_finite())) {
        return Err("--ramp: expected connections per second, above 0".into());
    }
    if let Some(pid) = c.pid.iter().find(|&&pid| !proc::exists(pid)) {
        return Err(format!("--pid {pid}: there is no such process on this machine"));
    }
    let target = Target::parse(&c.url)?;
    if target.raw_tcp && c.deflate.is_some() {
        return Err("--deflate needs a ws:// URL".into());
    }
    if c.insecure && !target.url.is_secure() {
        return Err("--insecure needs a wss:// URL".into());
    }
    if target.raw_tcp && mode != Mode::Echo {
        return Err(format!("{} needs a ws:// URL; tcp:// is for echo", mode.name()));
    }
    let mut extras = Extras::default();
    (extras.subprotocols, extras.headers, extras.origin) = (c.subprotocol, c.header, c.origin);
    extras.deflate = c.deflate.unwrap_or_default();
    extras.check().map_err(|e| e.to_string())?;
    Ok(Plan {
        mode,
        target,
        extras,
        insecure: c.insecure,
        conns: c.conns,
        kind: Kind::Binary,
        min_size: 0,
        max_size: 0,
        load: Load::Closed(1),
        warmup: Duration::ZERO,
        duration: c.duration,
        threads: c.threads.min(c.conns),
        sources: c.sources,
        timeout: c.timeout,
        ramp: c.ramp,
        pids: c.pid,
        first: None,
        json: c.json,
    })
}

fn window(text: &str) -> Result<Deflate, String> {
    match text.parse() {
        Ok(0) => Ok(Deflate::shared()),
        Ok(bits @ 9..=15) => Ok(Deflate::dedicated(bits)),
        _ => Err("expected 9 to 15, or nothing; the URL goes before it".into()),
    }
}

/// A number and a unit; seconds without one.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit.trim() {
        "" | "s" => 1.0,
        "ms" => 1e-3,
        "us" | "µs" => 1e-6,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("unit {unit:?}; expected ms, s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_| "expected a time such as 10s, 500ms or 2m".to_owned())?;
    Duration::try_from_secs_f64(number * scale).map_err(|_| "too long".to_owned())
}

/// The largest message: what the echo endpoint of the bundled server is asked to take, and some.
const MAX_SIZE: usize = 64 << 20;

fn sizes(text: &str) -> Result<(usize, usize), String> {
    let (min, max) = match text.split_once("..") {
        Some((min, max)) => (size(min)?, size(max.trim_start_matches('='))?),
        None => (size(text)?, size(text)?),
    };
    match (min, max) {
        _ if min > max => Err("the range is empty: expected MIN..MAX".into()),
        (_, MAX_SIZE..) if max > MAX_SIZE => Err("at most 64m".into()),
        range => Ok(range),
    }
}

fn size(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let (digits, shift) = match text.char_indices().last() {
        Some((i, 'k' | 'K')) => (&text[..i], 10),
        Some((i, 'm' | 'M')) => (&text[..i], 20),
        _ => (text, 0),
    };
    let n: usize = digits.parse().map_err(|_| format!("{text:?}: expected bytes such as 100, 16k or 1m"))?;
    n.checked_mul(1 << shift).ok_or_else(|| "too large".to_owned())
}

/// A name and a value; whether they can be sent is checked with the other settings of the handshake.
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected 'Name: value'")?;
    Ok((name.to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(line: &str) -> Result<Plan, String> {
        let words = std::iter::once("campanile-loadtest").chain(line.split_whitespace());
        match Args::try_parse_from(words).map_err(|e| e.to_string())?.task()? {
            Task::Run(plan) | Task::Storm(plan, _) => Ok(*plan),
            Task::Autobahn(_) => Err("autobahn".into()),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
    }

    #[test]
    fn options_are_converted_to_a_plan() {
        let p = plan("echo ws://h:1/p -c 7 --size 20..2k --text --depth 4 --warmup 500ms -d 2m").unwrap();
        assert_eq!((p.mode, p.conns, p.min_size, p.max_size, p.kind), (Mode::Echo, 7, 20, 2048, Kind::Text));
        assert_eq!((p.load, p.warmup), (Load::Closed(4), Duration::from_millis(500)));
        assert_eq!(p.duration, Duration::from_secs(120));
        let p = plan("broadcast ws://h --rate 2.5 --threads 500 -c 3");
        assert!(p.is_err());
        let p = plan("broadcast ws://h --rate 2.5 --threads 5 -c 3 --subprotocol a,b").unwrap();
        assert_eq!((p.load, p.threads, p.extras.subprotocols.len()), (Load::Open(2.5), 3, 2));
        for (flag, deflate) in [
            ("", Deflate::off()),
            ("--deflate", Deflate::shared()),
            ("--deflate=11 --text", Deflate::dedicated(11)),
        ] {
            assert_eq!(plan(&format!("echo ws://h {flag}")).unwrap().extras.deflate, deflate, "{flag}");
        }
        assert_eq!(plan("connect ws://h --clean").unwrap().mode, Mode::Connect { clean: true });
        let p = plan("room ws://h --ack").unwrap();
        assert_eq!((p.mode, p.kind, p.extras.subprotocols.len()), (Mode::Room { ack: true }, Kind::Text, 1));
    }

    #[test]
    fn contradictory_options_are_refused() {
        for bad in [
            "echo",
            "echo http://h",
            "echo ws://h --size 9..3",
            "echo ws://h --size 65m",
            "echo ws://h --size x",
            "echo ws://h --conns 0",
            "echo ws://h --threads 0",
            "echo ws://h --depth 0",
            "echo ws://h --depth 2 --rate 5",
            "echo ws://h --rate 0",
            "echo ws://h --text --binary",
            "echo ws://h --duration 5parsecs",
            "echo ws://h --pid 4294967295",
            "echo ws://h --ramp -1",
            "echo ws://h --deflate 16",
            "echo ws://h --insecure",
            "echo tcp://h --deflate",
            "echo ws://h --header nonsense",
            "chat ws://h --size 4",
            "chat tcp://h",
            "echo tcp://h --text",
            "echo tcp://h --size 0",
            "echo tcp://h --size 5..6",
            "idle ws://h --size 4",
            "listen tcp://h",
            "room ws://h --size 11",
            "room ws://h --size 20..30",
            "room ws://h --binary",
            "storm ws://h --ramp 5",
            "sing ws://h",
        ] {
            assert!(plan(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn headers_with_line_breaks_are_refused() {
        assert_eq!(header("A-b:  c d "), Ok(("A-b".into(), "c d".into())));
        let with = |text: &str| {
            let words = ["campanile-loadtest", "echo", "ws://h", "-H", text];
            Args::try_parse_from(words).map_err(|e| e.to_string())?.task().map(drop)
        };
        assert_eq!(with("a: b"), Ok(()));
        assert!(with("a b: c").is_err() && with("a: b\r\nc: d").is_err() && with(": x").is_err());
    }
}
