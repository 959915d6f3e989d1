//! Publishing: one message, many, or one to many topics. The answer waits for the homes of the topics, and no worker for
//! the answer.

use super::answer::{self, Refusal};
use super::input::{Batch, Given, body};
use super::{Call, PATIENCE};
use crate::handler::{Handle, HandleError};
use crate::http::{Responder, Response};
use crate::hub::{Publish, PublishRequest, Published};
use crate::protocol::Message;
use std::sync::{Arc, Mutex, PoisonError};

fn publication(
    handle: &Handle,
    topic: &str,
    message: Message<'_>,
    given: &Given<'_>,
) -> Result<PublishRequest, Refusal> {
    let tags = given.tags()?;
    let mut publish = Publish::new(topic, message).tags(&tags);
    if let Some(key) = given.idempotency_key()? {
        publish = publish.idempotency_key(key);
    }
    if let Some(ttl) = given.ttl()? {
        publish = publish.ttl(ttl);
    }
    Ok(handle.publication(publish)?)
}

fn of_one_topic(handle: &Handle, given: &Given<'_>) -> Result<PublishRequest, Refusal> {
    let mut decoded = Vec::new();
    publication(handle, given.topic()?, given.message(&mut decoded)?, given)
}

pub(super) fn one(call: &Call<'_>) -> Result<Response, Refusal> {
    let given: Given<'_> = body(call.request)?;
    let publication = of_one_topic(call.handle, &given)?;
    let handle = call.handle.clone();
    Ok(Response::later(PATIENCE, move |responder| {
        handle.send_then(publication, move |published| {
            responder.respond(match published {
                Ok(published) => {
                    let mut out = Vec::with_capacity(96);
                    answer::published(&mut out, published);
                    answer::ok(out)
                }
                Err(e) => Refusal::from(e).response(),
            });
        });
    }))
}

pub(super) fn batch(call: &Call<'_>) -> Result<Response, Refusal> {
    let batch: Batch<'_> = body(call.request)?;
    let mut publications = Vec::new();
    for (i, given) in batch.messages()?.enumerate() {
        let made = of_one_topic(call.handle, given);
        publications.push(made.map_err(|refusal| refusal.at(&format!("messages[{i}]")))?);
    }
    Ok(all(call.handle, publications))
}

pub(super) fn broadcast(call: &Call<'_>) -> Result<Response, Refusal> {
    let given: Given<'_> = body(call.request)?;
    let topics = given.topics()?;
    let mut decoded = Vec::new();
    let message = given.message(&mut decoded)?;
    let mut publications: Vec<PublishRequest> = Vec::with_capacity(topics.len());
    for (i, topic) in topics.iter().enumerate() {
        let checked = call.handle.check_publication(topic, message.len()).map_err(Refusal::from);
        checked.map_err(|refusal| refusal.at(&format!("topics[{i}]")))?;
        publications.push(match publications.first() {
            None => publication(call.handle, topic, message, &given)?,
            // The others share what has been encoded.
            Some(first) => first.to(topic),
        });
    }
    Ok(all(call.handle, publications))
}

/// What has become of many publications so far.
struct Gathered {
    left: usize,
    results: Vec<Result<Option<Published>, HandleError>>,
    responder: Option<Responder>,
}

/// Publishes all and answers when the last has been.
fn all(handle: &Handle, publications: Vec<PublishRequest>) -> Response {
    let handle = handle.clone();
    Response::later(PATIENCE, move |responder| {
        let left = publications.len();
        let results = vec![Err(HandleError::Ended); left];
        let gathered = Arc::new(Mutex::new(Gathered { left, results, responder: Some(responder) }));
        for (i, publication) in publications.into_iter().enumerate() {
            let gathered = gathered.clone();
            handle.send_then(publication, move |published| {
                let mut all = gathered.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(result) = all.results.get_mut(i) {
                    *result = published;
                }
                all.left -= 1;
                if all.left == 0
                    && let Some(responder) = all.responder.take()
                {
                    responder.respond(results_of(&all.results));
                }
            });
        }
    })
}

fn results_of(results: &[Result<Option<Published>, HandleError>]) -> Response {
    let failed = results.iter().find_map(|r| r.as_ref().err());
    let failed = failed.map(|e| {
        let refusal = Refusal::from(e.clone());
        refusal.at("not all was published, see the results")
    });
    let mut out = Vec::with_capacity(64 + 80 * results.len());
    out.push(b'{');
    if let Some(refusal) = &failed {
        refusal.write(&mut out);
        out.push(b',');
    }
    out.extend_from_slice(br#""results":["#);
    for (i, result) in results.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        match result {
            Ok(published) => answer::published(&mut out, *published),
            Err(e) => {
                out.push(b'{');
                Refusal::from(e.clone()).write(&mut out);
                out.push(b'}');
            }
        }
    }
    out.extend_from_slice(b"]}");
    match failed {
        Some(refusal) => refusal.with(out),
        None => answer::ok(out),
    }
}
