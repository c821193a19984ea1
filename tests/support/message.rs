//! HTTP messages as they were seen on the wire, by a client or by an upstream.

use std::fmt;
use std::net::SocketAddr;

/// Header fields in the order and the spelling of the wire.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The first value of `name`, compared without case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Whether a list such as `Connection: keep-alive, close` names `token`.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.0
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .flat_map(|(_, value)| value.split(','))
            .any(|item| item.trim().eq_ignore_ascii_case(token))
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(key, value)| (key, value))).finish()
    }
}

/// One request as an upstream received it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Number of the connection, from 0 in the order of accepting.
    pub connection: usize,
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// The request line and the header fields, exactly; empty for HTTP/2.
    pub head: Vec<u8>,
    /// The method.
    pub method: String,
    /// The request target as sent; for HTTP/2 the `:path`.
    pub target: String,
    /// `HTTP/1.1`, `HTTP/1.0` or `HTTP/2`.
    pub version: String,
    /// Header fields; for HTTP/2 with the pseudo header `:authority` first.
    pub headers: Headers,
    /// The body without its transfer coding.
    pub body: Vec<u8>,
    /// Trailer fields.
    pub trailers: Headers,
}

/// One response: as a client received it, or as a fake upstream is told to send it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// `HTTP/1.1`, `HTTP/1.0` or `HTTP/2`.
    pub version: String,
    /// The status code.
    pub status: u16,
    /// Header fields.
    pub headers: Headers,
    /// The body without its transfer coding.
    pub body: Vec<u8>,
    /// Trailer fields.
    pub trailers: Headers,
}

impl Response {
    /// A response with `status` and `body`; a sender adds `content-length` unless the headers frame the body.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Response {
            version: "HTTP/1.1".into(),
            status,
            headers: Headers::default(),
            body: body.into(),
            trailers: Headers::default(),
        }
    }

    /// The same with one more header field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.0.push((name.into(), value.into()));
        self
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The parts of a parsed head: the three words of the first line and the fields.
#[derive(Debug)]
pub struct Head {
    /// The first line, split at its first two spaces.
    pub line: [String; 3],
    /// Header fields.
    pub headers: Headers,
}

/// Splits a head that ends with an empty line.
///
/// # Errors
/// A sentence when the first line or a field is not what HTTP/1 allows.
pub fn parse_head(head: &[u8]) -> Result<Head, String> {
    let text = std::str::from_utf8(head).map_err(|_| "the head is not UTF-8".to_owned())?;
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let mut words = first.splitn(3, ' ').map(str::to_owned);
    let mut word = || words.next().unwrap_or_default();
    let line = [word(), word(), word()];
    if line[1].is_empty() {
        return Err(format!("bad first line: {first:?}"));
    }
    let mut headers = Headers::default();
    for field in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = field.split_once(':').ok_or_else(|| format!("bad header field: {field:?}"))?;
        headers.0.push((name.into(), value.trim().into()));
    }
    Ok(Head { line, headers })
}
