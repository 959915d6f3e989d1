//! What topics cost without sockets: publications that nobody hears, memory of a subscription, and whether a
//! publication is dearer where there are many topics.
//!
//! ```text
//!   a read with one frame ─> handler ─> Conn::publish × 1000 ─> fan-out          the worker's parts alone
//!   outside thread ─> Handle::publish ─> mailbox ─> worker                        a server without connections
//! ```
//! CPU time is the scheduler's own account of the threads that take part. Memory is what the allocator was asked for
//! and has not been given back.

#[path = "support/cpu.rs"]
mod cpu;

use allocation_counter::measure;
use campanile::internal::Machine;
use campanile::{Accept, Conn, Handle, HandleError, Handler, Message, Publish, Refuse, Request, Server};
use cpu::cpu;
use std::hint::black_box;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

const USAGE: &str = "usage: cargo bench --bench hub -- [--secs S] [--names N]

  --secs S    seconds of each measurement [2]
  --names N   topics that are published to [100000]";

const PAYLOAD: [u8; 64] = [b'.'; 64];

/// Publications of one turn.
const TURN: usize = 1000;

/// Subscribers of each topic.
const SUBSCRIBERS: usize = 10;

/// Repeated so often, the best counts: others use the same machine.
const RUNS: usize = 5;

/// Not one behind the other in memory, and the same in each run.
fn shuffled(n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    let mut x = 0x9E37_79B9_7F4A_7C15_u64;
    for i in (1..n).rev() {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        order.swap(i, (x % (i as u64 + 1)) as usize);
    }
    order
}

fn names(n: usize) -> Vec<String> {
    shuffled(n).into_iter().map(|i| format!("orders/{i}")).collect()
}

// ---- publications that nobody hears ----

/// Publishes a turn's share for each message that comes.
struct Publisher(Vec<String>);

impl Handler for Publisher {
    type State = usize;

    fn upgrade(&self, _: &Request<'_>) -> Result<Accept<usize>, Refuse> {
        Ok(Accept::new(0))
    }

    fn message(&self, conn: &mut Conn<'_, usize>, _: Message<'_>) {
        for _ in 0..TURN {
            let next = *conn.state();
            conn.publish(&self.0[next], &PAYLOAD);
            *conn.state_mut() = (next + 1) % self.0.len();
        }
    }
}

/// From a handler on the worker. Publications for each CPU second.
fn by_handler(names: Vec<String>, time: Duration) -> f64 {
    let mut machine = Machine::new(Publisher(names));
    let conn = machine.open(0_usize);
    let read = [0x81, 0x80, 0, 0, 0, 0]; // an empty text
    let (from, cpu_from, mut n) = (Instant::now(), cpu("hub"), 0);
    while from.elapsed() < time {
        machine.receive(conn, &mut { read });
        machine.fan_out();
        n += TURN;
    }
    n as f64 / (cpu("hub") - cpu_from).as_secs_f64()
}

fn server() -> Result<(Handle, campanile::Running), String> {
    let server = Server::builder().listen("127.0.0.1:0").workers(1).build().map_err(|e| e.to_string())?;
    let running = server.spawn().map_err(|e| e.to_string())?;
    Ok((running.handle().clone(), running))
}

/// From a thread outside. With `each` above 1 so many at a time, by `publish_batch`. CPU seconds are those of the thread
/// and of the worker; the share of the worker comes second.
fn from_outside(names: &[String], each: usize, time: Duration) -> Result<(f64, f64), String> {
    let (handle, running) = server()?;
    let mut turns = names.chunks(each).cycle();
    let (from, publisher, worker, mut n) = (Instant::now(), cpu("hub"), cpu("campanile-"), 0);
    while from.elapsed() < time {
        let batch = turns.next().ok_or("no names")?;
        loop {
            let done = match batch {
                [one] => handle.publish(one, &PAYLOAD),
                all => {
                    let published = handle.publish_batch(all.iter().map(|name| Publish::new(name, &PAYLOAD)));
                    published.map_err(|e| e.failed[0].1.clone())
                }
            };
            match done {
                Ok(()) => break,
                Err(HandleError::Full) => thread::sleep(Duration::from_micros(100)),
                Err(e) => return Err(e.to_string()),
            }
        }
        n += batch.len();
    }
    // A question waits in the same mailbox: its answer says that all before it is done.
    handle.subscribers(&names[0]).wait().map_err(|e| e.to_string())?;
    let (publisher, worker) = (cpu("hub") - publisher, cpu("campanile-") - worker);
    handle.shutdown(Duration::from_secs(1));
    running.join().expect("no worker failed");
    Ok((n as f64 / (publisher + worker).as_secs_f64(), n as f64 / worker.as_secs_f64()))
}

// ---- many topics ----

/// So many topics with [`SUBSCRIBERS`] each, of as many connections with as many subscriptions each; and bytes for each
/// subscription, the topic's share among them.
fn many(topics: usize) -> (Machine, f64) {
    let mut machine = Machine::new(Publisher(Vec::new())); // which nobody asks to publish
    let conns: Vec<usize> = (0..topics).map(|_| machine.open(0_usize)).collect();
    let order = shuffled(topics);
    let held = measure(|| {
        for (i, conn) in conns.iter().enumerate() {
            for k in 0..SUBSCRIBERS {
                // Its topics are others than its neighbour's.
                let topic = order[(i + k * (topics / SUBSCRIBERS + 1)) % topics];
                machine.subscribe(*conn, &format!("orders/{topic}"));
            }
        }
    });
    (machine, held.bytes_current as f64 / (topics * SUBSCRIBERS) as f64)
}

/// Nanoseconds of a publication with its deliveries: to one topic, and to all in turn.
fn publication(machine: &mut Machine, names: &[String], turns: usize) -> f64 {
    let mut best = f64::MAX;
    let mut next = names.iter().cycle();
    for _ in 0..RUNS {
        let from = Instant::now();
        for _ in 0..turns {
            machine.publish(black_box(next.next().map_or("", |name| name)), Message::from(&PAYLOAD));
            machine.fan_out();
        }
        best = best.min(from.elapsed().as_nanos() as f64 / turns as f64);
    }
    best
}

// ---- the run ----

fn run(time: Duration, most: usize) -> Result<(), String> {
    println!("| publications without subscribers, for each CPU second | one name | {most} names |");
    println!("| --- | ---: | ---: |");
    let (one, all) = (names(1), names(most));
    println!(
        "| from a handler, {TURN} in a turn | {:.0} | {:.0} |",
        by_handler(one.clone(), time),
        by_handler(all.clone(), time)
    );
    for (what, each) in [("`publish`", 1), ("`publish_batch`, 100 at a time", 100)] {
        let repeated = vec![one[0].clone(); each];
        let (single, many) = (from_outside(&repeated, each, time)?, from_outside(&all, each, time)?);
        println!("| from a thread outside, {what} | {:.0} | {:.0} |", single.0, many.0);
        println!("| the same, CPU seconds of the worker alone | {:.0} | {:.0} |", single.1, many.1);
    }
    println!(
        "\n| topics with {SUBSCRIBERS} subscribers each | bytes for each subscription | the same, once published to | \
         publishing to one, ns | to all in turn, ns |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: |");
    for topics in [1_000, 10_000, 100_000] {
        let (mut machine, bytes) = many(topics);
        let every = names(topics);
        let more = measure(|| {
            publication(&mut machine, &every, topics);
        });
        let published = bytes + more.bytes_current as f64 / (topics * SUBSCRIBERS) as f64;
        let one = publication(&mut machine, &["orders/7".to_owned()], 100_000);
        let all = publication(&mut machine, &every, 100_000);
        println!("| {topics} | {bytes:.1} | {published:.1} | {one:.0} | {all:.0} |");
    }
    Ok(())
}

fn options() -> Result<(Duration, usize), String> {
    let (mut time, mut names) = (Duration::from_secs(2), 100_000);
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench"); // which cargo adds
    while let Some(arg) = args.next() {
        let value = args.next().ok_or_else(|| format!("{arg}: no value"))?;
        let number = value.parse::<f64>().ok().filter(|n| (1e-3..1e7).contains(n));
        let number = number.ok_or_else(|| format!("{arg} {value}: expected a number above 0"))?;
        match arg.as_str() {
            "--secs" => time = Duration::from_secs_f64(number),
            "--names" => names = (number as usize).max(1),
            _ => return Err(format!("{arg}: no such option")),
        }
    }
    Ok((time, names))
}

fn main() -> ExitCode {
    if std::env::args().any(|a| a == "--test") {
        return ExitCode::SUCCESS; // `cargo test --benches` only wants to see it run
    }
    if std::env::args().any(|a| a == "--help" || a == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let (time, names) = match options() {
        Ok(options) => options,
        Err(e) => {
            eprintln!("hub: {e}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // A thread with a name of its own, so that its CPU time can be told apart.
    let all = thread::Builder::new().name("hub".into()).spawn(move || run(time, names));
    match all.map(thread::JoinHandle::join) {
        Ok(Ok(Ok(()))) => ExitCode::SUCCESS,
        Ok(Ok(Err(e))) => {
            eprintln!("hub: {e}");
            ExitCode::FAILURE
        }
        _ => ExitCode::FAILURE, // no thread, or the panic has said why
    }
}
