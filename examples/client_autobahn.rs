//! cargo run --example client_autobahn [URL] [AGENT]
//! The client's side of the Autobahn suite: asks its fuzzing server for the number of cases, echoes what comes in each,
//! and has the report written. The URL may also come in the variable AUTOBAHN_URL.

use campanile::client::{Client, ClientEvent, ClientLimits, Data, NoEvent};
use campanile::deflate::Deflate;
use std::time::Duration;

/// A case that is silent for so long is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Opens a connection, gives each message to `answer`, and goes on until it is closed.
fn converse(url: &str, mut answer: impl FnMut(&Client, Data)) -> Result<(), Box<dyn std::error::Error>> {
    let mut limits = ClientLimits::default();
    // Section 9 sends messages of up to 16 MiB, in up to 65,536 fragments and an empty last one.
    limits.max_message_size = 64 << 20;
    limits.max_backlog = 64 << 20;
    limits.max_fragments = 1 << 17;
    // Whatever is compressed in a case is answered compressed, so that both directions are tested.
    let deflate = Deflate::dedicated(15).threshold(0);
    let client = Client::builder(url).limits(limits).deflate(deflate).connect()?;
    let mut opened = false;
    loop {
        match client.next(PATIENCE) {
            Ok(ClientEvent::Open) => opened = true,
            Ok(ClientEvent::Message(data)) => answer(&client, data),
            Ok(ClientEvent::Error(error)) if !opened => return Err(error.into()),
            // Most cases break the protocol or close: how the client took it is for the suite to say.
            Ok(_) => {}
            Err(NoEvent::Ended) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let server = args.next().or_else(|| std::env::var("AUTOBAHN_URL").ok());
    let server = server.unwrap_or_else(|| "ws://127.0.0.1:9001".into());
    let server = server.trim_end_matches('/');
    let agent = args.next().unwrap_or_else(|| "campanile-client".into());
    let mut cases = 0;
    converse(&format!("{server}/getCaseCount"), |_, data| {
        cases = data.as_text().and_then(|n| n.trim().parse().ok()).unwrap_or(0);
    })?;
    for case in 1..=cases {
        let run = converse(&format!("{server}/runCase?case={case}&agent={agent}"), |client, data| {
            let _ = client.send(&data); // refused where the case has closed the connection
        });
        if let Err(e) = run {
            eprintln!("case {case}: {e}");
        }
    }
    converse(&format!("{server}/updateReports?agent={agent}"), |_, _| ())?;
    println!("{cases} cases");
    Ok(())
}
