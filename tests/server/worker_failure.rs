//! A worker that ends by itself ends the server, and a worker that is stuck is seen by health checks.

use crate::support::{Client, DEADLINE, Events, TestServer, builder, millis, recorder, start, until};
use campanile::internal::panic_worker;
use campanile::{Cause, CloseCode, Handle, RunError, Unhealthy};
use crossbeam_channel::{Receiver, bounded};
use std::time::{Duration, Instant};

/// A server that tells each client which worker it is on.
fn server(workers: usize) -> (TestServer, Events) {
    let (handler, events) = recorder();
    let handler = handler.on_open(|conn| {
        let id = conn.id().to_string();
        conn.send(&id).unwrap();
    });
    (start(builder().workers(workers).route("/", handler)), events)
}

/// A client, and the number of its worker.
fn client(server: &TestServer) -> (Client, usize) {
    let mut client = server.open("/");
    let id = client.read_text();
    let worker = id.split('.').next().unwrap().parse().unwrap();
    (client, worker)
}

fn panicked(error: RunError, expected: usize) {
    let text = error.to_string();
    assert!(matches!(error, RunError::Panicked { worker, .. } if worker == expected), "{text}");
    assert_eq!(text, format!("worker {expected} panicked outside of a callback: as a test asked"));
}

#[test]
fn a_worker_panic_ends_the_server_and_closes_every_client() {
    for (workers, failing) in [(1, 0), (2, 0), (2, 1), (4, 2)] {
        let (server, events) = server(workers);
        let mut clients: Vec<_> = (0..8).map(|_| client(&server)).collect();
        let handle = server.handle.clone();
        panic_worker(&handle, failing);
        let mut expected = Vec::new();
        for (client, worker) in &mut clients {
            let code = CloseCode(client.skip_to_close());
            let (told, cause) = match *worker == failing {
                true => (CloseCode::INTERNAL, Cause::Panic),
                false => (CloseCode::GOING_AWAY, Cause::Shutdown),
            };
            assert_eq!(code, told, "worker {worker} of {workers}");
            expected.push((told, cause));
            client.close(1000, "");
        }
        panicked(server.failed(), failing);
        let mut ends: Vec<_> = (0..8).map(|_| events.closed()).map(|end| (end.code, end.cause)).collect();
        ends.sort_by_key(|(code, _)| code.0);
        expected.sort_by_key(|(code, _)| code.0);
        assert_eq!(ends, expected, "each connection's end is told once");
        assert!(matches!(handle.check_health(DEADLINE), Err(Unhealthy::Ended { .. })));
        assert!(handle.publish("topic", "nobody is left").is_err());
    }
}

#[test]
fn run_returns_the_failure_of_any_worker() {
    for failing in 0..2 {
        let server = builder().workers(2).build().unwrap();
        panic_worker(&server.handle(), failing);
        let (done, ended) = bounded(1);
        std::thread::spawn(move || done.send(server.run()));
        panicked(ended.recv_timeout(DEADLINE).expect("it ends").expect_err("a worker has failed"), failing);
    }
}

/// A server with two workers, of which one is in a callback until this sender is dropped; which one.
fn stuck() -> (TestServer, usize, crossbeam_channel::Sender<()>) {
    let (release, wait): (_, Receiver<()>) = bounded(0);
    let (tx, entered) = bounded(1);
    let (handler, _events) = recorder();
    let handler = handler.on_message(move |conn, _| {
        let _ = tx.send(conn.id().to_string());
        let _ = wait.recv(); // until it is dropped
    });
    let server = start(builder().workers(2).route("/", handler));
    let mut client = server.open("/");
    client.text("stay");
    let id = entered.recv_timeout(DEADLINE).unwrap();
    (server, id.split('.').next().unwrap().parse().unwrap(), release)
}

#[test]
fn check_health_reports_a_stuck_worker() {
    let (server, worker, release) = stuck();
    let handle: Handle = server.handle.clone();
    let limit = millis(50);
    until("the worker counts as stuck", || handle.check_health(limit).is_err());
    match handle.check_health(limit) {
        Err(Unhealthy::Stuck { worker: found, busy, .. }) => assert!(found == worker && busy > limit),
        other => panic!("{other:?}"),
    }
    assert_eq!(handle.check_health(DEADLINE), Ok(()), "not for a longer limit");
    drop(release);
    until("it is healthy again", || handle.check_health(limit).is_ok());
    // Idle now: nothing goes round, and that is well.
    let iterations = handle.stats().iterations;
    let since = Instant::now();
    until("it has waited for longer than the limit", || since.elapsed() > 2 * limit);
    assert_eq!(
        handle.check_health(limit),
        Ok(()),
        "{} iterations meanwhile",
        handle.stats().iterations - iterations
    );
}

#[test]
fn a_stuck_worker_does_not_delay_the_end_after_a_failure() {
    let (server, stuck, release) = stuck();
    panic_worker(&server.handle, 1 - stuck);
    let asked = Instant::now();
    panicked(server.failed(), 1 - stuck);
    assert!(asked.elapsed() < Duration::from_secs(5));
    drop(release);
}
