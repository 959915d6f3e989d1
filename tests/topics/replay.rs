//! Replays beside live messages.

use crate::support::{CLOSE, builder, limits, start};
use campanile::{Conn, Disconnect, Handler, Message, Publish, Route, Start, TopicSettings};

/// Subscribes every connection from the oldest of the last 1,000 messages on.
struct FromTheLast;

impl Handler for FromTheLast {
    type State = ();

    fn upgrade(&self, _: &campanile::Request<'_>) -> Result<campanile::Accept<()>, campanile::Refuse> {
        Ok(campanile::Accept::new(()))
    }

    fn message(&self, conn: &mut Conn<'_>, _: &mut (), _: Message<'_>) -> Result<(), Disconnect> {
        conn.subscribe_from("kept/a", Start::Last(1000)).unwrap();
        Ok(())
    }

    fn subscribed(
        &self,
        conn: &mut Conn<'_>,
        _: &mut (),
        _: &str,
        _: &campanile::Subscribed,
    ) -> Result<(), Disconnect> {
        conn.send("subscribed").unwrap();
        Ok(())
    }
}

/// Live messages may wait behind a replay up to the size of what was asked for: a client that reads faster than they come
/// catches up. Beyond that the policy acts.
#[test]
fn live_messages_wait_behind_a_replay_up_to_its_own_size() {
    let text = |n: usize| format!("{n:0>3600}");
    for (live, catches_up) in [(900, true), (1300, false)] {
        let limits = limits(|l| l.max_backlog = 128 << 10);
        let server = start(
            builder()
                .workers(2)
                .route("/", Route::new(FromTheLast).limits(limits))
                .topics("kept/", TopicSettings::new().history(1000).history_bytes(8 << 20)),
        );
        let publish = |n| server.handle.publish_with(Publish::new("kept/a", &*text(n))).unwrap();
        for n in 0..1000 {
            publish(n);
        }
        let mut client = server.open_slow("/");
        client.text("subscribe");
        assert_eq!(client.read_text(), "subscribed");
        for n in 1000..1000 + live {
            publish(n);
        }
        if catches_up {
            for n in 0..1000 + live {
                assert_eq!(client.read_text(), text(n));
            }
            client.expect_nothing_until_pong();
            assert_eq!(server.handle.stats().dropped, 0);
        } else {
            let close = std::iter::repeat_with(|| client.read_frame()).find(|frame| frame.opcode == CLOSE);
            assert_eq!(close.unwrap().payload.first_chunk(), Some(&1013_u16.to_be_bytes()));
        }
    }
}
