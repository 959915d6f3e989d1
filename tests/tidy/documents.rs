//! The documents say what the source says: defaults, close causes, codes, statuses, options of the command line; and every
//! link and path in them leads somewhere.

use super::{code, counters, differ, files, methods, none, read, root, rows, word};
use std::collections::{BTreeMap, BTreeSet};

// ---- reading ----

/// The section below a heading, up to the next one of the same level.
fn section<'p>(page: &'p str, heading: &str) -> &'p str {
    let after = page.split_once(&format!("\n{heading}\n")).map_or("", |(_, after)| after);
    after.split("\n## ").next().unwrap_or_default()
}

/// The cells of every row of a section's tables whose first cell has a name in backticks, by that name.
fn table(page: &str, heading: &str) -> BTreeMap<String, Vec<String>> {
    let lines = section(page, heading).lines().filter_map(|line| line.strip_prefix("| "));
    let rows = lines.map(|line| line.trim_end_matches('|').split('|').map(|c| c.trim().to_owned()));
    let rows = rows.map(|cells| cells.collect::<Vec<_>>());
    let named = rows.flat_map(|cells| {
        let names: Vec<_> = cells[0].split('`').skip(1).step_by(2).map(str::to_owned).collect();
        names.into_iter().map(move |name| (name, cells.clone()))
    });
    named.collect()
}

/// A number, or a time in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Number(u64),
    Time(u64),
}

/// What a cell begins with: `64 KiB`, `1,024`, `5 min`.
fn shown(cell: &str) -> Option<Value> {
    let end = cell.find(|c: char| !c.is_ascii_digit() && c != ',').unwrap_or(cell.len());
    let number: u64 = cell[..end].replace(',', "").parse().ok()?;
    let unit = cell[end..].trim_start().split(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
    Some(match unit {
        "KiB" => Value::Number(number << 10),
        "MiB" => Value::Number(number << 20),
        "GiB" => Value::Number(number << 30),
        "ms" => Value::Time(number),
        "s" => Value::Time(number * 1000),
        "min" => Value::Time(number * 60_000),
        _ => Value::Number(number),
    })
}

/// What an expression of the source is: `64 << 10`, `Duration::from_secs(25)`, or the name of a constant.
fn evaluate(expression: &str, constants: &str) -> Option<Value> {
    let expression = expression.trim();
    let number = |text: &str| text.trim().replace('_', "").parse::<u64>().ok();
    let call = |name: &str| number(expression.strip_prefix(name)?.strip_suffix(')')?);
    if expression == "Duration::ZERO" {
        return Some(Value::Time(0));
    }
    if let Some(seconds) = call("Duration::from_secs(") {
        return Some(Value::Time(seconds * 1000));
    }
    if let Some(time) = call("Duration::from_millis(") {
        return Some(Value::Time(time));
    }
    if let Some((number_of, shift)) = expression.split_once("<<") {
        return Some(Value::Number(number(number_of)? << number(shift)?));
    }
    if let Some(found) = number(expression) {
        return Some(Value::Number(found));
    }
    let constant = format!("const {expression}: ");
    let (_, rest) = constants.split_once(&constant)?;
    let (_, value) = rest.split_once('=')?;
    evaluate(value.split(';').next()?, "")
}

/// The fields of the first `Self { … }` behind a line of the source, with their expressions.
fn defaults(text: &str, from: &str) -> BTreeMap<String, String> {
    let text = code(text);
    let after = text.split_once(from).map_or("", |(_, after)| after);
    let body = after.split_once("Self {").map_or("", |(_, body)| body);
    let end = body.find("\n        }").or_else(|| body.find(" }")).unwrap_or_default();
    let fields = body[..end].split([',', '{']).filter_map(|field| field.split_once(':'));
    fields
        .map(|(name, value)| (name.trim().to_owned(), value.trim_end_matches('}').trim().to_owned()))
        .collect()
}

/// What a page says of the defaults that differs from the source. Values that are no number, such as a policy, are not
/// compared.
fn wrong_defaults(
    what: &str,
    source: &BTreeMap<String, String>,
    page: &BTreeMap<String, Vec<String>>,
) -> Vec<String> {
    let constants: String = files("src", &["rs"]).into_iter().map(|(_, text)| code(&text)).collect();
    let (mut complaints, mut compared) = (Vec::new(), 0);
    for (name, cells) in page {
        let (Some(expression), Some(cell)) = (source.get(name), cells.last()) else { continue };
        let (is, says) = (evaluate(expression, &constants), shown(cell));
        compared += u32::from(is.is_some());
        if is.is_some() && is != says {
            complaints
                .push(format!("{what}: {name} is {expression} in the source, and {cell:?} on the page"));
        }
    }
    if compared == 0 {
        complaints
            .push(format!("{what}: no default was compared; has the table or the source another form?"));
    }
    complaints
}

/// The names in the arms of a `match` that give a code: `Self::Unmasked | Self::Masked => CloseCode::PROTOCOL_ERROR`.
fn arms(body: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for arm in body.split("=>").collect::<Vec<_>>().windows(2) {
        let result = arm[1].trim_start().trim_start_matches("CloseCode::");
        let names = arm[0]
            .rsplit_once(',')
            .filter(|(before, _)| before.contains("Self::") && !arm[0].contains("{ .. }"));
        let names = names.map_or(arm[0], |(_, names)| names);
        for name in names.split("Self::").skip(1) {
            found.insert(word(name).to_owned(), word(result).to_owned());
        }
    }
    found
}

/// The registered close codes by the names of their constants.
fn close_codes(text: &str) -> BTreeMap<String, u16> {
    let body =
        text.split_once("\ncodes! {").map_or("", |(_, rest)| rest).split("\n}").next().unwrap_or_default();
    let lines = code(body);
    let pairs = lines.lines().filter_map(|line| line.trim().split_once(" = "));
    pairs.filter_map(|(name, rest)| Some((name.to_owned(), word(rest).parse().ok()?))).collect()
}

// ---- links ----

/// The anchor of a heading, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(page: &str) -> BTreeSet<String> {
    let mut inside = false;
    let headings = page.lines().filter(move |line| {
        inside ^= line.starts_with("```");
        !inside && line.starts_with('#')
    });
    headings.map(anchor).collect()
}

/// Links that lead nowhere. `exists` tells whether a path is there, and gives the text of a page.
fn dead_links(path: &str, page: &str, exists: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (at, _) in page.match_indices("](") {
        let target = page[at + 2..].split(')').next().unwrap_or_default().trim();
        if target.contains("://") || target.contains(char::is_whitespace) && !target.contains('\n') {
            continue;
        }
        let (file, heading) = target.split_once('#').unwrap_or((target, ""));
        let (target, text) = if file.is_empty() {
            (path.to_owned(), Some(page.to_owned()))
        } else {
            let mut parts: Vec<&str> = path.split('/').collect();
            parts.pop();
            for part in file.split('/') {
                match part {
                    "." => {}
                    ".." => drop(parts.pop()),
                    part => parts.push(part),
                }
            }
            let target = parts.join("/");
            let text = exists(&target);
            (target, text)
        };
        match text {
            None => complaints.push(format!("{path}: links to {target}, which is not there")),
            Some(text) if !heading.is_empty() && !anchors(&text).contains(heading) => {
                complaints.push(format!("{path}: links to {target}#{heading}, and there is no such heading"));
            }
            Some(_) => {}
        }
    }
    complaints
}

/// Files and functions that a page of internals names and that are not there: `hub/mod.rs`,
/// `worker/fanout.rs::fan_out, write_dirty`.
fn dead_paths(path: &str, page: &str, source: &BTreeMap<String, String>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (at, _) in page.match_indices(".rs") {
        let is_path = |c: char| c.is_alphanumeric() || matches!(c, '_' | '/' | '-' | '.');
        let start = page[..at].rfind(|c: char| !is_path(c)).map_or(0, |before| before + 1);
        // The character before may have more than one byte.
        let start = (start..=at).find(|i| page.is_char_boundary(*i)).unwrap_or(at);
        let (file, rest) = (&page[start..at + 3], &page[at + 3..]);
        let Some((_, text)) = source.iter().find(|(p, _)| *p == file || p.ends_with(&format!("/{file}")))
        else {
            complaints.push(format!("{path}: names {file}, which is not there"));
            continue;
        };
        let Some(rest) = rest.strip_prefix("::") else { continue };
        let functions = rest.split(", ").map(word).zip(rest.split(", "));
        for (function, given) in functions {
            if !function.is_empty() && !text.contains(&format!("fn {function}")) {
                complaints
                    .push(format!("{path}: names {file}::{function}, and the file has no such function"));
            }
            if word(given).len() != given.len() {
                break; // the list ends here
            }
        }
    }
    complaints
}

// ---- the documents ----

#[test]
fn links_lead_somewhere() {
    let mut complaints = Vec::new();
    for (path, page) in files("", &["md"]) {
        complaints.extend(dead_links(&path, &page, |target| {
            let full = root().join(target);
            full.exists().then(|| std::fs::read_to_string(full).unwrap_or_default())
        }));
    }
    none(complaints);
}

#[test]
fn internals_name_files_and_functions_that_are_there() {
    let source: BTreeMap<_, _> = files("", &["rs"]).into_iter().collect();
    let pages = files("docs/internals", &["md"]);
    none(pages.iter().flat_map(|(path, page)| dead_paths(path, page, &source)).collect());

    let page = read("docs/internals/architecture.md");
    let steps = section(&page, "## The event loop").lines().filter_map(|line| line.split('`').nth(1));
    let worker: String = files("src/worker", &["rs"]).into_iter().map(|(_, text)| text).collect();
    let steps: Vec<_> = steps.filter(|step| !step.contains("::")).collect();
    assert!(steps.len() > 8, "the event loop has lost its steps, or this test has");
    let gone = steps.iter().filter(|step| !worker.contains(&format!("fn {step}(")));
    none(gone.map(|step| format!("the event loop has no step {step}")).collect());
}

#[test]
fn defaults_on_the_pages_are_those_of_the_source() {
    let mut complaints = Vec::new();
    for (file, from, page, heading) in [
        ("src/conn/limits.rs", "impl Default for Limits", "options", "## `Limits`"),
        ("src/http/limits.rs", "impl Default for HttpLimits", "options", "## `HttpLimits`"),
        ("src/net/listener.rs", "impl Default for ListenOptions", "options", "## `ListenOptions`"),
        ("src/hub/settings.rs", "pub const fn new() -> Self", "options", "## `TopicSettings`"),
        ("src/push/mod.rs", "pub fn new() -> Self", "options", "## `Push`"),
        ("src/server/builder.rs", "impl Default for Builder", "options", "## `Builder`"),
        ("src/client/limits.rs", "impl Default for ClientLimits", "client", "## Limits"),
        ("src/hub/settings.rs", "pub const fn new() -> Self", "../guide/recovery", "## What a history holds"),
        ("src/push_client/builder.rs", "impl Default for PushClientLimits", "client", "## Topics"),
    ] {
        let mut source = defaults(&read(file), from);
        for (field, option) in [("commands", "mailbox"), ("bytes", "mailbox_bytes")] {
            if let Some(value) = source.remove(field) {
                source.insert(option.to_owned(), value);
            }
        }
        let page = table(&read(format!("docs/reference/{page}.md")), heading);
        assert!(source.len() > 3, "{file} has lost its defaults, or this test has: {source:?}");
        assert!(page.keys().any(|name| source.contains_key(name)), "{heading} has no row of {file}");
        complaints.extend(wrong_defaults(heading, &source, &page));
    }
    none(complaints);
}

#[test]
fn numbers_on_the_pages_are_constants_of_the_source() {
    let mut complaints = Vec::new();
    for (file, constant, page, before) in [
        ("src/api/body.rs", "MAX_ITEMS", "reference/options.md", "topics of a broadcast | "),
        ("src/hub/tags.rs", "MAX_KEY", "reference/options.md", "bytes of `key` and `idempotency_key` | "),
        ("src/api/guard.rs", "MAX_KEY", "reference/options.md", "bytes of an API key | "),
        ("src/api/mod.rs", "TIMEOUT", "reference/options.md", "a worker has to answer | "),
        ("src/bin/campanile/push.rs", "KEPT", "guide/topics.md", "with a history of "),
        ("src/bin/campanile/push.rs", "KEPT_BYTES", "guide/topics.md", "with a history of 100 messages, "),
        ("src/push/mod.rs", "MAX_SUBSCRIPTIONS", "reference/protocol.md", "subscriptions of a connection | "),
        ("src/hub/topic.rs", "MAX_TOPIC", "reference/protocol.md", "bytes of a topic's name | "),
        ("src/push_protocol/mod.rs", "MAX_EPOCH", "reference/protocol.md", "bytes of `since.epoch` | "),
        ("src/hub/tags.rs", "MAX_KEY", "reference/protocol.md", "bytes of `key` and `idempotency_key` | "),
    ] {
        let value = evaluate(constant, &code(&read(file)));
        let page_text = read(format!("docs/{page}"));
        let says = page_text.split_once(before).and_then(|(_, cell)| shown(cell));
        if value.is_none() || value != says {
            complaints.push(format!("{file}: {constant} is {value:?}, and docs/{page} says {says:?}"));
        }
    }
    none(complaints);
}

#[test]
fn defaults_in_sentences_are_those_of_the_source() {
    const LIMITS: (&str, &str) = ("src/conn/limits.rs", "impl Default for Limits");
    const HTTP: (&str, &str) = ("src/http/limits.rs", "impl Default for HttpLimits");
    const BUILDER: (&str, &str) = ("src/server/builder.rs", "impl Default for Builder");
    let constants: String = files("src", &["rs"]).into_iter().map(|(_, text)| code(&text)).collect();
    let mut complaints = Vec::new();
    for ((file, from), field, page, before) in [
        (LIMITS, "max_backlog", "guide/operating.md", "at most `max_backlog`, "),
        (LIMITS, "max_message_size", "guide/operating.md", "at most `max_message_size`, "),
        (LIMITS, "max_message_size", "guide/migrating.md", "`Limits::max_message_size` ("),
        (LIMITS, "ping_interval", "guide/operating.md", "longer than the heartbeat, "),
        (HTTP, "max_body", "reference/http-api.md", "`HttpLimits::max_body` ("),
        (BUILDER, "receive_buffer", "guide/operating.md", "| each event loop | "),
        (BUILDER, "spare_buffers", "guide/operating.md", "receive buffer, up to "),
        (BUILDER, "max_history", "guide/operating.md", "at most `max_history`, "),
        (BUILDER, "max_history", "guide/recovery.md", "`Builder::max_history` ("),
        (BUILDER, "max_memory", "guide/operating.md", "at most `max_memory`, "),
        (BUILDER, "bytes", "guide/operating.md", "at most `mailbox_bytes`, "),
    ] {
        let source = defaults(&read(file), from);
        let value = source.get(field).and_then(|expression| evaluate(expression, &constants));
        let text = read(format!("docs/{page}"));
        let says = text.split_once(before).and_then(|(_, rest)| shown(rest));
        if value.is_none() || value != says {
            complaints.push(format!("{file}: {field} is {value:?}, and docs/{page} says {says:?}"));
        }
    }
    none(complaints);
}

#[test]
fn every_close_cause_has_its_row_with_code_and_counter() {
    let page = read("docs/reference/errors.md");
    let source = read("src/conn/closed.rs");
    let body = source.split_once("const fn name(self)").expect("names of causes").1;
    let body = body.split("\n    }").next().unwrap_or_default();
    let names: BTreeMap<_, _> = body
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Self::")?.split_once("=> \""))
        .map(|(variant, name)| (word(variant).to_owned(), name.trim_end_matches("\",").to_owned()))
        .collect();
    let rows = table(&page, "## Close causes");
    none(differ("close causes", &names.values().cloned().collect(), &rows.keys().cloned().collect()));

    let counters = counters(&read("src/metrics/mod.rs"));
    let codes = close_codes(&read("src/protocol/close.rs"));
    assert!(codes.len() > 10, "the close codes are gone, or this test has lost them");
    let mut complaints = Vec::new();
    for (name, cells) in &rows {
        let counter = cells[2].trim_matches('`');
        if !counter.is_empty() && !counters.contains(counter) {
            complaints.push(format!("{name}: there is no counter {counter}"));
        }
    }
    // Where the source has code and cause in one call.
    let ends = files("src/worker", &["rs"]);
    let ends = ends.iter().flat_map(|(_, text)| text.split("mod tests").next().unwrap_or_default().lines());
    let mut seen = 0;
    for line in ends.filter(|line| line.contains("CloseCode::") && line.contains("Cause::")) {
        let part = |prefix: &str| word(line.split_once(prefix).map_or("", |(_, rest)| rest));
        let (Some(code), Some(name)) = (codes.get(part("CloseCode::")), names.get(part(" Cause::"))) else {
            continue;
        };
        seen += 1;
        if !rows[name][1].starts_with(&code.to_string()) {
            complaints.push(format!("{name}: {code} in the source, {:?} on the page", rows[name][1]));
        }
    }
    assert!(seen >= 6, "only {seen} ends were compared: has the source another form?");
    none(complaints);
}

#[test]
fn every_code_and_status_has_its_row() {
    let page = read("docs/reference/errors.md");
    let first = |heading: &str| -> BTreeSet<String> {
        let lines = section(&page, heading).lines().filter_map(|line| line.strip_prefix("| "));
        let cells = lines.filter_map(|line| line.split(" | ").next().map(str::to_owned));
        cells.filter(|cell| cell.parse::<u16>().is_ok()).collect()
    };
    let codes = close_codes(&read("src/protocol/close.rs"));
    let numbers = codes.values().map(u16::to_string).collect();
    none(differ("close codes", &numbers, &first("## Close codes")));

    let errors = read("src/protocol/error.rs");
    let body = errors.split_once("fn close_code(self)").expect("codes of errors").1;
    let source: BTreeMap<_, _> = arms(body.split("\n    }").next().unwrap_or_default());
    let rows = table(&page, "## Protocol errors");
    let rows: BTreeMap<_, _> = rows.into_iter().filter(|(name, _)| name != "ProtocolError").collect();
    none(differ("protocol errors", &source.keys().cloned().collect(), &rows.keys().cloned().collect()));
    for (name, constant) in &source {
        assert_eq!(rows[name][1], codes[constant].to_string(), "{name}");
    }

    let http = read("src/http/error.rs");
    let body = http.split_once("const fn status(self)").expect("statuses").1;
    let body = body.split("\n    }").next().unwrap_or_default();
    let statuses = body.split("=> ").skip(1).map(|rest| word(rest).to_owned()).collect();
    none(differ("statuses", &statuses, &first("## HTTP status codes")));
}

#[test]
fn every_option_of_the_command_line_has_its_row() {
    let source = read("src/bin/campanile/args.rs");
    let fields = source.lines().filter_map(|line| line.strip_prefix("    pub(crate) "));
    let fields = fields.filter(|line| line.contains(": ") && !line.contains("fn "));
    let options = fields.map(word).filter(|name| !["tls", "api"].contains(name));
    let options = options.map(|name| match name {
        "origins" => "--origin".to_owned(),
        name => format!("--{}", name.replace('_', "-")),
    });
    let page = read("docs/reference/options.md");
    let rows: BTreeSet<_> = rows(&page, "\n## Command line").into_iter().collect();
    let settings = read("src/bin/campanile/topics.rs");
    let names = settings.split_once("const NAMES: &str").expect("names of settings").1;
    let names = names.split('"').nth(1).unwrap_or_default().split(", ").map(str::to_owned);
    none(differ("command line", &options.chain(names).collect(), &rows));
}

#[test]
fn every_method_of_a_route_that_sets_something_has_its_row() {
    let source = methods(&read("src/handler/route.rs"))
        .filter(|m| !["new", "limits"].contains(m))
        .map(str::to_owned)
        .collect();
    let page = read("docs/reference/options.md");
    let rows = section(&page, "## `Route`")
        .split("\n\n")
        .nth(1)
        .map_or_else(BTreeSet::new, |t| super::rows(&format!("## x\n{t}"), "## x"));
    none(differ("Route", &source, &rows));
}

// ---- the rules can fail ----

#[test]
fn a_wrong_document_is_seen() {
    let page = "# A b\n\n## `X`: one\n\n[a](b.md#c) [d](#a-b) [e](https://f) [g](../h)\n";
    let exists = |path: &str| (path == "docs/b.md").then(|| "## C\n".to_owned());
    assert_eq!(dead_links("docs/a.md", page, exists).len(), 1);
    assert_eq!(dead_links("docs/a.md", page, |_| None).len(), 2);
    assert_eq!(anchor("## `X`: one & two"), "x-one--two");

    let source = BTreeMap::from([("src/hub/mod.rs".to_owned(), "fn deliver() {}".to_owned())]);
    assert_eq!(dead_paths("a", "`hub/mod.rs`, hub/mod.rs::deliver, (`src/hub/mod.rs`).", &source).len(), 0);
    assert_eq!(dead_paths("a", "hub/mod.rs::gone and hub/gone.rs", &source).len(), 2);
    assert_eq!(dead_paths("a", "│ hub/mod.rs::deliver, gone, lost\n", &source).len(), 2);

    let constants = "const MOST: usize = 256 << 20;";
    assert_eq!(evaluate("MOST", constants), Some(Value::Number(256 << 20)));
    assert_eq!(evaluate("Duration::from_secs(300)", ""), shown("5 min"));
    assert_eq!((evaluate("65_536", ""), shown("65,536")), (shown("64 KiB"), Some(Value::Number(65_536))));
    assert_eq!((shown("unlimited"), evaluate("None", "")), (None, None));
    let source = defaults(
        "impl Default\n        Self {\n            a: 1 << 10,\n            b: None,\n        }",
        "impl",
    );
    let page = table("\n## X\n| `a` | x | 2 KiB |\n| `b` | x | none |\n", "## X");
    assert_eq!(wrong_defaults("X", &source, &page).len(), 1);
    let two = arms("Self::A\n | Self::B { .. } => CloseCode::X,\n Self::C => CloseCode::Y,\n");
    assert_eq!((two["A"].as_str(), two["B"].as_str(), two["C"].as_str()), ("X", "X", "Y"));
    assert_eq!(close_codes("\ncodes! {\n    /// Doc.\n    A = 1000, \"A\";\n}\n")["A"], 1000);
}
