//! usage: tokio-tungstenite PORT
//!
//! Echo and broadcast by tokio-tungstenite, as its examples `echo-server` and `server` have them: `forward` sends
//! what has come in one read with one flush.

use futures_util::stream::{StreamExt, TryStreamExt};
use futures_util::{future, stream};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

/// Who gets what is broadcast.
#[derive(Clone, Default)]
struct Room(Arc<Mutex<Seats>>);

#[derive(Default)]
struct Seats {
    next: u64,
    writers: HashMap<u64, UnboundedSender<Message>>,
}

fn main() -> std::io::Result<()> {
    let room = Room::default();
    campanile_peers::serve("tokio-tungstenite", move |stream| connection(stream, room.clone()))
}

async fn connection(stream: TcpStream, room: Room) {
    let mut everybody = false;
    #[allow(clippy::result_large_err, reason = "tungstenite's own type")]
    let look = |request: &Request, response: Response| {
        everybody = request.uri().path() == "/broadcast";
        Ok(response)
    };
    let Ok(ws) = accept_hdr_async(stream, look).await else { return };
    let _ = if everybody { broadcast(ws, room).await } else { echo(ws).await }; // a client that goes is no error
}

async fn echo(ws: WebSocketStream<TcpStream>) -> Result<(), Error> {
    let (write, read) = ws.split();
    read.try_filter(|m| future::ready(m.is_text() || m.is_binary())).forward(write).await
}

async fn broadcast(ws: WebSocketStream<TcpStream>, room: Room) -> Result<(), Error> {
    let (outgoing, incoming) = ws.split();
    let (sender, mut messages) = unbounded_channel();
    let seat = {
        let mut seats = room.0.lock().unwrap();
        seats.next += 1;
        let seat = seats.next;
        seats.writers.insert(seat, sender);
        seat
    };
    let publish = incoming.try_for_each(|message| {
        if message.is_text() || message.is_binary() {
            for writer in room.0.lock().unwrap().writers.values() {
                let _ = writer.send(message.clone()); // who has gone leaves the room in its own task
            }
        }
        future::ok(())
    });
    let receive = stream::poll_fn(|cx| messages.poll_recv(cx)).map(Ok).forward(outgoing);
    future::select(publish, std::pin::pin!(receive)).await;
    room.0.lock().unwrap().writers.remove(&seat);
    Ok(())
}
