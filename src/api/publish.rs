//! Publishing: one message, many, or one to many topics. The answer waits for the homes of the topics, and no worker for
//! the answer.

use super::body::{BatchBody, PublishBody, read_body};
use super::response::{self, ApiError};
use super::{Call, TIMEOUT};
use crate::handler::{Handle, HandleError};
use crate::http::{Responder, Response};
use crate::hub::{Publish, PublishRequest, Published};
use crate::protocol::Message;
use std::sync::{Arc, Mutex, PoisonError};

fn publication(
    handle: &Handle,
    topic: &str,
    message: Message<'_>,
    body: &PublishBody<'_>,
) -> Result<PublishRequest, ApiError> {
    let tags = body.tags()?;
    let mut publish = Publish::new(topic, message).tags(&tags);
    if let Some(key) = body.idempotency_key()? {
        publish = publish.idempotency_key(key);
    }
    if let Some(ttl) = body.ttl()? {
        publish = publish.ttl(ttl);
    }
    Ok(handle.publication(publish)?)
}

fn to_one_topic(handle: &Handle, body: &PublishBody<'_>) -> Result<PublishRequest, ApiError> {
    let mut decoded = Vec::new();
    publication(handle, body.topic()?, body.message(&mut decoded)?, body)
}

pub(super) fn one(call: &Call<'_>) -> Result<Response, ApiError> {
    let body: PublishBody<'_> = read_body(call.request)?;
    let publication = to_one_topic(call.handle, &body)?;
    let handle = call.handle.clone();
    Ok(Response::later(TIMEOUT, move |responder| {
        handle.send_then(publication, move |published| {
            responder.respond(match published {
                Ok(published) => {
                    let mut out = Vec::with_capacity(96);
                    response::published(&mut out, published);
                    response::ok(out)
                }
                Err(e) => ApiError::from(e).response(),
            });
        });
    }))
}

pub(super) fn batch(call: &Call<'_>) -> Result<Response, ApiError> {
    let batch: BatchBody<'_> = read_body(call.request)?;
    let mut publications = Vec::new();
    for (i, body) in batch.messages()?.enumerate() {
        let made = to_one_topic(call.handle, body);
        publications.push(made.map_err(|error| error.at(&format!("messages[{i}]")))?);
    }
    Ok(publish_all(call.handle, publications))
}

pub(super) fn broadcast(call: &Call<'_>) -> Result<Response, ApiError> {
    let body: PublishBody<'_> = read_body(call.request)?;
    let topics = body.topics()?;
    let mut decoded = Vec::new();
    let message = body.message(&mut decoded)?;
    let mut publications: Vec<PublishRequest> = Vec::with_capacity(topics.len());
    for (i, topic) in topics.iter().enumerate() {
        let checked = call.handle.check_publication(topic, message.len()).map_err(ApiError::from);
        checked.map_err(|error| error.at(&format!("topics[{i}]")))?;
        publications.push(match publications.first() {
            None => publication(call.handle, topic, message, &body)?,
            // The others share what has been encoded.
            Some(first) => first.to(topic),
        });
    }
    Ok(publish_all(call.handle, publications))
}

/// What has become of many publications so far.
struct PendingBatch {
    left: usize,
    results: Vec<Result<Option<Published>, HandleError>>,
    responder: Option<Responder>,
}

/// Publishes all and answers when the last has been.
fn publish_all(handle: &Handle, publications: Vec<PublishRequest>) -> Response {
    let handle = handle.clone();
    Response::later(TIMEOUT, move |responder| {
        let left = publications.len();
        let results = vec![Err(HandleError::Ended); left];
        let pending = Arc::new(Mutex::new(PendingBatch { left, results, responder: Some(responder) }));
        for (i, publication) in publications.into_iter().enumerate() {
            let pending = pending.clone();
            handle.send_then(publication, move |published| {
                let mut batch = pending.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(result) = batch.results.get_mut(i) {
                    *result = published;
                }
                batch.left -= 1;
                if batch.left == 0
                    && let Some(responder) = batch.responder.take()
                {
                    responder.respond(batch_response(&batch.results));
                }
            });
        }
    })
}

fn batch_response(results: &[Result<Option<Published>, HandleError>]) -> Response {
    let failed = results.iter().find_map(|r| r.as_ref().err());
    let failed = failed.map(|e| {
        let error = ApiError::from(e.clone());
        error.at("not all was published, see the results")
    });
    let mut out = Vec::with_capacity(64 + 80 * results.len());
    out.push(b'{');
    if let Some(error) = &failed {
        error.write(&mut out);
        out.push(b',');
    }
    out.extend_from_slice(br#""results":["#);
    for (i, result) in results.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        match result {
            Ok(published) => response::published(&mut out, *published),
            Err(e) => {
                out.push(b'{');
                ApiError::from(e.clone()).write(&mut out);
                out.push(b'}');
            }
        }
    }
    out.extend_from_slice(b"]}");
    match failed {
        Some(error) => error.with(out),
        None => response::ok(out),
    }
}
