//! A certificate that this machine makes for itself, kept for the next start, so that a browser that was told to trust it
//! need not be told again.

use campanile::{Certificate, ListenAddr};
use rcgen::{CertificateParams, DnType, KeyPair};
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tracing::{info, warn};

/// Certificate and key, PEM.
const FILE: &str = "self-signed.pem";

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long it is valid: systems of Apple's refuse a server's certificate of more than 825 days.
const VALID: Duration = Duration::from_secs(824 * 24 * 3600);

/// Before its end it is replaced at the next start, since a server that runs on would be refused: as long before as the
/// log warns of it.
const RENEW: Duration = Duration::from_secs(14 * 24 * 3600);

/// The file, which is made if it is not there, or its certificate has expired or will soon.
pub(crate) fn file(addrs: &[ListenAddr]) -> Result<PathBuf, Box<dyn Error>> {
    let folder = folder().ok_or(
        "nowhere to keep the self-signed certificate: set XDG_STATE_HOME or HOME, or use --tls-cert and --tls-key",
    )?;
    let path = folder.join(FILE);
    let exists = path.try_exists().map_err(|e| told(&path, &e))?;
    let now = SystemTime::now();
    if (!exists || ends_soon(&path, now))
        && let Some(line) = outcome(exists, &path, make(&folder, &path, names(addrs), now))?
    {
        warn!("{line}");
    }
    Ok(path)
}

/// What came of making one. Where that fails, as in a folder that is read-only by now, one that is there still serves: it is
/// replaced days before it expires. Gives what to warn of.
fn outcome(
    exists: bool,
    path: &Path,
    made: Result<(), Box<dyn Error>>,
) -> Result<Option<String>, Box<dyn Error>> {
    match made {
        Ok(()) => {
            let why = if exists { ", in the place of one that has expired or will soon" } else { "" };
            info!("made a self-signed certificate{why}: {}", path.display());
            Ok(None)
        }
        Err(e) if exists => Ok(Some(format!("{}; the one that is there is used", told(path, &*e)))),
        Err(e) => Err(told(path, &*e).into()),
    }
}

/// Whether the certificate in the file has expired or will soon. One that can't be read is left to whoever reads it next:
/// it is not replaced, as it may be somebody's.
fn ends_soon(path: &Path, now: SystemTime) -> bool {
    Certificate::from_files(path, path).is_ok_and(|c| c.not_after() < now + RENEW)
}

fn told(path: &Path, e: &dyn Error) -> String {
    format!(
        "can't keep the self-signed certificate in {}: {e}; make the folder writable, name another one with \
         STATE_DIRECTORY or XDG_STATE_HOME, or use --tls-cert and --tls-key",
        path.display()
    )
}

fn folder() -> Option<PathBuf> {
    folder_of(|name| std::env::var_os(name))
}

fn folder_of(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let var = |name| variable(name).map(PathBuf::from).filter(|p| p.is_absolute());
    // systemd's StateDirectory= is this service's own; where it has several, they stand in a list with colons between.
    let first = |list: OsString| {
        list.as_bytes().split(|b| *b == b':').next().map(|path| OsStr::from_bytes(path).into())
    };
    let state = variable("STATE_DIRECTORY").and_then(first).filter(|p: &PathBuf| p.is_absolute());
    state
        .or_else(|| Some(var("XDG_STATE_HOME")?.join("campanile")))
        .or_else(|| Some(var("HOME")?.join(".local/state/campanile")))
}

/// What this machine may be called.
fn names(addrs: &[ListenAddr]) -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let is_name =
        |h: &str| !h.is_empty() && h.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
    names.extend(Some(host.trim().to_owned()).filter(|h| is_name(h)));
    for addr in addrs {
        if let ListenAddr::Tcp(addr) = addr
            && !addr.ip().is_unspecified()
        {
            names.push(addr.ip().to_string());
        }
    }
    names.sort();
    names.dedup();
    names
}

fn make(folder: &Path, path: &Path, names: Vec<String>, now: SystemTime) -> Result<(), Box<dyn Error>> {
    let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH)?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "campanile, self-signed");
    // A day early, for clients whose clocks are slow.
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_1970.saturating_sub(DAY);
    params.not_after = params.not_before + VALID;
    let key = KeyPair::generate()?;
    let pem = format!("{}{}", params.self_signed(&key)?.pem(), key.serialize_pem());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // Under its name only when it is whole; and nobody else's business.
    // In a container every start may have the same process id, and a crash may have left a file.
    let new = path.with_extension(format!("{}-{}.new", std::process::id(), since_1970.as_nanos()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| {
        match fs::hard_link(&new, path) {
            // Another server was quicker: its certificate is the one, unless that has expired.
            Err(e) if e.kind() == ErrorKind::AlreadyExists && ends_soon(path, now) => fs::rename(&new, path),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => fs::remove_file(&new),
            Err(e) => Err(e),
            Ok(()) => fs::remove_file(&new),
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unwritable_folder_is_an_error_only_without_a_certificate() {
        let path = Path::new("/read-only/self-signed.pem");
        let failed = || Err(std::io::Error::from(ErrorKind::ReadOnlyFilesystem).into());
        let error = outcome(false, path, failed()).expect_err("there is none to serve with").to_string();
        let warning = outcome(true, path, failed()).expect("the old one serves").expect("and that is told");
        for text in [error, warning] {
            for words in ["/read-only/self-signed.pem", "STATE_DIRECTORY", "--tls-cert"] {
                assert!(text.contains(words), "{text}");
            }
        }
        assert_eq!(outcome(true, path, Ok(())).unwrap(), None);
    }

    #[test]
    fn the_first_state_directory_of_a_list_is_used() {
        let folder = |state: &'static str| {
            folder_of(move |name| match name {
                "STATE_DIRECTORY" => Some(state.into()),
                "HOME" => Some("/h".into()),
                _ => None,
            })
        };
        for (state, expected) in [
            ("/var/lib/a:/var/lib/b", "/var/lib/a"),
            ("/var/lib/a", "/var/lib/a"),
            ("relative:/var/lib/b", "/h/.local/state/campanile"),
            ("", "/h/.local/state/campanile"),
        ] {
            assert_eq!(folder(state).as_deref(), Some(Path::new(expected)), "{state:?}");
        }
    }
}
