//! From a readable socket to the handler's callbacks. Writing is in [`lifecycle`](super::lifecycle).

use super::callbacks::{Stopwatch, report_panic};
use super::deadlines::ticks;
use super::http::is_answering;
use super::slots::Slot;
use super::{CROWDED_READ, RATED_READ, Worker};
use crate::conn::{Cause, PauseReason, Phase};
use crate::deflate::Agreed;
use crate::handler::{
    AnyState, Conn, ConnParts, Disconnect, DisconnectParts, HandlerEvent, Route, WorkerContext,
};
use crate::http::Params;
use crate::log;
use crate::net::ReadOutcome;
use crate::protocol::{CloseCode, Incoming, Item, Message, Opcode, Payload, ProtocolError, Rules};
use crate::sink::Sink;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// If at least this much of a frame is missing, it is received directly into its message. Below, one copy is cheaper
/// than the second part of the vectored read.
const MIN_DIRECT: usize = 4 << 10;

/// The most that is received directly into a message in one iteration.
const MAX_DIRECT: usize = 256 << 10;

/// Bytes that one decoding of a connection's input may inflate to. The rest waits for the next iteration: a receive
/// buffer of deflate streams could grow a thousandfold, which the worker's other connections would have to wait for and
/// a topic's batch log would have to hold.
const MAX_INFLATED: u64 = 1 << 20;

impl Worker {
    /// Reads from a socket that is readable.
    pub(super) fn read(&mut self, at: usize) {
        if self.must_wait_to_inflate(at) {
            return self.schedule_read(at);
        }
        let Some(slot) = self.slots.get_mut(at) else { return };
        if slot.conn.phase == Phase::Open && self.shutdown.defer_read(at) {
            return;
        }
        let Some(slot) = self.slots.get_mut(at) else { return };
        match slot.conn.phase {
            Phase::Open | Phase::CloseSent if !slot.conn.is_paused() => {
                let (route, stopwatch) = (usize::from(slot.conn.route), Stopwatch::start());
                self.read_open(at);
                let place = format_args!("{}: message", self.shared.routes[route].pattern);
                stopwatch.report(self.shared.slow_callback, place);
            }
            // Requests wait behind one that is being answered; `write_and_advance` continues with them.
            Phase::Http if slot.conn.is_paused() || is_answering(slot) => {
                slot.conn.pause(PauseReason::Request);
            }
            // After the sockets that are established, and within a budget.
            Phase::Http if slot.stream.is_secure() => match self.defer_handshake(at) {
                true => return,
                false => self.read_http(at),
            },
            Phase::Http => self.read_http(at),
            Phase::Ending | Phase::Failing | Phase::Lingering => self.discard_input(at),
            // The client has disconnected and needs no decision.
            Phase::Deciding if slot.flags.ended => self.disconnected(at, std::io::ErrorKind::UnexpectedEof),
            // It is read when the pause or the decision is over.
            Phase::Open | Phase::CloseSent | Phase::Deciding | Phase::Dead => return,
        }
        self.finish_read(at);
    }

    /// Continues after a read, whatever its outcome.
    pub(super) fn finish_read(&mut self, at: usize) {
        // A short read has taken everything that was there, but not the end of the stream behind it.
        if let Some(slot) = self.slots.get_mut(at).filter(|s| s.flags.ended)
            && !slot.conn.is_paused()
            && !matches!(slot.conn.phase, Phase::Dead | Phase::Deciding)
        {
            self.schedule_read(at);
        }
        self.write_and_advance(at);
    }

    fn read_open(&mut self, at: usize) {
        if self.slots.get_mut(at).is_some_and(|s| s.conn.has_unread()) {
            return self.read_unread(at);
        }
        let Self { slots, ctx, recv, rules, shared, now, is_crowded, .. } = self;
        let Some(slot) = slots.get_mut(at) else { return };
        if slot.stream.is_secure() {
            return self.read_tls(at);
        }
        let route = usize::from(slot.conn.route);
        let share = match (&shared.routes[route].rates, *is_crowded) {
            (None, false) => recv.len(),
            (None, true) => CROWDED_READ.min(recv.len()),
            (Some(_), _) => RATED_READ.min(recv.len()),
        };
        let recv = &mut recv[..share];
        let (route, rules) =
            (&shared.routes[route], &rules[route][usize::from(!slot.conn.encoding.is_plain())]);
        let received = match slot.conn.decoder.spare(MIN_DIRECT) {
            None => slot.stream.recv(recv).map(|r| (r, 0, recv.len())),
            // In pieces that are still in the cache when they are unmasked and validated.
            Some(spare) if spare.len() > MAX_DIRECT => {
                slot.stream.recv(&mut spare[..MAX_DIRECT]).map(|r| (r, MAX_DIRECT, MAX_DIRECT))
            }
            Some(spare) => {
                let room = spare.len();
                slot.stream.recv_vectored(spare, recv).map(|r| (r, room, room + recv.len()))
            }
        };
        let (n, direct, room) = match received {
            Ok((ReadOutcome::Bytes(n), direct, room)) => (n, n.min(direct), room),
            Ok((ReadOutcome::WouldBlock, ..)) => return,
            Ok((ReadOutcome::Eof, ..)) => return self.disconnected(at, std::io::ErrorKind::UnexpectedEof),
            Err(e) => return self.disconnected(at, e.kind()),
        };
        slot.timestamps.received = *now;
        slot.timestamps.pinged = 0; // received data answers every earlier ping, also one of this tick
        let mut going = true;
        if direct > 0 {
            ctx.writer.more_input = n > direct;
            match slot.conn.decoder.fill(direct) {
                Ok(None) => {}
                Ok(Some(item)) => {
                    let result =
                        catch_panic(slot, ctx, |slot, ctx| handle_item(slot, ctx, route, item, *now));
                    going = result == Some(true);
                }
                Err(e) => {
                    going = false;
                    fail_protocol(slot, ctx, e);
                }
            }
        }
        let rest = &mut recv[..n - direct];
        if going {
            decode(slot, ctx, route, rules, rest, *now);
        } else if slot.conn.is_paused() && !rest.is_empty() {
            slot.conn.cold().unread.extend_from_slice(rest);
        }
        if n == room || slot.conn.has_unread() {
            self.schedule_read(at);
        }
    }

    /// Processes bytes of an open connection that were received earlier.
    pub(super) fn open_input(&mut self, at: usize, input: &mut [u8]) {
        let Self { slots, ctx, rules, shared, now, .. } = self;
        let Some(slot) = slots.get_mut(at) else { return };
        if slot.conn.is_paused() && slot.conn.phase == Phase::Open {
            // The handler paused in `open`.
            return slot.conn.cold().unread.extend_from_slice(input);
        }
        let route = usize::from(slot.conn.route);
        if let (Some(r), Some(rules)) = (shared.routes.get(route), rules.get(route)) {
            let rules = &rules[usize::from(!slot.conn.encoding.is_plain())];
            decode(slot, ctx, r, rules, input, *now);
            if slot.conn.has_unread() {
                self.schedule_read(at);
            }
        }
    }

    /// Has this connection read once more in the next iteration.
    pub(super) fn schedule_read(&mut self, at: usize) {
        if let Some(slot) = self.slots.get_mut(at).filter(|s| !s.flags.read_scheduled) {
            slot.flags.read_scheduled = true;
            self.scheduled_reads.push(at as u32);
        }
    }

    /// Continues writing to a socket that is writable again.
    pub(super) fn continue_writing(&mut self, at: usize) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        let waiting = slot.buffered();
        slot.conn.blocked = false;
        slot.stream.retry();
        if let Err(e) = slot.stream.flush() {
            slot.conn.write_error = Some(e.kind());
        }
        slot.conn.flush(&mut self.ctx.writer, &mut slot.stream);
        if slot.buffered() < waiting {
            slot.timestamps.stalled = 0; // set again in `write_and_advance` if something still waits
            if slot.conn.phase == Phase::Http {
                // A slow download is not a late request.
                slot.timestamps.deadline = self.now + ticks(self.settings.http.timeout);
            }
        }
        self.write_and_advance(at);
    }

    /// Makes a connection a WebSocket.
    pub(super) fn open(
        &mut self,
        at: usize,
        route: u16,
        state: AnyState,
        protocol: Option<Box<str>>,
        params: Params,
        agreed: Option<Agreed>,
    ) {
        let Self { slots, ctx, now, shared, .. } = self;
        let Some(slot) = slots.get_mut(at) else { return };
        slot.conn.route = route;
        slot.conn.transforms = shared.routes[usize::from(route)].envelope.is_some();
        slot.conn.phase = Phase::Open;
        if let Some(bytes) = shared.routes[usize::from(route)].terms.limits.max_unsent {
            slot.stream.set_max_unsent(bytes);
        }
        if shared.routes[usize::from(route)].rates.is_some() {
            ctx.begin_rates(slot.conn.id);
        }
        slot.state = Some(state);
        slot.http = None;
        (slot.timestamps.received, slot.timestamps.message) = (*now, *now);
        if protocol.is_some() || !params.is_empty() {
            let cold = slot.conn.cold();
            (cold.protocol, cold.params) = (protocol, params);
        }
        if let Some(agreed) = agreed {
            let Route { deflate, terms, .. } = &shared.routes[usize::from(route)];
            slot.conn.start_compression(ctx.writer.codecs.accept_agreed(
                deflate,
                agreed,
                terms.slow_consumer,
            ));
        }
        ctx.count().upgraded.add(1);
        ctx.count().open.add(1);
        self.arm_timer(at);
        self.ctx.writer.more_input = true; // what `open` sends leaves together with the 101
        let Self { slots, ctx, shared, .. } = self;
        let Some(slot) = slots.get_mut(at) else { return };
        call_handler(slot, ctx, &shared.routes[usize::from(route)], HandlerEvent::Open);
    }
}

/// Calls the handler. Frames are handled with the others of their read, which is measured as a whole.
pub(crate) fn call_handler<S: Sink>(
    slot: &mut Slot<S>,
    ctx: &mut WorkerContext,
    route: &Route,
    event: HandlerEvent<'_>,
) {
    if event.is_frame() {
        return call_unmeasured(slot, ctx, route, event);
    }
    let (name, stopwatch) = (event.name(), Stopwatch::start());
    call_unmeasured(slot, ctx, route, event);
    stopwatch.report(ctx.handle.shared.slow_callback, format_args!("{}: {name}", route.pattern));
}

#[inline]
fn call_unmeasured<S: Sink>(
    slot: &mut Slot<S>,
    ctx: &mut WorkerContext,
    route: &Route,
    event: HandlerEvent<'_>,
) {
    catch_panic(slot, ctx, |slot, ctx| {
        let Slot { stream, conn, state: Some(state), .. } = slot else { return };
        let mut conn = Conn::new(ConnParts { conn, ctx, sink: stream, route });
        if let Err(end) = route.handler.event(&mut conn, state, event) {
            disconnect(slot, ctx, route, end);
        }
    });
    ctx.flush_counts();
}

/// Runs code that calls a handler. A panic ends the connection with 1011 and nothing else. Input that was decoded with
/// the message and not handled yet is discarded, as always when a connection fails.
#[inline]
fn catch_panic<S: Sink, R>(
    slot: &mut Slot<S>,
    ctx: &mut WorkerContext,
    act: impl FnOnce(&mut Slot<S>, &mut WorkerContext) -> R,
) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(|| act(slot, ctx))) {
        Ok(result) => Some(result),
        Err(payload) => {
            fail_after_panic(slot, ctx, payload);
            None
        }
    }
}

#[cold]
#[inline(never)]
fn fail_after_panic<S: Sink>(slot: &mut Slot<S>, ctx: &mut WorkerContext, payload: Box<dyn Any + Send>) {
    let Slot { stream, conn, .. } = slot;
    let route = ctx.handle.shared.routes.get(usize::from(conn.route));
    let pattern = route.map_or("", |route| &route.pattern);
    report_panic(ctx.count(), format_args!("{pattern}: a callback for {}", conn.id), payload);
    conn.fail(&mut ctx.writer, stream, CloseCode::INTERNAL, "internal error", Cause::Panic);
}

/// Decodes input and calls the handler for each message, until it closes or pauses the connection.
pub(crate) fn decode<S: Sink>(
    slot: &mut Slot<S>,
    ctx: &mut WorkerContext,
    route: &Route,
    rules: &Rules,
    input: &mut [u8],
    now: u32,
) {
    catch_panic(slot, ctx, |slot, ctx| decode_frames(slot, ctx, route, rules, input, now));
    ctx.flush_counts();
}

#[inline]
fn decode_frames<S: Sink>(
    slot: &mut Slot<S>,
    ctx: &mut WorkerContext,
    route: &Route,
    rules: &Rules,
    mut input: &mut [u8],
    now: u32,
) {
    let inflated = ctx.writer.codecs.inflated();
    loop {
        let going = if let Some(small) = slot.conn.decoder.next_small(&mut input, rules) {
            ctx.writer.more_input = !input.is_empty();
            match small {
                Ok(small) => {
                    slot.timestamps.message = now;
                    slot.timestamps.message_began = 0;
                    if slot.conn.phase == Phase::Open {
                        handle_message(slot, ctx, route, small);
                    }
                    can_continue(slot)
                }
                Err(e) => return fail_protocol(slot, ctx, e),
            }
        } else {
            match slot.conn.decoder.next(&mut input, rules, &mut ctx.writer.pool) {
                Ok(Some(item)) => {
                    ctx.writer.more_input = !input.is_empty();
                    let going = handle_item(slot, ctx, route, item, now);
                    if going && !input.is_empty() && ctx.writer.codecs.inflated() - inflated > MAX_INFLATED {
                        return slot.conn.cold().unread.extend_from_slice(input);
                    }
                    going
                }
                Ok(None) => break,
                Err(e) => return fail_protocol(slot, ctx, e),
            }
        };
        if !going {
            if slot.conn.is_paused() && !input.is_empty() {
                slot.conn.cold().unread.extend_from_slice(input);
            }
            break; // perhaps for its rate, within a message whose timeout goes on
        }
    }
    if slot.conn.decoder.is_within_message() {
        if slot.timestamps.message_began == 0 {
            slot.timestamps.message_began = now;
        }
    } else {
        slot.timestamps.message_began = 0;
    }
}

/// Fails a connection whose peer broke the protocol or a limit.
#[cold]
fn fail_protocol<S: Sink>(slot: &mut Slot<S>, ctx: &mut WorkerContext, error: ProtocolError) {
    ctx.count().protocol_errors.add(1);
    slot.conn.fail_protocol(&mut ctx.writer, &mut slot.stream, error);
}

/// Returns whether the next message may be handled.
#[inline]
fn can_continue<S>(slot: &Slot<S>) -> bool {
    matches!(slot.conn.phase, Phase::Open | Phase::CloseSent) && !slot.conn.is_paused()
}

#[inline]
fn handle_message<S: Sink>(slot: &mut Slot<S>, ctx: &mut WorkerContext, route: &Route, message: Message<'_>) {
    let Slot { stream, conn, state: Some(state), .. } = slot else { return };
    ctx.counts.messages_in += 1;
    ctx.counts.bytes_in += message.len() as u64;
    if let Some(rates) = &route.rates {
        ctx.charge_rate(conn, rates, message.len());
    }
    let mut conn = Conn::new(ConnParts { conn, ctx, sink: stream, route });
    if let Err(end) = route.handler.message(&mut conn, state, message) {
        disconnect(slot, ctx, route, end);
    }
}

/// Closes a connection whose callback returned an error, unless it is closing already.
#[cold]
fn disconnect<S: Sink>(slot: &mut Slot<S>, ctx: &mut WorkerContext, route: &Route, end: Disconnect) {
    let Slot { stream, conn, .. } = slot;
    if conn.phase != Phase::Open {
        return;
    }
    let DisconnectParts { code, reason, error } = end.into_parts();
    let cause = match error {
        None => Cause::Application,
        Some(error) => {
            ctx.count().callback_errors.add(1);
            let (pattern, id) = (&route.pattern, conn.id);
            log::limited!(
                warn,
                Instant::now(),
                "{pattern}: {id}: closed with {code}, a callback returned an error: {error}"
            );
            Cause::CallbackError
        }
    };
    conn.close(&mut ctx.writer, stream, code, &reason, cause);
}

/// Handles a message that has to be inflated first.
#[cold]
fn handle_compressed<S: Sink>(
    slot: &mut Slot<S>,
    ctx: &mut WorkerContext,
    route: &Route,
    incoming: &Incoming<'_>,
) {
    let limit = route.terms.limits.max_message_size;
    let decompressed = match slot.conn.decompress(&mut ctx.writer.codecs, incoming, limit) {
        Ok(decompressed) => decompressed,
        Err(e) => return fail_protocol(slot, ctx, e),
    };
    handle_message(slot, ctx, route, incoming.inflated(&decompressed));
    ctx.writer.codecs.recycle_decompressed(decompressed);
}

/// Charges a control frame, which makes as much work as a small message.
fn charge_control<S>(slot: &mut Slot<S>, ctx: &mut WorkerContext, route: &Route, bytes: usize) {
    if let Some(rates) = &route.rates {
        ctx.charge_rate(&mut slot.conn, rates, bytes);
    }
}

/// Handles one message or control frame. Returns whether to continue with the next.
#[inline]
fn handle_item<S: Sink>(
    slot: &mut Slot<S>,
    ctx: &mut WorkerContext,
    route: &Route,
    item: Item<'_>,
    now: u32,
) -> bool {
    match item {
        Item::Message(incoming) => {
            slot.timestamps.message = now;
            slot.timestamps.message_began = 0;
            // After our close frame the application receives no more messages (RFC 6455 section 7.1.3).
            if slot.conn.phase == Phase::Open {
                if incoming.compressed() {
                    handle_compressed(slot, ctx, route, &incoming);
                } else {
                    handle_message(slot, ctx, route, incoming.message());
                }
            }
            if let Payload::Own(buf) = incoming.into_payload() {
                ctx.writer.pool.give(buf);
            }
        }
        Item::Ping(payload) => {
            // Section 5.5.2: answered with the same payload, unless the closing handshake has begun.
            if slot.conn.phase == Phase::Open {
                charge_control(slot, ctx, route, payload.len());
                slot.conn.control(&mut ctx.writer, Opcode::Pong, &payload);
                call_handler(slot, ctx, route, HandlerEvent::Ping(&payload));
            }
        }
        Item::Pong(payload) => {
            if slot.conn.phase == Phase::Open {
                charge_control(slot, ctx, route, payload.len());
                call_handler(slot, ctx, route, HandlerEvent::Pong(&payload));
            }
        }
        Item::Close(payload) => slot.conn.peer_closed(&mut ctx.writer, &mut slot.stream, &payload),
    }
    can_continue(slot)
}
