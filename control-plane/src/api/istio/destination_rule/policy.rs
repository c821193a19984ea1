//! `trafficPolicy`: of a rule, of a subset, of a port.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::connection_pool;
use super::load_balancer::{self, LoadBalancer};
use super::tls;
use crate::api::Refusal;
use crate::api::values::{number, port, positive};
use crate::model::{ClientTls, ConnectionPool, DestinationSettings, OutlierDetection, PortSettings};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Spec {
    load_balancer: Option<load_balancer::Spec>,
    connection_pool: Option<connection_pool::Spec>,
    outlier_detection: Option<OutlierDetectionSpec>,
    tls: Option<tls::Spec>,
    port_level_settings: Vec<PortSpec>,
    tunnel: Option<IgnoredAny>,
    proxy_protocol: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PortSpec {
    port: PortSelector,
    load_balancer: Option<load_balancer::Spec>,
    connection_pool: Option<connection_pool::Spec>,
    outlier_detection: Option<OutlierDetectionSpec>,
    tls: Option<tls::Spec>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PortSelector {
    number: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OutlierDetectionSpec {
    #[serde(rename = "consecutive5xxErrors")]
    consecutive_5xx_errors: Option<i64>,
    consecutive_gateway_errors: Option<i64>,
    #[serde(default)]
    split_external_local_origin_errors: bool,
    consecutive_local_origin_failures: Option<i64>,
    interval: Option<String>,
    base_ejection_time: Option<String>,
    max_ejection_percent: Option<i64>,
    min_health_percent: Option<i64>,
}

/// A policy as it is said: for all ports, and for single ones.
#[derive(Debug, Default)]
pub(super) struct Policy {
    all: Said,
    ports: BTreeMap<u16, Said>,
}

/// The parts that something is said of.
#[derive(Debug, Default, Clone)]
struct Said {
    load_balancer: Option<LoadBalancer>,
    outlier_detection: Option<OutlierDetection>,
    connection_pool: Option<ConnectionPool>,
    tls: Option<ClientTls>,
}

impl Policy {
    /// Reads a policy at the path `field`.
    pub(super) fn read(spec: Spec, field: &str) -> Result<Self, Refusal> {
        let Spec {
            load_balancer,
            connection_pool,
            outlier_detection,
            tls,
            port_level_settings,
            tunnel,
            proxy_protocol,
        } = spec;
        if tunnel.is_some() {
            let reason = "is not supported: a sidecar opens no tunnels through other proxies";
            return Err(Refusal::new(format!("{field}.tunnel"), reason));
        }
        if proxy_protocol.is_some() {
            let reason = "is not supported: a sidecar does not tell servers by the PROXY protocol who called";
            return Err(Refusal::new(format!("{field}.proxyProtocol"), reason));
        }
        let mut policy = Self {
            all: Said::read(load_balancer, connection_pool, outlier_detection, tls, field)?,
            ports: BTreeMap::new(),
        };
        for (index, spec) in port_level_settings.into_iter().enumerate() {
            let field = format!("{field}.portLevelSettings[{index}]");
            let number = port(spec.port.number, format!("{field}.port.number"))?;
            let PortSpec { load_balancer, connection_pool, outlier_detection, tls, .. } = spec;
            let said = Said::read(load_balancer, connection_pool, outlier_detection, tls, &field)?;
            if policy.ports.insert(number, said).is_some() {
                let reason = format!("port {number} is there twice");
                return Err(Refusal::new(format!("{field}.port.number"), reason));
            }
        }
        Ok(policy)
    }

    /// What holds by it alone. What is said of a port stands in the place of all that is said of the others (Istio).
    pub(super) fn settings(&self) -> PortSettings {
        let ports = self.ports.iter().map(|(number, said)| (*number, said.clone().settings()));
        PortSettings { all: self.all.clone().settings(), ports: ports.collect() }
    }

    /// What holds for a subset whose own policy this is: its own word for the port alone, else what it says of a part replaces all that
    /// `whole`, the rule's policy, says of that part (Istio).
    pub(super) fn settings_within(&self, whole: &Self) -> PortSettings {
        let of_port = |number: &u16| match (self.ports.get(number), whole.ports.get(number)) {
            (Some(own), _) => own.clone(),
            (None, Some(whole)) => self.all.clone().or(whole),
            (None, None) => self.all.clone().or(&whole.all),
        };
        let numbers = self.ports.keys().chain(whole.ports.keys());
        PortSettings {
            all: self.all.clone().or(&whole.all).settings(),
            ports: numbers.map(|number| (*number, of_port(number).settings())).collect(),
        }
    }
}

impl Said {
    fn read(
        load_balancer: Option<load_balancer::Spec>,
        connection_pool: Option<connection_pool::Spec>,
        outlier_detection: Option<OutlierDetectionSpec>,
        tls: Option<tls::Spec>,
        field: &str,
    ) -> Result<Self, Refusal> {
        Ok(Self {
            load_balancer: load_balancer.map(|spec| load_balancer::load_balancer(spec, field)).transpose()?,
            outlier_detection: outlier_detection
                .map(|spec| self::outlier_detection(spec, field))
                .transpose()?,
            connection_pool: connection_pool
                .map(|spec| connection_pool::connection_pool(spec, field))
                .transpose()?,
            tls: tls.map(|spec| tls::client_tls(spec, field)).transpose()?,
        })
    }

    fn or(self, other: &Self) -> Self {
        Self {
            load_balancer: self.load_balancer.or_else(|| other.load_balancer.clone()),
            outlier_detection: self.outlier_detection.or_else(|| other.outlier_detection.clone()),
            connection_pool: self.connection_pool.or_else(|| other.connection_pool.clone()),
            tls: self.tls.or_else(|| other.tls.clone()),
        }
    }

    fn settings(self) -> DestinationSettings {
        let LoadBalancer { policy, locality, slow_start } = self.load_balancer.unwrap_or_default();
        DestinationSettings {
            load_balancing: policy,
            locality,
            slow_start,
            outlier_detection: self.outlier_detection,
            panic_percent: None,
            health_check: None,
            connection_pool: self.connection_pool.unwrap_or_default(),
            tls: self.tls.unwrap_or_default(),
        }
    }
}

/// Envoy's `consecutive_local_origin_failure`.
const DEFAULT_LOCAL_ORIGIN_FAILURES: u32 = 5;

fn outlier_detection(spec: OutlierDetectionSpec, field: &str) -> Result<OutlierDetection, Refusal> {
    let field = |name: &str| format!("{field}.outlierDetection.{name}");
    let default = OutlierDetection::default();
    let count = |value: Option<i64>, name: &str| match value {
        Some(count) => number(count, 0, u32::MAX, field(name)).map(Some),
        None => Ok(None),
    };
    let local_origin = count(spec.consecutive_local_origin_failures, "consecutiveLocalOriginFailures")?;
    Ok(OutlierDetection {
        consecutive_5xx: count(spec.consecutive_5xx_errors, "consecutive5xxErrors")?
            .unwrap_or(default.consecutive_5xx),
        consecutive_gateway_errors: count(spec.consecutive_gateway_errors, "consecutiveGatewayErrors")?
            .unwrap_or(default.consecutive_gateway_errors),
        // Zero is Envoy's default in Istio.
        local_origin_failures: spec
            .split_external_local_origin_errors
            .then(|| local_origin.filter(|count| *count > 0).unwrap_or(DEFAULT_LOCAL_ORIGIN_FAILURES)),
        interval: positive(spec.interval, field("interval"))?.unwrap_or(default.interval),
        base_ejection_time: positive(spec.base_ejection_time, field("baseEjectionTime"))?
            .unwrap_or(default.base_ejection_time),
        max_ejection_percent: match spec.max_ejection_percent {
            Some(percent) => number(percent, 0, 100, field("maxEjectionPercent"))?,
            None => default.max_ejection_percent,
        },
        min_health_percent: match spec.min_health_percent {
            Some(percent) => number(percent, 0, 100, field("minHealthPercent"))?,
            None => default.min_health_percent,
        },
        // Of a TrafficPolicy.
        failures: default.failures,
        success_rate: default.success_rate,
        failure_percentage: default.failure_percentage,
    })
}
