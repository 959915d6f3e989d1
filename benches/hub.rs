//! What topics cost without sockets: publications without subscribers, memory of a subscription, and whether a publication
//! costs more where there are many topics.
//!
//! ```text
//!   handler   a read with one frame ─> Conn::publish × 1000 ─> fan-out    a worker's parts alone
//!   outside   thread ─> Handle::publish ─> mailbox ─> worker              a server without connections
//!   topics    publish ─> fan-out to 10 subscribers                        a worker's parts alone
//! ```
//! `cargo bench --bench hub`, or a part with `cargo bench --bench hub -- outside/`. The time of `outside` is CPU time of both
//! threads by the scheduler's account. Bytes for each subscription are printed before the times of `topics`: what the
//! allocator was asked for and has not been given back, the topic's share included.

#[path = "support/cpu.rs"]
mod cpu;

use allocation_counter::measure;
use campanile::internal::Machine;
use campanile::{
    Accept, Conn, Disconnect, Handle, HandleError, Handler, Message, Publish, Refuse, Request, Server,
};
use cpu::cpu;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::thread;
use std::time::Duration;

const PAYLOAD: [u8; 64] = [b'.'; 64];

/// Names of topics that are published to in turn.
const NAMES: [usize; 2] = [1, 100_000];

/// Publications of one callback.
const BURST: usize = 1000;

/// Subscribers of each topic.
const SUBSCRIBERS: usize = 10;

/// The numbers below `n` in an order that follows no order of memory, and is the same in each run.
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

/// Publishes a burst for each message.
struct Publisher(Vec<String>);

impl Handler for Publisher {
    type State = usize;

    fn upgrade(&self, _: &Request<'_>) -> Result<Accept<usize>, Refuse> {
        Ok(Accept::new(0))
    }

    fn message(&self, conn: &mut Conn<'_>, next: &mut usize, _: Message<'_>) -> Result<(), Disconnect> {
        for _ in 0..BURST {
            conn.publish_to_others(&self.0[*next], PAYLOAD)?;
            *next = (*next + 1) % self.0.len();
        }
        Ok(())
    }
}

fn handler(c: &mut Criterion) {
    let mut group = c.benchmark_group("handler");
    group.throughput(Throughput::Elements(BURST as u64));
    for n in NAMES {
        let mut machine = Machine::new(Publisher(names(n)));
        let conn = machine.open(0_usize);
        let read = [0x81, 0x80, 0, 0, 0, 0]; // an empty text
        group.bench_function(BenchmarkId::new("names", n), |b| {
            b.iter(|| {
                machine.receive(conn, &mut { read });
                machine.fan_out();
            });
        });
    }
}

/// Publishes this number of batches, and gives the CPU time of both threads.
fn publish(handle: &Handle, names: &[String], each: usize, batches: u64) -> Duration {
    let mut cycle = names.chunks(each).cycle();
    // This is the process's first thread, which is named after the bench.
    let before = cpu("hub") + cpu("campanile-");
    for _ in 0..batches {
        let batch = cycle.next().expect("there are names");
        loop {
            let done = match batch {
                [one] => handle.publish(one, PAYLOAD),
                all => handle
                    .publish_batch(all.iter().map(|name| Publish::new(name, &PAYLOAD)))
                    .map_err(|e| e.failed[0].1.clone()),
            };
            match done {
                Ok(()) => break,
                Err(HandleError::Full) => thread::sleep(Duration::from_micros(100)),
                Err(e) => panic!("{e}"),
            }
        }
    }
    // A query waits in the same mailbox: its answer comes when all messages before it are done.
    handle.subscribers(&names[0]).wait().expect("the server runs");
    cpu("hub") + cpu("campanile-") - before
}

fn outside(c: &mut Criterion) {
    let server = Server::builder().listen("127.0.0.1:0").workers(1).build().expect("a server");
    let running = server.spawn().expect("a worker");
    let handle = running.handle().clone();
    let mut group = c.benchmark_group("outside");
    for each in [1, 100] {
        group.throughput(Throughput::Elements(each as u64));
        for n in NAMES {
            let names = if n == 1 { vec!["orders/0".to_owned(); each] } else { names(n) };
            group.bench_function(BenchmarkId::new(format!("batch of {each}"), n), |b| {
                b.iter_custom(|batches| publish(&handle, &names, each, batches));
            });
        }
    }
    handle.shutdown(Duration::from_secs(1));
    running.join().expect("no worker failed");
}

/// A machine with `topics` topics and as many connections, and bytes for each subscription.
fn subscribed(topics: usize) -> (Machine, f64) {
    let mut machine = Machine::new(Publisher(Vec::new())); // nothing sends to it
    let conns: Vec<usize> = (0..topics).map(|_| machine.open(0_usize)).collect();
    let order = shuffled(topics);
    let held = measure(|| {
        for (i, conn) in conns.iter().enumerate() {
            for k in 0..SUBSCRIBERS {
                // Neighbours have different topics.
                let topic = order[(i + k * (topics / SUBSCRIBERS + 1)) % topics];
                machine.subscribe(*conn, &format!("orders/{topic}"));
            }
        }
    });
    (machine, held.bytes_current as f64 / (topics * SUBSCRIBERS) as f64)
}

fn topics(c: &mut Criterion) {
    let mut group = c.benchmark_group("topics");
    group.throughput(Throughput::Elements(SUBSCRIBERS as u64));
    for n in [1_000, 10_000, 100_000] {
        let (mut machine, bytes) = subscribed(n);
        let every = names(n);
        let more = measure(|| {
            for name in &every {
                machine.publish(name, Message::from(&PAYLOAD));
                machine.fan_out();
            }
        });
        let after = bytes + more.bytes_current as f64 / (n * SUBSCRIBERS) as f64;
        println!("topics/{n}: {bytes:.1} bytes for each subscription, {after:.1} once all were published to");
        for (what, names) in [("one", &every[..1]), ("in turn", &every[..])] {
            let mut next = names.iter().cycle();
            group.bench_function(BenchmarkId::new(what, n), |b| {
                b.iter(|| {
                    machine.publish(black_box(next.next().map_or("", |name| name)), Message::from(&PAYLOAD));
                    machine.fan_out();
                });
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(2));
    targets = handler, outside, topics
}
criterion_main!(benches);
