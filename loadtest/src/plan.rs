//! What a run is to do: the meaning of what was typed.

use crate::target::Target;
use campanile::client::Trust;
use campanile::client::opening::Extras;
use campanile::protocol::Kind;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// A mode of the load client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Every connection gets its own messages back.
    Echo,
    /// One publishes, all receive.
    Broadcast,
    /// All publish, all receive.
    Chat,
    /// All publish and all receive, in the protocol for browsers.
    Room {
        /// Publications are answered.
        ack: bool,
    },
    /// Connections only receive.
    Listen,
    /// Connections are held.
    Idle,
    /// Connections are opened and closed.
    Connect {
        /// By a closing handshake.
        clean: bool,
    },
    /// Connections are dropped at once and come back.
    Storm,
}

/// How dropped connections come back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReconnectOptions {
    /// Each wait is drawn from zero to its bound.
    pub(crate) jitter: bool,
    /// The first bound; it doubles with each failure.
    pub(crate) initial_delay: Duration,
    /// What it grows to.
    pub(crate) max_delay: Duration,
}

impl Mode {
    /// As it is typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Broadcast => "broadcast",
            Self::Chat => "chat",
            Self::Room { .. } => "room",
            Self::Listen => "listen",
            Self::Idle => "idle",
            Self::Connect { .. } => "connect",
            Self::Storm => "storm",
        }
    }

    /// What it counts.
    pub(crate) fn counts(self) -> &'static str {
        match self {
            Self::Broadcast | Self::Chat | Self::Room { .. } => "deliveries",
            Self::Connect { .. } => "handshakes",
            Self::Storm => "returns",
            Self::Echo | Self::Idle | Self::Listen => "messages",
        }
    }

    /// Whether messages are sent.
    pub(crate) fn has_traffic(self) -> bool {
        matches!(self, Self::Echo | Self::Broadcast | Self::Chat | Self::Room { .. })
    }
}

/// When messages are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Load {
    /// So many in flight: the next one goes when one has come back.
    Closed(u32),
    /// So many per second in all, whatever comes back.
    Open(f64),
}

/// A run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) mode: Mode,
    pub(crate) target: Target,
    pub(crate) extras: Extras,
    /// Any certificate will do.
    pub(crate) insecure: bool,
    pub(crate) conns: usize,
    pub(crate) kind: Kind,
    pub(crate) min_size: usize,
    pub(crate) max_size: usize,
    pub(crate) load: Load,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    pub(crate) threads: usize,
    /// 0: as many as are needed.
    pub(crate) sources: usize,
    pub(crate) timeout: Duration,
    pub(crate) ramp: Option<f64>,
    pub(crate) pids: Vec<u32>,
    /// Sent once by each connection that listens.
    pub(crate) first: Option<String>,
    /// A file for the report, `-` for stdout.
    pub(crate) json: Option<String>,
}

impl Plan {
    /// Whom to believe, if the URL asks for it. One for a whole run.
    pub(crate) fn trust(&self) -> Result<Option<Trust>, String> {
        let trust = match (self.target.url.is_secure(), self.insecure) {
            (false, _) => return Ok(None),
            (true, true) => Trust::danger_accept_any_certificate(),
            (true, false) => Trust::system(),
        };
        trust.map(Some).map_err(|e| e.to_string())
    }
}

/// Connections from one source address: the kernel has about 28,000 ports for them by default.
pub(crate) const PER_SOURCE: usize = 20_000;

/// The addresses to connect from, or none for the kernel's choice.
pub(crate) fn sources(to: IpAddr, conns: usize, asked: usize) -> Result<Vec<IpAddr>, String> {
    let n = if asked > 0 { asked } else { conns.div_ceil(PER_SOURCE) };
    let local = matches!(to, IpAddr::V4(ip) if ip.is_loopback());
    match n {
        0 | 1 => Ok(Vec::new()),
        2..=250 if local => Ok((1..=n as u8).map(|i| Ipv4Addr::new(127, 0, 0, i).into()).collect()),
        _ if !local && asked == 0 => Ok(Vec::new()), // the ports may be enough, or run out and be reported
        _ if !local => Err(format!("--sources needs a target in 127.0.0.0/8, not {to}")),
        _ => Err(format!("{n} source addresses; at most 250 are supported")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_addresses_grow_with_the_number_of_connections() {
        let local = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(sources(local, 20_000, 0), Ok(vec![]));
        assert_eq!(sources(local, 40_001, 0).unwrap().len(), 3);
        assert_eq!(
            sources(local, 10, 2).unwrap(),
            [IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2])]
        );
        assert!(sources(local, 10, 251).is_err());
        let away = IpAddr::from([192, 0, 2, 1]);
        assert!(sources(away, 10, 2).is_err());
        assert_eq!(sources(away, 100_000, 0), Ok(vec![]));
    }
}
