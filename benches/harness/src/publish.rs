//! Publishing from outside, for the driver `publish`: one thread calls [`Handle::publish`], each worker has one subscriber.
//!
//! ```text
//!  publisher ── Handle::publish ──> mailbox of the topic's owner ──> workers ──> subscribers, a thread each
//!                                   echo load, paced, on the same workers ──────> a thread
//! ```
//!
//! Flat out: until the last message has arrived, each delivery checked. Paced: the time from `publish` to the subscriber's
//! read, by a timestamp in the payload. No subscriber: into a topic without any. All threads are in this process and share
//! its CPUs; CPU time is the scheduler's account of the publisher's and the workers' threads.

use crate::cpu::cpu;
use crate::{Outcome, USAGE};
use campanile::{Conn, Disconnect, Handle, HandleError, Handler, Limits, Message, Route, Server};
use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const TOPIC: &str = "outside";
const UNUSED: &str = "no subscriber";

/// A sequence number, the time of publishing, and something to make it a usual length.
const PAYLOAD: usize = 64;
/// The payload behind a head of two bytes.
const FRAME: usize = 2 + PAYLOAD;

/// Connections of the echo load, each with one message of this many bytes in a round.
const ECHOES: usize = 50;
const ECHO: usize = 20;

/// No wait is longer.
const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy)]
struct Options {
    time: Duration,
    rate: u32,
    load: u32,
}

// ---- the server ----

/// Subscribes each connection, and notes which workers have one.
struct Subscriber(Arc<Mutex<BTreeSet<String>>>);

impl Handler for Subscriber {
    type State = ();
    fn open(&self, conn: &mut Conn<'_>, _: &mut ()) -> Result<(), Disconnect> {
        conn.subscribe(TOPIC).expect("a short name and one subscription");
        let worker = thread::current().name().unwrap_or_default().to_owned();
        self.0.lock().expect("no handler panics").insert(worker);
        Ok(())
    }
    fn message(&self, _: &mut Conn<'_>, _: &mut (), _: Message<'_>) -> Result<(), Disconnect> {
        Ok(())
    }
}

struct Echo;

impl Handler for Echo {
    type State = ();
    fn message(&self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) -> Result<(), Disconnect> {
        let _ = conn.send(message); // refused only when it is closing;
        Ok(())
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

/// What a subscriber's thread shares with the publisher.
#[derive(Default)]
struct Inbox {
    /// Deliveries, each the one that was expected next.
    got: AtomicU64,
    /// Times from publishing to receipt, in nanoseconds.
    took: Mutex<Vec<u64>>,
}

/// Reads until the server closes; an error names the unexpected message.
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
                return Err(io::Error::other("expected the echo that was sent, got another one"));
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

    /// Publishes, and waits where the mailbox is full.
    fn publish(&self, topic: &str) -> Result<(), String> {
        loop {
            match self.handle.publish(topic, &self.message()[..]) {
                Ok(()) => return Ok(()),
                Err(HandleError::Full) => thread::sleep(Duration::from_micros(100)),
                Err(e) => return Err(e.to_string()),
            }
        }
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

    fn flat_out(&mut self, figures: &mut Figures) -> Result<(), String> {
        let (before, from, cost) = (self.sent, Instant::now(), Cost::now());
        while from.elapsed() < self.options.time {
            self.publish(TOPIC)?;
            self.sent += 1;
        }
        self.settle()?;
        let (n, time, cost) = (self.sent - before, from.elapsed(), cost.since());
        figures.push(("flat-out-wall", per(time, n)));
        figures.push(("flat-out-publisher", per(cost.publisher, n)));
        figures.push(("flat-out-workers", per(cost.workers, n)));
        Ok(())
    }

    fn without_subscriber(&self, figures: &mut Figures) -> Result<(), String> {
        let (from, cost, mut n) = (Instant::now(), Cost::now(), 0);
        while from.elapsed() < self.options.time {
            self.publish(UNUSED)?;
            n += 1;
        }
        // A query waits in the same mailboxes: its answer comes when all messages before it are done.
        self.handle.subscribers(UNUSED).wait().map_err(|e| e.to_string())?;
        let cost = cost.since();
        figures.push(("no-subscriber", per(cost.publisher + cost.workers, n)));
        Ok(())
    }

    /// Microseconds from `publish` to receipt: the median and the 99th percentile.
    fn paced(&mut self) -> Result<[f64; 2], String> {
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
        Ok([0.5, 0.99].map(|share| took[((took.len() - 1) as f64 * share) as usize] as f64 / 1e3))
    }

    fn paced_beside_echoes(&mut self) -> Result<[f64; 2], String> {
        let end = Arc::new(AtomicBool::new(false));
        let streams: io::Result<Vec<_>> = (0..ECHOES).map(|_| connect(self.addr, "/echo")).collect();
        let (streams, ended, rate) =
            (streams.map_err(|e| e.to_string())?, Arc::clone(&end), self.options.load);
        let load = named("load", move || echo_load(streams, rate, &ended));
        let done = self.paced();
        end.store(true, Relaxed);
        load.join().map_err(|_| "the load's thread panicked")?.map_err(|e| format!("load: {e}"))?;
        done
    }

    fn measure(&mut self) -> Result<Figures, String> {
        let mut figures = Figures::new();
        self.flat_out(&mut figures)?;
        let [p50, p99] = self.paced()?;
        figures.extend([("paced-p50", p50), ("paced-p99", p99)]);
        let [p50, p99] = self.paced_beside_echoes()?;
        figures.extend([("loaded-p50", p50), ("loaded-p99", p99)]);
        self.without_subscriber(&mut figures)?;
        Ok(figures)
    }
}

/// By the names that the driver knows.
type Figures = Vec<(&'static str, f64)>;

fn per(time: Duration, n: u64) -> f64 {
    time.as_nanos() as f64 / n as f64
}

fn named<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    thread::Builder::new().name(name.to_owned()).spawn(work).expect("a thread")
}

fn serve(workers: usize, options: Options) -> Result<Figures, String> {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let mut limits = Limits::default();
    limits.max_backlog = 1 << 30; // no message may be dropped, however slow the subscribers are
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .workers(workers)
        .route("/subscribe", Route::new(Subscriber(Arc::clone(&seen))).limits(limits))
        .route("/echo", Echo)
        .build()
        .map_err(|e| e.to_string())?;
    let addr = server.local_addr().ok_or("no address")?;
    let running = server.spawn().map_err(|e| e.to_string())?;
    let mut bench = Bench {
        options,
        handle: running.handle().clone(),
        addr,
        clock: Instant::now(),
        inboxes: Vec::new(),
        subscribers: Vec::new(),
        sent: 0,
    };
    for i in 0..workers {
        // A new connection goes to the worker that has the fewest: one after the other, each worker gets one.
        let (stream, inbox) =
            (connect(addr, "/subscribe").map_err(|e| e.to_string())?, Arc::<Inbox>::default());
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
    let measured = bench.measure();
    bench.handle.shutdown(Duration::from_secs(1));
    running.join().expect("no worker failed");
    let ended = bench.subscribers.into_iter().map(JoinHandle::join);
    let subscribers: Result<(), String> =
        ended.flat_map(|end| end.map_err(|_| "a panic".to_owned())).collect();
    subscribers.and(measured)
}

fn options(words: &[String]) -> Outcome<Options> {
    let mut options = Options { time: Duration::from_secs(2), rate: 1000, load: 20_000 };
    for pair in words.chunks(2) {
        let [option, value] = pair else { return Err(USAGE.into()) };
        let number = value.parse::<f64>().ok().filter(|n| (1e-3..1e7).contains(n));
        let number = number.ok_or_else(|| format!("{option}: expected a number above 0, got {value:?}"))?;
        match option.as_str() {
            "--secs" => options.time = Duration::from_secs_f64(number),
            "--rate" => options.rate = (number as u32).max(1),
            "--load" => options.load = (number as u32).max(1),
            _ => return Err(USAGE.into()),
        }
    }
    Ok(options)
}

/// Measures with one number of workers, and prints the figures as JSON.
pub(crate) fn run(words: &[String]) -> Outcome<()> {
    let (workers, rest) = words.split_first().ok_or(USAGE)?;
    let (workers, options) = (workers.parse()?, options(rest)?);
    // A thread with a name, by which its CPU time is told apart.
    let figures = named("publisher", move || serve(workers, options)).join().map_err(|_| "a panic")??;
    let pairs: Vec<_> = figures.iter().map(|(name, value)| format!("\"{name}\": {value:.1}")).collect();
    println!("{{{}}}", pairs.join(", "));
    Ok(())
}
