//! `regex_rewrite`: a pattern (first line) and a substitution (second line) of a path (the rest).

use outrigger_proxy::fuzzing::regex_rewrite;
use outrigger_xds_api::wire::r#type::matcher::v3::{RegexMatchAndSubstitute, RegexMatcher};
use regex::Captures;

use crate::input::{line, text};

/// Every match becomes the substitution, with RE2's `\N` as the groups and nothing else special.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some(input) = text(bytes) else { return };
    let (pattern, rest) = line(input);
    let (substitution, path) = line(rest);
    let wire = RegexMatchAndSubstitute {
        pattern: Some(RegexMatcher { regex: pattern.to_owned(), ..RegexMatcher::default() }),
        substitution: substitution.to_owned(),
    };
    let Ok(rewrite) = regex_rewrite(&wire) else { return };
    let expected = rewrite.pattern.replace_all(path, |groups: &Captures<'_>| expand(substitution, groups));
    assert_eq!(rewrite.apply(path), expected);
}

fn expand(substitution: &str, groups: &Captures<'_>) -> String {
    let mut out = String::new();
    let mut rest = substitution.chars();
    while let Some(c) = rest.next() {
        match (c, rest.clone().next().and_then(|digit| digit.to_digit(10))) {
            ('\\', Some(group)) => {
                rest.next();
                out.push_str(groups.get(group as usize).map_or("", |group| group.as_str()));
            }
            ('\\', None) => out.extend(rest.next()),
            (c, _) => out.push(c),
        }
    }
    out
}
