//! What both servers share: the listener, on a runtime with one thread.

use std::future::Future;
use std::io;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Serves each connection that comes to the port given as the first argument, in a task of its own.
pub fn serve<F: Future<Output = ()> + Send + 'static>(
    name: &str,
    connection: impl Fn(TcpStream) -> F,
) -> io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok());
    let port: u16 = port.ok_or_else(|| io::Error::other("usage: PORT (0: the system chooses)"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = listen(port)?;
        println!("{name} listening on http://{}/", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(connection(stream));
        }
    })
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], port).into())?;
    socket.listen(4096)
}
