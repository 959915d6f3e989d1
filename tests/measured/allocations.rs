//! What the message path allocates: nothing. Held by a counting allocator, on the worker's parts without sockets.

use crate::alone;
use allocation_counter::measure;
use campanile::internal::{Machine, SLOT};
use campanile::protocol::{Opcode, header, mask};
use campanile::{Conn, Disconnect, Handler, Message};

struct Echo;

impl Handler for Echo {
    type State = ();
    fn message(&self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) -> Result<(), Disconnect> {
        conn.send(message).expect("an open connection");
        Ok(())
    }
}

fn frame(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let key = [9, 8, 7, 6];
    let mut out = header::encode(fin, false, opcode, payload.len(), Some(key)).to_vec();
    let from = out.len();
    out.extend_from_slice(payload);
    mask::apply(&mut out[from..], key, 0);
    out
}

/// Allocations of receiving `bytes` once, after `warm` rounds of the same.
fn allocations(machine: &mut Machine, conn: usize, bytes: &[u8]) -> u64 {
    for _ in 0..3 {
        machine.receive(conn, &mut bytes.to_vec());
    }
    let mut copy = bytes.to_vec();
    measure(|| machine.receive(conn, &mut copy)).count_total
}

#[test]
fn a_message_in_the_receive_buffer_allocates_nothing() {
    let _alone = alone();
    let mut machine = Machine::new(Echo);
    let conn = machine.open(());
    let text = "naïve café ".repeat(100);
    for payload in [&b""[..], b"twenty bytes of text", text.as_bytes(), &[b'x'; 60_000]] {
        for opcode in [Opcode::Text, Opcode::Binary] {
            let one = frame(true, opcode, payload);
            assert_eq!(allocations(&mut machine, conn, &one), 0, "{} bytes", payload.len());
        }
    }
    let several = frame(true, Opcode::Binary, &[1; 20]).repeat(16);
    assert_eq!(allocations(&mut machine, conn, &several), 0, "16 in one read");
    assert_eq!(allocations(&mut machine, conn, &frame(true, Opcode::Ping, b"?")), 0, "a ping");
    assert!(machine.messages() > 0);
}

#[test]
fn a_fan_out_allocates_nothing_for_a_subscriber() {
    let _alone = alone();
    let mut machine = Machine::new(Echo);
    for _ in 0..1000 {
        let conn = machine.open(());
        machine.subscribe(conn, "room");
        machine.subscribe(conn, "ticks");
    }
    let round = |machine: &mut Machine, mixed: bool| {
        for _ in 0..16 {
            machine.publish("room", Message::text("the bell rings"));
            if mixed {
                machine.publish_from(7, "ticks", Message::text("42.17"));
            }
        }
        machine.fan_out();
    };
    for _ in 0..3 {
        round(&mut machine, false);
    }
    assert_eq!(measure(|| round(&mut machine, false)).count_total, 0, "one topic");
    for _ in 0..3 {
        round(&mut machine, true);
    }
    // Many runs in one turn wait in backlogs: each run is shared once, whoever many there are to share it.
    let count = measure(|| round(&mut machine, true)).count_total;
    assert!(count <= 32 * 4, "{count} allocations for 32 runs to 1,000 subscribers");
}

#[test]
fn an_idle_connection_is_one_slot() {
    let _alone = alone();
    const { assert!(SLOT <= 184) };
}

/// A million connections in one worker, all of them pinged in their turn: below 300 MB, and no turn of the timers
/// takes long.
#[test]
fn a_million_connections_fit_and_their_timers_are_cheap() {
    let _alone = alone();
    const CONNECTIONS: usize = 1_000_000;
    let mut machine = Machine::new(Echo);
    let info = measure(|| {
        for _ in 0..CONNECTIONS {
            machine.open(());
        }
    });
    let each = info.bytes_current as usize / CONNECTIONS;
    assert!(info.bytes_current < 300_000_000, "{each} bytes each");
    // 51 s of ticks: everybody is pinged.
    let fired: Vec<usize> = (0..800).map(|_| machine.tick()).collect();
    assert!(fired.iter().sum::<usize>() >= CONNECTIONS);
    assert!(fired.iter().all(|n| *n < 10_000), "the timers come together: {:?}", fired.iter().max());
}
