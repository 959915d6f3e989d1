//! The Autobahn suite's client cases: connects to its fuzzing server once for each case and echoes what comes, with the
//! public client and the limits that section 9 of the suite needs.

use campanile::client::{Client, ClientBuilder, ClientEvent, ClientLimits, Data, NoEvent};
use campanile::deflate::Deflate;
use std::time::Duration;

/// A case that is silent for so long is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs all cases. True if each could be run; how they went, the suite's own report says.
pub(crate) fn run(url: &str, agent: &str) -> Result<bool, String> {
    let server = url.trim_end_matches('/');
    let mut cases = None;
    converse(&format!("{server}/getCaseCount"), |_, data| {
        cases = data.as_text().and_then(|text| text.trim().parse::<u32>().ok());
    })
    .map_err(|e| format!("{url}: no case count: {e}"))?;
    let cases = cases.ok_or_else(|| format!("{url}: the server did not send a number"))?;
    let mut all = true;
    for case in 1..=cases {
        let echo = |client: &Client, data: Data| {
            let _ = client.send(&data); // refused where the case has closed the connection
        };
        if let Err(e) = converse(&format!("{server}/runCase?case={case}&agent={agent}"), echo) {
            crate::output::note(&format!("case {case}: {e}"));
            all = false;
        }
    }
    converse(&format!("{server}/updateReports?agent={agent}"), |_, _| ())
        .map_err(|e| format!("{url}: the report was not written: {e}"))?;
    crate::output::write(&format!("{cases} cases\n"))?;
    Ok(all)
}

fn builder(url: &str) -> ClientBuilder {
    let mut limits = ClientLimits::default();
    // Section 9 sends messages of up to 16 MiB, in up to 65,536 fragments and an empty last one.
    limits.max_message_size = 64 << 20;
    limits.max_backlog = 64 << 20;
    limits.max_fragments = 1 << 17;
    // Whatever is compressed in a case is answered compressed, so that both directions are tested.
    Client::builder(url).limits(limits).deflate(Deflate::dedicated(15).threshold(0))
}

/// Opens a connection, gives each message to `answer`, and goes on until the connection is over. A server that breaks
/// the protocol is no error here: most cases do.
fn converse(url: &str, mut answer: impl FnMut(&Client, Data)) -> Result<(), String> {
    let client = builder(url).connect().map_err(|e| e.to_string())?;
    let mut opened = false;
    loop {
        match client.next(PATIENCE) {
            Ok(ClientEvent::Open) => opened = true,
            Ok(ClientEvent::Message(data)) => answer(&client, data),
            Ok(ClientEvent::Error(error)) if !opened => return Err(error.to_string()),
            Ok(_) => {}
            Err(NoEvent::Ended) => return Ok(()),
            Err(e) => return Err(e.to_string()),
        }
    }
}
