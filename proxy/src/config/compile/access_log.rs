//! Access logs: `FileAccessLog`, `StdoutAccessLog`, `StderrAccessLog`.

use std::collections::HashMap;

use outrigger_xds_api::wire::accesslog::v3 as wire;
use outrigger_xds_api::wire::core::v3::{SubstitutionFormatString, substitution_format_string};
use outrigger_xds_api::wire::extensions::access_loggers::file::v3 as file;
use outrigger_xds_api::wire::extensions::access_loggers::stream::v3 as stream;
use outrigger_xds_api::wire::protobuf::value::Kind;
use outrigger_xds_api::wire::protobuf::{Struct, Value};

use super::cx::{CompileCx, Compiled, ignored, informational, unsupported};
use super::values;
use crate::access_log::{AccessLog, Sink};
use crate::formatter::{CapturePlan, DEFAULT_FORMAT, Format};

/// Compiles the field `access_log`, and which headers the logs print.
pub(crate) fn compile_access_logs(
    cx: &mut CompileCx<'_>,
    logs: &[wire::AccessLog],
) -> Compiled<(Vec<AccessLog>, CapturePlan)> {
    let mut plan = CapturePlan::default();
    let logs = cx.each("access_log", logs, |log, cx| compile_access_log(cx, log, &mut plan))?;
    Ok((logs, plan))
}

fn compile_access_log(
    cx: &mut CompileCx<'_>,
    value: &wire::AccessLog,
    plan: &mut CapturePlan,
) -> Compiled<AccessLog> {
    let wire::AccessLog { name, filter, config_type } = value;
    unsupported!(cx; filter);
    let Some(wire::access_log::ConfigType::TypedConfig(any)) = config_type else {
        return Err(cx.refuse("typed_config", format!("access log '{name}' has no typed_config")));
    };
    cx.field("typed_config", |cx| {
        let (sink, format) = match values::type_name(any) {
            "envoy.extensions.access_loggers.file.v3.FileAccessLog" => {
                let file::FileAccessLog { path, access_log_format } = values::unpack(cx, any)?;
                if path.is_empty() {
                    return Err(cx.refuse("path", "value length must be at least 1 characters"));
                }
                (Sink::path(&path), compile_file_format(cx, &access_log_format, plan)?)
            }
            "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog" => {
                let stream::StdoutAccessLog { access_log_format } = values::unpack(cx, any)?;
                let format = access_log_format.map(|f| match f {
                    stream::stdout_access_log::AccessLogFormat::LogFormat(format) => format,
                });
                (Sink::Stdout, compile_log_format(cx, &format, plan)?)
            }
            "envoy.extensions.access_loggers.stream.v3.StderrAccessLog" => {
                let stream::StderrAccessLog { access_log_format } = values::unpack(cx, any)?;
                let format = access_log_format.map(|f| match f {
                    stream::stderr_access_log::AccessLogFormat::LogFormat(format) => format,
                });
                (Sink::Stderr, compile_log_format(cx, &format, plan)?)
            }
            other => return Err(cx.refuse("@type", format!("access log '{other}' is not supported"))),
        };
        let file = cx.inputs.log_files.open(sink).map_err(|e| cx.refuse("path", e))?;
        Ok(AccessLog::new(format, file))
    })
}

fn compile_file_format(
    cx: &mut CompileCx<'_>,
    value: &Option<file::file_access_log::AccessLogFormat>,
    plan: &mut CapturePlan,
) -> Compiled<Format> {
    use file::file_access_log::AccessLogFormat;
    match value {
        None => compile_log_format(cx, &None, plan),
        Some(AccessLogFormat::LogFormat(format)) => compile_log_format(cx, &Some(format.clone()), plan),
        // Older forms. An empty text is the default format.
        Some(AccessLogFormat::Format(text)) => {
            let text = if text.is_empty() { DEFAULT_FORMAT } else { text };
            Format::compile(text, plan).map_err(|e| cx.refuse("format", e))
        }
        Some(AccessLogFormat::JsonFormat(fields)) => {
            Format::compile_json(&json_object(fields), false, plan).map_err(|e| cx.refuse("json_format", e))
        }
        Some(AccessLogFormat::TypedJsonFormat(fields)) => {
            Format::compile_json(&json_object(fields), false, plan)
                .map_err(|e| cx.refuse("typed_json_format", e))
        }
    }
}

/// `log_format`; unset is Envoy's default format.
fn compile_log_format(
    cx: &mut CompileCx<'_>,
    value: &Option<SubstitutionFormatString>,
    plan: &mut CapturePlan,
) -> Compiled<Format> {
    use substitution_format_string::Format as Wire;
    let Some(value) = value else {
        return Format::compile(DEFAULT_FORMAT, plan).map_err(|e| cx.refuse("log_format", e));
    };
    cx.field("log_format", |cx| {
        let SubstitutionFormatString {
            omit_empty_values,
            content_type,
            formatters,
            json_format_options,
            format,
        } = value;
        unsupported!(cx; formatters);
        // Keys are always sorted: their order is lost on the wire. A content type is for local replies.
        ignored!(cx; content_type);
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
    })
}

/// A `Struct` as JSON, keys sorted.
fn json_object(value: &Struct) -> serde_json::Map<String, serde_json::Value> {
    fn object(fields: &HashMap<String, Value>) -> serde_json::Map<String, serde_json::Value> {
        let mut keys: Vec<&String> = fields.keys().collect();
        keys.sort();
        keys.into_iter().map(|key| (key.clone(), json(&fields[key]))).collect()
    }
    fn json(value: &Value) -> serde_json::Value {
        match &value.kind {
            None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
            Some(Kind::BoolValue(b)) => (*b).into(),
            Some(Kind::NumberValue(n)) => (*n).into(),
            Some(Kind::StringValue(s)) => s.as_str().into(),
            Some(Kind::ListValue(list)) => list.values.iter().map(json).collect(),
            Some(Kind::StructValue(inner)) => serde_json::Value::Object(object(&inner.fields)),
        }
    }
    object(&value.fields)
}
