//! The codes of the answer `error`.

use crate::json::Text;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The code of an [`error`](crate::push::SUBPROTOCOL) of the push protocol; `docs/reference/protocol.md` lists them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The request is not JSON.
    Json,
    /// The request has a member that is missing, of the wrong type or out of range.
    Invalid,
    /// The server does not know this type of request.
    Type,
    /// The request is a binary message.
    Binary,
    /// The name is not a valid topic.
    Topic,
    /// The text is not a valid pattern.
    Pattern,
    /// Clients may not subscribe, or not publish, to this topic.
    Forbidden,
    /// The connection is subscribed to the topic already.
    Already,
    /// The connection is not subscribed to the topic.
    NotSubscribed,
    /// The subscription was ended before it began.
    Cancelled,
    /// The connection's subscription limit is reached.
    Subscriptions,
    /// The topic's rate is exceeded.
    RateLimited,
    /// The message is longer than its topic allows, or the request longer than the server accepts.
    TooBig,
    /// The server is overloaded.
    Busy,
    /// A code that this version does not know.
    Other(String),
}

/// All codes but [`ErrorCode::Other`], as they are written.
const NAMES: [(&str, ErrorCode); 14] = [
    ("json", ErrorCode::Json),
    ("invalid", ErrorCode::Invalid),
    ("type", ErrorCode::Type),
    ("binary", ErrorCode::Binary),
    ("topic", ErrorCode::Topic),
    ("pattern", ErrorCode::Pattern),
    ("forbidden", ErrorCode::Forbidden),
    ("already", ErrorCode::Already),
    ("not_subscribed", ErrorCode::NotSubscribed),
    ("cancelled", ErrorCode::Cancelled),
    ("subscriptions", ErrorCode::Subscriptions),
    ("rate_limited", ErrorCode::RateLimited),
    ("too_big", ErrorCode::TooBig),
    ("busy", ErrorCode::Busy),
];

impl ErrorCode {
    /// The code as it is written in the protocol.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Other(code) => code,
            known => NAMES.iter().find(|(_, code)| code == known).map_or("", |(name, _)| name),
        }
    }

    /// The code that is written so.
    pub(crate) fn new(code: &str) -> Self {
        let known = NAMES.iter().find(|(name, _)| *name == code);
        known.map_or_else(|| Self::Other(code.to_owned()), |(_, code)| code.clone())
    }
}

impl core::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Text::deserialize(deserializer).map(|code| Self::new(&code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_read_as_it_is_written() {
        for (name, code) in NAMES {
            assert_eq!((code.as_str(), ErrorCode::new(name)), (name, code.clone()));
        }
        let other = ErrorCode::new("brand_new");
        assert_eq!((other.as_str(), &other), ("brand_new", &ErrorCode::Other("brand_new".into())));
    }
}
