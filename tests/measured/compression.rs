//! What compression allocates and what a bomb costs, by a counting allocator and by the size of the process.

use crate::alone;
use crate::support::isolated::isolated;
use crate::support::packed::{Packed, SHARED};
use crate::support::{BINARY, echo, limits, resident, serve};
use allocation_counter::measure;
use campanile::Route;
use campanile::deflate::{Deflate, Deflater, History, Inflater};
use campanile::protocol::{Kind, ProtocolError};

const KIB: u64 = 1 << 10;

fn json(len: usize) -> Vec<u8> {
    let item =
        |i: usize| format!("{{\"id\":{},\"name\":\"bell {}\",\"rings\":{}}},", i * 7919, i % 12, i * i);
    (0..).map(item).flat_map(String::into_bytes).take(len).collect()
}

#[test]
fn a_message_allocates_nothing_once_its_buffers_have_grown() {
    let _alone = alone();
    let (mut deflater, mut inflater) = (Deflater::new(15, 1), Inflater::new());
    let (mut compressed, mut text) = (Vec::new(), Vec::new());
    let (mut ours, mut theirs) = (History::new(11), History::new(11));
    for len in [1, 1 << 10, 16 << 10, 300 << 10] {
        let payload = json(len);
        let mut round = |takeover: bool| {
            compressed.clear();
            text.clear();
            deflater.compress(&payload, takeover.then_some(&mut ours), &mut compressed);
            inflater
                .inflate(&compressed, takeover.then_some(&mut theirs), Kind::Text, 1 << 20, &mut text)
                .expect("what was compressed");
            assert_eq!(text.len(), len);
        };
        for takeover in [false, true] {
            (0..3).for_each(|_| round(takeover));
            assert_eq!(measure(|| round(takeover)).count_total, 0, "{len} bytes, takeover {takeover}");
        }
    }
}

#[test]
fn a_decompression_bomb_allocates_its_limit_and_64_kib() {
    let _alone = alone();
    // 1 GiB of zeros in 1 MiB: blocks of one message, repeated, since they refer to nothing but zeros.
    let mut block = Vec::new();
    Deflater::new(15, 9).compress(&vec![0; 16 << 20], None, &mut block);
    block.extend([0x00, 0x00, 0xFF, 0xFF]);
    let bomb = block.repeat(64);
    let mut inflater = Inflater::new();
    for (limit, out) in
        [(64 << 10, 0), (1 << 20, 0), (1 << 20, 8 << 10), (100, 0), (0, 0), (16 << 20, 1 << 20)]
    {
        for kind in [Kind::Text, Kind::Binary] {
            let info = measure(|| {
                let mut out = Vec::with_capacity(out);
                let result = inflater.inflate(&bomb, None, kind, limit, &mut out);
                assert_eq!(result, Err(ProtocolError::MessageTooBig { limit }));
                assert!(out.is_empty());
            });
            let most = limit as u64 + 64 * KIB + out as u64;
            assert!(info.bytes_max <= most, "limit {limit}: {} of {most}", info.bytes_max);
            assert_eq!(info.bytes_current, 0);
        }
    }
    // Without a limit of use, room is made for what the payload can become, not for the limit.
    let info = measure(|| {
        let mut out = Vec::new();
        inflater.inflate(&bomb[..1000], None, Kind::Binary, usize::MAX, &mut out).expect_err("cut");
    });
    assert!(info.bytes_max < 2 << 20, "{}", info.bytes_max);
}

/// The prices in docs/guide/compression.md.
#[test]
fn context_memory_matches_the_documentation() {
    let _alone = alone();
    let of = |make: &dyn Fn() -> Box<dyn std::any::Any>| measure(|| drop(make())).bytes_max;
    let inflater = of(&|| Box::new(Inflater::new()));
    assert!(inflater.abs_diff(47 * KIB) <= KIB, "an inflater holds {inflater}");
    for (bits, kib) in [(9, 161), (10, 163), (11, 167), (12, 175), (13, 191), (14, 223), (15, 287)] {
        let deflater = of(&|| Box::new(Deflater::new(bits, 1)));
        assert!(deflater.abs_diff(kib * KIB) <= KIB, "a deflater of {bits} bits holds {deflater}");
        // A history is at most its window.
        let (mut deflater, mut history) = (Deflater::new(bits, 1), History::new(bits));
        for _ in 0..100 {
            deflater.compress(&json(1 << 10), Some(&mut history), &mut Vec::new());
        }
        assert_eq!(history.held(), 1 << bits);
    }
}

/// A final block that says nothing takes two bytes, and after each the inflater begins anew.
#[test]
fn endless_final_blocks_are_bounded() {
    let _alone = alone();
    let mut payload = [0x03, 0x00].repeat(64 << 10);
    let (mut inflater, mut out) = (Inflater::new(), Vec::new());
    inflater.inflate(&payload, None, Kind::Text, 10, &mut out).expect("empty blocks");
    payload.push(0x00);
    inflater.inflate(&payload, None, Kind::Text, 10, &mut out).expect("empty blocks");
    assert!(out.is_empty());
}

#[test]
fn a_bomb_costs_a_server_no_more_than_its_limit() {
    let _alone = alone();
    isolated(|| {
        const LIMIT: usize = 4 << 20;
        let limits = limits(|l| l.max_message_size = LIMIT);
        let server = serve(Route::new(echo()).limits(limits).deflate(Deflate::shared()));
        let mut packed = Vec::new();
        // 1 GiB of zeros in a megabyte: 64 times the same, each with the tail that makes it end on a byte.
        Deflater::new(15, 9).compress(&vec![0; 16 << 20], None, &mut packed);
        packed.extend_from_slice(&[0, 0, 0xFF, 0xFF]);
        let mut packed = packed.repeat(64);
        packed.truncate(packed.len() - 4);
        assert!(packed.len() < LIMIT, "it would be refused for what it is");
        let mut client = Packed::open(&server, "/", "permessage-deflate", SHARED);
        let before = resident();
        client.client.frame(true, 0x40 | BINARY, &packed);
        client.client.expect_failed(1009);
        let cost = resident().saturating_sub(before);
        // The message as it came, what it was inflated to, and this test's own buffers.
        assert!(cost < LIMIT + 4 * packed.len(), "{cost} bytes");
    });
}
