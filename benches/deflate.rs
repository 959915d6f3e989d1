//! Compression by mode, window and level: messages per second, what they shrink to, and what a reset costs.
//!
//! A message is JSON with little in common with the next but its keys. `shared` refers to nothing; `dedicated` has the
//! messages before it behind it, as long as the window. `cargo bench --bench deflate`, or a part with
//! `cargo bench --bench deflate -- shared/1024/`. Ratios are printed before the times.

#[path = "support/json.rs"]
mod json;

use campanile::deflate::{Deflater, History, Inflater};
use campanile::protocol::Kind;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use json::json;
use std::hint::black_box;
use std::time::Duration;

const LENGTHS: [usize; 3] = [128, 1 << 10, 16 << 10];
const MESSAGES: u64 = 64;

fn messages(len: usize) -> Vec<Vec<u8>> {
    (1..=MESSAGES).map(|seed| json(len, seed)).collect()
}

/// Compresses all, each behind the ones before it, and gives the sum of what they became.
fn total(deflater: &mut Deflater, messages: &[Vec<u8>], mut history: Option<History>) -> usize {
    let mut out = Vec::new();
    messages.iter().for_each(|m| deflater.compress(m, history.as_mut(), &mut out));
    out.len()
}

fn compress(c: &mut Criterion, mode: &str, windows: &[u8], levels: &[u8]) {
    for len in LENGTHS {
        let messages = messages(len);
        let mut group = c.benchmark_group(format!("{mode}/{len}"));
        group.throughput(Throughput::Elements(1));
        for &bits in windows {
            for &level in levels {
                let mut deflater = Deflater::new(bits, level);
                let takeover = mode == "dedicated";
                let size = total(&mut deflater, &messages, takeover.then(|| History::new(bits)));
                println!(
                    "{mode}/{len}/{bits} bits, level {level}: {:.3}",
                    size as f64 / (len * messages.len()) as f64
                );
                let mut history = takeover.then(|| History::new(bits));
                // Until the history is full.
                for message in messages.iter().cycle().take((2 << bits) / len) {
                    deflater.compress(message, history.as_mut(), &mut Vec::new());
                }
                let (mut out, mut next) = (Vec::new(), messages.iter().cycle());
                group.bench_function(
                    BenchmarkId::from_parameter(format!("{bits} bits, level {level}")),
                    |b| {
                        b.iter(|| {
                            out.clear();
                            let message = next.next().expect("a cycle has no end");
                            deflater.compress(black_box(message), history.as_mut(), &mut out);
                            black_box(out.len())
                        });
                    },
                );
            }
        }
        group.finish();
    }
}

fn shared(c: &mut Criterion) {
    compress(c, "shared", &[9, 12, 15], &[1, 2, 3, 4, 6]);
}

fn dedicated(c: &mut Criterion) {
    compress(c, "dedicated", &[9, 10, 11, 12, 13, 15], &[1, 3]);
}

/// One byte is nearly nothing but a reset.
fn reset(c: &mut Criterion) {
    let mut group = c.benchmark_group("reset");
    for bits in [9, 15] {
        let (mut deflater, mut out) = (Deflater::new(bits, 1), Vec::new());
        group.bench_function(BenchmarkId::from_parameter(format!("{bits} bits")), |b| {
            b.iter(|| {
                out.clear();
                deflater.compress(black_box(b"1"), None, &mut out);
            });
        });
    }
    group.finish();
}

fn inflate(c: &mut Criterion) {
    for len in LENGTHS {
        let mut group = c.benchmark_group(format!("inflate/{len}"));
        group.throughput(Throughput::Elements(1));
        for level in [1, 6] {
            let mut deflater = Deflater::new(15, level);
            let compressed: Vec<_> = messages(len)
                .iter()
                .map(|message| {
                    let mut out = Vec::new();
                    deflater.compress(message, None, &mut out);
                    out
                })
                .collect();
            for bits in [None, Some(11), Some(15)] {
                let (mut inflater, mut history) = (Inflater::new(), bits.map(History::new));
                let (mut out, mut next) = (Vec::new(), compressed.iter().cycle());
                let name = match bits {
                    None => format!("shared, level {level}"),
                    Some(bits) => format!("dedicated {bits} bits, level {level}"),
                };
                group.bench_function(BenchmarkId::from_parameter(name), |b| {
                    b.iter(|| {
                        out.clear();
                        let message = next.next().expect("a cycle has no end");
                        let message = black_box(message);
                        inflater
                            .inflate(message, history.as_mut(), Kind::Text, 1 << 20, &mut out)
                            .expect("what was compressed");
                    });
                });
            }
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300));
    targets = shared, dedicated, reset, inflate
}
criterion_main!(benches);
