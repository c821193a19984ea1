//! `AccessLogFilter`: of access logs, and of the mappers of local replies. Envoy's validation rules have seen the lengths of its lists and texts.

use outrigger_xds_api::wire::accesslog::v3 as wire;
use outrigger_xds_api::wire::core::v3::RuntimeUInt32;
use outrigger_xds_api::wire::data::accesslog::v3::AccessLogType as WireType;
use outrigger_xds_api::wire::r#type::v3::FractionalPercent;
use outrigger_xds_api::wire::r#type::v3::fractional_percent::DenominatorType;

use super::cx::{CompileCx, Compiled, informational};
use super::route_match::compile_header_matcher;
use super::values;
use crate::access_log::{AccessLogs, Comparison, LogFilter, Operator};
use crate::formatter::{GrpcStatus, RequestNumber};
use crate::route::RequestView;
use crate::stream_info::{AccessLogType, ResponseFlags};

/// Matchers of requests that one network filter may have: the bits of a number.
const MAX_MATCHERS: usize = 64;

/// Compiles the field `filter`. What it asks of requests is added to `logs`.
pub(super) fn compile_filter(
    cx: &mut CompileCx<'_>,
    value: &wire::AccessLogFilter,
    logs: &mut AccessLogs,
) -> Compiled<LogFilter> {
    use wire::access_log_filter::FilterSpecifier as Filter;
    let wire::AccessLogFilter { filter_specifier } = value;
    let Some(filter) = filter_specifier else {
        return Err(cx.refuse("", "a filter is required"));
    };
    match filter {
        Filter::StatusCodeFilter(wire::StatusCodeFilter { comparison }) => {
            cx.field("status_code_filter", |cx| compile_comparison(cx, comparison)).map(LogFilter::StatusCode)
        }
        Filter::DurationFilter(wire::DurationFilter { comparison }) => {
            cx.field("duration_filter", |cx| compile_comparison(cx, comparison)).map(LogFilter::Duration)
        }
        Filter::NotHealthCheckFilter(wire::NotHealthCheckFilter {}) => Ok(LogFilter::NotHealthCheck),
        Filter::TraceableFilter(wire::TraceableFilter {}) => {
            // Nothing is traced, so no line is ever written: as in an Envoy without tracing.
            cx.ignored("traceable_filter");
            Ok(LogFilter::Constant(false))
        }
        Filter::RuntimeFilter(filter) => cx.field("runtime_filter", |cx| compile_runtime(cx, filter, logs)),
        Filter::AndFilter(wire::AndFilter { filters }) => {
            cx.field("and_filter", |cx| compile_several(cx, filters, logs)).map(LogFilter::All)
        }
        Filter::OrFilter(wire::OrFilter { filters }) => {
            cx.field("or_filter", |cx| compile_several(cx, filters, logs)).map(LogFilter::Any)
        }
        Filter::HeaderFilter(filter) => cx.field("header_filter", |cx| compile_header(cx, filter, logs)),
        Filter::ResponseFlagFilter(wire::ResponseFlagFilter { flags }) => Ok(compile_flags(flags)),
        Filter::GrpcStatusFilter(filter) => {
            cx.field("grpc_status_filter", |cx| compile_grpc_status(cx, filter, logs))
        }
        Filter::MetadataFilter(wire::MetadataFilter { matcher, match_if_key_not_found }) => {
            // No filter here gives a stream metadata, so no key is ever found.
            informational!(matcher);
            Ok(LogFilter::Constant(values::boolean(match_if_key_not_found, true)))
        }
        Filter::LogTypeFilter(wire::LogTypeFilter { types, exclude }) => {
            let among = cx.field("log_type_filter", |cx| {
                cx.each("types", types, |value, cx| values::enumeration::<WireType>(cx, "", *value))
            })?;
            let among = among.into_iter().filter_map(log_type).collect();
            Ok(LogFilter::LogType { among, exclude: *exclude })
        }
        Filter::ExtensionFilter(_) => Err(cx.refuse("extension_filter", "not supported")),
    }
}

fn compile_several(
    cx: &mut CompileCx<'_>,
    filters: &[wire::AccessLogFilter],
    logs: &mut AccessLogs,
) -> Compiled<Box<[LogFilter]>> {
    cx.each("filters", filters, |filter, cx| compile_filter(cx, filter, logs)).map(Into::into)
}

fn compile_comparison(
    cx: &mut CompileCx<'_>,
    value: &Option<wire::ComparisonFilter>,
) -> Compiled<Comparison> {
    use wire::comparison_filter::Op;
    let Some(wire::ComparisonFilter { op, value }) = value else {
        return Err(cx.refuse("comparison", "value is required"));
    };
    cx.field("comparison", |cx| {
        let operator = match values::enumeration::<Op>(cx, "op", *op)? {
            Op::Eq => Operator::Equal,
            Op::Ge => Operator::AtLeast,
            Op::Le => Operator::AtMost,
            Op::Ne => Operator::NotEqual,
        };
        let Some(RuntimeUInt32 { default_value, runtime_key }) = value else {
            return Err(cx.refuse("value", "value is required"));
        };
        // There is no runtime to look the key up in, so the default holds.
        informational!(runtime_key);
        Ok(Comparison { operator, value: (*default_value).into() })
    })
}

fn compile_runtime(
    cx: &mut CompileCx<'_>,
    value: &wire::RuntimeFilter,
    logs: &mut AccessLogs,
) -> Compiled<LogFilter> {
    let wire::RuntimeFilter { runtime_key, percent_sampled, use_independent_randomness } = value;
    informational!(runtime_key);
    let FractionalPercent { numerator, denominator } = percent_sampled.unwrap_or_default();
    let denominator = match values::enumeration(cx, "percent_sampled.denominator", denominator)? {
        DenominatorType::Hundred => 100,
        DenominatorType::TenThousand => 10_000,
        DenominatorType::Million => 1_000_000,
    };
    let of_request = (!use_independent_randomness).then(|| RequestNumber::new(&mut logs.captures));
    Ok(LogFilter::Sample { numerator: numerator.into(), denominator, of_request })
}

fn compile_header(
    cx: &mut CompileCx<'_>,
    value: &wire::HeaderFilter,
    logs: &mut AccessLogs,
) -> Compiled<LogFilter> {
    let wire::HeaderFilter { header } = value;
    let Some(header) = header else {
        return Err(cx.refuse("header", "value is required"));
    };
    let compiled = cx.field("header", |cx| compile_header_matcher(header, cx))?;
    if logs.matchers.len() == MAX_MATCHERS {
        return Err(cx.refuse("header", format!("more than {MAX_MATCHERS} header filters")));
    }
    let nothing = http::HeaderMap::new();
    let without_request = compiled.matches(&RequestView {
        method: "",
        path: "",
        authority: "",
        scheme: "",
        headers: &nothing,
        random_ppm: 0,
        peer: Default::default(),
    });
    logs.matchers.push(compiled);
    Ok(LogFilter::Header { matcher: logs.matchers.len() as u32 - 1, without_request })
}

/// Flags that nothing here ever sets are no flags of ours.
fn compile_flags(codes: &[String]) -> LogFilter {
    let mut among = ResponseFlags::NONE;
    codes.iter().filter_map(|code| ResponseFlags::of_code(code)).for_each(|flag| among.insert(flag));
    LogFilter::ResponseFlag((!codes.is_empty()).then_some(among))
}

fn compile_grpc_status(
    cx: &mut CompileCx<'_>,
    value: &wire::GrpcStatusFilter,
    logs: &mut AccessLogs,
) -> Compiled<LogFilter> {
    use wire::grpc_status_filter::Status;
    let wire::GrpcStatusFilter { statuses, exclude } = value;
    let statuses =
        cx.each("statuses", statuses, |status, cx| values::enumeration::<Status>(cx, "", *status))?;
    let among = statuses.into_iter().fold(0, |bits, status| bits | 1 << status as u32);
    let status = GrpcStatus::compile("", &mut logs.captures).map_err(|e| cx.refuse("", e))?;
    Ok(LogFilter::GrpcStatus { status, among, exclude: *exclude })
}

/// `None`: no line here is of this kind.
fn log_type(value: WireType) -> Option<AccessLogType> {
    Some(match value {
        WireType::NotSet => AccessLogType::NotSet,
        WireType::TcpUpstreamConnected => AccessLogType::TcpUpstreamConnected,
        WireType::TcpPeriodic => AccessLogType::TcpPeriodic,
        WireType::TcpConnectionStart => AccessLogType::TcpConnectionStart,
        WireType::TcpConnectionEnd => AccessLogType::TcpConnectionEnd,
        WireType::DownstreamStart => AccessLogType::DownstreamStart,
        WireType::DownstreamPeriodic => AccessLogType::DownstreamPeriodic,
        WireType::DownstreamEnd => AccessLogType::DownstreamEnd,
        WireType::DownstreamTunnelSuccessfullyEstablished => {
            AccessLogType::DownstreamTunnelSuccessfullyEstablished
        }
        _ => return None,
    })
}
