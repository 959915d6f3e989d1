//! Handlers of different types behind one: the worker knows neither the handler's type nor its state's.

use super::accept::{AcceptKind, Pending};
use super::{Conn, Disconnect, Handle, Handler, Refuse};
use crate::Message;
use crate::conn::{Closed, ConnId};
use crate::http::{Request, Response};
use crate::hub::{SubscribeError, Subscribed};
use core::any::Any;
use core::time::Duration;

/// A connection's state. A box of `()` allocates nothing.
pub(crate) type AnyState = Box<dyn Any + Send>;

/// An [`Accept`](super::Accept) of unknown type.
pub(crate) enum ErasedAccept {
    Now { state: AnyState, protocol: Option<Box<str>>, response: Response },
    Later { timeout: Duration, start: Box<dyn FnOnce(Handle, ConnId) + Send> },
}

/// What can happen to an open connection beside a message, for one virtual call.
pub(crate) enum HandlerEvent<'a> {
    Open,
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    Drain,
    Timer(u32),
    Subscribed(&'a str, &'a Subscribed),
    NotSubscribed(&'a str, &'a SubscribeError),
    Dropped(u32),
    Close(&'a Closed),
}

impl HandlerEvent<'_> {
    /// The callback's name, for the log.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Ping(_) => "ping",
            Self::Pong(_) => "pong",
            Self::Drain => "drain",
            Self::Timer(_) => "timer",
            Self::Subscribed(..) => "subscribed",
            Self::NotSubscribed(..) => "not_subscribed",
            Self::Dropped(_) => "dropped",
            Self::Close(_) => "close",
        }
    }

    /// Whether it is a frame of the peer, which is handled with the others of its read.
    pub(crate) const fn is_frame(&self) -> bool {
        matches!(self, Self::Ping(_) | Self::Pong(_))
    }
}

pub(crate) trait ErasedHandler: Send + Sync {
    fn upgrade(&self, request: &Request<'_>) -> Result<ErasedAccept, Refuse>;
    /// Apart from the other events: packing it with them and unpacking it is a tenth of a small message's way.
    fn message(
        &self,
        conn: &mut Conn<'_>,
        state: &mut AnyState,
        message: Message<'_>,
    ) -> Result<(), Disconnect>;
    fn event(
        &self,
        conn: &mut Conn<'_>,
        state: &mut AnyState,
        event: HandlerEvent<'_>,
    ) -> Result<(), Disconnect>;
    /// Whether a state handed over from outside is this handler's.
    fn accepts_state(&self, state: &AnyState) -> bool;
}

impl<S: Send + 'static> From<super::Accept<S>> for ErasedAccept {
    fn from(accept: super::Accept<S>) -> Self {
        match accept.0 {
            AcceptKind::Now { state, protocol, response } => {
                Self::Now { state: Box::new(state), protocol, response }
            }
            AcceptKind::Later { timeout, start } => {
                Self::Later { timeout, start: Box::new(move |handle, id| start(Pending::new(handle, id))) }
            }
        }
    }
}

#[inline]
fn downcast_state<S: 'static>(state: &mut AnyState) -> &mut S {
    // Only a handler's own `upgrade`, or an adoption checked by `takes`, puts a state there.
    let Some(state) = state.downcast_mut() else {
        unreachable!("a state of another handler's");
    };
    state
}

impl<H: Handler> ErasedHandler for H {
    fn upgrade(&self, request: &Request<'_>) -> Result<ErasedAccept, Refuse> {
        Handler::upgrade(self, request).map(ErasedAccept::from)
    }

    #[inline]
    fn message(
        &self,
        conn: &mut Conn<'_>,
        state: &mut AnyState,
        message: Message<'_>,
    ) -> Result<(), Disconnect> {
        Handler::message(self, conn, downcast_state(state), message)
    }

    fn event(
        &self,
        conn: &mut Conn<'_>,
        state: &mut AnyState,
        event: HandlerEvent<'_>,
    ) -> Result<(), Disconnect> {
        let state = downcast_state(state);
        match event {
            HandlerEvent::Open => self.open(conn, state),
            HandlerEvent::Ping(payload) => self.ping(conn, state, payload),
            HandlerEvent::Pong(payload) => self.pong(conn, state, payload),
            HandlerEvent::Drain => self.drain(conn, state),
            HandlerEvent::Timer(timer) => self.timer(conn, state, timer),
            HandlerEvent::Subscribed(topic, how) => self.subscribed(conn, state, topic, how),
            HandlerEvent::NotSubscribed(topic, error) => self.not_subscribed(conn, state, topic, error),
            HandlerEvent::Dropped(messages) => self.dropped(conn, state, messages),
            HandlerEvent::Close(end) => {
                self.close(conn, state, end);
                Ok(())
            }
        }
    }

    fn accepts_state(&self, state: &AnyState) -> bool {
        state.is::<H::State>()
    }
}
