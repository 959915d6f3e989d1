//! Masking by length and instruction set, against what memcpy takes to carry as many bytes to a second buffer.
//!
//! Payloads lie as they do in a receive buffer: each behind a client's header, short ones one after another, so loads
//! and stores are as ill-aligned as in life, and no call meets the stores of the call before. (On the same few bytes
//! over and over, what is measured is how the CPU forwards stores to loads that overlap them.) All buffers stay in
//! cache. `dispatch` is what the server calls; the others bypass the choice.
//!
//! Run with `cargo bench --bench mask`, or one group with `cargo bench --bench mask -- apply/64/`.

use std::hint::black_box;
use std::time::Duration;

use campanile::protocol::mask::{self, Isa};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

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

fn in_place(c: &mut Criterion) {
    for len in LENGTHS {
        let mut group = c.benchmark_group(format!("apply/{len}"));
        group.throughput(Throughput::Bytes(len as u64));
        let mut frames = Frames::new(len);
        let (mut bytes, page) = out(len);
        let dst = &mut bytes[page..page + len];

        group.bench_function("memcpy", |b| {
            b.iter(|| black_box(&mut *dst).copy_from_slice(black_box(frames.payload())));
        });
        group.bench_function("dispatch", |b| {
            b.iter(|| mask::apply(black_box(frames.payload()), black_box(KEY), black_box(0)));
        });
        for isa in Isa::available() {
            group.bench_function(BenchmarkId::from_parameter(isa), |b| {
                b.iter(|| isa.apply(black_box(frames.payload()), black_box(KEY), black_box(0)));
            });
        }
        group.finish();
    }
}

fn copied(c: &mut Criterion) {
    for len in LENGTHS {
        let mut group = c.benchmark_group(format!("copy/{len}"));
        group.throughput(Throughput::Bytes(len as u64));
        let mut frames = Frames::new(len);
        let (mut bytes, page) = out(len);
        let dst = &mut bytes[page..page + len];

        group.bench_function("memcpy", |b| {
            b.iter(|| black_box(&mut *dst).copy_from_slice(black_box(frames.payload())));
        });
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
        group.finish();
    }
}

criterion_group! {
    name = benches;
    // The machine may be shared, and a hundred and more figures in one sitting are worth more than a few sharp ones.
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500));
    targets = in_place, copied
}
criterion_main!(benches);
