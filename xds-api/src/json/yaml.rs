//! JSON values as YAML in block style, as `kubectl get -o yaml` lays it out.
//!
//! A text stands without quotes only when every reader takes it for the same text; else it is quoted, or a block when it
//! has lines.

use serde_json::Value;

use super::parse_one;

/// A key with more characters than this is said to be one (YAML 1.2.2 section 7.4.2), else no reader takes it.
const LONGEST_SIMPLE_KEY: usize = 1000;

/// Writes a JSON value as a YAML document, with its last line break.
pub fn write_yaml(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => members(map, 0, out),
        Value::Array(list) if !list.is_empty() => elements(list, 0, out),
        scalar => {
            out.push_str(&inline(scalar, 0));
            out.push('\n');
        }
    }
}

fn members(map: &serde_json::Map<String, Value>, indent: usize, out: &mut String) {
    for (number, (name, value)) in map.iter().enumerate() {
        // The first member stands behind its element's dash.
        if number > 0 {
            pad(indent, out);
        }
        let key = key(name);
        if key.chars().count() > LONGEST_SIMPLE_KEY {
            out.push_str("? ");
            out.push_str(&key);
            out.push('\n');
            pad(indent, out);
        } else {
            out.push_str(&key);
        }
        out.push(':');
        match value {
            Value::Object(map) if !map.is_empty() => {
                out.push('\n');
                pad(indent + 2, out);
                members(map, indent + 2, out);
            }
            // A list stands as deep as its name.
            Value::Array(list) if !list.is_empty() => {
                out.push('\n');
                pad(indent, out);
                elements(list, indent, out);
            }
            scalar => {
                out.push(' ');
                out.push_str(&inline(scalar, indent + 2));
                out.push('\n');
            }
        }
    }
}

fn elements(list: &[Value], indent: usize, out: &mut String) {
    for (number, value) in list.iter().enumerate() {
        if number > 0 {
            pad(indent, out);
        }
        out.push_str("- ");
        match value {
            Value::Object(map) if !map.is_empty() => members(map, indent + 2, out),
            Value::Array(list) if !list.is_empty() => elements(list, indent + 2, out),
            scalar => {
                out.push_str(&inline(scalar, indent + 2));
                out.push('\n');
            }
        }
    }
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// A key has one line.
fn key(name: &str) -> String {
    if is_plain(name) { name.to_owned() } else { quoted(name) }
}

/// A scalar, an empty list or an empty map; the lines of a block are indented.
fn inline(value: &Value, indent: usize) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        Value::String(text) => block(text, indent).unwrap_or_else(|| quoted(text)),
        other => other.to_string(),
    }
}

/// A text of more lines as a block (`|`), when it has nothing that a block would change.
fn block(text: &str, indent: usize) -> Option<String> {
    let (content, header) = match text.strip_suffix('\n') {
        Some(content) => (content, "|"),
        None => (text, "|-"),
    };
    let lines: Vec<&str> = content.split('\n').collect();
    let is_usable = lines.len() > 1
        && lines.iter().all(|line| line.chars().all(is_printable))
        && lines.first().is_some_and(|line| !line.is_empty() && !line.starts_with([' ', '\t']))
        && lines.last().is_some_and(|line| !line.trim().is_empty())
        && !lines.iter().any(|line| !line.is_empty() && line.trim().is_empty());
    is_usable.then(|| {
        let mut block = header.to_owned();
        for line in lines {
            block.push('\n');
            if !line.is_empty() {
                pad(indent, &mut block);
                block.push_str(line);
            }
        }
        block
    })
}

/// In single quotes when that spares escapes; else as JSON writes it, which is YAML, with escapes for what YAML cannot
/// have.
fn quoted(text: &str) -> String {
    if text.contains(['"', '\\']) && text.chars().all(is_printable) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    for c in Value::from(text).to_string().chars() {
        if is_printable(c) {
            quoted.push(c);
        } else {
            quoted.push_str(&format!("\\u{:04x}", u32::from(c)));
        }
    }
    quoted
}

/// What YAML 1.1 and 1.2 have as it is, but for line breaks.
fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Whether a text without quotes is this text for every reader.
fn is_plain(text: &str) -> bool {
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_');
    // Of the signs that mean something only those that do so at the beginning, or in a list or map on one line.
    let inner = |c: char| c.is_ascii_alphanumeric() || "_-./:@=+ [](),;~|*$".contains(c);
    begins
        && text.chars().all(inner)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && parse_one(text).is_ok_and(|node| node.as_str() == Some(text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn written(value: &Value) -> String {
        let mut text = String::new();
        write_yaml(value, &mut text);
        text
    }

    #[track_caller]
    fn comes_back(value: &Value) {
        let text = written(value);
        let read = parse_one(&text).unwrap_or_else(|error| panic!("{error}:\n{text}")).to_json();
        assert_eq!(read, *value, "{text}");
    }

    #[test]
    fn as_kubectl_lays_it_out() {
        let value = serde_json::json!({
            "kind": "Pod",
            "spec": {"containers": [{"name": "a", "args": ["-x", "b c", "yes"], "ports": []}], "count": 1, "e": {}},
            "script": "one\n\n  two\n",
        });
        let expected = "kind: Pod\nspec:\n  containers:\n  - name: a\n    args:\n    - \"-x\"\n    - b c\n    \
                        - \"yes\"\n    ports: []\n  count: 1\n  e: {}\nscript: |\n  one\n\n    two\n";
        assert_eq!(written(&value), expected);
        comes_back(&value);
    }

    #[test]
    fn a_text_stays_a_text() {
        for text in [
            "",
            " ",
            "y",
            "No",
            "null",
            "~",
            "1",
            "0x1f",
            "1.5",
            "1e3",
            ".inf",
            "true",
            "a: b",
            "a:",
            "a #b",
            "- a",
            "#a",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "{a}",
            "[a]",
            "'a'",
            "\"a\"",
            "a\\b",
            "2026-11-21",
            "12:30:45",
            "a\tb",
            "a\u{7f}b",
            "a\u{85}b",
            "\u{feff}a",
            "\u{2028}",
            "ä€😀",
            "a\rb",
            "a\nb",
            "a\n",
            "\n",
            "\na",
            " a\nb",
            "a\n\n",
            "a\n \nb",
            "a\n  b\n c",
            "a\n\tb",
            "---",
            "a\n---\nb",
            "<<",
            "=",
            "app:1",
            "a/b.c-d_e@f",
            "a$(B)",
            "|",
            ">",
            "? a",
            "-",
            ",a",
            "a[0].b",
            "outbound|80||a.b",
            "sidecar~a, b; c (d) *.e$",
            "a]",
            "a,",
        ] {
            comes_back(&serde_json::json!({"a": text, "l": [text, [text]], text: {"b": text}}));
        }
    }

    #[test]
    fn a_long_key_comes_back() {
        for text in ["a".repeat(2000), "\u{1}".repeat(900)] {
            comes_back(&serde_json::json!({
                text.clone(): 1, "b": [{text.clone(): [1]}, {text.clone(): {text.clone(): "c"}}],
            }));
        }
    }

    #[test]
    fn everything_comes_back() {
        fn generate(random: &mut fastrand::Rng, depth: u32) -> Value {
            let letters: Vec<char> = "ab:#-\n \"'{}[]01yn.|>%@\t\\ä\u{85}".chars().collect();
            let text = |random: &mut fastrand::Rng| {
                (0..random.usize(..8)).map(|_| letters[random.usize(..letters.len())]).collect::<String>()
            };
            match random.u8(..if depth > 3 { 5 } else { 9 }) {
                0 => Value::Null,
                1 => random.bool().into(),
                2 => random.i64(..).into(),
                3 | 4 => text(random).into(),
                5 | 6 => (0..random.usize(..4)).map(|_| generate(random, depth + 1)).collect(),
                _ => {
                    let members = (0..random.usize(..4)).map(|_| (text(random), generate(random, depth + 1)));
                    Value::Object(members.collect())
                }
            }
        }
        for seed in 0..5000 {
            comes_back(&generate(&mut fastrand::Rng::with_seed(seed), 0));
        }
    }
}
