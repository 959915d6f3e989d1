//! What topics keep and allow, from the command line: `PREFIX:SETTING=VALUE,…`.

use campanile::{CloseCode, SlowConsumer, TopicSettings};
use std::time::Duration;

/// The settings of one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topics {
    pub(crate) prefix: String,
    pub(crate) settings: TopicSettings,
    /// Whether they grant clients anything.
    pub(crate) grants: bool,
}

/// The names that there are, for a message that teaches.
const NAMES: &str = "history, history-bytes, history-age, history-reserved, slow-consumer, max-message-size, rate, client-subscribe, client-publish";

/// Of a prefix that has a colon in it, the last one ends it.
pub(crate) fn topics(text: &str) -> Result<Topics, String> {
    let (prefix, settings) =
        text.rsplit_once(':').ok_or("expected PREFIX:SETTING=VALUE,… such as ticks/:history=100")?;
    if prefix.ends_with("/*") {
        let stem = prefix.trim_end_matches('*');
        return Err(format!("{prefix:?} is a pattern; a prefix of names is expected: {stem:?}"));
    }
    let (mut all, mut grants) = (TopicSettings::new(), false);
    let mut options: Vec<&str> = Vec::new();
    for setting in settings.split(',') {
        let (name, value) = setting
            .split_once('=')
            .ok_or_else(|| format!("{setting:?} has no value: expected NAME=VALUE, the names are {NAMES}"))?;
        if options.contains(&name) {
            return Err(format!("{name} is given twice"));
        }
        options.push(name);
        all = match name {
            "history" => all.history(number(name, value)?),
            "history-bytes" => all.history_bytes(bytes(name, value)?),
            "history-age" => all.history_age(above_zero(name, value, time(name, value)?)?),
            "history-reserved" => all.history_reserved(bytes(name, value)?),
            "slow-consumer" => all.slow_consumer(policy(value)?),
            "max-message-size" => all.max_message_size(above_zero(name, value, bytes(name, value)?)?),
            "rate" => {
                let (each_second, burst) = value.split_once('/').unwrap_or((value, value));
                let each_second = number(name, each_second)?;
                if each_second == 0 {
                    return Err(wrong(name, value, "at least 1 each second, or client-publish=no"));
                }
                all.rate(each_second, number(name, burst)?)
            }
            "client-subscribe" | "client-publish" => {
                let may = yes(name, value)?;
                grants |= may;
                if name == "client-subscribe" { all.client_subscribe(may) } else { all.client_publish(may) }
            }
            _ => return Err(format!("there is no setting {name:?}: {NAMES}")),
        };
    }
    let kept = options.contains(&"history");
    if let Some(name) = options.iter().find(|name| !kept && name.starts_with("history-")) {
        return Err(format!("{name} bounds a history, and there is none: add history=MESSAGES"));
    }
    Ok(Topics { prefix: prefix.to_owned(), settings: all, grants })
}

fn wrong(name: &str, value: &str, expected: &str) -> String {
    format!("{name}={value}: expected {expected}")
}

fn above_zero<T: Default + PartialEq>(name: &str, value: &str, parsed: T) -> Result<T, String> {
    if parsed == T::default() { Err(wrong(name, value, "more than nothing")) } else { Ok(parsed) }
}

fn number<N: std::str::FromStr>(name: &str, value: &str) -> Result<N, String> {
    value.parse().map_err(|_| wrong(name, value, "a whole number"))
}

/// A number and its unit.
fn with_unit(value: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (number, unit) = value.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

pub(crate) fn bytes(name: &str, value: &str) -> Result<usize, String> {
    let found = with_unit(value, &[("", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)]);
    let found = found.and_then(|bytes| usize::try_from(bytes).ok());
    found.ok_or_else(|| wrong(name, value, "bytes, such as 65536, 64KiB or 1MiB"))
}

fn time(name: &str, value: &str) -> Result<Duration, String> {
    let found =
        with_unit(value, &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)]);
    found
        .map(Duration::from_millis)
        .ok_or_else(|| wrong(name, value, "a time, such as 500ms, 30s, 10m, 1h or 7d"))
}

fn policy(value: &str) -> Result<SlowConsumer, String> {
    Ok(match value {
        "close" => SlowConsumer::Close(CloseCode::TRY_AGAIN_LATER),
        "drop-newest" => SlowConsumer::DropNewest,
        "drop-oldest" => SlowConsumer::DropOldest,
        "latest-by-key" => SlowConsumer::LatestByKey,
        _ => return Err(wrong("slow-consumer", value, "close, drop-newest, drop-oldest or latest-by-key")),
    })
}

fn yes(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(wrong(name, value, "yes or no")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_can_be_given() {
        let text = "ticks/:history=10,history-bytes=64KiB,history-age=2h,history-reserved=1MiB,slow-consumer=latest-by-key,\
                    max-message-size=1MiB,rate=100/500,client-subscribe=yes,client-publish=yes";
        let expected = TopicSettings::new()
            .history(10)
            .history_bytes(64 << 10)
            .history_age(Duration::from_secs(7200))
            .history_reserved(1 << 20)
            .slow_consumer(SlowConsumer::LatestByKey)
            .max_message_size(1 << 20)
            .rate(100, 500)
            .client_subscribe(true)
            .client_publish(true);
        let expected = Topics { prefix: "ticks/".to_owned(), settings: expected, grants: true };
        assert_eq!(topics(text), Ok(expected));
        assert_eq!(
            topics("a:b:rate=5").map(|t| (t.prefix, t.settings)),
            Ok(("a:b".to_owned(), TopicSettings::new().rate(5, 5)))
        );
        let public = TopicSettings::new().history(500);
        assert_eq!(
            topics("public/:history=500").map(|t| t.settings),
            Ok(public),
            "what is not said is the default"
        );
        let all = topics(":history=1,client-publish=no").map(|t| (t.prefix, t.grants));
        assert_eq!(all, Ok((String::new(), false)), "all topics");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, words) in [
            ("ticks/", "PREFIX:SETTING=VALUE"),
            ("ticks/:", "has no value"),
            ("ticks/*:history=1", "\"ticks/\""),
            ("t:history=-1", "history=-1: expected a whole number"),
            ("t:history-age=5", "such as 500ms"),
            ("t:history-bytes=5kb", "64KiB"),
            ("t:history-bytes=99999999999GiB", "expected bytes"),
            ("t:slow-consumer=drop", "drop-oldest"),
            ("t:client-publish=true", "yes or no"),
            ("t:history=5,history=6", "history is given twice"),
            ("t:history-age=1h", "add history=MESSAGES"),
            ("t:history=1,history-age=0s", "more than nothing"),
            ("t:max-message-size=0", "more than nothing"),
            ("t:rate=0/5", "client-publish=no"),
            ("t:retain=1", "there is no setting \"retain\": history, "),
        ] {
            let error = topics(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
