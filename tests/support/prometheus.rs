//! The text exposition of Prometheus, parsed into samples.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::tools::require_tool;

/// One line of a scrape.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The name of the series, for histograms with `_bucket`, `_sum` or `_count`.
    pub name: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

/// All samples of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Scrape(pub Vec<Sample>);

impl Scrape {
    /// Parses an exposition.
    ///
    /// # Errors
    /// The first line that is no comment and no sample.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines
            .map(|line| parse_line(line).ok_or_else(|| format!("not a sample: {line}")))
            .collect::<Result<_, _>>()
            .map(Scrape)
    }

    /// The samples called `name` that have all of `labels`.
    pub fn select<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).map(String::as_str) == Some(value))
        })
    }

    /// The sum over [`Scrape::select`]; 0 when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.select(name, labels).map(|sample| sample.value).sum()
    }
}

/// What `promtool check metrics` says about an exposition; `None` when it is not installed.
///
/// It would have other units in names that Envoy and Istio gave and that dashboards read
/// (`istio_request_duration_milliseconds`); that alone is left out.
pub fn complaints(exposition: &[u8]) -> Option<Vec<String>> {
    const NAMES_OF_OTHERS: [&str; 2] = ["use base unit", "should not contain abbreviated units"];
    let mut check = Command::new(require_tool("promtool")?)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start promtool");
    check.stdin.take().expect("a pipe").write_all(exposition).expect("write to promtool");
    let output = check.wait_with_output().expect("promtool");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let lines = said.lines().filter(|line| !line.is_empty());
    Some(
        lines
            .filter(|line| !NAMES_OF_OTHERS.iter().any(|part| line.contains(part)))
            .map(str::to_owned)
            .collect(),
    )
}

fn parse_line(line: &str) -> Option<Sample> {
    let name_end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(name_end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.into(), labels, value })
}

/// Parses `a="b",c="d"}` and gives what follows the brace.
fn parse_labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (key, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        loop {
            match chars.next()? {
                (end, '"') => {
                    rest = &quoted[end + 1..];
                    break;
                }
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        }
        labels.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::Scrape;

    #[test]
    fn labels_with_escapes_and_values_of_all_kinds() {
        let text = "# HELP a b\na{x=\"1,}\\\"\\n\",y=\"\"} 2\na{x=\"z\"} 3 1700000000\nb +Inf\nc 1.5e3\n";
        let scrape = Scrape::parse(text).unwrap();
        assert_eq!(scrape.sum("a", &[]), 5.0);
        assert_eq!(scrape.sum("a", &[("x", "1,}\"\n")]), 2.0);
        assert_eq!(scrape.sum("b", &[]), f64::INFINITY);
        assert_eq!(scrape.sum("c", &[]), 1500.0);
        assert_eq!(scrape.sum("d", &[]), 0.0);
    }

    #[test]
    fn a_line_without_a_value_is_refused() {
        assert_eq!(Scrape::parse("a{x=\"1\"}\n").unwrap_err(), "not a sample: a{x=\"1\"}");
    }
}
