//! cargo run --example push [ADDR]
//! A thread of the program publishes prices; a client that is too slow for all of them gets the latest of each. In a
//! browser's console on http://127.0.0.1:9001/: ws = new WebSocket("/prices"); ws.onmessage = (e) => console.log(e.data)

use campanile::{
    CloseCode, Conn, Disconnect, Handle, HandleError, Handler, Message, Route, Server, SlowConsumer,
};
use std::time::{Duration, Instant};

const TOPIC: &str = "prices";

struct Prices;

impl Handler for Prices {
    type State = ();

    fn open(&self, conn: &mut Conn<'_>, _: &mut ()) -> Result<(), Disconnect> {
        conn.subscribe(TOPIC)?;
        Ok(())
    }

    fn message(&self, _: &mut Conn<'_>, _: &mut (), _: Message<'_>) -> Result<(), Disconnect> {
        Err(Disconnect::new(CloseCode::POLICY, "this feed takes no messages"))
    }

    fn dropped(&self, conn: &mut Conn<'_>, _: &mut (), messages: u32) -> Result<(), Disconnect> {
        eprintln!("{} is slow: {messages} prices were replaced by later ones", conn.id());
        Ok(())
    }
}

/// Runs until the server has ended. Knows nothing of connections, workers or sockets.
fn tick(push: &Handle) -> Result<(), HandleError> {
    let (mut cents, mut told) = ([10_842_u64, 15_731, 127], Instant::now());
    for round in 0.. {
        for (i, pair) in ["EUR/USD", "USD/JPY", "BEL/RNG"].into_iter().enumerate() {
            cents[i] = 100 + (cents[i] * 31 + round) % 20_000;
            let price = format!("{pair} {}.{:02}", cents[i] / 100, cents[i] % 100);
            match push.publish(TOPIC, Message::text(&price).with_key(pair)) {
                Err(HandleError::Full) => {} // the server is busy; the next price is the better one
                other => other?,
            }
        }
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            let stats = push.stats();
            println!("{} open, {} delivered, {} dropped", stats.open, stats.deliveries, stats.dropped);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".into());
    let route = Route::new(Prices).slow_consumer(SlowConsumer::LatestByKey);
    let server = Server::builder().listen(&addr).route("/prices", route).build()?;
    println!("prices on {}", server.local_addrs()[0]);
    let push = server.handle();
    std::thread::spawn(move || tick(&push));
    Ok(server.run()?)
}
