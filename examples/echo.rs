//! cargo run --example echo [ADDR]
//! Sends every message back. In a browser's console on http://127.0.0.1:9001/: ws = new WebSocket("/echo")

use campanile::{Server, on_message};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".into());
    let echo = on_message(|conn, message| {
        conn.send(message)?;
        Ok(())
    });
    let server = Server::builder().listen(&addr).route("/echo", echo).build()?;
    println!("echo on {}", server.local_addrs()[0]);
    Ok(server.run()?)
}
