//! cargo run --features client --example client [URL]
//! Connects, prints what comes, says what is typed, and comes back when the server does. Against the example `echo`:
//! ws://127.0.0.1:9001/echo, which is also the default.

use campanile::client::{Client, ClientEvent, NoEvent, Offline, Reconnect};
use std::io::BufRead;
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "ws://127.0.0.1:9001/echo".into());
    let client = Client::builder(&url).reconnect(Reconnect::default().offline(Offline::Keep)).connect()?;

    // A handle for each thread that wants one.
    let typing = client.clone();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if let Err(refused) = typing.send(&line) {
                eprintln!("{refused}");
            }
        }
        typing.close(1000, "the end of the input").expect("a code and a reason that fit");
    });

    loop {
        match client.next(Duration::from_secs(3600)) {
            Ok(ClientEvent::Open) => println!("open: {}", client.url()),
            Ok(ClientEvent::Message(data)) => match data.as_text() {
                Some(text) => println!("< {text}"),
                None => println!("< {} bytes", data.as_bytes().len()),
            },
            Ok(ClientEvent::Error(error)) => eprintln!("{error}"),
            Ok(ClientEvent::Close(close)) => println!("{close}"),
            Ok(ClientEvent::Reconnecting { attempt, delay }) => println!("try {attempt} in {delay:?}"),
            Ok(_) | Err(NoEvent::Timeout) => {}
            Err(_) => return Ok(()),
        }
    }
}
