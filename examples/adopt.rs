//! cargo run --example adopt [ADDR]
//! A program that has an HTTP server already, here a small one on std: it keeps its port and its pages, and hands
//! WebSockets over to campanile, which listens nowhere itself. Open http://127.0.0.1:9001/ to see both ways work.

use campanile::http::{HeadScanner, HeaderSlots, RequestHead};
use campanile::protocol::handshake::{accept_key, is_valid_key};
use campanile::{Accept, Conn, Disconnect, Handle, Handler, Message, Refuse, Request, Server};
use std::io::{Error, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

struct Echo;

impl Handler for Echo {
    /// Who answered the opening handshake.
    type State = &'static str;

    /// Called for `/before` only: what is adopted open is past this.
    fn upgrade(&self, _: &Request<'_>) -> Result<Accept<Self::State>, Refuse> {
        Ok(Accept::new("campanile"))
    }

    fn message(
        &self,
        conn: &mut Conn<'_>,
        server: &mut Self::State,
        message: Message<'_>,
    ) -> Result<(), Disconnect> {
        let text = message.as_text().unwrap_or("bytes");
        conn.send(format!("{text}, after a handshake by {server}"))?;
        Ok(())
    }
}

const PAGE: &str = "<!doctype html><title>adopt</title><pre></pre><script>
for (const path of ['/before', '/after']) {
  const ws = new WebSocket('ws://' + location.host + path);
  ws.onopen = () => ws.send(path);
  ws.onmessage = (e) => document.querySelector('pre').append(e.data + '\\n');
}
</script>";

/// One request of the existing server's, on a thread of its own as such servers do.
fn serve(mut socket: TcpStream, websockets: &Handle) -> Result<(), Box<dyn std::error::Error>> {
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let (mut received, mut scanner, mut piece) = (Vec::new(), HeadScanner::default(), [0; 1024]);
    let end = loop {
        match socket.read(&mut piece)? {
            0 => return Err(Error::from(ErrorKind::UnexpectedEof).into()),
            n => received.extend_from_slice(&piece[..n]),
        }
        if let Some(end) = scanner.scan(&received, 8 << 10)? {
            break end;
        }
    };
    let mut slots = HeaderSlots::new();
    let head = RequestHead::parse(&received[..end], &mut slots, 64)?;

    match head.path() {
        // Before the handshake: campanile reads the request again, asks the handler, and answers.
        "/before" => websockets.adopt(socket, received)?,

        // After it: the request is ours to judge, its origin too, and to answer; what came behind it goes along.
        "/after" => {
            let key = head.header("sec-websocket-key").filter(|key| is_valid_key(key));
            let version = head.header("sec-websocket-version") == Some(b"13");
            let asks = head.method() == "GET" && head.has_token("upgrade", "websocket");
            let Some(key) = key.filter(|_| version && asks) else {
                return Ok(respond(&mut socket, "400 Bad Request", "a WebSocket, please\n")?);
            };
            let yes = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {}\r\n\r\n",
                accept_key(key)
            );
            socket.write_all(yes.as_bytes())?;
            websockets.adopt_open(socket, received[end..].to_vec(), "/after", "the program itself", None)?;
        }

        "/" => respond(&mut socket, "200 OK", PAGE)?,
        _ => respond(&mut socket, "404 Not Found", "not here\n")?,
    }
    Ok(())
}

fn respond(socket: &mut TcpStream, status: &str, body: &str) -> std::io::Result<()> {
    let (len, kind) = (body.len(), "Content-Type: text/html\r\nConnection: close");
    let response = format!("HTTP/1.1 {status}\r\n{kind}\r\nContent-Length: {len}\r\n\r\n{body}");
    socket.write_all(response.as_bytes())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".into());
    let listener = TcpListener::bind(addr)?;
    let campanile = Server::builder().route("/before", Echo).route("/after", Echo).build()?.spawn()?;
    println!("open http://{}/", listener.local_addr()?);
    for socket in listener.incoming() {
        let (socket, websockets) = (socket?, campanile.handle().clone());
        std::thread::spawn(move || {
            if let Err(e) = serve(socket, &websockets) {
                eprintln!("{e}");
            }
        });
    }
    Ok(())
}
