//! Loads a server with compressed messages and measures what they cost it, for the driver `deflate`.
//!
//! SECONDS are of the server's CPU time; for an idle load, how long it is idle.
//!
//! All connections send the same bytes, which are compressed once for all of them, since all have agreed on the same
//! parameters and have sent the same. What comes back is inflated and compared on the first connection and counted on the
//! others. So this side takes little time, and the server is the one that is busy. Its CPU time is that of all threads,
//! from /proc/PID/stat.
//!
//! Prints one line: messages, clock ticks of CPU, bytes on the wire of a message from the server (with its head), bytes
//! of resident growth, and how many messages came uncompressed although compression had been negotiated.

use crate::json::json;
use crate::{Outcome, USAGE};
use campanile::deflate::{
    Agreed, Deflate, Deflater, History, Inflater, MAX_WINDOW_BITS, accept_response, offer,
};
use campanile::protocol::{Kind, Opcode, header, mask};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The window of `campanile --deflate dedicated`, and of the peers.
const WINDOW: u8 = 11;

/// Different messages, sent in turn.
const MESSAGES: u64 = 64;

/// Traffic before anything is counted: just-in-time compilers need some.
const WARM: Duration = Duration::from_secs(1);

const DEADLINE: Duration = Duration::from_secs(30);

/// A frame from the server.
struct Frame {
    rsv1: bool,
    payload: Vec<u8>,
    /// With its head.
    len: usize,
}

struct Connection {
    socket: TcpStream,
    agreed: Option<Agreed>,
    received: Vec<u8>,
}

impl Connection {
    fn open(port: u16, path: &str, deflate: &Deflate) -> Outcome<Self> {
        let socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.set_write_timeout(Some(DEADLINE))?;
        let extension = offer(deflate).map(|o| format!("Sec-WebSocket-Extensions: {o}\r\n"));
        write!(
            &socket,
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{}\r\n",
            extension.unwrap_or_default()
        )?;
        let mut connection = Self { socket, agreed: None, received: Vec::new() };
        let head = loop {
            if let Some(at) = connection.received.windows(4).position(|w| w == b"\r\n\r\n") {
                break connection.received.drain(..at + 4).collect::<Vec<u8>>();
            }
            connection.receive()?;
        };
        let head = String::from_utf8(head)?;
        if !head.starts_with("HTTP/1.1 101 ") {
            return Err(format!("no upgrade: {head}").into());
        }
        let values = head.lines().filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("sec-websocket-extensions").then(|| value.trim().as_bytes())
        });
        connection.agreed = accept_response(values, deflate)?;
        if connection.agreed.is_some() != deflate.is_on() {
            return Err("the server agreed on something else".into());
        }
        Ok(connection)
    }

    fn receive(&mut self) -> Outcome<()> {
        let mut piece = [0; 16 << 10];
        let n = self.socket.read(&mut piece)?;
        if n == 0 {
            return Err("the server closed the connection".into());
        }
        self.received.extend_from_slice(&piece[..n]);
        Ok(())
    }

    fn need(&mut self, len: usize) -> Outcome<()> {
        while self.received.len() < len {
            self.receive()?;
        }
        Ok(())
    }

    /// Reads the next whole message; its payload only if it is wanted.
    fn read(&mut self, wanted: bool) -> Outcome<Frame> {
        self.need(2)?;
        let (first, second) = (self.received[0], self.received[1]);
        if first & 0xB8 != 0x80 || first & 7 > 2 {
            return Err(format!("a frame that begins with {first:#x}").into());
        }
        let (head, len) = match second {
            126 => {
                self.need(4)?;
                (4, usize::from(u16::from_be_bytes([self.received[2], self.received[3]])))
            }
            127 => return Err("a frame of 64 KiB".into()),
            n => (2, usize::from(n)),
        };
        self.need(head + len)?;
        let payload = if wanted { self.received[head..head + len].to_vec() } else { Vec::new() };
        self.received.drain(..head + len);
        Ok(Frame { rsv1: first & 0x40 != 0, payload, len: head + len })
    }
}

/// The messages that all connections send, and the compression of both directions.
struct Dialogue {
    messages: Vec<Vec<u8>>,
    next: usize,
    deflater: Deflater,
    inflater: Inflater,
    sent: Option<History>,
    received: Option<History>,
    compresses: bool,
}

impl Dialogue {
    fn new(agreed: Option<Agreed>, size: usize) -> Self {
        let window = agreed.map_or(MAX_WINDOW_BITS, |a| a.ours.window_bits);
        Self {
            messages: (1..=MESSAGES).map(|seed| json(size, seed)).collect(),
            next: 0,
            deflater: Deflater::new(window, 1),
            inflater: Inflater::new(),
            sent: agreed.and_then(|a| a.ours.history()),
            received: agreed.and_then(|a| a.theirs.history()),
            compresses: agreed.is_some(),
        }
    }

    /// The next message, and the frame that it goes in.
    fn next(&mut self) -> (Vec<u8>, Vec<u8>) {
        let message = self.messages[self.next].clone();
        self.next = (self.next + 1) % self.messages.len();
        let mut payload = Vec::new();
        if self.compresses {
            self.deflater.compress(&message, self.sent.as_mut(), &mut payload);
        } else {
            payload.clone_from(&message);
        }
        let key = [0x12, 0x34, 0x56, 0x78];
        let mut frame =
            header::encode(true, self.compresses, Opcode::Text, payload.len(), Some(key)).to_vec();
        let head = frame.len();
        frame.extend_from_slice(&payload);
        mask::apply(&mut frame[head..], key, 0);
        (message, frame)
    }

    fn check(&mut self, message: &[u8], frame: &Frame) -> Outcome<()> {
        let mut came = Vec::new();
        if frame.rsv1 {
            let history = self.received.as_mut();
            self.inflater.inflate(&frame.payload, history, Kind::Text, 1 << 20, &mut came)?;
        } else {
            came.clone_from(&frame.payload);
        }
        if came == message {
            Ok(())
        } else {
            Err("expected the message that was sent, got another one".into())
        }
    }
}

/// CPU time of all threads of a process so far, in clock ticks.
fn cpu(pid: u32) -> Outcome<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').ok_or("no stat")?.1;
    // utime and stime are the 14th and 15th; the first behind the name is the third.
    Ok(fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<_, _>>()?)
}

fn resident(pid: u32) -> Outcome<i64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<i64>()? * 1024)
}

struct Options {
    port: u16,
    pid: u32,
    deflate: Deflate,
    size: usize,
    connections: usize,
    seconds: f64,
}

fn open(o: &Options, path: &str) -> Outcome<Vec<Connection>> {
    (0..o.connections).map(|_| Connection::open(o.port, path, &o.deflate)).collect()
}

/// Messages from the server.
#[derive(Clone, Copy, Default)]
struct Received {
    messages: usize,
    bytes: usize,
    uncompressed: usize,
}

impl Received {
    fn count(&mut self, frame: &Frame, compresses: bool) {
        self.messages += 1;
        self.bytes += frame.len;
        self.uncompressed += usize::from(compresses && !frame.rsv1);
    }

    fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.uncompressed += other.uncompressed;
    }

    fn print(&self, ticks: u64, grown: i64) {
        println!("{} {ticks} {} {grown} {}", self.messages, self.bytes / self.messages, self.uncompressed);
    }
}

/// Receives a message on each connection.
fn receive_all(connections: &mut [Connection], dialogue: &mut Dialogue, message: &[u8]) -> Outcome<Received> {
    let mut came = Received::default();
    for (n, connection) in connections.iter_mut().enumerate() {
        let frame = connection.read(n == 0)?;
        came.count(&frame, dialogue.compresses);
        if n == 0 {
            dialogue.check(message, &frame)?;
        }
    }
    Ok(came)
}

/// Clock ticks in a second, as /proc has them.
const TICK: f64 = 100.0;

/// Repeats `round` until the server has used its seconds of CPU time, which is counted in ticks of 10 ms: the error is
/// the same for a fast server and a slow one.
fn rounds(o: &Options, mut round: impl FnMut() -> Outcome<Received>) -> Outcome<()> {
    let begin = Instant::now();
    while begin.elapsed() < WARM {
        round()?;
    }
    let before = cpu(o.pid)?;
    let mut came = Received::default();
    while ((cpu(o.pid)? - before) as f64) < o.seconds * TICK {
        came.add(round()?);
    }
    // The server may still be busy with the last message.
    std::thread::sleep(Duration::from_millis(20));
    came.print(cpu(o.pid)? - before, 0);
    Ok(())
}

fn echo(o: &Options) -> Outcome<()> {
    let mut connections = open(o, "/echo")?;
    let mut dialogue = Dialogue::new(connections[0].agreed, o.size);
    rounds(o, || {
        let (message, frame) = dialogue.next();
        for connection in &mut connections {
            connection.socket.write_all(&frame)?;
        }
        receive_all(&mut connections, &mut dialogue, &message)
    })
}

/// The first connection sends what all of them receive.
fn broadcast(o: &Options) -> Outcome<()> {
    let mut connections = open(o, "/broadcast")?;
    let mut dialogue = Dialogue::new(connections[0].agreed, o.size);
    rounds(o, || {
        let (message, frame) = dialogue.next();
        connections[0].socket.write_all(&frame)?;
        receive_all(&mut connections, &mut dialogue, &message)
    })
}

/// Measures connections that have each echoed one message and are idle now.
fn idle(o: &Options) -> Outcome<()> {
    let say = |mut connection: Connection, dialogue: &mut Dialogue| -> Outcome<(Connection, Frame)> {
        let (message, frame) = dialogue.next();
        connection.socket.write_all(&frame)?;
        let frame = connection.read(true)?;
        dialogue.check(&message, &frame)?;
        Ok((connection, frame))
    };
    // What the server allocates once is not counted.
    for _ in 0..50 {
        let connection = Connection::open(o.port, "/echo", &o.deflate)?;
        let mut dialogue = Dialogue::new(connection.agreed, o.size);
        say(connection, &mut dialogue)?;
    }
    std::thread::sleep(Duration::from_millis(500));
    let before = resident(o.pid)?;
    let (mut connections, mut came) = (Vec::new(), Received::default());
    for _ in 0..o.connections {
        let connection = Connection::open(o.port, "/echo", &o.deflate)?;
        let mut dialogue = Dialogue::new(connection.agreed, o.size);
        let (connection, frame) = say(connection, &mut dialogue)?;
        connections.push(connection);
        came.count(&frame, dialogue.compresses);
    }
    std::thread::sleep(Duration::from_secs_f64(o.seconds));
    came.print(0, resident(o.pid)? - before);
    Ok(())
}

/// Runs one load.
pub(crate) fn run(words: &[String]) -> Outcome<()> {
    let [mode, port, pid, deflate, size, connections, seconds] = words else {
        return Err(USAGE.into());
    };
    let options = Options {
        port: port.parse()?,
        pid: pid.parse()?,
        deflate: match deflate.as_str() {
            "off" => Deflate::off(),
            "shared" => Deflate::shared(),
            "dedicated" => Deflate::dedicated(WINDOW),
            other => return Err(format!("expected off, shared or dedicated, got {other:?}").into()),
        },
        size: size.parse()?,
        connections: connections.parse()?,
        seconds: seconds.parse()?,
    };
    match mode.as_str() {
        "echo" => echo(&options),
        "broadcast" => broadcast(&options),
        "idle" => idle(&options),
        other => Err(format!("expected echo, broadcast or idle, got {other:?}").into()),
    }
}
