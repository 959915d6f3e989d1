//! The endpoint as a handler: requests in, answers out, and what one client is owed.

use super::reply::{Fault, Id, Member, Place, Reply};
use super::request::{Content, Named, Publication, Request, Subscription, parse};
use super::{Push, SUBPROTOCOL};
use crate::handler::{Accept, Conn, Handler, Refuse};
use crate::http::Request as Opening;
use crate::hub::{Publish, SettingsTable, Subscribe, SubscribeError, Subscribed, check_topic};
use crate::protocol::Message;
use core::time::Duration;
use std::time::{SystemTime, UNIX_EPOCH};

/// Answers are never given up, so a client that asks without reading is not read any further when so many bytes of
/// them may wait.
const MAX_OWED: usize = 64 << 10;

/// An answer repeats what was asked and adds up to so many bytes.
const ANSWER: usize = 256;

#[derive(Debug)]
pub(super) struct Session {
    push: Push,
}

/// What is known of one client.
#[derive(Debug)]
pub(super) struct Client {
    /// Bytes of answers that may wait for it, at most.
    owed: usize,
    /// What the last `lagged` says.
    lagged: u64,
    /// Subscriptions that have not begun.
    asked: Vec<(Box<str>, Id)>,
    /// It takes several messages of a topic as one.
    batch: bool,
}

type Link<'a> = Conn<'a, Client>;

impl Session {
    pub(super) fn new(push: Push) -> Self {
        Self { push }
    }

    fn request(&self, conn: &mut Link<'_>, message: Message<'_>) -> Result<(), (Id, Fault)> {
        let text = message.as_text().ok_or_else(|| (Id::default(), Fault::Binary))?;
        let (id, request) = parse(text);
        let answered = request.and_then(|request| match request {
            Request::Subscribe(wanted) => self.subscribe(conn, id, wanted),
            Request::Unsubscribe(from) => unsubscribe(conn, id, &from),
            Request::Publish(publication) => self.publish(conn, id, &publication),
            Request::Ping => {
                say(conn, &Reply::Pong { id });
                Ok(())
            }
        });
        answered.map_err(|fault| (id, fault))
    }

    fn subscribe(&self, conn: &mut Link<'_>, id: Id, wanted: Subscription) -> Result<(), Fault> {
        let Subscription { to, start, tags } = wanted;
        let name = to.name();
        if !self.push.may_subscribe(name, settings(conn)) {
            let (topic, prefixes) = (name.to_owned(), self.push.subscribe.clone());
            return Err(Fault::Forbidden { topic, what: "subscribe to", prefixes });
        }
        let asked = &conn.state().asked;
        if asked.iter().any(|(t, _)| **t == *name) {
            return Err(Fault::Already { topic: name.to_owned() });
        }
        let tags: Vec<&str> = tags.iter().map(|tag| &**tag).collect();
        let subscribe = match &to {
            Named::Topic(topic) => Subscribe::new(topic),
            Named::Pattern(pattern) => Subscribe::pattern(pattern),
        };
        match conn.subscribe_with(subscribe.from(start).tags(&tags)) {
            Ok(()) if matches!(to, Named::Pattern(_)) => {
                let to = Member::from(to.as_target());
                let reply = Reply::Subscribed { id, to, position: None, recovered: false, replayed: 0 };
                say(conn, &reply);
                Ok(())
            }
            Ok(()) => {
                conn.state_mut().asked.push((name.into(), id));
                Ok(())
            }
            Err(SubscribeError::Closed) => Ok(()), // nothing reaches it any more
            Err(e) => Err(Fault::of_subscription(name, &e)),
        }
    }

    fn publish(&self, conn: &mut Link<'_>, id: Id, publication: &Publication<'_>) -> Result<(), Fault> {
        let Publication { topic, content, key, idempotency_key, ttl, echo, tags } = publication;
        check_topic(topic).map_err(Fault::Topic)?;
        if !self.push.may_publish(topic, settings(conn)) {
            let (topic, prefixes) = (topic.clone(), self.push.publish.clone());
            return Err(Fault::Forbidden { topic, what: "publish to", prefixes });
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
                Err(e) => Reply::error(id, &e.into()),
                Ok(_) if id == Id::default() => return,
                Ok(None) => Reply::Published { id, position: None, receivers: 0, repeated: false },
                Ok(Some(published)) => Reply::Published {
                    id,
                    position: Some(published.position.into()),
                    receivers: published.receivers,
                    repeated: published.repeated,
                },
            };
            handle.reply(to, &reply.to_json());
        });
        conn.wait_for_room(topic);
        Ok(())
    }
}

impl Client {
    pub(super) fn new(batch: bool) -> Self {
        Self { batch, owed: 0, lagged: 0, asked: Vec::new() }
    }

    /// The request that asked for a subscription that has not begun; it is answered now.
    fn take_asked(&mut self, topic: &str) -> Option<Id> {
        let at = self.asked.iter().position(|(t, _)| **t == *topic)?;
        Some(self.asked.swap_remove(at).1)
    }
}

/// What the server's topics keep and allow.
fn settings<'a>(conn: &'a Link<'_>) -> &'a SettingsTable {
    &conn.handle().shared.topics
}

fn say(conn: &mut Link<'_>, reply: &Reply<'_>) {
    conn.reply(&reply.to_json());
}

fn unsubscribe(conn: &mut Link<'_>, id: Id, from: &Named) -> Result<(), Fault> {
    let topic = from.name();
    let waits = conn.state_mut().take_asked(topic);
    let was = match from {
        Named::Topic(topic) => conn.unsubscribe(topic),
        Named::Pattern(pattern) => conn.unsubscribe_pattern(pattern),
    };
    if !was && waits.is_none() {
        return Err(Fault::NotSubscribed { topic: topic.to_owned() });
    }
    if let Some(waits) = waits {
        say(conn, &Reply::error(waits, &Fault::Cancelled { topic: topic.to_owned() }));
    }
    say(conn, &Reply::Unsubscribed { id, from: from.as_target().into() });
    Ok(())
}

impl Handler for Session {
    type State = Client;

    fn upgrade(&self, request: &Opening<'_>) -> Result<Accept<Client>, Refuse> {
        let accept = Accept::new(Client::new(request.query_value("batch").as_deref() == Some("true")));
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

    fn open(&self, conn: &mut Link<'_>) {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let batch = conn.state().batch;
        conn.batch_messages(batch);
        let limits = conn.limits();
        let hello = Reply::Hello {
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
    }

    fn message(&self, conn: &mut Link<'_>, message: Message<'_>) {
        if conn.buffered_amount() == 0 {
            conn.state_mut().owed = 0;
        }
        conn.state_mut().owed += message.len() + ANSWER;
        if let Err((id, fault)) = self.request(conn, message) {
            say(conn, &Reply::error(id, &fault));
        }
        if conn.state().owed > MAX_OWED && conn.buffered_amount() > 0 {
            conn.pause();
        }
    }

    fn drain(&self, conn: &mut Link<'_>) {
        conn.state_mut().owed = 0;
        conn.resume();
    }

    fn subscribed(&self, conn: &mut Link<'_>, topic: &str, how: &Subscribed) {
        let waits = conn.state_mut().take_asked(topic);
        let position = Some(Place::from(how.position));
        let (recovered, replayed) = (how.recovered, how.replayed);
        let id = waits.unwrap_or_default();
        say(conn, &Reply::Subscribed { id, to: Member::Topic(topic), position, recovered, replayed });
    }

    fn not_subscribed(&self, conn: &mut Link<'_>, topic: &str, error: &SubscribeError) {
        if let Some(id) = conn.state_mut().take_asked(topic) {
            say(conn, &Reply::error(id, &Fault::of_subscription(topic, error)));
        }
    }

    fn dropped(&self, conn: &mut Link<'_>, messages: u32) {
        // At once, so that it is told before whatever ends the connection. As long as the last one waits, it tells the sum.
        let before = if conn.has_notice() { conn.state().lagged } else { 0 };
        let messages = before + u64::from(messages);
        conn.state_mut().lagged = messages;
        conn.notice(&Reply::Lagged { messages }.to_json());
    }
}
