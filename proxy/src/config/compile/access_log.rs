//! Access logs: `FileAccessLog`, `StdoutAccessLog`, `StderrAccessLog`.

use outrigger_xds_api::wire::accesslog::v3 as wire;
use outrigger_xds_api::wire::core::v3::SubstitutionFormatString;
use outrigger_xds_api::wire::extensions::access_loggers::file::v3 as file;
use outrigger_xds_api::wire::extensions::access_loggers::stream::v3 as stream;

use super::access_log_filter::compile_filter;
use super::cx::{CompileCx, Compiled};
use super::format_string::compile_format_string;
use super::metadata::json_object;
use super::values;
use crate::access_log::{AccessLog, AccessLogs, Sink};
use crate::formatter::{CapturePlan, DEFAULT_FORMAT, Format};

/// Compiles the field `access_log`. What the logs print is added to `logs`.
pub(crate) fn compile_access_logs(
    cx: &mut CompileCx<'_>,
    values: &[wire::AccessLog],
    captures: CapturePlan,
) -> Compiled<AccessLogs> {
    let mut logs = AccessLogs { captures, ..AccessLogs::default() };
    logs.logs = cx.each("access_log", values, |log, cx| compile_access_log(cx, log, &mut logs))?;
    Ok(logs)
}

fn compile_access_log(
    cx: &mut CompileCx<'_>,
    value: &wire::AccessLog,
    logs: &mut AccessLogs,
) -> Compiled<AccessLog> {
    let wire::AccessLog { name, filter, config_type } = value;
    let filter = match filter {
        Some(filter) => Some(cx.field("filter", |cx| compile_filter(cx, filter, logs))?),
        None => None,
    };
    let plan = &mut logs.captures;
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
        Ok(AccessLog::new(format, filter, file))
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
    let Some(value) = value else {
        return Format::compile(DEFAULT_FORMAT, plan).map_err(|e| cx.refuse("log_format", e));
    };
    cx.field("log_format", |cx| {
        // A content type is for local replies.
        if !value.content_type.is_empty() {
            cx.ignored("content_type");
        }
        compile_format_string(cx, value, plan)
    })
}
