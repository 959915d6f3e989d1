//! campanile: a WebSocket server for pushing to very many clients, on epoll workers, without an async runtime.
//!
//! A program embeds it with one call. It runs on threads of its own, and any thread of the program publishes through a
//! [`Handle`], which is cheap to clone and waits for no socket.
//!
//! ```no_run
//! use campanile::{Conn, Disconnect, Handler, Message, Server};
//!
//! struct Bell;
//!
//! impl Handler for Bell {
//!     type State = ();
//!
//!     fn open(&self, conn: &mut Conn<'_>, _: &mut ()) -> Result<(), Disconnect> {
//!         conn.subscribe("town")?;
//!         Ok(())
//!     }
//!
//!     fn message(&self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) -> Result<(), Disconnect> {
//!         conn.publish("town", message)?;
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::builder().listen("127.0.0.1:9001").route("/bell", Bell).build()?;
//! let push = server.handle();
//! std::thread::spawn(move || push.publish("town", "the bell rings"));
//! server.run()?;
//! # Ok(()) }
//! ```
//!
//! # What is where
//!
//! | | |
//! | --- | --- |
//! | put a server together, start it | [`Server`], [`Builder`], [`Running`], [`ListenAddr`], [`ListenOptions`] |
//! | what to do with connections | [`Handler`]: `upgrade` decides with [`Accept`], [`Refuse`] or later with [`Pending`] |
//! | in a callback | [`Conn`] and the borrowed [`Message`]; a [`Disconnect`] or any error ends the connection; [`Closed`] says how it ended |
//! | settings of a route | [`Route`]: [`Limits`], [`SlowConsumer`], [`Origins`] |
//! | from any other thread | [`Handle`], with [`Answer`], [`ConnId`], [`ConnInfo`], [`Stats`] |
//! | topics, their history, coming back | [`TopicSettings`], [`Publish`], [`Published`]; [`Conn::subscribe_from`] with [`Start`] and [`Position`]; [`Envelope`], which tells clients their position |
//! | compression | [`Route::deflate`] with `deflate::Deflate`; [`Message::verbatim`] |
//! | TLS | `Tls`, `Certificate`, `ClientAuth`, and in a handler [`TlsInfo`] |
//! | a client | `client::Client`, `client::Reconnect`, `client::Trust` |
//! | plain HTTP on the same port | [`Builder::get`], [`endpoint`], static files in [`endpoint::static_files`]; answers that come later: [`Response::later`] |
//! | publishing over HTTP | `api::Api` |
//! | browsers: topics over JSON | `push::Push` |
//! | the same for programs | `push_client::PushClient` |
//! | a log that holds up no worker | [`log::Writer`] |
//!
//! Below lie the layers, each of which knows only those before it: [`protocol`] (RFC 6455 as pure functions and values)
//! and [`http`] (HTTP/1.1 heads, routes and responses) are public, for programs that answer handshakes themselves and
//! for clients; sockets, the connection as a machine, the hub of topics and the event loop are not.
//!
//! # Threads
//!
//! Each of [`Builder::workers`] event loops has its own thread, its own poll and its own connections. A connection stays
//! with its worker for life, and all callbacks of a connection run there, one at a time, while the worker's other
//! connections wait. So a callback must not block: hand long work to a thread of the program, with [`Conn::id`] and a
//! [`Handle`], or decide about an upgrade with [`Accept::later`]. A handler is shared by all workers (`Sync`); its state
//! for each connection is not ([`Handler::State`] is `Send` only). What a [`Handle`] asks of the workers is an [`Answer`]: a
//! thread of the program waits for it, an async function awaits it, and a callback, which must not wait, gives it a closure.
//!
//! # What is promised
//!
//! * Messages of one topic reach all its subscribers in one and the same order, regardless of the publisher. What one thread
//!   or one handler publishes to a topic keeps its order.
//! * Messages that one thread or one handler sends to one connection keep their order.
//! * An id is never reused: a command for a connection that has ended has no effect.
//! * [`Handler::close`] is called exactly once for every connection that was opened, and says who ended it and what was
//!   lost.
//! * A message is dropped only by the [`SlowConsumer`] policy of its route, whole, counted and told
//!   ([`Handler::dropped`]); or with its connection ([`Closed::unsent`]); or, between workers, when a mailbox is full,
//!   which [`Stats::missed`] counts.
//! * A panic or an error in a callback ends that connection with 1011 and nothing else. A worker that ends for another reason, which
//!   is a fault of this crate, ends the whole server: [`Server::run`] returns a [`RunError`].
//!
//! Not promised: any order between a message sent to a connection and one published to a topic, or between two topics,
//! unless there is one worker; and that anything arrives, since TCP does not tell. A client that has to miss nothing notes
//! its position and recovers from it ([`Conn::subscribe_from`]); the history for that is memory of this process.
//!
//! # Errors
//!
//! Each boundary has its own: [`BuildError`] before the server runs, [`RunError`] where it ends by itself, [`HandleError`]
//! and [`BatchError`] from other threads, [`Refused`] (with the message in it) for a send, [`SubscribeError`], [`InvalidTopic`],
//! [`InvalidPattern`], [`InvalidOrigin`], [`InvalidAddr`]. What a peer does
//! wrong is no error of the program's: it is answered on the wire, with a status ([`http::HttpError`]) before the
//! upgrade and a close code ([`protocol::ProtocolError::close_code`]) after it, and reported as a [`Cause`].
//!
//! # RFC 6455 in this crate
//!
//! | section | |
//! | --- | --- |
//! | 1.3, 4.1 the key and its answer | [`protocol::handshake`] |
//! | 4.2 the server's opening handshake | [`Handler::upgrade`], [`Accept`], [`Refuse`]; every fault in [`http::HttpError`] |
//! | 5.2 base framing | [`protocol::header`] |
//! | 5.3 masking | [`protocol::mask`] |
//! | 5.4 fragmentation | [`protocol::Decoder`], [`Limits::max_fragments`] |
//! | 5.5 control frames | [`Conn::ping`], [`Handler::ping`], [`Handler::pong`], [`Limits::ping_interval`] |
//! | 6 sending and receiving | [`Conn::send`], [`Handler::message`] |
//! | 7 closing, its codes | [`Conn::close`], [`protocol::close`], [`CloseCode`], [`Closed`], [`Limits::close_timeout`] |
//! | 8.1 UTF-8 | [`protocol::utf8`] |
//! | 10.2 origins | [`Origins`] |
//! | 10.4 limits | [`Limits`], [`http`], [`HttpLimits`] |
//!
//! Of extensions (section 9) there is one, permessage-deflate (RFC 7692), where a [`Route`] or a client asks for it.
//!
//! # Features
//!
//! The default features are what a program needs that embeds the server: `api`, `deflate`, `push` and `server`. They build
//! without a C compiler.
//!
//! | feature | default | adds |
//! | --- | --- | --- |
//! | `server` | yes | the server: [`Server`], [`Handler`], [`Handle`], topics, plain HTTP |
//! | `push` | yes | [`push`], the protocol for browsers; implies `server`; serde and serde_json |
//! | `api` | yes | [`api`], publishing over HTTP; implies `server`; serde and serde_json |
//! | `deflate` | yes | permessage-deflate (RFC 7692) in [`deflate`]; zlib-rs |
//! | `bytes` | no | messages from `bytes::Bytes` |
//! | `client` | no | [`client`], for programs that connect, and with `push` [`push_client`]; getrandom |
//! | `tls` | no | `https` and `wss`, in listeners and in the client; rustls and aws-lc-rs, which needs a C compiler |
//! | `cli` | no | the `campanile` binary and what only it needs |
//!
//! A program that only connects says `default-features = false, features = ["client"]` and compiles no server.

#![warn(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]
// The layers below the server are shared with the client. What only the server uses of them is unused without it.
#![cfg_attr(not(feature = "server"), allow(dead_code, unreachable_pub, unused_imports, unused_macros))]

#[cfg(not(target_os = "linux"))]
compile_error!("campanile supports Linux only: its event loops use epoll and other system calls of Linux");

#[cfg(feature = "api")]
pub mod api;
#[cfg(feature = "client")]
pub mod client;
#[cfg(any(feature = "client", feature = "server"))]
mod conn;
#[cfg_attr(not(feature = "deflate"), allow(dead_code))]
pub mod deflate;
#[cfg(feature = "server")]
pub mod endpoint;
#[cfg(any(feature = "api", feature = "tls"))]
mod file;
#[cfg(feature = "server")]
mod handler;
pub mod http;
#[cfg(feature = "server")]
mod hub;
#[cfg(any(feature = "api", feature = "push"))]
#[cfg_attr(not(all(feature = "api", feature = "client", feature = "push")), allow(dead_code, unused_imports))]
mod json;
pub mod log;
#[cfg(any(feature = "client", feature = "server"))]
mod memory;
#[cfg(feature = "server")]
mod metrics;
#[cfg(any(feature = "client", feature = "server"))]
mod net;
pub mod protocol;
#[cfg(feature = "push")]
pub mod push;
#[cfg(all(feature = "client", feature = "push"))]
pub mod push_client;
#[cfg(feature = "push")]
// Each side of the protocol uses its half.
#[cfg_attr(not(all(feature = "client", feature = "push")), allow(dead_code, unreachable_pub, unused_imports))]
mod push_protocol;
#[cfg(feature = "server")]
mod server;
#[cfg(any(feature = "client", feature = "server"))]
mod sink;
#[cfg(any(feature = "client", feature = "server"))]
mod sync;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "server")]
mod worker;

#[cfg(feature = "server")]
#[doc(hidden)]
pub mod internal;
#[cfg(all(test, feature = "push", not(loom)))]
mod push_model;
#[cfg(all(test, feature = "push", not(loom)))]
mod simulation;
#[cfg(all(test, feature = "push", not(loom)))]
mod stalled_clients;

#[cfg(feature = "server")]
pub use conn::{Cause, Closed, ConnId, InvalidConnId, Limits, Sent, SlowConsumer};
#[cfg(any(feature = "client", feature = "server"))]
pub use conn::{ReadyState, Refused, RefusedReason};
#[cfg(any(feature = "api", feature = "tls"))]
pub use file::{FileError, FileErrorReason};
#[cfg(feature = "server")]
pub use handler::{
    Accept, Answer, BatchError, Conn, ConnInfo, Disconnect, Handle, HandleError, Handler, InvalidOrigin,
    OnMessage, OriginReason, OriginRefused, Origins, Pending, Refuse, Route, TooManyTimers, Unhealthy,
    on_message,
};
pub use http::{
    HttpLimits, InvalidHeader, InvalidResponse, Peer, Request, Responder, Response, TlsInfo, TlsVersion,
};
#[cfg(feature = "server")]
pub use hub::{
    Delivered, Envelope, HistoryMessage, HistoryPage, InvalidPattern, InvalidTopic, MAX_TOPIC, Position,
    Publish, Published, Start, Subscribe, SubscribeError, Subscribed, TopicInfo, TopicList, TopicSettings,
    check_pattern, check_topic,
};
#[cfg(feature = "server")]
pub use metrics::Stats;
#[cfg(feature = "server")]
pub use net::{InvalidAddr, ListenAddr, ListenOptions};
pub use protocol::{AsMessage, CloseCode, InvalidClose, InvalidPing, Message};
#[cfg(feature = "server")]
pub use server::{BuildError, Builder, InvalidSetting, Running, Server};
#[cfg(all(feature = "server", feature = "tls"))]
pub use server::{Tls, TlsBuilder};
#[cfg(feature = "tls")]
pub use tls::{Certificate, ClientAuth, TlsConfigError};
#[cfg(feature = "server")]
pub use worker::failure::RunError;

/// The examples of the README and the documents are tests.
#[cfg(all(doctest, feature = "server"))]
mod documents {
    #[doc = include_str!("../README.md")]
    struct Readme;

    #[doc = include_str!("../docs/guide/getting-started.md")]
    struct GettingStarted;

    #[doc = include_str!("../docs/guide/embedding.md")]
    struct Embedding;

    #[cfg(feature = "push")]
    #[doc = include_str!("../docs/guide/topics.md")]
    struct Topics;

    #[cfg(feature = "push")]
    #[doc = include_str!("../docs/guide/recovery.md")]
    struct Recovery;

    #[cfg(feature = "tls")]
    #[doc = include_str!("../docs/guide/tls.md")]
    struct Tls;

    #[cfg(feature = "deflate")]
    #[doc = include_str!("../docs/guide/compression.md")]
    struct Compression;

    #[doc = include_str!("../docs/guide/migrating.md")]
    struct Migrating;

    #[cfg(feature = "api")]
    #[doc = include_str!("../docs/reference/http-api.md")]
    struct HttpApi;

    #[cfg(all(feature = "client", feature = "push", feature = "tls"))]
    #[doc = include_str!("../docs/reference/client.md")]
    struct Client;
}
