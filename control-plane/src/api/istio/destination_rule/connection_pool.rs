//! `connectionPool` of a traffic policy.

use serde::Deserialize;

use crate::api::Refusal;
use crate::api::values::{go_duration, number, positive, whole_seconds};
use crate::model::{ConnectionPool, HttpUpgrade, TcpKeepalive};

/// Envoy's largest number of streams of a connection.
const STREAMS_MAX: u32 = 0x7fff_ffff;

/// Istio's largest number of requests of a connection.
const REQUESTS_MAX: u32 = 1 << 29;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Spec {
    tcp: TcpSpec,
    http: HttpSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct TcpSpec {
    max_connections: Option<i64>,
    connect_timeout: Option<String>,
    max_connection_duration: Option<String>,
    idle_timeout: Option<String>,
    tcp_keepalive: Option<KeepaliveSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct KeepaliveSpec {
    probes: Option<i64>,
    time: Option<String>,
    interval: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct HttpSpec {
    http1_max_pending_requests: Option<i64>,
    http2_max_requests: Option<i64>,
    max_requests_per_connection: Option<i64>,
    max_retries: Option<i64>,
    idle_timeout: Option<String>,
    h2_upgrade_policy: Option<String>,
    max_concurrent_streams: Option<i64>,
    use_client_protocol: bool,
}

/// Reads it; `policy` is the path of the policy.
pub(super) fn connection_pool(spec: Spec, policy: &str) -> Result<ConnectionPool, Refusal> {
    let Spec { tcp, http } = spec;
    let at = |name: &str| format!("{policy}.connectionPool.{name}");
    let limit = |value: Option<i64>, least: u32, most: u32, name: &str| {
        value.map(|value| number(value, least, most, at(name))).transpose()
    };
    let requests = http.max_requests_per_connection;
    Ok(ConnectionPool {
        max_connections: limit(tcp.max_connections, 1, u32::MAX, "tcp.maxConnections")?,
        // Of a TrafficPolicy.
        max_connections_per_endpoint: None,
        connect_timeout: positive(tcp.connect_timeout, at("tcp.connectTimeout"))?,
        max_connection_duration: positive(tcp.max_connection_duration, at("tcp.maxConnectionDuration"))?,
        tcp_idle_timeout: go_duration(tcp.idle_timeout, at("tcp.idleTimeout"))?,
        tcp_keepalive: tcp.tcp_keepalive.map(|spec| keepalive(spec, &at("tcp.tcpKeepalive"))).transpose()?,
        max_pending_requests: limit(
            http.http1_max_pending_requests,
            1,
            u32::MAX,
            "http.http1MaxPendingRequests",
        )?,
        max_requests: limit(http.http2_max_requests, 1, u32::MAX, "http.http2MaxRequests")?,
        // 0 is no limit, as none is.
        max_requests_per_connection: limit(requests, 0, REQUESTS_MAX, "http.maxRequestsPerConnection")?
            .filter(|most| *most > 0),
        max_retries: limit(http.max_retries, 1, u32::MAX, "http.maxRetries")?,
        idle_timeout: go_duration(http.idle_timeout, at("http.idleTimeout"))?,
        upgrade: match http.h2_upgrade_policy.as_deref() {
            None | Some("DEFAULT" | "UPGRADE" | "DO_NOT_UPGRADE") if http.use_client_protocol => {
                HttpUpgrade::AsClient
            }
            None | Some("DEFAULT") => HttpUpgrade::Default,
            Some("UPGRADE") => HttpUpgrade::Always,
            Some("DO_NOT_UPGRADE") => HttpUpgrade::Never,
            Some(other) => {
                let reason = format!("{other:?} is none of DEFAULT, DO_NOT_UPGRADE, UPGRADE");
                return Err(Refusal::new(at("http.h2UpgradePolicy"), reason));
            }
        },
        max_concurrent_streams: limit(
            http.max_concurrent_streams,
            1,
            STREAMS_MAX,
            "http.maxConcurrentStreams",
        )?,
    })
}

fn keepalive(spec: KeepaliveSpec, field: &str) -> Result<TcpKeepalive, Refusal> {
    let probes = spec.probes.map(|probes| number(probes, 1, u32::MAX, format!("{field}.probes")));
    Ok(TcpKeepalive {
        probes: probes.transpose()?,
        time: whole_seconds(spec.time, format!("{field}.time"))?,
        interval: whole_seconds(spec.interval, format!("{field}.interval"))?,
    })
}
