//! Static files: [`Files`] of a folder, [`Embedded`] ones of the program. Both answer GET and HEAD, know about caches
//! (ETag, Last-Modified, 304) and ranges (206, 416), give `index.html` for a folder and lead `/docs` to `/docs/`.
//!
//! The path of a file is what the route's trailing `*` stands for, so that `/files/*` serves a folder below `/files/`;
//! on a route without one it is the whole path.
//!
//! A path is checked before any file system sees it, and a folder checks again what the file system made of it. Names
//! that begin with a dot are served nowhere, save `/.well-known/`. All that is refused is 404, which tells nothing.
//! There are no listings, no encodings and no guesses from content.

mod conditions;
mod content_type;
mod embedded;
mod files;
mod path;
mod range;

use core::time::Duration;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::time::{SystemTime, UNIX_EPOCH};

use conditions::Precondition;
pub use embedded::Embedded;
pub use files::Files;
use path::SafePath;
use range::Range;

use crate::http::{Body, HttpError, Request, Response};

const INDEX: &str = "index.html";

/// A file that is there, before it is decided what of it is sent.
struct Found {
    content: Content,
    len: u64,
    content_type: &'static str,
    /// With its quotes, and `W/` if it is weak.
    etag: String,
    /// In whole seconds, and not in the future.
    modified: Option<SystemTime>,
}

enum Content {
    File(File),
    Bytes(&'static [u8]),
}

/// What a path leads to.
enum Lookup {
    File(Found),
    /// A folder that was asked for without its slash.
    Folder,
}

/// The part all static files share: method, path, conditions, range.
fn serve(
    request: &Request<'_>,
    cache_control: Option<&str>,
    lookup: impl FnOnce(&SafePath<'_>) -> Result<Lookup, HttpError>,
) -> Response {
    // RFC 9110, section 9.1: GET and HEAD are all a file can do.
    if !matches!(request.method(), "GET" | "HEAD") {
        return HttpError::MethodNotAllowed { allow: "GET, HEAD" }.response();
    }
    let whole = request.decoded_path();
    let below = request.param("*").or_else(|| whole.as_deref()?.strip_prefix('/'));
    let path = below.and_then(SafePath::parse);
    let response = match path.ok_or(HttpError::NotFound).and_then(|path| lookup(&path)) {
        Ok(Lookup::File(found)) => answer(request, found, cache_control),
        Ok(Lookup::Folder) => redirect(request),
        Err(error) => error.response(),
    };
    // Content is what its name says. A browser that guesses would run a text as a script.
    response.header("X-Content-Type-Options", "nosniff")
}

/// To the same path with a slash. It is relative to the path asked for: that holds behind a proxy that cuts a prefix
/// off, and no path, however it begins, can name another host.
fn redirect(request: &Request<'_>) -> Response {
    let last = request.path().rsplit('/').next().unwrap_or_default();
    let query = request.query().map_or_else(String::new, |query| format!("?{query}"));
    Response::new(301).header("Location", format!("./{last}/{query}"))
}

fn answer(request: &Request<'_>, found: Found, cache_control: Option<&str>) -> Response {
    let verdict = conditions::evaluate(request, &found.etag, found.modified);
    if verdict == Precondition::Failed {
        return HttpError::PreconditionFailed.response();
    }
    let (status, range) = match verdict {
        Precondition::NotModified => (304, None),
        _ => match wanted_range(request, &found) {
            Range::Whole => (200, None),
            Range::Part { start, len } => (206, Some((start, len))),
            Range::Outside => return HttpError::RangeUnsatisfiable { len: found.len }.response(),
        },
    };
    // RFC 9110, section 15.4.5: a 304 carries what a 200 would, as far as caches want to know it.
    let mut response = Response::new(status).header("ETag", &found.etag);
    if let Some(modified) = found.modified {
        response = response.header("Last-Modified", httpdate::fmt_http_date(modified));
    }
    if let Some(cache_control) = cache_control {
        response = response.header("Cache-Control", cache_control);
    }
    if status == 304 {
        return response;
    }
    if let Some((start, len)) = range {
        let last = start + len - 1;
        response = response.header("Content-Range", format!("bytes {start}-{last}/{}", found.len));
    }
    let (start, len) = range.unwrap_or((0, found.len));
    match found.content.part(start, len) {
        Ok(body) => {
            response.header("Content-Type", found.content_type).header("Accept-Ranges", "bytes").body(body)
        }
        Err(error) => {
            crate::log::limited!(warn, std::time::Instant::now(), %error, "a static file can't be read");
            HttpError::Internal.response()
        }
    }
}

fn wanted_range(request: &Request<'_>, found: &Found) -> Range {
    // RFC 9110, section 14.2: ranges are for GET. Section 13.1.5: with If-Range only of the very version it names; a
    // date names none for sure, so it never counts as one.
    let meant = request.method() == "GET"
        && request.header("if-range").is_none_or(|tag| conditions::same_strong(tag, &found.etag));
    match request.header("range") {
        Some(value) if meant && request.head().header_count("range") == 1 => Range::parse(value, found.len),
        _ => Range::Whole,
    }
}

impl Content {
    /// The caller has seen to it that the part lies in the whole.
    fn part(self, start: u64, len: u64) -> std::io::Result<Body> {
        match self {
            Self::File(mut file) => {
                if start > 0 {
                    file.seek(SeekFrom::Start(start))?;
                }
                Ok(Body::Reader { reader: Box::new(file.take(len)), len })
            }
            Self::Bytes(bytes) => {
                // What is in memory fits a usize.
                let (start, len) = (start as usize, len as usize);
                Ok(Body::Static(bytes.get(start..).and_then(|rest| rest.get(..len)).unwrap_or_default()))
            }
        }
    }
}

/// A time as a header can tell it: whole seconds, from 1970 to 9999. RFC 9110, section 8.8.2.1: none from the future.
fn header_time(time: SystemTime, now: SystemTime) -> Option<SystemTime> {
    // The first second of the year 10000, for which HTTP has no date.
    const END: u64 = 253_402_300_800;
    let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
    (time <= now && seconds < END).then(|| UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests;
