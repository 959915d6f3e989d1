//! Publishing over HTTP, for programs in any language: `/api/publish` and what belongs to it. JSON in and out, described
//! by [`Api::openapi`]; docs/reference/http-api.md has examples.
//!
//! ```no_run
//! use campanile::api::Api;
//! use campanile::Server;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let builder = Server::builder().listen("0.0.0.0:9001");
//! let server = Api::new().key(&std::env::var("API_KEY")?)?.mount(builder).build()?;
//! # Ok(()) }
//! ```

mod body;
mod connections;
mod guard;
mod key_file;
mod publish;
mod query;
mod response;

pub use guard::InvalidKey;
pub use key_file::KeyFileError;

use crate::handler::Handle;
use crate::http::{Request, Response};
use crate::server::{BuildError, Builder};
use core::time::Duration;
use guard::Guard;
use response::ApiError;
use std::sync::Arc;
use std::time::Instant;

/// How long a worker has to answer; after it the client gets a 503.
const TIMEOUT: Duration = Duration::from_secs(10);

const OPENAPI: &str = include_str!("openapi.json");

/// The API, to be mounted on a server's routes.
///
/// Who may use it: clients with a [key](Api::key). Without a key it can't be mounted, unless
/// [`Api::without_key`] opens it to this machine for development. Web pages of other hosts never may.
#[derive(Debug)]
pub struct Api {
    guard: Guard,
    /// The server that it is about, where that is another.
    target: Option<Handle>,
    started: Instant,
}

/// What an operation works with.
struct Call<'a> {
    request: &'a Request<'a>,
    handle: &'a Handle,
    started: Instant,
}

type Operation = fn(&Call<'_>) -> Result<Response, ApiError>;

const OPERATIONS: [(&str, &str, Operation); 9] = [
    ("POST", "/api/publish", publish::one),
    ("POST", "/api/batch", publish::batch),
    ("POST", "/api/broadcast", publish::broadcast),
    ("POST", "/api/subscribe", connections::subscribe),
    ("POST", "/api/unsubscribe", connections::unsubscribe),
    ("POST", "/api/close", connections::close),
    ("GET", "/api/topics", query::topics),
    ("GET", "/api/history", query::history),
    ("GET", "/api/info", query::info),
];

impl Default for Api {
    fn default() -> Self {
        Self::new()
    }
}

impl Api {
    /// The API, which needs a [key](Api::key) before it can be mounted.
    #[must_use]
    pub fn new() -> Self {
        Self { guard: Guard::default(), target: None, started: Instant::now() }
    }

    /// Opens the API to programs on this machine, for development: no key is asked for where the server listens on
    /// loopback addresses and Unix sockets alone, the request comes from a loopback address or a Unix socket, its `Host`
    /// names this machine and no proxy marks it. **Not for a server behind a proxy on the same machine**: what the proxy
    /// passes on looks like this machine's own. A key that is added makes it ask for keys again.
    ///
    /// ```no_run
    /// # use campanile::{Server, api::Api};
    /// let server = Api::new().without_key().mount(Server::builder().listen("127.0.0.1:9001")).build()?;
    /// # Ok::<(), campanile::BuildError>(())
    /// ```
    #[must_use]
    pub fn without_key(mut self) -> Self {
        self.guard.open();
        self
    }

    /// Adds a key that clients may present. Several calls add several: so that one can be replaced while clients still
    /// use it.
    ///
    /// # Errors
    /// It is empty, longer than 256 bytes, or has bytes that can't be sent in a header.
    pub fn key(mut self, key: &str) -> Result<Self, InvalidKey> {
        self.guard.add(key)?;
        Ok(self)
    }

    /// Makes it the API of another server than the one it is mounted on: for a listener of its own.
    #[must_use]
    pub fn for_server(mut self, server: Handle) -> Self {
        self.target = Some(server);
        self
    }

    /// The description of the API, OpenAPI 3.1 in JSON: what `/api/openapi.json` serves.
    #[must_use]
    pub const fn openapi() -> &'static str {
        OPENAPI
    }

    /// Adds its routes, all below `/api/`. Without a key, and without [`Api::without_key`], the server can't be built:
    /// [`BuildError::ApiWithoutKey`].
    #[must_use]
    pub fn mount(self, mut builder: Builder) -> Builder {
        if self.guard.is_closed() {
            builder.fault(BuildError::ApiWithoutKey);
        }
        let api = Arc::new(self);
        for (method, path, operation) in OPERATIONS {
            let api = api.clone();
            builder = builder
                .on_with(method, path, move |request, own| api.answer(request, own, operation))
                .on("*", path, move |_: &Request<'_>| ApiError::method(path, method).response());
        }
        builder
            .get("/api/openapi.json", |_: &Request<'_>| Response::new(200).json(OPENAPI))
            .on("*", "/api/openapi.json", |_: &Request<'_>| {
                ApiError::method("/api/openapi.json", "GET").response()
            })
            .on("*", "/api/*", |_: &Request<'_>| {
                ApiError::new(404, "not_found", "there is no such operation: see /api/openapi.json")
                    .response()
            })
    }

    fn answer(&self, request: &Request<'_>, own: &Handle, operation: Operation) -> Response {
        let handle = self.target.as_ref().unwrap_or(own);
        let call = Call { request, handle, started: self.started };
        let answer = self.guard.check(request, own).and_then(|()| operation(&call));
        answer.unwrap_or_else(|error| error.response())
    }
}
