//! The pages that show the server at work, and the module by which a page of anybody's listens to topics.

use campanile::endpoint::Endpoint;
use campanile::endpoint::static_files::Embedded;
use campanile::{Request, Response};

type File = (&'static str, &'static [u8]);

const MODULE: File = ("campanile.js", include_bytes!("../../../js/campanile.js"));
const TYPES: File = ("campanile.d.ts", include_bytes!("../../../js/campanile.d.ts"));

/// What pages of anybody's import.
const MODULES: &[File] = &[MODULE, TYPES];

const DEMONSTRATION: &[File] = &[
    ("index.html", include_bytes!("page/index.html")),
    ("chat.js", include_bytes!("page/chat.js")),
    ("dom.js", include_bytes!("page/dom.js")),
    ("image.js", include_bytes!("page/image.js")),
    ("style.css", include_bytes!("page/style.css")),
    ("live.html", include_bytes!("page/live.html")),
    ("live.css", include_bytes!("page/live.css")),
    ("live.js", include_bytes!("page/live.js")),
    MODULE,
    TYPES,
];

/// Nothing but its own files and sockets, and the images that people send each other.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(crate) struct Page(Embedded);

impl Page {
    /// The module alone.
    pub(crate) fn modules() -> Self {
        Self(Embedded::new(MODULES).cache_control("no-cache"))
    }

    /// The pages too.
    pub(crate) fn demonstration() -> Self {
        Self(Embedded::new(DEMONSTRATION).cache_control("no-cache"))
    }
}

impl Endpoint for Page {
    fn handle(&self, request: &Request<'_>) -> Response {
        let response = self.0.handle(request).header("Content-Security-Policy", POLICY);
        let response = response.header("Referrer-Policy", "no-referrer");
        // Modules are fetched with CORS; there is nothing in this one that a page of another host may not see.
        match request.path() {
            "/campanile.js" | "/campanile.d.ts" => response.header("Access-Control-Allow-Origin", "*"),
            _ => response,
        }
    }
}
