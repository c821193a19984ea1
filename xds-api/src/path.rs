//! The path of a field in a message, as in `static_resources.listeners[0].metadata.filter_metadata["a.b"]`.
//!
//! Fields have their proto names, list elements their index, map entries their key in quotes. What is inside an `Any`
//! follows it directly.

use std::fmt::Write;

/// A path that grows and shrinks with a walk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Path(String);

impl Path {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Goes to a field. The result takes the path back: see [`Path::leave`].
    pub(crate) fn enter_field(&mut self, name: &str) -> Mark {
        let mark = Mark(self.0.len());
        if mark.0 > 0 {
            self.0.push('.');
        }
        self.0.push_str(name);
        mark
    }

    /// Goes to an element of a list.
    pub(crate) fn enter_index(&mut self, index: usize) -> Mark {
        let mark = Mark(self.0.len());
        write!(self.0, "[{index}]").ok();
        mark
    }

    /// Goes to an entry of a map.
    pub(crate) fn enter_key(&mut self, key: &str) -> Mark {
        let mark = Mark(self.0.len());
        self.0.push_str("[\"");
        for character in key.chars() {
            if matches!(character, '"' | '\\') {
                self.0.push('\\');
            }
            self.0.push(character);
        }
        self.0.push_str("\"]");
        mark
    }

    /// Goes back to where the path was before.
    pub(crate) fn leave(&mut self, mark: Mark) {
        self.0.truncate(mark.0);
    }
}

/// Where a path was.
#[derive(Debug)]
#[must_use]
pub(crate) struct Mark(usize);

/// One step of a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Field(String),
    Index(usize),
    Key(String),
}

/// The steps of a path; what is not a path ends the list early.
pub(crate) fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        let (step, after) = match rest.strip_prefix('[') {
            Some(inside) => match bracket(inside) {
                Some(found) => found,
                None => break,
            },
            None => {
                let name = rest.strip_prefix('.').unwrap_or(rest);
                let end = name.find(['.', '[']).unwrap_or(name.len());
                (Step::Field(name[..end].to_owned()), &name[end..])
            }
        };
        steps.push(step);
        rest = after;
    }
    steps
}

/// The step in brackets and what follows it.
fn bracket(inside: &str) -> Option<(Step, &str)> {
    let Some(quoted) = inside.strip_prefix('"') else {
        let (index, after) = inside.split_once(']')?;
        return Some((Step::Index(index.parse().ok()?), after));
    };
    let mut key = String::new();
    let mut characters = quoted.char_indices();
    while let Some((position, character)) = characters.next() {
        match character {
            '\\' => key.push(characters.next()?.1),
            '"' => return Some((Step::Key(key), quoted[position + 1..].strip_prefix(']')?)),
            other => key.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn grows_shrinks_and_parses_back() {
        let mut path = Path::default();
        let start = path.enter_field("clusters");
        let _ = path.enter_index(3);
        let map = path.enter_field("map");
        let _ = path.enter_key(r#"a".]\b"#);
        let text = path.as_str().to_owned();
        path.leave(map);
        assert_eq!(path.as_str(), "clusters[3]");
        path.leave(start);
        assert_eq!(text, r#"clusters[3].map["a\".]\\b"]"#);
        assert_eq!(path.as_str(), "");
        let expected = [
            Step::Field("clusters".to_owned()),
            Step::Index(3),
            Step::Field("map".to_owned()),
            Step::Key(r#"a".]\b"#.to_owned()),
        ];
        assert_eq!(steps(&text), expected);
        assert_eq!(steps("a[x].b"), [Step::Field("a".to_owned())]);
        assert_eq!(steps("a[\"x"), [Step::Field("a".to_owned())]);
        assert_eq!(steps(""), []);
    }
}
