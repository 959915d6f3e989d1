//! A handler that is one closure.

use super::{Conn, Disconnect, Handler};
use crate::Message;

/// A [`Handler`] made by [`on_message`].
#[derive(Clone, Copy, Debug)]
pub struct OnMessage<F>(F);

/// Makes a handler of a closure that is called for each message. It accepts every request and has no state.
///
/// ```
/// use campanile::{Server, on_message};
///
/// let server = Server::builder()
///     .listen("127.0.0.1:0")
///     .route("/echo", on_message(|conn, message| {
///         conn.send(message)?;
///         Ok(())
///     }))
///     .build()?;
/// # Ok::<(), campanile::BuildError>(())
/// ```
pub fn on_message<F>(message: F) -> OnMessage<F>
where
    F: Fn(&mut Conn<'_>, Message<'_>) -> Result<(), Disconnect> + Send + Sync + 'static,
{
    OnMessage(message)
}

impl<F> Handler for OnMessage<F>
where
    F: Fn(&mut Conn<'_>, Message<'_>) -> Result<(), Disconnect> + Send + Sync + 'static,
{
    type State = ();

    fn message(&self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) -> Result<(), Disconnect> {
        (self.0)(conn, message)
    }
}
