//! House rules as tests: what may import what, which folders are pure, where unsafe code is, and that the pages in docs/
//! say what the source says.
//!
//! Every rule is a function from text to complaints, so that the last tests can show that each can fail.

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/words.rs"]
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Layer and what it may import, as docs/internals/architecture.md has it.
const LAYERS: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("http", &[]),
    ("file", &[]),
    ("log", &[]),
    ("memory", &[]),
    ("metrics", &["log"]),
    ("json", &[]),
    ("deflate", &["protocol", "http"]),
    ("sink", &[]),
    ("sync", &[]),
    ("conn", &["protocol", "http", "deflate", "memory", "sink"]),
    ("tls", &["file", "http"]),
    ("net", &["http", "sink", "tls"]),
    ("hub", &["conn", "memory", "protocol", "sync"]),
    ("handler", &["conn", "deflate", "http", "hub", "memory", "metrics", "net", "protocol", "sink", "sync"]),
    ("push_protocol", &["hub", "json", "protocol"]),
    ("push", &["conn", "handler", "http", "hub", "json", "protocol", "push_protocol"]),
    ("endpoint", &["http", "log"]),
    (
        "worker",
        &[
            "conn", "deflate", "endpoint", "handler", "http", "hub", "log", "memory", "metrics", "net",
            "protocol", "sink", "sync", "tls",
        ],
    ),
    ("client", &["conn", "deflate", "http", "log", "net", "protocol", "sink", "sync", "tls"]),
    ("push_client", &["client", "conn", "hub", "log", "protocol", "push_protocol"]),
    (
        "server",
        &["conn", "endpoint", "file", "handler", "http", "hub", "log", "net", "sync", "tls", "worker"],
    ),
    ("api", &["conn", "file", "handler", "http", "hub", "json", "protocol", "server"]),
];

/// Words, phrases and lines that are not right yet. It can only shrink.
const ALLOWANCES: &str = "tests/tidy/allowances.txt";

/// Folders that take bytes and time and give values.
const PURE: &[&str] =
    &["protocol", "http", "deflate", "tls", "conn", "hub", "json", "push_protocol", "memory", "sink", "sync"];

/// What no pure folder names: sockets, files, threads, clocks. Addresses are values and come from `core::net`.
const IMPURE: &[&str] =
    &["std::net", "std::fs", "std::thread", "Instant::now", "SystemTime::now", "mio", "socket2", "rustix"];

const MAX_LINES: usize = 700;

// ---- reading ----

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The files below a folder with one of these endings, by their path from the root; nothing that was installed or built.
fn files(folder: &str, endings: &[&str]) -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if path.is_dir() {
                if !name.starts_with('.') && !["target", "node_modules", "__pycache__"].contains(&&*name) {
                    walk(&path, found);
                }
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    found.sort();
    let of_kind = |p: &&PathBuf| {
        let ending = p.extension().unwrap_or_default();
        endings.iter().any(|w| ending == *w)
            && !p.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."))
    };
    let named = |p: &PathBuf| p.strip_prefix(root()).unwrap_or(p).to_string_lossy().into_owned();
    found.iter().filter(of_kind).map(|p| (named(p), read(p))).collect()
}

/// Every text file that people write: those with these endings and those without one, not what is generated or quoted.
fn texts() -> Vec<(String, String)> {
    let endings = [
        "", "rs", "md", "py", "js", "mjs", "ts", "css", "html", "toml", "json", "c", "sh", "svg", "txt",
        "yml",
    ];
    let mut all = files("", &endings);
    all.extend(files(".ci", &endings));
    let is_written = |path: &str| {
        let others = [
            "LICENSE",
            "package-lock.json",
            "proptest-regressions/",
            "benches/results/",
            "tests/tidy/words.rs",
            "tests/tidy/allowances.txt",
        ];
        !others.iter().any(|other| path.contains(other))
    };
    all.retain(|(path, _)| is_written(path));
    all
}

fn rust(folder: &str) -> Vec<(String, String)> {
    let found = files(folder, &["rs"]);
    assert!(!found.is_empty(), "no Rust in {folder}/: is this the right folder?");
    found
}

/// Without comments. Cuts strings with `//` in them too, which costs a rule nothing but what follows in that line.
fn code(text: &str) -> String {
    text.lines().map(|l| l.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `name` stands as a word, or as a path of words, of its own.
fn mentions<'t>(text: &'t str, name: &'t str) -> impl Iterator<Item = usize> + 't {
    text.match_indices(name).map(|(at, _)| at).filter(move |at| {
        !text[..*at].chars().next_back().is_some_and(is_word)
            && !text[at + name.len()..].chars().next().is_some_and(is_word)
    })
}

fn word(text: &str) -> &str {
    &text[..text.find(|c| !is_word(c)).unwrap_or(text.len())]
}

fn layer_of(path: &str) -> Option<&str> {
    path.strip_prefix("src/")?.split('/').next().filter(|l| LAYERS.iter().any(|(name, _)| name == l))
}

/// The first cells of a table's rows that are names in backticks, below a heading; several names in one cell count.
fn rows(page: &str, heading: &str) -> BTreeSet<String> {
    let after = page.split_once(heading).map_or("", |(_, after)| after);
    let section = after.split("\n## ").next().unwrap_or_default();
    let cells = section.lines().filter_map(|l| l.strip_prefix("| ")?.split(" | ").next());
    cells.flat_map(|c| c.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// The same of all tables of a page.
fn all_rows(page: &str) -> BTreeSet<String> {
    page.split("\n## ").flat_map(|section| rows(section, "\n")).collect()
}

fn differ(what: &str, source: &BTreeSet<String>, page: &BTreeSet<String>) -> Vec<String> {
    let missing =
        source.difference(page).map(|n| format!("{what}: {n} is in the source and not on the page"));
    let stale = page.difference(source).map(|n| format!("{what}: {n} is on the page and not in the source"));
    missing.chain(stale).collect()
}

#[track_caller]
fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

// ---- rules ----

/// What the root re-exports: `Message` is `protocol`'s.
fn exports(lib: &str) -> BTreeMap<String, String> {
    let lib = code(lib);
    let mut names = BTreeMap::new();
    for export in lib.split("pub use ").skip(1) {
        let export = export.split(';').next().unwrap_or_default();
        let list = export.rsplit_once("::").map_or("", |(_, list)| list);
        for name in list.split(|c| !is_word(c)).filter(|n| !n.is_empty()) {
            names.insert(name.to_owned(), word(export).to_owned());
        }
    }
    names
}

fn layering(path: &str, text: &str, exports: &BTreeMap<String, String>) -> Vec<String> {
    let Some(layer) = layer_of(path) else { return Vec::new() };
    let allowed = LAYERS.iter().find(|(name, _)| *name == layer).map_or(&[][..], |(_, allowed)| allowed);
    let text = code(text);
    let mut complaints = Vec::new();
    if text.contains("super::super::") {
        complaints
            .push(format!("{path}: climbs; what is further away than the next file is named from the crate"));
    }
    for at in mentions(&text, "crate") {
        let Some(rest) = text[at..].strip_prefix("crate::") else { continue };
        let names: Vec<&str> = match rest.strip_prefix('{') {
            // The head of each member: `use crate::{conn::{A, B}, hub::C}`.
            Some(group) => {
                let (mut depth, mut heads, mut fresh) = (1, Vec::new(), true);
                for (i, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 1 => break,
                        '}' => depth -= 1,
                        ',' if depth == 1 => fresh = true,
                        c if is_word(c) && fresh => {
                            heads.push(word(&group[i..]));
                            fresh = false;
                        }
                        _ => {}
                    }
                }
                heads
            }
            None => vec![word(rest)],
        };
        for name in names {
            let of = exports.get(name).map_or(name, String::as_str);
            if of != layer && !allowed.contains(&of) {
                complaints.push(format!("{path}: {layer} may not import {of} (crate::{name})"));
            }
        }
    }
    complaints
}

fn purity(path: &str, text: &str) -> Vec<String> {
    if !layer_of(path).is_some_and(|l| PURE.contains(&l)) {
        return Vec::new();
    }
    let text = code(text);
    let named = IMPURE.iter().filter(|name| mentions(&text, name).next().is_some());
    let mut complaints: Vec<_> = named.map(|name| format!("{path}: a pure folder names {name}")).collect();
    for group in text.split("std::{").skip(1) {
        let group = group.split(';').next().unwrap_or_default();
        for module in ["net", "fs", "thread"].into_iter().filter(|m| mentions(group, m).next().is_some()) {
            complaints.push(format!("{path}: a pure folder names std::{module}"));
        }
    }
    complaints
}

/// The library logs through `crate::log` alone, whose macros make whoever logs choose: a line that a peer can cause is
/// limited, and a subscriber that panics ends no worker.
fn logging(path: &str, text: &str) -> Vec<String> {
    if path.starts_with("src/log/") || path.starts_with("src/bin/") {
        return Vec::new();
    }
    let text = code(text);
    let found = ["tracing::", "eprintln!", "println!", "eprint!", "print!"].into_iter();
    let found = found.filter(|name| text.contains(&format!(" {name}")) || text.starts_with(name));
    found.map(|name| format!("{path}: writes with {name}; use crate::log")).collect()
}

fn has_unsafe(text: &str) -> bool {
    mentions(&code(text), "unsafe").next().is_some()
}

fn header(path: &str, text: &str) -> Option<String> {
    let first = text.lines().next()?;
    let says_something = first.strip_prefix("//! ").is_some_and(|l| l.trim().len() > 10);
    (!says_something).then(|| format!("{path}: its first line says nothing about the file"))
}

fn phrases(path: &str, text: &str) -> Vec<String> {
    // In pieces, so that this file can be read too.
    let unfinished = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("db", "g!"), concat!("to", "do!")];
    let places = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/")];
    let found = unfinished.iter().chain(&places).filter(|p| text.contains(**p));
    found.map(|p| format!("{path}: contains {p:?}")).collect()
}

fn length(path: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    (lines > MAX_LINES).then(|| format!("{path}: {lines} lines; there is a second noun in it ({MAX_LINES})"))
}

/// The public fields of a struct.
fn fields(text: &str, name: &str) -> BTreeSet<String> {
    let start = format!("pub struct {name} {{");
    let body = text.split_once(&start).map_or("", |(_, rest)| rest).split("\n}").next().unwrap_or_default();
    code(body).lines().filter_map(|l| l.strip_prefix("    pub ")).map(|l| word(l).to_owned()).collect()
}

/// The builder's methods that set a bound: not those that add something to serve, or take one of the tables above.
fn settings(text: &str) -> BTreeSet<String> {
    let others = [
        "listen",
        "listen_tls",
        "listen_options",
        "route",
        "get",
        "post",
        "on",
        "on_with",
        "http_limits",
        "build",
    ];
    let methods = methods(text).filter(|m| !others.contains(m));
    methods.map(str::to_owned).collect()
}

/// The names of public methods.
fn methods(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("    pub "));
    lines.filter_map(|line| line.trim_start_matches("const ").strip_prefix("fn ")).map(word)
}

fn counters(text: &str) -> BTreeSet<String> {
    let body =
        text.split_once("\ncounters! {").map_or("", |(_, rest)| rest).split("\n}").next().unwrap_or_default();
    code(body).split(',').map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).collect()
}

// ---- the rules hold ----

#[test]
fn layers_import_what_is_below_them() {
    let exports = exports(&read("src/lib.rs"));
    assert_eq!(exports.get("Message").map(String::as_str), Some("protocol"));
    none(rust("src").iter().flat_map(|(path, text)| layering(path, text, &exports)).collect());
}

#[test]
fn every_folder_is_a_layer_and_the_page_has_the_same_table() {
    let folders: BTreeSet<_> = rust("src")
        .iter()
        .filter_map(|(path, _)| {
            path.strip_prefix("src/")?.split_once('/').map(|(folder, _)| folder.to_owned())
        })
        .filter(|folder| folder != "bin")
        .collect();
    let layers: BTreeSet<_> = LAYERS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(folders, layers);
    let page = read("docs/internals/architecture.md");
    for (layer, imports) in LAYERS {
        let mut imports: Vec<_> = imports.iter().map(|import| (*import).to_owned()).collect();
        let row = page.lines().find(|l| l.starts_with(&format!("| `{layer}` |")));
        let cell = row.and_then(|r| r.split('|').nth(2)).unwrap_or_else(|| panic!("no row for {layer}"));
        let mut shown: Vec<_> = cell
            .split(',')
            .map(|c| c.trim_matches([' ', '`']).to_owned())
            .filter(|c| !c.is_empty())
            .collect();
        imports.sort();
        shown.sort();
        assert_eq!(shown, imports, "{layer} on docs/internals/architecture.md");
    }
}

#[test]
fn pure_folders_name_no_socket_file_thread_or_clock() {
    none(rust("src").iter().flat_map(|(path, text)| purity(path, text)).collect());
}

#[test]
fn the_library_logs_through_its_own_macros() {
    none(rust("src").iter().flat_map(|(path, text)| logging(path, text)).collect());
}

#[test]
fn unsafe_code_is_where_its_page_says() {
    let all = ["src", "benches", "examples", "loadtest", "tests"].into_iter().flat_map(rust);
    let speaks_of_it = |path: &str| path == "tests/tidy.rs";
    let found = all.filter(|(path, text)| !speaks_of_it(path) && has_unsafe(text)).map(|(path, _)| path);
    let page = rows(&read("docs/internals/unsafe.md"), "# Unsafe code");
    let listed = page.into_iter().filter(|name| name.ends_with(".rs")).collect();
    none(differ("unsafe code", &found.collect(), &listed));
}

#[test]
fn every_file_says_what_it_is() {
    let all = ["src", "benches", "examples", "loadtest", "tests"].into_iter().flat_map(rust);
    none(all.filter_map(|(path, text)| header(&path, &text)).collect());
}

#[test]
fn examples_open_with_the_line_that_runs_them() {
    for (path, text) in rust("examples") {
        let name = path.trim_start_matches("examples/").trim_end_matches(".rs");
        let line = text.lines().next().unwrap_or_default();
        assert!(line.starts_with("//! cargo run ") && line.contains(&format!("--example {name}")), "{path}");
    }
}

#[test]
fn every_option_and_metric_has_its_row() {
    let page = read("docs/reference/options.md");
    for (file, name) in [
        ("src/conn/limits.rs", "Limits"),
        ("src/http/limits.rs", "HttpLimits"),
        ("src/net/listener.rs", "ListenOptions"),
    ] {
        let source = fields(&read(file), name);
        assert!(source.len() > 3, "{name} has lost its fields, or this test has");
        none(differ(name, &source, &rows(&page, &format!("\n## `{name}`"))));
    }
    let source = settings(&read("src/server/builder.rs"));
    none(differ("Builder", &source, &rows(&page, "\n## `Builder`")));
    for (file, name) in [("src/hub/settings.rs", "TopicSettings"), ("src/push/mod.rs", "Push")] {
        let source: BTreeSet<_> = methods(&read(file)).filter(|m| *m != "new").map(str::to_owned).collect();
        assert!(source.len() > 3, "{name} has lost its methods, or this test has");
        none(differ(name, &source, &rows(&page, &format!("\n## `{name}`"))));
    }
    let source = counters(&read("src/metrics/mod.rs"));
    assert!(source.len() > 3, "the counters are gone, or this test has lost them");
    none(differ("metrics", &source, &all_rows(&read("docs/reference/metrics.md"))));
}

#[test]
fn nothing_is_unfinished_too_long_or_tied_to_a_machine() {
    let endings = ["rs", "md", "py", "js", "mjs", "css", "html", "toml", "json"];
    let mut complaints = Vec::new();
    for (path, text) in files("", &endings) {
        complaints.extend(phrases(&path, &text));
        if !path.ends_with(".json") {
            complaints.extend(length(&path, &text));
        }
    }
    none(complaints);
}

/// Files and what of them breaks a rule.
fn broken(rule: fn(&str, &str) -> Vec<String>) -> BTreeMap<String, Vec<String>> {
    let all = texts().into_iter().map(|(path, text)| (rule(&path, &text), path));
    all.filter(|(found, _)| !found.is_empty()).map(|(found, path)| (path, found)).collect()
}

#[test]
fn words_are_those_of_the_field_and_lines_of_documents_are_short() {
    let allowances = words::Allowances::parse(&read(ALLOWANCES));
    let found = [("words", broken(words::banned)), ("lines", broken(words::long_lines))];
    if std::env::var_os("TIDY_UPDATE").is_some() {
        let list = allowances.updated(&found).expect("the list can only shrink");
        fs::write(root().join(ALLOWANCES), list).expect("the list is written");
        return;
    }
    none(found.iter().flat_map(|(rule, found)| allowances.check(rule, found)).collect());
}

#[test]
fn the_manifest_is_short_and_there_is_no_build_script() {
    let lines = read("Cargo.toml").lines().count();
    assert!(
        lines < 150,
        "{lines} lines in Cargo.toml: dependencies of several packages belong into the workspace's"
    );
    assert!(!root().join("build.rs").exists());
}

/// Tests of tests/measured run one at a time.
fn shared_measurement(path: &str, text: &str) -> Option<String> {
    let (tests, alone) = (text.matches("#[test]\n").count(), text.matches("let _alone = alone();").count());
    let is_measured = path.starts_with("tests/measured/") && tests != alone;
    is_measured.then(|| format!("{path}: {tests} tests, {alone} of them begin with `let _alone = alone();`"))
}

#[test]
fn what_is_measured_is_measured_alone() {
    none(rust("tests").iter().filter_map(|(path, text)| shared_measurement(path, text)).collect());
}

// ---- the rules can fail ----

#[test]
fn an_import_from_above_is_seen_in_every_form() {
    let exports =
        exports("pub use handler::{\n    Accept, Conn,\n};\npub use protocol::{CloseCode, Message};\n");
    let seen = |path: &str, text: &str| layering(path, text, &exports).len();
    assert_eq!(seen("src/conn/a.rs", "use crate::worker::Worker;"), 1);
    assert_eq!(seen("src/conn/a.rs", "fn f(x: &crate::hub::Hub) {}"), 1);
    assert_eq!(seen("src/conn/a.rs", "use crate::{http::{A, B}, net::C, worker};"), 2);
    assert_eq!(seen("src/conn/a.rs", "use crate::Conn;"), 1);
    assert_eq!(seen("src/conn/a.rs", "use super::super::worker;"), 1);
    assert_eq!(seen("src/conn/a.rs", "use crate::{Message, conn::B};\nuse crate::protocol::CloseCode;"), 0);
    assert_eq!(seen("src/conn/a.rs", "//! As [`crate::Worker`] says\n// crate::worker::x"), 0);
    assert_eq!(seen("src/protocol/mask/a.rs", "use crate::http::Body;"), 1);
}

#[test]
fn an_impure_name_is_seen() {
    let seen = |text: &str| purity("src/http/a.rs", text).len();
    assert_eq!(seen("use std::net::TcpStream;"), 1);
    assert_eq!(seen("let t = std::time::Instant::now();"), 1);
    assert_eq!(seen("use std::{fmt, fs};"), 1);
    assert_eq!(seen("use mio::Token;"), 1);
    assert_eq!(seen("use core::net::IpAddr; // not std::net\nlet commio = loom::thread::spawn(f);"), 0);
    assert_eq!(purity("src/net/a.rs", "use std::net::TcpStream;").len(), 0);
}

#[test]
fn the_other_rules_can_fail_too() {
    let seen = |path: &str| logging(path, "use tracing::warn;\nfn f() {\n    eprintln!(\"x\");\n}").len();
    assert_eq!((seen("src/hub/a.rs"), seen("src/log/mod.rs")), (2, 0));
    assert!(has_unsafe("let x = unsafe { y };") && has_unsafe("unsafe fn f() {}"));
    assert!(!has_unsafe("#![allow(unsafe_code)] // unsafe, they say"));
    assert!(header("a", "use std::fmt;").is_some() && header("a", "//! Hm.").is_some());
    assert!(header("a", "//! What it is and refuses to be.").is_none());
    assert_eq!(phrases("a", concat!("// TO", "DO: the path /ho", "me/me")).len(), 2);
    assert!(length("a", &"\n".repeat(MAX_LINES + 1)).is_some() && length("a", "x").is_none());
    assert!(shared_measurement("tests/measured/a.rs", "#[test]\nfn a() {\n    let x = 1;\n").is_some());
    assert!(
        shared_measurement("tests/measured/a.rs", "#[test]\nfn a() {\n    let _alone = alone();\n").is_none()
    );
    let names = |list: &[&str]| list.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(fields("pub struct A {\n    /// Doc\n    pub b: u8,\n    c: u8,\n}\n", "A"), names(&["b"]));
    assert_eq!(settings("x\n    pub fn mailbox(mut self)\n    pub fn get(self)"), names(&["mailbox"]));
    assert_eq!(counters("\ncounters! {\n    /// One, two\n    a,\n    b,\n}\n"), names(&["a", "b"]));
    assert_eq!(rows("## x\n| `a`, `b` | `c` |\n\n## y\n| `d` | |\n", "## x"), names(&["a", "b"]));
    assert_eq!(differ("t", &names(&["a", "b"]), &names(&["b", "c"])).len(), 2);
}
