//! cargo run --example echo [ADDR]
//! Sends every message back. In a browser: ws = new WebSocket("ws://127.0.0.1:9001/echo")

use campanile::{Accept, Conn, Handler, Message, Refuse, Request, Server};

struct Echo;

impl Handler for Echo {
    type State = ();

    fn upgrade(&self, _: &Request<'_>) -> Result<Accept<()>, Refuse> {
        Ok(Accept::new(()))
    }

    fn message(&self, conn: &mut Conn<'_, ()>, message: Message<'_>) {
        let _ = conn.send(message); // refused where the connection is closing; there is nobody to tell
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".into());
    let server = Server::builder().listen(&addr).route("/echo", Echo).build()?;
    println!("echo on {}", server.local_addrs()[0]);
    Ok(server.run()?)
}
