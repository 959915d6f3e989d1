//! From nothing to a connection, and from its end to the next one.

use super::{Command, Connecting, Driver, Prepared, Slot, Stage};
use crate::client::addresses::{AddressHistory, Addresses};
use crate::client::event::{ClientEvent, Close};
use crate::client::link::Inner;
use crate::client::machine::{Machine, SocketContext};
use crate::client::opening::{Extras, HandshakeError};
use crate::client::prepare::{Attempt, Job, Target};
use crate::client::proxy::Proxy;
use crate::client::reconnect::{End, Reconnect};
use crate::client::settings::Settings;
use crate::client::socket::{Setup, Socket};
use crate::client::{Error, Url};
use crate::conn::ReadyState;
use crate::protocol::CloseCode;
use mio::Token;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Headers that show rights, or belong to one host: not for another.
const PRIVATE: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "host"];

/// A time that a deadline can hold everywhere.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

impl Driver {
    /// Begins a try, with what the builder was given.
    pub(super) fn begin(&mut self, key: usize) {
        let slot = &mut self.slots[key];
        slot.followed = 0;
        slot.failure = None;
        let (url, extras) = (slot.url.clone(), slot.extras.clone());
        let mut hook = None;
        if slot.has_hook {
            let Some(taken) = slot.hook.take() else {
                return self.over(key, Some(Error::Hook("it is still busy with an earlier try".into())));
            };
            let attempt = Attempt {
                number: slot.failures,
                url: url.to_string(),
                headers: extras.headers.clone(),
                subprotocols: extras.subprotocols.clone(),
                last_error: slot.link.lock().last_error().cloned(),
                last_close: slot.last_close.clone(),
            };
            hook = Some((taken, attempt));
        }
        self.prepare(key, url, extras, hook);
    }

    fn prepare(&mut self, key: usize, url: Url, extras: Extras, hook: Option<(super::Hook, Attempt)>) {
        self.counter += 1;
        let attempt = self.counter;
        let slot = &mut self.slots[key];
        slot.attempt = attempt;
        let deadline = self.now + slot.settings.limits.connect_timeout.min(FAR);
        slot.stage = Stage::Preparing { deadline };
        let proxy = slot.settings.proxy.clone();
        let to = proxy.as_ref().map_or(&url, Proxy::url);
        if let (Some(ip), None) = (to.ip(), &hook) {
            let addrs = vec![SocketAddr::new(ip, to.port())];
            return self.connect(key, Target { url, extras, addrs }, deadline);
        }
        let (client, mailbox) = (slot.client, self.mailbox.clone());
        let done = Box::new(move |result, hook| {
            let prepared = Prepared { key, client, attempt, result, hook };
            let _ = mailbox.send_unbounded(Command::Prepared(Box::new(prepared))); // or the thread has ended
        });
        self.preparers.prepare(Job { hook, url, extras, proxy, done });
    }

    pub(super) fn prepared(&mut self, prepared: Prepared) {
        let Prepared { key, client, attempt, result, hook } = prepared;
        let Some(slot) = self.slots.get_mut(key).filter(|slot| slot.client == client) else { return };
        if hook.is_some() {
            slot.hook = hook;
        }
        // Too late for a try that was given up meanwhile.
        if let Stage::Preparing { deadline } = slot.stage
            && slot.attempt == attempt
        {
            match result {
                Ok(target) => self.connect(key, target, deadline),
                Err(error) => self.over(key, Some(error)),
            }
            self.settle(key);
        }
    }

    /// Tries the addresses one after the other.
    fn connect(&mut self, key: usize, target: Target, deadline: Instant) {
        let Target { url, extras, addrs } = target;
        self.slots[key].link.lock().url = url.clone();
        let Some(addresses) = Addresses::new(addrs, self.slots[key].history, deadline) else { return };
        let connecting = Connecting { url, extras, addresses, until: deadline };
        self.slots[key].stage = Stage::Connecting(Box::new(connecting));
        self.try_addr(key);
    }

    fn try_addr(&mut self, key: usize) {
        let slot = &mut self.slots[key];
        let Stage::Connecting(connecting) = &mut slot.stage else { return };
        connecting.until = connecting.addresses.until(self.now);
        slot.generation = slot.generation.wrapping_add(1);
        let token = Token(key | (slot.generation as usize) << 32);
        let Settings { limits, delay, from, proxy, .. } = &slot.settings;
        let Connecting { url, extras, addresses, .. } = &**connecting;
        let setup = Setup {
            url,
            extras,
            proxy: proxy.as_ref(),
            #[cfg(feature = "tls")]
            trust: slot.settings.trust.as_ref(),
            limits,
            from: *from,
            no_delay: !*delay,
        };
        let mut inner = slot.link.lock();
        let Inner { outbox, keys, .. } = &mut *inner;
        let mut cx =
            SocketContext { now: self.now, outbox, keys, pool: &mut self.pool, packer: &mut self.packer };
        let made = Socket::connect(addresses.current(), &setup, &mut cx).and_then(|socket| {
            let registered = socket.stream().register(self.poll.registry(), token);
            registered.map(|()| socket).map_err(|e| Error::System(e.kind()))
        });
        match made {
            Ok(socket) => inner.socket = Some(socket),
            Err(error) => {
                drop(inner);
                match error {
                    Error::Connect { kind, .. } => self.next_addr(key, kind),
                    error => self.over(key, Some(error)),
                }
            }
        }
    }

    /// This address did not do; the next one.
    pub(super) fn next_addr(&mut self, key: usize, kind: ErrorKind) {
        let slot = &mut self.slots[key];
        slot.link.lock().socket = None;
        let Stage::Connecting(connecting) = &mut slot.stage else { return };
        let addr = connecting.addresses.current();
        if connecting.addresses.advance(kind == ErrorKind::TimedOut) {
            self.try_addr(key);
        } else {
            self.over(key, Some(Error::Connect { addr, kind }));
        }
    }

    /// There is a connection: the request goes out.
    pub(super) fn connected(&mut self, key: usize) {
        let slot = &mut self.slots[key];
        let Stage::Connecting(connecting) = &slot.stage else { return };
        let (url, extras) = (connecting.url.clone(), connecting.extras.clone());
        let addr = connecting.addresses.current();
        slot.stage = Stage::Live { url, extras, addr };
        self.flush(key);
    }

    /// The handshake failed: perhaps the server is elsewhere.
    pub(super) fn refused(&mut self, key: usize, error: Error) {
        let slot = &mut self.slots[key];
        let Error::Handshake(HandshakeError::Refused(response)) = &error else {
            return self.over(key, Some(error));
        };
        let (Some(location), Stage::Live { url, extras, .. }) = (response.location(), &slot.stage) else {
            return self.over(key, Some(error));
        };
        if slot.followed >= slot.settings.redirects {
            let (status, location) = (response.status, location.to_owned());
            let error = Error::Redirect { status, location, followed: slot.followed };
            return self.over(key, Some(error));
        }
        let to = match url.join(location) {
            Ok(to) => to,
            Err(e) => return self.over(key, Some(Error::Url(e))),
        };
        let mut extras = extras.clone();
        if !to.is_same_origin(url) {
            extras.headers.retain(|(name, _)| !PRIVATE.iter().any(|p| name.eq_ignore_ascii_case(p)));
        }
        slot.followed += 1;
        slot.link.lock().socket = None;
        self.prepare(key, to, extras, None);
    }

    /// A connection or a try has ended, with this error unless it was told already: says so, and decides what next.
    pub(super) fn over(&mut self, key: usize, error: Option<Error>) {
        let Self { slots, pool, packer, now, .. } = self;
        let slot = &mut slots[key];
        if let Stage::Done = slot.stage {
            return;
        }
        let link = slot.link.clone();
        let mut inner = link.lock();
        let machine = inner.machine();
        let had_opened = machine.is_some_and(Machine::has_opened);
        if let Stage::Live { addr, .. } = slot.stage {
            let history = &mut slot.history;
            if had_opened {
                *history = AddressHistory { served: Some(addr), failed: None };
            } else {
                *history = AddressHistory {
                    served: history.served.filter(|served| *served != addr),
                    failed: Some(addr),
                };
            }
        }
        let lasted = machine.map_or(Duration::ZERO, |m| m.opened_for(*now));
        let (code, reason, was_clean) = machine.map_or((CloseCode::ABNORMAL, "", false), Machine::ending);
        let (code, reason) = (code, reason.to_owned());
        if let Some(socket) = inner.socket.take() {
            socket.release(pool);
        }
        if let Some(error) = &error {
            inner.push(ClientEvent::Error(error.clone()));
        }
        let end = match slot.failure.take().or(error) {
            Some(error) => error.end(),
            None if had_opened => End::Closed { code, reason: &reason },
            None => End::Failed,
        };
        let fraction = inner.keys.fraction();
        let first = inner.initial_delay;
        let next = next_attempt(slot, inner.is_closing, first, had_opened.then_some(lasted), &end, fraction);
        let keeps_messages =
            next.is_some() && slot.settings.reconnect.as_ref().is_some_and(Reconnect::keeps_messages);
        let mut unsent = inner.outbox.end_connection(keeps_messages);
        let compresses = slot.extras.deflate.is_on();
        if keeps_messages && compresses {
            let most = inner.max_backlog;
            unsent += inner.outbox.unpack(packer, most);
        }
        if had_opened || next.is_none() {
            let will_reconnect = next.is_some();
            let close = Close { code, reason, was_clean, unsent, will_reconnect };
            slot.last_close = Some(close.clone());
            inner.push(ClientEvent::Close(close));
        }
        match next {
            Some((attempt, delay)) => {
                slot.failures = attempt;
                slot.stage = Stage::Waiting { until: *now + delay.min(FAR) };
                inner.state = ReadyState::Connecting;
                inner.agreed = Default::default();
                inner.push(ClientEvent::Reconnecting { attempt, delay });
            }
            None => {
                slot.stage = Stage::Done;
                inner.end();
            }
        }
        drop(inner);
        link.notify();
    }
}

fn next_attempt(
    slot: &mut Slot,
    is_closing: bool,
    first: Option<Duration>,
    lasted: Option<Duration>,
    end: &End<'_>,
    fraction: f64,
) -> Option<(u32, Duration)> {
    let policy = slot.settings.reconnect.as_ref().filter(|_| !is_closing)?;
    if let Some(lasted) = lasted {
        slot.backoff.lasted(lasted, policy);
    }
    match first {
        Some(first) => slot.backoff.next(&policy.beginning_at(first), end, fraction),
        None => slot.backoff.next(policy, end, fraction),
    }
}

#[cfg(test)]
#[path = "attempts_tests.rs"]
mod tests;
