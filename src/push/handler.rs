//! The endpoint as a handler: requests in, answers out, and what one client is owed.

use super::request::{Content, OwnedTarget, PublishCommand, PushRequest, SubscribeCommand, parse};
use super::server_message::{RequestError, RequestId, ServerMessage, TargetMember, WirePosition};
use super::{Push, SUBPROTOCOL};
use crate::handler::{Accept, Conn, Disconnect, Handler, Refuse};
use crate::http::Request as HttpRequest;
use crate::hub::{Publish, SettingsTable, Subscribe, SubscribeError, Subscribed, check_topic};
use crate::protocol::Message;
use core::time::Duration;
use std::time::{SystemTime, UNIX_EPOCH};

/// Answers are never given up, so a client that asks without reading is not read any further when so many bytes of
/// them may wait.
const MAX_UNREAD_REPLIES: usize = 64 << 10;

/// An answer repeats what was asked and adds up to so many bytes.
const REPLY_OVERHEAD: usize = 256;

#[derive(Debug)]
pub(super) struct PushHandler {
    push: Push,
}

/// What is known of one client.
#[derive(Debug)]
pub(super) struct ClientState {
    /// Bytes of answers that may wait for it, at most.
    unread_replies: usize,
    /// What the last `lagged` says.
    lagged: u64,
    /// Subscriptions that have not begun.
    pending_subscribes: Vec<(Box<str>, RequestId)>,
    /// It takes several messages of a topic as one.
    batch: bool,
}

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
        let text = message.as_text().ok_or_else(|| (RequestId::default(), RequestError::Binary))?;
        let (id, request) = parse(text);
        let outcome = request.and_then(|request| match request {
            PushRequest::Subscribe(wanted) => self.subscribe(conn, client, id, wanted),
            PushRequest::Unsubscribe(from) => unsubscribe(conn, client, id, &from),
            PushRequest::Publish(publication) => self.publish(conn, id, &publication),
            PushRequest::Ping => {
                send(conn, &ServerMessage::Pong { id });
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
        wanted: SubscribeCommand,
    ) -> Result<(), RequestError> {
        let SubscribeCommand { to, start, tags } = wanted;
        let name = to.name();
        if !self.push.may_subscribe(name, settings(conn)) {
            let (topic, prefixes) = (name.to_owned(), self.push.subscribe.clone());
            return Err(RequestError::Forbidden { topic, what: "subscribe to", prefixes });
        }
        let pending_subscribes = &client.pending_subscribes;
        if pending_subscribes.iter().any(|(t, _)| **t == *name) {
            return Err(RequestError::Already { topic: name.to_owned() });
        }
        let tags: Vec<&str> = tags.iter().map(|tag| &**tag).collect();
        let subscribe = match &to {
            OwnedTarget::Topic(topic) => Subscribe::new(topic),
            OwnedTarget::Pattern(pattern) => Subscribe::pattern(pattern),
        };
        match conn.subscribe_with(subscribe.from(start).tags(&tags)) {
            Ok(()) if matches!(to, OwnedTarget::Pattern(_)) => {
                let to = TargetMember::from(to.as_target());
                let reply =
                    ServerMessage::Subscribed { id, to, position: None, recovered: false, replayed: 0 };
                send(conn, &reply);
                Ok(())
            }
            Ok(()) => {
                client.pending_subscribes.push((name.into(), id));
                Ok(())
            }
            Err(SubscribeError::Closed) => Ok(()), // nothing reaches it any more
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
            let (topic, prefixes) = (topic.clone(), self.push.publish.clone());
            return Err(RequestError::Forbidden { topic, what: "publish to", prefixes });
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
        // Through the handle also where nobody waits for the answer: one way keeps one order.
        let (handle, to) = (conn.handle().clone(), conn.id());
        conn.handle().publish_then(publish, move |result| {
            let reply = match result {
                Err(e) => ServerMessage::error(id, &e.into()),
                Ok(_) if id == RequestId::default() => return,
                Ok(None) => ServerMessage::Published { id, position: None, receivers: 0, repeated: false },
                Ok(Some(published)) => ServerMessage::Published {
                    id,
                    position: Some(published.position.into()),
                    receivers: published.receivers,
                    repeated: published.repeated,
                },
            };
            handle.reply(to, &reply.to_json());
        });
        conn.pause_if_congested(topic);
        Ok(())
    }
}

impl ClientState {
    pub(super) fn new(batch: bool) -> Self {
        Self { batch, unread_replies: 0, lagged: 0, pending_subscribes: Vec::new() }
    }

    /// The request that asked for a subscription that has not begun; it is answered now.
    fn take_pending_subscribe(&mut self, topic: &str) -> Option<RequestId> {
        let at = self.pending_subscribes.iter().position(|(t, _)| **t == *topic)?;
        Some(self.pending_subscribes.swap_remove(at).1)
    }
}

/// What the server's topics keep and allow.
fn settings<'a>(conn: &'a Conn<'_>) -> &'a SettingsTable {
    &conn.handle().shared.topics
}

fn send(conn: &mut Conn<'_>, reply: &ServerMessage<'_>) {
    conn.reply(&reply.to_json());
}

fn unsubscribe(
    conn: &mut Conn<'_>,
    client: &mut ClientState,
    id: RequestId,
    from: &OwnedTarget,
) -> Result<(), RequestError> {
    let topic = from.name();
    let waits = client.take_pending_subscribe(topic);
    let was = match from {
        OwnedTarget::Topic(topic) => conn.unsubscribe(topic),
        OwnedTarget::Pattern(pattern) => conn.unsubscribe_pattern(pattern),
    };
    if !was && waits.is_none() {
        return Err(RequestError::NotSubscribed { topic: topic.to_owned() });
    }
    if let Some(waits) = waits {
        send(conn, &ServerMessage::error(waits, &RequestError::Cancelled { topic: topic.to_owned() }));
    }
    send(conn, &ServerMessage::Unsubscribed { id, from: from.as_target().into() });
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
                let text = format!("none of the subprotocols offered is spoken here: offer {SUBPROTOCOL}\n");
                Err(Refuse::new(400).text(text))
            }
        }
    }

    fn open(&self, conn: &mut Conn<'_>, client: &mut ClientState) -> Result<(), Disconnect> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        conn.batch_messages(client.batch);
        let limits = conn.limits();
        let hello = ServerMessage::Hello {
            protocol: SUBPROTOCOL,
            connection: &conn.id().to_string(),
            time: millis(since_epoch),
            heartbeat: millis(self.push.heartbeat),
            retry: millis(self.push.retry),
            max_message_size: limits.max_message_size,
            max_subscriptions: limits.max_subscriptions,
        };
        let hello = hello.to_json();
        conn.reply(&hello);
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
            send(conn, &ServerMessage::error(id, &error));
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
        let waits = client.take_pending_subscribe(topic);
        let position = Some(WirePosition::from(how.position));
        let (recovered, replayed) = (how.recovered, how.replayed);
        let id = waits.unwrap_or_default();
        send(
            conn,
            &ServerMessage::Subscribed { id, to: TargetMember::Topic(topic), position, recovered, replayed },
        );
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
            send(conn, &ServerMessage::error(id, &RequestError::from_subscribe(topic, error)));
        }
        Ok(())
    }

    fn dropped(
        &self,
        conn: &mut Conn<'_>,
        client: &mut ClientState,
        messages: u32,
    ) -> Result<(), Disconnect> {
        // At once, so that it is told before whatever ends the connection. As long as the last one waits, it tells the sum.
        let before = if conn.has_notice() { client.lagged } else { 0 };
        let messages = before + u64::from(messages);
        client.lagged = messages;
        conn.notice(&ServerMessage::Lagged { messages }.to_json());
        Ok(())
    }
}
