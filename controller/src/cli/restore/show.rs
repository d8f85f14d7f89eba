//! How far a restore is: a bar on a terminal, a line now and then elsewhere.

use crate::cli::human;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};
use tokio::{sync::oneshot, task::JoinHandle};
use towline_agent::restore::{Progress, Stage, progress::Look};

/// How often it is looked at.
const TICK: Duration = Duration::from_millis(200);
/// A line without a terminal, every so often and at every stage.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Shows until it is told to end.
pub(in crate::cli) struct Shown {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Shown {
    pub(in crate::cli) fn start(progress: Progress) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self {
            stop,
            task: tokio::spawn(show(progress, stopped)),
        }
    }

    /// Returns when the bar is off the screen.
    pub(in crate::cli) async fn end(self) {
        drop(self.stop);
        let _ = self.task.await;
    }
}

async fn show(progress: Progress, mut stopped: oneshot::Receiver<()>) {
    let bar = std::io::stderr()
        .is_terminal()
        .then(ProgressBar::new_spinner);
    let mut told = (Stage::Starting, Instant::now());
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            () = tokio::time::sleep(TICK) => {}
        }
        let look = progress.look();
        let new = look.stage != told.0;
        if let Some(bar) = &bar {
            if new {
                bar.set_style(style(&look));
                bar.set_length(look.total_bytes);
                bar.set_message(word(look.stage));
            }
            bar.set_position(look.bytes);
            bar.tick();
        } else if new || told.1.elapsed() >= LOG_INTERVAL {
            told.1 = Instant::now();
            eprintln!("towline: {}", line(&look));
        }
        told.0 = look.stage;
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

fn style(look: &Look) -> ProgressStyle {
    let template = if look.total_bytes > 0 {
        "{msg} {wide_bar} {binary_bytes} of {binary_total_bytes} at {binary_bytes_per_sec}, {eta} left"
    } else {
        "{spinner} {msg}, {elapsed}"
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn word(stage: Stage) -> &'static str {
    match stage {
        Stage::Starting => "starting",
        Stage::Verifying => "verifying",
        Stage::Extracting => "extracting",
        Stage::Preparing => "preparing",
        Stage::Loading => "loading",
        Stage::Checking => "checking",
        Stage::Ended => "ended",
    }
}

fn line(look: &Look) -> String {
    let word = word(look.stage);
    if look.total_bytes > 0 {
        format!(
            "{word}: {} of {}",
            human(look.bytes),
            human(look.total_bytes)
        )
    } else {
        word.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let look = |stage, bytes, total_bytes| Look {
            stage,
            bytes,
            total_bytes,
        };
        assert_eq!(line(&look(Stage::Preparing, 0, 0)), "preparing");
        assert_eq!(
            line(&look(Stage::Extracting, 1 << 20, 4 << 20)),
            "extracting: 1.00 MiB of 4.00 MiB"
        );
    }
}
