//! What a message costs without sockets: heads, UTF-8, the whole way through a connection, and the fan-out.
//!
//! `make bench` runs it. Figures are of this process alone; the kernel's price of a message is some microseconds.

mod support;

use campanile::Message;
use campanile::protocol::{Opcode, Role, header, utf8};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use support::{echo_machine, frame, room, text};

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
            let mut machine = echo_machine();
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
        let mut machine = room(subscribers as usize);
        let message = text(100);
        for (name, messages) in [("one message", 1), ("16 messages of one iteration", 16)] {
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

/// One tick of the timers with many connections, a 390th of which are due.
fn timers(c: &mut Criterion) {
    let mut group = c.benchmark_group("timers");
    for connections in [10_000, 1_000_000] {
        let mut machine = echo_machine();
        for _ in 0..connections {
            machine.open(());
        }
        group.bench_function(BenchmarkId::new("tick", connections), |b| b.iter(|| machine.tick()));
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50).measurement_time(std::time::Duration::from_secs(2));
    targets = heads, validation, echo, fan_out, timers
}
criterion_main!(benches);
