//! A busy room of the protocol for browsers (`campanile.v1.json`): every connection subscribes to one topic and
//! publishes to it, so that all hear all. Counted are deliveries.
//!
//! ```text
//!   ──> {"type":"publish","topic":"room","data":"<5 letters: sender><7: number>abc…"}
//!   <── {"type":"message","topic":"room","offset":13,"data":"…"}
//! ```
//! Nobody publishes before all have subscribed. Every delivery is compared, and its offset is the one behind the last.

use super::fanout::FanoutState;
use super::{Counters, Scenario, ScenarioContext, UNSOLICITED, Unanswered};
use campanile::protocol::{Kind, Opcode, mask};
use serde_json::Value;
use std::io::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// What it offers, unless something else was asked for.
pub(crate) const SUBPROTOCOL: &str = "campanile.v1.json";

const SUBSCRIBE: &str = r#"{"type":"subscribe","topic":"room","id":0}"#;
const PUBLISH: &[u8] = br#"{"type":"publish","topic":"room","#;
const MESSAGE: &[u8] = br#"{"type":"message","topic":"room","offset":"#;
const DATA: &[u8] = br#","data":""#;
const END: &[u8] = b"\"}";

/// Digits of the sender and of its message's number, in base 16, from `a` to `p`.
const SENDER: Range<usize> = 0..5;
const NUMBER: Range<usize> = 5..12;

/// Bytes of both.
pub(crate) const STAMP: usize = NUMBER.end;

const NUMBERS: u32 = 1 << 28;

/// Numbers expected from each sender by each receiver are kept up to this many in all: 64 MiB. Beyond that only the
/// offsets say that nothing is missing.
const MAX_EXPECTED: usize = 1 << 24;

/// What all threads of such a run share.
#[derive(Debug, Default)]
pub(crate) struct RoomState {
    live: AtomicI64,
    subscribed: AtomicI64,
}

/// One thread's connections.
#[derive(Debug)]
pub(crate) struct Room {
    room_state: Arc<RoomState>,
    /// When each sent what.
    fanout_state: Arc<FanoutState>,
    /// What follows the stamp in the data.
    rest: Vec<u8>,
    /// Whether publications have an `id`, so that they are answered.
    ack: bool,
    /// Messages in flight per connection; `None` in the open loop.
    depth: Option<u32>,
    timeout_ns: u64,
    connections: Vec<ConnState>,
    senders: usize,
    /// The next number that each receiver expects from each sender, receiver by receiver.
    expected: Vec<u32>,
    /// All have subscribed.
    begun: bool,
    /// Connections alive when last looked.
    live: i64,
    /// When something came last.
    last: u64,
    /// A request, before it is masked.
    text: Vec<u8>,
}

/// One connection.
#[derive(Debug, Default)]
struct ConnState {
    /// Its number in the run.
    sender: u32,
    open: bool,
    started: bool,
    subscribed: bool,
    /// Has published for the first time.
    has_published: bool,
    /// The next message that it publishes.
    next: u32,
    /// Deliveries since it published last.
    received: i64,
    /// Deliveries in all.
    total: u64,
    /// The last message's place in the topic.
    offset: u64,
}

/// What a delivery says.
#[derive(Debug, PartialEq, Eq)]
struct Delivery {
    offset: u64,
    sender: u32,
    number: u32,
}

impl Room {
    /// For connections with these numbers in the run.
    #[expect(clippy::too_many_arguments, reason = "called once, by the one who composes a run")]
    pub(crate) fn new(
        room_state: Arc<RoomState>,
        fanout_state: Arc<FanoutState>,
        size: usize,
        ack: bool,
        depth: Option<u32>,
        timeout_ns: u64,
        senders: usize,
        numbers: impl Iterator<Item = u32>,
    ) -> Self {
        let connections: Vec<_> =
            numbers.map(|sender| ConnState { sender, ..ConnState::default() }).collect();
        let keeps = connections.len().saturating_mul(senders) <= MAX_EXPECTED;
        let expected = if keeps { vec![0; connections.len() * senders] } else { Vec::new() };
        Self {
            room_state,
            fanout_state,
            rest: (b'a'..=b'z').cycle().take(size.saturating_sub(STAMP)).collect(),
            ack,
            depth,
            timeout_ns,
            connections,
            senders,
            expected,
            begun: false,
            live: 0,
            last: 0,
            text: Vec::new(),
        }
    }

    fn publish(&mut self, at: usize, n: u32, since: u64, context: &mut ScenarioContext) {
        let Self { connections, fanout_state, text, ack, rest, .. } = self;
        fanout_state.add_published(n);
        let conn = &mut connections[at];
        conn.has_published = true;
        for _ in 0..n {
            text.clear();
            text.extend_from_slice(PUBLISH);
            // A Vec takes all.
            if *ack {
                let _ = write!(text, "\"id\":{},", conn.next);
            }
            text.extend_from_slice(b"\"data\":\"");
            text.extend_from_slice(&stamp(conn.sender, conn.next));
            text.extend_from_slice(rest);
            text.extend_from_slice(END);
            fanout_state.sent(conn.sender, conn.next, since);
            context.wire.message(Opcode::Text, text.len(), |out, key| mask::copy(text, out, key, 0));
            context.stats.sent += 1;
            conn.next = (conn.next + 1) % NUMBERS;
        }
    }

    /// A delivery as campanile writes it.
    #[inline]
    fn delivery(&self, payload: &[u8]) -> Option<Delivery> {
        let rest = payload.strip_prefix(MESSAGE)?;
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (offset, rest) = rest.split_at_checked(digits)?;
        let data = rest.strip_prefix(DATA)?.strip_suffix(END)?;
        let offset = offset.iter().fold(0u64, |n, b| n.wrapping_mul(10).wrapping_add(u64::from(b - b'0')));
        let (sender, number) = self.stamp_of(data)?;
        Some(Delivery { offset, sender, number })
    }

    /// Sender and number of the data, if all of it is as it was sent.
    #[inline]
    fn stamp_of(&self, data: &[u8]) -> Option<(u32, u32)> {
        let (stamp, rest) = data.split_first_chunk::<STAMP>()?;
        let digits = stamp.map(|letter| letter.wrapping_sub(b'a'));
        let value = |digits: &[u8]| digits.iter().fold(0, |n, digit| n << 4 | u32::from(*digit));
        let (sender, number) = (value(&digits[SENDER]), value(&digits[NUMBER]));
        let same = rest == self.rest && digits.iter().all(|digit| *digit < 16);
        (same && (sender as usize) < self.senders).then_some((sender, number))
    }

    #[inline]
    fn count_delivery(&mut self, at: usize, delivery: &Delivery, len: usize, counters: &mut Counters) {
        let conn = &mut self.connections[at];
        let mut step = delivery.offset.saturating_sub(conn.offset);
        match step {
            0 => return counters.stats.error("repeated or out of order", 1),
            1 => {}
            n if n <= self.fanout_state.published().saturating_sub(conn.total) => {
                counters.stats.error("lost", n - 1);
            }
            _ => {
                counters.stats.error("offset beyond what was published", 1);
                step = 1;
            }
        }
        conn.offset = delivery.offset;
        conn.received += step as i64;
        conn.total += step;
        if let Some(expected) = self.expected.get_mut(at * self.senders + delivery.sender as usize) {
            // Ahead it may be: what was refused has no offset.
            if delivery.number.wrapping_sub(*expected) % NUMBERS > NUMBERS / 2 {
                counters.stats.error("repeated or out of order", 1);
            }
            *expected = (delivery.number + 1) % NUMBERS;
        }
        counters.stats.messages += 1;
        counters.stats.bytes += len as u64;
        if let Some(since) = self.fanout_state.sent_at(delivery.sender, delivery.number) {
            counters.stats.record_latency(counters.now.saturating_sub(since), 1);
        }
    }

    /// Whatever is not a delivery as expected.
    #[cold]
    fn handle_other(&mut self, at: usize, payload: &[u8], counters: &mut Counters) {
        let value: Value = serde_json::from_slice(payload).unwrap_or_default();
        match value["type"].as_str().unwrap_or_default() {
            "hello" => {}
            "published" if self.ack => {}
            "subscribed" if !self.connections[at].subscribed => {
                let conn = &mut self.connections[at];
                conn.subscribed = true;
                conn.offset = value["offset"].as_u64().unwrap_or_default();
                self.room_state.subscribed.fetch_add(1, Relaxed);
            }
            "message" => {
                let data = value["data"].as_str().unwrap_or_default();
                let delivery = self.stamp_of(data.as_bytes()).zip(value["offset"].as_u64());
                match delivery {
                    Some(((sender, number), offset)) => {
                        self.count_delivery(
                            at,
                            &Delivery { offset, sender, number },
                            payload.len(),
                            counters,
                        );
                    }
                    None => self.count_mismatch(at, "mismatch".into(), payload, counters),
                }
            }
            "error" => {
                let code = value["code"].as_str().unwrap_or("without a code");
                self.count_mismatch(at, format!("refused: {code}"), payload, counters);
            }
            // Its deliveries show as lost, if others follow.
            "lagged" => self.count_mismatch(at, "lagged".into(), payload, counters),
            _ => self.count_mismatch(at, "unexpected".into(), payload, counters),
        }
    }

    fn count_mismatch(&self, at: usize, what: String, payload: &[u8], counters: &mut Counters) {
        let to = self.connections[at].sender;
        counters.stats.error(what, 1);
        counters.stats.example.get_or_insert_with(|| {
            format!("connection {to}: \"{}\"", payload[..payload.len().min(120)].escape_ascii())
        });
    }
}

fn stamp(sender: u32, number: u32) -> [u8; STAMP] {
    let both = u64::from(sender) << (4 * NUMBER.len()) | u64::from(number);
    std::array::from_fn(|i| b'a' + (both >> (4 * (STAMP - 1 - i)) & 15) as u8)
}

impl Scenario for Room {
    fn opened(&mut self, at: usize, _counters: &mut Counters) -> super::Next {
        self.connections[at].open = true;
        self.room_state.live.fetch_add(1, Relaxed);
        super::Next::Stay
    }

    fn start(&mut self, at: usize, context: &mut ScenarioContext) {
        self.connections[at].started = true;
        self.last = context.now;
        let text = SUBSCRIBE.as_bytes();
        context.wire.message(Opcode::Text, text.len(), |out, key| mask::copy(text, out, key, 0));
    }

    #[inline]
    fn message(&mut self, at: usize, kind: Kind, payload: &[u8], counters: &mut Counters) {
        self.last = counters.now;
        match self.delivery(payload) {
            Some(delivery) if kind == Kind::Text => {
                self.count_delivery(at, &delivery, payload.len(), counters)
            }
            _ => self.handle_other(at, payload, counters),
        }
    }

    fn read_done(&mut self, at: usize, context: &mut ScenarioContext) -> Result<(), &'static str> {
        if self.connections[at].total > self.fanout_state.published() {
            return Err(UNSOLICITED);
        }
        let Some(depth) = self.depth else { return Ok(()) };
        if !self.begun || context.ending || !self.connections[at].subscribed {
            return Ok(());
        }
        let now = context.now;
        if !self.connections[at].has_published {
            self.publish(at, depth, now, context);
            return Ok(());
        }
        let live = self.room_state.live.load(Relaxed).max(1);
        let rounds = self.connections[at].received / live;
        if rounds > 0 {
            self.connections[at].received -= rounds * live;
            self.publish(at, rounds as u32, now, context);
        }
        Ok(())
    }

    fn sender(&self, k: u64) -> usize {
        (k % self.connections.len() as u64) as usize
    }

    fn due(&mut self, at: usize, due: u64, context: &mut ScenarioContext) {
        if self.begun {
            self.publish(at, 1, due, context);
        }
    }

    fn recheck(&mut self) -> bool {
        let live = self.room_state.live.load(Relaxed);
        let fell = live < self.live;
        self.live = live;
        let begins = !self.begun && live > 0 && self.room_state.subscribed.load(Relaxed) >= live;
        self.begun |= begins;
        fell || begins
    }

    fn overdue(&self, at: usize, now: u64) -> bool {
        let waits = self.depth.is_some() || !self.connections[at].subscribed;
        waits && self.connections[at].started && now.saturating_sub(self.last) > self.timeout_ns
    }

    fn lost(&mut self, at: usize, _context: &mut ScenarioContext) -> bool {
        let conn = &mut self.connections[at];
        if std::mem::take(&mut conn.open) {
            self.room_state.live.fetch_sub(1, Relaxed);
            if std::mem::take(&mut conn.subscribed) {
                self.room_state.subscribed.fetch_sub(1, Relaxed);
            }
        }
        true
    }

    fn finish(&mut self, _context: &mut ScenarioContext) -> Unanswered {
        Unanswered::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::Wire;

    fn room(size: usize) -> (Room, ScenarioContext) {
        let fanout_state = Arc::new(FanoutState::new(3, 1));
        let room = Room::new(Arc::default(), fanout_state, size, false, Some(1), 1_000, 3, 0..2);
        (room, ScenarioContext { wire: Wire::new(false), counters: Counters::default() })
    }

    fn delivery(offset: u64, sender: u32, number: u32, size: usize) -> String {
        let rest = ('a'..='z').cycle().take(size - STAMP).collect::<String>();
        let stamp = stamp(sender, number);
        let stamp = str::from_utf8(&stamp).unwrap();
        format!(r#"{{"type":"message","topic":"room","offset":{offset},"data":"{stamp}{rest}"}}"#)
    }

    #[test]
    fn a_delivery_with_other_whitespace_is_parsed_as_well() {
        let (mut room, mut context) = room(40);
        let text = delivery(12, 2, 0, 40);
        assert_eq!(room.delivery(text.as_bytes()), Some(Delivery { offset: 12, sender: 2, number: 0 }));
        room.connections[0].offset = 11;
        room.message(0, Kind::Text, text.as_bytes(), &mut context);
        let other = delivery(13, 2, 1, 40).replace(":", ": ");
        assert_eq!(room.delivery(other.as_bytes()), None);
        room.message(0, Kind::Text, other.as_bytes(), &mut context);
        assert_eq!((context.stats.messages, context.stats.error_count()), (2, 0));
        assert_eq!(room.connections[0].received, 2);
    }

    #[test]
    fn missing_repeated_damaged_and_refused_messages_are_errors() {
        for (text, error) in [
            (delivery(3, 1, 0, 40), "lost"),
            (delivery(4, 1, 0, 40), "offset beyond what was published"),
            (delivery(u64::MAX, 1, 0, 40), "offset beyond what was published"),
            (delivery(0, 1, 0, 40), "repeated or out of order"),
            (delivery(1, 1, NUMBERS - 1, 40), "repeated or out of order"),
            (delivery(1, 1, 0, 40).replace("abcd", "abdd"), "mismatch"),
            (delivery(1, 1, 0, 41), "mismatch"),
            (delivery(1, 3, 0, 40), "mismatch"),
            (r#"{"type":"error","code":"rate_limited"}"#.into(), "refused: rate_limited"),
            (r#"{"type":"published","id":0}"#.into(), "unexpected"),
            ("?".into(), "unexpected"),
        ] {
            let (mut room, mut context) = room(40);
            room.fanout_state.add_published(3);
            room.message(1, Kind::Text, text.as_bytes(), &mut context);
            assert_eq!(context.stats.errors.keys().collect::<Vec<_>>(), [error], "{text}");
        }
    }

    #[test]
    fn more_deliveries_than_were_published_end_the_connection_and_cause_no_messages() {
        for far in [1, 1 << 40] {
            let (mut room, mut context) = room(20);
            let subscribed = br#"{"type":"subscribed","id":0,"topic":"room","offset":0}"#;
            for at in 0..2 {
                room.opened(at, &mut context);
                room.start(at, &mut context);
                room.message(at, Kind::Text, subscribed, &mut context);
            }
            assert!(room.recheck() && (0..2).all(|at| room.read_done(at, &mut context).is_ok()));
            assert_eq!(context.stats.sent, 2);
            for n in 1..1_000 {
                room.message(0, Kind::Text, delivery(n * far, 1, n as u32, 20).as_bytes(), &mut context);
            }
            assert_eq!((room.read_done(0, &mut context), context.stats.sent), (Err(UNSOLICITED), 2));
        }
    }

    #[test]
    fn publishing_begins_when_all_have_subscribed() {
        let (mut room, mut context) = room(20);
        for at in 0..2 {
            room.opened(at, &mut context);
            room.start(at, &mut context);
        }
        let subscribed = br#"{"type":"subscribed","id":0,"topic":"room","offset":7}"#;
        room.message(0, Kind::Text, subscribed, &mut context);
        assert_eq!(room.read_done(0, &mut context), Ok(()));
        assert!(!room.recheck() && context.stats.sent == 0);
        room.message(1, Kind::Text, subscribed, &mut context);
        assert!(room.recheck());
        assert!((0..2).all(|at| room.read_done(at, &mut context).is_ok()));
        assert_eq!((context.stats.sent, room.connections[0].offset), (2, 7));
        assert!(!room.recheck());
    }
}
