//! `SubstitutionFormatString`: of access logs and of local replies.

use outrigger_xds_api::wire::core::v3::{SubstitutionFormatString, substitution_format_string};

use super::cx::{CompileCx, Compiled, informational, unsupported};
use super::metadata::json_object;
use super::values;
use crate::formatter::{CapturePlan, Format};

/// Compiles a format, at the context's present path; its `content_type` is the caller's.
pub(super) fn compile_format_string(
    cx: &mut CompileCx<'_>,
    value: &SubstitutionFormatString,
    plan: &mut CapturePlan,
) -> Compiled<Format> {
    use substitution_format_string::Format as Wire;
    let SubstitutionFormatString {
        omit_empty_values,
        content_type: _,
        formatters,
        json_format_options,
        format,
    } = value;
    unsupported!(cx; formatters);
    // Keys are always sorted: their order is lost on the wire.
    informational!(json_format_options);
    match format {
        Some(Wire::TextFormat(text)) => {
            Format::compile_text(text, *omit_empty_values, plan).map_err(|e| cx.refuse("text_format", e))
        }
        Some(Wire::TextFormatSource(source)) => cx.field("text_format_source", |cx| {
            let text = String::from_utf8(values::data(cx, source)?)
                .map_err(|_| cx.refuse("", "the format is not UTF-8"))?;
            Format::compile_text(&text, *omit_empty_values, plan).map_err(|e| cx.refuse("", e))
        }),
        Some(Wire::JsonFormat(fields)) => {
            Format::compile_json(&json_object(fields), *omit_empty_values, plan)
                .map_err(|e| cx.refuse("json_format", e))
        }
        None => Err(cx.refuse("", "one of text_format_source or json_format is required")),
    }
}
