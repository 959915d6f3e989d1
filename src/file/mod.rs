//! Small files that are read whole, at the start or while the server runs: certificates, private keys, API keys.
//!
//! Such a path is a setting, and a wrong one must be an error, soon: a FIFO or a terminal would be waited for, a device or
//! a large file would fill the memory. So only regular files are read, and only up to a size.

use core::fmt;
use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, open, stat};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What a file is for, and its size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileKind {
    /// As it is named in errors.
    pub(crate) name: &'static str,
    /// The size in bytes that it must stay below.
    pub(crate) below: u64,
}

/// Why a certificate, a private key or a file with API keys can't be read.
#[derive(Debug)]
#[non_exhaustive]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What it is for: "certificate", "private key", "API keys".
    pub purpose: &'static str,
    /// What is wrong with it.
    pub reason: FileErrorReason,
}

/// What is wrong with a file.
#[derive(Debug)]
#[non_exhaustive]
pub enum FileErrorReason {
    /// The system refuses.
    System(io::Error),
    /// It is not a regular file.
    NotRegular {
        /// What it is: "a directory", "a FIFO", "a socket", "a device".
        found: &'static str,
    },
    /// It is too large.
    TooLarge {
        /// Its size in bytes, or how many bytes of it were read.
        size: u64,
        /// The size that it must stay below.
        below: u64,
    },
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.purpose, self.path.display())?;
        match &self.reason {
            FileErrorReason::System(e) => {
                let remedy = match e.kind() {
                    io::ErrorKind::PermissionDenied => {
                        "; the user that the server runs as must be able to read it"
                    }
                    io::ErrorKind::NotFound => "; is the path right?",
                    _ => "",
                };
                write!(f, "{e}{remedy}")
            }
            FileErrorReason::NotRegular { found } => write!(
                f,
                "{found}, expected a regular file; write its contents to a file (neither <(…) nor /dev/stdin is one)"
            ),
            FileErrorReason::TooLarge { size, below } => {
                write!(f, "{size} bytes, less than {below} are allowed; is it the right file?")
            }
        }
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.reason {
            FileErrorReason::System(e) => Some(e),
            FileErrorReason::NotRegular { .. } | FileErrorReason::TooLarge { .. } => None,
        }
    }
}

/// Reads a small regular file. It waits for the disk and for nothing else.
pub(crate) fn read(path: &Path, kind: FileKind) -> Result<Vec<u8>, FileError> {
    contents(path, kind.below).map_err(|reason| FileError {
        path: path.to_owned(),
        purpose: kind.name,
        reason,
    })
}

fn contents(path: &Path, below: u64) -> Result<Vec<u8>, FileErrorReason> {
    let system = |e: rustix::io::Errno| FileErrorReason::System(e.into());
    // Before opening it: for some devices that alone does something.
    check(&stat(path).map_err(system)?, below)?;
    // It may be another file by now, so it is opened without waiting for a FIFO's other end and looked at again.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = open(path, flags, Mode::empty()).map_err(system)?;
    check(&fstat(&file).map_err(system)?, below)?;
    let mut bytes = Vec::new();
    // Files of the kernel's own have no size, and others may grow.
    File::from(file).take(below).read_to_end(&mut bytes).map_err(FileErrorReason::System)?;
    match bytes.len() as u64 {
        size if size >= below => Err(FileErrorReason::TooLarge { size, below }),
        _ => Ok(bytes),
    }
}

fn check(stat: &Stat, below: u64) -> Result<(), FileErrorReason> {
    let found = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
            return if size < below { Ok(()) } else { Err(FileErrorReason::TooLarge { size, below }) };
        }
        FileType::Directory => "a directory",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "no regular file",
    };
    Err(FileErrorReason::NotRegular { found })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, mknodat};
    use std::os::unix::net::UnixListener;

    const KIND: FileKind = FileKind { name: "certificate", below: 1 << 10 };

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("campanile-file-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0); // it is in the folder for temporary files
        }
    }

    fn refused(path: &Path) -> String {
        read(path, KIND).unwrap_err().to_string()
    }

    #[test]
    fn only_regular_files_are_read_without_blocking() {
        let folder = Folder::new("kinds");
        let fifo = folder.0.join("fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let socket = folder.0.join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        let link = folder.0.join("link");
        std::os::unix::fs::symlink(&fifo, &link).unwrap();
        for (path, found) in [
            (&*fifo, "a FIFO"),
            (&*link, "a FIFO"),
            (&*socket, "a socket"),
            (&*folder.0, "a directory"),
            (Path::new("/dev/zero"), "a device"),
        ] {
            let error = refused(path);
            assert!(
                error.starts_with(&format!(
                    "certificate {}: {found}, expected a regular file;",
                    path.display()
                )),
                "{error}"
            );
        }
        let missing = refused(&folder.0.join("missing"));
        assert!(
            missing.contains("missing: No such file") && missing.ends_with("is the path right?"),
            "{missing}"
        );
    }

    #[test]
    fn a_large_file_is_refused_with_its_size() {
        let folder = Folder::new("sizes");
        let path = folder.0.join("file");
        let file = File::create(&path).unwrap();
        for (size, fits) in [(0, true), (1023, true), (1024, false), (1 << 40, false)] {
            file.set_len(size).unwrap();
            match read(&path, KIND) {
                Ok(bytes) => assert!(fits && bytes.len() as u64 == size, "{size}"),
                Err(e) => {
                    assert!(!fits, "{e}");
                    assert!(
                        e.to_string().contains(&format!("{size} bytes, less than 1024 are allowed")),
                        "{e}"
                    );
                }
            }
        }
        // A file of the kernel's that says it has no bytes.
        let error = refused(Path::new("/proc/self/smaps"));
        assert!(error.contains("1024 bytes, less than 1024"), "{error}");
    }
}
