//! Publishing over HTTP, from the command line: its keys and where it listens.

use crate::args::Args;
use campanile::api::Api;
use campanile::{Handle, Server};
use std::error::Error;

/// The variable with a key: unlike an argument, others on the machine can't read it.
const VARIABLE: &str = "CAMPANILE_API_KEY";

/// The API with the keys that were given, by argument, file and variable; none without a key, unless `--dev` opens it.
pub(crate) fn api(args: &Args) -> Result<Option<Api>, Box<dyn Error>> {
    let has_key = has_key(args);
    if !has_key && !args.dev {
        return Ok(None);
    }
    let args = &args.api;
    let mut api = if has_key { Api::new() } else { Api::new().without_key() };
    if let Some(key) = &args.api_key {
        api = api.key(key).map_err(|e| format!("--api-key: {e}"))?;
    }
    if let Some(file) = &args.api_key_file {
        api = api.key_file(file).map_err(|e| format!("--api-key-file: {e}"))?;
    }
    match std::env::var(VARIABLE) {
        Ok(key) => Ok(Some(api.key(&key).map_err(|e| format!("{VARIABLE}: {e}"))?)),
        Err(std::env::VarError::NotPresent) => Ok(Some(api)),
        Err(e) => Err(format!("{VARIABLE}: {e}").into()),
    }
}

/// Whether any key was given, good or not.
pub(crate) fn has_key(args: &Args) -> bool {
    args.api.api_key.is_some() || args.api.api_key_file.is_some() || std::env::var_os(VARIABLE).is_some()
}

/// A server for the API alone, about the one with this handle.
pub(crate) fn apart(args: &Args, about: Handle) -> Result<Option<Server>, Box<dyn Error>> {
    if args.api.api_listen.is_empty() {
        return Ok(None);
    }
    let Some(api) = api(args)? else {
        let remedy =
            format!("give one with --api-key-file FILE or {VARIABLE}, or use --dev on this machine alone");
        return Err(format!("--api-listen: the API has no key, expected one; {remedy}").into());
    };
    let mut builder = Server::builder().workers(1);
    for addr in &args.api.api_listen {
        builder = builder.listen(&addr.to_string());
    }
    Ok(Some(api.for_server(about).mount(builder).build()?))
}
