//! The chat room behind the page: `{"name":…,"msg":…}` comes in, everyone gets `name:msg`; images are passed on as
//! they are; when somebody who has said a name goes, everyone gets `name left`.

use campanile::{
    Accept, CloseCode, Closed, Conn, Disconnect, Handler, Limits, Message, Refuse, Request, Route,
};
use serde::Deserialize;

pub(crate) struct Chat;

/// Everybody is in one room.
const ROOM: &str = "chat";

/// The page refuses larger images before it sends them.
const MAX_MESSAGE: usize = 1 << 20;

/// What a person types, or pastes. Everybody gets it, so one client must not be able to fill the room.
const MESSAGES: (u32, u32) = (20, 100);
const BYTES: (u64, u64) = (1 << 20, 4 << 20);

/// Characters of a name.
const MAX_NAME: usize = 64;

#[derive(Deserialize)]
struct Line {
    name: String,
    msg: String,
}

pub(crate) fn route() -> Route {
    let mut limits = Limits::default();
    limits.max_message_size = MAX_MESSAGE;
    limits.max_backlog = 4 * MAX_MESSAGE;
    Route::new(Chat).limits(limits).message_rate(MESSAGES.0, MESSAGES.1).byte_rate(BYTES.0, BYTES.1)
}

/// The name as the others see it: what stands before the first colon.
fn shown(name: &str) -> String {
    let printable = name.trim().chars().filter(|c| !c.is_control() && *c != ':');
    let name: String = printable.take(MAX_NAME).collect();
    if name.is_empty() { "anonymous".to_owned() } else { name }
}

impl Handler for Chat {
    /// The name that was last used.
    type State = Option<String>;

    fn upgrade(&self, _: &Request<'_>) -> Result<Accept<Self::State>, Refuse> {
        Ok(Accept::new(None))
    }

    fn open(&self, conn: &mut Conn<'_>, _: &mut Self::State) -> Result<(), Disconnect> {
        conn.subscribe(ROOM)?;
        Ok(())
    }

    fn message(
        &self,
        conn: &mut Conn<'_>,
        last: &mut Self::State,
        message: Message<'_>,
    ) -> Result<(), Disconnect> {
        let Some(text) = message.as_text() else { return Ok(conn.publish(ROOM, message)?) };
        let expected = |_| Disconnect::new(CloseCode::INVALID_DATA, r#"expected {"name":"…","msg":"…"}"#);
        let Line { name, msg } = serde_json::from_str(text).map_err(expected)?;
        let name = last.insert(shown(&name));
        conn.publish(ROOM, format!("{name}:{msg}"))?;
        Ok(())
    }

    fn close(&self, conn: &mut Conn<'_>, last: &mut Self::State, _: &Closed) {
        if let Some(name) = last {
            let _ = conn.publish(ROOM, format!("{name} left")); // a topic's name
        }
    }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn chat_names_lose_colons_and_control_characters() {
        assert_eq!(shown(" Ann: a\n"), "Ann a");
        assert_eq!(shown(":"), "anonymous");
        assert_eq!(shown(&"x".repeat(100)).len(), 64);
    }
}
