//! How a topic's messages reach the connections of a route: as they were published, or in an envelope with topic and
//! position.

use super::Position;
use crate::conn::Frames;
use crate::protocol::header::{self, Parsed, Role};
use crate::protocol::{Kind, Message, Opcode};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

/// A message on its way from a topic to a connection.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Delivered<'a> {
    /// The topic's name, also for a subscription to a pattern.
    pub topic: &'a str,
    /// The message's position in the topic.
    pub position: Position,
    /// The message, without its key. [`Message::is_json`] is as its publisher declared it.
    pub message: Message<'a>,
}

/// Puts messages of topics into what a route's clients understand. Given with
/// [`Route::envelope`](crate::Route::envelope).
///
/// Each message is wrapped once for all connections of the route, whichever worker they are on. Runs on a worker, and
/// everybody there waits for it. A panic loses the message for these connections and is counted.
///
/// ```
/// use campanile::{Delivered, Envelope};
/// use campanile::protocol::Kind;
///
/// /// `room: text`
/// struct Named;
///
/// impl Envelope for Named {
///     fn wrap(&self, item: &Delivered<'_>, out: &mut Vec<u8>) -> Kind {
///         out.extend_from_slice(item.topic.as_bytes());
///         out.extend_from_slice(b": ");
///         out.extend_from_slice(item.message.as_bytes());
///         item.message.kind()
///     }
/// }
/// ```
pub trait Envelope: Send + Sync + 'static {
    /// Appends the payload to an empty `out`, and returns its kind. Text must be valid UTF-8; invalid text is sent
    /// unchanged, and clients close their connections.
    fn wrap(&self, item: &Delivered<'_>, out: &mut Vec<u8>) -> Kind;

    /// Appends one payload for several neighbouring messages of a topic to an empty `out`, for connections that [accept
    /// this](crate::Conn::batch_messages). `None`, the default: the messages are wrapped one by one.
    fn wrap_all(&self, items: &[Delivered<'_>], out: &mut Vec<u8>) -> Option<Kind> {
        let _ = (items, out);
        None
    }
}

/// The frames of one batch in each envelope of the server's routes. They contain the batch's topic and positions, so
/// they belong to the batch and not to its frames, which topics may share.
#[derive(Debug, Default)]
pub(crate) struct Envelopes(OnceLock<Box<[OnceLock<Frames>]>>);

impl Envelopes {
    /// Returns the frames in envelope `index` of `count`. The first worker that needs them makes them.
    pub(crate) fn get(&self, index: usize, count: usize, wrap: impl FnOnce() -> Frames) -> Option<&Frames> {
        let all = self.0.get_or_init(|| (0..count).map(|_| OnceLock::new()).collect());
        Some(all.get(index)?.get_or_init(wrap))
    }
}

/// Wraps the frames of neighbouring messages, one by one. `first` is the position of the first.
pub(crate) fn wrap<'a>(
    envelope: &dyn Envelope,
    topic: &str,
    first: Position,
    frames: impl Iterator<Item = (&'a [u8], bool)>,
    verbatim: bool,
) -> Frames {
    let (mut bytes, mut ends, mut payload) = (Vec::new(), Vec::new(), Vec::new());
    for ((frame, json), offset) in frames.zip(first.offset..) {
        if let Some(message) = message_of(frame, json) {
            let item = Delivered { topic, position: Position { offset, ..first }, message };
            payload.clear();
            // The application's code: a panic must not end the worker.
            if let Ok(kind) = catch_unwind(AssertUnwindSafe(|| envelope.wrap(&item, &mut payload))) {
                header::write_frame(&mut bytes, kind.into(), &payload);
            }
        }
        ends.push(bytes.len());
    }
    Frames::with_ends(bytes, verbatim, 1, ends.into())
}

/// Wraps them as one frame; `None` if the envelope can't.
pub(crate) fn wrap_all<'a>(
    envelope: &dyn Envelope,
    topic: &str,
    first: Position,
    frames: impl Iterator<Item = (&'a [u8], bool)>,
    verbatim: bool,
) -> Option<Frames> {
    let items: Vec<Delivered<'_>> = frames
        .zip(first.offset..)
        .filter_map(|((frame, json), offset)| {
            let message = message_of(frame, json)?;
            Some(Delivered { topic, position: Position { offset, ..first }, message })
        })
        .collect();
    let mut payload = Vec::new();
    let kind = catch_unwind(AssertUnwindSafe(|| envelope.wrap_all(&items, &mut payload))).ok()??;
    let mut bytes = Vec::with_capacity(payload.len() + header::MAX_HEAD);
    header::write_frame(&mut bytes, kind.into(), &payload);
    Some(Frames::with_count(bytes, verbatim, items.len() as u32))
}

/// Returns the message in a frame that this program has encoded.
pub(super) fn message_of(frame: &[u8], json: bool) -> Option<Message<'_>> {
    let Ok(Parsed::Head(head)) = header::decode(frame, Role::Client, false) else { return None };
    let payload = frame.get(usize::from(head.size)..)?;
    let kind = if head.opcode == Opcode::Text { Kind::Text } else { Kind::Binary };
    let message = Message::validated(kind, payload);
    Some(if json { message.as_text().map_or(message, Message::json) } else { message })
}
