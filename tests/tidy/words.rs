//! Words and phrases that no text of this repository contains, and the length of lines in documents.
//!
//! `allowances.txt` beside this file lists the files that still break a rule and how often. A count can only shrink: a
//! new occurrence fails the test, and so does an entry whose file is clean. `TIDY_UPDATE=1 cargo test --test tidy`
//! writes the list again, unless it would grow.

use std::collections::BTreeMap;
use std::fmt::Write;

/// What is not written, and what is written instead. Matched as whole words, without regard to case, line breaks or the
/// markers of comments.
const BANNED: &[(&str, &str)] = &[
    // Phrases that need a second reading.
    ("whoever", "name the subject: a client that, a caller that"),
    ("so many", "say how many, or what the number is"),
    ("anew", "again, from the start"),
    ("is none", "say what it is not: is not a valid name"),
    ("are none", "there are no, or say what they are not"),
    ("for ever", "forever, or: without a limit"),
    ("as they may", "say which limit is reached"),
    ("as it may", "say which limit is reached"),
    ("hear", "receive"),
    ("hears", "receives"),
    ("heard", "received"),
    ("believe", "trust"),
    ("believes", "trusts"),
    ("believed", "trusted"),
    ("forgive", "accept"),
    ("forgives", "accepts"),
    ("mend", "fix"),
    ("mends", "fixes"),
    ("mended", "fixed"),
    ("does not mean to", "does not; in a list: non-goals"),
    ("of that weight", "say what justifies it"),
    ("counts as life", "resets the liveness timer"),
    ("can't be confused", "are never reused"),
    ("keep well", "name who maintains it"),
    ("kept well", "name who maintains it"),
    ("keeps the account", "accounts for"),
    ("copy of nothing", "needs no copy"),
    ("whole number", "integer"),
    ("no die", "no random source"),
    ("whom to believe", "trust anchors"),
    ("was ours", "say which side caused it"),
    ("nobody wants", "is not needed"),
    ("its place up", "is evicted"),
    ("worth keeping", "say what is kept"),
    ("what waits", "pending, queued"),
    ("what is kept", "history"),
    // The glossary's left column, where a search can tell it from ordinary words.
    ("home", "owner"),
    ("homes", "owners"),
    ("joining", "recovering"),
    ("twin", "variant; of code: reference implementation"),
    ("twins", "variants"),
    ("turn", "iteration"),
    ("turns", "iterations"),
    ("turn's", "the iteration's"),
    ("doom", "mark closed"),
    ("dooms", "marks closed"),
    ("doomed", "closed"),
    ("bury", "remove"),
    ("buried", "removed"),
    ("exchange", "pending response"),
    ("exchanges", "pending responses"),
    ("wish", "pending action"),
    ("dedup", "idempotency key, idempotency_key"),
    ("gave up", "evicted, dropped"),
    ("given up", "evicted, dropped"),
    ("gives up", "evicts, drops, stops"),
    ("who listens", "that subscribes"),
    ("nobody listens", "there are no subscribers"),
    ("listens to it", "subscribes to it"),
];

/// Where a banned word is an ordinary one, by the words around it.
const EXCEPTIONS: &[&str] = &[
    "$home",
    "home directory",
    "home page",
    "key exchange",
    ".dedup()",
    "turn off",
    "turn on",
    "turn it off",
    "turn them off",
    "turns off",
    "turns on",
    "turns it off",
    "turns them off",
    "turn one off",
    "in turn",
    "turn into",
    "turns into",
];

/// What is code in Python.
const PYTHON: &str = concat!("is no", "ne");

/// Words with another meaning elsewhere: what is banned below these folders alone.
const BANNED_BELOW: &[(&str, &str, &str)] = &[
    ("src/", "a run", "a batch"),
    ("src/", "run of", "batch of"),
    ("src/", "runs of", "batches of"),
    ("src/", "the run", "the batch"),
    ("src/worker/", "sweep", "reap"),
    ("loadtest/", "desk", "context"),
    ("loadtest/", "book", "counters"),
    ("loadtest/", "hall", "say what it holds"),
    ("loadtest/", "seat", "slot, connection"),
    ("loadtest/", "seats", "slots, connections"),
];

/// The longest line of a Markdown document, in characters.
pub(crate) const MAX_LINE: usize = 120;

/// A text in lower case, on one line: no markers of comments, one blank between words; and where its lines begin.
struct Flat {
    text: String,
    /// Where the words of a line begin, and its number.
    lines: Vec<(usize, usize)>,
}

impl Flat {
    /// The path is read as the first line: a file is named as what it holds.
    fn new(path: &str, text: &str) -> Self {
        let mut flat = Self { text: path.replace(['/', '.', '_', '-'], " "), lines: vec![(0, 0)] };
        for (n, line) in text.lines().enumerate() {
            let line = line.trim_start();
            let marker = ["//!", "///", "//", "#", "* ", "> "].into_iter().find(|m| line.starts_with(m));
            let line = line.strip_prefix(marker.unwrap_or_default()).unwrap_or(line);
            flat.lines.push((flat.text.len(), n + 1));
            for word in line.split_whitespace() {
                flat.text.push(' ');
                flat.text.push_str(word);
            }
        }
        flat.text = flat.text.to_lowercase();
        flat
    }

    fn line_at(&self, at: usize) -> usize {
        self.lines.iter().rev().find(|(from, _)| *from <= at).map_or(0, |(_, n)| *n)
    }

    /// Whether the words at `at` are within one of [`EXCEPTIONS`].
    fn is_exception(&self, at: usize, len: usize) -> bool {
        EXCEPTIONS.iter().any(|exception| {
            exception.len() >= len
                && (at.saturating_sub(exception.len() - len)..=at)
                    .any(|from| self.text.get(from..).is_some_and(|rest| rest.starts_with(exception)))
        })
    }
}

/// Every banned word of a text, with its line and what to write instead.
pub(crate) fn banned(path: &str, text: &str) -> Vec<String> {
    let flat = Flat::new(path, text);
    let below = BANNED_BELOW.iter().filter(|(folder, ..)| path.starts_with(folder));
    let words = BANNED.iter().copied().chain(below.map(|(_, word, instead)| (*word, *instead)));
    let words = words.filter(|(word, _)| !(path.ends_with(".py") && *word == PYTHON));
    let mut found = Vec::new();
    for (word, instead) in words {
        for at in crate::mentions(&flat.text, word).filter(|at| !flat.is_exception(*at, word.len())) {
            found.push(format!("{path}:{}: {word:?}; write: {instead}", flat.line_at(at)));
        }
    }
    found
}

/// Every line of a Markdown document that is too long.
pub(crate) fn long_lines(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().enumerate().filter(|(_, line)| line.chars().count() > MAX_LINE);
    let lines = lines.filter(|_| path.ends_with(".md"));
    lines
        .map(|(n, l)| format!("{path}:{}: {} characters, at most {MAX_LINE}", n + 1, l.chars().count()))
        .collect()
}

/// How often files may still break the rules, by rule and path.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Allowances(BTreeMap<(String, String), usize>);

impl Allowances {
    /// Lines of the form `RULE COUNT PATH`.
    pub(crate) fn parse(text: &str) -> Self {
        let entry = |line: &str| {
            let mut words = line.splitn(3, ' ');
            let (rule, count, path) = (words.next()?, words.next()?.parse::<usize>().ok()?, words.next()?);
            Some(((rule.to_owned(), path.to_owned()), count))
        };
        let mut all = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (key, count) = entry(line).unwrap_or_else(|| panic!("not an allowance: {line}"));
            // A merge may leave a line twice: the stricter one counts.
            all.entry(key).and_modify(|c: &mut usize| *c = count.min(*c)).or_insert(count);
        }
        Self(all)
    }

    /// What is found beyond what is allowed, and what is allowed without need.
    pub(crate) fn check(&self, rule: &str, found: &BTreeMap<String, Vec<String>>) -> Vec<String> {
        let mut complaints = Vec::new();
        for (path, occurrences) in found {
            let allowed = self.0.get(&(rule.to_owned(), path.clone())).copied().unwrap_or(0);
            if occurrences.len() > allowed {
                let n = occurrences.len();
                complaints.push(format!("{path}: {n} {rule}, {allowed} allowed; if the file was renamed, run TIDY_UPDATE=1 cargo test --test tidy"));
                complaints.extend(occurrences.iter().map(|o| format!("    {o}")));
            }
        }
        for ((_, path), _) in self.0.iter().filter(|((r, _), _)| r == rule) {
            if !found.contains_key(path) {
                complaints.push(format!(
                    "{path}: has no {rule} any more; run TIDY_UPDATE=1 cargo test --test tidy"
                ));
            }
        }
        complaints
    }

    /// The list for what was found, unless a rule would allow more in all than it does now.
    pub(crate) fn updated(&self, found: &[(&str, BTreeMap<String, Vec<String>>)]) -> Result<String, String> {
        let mut text = String::new();
        for (rule, found) in found {
            let before: usize = self.0.iter().filter(|((r, _), _)| r == rule).map(|(_, count)| count).sum();
            let now: usize = found.values().map(Vec::len).sum();
            if now > before {
                return Err(format!("{rule}: {now}, at most {before} are allowed"));
            }
            for (path, occurrences) in found {
                let _ = writeln!(text, "{rule} {} {path}", occurrences.len());
            }
        }
        Ok(text)
    }
}

#[test]
fn a_banned_word_is_found_in_every_form() {
    let found = |text: &str| banned("docs/a.md", text).len();
    assert_eq!(found(concat!("Who", "ever asks")), 1);
    assert_eq!(found(concat!("// it takes so\n    // ma", "ny bytes\n")), 1);
    assert_eq!(found(concat!("/// The name is\n/// no", "ne.")), 1);
    assert_eq!(found(concat!("a topic's ho", "me, ho", "me_page, and ho", "melike")), 1);
    assert_eq!(found(concat!("a ho", "me page, a key ex", "change, to tu", "rn off, in tu", "rn")), 0);
    assert_eq!(found(concat!("names.ded", "up(); by ded", "up")), 1);
    assert_eq!(banned(concat!("src/hub/ho", "me.rs"), "").len(), 1);
    assert_eq!(banned("a.py", concat!("if x is No", "ne: # who", "ever")).len(), 1);
    let run = concat!("a ", "run");
    assert_eq!((banned("src/a.rs", run).len(), banned("docs/a.md", run).len()), (1, 0));
    let line = banned("a.md", concat!("One.\nTwo, who", "ever.\n"));
    assert!(line[0].starts_with("a.md:2: "), "{line:?}");
}

#[test]
fn a_long_line_is_found_in_documents_alone() {
    let text = format!("{}\n{}\n", "é".repeat(MAX_LINE), "é".repeat(MAX_LINE + 1));
    assert_eq!((long_lines("a.md", &text).len(), long_lines("a.rs", &text).len()), (1, 0));
}

#[test]
fn allowances_only_shrink() {
    let allowances = Allowances::parse("words 2 a\nwords 1 b\nwords 5 a\n\nlines 3 a\n");
    let found = |list: &[(&str, usize)]| -> BTreeMap<String, Vec<String>> {
        list.iter().map(|(path, n)| ((*path).to_owned(), vec![String::new(); *n])).collect()
    };
    assert_eq!(allowances.check("words", &found(&[("a", 1), ("b", 1)])).len(), 0);
    assert_eq!(allowances.check("words", &found(&[("a", 3), ("b", 1)])).len(), 4, "one more than allowed");
    assert_eq!(allowances.check("words", &found(&[("a", 2)])).len(), 1, "b is clean and listed");
    assert_eq!(
        allowances.check("words", &found(&[("a", 2), ("b", 1), ("c", 1)])).len(),
        2,
        "c is not listed"
    );
    let update = |list: &[(&str, usize)]| allowances.updated(&[("words", found(list))]);
    assert_eq!(update(&[("c", 3)]).as_deref(), Ok("words 3 c\n"));
    assert!(update(&[("a", 3), ("c", 1)]).is_err());
}
