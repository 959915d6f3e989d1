//! A handler that is one closure.

use super::{Accept, Conn, Handler, Refuse};
use crate::Message;
use crate::http::Request;

/// A [`Handler`] made by [`on_message`].
#[derive(Clone, Copy, Debug)]
pub struct OnMessage<F>(F);

/// A handler that accepts everybody, keeps nothing for a connection, and calls a closure for each message.
///
/// ```
/// use campanile::{Server, on_message};
///
/// let server = Server::builder()
///     .listen("127.0.0.1:0")
///     .route("/echo", on_message(|conn, message| {
///         let _ = conn.send(message); // refused only when the connection is closing
///     }))
///     .build()?;
/// # Ok::<(), campanile::BuildError>(())
/// ```
pub fn on_message<F>(message: F) -> OnMessage<F>
where
    F: Fn(&mut Conn<'_, ()>, Message<'_>) + Send + Sync + 'static,
{
    OnMessage(message)
}

impl<F> Handler for OnMessage<F>
where
    F: Fn(&mut Conn<'_, ()>, Message<'_>) + Send + Sync + 'static,
{
    type State = ();

    fn upgrade(&self, _: &Request<'_>) -> Result<Accept<()>, Refuse> {
        Ok(Accept::new(()))
    }

    fn message(&self, conn: &mut Conn<'_, ()>, message: Message<'_>) {
        (self.0)(conn, message);
    }
}
