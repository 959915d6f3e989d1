//! Between the types of the push protocol and those of this client.

use super::error::ServerError;
use super::event::{Data, Hello};
use super::publication::Publication;
use super::{Position, Published};
use crate::push_protocol::bounds::{HEARTBEAT, HELLO_RETRY};
use crate::push_protocol::{
    self as protocol, Content, Epoch, ErrorCode, Payload, PublishCommand, PushRequest, WirePosition,
};
use core::ops::RangeInclusive;
use core::time::Duration;

/// The longest time to live that the protocol carries.
const MAX_TTL: Duration = Duration::from_millis(u32::MAX as u64);

/// The request that publishes. `idempotency_key` is used where the publication has none.
pub(super) fn publish_request<'a>(
    publication: &'a Publication<'_>,
    idempotency_key: &'a str,
) -> PushRequest<'a> {
    let content = match publication.is_json {
        true => Content::Json(publication.content),
        false => Content::Text(publication.content.into()),
    };
    PushRequest::Publish(PublishCommand {
        topic: publication.topic.into(),
        content,
        key: publication.key.map(Into::into),
        idempotency_key: Some(publication.idempotency_key.unwrap_or(idempotency_key).into()),
        ttl: publication.ttl.map(|ttl| ttl.clamp(Duration::from_millis(1), MAX_TTL)),
        echo: publication.echo,
        tags: publication.tags.iter().map(|tag| (&**tag).into()).collect(),
    })
}

impl From<WirePosition<'_>> for Position {
    fn from(position: WirePosition<'_>) -> Self {
        Self::new(&position.epoch.to_string(), position.offset)
    }
}

impl<'a> From<&'a Position> for WirePosition<'a> {
    fn from(position: &'a Position) -> Self {
        Self { epoch: Epoch::Text((&*position.epoch).into()), offset: position.offset }
    }
}

impl From<protocol::Hello<'_>> for Hello {
    fn from(hello: protocol::Hello<'_>) -> Self {
        let size = |n: Option<u64>| n.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
        let clamp = |ms: u64, bounds: RangeInclusive<Duration>| {
            Duration::from_millis(ms).clamp(*bounds.start(), *bounds.end())
        };
        Self {
            connection: hello.connection.0.into_owned(),
            time: Duration::from_millis(hello.time),
            heartbeat: match hello.heartbeat {
                0 => Duration::ZERO,
                heartbeat => clamp(heartbeat, HEARTBEAT),
            },
            max_message_size: size(hello.max_message_size),
            max_subscriptions: size(hello.max_subscriptions),
            retry: hello.retry.map(|retry| clamp(retry, HELLO_RETRY)),
        }
    }
}

impl From<Payload<'_>> for Data {
    fn from(payload: Payload<'_>) -> Self {
        match payload {
            Payload::Json(json) => Self::Json(json.to_owned()),
            Payload::Text(text) => Self::Text(text.0.into_owned()),
            Payload::Binary(bytes) => Self::Binary(bytes),
        }
    }
}

impl Published {
    pub(super) fn new(position: Option<WirePosition<'_>>, receivers: u64, repeated: bool) -> Self {
        Self { position: position.map(Into::into), receivers, repeated }
    }
}

impl ServerError {
    pub(super) fn new(code: ErrorCode, message: String, retry: Option<u64>) -> Self {
        Self { code, message, retry: retry.map(Duration::from_millis) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hello_sets_heartbeat_and_retry_within_bounds() {
        let hello = |heartbeat, retry| {
            let hello = protocol::Hello { heartbeat, retry, ..protocol::Hello::default() };
            let Hello { heartbeat, retry, .. } = hello.into();
            (heartbeat, retry)
        };
        let (day, most) = (Duration::from_secs(86_400), (1 << 53) - 1);
        let (second, ten) = (Duration::from_secs(1), Duration::from_millis(10));
        assert_eq!(hello(25_000, Some(2000)), (second * 25, Some(second * 2)));
        assert_eq!(hello(0, None), (Duration::ZERO, None));
        assert_eq!(hello(0, Some(0)), (Duration::ZERO, Some(ten)));
        assert_eq!(hello(1, Some(1)), (second, Some(ten)));
        assert_eq!(hello(most, Some(most)), (day, Some(day)));
        let sizes =
            Hello::from(protocol::Hello { max_message_size: Some(65_536), ..protocol::Hello::default() });
        assert_eq!((sizes.max_message_size, sizes.max_subscriptions), (65_536, usize::MAX));
    }

    #[test]
    fn a_publication_has_its_own_idempotency_key_or_the_given_one() {
        let json =
            |publication: &Publication<'_>| publish_request(publication, "own").to_json(Some(7)).unwrap();
        let text = Publication::text("t", "x");
        assert_eq!(
            json(&text),
            r#"{"type":"publish","id":7,"topic":"t","text":"x","idempotency_key":"own"}"#
        );
        let ttl = Duration::from_micros(1);
        let keyed = Publication::json("t", "1").idempotency_key("d").ttl(ttl).echo(false).tags(["a"]);
        assert_eq!(
            json(&keyed),
            r#"{"type":"publish","id":7,"topic":"t","tags":["a"],"data":1,"idempotency_key":"d","ttl":1,"echo":false}"#
        );
    }
}
