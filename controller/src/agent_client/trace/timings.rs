//! From what was watched to the seconds of each phase.

use super::{Agreed, ClientTrace, GotConnection};
use crate::transfer::Timings;
use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// Fills in the [`Timings`] of the last request. What only the transfer knows (locks, the end in the
/// store) is not in them.
#[derive(Debug, Default)]
pub(crate) struct TimingsTrace(Mutex<Clock>);

#[derive(Debug, Default)]
struct Clock {
    phase: Option<Instant>,
    request: Option<Instant>,
    first_byte: Option<Instant>,
    timings: Timings,
}

impl TimingsTrace {
    /// What is known so far.
    pub(crate) fn timings(&self) -> Timings {
        self.with(|clock| clock.timings)
    }

    fn with<T>(&self, change: impl FnOnce(&mut Clock) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn begin(&self) {
        self.with(|clock| clock.phase = Some(Instant::now()));
    }
}

fn since(start: Option<Instant>) -> Option<f64> {
    start.map(|start| start.elapsed().as_secs_f64())
}

impl ClientTrace for TimingsTrace {
    fn dns_start(&self, _host: &str) {
        self.begin();
    }

    fn dns_done(&self, addresses: Result<&[SocketAddr], &str>) {
        if addresses.is_ok() {
            self.with(|clock| clock.timings.dns = since(clock.phase));
        }
    }

    fn connect_start(&self, _address: SocketAddr) {
        self.begin();
    }

    fn connect_done(&self, _address: SocketAddr, result: Result<(), &str>) {
        if result.is_ok() {
            self.with(|clock| clock.timings.connect = since(clock.phase));
        }
    }

    fn tls_start(&self) {
        self.begin();
    }

    fn tls_done(&self, result: Result<&Agreed<'_>, &str>) {
        if result.is_ok() {
            self.with(|clock| clock.timings.tls = since(clock.phase));
        }
    }

    fn got_connection(&self, _connection: &GotConnection) {
        self.with(|clock| clock.request = Some(Instant::now()));
    }

    fn wrote_request(&self, result: Result<(), &str>) {
        if result.is_ok() {
            self.with(|clock| clock.timings.wrote_request = since(clock.request));
        }
    }

    fn got_first_response_byte(&self) {
        self.with(|clock| {
            clock.first_byte = Some(Instant::now());
            clock.timings.first_byte = since(clock.request);
        });
    }

    fn body_end(&self, _result: Result<u64, &str>) {
        self.with(|clock| clock.timings.copy = since(clock.first_byte));
    }
}
