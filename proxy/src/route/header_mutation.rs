//! Header changes that configuration asks for: `request_headers_to_add`, `response_headers_to_remove` and their like.

use std::sync::Arc;

use bytes::Bytes;
use http::header::Entry;
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::formatter::{Clock, Format, RequestLine, Values};
use crate::stream_info::StreamInfo;

/// What one place of the configuration changes of a header map: first it takes away, then it sets, then it appends.
#[derive(Debug, Default)]
pub struct HeaderMutations {
    /// `*_headers_to_remove`.
    pub remove: Box<[HeaderName]>,
    /// `*_headers_to_add`.
    pub add: Box<[HeaderAddition]>,
}

/// `envoy.config.core.v3.HeaderValueOption`.
#[derive(Debug)]
pub struct HeaderAddition {
    /// `header.key`.
    pub name: HeaderName,
    /// `header.value` or `header.raw_value`.
    pub value: HeaderText,
    /// `append_action`.
    pub action: AppendAction,
    /// `keep_empty_value`: an empty value is a value.
    pub keep_empty: bool,
}

/// A header's value, or how to make it.
#[derive(Debug)]
pub enum HeaderText {
    /// Text without commands.
    Fixed(HeaderValue),
    /// Text with commands; what is not known is nothing.
    Format(Format),
}

/// `HeaderValueOption.HeaderAppendAction`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendAction {
    /// `APPEND_IF_EXISTS_OR_ADD`.
    AppendOrAdd,
    /// `ADD_IF_ABSENT`.
    AddIfAbsent,
    /// `OVERWRITE_IF_EXISTS_OR_ADD`.
    OverwriteOrAdd,
    /// `OVERWRITE_IF_EXISTS`.
    OverwriteIfExists,
}

/// The changes of several places, in the order in which they are made. Mostly there are none.
pub type MutationSteps = Box<[Arc<HeaderMutations>]>;

/// Whose headers are changed.
#[derive(Debug, Clone, Copy)]
enum Side {
    Request,
    Response,
}

impl HeaderText {
    /// The value; `None` when what the format gives is not allowed in a header.
    pub fn value(&self, values: Values<'_>) -> Option<HeaderValue> {
        match self {
            HeaderText::Fixed(value) => Some(value.clone()),
            HeaderText::Format(format) => {
                let mut text = Vec::new();
                format.append(values, &mut Clock::default(), &mut text);
                HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
            }
        }
    }
}

impl HeaderMutations {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }

    /// Changes the headers of a request.
    pub fn apply_to_request(&self, headers: &mut HeaderMap, line: RequestLine<'_>, info: &StreamInfo) {
        self.apply(headers, Values { line: Some(line), ..info.into() }, Side::Request);
    }

    /// Changes the headers of a response. `values` has what was kept of the request.
    pub fn apply_to_response(&self, headers: &mut HeaderMap, values: Values<'_>) {
        self.apply(headers, values, Side::Response);
    }

    /// All values are made of the headers as they were before any of them is set.
    fn apply(&self, headers: &mut HeaderMap, values: Values<'_>, side: Side) {
        for name in &self.remove {
            headers.remove(name);
        }
        if self.add.is_empty() {
            return;
        }
        let mut made: SmallVec<[Option<HeaderValue>; 4]> = SmallVec::new();
        for addition in &self.add {
            let wanted = match addition.action {
                AppendAction::AppendOrAdd | AppendAction::OverwriteOrAdd => true,
                AppendAction::AddIfAbsent => !headers.contains_key(&addition.name),
                AppendAction::OverwriteIfExists => headers.contains_key(&addition.name),
            };
            let values = match side {
                Side::Request => Values { request: Some(&*headers), ..values },
                Side::Response => Values { response: Some(&*headers), ..values },
            };
            let value = wanted.then(|| addition.value.value(values)).flatten();
            made.push(value.filter(|value| addition.keep_empty || !value.is_empty()));
        }
        let overwrites =
            |a: AppendAction| matches!(a, AppendAction::OverwriteOrAdd | AppendAction::OverwriteIfExists);
        for (addition, value) in self.add.iter().zip(&mut made) {
            if overwrites(addition.action)
                && let Some(value) = value.take()
            {
                headers.insert(addition.name.clone(), value);
            }
        }
        for (addition, value) in self.add.iter().zip(made) {
            if let Some(value) = value {
                match headers.entry(addition.name.clone()) {
                    Entry::Occupied(mut present) => present.append(value),
                    Entry::Vacant(absent) => drop(absent.insert(value)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::formatter::CapturePlan;

    fn addition(name: &'static str, text: &str, action: AppendAction) -> HeaderAddition {
        let format = Format::compile_text(text, true, &mut CapturePlan::live()).unwrap();
        HeaderAddition {
            name: HeaderName::from_static(name),
            value: HeaderText::Format(format),
            action,
            keep_empty: false,
        }
    }

    #[test]
    fn values_are_made_before_any_is_set_and_appended_after_all_are() {
        use AppendAction::*;
        let mutations = HeaderMutations {
            remove: [HeaderName::from_static("x-gone")].into(),
            add: [
                addition("x-a", "appended to %REQ(x-a)%", AppendOrAdd),
                addition("x-a", "set", OverwriteOrAdd),
                addition("x-b", "new", AddIfAbsent),
                addition("x-a", "no", AddIfAbsent),
                addition("x-c", "no", OverwriteIfExists),
                addition("x-d", "%REQ(x-gone)%", AppendOrAdd),
                addition("x-e", "%CONNECTION_ID% %REQ(:PATH)%", AppendOrAdd),
            ]
            .into(),
        };
        let mut headers = HeaderMap::new();
        headers.insert("x-a", HeaderValue::from_static("1"));
        headers.insert("x-gone", HeaderValue::from_static("1"));
        let info = StreamInfo::of_test();
        let line = RequestLine { method: "GET", path: "/p", authority: "h", scheme: "http" };
        mutations.apply_to_request(&mut headers, line, &info);
        let seen: Vec<_> = headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        assert_eq!(seen, ["x-a: set", "x-a: appended to 1", "x-b: new", "x-e: 7 /p"]);
    }
}
