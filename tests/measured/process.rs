//! The server as a process of its own: the memory, the file descriptors and the time that hostile input costs it.

use crate::support::{Client, PING, frame, head, millis, resident_of, until};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// The server as a process of its own, whose memory and files can be measured.
struct Process {
    child: Child,
    addr: SocketAddr,
}

impl Process {
    fn start(open_files: Option<u32>) -> Self {
        let program = env!("CARGO_BIN_EXE_campanile");
        let args = ["--dev", "--listen", "127.0.0.1:0", "--workers", "1", "--log", "off"];
        let mut command = match open_files {
            None => Command::new(program),
            Some(n) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(format!("ulimit -n {n}; exec \"$0\" \"$@\"")).arg(program);
                shell
            }
        };
        let mut child = command.args(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addr = line.split("http://").nth(1).and_then(|a| a.trim().trim_end_matches('/').parse().ok());
        Self { child, addr: addr.unwrap_or_else(|| panic!("no address in {line:?}")) }
    }

    fn open(&self, receive_buffer: Option<usize>) -> Client {
        let mut client = Client::dial_with(self.addr, receive_buffer);
        client.upgrade("/echo");
        client
    }

    fn resident(&self) -> usize {
        resident_of(self.child.id())
    }

    /// CPU time so far, in clock ticks of 10 ms.
    fn cpu(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn t5_a_length_within_the_limit_costs_only_what_comes() {
    let server = Process::start(None);
    server.open(None).expect_nothing_until_pong();
    let before = server.resident();
    let mut clients: Vec<Client> = (0..100).map(|_| server.open(None)).collect();
    for client in &mut clients {
        client.send(head(0x82, 16 << 20, [0; 4])); // 1.6 GB are announced
        client.send([0; 1000]);
    }
    server.open(None).expect_nothing_until_pong();
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 40 << 20, "{grown} bytes");
}

#[test]
fn t18_a_ping_flood_from_a_client_that_does_not_read_takes_no_memory() {
    let server = Process::start(None);
    let mut healthy = server.open(None);
    healthy.expect_nothing_until_pong();
    let before = server.resident();
    let mut client = server.open(Some(4096));
    client.socket.set_write_timeout(Some(millis(500))).unwrap();
    let burst = frame(true, PING, &[0; 125]).repeat(2000);
    for _ in 0..60 {
        if client.try_send(&burst).is_err() {
            break; // 16 MB, or as much as is read
        }
    }
    healthy.expect_nothing_until_pong();
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes");
}

#[test]
fn t18_requests_from_a_client_that_does_not_read_take_no_memory() {
    let server = Process::start(None);
    let mut healthy = server.open(None);
    healthy.expect_nothing_until_pong();
    let before = server.resident();
    let mut client = Client::dial_with(server.addr, Some(4096));
    client.socket.set_write_timeout(Some(millis(500))).unwrap();
    let burst = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(10_000);
    for _ in 0..20 {
        if client.try_send(burst.as_bytes()).is_err() {
            break;
        }
    }
    healthy.expect_nothing_until_pong();
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes");
}

#[test]
fn t30_a_server_out_of_file_descriptors_neither_spins_nor_ends_and_recovers() {
    let server = Process::start(Some(24));
    let mut healthy = server.open(None);
    healthy.text("before");
    assert_eq!(healthy.read_text(), "before");
    // The kernel takes these; the server can't.
    let waiting: Vec<Client> = (0..40).map(|_| Client::dial(server.addr)).collect();
    let cpu = server.cpu();
    let began = Instant::now();
    while began.elapsed() < millis(600) {
        healthy.text("during");
        assert_eq!(healthy.read_text(), "during");
        std::thread::park_timeout(millis(20)); // the time in which it could spin
    }
    let spent = server.cpu() - cpu;
    assert!(spent < 20, "{spent} ticks of CPU in 60");
    drop(waiting);
    let mut late = server.open(None);
    late.text("after");
    assert_eq!(late.read_text(), "after");
}

#[test]
fn t31_a_thousand_connections_come_and_go_and_nothing_stays() {
    let server = Process::start(None);
    let files = || std::fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap().count();
    let idle = files();
    server.open(None).expect_nothing_until_pong();
    until("the first has gone", || files() <= idle);
    let (before, memory) = (files(), server.resident());
    for _ in 0..20 {
        let clients: Vec<Client> = (0..50).map(|_| server.open(None)).collect();
        clients.into_iter().for_each(Client::reset);
    }
    until("every descriptor is closed", || files() <= before);
    let grown = server.resident().saturating_sub(memory);
    assert!(grown < 4 << 20, "{grown} bytes");
}

#[test]
fn clients_of_push_publish_below_public_alone() {
    let server = Process::start(None);
    let mut client = Client::dial_with(server.addr, None);
    client.upgrade("/push");
    assert!(client.read_text().starts_with(r#"{"type":"hello""#));
    let mut ask = |request: &str| {
        client.text(request);
        client.read_text()
    };
    let published = ask(r#"{"type":"publish","id":1,"topic":"public/bell","data":[1]}"#);
    assert!(published.starts_with(r#"{"type":"published","id":1,"epoch":"#), "{published}");
    let refused = ask(r#"{"type":"publish","id":2,"topic":"bell","data":[1]}"#);
    assert!(refused.starts_with(r#"{"type":"error","id":2,"code":"forbidden""#), "{refused}");
    // It is kept for who comes back.
    let subscribed = ask(r#"{"type":"subscribe","id":3,"topic":"public/bell","latest":true}"#);
    assert!(subscribed.contains(r#""replayed":1"#), "{subscribed}");
    assert_eq!(client.read_text(), r#"{"type":"message","topic":"public/bell","offset":1,"data":[1]}"#);
    client.text(r#"{"type":"subscribe","id":4,"topic":"bell"}"#);
    assert!(client.read_text().starts_with(r#"{"type":"error","id":4,"code":"forbidden""#));
}
