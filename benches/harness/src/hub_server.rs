//! The server of the drivers `outside`, `room` and `cut`: routes that the binary does not have. One worker.
//!
//! ```text
//!  /outside  message ── channel ──> a thread outside of the server ── Handle::publish ──> all connections of /outside
//!  /push     the push protocol, without a limit of its rate
//!  /hundred  each connection subscribes to 100 topics, of --topics in all [100000]
//!  /echo     shows whether the worker has time
//!  GET /open counts the open connections; GET /cut terminates those of /hundred; GET /held says how many microseconds
//!  the slowest query of the worker's mailbox took since the last such request
//! ```
//!
//! With --history every topic has a history of that many messages.

use crate::{Outcome, USAGE};
use campanile::push::Push;
use campanile::{
    Conn, ConnId, Disconnect, Handle, HandleError, Handler, Message, Request, Response, Route, Server,
    TopicSettings,
};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

const TOPIC: &str = "outside";

/// Hands every text to the thread that publishes.
struct Outside(mpsc::Sender<String>);

impl Handler for Outside {
    type State = ();

    fn open(&self, conn: &mut Conn<'_>, _: &mut ()) -> Result<(), Disconnect> {
        conn.subscribe(TOPIC).expect("a short name and one subscription");
        Ok(())
    }

    fn message(&self, _: &mut Conn<'_>, _: &mut (), message: Message<'_>) -> Result<(), Disconnect> {
        if let Some(text) = message.as_text() {
            let _ = self.0.send(text.to_owned()); // that thread ends with the process
        }
        Ok(())
    }
}

/// Publishes what comes, until the server has ended.
fn publish(texts: mpsc::Receiver<String>, handle: &Handle) -> Result<(), HandleError> {
    for text in texts {
        while let Err(e) = handle.publish(TOPIC, &*text) {
            match e {
                HandleError::Full => thread::sleep(Duration::from_micros(100)),
                e => return Err(e),
            }
        }
    }
    Ok(())
}

const SUBSCRIPTIONS: usize = 100;

struct Hundred {
    topics: usize,
    opened: Arc<Mutex<Vec<ConnId>>>,
}

impl Handler for Hundred {
    type State = ();

    fn open(&self, conn: &mut Conn<'_>, _: &mut ()) -> Result<(), Disconnect> {
        let mut opened = self.opened.lock().expect("no handler panics");
        let first = opened.len() * SUBSCRIPTIONS;
        opened.push(conn.id());
        drop(opened);
        for i in first..first + SUBSCRIPTIONS {
            conn.subscribe(&format!("topic/{}", i % self.topics)).expect("no more than a connection may");
        }
        Ok(())
    }

    fn message(&self, _: &mut Conn<'_>, _: &mut (), _: Message<'_>) -> Result<(), Disconnect> {
        Ok(())
    }
}

struct Echo;

impl Handler for Echo {
    type State = ();

    fn message(&self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) -> Result<(), Disconnect> {
        let _ = conn.send(message); // refused only when it is closing;
        Ok(())
    }
}

/// Terminates all connections of `/hundred`, as fast as the mailbox takes the requests.
fn cut(handle: &Handle, conns: &[ConnId]) -> Result<(), HandleError> {
    for conn in conns {
        while let Err(e) = handle.terminate(*conn) {
            match e {
                HandleError::Full => thread::sleep(Duration::from_micros(100)),
                e => return Err(e),
            }
        }
    }
    Ok(())
}

/// Queries the worker over and over, until the server has ended. The worker reads its mailbox once in each iteration.
fn query(handle: &Handle, longest: &AtomicU64) -> Result<(), HandleError> {
    loop {
        let asked = Instant::now();
        handle.subscribers("nobody").wait()?;
        longest.fetch_max(asked.elapsed().as_micros() as u64, Relaxed);
        thread::sleep(Duration::from_micros(500));
    }
}

/// Serves until a signal ends it.
pub(crate) fn run(words: &[String]) -> Outcome<()> {
    let mut args = words.iter();
    let port: u16 = args.next().ok_or(USAGE)?.parse()?;
    let (mut history, mut topics) = (0, 100_000);
    while let Some(option) = args.next() {
        let value: usize = args.next().ok_or(USAGE)?.parse()?;
        match option.as_str() {
            "--history" => history = value,
            "--topics" => topics = value.max(SUBSCRIPTIONS),
            _ => return Err(USAGE.into()),
        }
    }
    let (to, texts) = mpsc::channel();
    let shared = Arc::new(OnceLock::<Handle>::new());
    let (counting, cutting) = (Arc::clone(&shared), Arc::clone(&shared));
    let opened = Arc::<Mutex<Vec<ConnId>>>::default();
    let crowd = Arc::clone(&opened);
    let held = Arc::new(AtomicU64::new(0));
    let (longest, querying) = (Arc::clone(&held), Arc::clone(&shared));
    let mut server = Server::builder()
        .listen(&format!("127.0.0.1:{port}"))
        .workers(1)
        .route("/outside", Outside(to))
        .route("/push", Route::from(Push::new().subscribe([""]).publish([""]).rate(0, 0)))
        .route("/hundred", Hundred { topics, opened: Arc::clone(&opened) })
        .route("/echo", Echo)
        .get("/open", move |_: &Request<'_>| {
            let open = counting.get().map_or(0, Handle::open_connections);
            Response::new(200).text(open.to_string())
        })
        .get("/held", move |_: &Request<'_>| {
            // Only one driver needs the thread.
            static QUERIES: std::sync::Once = std::sync::Once::new();
            QUERIES.call_once(|| {
                if let Some(handle) = querying.get().cloned() {
                    let longest = Arc::clone(&longest);
                    thread::spawn(move || query(&handle, &longest));
                }
            });
            Response::new(200).text(held.swap(0, Relaxed).to_string())
        })
        .get("/cut", move |_: &Request<'_>| {
            // On its own thread: a handler must not wait for its worker.
            if let Some(handle) = cutting.get().cloned() {
                let conns = crowd.lock().map(|conns| conns.clone()).unwrap_or_default();
                thread::spawn(move || cut(&handle, &conns));
            }
            Response::new(200).text("terminating")
        });
    if history > 0 {
        server = server.topics("", TopicSettings::new().history(history));
    }
    let server = server.build()?;
    let handle = server.handle();
    let _ = shared.set(handle.clone()); // it is the first
    thread::Builder::new().name("outside".into()).spawn(move || publish(texts, &handle))?;
    println!("bench-harness listening on http://{}/", server.local_addr().ok_or("no address")?);
    Ok(server.run()?)
}
