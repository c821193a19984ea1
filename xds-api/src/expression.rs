//! Regular expressions of the wire: RE2's syntax, as the `regex` crate reads it. Both the proxy that runs them and the control plane that
//! promises that they run read them here.
//!
//! RE2's `\d`, `\w`, `\s` and `\b` know ASCII alone. The crate's know all of Unicode: more would match, and a counted `\w` would be
//! too large for any limit.

use std::convert::Infallible;

use regex::{Regex, RegexBuilder};
use regex_syntax::ast::parse::Parser;
use regex_syntax::ast::{self, AssertionKind, Ast, ClassPerl, ClassPerlKind, ClassSetItem, Span, Visitor};

/// Most bytes that a compiled expression may take.
const MOST_BYTES: usize = 1 << 20;

/// An expression that must match the whole input, as in all matchers (`RE2::FullMatch`).
///
/// # Errors
/// What is wrong, without the expression: it is malformed, or takes more than 1 MiB compiled.
pub fn of_all(pattern: &str) -> Result<Regex, String> {
    compile(pattern, |ascii| format!(r"\A(?:{ascii})\z"))
}

/// An expression that is looked for in the input, as in rewrites.
///
/// # Errors
/// As [`of_all`].
pub fn of_parts(pattern: &str) -> Result<Regex, String> {
    compile(pattern, |ascii| ascii)
}

/// What takes the place of what an expression finds: RE2's `\1` as the regex crate's `${1}`. `groups` is the expression's `captures_len`.
///
/// # Errors
/// What is wrong, without the text: a backslash stands before what is neither a group of the expression nor a backslash.
pub fn substitution(text: &str, groups: usize) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '$' => out.push_str("$$"),
            '\\' => match characters.next() {
                Some('\\') => out.push('\\'),
                Some(digit) if digit.to_digit(10).is_some_and(|group| (group as usize) < groups) => {
                    out.extend(["${", digit.encode_utf8(&mut [0; 4]), "}"]);
                }
                _ => {
                    let last = groups.saturating_sub(1);
                    return Err(format!(
                        "a backslash must be followed by a group (0 to {last}) or a backslash"
                    ));
                }
            },
            other => out.push(other),
        }
    }
    Ok(out)
}

fn compile(pattern: &str, form: impl Fn(String) -> String) -> Result<Regex, String> {
    let refused = |error: &dyn std::fmt::Display| {
        // The first lines of the message draw a picture; the last one says what is wrong.
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        reason.to_owned()
    };
    let parsed = Parser::new().parse(pattern).map_err(|error| refused(&error))?;
    let Ok(replacements) = ast::visit(&parsed, AsciiClasses::default());
    let mut ascii = pattern.to_owned();
    for (span, replacement) in replacements.into_iter().rev() {
        ascii.replace_range(span.start.offset..span.end.offset, replacement);
    }
    RegexBuilder::new(&form(ascii)).size_limit(MOST_BYTES).build().map_err(|error| refused(&error))
}

/// Finds, from left to right, what is to stand for what has another meaning in RE2.
#[derive(Default)]
struct AsciiClasses(Vec<(Span, &'static str)>);

impl AsciiClasses {
    fn class(&mut self, class: &ClassPerl) {
        let ascii = match (&class.kind, class.negated) {
            (ClassPerlKind::Digit, false) => "[0-9]",
            (ClassPerlKind::Digit, true) => "[^0-9]",
            (ClassPerlKind::Word, false) => "[0-9A-Za-z_]",
            (ClassPerlKind::Word, true) => "[^0-9A-Za-z_]",
            (ClassPerlKind::Space, false) => r"[\t\n\f\r ]",
            (ClassPerlKind::Space, true) => r"[^\t\n\f\r ]",
        };
        self.0.push((class.span, ascii));
    }
}

impl Visitor for AsciiClasses {
    type Output = Vec<(Span, &'static str)>;
    type Err = Infallible;

    fn finish(self) -> Result<Self::Output, Infallible> {
        Ok(self.0)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), Infallible> {
        match ast {
            Ast::ClassPerl(class) => self.class(class),
            Ast::Assertion(assertion) => match assertion.kind {
                AssertionKind::WordBoundary => self.0.push((assertion.span, r"(?-u:\b)")),
                AssertionKind::NotWordBoundary => self.0.push((assertion.span, r"(?-u:\B)")),
                _ => {}
            },
            _ => {}
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), Infallible> {
        if let ClassSetItem::Perl(class) = item {
            self.class(class);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn classes_know_ascii_alone() {
        for (pattern, yes, no) in [
            (r"\d+", "09", "٣"),
            (r"\w+", "a_Z9", "é"),
            (r"[\w-]{1,64}", "a-b", "é"),
            (r"[^\s\d]", "é", "7"),
            (r"\S", "é", "\t"),
            (r"[\W]", "é", "_"),
            (r"\s", " ", "\u{a0}"),
            (r"é.", "éé", "é"),
            (r"a|b", "b", "ab"),
            ("(?i)é", "É", "e"),
        ] {
            let expression = of_all(pattern).unwrap();
            assert!(expression.is_match(yes), "{pattern} {yes}");
            assert!(!expression.is_match(no), "{pattern} {no}");
        }
        assert_eq!(of_parts(r"\bé\b").unwrap().find("é"), None);
        assert_eq!(of_parts(r"\Bé").unwrap().find("é").unwrap().as_str(), "é");
    }

    #[test]
    fn substitutions_name_groups_that_are_there() {
        assert_eq!(substitution(r"/\1\\$\0", 2).unwrap(), r"/${1}\$$${0}");
        for wrong in [r"\2", r"\x", "a\\"] {
            let reason = substitution(wrong, 2).unwrap_err();
            assert_eq!(reason, "a backslash must be followed by a group (0 to 1) or a backslash");
        }
    }

    #[test]
    fn what_users_count_is_small_enough_and_what_is_too_large_is_told() {
        for pattern in [r"\w{36}", r"/users/[\w-]{1,64}", r"\d{1,200}\.\S{100}"] {
            assert!(of_all(pattern).is_ok() && of_parts(pattern).is_ok(), "{pattern}");
        }
        let too_large = of_all(r"\pL{1000}").unwrap_err();
        assert!(too_large.contains("size limit"), "{too_large}");
        assert_eq!(of_all("a(").unwrap_err(), "unclosed group");
    }
}
