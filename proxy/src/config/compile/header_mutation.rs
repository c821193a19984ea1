//! `*_headers_to_add` and `*_headers_to_remove`.

use ::http::HeaderName;
use outrigger_xds_api::wire::core::v3 as wire;

use super::cx::{CompileCx, Compiled};
use super::values;
use crate::formatter::{CapturePlan, Format};
use crate::route::{AppendAction, HeaderAddition, HeaderMutations, HeaderText};

/// Which headers are changed, as the fields say it: `request` or `response`.
pub(crate) type Which = &'static str;

/// Compiles the fields `<which>_headers_to_add` and `<which>_headers_to_remove` of one message. `plan` learns what formats print.
pub(crate) fn compile_header_mutations(
    cx: &mut CompileCx<'_>,
    which: Which,
    to_add: &[wire::HeaderValueOption],
    to_remove: &[String],
    plan: &mut CapturePlan,
) -> Compiled<HeaderMutations> {
    let field = |what: &str| format!("{which}_headers_to_{what}");
    let add = cx.each(&field("add"), to_add, |option, cx| compile_addition(option, plan, cx));
    let remove = cx.each(&field("remove"), to_remove, |name, cx| removed_name(cx, name));
    Ok(HeaderMutations { remove: remove?.into(), add: add?.into() })
}

/// Compiles a `HeaderValueOption`.
pub(crate) fn compile_addition(
    value: &wire::HeaderValueOption,
    plan: &mut CapturePlan,
    cx: &mut CompileCx<'_>,
) -> Compiled<HeaderAddition> {
    use wire::header_value_option::HeaderAppendAction as Wire;
    let wire::HeaderValueOption { header, append, append_action, keep_empty_value } = value;
    let action = match (append, values::enumeration(cx, "append_action", *append_action)?) {
        (None, Wire::AppendIfExistsOrAdd) => AppendAction::AppendOrAdd,
        (None, Wire::AddIfAbsent) => AppendAction::AddIfAbsent,
        (None, Wire::OverwriteIfExistsOrAdd) => AppendAction::OverwriteOrAdd,
        (None, Wire::OverwriteIfExists) => AppendAction::OverwriteIfExists,
        (Some(append), Wire::AppendIfExistsOrAdd) if append.value => AppendAction::AppendOrAdd,
        (Some(_), Wire::AppendIfExistsOrAdd) => AppendAction::OverwriteOrAdd,
        (Some(_), _) => {
            return Err(cx.refuse("append", "both append and append_action are set and it's not allowed"));
        }
    };
    let Some(header) = header else {
        return Err(cx.refuse("header", "value is required"));
    };
    let (name, value) = cx.field("header", |cx| compile_header(cx, header, plan))?;
    Ok(HeaderAddition { name, value, action, keep_empty: *keep_empty_value })
}

fn compile_header(
    cx: &mut CompileCx<'_>,
    value: &wire::HeaderValue,
    plan: &mut CapturePlan,
) -> Compiled<(HeaderName, HeaderText)> {
    let wire::HeaderValue { key, value: text, raw_value } = value;
    if !text.is_empty() && !raw_value.is_empty() {
        return Err(cx.refuse("raw_value", "value and raw_value must not both be set"));
    }
    let name = mutable_name(cx, "key", key)?;
    let (field, text) = match raw_value.is_empty() {
        true => ("value", text.as_str()),
        false => {
            let raw = std::str::from_utf8(raw_value).map_err(|_| cx.refuse("raw_value", "not UTF-8"))?;
            ("raw_value", raw)
        }
    };
    Ok((name, compile_header_text(cx, field, text, plan)?))
}

/// Text of a header, which may have commands in it.
pub(crate) fn compile_header_text(
    cx: &mut CompileCx<'_>,
    field: &str,
    text: &str,
    plan: &mut CapturePlan,
) -> Compiled<HeaderText> {
    let value = values::header_value(cx, field, text)?;
    if !text.contains('%') {
        return Ok(HeaderText::Fixed(value));
    }
    Format::compile_text(text, true, plan).map(HeaderText::Format).map_err(|e| cx.refuse(field, e))
}

fn removed_name(cx: &mut CompileCx<'_>, name: &str) -> Compiled<HeaderName> {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        return Err(cx.refuse("", ":-prefixed or host headers may not be removed"));
    }
    header_name(cx, "", name)
}

/// The name of a header that may be changed: what says where the request goes has its own fields.
pub(crate) fn mutable_name(cx: &mut CompileCx<'_>, field: &str, name: &str) -> Compiled<HeaderName> {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        return Err(cx.refuse(field, ":-prefixed or host headers may not be modified"));
    }
    header_name(cx, field, name)
}

/// A header's name.
pub(crate) fn header_name(cx: &mut CompileCx<'_>, field: &str, name: &str) -> Compiled<HeaderName> {
    if name.is_empty() {
        return Err(cx.refuse(field, "value length must be at least 1 characters"));
    }
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| cx.refuse(field, format!("'{name}' is not a header name")))
}
