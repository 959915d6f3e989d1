//! Loads a server with compressed messages, for `benches/deflate_peers/run`, and says what they cost it.
//!
//! usage: deflate_load echo|broadcast|idle PORT PID off|shared|dedicated SIZE CONNECTIONS SECONDS
//!
//! SECONDS are of the server's CPU time; of an idle load, how long it is idle.
//!
//! All connections send the same bytes, which are compressed once for all of them: they agreed on the same and have said
//! the same. What comes back is inflated and compared on the first connection alone; on the others it is counted. So
//! this side takes little time, and the server is what is measured: its CPU time, from /proc/PID/stat, of all threads.
//!
//! Prints one line: messages, clock ticks of CPU, bytes on the wire of a message from the server (frame and head),
//! bytes of resident growth, and how many messages came uncompressed although something else was agreed on.

#[path = "../../support/json.rs"]
mod json;

use campanile::deflate::{
    Agreed, Deflate, Deflater, History, Inflater, MAX_WINDOW_BITS, accept_response, offer,
};
use campanile::protocol::{Kind, Opcode, header, mask};
use json::json;
use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

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
    fn open(port: u16, path: &str, deflate: &Deflate) -> Result<Self> {
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

    fn receive(&mut self) -> Result<()> {
        let mut piece = [0; 16 << 10];
        let n = self.socket.read(&mut piece)?;
        if n == 0 {
            return Err("the server closed the connection".into());
        }
        self.received.extend_from_slice(&piece[..n]);
        Ok(())
    }

    fn need(&mut self, len: usize) -> Result<()> {
        while self.received.len() < len {
            self.receive()?;
        }
        Ok(())
    }

    /// The next whole message; whether its payload is wanted.
    fn read(&mut self, wanted: bool) -> Result<Frame> {
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

/// What all connections send, one after the other; and what one of them hears.
struct Talk {
    messages: Vec<Vec<u8>>,
    next: usize,
    deflater: Deflater,
    inflater: Inflater,
    sent: Option<History>,
    received: Option<History>,
    compresses: bool,
}

impl Talk {
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

    fn check(&mut self, message: &[u8], frame: &Frame) -> Result<()> {
        let mut came = Vec::new();
        if frame.rsv1 {
            let history = self.received.as_mut();
            self.inflater.inflate(&frame.payload, history, Kind::Text, 1 << 20, &mut came)?;
        } else {
            came.clone_from(&frame.payload);
        }
        if came == message { Ok(()) } else { Err("another message came than was sent".into()) }
    }
}

/// CPU time of all threads of a process so far, in clock ticks.
fn cpu(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').ok_or("no stat")?.1;
    // utime and stime are the 14th and 15th; the first behind the name is the third.
    Ok(fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u64>)
        .sum::<std::result::Result<_, _>>()?)
}

fn resident(pid: u32) -> Result<i64> {
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

fn open(o: &Options, path: &str) -> Result<Vec<Connection>> {
    (0..o.connections).map(|_| Connection::open(o.port, path, &o.deflate)).collect()
}

/// What has come from the server.
#[derive(Clone, Copy, Default)]
struct Came {
    messages: usize,
    bytes: usize,
    uncompressed: usize,
}

impl Came {
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

/// Takes a message from all of them.
fn hear(connections: &mut [Connection], talk: &mut Talk, message: &[u8]) -> Result<Came> {
    let mut came = Came::default();
    for (n, connection) in connections.iter_mut().enumerate() {
        let frame = connection.read(n == 0)?;
        came.count(&frame, talk.compresses);
        if n == 0 {
            talk.check(message, &frame)?;
        }
    }
    Ok(came)
}

/// Clock ticks in a second, as /proc has them.
const TICK: f64 = 100.0;

/// Rounds of one message, until the server has had its seconds of CPU time: then what is counted in ticks of 10 ms is
/// known well enough, however slow it is and whatever else runs.
fn rounds(o: &Options, mut round: impl FnMut() -> Result<Came>) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < WARM {
        round()?;
    }
    let before = cpu(o.pid)?;
    let mut came = Came::default();
    while ((cpu(o.pid)? - before) as f64) < o.seconds * TICK {
        came.add(round()?);
    }
    // What was done to the last of them may end a moment after it came.
    std::thread::sleep(Duration::from_millis(20));
    came.print(cpu(o.pid)? - before, 0);
    Ok(())
}

fn echo(o: &Options) -> Result<()> {
    let mut connections = open(o, "/echo")?;
    let mut talk = Talk::new(connections[0].agreed, o.size);
    rounds(o, || {
        let (message, frame) = talk.next();
        for connection in &mut connections {
            connection.socket.write_all(&frame)?;
        }
        hear(&mut connections, &mut talk, &message)
    })
}

/// The first connection says what all of them hear.
fn broadcast(o: &Options) -> Result<()> {
    let mut connections = open(o, "/broadcast")?;
    let mut talk = Talk::new(connections[0].agreed, o.size);
    rounds(o, || {
        let (message, frame) = talk.next();
        connections[0].socket.write_all(&frame)?;
        hear(&mut connections, &mut talk, &message)
    })
}

/// What connections hold that have each echoed one message, and are silent now.
fn idle(o: &Options) -> Result<()> {
    let say = |mut connection: Connection, talk: &mut Talk| -> Result<(Connection, Frame)> {
        let (message, frame) = talk.next();
        connection.socket.write_all(&frame)?;
        let frame = connection.read(true)?;
        talk.check(&message, &frame)?;
        Ok((connection, frame))
    };
    // The server has what it needs for any of them.
    for _ in 0..50 {
        let connection = Connection::open(o.port, "/echo", &o.deflate)?;
        let mut talk = Talk::new(connection.agreed, o.size);
        say(connection, &mut talk)?;
    }
    std::thread::sleep(Duration::from_millis(500));
    let before = resident(o.pid)?;
    let (mut connections, mut came) = (Vec::new(), Came::default());
    for _ in 0..o.connections {
        let connection = Connection::open(o.port, "/echo", &o.deflate)?;
        let mut talk = Talk::new(connection.agreed, o.size);
        let (connection, frame) = say(connection, &mut talk)?;
        connections.push(connection);
        came.count(&frame, talk.compresses);
    }
    std::thread::sleep(Duration::from_secs_f64(o.seconds));
    came.print(0, resident(o.pid)? - before);
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, port, pid, deflate, size, connections, seconds] = arguments.as_slice() else {
        return Err("usage: deflate_load MODE PORT PID DEFLATE SIZE CONNECTIONS SECONDS".into());
    };
    let options = Options {
        port: port.parse()?,
        pid: pid.parse()?,
        deflate: match deflate.as_str() {
            "off" => Deflate::off(),
            "shared" => Deflate::shared(),
            "dedicated" => Deflate::dedicated(WINDOW),
            other => return Err(format!("no such mode: {other}").into()),
        },
        size: size.parse()?,
        connections: connections.parse()?,
        seconds: seconds.parse()?,
    };
    match mode.as_str() {
        "echo" => echo(&options),
        "broadcast" => broadcast(&options),
        "idle" => idle(&options),
        other => Err(format!("no such load: {other}").into()),
    }
}
