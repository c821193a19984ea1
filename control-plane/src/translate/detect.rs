//! Listener filters that find out what a connection is: where it was meant to go, TLS, HTTP.

use std::time::Duration;

use outrigger_xds_api::wire::extensions::filters::listener::http_inspector::v3::HttpInspector;
use outrigger_xds_api::wire::extensions::filters::listener::original_dst::v3::OriginalDst;
use outrigger_xds_api::wire::listener::v3::{
    Listener, ListenerFilter, ListenerFilterChainMatchPredicate, listener_filter,
    listener_filter_chain_match_predicate as predicate,
};
use outrigger_xds_api::wire::protobuf::Any;
use outrigger_xds_api::wire::tls_inspector::v3::TlsInspector;
use outrigger_xds_api::wire::r#type::v3::Int32Range;

use crate::translate::wire::{any, duration};

/// How long a client may be silent before its connection counts as TCP: what a protocol in which the server speaks first waits
/// for on a port that says nothing of itself.
const SILENCE: Duration = Duration::from_secs(1);

/// What the HTTP inspector calls what it found.
const HTTP: [&str; 3] = ["http/1.0", "http/1.1", "h2c"];

/// Restores the address that a captured connection was meant for.
pub(super) fn original_destination() -> ListenerFilter {
    filter("envoy.filters.listener.original_dst", any(&OriginalDst::default()))
}

/// Reads SNI and ALPN of a TLS client.
pub(super) fn tls_inspector() -> ListenerFilter {
    filter("envoy.filters.listener.tls_inspector", any(&TlsInspector::default()))
}

/// Tells HTTP from the rest.
pub(super) fn http_inspector() -> ListenerFilter {
    filter("envoy.filters.listener.http_inspector", any(&HttpInspector::default()))
}

/// The same for some ports only: others need not wait for the client's bytes.
pub(super) fn http_inspector_at(ports: impl IntoIterator<Item = u16>) -> ListenerFilter {
    let at = |port: u16| {
        let (start, end) = (i32::from(port), i32::from(port) + 1);
        predicate::Rule::DestinationPortRange(Int32Range { start, end })
    };
    let rule = |rule| ListenerFilterChainMatchPredicate { rule: Some(rule) };
    let mut rules: Vec<_> = ports.into_iter().map(|port| rule(at(port))).collect();
    let any_of = match rules.len() {
        1 => rules.remove(0),
        _ => rule(predicate::Rule::OrMatch(predicate::MatchSet { rules })),
    };
    let disabled = rule(predicate::Rule::NotMatch(Box::new(any_of)));
    ListenerFilter { filter_disabled: Some(disabled), ..http_inspector() }
}

/// Goes on without an answer when the client is silent.
pub(super) fn limit(listener: &mut Listener) {
    listener.listener_filters_timeout = duration(SILENCE);
    listener.continue_on_listener_filters_timeout = true;
}

/// What connections that are HTTP match.
pub(super) fn http_protocols() -> Vec<String> {
    HTTP.map(str::to_owned).into()
}

fn filter(name: &str, config: Any) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(config)),
        ..ListenerFilter::default()
    }
}
