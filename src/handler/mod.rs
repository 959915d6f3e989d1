//! What an application writes: a [`Handler`] for each route, and what it is given to work with.

mod accept;
mod answer;
mod command;
mod conn;
mod disconnect;
mod erased;
mod error;
mod handle;
mod on_message;
mod origin;
mod publish;
mod query;
mod rates;
mod replay;
mod route;
mod timers;

pub use accept::{Accept, Pending, Refuse};
pub use answer::Answer;
pub(crate) use answer::mark_worker;
pub(crate) use command::{Command, Decision, NewConnection, ShutdownStep};
pub use conn::Conn;
pub(crate) use conn::{ConnParts, WorkerContext, push_batch, transformed};
pub use disconnect::Disconnect;
pub(crate) use disconnect::Parts as DisconnectParts;
pub(crate) use erased::{AnyState, ErasedAccept, ErasedHandler, HandlerEvent};
#[cfg(any(feature = "push", feature = "api"))]
pub(crate) use error::in_millis;
pub use error::{BatchError, HandleError, Unhealthy};
pub use handle::Handle;
pub(crate) use handle::{ServerShared, WorkerShared};
pub use on_message::{OnMessage, on_message};
#[cfg(feature = "api")]
pub(crate) use origin::is_from_this_host;
pub use origin::{InvalidOrigin, OriginReason, OriginRefused, Origins};
pub use query::ConnInfo;
pub(crate) use rates::{RateState, Rates};
pub(crate) use replay::{REPLAY_WINDOW, ReplayedMessage};
pub(crate) use route::OutOfRange;
pub use route::Route;
pub(crate) use timers::Timers;
pub use timers::TooManyTimers;

use crate::Message;
use crate::conn::Closed;
use crate::http::Request;
use crate::hub::{SubscribeError, Subscribed};

/// What an application does with the connections of one route.
///
/// All methods run on the worker that owns the connection, one at a time for each connection. The worker's other
/// connections wait meanwhile: hand long work to a thread of the program and answer through the [`Handle`]. A panic ends
/// that connection with 1011, is logged and counted; everything else goes on. An error ends the connection too, with the
/// code of the [`Disconnect`] that `?` makes of it.
///
/// ```
/// use campanile::{Accept, Conn, Disconnect, Handler, Message, Refuse, Request};
///
/// struct Chat;
///
/// impl Handler for Chat {
///     type State = String; // the user's name, one for each connection
///
///     fn upgrade(&self, request: &Request<'_>) -> Result<Accept<String>, Refuse> {
///         match request.query_value("name") {
///             Some(name) => Ok(Accept::new(name.into_owned())),
///             None => Err(Refuse::new(401).text("name: missing, expected /chat?name=…\n")),
///         }
///     }
///
///     fn open(&self, conn: &mut Conn<'_>, _: &mut String) -> Result<(), Disconnect> {
///         conn.subscribe("room")?;
///         Ok(())
///     }
///
///     fn message(&self, conn: &mut Conn<'_>, name: &mut String, message: Message<'_>) -> Result<(), Disconnect> {
///         let text = message.as_text().ok_or_else(|| Disconnect::new(1003, "text only"))?;
///         conn.publish("room", format!("{name}: {text}"))?;
///         Ok(())
///     }
/// }
/// ```
#[allow(unused_variables)]
pub trait Handler: Send + Sync + 'static {
    /// What the application keeps for each connection, lent to every callback. `()` costs nothing.
    type State: Send + 'static;

    /// Decides about a request for a WebSocket, before the 101: path, parameters, query, headers, cookies, origin, offered
    /// subprotocols and peer address are in `request`. The route's [`Origins`] have been checked. By default every request
    /// is accepted; that compiles only where the state is `()`.
    ///
    /// # Errors
    /// A [`Refuse`] is sent as a plain HTTP response, with any status, headers and body.
    fn upgrade(&self, request: &Request<'_>) -> Result<Accept<Self::State>, Refuse> {
        const {
            assert!(
                size_of::<Self::State>() == 0,
                "implement Handler::upgrade: it has a default only for `type State = ()`"
            );
        }
        accept::without_state()
    }

    /// The connection is open: the 101 is on its way, and what is sent now follows it.
    fn open(&self, conn: &mut Conn<'_>, state: &mut Self::State) -> Result<(), Disconnect> {
        Ok(())
    }

    /// A whole message was received. It borrows from the receive buffer; to keep it, copy its bytes.
    fn message(
        &self,
        conn: &mut Conn<'_>,
        state: &mut Self::State,
        message: Message<'_>,
    ) -> Result<(), Disconnect>;

    /// A ping was received and answered (RFC 6455 section 5.5.2).
    fn ping(&self, conn: &mut Conn<'_>, state: &mut Self::State, payload: &[u8]) -> Result<(), Disconnect> {
        Ok(())
    }

    /// A pong was received, asked for or not (RFC 6455 section 5.5.3).
    fn pong(&self, conn: &mut Conn<'_>, state: &mut Self::State, payload: &[u8]) -> Result<(), Disconnect> {
        Ok(())
    }

    /// The backlog is empty: the kernel has taken everything that was queued.
    fn drain(&self, conn: &mut Conn<'_>, state: &mut Self::State) -> Result<(), Disconnect> {
        Ok(())
    }

    /// A timer of the connection is due: the number that [`Conn::set_timer`] or [`Conn::set_interval`] was given.
    fn timer(&self, conn: &mut Conn<'_>, state: &mut Self::State, timer: u32) -> Result<(), Disconnect> {
        Ok(())
    }

    /// A subscription requested with [`Conn::subscribe_from`] begins: the messages that its history has for it follow this
    /// call, and then new ones.
    fn subscribed(
        &self,
        conn: &mut Conn<'_>,
        state: &mut Self::State,
        topic: &str,
        how: &Subscribed,
    ) -> Result<(), Disconnect> {
        Ok(())
    }

    /// A subscription requested with [`Conn::subscribe_from`] does not begin: a handle unsubscribed the connection first
    /// ([`SubscribeError::Cancelled`]), or it reached its limit of subscriptions meanwhile
    /// ([`SubscribeError::TooMany`]). Each such request leads to one call of this or of [`Handler::subscribed`], unless
    /// the handler itself unsubscribes first or the connection ends.
    fn not_subscribed(
        &self,
        conn: &mut Conn<'_>,
        state: &mut Self::State,
        topic: &str,
        error: &SubscribeError,
    ) -> Result<(), Disconnect> {
        Ok(())
    }

    /// The policy for slow consumers dropped this many messages for the connection since the last call.
    fn dropped(&self, conn: &mut Conn<'_>, state: &mut Self::State, messages: u32) -> Result<(), Disconnect> {
        Ok(())
    }

    /// The connection has ended. Called exactly once for each that was opened, whatever ended it. Nothing can be sent to it
    /// any more; it may still publish, and its subscriptions end after this.
    fn close(&self, conn: &mut Conn<'_>, state: &mut Self::State, end: &Closed) {}
}
