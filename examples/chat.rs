//! cargo run --example chat [ADDR]
//! Rooms: clients of /chat/:room receive what is sent to the room. In the consoles of two browser tabs on
//! http://127.0.0.1:9001/ (pages of other sites may not connect to a loopback address):
//!
//!     ws = new WebSocket("ws://127.0.0.1:9001/chat/tower?name=Ann"); ws.onmessage = (e) => console.log(e.data)
//!     ws.send("the bell rings")

use campanile::{Accept, CloseCode, Closed, Conn, Handler, Message, Refuse, Request, Server, check_topic};
use std::sync::Arc;

struct Chat;

/// Who it is. Shared, so that a callback can hold it while it publishes through the connection.
struct Member {
    name: String,
    room: String,
}

impl Handler for Chat {
    type State = Arc<Member>;

    fn upgrade(&self, request: &Request<'_>) -> Result<Accept<Self::State>, Refuse> {
        let name = request.query_value("name").filter(|n| !n.is_empty() && n.len() <= 64);
        let (Some(name), Some(room)) = (name, request.param("room")) else {
            return Err(Refuse::new(400).text("say who you are: /chat/tower?name=Ann\n"));
        };
        check_topic(room).map_err(|e| Refuse::new(400).text(format!("{e}\n")))?;
        Ok(Accept::new(Arc::new(Member { name: name.into_owned(), room: room.to_owned() })))
    }

    fn open(&self, conn: &mut Conn<'_, Self::State>) {
        let me = conn.state().clone();
        if let Err(e) = conn.subscribe(&me.room) {
            let _ = conn.close(CloseCode::POLICY, &e.to_string()); // a code that may be sent
            return;
        }
        conn.publish_all(&me.room, &format!("{} joined", me.name));
    }

    fn message(&self, conn: &mut Conn<'_, Self::State>, message: Message<'_>) {
        let me = conn.state().clone();
        match message.as_text() {
            Some(text) => conn.publish_all(&me.room, &format!("{}: {text}", me.name)),
            None => {
                let _ = conn.close(CloseCode::UNSUPPORTED_DATA, "text only");
            }
        }
    }

    fn close(&self, conn: &mut Conn<'_, Self::State>, _: &Closed) {
        let me = conn.state().clone();
        conn.publish(&me.room, &format!("{} left", me.name));
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".into());
    let server = Server::builder().listen(&addr).route("/chat/:room", Chat).build()?;
    println!("chat on {}", server.local_addrs()[0]);
    Ok(server.run()?)
}
