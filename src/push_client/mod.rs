//! Topics for Rust programs: subscribes, comes back without a gap, and publishes, over one WebSocket to a server that
//! speaks `campanile.v1.json` (`docs/reference/protocol.md`), such as [`push::Push`](crate::push::Push). What `campanile.js` is
//! for pages.
//!
//! [`PushClient::connect`] begins to connect and returns; [`PushClient::next`] waits for what happens, with a deadline;
//! [`PushClient::subscribe`] and [`PushClient::publish`] never wait, and may be called before there is a connection.
//! Below is a [`Client`], with all that its [`PushClientBuilder`](client::ClientBuilder) knows: TLS,
//! compression, proxies, headers for a token, when to come back.
//!
//! ```
//! use campanile::push::Push;
//! use campanile::push_client::{PushEvent, Publication, PushClient};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let route = Push::new().subscribe(["public/"]).publish(["public/"]);
//! # let server = campanile::Server::builder().listen("127.0.0.1:0").route("/push", route).build()?;
//! # let url = format!("ws://{}/push", server.local_addrs()[0]);
//! # let handle = server.handle();
//! # let running = server.spawn()?;
//! let push = PushClient::connect(&url)?; // such as wss://example.com/push
//! push.subscribe("public/room")?;
//! let receipt = push.publish(&Publication::text("public/room", "hello"))?;
//! assert_eq!(receipt.wait()?.receivers, 1);
//! for event in push.events(Duration::from_secs(10)) {
//!     match event {
//!         PushEvent::Subscribed(how) if how.lost => println!("away for too long: load the state anew"),
//!         PushEvent::Message(message) => {
//!             assert_eq!(message.data.as_str(), Some("hello"));
//!             break;
//!         }
//!         PushEvent::Refused { topic, error } => eprintln!("{topic}: {error}"),
//!         PushEvent::Error(error) => eprintln!("{error}"),
//!         _ => {}
//!     }
//! }
//! # handle.shutdown(Duration::from_millis(1));
//! # running.join()?;
//! # Ok(()) }
//! ```
//!
//! Pure, and tested without a socket: the messages (`push_protocol`) and what is done when (`machine.rs`). Around them one
//! thread for each client, which takes the connection's events and looks at the time.

mod builder;
mod convert;
mod driver;
mod error;
mod event;
mod machine;
mod outgoing;
mod publication;

#[cfg(test)]
mod model_tests;

pub use crate::push_protocol::ErrorCode;
pub use builder::{PushClientBuilder, PushClientLimits};
pub use error::{Error, PublishError, ServerError, SubscribeError};
pub use event::{Data, Hello, Message, Position, Published, PushEvent, Subscribed};
pub use publication::{Publication, Subscription};

use crate::client::{self, Client, InvalidClose, NoEvent};
use crate::conn::ReadyState;
use crate::hub::topic::is_pattern;
use crate::protocol::CloseCode;
use core::fmt;
use core::time::Duration;
use driver::Shared;
use machine::MAX_TIMEOUT;
use std::sync::{Arc, mpsc};
use std::time::Instant;

/// A handle on a client of topics: cheap to clone, to be used from any thread; an event goes to one of those who wait
/// for it. When the last handle goes, the connection is closed with 1001.
#[derive(Clone, Debug)]
pub struct PushClient(Arc<PushClientInner>);

struct PushClientInner(Arc<Shared>);

/// The answer to a publication, to be waited for or not.
#[derive(Debug)]
pub struct Receipt {
    answer: mpsc::Receiver<Result<Published, PublishError>>,
    deadline: Instant,
    limit: Duration,
    shared: Arc<Shared>,
}

impl PushClient {
    /// Begins to connect with the default settings, and returns at once.
    ///
    /// # Errors
    /// As [`client::ClientBuilder::connect`]; what goes wrong later is a [`PushEvent::Error`].
    pub fn connect(url: &str) -> Result<Self, client::Error> {
        Self::builder(Client::builder(url)).connect()
    }

    /// Begins to put a client together over connections that are made so. The subprotocol is offered by itself. Where
    /// nothing is said about coming back, it does so for ever, by [`Reconnect::default`](client::Reconnect) without
    /// 1009; `max_attempts(0)` has it stay away. What is sent while there is no connection waits here and not
    /// there: [`Offline`](client::Offline) means nothing.
    ///
    /// ```no_run
    /// use campanile::client::{Client, Reconnect};
    /// use campanile::push_client::{PushEvent, PushClient, Subscription};
    /// use std::time::Duration;
    ///
    /// let connections = Client::builder("wss://example.com/push")
    ///     .header("Authorization", "Bearer 7f3a")
    ///     .reconnect(Reconnect::default().max_delay(Duration::from_secs(10)));
    /// let push = PushClient::builder(connections).connect_with(|push, event| match event {
    ///     PushEvent::Message(message) => println!("{} {:?}", message.topic, message.data),
    ///     other => eprintln!("{other:?}"),
    /// })?;
    /// push.subscribe(Subscription::new("prices/eur").latest())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder(connections: client::ClientBuilder) -> PushClientBuilder {
        PushClientBuilder::new(connections)
    }

    /// Subscribes to a topic until [`PushClient::unsubscribe`], over all connections to come; to a pattern with
    /// [`Subscription::pattern`].
    /// [`PushEvent::Subscribed`] says that it has begun, and how; [`PushEvent::Refused`], that the server does not want it.
    ///
    /// Per topic there is no gap and nothing twice, over any number of cuts, until [`Subscribed::lost`] says otherwise.
    /// Where a pattern hears a topic too, what it brings while the topic's own subscription is still to begin may come
    /// again from the history.
    ///
    /// # Errors
    /// The name can't be a topic's or is a pattern, there is such a subscription, or there may be no more.
    pub fn subscribe(&self, subscription: impl Into<Subscription>) -> Result<(), SubscribeError> {
        let subscription = subscription.into();
        self.shared().with(|machine, is_over, cx| match is_over {
            true => Err(SubscribeError::Closed),
            false => machine.subscribe(subscription, cx),
        })
    }

    /// Ends the subscription to a topic; what waits to be taken is still there. False: there was none.
    pub fn unsubscribe(&self, topic: &str) -> bool {
        !is_pattern(topic) && self.shared().with(|machine, _, cx| machine.unsubscribe(topic, cx))
    }

    /// Ends the subscription to a pattern. False: there was none.
    pub fn unsubscribe_pattern(&self, pattern: &str) -> bool {
        is_pattern(pattern) && self.shared().with(|machine, _, cx| machine.unsubscribe(pattern, cx))
    }

    /// Publishes, now or when there is a connection. It waits until the subscriptions that were asked for before have
    /// begun, so they hear it too. After a cut it is sent again, and still published once, as long as the server
    /// remembers it ([`Publication::idempotency_key`]). The order of what is published to a topic is kept, except around a moment
    /// in which the server is too busy and asks for a later try.
    ///
    /// Nobody has to wait for the receipt.
    ///
    /// # Errors
    /// What is known at once: a name that can't be, JSON that is none, too much that waits, a client that was closed.
    pub fn publish(&self, publication: &Publication<'_>) -> Result<Receipt, PublishError> {
        let (tx, answer) = mpsc::sync_channel(1);
        let limit = publication.timeout.min(MAX_TIMEOUT);
        let deadline = Instant::now() + limit;
        self.publish_then(publication, move |result| drop(tx.send(result)))?;
        Ok(Receipt { answer, deadline, limit, shared: self.shared().clone() })
    }

    /// The same, and calls `done` with the answer, on the client's own thread: at the latest when the time is over
    /// ([`Publication::timeout`]) or the client has ended. Where the request turns out to be longer than the server
    /// takes, that may be known, and said, before this returns.
    ///
    /// # Errors
    /// As [`PushClient::publish`]; then `done` is not called.
    pub fn publish_then(
        &self,
        publication: &Publication<'_>,
        done: impl FnOnce(Result<Published, PublishError>) + Send + 'static,
    ) -> Result<(), PublishError> {
        self.shared().with(|machine, is_over, cx| match is_over {
            true => Err(PublishError::Closed),
            false => machine.publish(publication, Box::new(done), cx),
        })
    }

    /// Waits for the next event, at most so long.
    ///
    /// # Errors
    /// None came in time, or none will come any more.
    pub fn next(&self, timeout: Duration) -> Result<PushEvent, NoEvent> {
        self.next_before(Instant::now() + timeout.min(MAX_TIMEOUT))
    }

    /// Waits for the next event until this time.
    ///
    /// # Errors
    /// As [`PushClient::next`].
    pub fn next_before(&self, deadline: Instant) -> Result<PushEvent, NoEvent> {
        self.shared().next(Some(deadline))
    }

    /// The next event, if it is there.
    ///
    /// # Errors
    /// As [`PushClient::next`].
    pub fn try_next(&self) -> Result<PushEvent, NoEvent> {
        self.shared().next(None)
    }

    /// The events one after the other, each waited for at most so long: the iterator ends when one does not come in
    /// time, and after the last.
    pub fn events(&self, timeout: Duration) -> impl Iterator<Item = PushEvent> {
        std::iter::from_fn(move || self.next(timeout).ok())
    }

    /// Ends it: what waits is written, the closing handshake begins, and there will be no further try. Publications
    /// without an answer end with [`PublishError::Closed`]. Calling it again does nothing.
    ///
    /// # Errors
    /// The code or the reason can't be in a close frame; nothing was done.
    pub fn close(&self, code: impl Into<CloseCode>, reason: &str) -> Result<(), InvalidClose> {
        self.shared().close(code.into(), reason)
    }

    /// Ends the connection at once, as if the network had broken it, to make another: see [`Client::reset`].
    pub fn reset(&self) {
        self.shared().client.reset();
    }

    /// Where it is in its life; open when the server has said hello, and connecting between two connections.
    pub fn ready_state(&self) -> ReadyState {
        self.shared().ready_state()
    }

    /// What the server said first on this connection; `None` where there is none.
    pub fn hello(&self) -> Option<Hello> {
        self.shared().with(|machine, _, _| machine.hello().cloned())
    }

    /// Bytes of requests that have not left for the kernel: see [`Client::buffered_amount`].
    pub fn buffered_amount(&self) -> usize {
        self.shared().client.buffered_amount()
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }
}

impl Receipt {
    /// Waits for the server's answer, which comes, or fails to, within [`Publication::timeout`]. In a callback of the
    /// client's nothing would ever come: there it is an error.
    ///
    /// # Errors
    /// The server refused it, no answer came in time, or the client was closed.
    pub fn wait(self) -> Result<Published, PublishError> {
        if self.shared.is_current() {
            return self.answer.try_recv().unwrap_or(Err(PublishError::OwnThread));
        }
        // By its own clock: a callback may hold the client's thread for longer.
        match self.answer.recv_timeout(self.deadline.saturating_duration_since(Instant::now())) {
            Ok(result) => result,
            Err(mpsc::RecvTimeoutError::Timeout) => Err(PublishError::Timeout { limit: self.limit }),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(PublishError::Closed),
        }
    }
}

impl Drop for PushClientInner {
    fn drop(&mut self) {
        let _ = self.0.close(CloseCode::GOING_AWAY, ""); // the code and the reason fit
    }
}

impl fmt::Debug for PushClientInner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
