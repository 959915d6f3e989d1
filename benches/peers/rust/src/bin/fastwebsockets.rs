//! usage: fastwebsockets PORT
//!
//! Echo and broadcast by fastwebsockets. Echo as its example `echo_server` has it. For broadcast it has no word, so
//! each connection is split as in its example `echo_server_split`, and its writer takes from a channel.

use bytes::Bytes;
use fastwebsockets::upgrade::{UpgradeFut, upgrade};
use fastwebsockets::{FragmentCollector, FragmentCollectorRead, Frame, OpCode, Payload, WebSocketError};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Who gets what is broadcast.
#[derive(Clone, Default)]
struct Room(Arc<Mutex<Seats>>);

#[derive(Default)]
struct Seats {
    next: u64,
    writers: HashMap<u64, UnboundedSender<(bool, Bytes)>>,
}

fn main() -> std::io::Result<()> {
    let room = Room::default();
    campanile_peers::serve("fastwebsockets", move |stream| connection(stream, room.clone()))
}

async fn connection(stream: TcpStream, room: Room) {
    let service = service_fn(move |request| server_upgrade(request, room.clone()));
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let _ = served.with_upgrades().await; // a client that goes is no error
}

async fn server_upgrade(
    mut request: Request<Incoming>,
    room: Room,
) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let everybody = request.uri().path() == "/broadcast";
    let (response, socket) = upgrade(&mut request)?;
    tokio::spawn(async move {
        let _ = if everybody {
            tokio::task::unconstrained(broadcast(socket, room)).await
        } else {
            tokio::task::unconstrained(echo(socket)).await
        };
    });
    Ok(response)
}

async fn echo(socket: UpgradeFut) -> Result<(), WebSocketError> {
    let mut ws = FragmentCollector::new(socket.await?);
    loop {
        let frame = ws.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => ws.write_frame(frame).await?,
            _ => {}
        }
    }
}

async fn broadcast(socket: UpgradeFut, room: Room) -> Result<(), WebSocketError> {
    let (reader, mut writer) = socket.await?.split(tokio::io::split);
    let mut reader = FragmentCollectorRead::new(reader);
    let (sender, mut messages) = unbounded_channel::<(bool, Bytes)>();
    let seat = {
        let mut seats = room.0.lock().unwrap();
        seats.next += 1;
        let seat = seats.next;
        seats.writers.insert(seat, sender);
        seat
    };
    tokio::spawn(tokio::task::unconstrained(async move {
        while let Some((text, payload)) = messages.recv().await {
            let payload = Payload::Borrowed(&payload);
            let frame = if text { Frame::text(payload) } else { Frame::binary(payload) };
            if writer.write_frame(frame).await.is_err() {
                return;
            }
        }
    }));
    loop {
        // No answers to pings and close frames: they would have to go to the writer's task, and no load sends any.
        let read = reader.read_frame::<_, WebSocketError>(&mut |_| async { Ok(()) }).await;
        let frame = match read {
            Ok(frame) if frame.opcode != OpCode::Close => frame,
            _ => break,
        };
        if !matches!(frame.opcode, OpCode::Text | OpCode::Binary) {
            continue;
        }
        let message = (frame.opcode == OpCode::Text, Bytes::copy_from_slice(&frame.payload));
        for writer in room.0.lock().unwrap().writers.values() {
            let _ = writer.send(message.clone()); // who has gone leaves the room in its own task
        }
    }
    room.0.lock().unwrap().writers.remove(&seat);
    Ok(())
}
