//! Eviction: a property test of what is evicted, and the attack that it answers.

use super::*;
use core::time::Duration;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::hash::RandomState;

const PREFIXES: [&str; 4] = ["orders/", "public/", "ticks/", ""];

fn hub(most: usize, reserved: [Option<usize>; 3], open: usize) -> Hub {
    let mut given = Vec::new();
    for (at, prefix) in PREFIXES.iter().enumerate() {
        let day = Duration::from_secs(86_400);
        let mut settings = TopicSettings::new().history(10_000).history_bytes(64 << 20).history_age(day);
        settings.history_reserved = reserved.get(at).copied().flatten();
        given.push(((*prefix).to_owned(), settings.client_publish(at == open)));
    }
    let table = SettingsTable::new(given, most, &[]);
    Hub::new(0, Owners::new(RandomState::new(), 1), table, Epochs::new([1, 1]))
}

fn publish(hub: &mut Hub, topic: &str, len: usize) {
    hub.publish(Publish::new(topic, &*"x".repeat(len))).unwrap();
}

fn end(hub: &mut Hub) {
    hub.record_history();
    hub.end_iteration();
}

/// The offsets in each topic's history, by prefix and name.
type Kept = BTreeMap<(usize, Arc<str>), Vec<u64>>;

fn prefix_of(hub: &Hub, at: usize) -> usize {
    hub.settings.find(&format!("{}x", PREFIXES[at])).0 as usize
}

fn kept(hub: &Hub) -> Kept {
    let (mut kept, mut from) = (Kept::new(), 0);
    while let Some(key) = hub.index.next_from(from) {
        from = key as usize + 1;
        if let Some(owned) = hub.index.owned(key) {
            let offsets = owned.history.last(usize::MAX, |_| true).iter().map(|e| e.offset).collect();
            kept.insert((owned.prefix as usize, hub.index.name(key).clone()), offsets);
        }
    }
    kept
}

fn held(hub: &Hub, prefix: usize) -> usize {
    let (names, histories) = hub.accounting.sums()[prefix];
    names + histories
}

/// An upper bound of what a message adds to its topic's memory: its buffer, its entry, its topic.
const fn most_of(len: usize) -> usize {
    2 * len + 2000
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn a_prefix_within_its_reservation_is_never_evicted_for_others(
        iterations in prop::collection::vec(
            (prop::collection::vec((0usize..4, 0usize..12, 0usize..6000), 1..12), 1u64..5000),
            1..60,
        ),
        most in 20_000usize..400_000,
        parts in prop::array::uniform3(prop::option::of(0usize..6)),
        open in 0usize..5,
    ) {
        let mut hub = hub(most, parts.map(|part| part.map(|part| most / 20 * part)), open);
        for (messages, pause) in iterations {
            let before = kept(&hub);
            let held_before: Vec<usize> = (0..PREFIXES.len()).map(|at| held(&hub, at)).collect();
            let evicted_before = hub.accounting.evicted;
            let mut grown = vec![0; PREFIXES.len()];
            let mut published: BTreeMap<(usize, String), usize> = BTreeMap::new();
            for (at, name, len) in messages {
                let topic = format!("{}{name}", PREFIXES[at]);
                publish(&mut hub, &topic, len);
                grown[prefix_of(&hub, at)] += most_of(len);
                *published.entry((prefix_of(&hub, at), topic)).or_default() += 1;
            }
            end(&mut hub);
            let after = kept(&hub);
            let sum: usize = (0..PREFIXES.len()).map(|at| held(&hub, at)).sum();
            prop_assert!(hub.accounting.held() == sum && sum <= most, "{sum} of {most}");
            for prefix in 0..PREFIXES.len() {
                if held_before[prefix] + grown[prefix] > hub.accounting.reserved(prefix) {
                    continue;
                }
                for ((_, topic), offsets) in before.iter().filter(|((p, _), _)| *p == prefix) {
                    let now = after.get(&(prefix, topic.clone())).map_or(&[][..], |offsets| offsets);
                    prop_assert!(now.starts_with(offsets), "{topic}: {offsets:?} became {now:?}");
                }
                for ((_, topic), n) in published.iter().filter(|((p, _), _)| *p == prefix) {
                    let topic: Arc<str> = topic.as_str().into();
                    let then = before.get(&(prefix, topic.clone())).map_or(0, Vec::len);
                    prop_assert_eq!(after[&(prefix, topic)].len(), then + n);
                }
            }
            // Evictions are counted, and a history has no gap.
            let count = |kept: &Kept| kept.values().map(Vec::len).sum::<usize>() as u64;
            let new = published.values().sum::<usize>() as u64;
            let evicted = hub.accounting.evicted.messages - evicted_before.messages;
            prop_assert_eq!(count(&before) + new, count(&after) + evicted);
            prop_assert!(after.values().all(|o| o.windows(2).all(|pair| pair[1] == pair[0] + 1)));
            hub.now += pause;
        }
    }
}

#[test]
fn a_flood_of_new_names_evicts_only_from_its_prefix() {
    let mut hub = hub(4 << 20, [None; 3], 1);
    for n in 0..200 {
        publish(&mut hub, &format!("orders/{}", n % 20), 200);
        end(&mut hub);
    }
    // Above its reservation, which was free.
    for _ in 0..20 {
        publish(&mut hub, "ticks/all", 80 << 10);
        end(&mut hub);
    }
    publish(&mut hub, "public/lobby", 100);
    end(&mut hub);
    let of = |hub: &Hub, prefix: usize| {
        let prefix = prefix_of(hub, prefix);
        kept(hub).iter().filter(|((p, _), _)| *p == prefix).map(|(_, offsets)| offsets.len()).sum::<usize>()
    };
    assert_eq!((of(&hub, 0), of(&hub, 2), hub.accounting.evicted.messages), (200, 20, 0));
    for n in 0..2000 {
        hub.now += 10;
        publish(&mut hub, &format!("public/{n}"), 16 << 10);
        end(&mut hub);
        assert_eq!((of(&hub, 0), of(&hub, 2)), (200, 20), "after {n}");
        assert!(kept(&hub).iter().any(|((_, name), o)| **name == format!("public/{n}") && o.len() == 1));
    }
    assert!(hub.accounting.held() <= 4 << 20);
    let evicted = hub.accounting.evicted;
    assert!(evicted.messages > 1800 && evicted.for_others == 0, "{evicted:?}");
    // Its small topic weighs less than the large ones, although it is older.
    let lobby = hub.index.find("public/lobby").and_then(|key| hub.index.owned(key));
    assert!(lobby.is_some_and(|owned| owned.history.len() == 1));
    // The reservation of orders/ is intact, and it may use all of it.
    for _ in 0..500 {
        publish(&mut hub, "orders/new", 1000);
        end(&mut hub);
    }
    assert_eq!(of(&hub, 0), 700);
    assert!(hub.accounting.evicted.for_others > 0);
}

#[test]
fn eviction_takes_the_oldest_messages_of_the_heaviest_topic() {
    let mut hub = hub(64 << 10, [Some(0), Some(0), Some(64 << 10)], 9);
    for n in 0..40 {
        hub.now += 100;
        publish(&mut hub, "ticks/large", 2000);
        publish(&mut hub, &format!("ticks/{}", n % 4), 50);
        end(&mut hub);
    }
    let kept = kept(&hub);
    let of = |name: &str| kept.iter().find(|((_, n), _)| **n == *name).map(|(_, o)| o.clone()).unwrap();
    for n in 0..4 {
        assert_eq!(of(&format!("ticks/{n}")).len(), 10);
    }
    let large = of("ticks/large");
    assert!((10..30).contains(&large.len()) && large.last() == Some(&40), "{large:?}");
}

#[test]
fn empty_topics_in_use_are_evicted_last() {
    let mut hub = hub(64 << 10, [Some(0), Some(0), Some(64 << 10)], 9);
    hub.subscribe(0, &topic::TopicOrPattern::topic("ticks/used").unwrap(), None, 9).unwrap();
    let ask = |hub: &mut Hub, topic: &str| {
        let conn = ConnId::new(0, 0, 1);
        let request =
            RecoveryRequest { conn, topic: topic.into(), start: Start::Now, tags: None, request_id: 0 };
        hub.answer_recovery(request, 0);
        hub.discard_recovery(&topic.into());
        end(hub);
    };
    ask(&mut hub, "ticks/used");
    for n in 0..1000 {
        hub.now += 1;
        ask(&mut hub, &format!("ticks/{n}"));
        assert!(hub.index.find(&format!("ticks/{n}")).is_some() && hub.index.len() <= 17);
        let used = hub.index.find("ticks/used").and_then(|key| hub.index.owned(key));
        assert!(used.is_some_and(|owned| owned.held().bytes > 0), "after {n}");
    }
    assert!(hub.accounting.evicted.topics > 900);
}
