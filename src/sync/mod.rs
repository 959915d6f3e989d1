//! What threads hand to each other, and how often: mailboxes of workers, one-shot replies, token buckets. Nothing here
//! knows what is in a message, and nothing names a thread or a clock.

pub(crate) mod mailbox;
mod oneshot;
pub(crate) mod rate;

pub(crate) use oneshot::{NoReply, PendingReply, ReplySender, gather, one_shot};
