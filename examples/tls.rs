//! cargo run --features tls --example tls CERT.pem KEY.pem [CLIENTS-CA.pem]
//!
//! An echo over wss, with the client's certificate looked at where there is one. Renewed files are read again once an
//! hour; connections don't notice.

use campanile::{
    Accept, Certificate, ClientAuth, Conn, Disconnect, Handler, Message, Refuse, Request, Server, Tls,
    TlsVersion,
};
use std::time::Duration;

struct Echo;

impl Handler for Echo {
    /// Whether we know who it is.
    type State = bool;

    fn upgrade(&self, request: &Request<'_>) -> Result<Accept<bool>, Refuse> {
        Ok(Accept::new(request.tls().is_some_and(|tls| tls.client_certificate().is_some())))
    }

    fn open(&self, conn: &mut Conn<'_>, known: &mut bool) -> Result<(), Disconnect> {
        conn.send(if *known { "I know you" } else { "hello, stranger" })?;
        Ok(())
    }

    fn message(&self, conn: &mut Conn<'_>, _: &mut bool, message: Message<'_>) -> Result<(), Disconnect> {
        conn.send(message)?;
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut files = std::env::args().skip(1);
    let (Some(cert), Some(key)) = (files.next(), files.next()) else {
        return Err(
            "which certificate and which key? campanile --tls-listen localhost:0 --tls-self-signed makes both in one file".into()
        );
    };
    let clients = match files.next() {
        Some(file) => ClientAuth::optional(std::fs::read(file)?)?,
        None => ClientAuth::off(),
    };
    let tls = Tls::builder(Certificate::from_files(cert, key)?)
        .client_auth(clients)
        .min_version(TlsVersion::Tls13)
        .build()?;
    let renew = tls.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(3600));
            if let Err(e) = renew.reload() {
                eprintln!("the old certificate stays: {e}");
            }
        }
    });
    let server = Server::builder().listen_tls("127.0.0.1:9443", &tls).route("/", Echo).build()?;
    println!("wss://localhost:9443/");
    server.run()?;
    Ok(())
}
