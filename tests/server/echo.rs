//! What is sent comes back as it was, with `tungstenite` as the other side.

use crate::support::{At, DEADLINE, TestServer, echo, limits, recorder, serve};
use campanile::{Message as Msg, Route};
use std::net::TcpStream;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};
use tungstenite::{Message, WebSocket, client};

const BIG: usize = 16 << 20;

fn big_echo() -> TestServer {
    let limits = limits(|l| {
        l.max_message_size = BIG;
        l.max_fragments = 5000;
        l.max_backlog = 2 * BIG;
    });
    serve(Route::new(echo()).limits(limits))
}

fn connect(server: &TestServer) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(server.addr).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    let config = tungstenite::protocol::WebSocketConfig::default().max_frame_size(Some(2 * BIG));
    client::client_with_config(format!("ws://{}/", server.addr), stream, Some(config)).unwrap().0
}

/// Bytes that differ everywhere.
fn bytes(n: usize) -> Vec<u8> {
    (0..n as u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).take(n).collect()
}

fn back(ws: &mut WebSocket<TcpStream>, message: Message) {
    // A large echo fills the sockets in both directions, so one thread sends while this one receives.
    let mut writer = WebSocket::from_raw_socket(
        ws.get_ref().try_clone().unwrap(),
        tungstenite::protocol::Role::Client,
        None,
    );
    let sent = message.clone();
    let sending = std::thread::spawn(move || writer.send(sent).unwrap());
    let got = ws.read().unwrap();
    assert!(got == message, "{} bytes came back for {}", got.len(), message.len());
    sending.join().unwrap();
}

#[test]
fn text_and_binary_of_every_length_class_are_echoed() {
    let server = big_echo();
    let mut ws = connect(&server);
    for len in [0, 1, 125, 126, 127, 4095, 4096, 65_535, 65_536, 65_537, 262_144, 300_001] {
        back(&mut ws, Message::binary(bytes(len)));
        back(&mut ws, Message::text("a".repeat(len)));
    }
    back(&mut ws, Message::text("Ὀδυσσεύς 🔔 消息"));
}

#[test]
fn messages_up_to_the_limit_are_echoed() {
    let server = big_echo();
    let mut ws = connect(&server);
    back(&mut ws, Message::binary(bytes(1 << 20)));
    back(&mut ws, Message::text("🔔".repeat((1 << 20) / 4)));
    back(&mut ws, Message::binary(bytes(BIG)));
    back(&mut ws, Message::text("é".repeat(BIG / 2)));
}

#[test]
fn one_byte_over_the_limit_is_refused_with_1009() {
    let server = serve(echo());
    let mut ws = connect(&server);
    let most = campanile::Limits::default().max_message_size;
    back(&mut ws, Message::binary(bytes(most)));
    ws.send(Message::binary(bytes(most + 1))).unwrap();
    let Message::Close(Some(close)) = ws.read().unwrap() else { panic!("no close frame") };
    assert_eq!(u16::from(close.code), 1009);
}

fn fragment(data: OpCode, fin: bool, payload: &[u8]) -> Message {
    let header = FrameHeader { is_final: fin, opcode: data, ..FrameHeader::default() };
    let mut frame = Frame::from_payload(header, payload.to_vec().into());
    frame.header_mut().mask = Some([1, 2, 3, 4]);
    Message::Frame(frame)
}

#[test]
fn fragments_with_pings_in_between_are_assembled() {
    let server = big_echo();
    let mut ws = connect(&server);
    let whole = "die Glocke läutet — 🔔 — ".repeat(2000);
    let pieces: Vec<&[u8]> = whole.as_bytes().chunks(17).collect(); // cuts characters as well
    for (i, piece) in pieces.iter().enumerate() {
        let opcode = if i == 0 { OpCode::Data(Data::Text) } else { OpCode::Data(Data::Continue) };
        ws.write(fragment(opcode, i + 1 == pieces.len(), piece)).unwrap();
        if i == 100 {
            ws.write(Message::Ping(b"between".to_vec().into())).unwrap();
        }
    }
    ws.flush().unwrap();
    assert_eq!(ws.read().unwrap(), Message::Pong(b"between".to_vec().into()));
    assert_eq!(ws.read().unwrap(), Message::text(whole));
}

#[test]
fn pings_are_answered_with_their_payload() {
    let server = serve(echo());
    let mut ws = connect(&server);
    for len in [0, 1, 125] {
        ws.send(Message::Ping(bytes(len).into())).unwrap();
        assert_eq!(ws.read().unwrap(), Message::Pong(bytes(len).into()));
    }
}

#[test]
fn a_thousand_pipelined_messages_are_echoed_in_order() {
    let server = big_echo();
    let mut ws = connect(&server);
    for i in 0..1000 {
        ws.write(Message::text(format!("{i} {}", "x".repeat(i)))).unwrap();
    }
    ws.flush().unwrap();
    for i in 0..1000 {
        assert_eq!(ws.read().unwrap(), Message::text(format!("{i} {}", "x".repeat(i))));
    }
}

#[test]
fn sends_of_one_callback_arrive_in_order() {
    let say = |conn: &mut At<'_, '_>, _: Msg<'_>| {
        for size in [10, 5000, 20, 100_000, 0, 300_000, 30] {
            conn.send(&vec![b'x'; size]).unwrap();
        }
    };
    let limits = limits(|l| l.max_backlog = 2 << 20);
    let server = serve(Route::new(recorder().0.on_message(say)).limits(limits));
    let mut ws = connect(&server);
    for _ in 0..3 {
        ws.send(Message::text("say")).unwrap();
    }
    for _ in 0..3 {
        for size in [10, 5000, 20, 100_000, 0, 300_000, 30] {
            assert_eq!(ws.read().unwrap().len(), size);
        }
    }
}
