//! Publishing from outside: one thread calls [`Handle::publish`], each worker has one subscriber, at one and at two
//! workers.
//!
//! ```text
//!  publisher ── Handle::publish ──> mailbox of the topic's home ──> workers ──> subscribers, a thread each
//!                                   echo load, paced, on the same workers ──────> its own thread
//! ```
//!
//! Flat out: messages per second until the last has arrived, each delivery checked. Paced: the time from `publish` to
//! the subscriber's read, by a timestamp in the payload. To nobody: into a topic without subscribers. All threads
//! are in this process and share its CPUs; each kind's CPU time is the scheduler's own account of its threads.

#[path = "../../support/cpu.rs"]
mod cpu;

use campanile::{
    Accept, Conn, Handle, HandleError, Handler, Limits, Message, Refuse, Request, Route, Server,
};
use cpu::cpu;
use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const USAGE: &str = "\
usage: cargo bench --bench publish -- [--secs S] [--rate N] [--load N]

  --secs S   seconds of each measurement [2]
  --rate N   paced: messages per second [1000]
  --load N   echo load: messages per second [20000]";

const TOPIC: &str = "outside";
const NOBODY: &str = "nobody listens to this";

/// A sequence number, the time of publishing, and something to make it a usual length.
const PAYLOAD: usize = 64;
/// The payload behind a head of two bytes.
const FRAME: usize = 2 + PAYLOAD;

/// Connections of the echo load, each with one message of this many bytes in a round.
const ECHOES: usize = 50;
const ECHO: usize = 20;

/// No wait here is longer, on any machine.
const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy)]
struct Options {
    time: Duration,
    rate: u32,
    load: u32,
}

// ---- the server ----

/// Makes every connection listen, and writes down which workers have one.
struct Listen(Arc<Mutex<BTreeSet<String>>>);

impl Handler for Listen {
    type State = ();
    fn upgrade(&self, _: &Request<'_>) -> Result<Accept<()>, Refuse> {
        Ok(Accept::new(()))
    }
    fn open(&self, conn: &mut Conn<'_, ()>) {
        conn.subscribe(TOPIC).expect("a short name and one subscription");
        let worker = thread::current().name().unwrap_or_default().to_owned();
        self.0.lock().expect("no handler panics").insert(worker);
    }
    fn message(&self, _: &mut Conn<'_, ()>, _: Message<'_>) {}
}

struct Echo;

impl Handler for Echo {
    type State = ();
    fn upgrade(&self, _: &Request<'_>) -> Result<Accept<()>, Refuse> {
        Ok(Accept::new(()))
    }
    fn message(&self, conn: &mut Conn<'_, ()>, message: Message<'_>) {
        let _ = conn.send(message); // refused only when it is closing
    }
}

// ---- clients ----

fn connect(addr: SocketAddr, path: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0]; // not one more: what follows is a frame
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let opened = head.starts_with(b"HTTP/1.1 101 ");
    if opened { Ok(stream) } else { Err(io::Error::other(String::from_utf8_lossy(&head).into_owned())) }
}

/// What a subscriber's thread has in common with the one that publishes.
#[derive(Default)]
struct Inbox {
    /// Deliveries, each the one that was expected next.
    got: AtomicU64,
    /// Times from publishing to receipt, in nanoseconds.
    took: Mutex<Vec<u64>>,
}

/// Reads until the server closes; the error says what should not have come.
fn subscriber(mut stream: TcpStream, inbox: &Inbox, clock: Instant) -> Result<(), String> {
    let (mut buffer, mut have) = (vec![0; 64 << 10], 0);
    loop {
        let n = stream.read(&mut buffer[have..]).map_err(|e| e.to_string())?;
        if n == 0 {
            return Ok(());
        }
        have += n;
        let now = clock.elapsed().as_nanos() as u64;
        let mut took = inbox.took.lock().map_err(|e| e.to_string())?;
        let whole = have / FRAME * FRAME;
        for frame in buffer[..whole].chunks_exact(FRAME) {
            let number = |at: usize| u64::from_le_bytes(frame[at..at + 8].try_into().expect("eight bytes"));
            if frame[0] == 0x88 {
                return Ok(()); // the close frame, and whatever is behind it
            }
            if frame[..2] != [0x82, PAYLOAD as u8] || number(2) != inbox.got.load(Relaxed) {
                return Err(format!(
                    "message {} was expected, not {:?}",
                    inbox.got.load(Relaxed),
                    &frame[..18]
                ));
            }
            took.push(now.saturating_sub(number(10)));
            inbox.got.fetch_add(1, Relaxed);
        }
        buffer.copy_within(whole..have, 0);
        have -= whole;
        if have >= 2 && buffer[0] == 0x88 {
            return Ok(());
        }
    }
}

/// Sends a round of messages over all connections when it is due, and reads what comes back, until `end`.
fn echo_load(mut streams: Vec<TcpStream>, rate: u32, end: &AtomicBool) -> io::Result<u64> {
    let mut message = vec![0x82, 0x80 | ECHO as u8, 0, 0, 0, 0]; // a mask that changes nothing
    message.extend([b'e'; ECHO]);
    let mut back = [0; 2 + ECHO];
    let (from, mut rounds) = (Instant::now(), 0);
    while !end.load(Relaxed) {
        let due = from + Duration::from_secs(1) * ECHOES as u32 * rounds / rate;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        for stream in &mut streams {
            stream.write_all(&message)?;
        }
        for stream in &mut streams {
            stream.read_exact(&mut back)?;
            if back[2..] != message[6..] {
                return Err(io::Error::other("another echo than what was sent"));
            }
        }
        rounds += 1;
    }
    Ok(u64::from(rounds) * ECHOES as u64)
}

// ---- measuring ----

/// CPU time that publisher and workers have used since.
struct Cost {
    publisher: Duration,
    workers: Duration,
}

impl Cost {
    fn now() -> Self {
        Self { publisher: cpu("publisher"), workers: cpu("campanile-") }
    }

    fn since(self) -> Self {
        let now = Self::now();
        Self { publisher: now.publisher - self.publisher, workers: now.workers - self.workers }
    }
}

/// A server with its subscribers.
struct Bench {
    options: Options,
    workers: usize,
    handle: Handle,
    addr: SocketAddr,
    clock: Instant,
    inboxes: Vec<Arc<Inbox>>,
    subscribers: Vec<JoinHandle<Result<(), String>>>,
    /// Messages published.
    sent: u64,
}

impl Bench {
    fn message(&self) -> [u8; PAYLOAD] {
        let mut payload = [b'.'; PAYLOAD];
        payload[..8].copy_from_slice(&self.sent.to_le_bytes());
        payload[8..16].copy_from_slice(&(self.clock.elapsed().as_nanos() as u64).to_le_bytes());
        payload
    }

    /// Publishes, and waits where the mailbox is full; says how often that was.
    fn publish(&self, topic: &str) -> Result<u64, String> {
        for refused in 0.. {
            match self.handle.publish(topic, &self.message()[..]) {
                Ok(()) => return Ok(refused),
                Err(HandleError::Full) => thread::sleep(Duration::from_micros(100)),
                Err(e) => return Err(e.to_string()),
            }
        }
        Ok(0)
    }

    /// Waits until every subscriber has everything.
    fn settle(&self) -> Result<(), String> {
        let until = Instant::now() + DEADLINE;
        for inbox in &self.inboxes {
            while inbox.got.load(Relaxed) < self.sent {
                if Instant::now() > until || self.subscribers.iter().any(JoinHandle::is_finished) {
                    let got = inbox.got.load(Relaxed);
                    return Err(format!("{got} deliveries of {} to a subscriber", self.sent));
                }
                thread::sleep(Duration::from_micros(200));
            }
        }
        Ok(())
    }

    fn flat_out(&mut self) -> Result<(), String> {
        let (before, from, cost, mut refused) = (self.sent, Instant::now(), Cost::now(), 0);
        while from.elapsed() < self.options.time {
            refused += self.publish(TOPIC)?;
            self.sent += 1;
        }
        self.settle()?;
        let (n, time, cost) = (self.sent - before, from.elapsed(), cost.since());
        println!(
            "  flat out        {:>10.0} messages/s   CPU ns per message: {:.0} publisher, {:.0} workers   \
             mailbox full {refused} times; all {} deliveries came, in order",
            n as f64 / time.as_secs_f64(),
            per(cost.publisher, n),
            per(cost.workers, n),
            n * self.workers as u64,
        );
        Ok(())
    }

    fn to_nobody(&self) -> Result<(), String> {
        let (from, cost, mut n) = (Instant::now(), Cost::now(), 0);
        while from.elapsed() < self.options.time {
            self.publish(NOBODY)?;
            n += 1;
        }
        // A question waits in the same mailboxes: its answer says that all before it is done.
        self.handle.subscribers(NOBODY).wait().map_err(|e| e.to_string())?;
        let cost = cost.since();
        println!(
            "  to nobody       {:>10.0} messages per CPU second   CPU ns per message: {:.0} publisher, {:.0} workers",
            n as f64 / (cost.publisher + cost.workers).as_secs_f64(),
            per(cost.publisher, n),
            per(cost.workers, n),
        );
        Ok(())
    }

    fn paced(&mut self, what: &str) -> Result<(), String> {
        for inbox in &self.inboxes {
            inbox.took.lock().map_err(|e| e.to_string())?.clear();
        }
        let (from, mut n) = (Instant::now(), 0);
        while from.elapsed() < self.options.time {
            let due = from + Duration::from_secs(1) * n / self.options.rate;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            self.publish(TOPIC)?;
            (n, self.sent) = (n + 1, self.sent + 1);
        }
        self.settle()?;
        let mut took = Vec::new();
        for inbox in &self.inboxes {
            took.append(&mut *inbox.took.lock().map_err(|e| e.to_string())?);
        }
        took.sort_unstable();
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize] as f64 / 1e3;
        println!(
            "  {what:<15} {:>10} messages/s   publish to receipt: p50 {:.1} µs, p99 {:.1} µs, p99.9 {:.1} µs",
            self.options.rate,
            at(0.5),
            at(0.99),
            at(0.999)
        );
        Ok(())
    }

    fn paced_under_load(&mut self) -> Result<(), String> {
        let end = Arc::new(AtomicBool::new(false));
        let streams: io::Result<Vec<_>> = (0..ECHOES).map(|_| connect(self.addr, "/echo")).collect();
        let (streams, ended, rate) =
            (streams.map_err(|e| e.to_string())?, Arc::clone(&end), self.options.load);
        let from = Instant::now();
        let load = named("load", move || echo_load(streams, rate, &ended));
        let done = self.paced("paced, load");
        end.store(true, Relaxed);
        let echoed =
            load.join().map_err(|_| "the load's thread panicked")?.map_err(|e| format!("load: {e}"))?;
        done?;
        println!("  {:<15} {:>10.0} messages/s echoed", "", echoed as f64 / from.elapsed().as_secs_f64());
        Ok(())
    }
}

fn per(time: Duration, n: u64) -> f64 {
    time.as_nanos() as f64 / n as f64
}

fn named<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    thread::Builder::new().name(name.to_owned()).spawn(work).expect("a thread")
}

fn run(workers: usize, options: Options) -> Result<(), String> {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let mut limits = Limits::default();
    limits.max_backlog = 1 << 30; // nothing is to be given up, however far the subscribers are behind
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .workers(workers)
        .route("/listen", Route::new(Listen(Arc::clone(&seen))).limits(limits))
        .route("/echo", Echo)
        .build()
        .map_err(|e| e.to_string())?;
    let addr = server.local_addr().ok_or("no address")?;
    let running = server.spawn().map_err(|e| e.to_string())?;
    let mut bench = Bench {
        options,
        workers,
        handle: running.handle().clone(),
        addr,
        clock: Instant::now(),
        inboxes: Vec::new(),
        subscribers: Vec::new(),
        sent: 0,
    };
    for i in 0..workers {
        // A new connection goes to the worker that has the fewest: one after the other, each worker gets one.
        let (stream, inbox) = (connect(addr, "/listen").map_err(|e| e.to_string())?, Arc::<Inbox>::default());
        bench.inboxes.push(Arc::clone(&inbox));
        let clock = bench.clock;
        bench.subscribers.push(named(&format!("subscriber-{i}"), move || subscriber(stream, &inbox, clock)));
    }
    let until = Instant::now() + DEADLINE;
    while bench.handle.subscribers(TOPIC).wait().map_err(|e| e.to_string())? < workers
        && Instant::now() < until
    {}
    let spread = seen.lock().map_err(|e| e.to_string())?.len();
    if spread != workers {
        return Err(format!("the subscribers are on {spread} of {workers} workers"));
    }
    println!("{workers} worker{}, a subscriber on each:", if workers == 1 { "" } else { "s" });
    let measured = bench
        .flat_out()
        .and_then(|()| bench.paced("paced"))
        .and_then(|()| bench.paced_under_load())
        .and_then(|()| bench.to_nobody());
    bench.handle.shutdown(Duration::from_secs(1));
    running.join().expect("no worker failed");
    let ended = bench.subscribers.into_iter().map(JoinHandle::join);
    let subscribers: Result<(), String> =
        ended.flat_map(|end| end.map_err(|_| "a panic".to_owned())).collect();
    measured.and(subscribers)
}

fn options() -> Result<Options, String> {
    let mut options = Options { time: Duration::from_secs(2), rate: 1000, load: 20_000 };
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench"); // which cargo adds
    while let Some(arg) = args.next() {
        let value = args.next().ok_or_else(|| format!("{arg}: no value"))?;
        let number = value.parse::<f64>().ok().filter(|n| (1e-3..1e7).contains(n));
        let number = number.ok_or_else(|| format!("{arg} {value}: expected a number above 0"))?;
        match arg.as_str() {
            "--secs" => options.time = Duration::from_secs_f64(number),
            "--rate" => options.rate = (number as u32).max(1),
            "--load" => options.load = (number as u32).max(1),
            _ => return Err(format!("{arg}: no such option")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    if std::env::args().any(|a| a == "--test") {
        return ExitCode::SUCCESS; // `cargo test --benches` only wants to see it run
    }
    if std::env::args().any(|a| a == "--help" || a == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match options() {
        Ok(options) => options,
        Err(e) => {
            eprintln!("publish: {e}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // One thread for all of it, so that its CPU time can be told apart by its name.
    let all = named("publisher", move || [1, 2].into_iter().try_for_each(|workers| run(workers, options)));
    match all.join() {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(e)) => {
            eprintln!("publish: {e}");
            ExitCode::FAILURE
        }
        Err(_) => ExitCode::FAILURE, // the panic has said why
    }
}
