//! `LocalReplyConfig`: what the replies that the proxy makes itself look like.

use ::http::{HeaderValue, StatusCode};
use outrigger_xds_api::wire::core::v3::{SubstitutionFormatString, substitution_format_string};
use outrigger_xds_api::wire::http_connection_manager::v3 as wire;

use super::access_log_filter::compile_filter;
use super::cx::{CompileCx, Compiled};
use super::format_string::compile_format_string;
use super::header_mutation::compile_addition;
use super::values;
use crate::access_log::AccessLogs;
use crate::http::{BodyFormat, LocalReplies, ReplyMapper};
use crate::route::HeaderMutations;

/// Compiles the field `local_reply_config`. What it asks of requests is added to `logs`, which captures for both.
pub(super) fn compile_local_replies(
    cx: &mut CompileCx<'_>,
    value: &wire::LocalReplyConfig,
    logs: &mut AccessLogs,
) -> Compiled<LocalReplies> {
    let wire::LocalReplyConfig { mappers, body_format } = value;
    let mappers = cx.each("mappers", mappers, |mapper, cx| compile_mapper(mapper, logs, cx))?;
    let format = compile_body_format(cx, "body_format", body_format, logs)?;
    Ok(LocalReplies { mappers: mappers.into(), format })
}

fn compile_mapper(
    value: &wire::ResponseMapper,
    logs: &mut AccessLogs,
    cx: &mut CompileCx<'_>,
) -> Compiled<ReplyMapper> {
    let wire::ResponseMapper { filter, status_code, body, body_format_override, headers_to_add } = value;
    let Some(filter) = filter else {
        return Err(cx.refuse("filter", "value is required"));
    };
    let filter = cx.field("filter", |cx| compile_filter(cx, filter, logs));
    // Envoy's validation rules have refused what is no status of an answer.
    let status = status_code.and_then(|code| StatusCode::from_u16(u16::try_from(code.value).ok()?).ok());
    let body = match body {
        Some(body) => Some(cx.field("body", |cx| values::data(cx, body))?.into()),
        None => None,
    };
    let format = compile_body_format(cx, "body_format_override", body_format_override, logs);
    let add = logs.captures.of_local_replies(|plan| {
        cx.each("headers_to_add", headers_to_add, |option, cx| compile_addition(option, plan, cx))
    });
    let headers = HeaderMutations { add: add?.into(), remove: [].into() };
    Ok(ReplyMapper { filter: filter?, status, body, format: format?, headers })
}

fn compile_body_format(
    cx: &mut CompileCx<'_>,
    field: &str,
    value: &Option<SubstitutionFormatString>,
    logs: &mut AccessLogs,
) -> Compiled<Option<BodyFormat>> {
    let Some(value) = value else { return Ok(None) };
    cx.field(field, |cx| {
        let is_json = matches!(value.format, Some(substitution_format_string::Format::JsonFormat(_)));
        let content_type = match (value.content_type.as_str(), is_json) {
            ("", true) => HeaderValue::from_static("application/json"),
            ("", false) => HeaderValue::from_static("text/plain"),
            (text, _) => values::header_value(cx, "content_type", text)?,
        };
        let format = logs.captures.of_local_replies(|plan| compile_format_string(cx, value, plan))?;
        Ok(Some(BodyFormat { format, content_type }))
    })
}
