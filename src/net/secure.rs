//! A socket with TLS on it: brings what was received to the session, and what it sealed to the kernel.

use super::{Received, Stream};
use crate::http::TlsInfo;
use crate::tls::{Acceptor, PIECE, SEALED, Session};
use std::io::{self, IoSlice};
use std::sync::Arc;

/// What makes the connections of a listener secure.
pub(crate) type Security = Arc<Acceptor>;

/// What a read of a secure connection came to.
#[derive(Debug)]
pub(crate) struct Opened {
    /// What the socket had. The rule about short reads holds for it, not for the plaintext.
    pub(crate) received: Received,
    /// It filled the room that there was: the socket may have more.
    pub(crate) full: bool,
    /// The handshake was finished by it.
    pub(crate) established: bool,
}

impl Stream {
    /// Makes it secure: from here on nothing is read or written in the clear.
    pub(crate) fn secure(&mut self, session: Session) {
        self.tls = Some(Box::new(session));
    }

    #[inline]
    pub(crate) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    pub(crate) fn session(&self) -> Option<&Session> {
        self.tls.as_deref()
    }

    /// What the handshake came to.
    pub(crate) fn tls_info(&self) -> Option<TlsInfo> {
        self.tls.as_ref()?.info()
    }

    /// Receives at most `share` bytes into `buf`, behind what was kept there, and appends the plaintext of the records
    /// that are whole to `plain`. What it has to say to the peer waits for [`Self::flush`], also after an error.
    pub(crate) fn recv_sealed(
        &mut self,
        buf: &mut [u8],
        share: usize,
        plain: &mut Vec<u8>,
    ) -> io::Result<Opened> {
        let Some(session) = self.tls.as_deref_mut().filter(|s| !s.has_ended()) else {
            return Ok(Opened { received: Received::End, full: false, established: false });
        };
        let kept = session.put_back(buf);
        let end = (kept + share).min(buf.len());
        let received = super::stream::received_from(&self.fd, &mut buf[kept..end])?;
        let (mut full, mut established) = (false, false);
        if let Received::Bytes(n) = received {
            full = kept + n == end;
            established = session.open(&mut buf[..kept + n], plain)?;
        }
        Ok(Opened { received, full, established })
    }

    /// Seals and sends, in pieces; says how much was taken. All of a piece is taken once it is sealed: what the kernel
    /// leaves of it waits in the session.
    #[cold]
    pub(super) fn write_sealed(&mut self, parts: &[IoSlice<'_>], scratch: &mut Vec<u8>) -> io::Result<usize> {
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
                super::stream::taken(rustix::net::send(&self.fd, &sealed[..n], super::stream::NO_SIGNAL))?;
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
        Ok(self.tls.as_ref().is_some_and(|s| !s.is_refused() && !s.must_send_first()))
    }

    /// Sends what the session has to say and what the kernel left, unless it is known to take nothing.
    #[inline]
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(session) if !session.is_refused() && !session.unsent().is_empty() => {
                let sent = rustix::net::send(&self.fd, session.unsent(), super::stream::NO_SIGNAL);
                session.advance(super::stream::taken(sent)?);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The kernel says that it takes more.
    #[inline]
    pub(crate) fn retry(&mut self) {
        if let Some(session) = &mut self.tls {
            session.retry();
        }
    }

    /// Whether something of the session's waits to be sent.
    #[inline]
    pub(crate) fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|s| !s.unsent().is_empty())
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
    pub(crate) fn say_goodbye(&mut self) -> bool {
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
    fn parts_are_cut_and_joined_and_keep_their_order() {
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
}
