//! How a topic's message looks to a client of the endpoint: JSON around text, a short head before bytes. Made once for
//! all connections of the route.
//!
//! ```text
//!   {"type":"message","topic":"orders/42","offset":13,"data":…}
//!   {"type":"messages","topic":"orders/42","messages":[{"offset":13,"data":…},{"offset":14,"text":…}]}
//!
//!   │ version 1 │ n: 1 byte │ topic: n bytes │ offset: 8 bytes, big endian │ payload │
//! ```

use super::server_message::write_string;
use crate::hub::{Delivered, Envelope};
use crate::protocol::Kind;
use std::io::Write;

/// The version of the head before bytes.
const BINARY_VERSION: u8 = 1;

#[derive(Clone, Copy, Debug)]
pub(super) struct Json;

/// What of a message is its own: its place, and what it says.
fn write_member(item: &Delivered<'_>, text: &str, out: &mut Vec<u8>) {
    let _ = write!(out, r#""offset":{},"#, item.position.offset); // a Vec takes all
    if item.message.is_json() {
        out.extend_from_slice(br#""data":"#);
        out.extend_from_slice(text.as_bytes());
    } else {
        out.extend_from_slice(br#""text":"#);
        write_string(out, text);
    }
    out.push(b'}');
}

impl Envelope for Json {
    fn wrap(&self, item: &Delivered<'_>, out: &mut Vec<u8>) -> Kind {
        let (message, offset) = (item.message, item.position.offset);
        let Some(text) = message.as_text() else {
            let topic = item.topic.as_bytes();
            // A topic's name has up to 255 bytes.
            let n = u8::try_from(topic.len()).unwrap_or(u8::MAX);
            out.extend_from_slice(&[BINARY_VERSION, n]);
            out.extend_from_slice(&topic[..usize::from(n)]);
            out.extend_from_slice(&offset.to_be_bytes());
            out.extend_from_slice(message.as_bytes());
            return Kind::Binary;
        };
        out.extend_from_slice(br#"{"type":"message","topic":"#);
        write_string(out, item.topic);
        out.push(b',');
        write_member(item, text, out);
        Kind::Text
    }

    fn wrap_all(&self, items: &[Delivered<'_>], out: &mut Vec<u8>) -> Option<Kind> {
        out.extend_from_slice(br#"{"type":"messages","topic":"#);
        write_string(out, items.first()?.topic);
        out.extend_from_slice(br#","messages":["#);
        for (i, item) in items.iter().enumerate() {
            out.extend_from_slice(if i == 0 { b"{" } else { b",{" });
            write_member(item, item.message.as_text()?, out); // bytes are no JSON
        }
        out.extend_from_slice(b"]}");
        Some(Kind::Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Position;
    use crate::protocol::Message;

    fn wrapped(topic: &str, message: Message<'_>) -> (Kind, Vec<u8>) {
        let mut out = Vec::new();
        let item = Delivered { topic, position: Position::new(7, 13), message };
        let kind = Json.wrap(&item, &mut out);
        (kind, out)
    }

    #[test]
    fn json_is_inserted_verbatim_and_text_is_escaped() {
        let (kind, out) = wrapped("a", Message::json(r#"{"x": 1}"#));
        assert_eq!(kind, Kind::Text);
        assert_eq!(out, br#"{"type":"message","topic":"a","offset":13,"data":{"x": 1}}"#);
        let (_, out) = wrapped("q\"\\/é\u{2028}", Message::text("say \"hi\"\n\0"));
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["topic"], "q\"\\/é\u{2028}");
        assert_eq!(value["text"], "say \"hi\"\n\0");
    }

    #[test]
    fn messages_are_batched_unless_one_is_binary() {
        let item = |offset, message| Delivered { topic: "a", position: Position::new(7, offset), message };
        let mut out = Vec::new();
        let items = [item(13, Message::json("[1]")), item(14, Message::text("\"hi\""))];
        assert_eq!(Json.wrap_all(&items, &mut out), Some(Kind::Text));
        let expected = r#"{"type":"messages","topic":"a","messages":[{"offset":13,"data":[1]},{"offset":14,"text":"\"hi\""}]}"#;
        assert_eq!(String::from_utf8_lossy(&out), expected);
        assert_eq!(Json.wrap_all(&[items[0], item(14, Message::binary(b"x"))], &mut Vec::new()), None);
    }

    #[test]
    fn binary_messages_get_a_head() {
        let (kind, out) = wrapped("bel", Message::binary(&[0xFF, 0xD8]));
        assert_eq!(kind, Kind::Binary);
        assert_eq!(out, b"\x01\x03bel\x00\x00\x00\x00\x00\x00\x00\x0d\xff\xd8");
        let (_, out) = wrapped(&"x".repeat(255), Message::binary(b""));
        assert_eq!((out[1], out.len()), (255, 2 + 255 + 8));
    }
}
