//! Unit tests of the YAML reader.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

fn json(text: &str) -> String {
    parse_one(text).unwrap().to_json().to_string()
}

fn error(text: &str) -> String {
    parse_one(text).unwrap_err().to_string()
}

#[test]
fn scalars_resolve_as_in_envoy() {
    let cases = [
        ("5", Value::Int(5)),
        ("-5", Value::Int(-5)),
        ("+5", Value::Int(5)),
        ("0x10", Value::Int(16)),
        ("010", Value::Int(8)),
        ("0", Value::Int(0)),
        ("18446744073709551615", Value::Int(i128::from(u64::MAX))),
        ("true", Value::Bool(true)),
        ("yes", Value::Bool(true)),
        ("OFF", Value::Bool(false)),
        ("~", Value::Null),
        ("null", Value::Null),
        ("", Value::Null),
        ("1.50", Value::Float(Float { value: 1.5, text: "1.50".to_owned() })),
        ("1e3", Value::Float(Float { value: 1e3, text: "1e3".to_owned() })),
    ];
    for (text, expected) in cases {
        assert_eq!(plain_scalar(text), expected, "{text}");
    }
    for text in
        ["089", "0o10", "1_000", "2001-01-01", ".inf", ".nan", "1.2.3", "1e999", "e", ".", "-", "1.5s", "a b"]
    {
        assert_eq!(plain_scalar(text), Value::String(text.to_owned()), "{text}");
    }
    assert_eq!(json(r#"{a: '5', b: "true", c: !!str 5, d: ! 7}"#), r#"{"a":"5","b":"true","c":"5","d":"7"}"#);
}

#[test]
fn positions_are_those_of_the_text() {
    let document = parse_one("a:\n  - b: 1\n    c: {d: x}\n  -   e\nlong_name: {\"q\": 1}\n").unwrap();
    let cases = [
        ("", (1, 1)),
        ("a", (1, 1)),
        ("a[0]", (2, 5)),
        ("a[0].b", (2, 5)),
        ("a[0].c", (3, 5)),
        ("a[0].c.d", (3, 9)),
        ("a[1]", (4, 7)),
        ("longName.q", (5, 13)),
        ("long_name[\"q\"]", (5, 13)),
        // What is not there is as near as it gets.
        ("a[0].missing.deeper", (2, 5)),
        ("a[7]", (1, 1)),
        ("nothing", (1, 1)),
    ];
    for (path, position) in cases {
        assert_eq!(document.locate(path), position, "{path}");
    }
}

#[test]
fn several_documents() {
    let documents = parse("a: 1\n---\n---\nb: 2\n...\n").unwrap();
    let documents: Vec<String> = documents.iter().map(|document| document.to_json().to_string()).collect();
    assert_eq!(documents, [r#"{"a":1}"#, "null", r#"{"b":2}"#]);
    assert!(parse("").unwrap().is_empty());
    assert!(parse("# nothing\n").unwrap().is_empty());
    assert_eq!(error("a: 1\n---\nb: 2\n"), "line 3, column 1: expected one document, there are more");
    assert_eq!(error(""), "line 1, column 1: the text holds no document");
}

#[test]
fn anchors_merges_and_ignored_keys() {
    assert_eq!(json("{a: &x {b: [1]}, c: *x}"), r#"{"a":{"b":[1]},"c":{"b":[1]}}"#);
    assert_eq!(json("{&k a: 1, b: *k}"), r#"{"a":1,"b":"a"}"#);
    let merged = "base: &base {a: 1, b: 2}\none: {<<: *base, b: 3}\ntwo: {c: 4, <<: [{c: 5}, *base]}\n";
    assert_eq!(json(merged), r#"{"base":{"a":1,"b":2},"one":{"b":3,"a":1},"two":{"c":4,"a":1,"b":2}}"#);
    assert_eq!(json("!ignore defs: &x 5\na: *x\n"), r#"{"a":5}"#);
    assert_eq!(json("{'<<': 1}"), r#"{"<<":1}"#);
    assert_eq!(error("{a: 1, <<: 5}"), "line 1, column 12: a merge key takes a map or a list of maps");
}

#[test]
fn broken_texts_are_errors_with_a_position() {
    assert_eq!(error("a: 1\nb: 2\na: 3\n"), "line 3, column 1: duplicate key \"a\"");
    assert_eq!(error("{[1]: 2}"), "line 1, column 2: a key must be a string, not a list or a map");
    assert_eq!(error("a: &x [*x]"), "line 1, column 8: an alias stands inside what it refers to");
    for text in ["a: [", "a: *nowhere", "{a: 1", "a: b: c", "\"", "a\n b: c\n", "%YAML 9"] {
        let error = parse_one(text).unwrap_err();
        assert!(error.line > 0 && error.column > 0, "{text}: {error}");
    }
}

#[test]
fn hostile_texts_cost_little() {
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    assert!(parse_one(&deep).is_err());
    assert!(parse_one(&format!("a: {}", "- ".repeat(5_000))).is_err());
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let last = level - 1;
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", format!("*a{last}, ").repeat(10)));
    }
    assert!(error(&bomb).contains("more than 1000000 values"));
    let mut nested = "a0: &a0 [x]\n".to_owned();
    for level in 1..=MAX_DEPTH {
        nested.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    assert!(error(&nested).contains("nested deeper than 100 levels"));
}

#[test]
fn arbitrary_texts_never_panic() {
    let mut random = fastrand::Rng::with_seed(7);
    let pieces = [
        "a", ":", " ", "\n", "- ", "{", "}", "[", "]", "&x ", "*x", "<<", "!ignore ", "'", "\"", "#",
        "---\n", "é", "\t", "|", ">", ",",
    ];
    for _ in 0..5_000 {
        let length = random.usize(..30);
        let text: String = (0..length).map(|_| pieces[random.usize(..pieces.len())]).collect();
        let _ = parse(&text);
    }
}
