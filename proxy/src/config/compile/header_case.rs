//! `header_key_format` of `http_protocol_options`.

use outrigger_xds_api::wire::core::v3::http1_protocol_options as wire;
use outrigger_xds_api::wire::core::v3::http1_protocol_options::header_key_format::HeaderFormat;
use outrigger_xds_api::wire::extensions::http::header_formatters::preserve_case::v3::{
    PreserveCaseFormatterConfig, preserve_case_formatter_config::FormatterTypeOnEnvoyHeaders,
};

use super::cx::{CompileCx, Compiled};
use super::values;
use crate::cluster::HeaderCase;

/// Compiles it, at the context's present path.
pub(crate) fn compile_header_case(
    cx: &mut CompileCx<'_>,
    value: &Option<wire::HeaderKeyFormat>,
) -> Compiled<HeaderCase> {
    match value.as_ref().map(|format| &format.header_format) {
        // An empty one is refused by the schema's own rules.
        None | Some(None) => Ok(HeaderCase::default()),
        Some(Some(HeaderFormat::ProperCaseWords(_))) => Ok(HeaderCase { keeps: false, proper: true }),
        Some(Some(HeaderFormat::StatefulFormatter(extension))) => cx.field("stateful_formatter", |cx| {
            let Some(any) = &extension.typed_config else {
                return Err(cx.refuse("typed_config", "value is required"));
            };
            cx.field("typed_config", |cx| match values::type_name(any) {
                "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig" => {
                    let PreserveCaseFormatterConfig {
                        forward_reason_phrase,
                        formatter_type_on_envoy_headers,
                    } = values::unpack(cx, any)?;
                    if forward_reason_phrase {
                        cx.refuse("forward_reason_phrase", "not supported");
                    }
                    let name = "formatter_type_on_envoy_headers";
                    let kind = values::enumeration::<FormatterTypeOnEnvoyHeaders>(
                        cx,
                        name,
                        formatter_type_on_envoy_headers,
                    )?;
                    Ok(HeaderCase { keeps: true, proper: kind == FormatterTypeOnEnvoyHeaders::ProperCase })
                }
                other => Err(cx.refuse("@type", format!("header formatter '{other}' is not supported"))),
            })
        }),
    }
}
