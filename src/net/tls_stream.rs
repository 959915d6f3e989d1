//! A socket with TLS on it: brings what was received to the session, and what it sealed to the kernel.

use super::{ReadOutcome, Stream};
use crate::http::TlsInfo;
use crate::tls::{Acceptor, PIECE, SEALED, TlsSession};
use std::io::{self, IoSlice};
use std::sync::Arc;

/// What makes the connections of a listener secure.
pub(crate) type TlsAcceptor = Arc<Acceptor>;

/// What a read of a secure connection came to.
#[derive(Debug)]
pub(crate) struct TlsRead {
    /// What the socket had. The rule about short reads holds for it, not for the plaintext.
    pub(crate) received: ReadOutcome,
    /// It filled the room that there was: the socket may have more.
    pub(crate) full: bool,
    /// The handshake was finished by it.
    pub(crate) established: bool,
}

impl Stream {
    /// Makes it secure: from here on nothing is read or written in the clear.
    pub(crate) fn start_tls(&mut self, session: TlsSession) {
        self.tls = Some(Box::new(session));
    }

    #[inline]
    pub(crate) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    pub(crate) fn session(&self) -> Option<&TlsSession> {
        self.tls.as_deref()
    }

    /// What the handshake came to.
    pub(crate) fn tls_info(&self) -> Option<TlsInfo> {
        self.tls.as_ref()?.info()
    }

    /// Receives at most `share` bytes into `buf`, behind what was kept there, and appends the plaintext of the records
    /// that are whole to `plain`. What it has to say to the peer waits for [`Self::flush`], also after an error.
    pub(crate) fn recv_tls(
        &mut self,
        buf: &mut [u8],
        share: usize,
        plain: &mut Vec<u8>,
    ) -> io::Result<TlsRead> {
        let Some(session) = self.tls.as_deref_mut().filter(|s| !s.has_ended()) else {
            return Ok(TlsRead { received: ReadOutcome::Eof, full: false, established: false });
        };
        let kept = session.restore_kept(buf);
        let end = (kept + share).min(buf.len());
        let received = super::stream::recv_from(&self.fd, &mut buf[kept..end])?;
        let (mut full, mut established) = (false, false);
        if let ReadOutcome::Bytes(n) = received {
            full = kept + n == end;
            established = session.open(&mut buf[..kept + n], plain)?;
        }
        Ok(TlsRead { received, full, established })
    }

    /// Seals and sends, in pieces; says how much was taken. All of a piece is taken once it is sealed: what the kernel
    /// leaves of it waits in the session.
    #[cold]
    pub(super) fn write_tls(&mut self, parts: &[IoSlice<'_>], scratch: &mut Vec<u8>) -> io::Result<usize> {
        if !self.has_room()? {
            return Ok(0);
        }
        // Once for each worker: beside the sealed bytes there is room to join parts, so that they make one record.
        if scratch.len() < PIECE + SEALED {
            scratch.resize(PIECE + SEALED, 0);
        }
        let (joined, sealed) = scratch.split_at_mut(PIECE);
        let mut pieces = Pieces { parts, at: 0 };
        let mut taken = 0;
        while let Some(piece) = pieces.next(joined) {
            let Some(session) = self.tls.as_deref_mut() else { break };
            let n = session.seal(piece, sealed)?;
            let sent =
                super::stream::written(rustix::net::send(&self.fd, &sealed[..n], super::stream::NO_SIGNAL))?;
            taken += piece.len();
            if sent < n {
                session.keep_unsent(&sealed[sent..n], piece.len());
                break;
            }
        }
        Ok(taken)
    }

    /// Whether something can be sealed: nothing is before it that the kernel does not want.
    fn has_room(&mut self) -> io::Result<bool> {
        if self.tls.as_ref().is_some_and(|s| s.must_send_first()) {
            self.flush()?;
        }
        Ok(self.tls.as_ref().is_some_and(|s| !s.is_blocked() && !s.must_send_first()))
    }

    /// Sends what the session has to say and what the kernel left, unless it is known to take nothing.
    #[inline]
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(session) if !session.is_blocked() && !session.unsent().is_empty() => {
                let sent = rustix::net::send(&self.fd, session.unsent(), super::stream::NO_SIGNAL);
                session.advance(super::stream::written(sent)?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The kernel says that it takes more.
    #[inline]
    pub(crate) fn retry(&mut self) {
        if let Some(session) = &mut self.tls {
            session.unblock();
        }
    }

    /// Whether something was sealed that the kernel did not take. What has only been written down for the next send,
    /// such as tickets, does not count.
    #[inline]
    pub(crate) fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|s| s.is_blocked())
    }

    /// The application's bytes among it.
    #[inline]
    pub(crate) fn unsent_payload(&self) -> usize {
        self.tls.as_ref().map_or(0, |s| s.payload())
    }

    /// Bytes of memory that the session holds beside the library's.
    #[inline]
    pub(crate) fn held(&self) -> usize {
        self.tls.as_ref().map_or(0, |s| s.held())
    }

    /// Says that nothing more will be sent, where that is said. Whether that has gone too.
    pub(crate) fn send_close_notify(&mut self) -> bool {
        let Some(session) = &mut self.tls else { return true };
        session.close_notify();
        // A socket that fails takes nothing more: nothing is left to wait for.
        self.flush().is_err() || !self.has_unsent()
    }
}

/// The bytes of several parts, a piece at a time.
struct Pieces<'a> {
    parts: &'a [IoSlice<'a>],
    /// Bytes of the first part that are done with.
    at: usize,
}

impl<'a> Pieces<'a> {
    /// The next piece: lent from its part where it lies in one, otherwise joined in the room given.
    fn next<'j>(&mut self, joined: &'j mut [u8]) -> Option<&'j [u8]>
    where
        'a: 'j,
    {
        while let [first, rest @ ..] = self.parts
            && self.at == first.len()
        {
            (self.parts, self.at) = (rest, 0);
        }
        let parts = self.parts;
        let first = &parts.first()?[self.at..];
        if first.len() >= PIECE || parts[1..].iter().all(|p| p.is_empty()) {
            let piece = &first[..first.len().min(PIECE)];
            self.at += piece.len();
            return Some(piece);
        }
        let mut n = 0;
        for part in parts {
            let bytes = &part[self.at..];
            let fits = bytes.len().min(PIECE - n);
            joined[n..n + fits].copy_from_slice(&bytes[..fits]);
            n += fits;
            if fits < bytes.len() {
                self.at += fits;
                break;
            }
            (self.parts, self.at) = (&self.parts[1..], 0);
        }
        Some(&joined[..n])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_split_and_joined_in_order() {
        let long: Vec<u8> = (0..3 * PIECE + 100).map(|i| (i % 251) as u8).collect();
        let cuts: [&[usize]; 6] = [
            &[],
            &[2, 10],
            &[0, 0, 5],
            &[PIECE, PIECE + 1],
            &[PIECE - 1, PIECE + 1, 2 * PIECE + 7],
            &[1, 3 * PIECE],
        ];
        for cuts in cuts {
            let mut parts = Vec::new();
            let mut from = 0;
            for cut in cuts.iter().copied().chain([long.len()]) {
                parts.push(IoSlice::new(&long[from..cut]));
                from = cut;
            }
            let (mut pieces, mut joined, mut all) =
                (Pieces { parts: &parts, at: 0 }, vec![0; PIECE], Vec::new());
            while let Some(piece) = pieces.next(&mut joined) {
                assert!(!piece.is_empty() && piece.len() <= PIECE);
                all.extend_from_slice(piece);
            }
            assert!(all == long, "{cuts:?}");
        }
        assert!(Pieces { parts: &[], at: 0 }.next(&mut []).is_none());
        assert!(Pieces { parts: &[IoSlice::new(b"")], at: 0 }.next(&mut []).is_none());
    }

    #[cfg(feature = "client")]
    mod over_a_socket {
        use super::*;
        use crate::http::TlsVersion;
        use crate::sink::Sink;
        use crate::tls::{
            Acceptor, AcceptorSettings, Certificate, CertificateNames, ClientAuth, MAX_KEPT, SecureClient,
            Trust,
        };

        struct End {
            stream: Stream,
            buf: Vec<u8>,
            scratch: Vec<u8>,
            got: Vec<u8>,
        }

        impl End {
            fn new(socket: std::os::unix::net::UnixStream, session: TlsSession) -> Self {
                socket2::SockRef::from(&socket).set_send_buffer_size(1).unwrap(); // the least that there is
                let mut stream = Stream::from_connected(socket.into()).unwrap();
                stream.start_tls(session);
                Self { stream, buf: vec![0; MAX_KEPT + 1000], scratch: Vec::new(), got: Vec::new() }
            }

            /// Receives once, at most `share` bytes, and sends what is unsent.
            fn step(&mut self, share: usize) {
                self.stream.recv_tls(&mut self.buf, share, &mut self.got).unwrap();
                self.stream.retry();
                self.stream.flush().unwrap();
            }
        }

        fn ends() -> (End, End) {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let own = Certificate::from_pem(made.cert.pem(), made.signing_key.serialize_pem()).unwrap();
            let terms = AcceptorSettings { client_auth: ClientAuth::off(), min_version: TlsVersion::Tls12 };
            let acceptor = Acceptor::new(CertificateNames::new(own), &terms).unwrap();
            let client = SecureClient::new(Trust::Anybody, None, TlsVersion::Tls13).unwrap();
            let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
            (End::new(a, acceptor.accept().unwrap()), End::new(b, client.connect("localhost").unwrap()))
        }

        #[test]
        fn partial_tls_writes_arrive_whole_and_are_counted() {
            let (mut server, mut client) = ends();
            let all: Vec<u8> = (0..600_000_u32).map(|i| (i % 251) as u8).collect();
            let (mut taken, mut refused, mut held) = (0, 0, 0);
            let mut lens = [1, 100, 5_000, PIECE - 1, 70_000, 3, 17_000].into_iter().cycle();
            for step in 0.. {
                assert!(step < 1_000_000, "no way forward");
                if server.stream.session().unwrap().is_established() && taken < all.len() {
                    let end = (taken + lens.next().unwrap()).min(all.len());
                    let (first, second) = all[taken..end].split_at((end - taken) / 3);
                    let parts = [IoSlice::new(first), IoSlice::new(&[]), IoSlice::new(second)];
                    let before = server.stream.has_unsent();
                    let n = server.stream.write_vectored(&parts, &mut server.scratch).unwrap();
                    assert!(!before || n == 0, "nothing is written past unsent output");
                    refused += u32::from(n < end - taken);
                    taken += n;
                }
                assert!(server.stream.buffered() <= taken - client.got.len(), "more waits than was taken");
                assert_eq!(server.stream.is_written_out(), server.stream.held() == 0);
                held += u32::from(server.stream.buffered() > 0);
                client.step(1 + step % 3000);
                server.step(4096);
                if client.got.len() == all.len() {
                    break;
                }
            }
            assert!(client.got == all);
            assert!(refused > 10 && held > 10, "{refused} refused, {held} held: the socket was too large");
            assert_eq!((server.stream.buffered(), server.stream.held(), client.stream.held()), (0, 0, 0));
            // The goodbye arrives behind everything else, and once.
            assert!(server.stream.send_close_notify() && server.stream.send_close_notify());
            client.step(4096);
            let opened = client.stream.recv_tls(&mut client.buf, 4096, &mut client.got).unwrap();
            assert_eq!(opened.received, ReadOutcome::Eof);
            assert!(client.got == all);
        }

        #[test]
        fn close_notify_waits_for_unsent_records() {
            let (mut server, mut client) = ends();
            while !server.stream.session().unwrap().is_established() {
                client.step(4096);
                server.step(4096);
            }
            let n = server.stream.write(&[7; 60_000], &mut server.scratch).unwrap();
            assert_eq!((n, server.stream.is_written_out()), (60_000, false), "taken, and not all sent");
            assert!(!server.stream.send_close_notify());
            assert_eq!(server.stream.write(b"after", &mut server.scratch).unwrap(), 0);
            while !client.stream.session().unwrap().has_ended() {
                client.step(4096);
                server.step(4096);
            }
            assert!(client.got == [7; 60_000] && server.stream.send_close_notify());
        }
    }
}
