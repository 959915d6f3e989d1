//! What many, long or hostile uses of the hub cost.

use super::*;

fn hub(settings: TopicSettings) -> Hub {
    Hub::new(0, 1, SettingsTable::new(vec![("kept/".to_owned(), settings)], usize::MAX), 1)
}

/// One turn that publishes so many messages of 100 bytes to a topic.
fn turn(hub: &mut Hub, topic: &str, messages: usize) {
    for _ in 0..messages {
        hub.publish(Publish::new(topic, &*"x".repeat(98)));
    }
    hub.keep();
    hub.end_turn();
}

/// What the topic's history has.
fn kept(hub: &mut Hub, topic: &str) -> Vec<Entry> {
    let key = hub.index.find(topic).unwrap();
    let home = hub.index.home(key).unwrap();
    (0..home.next).find_map(|at| Some(home.history.since(at, home.next, 0)?.cloned().collect())).unwrap()
}

#[test]
fn what_is_kept_holds_little_more_than_itself() {
    for settings in [TopicSettings::new().history(3), TopicSettings::new().history(1000).history_bytes(350)] {
        let mut hub = hub(settings);
        // The second, of three, finds the buffer of the first.
        for messages in [2000, 3, 2, 1, 2000] {
            turn(&mut hub, "kept/a", messages);
            let entries = kept(&mut hub, "kept/a");
            assert_eq!(entries.len(), 3);
            let newest = hub.index.find("kept/a").map(|key| hub.home(key).next - 1).unwrap();
            for (entry, offset) in entries.iter().zip(newest - 2..) {
                assert_eq!((entry.offset, entry.range.len()), (offset, 100));
                assert_eq!(entry.frames[entry.range.clone()][..2], [0x81, 98]);
                assert!(entry.frames.capacity() <= 1000, "{} held", entry.frames.capacity());
            }
        }
    }
}

#[test]
fn a_message_that_finds_no_room_leaves_nothing_before_it() {
    let mut hub = hub(TopicSettings::new().history(10).history_bytes(150));
    turn(&mut hub, "kept/a", 1);
    hub.publish(Publish::new("kept/a", &*"x".repeat(200)));
    hub.keep();
    hub.end_turn();
    assert!(!hub.keeps() && hub.index.find("kept/a").is_none());
}

#[test]
fn joins_that_wait_count_for_their_own_connection() {
    let mut hub = hub(TopicSettings::new());
    let [a, b] = [0, 1].map(|slot| ConnId::new(0, slot, 1));
    let ask = |hub: &mut Hub, conn, n| {
        hub.join(Join { conn, topic: format!("t{n}").into(), start: Start::Now, number: 0 }, 3)
    };
    for conn in [a, b] {
        for n in 0..3 {
            assert_eq!(ask(&mut hub, conn, n), Ok(()));
            assert_eq!(ask(&mut hub, conn, n), Err(SubscribeError::Already));
        }
        assert_eq!(ask(&mut hub, conn, 3), Err(SubscribeError::TooMany { limit: 3 }));
    }
    hub.remove(a);
    assert!(hub.joins.iter().all(|join| join.conn == b) && hub.joins.len() == 3);
    assert!(!hub.unsubscribe(a, "t0") && hub.unsubscribe(b, "t0") && !hub.unsubscribe(b, "t0"));
    assert_eq!(ask(&mut hub, b, 3), Ok(()));
    hub.remove(b);
    assert!(hub.joins.is_empty() && hub.joining.is_empty());
}
