//! The server as a process of its own: the memory, the file descriptors and the time that hostile input costs it.

use crate::alone;
use crate::support::folder::Folder;
use crate::support::process::{Process, campanile};
use crate::support::tls;
use crate::support::{Client, PING, frame, head, millis, resident_of, until};
use std::process::Command;
use std::time::Instant;

const ARGS: [&str; 7] = ["--dev", "--listen", "127.0.0.1:0", "--workers", "1", "--log", "off"];

fn start() -> Process {
    Process::start(campanile().args(ARGS))
}

/// A server with this limit on its open files.
fn start_with_open_files(n: u32) -> Process {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("ulimit -n {n}; exec \"$0\" \"$@\"")).arg(campanile().get_program());
    Process::start(shell.args(ARGS))
}

fn open(server: &Process, receive_buffer: Option<usize>) -> Client {
    let mut client = Client::dial_with(server.addr, receive_buffer);
    client.upgrade("/echo");
    client
}

fn resident(server: &Process) -> usize {
    resident_of(server.child.id())
}

/// CPU time so far, in clock ticks of 10 ms.
fn cpu(server: &Process) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.child.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn a_length_within_the_limit_costs_only_what_comes() {
    let _alone = alone();
    let server = start();
    open(&server, None).expect_nothing_until_pong();
    let before = resident(&server);
    let mut clients: Vec<Client> = (0..100).map(|_| open(&server, None)).collect();
    for client in &mut clients {
        client.send(head(0x82, 16 << 20, [0; 4])); // 1.6 GB are announced
        client.send([0; 1000]);
    }
    open(&server, None).expect_nothing_until_pong();
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < 40 << 20, "{grown} bytes");
}

#[test]
fn a_ping_flood_from_a_client_that_does_not_read_takes_no_memory() {
    let _alone = alone();
    let server = start();
    let mut healthy = open(&server, None);
    healthy.expect_nothing_until_pong();
    let before = resident(&server);
    let mut client = open(&server, Some(4096));
    client.socket.set_write_timeout(Some(millis(500))).unwrap();
    let burst = frame(true, PING, &[0; 125]).repeat(2000);
    for _ in 0..60 {
        if client.try_send(&burst).is_err() {
            break; // 16 MB, or as much as is read
        }
    }
    healthy.expect_nothing_until_pong();
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes");
}

#[test]
fn requests_from_a_client_that_does_not_read_take_no_memory() {
    let _alone = alone();
    let server = start();
    let mut healthy = open(&server, None);
    healthy.expect_nothing_until_pong();
    let before = resident(&server);
    let mut client = Client::dial_with(server.addr, Some(4096));
    client.socket.set_write_timeout(Some(millis(500))).unwrap();
    let burst = "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(10_000);
    for _ in 0..20 {
        if client.try_send(burst.as_bytes()).is_err() {
            break;
        }
    }
    healthy.expect_nothing_until_pong();
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes");
}

#[test]
fn a_server_out_of_file_descriptors_neither_spins_nor_ends_and_recovers() {
    let _alone = alone();
    let server = start_with_open_files(24);
    let mut healthy = open(&server, None);
    healthy.text("before");
    assert_eq!(healthy.read_text(), "before");
    // The kernel takes these; the server can't.
    let waiting: Vec<Client> = (0..40).map(|_| Client::dial(server.addr)).collect();
    let before = cpu(&server);
    let began = Instant::now();
    while began.elapsed() < millis(600) {
        healthy.text("during");
        assert_eq!(healthy.read_text(), "during");
        std::thread::park_timeout(millis(20)); // the time in which it could spin
    }
    let spent = cpu(&server) - before;
    assert!(spent < 20, "{spent} ticks of CPU in 60");
    drop(waiting);
    let mut late = open(&server, None);
    late.text("after");
    assert_eq!(late.read_text(), "after");
}

#[test]
fn a_thousand_connections_come_and_go_and_nothing_stays() {
    let _alone = alone();
    let server = start();
    let files = || std::fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap().count();
    let idle = files();
    open(&server, None).expect_nothing_until_pong();
    until("the first has gone", || files() <= idle);
    let (before, memory) = (files(), resident(&server));
    for _ in 0..20 {
        let clients: Vec<Client> = (0..50).map(|_| open(&server, None)).collect();
        clients.into_iter().for_each(Client::reset);
    }
    until("every descriptor is closed", || files() <= before);
    let grown = resident(&server).saturating_sub(memory);
    assert!(grown < 4 << 20, "{grown} bytes");
}

#[test]
fn an_idle_connection_over_tls_is_small() {
    let _alone = alone();
    const CONNECTIONS: usize = 400;
    let folder = Folder::new();
    let mut command = campanile();
    command.env_remove("STATE_DIRECTORY").env("XDG_STATE_HOME", &folder.0);
    command.args([
        "--dev",
        "--tls-listen",
        "127.0.0.1:0",
        "--tls-self-signed",
        "--workers",
        "1",
        "--log",
        "off",
    ]);
    let server = Process::start(&mut command);
    let pem = std::fs::read_to_string(folder.0.join("campanile/self-signed.pem")).unwrap();
    let config = tls::trusting(&pem);
    let open = |n: usize| -> Vec<Client> {
        let clients = (0..n).map(|_| {
            let mut client = tls::shake(server.addr, &config, "localhost").unwrap();
            client.upgrade("/echo");
            client.text("once");
            assert_eq!(client.read_text(), "once");
            client
        });
        clients.collect()
    };
    let first = open(100);
    let before = resident_of(server.child.id());
    let then = open(CONNECTIONS);
    let each = resident_of(server.child.id()).saturating_sub(before) / CONNECTIONS;
    eprintln!("{each} bytes for an idle connection");
    assert!(each < 6 << 10, "{each} bytes for an idle connection");
    drop((first, then));
}
