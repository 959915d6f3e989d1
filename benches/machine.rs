//! What a message costs without sockets: heads, UTF-8, the whole way through a connection, and the fan-out.
//!
//! `make bench` runs it. Figures are of this process alone; the kernel's price of a message is some microseconds.

use campanile::internal::Machine;
use campanile::protocol::{Opcode, Role, header, mask, utf8};
use campanile::{Accept, Conn, Handler, Limits, Message, Refuse, Request, Route};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

struct Echo;

impl Handler for Echo {
    type State = ();
    fn upgrade(&self, _: &Request<'_>) -> Result<Accept<()>, Refuse> {
        Ok(Accept::new(()))
    }
    fn message(&self, conn: &mut Conn<'_, ()>, message: Message<'_>) {
        let _ = conn.send(message);
    }
}

/// A client's frame.
fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let key = [0x12, 0x34, 0x56, 0x78];
    let mut out = header::encode(true, false, opcode, payload.len(), Some(key)).to_vec();
    let from = out.len();
    out.extend_from_slice(payload);
    mask::apply(&mut out[from..], key, 0);
    out
}

fn text(len: usize) -> String {
    let mut text: String = "naïve café, 消息推送, price: 42.17; ".chars().cycle().take(len).collect();
    while text.len() > len {
        text.pop();
    }
    text
}

fn heads(c: &mut Criterion) {
    let mut group = c.benchmark_group("head");
    for len in [20, 1000, 100_000] {
        let bytes = frame(Opcode::Binary, &vec![0; len]);
        group.bench_with_input(BenchmarkId::new("decode", len), &bytes, |b, bytes| {
            b.iter(|| header::decode(black_box(bytes), Role::Server, false));
        });
        group.bench_with_input(BenchmarkId::new("encode", len), &len, |b, len| {
            b.iter(|| header::encode(true, false, Opcode::Binary, black_box(*len), None));
        });
    }
}

fn validation(c: &mut Criterion) {
    let mut group = c.benchmark_group("utf8");
    for len in [20, 1 << 10, 16 << 10, 1 << 20] {
        let text = text(len);
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_with_input(BenchmarkId::new("whole", len), text.as_bytes(), |b, bytes| {
            b.iter(|| utf8::validate(black_box(bytes)).is_ok());
        });
        group.bench_with_input(BenchmarkId::new("in pieces", len), text.as_bytes(), |b, bytes| {
            b.iter(|| {
                let mut v = utf8::Validator::default();
                bytes.chunks(1000).all(|piece| v.feed(black_box(piece)).is_ok()) && v.finish().is_ok()
            });
        });
    }
}

/// One read with some messages in it, each echoed, and the write of the answers.
fn echo(c: &mut Criterion) {
    let mut group = c.benchmark_group("echo");
    for (len, depth) in [(20, 1), (20, 16), (1 << 10, 1), (16 << 10, 1), (128 << 10, 1)] {
        for (kind, one) in [
            ("binary", frame(Opcode::Binary, text(len).as_bytes())),
            ("text", frame(Opcode::Text, text(len).as_bytes())),
        ] {
            let mut limits = Limits::default();
            limits.max_message_size = 1 << 20;
            let mut machine = Machine::new(Route::new(Echo).limits(limits));
            let conn = machine.open(());
            let read = one.repeat(depth);
            group.throughput(Throughput::Elements(depth as u64));
            group.bench_function(BenchmarkId::new(format!("{kind} x{depth}"), len), |b| {
                // Unmasking is in place: every iteration needs a fresh read.
                b.iter_batched_ref(
                    || read.clone(),
                    |read| machine.receive(conn, read),
                    BatchSize::SmallInput,
                );
            });
        }
    }
}

fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan-out");
    for subscribers in [1, 100, 10_000] {
        let mut machine = Machine::new(Echo);
        for _ in 0..subscribers {
            let conn = machine.open(());
            machine.subscribe(conn, "room");
        }
        let message = text(100);
        for (name, messages) in [("one message", 1), ("16 messages of one turn", 16)] {
            group.throughput(Throughput::Elements(subscribers * messages));
            group.bench_function(BenchmarkId::new(name, subscribers), |b| {
                b.iter(|| {
                    for _ in 0..messages {
                        machine.publish("room", Message::text(&message));
                    }
                    machine.fan_out();
                });
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50).measurement_time(std::time::Duration::from_secs(2));
    targets = heads, validation, echo, fan_out
}
criterion_main!(benches);
