//! What the binary serves and grants without a word, with `--dev`, with a key and with `--origin`.

use crate::support::process::{self, campanile};
use crate::support::{Answer, Client, upgrade_request};
use rustix::process::Signal;
use std::io::Read;
use std::ops::Deref;
use std::process::{Command, Stdio};

const KEY: &str = "a-key-for-this-test-only-0123456789";

struct Process(process::Process);

impl Deref for Process {
    type Target = process::Process;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = campanile();
    command.args(args).env_remove("CAMPANILE_API_KEY").stderr(Stdio::piped());
    command
}

impl Process {
    fn start(args: &[&str]) -> Self {
        let args = [&["--listen", "127.0.0.1:0", "--workers", "1"], args].concat();
        Self(process::Process::start(&mut command(&args)))
    }

    fn get(&self, path: &str) -> Answer {
        let mut client = Client::dial(self.addr);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\nX-API-Key: {KEY}\r\n\r\n", self.addr));
        client.answer()
    }

    fn upgrade(&self, path: &str, headers: &str) -> u16 {
        let mut client = Client::dial(self.addr);
        let request = upgrade_request(path, headers);
        client.send(request.replace("Host: bell.example", &format!("Host: {}", self.addr)));
        client.answer().status
    }

    /// The answer to one request of `/push`.
    fn push(&self, request: &str) -> String {
        let mut client = Client::dial(self.addr);
        client.upgrade("/push");
        assert!(client.read_text().starts_with(r#"{"type":"hello""#));
        client.text(request);
        client.read_text()
    }

    /// Ends it and gives what it said when it started, behind the first line: all of it, once it has answered.
    fn lines(mut self) -> String {
        assert_eq!(self.get("/healthz").status, 200);
        self.0.child.kill().unwrap();
        let mut lines = String::new();
        self.0.stdout.as_mut().unwrap().read_to_string(&mut lines).unwrap();
        lines
    }

    /// Ends it and gives its log, which is whole where it ends by itself.
    fn log(mut self) -> String {
        self.signal(Signal::TERM);
        let mut log = String::new();
        self.0.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        log
    }
}

/// Runs it to its end, which is expected at once: its exit code and what it says.
fn refused(args: &[&str]) -> (Option<i32>, String) {
    let output = command(args).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

const SUBSCRIBE: &str = r#"{"type":"subscribe","id":1,"topic":"public/a"}"#;
const PUBLISH: &str = r#"{"type":"publish","id":1,"topic":"public/a","data":1}"#;

#[test]
fn without_options_nothing_is_granted_and_the_start_lines_say_how() {
    let process = Process::start(&[]);
    for path in ["/", "/index.html", "/live.html", "/chat.js", "/chat", "/echo", "/broadcast", "/api/info"] {
        assert_eq!(process.get(path).status, 404, "{path}");
    }
    for path in ["/chat", "/echo", "/broadcast"] {
        assert_eq!(process.upgrade(path, ""), 404, "{path}");
    }
    for path in ["/campanile.js", "/campanile.d.ts", "/healthz"] {
        assert_eq!(process.get(path).status, 200, "{path}");
    }
    for request in [SUBSCRIBE, PUBLISH, r#"{"type":"subscribe","id":1,"pattern":"public/*"}"#] {
        let answer = process.push(request);
        assert!(answer.contains(r#""code":"forbidden""#), "{answer}");
    }
    let lines = process.lines();
    for words in ["--topics PREFIX:client-subscribe=yes", "/api/ is not served without a key", "--dev"] {
        assert!(lines.contains(words), "{lines}");
    }
}

/// `proxy_pass http://127.0.0.1:9001;` and nothing else, of nginx 1.22.
#[test]
fn behind_a_default_proxy_the_keyless_api_is_refused() {
    // There is a GET for every path, which serves the module.
    for (dev, status) in [(&[][..], 405), (&["--dev"], 403)] {
        let process = Process::start(dev);
        let mut client = Client::dial(process.addr);
        let body = r#"{"topic":"a","text":"x"}"#;
        client.send(format!(
            "POST /api/publish HTTP/1.0\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            process.addr,
            body.len()
        ));
        assert_eq!(client.answer().status, status);
    }
}

#[test]
fn dev_serves_pages_grants_public_and_opens_the_api() {
    let process = Process::start(&["--dev"]);
    for path in ["/", "/live.html", "/chat.js", "/campanile.js", "/api/info"] {
        assert_eq!(process.get(path).status, 200, "{path}");
    }
    for path in ["/chat", "/echo", "/broadcast", "/push"] {
        assert_eq!(process.upgrade(path, ""), 101, "{path}");
    }
    assert!(process.push(SUBSCRIBE).contains(r#""type":"subscribed""#));
    assert!(process.push(PUBLISH).contains(r#""type":"published""#));
    for private in [SUBSCRIBE.replace("public", "private"), PUBLISH.replace("public", "private")] {
        assert!(process.push(&private).contains("forbidden"), "{private}");
    }
    let lines = process.lines();
    let dev: Vec<&str> = lines.lines().filter(|line| line.contains("--dev: ")).collect();
    assert_eq!(dev.len(), 3, "{lines}");
    for (line, word) in dev.iter().zip(["/live.html", "public/", "/api/"]) {
        assert!(line.contains(word), "{line}");
    }
}

#[test]
fn settings_for_public_replace_what_dev_grants() {
    let process = Process::start(&["--dev", "--topics", "public/:history=5,client-subscribe=yes"]);
    assert!(process.push(SUBSCRIBE).contains(r#""type":"subscribed""#));
    assert!(process.push(PUBLISH).contains("forbidden"));
    let lines = process.lines();
    assert!(!lines.contains("publish below public/"), "{lines}");

    let process = Process::start(&["--dev", "--topics", "public/:history=500"]);
    for request in [SUBSCRIBE, PUBLISH] {
        assert!(process.push(request).contains("forbidden"), "settings without a grant leave none");
    }
}

#[test]
fn curl_commands_on_the_first_pages_publish() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("no curl here: the commands are not run");
        return;
    }
    let process = Process::start(&["--dev"]);
    for page in [include_str!("../../README.md"), include_str!("../../docs/guide/getting-started.md")] {
        let (_, command) = page.split_once("$ curl ").expect("a command");
        let command = command.split("\n```").next().unwrap_or_default();
        let command = format!("curl {}", command.replace("localhost:9001", &process.addr.to_string()));
        let output = Command::new("sh").arg("-c").arg(&command).output().unwrap();
        let answer = String::from_utf8_lossy(&output.stdout);
        assert!(answer.contains(r#""offset":"#), "{command}\n{answer}");
    }
}

#[test]
fn dev_is_refused_on_public_addresses() {
    for args in [
        &["--listen", "0.0.0.0:0"][..],
        &["--listen", "[::]:0"],
        &["--listen", "127.0.0.1:0", "--listen", "192.0.2.1:0"],
        &["--listen", "127.0.0.1:0", "--api-listen", "0.0.0.0:0"],
        &["--listen", "127.0.0.1:0", "--tls-listen", "[::]:0", "--tls-self-signed"],
    ] {
        let (code, text) = refused(&[&["--dev"], args].concat());
        assert_eq!(code, Some(2), "{args:?}: {text}");
        assert!(text.contains("--dev: ") && text.contains("is not a loopback address"), "{text}");
    }
}

#[test]
fn the_api_accepts_a_request_with_a_key() {
    let process = Process::start(&["--api-key", KEY]);
    assert_eq!(process.get("/api/info").status, 200);
    let mut client = Client::dial(process.addr);
    client.send("GET /api/info HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.answer().status, 401);
    let lines = process.lines();
    assert!(!lines.contains("/api/ is not served"), "{lines}");
    // Also with --dev.
    let process = Process::start(&["--dev", "--api-key", KEY]);
    let mut client = Client::dial(process.addr);
    client.send("GET /api/info HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.answer().status, 401);
}

#[test]
fn api_listen_without_a_key_is_refused() {
    let (code, text) = refused(&["--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("--api-listen") && text.contains("--api-key-file"), "{text}");
}

#[test]
fn a_page_on_another_port_needs_the_origin_option() {
    const PAGE: &str = "Origin: http://localhost:3000\r\n";
    let process = Process::start(&["--dev", "--origin", "http://localhost:3000"]);
    for path in ["/push", "/echo"] {
        assert_eq!(process.upgrade(path, PAGE), 101, "{path}");
        assert_eq!(process.upgrade(path, &format!("Origin: http://{}\r\n", process.addr)), 101, "{path}");
        assert_eq!(process.upgrade(path, "Origin: https://evil.example\r\n"), 403, "{path}");
    }
    let process = Process::start(&["--dev"]);
    assert_eq!(process.upgrade("/push", PAGE), 403);
    let info = process.get("/api/info").text().to_owned();
    assert!(info.contains(r#""origins_refused":1"#), "{info}");
    let log = process.log();
    for words in ["/push", "http://localhost:3000", "--origin http://localhost:3000"] {
        assert!(log.contains(words), "{log}");
    }
    let (code, text) = refused(&["--origin", "localhost:3000"]);
    assert!(code == Some(2) && text.contains("scheme://host"), "{text}");
}

#[test]
fn clients_of_push_publish_below_public_only() {
    let server = Process::start(&["--dev"]);
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
