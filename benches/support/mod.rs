//! What the benches share: an echo handler and a client's frames.

use campanile::internal::Machine;
use campanile::protocol::{Opcode, header, mask};
use campanile::{Conn, Disconnect, Handler, Limits, Message, Route};

/// Sends back what comes.
pub(crate) struct Echo;

impl Handler for Echo {
    type State = ();
    fn message(&self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) -> Result<(), Disconnect> {
        let _ = conn.send(message);
        Ok(())
    }
}

/// A worker that echoes messages of up to 2 MiB.
pub(crate) fn echo_machine() -> Machine {
    let mut limits = Limits::default();
    limits.max_message_size = 2 << 20;
    Machine::new(Route::new(Echo).limits(limits))
}

/// A client's frame.
pub(crate) fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let key = [0x12, 0x34, 0x56, 0x78];
    let mut out = header::encode(true, false, opcode, payload.len(), Some(key)).to_vec();
    let from = out.len();
    out.extend_from_slice(payload);
    mask::apply(&mut out[from..], key, 0);
    out
}

/// Text of `len` bytes, a part of it not ASCII.
pub(crate) fn text(len: usize) -> String {
    let mut text: String = "naïve café, 消息推送, price: 42.17; ".chars().cycle().take(len).collect();
    while text.len() > len {
        text.pop();
    }
    text
}

/// A worker with `subscribers` connections that subscribe to `room`.
pub(crate) fn room(subscribers: usize) -> Machine {
    let mut machine = echo_machine();
    for _ in 0..subscribers {
        let conn = machine.open(());
        machine.subscribe(conn, "room");
    }
    machine
}
