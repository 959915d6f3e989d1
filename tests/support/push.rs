//! A client of the endpoint for browsers that says every message itself.

use crate::support::{Client, TestServer};
pub(crate) use serde_json::{Value, json};

/// The header line that offers the subprotocol.
pub(crate) const OFFER: &str = "Sec-WebSocket-Protocol: campanile.v1.json\r\n";

/// A message of JSON, as it comes.
pub(crate) fn message(topic: &str, offset: u64, data: &Value) -> Value {
    json!({"type": "message", "topic": topic, "offset": offset, "data": data})
}

/// The same of text.
pub(crate) fn text(topic: &str, offset: u64, text: &str) -> Value {
    json!({"type": "message", "topic": topic, "offset": offset, "text": text})
}

pub(crate) struct Page(pub(crate) Client);

impl Page {
    /// Connected and greeted.
    pub(crate) fn open(server: &TestServer) -> Self {
        Self::over(server.dial()).0
    }

    /// The same for one that takes little before it makes the server wait.
    pub(crate) fn open_slow(server: &TestServer) -> Self {
        Self::over(Client::dial_with(server.addr, Some(4096))).0
    }

    /// The same with its `hello`.
    pub(crate) fn over(mut client: Client) -> (Self, Value) {
        let answer = client.ask("/push", OFFER);
        assert_eq!(
            (answer.status, answer.header("sec-websocket-protocol")),
            (101, Some("campanile.v1.json"))
        );
        let mut page = Self(client);
        let hello = page.next();
        assert_eq!(hello["type"], "hello");
        (page, hello)
    }

    pub(crate) fn say(&mut self, request: &Value) {
        self.0.text(&request.to_string());
    }

    #[track_caller]
    pub(crate) fn next(&mut self) -> Value {
        let text = self.0.read_text();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    /// Says something that has one answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, request: &Value) -> Value {
        self.say(request);
        self.next()
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, expected: &Value) {
        let next = self.next();
        assert_eq!(next, *expected);
    }

    /// Says something that is refused with this code.
    #[track_caller]
    pub(crate) fn refused(&mut self, request: &Value, code: &str) -> Value {
        let error = self.ask(request);
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)), "{request}: {error}");
        assert_eq!(error["id"], request["id"], "{error}");
        error
    }

    /// Subscribes and gives the answer.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, topic: &str) -> Value {
        let answer = self.ask(&json!({"type": "subscribe", "id": 1, "topic": topic}));
        assert_eq!((&answer["type"], &answer["topic"]), (&json!("subscribed"), &json!(topic)), "{answer}");
        answer
    }

    /// Subscribes from where another subscription was.
    #[track_caller]
    pub(crate) fn resume(&mut self, topic: &str, epoch: &Value, offset: u64) -> Value {
        let since = json!({"epoch": epoch, "offset": offset});
        self.ask(&json!({"type": "subscribe", "id": 1, "topic": topic, "since": since}))
    }
}
