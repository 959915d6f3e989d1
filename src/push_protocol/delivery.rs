//! Messages of topics: JSON around text, a head before binary payloads.
//!
//! ```text
//!   {"type":"message","topic":"orders/42","offset":13,"data":…}
//!   {"type":"messages","topic":"orders/42","messages":[{"offset":13,"data":…},{"offset":14,"text":…}]}
//!
//!   │ version 1 │ n: 1 byte │ topic: n bytes │ offset: 8 bytes, big endian │ payload │
//! ```

use crate::json::{write_payload, write_string};
use crate::protocol::{Kind, Message};
use std::io::Write;

/// The version of the head before binary payloads.
pub(super) const BINARY_VERSION: u8 = 1;

/// Appends the members of one message and the closing brace.
fn write_members(out: &mut Vec<u8>, offset: u64, text: &str, is_json: bool) {
    let _ = write!(out, r#""offset":{offset},"#); // a Vec takes all
    write_payload(out, text, is_json);
    out.push(b'}');
}

/// Appends a message, as JSON if it is text, else with a head.
pub(crate) fn write_message(out: &mut Vec<u8>, topic: &str, offset: u64, message: Message<'_>) -> Kind {
    let Some(text) = message.as_text() else {
        write_binary(out, topic, offset, message.as_bytes());
        return Kind::Binary;
    };
    out.extend_from_slice(br#"{"type":"message","topic":"#);
    write_string(out, topic);
    out.push(b',');
    write_members(out, offset, text, message.is_json());
    Kind::Text
}

fn write_binary(out: &mut Vec<u8>, topic: &str, offset: u64, payload: &[u8]) {
    // Topics have at most 255 bytes.
    let len = u8::try_from(topic.len()).unwrap_or(u8::MAX);
    out.extend_from_slice(&[BINARY_VERSION, len]);
    out.extend_from_slice(&topic.as_bytes()[..usize::from(len)]);
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Appends several messages of one topic as one. False: one of them is binary, so they can't be sent as one.
pub(crate) fn write_messages<'m>(
    out: &mut Vec<u8>,
    topic: &str,
    messages: impl Iterator<Item = (u64, Message<'m>)>,
) -> bool {
    out.extend_from_slice(br#"{"type":"messages","topic":"#);
    write_string(out, topic);
    out.extend_from_slice(br#","messages":["#);
    for (i, (offset, message)) in messages.enumerate() {
        out.extend_from_slice(if i == 0 { b"{" } else { b",{" });
        let Some(text) = message.as_text() else { return false };
        write_members(out, offset, text, message.is_json());
    }
    out.extend_from_slice(b"]}");
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(topic: &str, message: Message<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        write_message(&mut out, topic, 13, message);
        out
    }

    #[test]
    fn json_is_inserted_verbatim_and_text_is_escaped() {
        let out = written("a", Message::json(r#"{"x": 1}"#));
        assert_eq!(out, br#"{"type":"message","topic":"a","offset":13,"data":{"x": 1}}"#);
        let out = written("q\"\\/é\u{2028}", Message::text("say \"hi\"\n\0"));
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            (value["topic"].as_str(), value["text"].as_str()),
            (Some("q\"\\/é\u{2028}"), Some("say \"hi\"\n\0"))
        );
    }

    #[test]
    fn messages_are_batched_unless_one_is_binary() {
        let mut out = Vec::new();
        let batch = [(13, Message::json("[1]")), (14, Message::text("\"hi\""))];
        assert!(write_messages(&mut out, "a", batch.into_iter()));
        let expected = r#"{"type":"messages","topic":"a","messages":[{"offset":13,"data":[1]},{"offset":14,"text":"\"hi\""}]}"#;
        assert_eq!(String::from_utf8_lossy(&out), expected);
        let batch = [(13, Message::json("[1]")), (14, Message::binary(b"x"))];
        assert!(!write_messages(&mut Vec::new(), "a", batch.into_iter()));
    }

    #[test]
    fn binary_messages_get_a_head() {
        let out = written("bel", Message::binary(&[0xFF, 0xD8]));
        assert_eq!(out, b"\x01\x03bel\x00\x00\x00\x00\x00\x00\x00\x0d\xff\xd8");
        let out = written(&"x".repeat(255), Message::binary(b""));
        assert_eq!((out[1], out.len()), (255, 2 + 255 + 8));
    }
}
