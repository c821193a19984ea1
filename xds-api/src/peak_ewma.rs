//! The policy Peak EWMA (package `envoy.extensions.load_balancing_policies.peak_ewma.v3alpha`), one of Envoy's extensions that are built on demand.
//! `envoy-types` has none of these, so its message is written here, and its descriptor in `build/extra.rs`.

use prost::Name;

use crate::wire::protobuf::{DoubleValue, Duration, UInt32Value};

/// Its settings.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PeakEwma {
    /// How long an answer is remembered, default 10 s.
    #[prost(message, optional, tag = "1")]
    pub decay_time: Option<Duration>,
    /// How often an Envoy's workers exchange what they know.
    #[prost(message, optional, tag = "2")]
    pub aggregation_interval: Option<Duration>,
    /// How many answers an Envoy's worker keeps until then.
    #[prost(message, optional, tag = "3")]
    pub max_samples_per_host: Option<UInt32Value>,
    /// What is taken of a host that has not answered yet, default 10 ms.
    #[prost(message, optional, tag = "4")]
    pub default_rtt: Option<Duration>,
    /// The cost of a host that is better left alone.
    #[prost(message, optional, tag = "5")]
    pub penalty_value: Option<DoubleValue>,
}

impl Name for PeakEwma {
    const NAME: &'static str = "PeakEwma";
    const PACKAGE: &'static str = "envoy.extensions.load_balancing_policies.peak_ewma.v3alpha";
}
