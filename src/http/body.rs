//! The body of a response, wherever its bytes live.

use core::fmt;
use std::io::Read;
use std::sync::Arc;

/// What follows the head.
#[derive(Default)]
#[non_exhaustive]
pub enum Body {
    /// Nothing.
    #[default]
    Empty,
    /// Bytes of the program itself.
    Static(&'static [u8]),
    /// Bytes made for this response.
    Owned(Vec<u8>),
    /// Bytes that others use too.
    Shared(Arc<[u8]>),
    /// Bytes to be read while they are sent, such as a file's. A reader that ends before `len` leaves the response
    /// torn, and the connection must be closed; what it has beyond `len` isn't sent.
    Reader {
        /// Where they come from.
        reader: Box<dyn Read + Send>,
        /// How many they are.
        len: u64,
    },
}

impl Body {
    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Static(bytes) => bytes.len() as u64,
            Self::Owned(bytes) => bytes.len() as u64,
            Self::Shared(bytes) => bytes.len() as u64,
            Self::Reader { len, .. } => *len,
        }
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Empty => "Empty",
            Self::Static(_) => "Static",
            Self::Owned(_) => "Owned",
            Self::Shared(_) => "Shared",
            Self::Reader { .. } => "Reader",
        };
        write!(f, "{kind}({} bytes)", self.len())
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Self::Static(bytes)
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::Static(text.as_bytes())
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Owned(bytes)
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Owned(text.into_bytes())
    }
}

impl From<Arc<[u8]>> for Body {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self::Shared(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_its_length_without_reading() {
        let reader = Body::Reader { reader: Box::new(std::io::empty()), len: 7 };
        assert_eq!((reader.len(), reader.is_empty()), (7, false));
        assert_eq!(format!("{reader:?}"), "Reader(7 bytes)");
        let shared: Arc<[u8]> = Arc::from(&b"abc"[..]);
        let rest =
            [Body::from("abc"), Body::from(String::from("abc")), Body::from(shared), b"abc".to_vec().into()];
        assert!(rest.iter().all(|body| body.len() == 3));
        assert!(Body::default().is_empty());
    }
}
