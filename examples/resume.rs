//! cargo run --example resume [ADDR]
//! A chat whose clients come back without missing anything. Each message begins with its position, `epoch offset`, and
//! a line's end; a client notes it and comes back with it. In a browser's console
//! on http://127.0.0.1:9001/:
//!
//!     at = ""; (function connect() {
//!       ws = new WebSocket("ws://127.0.0.1:9001/chat/bells?since=" + at)
//!       ws.onmessage = (e) => { [, at, text] = e.data.match(/^(.*)\n([^]*)$/); console.log(at, text) }
//!       ws.onclose = () => setTimeout(connect, 1000 * Math.random())
//!     })()
//!     ws.send("the bell rings")

use campanile::protocol::Kind;
use campanile::{
    Accept, CloseCode, Conn, Delivered, Disconnect, Envelope, Handler, Message, Position, Refuse, Request,
    Route, Server, Start, Subscribed, TopicSettings, check_topic,
};
use std::time::Duration;

struct Chat;

struct Member {
    topic: String,
    start: Start,
}

/// What a client noted: `epoch offset`.
fn position(text: &str) -> Option<Position> {
    let (epoch, offset) = text.split_once(' ')?;
    Some(Position::new(epoch.parse().ok()?, offset.parse().ok()?))
}

impl Handler for Chat {
    type State = Member;

    fn upgrade(&self, request: &Request<'_>) -> Result<Accept<Member>, Refuse> {
        let topic = format!("chat/{}", request.param("room").unwrap_or_default());
        check_topic(&topic).map_err(|e| Refuse::new(400).text(format!("{e}\n")))?;
        let start = match request.query_value("since").filter(|since| !since.is_empty()) {
            None => Start::Now,
            Some(since) => match position(&since) {
                Some(position) => Start::Since(position),
                None => return Err(Refuse::new(400).text("since: expected \"epoch offset\"\n")),
            },
        };
        Ok(Accept::new(Member { topic, start }))
    }

    fn open(&self, conn: &mut Conn<'_>, member: &mut Member) -> Result<(), Disconnect> {
        conn.subscribe_from(&member.topic, member.start)?;
        Ok(())
    }

    /// The position that this names lies behind what is replayed after this call. So a client is told of it only where
    /// nothing is: noted before the replay, it would lose what of that a broken connection takes with it.
    fn subscribed(
        &self,
        conn: &mut Conn<'_>,
        _: &mut Member,
        _: &str,
        how: &Subscribed,
    ) -> Result<(), Disconnect> {
        if !how.recovered {
            let Position { epoch, offset, .. } = how.position;
            conn.send(format!("{epoch} {offset}\nwelcome; what was said before is not here"))?;
        }
        Ok(())
    }

    fn message(
        &self,
        conn: &mut Conn<'_>,
        member: &mut Member,
        message: Message<'_>,
    ) -> Result<(), Disconnect> {
        if !message.is_text() {
            return Err(Disconnect::new(CloseCode::UNSUPPORTED_DATA, "text only"));
        }
        conn.publish(&member.topic, message)?;
        Ok(())
    }
}

/// Puts a message's position in front of it.
struct Numbered;

impl Envelope for Numbered {
    fn wrap(&self, item: &Delivered<'_>, out: &mut Vec<u8>) -> Kind {
        let Position { epoch, offset, .. } = item.position;
        out.extend_from_slice(format!("{epoch} {offset}\n").as_bytes());
        out.extend_from_slice(item.message.as_bytes());
        item.message.kind()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".into());
    let server = Server::builder()
        .listen(&addr)
        .topics("chat/", TopicSettings::new().history(100).history_age(Duration::from_secs(3600)))
        .route("/chat/:room", Route::new(Chat).envelope(Numbered))
        .build()?;
    println!("chat on {}", server.local_addrs()[0]);
    Ok(server.run()?)
}
