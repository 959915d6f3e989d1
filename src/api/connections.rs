//! What is done with one connection, named by its id.

use super::body::{ConnectionBody, gone, read_body};
use super::response::{self, ApiError};
use super::{Call, TIMEOUT};
use crate::conn::{ConnId, ReadyState};
use crate::handler::{ConnInfo, Handle};
use crate::http::Response;
use crate::hub::SubscribeTarget;

/// Has the worker of a connection answer, if it is open.
fn on_open(
    handle: Handle,
    id: ConnId,
    act: impl FnOnce(&Handle, ConnInfo) -> Result<&'static str, ApiError> + Send + 'static,
) -> Response {
    Response::later(TIMEOUT, move |responder| {
        let queried = handle.clone();
        queried.connection(id).then(move |info| {
            let open = info.map_err(ApiError::from).and_then(|info| {
                info.filter(|info| info.ready_state == ReadyState::Open).ok_or_else(|| gone(id))
            });
            responder.respond(match open.and_then(|info| act(&handle, info)) {
                Ok(body) => response::ok(body),
                Err(error) => error.response(),
            });
        });
    })
}

/// The connection that a request is about, if there can be one of this name.
fn connection(call: &Call<'_>, body: &ConnectionBody<'_>) -> Result<ConnId, ApiError> {
    let id = body.connection()?;
    if id.worker() < call.handle.shared.workers.len() { Ok(id) } else { Err(gone(id)) }
}

pub(super) fn subscribe(call: &Call<'_>) -> Result<Response, ApiError> {
    let body: ConnectionBody<'_> = read_body(call.request)?;
    let (id, target) = (connection(call, &body)?, body.target()?);
    let (name, is_pattern) = match target {
        SubscribeTarget::Topic(topic) => (topic.to_owned(), false),
        SubscribeTarget::Pattern(pattern) => (pattern.to_owned(), true),
    };
    match target {
        SubscribeTarget::Topic(topic) => call.handle.subscribe(id, topic)?,
        SubscribeTarget::Pattern(pattern) => call.handle.subscribe_pattern(id, pattern)?,
    }
    // The answer to this question comes after it has been done.
    Ok(on_open(call.handle.clone(), id, move |_, info| {
        let names = if is_pattern { &info.patterns } else { &info.topics };
        if names.contains(&name) {
            return Ok(r#"{"subscribed":true}"#);
        }
        let message = "subscriptions: the limit of the connection is reached";
        Err(ApiError::new(409, "subscriptions", message))
    }))
}

pub(super) fn unsubscribe(call: &Call<'_>) -> Result<Response, ApiError> {
    let body: ConnectionBody<'_> = read_body(call.request)?;
    let id = connection(call, &body)?;
    match body.target()? {
        SubscribeTarget::Topic(topic) => call.handle.unsubscribe(id, topic)?,
        SubscribeTarget::Pattern(pattern) => call.handle.unsubscribe_pattern(id, pattern)?,
    }
    Ok(on_open(call.handle.clone(), id, |_, _| Ok(r#"{"subscribed":false}"#)))
}

pub(super) fn close(call: &Call<'_>) -> Result<Response, ApiError> {
    let body: ConnectionBody<'_> = read_body(call.request)?;
    let (id, reason) = (connection(call, &body)?, body.reason()?.to_owned());
    let code = body.code()?;
    Ok(on_open(call.handle.clone(), id, move |handle, _| {
        handle.close(id, code, &reason)?;
        Ok(r#"{"closed":true}"#)
    }))
}
