//! The handler of the push protocol: answers requests, and pauses clients that do not read the answers.

use super::Push;
use super::error::RequestError;
use crate::handler::{Accept, Conn, Disconnect, Handler, Refuse};
use crate::http::Request as HttpRequest;
use crate::hub::{
    Position, Publish, SettingsTable, Start, Subscribe, SubscribeError, Subscribed, check_topic,
};
use crate::protocol::Message;
use crate::push_protocol::{
    Content, Hello, PublishCommand, PushRequest, SUBPROTOCOL, ServerMessage, SubscribeCommand,
    SubscribeStart, TargetName, WirePosition, parse_request,
};
use core::time::Duration;
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of answers that may be queued before the client is no longer read from: answers are never dropped.
const MAX_UNREAD_REPLIES: usize = 64 << 10;

/// Bytes that an answer may have beyond those of its request.
const REPLY_OVERHEAD: usize = 256;

#[derive(Debug)]
pub(super) struct PushHandler {
    push: Push,
}

/// The state of one client.
#[derive(Debug)]
pub(super) struct ClientState {
    /// Upper bound of the bytes of queued answers.
    unread_replies: usize,
    /// The number in the last `lagged`.
    lagged: u64,
    /// Subscriptions that have not begun, and the ids of their requests.
    pending_subscribes: Vec<(Box<str>, RequestId)>,
    /// Whether the client accepts several messages of a topic as one.
    batch: bool,
}

/// The `id` of a request, if it has one.
type RequestId = Option<u64>;

impl PushHandler {
    pub(super) fn new(push: Push) -> Self {
        Self { push }
    }

    fn request(
        &self,
        conn: &mut Conn<'_>,
        client: &mut ClientState,
        message: Message<'_>,
    ) -> Result<(), (RequestId, RequestError)> {
        let text = message.as_text().ok_or((None, RequestError::Binary))?;
        let (id, request) = parse_request(text);
        let outcome = request.map_err(RequestError::from).and_then(|request| match request {
            PushRequest::Subscribe(subscribe) => self.subscribe(conn, client, id, subscribe),
            PushRequest::Unsubscribe(target) => unsubscribe(conn, client, id, target),
            PushRequest::Publish(publication) => self.publish(conn, id, &publication),
            PushRequest::Ping => {
                send(conn, ServerMessage::Pong { id });
                Ok(())
            }
        });
        outcome.map_err(|error| (id, error))
    }

    fn subscribe(
        &self,
        conn: &mut Conn<'_>,
        client: &mut ClientState,
        id: RequestId,
        subscribe: SubscribeCommand<'_>,
    ) -> Result<(), RequestError> {
        let SubscribeCommand { target, start, tags } = subscribe;
        let name = target.name();
        if !self.push.may_subscribe(name, settings(conn)) {
            let (topic, prefixes) = (name.to_owned(), self.push.subscribe.clone());
            return Err(RequestError::Forbidden { topic, action: "subscribe to", prefixes });
        }
        let pending_subscribes = &client.pending_subscribes;
        if pending_subscribes.iter().any(|(t, _)| **t == *name) {
            return Err(RequestError::Already { topic: name.to_owned() });
        }
        let tags: Vec<&str> = tags.iter().map(|tag| &**tag).collect();
        let subscribe = match &target {
            TargetName::Topic(topic) => Subscribe::new(topic),
            TargetName::Pattern(pattern) => Subscribe::pattern(pattern),
        };
        match conn.subscribe_with(subscribe.from(hub_start(&start)).tags(&tags)) {
            Ok(()) if matches!(target, TargetName::Pattern(_)) => {
                let (target, position) = (Some(target), None);
                send(conn, ServerMessage::Subscribed { id, target, position, recovered: false, replayed: 0 });
                Ok(())
            }
            Ok(()) => {
                client.pending_subscribes.push((name.into(), id));
                Ok(())
            }
            Err(SubscribeError::Closed) => Ok(()), // it can't be answered
            Err(e) => Err(RequestError::from_subscribe(name, &e)),
        }
    }

    fn publish(
        &self,
        conn: &mut Conn<'_>,
        id: RequestId,
        publication: &PublishCommand<'_>,
    ) -> Result<(), RequestError> {
        let PublishCommand { topic, content, key, idempotency_key, ttl, echo, tags } = publication;
        check_topic(topic).map_err(RequestError::Topic)?;
        if !self.push.may_publish(topic, settings(conn)) {
            let (topic, prefixes) = (topic.to_string(), self.push.publish.clone());
            return Err(RequestError::Forbidden { topic, action: "publish to", prefixes });
        }
        let mut message = match content {
            Content::Json(data) => Message::json(data),
            Content::Text(text) => Message::text(text),
        };
        if let Some(key) = key {
            message = message.with_key(key);
        }
        let tags: Vec<&str> = tags.iter().map(|tag| &**tag).collect();
        let mut publish = Publish::new(topic, message).tags(&tags).by(conn.id());
        if let Some(idempotency_key) = idempotency_key {
            publish = publish.idempotency_key(idempotency_key);
        }
        if let Some(ttl) = *ttl {
            publish = publish.ttl(ttl);
        }
        if !echo {
            publish = publish.except(conn.id());
        }
        // By the handle also without an id, since one way keeps one order.
        let (handle, to) = (conn.handle().clone(), conn.id());
        conn.handle().publish_then(publish, move |result| {
            let reply = match result {
                Err(e) => RequestError::from(e).answer(id),
                Ok(_) if id.is_none() => return,
                Ok(None) => ServerMessage::Published { id, position: None, receivers: 0, repeated: false },
                Ok(Some(published)) => ServerMessage::Published {
                    id,
                    position: Some(published.position.into()),
                    receivers: published.receivers as u64,
                    repeated: published.repeated,
                },
            };
            handle.reply(to, &reply.into_json());
        });
        conn.pause_if_congested(topic);
        Ok(())
    }
}

impl ClientState {
    pub(super) fn new(batch: bool) -> Self {
        Self { batch, unread_replies: 0, lagged: 0, pending_subscribes: Vec::new() }
    }

    /// Removes a pending subscription, and returns the id of its request.
    fn take_pending_subscribe(&mut self, topic: &str) -> Option<RequestId> {
        let at = self.pending_subscribes.iter().position(|(t, _)| **t == *topic)?;
        Some(self.pending_subscribes.swap_remove(at).1)
    }
}

/// Where a subscription starts. An epoch of another server is no error: the topic recovers nothing.
fn hub_start(start: &SubscribeStart<'_>) -> Start {
    match start {
        SubscribeStart::Live => Start::Now,
        SubscribeStart::Latest => Start::Latest,
        SubscribeStart::Last(n) => Start::Last(*n as usize),
        SubscribeStart::Since(WirePosition { epoch, offset }) => {
            epoch.number().map_or(Start::Now, |epoch| Start::Since(Position::new(epoch, *offset)))
        }
    }
}

/// The settings of the server's topics.
fn settings<'a>(conn: &'a Conn<'_>) -> &'a SettingsTable {
    &conn.handle().shared.topics
}

fn send(conn: &mut Conn<'_>, message: ServerMessage<'_>) {
    conn.reply(&message.into_json());
}

fn unsubscribe(
    conn: &mut Conn<'_>,
    client: &mut ClientState,
    id: RequestId,
    target: TargetName<'_>,
) -> Result<(), RequestError> {
    let topic = target.name();
    let cancelled = client.take_pending_subscribe(topic);
    let was_subscribed = match &target {
        TargetName::Topic(topic) => conn.unsubscribe(topic),
        TargetName::Pattern(pattern) => conn.unsubscribe_pattern(pattern),
    };
    if !was_subscribed && cancelled.is_none() {
        return Err(RequestError::NotSubscribed { topic: topic.to_owned() });
    }
    if let Some(cancelled) = cancelled {
        send(conn, RequestError::Cancelled { topic: topic.to_owned() }.answer(cancelled));
    }
    send(conn, ServerMessage::Unsubscribed { id, target: Some(target) });
    Ok(())
}

impl Handler for PushHandler {
    type State = ClientState;

    fn upgrade(&self, request: &HttpRequest<'_>) -> Result<Accept<ClientState>, Refuse> {
        let accept = Accept::new(ClientState::new(request.query_value("batch").as_deref() == Some("true")));
        if request.protocols().any(|offered| offered == SUBPROTOCOL) {
            return Ok(accept.protocol(SUBPROTOCOL));
        }
        match request.protocols().next() {
            None => Ok(accept),
            Some(_) => {
                let text = format!("Sec-WebSocket-Protocol: expected {SUBPROTOCOL}\n");
                Err(Refuse::new(400).text(text))
            }
        }
    }

    fn open(&self, conn: &mut Conn<'_>, client: &mut ClientState) -> Result<(), Disconnect> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        conn.batch_messages(client.batch);
        let limits = conn.limits();
        let hello = Hello {
            connection: conn.id().to_string().into(),
            time: millis(since_epoch),
            heartbeat: millis(self.push.heartbeat),
            retry: Some(millis(self.push.retry)),
            max_message_size: Some(limits.max_message_size as u64),
            max_subscriptions: Some(limits.max_subscriptions as u64),
        };
        send(conn, ServerMessage::Hello(hello));
        Ok(())
    }

    fn message(
        &self,
        conn: &mut Conn<'_>,
        client: &mut ClientState,
        message: Message<'_>,
    ) -> Result<(), Disconnect> {
        if conn.buffered_amount() == 0 {
            client.unread_replies = 0;
        }
        client.unread_replies += message.len() + REPLY_OVERHEAD;
        if let Err((id, error)) = self.request(conn, client, message) {
            send(conn, error.answer(id));
        }
        if client.unread_replies > MAX_UNREAD_REPLIES && conn.buffered_amount() > 0 {
            conn.pause();
        }
        Ok(())
    }

    fn drain(&self, conn: &mut Conn<'_>, client: &mut ClientState) -> Result<(), Disconnect> {
        client.unread_replies = 0;
        conn.resume();
        Ok(())
    }

    fn subscribed(
        &self,
        conn: &mut Conn<'_>,
        client: &mut ClientState,
        topic: &str,
        how: &Subscribed,
    ) -> Result<(), Disconnect> {
        let subscribed = ServerMessage::Subscribed {
            id: client.take_pending_subscribe(topic).flatten(),
            target: Some(TargetName::Topic(topic.into())),
            position: Some(how.position.into()),
            recovered: how.recovered,
            replayed: how.replayed as u64,
        };
        send(conn, subscribed);
        Ok(())
    }

    fn not_subscribed(
        &self,
        conn: &mut Conn<'_>,
        client: &mut ClientState,
        topic: &str,
        error: &SubscribeError,
    ) -> Result<(), Disconnect> {
        if let Some(id) = client.take_pending_subscribe(topic) {
            send(conn, RequestError::from_subscribe(topic, error).answer(id));
        }
        Ok(())
    }

    fn dropped(
        &self,
        conn: &mut Conn<'_>,
        client: &mut ClientState,
        messages: u32,
    ) -> Result<(), Disconnect> {
        // At once, so that it precedes a close frame. While the last notice is queued, it is replaced by the sum.
        let before = if conn.has_notice() { client.lagged } else { 0 };
        let messages = before + u64::from(messages);
        client.lagged = messages;
        conn.notice(&ServerMessage::Lagged { messages }.into_json());
        Ok(())
    }
}
