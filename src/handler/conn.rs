//! What a callback receives: the connection, borrowed for as long as the callback runs.

use super::replay::{ReplayOutcome, Replays};
use super::route::RouteEnvelope;
use super::timers::{Timers, TooManyTimers};
use super::{Command, Handle, RateState, Rates, Route};
use crate::Message;
use crate::conn::{
    Cause, ConnId, Connection, CorkWriter, Frames, Limits, PauseReason, Phase, ReadyState, Refused,
    RefusedReason, Sent,
};
use crate::http::{Params, Peer};
use crate::hub::topic::is_pattern;
use crate::hub::{
    Added, Batch, Hub, InvalidTopic, Publish, Recipient, RecoveryRequest, Start, Subscribe, SubscribeError,
    SubscribeTarget, Tags, TopicOrPattern, Unsubscribed,
};
use crate::metrics::Counters;
use crate::protocol::{AsMessage, CloseCode, InvalidClose, InvalidPing, Opcode};
use crate::sink::Sink;
use crate::sync::rate::Nanos;
use core::time::Duration;
use crossbeam_utils::CachePadded;
use std::sync::Arc;

/// What a worker lends to every callback.
pub(crate) struct WorkerContext {
    pub(crate) replays: Replays,
    pub(crate) writer: CorkWriter,
    pub(crate) hub: Hub,
    /// Number of the event loop's iteration, from 1.
    pub(crate) iteration: u32,
    pub(crate) handle: Handle,
    pub(crate) worker: usize,
    pub(crate) counters: Arc<[CachePadded<Counters>]>,
    /// Connections that are not read from until there is room for what they publish.
    pub(crate) congested: Vec<ConnId>,
    /// Counts of messages that are not yet in the counters, see [`WorkerContext::flush_counts`].
    pub(crate) counts: MessageCounts,
    /// Time of the iteration, since the worker began.
    pub(crate) now: Nanos,
    /// What the connections of routes with rates have used of them, by slot.
    pub(crate) rate_states: Vec<RateState>,
    pub(crate) timers: Timers,
}

/// Counts of messages that are not yet in the counters: adding there would cost a twentieth of the work for a small
/// message.
#[derive(Debug, Default)]
pub(crate) struct MessageCounts {
    pub(crate) messages_in: u64,
    pub(crate) bytes_in: u64,
    pub(crate) messages_out: u64,
}

impl WorkerContext {
    #[inline]
    pub(crate) fn count(&self) -> &Counters {
        &self.counters[self.worker]
    }

    /// Resets the rates of a new connection: it has used nothing.
    pub(crate) fn begin_rates(&mut self, id: ConnId) {
        if self.rate_states.len() <= id.slot() {
            self.rate_states.resize(id.slot() + 1, RateState::default());
        }
        self.rate_states[id.slot()] = RateState::default();
    }

    /// Charges a received message, and stops reading if the next one would be too early.
    #[inline(never)] // inlined, it would cost routes without rates 6 instructions for each read
    pub(crate) fn charge_rate(&mut self, conn: &mut Connection, rates: &Rates, bytes: usize) {
        let Some(rate_state) = self.rate_states.get_mut(conn.id.slot()) else { return };
        if !rates.charge(rate_state, self.now, bytes) {
            conn.pause(PauseReason::Rate);
            self.count().rate_pauses.add(1);
        }
    }

    /// Time from which a connection may send again.
    pub(crate) fn free_at(&self, id: ConnId, rates: &Rates) -> Nanos {
        self.rate_states.get(id.slot()).map_or(0, |rate_state| rates.free_at(rate_state))
    }

    /// Stops reading from a connection until there is room for what it publishes.
    #[cold]
    pub(crate) fn pause_congested(&mut self, conn: &mut Connection) {
        if !conn.pauses.contains(PauseReason::Congestion) {
            conn.pause(PauseReason::Congestion);
            self.congested.push(conn.id);
            self.count().congestion_pauses.add(1);
        }
    }

    /// Cancels the replay of a topic that the connection has unsubscribed from.
    pub(crate) fn cancel_replay(&mut self, conn: &mut Connection, topic: &str) {
        if conn.is_replaying() {
            let (index, slot) = (&self.hub.index, conn.id.slot() as u32);
            let by_pattern =
                index.matching_patterns(topic).into_iter().any(|key| index.has_subscription(slot, key));
            self.replays.cancel(conn, topic, by_pattern);
        }
    }

    /// Tells other workers which topics have subscribers here now.
    pub(crate) fn send_subscriber_changes(&mut self) {
        let Self { hub, handle, worker, .. } = self;
        for (to, changes) in hub.take_subscriber_changes() {
            let _ = handle.command_worker(to, Command::SubscriberChanges(*worker, changes), true); // it has ended, as we will
        }
    }

    /// Moves the counts to the counters; before anything is written, so that a client that receives an answer finds it
    /// counted.
    #[inline]
    pub(crate) fn flush_counts(&mut self) {
        let MessageCounts { messages_in, bytes_in, messages_out } = core::mem::take(&mut self.counts);
        let count = self.count();
        count.messages_in.add(messages_in);
        count.bytes_in.add(bytes_in);
        count.messages_out.add(messages_out);
    }
}

/// Everything that a callback of one connection touches.
pub(crate) struct ConnParts<'a> {
    pub(crate) conn: &'a mut Connection,
    pub(crate) ctx: &'a mut WorkerContext,
    pub(crate) sink: &'a mut dyn Sink,
    pub(crate) route: &'a Route,
}

impl ConnParts<'_> {
    /// Queues the batches of this iteration's log for this connection, so that what is sent now follows them.
    pub(crate) fn catch_up(&mut self) {
        let WorkerContext { writer, hub, iteration, replays, .. } = &mut *self.ctx;
        let slot = self.conn.id.slot() as u32;
        if !hub.index.has_subscriptions(slot) {
            return;
        }
        let from = self.conn.caught_up_index(*iteration);
        if !writer.cork.is_empty() {
            self.conn.flush_cork(writer, self.sink);
        }
        let (index, next_index) = (&hub.index, hub.batch_log.next_index());
        for batch in hub.batch_log.batches_from(from) {
            let Some(by) = index.subscription_for(slot, batch.topic) else { continue };
            let recipient = Recipient { conn: self.conn.id, filter: index.filter(slot, by), from };
            push_batch(
                self.conn,
                writer,
                self.sink,
                replays,
                self.route,
                batch,
                index.name(batch.topic),
                recipient,
            );
        }
        self.conn.set_caught_up(*iteration, next_index);
    }

    #[inline]
    fn send(&mut self, message: Message<'_>) -> Result<Sent, RefusedReason> {
        if !self.ctx.hub.batch_log.is_empty() {
            self.catch_up();
        }
        let writer = &mut self.ctx.writer;
        let sent = self.conn.send(writer, self.sink, &self.route.terms, message)?;
        if writer.is_full() {
            self.conn.flush_cork(writer, self.sink);
        }
        self.ctx.counts.messages_out += 1;
        Ok(sent)
    }
}

/// A batch in its route's envelope, if it has one: several messages in one envelope if `batched`.
fn wrapped<'r>(route: &Route, batch: &'r Batch, topic: &str, batched: bool) -> Option<&'r Frames> {
    let RouteEnvelope { index, count, envelope } = route.envelope.as_ref()?;
    match batched && batch.messages() > 1 {
        false => batch.wrapped(2 * index, 2 * count, || batch.wrap(topic, &**envelope)),
        true => batch.wrapped(2 * index + 1, 2 * count, || batch.wrap_all(topic, &**envelope)),
    }
}

/// The whole batch in the bytes that a connection receives; `None`: plain.
pub(crate) fn transformed(
    conn: &mut Connection,
    writer: &mut CorkWriter,
    route: &Route,
    batch: &mut Batch,
    topic: &str,
) -> Option<Frames> {
    let plain = batch.share();
    if route.envelope.is_some() {
        batch.envelopes();
    }
    let wrapped = wrapped(route, batch, topic, conn.is_batched());
    let variant = wrapped.unwrap_or(&plain).variant(conn.encoding, &mut writer.codecs);
    if variant.is_some() {
        conn.reset_context();
    }
    variant.or(wrapped).cloned()
}

/// Queues the messages of a batch that are for this connection, in its encoding.
#[allow(clippy::too_many_arguments)]
pub(crate) fn push_batch(
    conn: &mut Connection,
    writer: &mut CorkWriter,
    sink: &mut dyn Sink,
    replays: &mut Replays,
    route: &Route,
    batch: &mut Batch,
    topic: &str,
    recipient: Recipient<'_>,
) {
    if conn.is_replaying() {
        let terms = batch.terms(&route.terms);
        match replays.take_batch(conn, topic, batch, recipient, &terms) {
            ReplayOutcome::NotReplaying => {}
            ReplayOutcome::Queued => return,
            ReplayOutcome::Overflow => {
                conn.overflow(writer, sink, &terms);
                // The close frame may be in the cork, which the next connection uses.
                return conn.flush(writer, sink);
            }
        }
    }
    let whole = !batch.has_exclusions && recipient.from == 0 && recipient.filter.is_none();
    if !whole && batch.ranges_for(recipient, None).next().is_none() {
        return;
    }
    let (terms, plain) = (&batch.terms(&route.terms), batch.share());
    if route.envelope.is_some() {
        batch.envelopes();
    }
    let batch = &*batch;
    let wrapped = wrapped(route, batch, topic, whole && conn.is_batched());
    let variant = wrapped.unwrap_or(&plain).variant(conn.encoding, &mut writer.codecs);
    if variant.is_some() {
        conn.reset_context();
    }
    let other = variant.or(wrapped);
    let frames = other.unwrap_or(&plain);
    // The policy decides what becomes of it, and counts it.
    if whole {
        let _ = conn.push(writer, sink, frames, 0..frames.len(), batch.key, terms);
    } else {
        for range in batch.ranges_for(recipient, other) {
            let _ = conn.push(writer, sink, frames, range, batch.key, terms);
        }
    }
}

/// A connection, in a callback of its [`Handler`](super::Handler).
///
/// All methods act at once, on the worker that owns the connection. To reach a connection from elsewhere, keep its
/// [`Conn::id`] and use the [`Handle`].
pub struct Conn<'a> {
    parts: ConnParts<'a>,
}

impl<'a> Conn<'a> {
    #[inline]
    pub(crate) fn new(parts: ConnParts<'a>) -> Self {
        Self { parts }
    }

    /// The connection's name, for the [`Handle`].
    #[inline]
    pub fn id(&self) -> ConnId {
        self.parts.conn.id
    }

    /// Sends a message to this connection. What the callbacks of one iteration send leaves in one write; a large payload
    /// may leave at once.
    ///
    /// # Errors
    /// The connection is closing, or its backlog is full ([`Limits::max_backlog`]). The error gives the message back.
    #[inline]
    pub fn send<M: AsMessage>(&mut self, message: M) -> Result<Sent, Refused<M>> {
        self.parts.send(message.as_message()).map_err(|reason| Refused::new(message, reason))
    }

    /// Sends a text that no policy for slow consumers drops, also beyond the limit of the backlog.
    #[cfg(feature = "push")]
    pub(crate) fn reply(&mut self, text: &str) {
        if !self.parts.ctx.hub.batch_log.is_empty() {
            self.parts.catch_up();
        }
        let ConnParts { conn, ctx, sink, .. } = &mut self.parts;
        if conn.reply(&mut ctx.writer, &mut **sink, text) {
            ctx.counts.messages_out += 1;
        }
    }

    /// Whether a [notice](Conn::notice) is queued that the next one replaces.
    #[cfg(feature = "push")]
    pub(crate) fn has_notice(&mut self) -> bool {
        self.parts.conn.has_notice()
    }

    /// Sends a reply before everything that is queued, in place of a queued notice.
    #[cfg(feature = "push")]
    pub(crate) fn notice(&mut self, text: &str) {
        let ConnParts { conn, ctx, sink, .. } = &mut self.parts;
        if conn.notice(&mut ctx.writer, &mut **sink, text) {
            ctx.counts.messages_out += 1;
        }
    }

    /// Sets whether several messages of a topic that arrive in one iteration are sent to this connection as one, if its
    /// route's envelope [can hold them](crate::Envelope::wrap_all). Default: they are not. It saves frames and, for
    /// short messages, most of the client's work. Messages are sent one by one where a filter or the publisher excludes
    /// some of them.
    pub fn batch_messages(&mut self, batch: bool) {
        self.parts.conn.set_batched(batch);
    }

    /// Begins the closing handshake (RFC 6455 section 7.1.2). Messages sent before are delivered first; messages that still come in are not
    /// given to the handler any more. A reason of more than 123 bytes is cut. Closing twice does nothing. The code is from
    /// 1000 to 1003, 1007 to 1014 or 3000 to 4999; one of [`CloseCode`]'s constants that may be sent, or 4000 to 4999 for
    /// the application's own, never fails.
    ///
    /// # Errors
    /// A code that no close frame may carry (RFC 6455 section 7.4), such as 1005, 1006 and 5000: nothing was done.
    pub fn close(&mut self, code: impl Into<CloseCode>, reason: &str) -> Result<(), InvalidClose> {
        let code = code.into().on_wire()?;
        let ConnParts { conn, ctx, sink, .. } = &mut self.parts;
        conn.close(&mut ctx.writer, &mut **sink, code, reason, Cause::Application);
        Ok(())
    }

    /// Ends the connection at once, without a close frame: the peer sees 1006.
    pub fn terminate(&mut self) {
        self.parts.conn.mark_dead(CloseCode::ABNORMAL, Cause::Terminated);
    }

    /// Open, closing or closed; as in the browser.
    pub fn ready_state(&self) -> ReadyState {
        self.parts.conn.ready_state()
    }

    /// Bytes of messages sent and not yet handed to the kernel, with the 2 to 10 bytes of each frame's head. Zero
    /// means that a message sent now waits for nothing.
    #[inline]
    pub fn buffered_amount(&self) -> usize {
        let ConnParts { conn, ctx, sink, .. } = &self.parts;
        conn.buffered() + ctx.writer.corked() + sink.buffered()
    }

    /// Reads nothing more from this connection, not even what has been received together with the current message,
    /// until [`Conn::resume`]. TCP then makes the peer wait. Pings aren't answered meanwhile, and pongs aren't seen:
    /// a connection that stays paused beyond the pong deadline is not ended for that.
    pub fn pause(&mut self) {
        self.parts.conn.pause(PauseReason::Application);
        // A handler that pauses because of what is gathered now resumes in `drain`, which must then be called.
        self.parts.conn.backlogged |= self.parts.ctx.writer.corked() > 0;
    }

    /// Reads again.
    pub fn resume(&mut self) {
        self.parts.conn.resume(PauseReason::Application);
    }

    /// Whether the application has paused reading.
    pub fn is_paused(&self) -> bool {
        self.parts.conn.pauses.contains(PauseReason::Application)
    }

    /// Sends a ping (RFC 6455 section 5.5.2). The server pings by itself ([`Limits::ping_interval`]).
    ///
    /// # Errors
    /// A payload of more than 125 bytes: nothing was done.
    pub fn ping(&mut self, payload: &[u8]) -> Result<(), InvalidPing> {
        InvalidPing::check(payload)?;
        if self.parts.conn.phase == Phase::Open {
            self.parts.conn.control(&mut self.parts.ctx.writer, Opcode::Ping, payload);
        }
        Ok(())
    }

    /// Has [`Handler::timer`](super::Handler::timer) called once with this number, `delay` from now or up to 64 ms later. A
    /// timer with the same number is replaced. Timers end with the connection; where it is closing, none is set.
    ///
    /// ```
    /// # use campanile::{Conn, Disconnect, Handler, Message};
    /// # use std::time::Duration;
    /// const TOKEN_EXPIRES: u32 = 0;
    /// const PUSH: u32 = 1;
    ///
    /// struct Feed;
    ///
    /// impl Handler for Feed {
    ///     type State = ();
    ///
    ///     fn open(&self, conn: &mut Conn<'_>, _: &mut ()) -> Result<(), Disconnect> {
    ///         conn.set_timer(TOKEN_EXPIRES, Duration::from_secs(3600))?;
    ///         conn.set_interval(PUSH, Duration::from_secs(1))?;
    ///         Ok(())
    ///     }
    ///
    ///     fn timer(&self, conn: &mut Conn<'_>, _: &mut (), timer: u32) -> Result<(), Disconnect> {
    ///         match timer {
    ///             TOKEN_EXPIRES => Err(Disconnect::new(4001, "the token has expired")),
    ///             _ => Ok(conn.send("tick").map(drop)?),
    ///         }
    ///     }
    /// #   fn message(&self, _: &mut Conn<'_>, _: &mut (), _: Message<'_>) -> Result<(), Disconnect> { Ok(()) }
    /// }
    /// ```
    ///
    /// # Errors
    /// The connection has [`Limits::max_timers`] other timers.
    pub fn set_timer(&mut self, timer: u32, delay: Duration) -> Result<(), TooManyTimers> {
        self.start_timer(timer, delay, Duration::ZERO)
    }

    /// Has [`Handler::timer`](super::Handler::timer) called with this number every `period`, each time up to 64 ms late, for
    /// the first time one period from now. A period below 64 ms is served every 64 ms; calls that a busy worker misses are
    /// skipped. Otherwise as [`Conn::set_timer`].
    ///
    /// # Errors
    /// As [`Conn::set_timer`].
    pub fn set_interval(&mut self, timer: u32, period: Duration) -> Result<(), TooManyTimers> {
        self.start_timer(timer, period, period.max(Duration::from_nanos(1)))
    }

    fn start_timer(&mut self, timer: u32, delay: Duration, period: Duration) -> Result<(), TooManyTimers> {
        let ConnParts { conn, ctx, route, .. } = &mut self.parts;
        if conn.phase != Phase::Open {
            return Ok(());
        }
        let nanos = |time: Duration| Nanos::try_from(time.as_nanos()).unwrap_or(Nanos::MAX);
        // The iteration may have begun long before.
        let now = nanos(ctx.handle.shared.began.elapsed());
        let (slot, due) = (conn.id.slot() as u32, now.saturating_add(nanos(delay)));
        ctx.timers.set(slot, timer, due, nanos(period), route.terms.limits.max_timers)?;
        conn.set_timed(true);
        Ok(())
    }

    /// Clears a timer. Returns whether it was set.
    pub fn clear_timer(&mut self, timer: u32) -> bool {
        let ConnParts { conn, ctx, .. } = &mut self.parts;
        conn.is_timed() && ctx.timers.clear(conn.id.slot() as u32, timer)
    }

    /// The address of the peer.
    pub fn peer(&self) -> &Peer {
        &self.parts.conn.peer
    }

    /// The subprotocol that was chosen.
    pub fn protocol(&self) -> Option<&str> {
        self.parts.conn.cold.as_ref()?.protocol.as_deref()
    }

    /// The extensions in use, as the handshake named them: empty, or `permessage-deflate` with its parameters.
    pub fn extensions(&self) -> String {
        let cold = self.parts.conn.cold.as_ref();
        cold.and_then(|c| c.compression.as_ref()).map(|c| c.agreed.response()).unwrap_or_default()
    }

    /// The parameters of the route: `room` in `/chat/:room`. A share of them, so that one can name the topic that is
    /// published to:
    ///
    /// ```
    /// # use campanile::{Conn, Message};
    /// # fn example(conn: &mut Conn<'_>, message: Message<'_>) {
    /// let params = conn.params();
    /// conn.publish(params.get("room").unwrap_or("lobby"), message);
    /// # }
    /// ```
    pub fn params(&self) -> Params {
        self.parts.conn.cold.as_ref().map(|c| c.params.clone()).unwrap_or_default()
    }

    /// One parameter of the route.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.parts.conn.cold.as_ref()?.params.get(name)
    }

    /// The pattern of the route that this connection came in by, such as `/chat/:room`.
    pub fn route(&self) -> &str {
        &self.parts.route.pattern
    }

    /// What its route allows it.
    pub fn limits(&self) -> &Limits {
        &self.parts.route.terms.limits
    }

    /// Subscribes to a topic: what is published to it from now on is sent to this connection. Says whether that is new.
    ///
    /// The name may be made from what a client sent: `user/*` is refused, so a user who is called `*` can't receive
    /// everybody's messages. [`Conn::subscribe_pattern`] takes patterns.
    ///
    /// # Errors
    /// The name can't be a topic's or is a pattern, the connection has too many subscriptions, or it is closing.
    pub fn subscribe(&mut self, topic: &str) -> Result<bool, SubscribeError> {
        self.subscribe_now(&TopicOrPattern::topic(topic).map_err(SubscribeError::Topic)?, None)
    }

    /// Subscribes to every topic below a prefix, at any depth: `ticks/*`. Says whether that is new. A message that several
    /// subscriptions match is sent once. Never make a pattern from what a client sent: it decides how much is sent.
    ///
    /// # Errors
    /// The text is not a pattern, the connection has too many subscriptions, or it is closing.
    pub fn subscribe_pattern(&mut self, pattern: &str) -> Result<bool, SubscribeError> {
        self.subscribe_now(&TopicOrPattern::pattern(pattern).map_err(SubscribeError::Pattern)?, None)
    }

    fn subscribe_now(&mut self, to: &TopicOrPattern<'_>, tags: Option<Tags>) -> Result<bool, SubscribeError> {
        let ConnParts { conn, ctx, .. } = &self.parts;
        if conn.phase != Phase::Open {
            return Err(SubscribeError::Closed);
        }
        // What was published earlier in this iteration is not for a new subscriber.
        let log_end = (ctx.iteration, ctx.hub.batch_log.next_index());
        if log_end.1 > 0 {
            self.parts.catch_up();
        }
        let ConnParts { conn, ctx, route, .. } = &mut self.parts;
        let limit = route.terms.limits.max_subscriptions;
        let slot = conn.id.slot() as u32;
        // Pending requests count too.
        if !ctx.hub.has_subscription_room(conn.id, limit) && !ctx.hub.index.is_subscribed(slot, to.as_str()) {
            return Err(SubscribeError::TooMany { limit });
        }
        let added = ctx.hub.subscribe(slot, to, tags, limit)?;
        if added == Added::First {
            ctx.send_subscriber_changes();
        }
        let new = added != Added::Already;
        if new && log_end.1 > 0 {
            conn.set_caught_up(log_end.0, log_end.1);
        }
        Ok(new)
    }

    /// Subscribes to a topic from a given position on: with the messages of its history after that position, or with
    /// its latest state. [`Handler::subscribed`](super::Handler::subscribed) says how it began, then the messages of
    /// the history follow, then new ones: without a gap and without duplicates. Until then, at the end of this
    /// iteration or when the topic's owner has answered, no message of the topic is sent.
    ///
    /// # Errors
    /// As [`Conn::subscribe`], or this connection is subscribed to the topic already.
    pub fn subscribe_from(&mut self, topic: &str, start: Start) -> Result<(), SubscribeError> {
        self.subscribe_with(Subscribe::new(topic).from(start))
    }

    /// As [`Conn::subscribe_from`], with a filter. A pattern begins at once, with the next message, and
    /// [`Handler::subscribed`](super::Handler::subscribed) is not called for it.
    ///
    /// # Errors
    /// As [`Conn::subscribe_from`]; a pattern with another start than [`Start::Now`].
    pub fn subscribe_with(&mut self, subscribe: Subscribe<'_>) -> Result<(), SubscribeError> {
        let Subscribe { target, start, tags } = subscribe;
        let tags = Tags::new(tags.iter().copied());
        let topic = match target {
            SubscribeTarget::Topic(topic) => topic,
            SubscribeTarget::Pattern(_) if start != Start::Now => return Err(SubscribeError::PatternStart),
            SubscribeTarget::Pattern(pattern) => {
                let new = self.subscribe_now(
                    &TopicOrPattern::pattern(pattern).map_err(SubscribeError::Pattern)?,
                    tags,
                )?;
                return if new { Ok(()) } else { Err(SubscribeError::Already) };
            }
        };
        let ConnParts { conn, ctx, route, .. } = &mut self.parts;
        if conn.phase != Phase::Open {
            return Err(SubscribeError::Closed);
        }
        let limit = route.terms.limits.max_subscriptions;
        ctx.hub.request_recovery(
            RecoveryRequest { conn: conn.id, topic: topic.into(), start, tags, request_id: 0 },
            limit,
        )
    }

    /// Ends the subscription to a topic, and cancels one that was requested and has not begun. Returns whether there
    /// was either. Messages published before are still sent.
    pub fn unsubscribe(&mut self, topic: &str) -> bool {
        TopicOrPattern::topic(topic).is_ok_and(|topic| self.unsubscribe_from(&topic))
    }

    /// Ends the subscription to a pattern. Returns whether there was one.
    pub fn unsubscribe_pattern(&mut self, pattern: &str) -> bool {
        TopicOrPattern::pattern(pattern).is_ok_and(|pattern| self.unsubscribe_from(&pattern))
    }

    fn unsubscribe_from(&mut self, from: &TopicOrPattern<'_>) -> bool {
        if !self.parts.ctx.hub.batch_log.is_empty() {
            self.parts.catch_up();
        }
        let id = self.parts.conn.id;
        let Unsubscribed { ended, cancelled } = self.parts.ctx.hub.unsubscribe(id, from);
        self.parts.ctx.cancel_replay(self.parts.conn, from.as_str());
        ended || cancelled
    }

    /// Whether this connection subscribed to a topic by its name.
    pub fn is_subscribed(&self, topic: &str) -> bool {
        !is_pattern(topic) && self.has_subscription(topic)
    }

    /// Whether this connection subscribed to a pattern.
    pub fn is_subscribed_pattern(&self, pattern: &str) -> bool {
        is_pattern(pattern) && self.has_subscription(pattern)
    }

    fn has_subscription(&self, name: &str) -> bool {
        self.parts.ctx.hub.index.is_subscribed(self.parts.conn.id.slot() as u32, name)
    }

    /// The topics that this connection subscribed to by their names, in no order.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.names().filter(|name| !is_pattern(name))
    }

    /// The patterns that this connection subscribed to, in no order.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.names().filter(|name| is_pattern(name))
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.ctx.hub.index.names_of(self.parts.conn.id.slot() as u32)
    }

    /// Publishes a message to every subscriber of the topic, on all workers; this connection receives it too if it is
    /// subscribed. With several workers, what is published may arrive after what is [sent](Conn::send) later.
    ///
    /// # Errors
    /// The name can't be a topic's.
    #[inline]
    pub fn publish(&mut self, topic: &str, message: impl AsMessage) -> Result<(), InvalidTopic> {
        self.publish_with(Publish::new(topic, message.as_message()))
    }

    /// Publishes as [`Conn::publish`] does, to all subscribers but this connection.
    ///
    /// # Errors
    /// As [`Conn::publish`].
    #[inline]
    pub fn publish_to_others(&mut self, topic: &str, message: impl AsMessage) -> Result<(), InvalidTopic> {
        let id = self.id();
        self.publish_with(Publish::new(topic, message.as_message()).except(id))
    }

    /// Publishes with an idempotency key, tags or a time to live, to all subscribers or all but one. It takes this
    /// connection's share of the topic's rate ([`TopicSettings::rate`](crate::TopicSettings::rate)); a publication through
    /// [`Conn::handle`] does not. What the topic refuses for its size or rate is counted in
    /// [`Stats::publications_refused`](crate::Stats::publications_refused); for an answer use
    /// [`Handle::publish_confirmed`].
    ///
    /// # Errors
    /// As [`Conn::publish`].
    #[inline]
    pub fn publish_with(&mut self, mut publish: Publish<'_>) -> Result<(), InvalidTopic> {
        publish.publisher = Some(self.id());
        self.parts.ctx.hub.publish(publish)?;
        self.pause_if_congested(publish.topic);
        Ok(())
    }

    /// Stops reading from this connection if too much of the topic is queued for other workers: a publisher that floods
    /// a topic is slowed down before others suffer.
    #[inline]
    pub(crate) fn pause_if_congested(&mut self, topic: &str) {
        let ConnParts { conn, ctx, .. } = &mut self.parts;
        if ctx.hub.is_congested(topic) {
            ctx.pause_congested(conn);
        }
    }

    /// The handle to the server and to other connections, for any thread.
    pub fn handle(&self) -> &Handle {
        &self.parts.ctx.handle
    }
}

impl std::fmt::Debug for Conn<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn").field("id", &self.id()).finish_non_exhaustive()
    }
}
