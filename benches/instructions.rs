//! Counts the instructions of the hot paths with callgrind, as a guard against getting slower: counts repeat where times do
//! not.
//!
//! `cargo bench --all-features --bench instructions` compares the counts with `benches/instructions.txt` and fails where a
//! path takes over 5 % more. `-- --write` writes the file, so that a rise is part of a reviewed change. The counts belong to one version of
//! the compiler, which the file names; with another version they are shown and not compared. Without valgrind nothing is
//! checked, and the output says so.

mod support;

use campanile::Message;
use campanile::protocol::{Opcode, Role, header, utf8};
use std::fmt::Write as _;
use std::hint::black_box;
use std::process::{Command, ExitCode};
use support::{echo_machine, frame, room, text};

const FIGURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");

/// The allowed rise in percent: versions of libc copy a little differently.
const TOLERANCE: u64 = 5;

type Path = (&'static str, fn(u64));

/// Each runs its path as often as it is told.
const PATHS: &[Path] = &[
    ("head of 20 bytes decoded", |n| {
        let bytes = frame(Opcode::Binary, &[0; 20]);
        for _ in 0..n {
            let _ = black_box(header::decode(black_box(&bytes), Role::Server, false));
        }
    }),
    ("UTF-8 of 1 KiB validated", |n| {
        let text = text(1 << 10);
        for _ in 0..n {
            let _ = black_box(utf8::validate(black_box(text.as_bytes())).is_ok());
        }
    }),
    ("20 bytes echoed", |n| echo(n, &frame(Opcode::Binary, &[7; 20]))),
    ("20 bytes of text echoed", |n| echo(n, &frame(Opcode::Text, text(20).as_bytes()))),
    ("16 of 20 bytes in one read echoed", |n| echo(n, &frame(Opcode::Binary, &[7; 20]).repeat(16))),
    ("1 KiB of text echoed", |n| echo(n, &frame(Opcode::Text, text(1 << 10).as_bytes()))),
    ("16 KiB echoed", |n| echo(n, &frame(Opcode::Binary, &[7; 16 << 10]))),
    ("16 KiB of text echoed", |n| echo(n, &frame(Opcode::Text, text(16 << 10).as_bytes()))),
    ("ping answered", |n| echo(n, &frame(Opcode::Ping, b"?"))),
    ("100 bytes to 1 subscriber", |n| fan_out(n, 1, 1)),
    ("100 bytes to 1,000 subscribers", |n| fan_out(n, 1000, 1)),
    ("16 of 100 bytes in one iteration to 1,000 subscribers", |n| fan_out(n, 1000, 16)),
];

/// Unmasking is in place, so each time begins with a fresh copy of what was received; the copy is in the figure.
fn echo(n: u64, received: &[u8]) {
    let mut machine = echo_machine();
    let conn = machine.open(());
    let mut read = received.to_vec();
    for _ in 0..n {
        read.copy_from_slice(received);
        machine.receive(conn, black_box(&mut read));
    }
}

fn fan_out(n: u64, subscribers: usize, messages: usize) {
    let mut machine = room(subscribers);
    let message = text(100);
    for _ in 0..n {
        for _ in 0..messages {
            machine.publish("room", Message::text(black_box(&message)));
        }
        machine.fan_out();
    }
}

/// Instructions of `n` times a path, all told.
fn count(path: usize, n: u64) -> Result<u64, String> {
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    let out = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(exe)
        .args(["--run", &path.to_string(), &n.to_string()])
        .output()
        .map_err(|e| format!("valgrind: {e}"))?;
    let text = String::from_utf8_lossy(&out.stderr);
    let collected = text.lines().find_map(|l| l.split_once("Collected : ")).map(|(_, n)| n.trim());
    collected.and_then(|n| n.parse().ok()).ok_or_else(|| format!("valgrind said: {text}"))
}

fn compiler() -> String {
    let out =
        Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("--version").output();
    out.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
}

fn measure() -> Result<Vec<(&'static str, u64)>, String> {
    const N: u64 = 400;
    PATHS
        .iter()
        .enumerate()
        .map(|(i, (name, _))| Ok((*name, (count(i, 2 * N)? - count(i, N)?) / N)))
        .collect()
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [run, path, n] = &args[..]
        && run == "--run"
    {
        let path = PATHS[path.parse::<usize>().expect("a path's number")];
        path.1(n.parse().expect("a number"));
        return ExitCode::SUCCESS;
    }
    if args.iter().any(|a| !["--bench", "--write"].contains(&a.as_str())) {
        return ExitCode::SUCCESS; // arguments of criterion's, for the benches beside this one
    }
    let measured = match measure() {
        Ok(measured) => measured,
        Err(e) => {
            println!("instructions: nothing checked: {e}");
            return ExitCode::SUCCESS;
        }
    };
    let compiler = compiler();
    if args.iter().any(|a| a == "--write") {
        let mut text = format!(
            "# Instructions of one time; `cargo bench --all-features --bench instructions -- --write`\n# {compiler}\n"
        );
        for (name, n) in &measured {
            let _ = writeln!(text, "{n:>8}  {name}");
        }
        return match std::fs::write(FIGURES, text) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("instructions: {FIGURES}: {e}");
                ExitCode::FAILURE
            }
        };
    }
    compare(&measured, &compiler)
}

fn compare(measured: &[(&str, u64)], compiler: &str) -> ExitCode {
    let file = std::fs::read_to_string(FIGURES).unwrap_or_default();
    let same_compiler = file.lines().any(|l| l.strip_prefix("# ") == Some(compiler));
    if !same_compiler {
        println!("instructions: the figures are of another compiler than {compiler}: shown, not checked");
    }
    let mut failed = 0;
    for (name, n) in measured {
        let line = file.lines().filter(|l| !l.starts_with('#')).find_map(|l| {
            let (figure, path) = l.trim().split_once("  ")?;
            (path == *name).then(|| figure.parse::<u64>().ok())?
        });
        let verdict = match line {
            Some(was) if *n * 100 > was * (100 + TOLERANCE) => {
                failed += 1;
                format!("was {was}: over {TOLERANCE} % more")
            }
            Some(was) => format!("was {was}"),
            None => {
                failed += 1;
                "not in the file".to_owned()
            }
        };
        println!("{n:>8}  {name}: {verdict}");
    }
    println!("{} passed, {failed} failed", measured.len() - failed);
    if failed > 0 && same_compiler { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
