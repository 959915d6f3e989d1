//! What the tests of compression share: a client that compresses.

use crate::support::{Client, TEXT, TestServer};
use campanile::deflate::{Deflate, Deflater, History, Inflater};
use campanile::protocol::Kind;

pub(crate) const SHARED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// A client that compresses.
pub(crate) struct Packed {
    pub(crate) client: Client,
    pub(crate) deflater: Deflater,
    pub(crate) inflater: Inflater,
    pub(crate) sent: Option<History>,
    pub(crate) received: Option<History>,
}

impl Packed {
    /// Opens a WebSocket with this offer; the answer to it must be `agreed`.
    pub(crate) fn open(server: &TestServer, path: &str, offer: &str, agreed: &str) -> Self {
        Self::over(server.dial(), path, offer, agreed)
    }

    pub(crate) fn over(mut client: Client, path: &str, offer: &str, agreed: &str) -> Self {
        let answer = client.ask(path, &format!("Sec-WebSocket-Extensions: {offer}\r\n"));
        assert_eq!(answer.status, 101, "{answer:?}");
        assert_eq!(answer.header("sec-websocket-extensions"), Some(agreed));
        client.rsv1 = true;
        let history = |without: &str| (!agreed.contains(without)).then(|| History::new(15));
        Self {
            client,
            deflater: Deflater::new(9, 1),
            inflater: Inflater::new(),
            sent: history("client_no_context_takeover"),
            received: history("server_no_context_takeover"),
        }
    }

    pub(crate) fn text(&mut self, text: &str) {
        let mut packed = Vec::new();
        self.deflater.compress(text.as_bytes(), self.sent.as_mut(), &mut packed);
        self.client.frame(true, 0x40 | TEXT, &packed);
    }

    /// The next message, and how many bytes of payload it came in; `None`: uncompressed.
    pub(crate) fn read(&mut self) -> (String, Option<usize>) {
        let frame = self.client.read_frame();
        assert_eq!((frame.fin, frame.opcode), (true, TEXT));
        let mut text = Vec::new();
        if frame.rsv1 {
            let history = self.received.as_mut();
            self.inflater.inflate(&frame.payload, history, Kind::Text, 1 << 30, &mut text).expect("DEFLATE");
        } else {
            text.clone_from(&frame.payload);
        }
        (String::from_utf8(text).expect("UTF-8"), frame.rsv1.then_some(frame.payload.len()))
    }
}

/// Text of about so many bytes that gets shorter, different for each number.
pub(crate) fn text(n: usize, len: usize) -> String {
    (0..)
        .flat_map(|i| format!("{{\"bell\":{n},\"ring\":{},\"tone\":\"ä{i}\"}}", i * 7).into_bytes())
        .take(len)
        .map(char::from)
        .map(|c| if c.is_ascii() { c } else { 'ö' })
        .collect()
}

pub(crate) fn small_messages_too(deflate: Deflate) -> Deflate {
    deflate.threshold(16)
}
