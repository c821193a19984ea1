//! `%GRPC_STATUS(format)%`: from the trailers, else from the headers, else what stands for the HTTP status.

use super::append::{Appended, number, text};
use super::header::Header;
use super::{CapturePlan, Values};
use crate::stream_info::grpc_status_of_http;

/// How a status is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Camel,
    Snake,
    Number,
}

/// Where the status of a gRPC response is, and how it is printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcStatus {
    content_type: Header,
    trailer: Header,
    header: Header,
    form: Form,
}

const NAMES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

impl GrpcStatus {
    /// Compiles what stands in the brackets.
    ///
    /// # Errors
    /// In Envoy's words, and where there are no trailers to look at.
    pub(crate) fn compile(form: &str, plan: &mut CapturePlan) -> Result<Self, String> {
        let form = match form {
            "" | "CAMEL_STRING" => Form::Camel,
            "SNAKE_STRING" => Form::Snake,
            "NUMBER" => Form::Number,
            other => {
                return Err(format!(
                    "GrpcStatusFormatter only supports CAMEL_STRING, SNAKE_STRING or NUMBER. Got: {other}"
                ));
            }
        };
        Ok(Self {
            content_type: Header::of_request("content-type", plan)?,
            trailer: Header::of_trailers("grpc-status", plan)?,
            header: Header::of_response("grpc-status", plan)?,
            form,
        })
    }

    /// The status; `None` for what is not gRPC.
    pub(crate) fn of(&self, values: Values<'_>) -> Option<u32> {
        let kind = self.content_type.value(values)?.strip_prefix(b"application/grpc")?;
        if !kind.is_empty() && kind[0] != b'+' {
            return None;
        }
        self.of_any(values)
    }

    /// The same, whatever the request was.
    pub(crate) fn of_any(&self, values: Values<'_>) -> Option<u32> {
        let value = self.trailer.value(values).or_else(|| self.header.value(values));
        match value {
            Some(value) => std::str::from_utf8(value).ok()?.parse().ok(),
            None if values.info.response_code != 0 => {
                Some(grpc_status_of_http(values.info.response_code).into())
            }
            None => None,
        }
    }

    pub(super) fn append(&self, values: Values<'_>, out: &mut Vec<u8>) -> Appended {
        let Some(status) = self.of(values) else { return Appended::Empty };
        let names = NAMES.get(status as usize);
        match (self.form, names) {
            (Form::Number, _) => number(status.into(), out),
            (Form::Camel, Some((camel, _))) => text(Some(camel), out),
            (Form::Snake, Some((_, snake))) => text(Some(snake), out),
            (_, None) => {
                number(status.into(), out);
                Appended::Text
            }
        }
    }
}
