//! Where the load goes: a WebSocket's URL, or `tcp://` for plain bytes, and the addresses behind it.

use campanile::client::Url;
use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};

/// A parsed `ws://HOST[:PORT][/PATH][?QUERY]` or `tcp://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) url: Url,
    /// Payloads are sent as they are: no handshake, no frames. What the same load costs without WebSocket.
    pub(crate) raw_tcp: bool,
}

impl Target {
    /// Reads a URL; what can't be used gets a sentence that says what would do.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let raw_tcp = scheme.eq_ignore_ascii_case("tcp");
        if !raw_tcp && !["ws", "wss", ""].iter().any(|s| scheme.eq_ignore_ascii_case(s)) {
            return Err(format!("scheme {scheme:?} is not ws:// or wss://"));
        }
        if raw_tcp && rest.contains(['/', '?']) {
            return Err(format!("{text:?}: tcp:// has no path"));
        }
        let url: Url = if raw_tcp { format!("ws://{rest}/").parse() } else { text.parse() }
            .map_err(|e: campanile::client::InvalidUrl| e.to_string())?;
        Ok(Self { url, raw_tcp })
    }

    /// The address to connect to: the first that the name resolves to, IPv4 preferred, since source addresses are.
    pub(crate) fn resolve(&self) -> Result<SocketAddr, String> {
        let (host, port) = (self.url.host(), self.url.port());
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(SocketAddr::new(ip, port));
        }
        let all: Vec<SocketAddr> =
            (host, port).to_socket_addrs().map_err(|e| format!("can't resolve {host}: {e}"))?.collect();
        let first = all.iter().find(|a| a.is_ipv4()).or_else(|| all.first());
        first.copied().ok_or_else(|| format!("{host} has no address"))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.raw_tcp {
            return write!(f, "tcp://{}", self.url.authority());
        }
        self.url.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_urls_or_plain_addresses() {
        let t = Target::parse("ws://127.0.0.1:9001/echo?x=1").unwrap();
        assert_eq!((t.raw_tcp, t.to_string().as_str()), (false, "ws://127.0.0.1:9001/echo?x=1"));
        assert_eq!(t.resolve().unwrap(), "127.0.0.1:9001".parse().unwrap());
        let t = Target::parse("WS://[::1]:81").unwrap();
        assert_eq!(t.resolve().unwrap(), "[::1]:81".parse().unwrap());
        let t = Target::parse("tcp://127.0.0.1:9001").unwrap();
        assert_eq!((t.raw_tcp, t.to_string().as_str()), (true, "tcp://127.0.0.1:9001"));
    }

    #[test]
    fn an_invalid_target_is_refused_with_a_reason() {
        for bad in [
            "",
            "localhost:9001",
            "http://x/",
            "https://x/",
            "ws:///p",
            "ws://h:0/",
            "ws://h:99999",
            "ws://[::1",
            "ws://u@h/",
            "ws://h/#part",
            "tcp://h:1/path",
            "tcp://",
        ] {
            assert!(Target::parse(bad).is_err(), "{bad:?}");
        }
    }
}
