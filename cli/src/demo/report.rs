//! Progress lines while the demo runs, and the table at its end.

use std::time::Instant;

/// What was shown.
#[derive(Debug, Default)]
pub(super) struct Report {
    checks: Vec<(String, bool)>,
    rows: Vec<(String, String)>,
    samples: Vec<(String, Vec<String>)>,
    started: Option<Instant>,
}

impl Report {
    /// A heading.
    pub(super) fn step(&mut self, title: &str) {
        let started = *self.started.get_or_insert_with(Instant::now);
        println!("\n[{:4.1} s] {title}", started.elapsed().as_secs_f64());
    }

    /// A line of news.
    pub(super) fn say(&self, line: &str) {
        println!("         {line}");
    }

    /// A claim, and whether it held.
    pub(super) fn check(&mut self, claim: impl Into<String>, held: bool) {
        let claim = claim.into();
        println!("  {} {claim}", if held { "ok    " } else { "FAILED" });
        self.checks.push((claim, held));
    }

    /// A row of the final table.
    pub(super) fn row(&mut self, name: &str, value: impl Into<String>) {
        self.rows.push((name.into(), value.into()));
    }

    /// Lines to show at the end.
    pub(super) fn sample(&mut self, title: impl Into<String>, lines: Vec<String>) {
        self.samples.push((title.into(), lines));
    }

    pub(super) fn all_held(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|(_, held)| *held)
    }

    pub(super) fn print(&self) {
        for (title, lines) in &self.samples {
            println!("\n{title}");
            for line in lines {
                println!("  {line}");
            }
        }
        let name_width = self.rows.iter().map(|(n, _)| n.len()).max().unwrap_or(0);
        let value_width = self.rows.iter().map(|(_, v)| v.chars().count()).max().unwrap_or(0);
        let rule = format!("+-{}-+-{}-+", "-".repeat(name_width), "-".repeat(value_width));
        println!("\n{rule}");
        for (name, value) in &self.rows {
            println!("| {name:name_width$} | {value:value_width$} |");
        }
        println!("{rule}");
        for (claim, _) in self.checks.iter().filter(|(_, held)| !held) {
            println!("FAILED: {claim}");
        }
    }
}
