//! What settings must be. A value that means nothing is refused when the server is built, and named: one that was moved to
//! the nearest good value in silence would be found out in production.

use crate::conn::{Limits, SlowConsumer};
use crate::handler::Route;
use crate::http::{HttpLimits, MAX_HEADERS};
use crate::hub::{TopicSettings, check_topic};
use core::fmt::{self, Debug, Display};
use core::time::Duration;

/// A setting with a value that means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidSetting {
    /// Whose setting it is, where there are several: a route or topics, with its pattern or their prefix. Else empty.
    pub owner: String,
    /// Its name, such as `Builder::workers`.
    pub setting: &'static str,
    /// What it was given.
    pub given: String,
    /// What it may be.
    pub expected: String,
}

impl Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner, setting, given, expected } = self;
        if !owner.is_empty() {
            write!(f, "{owner}: ")?;
        }
        write!(f, "{setting}: {given}, expected {expected}")
    }
}

impl core::error::Error for InvalidSetting {}

type CheckResult = Result<(), InvalidSetting>;

fn invalid(setting: &'static str, given: impl Display, expected: impl Into<String>) -> InvalidSetting {
    InvalidSetting { owner: String::new(), setting, given: given.to_string(), expected: expected.into() }
}

/// A number from `least` to `most`.
pub(crate) fn in_range<N: PartialOrd + Display>(
    setting: &'static str,
    given: N,
    least: N,
    most: N,
) -> CheckResult {
    if least <= given && given <= most {
        return Ok(());
    }
    Err(invalid(setting, given, format!("{least} to {most}")))
}

/// A number that is not zero.
pub(crate) fn nonzero<N: PartialEq + Default + Display>(setting: &'static str, given: N) -> CheckResult {
    if given == N::default() { Err(invalid(setting, given, "1 or more")) } else { Ok(()) }
}

fn time(setting: &'static str, given: Duration) -> CheckResult {
    if given.is_zero() { Err(invalid(setting, Shown(given), "more than zero")) } else { Ok(()) }
}

/// As it is debugged.
struct Shown<T>(T);

impl<T: Debug> Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn policy(setting: &'static str, policy: SlowConsumer) -> CheckResult {
    match policy {
        SlowConsumer::Close(code) if !code.is_valid_on_wire() => Err(invalid(
            setting,
            format!("SlowConsumer::Close({})", code.0),
            "a code that may be sent: 1000 to 1003, 1007 to 1014 or 3000 to 4999",
        )),
        _ => Ok(()),
    }
}

pub(crate) fn http(limits: &HttpLimits) -> CheckResult {
    nonzero("HttpLimits::max_head", limits.max_head)?;
    in_range("HttpLimits::max_headers", limits.max_headers, 1, MAX_HEADERS)?;
    time("HttpLimits::timeout", limits.timeout)
}

fn limits(limits: &Limits) -> CheckResult {
    nonzero("Limits::max_message_size", limits.max_message_size)?;
    nonzero("Limits::max_fragments", limits.max_fragments)?;
    time("Limits::message_timeout", limits.message_timeout)?;
    if !limits.ping_interval.is_zero() {
        time("Limits::pong_timeout", limits.pong_timeout)?;
    }
    time("Limits::write_timeout", limits.write_timeout)?;
    time("Limits::close_timeout", limits.close_timeout)
}

pub(crate) fn route(route: &Route) -> CheckResult {
    let checked = limits(&route.terms.limits)
        .and_then(|()| policy("Route::slow_consumer", route.terms.slow_consumer))
        .and_then(|()| deflate(route))
        .and_then(|()| route.prefixes.iter().try_for_each(|(setting, prefix)| topic_prefix(setting, prefix)));
    checked.map_err(|e| InvalidSetting { owner: format!("route {:?}", route.pattern), ..e })
}

fn deflate(route: &Route) -> CheckResult {
    route.deflate.check().map_err(|e| invalid(e.setting(), e.given(), e.expected()))
}

/// The beginning of names of topics.
fn topic_prefix(setting: &'static str, prefix: &str) -> CheckResult {
    if prefix.is_empty() || check_topic(prefix).is_ok() {
        return Ok(());
    }
    let expected = match prefix.strip_suffix('*') {
        Some(stem) => format!("a prefix without a star, such as {stem:?}"),
        None => "a prefix of at most 255 bytes without control characters".to_owned(),
    };
    Err(invalid(setting, Shown(prefix), expected))
}

pub(crate) fn topics(prefix: &str, settings: &TopicSettings) -> CheckResult {
    let checked = topic_settings(settings);
    checked.map_err(|e| InvalidSetting { owner: format!("topics {prefix:?}"), ..e })
}

fn topic_settings(settings: &TopicSettings) -> CheckResult {
    if settings.history > 0 {
        nonzero("TopicSettings::history_bytes", settings.history_bytes)?;
        time("TopicSettings::history_age", settings.history_age)?;
    }
    nonzero("TopicSettings::max_message_size", settings.max_message_size)?;
    settings.slow_consumer.map_or(Ok(()), |given| policy("TopicSettings::slow_consumer", given))
}

/// A method of [`Builder::on`](super::Builder::on): a token, which is compared as it is, and those that exist are in
/// capitals (RFC 9110 section 9.1).
pub(crate) fn method(pattern: &str, method: &str) -> CheckResult {
    let is_token = crate::http::is_token(method.as_bytes());
    let expected = match method.to_ascii_uppercase() {
        upper if is_token && upper == method => return Ok(()),
        upper if is_token => format!("{upper:?}: methods are compared with their case"),
        _ => "a method such as \"GET\", or \"*\" for all others".to_owned(),
    };
    let invalid = invalid("Builder::on", Shown(method), expected);
    Err(InvalidSetting { owner: format!("endpoint {pattern:?}"), ..invalid })
}
