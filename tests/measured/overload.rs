//! Compression on a worker whose iterations take long: it is left out until the worker catches up.

use crate::alone;
use crate::support::packed::{Packed, SHARED, text};
use crate::support::{DEADLINE, TEXT, TestServer, frame, limits, millis, recorder, serve};
use campanile::Route;
use campanile::deflate::Deflate;
use std::thread::sleep;
use std::time::Instant;

/// An echo that takes 80 ms for messages beginning with "slow", and such a message that takes long to compress too.
fn slow_server(threshold: usize) -> (TestServer, String) {
    let slow =
        recorder().0.on_open(|conn| assert!(conn.subscribe("bell").unwrap())).on_message(|conn, message| {
            if message.as_text().is_some_and(|t| t.starts_with("slow")) {
                sleep(millis(80));
            }
            if message.as_text().is_some_and(|t| t.ends_with("all")) {
                return conn.publish("bell", message).unwrap();
            }
            conn.send(message).unwrap();
        });
    let limits = limits(|l| l.max_message_size = 4 << 20);
    let route = Route::new(slow).limits(limits).deflate(Deflate::shared().threshold(threshold));
    (serve(route), format!("slow {}", text(0, 1 << 20)))
}

/// Sends a message; returns whether its echo is compressed.
fn comes_compressed(client: &mut Packed, message: &str) -> bool {
    client.client.text(message);
    let (came, len) = client.read();
    assert!(came == message);
    len.is_some()
}

#[test]
fn an_overloaded_worker_stops_compressing_until_it_catches_up() {
    let _alone = alone();
    let (server, much) = slow_server(16);
    let mut client = Packed::open(&server, "/", "permessage-deflate", SHARED);
    let quick = format!("quick {}", text(0, 500));
    assert!(comes_compressed(&mut client, &much), "no iteration was long yet");
    assert!(!comes_compressed(&mut client, &quick), "the last iteration took 80 ms");
    server.until("counted", |s| s.deflate_skipped == 1);
    let end = Instant::now() + DEADLINE;
    while !comes_compressed(&mut client, &quick) {
        assert!(Instant::now() < end, "it never catches up");
    }
}

#[test]
fn iterations_slow_for_other_reasons_keep_compressing() {
    let _alone = alone();
    let (server, much) = slow_server(16);
    let mut client = Packed::open(&server, "/", "permessage-deflate", SHARED);
    let slow = format!("slow {}", text(0, 500));
    for _ in 0..3 {
        assert!(comes_compressed(&mut client, &slow));
    }
    assert!(comes_compressed(&mut client, &much));
    let skipped = (0..100).take_while(|_| !comes_compressed(&mut client, &slow)).count();
    assert!((1..=16).contains(&skipped), "{skipped}");
    server.until("counted", |s| s.deflate_skipped == skipped as u64);
}

#[test]
fn short_messages_are_not_counted_as_skipped() {
    let _alone = alone();
    let (server, much) = slow_server(200);
    let mut client = Packed::open(&server, "/", "permessage-deflate", SHARED);
    assert!(comes_compressed(&mut client, &much));
    let messages = ["short", "short to all", &text(0, 200)];
    client.client.send(messages.map(|m| frame(true, TEXT, m.as_bytes())).concat());
    for message in messages {
        assert_eq!(client.read(), (message.to_owned(), None));
    }
    server.until("counted", |s| s.deflate_skipped > 0);
    assert_eq!(server.handle.stats().deflate_skipped, 1);
}
