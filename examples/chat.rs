//! cargo run --example chat [ADDR]
//! Rooms: clients of /chat/:room receive what is sent to the room. In the consoles of two browser tabs on
//! http://127.0.0.1:9001/ (pages of other sites may not connect to a loopback address):
//!
//!     ws = new WebSocket("ws://127.0.0.1:9001/chat/tower?name=Ann"); ws.onmessage = (e) => console.log(e.data)
//!     ws.send("the bell rings")

use campanile::{
    Accept, CloseCode, Closed, Conn, Disconnect, Handler, Message, Refuse, Request, Server, check_topic,
};

struct Chat;

/// Who it is, and where.
struct Member {
    name: String,
    room: String,
}

impl Handler for Chat {
    type State = Member;

    fn upgrade(&self, request: &Request<'_>) -> Result<Accept<Member>, Refuse> {
        let name = request.query_value("name").filter(|n| !n.is_empty() && n.len() <= 64);
        let (Some(name), Some(room)) = (name, request.param("room")) else {
            return Err(
                Refuse::new(400).text("name: missing, expected 1 to 64 bytes: /chat/tower?name=Ann\n")
            );
        };
        check_topic(room).map_err(|e| Refuse::new(400).text(format!("{e}\n")))?;
        Ok(Accept::new(Member { name: name.into_owned(), room: room.to_owned() }))
    }

    fn open(&self, conn: &mut Conn<'_>, me: &mut Member) -> Result<(), Disconnect> {
        conn.subscribe(&me.room)?;
        conn.publish(&me.room, format!("{} joined", me.name))?;
        Ok(())
    }

    fn message(&self, conn: &mut Conn<'_>, me: &mut Member, message: Message<'_>) -> Result<(), Disconnect> {
        let text =
            message.as_text().ok_or_else(|| Disconnect::new(CloseCode::UNSUPPORTED_DATA, "text only"))?;
        conn.publish(&me.room, format!("{}: {text}", me.name))?;
        Ok(())
    }

    fn close(&self, conn: &mut Conn<'_>, me: &mut Member, _: &Closed) {
        let _ = conn.publish(&me.room, format!("{} left", me.name)); // the name was checked
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".into());
    let server = Server::builder().listen(&addr).route("/chat/:room", Chat).build()?;
    println!("chat on {}", server.local_addrs()[0]);
    Ok(server.run()?)
}
