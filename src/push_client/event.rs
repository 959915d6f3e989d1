//! What a client hears of topics. Plain values.

use super::error::{Error, ServerError};
use crate::client::Close;
use core::time::Duration;
use std::sync::Arc;

/// A place in a topic, to go on from: [`Subscription::since`](super::Subscription::since).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Position {
    /// Names the topic's life. Opaque: another one has other offsets.
    pub epoch: Arc<str>,
    /// Counts the topic's messages, from 1.
    pub offset: u64,
}

impl Position {
    /// A place that was kept somewhere.
    pub fn new(epoch: &str, offset: u64) -> Self {
        Self { epoch: epoch.into(), offset }
    }
}

/// What the server said first on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hello {
    /// The connection's id, as the server's log and API show it.
    pub connection: String,
    /// The server's clock, since 1970.
    pub time: Duration,
    /// After so long a silence the client asks whether the server is still there; zero: never.
    pub heartbeat: Duration,
    /// Bytes that a request may have.
    pub max_message_size: usize,
    /// Topics and patterns that the connection may listen to.
    pub max_subscriptions: usize,
    /// What the server would have instead of [`Reconnect::initial_delay`](crate::client::Reconnect::initial_delay), if anything.
    pub retry: Option<Duration>,
}

/// The payload of a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)] // what the protocol can carry
pub enum Data {
    /// JSON, as it was published.
    Json(String),
    /// A text that was not published as JSON.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
}

impl Data {
    /// The JSON or the text; `None` for bytes.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Json(text) | Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// The payload, whatever its kind.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Json(text) | Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }
}

/// A message of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// The topic itself, also where a pattern was subscribed to. Messages that came as one share it.
    pub topic: Arc<str>,
    /// Its place in the topic, from 1 in each epoch.
    pub offset: u64,
    /// The topic's life; `None` where a pattern alone heard it, which has no place to come back to.
    pub epoch: Option<Arc<str>>,
    /// Whether it comes from what the topic kept.
    pub replayed: bool,
    /// What was published.
    pub data: Data,
}

impl Message {
    /// Where to go on from when this message has been dealt with.
    pub fn position(&self) -> Option<Position> {
        let epoch = self.epoch.clone()?;
        Some(Position { epoch, offset: self.offset })
    }
}

/// How a subscription began on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Subscribed {
    /// The topic or pattern.
    pub topic: String,
    /// The place behind the last message before it went live; `None` for a pattern.
    pub position: Option<Position>,
    /// As the server says it: a place to go on from was asked for, and everything behind it follows.
    pub recovered: bool,
    /// So many of the next messages of the topic are from what it kept.
    pub replayed: u64,
    /// There was something before, on an earlier connection or by [`Subscription::since`](super::Subscription::since),
    /// and something behind it may be missing: load your state anew.
    pub lost: bool,
}

/// A published message's place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// `None` where nobody listens and nothing is kept: then there was nothing to do.
    pub position: Option<Position>,
    /// Connections that it was queued for.
    pub receivers: u64,
    /// Its `idempotency_key` was there before: this is the place of the first time.
    pub repeated: bool,
}

/// What happens to a client of topics.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PushEvent {
    /// There is a connection, and the subscriptions have been asked for.
    Open(Hello),
    /// A subscription has begun on this connection: before its first message, and again after each cut.
    Subscribed(Subscribed),
    /// A message.
    Message(Message),
    /// The server refused a subscription, which has ended.
    Refused {
        /// What was subscribed to.
        topic: String,
        /// Why not.
        error: ServerError,
    },
    /// This client read too slowly, and the server gave up so many messages of its topics.
    Lagged {
        /// How many.
        messages: u64,
    },
    /// Something went wrong apart from any request.
    Error(Error),
    /// A connection has ended. Where it does not come back, this is the last event.
    Close(Close),
    /// The client will try to connect again.
    Reconnecting {
        /// Which try in a row this is, from 1.
        attempt: u32,
        /// How long it waits before.
        delay: Duration,
    },
}

impl PushEvent {
    /// Bytes that it counts for while it waits to be taken: all that a server can make long.
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Message(message) => message.topic.len() + message.data.as_bytes().len(),
                Self::Open(hello) => hello.connection.len(),
                Self::Subscribed(how) => how.topic.len() + how.position.as_ref().map_or(0, |p| p.epoch.len()),
                Self::Refused { topic, error } => topic.len() + error.weight(),
                Self::Error(Error::Server(error)) => error.weight(),
                Self::Error(Error::Unreadable { why }) => why.len(),
                _ => 0,
            }
    }
}
