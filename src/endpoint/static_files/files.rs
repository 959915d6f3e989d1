//! Files of a folder.

use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::content_type::content_type;
use super::path::SafePath;
use super::{Content, Found, INDEX, Lookup, header_time, serve};
use crate::endpoint::Endpoint;
use crate::http::{HttpError, Request, Response};

/// Serves the files of a folder as they are at the time of the request. Symbolic links are followed as long as they
/// stay in the folder.
///
/// Entity tags are made of size and time and are weak: a range is served to any client, but with `If-Range` the client
/// gets the whole file. A file is read while it is sent, on the worker's thread: for web pages on a local disk, not for
/// a network share that may block.
#[derive(Clone, Debug)]
pub struct Files {
    /// Without symbolic links.
    root: PathBuf,
    cache_control: Option<String>,
}

impl Files {
    /// The files below this folder.
    ///
    /// # Errors
    /// When there is no such folder.
    pub fn new(root: impl AsRef<Path>) -> io::Result<Self> {
        let root = fs::canonicalize(root)?;
        if !fs::metadata(&root)?.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "static files need a folder"));
        }
        Ok(Self { root, cache_control: None })
    }

    /// Sends this Cache-Control with every file, such as `public, max-age=3600`.
    #[must_use]
    pub fn cache_control(mut self, value: impl Into<String>) -> Self {
        self.cache_control = Some(value.into());
        self
    }

    fn lookup(&self, path: &SafePath<'_>) -> Result<Lookup, HttpError> {
        let path_on_disk = self.root.join(path.join());
        let (file, meta) = self.open(&path_on_disk)?;
        match (meta.is_dir(), path.is_folder()) {
            (true, false) => Ok(Lookup::Folder),
            (true, true) => {
                let (file, meta) = self.open(&path_on_disk.join(INDEX))?;
                if meta.is_file() { Ok(found(INDEX, file, &meta)) } else { Err(HttpError::NotFound) }
            }
            (false, false) if meta.is_file() => Ok(found(&path.join(), file, &meta)),
            // A file asked for as a folder; or a pipe, a socket, a device.
            _ => Err(HttpError::NotFound),
        }
    }

    /// Opens what lies there if it lies in the root. What is told about it is told of the open file, so nothing can be
    /// put in its place between the asking and the reading.
    fn open(&self, path: &Path) -> Result<(File, fs::Metadata), HttpError> {
        // Whatever the reason (not there, no right to see it, a loop of links, a name too long), it isn't served.
        let real = fs::canonicalize(path).map_err(|_| HttpError::NotFound)?;
        if !real.starts_with(&self.root) {
            return Err(HttpError::NotFound);
        }
        // The name is real now, so a link in its last place has been put there just now and isn't followed; and a pipe
        // must not hold up the worker until somebody writes to it.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&real).map_err(refusal)?;
        let meta = file.metadata().map_err(refusal)?;
        Ok((file, meta))
    }
}

impl Endpoint for Files {
    fn handle(&self, request: &Request<'_>) -> Response {
        serve(request, self.cache_control.as_deref(), |path| self.lookup(path))
    }
}

/// What the client is told of a failure to open.
fn refusal(error: io::Error) -> HttpError {
    match Errno::from_io_error(&error) {
        // Gone since, no right to read it, a link after all, a socket.
        Some(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::PERM | Errno::LOOP | Errno::NXIO) => {
            HttpError::NotFound
        }
        // Too many open files, for one. The operator should know.
        _ => {
            crate::log::limited!(warn, std::time::Instant::now(), %error, "a static file can't be opened");
            HttpError::Internal
        }
    }
}

fn found(name: &str, file: File, meta: &fs::Metadata) -> Lookup {
    Lookup::File(Found {
        content: Content::File(file),
        len: meta.len(),
        content_type: content_type(name),
        etag: format!("W/\"{:x}-{:x}-{:x}\"", meta.len(), meta.mtime(), meta.mtime_nsec()),
        modified: meta.modified().ok().and_then(|time| header_time(time, SystemTime::now())),
    })
}
