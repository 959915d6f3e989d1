//! What an application writes: a [`Handler`] for each route, and what it is given to work with.

mod accept;
mod answer;
mod command;
mod conn;
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

pub use accept::{Accept, Pending, Refuse};
pub use answer::Answer;
pub(crate) use answer::mark_worker;
pub(crate) use command::{Command, Decision, NewConnection, ShutdownStep};
pub use conn::Conn;
pub(crate) use conn::{ConnParts, WorkerContext, push_batch, transformed};
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
pub(crate) use replay::{REPLAY_WINDOW, Replay};
pub(crate) use route::OutOfRange;
pub use route::Route;

use crate::Message;
use crate::conn::Closed;
use crate::http::Request;
use crate::hub::{SubscribeError, Subscribed};

/// What an application does with the connections of one route.
///
/// All methods run on the worker that owns the connection, never two at once for one connection, and the worker's
/// other connections wait for them: hand long work to a thread of your own and answer through the [`Handle`]. A panic
/// in any of them ends that connection with 1011 and is counted; everything else goes on.
///
/// ```
/// use campanile::{Accept, Conn, Handler, Message, Refuse, Request};
///
/// struct Chat;
///
/// impl Handler for Chat {
///     type State = String; // who it is, one for each connection
///
///     fn upgrade(&self, request: &Request<'_>) -> Result<Accept<String>, Refuse> {
///         match request.query_value("name") {
///             Some(name) => Ok(Accept::new(name.into_owned())),
///             None => Err(Refuse::new(401).text("say who you are: /chat?name=…\n")),
///         }
///     }
///
///     fn open(&self, conn: &mut Conn<'_, String>) {
///         conn.subscribe("room").expect("a short name and one subscription");
///     }
///
///     fn message(&self, conn: &mut Conn<'_, String>, message: Message<'_>) {
///         conn.publish_all("room", message);
///     }
/// }
/// ```
#[allow(unused_variables)]
pub trait Handler: Send + Sync + 'static {
    /// What the application keeps for each connection. `()` costs nothing.
    type State: Send + 'static;

    /// A client asks for a WebSocket. Decides before the 101: path, parameters, query, headers, cookies, origin,
    /// offered subprotocols and peer address are in `request`.
    ///
    /// # Errors
    /// A [`Refuse`] is sent as a plain HTTP response, with any status, headers and body.
    fn upgrade(&self, request: &Request<'_>) -> Result<Accept<Self::State>, Refuse>;

    /// The connection is open: the 101 is on its way, and what is sent now follows it.
    fn open(&self, conn: &mut Conn<'_, Self::State>) {}

    /// A whole message has come. It borrows from the receive buffer; to keep it, copy its bytes.
    fn message(&self, conn: &mut Conn<'_, Self::State>, message: Message<'_>);

    /// A ping has come and was answered (RFC 6455 section 5.5.2).
    fn ping(&self, conn: &mut Conn<'_, Self::State>, payload: &[u8]) {}

    /// A pong has come, asked for or not (RFC 6455 section 5.5.3).
    fn pong(&self, conn: &mut Conn<'_, Self::State>, payload: &[u8]) {}

    /// The backlog has gone: everything that was queued is with the kernel.
    fn drain(&self, conn: &mut Conn<'_, Self::State>) {}

    /// A subscription that was asked for with [`Conn::subscribe_from`] begins: what was kept for it follows this call,
    /// and then what comes.
    fn subscribed(&self, conn: &mut Conn<'_, Self::State>, topic: &str, how: &Subscribed) {}

    /// A subscription that was asked for with [`Conn::subscribe_from`] does not begin: the connection was unsubscribed by
    /// a handle first ([`SubscribeError::Cancelled`]), or has got as many other subscriptions as allowed meanwhile
    /// ([`SubscribeError::TooMany`]). Each such request leads to one call of this or of [`Handler::subscribed`], unless
    /// the handler itself unsubscribes first or the connection ends.
    fn not_subscribed(&self, conn: &mut Conn<'_, Self::State>, topic: &str, error: &SubscribeError) {}

    /// So many messages for this connection were given up since the last call, by the policy for slow consumers.
    fn dropped(&self, conn: &mut Conn<'_, Self::State>, messages: u32) {}

    /// The connection has ended, for whatever reason. Called exactly once for each that was opened. Nothing can be
    /// sent to it any more; it may still publish, and its subscriptions end after this.
    fn close(&self, conn: &mut Conn<'_, Self::State>, end: &Closed) {}
}
