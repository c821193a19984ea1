//! Configurations for tests: resources from YAML, inputs without a disk.

use std::sync::Arc;

use outrigger_xds_api::wire::protobuf::Any;
use outrigger_xds_api::{ResourceType, json};
use tokio::time::Instant;

use super::apply::Update;
use super::compile::{Inputs, Invalid};
use super::configuration::Configuration;
use super::dns;
use super::registry::Registry;
use super::sources::{SourceId, Variant};
use crate::access_log::LogFiles;
use crate::cluster::lb::slow_start;
use crate::cluster::{original_dst, outlier};
use crate::health_check;
use crate::net::Resolvers;
use crate::on_demand;
use crate::route::RouteConfiguration;
use crate::stats::Stats;

/// Inputs with ADS and an identity, and no file on the disk but empty ones in `/empty`.
pub(crate) fn inputs() -> Inputs {
    let stats = Stats::new();
    let (ejections, _) = outlier::channel();
    let (inhabited, _) = original_dst::channel();
    let (on_demand, _) = on_demand::channel();
    Inputs {
        registry: Registry::default(),
        sources: Default::default(),
        watches: Default::default(),
        log_files: LogFiles::new(stats.clone()),
        stats,
        ejections,
        checks: health_check::channel().0,
        inhabited,
        on_demand,
        warm_ups: slow_start::channel().0,
        local_cluster: None,
        resolvers: Resolvers::default(),
        names: dns::channel().0,
        read_file: Box::new(|path| match path.starts_with("/empty/") {
            true => Ok(Vec::new()),
            false => Err(std::io::ErrorKind::NotFound.into()),
        }),
        source_address: None,
        node_id: "node".into(),
        service_cluster: "service".into(),
        static_clusters: Default::default(),
        known_clusters: Default::default(),
        inline_certificates: Default::default(),
        inline_validations: Default::default(),
        folders: Default::default(),
        told: Default::default(),
        ads: Some(Variant::Delta),
        has_cds: true,
        has_identity: true,
    }
}

/// A configuration that binds nothing.
pub(crate) fn configuration() -> Configuration {
    Configuration::new(inputs(), 0)
}

/// A resource from YAML.
pub(crate) fn resource(resource_type: ResourceType, yaml: &str) -> Any {
    let node = json::parse_one(yaml).unwrap();
    let value = json::encode(resource_type.message_name(), &node, json::Notation::Yaml).unwrap();
    Any { type_url: resource_type.type_url().to_owned(), value }
}

/// Applies one resource as ADS does.
pub(crate) fn apply(
    configuration: &mut Configuration,
    resource_type: ResourceType,
    name: &str,
    yaml: &str,
    now: Instant,
) -> Vec<Invalid> {
    let resource = resource(resource_type, yaml);
    let update = Update { name, version: "1", resource: &resource, aliases: &[] };
    configuration.apply(SourceId::ADS, resource_type, &[update], &[], now)
}

/// Removes one resource as ADS does.
pub(crate) fn remove(
    configuration: &mut Configuration,
    resource_type: ResourceType,
    name: &str,
    now: Instant,
) {
    configuration.apply(SourceId::ADS, resource_type, &[], &[name], now);
}

/// What is wrong with a static resource, as `path: reason`; empty when it is accepted.
pub(crate) fn problems(resource_type: ResourceType, yaml: &str) -> Vec<String> {
    let mut configuration = configuration();
    for cluster in ["known", "other"] {
        let known = resource(ResourceType::Cluster, &format!("{{name: {cluster}}}"));
        configuration.apply_static(ResourceType::Cluster, &known, Instant::now()).unwrap();
    }
    match configuration.apply_static(resource_type, &resource(resource_type, yaml), Instant::now()) {
        Ok(()) => Vec::new(),
        Err(invalid) => invalid.problems.iter().map(ToString::to_string).collect(),
    }
}

/// The published route configuration of this name.
pub(crate) fn published_routes(configuration: &Configuration, name: &str) -> Option<Arc<RouteConfiguration>> {
    configuration.inputs().registry.routes.of(SourceId::ADS)?.get(name)
}

/// The name of a cell's route configuration version, when one is published.
pub(crate) fn published_version(configuration: &Configuration, name: &str) -> Option<Arc<str>> {
    published_routes(configuration, name).map(|routes| routes.version.clone())
}
