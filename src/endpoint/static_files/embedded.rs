//! Files built into the program.

use core::fmt::Write;
use std::collections::BTreeMap;

use sha1::{Digest, Sha1};

use super::content_type::content_type;
use super::path::SafePath;
use super::{Content, Found, INDEX, Lookup, serve};
use crate::endpoint::Endpoint;
use crate::http::{HttpError, Request, Response};

/// Serves files that are part of the program, say by `include_bytes!`. Their tags are hashes of their content, so a
/// browser asks again and is told 304 until a new program brings a new version. They have no date.
#[derive(Clone, Debug)]
pub struct Embedded {
    files: BTreeMap<&'static str, EmbeddedFile>,
    cache_control: Option<String>,
}

#[derive(Clone, Debug)]
struct EmbeddedFile {
    bytes: &'static [u8],
    etag: String,
}

impl Embedded {
    /// The files by name, `index.html` or `js/app.js`; of two with one name the last. A slash in front doesn't matter.
    #[must_use]
    pub fn new(files: &'static [(&'static str, &'static [u8])]) -> Self {
        let entry = |&(name, bytes): &(&'static str, &'static [u8])| {
            (name.strip_prefix('/').unwrap_or(name), EmbeddedFile { bytes, etag: hash_tag(bytes) })
        };
        Self { files: files.iter().map(entry).collect(), cache_control: None }
    }

    /// Sends this Cache-Control with every file, such as `public, max-age=3600`.
    #[must_use]
    pub fn cache_control(mut self, value: impl Into<String>) -> Self {
        self.cache_control = Some(value.into());
        self
    }

    fn lookup(&self, path: &SafePath<'_>) -> Result<Lookup, HttpError> {
        let mut name = path.join();
        if path.is_folder() {
            name = index_of(&name);
        }
        let Some(entry) = self.files.get(name.as_str()) else {
            let is_folder = !path.is_folder() && self.files.contains_key(index_of(&name).as_str());
            return if is_folder { Ok(Lookup::Folder) } else { Err(HttpError::NotFound) };
        };
        Ok(Lookup::File(Found {
            content: Content::Bytes(entry.bytes),
            len: entry.bytes.len() as u64,
            content_type: content_type(&name),
            etag: entry.etag.clone(),
            modified: None,
        }))
    }
}

impl Endpoint for Embedded {
    fn handle(&self, request: &Request<'_>) -> Response {
        serve(request, self.cache_control.as_deref(), |path| self.lookup(path))
    }
}

fn index_of(folder: &str) -> String {
    if folder.is_empty() { INDEX.to_owned() } else { format!("{folder}/{INDEX}") }
}

/// A strong tag: half a SHA-1, which is here to tell versions apart and not to withstand anybody.
fn hash_tag(bytes: &[u8]) -> String {
    let mut tag = String::from("\"");
    for byte in &Sha1::digest(bytes)[..10] {
        // Writing to a String doesn't fail.
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    tag
}
