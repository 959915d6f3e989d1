//! Publishing over HTTP, from the command line: its keys and where it listens.

use crate::args::ApiArgs;
use campanile::api::Api;
use campanile::{Handle, Server};
use std::error::Error;

/// The variable with a key: unlike an argument, others on the machine can't read it.
const VARIABLE: &str = "CAMPANILE_API_KEY";

/// The API with the keys that were given, by argument, file and variable.
pub(crate) fn api(args: &ApiArgs) -> Result<Api, Box<dyn Error>> {
    let mut api = Api::new();
    if let Some(key) = &args.api_key {
        api = api.key(key).map_err(|e| format!("--api-key: {e}"))?;
    }
    if let Some(file) = &args.api_key_file {
        api = api.key_file(file).map_err(|e| format!("--api-key-file: {e}"))?;
    }
    match std::env::var(VARIABLE) {
        Ok(key) => Ok(api.key(&key).map_err(|e| format!("{VARIABLE}: {e}"))?),
        Err(std::env::VarError::NotPresent) => Ok(api),
        Err(e) => Err(format!("{VARIABLE}: {e}").into()),
    }
}

/// A server for the API alone, about the one with this handle.
pub(crate) fn apart(args: &ApiArgs, about: Handle) -> Result<Option<Server>, Box<dyn Error>> {
    if args.api_listen.is_empty() {
        return Ok(None);
    }
    let mut builder = Server::builder().workers(1);
    for addr in &args.api_listen {
        builder = builder.listen(&addr.to_string());
    }
    Ok(Some(api(args)?.about(about).mount(builder).build()?))
}
