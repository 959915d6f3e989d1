//! What other threads ask of a worker. All of it is in this enum: nothing else crosses threads.

use super::{Accept, AnyState, ConnInfo, ErasedAccept};
use crate::conn::{ConnId, Frames};
use crate::http::{Peer, Response};
use crate::hub::mailbox::Weigh;
use crate::hub::{
    Delivery, HistoryPage, Join, Joined, Missed, Name, Publication, Reply, Start, Step, TopicList, Unanswered,
};
use crate::net::Stream;
use crate::protocol::{CloseCode, Key};
use std::sync::Arc;
use std::time::Instant;

pub(crate) enum Command {
    /// A socket that another worker accepted, or a program handed over.
    Adopt(Box<Adopt>),
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
    Subscribe(ConnId, Name<'static>),
    Unsubscribe(ConnId, Name<'static>),
    /// Messages to topics that this worker owns, from outside.
    Publish(Vec<Publication>),
    /// Messages to topics that this worker owns, from another worker.
    PassOn(u16, Vec<Publication>),
    /// The same for one, from outside.
    PublishOne(Publication),
    /// A run from its owner, by the owner's number.
    Deliver(u16, Delivery),
    /// Messages of a topic were lost on their way from its owner.
    Missed(u16, Missed),
    /// Publishers that wait for a congested topic may go on.
    Released,
    /// Subscribers of another worker have come or gone, by topic.
    Changed(usize, Vec<(Arc<str>, i32)>),
    /// A connection of another worker wants to listen to a topic that has its home here.
    Join(usize, Join),
    /// The answer.
    Joined(Box<Joined>),
    /// One message for every connection of a route.
    Broadcast(u16, Frames, Option<Key>),
    /// How many of this worker's connections listen to a topic.
    CountSubscribers(Box<str>, Reply<usize>),
    /// One connection, if it is still there.
    Info(ConnId, Reply<Option<ConnInfo>>),
    /// So many of the messages that a topic keeps.
    History(Box<str>, Start, usize, Reply<Option<HistoryPage>>),
    /// So many of the topics of a prefix that have their home here.
    Topics(Box<str>, usize, Reply<TopicList>),
    /// How many open connections a route has.
    CountOpen(u16, Reply<usize>),
    /// The open connections of a route.
    List(u16, Reply<Vec<ConnInfo>>),
    /// Panic outside of every callback, as a fault of this crate would: for tests.
    Panic,
    /// A worker has nothing more to come before this step of the shutdown, by its number.
    Settled(u16, Settling),
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
            Self::Publish(all) | Self::PassOn(_, all) => all.iter().map(|p| p.frames.len()).sum(),
            Self::PublishOne(publication) => publication.frames.len(),
            Self::Deliver(_, delivery) => delivery.frames.len(),
            Self::Joined(joined) => size_of_val(&*joined.replay),
            _ => 0,
        }
    }
}

/// What the workers finish one after the other before a shutdown closes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Settling {
    /// What was published has reached the owners of its topics.
    Published,
    /// What the owners had for other workers has reached them.
    Delivered,
}

impl Command {
    /// A step of a topic from its owner.
    pub(crate) fn of_step(owner: usize, step: Step) -> Self {
        match step {
            Step::Deliver(delivery) => Self::Deliver(owner as u16, delivery),
            Step::Missed(missed) => Self::Missed(owner as u16, missed),
            Step::Joined(joined) => Self::Joined(joined),
        }
    }

    /// The worker whose link it came by, whose room it has taken.
    pub(crate) fn link(&self) -> Option<usize> {
        match self {
            Self::PassOn(from, _) | Self::Deliver(from, _) | Self::Missed(from, _) => {
                Some(usize::from(*from))
            }
            _ => None,
        }
    }

    /// Tells whoever waits for its answer that there will be none.
    pub(crate) fn fail(self, why: Unanswered) {
        match self {
            Self::PublishOne(Publication { answer: Some(answer), .. }) => answer.fail(why),
            Self::Info(_, answer) => answer.fail(why),
            Self::History(.., answer) => answer.fail(why),
            Self::Topics(.., answer) => answer.fail(why),
            Self::CountSubscribers(_, answer) | Self::CountOpen(_, answer) => answer.fail(why),
            Self::List(_, answer) => answer.fail(why),
            _ => {}
        }
    }
}

pub(crate) struct Adopt {
    pub(crate) stream: Stream,
    pub(crate) peer: Peer,
    /// What was read from it already.
    pub(crate) received: Vec<u8>,
    /// The handshake is over: route, state, subprotocol.
    pub(crate) open: Option<(u16, AnyState, Option<Box<str>>)>,
    /// Whether the descriptor may have copies elsewhere, so that closing ours does not end its registration.
    pub(crate) foreign: bool,
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
