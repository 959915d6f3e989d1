//! `/push`, the endpoint for browsers: clients may do what `--topics` grants, with `--dev` all below `public/`.

use campanile::push::Push;
use campanile::{Route, TopicSettings};
use std::time::Duration;

/// The topics of the demonstration pages.
pub(crate) const PUBLIC: &str = "public/";

/// Clients name these topics, so each keeps little and not for long, what somebody missed who was gone for a moment: with
/// its 50 publications each second a client can have some 50 MB kept.
const KEPT: usize = 100;
const KEPT_BYTES: usize = 16 << 10;
const KEPT_FOR: Duration = Duration::from_secs(60);

/// Bytes of requests that one client may send each second, and at once. [`Push`] bounds their number.
const BYTES: (u64, u64) = (1 << 20, 4 << 20);

pub(crate) fn route() -> Route {
    Route::from(Push::new()).byte_rate(BYTES.0, BYTES.1)
}

/// What these topics keep and allow.
pub(crate) fn kept() -> TopicSettings {
    TopicSettings::new()
        .history(KEPT)
        .history_bytes(KEPT_BYTES)
        .history_age(KEPT_FOR)
        .client_subscribe(true)
        .client_publish(true)
}
