//! Looking: which topics there are, what one keeps, how the server is.

use super::body::{check_query, query_integer};
use super::response::{self, ApiError};
use super::{Call, TIMEOUT};
use crate::http::Response;
use crate::hub::{HistoryPage, Position, Start, TopicList};
use crate::json::{quoted, write_payload, write_string};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::Write;

/// Topics or messages in an answer, unless asked for fewer.
const DEFAULT_LIMIT: u64 = 100;

/// The most that can be asked for.
const MAX_LIMIT: u64 = 1000;

/// Bytes of an answer, after which the rest is left to the next question.
const MAX_RESPONSE: usize = 1 << 20;

fn limit(call: &Call<'_>) -> Result<usize, ApiError> {
    match query_integer(call.request, "limit", MAX_LIMIT)? {
        Some(0) => Err(ApiError::invalid(format!("limit: expected an integer from 1 to {MAX_LIMIT}, got 0"))),
        limit => Ok(limit.unwrap_or(DEFAULT_LIMIT) as usize),
    }
}

pub(super) fn topics(call: &Call<'_>) -> Result<Response, ApiError> {
    check_query(call.request, &["prefix", "limit"])?;
    let limit = limit(call)?;
    let prefix = call.request.query_value("prefix").unwrap_or_default().into_owned();
    let handle = call.handle.clone();
    Ok(Response::later(TIMEOUT, move |responder| {
        handle.topics(&prefix, limit).then(move |list| {
            responder.respond(match list {
                Ok(list) => response::ok(topics_json(&list)),
                Err(e) => ApiError::from(e).response(),
            });
        });
    }))
}

fn topics_json(list: &TopicList) -> Vec<u8> {
    let mut out = br#"{"topics":["#.to_vec();
    for (i, topic) in list.topics.iter().enumerate() {
        out.extend_from_slice(if i == 0 { br#"{"topic":"# } else { br#",{"topic":"# });
        write_string(&mut out, &topic.name);
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
fn parse_position(text: &str) -> Option<Position> {
    let (epoch, offset) = text.split_once(':')?;
    let digits = offset.bytes().all(|b| b.is_ascii_digit()) && !epoch.starts_with('+');
    let position = Position::new(u64::from_str_radix(epoch, 16).ok()?, offset.parse().ok()?);
    digits.then_some(position)
}

pub(super) fn history(call: &Call<'_>) -> Result<Response, ApiError> {
    check_query(call.request, &["topic", "since", "limit"])?;
    let limit = limit(call)?;
    let Some(topic) = call.request.query_value("topic") else {
        return Err(ApiError::invalid("topic: missing"));
    };
    let start = match call.request.query_value("since") {
        None => Start::Last(limit),
        Some(since) => parse_position(&since).map(Start::Since).ok_or_else(|| {
            let since = quoted(&since);
            ApiError::invalid(format!("since: expected EPOCH:OFFSET, such as 18f2a6c0b1:12, got {since}"))
        })?,
    };
    let (handle, topic) = (call.handle.clone(), topic.into_owned());
    Ok(Response::later(TIMEOUT, move |responder| {
        let name = topic.clone();
        handle.history(&topic, start, limit).then(move |page| {
            responder.respond(match page {
                Ok(Some(page)) => response::ok(history_json(&name, &page)),
                Ok(None) => {
                    let message = "topic: has neither subscribers nor history";
                    ApiError::new(404, "not_found", message).response()
                }
                Err(e) => ApiError::from(e).response(),
            });
        });
    }))
}

fn history_json(topic: &str, page: &HistoryPage) -> Vec<u8> {
    let mut out = br#"{"topic":"#.to_vec();
    write_string(&mut out, topic);
    let Position { epoch, offset, .. } = page.position;
    // Writing to a Vec doesn't fail.
    let _ = write!(out, r#","epoch":"{epoch:x}","offset":{offset},"recovered":{}"#, page.recovered);
    out.extend_from_slice(br#","messages":["#);
    let mut more = page.more;
    for (i, kept) in page.messages.iter().enumerate() {
        if out.len() > MAX_RESPONSE {
            more = true;
            break;
        }
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(out, r#"{comma}{{"offset":{},"#, kept.offset());
        let message = kept.message();
        match message.as_text() {
            Some(text) => write_payload(&mut out, text, message.is_json()),
            None => {
                let _ = write!(out, r#""base64":"{}""#, STANDARD.encode(message.as_bytes()));
            }
        }
        out.push(b'}');
    }
    let _ = write!(out, r#"],"more":{more}}}"#);
    out
}

pub(super) fn info(call: &Call<'_>) -> Result<Response, ApiError> {
    check_query(call.request, &[])?;
    let stats = call.handle.stats();
    let mut out = Vec::with_capacity(1024);
    // Writing to a Vec doesn't fail.
    let _ = write!(
        out,
        r#"{{"server":"campanile","version":"{}","uptime":{},"workers":{},"connections":{},"stats":{{"#,
        env!("CARGO_PKG_VERSION"),
        call.started.elapsed().as_secs(),
        call.handle.shared.workers.len(),
        stats.open,
    );
    for (i, (name, count)) in stats.entries().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(out, r#"{comma}"{name}":{count}"#);
    }
    out.extend_from_slice(b"}}");
    Ok(response::ok(out))
}
