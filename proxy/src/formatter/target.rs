//! Parts of what a request is for: `%PATH(X:Y):Z%`, `%QUERY_PARAM(X):Z%`, `%QUERY_PARAMS(X):Z%`, `%REQUESTED_SERVER_NAME(X:Y)%`.

use std::borrow::Cow;

use super::append::{Appended, text};
use super::header::Header;
use super::{CapturePlan, Values};

/// Headers of which the first one that is there counts.
type Sources = Vec<Header>;

fn first<'a>(sources: &Sources, values: Values<'a>) -> Option<&'a [u8]> {
    sources.iter().find_map(|header| header.value(values))
}

fn sources(
    option: &str,
    operator: &str,
    original: (&str, &str),
    present: (&str, &str),
    plan: &mut CapturePlan,
) -> Result<Sources, String> {
    let either = format!("{}_OR_{}", original.0, present.0);
    let names: &[&str] = match option {
        option if option == original.0 => &[original.1],
        option if option == present.0 => &[present.1],
        option if option.is_empty() || option == either => &[original.1, present.1],
        option => {
            return Err(format!(
                "Invalid {operator} option: '{option}', only '{}'/'{}'/'{either}' are allowed",
                original.0, present.0
            ));
        }
    };
    names.iter().map(|name| Header::of_request(name, plan)).collect()
}

/// `%PATH(X:Y):Z%`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    with_query: bool,
    sources: Sources,
    length: usize,
}

impl Path {
    pub(super) fn compile(
        parameters: &str,
        length: Option<usize>,
        plan: &mut CapturePlan,
    ) -> Result<Self, String> {
        let (query, source) = parameters.split_once(':').unwrap_or((parameters, ""));
        let with_query = match query {
            "" | "WQ" => true,
            "NQ" => false,
            other => return Err(format!("Invalid PATH option: '{other}', only 'WQ'/'NQ' are allowed")),
        };
        let original = ("ORIG", "x-envoy-original-path");
        let sources = sources(source, "PATH", original, ("PATH", ":path"), plan)?;
        Ok(Self { with_query, sources, length: length.unwrap_or(usize::MAX) })
    }

    pub(super) fn append(&self, values: Values<'_>, out: &mut Vec<u8>) -> Appended {
        let Some(mut path) = first(&self.sources, values) else { return Appended::Empty };
        if !self.with_query {
            path = path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
        }
        out.extend_from_slice(&path[..path.len().min(self.length)]);
        Appended::Text
    }
}

/// Of `:path`, what is behind the question mark.
fn query<'a>(path: &Header, values: Values<'a>) -> Option<&'a [u8]> {
    let path = path.value(values)?;
    let at = path.iter().position(|byte| *byte == b'?')?;
    Some(path[at + 1..].split(|byte| *byte == b'#').next().unwrap_or_default())
}

/// `%QUERY_PARAM(X):Z%`: the first one of this name, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QueryParameter {
    name: Box<str>,
    path: Header,
    length: usize,
}

impl QueryParameter {
    pub(super) fn compile(name: &str, length: Option<usize>, plan: &mut CapturePlan) -> Result<Self, String> {
        if name.is_empty() {
            return Err("QUERY_PARAM requires parameters".into());
        }
        let path = Header::of_request(":path", plan)?;
        Ok(Self { name: name.into(), path, length: length.unwrap_or(usize::MAX) })
    }

    pub(super) fn append(&self, values: Values<'_>, out: &mut Vec<u8>) -> Appended {
        let Some(query) = query(&self.path, values) else { return Appended::Empty };
        let value = query.split(|byte| *byte == b'&').find_map(|pair| {
            let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let (name, value) = pair.split_at(at);
            (*decoded(name) == *self.name.as_bytes()).then(|| decoded(value.get(1..).unwrap_or_default()))
        });
        let Some(value) = value else { return Appended::Empty };
        out.extend_from_slice(&value[..value.len().min(self.length)]);
        Appended::Text
    }
}

/// `%QUERY_PARAMS(X):Z%`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    decoded: bool,
    path: Header,
    length: usize,
}

impl Query {
    pub(super) fn compile(
        option: &str,
        length: Option<usize>,
        plan: &mut CapturePlan,
    ) -> Result<Self, String> {
        let decoded = match option {
            "" | "ORIG" => false,
            "DECODED" => true,
            other => {
                return Err(format!(
                    "Invalid QUERY_PARAMS option: '{other}', only 'ORIG'/'DECODED' are allowed"
                ));
            }
        };
        let path = Header::of_request(":path", plan)?;
        Ok(Self { decoded, path, length: length.unwrap_or(usize::MAX) })
    }

    pub(super) fn append(&self, values: Values<'_>, out: &mut Vec<u8>) -> Appended {
        let Some(query) = query(&self.path, values).filter(|query| !query.is_empty()) else {
            return Appended::Empty;
        };
        let query = if self.decoded { decoded(query) } else { Cow::Borrowed(query) };
        out.extend_from_slice(&query[..query.len().min(self.length)]);
        Appended::Text
    }
}

/// Percent-decoded, but for what no line of a log may have in it.
fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'%') {
        return Cow::Borrowed(text);
    }
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match (text[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) if is_visible((high * 16 + low) as u8) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(decoded)
}

/// Envoy decodes visible ASCII only.
fn is_visible(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~')
}

/// `%REQUESTED_SERVER_NAME(X:Y)%`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerName {
    sni_first: bool,
    hosts: Sources,
}

impl ServerName {
    pub(super) fn compile(parameters: &str, plan: &mut CapturePlan) -> Result<Self, String> {
        let (option, source) = parameters.split_once(':').unwrap_or((parameters, ""));
        let sni_first = match option {
            "" | "SNI_ONLY" => return Ok(Self { sni_first: true, hosts: Vec::new() }),
            "SNI_FIRST" => true,
            "HOST_FIRST" => false,
            other => {
                return Err(format!(
                    "Invalid REQUESTED_SERVER_NAME option: '{other}', only 'SNI_ONLY'/'SNI_FIRST'/'HOST_FIRST' are allowed"
                ));
            }
        };
        let original = ("ORIG", "x-envoy-original-host");
        let hosts = sources(source, "REQUESTED_SERVER_NAME", original, ("HOST", ":authority"), plan)?;
        Ok(Self { sni_first, hosts })
    }

    pub(super) fn append(&self, values: Values<'_>, out: &mut Vec<u8>) -> Appended {
        let sni = values.info.connection.requested_server_name.as_deref();
        match (sni, first(&self.hosts, values)) {
            (sni, Some(host)) if !self.sni_first || sni.is_none() => {
                out.extend_from_slice(host);
                Appended::Text
            }
            (sni, _) => text(sni, out),
        }
    }
}
