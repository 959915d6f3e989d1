//! The campanile server: the engine with topics for browsers and publishing over HTTP, and with `--dev` a page, a chat room
//! and two endpoints to measure with. It needs no code to be useful, and is its own first customer: everything here uses
//! the public API.

mod api;
mod args;
mod chat;
mod dev;
mod echo;
mod output;
mod page;
mod push;
mod self_signed;
mod tls;
mod topics;

use crate::topics::Topics;
use args::Args;
use campanile::log::Writer;
use campanile::{Handle, ListenAddr, Origins, Request, Response, RunError, Server};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::IsTerminal;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;
use tracing::{info, warn};
use tracing_subscriber::filter::LevelFilter;

/// Time that clients have to answer the close frame when a signal ends the server.
const GRACE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let Ok(mut log) = Writer::stderr() else {
        return ExitCode::FAILURE; // and nowhere to say why
    };
    log.report_panics();
    let code = run(&mut log);
    log.flush_within(output::FLUSH);
    code
}

fn run(log: &mut Writer) -> ExitCode {
    let args = match Args::read() {
        Ok(args) => args,
        Err(e) => return output::usage(log, &e),
    };
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::from(args.log))
        .with_writer(move || writer.clone())
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .log_internal_errors(false) // it would print them, and panic where that fails
        .init();
    let built = build(&args).and_then(|server| {
        let apart = api::apart(&args, server.handle())?;
        Ok((server, apart))
    });
    let (server, apart) = match built {
        Ok(built) => built,
        Err(e) => return output::fail(log, &e),
    };
    match serve(&args, server, apart) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => output::fail(log, &e),
    }
}

fn build(args: &Args) -> Result<Server, Box<dyn std::error::Error>> {
    let deflate = args.deflate.into();
    let origins = Origins::default().also(&args.origins)?;
    let mut builder = Server::builder()
        .workers(args.workers.map_or(0, usize::from))
        .route("/push", push::route().deflate(deflate).origins(origins.clone()))
        .max_history(args.max_history)
        .on_with("GET", "/healthz", health);
    builder = match args.dev {
        true => dev::serve(builder, args, deflate, &origins),
        false => builder.get("/*", page::Page::modules()),
    };
    for Topics { prefix, settings, .. } in &args.topics {
        builder = builder.topics(prefix, settings.clone());
    }
    for addr in args.plain() {
        builder = builder.listen(&addr);
    }
    builder = tls::listen(builder, &args.tls)?;
    if args.api.api_listen.is_empty()
        && let Some(api) = api::api(args)?
    {
        builder = api.mount(builder);
    }
    // Until everything is read, a signal ends the process at once: no file that is slow to read can hold it up.
    builder = builder.until(signals().map_err(|e| format!("can't handle signals: {e}"))?, GRACE);
    Ok(builder.build()?)
}

/// Longer than any iteration of an event loop takes on a machine that is not overwhelmed.
const STUCK: Duration = Duration::from_secs(5);

/// Answers health checks, by what every worker's event loop does.
fn health(_: &Request<'_>, handle: &Handle) -> Response {
    let response = match handle.check_health(STUCK) {
        Ok(()) => Response::new(200).text("ok\n"),
        Err(e) => Response::new(503).text(format!("{e}\n")),
    };
    response.header("Cache-Control", "no-store")
}

/// Returns a stream that becomes readable at the first SIGTERM or SIGINT. A second signal ends the process at once, with
/// the exit code that shells give to a process that was ended by a signal.
fn signals() -> std::io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    let signalled = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // In this order: the first signal only sets the flag.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, signalled.clone())?;
        signal_hook::flag::register(signal, signalled.clone())?;
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(reader)
}

fn serve(args: &Args, server: Server, apart: Option<Server>) -> Result<(), Box<dyn std::error::Error>> {
    if let Err(e) = output::announce(addresses(args, &server, apart.as_ref())) {
        // Whoever started it may have read the first line and closed the pipe: no reason not to serve.
        warn!("can't say where it listens: {e}");
    }
    let apart = apart.map(|apart| beside(apart, server.handle())).transpose()?;
    let mut ended = server.run();
    if let Some((handle, thread)) = apart {
        handle.shutdown(GRACE);
        ended = ended.and(thread.join().map_err(|_| "the API's thread panicked")?);
    }
    ended?;
    info!("ended");
    Ok(())
}

type Beside = (Handle, JoinHandle<Result<(), RunError>>);

/// Runs a server beside another one, which ends when this one does: half of the program is worth nothing.
fn beside(server: Server, other: Handle) -> std::io::Result<Beside> {
    let handle = server.handle();
    let thread = std::thread::Builder::new().name("campanile-api".into()).spawn(move || {
        let ended = server.run();
        other.shutdown(GRACE);
        ended
    })?;
    Ok((handle, thread))
}

/// Says where it listens, in a first line that programs can read, and what is open and what is not.
fn addresses(args: &Args, server: &Server, apart: Option<&Server>) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    for addr in server.local_addrs() {
        let s = if server.tls_addrs().any(|secure| secure == addr) { "s" } else { "" };
        match addr {
            ListenAddr::Tcp(addr) => {
                line(format!("campanile listening on http{s}://{addr}/"));
                // Nobody can open 0.0.0.0.
                let host = match addr.ip().is_unspecified() {
                    true => format!("localhost:{}", addr.port()),
                    false => addr.to_string(),
                };
                line(match args.dev {
                    true => format!("  open http{s}://{host}/ in two tabs to chat"),
                    false => format!(
                        "  pages import http{s}://{host}/campanile.js and connect to ws{s}://{host}/push"
                    ),
                });
            }
            other => line(format!("campanile listening on {other}")),
        }
    }
    for open in dev::lines(args, !api::has_key(args)) {
        line(format!("  {open}"));
    }
    if !args.dev && !args.topics.iter().any(|topics| topics.grants) {
        line(
            "  clients of /push may use no topic: grant some with --topics PREFIX:client-subscribe=yes"
                .to_owned(),
        );
    }
    if !args.dev && !api::has_key(args) {
        line(
            "  /api/ is not served without a key: --api-key-file FILE; on this machine alone, --dev"
                .to_owned(),
        );
    }
    for addr in apart.iter().flat_map(|apart| apart.local_addrs()) {
        match addr {
            ListenAddr::Tcp(addr) => line(format!("campanile's API on http://{addr}/api/")),
            other => line(format!("campanile's API on {other}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::sync::mpsc;

    fn idle() -> Server {
        Server::builder().workers(2).build().expect("without addresses it binds none")
    }

    /// Runs to the end, of which this is the result.
    fn result_of(server: Server, apart: Option<Server>) -> String {
        let (done, ended) = mpsc::channel();
        let args = Args::try_parse_from(["campanile"]).expect("no option is needed");
        std::thread::spawn(move || {
            let _ = done.send(serve(&args, server, apart).map_err(|e| e.to_string())); // the test may have failed
        });
        let ended = ended.recv_timeout(Duration::from_secs(10)).expect("it ends");
        ended.expect_err("a worker has failed")
    }

    #[test]
    fn a_worker_that_fails_ends_the_program_with_an_error() {
        for worker in 0..2 {
            let server = idle();
            campanile::internal::panic_worker(&server.handle(), worker);
            let why = result_of(server, None);
            assert_eq!(why, format!("worker {worker} panicked outside of a callback: as a test asked"));
        }
    }

    #[test]
    fn a_failed_api_worker_ends_the_program_with_an_error() {
        let apart = idle();
        campanile::internal::panic_worker(&apart.handle(), 0);
        assert!(result_of(idle(), Some(apart)).starts_with("worker 0 panicked"));
    }
}
