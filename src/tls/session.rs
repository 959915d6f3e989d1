//! One connection's TLS, either role: bytes from the socket become plaintext, and plaintext becomes records. What must
//! be sent without anybody having asked (handshake, tickets, alerts), and what the kernel did not take, waits in
//! `unsent`.

use super::TlsError;
use super::handshakes::HandshakeGuard;
use super::secure_server::asked_for;
use crate::http::{TlsInfo, TlsVersion};
use core::fmt;
use core::ops::DerefMut;
#[cfg(feature = "client")]
use rustls::ClientConfig;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
#[cfg(feature = "client")]
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedConnectionCommon,
    UnbufferedStatus,
};
use rustls::{CommonState, Error, HandshakeKind, ProtocolVersion, ServerConfig};
use std::sync::Arc;

/// The most that is kept of what is not whole. A record is cut after at most 16 KiB and some; a handshake message in
/// several records is needed in one piece, and may have 64 KiB.
pub(crate) const MAX_KEPT: usize = 80 << 10;

/// What a record costs beside its payload, at most: RFC 5246 section 6.2.3.3 has 5 + 8 + 16 bytes, RFC 8446 section 5.2
/// has 5 + 1 + 16.
const OVERHEAD: usize = 32;

/// The most plaintext in a record.
const RECORD: usize = 16 << 10;

/// Bytes of application data that are sealed at once, in whole records.
pub(crate) const PIECE: usize = 4 * RECORD;

/// Bytes of other things that can go out before a piece, in the same write.
const PREFIX: usize = 16 << 10;

/// Room for a sealed piece and what goes out before it.
pub(crate) const SEALED: usize = PREFIX + PIECE + (PIECE / RECORD + 1) * OVERHEAD + (1 << 10);

/// Records looked at before those without data among them are counted.
const CHUNK: usize = 64;

/// Records without data that an open connection may send, and one more for each [`BYTES_PER_DATALESS_RECORD`] bytes of
/// data: key updates, alerts, empty ones. A key update is 27 bytes and 5 µs, so that a read of 64 KiB takes 12 ms; a
/// client sends one in many gigabytes. rustls ends the 33rd without data between, which a byte of data after each
/// avoids.
const MAX_DATALESS_RECORDS: u64 = 64;
const BYTES_PER_DATALESS_RECORD: u64 = 16 << 10;

/// One connection's TLS.
pub(crate) struct TlsSession {
    role: SessionRole,
    /// What was received and is not whole, from the beginning of a record on.
    kept: Vec<u8>,
    unsent: Vec<u8>,
    /// Bytes of `unsent` that the kernel has.
    sent: usize,
    /// Bytes of the application's that were sealed into `unsent`.
    payload: usize,
    /// The kernel did not take all of `unsent`, and will say when it takes more.
    blocked: bool,
    /// No more will come: a close_notify has.
    ended: bool,
    /// Our close_notify is on its way.
    close_notify_sent: bool,
    failed: bool,
    /// Bytes of data that came, and records without any, since it was established.
    opened: u64,
    dataless: u64,
    /// It counts as a handshake until it is established.
    handshake: Option<HandshakeGuard>,
    server_name: Option<Box<str>>,
}

enum SessionRole {
    Server(UnbufferedServerConnection),
    #[cfg_attr(not(feature = "client"), allow(dead_code))] // not constructed in a server alone
    Client(UnbufferedClientConnection),
}

impl fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("established", &self.is_established()).finish_non_exhaustive()
    }
}

/// Both roles of the library's connection.
trait RustlsConnection: DerefMut<Target = UnbufferedConnectionCommon<Self::Data>> {
    type Data;
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl RustlsConnection for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    #[inline]
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }
}

impl RustlsConnection for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    #[inline]
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }
}

impl TlsSession {
    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        Ok(Self::new(SessionRole::Server(UnbufferedServerConnection::new(config)?)))
    }

    #[cfg(feature = "client")]
    pub(super) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, TlsError> {
        let mut session = Self::new(SessionRole::Client(UnbufferedClientConnection::new(config, name)?));
        session.open(&mut [], &mut Vec::new())?; // puts its first words into `unsent`
        Ok(session)
    }

    fn new(role: SessionRole) -> Self {
        Self {
            role,
            kept: Vec::new(),
            unsent: Vec::new(),
            sent: 0,
            payload: 0,
            blocked: false,
            ended: false,
            close_notify_sent: false,
            failed: false,
            opened: 0,
            dataless: 0,
            handshake: None,
            server_name: None,
        }
    }

    /// Counts it among the handshakes until it is established or dropped.
    pub(crate) fn count(&mut self, handshake: HandshakeGuard) {
        self.handshake = Some(handshake);
    }

    fn common(&self) -> &CommonState {
        match &self.role {
            SessionRole::Server(conn) => conn,
            SessionRole::Client(conn) => conn,
        }
    }

    /// Whether the handshake is finished.
    pub(crate) fn is_established(&self) -> bool {
        !self.common().is_handshaking()
    }

    /// Whether the peer has said that nothing more comes.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether it can't go on: what still comes is of no use, and nothing more can be sealed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Bytes of memory in unprocessed input and unsent output; what the library needs is not counted.
    pub(crate) fn held(&self) -> usize {
        self.kept.capacity() + self.unsent.capacity()
    }

    /// What the handshake came to; `None` before it is finished.
    pub(crate) fn info(&self) -> Option<TlsInfo> {
        let common = self.common();
        let version = match common.protocol_version()? {
            ProtocolVersion::TLSv1_3 => TlsVersion::Tls13,
            _ => TlsVersion::Tls12,
        };
        let cipher = common.negotiated_cipher_suite()?.suite();
        // TLS 1.3 has names of its own in the library; at IANA they begin as all others do.
        let mut info = TlsInfo::new(version, format!("{cipher:?}").replace("TLS13_", "TLS_"));
        info.server_name = self.server_name.as_deref().map(str::to_owned);
        info.resumed = self.is_resumed();
        info.client = common.peer_certificates().unwrap_or_default().iter().map(|c| c.to_vec()).collect();
        Some(info)
    }

    /// Whether an earlier session was resumed.
    pub(crate) fn is_resumed(&self) -> bool {
        self.common().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    // ---- in ----

    /// Puts what was kept at the beginning of `buf`; what is received behind it goes to [`Self::open`] together with
    /// it. `buf` has more room than [`MAX_KEPT`].
    pub(crate) fn restore_kept(&self, buf: &mut [u8]) -> usize {
        let n = self.kept.len();
        if n > 0 {
            buf[..n].copy_from_slice(&self.kept);
        }
        n
    }

    /// Decrypts the records that are whole, in place, and appends their plaintext to `plain`; keeps the rest. Says
    /// whether the handshake was finished by it.
    pub(crate) fn open(&mut self, input: &mut [u8], plain: &mut Vec<u8>) -> Result<bool, TlsError> {
        if self.ended || self.failed {
            return Ok(false);
        }
        let was_established = self.is_established();
        let (mut taken, mut seen, mut failed) = (0, 0, None);
        while failed.is_none() && !self.ended {
            // A handshake is bounded by what it may keep.
            let (len, records) = match was_established {
                true => whole_records(&input[seen..], CHUNK),
                false => (input.len() - seen, 0),
            };
            seen += len;
            let Self { role, unsent, .. } = &mut *self;
            let before = plain.len();
            // From the first byte that the library has not done with: it keeps places in what it has seen.
            let opened = match role {
                SessionRole::Server(conn) => open_records(conn, &mut input[taken..seen], plain, unsent),
                SessionRole::Client(conn) => open_records(conn, &mut input[taken..seen], plain, unsent),
            };
            taken += opened.taken;
            match opened.result {
                Ok(ended) => self.ended = ended,
                Err(e) => failed = Some(TlsError::Failed(e)),
            }
            if was_established {
                self.opened += (plain.len() - before) as u64;
                self.dataless += records.saturating_sub(opened.records) as u64;
                if self.dataless > MAX_DATALESS_RECORDS + self.opened / BYTES_PER_DATALESS_RECORD {
                    failed = failed.or(Some(TlsError::Barren));
                }
            }
            if seen == input.len() {
                break;
            }
        }
        if !was_established && let Some(name) = asked_for() {
            self.server_name = Some(name);
        }
        let result = failed.map_or(Ok(()), Err).and_then(|()| {
            let rest = if self.ended { &[][..] } else { &input[taken..] };
            // An idle session keeps nothing, not even room.
            self.kept = rest.to_vec();
            if rest.len() > MAX_KEPT { Err(TlsError::TooLong) } else { Ok(()) }
        });
        if let Err(e) = result {
            (self.failed, self.kept, self.handshake) = (true, Vec::new(), None);
            return Err(e);
        }
        let established = !was_established && self.is_established();
        if established {
            self.handshake = None;
        }
        Ok(established)
    }

    // ---- out ----

    /// Seals `plain`, at most [`PIECE`] bytes, into `out`, which has room for [`SEALED`]; before it goes what was
    /// unsent. Gives the length.
    pub(crate) fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Result<usize, TlsError> {
        debug_assert!(!self.blocked && self.sent == 0 && self.unsent.len() <= PREFIX && plain.len() <= PIECE);
        if self.failed || self.close_notify_sent {
            return Err(TlsError::NotOpen);
        }
        let Self { role, kept, unsent, .. } = self;
        let sealed = match role {
            SessionRole::Server(conn) => seal_records(conn, kept, unsent, plain, out),
            SessionRole::Client(conn) => seal_records(conn, kept, unsent, plain, out),
        };
        if sealed.is_err() {
            self.failed = true;
        }
        let n = sealed?;
        self.unsent = Vec::new(); // in `out` now
        Ok(n)
    }

    /// Whether no room was left for what is unsent: it has to go first.
    pub(crate) fn must_send_first(&self) -> bool {
        self.unsent.len() > PREFIX
    }

    /// The kernel took only a part of what was sealed: the rest waits here. `payload`: the application's bytes in all
    /// of it.
    pub(crate) fn keep_unsent(&mut self, rest: &[u8], payload: usize) {
        debug_assert!(self.unsent.is_empty());
        (self.unsent, self.sent, self.payload, self.blocked) = (rest.to_vec(), 0, payload, true);
    }

    /// Says goodbye (RFC 8446 section 6.1), once, and only where it would be understood.
    pub(crate) fn close_notify(&mut self) {
        if self.close_notify_sent || self.failed {
            return;
        }
        self.close_notify_sent = true;
        let Self { role, kept, unsent, .. } = self;
        match role {
            SessionRole::Server(conn) => close_notify(conn, kept, unsent),
            SessionRole::Client(conn) => close_notify(conn, kept, unsent),
        }
    }

    /// Output that was not sent yet.
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.unsent[self.sent..]
    }

    /// Whether the kernel has refused some of it: an event will say when there is room again.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// The kernel has room again.
    pub(crate) fn unblock(&mut self) {
        self.blocked = false;
    }

    /// The kernel took `n` bytes of what was unsent.
    pub(crate) fn advance(&mut self, n: usize) {
        self.sent += n;
        self.blocked = self.sent < self.unsent.len();
        if !self.blocked {
            (self.unsent, self.sent, self.payload) = (Vec::new(), 0, 0);
        }
    }

    /// The application's bytes that are unsent. Where in the ciphertext the kernel stopped is known, and how much of it
    /// is payload is not; there can't be more than ciphertext.
    pub(crate) fn payload(&self) -> usize {
        self.payload.min(self.unsent.len() - self.sent)
    }
}

/// The total length of the first whole records, at most `most`, and their number; an incomplete record counts in the
/// length of the last.
#[inline]
fn whole_records(input: &[u8], most: usize) -> (usize, usize) {
    let mut at = 0;
    for n in 0..most {
        let Some([_, _, _, a, b]) = input[at..].first_chunk() else { return (input.len(), n) };
        let end = at + 5 + usize::from(u16::from_be_bytes([*a, *b]));
        if end > input.len() {
            return (input.len(), n);
        }
        at = end;
    }
    (at, most)
}

/// What became of records.
struct OpenedRecords {
    /// Bytes that are done with.
    taken: usize,
    /// Records with data.
    records: usize,
    /// Whether a close_notify came.
    result: Result<bool, Error>,
}

/// Opens records. What is to be sent is appended to `unsent`, after an error the alert that tells of it.
fn open_records<C: RustlsConnection>(
    conn: &mut C,
    input: &mut [u8],
    plain: &mut Vec<u8>,
    unsent: &mut Vec<u8>,
) -> OpenedRecords {
    let (mut at, mut records, mut ended) = (0, 0, false);
    let failed = loop {
        let UnbufferedStatus { mut discard, state } = conn.process(&mut input[at..]);
        match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    // Decrypted already; the library has no error left.
                    let Ok(record) = record else { continue };
                    discard += record.discard;
                    records += 1;
                    plain.extend_from_slice(record.payload);
                }
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => append(unsent, |out| data.encode(out)),
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed) => ended = true,
            Ok(
                ConnectionState::BlockedHandshake
                | ConnectionState::WriteTraffic(_)
                | ConnectionState::Closed,
            ) => {
                return OpenedRecords { taken: at + discard, records, result: Ok(ended) };
            }
            // Early data is not accepted, so none comes.
            Ok(_) => break Error::General("a state of the library that is not known".into()),
            Err(e) => {
                at += discard;
                break e;
            }
        }
        at += discard;
    };
    // With the same input as before: the library keeps offsets into it. It returns pending output before it reads on.
    while conn.wants_write() {
        match conn.process(&mut input[at..]).state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => append(unsent, |out| data.encode(out)),
            _ => break,
        }
    }
    OpenedRecords { taken: at, records, result: Err(failed) }
}

/// Appends what a function writes, in the room that it asks for.
fn append<E: Into<Shortage>>(out: &mut Vec<u8>, mut write: impl FnMut(&mut [u8]) -> Result<usize, E>) {
    let at = out.len();
    let mut room = 0;
    // Once to learn the length, once to write.
    for _ in 0..2 {
        out.resize(at + room, 0);
        match write(&mut out[at..]).map_err(Into::into) {
            Ok(n) => return out.truncate(at + n),
            Err(Shortage(Some(InsufficientSizeError { required_size }))) => room = required_size,
            Err(Shortage(None)) => break,
        }
    }
    out.truncate(at);
}

/// How much room was missing, if that was it.
struct Shortage(Option<InsufficientSizeError>);

impl From<EncodeError> for Shortage {
    fn from(e: EncodeError) -> Self {
        match e {
            EncodeError::InsufficientSize(e) => Self(Some(e)),
            EncodeError::AlreadyEncoded => Self(None),
        }
    }
}

impl From<EncryptError> for Shortage {
    fn from(e: EncryptError) -> Self {
        match e {
            EncryptError::InsufficientSize(e) => Self(Some(e)),
            EncryptError::EncryptExhausted => Self(None),
        }
    }
}

#[inline]
fn seal_records<C: RustlsConnection>(
    conn: &mut C,
    kept: &mut [u8],
    unsent: &mut Vec<u8>,
    plain: &[u8],
    out: &mut [u8],
) -> Result<usize, TlsError> {
    loop {
        // With the unprocessed input: the library keeps offsets into it.
        match conn.process(kept).state? {
            ConnectionState::WriteTraffic(mut traffic) => {
                let at = unsent.len();
                out[..at].copy_from_slice(unsent);
                return match traffic.encrypt(plain, &mut out[at..]) {
                    Ok(n) => Ok(at + n),
                    Err(_) => Err(Error::EncryptError.into()),
                };
            }
            ConnectionState::EncodeTlsData(mut data) => append(unsent, |out| data.encode(out)),
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::PeerClosed => {} // told by `open`
            _ => return Err(TlsError::NotOpen),
        }
    }
}

fn close_notify<C: RustlsConnection>(conn: &mut C, kept: &mut [u8], unsent: &mut Vec<u8>) {
    loop {
        match conn.process(kept).state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                return append(unsent, |out| traffic.queue_close_notify(out));
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => append(unsent, |out| data.encode(out)),
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed) => {}
            _ => return, // within the handshake the library says nothing
        }
    }
}

#[cfg(all(test, feature = "client"))]
#[path = "session_tests.rs"]
mod tests;
