//! From when to when certificates are valid, and what to say about those that end soon. Pure: time comes in as an argument.

use core::fmt;
use core::time::Duration;
use rustls::pki_types::UnixTime;
use std::time::SystemTime;
use webpki::{EndEntityCert, KeyUsage};

/// Warnings begin so long before the end of a certificate. ACME clients renew 30 days before the end of 90 days, and some
/// have certificates of 45 days renewed 15 days before it: who is warned has a renewal that failed.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// When a certificate is valid, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_before: UnixTime,
    pub(crate) not_after: UnixTime,
}

impl Validity {
    /// The dates in a certificate. webpki checks them and hands them out only in what it says about a time outside, so it
    /// is asked about the first and the last second that there are.
    pub(super) fn of(cert: &EndEntityCert<'_>) -> Result<Self, webpki::Error> {
        let at = |seconds| {
            let time = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            cert.verify_for_usage(&[], &[], &[], time, KeyUsage::server_auth(), None, None).err()
        };
        let not_after = match at(u64::MAX) {
            Some(webpki::Error::CertExpired { not_after, .. }) => not_after,
            other => return Err(other.unwrap_or(webpki::Error::BadDerTime)),
        };
        let not_before = match at(0) {
            Some(webpki::Error::CertNotValidYet { not_before, .. }) => not_before,
            // Since 1970, or any other complaint, which was none about the dates.
            _ => UnixTime::since_unix_epoch(Duration::ZERO),
        };
        Ok(Self { not_before, not_after })
    }

    pub(crate) fn contains(self, now: UnixTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

pub(super) fn system_time(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs())
}

/// A date for people.
fn date(time: SystemTime) -> String {
    httpdate::fmt_http_date(time) // a certificate's year has four digits, which is all that this needs
}

/// A certificate in use that clients refuse, or will soon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expiry {
    /// Where the certificate is from.
    pub(crate) origin: String,
    /// Its place in the chain, counted from 1.
    pub(crate) place: usize,
    pub(crate) state: ExpiryState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExpiryState {
    NotYet(SystemTime),
    Soon(SystemTime, u64),
    Expired(SystemTime),
}

impl ExpiryState {
    /// What to say about these dates; `None` while they are good.
    pub(super) fn of(validity: Validity, now: UnixTime) -> Option<Self> {
        let (from, to) = (system_time(validity.not_before), system_time(validity.not_after));
        let left = validity.not_after.as_secs().checked_sub(now.as_secs());
        match left {
            None => Some(Self::Expired(to)),
            Some(_) if now < validity.not_before => Some(Self::NotYet(from)),
            Some(left) if left <= SOON.as_secs() => Some(Self::Soon(to, left / (24 * 3600))),
            Some(_) => None,
        }
    }
}

impl Expiry {
    /// Whether clients refuse the certificate now.
    pub(crate) fn is_refused(&self) -> bool {
        !matches!(self.state, ExpiryState::Soon(..))
    }
}

impl fmt::Display for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, place, state } = self;
        match place {
            1 => write!(f, "the certificate in {origin} ")?,
            n => write!(f, "certificate {n} of the chain in {origin} ")?,
        }
        state.fmt(f)
    }
}

impl fmt::Display for ExpiryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotYet(from) => {
                write!(
                    f,
                    "is valid from {} on, and clients refuse it: is this machine's clock right?",
                    date(*from)
                )
            }
            Self::Soon(to, days) => write!(f, "expires on {}, in {days} days: renew it", date(*to)),
            Self::Expired(to) => write!(f, "expired on {}, and clients refuse it: renew it", date(*to)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;

    fn at(days: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(days * DAY))
    }

    #[test]
    fn a_certificate_is_reported_two_weeks_before_it_expires() {
        let validity = Validity { not_before: at(100), not_after: at(190) };
        let state = |days| ExpiryState::of(validity, at(days));
        assert!(matches!(state(99), Some(ExpiryState::NotYet(_))));
        assert!(state(100).is_none() && state(175).is_none());
        assert!(matches!(state(176), Some(ExpiryState::Soon(_, 14))));
        assert!(matches!(state(190), Some(ExpiryState::Soon(_, 0))));
        assert!(matches!(state(191), Some(ExpiryState::Expired(_))));
        assert!(!validity.contains(at(99)) && validity.contains(at(100)) && validity.contains(at(190)));
        assert!(!validity.contains(at(191)));
    }

    #[test]
    fn expiry_messages_name_dates() {
        let expiry = Expiry {
            origin: "cert.pem".into(),
            place: 1,
            state: ExpiryState::Expired(system_time(UnixTime::since_unix_epoch(Duration::from_secs(
                1_700_000_000,
            )))),
        };
        let told = "the certificate in cert.pem expired on Tue, 14 Nov 2023 22:13:20 GMT, and clients refuse it: renew it";
        assert_eq!(expiry.to_string(), told);
        assert!(expiry.is_refused());
    }
}
