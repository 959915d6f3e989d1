//! TLS from the command line: which certificate, and reading it again at SIGHUP.

use crate::args::TlsArgs;
use campanile::{Builder, Certificate, Tls};
use signal_hook::consts::SIGHUP;
use std::error::Error;
use std::os::unix::net::UnixStream;
use tracing::{error, info};

/// Adds the listeners with TLS.
pub(crate) fn listen(mut builder: Builder, args: &TlsArgs) -> Result<Builder, Box<dyn Error>> {
    if args.tls_listen.is_empty() {
        return Ok(builder);
    }
    let tls = Tls::new(certificate(args)?)?;
    for addr in &args.tls_listen {
        builder = builder.listen_tls(&addr.to_string(), &tls);
    }
    let (reader, writer) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(SIGHUP, writer)?;
    Ok(builder.watch(reader, move |_| {
        let used = tls.clone();
        let started = tls.reload_in_background(move |outcome| match outcome {
            Ok(()) => {
                let until = httpdate::fmt_http_date(used.not_after());
                info!("SIGHUP: the certificate was read again and is in use, valid until {until}");
            }
            Err(e) => error!("SIGHUP: the certificate stays as it was: {e}"),
        });
        if let Err(e) = started {
            error!(
                "SIGHUP: the certificate stays as it was: can't start a thread to read it: {e}; try again"
            );
        }
    }))
}

fn certificate(args: &TlsArgs) -> Result<Certificate, Box<dyn Error>> {
    if args.tls_self_signed {
        let file = crate::self_signed::file(&args.tls_listen)?;
        return Certificate::from_files(&file, &file).map_err(|e| {
            format!("{e}; --tls-self-signed made this file: delete it, and it is made anew").into()
        });
    }
    match (&args.tls_cert, &args.tls_key) {
        (Some(cert), Some(key)) => Ok(Certificate::from_files(cert, key)?),
        _ => Err("TLS needs a certificate: --tls-cert and --tls-key".into()), // clap has said so
    }
}
