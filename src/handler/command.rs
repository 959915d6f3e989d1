//! What other threads ask of a worker. All of it is in this enum: nothing else crosses threads.

use super::{Accept, AnyState, ConnInfo, ErasedAccept};
use crate::conn::{ConnId, Frames};
use crate::http::{Peer, Response};
use crate::hub::{
    ForwardedBatch, HistoryPage, Missed, NoReply, PublishRequest, RecoveryReply, RecoveryRequest,
    ReplySender, Start, TopicList, TopicOrPattern, TopicUpdate,
};
use crate::net::Stream;
use crate::protocol::{CloseCode, Key};
use crate::sync::mailbox::Weigh;
use std::sync::Arc;
use std::time::Instant;

pub(crate) enum Command {
    /// A socket that another worker accepted, or a program handed over.
    AddConnection(Box<NewConnection>),
    /// The answer to an upgrade that is decided later.
    Decide(ConnId, Decision),
    /// A response that a request has waited for: which of the worker's.
    Respond(ConnId, u64, Response),
    /// One message for one connection.
    Send(ConnId, Frames, Option<Key>),
    /// One that is never given up ([`Connection::reply`](crate::conn::Connection::reply)).
    #[cfg(feature = "push")]
    Reply(ConnId, Box<str>),
    Ping(ConnId, Vec<u8>),
    Close(ConnId, CloseCode, Box<str>),
    Terminate(ConnId),
    Pause(ConnId, bool),
    Subscribe(ConnId, TopicOrPattern<'static>),
    Unsubscribe(ConnId, TopicOrPattern<'static>),
    /// Messages to topics that this worker owns, from outside.
    Publish(Vec<PublishRequest>),
    /// Messages to topics that this worker owns, from another worker.
    Forward(u16, Vec<PublishRequest>),
    /// The same for one, from outside.
    PublishOne(PublishRequest),
    /// A run from its owner, by the owner's number.
    Batch(u16, ForwardedBatch),
    /// Messages of a topic were lost on their way from its owner.
    Missed(u16, Missed),
    /// Publishers that wait for a congested topic may go on.
    CongestionCleared,
    /// Subscribers of another worker have come or gone, by topic.
    SubscriberChanges(usize, Vec<(Arc<str>, i32)>),
    /// A connection of another worker wants to listen to a topic that has its home here.
    RecoveryRequest(usize, RecoveryRequest),
    /// The answer.
    RecoveryReply(Box<RecoveryReply>),
    /// One message for every connection of a route.
    Broadcast(u16, Frames, Option<Key>),
    /// How many of this worker's connections listen to a topic.
    CountSubscribers(Box<str>, ReplySender<usize>),
    /// One connection, if it is still there.
    Info(ConnId, ReplySender<Option<ConnInfo>>),
    /// So many of the messages that a topic keeps.
    History(Box<str>, Start, usize, ReplySender<Option<HistoryPage>>),
    /// So many of the topics of a prefix that have their home here.
    Topics(Box<str>, usize, ReplySender<TopicList>),
    /// How many open connections a route has.
    CountOpen(u16, ReplySender<usize>),
    /// The open connections of a route.
    List(u16, ReplySender<Vec<ConnInfo>>),
    /// Panic outside of every callback, as a fault of this crate would: for tests.
    Panic,
    /// A worker has nothing more to come before this step of the shutdown, by its number.
    ShutdownStepDone(u16, ShutdownStep),
    /// Close every connection with this code, and end when all are gone or the time has come.
    Shutdown {
        code: CloseCode,
        deadline: Instant,
    },
}

impl Weigh for Command {
    fn weight(&self) -> usize {
        match self {
            Self::Send(_, frames, _) | Self::Broadcast(_, frames, _) => frames.len(),
            Self::Publish(all) | Self::Forward(_, all) => all.iter().map(|p| p.frames.len()).sum(),
            Self::PublishOne(publication) => publication.frames.len(),
            Self::Batch(_, forwarded) => forwarded.frames.len(),
            Self::RecoveryReply(reply) => size_of_val(&*reply.replay),
            _ => 0,
        }
    }
}

/// What the workers finish one after the other before a shutdown closes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ShutdownStep {
    /// What was published has reached the owners of its topics.
    Published,
    /// What the owners had for other workers has reached them.
    Delivered,
}

impl Command {
    /// A step of a topic from its owner.
    pub(crate) fn from_update(owner: usize, update: TopicUpdate) -> Self {
        match update {
            TopicUpdate::Batch(forwarded) => Self::Batch(owner as u16, forwarded),
            TopicUpdate::Missed(missed) => Self::Missed(owner as u16, missed),
            TopicUpdate::RecoveryReply(reply) => Self::RecoveryReply(reply),
        }
    }

    /// The worker whose link it came by, whose room it has taken.
    pub(crate) fn flow_from(&self) -> Option<usize> {
        match self {
            Self::Forward(from, _) | Self::Batch(from, _) | Self::Missed(from, _) => Some(usize::from(*from)),
            _ => None,
        }
    }

    /// Tells whoever waits for its answer that there will be none.
    pub(crate) fn fail(self, why: NoReply) {
        match self {
            Self::PublishOne(PublishRequest { reply: Some(reply), .. }) => reply.fail(why),
            Self::Info(_, answer) => answer.fail(why),
            Self::History(.., answer) => answer.fail(why),
            Self::Topics(.., answer) => answer.fail(why),
            Self::CountSubscribers(_, answer) | Self::CountOpen(_, answer) => answer.fail(why),
            Self::List(_, answer) => answer.fail(why),
            _ => {}
        }
    }
}

pub(crate) struct NewConnection {
    pub(crate) stream: Stream,
    pub(crate) peer: Peer,
    /// What was read from it already.
    pub(crate) received: Vec<u8>,
    /// The handshake is over: route, state, subprotocol.
    pub(crate) open: Option<(u16, AnyState, Option<Box<str>>)>,
    /// Whether the descriptor may have copies elsewhere, so that closing ours does not end its registration.
    pub(crate) shared_fd: bool,
}

pub(crate) enum Decision {
    Accept(ErasedAccept),
    Refuse(Response),
}

impl Decision {
    pub(crate) fn from_accept<S: Send + 'static>(accept: Accept<S>) -> Self {
        Self::Accept(accept.into())
    }
}
