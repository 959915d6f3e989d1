//! Plain HTTP on a connection, up to the upgrade or the end.

use super::Worker;
use super::callbacks::{self, Stopwatch};
use super::deadlines::ticks;
use super::http_state::{
    BodyReader, CheckedUpgrade, HttpState, PendingResponse, PendingUpgrade, ResponseOptions,
};
use super::slots::Slot;
use crate::conn::{PauseReason, Phase, asks_for_websocket, check_upgrade, write_accept};
use crate::deflate::negotiate;
use crate::endpoint::Endpoint;
use crate::handler::{AnyState, Command, Decision, ErasedAccept, Handle};
use crate::http::{
    Body, DeferredResponse, HeaderSlots, HttpError, Params, ParsedRequest, Request, RequestHead,
    RequestParser, Responder, Response,
};
use crate::log;
use crate::net::ReadOutcome;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The handlers of a path.
pub(crate) struct Resource {
    pub(crate) pattern: Box<str>,
    pub(crate) websocket: Option<u16>,
    /// By method.
    pub(crate) endpoints: Vec<(Box<str>, Arc<dyn Endpoint>)>,
}

impl Resource {
    pub(crate) fn at(pattern: &str) -> Self {
        Self { pattern: pattern.into(), websocket: None, endpoints: Vec::new() }
    }
}

/// Bytes of requests read in one iteration: about a hundred of the shortest. More wait in the kernel.
pub(super) const HTTP_READ: usize = 16 << 10;

/// Requests answered before other connections are served.
const MAX_REQUESTS: usize = 64;

/// Bytes of a body read and written in one step.
const BODY_STEP: usize = 64 << 10;

/// Steps of a body in one iteration.
const MAX_BODY_STEPS: usize = 4;

/// The outcome of a request.
enum RequestOutcome {
    /// It was answered, or is being answered; this many bytes were consumed.
    Answered(usize),
    /// The connection is a WebSocket from here on.
    Upgraded(usize),
    /// A handler decides on another thread.
    Deciding(usize),
    /// It is incomplete.
    Incomplete,
    /// It is refused, and nothing after it can be answered.
    Refused(HttpError),
}

impl Worker {
    pub(super) fn read_http(&mut self, at: usize) {
        let Self { slots, recv, .. } = self;
        let Some(slot) = slots.get_mut(at) else { return };
        if slot.stream.is_secure() {
            return self.read_tls(at);
        }
        let room = HTTP_READ.min(recv.len());
        let n = match slot.stream.recv(&mut recv[..room]) {
            Ok(ReadOutcome::Bytes(n)) => n,
            Ok(ReadOutcome::WouldBlock) => return,
            Ok(ReadOutcome::Eof) => return self.disconnected(at, std::io::ErrorKind::UnexpectedEof),
            Err(e) => return self.disconnected(at, e.kind()),
        };
        if n == room {
            self.schedule_read(at);
        }
        // The buffer is borrowed while its requests are processed.
        let mut recv = core::mem::take(&mut self.recv);
        self.http_input(at, &mut recv[..n]);
        self.recv = recv;
    }

    /// Processes bytes of requests.
    pub(super) fn http_input(&mut self, at: usize, input: &mut [u8]) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        let Some(http) = slot.http.as_mut().filter(|e| !e.buf.is_empty() || e.body.is_some()) else {
            return self.requests(at, input);
        };
        let bound =
            self.settings.http.max_head + self.settings.http.max_body + self.recv.len().max(input.len());
        if http.buf.len() + input.len() > bound {
            return self.refuse(at, HttpError::BodyTooLarge { limit: self.settings.http.max_body as u64 });
        }
        http.buf.extend_from_slice(input);
        if http.body.is_none() && http.parser.can_continue(http.buf.len()) {
            let mut buf = core::mem::take(&mut http.buf);
            self.requests(at, &mut buf);
        }
    }

    /// Answers complete requests, and keeps the rest.
    fn requests(&mut self, at: usize, mut input: &mut [u8]) {
        let mut answered = 0;
        while !input.is_empty() {
            let taken = match self.request(at, input) {
                RequestOutcome::Answered(n) => n,
                RequestOutcome::Upgraded(n) => return self.open_input(at, &mut input[n..]),
                RequestOutcome::Deciding(n) => {
                    if let Some(slot) = self.slots.get_mut(at) {
                        slot.conn.cold().unread = input[n..].to_vec();
                    }
                    return;
                }
                RequestOutcome::Incomplete => break,
                RequestOutcome::Refused(e) => return self.refuse(at, e),
            };
            input = &mut input[taken..];
            let Some(slot) = self.slots.get_mut(at) else { return };
            if slot.conn.phase != Phase::Http {
                return;
            }
            if let Some(http) = &mut slot.http {
                http.parser = RequestParser::default();
                if http.close_after {
                    return;
                }
            }
            if self.ctx.writer.is_full() {
                slot.conn.flush(&mut self.ctx.writer, &mut slot.stream);
            }
            answered += 1;
            if has_pending_response(slot) && input.is_empty() {
                break; // later input is handled when it arrives
            }
            if is_answering(slot) || answered == MAX_REQUESTS {
                slot.conn.pause(PauseReason::Request);
                break;
            }
        }
        let Some(slot) = self.slots.get_mut(at) else { return };
        if !input.is_empty() {
            slot.http.get_or_insert_default().buf = input.to_vec();
        } else if slot.http.as_ref().is_some_and(|e| e.is_idle()) {
            slot.http = None;
        }
    }

    /// Answers the request at the beginning of `input`, if it is whole.
    fn request(&mut self, at: usize, input: &mut [u8]) -> RequestOutcome {
        let settings = self.settings.clone();
        let limits = &settings.http;
        let Some(slot) = self.slots.get_mut(at) else { return RequestOutcome::Incomplete };
        let mut parser = slot.http.as_ref().map(|http| http.parser).unwrap_or_default();
        let mut slots = HeaderSlots::new();
        let (head, body) = match parser.parse(input, &mut slots, limits) {
            Ok(ParsedRequest::Whole { head, body }) => (head, body),
            Ok(ParsedRequest::Incomplete { send_continue }) => {
                if send_continue {
                    slot.conn.write_raw(&mut self.ctx.writer, b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                slot.http.get_or_insert_default().parser = parser;
                return RequestOutcome::Incomplete;
            }
            Err(e) => return RequestOutcome::Refused(e),
        };
        let taken = parser.consumed();
        slot.timestamps.deadline = self.now + ticks(limits.timeout);
        let Some(found) = settings.router.find(head.path()) else {
            self.respond(at, HttpError::NotFound.response(), &head);
            return RequestOutcome::Answered(taken);
        };
        let (resource, params) = (found.value, found.params);
        if let Some(route) = resource.websocket
            && (asks_for_websocket(&head) || resource.endpoints.is_empty())
        {
            return self.upgrade(at, route, &head, params, taken);
        }
        let (peer, tls) = (slot.conn.peer, slot.stream.tls_info());
        let mut request = Request::new(&head, &params, &peer, body);
        request = tls.iter().fold(request, |request, tls| request.over_tls(tls));
        let response = match find_endpoint(resource, request.method()) {
            Ok(endpoint) => {
                let place = format_args!("{}: the HTTP handler", resource.pattern);
                let stopwatch = Stopwatch::start();
                let response = callbacks::catch(self.ctx.count(), place, || endpoint.handle(&request));
                stopwatch.report(self.shared.slow_callback, place);
                response.unwrap_or_else(|| HttpError::Internal.response())
            }
            Err(response) => response,
        };
        self.respond(at, response, &head);
        RequestOutcome::Answered(taken)
    }

    fn upgrade(
        &mut self,
        at: usize,
        route: u16,
        head: &RequestHead<'_>,
        params: Params,
        taken: usize,
    ) -> RequestOutcome {
        let shared = self.shared.clone();
        let handler = &shared.routes[usize::from(route)];
        let Some(slot) = self.slots.get_mut(at) else { return RequestOutcome::Incomplete };
        let (peer, tls) = (slot.conn.peer, slot.stream.tls_info());
        let mut request = Request::new(head, &params, &peer, b"");
        request = tls.iter().fold(request, |request, tls| request.over_tls(tls));
        let accept = match check_upgrade(head) {
            Ok(checked) => checked.accept,
            Err(e) => {
                self.respond(at, e.response(), head);
                return RequestOutcome::Answered(taken);
            }
        };
        if let Err(refused) = handler.origins.check(&request) {
            self.ctx.count().origins_refused.add(1);
            log::limited!(info, Instant::now(), "{}: {peer}: {refused}", handler.pattern);
            self.respond(at, refused.response(), head);
            return RequestOutcome::Answered(taken);
        }
        let place = format_args!("{}: upgrade", handler.pattern);
        let stopwatch = Stopwatch::start();
        let answer = callbacks::catch(self.ctx.count(), place, || handler.handler.upgrade(&request));
        stopwatch.report(shared.slow_callback, place);
        let agreed = negotiate(head.header_values("sec-websocket-extensions"), &handler.deflate);
        let upgrade = CheckedUpgrade { accept, route, params, agreed };
        match answer {
            Some(Ok(ErasedAccept::Now { state, response, .. })) if response.fault().is_some() => {
                self.drop_caught(state);
                let response = sendable(response);
                self.respond(at, response, head);
                RequestOutcome::Answered(taken)
            }
            Some(Ok(ErasedAccept::Now { state, protocol, response })) => {
                let protocol = protocol.filter(|p| head.protocols().any(|offered| offered == &**p));
                self.accept_upgrade(at, upgrade, state, protocol, &response);
                RequestOutcome::Upgraded(taken)
            }
            Some(Ok(ErasedAccept::Later { timeout, start })) => {
                let offered = head.protocols().map(Into::into).collect();
                let due = self.now + ticks(timeout);
                let Some(slot) = self.slots.get_mut(at) else { return RequestOutcome::Incomplete };
                slot.conn.phase = Phase::Deciding;
                slot.flags.phase = Phase::Deciding as u8;
                slot.timestamps.deadline = due;
                slot.http.get_or_insert_default().pending_upgrade = Some(PendingUpgrade { upgrade, offered });
                let id = slot.conn.id;
                self.wheel.arm(&mut self.slots, at as u32, due);
                let handle: Handle = self.ctx.handle.clone();
                let place = format_args!("{}: Accept::later", self.shared.routes[usize::from(route)].pattern);
                if callbacks::catch(self.ctx.count(), place, || start(handle, id)).is_none() {
                    self.upgrade_timed_out(at);
                }
                RequestOutcome::Deciding(taken)
            }
            Some(Err(refuse)) => {
                self.respond(at, refuse.0, head);
                RequestOutcome::Answered(taken)
            }
            None => {
                self.respond(at, HttpError::Internal.response(), head);
                RequestOutcome::Answered(taken)
            }
        }
    }

    fn accept_upgrade(
        &mut self,
        at: usize,
        upgrade: CheckedUpgrade,
        state: AnyState,
        protocol: Option<Box<str>>,
        response: &Response,
    ) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        let mut head = Vec::with_capacity(160);
        let mut lines = Vec::new();
        for (name, value) in response.headers() {
            lines.extend_from_slice(name);
            lines.extend_from_slice(b": ");
            lines.extend_from_slice(value);
            lines.extend_from_slice(b"\r\n");
        }
        let CheckedUpgrade { accept, route, params, agreed } = upgrade;
        write_accept(&mut head, &accept, protocol.as_deref(), agreed.as_ref(), &lines);
        slot.conn.write_raw(&mut self.ctx.writer, &head);
        self.open(at, route, state, protocol, params, agreed);
    }

    /// Answers an upgrade that was decided on another thread.
    pub(super) fn decide(&mut self, id: crate::conn::ConnId, decision: Decision) {
        let Some(slot) = self.slots.find_mut(id).filter(|s| s.conn.phase == Phase::Deciding) else {
            // The client has disconnected. Dropping the state that was meant for it runs the application's code.
            return self.drop_caught(decision);
        };
        let at = id.slot();
        let Some(pending) = slot.http.as_mut().and_then(|e| e.pending_upgrade.take()) else { return };
        let PendingUpgrade { upgrade, offered } = pending;
        match decision {
            Decision::Accept(ErasedAccept::Now { state, response, .. }) if response.fault().is_some() => {
                self.drop_caught(state);
                self.end_with(at, response);
            }
            Decision::Accept(ErasedAccept::Now { state, protocol, response }) => {
                let mut unread = core::mem::take(&mut slot.conn.cold().unread);
                slot.conn.drop_empty_cold();
                let protocol = protocol.filter(|p| offered.contains(p));
                self.accept_upgrade(at, upgrade, state, protocol, &response);
                self.open_input(at, &mut unread);
            }
            Decision::Accept(ErasedAccept::Later { .. }) => self.end_with(at, HttpError::Internal.response()),
            Decision::Refuse(response) => self.end_with(at, response),
        }
        self.write_and_advance(at);
        self.schedule_read(at); // later input was left in the kernel
    }

    /// Refuses an upgrade that was not decided in time.
    pub(super) fn upgrade_timed_out(&mut self, at: usize) {
        self.end_with(at, unavailable());
        self.write_and_advance(at);
    }

    /// Ends a connection without a request in time. Nothing is answered if none has begun.
    pub(super) fn http_timed_out(&mut self, at: usize) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        if let Some(number) = slot.http.as_ref().and_then(|e| e.pending_response.as_ref()).map(|w| w.number) {
            self.send_pending(at, number, unavailable());
            let Some(slot) = self.slots.get_mut(at) else { return };
            let due = slot.timestamps.deadline;
            self.wheel.arm(&mut self.slots, at as u32, due);
            return self.write_and_advance(at);
        }
        let Some(slot) = self.slots.get_mut(at) else { return };
        if !is_answering(slot) && slot.http.is_some() {
            let limit = self.settings.http.timeout;
            self.refuse(at, HttpError::Timeout { limit });
            self.write_and_advance(at);
        } else {
            self.disconnected(at, std::io::ErrorKind::TimedOut);
        }
    }

    /// Shuts a connection down: what is being answered is finished, everything else ends.
    pub(super) fn http_shutdown(&mut self, at: usize) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        match slot.conn.phase {
            Phase::Deciding => self.upgrade_timed_out(at),
            _ if is_answering(slot) => slot.http.get_or_insert_default().close_after = true,
            _ => self.terminate(at),
        }
    }

    /// Refuses a request that can't be answered properly: where the next one begins is not known.
    fn refuse(&mut self, at: usize, error: HttpError) {
        self.end_with(at, error.response());
    }

    /// Refuses what a client sends over plain HTTP because all connections together hold too much.
    pub(super) fn refuse_over_budget(&mut self, at: usize) {
        self.end_with(at, unavailable());
        let Some(slot) = self.slots.get_mut(at) else { return };
        slot.conn.flush(&mut self.ctx.writer, &mut slot.stream);
        let left = slot.held().min(u32::MAX as usize) as u32;
        let counted_bytes = core::mem::replace(&mut slot.counted_bytes, left);
        self.ctx.count().held_bytes.shift(u64::from(counted_bytes), u64::from(left));
    }

    /// Sends the last response of a connection.
    fn end_with(&mut self, at: usize, response: Response) {
        let response = sendable(response);
        let now = self.now;
        let Some(slot) = self.slots.get_mut(at) else { return };
        let mut head = Vec::with_capacity(256);
        response.encode_head(&mut head, self.date.at(now), false, false);
        slot.conn.write_raw(&mut self.ctx.writer, &head);
        let body = response.into_body();
        if let Some(bytes) = in_memory(&body) {
            slot.conn.write_raw(&mut self.ctx.writer, bytes);
        }
        slot.conn.phase = Phase::Failing;
        slot.http = None;
        self.ctx.count().requests.add(1);
        self.drop_caught(body);
    }

    fn respond(&mut self, at: usize, mut response: Response, head: &RequestHead<'_>) {
        let options = ResponseOptions::of(head);
        match response.take_later() {
            Some(later) => self.respond_later(at, *later, options),
            None => self.send_response(at, response, options),
        }
    }

    /// Makes the connection wait for a response that comes later.
    fn respond_later(&mut self, at: usize, later: DeferredResponse, options: ResponseOptions) {
        let DeferredResponse { timeout, start } = later;
        let due = self.now + ticks(timeout).max(1);
        self.responses += 1;
        let number = self.responses;
        let Some(slot) = self.slots.get_mut(at) else { return };
        slot.timestamps.deadline = due;
        slot.http.get_or_insert_default().pending_response = Some(PendingResponse { number, options });
        let id = slot.conn.id;
        self.wheel.arm_earlier(&mut self.slots, at as u32, due);
        let handle = self.ctx.handle.clone();
        let responder = Responder::new(move |response| {
            let response = response.unwrap_or_else(unavailable);
            let _ = handle.command(id, Command::Respond(id, number, response), true); // if the server has ended, the client has disconnected
        });
        if callbacks::catch(self.ctx.count(), format_args!("Response::later"), || start(responder)).is_none()
        {
            self.send_pending(at, number, HttpError::Internal.response());
        }
    }

    /// Sends the response that a request has waited for, from another thread.
    pub(super) fn complete_response(&mut self, id: crate::conn::ConnId, number: u64, response: Response) {
        let at = id.slot();
        let waits = |e: &HttpState| e.pending_response.as_ref().is_some_and(|w| w.number == number);
        let found = self.slots.find_mut(id).filter(|s| s.conn.phase == Phase::Http);
        let found = found.and_then(|s| s.http.as_deref());
        if !found.is_some_and(waits) {
            // The client has disconnected, or was answered already. What is dropped may be the application's.
            return self.drop_caught(response);
        }
        self.send_pending(at, number, response);
        self.write_and_advance(at);
    }

    fn send_pending(&mut self, at: usize, number: u64, mut response: Response) {
        let timeout = ticks(self.settings.http.timeout);
        let Some(slot) = self.slots.get_mut(at) else { return };
        let Some(http) = &mut slot.http else { return };
        let Some(PendingResponse { options, .. }) = http.pending_response.take_if(|w| w.number == number)
        else {
            return;
        };
        slot.timestamps.deadline = self.now + timeout;
        if let Some(later) = response.take_later() {
            self.drop_caught(later);
            response = HttpError::Internal.response(); // a deferred response can't be deferred again
        }
        self.send_response(at, response, options);
        if let Some(slot) = self.slots.get_mut(at)
            && slot.http.as_ref().is_some_and(|e| e.is_idle())
        {
            slot.http = None;
        }
    }

    /// Drops a value of the application's and counts a panic.
    pub(super) fn drop_caught(&self, what: impl Sized) {
        callbacks::catch(self.ctx.count(), format_args!("dropping a value of the application"), || {
            drop(what)
        });
    }

    fn send_response(&mut self, at: usize, response: Response, options: ResponseOptions) {
        let response = sendable(response);
        let now = self.now;
        let Some(slot) = self.slots.get_mut(at) else { return };
        let head_only = options.head_only;
        let keep_alive = options.keep_alive && !self.shutdown.has_begun();
        let mut bytes = Vec::with_capacity(256);
        response.encode_head(&mut bytes, self.date.at(now), keep_alive, head_only);
        slot.conn.write_raw(&mut self.ctx.writer, &bytes);
        let body = response.into_body();
        if head_only {
            // RFC 9110 section 9.3.2: the head that GET would get, and nothing else.
            self.drop_caught(body);
        } else if let Some(bytes) = in_memory(&body) {
            slot.conn.write_raw(&mut self.ctx.writer, bytes);
        } else if let Body::Reader { reader, len } = body {
            let reader = BodyReader::new(reader, &self.ctx);
            slot.http.get_or_insert_default().body = Some((reader, len));
        }
        if !keep_alive && let Some(slot) = self.slots.get_mut(at) {
            slot.http.get_or_insert_default().close_after = true;
        }
        self.ctx.count().requests.add(1);
    }

    /// Continues with a body that is being sent, and then with the requests behind it.
    pub(super) fn continue_response(&mut self, at: usize) {
        for _ in 0..MAX_BODY_STEPS {
            let Some(slot) = self.slots.get_mut(at).filter(|s| s.conn.phase == Phase::Http) else { return };
            if !slot.is_written_out() || has_pending_response(slot) {
                return;
            }
            let Some((reader, left)) = slot.http.as_mut().and_then(|e| e.body.as_mut()) else {
                if slot.http.as_ref().is_some_and(|e| e.close_after) {
                    slot.conn.phase = Phase::Failing;
                    slot.http = None;
                    return self.write_and_advance(at);
                }
                if !slot.conn.pauses.remove(PauseReason::Request) {
                    return;
                }
                let mut buf = slot.http.as_mut().map(|e| core::mem::take(&mut e.buf)).unwrap_or_default();
                self.requests(at, &mut buf);
                self.schedule_read(at);
                if let Some(slot) = self.slots.get_mut(at) {
                    slot.conn.flush(&mut self.ctx.writer, &mut slot.stream);
                }
                continue;
            };
            let want = (*left).min(BODY_STEP as u64) as usize;
            let mut piece = vec![0; want];
            let n = match reader.read(&mut piece) {
                // The file shrank, or the disk failed: the Content-Length can't be met.
                Ok(0) | Err(_) if *left > 0 => return self.terminate(at),
                Ok(n) => n,
                Err(_) => 0,
            };
            *left -= n as u64;
            if *left == 0
                && let Some(http) = &mut slot.http
            {
                http.body = None;
            }
            slot.timestamps.deadline = self.now + ticks(self.settings.http.timeout);
            slot.conn.write_raw(&mut self.ctx.writer, &piece[..n]);
            slot.conn.flush(&mut self.ctx.writer, &mut slot.stream);
            if slot.conn.write_error.is_some() {
                return self.disconnected(at, std::io::ErrorKind::BrokenPipe);
            }
        }
        // More than an iteration's share.
        if self.slots.get_mut(at).is_some_and(has_response_to_continue) {
            self.write_later(at);
        }
    }
}

fn has_response_to_continue(slot: &mut Slot) -> bool {
    slot.conn.phase == Phase::Http
        && slot.is_written_out()
        && (slot.conn.is_paused() || slot.http.as_ref().is_some_and(|e| e.body.is_some() || e.close_after))
}

/// Returns whether a response is being sent. Nothing more is read meanwhile, so a client that does not read its
/// responses is paused, and responses do not pile up.
pub(super) fn is_answering(slot: &Slot) -> bool {
    !slot.is_written_out()
        || slot.http.as_ref().is_some_and(|e| e.body.is_some() || e.pending_response.is_some())
}

/// Returns whether a response comes later.
fn has_pending_response(slot: &Slot) -> bool {
    slot.http.as_ref().is_some_and(|e| e.pending_response.is_some())
}

/// Returns the response, or a 500 in place of an invalid one, which is logged as a mistake of the program.
fn sendable(response: Response) -> Response {
    let Some(fault) = response.fault() else { return response };
    log::limited!(error, Instant::now(), "{fault}; the client got a 500 instead");
    HttpError::Internal.response()
}

/// Returns the 503 for a response that did not come.
fn unavailable() -> Response {
    HttpError::Unavailable { retry_after: Duration::from_secs(1) }.response()
}

/// Finds the endpoint for a method.
///
/// # Errors
/// No endpoint takes the method: the 405.
fn find_endpoint<'r>(resource: &'r Resource, method: &str) -> Result<&'r Arc<dyn Endpoint>, Response> {
    let of = |method: &str| resource.endpoints.iter().find(|(m, _)| &**m == method).map(|(_, e)| e);
    let endpoint = match method {
        "HEAD" => of("HEAD").or_else(|| of("GET")),
        method => of(method),
    };
    endpoint.or_else(|| of("*")).ok_or_else(|| {
        let mut allow: Vec<&str> = resource.endpoints.iter().map(|(m, _)| &**m).collect();
        if allow.contains(&"GET") && !allow.contains(&"HEAD") {
            allow.push("HEAD");
        }
        Response::new(405).header("Allow", allow.join(", ")).text("method not allowed\n")
    })
}

fn in_memory(body: &Body) -> Option<&[u8]> {
    match body {
        Body::Empty => Some(&[]),
        Body::Static(bytes) => Some(bytes),
        Body::Owned(bytes) => Some(bytes),
        Body::Shared(bytes) => Some(bytes),
        Body::Reader { .. } => None,
    }
}
