//! Statuses of HTTP: one, or all of a hundred.

use crate::api::Refusal;
use crate::model::StatusRange;

/// How one entry is written.
pub(super) const FORM: &str = "^([1-5][0-9]{2}|[1-5]xx)$";
/// The most entries of a list.
pub(super) const MOST: usize = 16;

pub(super) fn read(texts: &[String], field: &str) -> Result<Vec<StatusRange>, Refusal> {
    if texts.is_empty() || texts.len() > MOST {
        return Err(Refusal::new(field, format!("must have 1 to {MOST} entries")));
    }
    let range = |(index, text): (usize, &String)| {
        parse(text).ok_or_else(|| {
            let reason = format!("{text:?} is neither a status like 429 nor all of a hundred like 5xx");
            Refusal::new(format!("{field}[{index}]"), reason)
        })
    };
    texts.iter().enumerate().map(range).collect()
}

fn parse(text: &str) -> Option<StatusRange> {
    let has_form = regex::Regex::new(FORM).is_ok_and(|form| form.is_match(text));
    if !has_form {
        return None;
    }
    let range = match text.strip_suffix("xx") {
        Some(hundred) => {
            let start = hundred.parse::<u16>().ok()? * 100;
            start..start + 100
        }
        None => {
            let status = text.parse::<u16>().ok()?;
            status..status + 1
        }
    };
    Some(StatusRange { start: range.start, end: range.end })
}
