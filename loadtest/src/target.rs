//! Where the load goes: a `ws://` URL, or `tcp://` for plain bytes, and the addresses behind it.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};

/// A parsed `ws://HOST[:PORT][/PATH][?QUERY]` or `tcp://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Host and port as the `Host` header has them.
    pub(crate) authority: String,
    /// For name resolution: IPv6 without its brackets.
    host: String,
    port: u16,
    /// Path and query.
    pub(crate) path: String,
    /// Payloads are sent as they are: no handshake, no frames. What the same load costs without WebSocket.
    pub(crate) bare: bool,
}

impl Target {
    /// Reads a URL; what can't be used gets a sentence that says what would do.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| format!("{url:?} is no URL; expected ws://HOST:PORT/PATH"))?;
        let bare = match scheme.to_ascii_lowercase().as_str() {
            "ws" => false,
            "tcp" => true,
            "wss" => return Err("TLS is not supported: only ws:// URLs can be loaded".into()),
            other => return Err(format!("scheme {other:?} is not ws://")),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let cut = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(cut);
        let (host, port) = split_authority(authority)?;
        if bare && !path.is_empty() {
            return Err(format!("{url:?}: tcp:// has no path"));
        }
        if host.is_empty() {
            return Err(format!("{url:?} has no host"));
        }
        if path.bytes().any(|b| b <= b' ' || b == 0x7F) {
            return Err("the path has spaces or control characters; write them as %20 and so on".into());
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { authority: authority.to_owned(), host: host.to_owned(), port, path, bare })
    }

    /// The same server with another path.
    pub(crate) fn with_path(&self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self.clone() }
    }

    /// The address to connect to: the first that the name resolves to, IPv4 preferred, since source addresses are.
    pub(crate) fn resolve(&self) -> Result<SocketAddr, String> {
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return Ok(SocketAddr::new(ip, self.port));
        }
        let all: Vec<SocketAddr> = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(|e| format!("can't resolve {}: {e}", self.host))?
            .collect();
        let first = all.iter().find(|a| a.is_ipv4()).or_else(|| all.first());
        first.copied().ok_or_else(|| format!("{} has no address", self.host))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bare {
            return write!(f, "tcp://{}", self.authority);
        }
        write!(f, "ws://{}{}", self.authority, self.path)
    }
}

fn split_authority(authority: &str) -> Result<(&str, u16), String> {
    if authority.contains('@') {
        return Err("user names in the URL are not supported; send --header 'Authorization: …'".into());
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (host, after) = v6.split_once(']').ok_or("an IPv6 address needs its closing bracket")?;
            (host, after.strip_prefix(':'))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port {
        None | Some("") => 80,
        Some(digits) => match digits.parse() {
            Ok(0) | Err(_) => return Err(format!("{digits:?} is no port (1 to 65535)")),
            Ok(port) => port,
        },
    };
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let t = Target::parse("ws://127.0.0.1:9001/echo?x=1").unwrap();
        assert_eq!((t.authority.as_str(), t.path.as_str()), ("127.0.0.1:9001", "/echo?x=1"));
        assert_eq!(t.resolve().unwrap(), "127.0.0.1:9001".parse().unwrap());
        let t = Target::parse("WS://[::1]:81").unwrap();
        assert_eq!((t.authority.as_str(), t.path.as_str(), t.port), ("[::1]:81", "/", 81));
        assert_eq!(t.resolve().unwrap(), "[::1]:81".parse().unwrap());
        let t = Target::parse("ws://example.org?q#part").unwrap();
        assert_eq!((t.host.as_str(), t.port, t.path.as_str()), ("example.org", 80, "/?q"));
        let t = Target::parse("tcp://127.0.0.1:9001").unwrap();
        assert_eq!((t.bare, t.to_string().as_str()), (true, "tcp://127.0.0.1:9001"));
    }

    #[test]
    fn what_is_no_target_is_refused_with_a_sentence() {
        for bad in [
            "",
            "localhost:9001",
            "http://x/",
            "wss://x/",
            "ws:///p",
            "ws://h:0/",
            "ws://h:99999",
            "ws://[::1",
            "ws://u@h/",
            "ws://h/a b",
            "tcp://h:1/path",
        ] {
            assert!(Target::parse(bad).is_err(), "{bad:?}");
        }
    }
}
