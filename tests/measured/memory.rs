//! Memory that is no longer needed goes back to the system.

use crate::alone;
use crate::support::isolated::isolated;
use crate::support::{builder, limits, millis, recorder, resident, start};
use campanile::Route;
use std::time::{Duration, Instant};

const CLIENTS: usize = 100;
const TOPICS: usize = 1000;
/// What a client that does not read has waiting, beyond what the kernel takes.
const BACKLOG: usize = 512 << 10;

/// Heap that is free goes back some seconds later.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
#[cfg_attr(not(target_env = "gnu"), ignore = "other C libraries than glibc keep what is freed, or not")]
fn ended_subscriptions_and_backlogs_free_their_memory() {
    let _alone = alone();
    isolated(|| {
        let handler = recorder().0.on_message(|conn, message| {
            let name = message.as_text().unwrap();
            for n in 0..TOPICS {
                conn.subscribe(&format!("a topic with a name of some length/{name}/{n}")).unwrap();
            }
            for n in 0.. {
                let _ = conn.send(&format!("{n:100}")[..]);
                if conn.buffered_amount() > BACKLOG {
                    break;
                }
            }
            conn.send("full").unwrap();
        });
        let limits = limits(|l| (l.max_backlog, l.max_unsent) = (64 << 20, Some(1)));
        let server = start(builder().route("/", Route::new(handler).limits(limits)));
        let round = |clients: usize| {
            let mut all: Vec<_> = (0..clients).map(|_| server.open_slow("/")).collect();
            for (n, client) in all.iter_mut().enumerate() {
                client.text(&n.to_string());
            }
            server.until("all is subscribed to and waits", |stats| {
                stats.held_bytes > (clients * BACKLOG / 2) as u64
            });
            server.settle();
            let peak = resident();
            drop(all);
            server.until("all are gone", |stats| stats.open == 0);
            peak
        };
        round(1);
        let before = resident();
        let peak = round(CLIENTS);
        assert!(peak > before + (40 << 20), "{} MiB: nothing to measure", (peak - before) >> 20);
        let least = before + (peak - before) / 5;
        let deadline = Instant::now() + PATIENCE;
        while resident() > least {
            let kept = resident().saturating_sub(before) >> 20;
            assert!(Instant::now() < deadline, "{kept} MiB of {} stay", (peak - before) >> 20);
            std::thread::park_timeout(millis(20));
        }
    });
}
