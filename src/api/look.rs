//! Looking: which topics there are, what one keeps, how the server is.

use super::answer::{self, Refusal};
use super::input::{check_query, number, shown_text};
use super::{Call, PATIENCE};
use crate::http::Response;
use crate::hub::{HistoryPage, Position, Start, TopicList};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::Write;

/// Topics or messages in an answer, unless asked for fewer.
const FEW: u64 = 100;

/// The most that can be asked for.
const MANY: u64 = 1000;

/// Bytes of an answer, after which the rest is left to the next question.
const MOST_BYTES: usize = 1 << 20;

fn limit(call: &Call<'_>) -> Result<usize, Refusal> {
    match number(call.request, "limit", MANY)? {
        Some(0) => Err(Refusal::invalid(format!("\"limit\" is to be 1 to {MANY}, not 0"))),
        limit => Ok(limit.unwrap_or(FEW) as usize),
    }
}

pub(super) fn topics(call: &Call<'_>) -> Result<Response, Refusal> {
    check_query(call.request, &["prefix", "limit"])?;
    let limit = limit(call)?;
    let prefix = call.request.query_value("prefix").unwrap_or_default().into_owned();
    let handle = call.handle.clone();
    Ok(Response::later(PATIENCE, move |responder| {
        handle.topics(&prefix, limit).then(move |list| {
            responder.respond(match list {
                Ok(list) => answer::ok(listed(&list)),
                Err(e) => Refusal::from(e).response(),
            });
        });
    }))
}

fn listed(list: &TopicList) -> Vec<u8> {
    let mut out = br#"{"topics":["#.to_vec();
    for (i, topic) in list.topics.iter().enumerate() {
        out.extend_from_slice(if i == 0 { br#"{"topic":"# } else { br#",{"topic":"# });
        answer::text(&mut out, &topic.name);
        // Writing to a Vec doesn't fail.
        let _ = write!(out, r#","subscribers":{},"history":{}"#, topic.subscribers, topic.history);
        if let Some(Position { epoch, offset, .. }) = topic.position {
            let _ = write!(out, r#","epoch":"{epoch:x}","offset":{offset}"#);
        }
        out.push(b'}');
    }
    let _ = write!(out, r#"],"more":{}}}"#, list.more);
    out
}

/// A place as it stands in answers: the epoch in hexadecimal digits.
fn place(text: &str) -> Option<Position> {
    let (epoch, offset) = text.split_once(':')?;
    let digits = offset.bytes().all(|b| b.is_ascii_digit()) && !epoch.starts_with('+');
    let position = Position::new(u64::from_str_radix(epoch, 16).ok()?, offset.parse().ok()?);
    digits.then_some(position)
}

pub(super) fn history(call: &Call<'_>) -> Result<Response, Refusal> {
    check_query(call.request, &["topic", "since", "limit"])?;
    let limit = limit(call)?;
    let Some(topic) = call.request.query_value("topic") else {
        return Err(Refusal::invalid("\"topic\" is missing"));
    };
    let start = match call.request.query_value("since") {
        None => Start::Last(limit),
        Some(since) => place(&since).map(Start::Since).ok_or_else(|| {
            let since = shown_text(&since);
            Refusal::invalid(format!("\"since\" is to be EPOCH:OFFSET, such as 18f2a6c0b1:12, not {since}"))
        })?,
    };
    let (handle, topic) = (call.handle.clone(), topic.into_owned());
    Ok(Response::later(PATIENCE, move |responder| {
        let name = topic.clone();
        handle.history(&topic, start, limit).then(move |page| {
            responder.respond(match page {
                Ok(Some(page)) => answer::ok(kept(&name, &page)),
                Ok(None) => {
                    let nobody = "nobody listens to this topic and it keeps nothing: it is not there";
                    Refusal::new(404, "not_found", nobody).response()
                }
                Err(e) => Refusal::from(e).response(),
            });
        });
    }))
}

fn kept(topic: &str, page: &HistoryPage) -> Vec<u8> {
    let mut out = br#"{"topic":"#.to_vec();
    answer::text(&mut out, topic);
    let Position { epoch, offset, .. } = page.position;
    // Writing to a Vec doesn't fail.
    let _ = write!(out, r#","epoch":"{epoch:x}","offset":{offset},"recovered":{}"#, page.recovered);
    out.extend_from_slice(br#","messages":["#);
    let mut more = page.more;
    for (i, kept) in page.messages.iter().enumerate() {
        if out.len() > MOST_BYTES {
            more = true;
            break;
        }
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(out, r#"{comma}{{"offset":{},"#, kept.offset());
        let message = kept.message();
        match message.as_text() {
            Some(json) if message.is_json() => {
                out.extend_from_slice(br#""data":"#);
                out.extend_from_slice(json.as_bytes());
            }
            Some(text) => {
                out.extend_from_slice(br#""text":"#);
                answer::text(&mut out, text);
            }
            None => {
                let _ = write!(out, r#""base64":"{}""#, STANDARD.encode(message.as_bytes()));
            }
        }
        out.push(b'}');
    }
    let _ = write!(out, r#"],"more":{more}}}"#);
    out
}

pub(super) fn info(call: &Call<'_>) -> Result<Response, Refusal> {
    check_query(call.request, &[])?;
    let stats = call.handle.stats();
    let mut out = Vec::with_capacity(1024);
    // Writing to a Vec doesn't fail.
    let _ = write!(
        out,
        r#"{{"server":"campanile","version":"{}","uptime":{},"workers":{},"connections":{},"stats":{{"#,
        env!("CARGO_PKG_VERSION"),
        call.began.elapsed().as_secs(),
        call.handle.shared.workers.len(),
        stats.open,
    );
    for (i, (name, count)) in stats.entries().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(out, r#"{comma}"{name}":{count}"#);
    }
    out.extend_from_slice(b"}}");
    Ok(answer::ok(out))
}
