//! Timers of connections: once, repeated, replaced, cleared, bounded, and over with their connection.

use crate::support::{TestServer, builder, limits, millis, start};
use campanile::{Conn, Disconnect, Handler, Message, Route, TooManyTimers};
use std::time::Instant;

/// Does what a message says, word by word, and reports timers.
struct Timed;

impl Handler for Timed {
    type State = ();

    fn message(&self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) -> Result<(), Disconnect> {
        for command in message.as_text().unwrap_or_default().split(';') {
            let words: Vec<&str> = command.split(' ').collect();
            let number = |at: usize| words.get(at).and_then(|word| word.parse().ok()).unwrap_or(0);
            let (timer, time) = (number(1), millis(number(2).into()));
            match words[0] {
                "once" => conn.set_timer(timer, time)?,
                "every" => conn.set_interval(timer, time)?,
                "many" => {
                    let refused = (10..).find_map(|timer| conn.set_timer(timer, time).err());
                    conn.send(
                        refused.map_or(String::new(), |TooManyTimers { limit, .. }| limit.to_string()),
                    )?;
                }
                "clear" => {
                    let was_set = conn.clear_timer(timer);
                    conn.send(if was_set { "cleared" } else { "not set" })?;
                }
                _ => return Err(Disconnect::new(1003, "unknown command")),
            }
        }
        Ok(())
    }

    fn timer(&self, conn: &mut Conn<'_>, _: &mut (), timer: u32) -> Result<(), Disconnect> {
        if timer == 4001 {
            return Err(Disconnect::new(4001, "the token has expired"));
        }
        conn.send(format!("timer {timer}"))?;
        Ok(())
    }
}

fn serve() -> TestServer {
    start(builder().route("/", Route::new(Timed).limits(limits(|l| l.max_timers = 3))))
}

#[test]
fn a_timer_fires_once_and_not_early() {
    let server = serve();
    let mut client = server.open("/");
    let began = Instant::now();
    client.text("once 1 200;once 2 100");
    assert_eq!(client.read_text(), "timer 2");
    assert!(began.elapsed() >= millis(100), "{:?}", began.elapsed());
    assert_eq!(client.read_text(), "timer 1");
    assert!(began.elapsed() >= millis(200), "{:?}", began.elapsed());
    client.text("once 3 130");
    assert_eq!(client.read_text(), "timer 3", "the first two are over");
}

#[test]
fn an_interval_repeats_until_it_is_cleared() {
    let server = serve();
    let mut client = server.open("/");
    let began = Instant::now();
    client.text("every 7 100");
    for n in 1..=5 {
        assert_eq!(client.read_text(), "timer 7");
        assert!(began.elapsed() >= n * millis(100), "{n} in {:?}", began.elapsed());
    }
    client.text("clear 7;clear 7;once 8 300");
    // It may have been due before it was cleared.
    let mut texts = std::iter::repeat_with(|| client.read_text()).skip_while(|text| text == "timer 7");
    let expected = ["cleared", "not set", "timer 8"];
    assert_eq!(texts.by_ref().take(3).collect::<Vec<_>>(), expected);
}

#[test]
fn a_timer_is_replaced_by_its_number_and_their_number_is_bounded() {
    let server = serve();
    let mut client = server.open("/");
    client.text("once 1 60000;once 1 70;many 0 60000");
    assert_eq!((client.read_text(), client.read_text()), ("3".to_owned(), "timer 1".to_owned()));
    client.text("once 9 10"); // there is room again
    assert_eq!(client.read_text(), "timer 9");
}

#[test]
fn timers_end_with_their_connection() {
    let server = serve();
    let mut client = server.open("/");
    client.text("every 1 64");
    assert_eq!(client.read_text(), "timer 1");
    client.reset();
    server.until("it has disconnected", |s| s.open == 0 && s.sockets == 0);
    // The next connection has the same slot.
    let mut next = server.open("/");
    next.text("once 2 300");
    assert_eq!(next.read_text(), "timer 2");
    next.expect_nothing_until_pong();
}

#[test]
fn an_error_of_a_timer_closes_the_connection() {
    let server = serve();
    let mut client = server.open("/");
    client.text("once 4001 70;every 1 60000");
    assert_eq!(client.read_close(), (4001, "the token has expired".to_owned()));
    client.close(4001, "");
    client.expect_eof();
    server.until("it is removed", |s| s.sockets == 0);
}
