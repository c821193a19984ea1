//! What was seen, as text: named blocks that are compared and printed whole.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::UdpSocket;
use std::sync::LazyLock;

use regex::Regex;

use crate::message::{Headers, Request, Response};

/// Named blocks of text in a fixed order.
#[derive(Clone, Debug, Default)]
pub struct View(Vec<(String, String)>);

impl View {
    /// Adds a block.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) {
        self.0.push((name.into(), text.into()));
    }

    /// Adds what a client saw.
    pub fn add_answer(&mut self, name: impl Into<String>, answer: &io::Result<Response>) {
        let text = match answer {
            Ok(response) => render_response(response),
            Err(error) => format!("no response: {:?}\n", error.kind()),
        };
        self.add(name, text);
    }

    /// Adds what an upstream saw.
    pub fn add_requests(&mut self, name: impl Into<String>, requests: &[Request]) {
        self.add(name, requests.iter().map(render_request).collect::<String>());
    }

    /// The names and texts of the blocks.
    pub fn blocks(self) -> Vec<(String, String)> {
        self.0
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no block.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The blocks that differ from the block of the same name in `ours`, and those that one side alone has.
    pub fn differences(&self, ours: &View) -> Vec<Difference> {
        let (theirs, ours) = (self.numbered(), ours.numbered());
        let missing = |block: &str, text: &str, side: char| Difference {
            block: block.into(),
            lines: text.lines().map(|line| format!("{side} {line}\n")).collect::<String>()
                + "  (no such block on the other side)\n",
        };
        let of_theirs =
            theirs.iter().filter_map(|(name, text)| match ours.iter().find(|(other, _)| other == name) {
                Some((_, same)) if same == text => None,
                Some((_, other)) => {
                    Some(Difference { block: name.clone(), lines: line_difference(text, other) })
                }
                None => Some(missing(name, text, '-')),
            });
        let of_ours = ours
            .iter()
            .filter(|(name, _)| !theirs.iter().any(|(other, _)| other == name))
            .map(|(name, text)| missing(name, text, '+'));
        of_theirs.chain(of_ours).collect()
    }

    /// The blocks, the second and later ones of the same name with a number.
    fn numbered(&self) -> Vec<(String, &str)> {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        let blocks = self.0.iter().map(|(name, text)| {
            let count = seen.entry(name).or_default();
            *count += 1;
            let name = if *count == 1 { name.clone() } else { format!("{name} ({count})") };
            (name, text.as_str())
        });
        blocks.collect()
    }
}

/// A block that is not equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The name of the block.
    pub block: String,
    /// Its lines; those of Envoy alone with `-`, ours alone with `+`.
    pub lines: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--- {} (- envoy, + ours)\n{}", self.block, self.lines)
    }
}

/// The lines of both texts in order, by their longest common subsequence. Of a long text only what differs.
fn line_difference(theirs: &str, ours: &str) -> String {
    const WHOLE_UP_TO: usize = 12;
    let (theirs, ours): (Vec<&str>, Vec<&str>) = (theirs.lines().collect(), ours.lines().collect());
    let mut common = vec![vec![0; ours.len() + 1]; theirs.len() + 1];
    for (i, their) in theirs.iter().enumerate().rev() {
        for (j, our) in ours.iter().enumerate().rev() {
            common[i][j] =
                if their == our { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let whole = theirs.len().max(ours.len()) <= WHOLE_UP_TO;
    let (mut i, mut j, mut text) = (0, 0, String::new());
    while i < theirs.len() || j < ours.len() {
        if i < theirs.len() && j < ours.len() && theirs[i] == ours[j] {
            if whole {
                text.push_str(&format!("  {}\n", theirs[i]));
            }
            (i, j) = (i + 1, j + 1);
        } else if j == ours.len() || (i < theirs.len() && common[i + 1][j] >= common[i][j + 1]) {
            text.push_str(&format!("- {}\n", theirs[i]));
            i += 1;
        } else {
            text.push_str(&format!("+ {}\n", ours[j]));
            j += 1;
        }
    }
    text
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, text)| write!(f, "--- {name}:\n{text}"))
    }
}

/// A response without what is different on every run: `date` is gone, times and ids are masked, fields are sorted.
pub fn render_response(response: &Response) -> String {
    let headers = render_headers(&response.headers);
    let trailers = render_trailers(&response.trailers);
    format!("{} {}\n{headers}{}{trailers}", response.version, response.status, render_body(&response.body))
}

/// A request as the upstream saw it, with the same masks.
pub fn render_request(request: &Request) -> String {
    let line = format!("{} {} {}\n", request.method, request.target, request.version);
    let mut headers = request.headers.clone();
    if headers.get("x-envoy-attempt-count").is_some_and(|count| count != "1") {
        // How much of the whole timeout is gone by then is chance.
        for (_, value) in headers.0.iter_mut().filter(|(name, _)| name == "x-envoy-expected-rq-timeout-ms") {
            *value = "(what is left)".into();
        }
    }
    line + &render_headers(&headers) + &render_body(&request.body) + &render_trailers(&request.trailers)
}

fn render_headers(headers: &Headers) -> String {
    let mut lines: Vec<String> = headers
        .0
        .iter()
        .filter(|(name, _)| !name.eq_ignore_ascii_case("date"))
        .map(|(name, value)| format!("  {name}: {}\n", mask_header(name, value)))
        .collect();
    lines.sort();
    lines.concat()
}

fn mask_header<'a>(name: &str, value: &'a str) -> Cow<'a, str> {
    static UUID: LazyLock<Regex> = LazyLock::new(|| regex(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"));
    match name.to_ascii_lowercase().as_str() {
        "x-envoy-upstream-service-time" if value.parse::<u64>().is_ok() => "(ms)".into(),
        "x-request-id" if UUID.is_match(value) => "(uuid)".into(),
        "x-forwarded-for" => mask_own_address(value),
        _ => value.into(),
    }
}

/// Envoy takes the machine's own address for a client on loopback; a pod has no such client.
fn mask_own_address(text: &str) -> Cow<'_, str> {
    static OWN: LazyLock<Option<String>> = LazyLock::new(|| {
        // No packet is sent: the kernel only picks the address that it would send from.
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect("203.0.113.1:9").ok()?;
        Some(socket.local_addr().ok()?.ip().to_string())
    });
    match OWN.as_deref() {
        Some(own) if text.contains(own) => text.replace(own, "127.0.0.1").into(),
        _ => text.into(),
    }
}

fn render_trailers(trailers: &Headers) -> String {
    if trailers.0.is_empty() { String::new() } else { format!("trailers\n{}", render_headers(trailers)) }
}

fn render_body(body: &[u8]) -> String {
    if body.is_empty() {
        String::new()
    } else if body.len() > 2000 {
        let sum = body.iter().fold(0u32, |sum, byte| sum.rotate_left(5) ^ u32::from(*byte));
        format!("  ({} bytes, checksum {sum:08x})\n", body.len())
    } else {
        format!("  {:?}\n", String::from_utf8_lossy(body))
    }
}

/// An access log line in Envoy's default or Istio's format without what is different on every run: the time, the
/// three durations, generated request ids, and ports of client sockets (in the range that the kernel takes them from).
pub fn mask_log_line(line: &str) -> String {
    static TIME: LazyLock<Regex> = LazyLock::new(|| regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"));
    static UUID: LazyLock<Regex> = LazyLock::new(|| regex(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"));
    // BYTES_RECEIVED BYTES_SENT DURATION UPSTREAM_SERVICE_TIME "X-FORWARDED-FOR"
    static TIMES: LazyLock<Regex> = LazyLock::new(|| regex(r#" (\d+) (\d+) \d+ (\d+|-) ""#));
    static CLIENT_PORT: LazyLock<Regex> = LazyLock::new(|| regex(r"\b127\.0\.0\.1:\d+"));
    let line = TIME.replace_all(line, "(time)");
    let line = UUID.replace_all(&line, "(uuid)");
    let line = TIMES.replace(&line, |found: &regex::Captures<'_>| {
        let upstream = if &found[3] == "-" { "-" } else { "(ms)" };
        format!(" {} {} (ms) {upstream} \"", &found[1], &found[2])
    });
    let line = mask_own_address(&line);
    CLIENT_PORT.replace_all(&line, "127.0.0.1:(port)").into_owned()
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a regular expression")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_from_run_to_run_is_masked_in_a_log_line() {
        let line = r#"[2026-01-02T03:04:05.678Z] "GET / HTTP/1.1" 200 - 0 12 7 3 "-" "-" "0a1b2c3d-0a1b-4a1b-8a1b-0a1b2c3d4e5f" "h" "127.9.8.7:80""#;
        let masked = r#"[(time)] "GET / HTTP/1.1" 200 - 0 12 (ms) (ms) "-" "-" "(uuid)" "h" "127.9.8.7:80""#;
        assert_eq!(mask_log_line(line), masked);
    }

    #[test]
    fn a_difference_shows_the_lines_of_each_side() {
        assert_eq!(line_difference("a\nb\nc\n", "a\nx\nc\nd\n"), "  a\n- b\n+ x\n  c\n+ d\n");
        assert_eq!(
            line_difference(&"same\n".repeat(20), &("same\n".repeat(19) + "other\n")),
            "- same\n+ other\n"
        );
    }

    #[test]
    fn a_header_a_status_and_a_body_make_a_difference() {
        let seen = |response: Response| {
            let mut view = View::default();
            view.add_answer("x", &Ok(response));
            view
        };
        let base = || Response::new(200, "ok").header("a", "1").header("b", "2");
        let equal = |other: Response| seen(base()).differences(&seen(other)).is_empty();
        assert!(equal(base()));
        assert!(equal(Response::new(200, "ok").header("b", "2").header("a", "1").header("date", "today")));
        assert!(!equal(base().header("c", "3")));
        assert!(!equal(Response::new(200, "ok").header("A", "1").header("b", "2")));
        assert!(!equal(Response { status: 201, ..base() }));
        assert!(!equal(Response { body: b"no".into(), ..base() }));
        assert!(!seen(base()).differences(&View::default()).is_empty());
    }
}
