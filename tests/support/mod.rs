//! What the tests over real sockets share: a server that ends with its test, a raw client that says every byte itself,
//! and a handler that reports what it was told. Everything waits for something with a deadline; nothing sleeps.

#![allow(dead_code)] // each suite uses its part

#[cfg(feature = "client")]
pub(crate) mod clients;
pub(crate) mod data;
pub(crate) mod folder;
pub(crate) mod isolated;
#[cfg(feature = "deflate")]
pub(crate) mod packed;
#[cfg(feature = "cli")]
pub(crate) mod process;
#[cfg(any(feature = "api", feature = "push"))]
pub(crate) mod push;
mod recorder;
#[cfg(feature = "tls")]
pub(crate) mod tls;
#[cfg(any(feature = "api", feature = "push"))]
pub(crate) mod traveller;

#[allow(unused_imports)]
pub(crate) use recorder::{At, Event, Events, Recorder, echo, recorder};

use campanile::{Builder, Handle, HandleError, Limits, ListenAddr, Route, RunError, Running, Server};
use crossbeam_channel::unbounded;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long anything may take that should come at once.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

// ---- the server ----

/// A server on a port that the system chose. It is shut down and joined when the test is over, and the test fails if
/// one of its workers did not live to see that.
pub(crate) struct TestServer {
    pub(crate) addr: SocketAddr,
    pub(crate) handle: Handle,
    running: Option<Running>,
}

/// A builder with one worker.
pub(crate) fn builder() -> Builder {
    Server::builder().workers(1)
}

pub(crate) fn start(builder: Builder) -> TestServer {
    start_at(builder, "127.0.0.1:0")
}

/// The same at an address that was used before.
pub(crate) fn start_at(builder: Builder, addr: &str) -> TestServer {
    start_built(builder.listen(addr))
}

/// The same for one that knows where to listen.
pub(crate) fn start_built(builder: Builder) -> TestServer {
    let server = builder.build().expect("the server is built");
    let addr = server.local_addr().expect("it listens on TCP");
    let handle = server.handle();
    TestServer { addr, handle, running: Some(server.spawn().expect("the server starts")) }
}

/// A server with one worker and one route, `/`.
pub(crate) fn serve(route: impl Into<Route>) -> TestServer {
    start(builder().route("/", route))
}

impl TestServer {
    /// A client that has not said anything yet.
    pub(crate) fn dial(&self) -> Client {
        Client::dial(self.addr)
    }

    /// A client with an open WebSocket at `path`.
    pub(crate) fn open(&self, path: &str) -> Client {
        let mut client = self.dial();
        client.upgrade(path);
        client
    }

    /// A client that takes little before it makes the server wait.
    pub(crate) fn open_slow(&self, path: &str) -> Client {
        let mut client = Client::dial_with(self.addr, Some(4096));
        client.upgrade(path);
        client
    }

    /// Waits until the server's counters say so.
    pub(crate) fn until(&self, what: &str, says: impl Fn(&campanile::Stats) -> bool) {
        until(what, || says(&self.handle.stats()));
    }

    /// Waits for a server that ends by itself and gives the reason.
    pub(crate) fn failed(mut self) -> RunError {
        let running = self.running.take().expect("it runs");
        let (done, joined) = unbounded();
        std::thread::spawn(move || {
            let _ = done.send(running.join());
        });
        joined.recv_timeout(DEADLINE).expect("it ends").expect_err("a worker has failed")
    }

    /// For tests that end the server themselves: nobody is to be asked at the end.
    pub(crate) fn ended(mut self) {
        if let Some(running) = self.running.take() {
            join(running);
        }
    }

    /// Waits until every worker has done what was asked of it before.
    pub(crate) fn settle(&self) {
        self.handle.subscribers("nobody listens here").wait().expect("every worker answers");
    }

    /// Shuts down with this much time for goodbyes and waits for the end.
    pub(crate) fn shutdown(&mut self, grace: Duration) {
        self.handle.shutdown(grace);
        if let Some(running) = self.running.take() {
            join(running);
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let Some(running) = self.running.take() else { return };
        let answer = self.handle.subscribers("nobody listens here").wait();
        self.handle.shutdown(Duration::from_millis(1));
        if std::thread::panicking() {
            return; // the failure that is known already is the one to report
        }
        let alive = matches!(answer, Ok(_) | Err(HandleError::Ended));
        assert!(alive, "every worker is alive at the end of the test, or has ended: {answer:?}");
        join(running);
    }
}

fn join(running: Running) {
    let (done, joined) = unbounded();
    std::thread::spawn(move || {
        let _ = done.send(running.join());
    });
    let ended = joined.recv_timeout(DEADLINE).expect("the server ends when it is told to");
    ended.expect("no worker failed");
}

/// Waits for something that other threads bring about and that can only be looked at.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "still waiting: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Memory of this process that is resident, in bytes.
pub(crate) fn resident() -> usize {
    resident_of(std::process::id())
}

pub(crate) fn resident_of(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("/proc is there");
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("it has a resident size");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("in KiB") * 1024
}

// ---- the raw client ----

pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// The key of RFC 6455's example, and its answer.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) fin: bool,
    pub(crate) rsv1: bool,
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

/// A response as it came.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).next()
    }

    pub(crate) fn headers<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }
}

/// A client that sends just what it is told to.
pub(crate) struct Client {
    pub(crate) socket: Socket,
    buf: Vec<u8>,
    /// Whether messages may come compressed.
    pub(crate) rsv1: bool,
    /// What is between it and the socket, if anything.
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Box<rustls::ClientConnection>>,
}

/// A request for a WebSocket, with these further header lines, each with its end.
pub(crate) fn upgrade_request(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: bell.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

/// A masked frame.
pub(crate) fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut out = head(u8::from(fin) << 7 | opcode, payload.len() as u64, MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m));
    out
}

/// The head of a masked frame, its length in the shortest form.
pub(crate) fn head(first: u8, len: u64, mask: [u8; 4]) -> Vec<u8> {
    let mut out = vec![first];
    match len {
        0..126 => out.push(0x80 | len as u8),
        126..=0xFFFF => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend_from_slice(&len.to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out
}

pub(crate) fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason.as_bytes()].concat()
}

impl Client {
    pub(crate) fn dial(addr: SocketAddr) -> Self {
        Self::dial_with(addr, None)
    }

    pub(crate) fn dial_with(addr: SocketAddr, receive_buffer: Option<usize>) -> Self {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).expect("a socket");
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes).expect("a small window");
        }
        socket.connect_timeout(&addr.into(), DEADLINE).expect("the server takes connections");
        socket.set_tcp_nodelay(true).expect("no delay");
        Self::over(socket)
    }

    pub(crate) fn dial_unix(path: &Path) -> Self {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        socket.connect(&SockAddr::unix(path).expect("a path")).expect("the server takes connections");
        Self::over(socket)
    }

    pub(crate) fn over(socket: Socket) -> Self {
        socket.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        socket.set_write_timeout(Some(DEADLINE)).expect("a deadline");
        Self {
            socket,
            buf: Vec::new(),
            rsv1: false,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr().ok().and_then(|a| a.as_socket()).expect("a TCP socket")
    }

    // ---- sending ----

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes.as_ref()).expect("the server reads");
    }

    /// Sends as much as the server lets it; says how much of it went before the server had enough.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            return rustls::Stream::new(&mut **tls, &mut &self.socket).write_all(bytes);
        }
        (&self.socket).write_all(bytes)
    }

    fn read(&mut self, piece: &mut [u8]) -> std::io::Result<usize> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            return rustls::Stream::new(&mut **tls, &mut &self.socket).read(piece);
        }
        (&self.socket).read(piece)
    }

    pub(crate) fn frame(&mut self, fin: bool, opcode: u8, payload: &[u8]) {
        self.send(frame(fin, opcode, payload));
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.frame(true, TEXT, text.as_bytes());
    }

    pub(crate) fn binary(&mut self, bytes: &[u8]) {
        self.frame(true, BINARY, bytes);
    }

    pub(crate) fn ping(&mut self, payload: &[u8]) {
        self.frame(true, PING, payload);
    }

    pub(crate) fn close(&mut self, code: u16, reason: &str) {
        self.frame(true, CLOSE, &close_payload(code, reason));
    }

    /// Ends our half.
    pub(crate) fn end(&self) {
        self.socket.shutdown(Shutdown::Write).expect("it is connected");
    }

    /// Goes with a reset.
    pub(crate) fn reset(self) {
        self.socket.set_linger(Some(Duration::ZERO)).expect("linger");
    }

    // ---- receiving ----

    /// Receives more; false at the end of the stream.
    fn more(&mut self) -> bool {
        let mut piece = vec![0; 64 << 10];
        match self.read(&mut piece) {
            Ok(0) => false,
            Ok(n) => {
                self.buf.extend_from_slice(&piece[..n]);
                true
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => true,
            Err(e) => panic!("nothing came: {e}; before it: {}", shorten(&self.buf)),
        }
    }

    fn take(&mut self, n: usize) -> Vec<u8> {
        while self.buf.len() < n {
            assert!(self.more(), "the stream ended after {}", shorten(&self.buf));
        }
        let rest = self.buf.split_off(n);
        std::mem::replace(&mut self.buf, rest)
    }

    /// The head of a response, without its empty line.
    pub(crate) fn read_head(&mut self) -> String {
        let end = loop {
            if let Some(at) = self.buf.windows(4).position(|w| w == b"\r\n\r\n") {
                break at;
            }
            assert!(self.more(), "the stream ended within a head: {}", shorten(&self.buf));
        };
        let head = self.take(end + 4);
        String::from_utf8(head[..end].to_vec()).expect("a head is ASCII")
    }

    fn answer_with(&mut self, body: bool) -> Answer {
        let head = self.read_head();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
        let mut answer = Answer { status, head, body: Vec::new() };
        let len = answer.header("content-length").map_or(0, |n| n.parse().expect("a length"));
        if body && status != 304 && status >= 200 {
            answer.body = self.take(len);
        }
        answer
    }

    /// A response with its body.
    pub(crate) fn answer(&mut self) -> Answer {
        self.answer_with(true)
    }

    /// The response to a HEAD.
    pub(crate) fn answer_to_head(&mut self) -> Answer {
        self.answer_with(false)
    }

    /// Sends a request for a WebSocket and gives the answer, whatever it is.
    pub(crate) fn ask(&mut self, path: &str, more: &str) -> Answer {
        self.send(upgrade_request(path, more));
        self.answer()
    }

    /// Opens a WebSocket.
    pub(crate) fn upgrade(&mut self, path: &str) -> Answer {
        let answer = self.ask(path, "");
        assert_eq!(answer.status, 101, "{answer:?}");
        assert_eq!(answer.header("sec-websocket-accept"), Some(ACCEPT));
        answer
    }

    pub(crate) fn read_frame(&mut self) -> Frame {
        let start = self.take(2);
        assert_eq!(start[1] & 0x80, 0, "a server doesn't mask");
        let rsv1 = start[0] & 0x40 != 0;
        assert!(start[0] & 0x30 == 0 && (self.rsv1 || !rsv1), "nothing was negotiated");
        let len = match start[1] {
            126 => u64::from(u16::from_be_bytes(self.take(2).try_into().expect("two bytes"))),
            127 => u64::from_be_bytes(self.take(8).try_into().expect("eight bytes")),
            n => u64::from(n),
        };
        let payload = self.take(len as usize);
        Frame { fin: start[0] & 0x80 != 0, rsv1, opcode: start[0] & 0xF, payload }
    }

    /// The next frame must be a whole message of this kind.
    fn read_message(&mut self, opcode: u8) -> Vec<u8> {
        let frame = self.read_frame();
        assert_eq!((frame.fin, frame.opcode), (true, opcode), "{:?}", shorten(&frame.payload));
        frame.payload
    }

    pub(crate) fn read_text(&mut self) -> String {
        String::from_utf8(self.read_message(TEXT)).expect("text is UTF-8")
    }

    pub(crate) fn read_binary(&mut self) -> Vec<u8> {
        self.read_message(BINARY)
    }

    pub(crate) fn read_ping(&mut self) -> Vec<u8> {
        self.read_message(PING)
    }

    pub(crate) fn read_pong(&mut self) -> Vec<u8> {
        self.read_message(PONG)
    }

    /// The next frame is a close frame: its code (1005 for none) and reason.
    pub(crate) fn read_close(&mut self) -> (u16, String) {
        let payload = self.read_message(CLOSE);
        let Some((code, reason)) = payload.split_first_chunk::<2>() else {
            assert!(payload.is_empty(), "half a code");
            return (1005, String::new());
        };
        (u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).expect("a reason is UTF-8"))
    }

    /// Reads over whatever comes before the close frame.
    pub(crate) fn skip_to_close(&mut self) -> u16 {
        loop {
            let frame = self.read_frame();
            if frame.opcode == CLOSE {
                return frame.payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
            }
        }
    }

    /// The stream ends here, in order: nothing more, and no reset.
    pub(crate) fn expect_eof(&mut self) {
        assert_eq!(shorten(&self.buf), "", "nothing more was to come");
        let more = self.more();
        assert!(!more, "there is more: {}", shorten(&self.buf));
    }

    /// The stream ends here, one way or the other.
    pub(crate) fn expect_gone(&mut self) {
        let mut piece = [0; 4096];
        loop {
            match (&self.socket).read(&mut piece) {
                Ok(0) => return,
                Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => return,
                Ok(_) => {}
                Err(e) => panic!("it is still there: {e}"),
            }
        }
    }

    /// Fails with this code, and then the stream ends.
    pub(crate) fn expect_failed(&mut self, code: u16) -> String {
        let (got, reason) = self.read_close();
        assert_eq!(got, code, "{reason}");
        self.expect_eof();
        reason
    }

    /// Everything up to the end of the stream, in whatever way it ends.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.buf);
        let _ = (&self.socket).read_to_end(&mut all); // a reset ends it as well
        all
    }

    /// Whether the other end answers: what it has sent before comes first, so nothing else may have come.
    pub(crate) fn expect_nothing_until_pong(&mut self) {
        self.ping(b"fence");
        assert_eq!(self.read_pong(), b"fence");
    }
}

/// A payload that fits an error message.
pub(crate) fn shorten(bytes: &[u8]) -> String {
    let shown = bytes[..bytes.len().min(60)].escape_ascii().to_string();
    if bytes.len() > 60 { format!("{shown}… ({} bytes)", bytes.len()) } else { shown }
}

// ---- settings ----

pub(crate) fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

pub(crate) fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The path of a Unix socket among the server's addresses.
pub(crate) fn unix_path(addrs: &[ListenAddr]) -> &Path {
    let path =
        addrs.iter().find_map(|a| if let ListenAddr::Unix(path) = a { Some(path.as_path()) } else { None });
    path.expect("it listens on a Unix socket")
}
