//! The client against others' servers: Node's `ws` and Python's `websockets`. Both are installed by `tests/setup`, as
//! `make test` does; where they are not, there is nothing to test against, and the tests say so and pass.

use crate::support::tls::Authority;
use campanile::client::{Client, ClientBuilder, ClientEvent, Data, Reconnect, Trust};
use campanile::deflate::Deflate;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(15);

/// Says its port, echoes, chooses the subprotocol `b`, sends a ping and a fragmented message first, and closes with
/// 4000 when told to.
const NODE: &str = r#"
const { WebSocketServer } = require("ws");
const pem = require("fs").readFileSync(process.env.PEM);
const http = process.env.TLS ? require("https").createServer({ key: pem, cert: pem }) : require("http").createServer();
http.listen(0, "127.0.0.1", () => console.log(http.address().port));
const server = new WebSocketServer({
  server: http, maxPayload: 64 << 20, perMessageDeflate: DEFLATE && { threshold: 0 }, handleProtocols: (set) => (set.has("b") ? "b" : false),
});
server.on("connection", (socket) => {
  socket.ping("?");
  socket.on("pong", (payload) => {
    socket.send(`pong ${payload}`, { fin: false });
    socket.send(" in two", { fin: true });
  });
  socket.on("message", (data, binary) => {
    if (String(data) === "close me") socket.close(4000, "so");
    else if (String(data) === "drop me") socket.terminate();
    else socket.send(data, { binary });
  });
});
process.stdin.on("end", () => process.exit()).resume();
"#;

const PYTHON: &str = r#"
import asyncio, os, ssl, sys
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

async def handler(socket):
    try:
        await (await socket.ping(b"?"))
        await socket.send(["pong ?", " in two"])
        async for message in socket:
            if message == "close me":
                await socket.close(4000, "so")
            elif message == "drop me":
                socket.transport.abort()
            else:
                await socket.send(message)
    except ConnectionClosed:
        pass

async def main():
    tls = None
    if os.environ.get("TLS"):
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(os.environ["PEM"])
    async with serve(handler, "127.0.0.1", 0, ssl=tls, subprotocols=["b"], max_size=64 << 20, compression="deflate" if DEFLATE else None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
"#;

/// A server that ends with its test.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start(command: &mut Command) -> Self {
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the server starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        Self { process, port: line.trim().parse().expect("its port") }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it may have gone by itself
        let _ = self.process.wait();
    }
}

#[track_caller]
fn text(client: &Client, expected: &str) {
    let event = client.next(DEADLINE);
    assert!(matches!(&event, Ok(ClientEvent::Message(Data::Text(t))) if t == expected), "{event:?}");
}

/// Both servers say and do the same, with and without compression and TLS.
fn converse(command: impl Fn(&str) -> Command) {
    let authority = Authority::new();
    let pair = authority.issue(&["localhost"]);
    let pem = std::env::temp_dir().join(format!("campanile-foreign-{}-{:p}.pem", std::process::id(), &pair));
    std::fs::write(&pem, format!("{}{}", pair.cert, pair.key)).expect("a file");
    let trust = Trust::authorities(authority.pem()).expect("an authority");
    for tls in [false, true] {
        for deflate in [Deflate::off(), Deflate::shared(), Deflate::dedicated(15).threshold(0)] {
            let mut command = command(if deflate.is_on() { "true" } else { "false" });
            command.env("PEM", &pem).env("TLS", if tls { "1" } else { "" });
            let server = Server::start(&mut command);
            let scheme = if tls { "wss" } else { "ws" };
            let url = format!("{scheme}://localhost:{}/", server.port);
            converse_at(&|| Client::builder(&url).trust(&trust).deflate(deflate), deflate);
        }
    }
    let _ = std::fs::remove_file(&pem); // a temporary one in any case
}

fn converse_at(builder: &dyn Fn() -> ClientBuilder, deflate: Deflate) {
    let client = builder()
        .subprotocol("a")
        .subprotocol("b")
        .reconnect(Reconnect::default().initial_delay(Duration::from_millis(20)))
        .connect()
        .expect("a client");
    for _ in 0..2 {
        let event = client.next(DEADLINE);
        assert!(matches!(event, Ok(ClientEvent::Open)), "{event:?}");
        assert_eq!((&*client.protocol(), client.extensions().is_empty()), ("b", !deflate.is_on()));
        text(&client, "pong ? in two");
        for size in [0, 125, 126, 65_536, 5 << 20] {
            let message = "é".repeat(size / 2);
            client.send(&message).expect("it is open");
            text(&client, &message);
            client.send(message.as_bytes()).expect("it is open");
            let event = client.next(DEADLINE);
            let same = matches!(event, Ok(ClientEvent::Message(Data::Binary(b))) if b == message.as_bytes());
            assert!(same, "{size} bytes");
        }
        // The first time round it comes back.
        client.send("drop me").expect("it is open");
        let mut lost = false;
        while !lost {
            match client.next(DEADLINE).expect("an event") {
                ClientEvent::Close(close) => assert_eq!((close.code.0, close.will_reconnect), (1006, true)),
                ClientEvent::Reconnecting { .. } => lost = true,
                _ => {}
            }
        }
    }
    let event = client.next(DEADLINE);
    assert!(matches!(event, Ok(ClientEvent::Open)), "{event:?}");
    text(&client, "pong ? in two");
    client.send("close me").expect("it is open");
    match client.next(DEADLINE) {
        Ok(ClientEvent::Close(close)) => {
            assert_eq!((close.code.0, &*close.reason, close.was_clean), (4000, "so", true));
            assert!(!close.will_reconnect);
        }
        other => panic!("no close: {other:?}"),
    }
    // And the other way round.
    let client = builder().subprotocol("b").connect().expect("a client");
    client.wait_open(DEADLINE).expect("open");
    client.close(3000, "bye").expect("a code and a reason that fit");
    let close = client
        .events(DEADLINE)
        .find_map(|e| if let ClientEvent::Close(close) = e { Some(close) } else { None });
    assert!(close.is_some_and(|c| c.was_clean && c.code.0 == 3000));
}

fn tests() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests"))
}

#[test]
fn the_ws_package_of_node_interoperates() {
    if !tests().join("js/node_modules/ws").is_dir() {
        return eprintln!("skipped: Node's ws is not installed; tests/setup js does it");
    }
    converse(|deflate| {
        let script = NODE.replace("DEFLATE", deflate);
        let mut command = Command::new("node");
        command.args(["-e", &script]).current_dir(tests().join("js"));
        command
    });
}

#[test]
fn the_websockets_package_of_python_interoperates() {
    let python = tests().join("py/.venv/bin/python");
    if !python.is_file() {
        return eprintln!("skipped: Python's websockets is not installed; tests/setup python does it");
    }
    converse(|deflate| {
        let script = PYTHON.replace("DEFLATE", if deflate == "true" { "True" } else { "False" });
        let mut command = Command::new(&python);
        command.args(["-c", &script]);
        command
    });
}
