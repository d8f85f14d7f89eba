//! Waits for conditions, with generous limits: this may run on a slow, busy machine.

use std::{future::Future, time::Duration};
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(240);
const POLL: Duration = Duration::from_millis(500);

/// Polls until `probe` gives `Ok`; panics with its last `Err`, which says what was seen instead.
pub async fn eventually<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    probe: impl FnMut() -> F,
) -> T {
    eventually_for(LIMIT, what, probe).await
}

/// [`eventually`] with a limit of its own.
pub async fn eventually_for<T, F: Future<Output = Result<T, String>>>(
    limit: Duration,
    what: &str,
    mut probe: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(seen) if start.elapsed() > limit => {
                panic!("not within {limit:?}: {what}; instead: {seen}")
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}
