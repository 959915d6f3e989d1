//! The binary where its standard output and standard error fail, or are read by nobody: it serves on, ends when it is told
//! to, and with the exit code that it would have had.

use crate::support::process::{Process, campanile, exit_of};
use crate::support::{Client, DEADLINE};
use std::io::{BufRead, BufReader, PipeReader, Read, Write, pipe};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Instant;

/// What fails at every write, with "No space left on device".
fn full() -> Stdio {
    std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

/// A pipe that its reader has closed.
fn closed_pipe() -> Stdio {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    writer.into()
}

const KEY: &str = "a-key-for-this-test-only-0123456789";

fn start(args: &[&str], stderr: Stdio) -> Process {
    let mut command = campanile();
    command.args(["--listen", "127.0.0.1:0", "--dev"]).args(args).env("CAMPANILE_API_KEY", KEY);
    let mut process = Process::start(command.stderr(stderr));
    process.stdout = None; // closed, as by a reader that has gone
    process
}

fn echoes(process: &Process) {
    let mut client = Client::dial(process.addr);
    client.upgrade("/echo");
    client.text("still here");
    assert_eq!(client.read_text(), "still here");
}

/// Runs to the end, with nothing on standard input.
fn run(args: &[&str], stdout: Stdio, stderr: Stdio) -> (Option<i32>, String) {
    let mut child = campanile().args(args).stdout(stdout).stderr(stderr).spawn().unwrap();
    let status = exit_of(&mut child);
    let mut text = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut text).unwrap();
    }
    (status.code(), text)
}

#[test]
fn an_unwritable_standard_error_does_not_end_the_server() {
    for stderr in [full, closed_pipe] {
        for workers in ["1", "2"] {
            let process = start(&["--workers", workers, "--log", "debug"], stderr());
            echoes(&process);
            echoes(&process);
            assert_eq!(process.terminate().code(), Some(0), "{workers} workers");
        }
    }
}

#[test]
fn an_unwritable_standard_error_keeps_the_exit_code() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for stderr in [full, closed_pipe] {
        assert_eq!(run(&["--listen", &addr], Stdio::null(), stderr()).0, Some(1));
        assert_eq!(run(&["--no-such-option"], Stdio::null(), stderr()).0, Some(2));
    }
    let (code, text) = run(&["--listen", &addr], Stdio::null(), Stdio::piped());
    assert_eq!(code, Some(1));
    assert!(text.starts_with(&format!("campanile: can't listen on {addr}: ")), "{text}");
}

#[test]
fn unwritable_help_is_an_error_unless_the_reader_closed_the_pipe() {
    for option in ["--help", "--version"] {
        let (code, text) = run(&[option], full(), Stdio::piped());
        assert_eq!(code, Some(1), "{option}");
        assert!(
            text.starts_with("campanile: can't write to standard output: No space left"),
            "{option}: {text}"
        );
        assert_eq!(run(&[option], closed_pipe(), Stdio::piped()), (Some(0), String::new()), "{option}");
        assert_eq!(run(&[option], Stdio::null(), Stdio::piped()), (Some(0), String::new()), "{option}");
    }
}

#[test]
fn a_wrong_option_is_reported_without_waiting_for_a_reader() {
    let (reader, mut writer) = pipe().unwrap();
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
    while writer.write(&[b'\n'; 1024]).is_ok() {}
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::empty()).unwrap();
    assert_eq!(run(&["--no-such-option"], Stdio::null(), writer.into()).0, Some(2));
    drop(reader);
}

/// A server whose log is a pipe that nobody reads, after more than fits in it was logged.
fn stalled(workers: &str) -> (Process, PipeReader) {
    let (reader, writer) = pipe().unwrap();
    let process = start(&["--workers", workers, "--log", "debug"], writer.into());
    let began = Instant::now();
    // Some 64 bytes of debug lines for each; the pipe holds 64 KiB and the queue 4,096 lines.
    for _ in 0..6000 {
        let mut socket = TcpStream::connect(process.addr).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(began.elapsed() < 6 * DEADLINE);
    }
    (process, reader)
}

#[test]
fn an_unread_log_blocks_neither_workers_nor_shutdown() {
    for workers in ["1", "2"] {
        let (process, reader) = stalled(workers);
        echoes(&process);
        let asked = Instant::now();
        assert_eq!(process.terminate().code(), Some(0), "{workers} workers");
        assert!(asked.elapsed() < DEADLINE / 2);
        drop(reader);
    }
}

#[test]
fn lost_log_lines_are_counted_and_reported_later() {
    let (process, reader) = stalled("1");
    let mut lines = BufReader::new(reader).lines();
    let told = lines
        .find(|line| line.as_ref().is_ok_and(|line| line.contains(" log lines lost: ")))
        .unwrap()
        .unwrap();
    let lost: u64 = told.split(' ').next().unwrap().parse().unwrap();
    assert!(lost > 0, "{told}");
    let mut client = Client::dial(process.addr);
    client.send(format!("GET /api/info HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n\r\n"));
    let answer = client.answer();
    let info = answer.text();
    let (_, counted) = info.split_once("\"log_lines_lost\":").unwrap_or_else(|| panic!("{info}"));
    let counted: u64 = counted[..counted.find([',', '}']).unwrap()].parse().unwrap();
    assert!(counted >= lost, "{counted} counted, {lost} told");
    std::thread::spawn(move || lines.for_each(drop));
    assert_eq!(process.terminate().code(), Some(0));
}
