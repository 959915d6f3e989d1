//! cargo run --features client --example publish [URL]
//! Publishes a price each half second, and now and then a word, to the page /live.html of `campanile --dev`:
//! ws://127.0.0.1:9001/push, which is also the default. Prints where each message is, and what is said in the room.

use campanile::push_client::{Publication, PushClient, PushEvent, Subscription};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "ws://127.0.0.1:9001/push".into());
    let push = PushClient::connect(&url)?;
    push.subscribe(Subscription::new("public/room").last(10))?;

    let mut cents: u64 = 4_200;
    for round in 0.. {
        cents = 4_000 + (cents * 31 + round) % 500;
        let price = format!(r#"{{"key":"RUST/EUR","value":{}.{:02}}}"#, cents / 100, cents % 100);
        // An old price is worth nothing: one that can't go out soon is given up.
        let price = Publication::json("public/ticks", &price).key("RUST/EUR").timeout(Duration::from_secs(2));
        match push.publish(&price)?.wait() {
            Ok(published) => println!("{published:?}"),
            Err(error) => eprintln!("{error}"),
        }
        if round % 20 == 0 {
            let line = Publication::json("public/room", r#"{"name":"Rust","text":"Ding!"}"#).key("Rust");
            push.publish(&line)?; // whether it arrives, nobody waits to hear
        }
        for event in push.events(Duration::from_millis(500)) {
            match event {
                PushEvent::Message(message) => println!("{}: {:?}", message.topic, message.data),
                PushEvent::Close(close) if !close.will_reconnect => return Ok(()),
                other => println!("{other:?}"),
            }
        }
    }
    Ok(())
}
