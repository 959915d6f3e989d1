//! The Autobahn suite's client cases: connects to its fuzzing server once for each case and echoes what comes.
//!
//! Blocking sockets, one connection at a time, and the same [`Connection`] as the load runs on, here with text always
//! validated and with the limits that section 9 of the suite needs.

use crate::connection::{Connection, Event, Wire};
use crate::opening::{Extras, Request};
use crate::target::Target;
use campanile::protocol::{Kind, Payload};
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// Section 9 sends messages of up to 16 MiB, in up to 65,536 fragments and an empty last one.
const MAX_MESSAGE: usize = 64 << 20;
const MAX_FRAGMENTS: u32 = 1 << 17;

/// A case that is silent for so long is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs all cases. True if each could be run; how they went, the suite's own report says.
pub(crate) fn run(url: &str, agent: &str) -> Result<bool, String> {
    let server = Target::parse(url)?;
    let cases = case_count(&server).map_err(|e| format!("{url}: no case count: {e}"))?;
    let mut all = true;
    for case in 1..=cases {
        let target = server.with_path(&format!("/runCase?case={case}&agent={agent}"));
        if let Err(e) = converse(&target, |kind, payload, wire| {
            wire.write_frame(kind.into(), payload);
        }) {
            eprintln!("case {case}: {e}");
            all = false;
        }
    }
    converse(&server.with_path(&format!("/updateReports?agent={agent}")), |_, _, _| ())
        .map_err(|e| format!("{url}: the report was not written: {e}"))?;
    println!("{cases} cases");
    Ok(all)
}

fn case_count(server: &Target) -> io::Result<u32> {
    let mut count = None;
    converse(&server.with_path("/getCaseCount"), |_, payload, _| {
        count = std::str::from_utf8(payload).ok().and_then(|text| text.trim().parse().ok());
    })?;
    count.ok_or_else(|| io::Error::other("the server did not send a number"))
}

/// Opens a connection, gives each message to `answer`, and goes on until the connection is over. A server that breaks
/// the protocol is no error here: most cases do.
fn converse(target: &Target, mut answer: impl FnMut(Kind, &[u8], &mut Wire)) -> io::Result<()> {
    let address = target.resolve().map_err(io::Error::other)?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = Request::new(target, &Extras::default());
    let mut wire = Wire::new(MAX_MESSAGE, MAX_FRAGMENTS, true);
    let mut connection = Connection::open(&request, &mut wire);
    let mut buffer = vec![0; 64 << 10];
    loop {
        stream.write_all(&wire.out)?;
        wire.out.clear();
        if connection.is_over() {
            break;
        }
        let n = match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            other => other?,
        };
        let mut input = &mut buffer[..n];
        loop {
            match connection.next(&mut input, &request, &mut wire) {
                Ok(Some(Event::Message(kind, payload))) => {
                    answer(kind, &payload, &mut wire);
                    if let Payload::Own(_) = payload {
                        wire.recycle(payload);
                    }
                }
                Ok(Some(Event::Opened | Event::Closed(_))) => {}
                Ok(None) => break,
                Err(failure @ crate::connection::Failure::Handshake(_)) => {
                    return Err(io::Error::other(failure.to_string()));
                }
                Err(_) => break,
            }
        }
    }
    // Section 7.1.1: the server ends the connection. What it still sends is of no interest.
    let _ = stream.shutdown(Shutdown::Write);
    while stream.read(&mut buffer).is_ok_and(|n| n > 0) {}
    Ok(())
}
