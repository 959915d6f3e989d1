//! `--dev`: what is served and granted on a developer's own machine and nowhere else. It answers without a credential, so
//! it is refused with any address that other machines can reach.

use crate::args::Args;
use crate::{chat, echo, page, push};
use campanile::deflate::Deflate;
use campanile::{Builder, ListenAddr, Origins};

/// Checks that only this machine can connect.
pub(crate) fn check(args: &Args) -> Result<(), String> {
    let reachable = |addr: &&ListenAddr| match addr {
        ListenAddr::Tcp(addr) => !addr.ip().to_canonical().is_loopback(),
        _ => false,
    };
    match args.addresses().find(reachable) {
        Some(addr) if args.dev => Err(format!(
            "--dev: {addr} is not a loopback address, and --dev opens the server to every client that can connect; listen on \
             127.0.0.1 or [::1], or leave out --dev"
        )),
        _ => Ok(()),
    }
}

/// Adds the demonstration pages, their endpoints, and what they need of topics.
pub(crate) fn serve(mut builder: Builder, args: &Args, deflate: Deflate, origins: &Origins) -> Builder {
    for (pattern, route) in
        [("/chat", chat::route()), ("/echo", echo::echo()), ("/broadcast", echo::broadcast())]
    {
        builder = builder.route(pattern, route.deflate(deflate).origins(origins.clone()));
    }
    if grants(args) {
        builder = builder.topics(push::PUBLIC, push::kept());
    }
    builder.get("/*", page::Page::demonstration())
}

/// Whether the grant for the pages holds: settings that were given for their topics replace it.
fn grants(args: &Args) -> bool {
    args.dev && !args.topics.iter().any(|topics| topics.prefix == push::PUBLIC)
}

/// Says what is open that otherwise is not, one line each.
pub(crate) fn lines(args: &Args, api_is_open: bool) -> Vec<String> {
    if !args.dev {
        return Vec::new();
    }
    let mut lines = vec!["--dev: /, /live.html, /chat, /echo and /broadcast are served".to_owned()];
    if grants(args) {
        lines.push("--dev: clients of /push may subscribe to and publish below public/".to_owned());
    }
    if api_is_open {
        lines.push("--dev: /api/ takes requests from this machine without a key".to_owned());
    }
    lines
}
