//! The envelope of the push protocol: wraps each message of a topic once for all connections of the route.

use crate::hub::{Delivered, Envelope};
use crate::protocol::Kind;
use crate::push_protocol::{write_message, write_messages};

#[derive(Clone, Copy, Debug)]
pub(super) struct PushEnvelope;

impl Envelope for PushEnvelope {
    fn wrap(&self, item: &Delivered<'_>, out: &mut Vec<u8>) -> Kind {
        write_message(out, item.topic, item.position.offset, item.message)
    }

    fn wrap_all(&self, items: &[Delivered<'_>], out: &mut Vec<u8>) -> Option<Kind> {
        let messages = items.iter().map(|item| (item.position.offset, item.message));
        write_messages(out, items.first()?.topic, messages).then_some(Kind::Text)
    }
}
