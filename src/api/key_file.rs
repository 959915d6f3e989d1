//! API keys from a file.

use super::{Api, InvalidKey};
use crate::file::{self, FileError, FileKind};
use core::fmt;
use std::path::{Path, PathBuf};

/// Room for 255 keys of the greatest length.
const KEYS: FileKind = FileKind { name: "API keys", below: 64 << 10 };

/// Why a file with API keys can't be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum KeyFileError {
    /// It can't be read.
    File(FileError),
    /// There is no key in it.
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A line is no key.
    Key {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        error: InvalidKey,
    },
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(e) => e.fmt(f),
            Self::Empty { path } => {
                write!(f, "API keys {}: no key in it, expected one in each line", path.display())
            }
            Self::Key { path, line, error } => write!(f, "API keys {}, line {line}: {error}", path.display()),
        }
    }
}

impl std::error::Error for KeyFileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(e) => Some(e),
            Self::Key { error, .. } => Some(error),
            Self::Empty { .. } => None,
        }
    }
}

impl Api {
    /// Adds the keys in a file, one in each line; empty lines and spaces around a key don't count. It must be a regular
    /// file below 64 KiB.
    ///
    /// # Errors
    /// The file can't be read, has no key, or a line of it is refused as by [`Api::key`].
    pub fn key_file(mut self, path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        let path = path.as_ref();
        let bytes = file::read(path, KEYS).map_err(KeyFileError::File)?;
        // What is not UTF-8 is no key, and the line is found all the same.
        let text = String::from_utf8_lossy(&bytes);
        let mut found = false;
        for (at, key) in text.lines().map(str::trim).enumerate().filter(|(_, key)| !key.is_empty()) {
            self = self.key(key).map_err(|error| KeyFileError::Key {
                path: path.to_owned(),
                line: at + 1,
                error,
            })?;
            found = true;
        }
        if found { Ok(self) } else { Err(KeyFileError::Empty { path: path.to_owned() }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_from_lines_and_an_invalid_line_is_named() {
        let path = std::env::temp_dir().join(format!("campanile-keys-{}", std::process::id()));
        let tried = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            Api::new().key_file(&path)
        };
        assert!(tried(b"one\n\n  two  \r\n").is_ok());
        assert!(matches!(tried(b"\n \n"), Err(KeyFileError::Empty { .. })));
        assert!(matches!(tried(b"one\n\nt wo\n"), Err(KeyFileError::Key { line: 3, .. })));
        assert!(matches!(tried(b"one\n\xff\xfe\n"), Err(KeyFileError::Key { line: 2, .. })));
        assert!(matches!(tried(&[b'k'; 64 << 10]), Err(KeyFileError::File(_))));
        std::fs::remove_file(&path).unwrap();
        let error = Api::new().key_file(&path).unwrap_err().to_string();
        assert!(error.starts_with(&format!("API keys {}: No such file", path.display())), "{error}");
    }
}
