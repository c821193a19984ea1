//! What commands print: tables for people; JSON and YAML for scripts.

use std::io::{self, Write as _};

use anyhow::Context;
use clap::{Args, ValueEnum};
use outrigger_xds_api::json;
use serde_json::Value;

/// Between two columns.
const GAP: &str = "   ";

/// The notation of a result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table for people
    #[default]
    Table,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// The flag that chooses it.
#[derive(Debug, Args)]
pub(crate) struct Output {
    /// How the result is written
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT", default_value_t)]
    pub(crate) format: Format,
}

/// Writes to the standard output. That nobody reads on (`| head`) is no failure.
///
/// # Errors
/// It cannot be written.
pub(crate) fn put(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("standard output"),
        _ => Ok(()),
    }
}

/// A value for scripts.
pub(crate) fn value_text(value: &Value, format: Format) -> String {
    match format {
        Format::Yaml => {
            let mut text = String::new();
            json::write_yaml(value, &mut text);
            text
        }
        Format::Json | Format::Table => format!("{value:#}\n"),
    }
}

/// Rows under headings, each column as wide as its widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()] }
    }

    /// One more row, with a cell for each heading.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| printable(&cell)).into());
    }

    /// The text, with its last line break.
    pub(crate) fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            text.push_str(cells.collect::<Vec<_>>().join(GAP).trim_end());
            text.push('\n');
        }
        text
    }
}

/// A text from elsewhere in one line: no sign in it can move the cursor or colour the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// How long ago, in the one unit that a person would say.
pub(crate) fn age(milliseconds: u64) -> String {
    match milliseconds / 1000 {
        0 => format!("{milliseconds}ms"),
        s @ 1..120 => format!("{s}s"),
        s @ 120..7200 => format!("{}m", s / 60),
        s @ 7200..172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// The text at a place of a value, or nothing.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The list at a place of a value, or an empty one.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// `LIST[0], LIST[1]`, the first `most` of them, and how many there are besides.
pub(crate) fn some<'a>(items: impl IntoIterator<Item = &'a str>, most: usize) -> String {
    let items: Vec<&str> = items.into_iter().collect();
    let shown = items[..most.min(items.len())].join(", ");
    match items.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown} + {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "AGE"]);
        table.row(["a-long-name".to_owned(), "1s".to_owned()]);
        table.row(["ä".to_owned(), "\u{1b}[2J\nx".to_owned()]);
        assert_eq!(table.text(), "NAME          AGE\na-long-name   1s\nä              [2J x\n");
    }

    #[test]
    fn ages() {
        for (milliseconds, shown) in [
            (0, "0ms"),
            (999, "999ms"),
            (1000, "1s"),
            (119_999, "119s"),
            (120_000, "2m"),
            (7_200_000, "2h"),
            (200_000_000, "2d"),
        ] {
            assert_eq!(age(milliseconds), shown);
        }
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(some([], 2), "");
        assert_eq!(some(["a", "b"], 2), "a, b");
        assert_eq!(some(["a", "b", "c"], 2), "a, b + 1 more");
    }
}
