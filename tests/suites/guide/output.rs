//! Whether a command prints what the page says. `...` stands for anything in a line, and for any lines where it is all of a line;
//! `~90` for about 90; how many spaces there are does not matter.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// What stands for something else.
static WILD: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\.\.\.|~(\d+)").expect("a pattern"));

pub(crate) fn fits(said: &str, printed: &str) -> bool {
    let (mut pattern, mut about) = (String::new(), Vec::new());
    for line in said.lines().map(one_space) {
        if line == "..." {
            pattern += r"(?:.*\n)*?";
            continue;
        }
        let mut literal_from = 0;
        for wild in WILD.captures_iter(&line) {
            pattern += &regex::escape(&line[literal_from..wild.get_match().start()]);
            literal_from = wild.get_match().end();
            match number(&wild, 1) {
                Some(number) => {
                    about.push(number);
                    pattern += r"(\d+)";
                }
                None => pattern += ".*?",
            }
        }
        pattern += &regex::escape(&line[literal_from..]);
        pattern += r"\n";
    }
    let printed: String = printed.lines().map(|line| one_space(line) + "\n").collect();
    let found = Regex::new(&format!(r"\A{pattern}\z")).expect("a pattern").captures(&printed);
    let is_about = |found: Captures<'_>| {
        about
            .iter()
            .enumerate()
            .all(|(index, said)| number(&found, index + 1).is_some_and(|it| is_near(*said, it)))
    };
    found.is_some_and(is_about)
}

fn one_space(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn number(captures: &Captures<'_>, group: usize) -> Option<u32> {
    captures.get(group)?.as_str().parse().ok()
}

/// Five standard deviations of a count of independent events: what a right share misses once in a million runs.
fn is_near(said: u32, printed: u32) -> bool {
    f64::from(said.abs_diff(printed)) <= 5.0 * f64::from(said).sqrt()
}

#[test]
fn dots_stand_for_anything_but_nothing_else_does() {
    assert!(fits("pod/web created\n", "pod/web   created\n"));
    assert!(!fits("pod/web created\n", "pod/web created\npod/shop created\n"));
    assert!(fits("...\nweb-... 2/2\n...\n", "NAME READY\nweb-5d4c9 2/2\nend\n"));
    assert!(fits("...\nweb\n...\n", "web\n"));
    assert!(!fits("web-... 2/2\n", "web-5d4c9 1/2\n"));
    assert!(!fits("a.b\n", "axb\n"));
}

#[test]
fn about_is_neither_exactly_nor_any() {
    assert!(fits("~180 v1\n~20 v2\n", " 171 v1\n  29 v2\n"));
    assert!(!fits("~180 v1\n~20 v2\n", " 100 v1\n 100 v2\n"));
    assert!(!fits("~100 v1\n~100 v2\n", " 180 v1\n  20 v2\n"));
    assert!(!fits("~100 v1\n", " v1\n"));
}
