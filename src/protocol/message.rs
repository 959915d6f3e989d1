//! A message, as handlers receive it and as they send it.

use core::fmt;
use core::hash::{Hash, Hasher};

/// Whether a message is text or bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// Bytes.
    Binary,
}

impl From<Kind> for super::Opcode {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Text,
            Kind::Binary => Self::Binary,
        }
    }
}

/// A borrowed message: text, which is always valid UTF-8, or bytes. Cheap to copy.
///
/// Received messages borrow from the buffer they were received in. To keep one, copy its bytes.
///
/// ```
/// use campanile::Message;
/// let text = Message::from("the bell rings");
/// assert_eq!(text.as_text(), Some("the bell rings"));
/// assert_eq!(Message::from(&[1, 2, 3][..]).as_bytes(), [1, 2, 3]);
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    kind: Kind,
    // Invariant: valid UTF-8 where `kind` is text.
    bytes: &'a [u8],
    key: Option<Key>,
    verbatim: bool,
    json: bool,
}

/// What a message is the latest state of; see [`Message::with_key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(core::num::NonZeroU64);

impl Key {
    /// The hash needs no secret key: two names with one hash let a publisher replace what it could replace by the name
    /// itself, and tables of keys hash this number again with a key of their own.
    fn new(name: &str) -> Self {
        let mut hasher = std::hash::DefaultHasher::new();
        name.hash(&mut hasher);
        Self(core::num::NonZeroU64::new(hasher.finish()).unwrap_or(core::num::NonZeroU64::MIN))
    }
}

impl<'a> Message<'a> {
    /// A text message.
    #[inline]
    pub const fn text(text: &'a str) -> Self {
        Self { kind: Kind::Text, bytes: text.as_bytes(), key: None, verbatim: false, json: false }
    }

    /// A text message that is JSON, which an [`Envelope`](crate::Envelope) may put into JSON of its own as it is. It is
    /// not checked here.
    #[inline]
    pub const fn json(text: &'a str) -> Self {
        Self { json: true, ..Self::text(text) }
    }

    /// Whether it was said to be JSON.
    #[inline]
    pub const fn is_json(&self) -> bool {
        self.json
    }

    /// A binary message.
    #[inline]
    pub const fn binary(bytes: &'a [u8]) -> Self {
        Self { kind: Kind::Binary, bytes, key: None, verbatim: false, json: false }
    }

    /// What the decoder has received; for text only after it has been validated as a whole.
    #[inline]
    pub(crate) const fn validated(kind: Kind, bytes: &'a [u8]) -> Self {
        Self { kind, bytes, key: None, verbatim: false, json: false }
    }

    /// Names what this message is the latest state of, such as `"EUR/USD"`. Where a slow consumer's policy is
    /// [`SlowConsumer::LatestByKey`](crate::SlowConsumer::LatestByKey), it replaces a message with the same key that
    /// still waits. Keys are compared by a 64-bit hash.
    #[must_use]
    pub fn with_key(mut self, key: &str) -> Self {
        self.key = Some(Key::new(key));
        self
    }

    /// Sends this message as it is, also where permessage-deflate was agreed on: for what does not get shorter
    /// (images, ciphertext), and for secrets that must not share a context with what others can choose.
    #[must_use]
    pub const fn verbatim(mut self) -> Self {
        self.verbatim = true;
        self
    }

    /// Whether it was marked with [`Message::verbatim`].
    #[inline]
    pub const fn is_verbatim(&self) -> bool {
        self.verbatim
    }

    /// The key given with [`Message::with_key`].
    #[inline]
    pub const fn key(&self) -> Option<Key> {
        self.key
    }

    /// Text or bytes.
    #[inline]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether this is a text message.
    #[inline]
    pub const fn is_text(&self) -> bool {
        matches!(self.kind, Kind::Text)
    }

    /// The payload, whatever its kind.
    #[inline]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The text, or `None` for a binary message. Costs nothing: it was validated when it came in.
    #[inline]
    #[allow(unsafe_code)] // a second validation would cost as much as the first: 10 % of a 16 KiB echo
    pub const fn as_text(&self) -> Option<&'a str> {
        match self.kind {
            // SAFETY: text messages are made from a `&str`, or by the decoder after validating all their bytes.
            Kind::Text => Some(unsafe { core::str::from_utf8_unchecked(self.bytes) }),
            Kind::Binary => None,
        }
    }

    /// Bytes of payload.
    #[inline]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the payload is empty, which is a valid message.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_text() {
            Some(text) => write!(f, "Text({text:?})"),
            None => write!(f, "Binary({} bytes)", self.bytes.len()),
        }
    }
}

/// What can be sent as a message: text (`str`, `String`), bytes (`[u8]`, `[u8; N]`, `Vec<u8>`, and with the feature `bytes`
/// also `bytes::Bytes`), a [`Message`] with its options, and references to all of them.
///
/// ```
/// # use campanile::{Conn, Disconnect, Message};
/// # fn example(conn: &mut Conn<'_>, count: u32) -> Result<(), Disconnect> {
/// conn.send("text")?;
/// conn.send(format!("{count} users"))?;
/// conn.send([1, 2, 3])?;
/// conn.publish("prices", Message::json(r#"{"EUR":1.1}"#).with_key("EUR"))?;
/// # Ok(()) }
/// ```
pub trait AsMessage {
    /// Borrows it as a message.
    fn as_message(&self) -> Message<'_>;
}

impl AsMessage for Message<'_> {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        *self
    }
}

/// The types with a text or bytes in them.
macro_rules! as_message {
    ($($kind:ident: $type:ty $(, $n:ident)?;)*) => {
        $(impl$(<const $n: usize>)? AsMessage for $type {
            #[inline]
            fn as_message(&self) -> Message<'_> {
                Message::$kind(self)
            }
        })*
    };
}

as_message! {
    text: str;
    text: String;
    binary: [u8];
    binary: [u8; N], N;
    binary: Vec<u8>;
}

#[cfg(feature = "bytes")]
as_message! {
    binary: bytes::Bytes;
}

impl<T: AsMessage + ?Sized> AsMessage for &T {
    #[inline]
    fn as_message(&self) -> Message<'_> {
        (**self).as_message()
    }
}

impl<'a, T: AsMessage + ?Sized> From<&'a T> for Message<'a> {
    #[inline]
    fn from(message: &'a T) -> Self {
        message.as_message()
    }
}
