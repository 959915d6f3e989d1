//! Every command that other threads send to a worker. Nothing else crosses threads.

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
    /// A socket that another worker accepted, or that the program handed over.
    AddConnection(Box<NewConnection>),
    /// The answer to an upgrade that is decided later.
    Decide(ConnId, Decision),
    /// The response to a pending HTTP request, by the request's number.
    Respond(ConnId, u64, Response),
    /// One message for one connection.
    Send(ConnId, Frames, Option<Key>),
    /// A reply, which is never dropped ([`Connection::reply`](crate::conn::Connection::reply)).
    #[cfg(feature = "push")]
    Reply(ConnId, Box<str>),
    Ping(ConnId, Vec<u8>),
    Close(ConnId, CloseCode, Box<str>),
    Terminate(ConnId),
    Pause(ConnId, bool),
    Subscribe(ConnId, TopicOrPattern<'static>),
    Unsubscribe(ConnId, TopicOrPattern<'static>),
    /// Publications to topics that this worker owns, from a handle.
    Publish(Vec<PublishRequest>),
    /// Publications to topics that this worker owns, from another worker.
    Forward(u16, Vec<PublishRequest>),
    /// One publication, from a handle.
    PublishOne(PublishRequest),
    /// A batch from the topic's owner, by the owner's number.
    Batch(u16, ForwardedBatch),
    /// Messages of a topic were lost on their way from its owner.
    Missed(u16, Missed),
    /// Publishers that wait for a congested topic may continue.
    CongestionCleared,
    /// Changes of another worker's numbers of subscribers, by topic.
    SubscriberChanges(usize, Vec<(Arc<str>, i32)>),
    /// A connection of another worker subscribes to a topic that this worker owns.
    RecoveryRequest(usize, RecoveryRequest),
    /// The answer to a recovery request.
    RecoveryReply(Box<RecoveryReply>),
    /// One message for every connection of a route.
    Broadcast(u16, Frames, Option<Key>),
    /// Counts this worker's connections that subscribe to a topic.
    CountSubscribers(Box<str>, ReplySender<usize>),
    /// Describes one connection, if it is still open.
    Info(ConnId, ReplySender<Option<ConnInfo>>),
    /// Reads up to this many messages of a topic's history.
    History(Box<str>, Start, usize, ReplySender<Option<HistoryPage>>),
    /// Lists up to this many topics with a prefix that this worker owns.
    Topics(Box<str>, usize, ReplySender<TopicList>),
    /// Counts the open connections of a route.
    CountOpen(u16, ReplySender<usize>),
    /// Lists the open connections of a route.
    List(u16, ReplySender<Vec<ConnInfo>>),
    /// Panics outside of every callback, as a fault of this crate would: for tests.
    Panic,
    /// A worker, by its number, has sent everything that precedes this step of the shutdown.
    ShutdownStepDone(u16, ShutdownStep),
    /// Close every connection with this code, and end when all are closed or the deadline has passed.
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

/// The steps that all workers finish, one after the other, before a shutdown closes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ShutdownStep {
    /// All publications have reached the owners of their topics.
    Published,
    /// All batches have reached the other workers.
    Delivered,
}

impl Command {
    /// The command for an update of a topic from its owner.
    pub(crate) fn from_update(owner: usize, update: TopicUpdate) -> Self {
        match update {
            TopicUpdate::Batch(forwarded) => Self::Batch(owner as u16, forwarded),
            TopicUpdate::Missed(missed) => Self::Missed(owner as u16, missed),
            TopicUpdate::RecoveryReply(reply) => Self::RecoveryReply(reply),
        }
    }

    /// The worker whose link carried it, and whose room on that link it has taken.
    pub(crate) fn flow_from(&self) -> Option<usize> {
        match self {
            Self::Forward(from, _) | Self::Batch(from, _) | Self::Missed(from, _) => Some(usize::from(*from)),
            _ => None,
        }
    }

    /// Tells the sender that waits for an answer that there will be none.
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
    /// Bytes that were read from it already.
    pub(crate) received: Vec<u8>,
    /// After a finished handshake: route, state, subprotocol.
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
