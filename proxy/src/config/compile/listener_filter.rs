//! `ListenerFilter`: `original_dst`, `tls_inspector`, `http_inspector`, and when one of them is switched off.

use outrigger_xds_api::wire::http_inspector::v3 as http_inspector;
use outrigger_xds_api::wire::listener::v3 as wire;
use outrigger_xds_api::wire::original_dst::v3 as original_dst;
use outrigger_xds_api::wire::tls_inspector::v3 as tls_inspector;

use super::cx::{CompileCx, Compiled, ignored, unsupported};
use super::values;
use crate::listener::tls_fingerprint::Fingerprinting;
use crate::listener::{ConnectionPredicate, ListenerFilter, ListenerFilterKind};

/// Envoy's and our limit of a ClientHello, bytes.
const MAX_CLIENT_HELLO_BYTES: u32 = 16 * 1024;

/// Compiles one entry of `listener_filters`.
pub(crate) fn compile_listener_filter(
    filter: &wire::ListenerFilter,
    cx: &mut CompileCx<'_>,
) -> Compiled<ListenerFilter> {
    use wire::listener_filter::ConfigType;
    let wire::ListenerFilter { name, filter_disabled, config_type } = filter;
    let disabled = match filter_disabled {
        Some(predicate) => cx.field("filter_disabled", |cx| compile_predicate(cx, predicate)).map(Some),
        None => Ok(None),
    };
    let any = match config_type {
        Some(ConfigType::TypedConfig(any)) => any,
        Some(ConfigType::ConfigDiscovery(_)) => return Err(cx.refuse("config_discovery", "not supported")),
        None => {
            return Err(cx.refuse("typed_config", format!("listener filter '{name}' has no typed_config")));
        }
    };
    let kind = cx.field("typed_config", |cx| match values::type_name(any) {
        "envoy.extensions.filters.listener.original_dst.v3.OriginalDst" => {
            let original_dst::OriginalDst {} = values::unpack(cx, any)?;
            Ok(ListenerFilterKind::OriginalDst)
        }
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector" => {
            let inspector = values::unpack(cx, any)?;
            Ok(ListenerFilterKind::TlsInspector(compile_tls_inspector(cx, &inspector)))
        }
        "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector" => {
            let http_inspector::HttpInspector {} = values::unpack(cx, any)?;
            Ok(ListenerFilterKind::HttpInspector)
        }
        other => Err(cx.refuse("@type", format!("listener filter '{other}' is not supported"))),
    });
    Ok(ListenerFilter { kind: kind?, disabled: disabled? })
}

fn compile_tls_inspector(cx: &mut CompileCx<'_>, value: &tls_inspector::TlsInspector) -> Fingerprinting {
    let tls_inspector::TlsInspector {
        enable_ja3_fingerprinting,
        enable_ja4_fingerprinting,
        initial_read_buffer_size,
        close_connection_on_client_hello_parsing_errors,
        max_client_hello_size,
    } = value;
    ignored!(cx; initial_read_buffer_size);
    unsupported!(cx; close_connection_on_client_hello_parsing_errors);
    if values::uint32(max_client_hello_size, MAX_CLIENT_HELLO_BYTES) != MAX_CLIENT_HELLO_BYTES {
        cx.refuse("max_client_hello_size", format!("only {MAX_CLIENT_HELLO_BYTES} is supported"));
    }
    Fingerprinting {
        ja3: values::boolean(enable_ja3_fingerprinting, false),
        ja4: values::boolean(enable_ja4_fingerprinting, false),
    }
}

fn compile_predicate(
    cx: &mut CompileCx<'_>,
    value: &wire::ListenerFilterChainMatchPredicate,
) -> Compiled<ConnectionPredicate> {
    use wire::listener_filter_chain_match_predicate::{MatchSet, Rule};
    let wire::ListenerFilterChainMatchPredicate { rule } = value;
    let rules = |cx: &mut CompileCx<'_>, name: &str, set: &MatchSet| {
        let MatchSet { rules } = set;
        cx.field(name, |cx| cx.each("rules", rules, |rule, cx| compile_predicate(cx, rule)))
    };
    match rule {
        Some(Rule::OrMatch(set)) => rules(cx, "or_match", set).map(ConnectionPredicate::Or),
        Some(Rule::AndMatch(set)) => rules(cx, "and_match", set).map(ConnectionPredicate::And),
        Some(Rule::NotMatch(one)) => cx
            .field("not_match", |cx| compile_predicate(cx, one))
            .map(|one| ConnectionPredicate::Not(Box::new(one))),
        // That there is a rule, and that this one is true, are among Envoy's validation rules.
        Some(Rule::AnyMatch(_)) | None => Ok(ConnectionPredicate::Any),
        Some(Rule::DestinationPortRange(range)) => {
            Ok(ConnectionPredicate::DestinationPort(range.start..range.end))
        }
    }
}
