//! A certificate that this machine makes for itself, kept for the next start, so that a browser that was told to trust it
//! need not be told again.

use campanile::ListenAddr;
use rcgen::{CertificateParams, DnType, KeyPair};
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tracing::info;

/// Certificate and key, PEM.
const FILE: &str = "self-signed.pem";

/// The file, which is made if it is not there.
pub(crate) fn file(addrs: &[ListenAddr]) -> Result<PathBuf, Box<dyn Error>> {
    let folder = folder().ok_or(
        "nowhere to keep the self-signed certificate: set XDG_STATE_HOME or HOME, or use --tls-cert and --tls-key",
    )?;
    let path = folder.join(FILE);
    if !path.try_exists().map_err(|e| told(&path, &e))? {
        make(&folder, &path, names(addrs)).map_err(|e| told(&path, &*e))?;
        info!("made a self-signed certificate: {}", path.display());
    }
    Ok(path)
}

fn told(path: &Path, e: &dyn Error) -> String {
    format!("can't keep the self-signed certificate in {}: {e}", path.display())
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

fn make(folder: &Path, path: &Path, names: Vec<String>) -> Result<(), Box<dyn Error>> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "campanile, self-signed");
    let key = KeyPair::generate()?;
    let pem = format!("{}{}", params.self_signed(&key)?.pem(), key.serialize_pem());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // Under its name only when it is whole; and nobody else's business.
    let new = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| {
        match fs::hard_link(&new, path) {
            // Another server was quicker: its certificate is the one.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    })?;
    Ok(fs::remove_file(&new)?)
}

#[cfg(test)]
mod tests {
    use super::*;

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
