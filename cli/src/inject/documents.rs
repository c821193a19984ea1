//! A text of many YAML documents, cut where they begin, so that each can be passed on as it is.
//!
//! In YAML a line that begins with `---` always begins a document: scalars of more lines are indented, and quoted ones
//! must not contain such a line (YAML 1.2, `c-forbidden`).

/// One document's text, with its separator and the comments around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Document<'a> {
    /// The text, with its last line break.
    pub(super) text: &'a str,
    /// Lines of the whole text before it.
    pub(super) lines_before: u32,
}

/// Cuts a text; the pieces together are the text.
pub(super) fn split(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut position) = (0, 0);
    let (mut lines_before, mut line_number) = (0, 0);
    // Directives belong to the document after the separator that follows them.
    let mut only_directives = false;
    for line in text.split_inclusive('\n') {
        if is_separator(line) && position > start && !only_directives {
            documents.push(Document { text: &text[start..position], lines_before });
            (start, lines_before) = (position, line_number);
        }
        only_directives = line.starts_with('%') || (only_directives && is_empty(line));
        position += line.len();
        line_number += 1;
    }
    if start < text.len() {
        documents.push(Document { text: &text[start..], lines_before });
    }
    documents
}

impl Document<'_> {
    /// The separator and the comments above the object.
    pub(super) fn head(&self) -> String {
        let mut head = String::new();
        for line in self.text.split_inclusive('\n') {
            if is_separator(line) {
                let rest = line.trim_start_matches('\u{feff}')[3..].trim();
                head.push_str(if rest.is_empty() || rest.starts_with('#') { line } else { "---\n" });
                if !(rest.is_empty() || rest.starts_with('#')) {
                    break;
                }
            } else if is_empty(line) || line.starts_with('%') {
                head.push_str(line);
            } else {
                break;
            }
        }
        head
    }

    /// Whether the object is written as JSON.
    pub(super) fn is_json(&self) -> bool {
        let mut lines = self.text.lines();
        let object = lines.find(|line| !is_empty(line) && !line.starts_with('%') && !is_bare_separator(line));
        object.is_some_and(|line| line.trim_start_matches(['\u{feff}', '-', ' ']).starts_with('{'))
    }
}

fn is_separator(line: &str) -> bool {
    let rest = line.trim_start_matches('\u{feff}').strip_prefix("---");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn is_bare_separator(line: &str) -> bool {
    is_separator(line) && is_empty(&line.trim_start_matches('\u{feff}')[3..])
}

/// Nothing, or a comment.
fn is_empty(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_pieces_are_the_text() {
        for (text, count) in [
            ("", 0),
            ("a: 1\n", 1),
            ("---\na: 1\n---\nb: 2\n", 2),
            ("# only a comment\n---\na: 1\n", 2),
            ("%YAML 1.1\n---\na: 1\n---\nb: 1", 2),
            ("a: |\n  ---\n  x\n---\n---\n", 3),
            ("a: 1\r\n---\r\nb: 2\r\n", 2),
            ("---a: 1\n", 1),
            ("--- {a: 1}\n--- # c\nb: 1\n", 2),
        ] {
            let documents = split(text);
            assert_eq!(documents.iter().map(|document| document.text).collect::<String>(), text);
            assert_eq!(documents.len(), count, "{text:?}");
            for document in documents {
                let before = &text[..document.text.as_ptr() as usize - text.as_ptr() as usize];
                assert_eq!(before.matches('\n').count(), document.lines_before as usize, "{text:?}");
            }
        }
    }

    #[test]
    fn heads_and_notations() {
        let of = |text| {
            let document = Document { text, lines_before: 0 };
            (document.head(), document.is_json())
        };
        let is = |head: &str, json| (head.to_owned(), json);
        assert_eq!(of("a: 1\n"), is("", false));
        assert_eq!(of("---\n# Source: x\n\na: 1\n# b\n"), is("---\n# Source: x\n\n", false));
        assert_eq!(of("--- # why\na: 1\n"), is("--- # why\n", false));
        assert_eq!(of("--- {a: 1}\n"), is("---\n", true));
        assert_eq!(of("---\n{\"a\": 1}\n"), is("---\n", true));
        assert_eq!(of("%YAML 1.1\n---\na: {}\n"), is("%YAML 1.1\n---\n", false));
        assert_eq!(of("\u{feff}{\"a\": 1}"), is("", true));
    }
}
