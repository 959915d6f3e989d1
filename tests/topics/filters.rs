//! Tags: messages carry them, and subscribers with a filter get those messages alone, live and replayed.

use crate::support::push::{Page, Value, json};
use crate::support::{TestServer, builder, start};
use campanile::push::Push;
use campanile::{Conn, Disconnect, Handler, Message, Publish, Start, Subscribe, TopicSettings};

fn serve(workers: usize) -> TestServer {
    start(
        builder()
            .workers(workers)
            .topics("kept/", TopicSettings::new().history(100))
            .route("/push", Push::new().subscribe([""]).publish([""]).rate(0, 0)),
    )
}

fn publish(server: &TestServer, topic: &str, text: &str, tags: &[&str]) {
    server.handle.publish_confirmed(Publish::new(topic, text).tags(tags)).wait().unwrap();
}

fn subscribe(page: &mut Page, topic: &str, more: Value) -> Value {
    let member = if topic.ends_with("/*") { "pattern" } else { "topic" };
    let mut request = json!({"type": "subscribe", "id": 1, member: topic});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = page.ask(&request);
    assert_eq!(answer["type"], "subscribed", "{answer}");
    answer
}

/// The texts of the next messages.
fn texts(page: &mut Page, n: usize) -> Vec<String> {
    (0..n).map(|_| page.next()["text"].as_str().expect("a message").to_owned()).collect()
}

#[test]
fn a_filter_passes_messages_with_one_of_its_tags() {
    for workers in [1, 3] {
        let server = serve(workers);
        // On each worker, beside one without a filter.
        let mut some: Vec<Page> = (0..2 * workers).map(|_| Page::open(&server)).collect();
        for page in &mut some {
            subscribe(page, "t", json!({"tags": ["eur", "usd"]}));
        }
        let mut all = Page::open(&server);
        all.subscribe("t");
        let messages: [(&str, &[&str]); 6] = [
            ("1", &["eur"]),
            ("2", &[]),
            ("3", &["gbp"]),
            ("4", &["gbp", "usd"]),
            ("5", &["eur", "usd"]),
            ("end", &["eur"]),
        ];
        for (text, tags) in messages {
            publish(&server, "t", text, tags);
        }
        for page in &mut some {
            assert_eq!(texts(page, 4), ["1", "4", "5", "end"]);
        }
        assert_eq!(texts(&mut all, 6), ["1", "2", "3", "4", "5", "end"]);
    }
}

#[test]
fn replays_are_filtered_and_last_counts_filtered_messages() {
    for workers in [1, 2] {
        let server = serve(workers);
        for n in 1..=10 {
            publish(&server, "kept/t", &n.to_string(), if n % 2 == 0 { &["even"] } else { &["odd"] });
        }
        let even = |more: Value| {
            let mut page = Page::open(&server);
            let mut wanted = json!({"tags": ["even"]});
            wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let answer = subscribe(&mut page, "kept/t", wanted);
            let replayed = answer["replayed"].as_u64().unwrap();
            (texts(&mut page, replayed as usize), answer, page)
        };
        let (last, answer, mut page) = even(json!({"last": 3}));
        assert_eq!(last, ["6", "8", "10"]);
        assert_eq!((&answer["offset"], &answer["recovered"]), (&json!(10), &json!(false)));
        publish(&server, "kept/t", "11", &["odd"]);
        publish(&server, "kept/t", "12", &["even"]);
        assert_eq!(texts(&mut page, 1), ["12"]);
        // The last message seen was 8: the offsets between are the others'.
        let since = json!({"since": {"epoch": answer["epoch"], "offset": 8}});
        let (missed, answer, _) = even(since);
        assert_eq!((missed, &answer["recovered"]), (vec!["10".to_owned(), "12".to_owned()], &json!(true)));
        assert_eq!(even(json!({"latest": true})).0, ["12"]);
        let mut page = Page::open(&server);
        subscribe(&mut page, "kept/t", json!({"last": 2}));
        assert_eq!(texts(&mut page, 2), ["11", "12"]);
    }
}

#[test]
fn a_subscription_by_name_overrides_the_filter_of_a_pattern() {
    let server = serve(2);
    let mut page = Page::open(&server);
    subscribe(&mut page, "a/*", json!({"tags": ["x"]}));
    publish(&server, "a/1", "not this", &["y"]);
    publish(&server, "a/1", "this", &["x"]);
    assert_eq!(texts(&mut page, 1), ["this"]);
    subscribe(&mut page, "a/1", json!({"tags": ["y"]}));
    for (text, tag) in [("by the pattern alone", "x"), ("by the name", "y")] {
        publish(&server, "a/1", text, &[tag]);
    }
    assert_eq!(texts(&mut page, 1), ["by the name"]);
    page.ask(&json!({"type": "unsubscribe", "topic": "a/1"}));
    publish(&server, "a/1", "by the pattern again", &["x"]);
    assert_eq!(texts(&mut page, 1), ["by the pattern again"]);
}

#[test]
fn pages_tag_what_they_publish() {
    let server = serve(2);
    let (mut reader, mut writer) = (Page::open(&server), Page::open(&server));
    subscribe(&mut reader, "t", json!({"tags": ["b"]}));
    for (text, tags) in
        [("1", json!(["a"])), ("2", json!(["a", "b"])), ("3", json!(["B"])), ("4", json!(["b"]))]
    {
        let answer =
            writer.ask(&json!({"type": "publish", "id": 1, "topic": "t", "text": text, "tags": tags}));
        assert_eq!(answer["type"], "published", "{answer}");
    }
    assert_eq!(texts(&mut reader, 2), ["2", "4"]);
}

/// Subscribes with the filter that a message names, publishes what another says, and sends in between.
struct Own;

impl Handler for Own {
    type State = ();

    fn open(&self, conn: &mut Conn<'_>, _: &mut ()) -> Result<(), Disconnect> {
        conn.subscribe_with(Subscribe::pattern("own/*").tags(&["x"])).unwrap();
        let refused = conn.subscribe_with(Subscribe::pattern("own/*").from(Start::Latest));
        assert!(refused.is_err());
        Ok(())
    }

    fn message(&self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) -> Result<(), Disconnect> {
        let text = message.as_text().unwrap();
        conn.publish_with(Publish::new("own/1", "left out").tags(&["y"])).unwrap();
        conn.publish_with(Publish::new("own/1", text).tags(&["x"])).unwrap();
        conn.send("sent behind it").unwrap(); // what was published before comes before
        conn.publish_with(Publish::new("own/1", "without")).unwrap();
        Ok(())
    }
}

#[test]
fn messages_of_a_handler_are_filtered_in_order() {
    let server = start(builder().workers(1).route("/", Own));
    let mut client = server.open("/");
    client.text("mine");
    assert_eq!([client.read_text(), client.read_text()], ["mine", "sent behind it"]);
    client.expect_nothing_until_pong();
}
