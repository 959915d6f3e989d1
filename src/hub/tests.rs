//! Many, long and hostile uses of the hub, and their cost.

use super::*;
use crate::memory::Shrink;
use core::time::Duration;
use std::hash::RandomState;

/// The hub of a server with one worker.
fn alone(table: SettingsTable) -> Hub {
    Hub::new(0, Owners::new(RandomState::new(), 1), table, Epochs::new([1, 1]))
}

fn hub(settings: TopicSettings) -> Hub {
    alone(SettingsTable::new(vec![("kept/".to_owned(), settings)], usize::MAX, &[]))
}

/// Runs an iteration that publishes messages of 100 bytes to a topic.
fn publish_iteration(hub: &mut Hub, topic: &str, messages: usize) {
    for _ in 0..messages {
        hub.publish(Publish::new(topic, &*"x".repeat(98))).unwrap();
    }
    hub.record_history();
    hub.end_iteration();
}

/// The messages in the topic's history.
fn kept(hub: &mut Hub, topic: &str) -> Vec<HistoryEntry> {
    let key = hub.index.find(topic).unwrap();
    let owned = hub.index.owned_mut(key).unwrap();
    (0..owned.next).find_map(|at| Some(owned.history.since(at, owned.next)?.cloned().collect())).unwrap()
}

#[test]
fn a_history_holds_little_more_than_its_messages() {
    for settings in [TopicSettings::new().history(3), TopicSettings::new().history(1000).history_bytes(350)] {
        let mut hub = hub(settings);
        // The second, of three, uses the buffer of the first.
        for messages in [2000, 3, 2, 1, 2000] {
            publish_iteration(&mut hub, "kept/a", messages);
            let entries = kept(&mut hub, "kept/a");
            assert_eq!(entries.len(), 3);
            let newest = hub.index.find("kept/a").map(|key| hub.owned_topic(key).next - 1).unwrap();
            for (entry, offset) in entries.iter().zip(newest - 2..) {
                assert_eq!((entry.offset, entry.range.len()), (offset, 100));
                assert_eq!(entry.frames[entry.range.clone()][..2], [0x81, 98]);
                assert!(entry.frames.capacity() <= 1000, "{} held", entry.frames.capacity());
            }
        }
    }
}

#[test]
fn memory_of_a_burst_is_freed() {
    let mut hub = hub(TopicSettings::new().history(5000).history_age(Duration::from_secs(10)));
    for n in 0..100 {
        publish_iteration(&mut hub, &format!("kept/{n}"), 1);
    }
    publish_iteration(&mut hub, "kept/a", 4000);
    for n in 0..2000 {
        hub.publish(Publish::new("kept/a", "x").idempotency_key(&n.to_string())).unwrap();
    }
    hub.record_history();
    hub.end_iteration();
    hub.subscribe(0, &TopicOrPattern::topic("subscribed").unwrap(), None, 9).unwrap();
    publish_iteration(&mut hub, "subscribed", 2000);
    hub.remove(ConnId::new(0, 0, 1));
    let (held, spare) = (hub.footprint(), hub.batch_log.spare_bytes());
    assert!(held > 1 << 20 && spare > 100 << 10, "{held} {spare}");
    hub.now += 600_000;
    (0..3).for_each(|_| hub.expire_topics());
    (0..8).for_each(|_| hub.trim());
    hub.shrink();
    assert_eq!((hub.accounting.held(), hub.index.len()), (0, 0));
    assert!(hub.footprint() < 64 << 10, "{}", hub.footprint());
    assert!(hub.index.capacities().iter().all(|capacity| *capacity <= 64));
    // The hub works as before.
    publish_iteration(&mut hub, "kept/a", 3);
    assert_eq!(kept(&mut hub, "kept/a").len(), 3);
}

#[test]
fn a_message_above_history_bytes_clears_the_history() {
    let mut hub = hub(TopicSettings::new().history(10).history_bytes(150));
    publish_iteration(&mut hub, "kept/a", 1);
    hub.publish(Publish::new("kept/a", &*"x".repeat(200))).unwrap();
    hub.record_history();
    hub.end_iteration();
    assert_eq!(kept(&mut hub, "kept/a").len(), 0);
    assert_eq!(begun(&mut hub, Start::Last(9)), (2, 0), "its offsets go on");
}

/// Subscribes and unsubscribes: the topic's offset, and the number of replayed messages.
fn begun(hub: &mut Hub, start: Start) -> (u64, usize) {
    let (position, replayed) = visit(hub, start);
    (position.offset, replayed)
}

fn visit(hub: &mut Hub, start: Start) -> (Position, usize) {
    let conn = ConnId::new(0, 0, 1);
    let request = RecoveryRequest { conn, topic: "kept/a".into(), start, tags: None, request_id: 0 };
    let RecoveryReply { topic, subscribed, replay, .. } = hub.answer_recovery(request, 0);
    hub.subscribe_recovered(0, &topic, None, 9).unwrap();
    assert!(hub.unsubscribe(conn, &TopicOrPattern::topic(&topic).unwrap()).ended);
    assert_eq!(subscribed.replayed, replay.len());
    (subscribed.position, replay.len())
}

#[test]
fn a_sole_subscriber_can_recover_within_history_age() {
    let mut hub = hub(TopicSettings::new().history(10).history_age(Duration::from_secs(10)));
    let (first, _) = visit(&mut hub, Start::Now);
    for now in [5_000, 14_999] {
        hub.now = now;
        hub.expire_topics();
        hub.expire_topics();
        let again = hub.answer_recovery(
            RecoveryRequest {
                conn: ConnId::new(0, 0, 1),
                topic: "kept/a".into(),
                start: Start::Since(first),
                tags: None,
                request_id: 0,
            },
            0,
        );
        assert!(again.subscribed.recovered, "at {now}");
        hub.discard_recovery(&again.topic);
        assert!(hub.holds_history());
        // It is used now, and may be unused for ten seconds afterwards.
        hub.index.subscribe(1, "kept/a", None, 1).unwrap();
        hub.expire_topics();
        hub.expire_topics();
        hub.index.unsubscribe(1, "kept/a");
    }
    hub.now = 24_999;
    hub.expire_topics();
    hub.expire_topics();
    assert!(!hub.holds_history() && hub.index.find("kept/a").is_none());
    let (other, _) = visit(&mut hub, Start::Now);
    assert_ne!(first.epoch, other.epoch);
}

#[test]
fn empty_topics_never_evict_messages() {
    let settings = TopicSettings::new().history(10);
    let table = SettingsTable::new(vec![("kept/".to_owned(), settings)], 64 << 10, &[]);
    let mut hub = alone(table);
    publish_iteration(&mut hub, "kept/a", 5);
    for n in 0..1000 {
        let topic: Arc<str> = format!("kept/{n}").into();
        let conn = ConnId::new(0, 0, 1);
        hub.answer_recovery(
            RecoveryRequest { conn, topic: topic.clone(), start: Start::Now, tags: None, request_id: 0 },
            0,
        );
        hub.discard_recovery(&topic);
        hub.record_history();
    }
    assert!(hub.index.len() <= 17, "{} stay", hub.index.len());
    assert_eq!((kept(&mut hub, "kept/a").len(), hub.accounting.evicted.messages), (5, 0));
}

#[test]
fn pending_recoveries_count_for_their_own_connection() {
    let mut hub = hub(TopicSettings::new());
    let [a, b] = [0, 1].map(|slot| ConnId::new(0, slot, 1));
    let ask = |hub: &mut Hub, conn, n| {
        hub.request_recovery(
            RecoveryRequest {
                conn,
                topic: format!("t{n}").into(),
                start: Start::Now,
                tags: None,
                request_id: 0,
            },
            3,
        )
    };
    for conn in [a, b] {
        for n in 0..3 {
            assert_eq!(ask(&mut hub, conn, n), Ok(()));
            assert_eq!(ask(&mut hub, conn, n), Err(SubscribeError::Already));
        }
        assert_eq!(ask(&mut hub, conn, 3), Err(SubscribeError::TooMany { limit: 3 }));
    }
    hub.remove(a);
    assert!(
        hub.recovery_requests.iter().all(|request| request.conn == b) && hub.recovery_requests.len() == 3
    );
    let t0 = TopicOrPattern::topic("t0").unwrap();
    let cancelled = |hub: &mut Hub, conn| hub.unsubscribe(conn, &t0).cancelled;
    assert!(!cancelled(&mut hub, a) && cancelled(&mut hub, b) && !cancelled(&mut hub, b));
    assert_eq!(ask(&mut hub, b, 3), Ok(()));
    hub.remove(b);
    assert!(hub.recovery_requests.is_empty() && hub.pending_recoveries.is_empty());
}

#[test]
fn a_refused_publication_keeps_earlier_batches_and_adds_no_topic() {
    for settings in [TopicSettings::new().rate(1, 1), TopicSettings::new().max_message_size(1)] {
        let mut hub = hub(settings);
        hub.subscribe(0, &TopicOrPattern::pattern("kept/*").unwrap(), None, 9).unwrap();
        hub.publish(Publish::new("kept/a", "1")).unwrap();
        hub.publish(Publish::new("kept/a", "22")).unwrap();
        assert_eq!(hub.refused_publications, 1);
        hub.publish(Publish::new("other", "3")).unwrap(); // no subscribers
        hub.subscribe(0, &TopicOrPattern::topic("other").unwrap(), None, 9).unwrap();
        let topics: Vec<_> =
            hub.batch_log.batches().iter().map(|batch| hub.index.name(batch.topic).clone()).collect();
        assert_eq!(topics.iter().map(|t| &**t).collect::<Vec<_>>(), ["kept/a"]);
        hub.end_iteration();
        // What its rate has used is remembered as long as it matters.
        let refused = |hub: &mut Hub| {
            let before = hub.refused_publications;
            hub.publish(Publish::new("kept/a", "2")).unwrap();
            hub.end_iteration();
            hub.refused_publications > before
        };
        assert_eq!(refused(&mut hub), hub.index.find("kept/a").is_some());
        hub.now += 2000;
        hub.expire_topics();
        hub.expire_topics();
        assert!(hub.index.find("kept/a").is_none(), "and it is gone");
        assert!(!refused(&mut hub));
    }
}

#[test]
fn an_idempotency_key_is_remembered_with_pattern_subscribers_only() {
    let mut hub = hub(TopicSettings::new());
    hub.subscribe(0, &TopicOrPattern::pattern("kept/*").unwrap(), None, 9).unwrap();
    for now in [0, 1000, 299_000] {
        hub.now = now;
        hub.expire_topics();
        hub.expire_topics();
        hub.publish(Publish::new("kept/a", "x").idempotency_key("once")).unwrap();
        let messages: u32 = hub.batch_log.batches().iter().map(Batch::messages).sum();
        assert_eq!(messages, u32::from(now == 0), "at {now}");
        hub.end_iteration();
    }
}

#[test]
fn a_history_age_of_duration_max_works() {
    let mut hub = hub(TopicSettings::new().history(3).history_age(Duration::MAX));
    hub.now = 5;
    publish_iteration(&mut hub, "kept/a", 1);
    assert_eq!(kept(&mut hub, "kept/a").len(), 1);
    hub.now = 50;
    hub.expire_topics();
    hub.expire_topics();
    assert_eq!(kept(&mut hub, "kept/a").len(), 1);
}

#[test]
fn a_recovery_cancelled_in_its_iteration_is_not_requested() {
    let mut hub = hub(TopicSettings::new().history(1));
    let conn = ConnId::new(0, 0, 1);
    for _ in 0..3 {
        let request =
            RecoveryRequest { conn, topic: "kept/a".into(), start: Start::Latest, tags: None, request_id: 0 };
        hub.request_recovery(request, 9).unwrap();
        assert!(hub.unsubscribe(conn, &TopicOrPattern::topic("kept/a").unwrap()).cancelled);
    }
    let request =
        RecoveryRequest { conn, topic: "kept/a".into(), start: Start::Now, tags: None, request_id: 0 };
    hub.request_recovery(request, 9).unwrap();
    let starts: Vec<_> = hub.take_recovery_requests().iter().map(|request| request.start).collect();
    assert_eq!(starts, [Start::Now]);
    assert!(hub.take_recovery_requests().is_empty());
}

mod accounts {
    use super::*;
    use proptest::prelude::*;

    const NAMES: [&str; 6] = ["kept/a", "kept/b", "kept/c/d", "free", "kept/*", "kept/c/*"];

    fn named(name: &str) -> TopicOrPattern<'_> {
        TopicOrPattern::pattern(name).unwrap_or_else(|_| TopicOrPattern::topic(name).unwrap())
    }

    fn check(hub: &Hub, at: &str) {
        let mut sums = vec![(0, 0); hub.settings.prefixes()];
        let mut from = 0;
        while let Some(key) = hub.index.next_from(from) {
            from = key as usize + 1;
            let Some(owned) = hub.index.owned(key) else { continue };
            let (held, sum) = (owned.held(), &mut sums[owned.prefix as usize]);
            *(if held.has_messages { &mut sum.1 } else { &mut sum.0 }) += held.bytes;
        }
        assert_eq!(hub.accounting.sums(), sums, "{at}");
        assert_eq!(
            hub.accounting.held(),
            sums.iter().map(|(names, messages)| names + messages).sum::<usize>()
        );
    }

    fn end(hub: &mut Hub) {
        hub.record_history();
        hub.send_to_workers(|_, _| Ok(()));
        for i in 0..hub.batch_log.batches().len() {
            let key = hub.batch_log.batches()[i].topic;
            let name = hub.index.name(key).clone();
            let _ = hub.index.matching_patterns(&name);
        }
        hub.end_iteration();
        for request in hub.take_recovery_requests() {
            let reply = hub.answer_recovery(request, 0);
            let wanted = hub.complete_recovery(&reply);
            let slot = reply.conn.slot() as u32;
            if wanted {
                let _ = hub.subscribe_recovered(slot, &reply.topic, reply.tags.clone(), 9);
            } else {
                hub.discard_recovery(&reply.topic);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn accounting_matches_the_sum_of_topics_after_any_steps(
            steps in prop::collection::vec((0u8..13, 0usize..6, 0usize..3, 0u64..400), 0..120),
            most in 0usize..60_000,
            rated in any::<bool>(),
            workers in 1usize..3,
        ) {
            let mut of = TopicSettings::new().history(3).history_bytes(300).history_age(Duration::from_millis(900));
            if rated { of = of.rate(3, 2).max_message_size(250); }
            let table = SettingsTable::new(vec![("kept/".to_owned(), of)], most, &[]);
            let mut hub = Hub::new(0, Owners::new(RandomState::new(), workers), table, Epochs::new([1, 1]));
            for (what, name, slot, n) in steps {
                let topic = NAMES[name];
                let conn = ConnId::new(0, slot, 1);
                let tags = if n % 2 == 0 { Tags::new(["x"]) } else { None };
                let text = "x".repeat(n as usize);
                match what {
                    0 | 1 => { let _ = hub.publish(Publish::new(topic, &*text)); }
                    2 => {
                        let p = Publish::new(topic, &*text).idempotency_key("a").tags(&["x"]).ttl(Duration::from_millis(n));
                        if hub.owns(topic) { let _ = hub.publish(p); }
                    }
                    3 => { let _ = hub.subscribe(slot as u32, &named(topic), tags, 4); }
                    4 | 5 => { let _ = hub.request_recovery(RecoveryRequest { conn, topic: topic.into(), start: Start::Last(n as usize), tags, request_id: 0 }, 4); }
                    6 => { hub.unsubscribe(conn, &named(topic)); }
                    7 => hub.remove(conn),
                    8 => hub.now += n,
                    9 => hub.expire_topics(),
                    10 => if hub.owns(topic) { hub.apply_subscriber_changes(1, vec![(topic.into(), if n % 2 == 0 { 1 } else { -1 })]) },
                    11 => { let _ = hub.history(topic, Start::Last(2), 2); }
                    _ => end(&mut hub),
                }
                check(&hub, topic);
            }
            end(&mut hub);
            for slot in 0..3 { hub.remove(ConnId::new(0, slot, 1)); }
            for topic in NAMES { for _ in 0..130 { if hub.index.find(topic).is_some() || hub.remote_patterns.contains_key(topic) { hub.apply_subscriber_changes(1, vec![(topic.into(), -1)]); } } }
            hub.now += 600_000; // keys are remembered for 5 minutes
            for _ in 0..4 { hub.expire_topics(); }
            check(&hub, "end");
            prop_assert_eq!(hub.accounting.held(), 0);
            prop_assert_eq!(hub.index.filters_len(), 0);
            if workers == 1 { prop_assert_eq!(hub.index.len(), 0); }
        }
    }
}

/// Names that clients choose, beside names and patterns that the program chooses.
mod names {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// A name that a client chooses, in most cases with a star.
    fn id() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ab]{1,2}",
            "[ab]/\\*",
            "[ab*/]{0,4}/\\*",
            Just("*".to_owned()),
            Just("/*".to_owned()),
            "[*/\u{85}é]{0,3}",
        ]
    }

    /// The slots that receive a topic's messages, by their subscriptions in the index.
    fn receivers(hub: &Hub, topic: &str) -> BTreeSet<u32> {
        let exactly = hub.index.find(topic);
        let keys = exactly.into_iter().chain(hub.index.matching_patterns(topic));
        keys.flat_map(|key| hub.index.subscribers(key)).map(|subscriber| subscriber.slot).collect()
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// A name that a client chose, below a prefix or alone.
        Subscribe(u32, String),
        Unsubscribe(u32, String),
        /// A pattern that the program chose.
        Pattern(u32, &'static str),
        LeavePattern(u32, &'static str),
        Remove(u32),
    }

    const PATTERNS: [&str; 3] = ["user/*", "user/a/*", "/*"];

    fn step() -> impl Strategy<Value = Step> {
        let slot = || 0u32..4;
        let name = || prop_oneof![3 => id().prop_map(|id| format!("user/{id}")), 1 => id()];
        let pattern = || prop::sample::select(PATTERNS.to_vec());
        prop_oneof![
            6 => (slot(), name()).prop_map(|(slot, name)| Step::Subscribe(slot, name)),
            2 => (slot(), name()).prop_map(|(slot, name)| Step::Unsubscribe(slot, name)),
            2 => (slot(), pattern()).prop_map(|(slot, pattern)| Step::Pattern(slot, pattern)),
            1 => (slot(), pattern()).prop_map(|(slot, pattern)| Step::LeavePattern(slot, pattern)),
            1 => slot().prop_map(Step::Remove),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn a_subscription_by_name_receives_only_that_topic(
            steps in prop::collection::vec(step(), 0..40),
            published in prop::collection::vec(id().prop_map(|id| format!("user/{id}")), 1..8),
        ) {
            let mut hub = alone(SettingsTable::default());
            let mut topics: BTreeSet<(u32, String)> = BTreeSet::new();
            let mut patterns: BTreeSet<(u32, &str)> = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Subscribe(slot, name) => if let Ok(topic) = TopicOrPattern::topic(&name) {
                        let new = hub.subscribe(slot, &topic, None, 99) != Ok(Added::Already);
                        prop_assert_eq!(new, topics.insert((slot, name)));
                    },
                    Step::Unsubscribe(slot, name) => if let Ok(topic) = TopicOrPattern::topic(&name) {
                        let was = hub.unsubscribe(ConnId::new(0, slot as usize, 1), &topic).ended;
                        prop_assert_eq!(was, topics.remove(&(slot, name)));
                    },
                    Step::Pattern(slot, pattern) => {
                        let name = TopicOrPattern::pattern(pattern).unwrap();
                        let new = hub.subscribe(slot, &name, None, 99) != Ok(Added::Already);
                        prop_assert_eq!(new, patterns.insert((slot, pattern)));
                    }
                    Step::LeavePattern(slot, pattern) => {
                        let was = hub.unsubscribe(ConnId::new(0, slot as usize, 1), &TopicOrPattern::pattern(pattern).unwrap()).ended;
                        prop_assert_eq!(was, patterns.remove(&(slot, pattern)));
                    }
                    Step::Remove(slot) => {
                        hub.remove(ConnId::new(0, slot as usize, 1));
                        topics.retain(|(at, _)| *at != slot);
                        patterns.retain(|(at, _)| *at != slot);
                    }
                }
            }
            let own = topics.iter().map(|(_, name)| name.clone());
            for topic in published.into_iter().chain(own.collect::<BTreeSet<_>>()) {
                if topic::check(&topic).is_err() {
                    prop_assert!(hub.publish(Publish::new(&topic, "x")).is_err(), "{topic:?} was published to");
                    continue;
                }
                let by_name = topics.iter().filter(|(_, name)| *name == topic).map(|(slot, _)| *slot);
                let below = |pattern: &str| topic.starts_with(pattern.trim_end_matches('*'));
                let by_pattern = patterns.iter().filter(|(_, pattern)| below(pattern)).map(|(slot, _)| *slot);
                let expected: BTreeSet<u32> = by_name.chain(by_pattern).collect();
                prop_assert_eq!(receivers(&hub, &topic), expected, "{}", topic);
            }
        }
    }
}
