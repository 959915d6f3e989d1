//! Which names a `Host` header may use for this machine.

use core::net::{Ipv4Addr, Ipv6Addr};

/// Whether a `Host` header, with or without a port, names this machine whatever name servers answer: `localhost`,
/// 127.0.0.0/8 or `[::1]`. The head has been parsed, so it is a host and an optional port. Any other name can be made
/// to point to this machine by the owner of its domain (DNS rebinding).
pub(crate) fn is_this_machine(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let address = rest.split(']').next().unwrap_or_default();
        return address.parse::<Ipv6Addr>().is_ok_and(|a| a.to_canonical().is_loopback());
    }
    let name = host.split(':').next().unwrap_or_default();
    name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok_and(|a| a.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_this_machine() {
        for yes in
            ["localhost", "LOCALHOST:9001", "127.0.0.1", "127.8.8.8:1", "[::1]:9001", "[::ffff:127.0.0.1]"]
        {
            assert!(is_this_machine(yes), "{yes}");
        }
        for no in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "[::2]",
            "10.0.0.1",
            "",
            "0.0.0.0",
            "127.1",
            "2130706433",
        ] {
            assert!(!is_this_machine(no), "{no}");
        }
    }
}
