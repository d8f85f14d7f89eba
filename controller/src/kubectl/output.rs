//! How things are printed: tables for people, objects for programs.

use super::error::Failure;
use clap::{ValueEnum, builder::styling::AnsiColor};
use serde::Serialize;
use std::io::IsTerminal as _;

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Table,
    /// For people, with more columns
    Wide,
    /// The objects, as JSON
    Json,
    /// The objects, as YAML
    Yaml,
    /// Kind and name only, one a line
    Name,
}

/// How to print what comes over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Lines {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// Writes JSON or YAML; false when another format is wanted.
pub(super) fn machine(format: Format, value: &impl Serialize) -> Result<bool, Failure> {
    let text = match format {
        Format::Json => serde_json::to_string_pretty(value)
            .map_err(|error| Failure::failed(format!("cannot be written as JSON: {error}")))?,
        Format::Yaml => serde_norway::to_string(value)
            .map_err(|error| Failure::failed(format!("cannot be written as YAML: {error}")))?,
        Format::Table | Format::Wide | Format::Name => return Ok(false),
    };
    out(text.trim_end());
    Ok(true)
}

/// One line on standard output. When nobody reads any more (`| head`), that is the end.
pub(super) fn out(line: &str) {
    use std::io::Write as _;
    if writeln!(std::io::stdout().lock(), "{line}").is_err() {
        std::process::exit(0);
    }
}

/// One line beside the answer, on standard error.
pub(super) fn note(line: &str) {
    eprintln!("{line}");
}

/// Whether there is colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Paint(bool);

impl Paint {
    /// On a terminal, unless NO_COLOR (no-color.org) is set or the terminal is a dumb one.
    pub(super) fn of_stdout() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self(std::io::stdout().is_terminal() && !refused)
    }

    #[cfg(test)]
    pub(super) const fn new(colour: bool) -> Self {
        Self(colour)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.colour(AnsiColor::Red, text)
    }

    pub(super) fn warn(self, text: &str) -> String {
        self.colour(AnsiColor::Yellow, text)
    }

    pub(super) fn good(self, text: &str) -> String {
        self.colour(AnsiColor::Green, text)
    }

    pub(super) fn faint(self, text: &str) -> String {
        self.colour(AnsiColor::BrightBlack, text)
    }

    fn colour(self, colour: AnsiColor, text: &str) -> String {
        if !self.0 || text.is_empty() {
            return text.to_owned();
        }
        let style = colour.on_default();
        format!("{style}{text}{style:#}")
    }

    pub(super) fn bold(self, text: &str) -> String {
        if !self.0 {
            return text.to_owned();
        }
        let style = clap::builder::styling::Style::new().bold();
        format!("{style}{text}{style:#}")
    }
}

/// A cell: its text, and how good it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

/// How good something is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    Good,
    Warn,
    Bad,
    Faint,
}

impl Cell {
    pub(super) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self {
            text: text.into(),
            tone,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

impl Tone {
    pub(super) fn paint(self, text: &str, paint: Paint) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Good => paint.good(text),
            Self::Warn => paint.warn(text),
            Self::Bad => paint.bad(text),
            Self::Faint => paint.faint(text),
        }
    }
}

/// Columns as kubectl writes them: as wide as they need to be, three spaces between.
#[derive(Debug)]
pub(super) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(super) fn new(head: Vec<&'static str>) -> Self {
        Self {
            head,
            rows: Vec::new(),
        }
    }

    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    #[cfg(test)]
    pub(super) fn is_even(&self) -> bool {
        self.rows.iter().all(|row| row.len() == self.head.len())
    }

    pub(super) fn render(&self, paint: Paint) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.text.chars().count())
                .chain([self.head[column].chars().count()])
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let head: Vec<Cell> = self.head.iter().map(|&text| text.into()).collect();
        let mut lines = Vec::new();
        for (at, row) in std::iter::once(&head).chain(&self.rows).enumerate() {
            let mut line = String::new();
            let mut gap = 0;
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&" ".repeat(gap));
                let text = if at == 0 {
                    paint.bold(&cell.text)
                } else {
                    cell.tone.paint(&cell.text, paint)
                };
                line.push_str(&text);
                gap = width.saturating_sub(cell.text.chars().count()) + 3;
            }
            lines.push(line.trim_end().to_owned());
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other_with_and_without_colour() {
        let mut table = Table::new(vec!["NAME", "STATE", "NEXT"]);
        table.row(vec![
            "nightly".into(),
            Cell::toned("Overdue", Tone::Bad),
            "in 3h".into(),
        ]);
        table.row(vec!["a".into(), Cell::toned("Good", Tone::Good), "".into()]);
        assert_eq!(
            table.render(Paint::new(false)),
            "NAME      STATE     NEXT\nnightly   Overdue   in 3h\na         Good"
        );
        let coloured = table.render(Paint::new(true));
        assert!(coloured.contains("\u{1b}[31mOverdue\u{1b}[0m   in 3h"));
        let plain = coloured
            .replace("\u{1b}[31m", "")
            .replace("\u{1b}[32m", "")
            .replace("\u{1b}[1m", "")
            .replace("\u{1b}[0m", "");
        assert_eq!(plain, table.render(Paint::new(false)));
    }
}
