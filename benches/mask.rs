//! Masking by length and instruction set, compared with a `memcpy` of the same length to a second buffer.
//!
//! Payloads are placed as in a receive buffer: each behind a client's header, short ones one after another. So loads and
//! stores are misaligned as they are in the server, and no call reads what the call before has just written, which would
//! measure how the CPU forwards stores to loads. All buffers stay in cache. `dispatch` is what the server calls; the
//! others bypass the choice.
//!
//! `text` unmasks and validates: in two passes, 16 KiB at a time, and in one. The key is zero, and is applied like any
//! other, so that the text stays valid.
//!
//! Run with `cargo bench --bench mask`, or one group with `cargo bench --bench mask -- apply/64/`.

use std::hint::black_box;
use std::time::Duration;

use campanile::protocol::mask::{self, Isa};
use campanile::protocol::utf8::Validator;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const LENGTHS: [usize; 9] = [2, 8, 20, 64, 125, 1 << 10, 16 << 10, 128 << 10, 1 << 20];
/// Short payloads fill about this much, so that source and destination together stay in the first cache.
const FILL: usize = 16 << 10;

/// Payloads of one length in a page-aligned buffer, as in a worker's receive buffer.
struct Frames {
    bytes: Vec<u8>,
    page: usize,
    header: usize,
    len: usize,
    count: usize,
    next: usize,
}

impl Frames {
    fn new(len: usize) -> Self {
        // RFC 6455 section 5.2: two bytes, the extended length, the key.
        let header = match len {
            0..=125 => 6,
            126..=65_535 => 8,
            _ => 14,
        };
        let count = (FILL / (header + len)).max(1);
        let bytes = vec![0x5a; count * (header + len) + 4096];
        let page = bytes.as_ptr().align_offset(4096);
        Self { bytes, page, header, len, count, next: 0 }
    }

    /// The next payload, and after the last the first.
    #[inline(always)]
    fn payload(&mut self) -> &mut [u8] {
        let at = self.page + self.next * (self.header + self.len) + self.header;
        self.next = if self.next + 1 == self.count { 0 } else { self.next + 1 };
        &mut self.bytes[at..at + self.len]
    }
}

/// Buffers to copy to, which start at a page each.
fn out(len: usize) -> (Vec<u8>, usize) {
    let bytes = vec![0; len + 4096];
    let page = bytes.as_ptr().align_offset(4096);
    (bytes, page)
}

/// A group for each length, with `memcpy` as the measure of all things: the frames and where they may be copied to.
fn beside_memcpy(
    c: &mut Criterion,
    name: &str,
    run: impl Fn(&mut BenchmarkGroup<'_, WallTime>, &mut Frames, &mut [u8]),
) {
    for len in LENGTHS {
        let mut group = c.benchmark_group(format!("{name}/{len}"));
        group.throughput(Throughput::Bytes(len as u64));
        let mut frames = Frames::new(len);
        let (mut bytes, page) = out(len);
        let dst = &mut bytes[page..page + len];
        group.bench_function("memcpy", |b| {
            b.iter(|| black_box(&mut *dst).copy_from_slice(black_box(frames.payload())));
        });
        run(&mut group, &mut frames, dst);
        group.finish();
    }
}

fn in_place(c: &mut Criterion) {
    beside_memcpy(c, "apply", |group, frames, _| {
        group.bench_function("dispatch", |b| {
            b.iter(|| mask::apply(black_box(frames.payload()), black_box(KEY), black_box(0)));
        });
        for isa in Isa::available() {
            group.bench_function(BenchmarkId::from_parameter(isa), |b| {
                b.iter(|| isa.apply(black_box(frames.payload()), black_box(KEY), black_box(0)));
            });
        }
    });
}

fn copied(c: &mut Criterion) {
    beside_memcpy(c, "copy", |group, frames, dst| {
        group.bench_function("dispatch", |b| {
            b.iter(|| {
                mask::copy(black_box(frames.payload()), black_box(&mut *dst), black_box(KEY), black_box(0))
            });
        });
        for isa in Isa::available() {
            group.bench_function(BenchmarkId::from_parameter(isa), |b| {
                b.iter(|| {
                    isa.copy(black_box(frames.payload()), black_box(&mut *dst), black_box(KEY), black_box(0))
                });
            });
        }
    });
}

/// `len` bytes of text made of these pieces in turn, padded with full stops.
fn text(pieces: &[&str], len: usize) -> Vec<u8> {
    // Not one after another, so that blocks differ as they do in life; a multiplier of Knuth's.
    let pick = |i: usize| pieces[(i.wrapping_mul(2_654_435_769) >> 7) % pieces.len()];
    let mut text = String::new();
    for piece in (0..).map(pick) {
        if text.len() + piece.len() > len {
            break;
        }
        text.push_str(piece);
    }
    text.push_str(&".".repeat(len - text.len()));
    text.into_bytes()
}

fn unmasked_and_validated(c: &mut Criterion) {
    let mixed =
        ["hello, world ", "price: 42.17 ", "naïve café ", "消息推送 ", "{\"op\":\"tick\"} ", "пример "];
    let kinds: [(&str, &[&str]); 4] = [
        ("ascii", &["hello, world "]),
        ("cyrillic", &["пример "]),
        ("cjk", &["消息推送"]),
        ("mixed", &mixed),
    ];
    for (kind, pieces) in kinds {
        for len in [1 << 10, 16 << 10, 1 << 20] {
            let mut group = c.benchmark_group(format!("text/{kind}/{len}"));
            group.throughput(Throughput::Bytes(len as u64));
            let mut frames = Frames::new(len);
            for _ in 0..frames.count {
                frames.payload().copy_from_slice(&text(pieces, len));
            }
            group.bench_function("two passes", |b| {
                b.iter(|| {
                    let mut validator = Validator::default();
                    for step in black_box(frames.payload()).chunks_mut(16 << 10) {
                        mask::apply(step, black_box([0; 4]), 0);
                        validator.feed(step).expect("text");
                    }
                    validator.finish()
                });
            });
            for isa in Isa::available().filter(|isa| matches!(isa, Isa::Avx2 | Isa::Avx512)) {
                group.bench_function(BenchmarkId::from_parameter(isa), |b| {
                    b.iter(|| {
                        let mut validator = Validator::default();
                        let payload = black_box(frames.payload());
                        validator.unmask_and_feed_by(isa, payload, black_box([0; 4]), 0).expect("text");
                        validator.finish()
                    });
                });
            }
            group.finish();
        }
    }
}

criterion_group! {
    name = benches;
    // The machine may be shared, and a hundred and more figures in one sitting are worth more than a few sharp ones.
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500));
    targets = in_place, copied, unmasked_and_validated
}
criterion_main!(benches);
