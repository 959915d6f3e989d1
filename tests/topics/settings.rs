//! What the settings of topics allow: who may publish and subscribe, how much, and how often.

use crate::support::push::{Page, json};
use crate::support::{builder, start, until};
use campanile::push::Push;
use campanile::{Conn, Disconnect, Handle, HandleError, Handler, Message, Publish, Published, TopicSettings};
use core::time::Duration;

#[test]
fn topic_settings_grant_subscribing_and_publishing() {
    let server = start(
        builder()
            .topics("news/", TopicSettings::new().client_subscribe(true))
            .topics("news/drafts/", TopicSettings::new().history(1))
            .topics("chat/", TopicSettings::new().client_subscribe(true).client_publish(true))
            .route("/push", Push::new()),
    );
    let mut page = Page::open(&server);
    let subscribe = |name: &str| {
        let member = if name.ends_with('*') { "pattern" } else { "topic" };
        json!({"type": "subscribe", "id": 1, member: name})
    };
    for topic in ["news/today", "news/today/*", "chat/1", "chat/*"] {
        assert_eq!(page.ask(&subscribe(topic))["type"], "subscribed", "{topic}");
    }
    for topic in ["secret", "news", "news/drafts/1", "news/drafts/*", "news/*"] {
        let error = page.refused(&subscribe(topic), "forbidden");
        assert!(error["message"].as_str().unwrap().contains(topic), "{error}");
    }
    let publish =
        |topic: &str| json!({"type": "publish", "id": 1, "topic": topic, "text": "x", "echo": false});
    assert_eq!(page.ask(&publish("chat/1"))["type"], "published");
    for topic in ["news/today", "secret"] {
        page.refused(&publish(topic), "forbidden");
    }
    // The program itself is not a client.
    server.handle.publish("news/today", "today").unwrap();
    assert_eq!(page.next()["text"], "today");
}

fn sent(handle: &Handle, topic: &str, text: &str) -> Result<Option<Published>, HandleError> {
    handle.publish_confirmed(Publish::new(topic, text)).wait()
}

#[test]
fn a_topic_limits_messages_per_second() {
    for workers in [1, 2] {
        let settings = TopicSettings::new().history(100).rate(1, 3);
        let push = Push::new().subscribe([""]).publish([""]).rate(0, 0);
        let server = start(builder().workers(workers).topics("slow/", settings).route("/push", push));
        for topic in ["slow/a", "slow/b"] {
            for n in 1..=3 {
                let published = sent(&server.handle, topic, "x").unwrap().expect("it is kept");
                assert_eq!(published.position.offset, n);
            }
        }
        let refused = sent(&server.handle, "slow/a", "x").unwrap_err();
        let HandleError::RateLimited { retry } = &refused else { panic!("{refused}") };
        assert!(*retry > Duration::ZERO && *retry <= Duration::from_secs(1), "{retry:?}");
        assert!(refused.to_string().contains("wait "), "{refused}");
        let mut page = Page::open(&server);
        let request = json!({"type": "publish", "id": 1, "topic": "slow/b", "text": "x"});
        // Clients have a bucket of their own, and each its share of it: 3 and 1 at once.
        for _ in 0..4 {
            assert_eq!(page.ask(&request)["type"], "published");
        }
        let error = page.refused(&request, "rate_limited");
        let retry = error["retry"].as_u64().unwrap();
        assert!((1..=1000).contains(&retry), "{error}");
        assert_eq!(server.handle.stats().publications_refused, 2);
        // Where nobody waits for an answer it is counted.
        server.handle.publish("slow/a", "x").unwrap();
        until("it is counted", || server.handle.stats().publications_refused == 3);
        // Others are not concerned, and after a while it takes messages again.
        assert_eq!(sent(&server.handle, "fast", "x"), Ok(None));
        until("it takes messages again", || sent(&server.handle, "slow/a", "x").is_ok());
    }
}

/// Publishes two hundred messages to a topic for each that it gets, which is the topic's name.
struct Flood;

impl Handler for Flood {
    type State = ();

    fn message(&self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) -> Result<(), Disconnect> {
        for _ in 0..200 {
            conn.publish_to_others(message.as_text().unwrap(), "flood").unwrap();
        }
        Ok(())
    }
}

#[test]
fn a_flooding_client_does_not_use_the_rate_of_others() {
    for workers in [1, 2] {
        let settings = TopicSettings::new().history(1000).rate(2, 80);
        let push = Push::new().subscribe([""]).publish([""]).rate(0, 0);
        let builder = builder().workers(workers).topics("room/", settings);
        let server = start(builder.route("/push", push).route("/flood", Flood));
        let mut flood = server.open("/flood");
        let mut refused = 0;
        let mut last = None;
        for n in 0..6 {
            let topic = format!("room/{n}");
            let mut page = Page::open(&server);
            let publish = json!({"type": "publish", "id": 1, "topic": topic, "text": "honest"});
            assert_eq!(page.ask(&publish)["type"], "published");
            for _ in 0..5 {
                let before = refused;
                flood.text(&topic);
                until("the flood is refused", || {
                    refused = server.handle.stats().publications_refused;
                    refused >= before + 90
                });
                // A third of the burst is its share, whatever the other does.
                for _ in 0..5 {
                    let answer = page.ask(&publish);
                    assert_eq!(answer["type"], "published", "{workers} workers, {topic}: {answer}");
                }
                for _ in 0..16 {
                    last = sent(&server.handle, &topic, "the program").unwrap();
                }
            }
        }
        // The sum is bounded all the same: 80 of the program's, 80 of the clients', and two shares of 27.
        let taken = last.expect("it is kept").position.offset;
        assert!(taken <= 80 + 80 + 2 * 27 + 20, "{taken} of 1,106 messages were taken");
    }
}

/// Publishes what it gets to a topic with a limit.
struct Large;

impl Handler for Large {
    type State = ();

    fn open(&self, conn: &mut Conn<'_>, _: &mut ()) -> Result<(), Disconnect> {
        for topic in ["small/a", "small/b", "small/c"] {
            conn.subscribe(topic).unwrap();
        }
        Ok(())
    }

    fn message(&self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) -> Result<(), Disconnect> {
        for topic in ["small/a", "small/b", "small/c"] {
            conn.publish(topic, message).unwrap();
        }
        Ok(())
    }
}

#[test]
fn max_message_size_of_a_topic_applies_to_handlers() {
    for workers in [1, 2] {
        let settings = TopicSettings::new().max_message_size(10);
        let server = start(builder().workers(workers).topics("small/", settings).route("/", Large));
        let mut client = server.open("/");
        client.text(&"x".repeat(11));
        client.text("short");
        for _ in 0..3 {
            assert_eq!(client.read_text(), "short");
        }
        assert_eq!(server.handle.stats().publications_refused, 3);
    }
}
