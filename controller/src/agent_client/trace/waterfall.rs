//! Draws what was watched: each phase of each request with when it was and how long it took.

use super::{Agreed, ClientTrace, GotConnection, Target};
use http::{HeaderMap, StatusCode};
use std::{
    fmt::Write as _,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use towline_agent::protocol::{TRAILER_ERROR, TRAILER_REASON};

/// Cells of the drawing.
const WIDTH: usize = 40;

/// Remembers what was watched, and draws it.
#[derive(Debug)]
pub struct Waterfall {
    begun: Instant,
    requests: Mutex<Vec<Request>>,
}

/// One request. Times count from the beginning of the pull.
#[derive(Debug, Default)]
struct Request {
    title: String,
    phases: Vec<Phase>,
}

#[derive(Debug)]
struct Phase {
    name: String,
    start: Duration,
    end: Option<Duration>,
    note: String,
}

impl Default for Waterfall {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            requests: Mutex::default(),
        }
    }
}

impl Waterfall {
    /// What has happened so far, a line for each phase.
    #[must_use]
    pub fn draw(&self) -> String {
        let now = self.begun.elapsed();
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        draw(&requests, now)
    }

    fn with(&self, change: impl FnOnce(&mut Request, Duration)) {
        let now = self.begun.elapsed();
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(request) = requests.last_mut() {
            change(request, now);
        }
    }

    fn begin(&self, name: impl Into<String>) {
        self.with(|request, now| request.begin(name, now));
    }

    fn end(&self, note: impl Into<String>) {
        self.with(|request, now| request.end(note, now));
    }
}

impl Request {
    fn begin(&mut self, name: impl Into<String>, now: Duration) {
        self.end("", now);
        self.phases.push(Phase {
            name: name.into(),
            start: now,
            end: None,
            note: String::new(),
        });
    }

    /// Ends the phase that is going on, if one is.
    fn end(&mut self, note: impl Into<String>, now: Duration) {
        if let Some(phase) = self.phases.last_mut().filter(|phase| phase.end.is_none()) {
            phase.end = Some(now);
            phase.note = note.into();
        }
    }

    fn moment(&mut self, name: impl Into<String>, note: impl Into<String>, now: Duration) {
        self.begin(name, now);
        self.end(note, now);
    }
}

fn failed(why: &str) -> String {
    format!("failed: {why}")
}

impl ClientTrace for Waterfall {
    fn get_connection(&self, target: &Target<'_>) {
        self.end("");
        let request = Request {
            title: format!("{} {}{}", target.method, target.base, target.path),
            phases: Vec::new(),
        };
        self.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(request);
    }

    fn dns_start(&self, _host: &str) {
        self.begin("dns");
    }

    fn dns_done(&self, addresses: Result<&[SocketAddr], &str>) {
        self.end(match addresses {
            Ok(addresses) => {
                let addresses: Vec<_> = addresses.iter().map(|a| a.ip().to_string()).collect();
                addresses.join(", ")
            }
            Err(why) => failed(why),
        });
    }

    fn connect_start(&self, _address: SocketAddr) {
        self.begin("connect");
    }

    fn connect_done(&self, address: SocketAddr, result: Result<(), &str>) {
        self.end(match result {
            Ok(()) => address.to_string(),
            Err(why) => format!("{address} {}", failed(why)),
        });
    }

    fn tls_start(&self) {
        self.begin("tls");
    }

    fn tls_done(&self, result: Result<&Agreed<'_>, &str>) {
        self.end(match result {
            Ok(agreed) => format!("{} {}", agreed.version, agreed.cipher_suite),
            Err(why) => failed(why),
        });
    }

    fn got_connection(&self, connection: &GotConnection) {
        self.with(|request, now| {
            let how = match connection.idle {
                None => "new connection".to_owned(),
                Some(idle) => format!("connection used again, idle for {}", time(idle)),
            };
            request.title.push_str(&format!(" ({how})"));
            request.begin("request", now);
        });
    }

    fn wrote_request(&self, result: Result<(), &str>) {
        match result {
            Ok(()) => self.begin("wait"),
            Err(why) => self.end(failed(why)),
        }
    }

    fn got_informational(&self, status: StatusCode, _headers: &HeaderMap) {
        self.with(|request, now| {
            request.moment("interim", status.to_string(), now);
            request.begin("wait", now);
        });
    }

    fn got_first_response_byte(&self) {
        self.begin("answer");
    }

    fn body_end(&self, result: Result<u64, &str>) {
        self.end(match result {
            Ok(bytes) => format!("{bytes} bytes"),
            Err(why) => failed(why),
        });
    }

    fn got_trailers(&self, trailers: &HeaderMap) {
        let note = match (trailers.get(TRAILER_ERROR), trailers.get(TRAILER_REASON)) {
            (None, _) => "without a verdict".to_owned(),
            (Some(error), _) if error.is_empty() => "complete".to_owned(),
            (_, reason) => {
                let reason = reason.and_then(|r| r.to_str().ok()).unwrap_or_default();
                let word: String = reason.chars().take(32).collect();
                failed(&word)
            }
        };
        self.with(|request, now| request.moment("verdict", note, now));
    }
}

fn draw(requests: &[Request], now: Duration) -> String {
    let mut out = String::new();
    let ends = requests.iter().flat_map(|r| &r.phases);
    let total = ends
        .map(|phase| phase.end.unwrap_or(now))
        .max()
        .unwrap_or_default()
        .as_secs_f64()
        .max(1e-9);
    for request in requests {
        // Writing to a String does not fail.
        let _ = writeln!(out, "{}", request.title);
        for phase in &request.phases {
            let end = phase.end.unwrap_or(now);
            let start = cell(phase.start, total).min(WIDTH - 1);
            let cells = cell(end, total).saturating_sub(start).max(1);
            let bar = format!("{}{}", " ".repeat(start), "█".repeat(cells));
            let took = time(end.saturating_sub(phase.start));
            let line = format!(
                "  {:<8}{took:>10} │{bar:<WIDTH$}│ {}",
                phase.name, phase.note
            );
            let _ = writeln!(out, "{}", line.trim_end());
        }
    }
    out
}

/// The cell of a moment, 0 to [`WIDTH`].
fn cell(at: Duration, total: f64) -> usize {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small number, not negative"
    )]
    let cell = (at.as_secs_f64() / total * WIDTH as f64).round() as usize;
    cell.min(WIDTH)
}

fn time(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 1.0 {
        format!("{:.1} ms", seconds * 1000.0)
    } else {
        format!("{seconds:.2} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn phase(name: &str, start: u64, end: Option<u64>, note: &str) -> Phase {
        Phase {
            name: name.into(),
            start: ms(start),
            end: end.map(ms),
            note: note.into(),
        }
    }

    #[test]
    fn phases_stand_where_they_were() {
        let request = Request {
            title: "GET http://a:1/v1/backup (new connection)".into(),
            phases: vec![
                phase("dns", 0, Some(500), "10.0.0.1"),
                phase("connect", 500, Some(1000), "10.0.0.1:1"),
                phase("answer", 1000, None, ""),
                phase("verdict", 2000, Some(2000), "complete"),
            ],
        };
        let drawn = draw(&[request], ms(2000));
        let expected = [
            "GET http://a:1/v1/backup (new connection)".to_owned(),
            format!("  dns       500.0 ms │{:<40}│ 10.0.0.1", "█".repeat(10)),
            format!(
                "  connect   500.0 ms │{:<40}│ 10.0.0.1:1",
                format!("{}{}", " ".repeat(10), "█".repeat(10))
            ),
            format!(
                "  answer      1.00 s │{}{}│",
                " ".repeat(20),
                "█".repeat(20)
            ),
            format!("  verdict     0.0 ms │{}█│ complete", " ".repeat(39)),
        ];
        assert_eq!(drawn.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn nothing_seen_is_nothing_drawn() {
        assert_eq!(Waterfall::default().draw(), "");
        Waterfall::default().dns_start("before any request");
    }
}
