//! Headers and trailers: `%REQ(X?Y):Z%`, `%RESP(X?Y):Z%`, `%TRAILER(X?Y):Z%`, and what is made of them.

use http::HeaderValue;
use http::header::HeaderName;

use super::append::{Appended, number};
use super::{CapturePlan, Values};

/// A header that is printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Header {
    Method,
    Path,
    Authority,
    Scheme,
    Status,
    /// Index in the capture plan.
    Request(usize),
    /// Index in the capture plan.
    Response(usize),
    /// Index in the capture plan.
    Trailer(usize),
    /// Of the request that is there.
    LiveRequest(HeaderName),
    /// Of the response that is there.
    LiveResponse(HeaderName),
}

/// `main?alternative`, of which `length` bytes are printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Headers {
    main: Header,
    alternative: Option<Header>,
    length: usize,
}

impl Headers {
    /// Compiles what stands in the brackets of the operator `name`; `compile` finds each header.
    ///
    /// # Errors
    /// In Envoy's words.
    pub(super) fn compile(
        name: &str,
        parameters: &str,
        length: Option<usize>,
        mut compile: impl FnMut(&str) -> Result<Header, String>,
    ) -> Result<Self, String> {
        if parameters.is_empty() {
            return Err(format!("{name} requires parameters"));
        }
        if parameters.contains(['\n', '\r', '\0']) {
            return Err("Invalid header configuration. Format string contains newline.".into());
        }
        let mut names = parameters.split('?');
        let main = compile(names.next().unwrap_or_default())?;
        let alternative = names.next().filter(|name| !name.is_empty()).map(compile).transpose()?;
        if names.next().is_some() {
            return Err(format!("More than 1 alternative header specified in token: {parameters}"));
        }
        Ok(Self { main, alternative, length: length.unwrap_or(usize::MAX) })
    }

    pub(super) fn append(&self, values: Values<'_>, out: &mut Vec<u8>) -> Appended {
        let value = self.main.value(values).or_else(|| self.alternative.as_ref()?.value(values));
        match value {
            Some(value) => {
                out.extend_from_slice(&value[..value.len().min(self.length)]);
                Appended::Text
            }
            // A header is text, this one too.
            None if self.main == Header::Status && values.info.response_code != 0 => {
                number(values.info.response_code.into(), out);
                Appended::Text
            }
            None => Appended::Empty,
        }
    }
}

impl Header {
    pub(super) fn of_request(name: &str, plan: &mut CapturePlan) -> Result<Self, String> {
        let pseudo = match name.to_ascii_lowercase().as_str() {
            ":method" => Header::Method,
            ":path" => Header::Path,
            ":authority" | "host" => Header::Authority,
            ":scheme" => Header::Scheme,
            _ => return Ok(plan.request_header(header_name(name)?)),
        };
        plan.names_request = true;
        Ok(pseudo)
    }

    pub(super) fn of_response(name: &str, plan: &mut CapturePlan) -> Result<Self, String> {
        if name.eq_ignore_ascii_case(":status") {
            return Ok(Header::Status);
        }
        Ok(plan.response_header(header_name(name)?))
    }

    pub(super) fn of_trailers(name: &str, plan: &mut CapturePlan) -> Result<Self, String> {
        plan.response_trailer(header_name(name)?)
    }

    pub(super) fn value<'a>(&self, values: Values<'a>) -> Option<&'a [u8]> {
        fn captured(values: &[Option<HeaderValue>], at: usize) -> Option<&[u8]> {
            Some(values.get(at)?.as_ref()?.as_bytes())
        }
        let info = values.info;
        match (self, &values.line) {
            (Header::Status, _) => None,
            (Header::Response(at), _) => captured(&info.response_headers, *at),
            (Header::Trailer(at), _) => captured(&info.log_details.as_ref()?.trailers, *at),
            (Header::LiveResponse(name), _) => Some(values.response?.get(name)?.as_bytes()),
            (Header::LiveRequest(name), _) => Some(values.request?.get(name)?.as_bytes()),
            (Header::Request(at), _) => captured(&info.request.as_ref()?.headers, *at),
            (Header::Method, Some(line)) => Some(line.method.as_bytes()),
            (Header::Path, Some(line)) => Some(line.path.as_bytes()),
            (Header::Authority, Some(line)) => Some(line.authority.as_bytes()),
            (Header::Scheme, Some(line)) => Some(line.scheme.as_bytes()),
            (pseudo, None) => {
                let request = info.request.as_ref()?;
                match pseudo {
                    Header::Method => Some(request.method.as_str().as_bytes()),
                    Header::Path => Some(request.path.as_ref()?.as_str().as_bytes()),
                    Header::Authority => Some(request.authority.as_ref()?.as_bytes()),
                    _ => Some(request.scheme.as_bytes()).filter(|scheme| !scheme.is_empty()),
                }
            }
        }
    }
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("not a header name: '{name}'"))
}

/// The number that the request's `x-request-id` stands for, the same for every proxy on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestNumber(Header);

impl RequestNumber {
    /// Of streams that are captured by `plan`.
    pub fn new(plan: &mut CapturePlan) -> Self {
        Self(plan.request_header(HeaderName::from_static("x-request-id")))
    }

    /// The first 32 bits of the UUID; `None` when there is none.
    pub(crate) fn of(&self, values: Values<'_>) -> Option<u64> {
        let id = self.0.value(values).filter(|id| id.len() == 36)?;
        u64::from_str_radix(std::str::from_utf8(&id[..8]).ok()?, 16).ok()
    }
}
