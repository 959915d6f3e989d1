//! A client of the endpoint for browsers that keeps its place in one topic and is cut wherever it happens to be: it
//! checks what each connection brings against what the one before had brought.

use crate::support::{CLOSE, DEADLINE, PING, TEXT, frame, until, upgrade_request};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Numbers that a run can have again: a failure says what it began with.
pub(crate) struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// Another seed each time, unless `SEED` says which.
    pub(crate) fn new() -> Self {
        let seed = match std::env::var("SEED") {
            Ok(seed) => seed.parse().expect("SEED is a number"),
            Err(_) => {
                use std::hash::{BuildHasher, Hasher};
                std::hash::RandomState::new().build_hasher().finish()
            }
        };
        Self { seed, state: seed | 1 }
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        // xorshift64*; its low bits are the weaker ones.
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) as usize % end
    }
}

impl Drop for Random {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SEED={} has the same cuts again", self.seed);
        }
    }
}

/// How its connections went.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) messages: u64,
    /// Subscriptions that went on without a gap, and those that could not.
    pub(crate) recovered: u32,
    pub(crate) lost: u32,
    /// Lives of the topic.
    pub(crate) epochs: u32,
    /// Cuts within a frame, and those within the handshake.
    pub(crate) in_frame: u32,
    pub(crate) in_handshake: u32,
}

pub(crate) struct Traveller {
    addr: SocketAddr,
    topic: &'static str,
    /// Messages that the topic keeps.
    window: u64,
    /// The last message seen, or where it went live.
    pub(crate) place: Option<(String, u64)>,
    /// Which server said the last message.
    life: u64,
    /// Whether the next message is the first of its epoch that comes here.
    anew: bool,
    pub(crate) seen: Seen,
}

/// What is wanted of a connection.
pub(crate) enum Stay {
    /// So many bytes of what the server says.
    Bytes(usize),
    /// Up to this message.
    Offset(u64),
}

impl Traveller {
    pub(crate) fn new(addr: SocketAddr, topic: &'static str, window: u64) -> Self {
        Self { addr, topic, window, place: None, life: 0, anew: true, seen: Seen::default() }
    }

    pub(crate) fn offset(&self) -> u64 {
        self.place.as_ref().map_or(0, |(_, offset)| *offset)
    }

    /// Connects, goes on where it was, and is gone after so much, of which `asked` bytes of its own. The server may
    /// end first.
    pub(crate) fn visit(&mut self, stay: &Stay, asked: Option<usize>) {
        let mut socket = None;
        // Refused while a server makes room for the next.
        until("the server takes connections", || {
            socket = TcpStream::connect_timeout(&self.addr, DEADLINE).ok();
            socket.is_some()
        });
        let mut socket = socket.expect("there is one now");
        socket.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        let mut request = json!({"type": "subscribe", "id": 1, "topic": self.topic});
        if let Some((epoch, offset)) = &self.place {
            request["since"] = json!({"epoch": epoch, "offset": offset});
        }
        let mut said = upgrade_request("/push", "").into_bytes();
        said.extend(frame(true, TEXT, request.to_string().as_bytes()));
        if let Some(asked) = asked {
            said.truncate(asked);
        }
        if socket.write_all(&said).is_err() || asked.is_some() {
            return;
        }
        let mut bytes = Vec::new();
        let (mut taken, mut read) = (0, 0);
        let mut piece = [0; 4096];
        loop {
            let left = match stay {
                Stay::Bytes(bytes) => bytes - read,
                Stay::Offset(offset) if self.place.is_some() && self.offset() >= *offset => 0,
                Stay::Offset(_) => piece.len(),
            };
            if left == 0 {
                break;
            }
            match socket.read(&mut piece[..left.min(4096)]) {
                Ok(0) => return,
                Ok(n) => {
                    bytes.extend_from_slice(&piece[..n]);
                    read += n;
                }
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return,
                Err(e) => panic!("nothing came: {e}; seen {:?}", self.seen),
            }
            while let Some(len) = self.take(&bytes[taken..], taken == 0) {
                taken += len;
            }
        }
        self.seen.in_handshake += u32::from(taken == 0);
        self.seen.in_frame += u32::from(taken > 0 && taken < bytes.len());
    }

    /// The length of what is whole at the beginning of these bytes, which has been looked at.
    fn take(&mut self, bytes: &[u8], first: bool) -> Option<usize> {
        if first {
            let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
            assert!(bytes.starts_with(b"HTTP/1.1 101 "), "{}", bytes[..end].escape_ascii());
            return Some(end);
        }
        let (head, len) = match *bytes.get(1)? {
            126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
            len @ 0..126 => (2, usize::from(len)),
            other => panic!("a head with {other}"),
        };
        let payload = bytes.get(head..head + len)?;
        match bytes[0] {
            0x81 => self.message(&serde_json::from_slice(payload).expect("JSON")),
            other => {
                assert!([0x80 | CLOSE, 0x80 | PING].contains(&other), "a frame that begins with {other}")
            }
        }
        Some(head + len)
    }

    fn message(&mut self, message: &Value) {
        let number = |name: &str| message[name].as_u64().unwrap_or_else(|| panic!("{name} of {message}"));
        match message["type"].as_str() {
            Some("hello") => {}
            Some("subscribed") => {
                let epoch = message["epoch"].as_str().expect("an epoch").to_owned();
                self.subscribed(epoch, number("offset"), message["recovered"] == true, number("replayed"));
            }
            Some("message") => {
                let (_, offset) = self.place.as_mut().expect("it is subscribed");
                *offset += 1;
                let data = &message["data"];
                assert_eq!(message["offset"], *offset, "{:?}", self.seen);
                assert_eq!(data["n"], *offset, "{:?}", self.seen);
                let life = data["life"].as_u64().expect("a number");
                let fits = if self.anew { life > self.life } else { life == self.life };
                assert!(fits, "of server {life} after {}: {:?}", self.life, self.seen);
                (self.life, self.anew) = (life, false);
                self.seen.messages += 1;
            }
            // A server that ends.
            Some("error") => assert_eq!(message["code"], "busy", "{message}"),
            _ => panic!("{message}"),
        }
    }

    /// What the answer must be follows from its own offset, however long the client was away.
    fn subscribed(&mut self, epoch: String, offset: u64, recovered: bool, replayed: u64) {
        let same = self.place.take().filter(|(before, _)| *before == epoch);
        let was = same.as_ref().map(|(_, seen)| *seen);
        let kept = was.filter(|seen| seen + self.window >= offset);
        let expected = (kept.is_some(), kept.map_or(0, |seen| offset - seen));
        assert_eq!((recovered, replayed), expected, "at {offset} after {was:?}: {:?}", self.seen);
        if was.is_none() {
            self.seen.epochs += 1;
            self.anew = true;
        }
        if recovered {
            self.seen.recovered += 1;
        } else {
            self.seen.lost += 1;
        }
        self.place = Some((epoch, kept.unwrap_or(offset)));
    }
}
