//! The binary against small servers in this process: what it counts, what it notices, how it exits.

use campanile::deflate::Deflate;
use campanile::protocol::{Opcode, header};
use serde_json::Value;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use tungstenite::protocol::CloseFrame;
use tungstenite::{Bytes, Message, WebSocket};

/// No run here takes longer, on any machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A server that gives each connection to `serve`, on a thread of its own.
fn server(serve: impl Fn(WebSocket<TcpStream>) + Send + Sync + 'static) -> SocketAddr {
    raw_server(move |stream| {
        if let Ok(socket) = tungstenite::accept(stream) {
            serve(socket);
        }
    })
}

fn raw_server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, serve) = (stream.unwrap(), Arc::clone(&serve));
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn echo(mut socket: WebSocket<TcpStream>) {
    while let Ok(message) = socket.read() {
        if matches!(message, Message::Text(_) | Message::Binary(_)) && socket.send(message).is_err() {
            return;
        }
    }
}

fn spawn(line: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_campanile-loadtest"));
    command.args(line.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn end_of(child: Child) -> Output {
    let pid = rustix::process::Pid::from_child(&child);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
    receiver.recv_timeout(DEADLINE).unwrap_or_else(|_| {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        panic!("it did not end in time");
    })
}

/// Exit status and report.
fn report(line: &str) -> (i32, Value) {
    read(end_of(spawn(&format!("{line} --json -"))))
}

fn read(output: Output) -> (i32, Value) {
    let text = String::from_utf8(output.stdout).unwrap();
    let report = serde_json::from_str(&text);
    let errors = String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), report.unwrap_or_else(|e| panic!("{e}: {text}{errors}")))
}

fn errors(report: &Value) -> Vec<&str> {
    report["errors"].as_object().unwrap().keys().map(String::as_str).collect()
}

const SHORT: &str = "--warmup 50ms --duration 200ms";

#[test]
fn an_echo_server_is_measured_without_errors() {
    let address = server(echo);
    for traffic in ["--size 20", "--size 0", "--size 1..3000 --text --depth 8", "--size 300k --depth 2"] {
        let (status, r) = report(&format!("echo ws://{address}/ -c 5 --threads 2 {traffic} {SHORT}"));
        assert_eq!((status, errors(&r)), (0, vec![]), "{traffic}");
        assert!(r["messages"].as_u64().unwrap() > 0, "{traffic}");
        assert_eq!(r["connections"]["alive_at_end"], 5);
        assert_eq!(r["latency_ns"]["count"], r["messages"]);
        assert_eq!(r["connect_ns"]["count"], 5);
    }
}

#[test]
fn raw_tcp_measures_a_server_without_websocket() {
    let address = raw_server(|stream| {
        let _ = io::copy(&mut &stream, &mut &stream);
    });
    for traffic in ["--size 20 --depth 8", "--size 1 --rate 2000", "--size 300k"] {
        let (status, r) = report(&format!("echo tcp://{address} -c 3 --threads 2 {traffic} {SHORT}"));
        assert_eq!((status, errors(&r)), (0, vec![]), "{traffic}");
        assert!(r["messages"].as_u64().unwrap() > 0, "{traffic}");
        assert_eq!((&r["connections"]["alive_at_end"], &r["connect_ns"]["count"]), (&3.into(), &3.into()));
    }
}

#[test]
fn raw_tcp_reports_changed_bytes_as_a_mismatch() {
    let address = raw_server(|mut stream| {
        let mut bytes = [0; 20];
        while stream.read_exact(&mut bytes).is_ok() && stream.write_all(&[b'?'; 20]).is_ok() {}
    });
    let (status, r) = report(&format!("echo tcp://{address} -c 1 --size 20 {SHORT}"));
    assert_eq!((status, errors(&r)), (1, vec!["mismatch"]));
}

#[test]
fn the_text_report_has_the_figures_of_the_json_report() {
    let pid = std::process::id();
    let output = end_of(spawn(&format!("echo ws://{}/ -c 2 --pid {pid} {SHORT}", server(echo))));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    for word in ["messages", "p99.9", "server CPU", "bytes per connection", "client CPU", "errors      none"]
    {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn a_changed_byte_is_a_mismatch() {
    let address = server(|mut socket| {
        for n in 0.. {
            let Ok(Message::Binary(bytes)) = socket.read() else { return };
            let mut bytes = bytes.to_vec();
            if n == 3 {
                bytes[50] ^= 1;
            }
            if socket.send(Message::Binary(bytes.into())).is_err() {
                return;
            }
        }
    });
    let (status, r) = report(&format!("echo ws://{address}/ -c 1 --size 100 {SHORT}"));
    assert_eq!((status, errors(&r), &r["errors"]["mismatch"]), (1, vec!["mismatch"], &1.into()));
    assert!(r["mismatch"].as_str().unwrap().contains("message 3"));
}

#[test]
fn a_lost_and_a_repeated_message_are_reported() {
    let address = server(|mut socket| {
        let mut last = None;
        for n in 0.. {
            let Ok(message) = socket.read() else { return };
            let answers = match n {
                2 => vec![],
                5 => last.into_iter().chain([message.clone()]).collect(),
                _ => vec![message.clone()],
            };
            last = Some(message);
            if answers.into_iter().any(|m| socket.send(m).is_err()) {
                return;
            }
        }
    });
    let (status, r) = report(&format!("echo ws://{address}/ -c 1 --depth 4 {SHORT}"));
    assert_eq!((status, errors(&r)), (1, vec!["lost", "repeated or out of order"]));
}

#[test]
fn open_loop_latency_runs_from_when_messages_were_due() {
    // Holds everything back until the fortieth message: at 200/s the first of them has waited for 195 ms.
    let address = server(|mut socket| {
        let mut held = Vec::new();
        while let Ok(message) = socket.read() {
            held.push(message);
            if held.len() == 40 {
                for message in held.drain(..) {
                    if socket.send(message).is_err() {
                        return;
                    }
                }
            }
        }
    });
    let (status, r) = report(&format!("echo ws://{address}/ -c 1 --rate 200 --warmup 0 --duration 500ms"));
    assert_eq!((status, errors(&r)), (0, vec![]));
    let max = r["latency_ns"]["max"].as_u64().unwrap();
    assert!(max >= 190_000_000, "{max}");
    assert!(r["latency_ns"]["p50"].as_u64().unwrap() >= 20_000_000);
}

#[test]
fn closed_connections_are_counted_by_their_code() {
    let address = server(|mut socket| {
        let _ = socket.read();
        let reason = "tower closes".into();
        let _ = socket.close(Some(CloseFrame { code: 1001.into(), reason }));
        while socket.read().is_ok() {}
    });
    let (status, r) = report(&format!("echo ws://{address}/ -c 3 {SHORT}"));
    assert_eq!((status, &r["errors"]["closed by the server: 1001 (Going Away)"]), (1, &3.into()));
    assert_eq!(r["connections"]["alive_at_end"], 0);
}

#[test]
fn protocol_errors_are_reported_by_name() {
    let address = server(|mut socket| {
        let _ = socket.read();
        let _ = socket.get_mut().write_all(&[0x83, 0]);
        let _ = socket.read();
    });
    let (status, r) = report(&format!("echo ws://{address}/ -c 1 {SHORT}"));
    assert_eq!(status, 1);
    assert!(errors(&r).contains(&"protocol error: reserved opcode 0x3"), "{r}");
}

#[test]
fn refused_handshakes_are_reported_by_status() {
    let teapot = raw_server(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 418 No\r\nContent-Length: 0\r\n\r\n");
        let _ = io::copy(&mut stream, &mut io::sink());
    });
    let (status, r) = report(&format!("echo ws://{teapot}/ -c 2 {SHORT}"));
    assert_eq!((status, errors(&r)), (1, vec!["handshake refused with status 418"]));

    let mute = raw_server(|mut stream| {
        let _ = io::copy(&mut stream, &mut io::sink());
    });
    let (status, r) = report(&format!("idle ws://{mute}/ -c 2 --timeout 200ms --duration 100ms"));
    assert_eq!((status, errors(&r)), (1, vec!["timeout: handshake"]));

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);
    let (status, r) = report(&format!("connect ws://{nobody}/ -c 2 --duration 100ms"));
    assert_eq!((status, errors(&r)), (1, vec!["refused"]));
}

/// A server that answers the handshake with 101 and then writes what `next` gives, reading nothing, until that fails.
fn flooding(next: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    server(move |mut socket| {
        let stream = socket.get_mut();
        for n in 0.. {
            if stream.write_all(&next(n)).is_err() {
                return;
            }
        }
    })
}

fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    header::write_frame(&mut frame, opcode, payload);
    frame
}

#[test]
fn a_server_that_sends_more_than_it_was_sent_is_ended_and_gets_nothing_more() {
    let many = |payload: &[u8]| frame(Opcode::Binary, payload).repeat(500);
    let (wrong, empty) = (many(&[7; 100]), many(b""));
    let (wrong, empty) = (flooding(move |_| wrong.clone()), flooding(move |_| empty.clone()));
    let raw = raw_server(|mut stream| while stream.write_all(&[7; 50_000]).is_ok() {});
    let room = flooding(|n| {
        let text = match n {
            0 => r#"{"type":"subscribed","id":0,"topic":"room","offset":0}"#.into(),
            // From every sender, with the right bytes behind the stamp.
            _ => format!(
                r#"{{"type":"message","topic":"room","offset":{n},"data":"aaaa{}aaaaaaa"}}"#,
                ["a", "b"][n as usize % 2]
            ),
        };
        frame(Opcode::Text, text.as_bytes())
    });
    for line in [
        format!("echo ws://{wrong}/ -c 2 --depth 10"),
        format!("echo ws://{empty}/ -c 2 --depth 10 --size 0"),
        format!("echo tcp://{raw} -c 2 --depth 10"),
        format!("echo ws://{wrong}/ -c 2 --rate 100"),
        format!("broadcast ws://{wrong}/ -c 2 --depth 10"),
        format!("chat ws://{wrong}/ -c 2 --depth 10"),
        format!("room ws://{room}/ -c 2 --depth 10 --size 12"),
    ] {
        let (status, r) = report(&format!("{line} --warmup 0 --duration 1h"));
        assert_eq!((status, &r["aborted"]), (1, &true.into()), "{line}: {r}");
        assert!(errors(&r).contains(&"more came back than was sent"), "{line}: {r}");
        assert!(r["sent"].as_u64().unwrap() <= 20, "{line}: {r}");
    }
}

#[test]
fn a_server_that_answers_without_reading_is_ended_before_much_waits() {
    // As many wrong echoes as are in flight, or fewer, at a time: each is an answer, and nothing is ever read.
    let some = frame(Opcode::Binary, &[7; 10]).repeat(50);
    let address = flooding(move |_| some.clone());
    let (status, r) =
        report(&format!("echo ws://{address}/ -c 1 --depth 1000 --size 10k --warmup 0 --duration 1h"));
    assert_eq!((status, &r["aborted"]), (1, &true.into()), "{r}");
    assert!(errors(&r).contains(&"more came back than was sent"), "{r}");
    // Twice what is in flight, and what the kernel holds.
    assert!(r["sent"].as_u64().unwrap() < 10_000, "{r}");
}

/// A room: what one sends, all get. `skip` says which messages nobody gets.
fn room(skip: fn(usize) -> bool) -> SocketAddr {
    let seats = Arc::new(Mutex::new(Vec::<TcpStream>::new()));
    let count = AtomicUsize::new(0);
    server(move |mut socket| {
        seats.lock().unwrap().push(socket.get_ref().try_clone().unwrap());
        while let Ok(message) = socket.read() {
            let opcode = if message.is_text() { Opcode::Text } else { Opcode::Binary };
            let mut frame = Vec::new();
            header::write_frame(&mut frame, opcode, &message.into_data());
            let seats = seats.lock().unwrap();
            if !skip(count.fetch_add(1, Relaxed)) {
                for mut seat in &*seats {
                    let _ = seat.write_all(&frame);
                }
            }
        }
    })
}

#[test]
fn broadcasts_are_counted_as_deliveries() {
    for traffic in ["--threads 2 --depth 3", "--text --size 0..500", "--size 3", "--rate 500 --threads 2"] {
        let (status, r) = report(&format!("broadcast ws://{}/ -c 6 {traffic} {SHORT}", room(|_| false)));
        assert_eq!((status, errors(&r)), (0, vec![]), "{traffic}");
        assert!(r["messages"].as_u64().unwrap() > 0, "{traffic}");
        assert_eq!(r["latency_ns"]["count"], r["messages"], "{traffic}");
    }
}

#[test]
fn an_undelivered_broadcast_counts_as_lost_for_each_receiver() {
    let address = room(|n| n == 2);
    let (status, r) = report(&format!("broadcast ws://{address}/ -c 4 --depth 2 {SHORT}"));
    assert_eq!((status, errors(&r), &r["errors"]["lost"]), (1, vec!["lost"], &4.into()));
}

#[test]
fn in_a_chat_everyone_talks_to_everyone() {
    for traffic in ["--text --depth 2 --threads 2", "--rate 1000 --threads 2 --size 10..90"] {
        let (status, r) = report(&format!("chat ws://{}/ -c 5 {traffic} {SHORT}", room(|_| false)));
        assert_eq!((status, errors(&r)), (0, vec![]), "{traffic}");
        assert!(r["sent"].as_u64().unwrap() > 0 && r["messages"].as_u64().unwrap() > 0);
    }
}

/// This project's own endpoint for browsers, with so many messages of the room each second, or any number.
fn push_room(rate: u32) -> (SocketAddr, campanile::Running) {
    let push = campanile::push::Push::new().subscribe(["room"]).publish(["room"]).rate(0, 0);
    let room = campanile::TopicSettings::new().rate(rate, rate);
    let server =
        campanile::Server::builder().workers(1).listen("127.0.0.1:0").topics("room", room).route("/", push);
    let server = server.build().unwrap();
    (server.local_addr().unwrap(), server.spawn().unwrap())
}

#[test]
fn push_room_delivers_each_message_to_every_member() {
    let (address, _running) = push_room(0);
    for traffic in ["--depth 3 --threads 2", "--ack --size 12", "--rate 500 --threads 2 --size 300"] {
        let (status, r) = report(&format!("room ws://{address}/ -c 5 {traffic} {SHORT}"));
        assert_eq!((status, errors(&r)), (0, vec![]), "{traffic}: {r}");
        let (sent, heard) = (r["sent"].as_u64().unwrap(), r["messages"].as_u64().unwrap());
        assert!(sent > 0 && heard > sent, "{traffic}: {sent} sent, {heard} heard");
    }
}

#[test]
fn room_reports_publications_refused_by_rate() {
    let (address, _running) = push_room(5);
    let (status, r) = report(&format!("room ws://{address}/ -c 2 --rate 2000 {SHORT}"));
    assert_eq!((status, errors(&r)), (1, vec!["refused: rate_limited"]), "{r}");
}

#[test]
fn held_connections_answer_pings() {
    let (sender, answered) = mpsc::channel();
    let address = server(move |mut socket| {
        socket.send(Message::Ping(Bytes::from_static(b"there?"))).unwrap();
        while let Ok(message) = socket.read() {
            if let Message::Pong(payload) = message {
                assert_eq!(&payload[..], b"there?");
                sender.send(()).unwrap();
            }
        }
    });
    let (status, r) = report(&format!("idle ws://{address}/ -c 20 --ramp 400 --sources 2 --duration 200ms"));
    assert_eq!((status, errors(&r), &r["connections"]["alive_at_end"]), (0, vec![], &20.into()));
    for _ in 0..20 {
        answered.recv_timeout(DEADLINE).unwrap();
    }
}

#[test]
fn connect_ends_connections_by_handshake_or_reset() {
    let address = server(echo);
    for how in ["", "--clean"] {
        let (status, r) = report(&format!("connect ws://{address}/ -c 3 --duration 200ms {how}"));
        assert_eq!((status, errors(&r)), (0, vec![]), "{how}");
        assert!(r["messages"].as_u64().unwrap() > 3, "{how}: more than one round");
    }
}

#[test]
fn an_interrupted_run_still_reports() {
    let (sender, opened) = mpsc::channel();
    let address = server(move |socket| {
        let _ = sender.send(());
        echo(socket);
    });
    let idle = spawn(&format!("idle ws://{address}/ -c 1 --duration 1h --json -"));
    let busy = spawn(&format!("echo ws://{address}/ -c 1 --duration 1h --json -"));
    for _ in 0..2 {
        opened.recv_timeout(DEADLINE).unwrap();
    }
    for child in [idle, busy] {
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let (_, r) = read(end_of(child));
        assert_eq!(r["interrupted"], true);
    }
}

#[test]
fn a_run_that_cannot_start_has_its_own_exit_status() {
    for line in [
        "",
        "echo",
        "echo http://x/",
        "echo ws://127.0.0.1:1/ --size 5..1",
        "echo ws://127.0.0.1:1/ --nonsense",
    ] {
        let output = end_of(spawn(line));
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(!output.stderr.is_empty(), "{line}");
    }
    assert_eq!(end_of(spawn("--help")).status.code(), Some(0));
}

/// What fails at every write, with "No space left on device".
fn full() -> Stdio {
    std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

/// A pipe that its reader has closed.
fn closed_pipe() -> Stdio {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn to(stdout: Stdio, stderr: Stdio, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_campanile-loadtest"));
    end_of(command.args(line.split_whitespace()).stdout(stdout).stderr(stderr).spawn().unwrap())
}

#[test]
fn an_unwritable_report_is_an_error_unless_the_reader_closed_the_pipe() {
    let address = server(echo);
    let run = format!("echo ws://{address}/ -c 1 {SHORT}");
    for line in [format!("{run} --json -"), run.clone(), "--help".into(), "--version".into()] {
        let output = to(full(), Stdio::piped(), &line);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {text}");
        assert!(
            text.contains("campanile-loadtest: can't write to standard output: No space left"),
            "{line}: {text}"
        );
        let output = to(closed_pipe(), Stdio::piped(), &line);
        assert_eq!(output.status.code(), Some(0), "{line}");
    }
    let file = to(Stdio::piped(), Stdio::piped(), &format!("{run} --json /dev/full"));
    assert_eq!(file.status.code(), Some(2));
}

#[test]
fn unwritable_standard_error_does_not_change_the_exit_status() {
    let address = server(echo);
    for stderr in [full, closed_pipe] {
        let run = to(Stdio::piped(), stderr(), &format!("echo ws://{address}/ -c 1 {SHORT} --json -"));
        assert_eq!(run.status.code(), Some(0));
        let wrong = to(Stdio::piped(), stderr(), "echo ws://127.0.0.1:1/ --size 5..1");
        assert_eq!(wrong.status.code(), Some(2));
        let refused = to(Stdio::piped(), stderr(), "echo ws://no-such-host.invalid/ -c 1");
        assert_eq!(refused.status.code(), Some(2));
    }
}

#[test]
fn listen_counts_messages_per_connection() {
    // Says nothing until it is told what to push; the first listener gets twice as much as the others.
    let count = AtomicUsize::new(0);
    let address = server(move |mut socket| {
        assert_eq!(socket.read().unwrap().to_text().unwrap(), "news");
        let (first, begun) = (count.fetch_add(1, Relaxed) == 0, Instant::now());
        while begun.elapsed() < DEADLINE {
            let n = if first { 2 } else { 1 };
            if (0..n).any(|_| socket.send(Message::binary(vec![7; 50])).is_err()) {
                return;
            }
            thread::sleep(Duration::from_millis(2)); // a pace, and no wait for anything
        }
    });
    let (status, r) = report(&format!(
        "listen ws://{address}/ -c 4 --threads 2 --send news --warmup 50ms --duration 400ms"
    ));
    assert_eq!((status, errors(&r), &r["mode"]), (0, vec![], &"listen".into()));
    let each = &r["per_connection"];
    let n = |value: &Value| value.as_f64().unwrap();
    assert!(n(&r["messages"]) > 20.0 && n(&r["messages_per_second"]) > 20.0, "{r}");
    assert!((n(&r["bytes_per_second"]) / n(&r["messages_per_second"]) - 50.0).abs() < 0.1);
    assert!(n(&each["max"]) > 1.3 * n(&each["min"]) && each["silent"] == 0, "{each}");
    assert!(n(&r["gaps_ns"]["p50"]) > 1e6, "{r}");

    // A server that says nothing: each connection's silence is its gap.
    let (status, r) = report(&format!("listen ws://{}/ -c 3 --warmup 0 --duration 1s", server(echo)));
    assert_eq!((status, &r["per_connection"]["silent"], &r["messages"]), (0, &3.into(), &0.into()));
    assert!(n(&r["gaps_ns"]["min"]) > 5e8, "{r}");
}

#[test]
fn storm_reports_when_all_have_reconnected() {
    let address = server(echo);
    let pid = std::process::id();
    for (jitter, least) in [("", 100e6), ("--jitter", 0.0)] {
        let line =
            format!("storm ws://{address}/ -c 20 --sources 2 --initial-delay 100ms {jitter} --pid {pid}");
        let (status, r) = report(&line);
        assert_eq!((status, errors(&r), &r["returned"], &r["attempts"]), (0, vec![], &20.into(), &20.into()));
        assert_eq!(r["jitter"], !jitter.is_empty());
        let (first, last) = (r["return_ns"]["min"].as_f64().unwrap(), r["all_returned_ns"].as_f64().unwrap());
        assert!(first >= least && last >= first, "{r}");
        // Not how much: threads of other tests end meanwhile, and theirs with them.
        assert!(r["server"]["cores"].is_number() && r["server"]["cpu_ns"].is_u64(), "{r}");
    }
    let text =
        String::from_utf8(end_of(spawn(&format!("storm ws://{address}/ -c 2 --initial-delay 1ms"))).stdout);
    assert!(text.unwrap().contains("all back"));
}

#[test]
fn storm_counts_each_client_once_however_often_it_returns() {
    // The first client's connections end at once, so that it opens and returns again and again. The last one that
    // returns is kept waiting for a while; then all stay.
    let (count, begun) = (AtomicUsize::new(0), Instant::now());
    let address = server(move |mut socket| {
        let short = count.fetch_add(1, Relaxed) % 2 == 0 && begun.elapsed() < Duration::from_secs(1);
        if !short {
            echo(socket);
        } else if let Ok(()) = socket.close(None) {
            while socket.read().is_ok() {}
        }
    });
    let (status, r) = report(&format!("storm ws://{address}/ -c 3 --initial-delay 1ms --max-delay 5ms"));
    assert_eq!((status, &r["returned"], &r["return_ns"]["count"]), (0, &3.into(), &3.into()), "{r}");
}

#[test]
fn storm_counts_failed_attempts_and_missing_clients() {
    // Each second connection after the first four is refused; or, with 404, every one for good.
    for (answer, status) in [("HTTP/1.1 503 No\r\n\r\n", 0), ("HTTP/1.1 404 No\r\n\r\n", 1)] {
        let count = AtomicUsize::new(0);
        let address = raw_server(move |mut stream| {
            let n = count.fetch_add(1, Relaxed);
            if n >= 4 && (status == 1 || n.is_multiple_of(2)) {
                let _ = stream.write_all(answer.as_bytes());
                let _ = io::copy(&mut stream, &mut io::sink());
            } else if let Ok(socket) = tungstenite::accept(stream) {
                echo(socket);
            }
        });
        let (code, r) = report(&format!("storm ws://{address}/ -c 4 --initial-delay 1ms --max-delay 10ms"));
        assert_eq!(code, status);
        let refused = format!("handshake refused with status {}", &answer[9..12]);
        assert!(errors(&r).contains(&&*refused), "{r}");
        assert_eq!((&r["returned"], r["all_returned_ns"].is_null()), (&(4 - 4 * status).into(), status == 1));
        assert!(
            r["failed_attempts"].as_u64().unwrap() > 0
                && r["attempts"].as_u64() >= r["failed_attempts"].as_u64()
        );
    }
}

#[test]
fn a_run_that_loses_its_server_still_reports_rates() {
    let address = server(|mut socket| {
        for _ in 0..1000 {
            let Ok(message) = socket.read() else { return };
            if socket.send(message).is_err() {
                return;
            }
        }
    });
    // One ends while measuring, one while warming up.
    for warmup in ["0", "1h"] {
        let (status, r) = report(&format!("echo ws://{address}/ -c 2 --warmup {warmup} --duration 1h"));
        assert_eq!((status, &r["aborted"], &r["interrupted"]), (1, &true.into(), &false.into()), "{warmup}");
        assert!(r["messages"].as_u64().unwrap() > 1000, "{r}");
        let rate = r["messages"].as_f64().unwrap() / r["seconds"].as_f64().unwrap();
        assert!(rate > 0.0 && (r["messages_per_second"].as_f64().unwrap() / rate - 1.0).abs() < 0.01, "{r}");
    }
}

/// This project's own server, with compression; and with TLS, by a certificate that nobody vouches for.
fn bell(secure: bool) -> (SocketAddr, campanile::Running) {
    let echo = campanile::on_message(|conn, message| {
        conn.send(message)?;
        Ok(())
    });
    let deflate = Deflate::dedicated(15).threshold(0);
    let mut limits = campanile::Limits::default();
    limits.max_message_size = 1 << 20;
    let route = campanile::Route::new(echo).deflate(deflate).limits(limits);
    let builder = campanile::Server::builder().workers(1).route("/", route);
    let server = if secure {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let pair = campanile::Certificate::from_pem(made.cert.pem(), made.signing_key.serialize_pem());
        let tls = campanile::Tls::new(pair.unwrap()).unwrap();
        builder.listen_tls("127.0.0.1:0", &tls).build().unwrap()
    } else {
        builder.listen("127.0.0.1:0").build().unwrap()
    };
    let address = server.local_addr().unwrap();
    (address, server.spawn().unwrap())
}

#[test]
fn a_run_can_use_tls_and_compression() {
    for (secure, scheme, flag) in [(false, "ws", ""), (true, "wss", "--insecure")] {
        let (address, _running) = bell(secure);
        for more in [
            "-s 20",
            "-s 20 --deflate",
            "-s 0..5000 --text --deflate --depth 4",
            "-s 2k --deflate 11 --text",
            "-s 200k",
        ] {
            let line = format!("echo {scheme}://{address}/ -c 3 --threads 2 {flag} {more} {SHORT}");
            let (status, r) = report(&line);
            assert_eq!((status, errors(&r)), (0, vec![]), "{line}: {r}");
            assert!(r["messages"].as_u64().unwrap() > 20, "{line}: {r}");
        }
        for line in [
            format!("connect {scheme}://{address}/ -c 3 {flag} --clean --duration 200ms"),
            format!("echo {scheme}://{address}/ -c 5 {flag} --rate 2000 --deflate 15 --text -s 300 {SHORT}"),
            format!("storm {scheme}://{address}/ -c 10 {flag} --initial-delay 10ms --jitter --deflate"),
        ] {
            let (status, r) = report(&line);
            assert_eq!((status, errors(&r)), (0, vec![]), "{line}: {r}");
        }
    }
    let (address, _running) = bell(true);
    let (status, r) = report(&format!("echo wss://{address}/ -c 1 {SHORT}"));
    assert_eq!(status, 1);
    assert!(errors(&r)[0].contains("certificate") || errors(&r)[0].contains("authority"), "{r}");
}
