//! Publications and subscriptions of the client of topics while its server is ended and started again and again.

use crate::support::{DEADLINE, builder, millis, start, start_at, until};
use campanile::TopicSettings;
use campanile::client::{Client, Reconnect};
use campanile::push::Push;
use campanile::push_client::{Publication, PushClient, PushEvent};
use std::collections::BTreeSet;
use std::sync::mpsc;

/// More is published than the server takes, so it refuses some of it, and it is killed and started again and again.
#[test]
fn order_is_kept_and_gaps_are_reported_under_restarts() {
    const LIVES: usize = 6;
    let topics = TopicSettings::new().history(1000).rate(1000, 20);
    let settings = || {
        builder()
            .topics("public/", topics.clone())
            .route("/push", Push::new().subscribe([""]).publish(["public/"]).rate(0, 0))
    };
    let mut server = start(settings());
    let addr = server.addr;
    let connect = || {
        let connections = Client::builder(&format!("ws://{addr}/push"));
        let reconnect = Reconnect::default().initial_delay(millis(1)).max_delay(millis(20));
        PushClient::builder(connections.reconnect(reconnect)).connect().expect("a client")
    };
    let (subscriber, publisher) = (connect(), connect());
    subscriber.subscribe("public/t").unwrap();
    until("it is subscribed", || server.handle.subscribers("public/t").wait().is_ok_and(|n| n == 1));
    let (answered, answers) = mpsc::channel();
    let (mut made, mut waiting) = (0u64, 0);
    // Those that were not published, or that the program was told so of.
    let mut refused = BTreeSet::new();
    let mut publish = |fates: usize| {
        let mut settled = 0;
        while settled < fates {
            while waiting < 100 {
                (made, waiting) = (made + 1, waiting + 1);
                let (n, answered) = (made, answered.clone());
                let done = move |result| answered.send((n, result)).unwrap();
                publisher.publish_then(&Publication::text("public/t", &n.to_string()), done).unwrap();
            }
            match answers.recv_timeout(DEADLINE).expect("an answer") {
                (_, Ok(_)) => settled += 1,
                (n, Err(_)) => drop(refused.insert(n)),
            }
            waiting -= 1;
        }
        made
    };
    for _ in 0..LIVES {
        publish(40);
        server.shutdown(millis(0));
        server = start_at(settings(), &addr.to_string());
    }
    // One life in which all is well, so that something is heard at the end.
    until("the subscriber is back", || server.handle.subscribers("public/t").wait().is_ok_and(|n| n == 1));
    let made = publish(200);
    let (mut last, mut lost) = (0, false);
    let mut gaps = Vec::new();
    while last < made - 100 {
        match subscriber.next(DEADLINE).expect("an event") {
            PushEvent::Subscribed(how) => lost |= how.lost,
            PushEvent::Message(message) => {
                let n: u64 = message.data.as_str().unwrap().parse().unwrap();
                if !lost {
                    assert!(n > last, "{n} after {last}");
                    gaps.extend(last + 1..n);
                }
                (last, lost) = (n, false);
            }
            PushEvent::Lagged { .. } => panic!("it reads all the time"),
            _ => {}
        }
    }
    gaps.retain(|n| !refused.contains(n));
    assert!(gaps.is_empty(), "{gaps:?} are missing, and nobody was told");
}
