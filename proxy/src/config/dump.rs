//! What `/config_dump` and `/certs` show: `envoy.admin.v3.ConfigDump` as JSON. The admin interface redacts it.

use std::time::SystemTime;

use outrigger_xds_api::wire::core::v3::Node;
use outrigger_xds_api::{ResourceType, json};
use prost::{Message, Name};
use serde_json::{Value, json as value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::configuration::Configuration;
use super::warming::{Slot, Slots};

/// All resources. Endpoints only when asked for, as in Envoy.
pub fn config_dump(configuration: &Configuration, include_eds: bool) -> Value {
    let mut configs = vec![
        clusters(configuration),
        listeners(configuration),
        routes(configuration),
        secrets(configuration),
    ];
    configs.extend(extensions(configuration));
    if include_eds {
        configs.push(endpoints(configuration));
    }
    value!({ "configs": configs })
}

/// A node as JSON.
pub fn node(node: &Node) -> Value {
    message(&Node::full_name(), &node.encode_to_vec())
}

fn message(name: &str, bytes: &[u8]) -> Value {
    json::to_json(name, bytes).unwrap_or_else(|reason| value!({ "error": reason }))
}

fn resource(resource_type: ResourceType, bytes: &[u8]) -> Value {
    let mut object = value!({ "@type": resource_type.type_url() });
    if let (Value::Object(object), Value::Object(fields)) =
        (&mut object, message(resource_type.message_name(), bytes))
    {
        object.extend(fields);
    }
    object
}

fn timestamp(time: SystemTime) -> Value {
    OffsetDateTime::from(time).format(&Rfc3339).map_or(Value::Null, Value::from)
}

/// The names of a slot's states in the dump of its type.
struct Fields {
    resource_type: ResourceType,
    field: &'static str,
}

fn version<T>(slot: &Slot<T>, wire: &[u8], fields: &Fields) -> Value {
    value!({
        "version_info": &**slot.version(),
        fields.field: resource(fields.resource_type, wire),
        "last_updated": timestamp(slot.updated()),
    })
}

fn sorted<T>(slots: &Slots<T>) -> Vec<(&str, &Slot<T>)> {
    let mut all: Vec<_> = slots.iter().map(|(name, slot)| (&**name, slot)).collect();
    all.sort_by_key(|(name, _)| *name);
    all
}

fn clusters(configuration: &Configuration) -> Value {
    let fields = Fields { resource_type: ResourceType::Cluster, field: "cluster" };
    let (mut statics, mut active, mut warming) = (Vec::new(), Vec::new(), Vec::new());
    for (_, slot) in sorted(configuration.clusters()) {
        if slot.is_static() {
            statics.extend(slot.newest_wire().map(|wire| {
                value!({ "cluster": resource(fields.resource_type, wire), "last_updated": timestamp(slot.updated()) })
            }));
            continue;
        }
        active.extend(slot.active_wire().map(|wire| version(slot, wire, &fields)));
        warming.extend(slot.waiting_wire().map(|wire| version(slot, wire, &fields)));
    }
    value!({
        "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
        "static_clusters": statics,
        "dynamic_active_clusters": active,
        "dynamic_warming_clusters": warming,
    })
}

fn listeners(configuration: &Configuration) -> Value {
    let fields = Fields { resource_type: ResourceType::Listener, field: "listener" };
    let (mut statics, mut dynamic) = (Vec::new(), Vec::new());
    for (name, slot) in sorted(configuration.listeners()) {
        if slot.is_static() {
            statics.extend(slot.newest_wire().map(|wire| {
                value!({ "listener": resource(fields.resource_type, wire), "last_updated": timestamp(slot.updated()) })
            }));
            continue;
        }
        let mut entry = value!({ "name": name });
        if let Some(wire) = slot.active_wire() {
            entry["active_state"] = version(slot, wire, &fields);
        }
        if let Some(wire) = slot.waiting_wire() {
            entry["warming_state"] = version(slot, wire, &fields);
        }
        dynamic.push(entry);
    }
    value!({
        "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
        "static_listeners": statics,
        "dynamic_listeners": dynamic,
    })
}

/// `RouteConfiguration.virtual_hosts`.
const VIRTUAL_HOSTS_TAG: u32 = 2;

/// Route configurations of RDS, with what VHDS adds to them.
fn routes(configuration: &Configuration) -> Value {
    let fields = Fields { resource_type: ResourceType::RouteConfiguration, field: "route_config" };
    let dynamic: Vec<Value> = configuration
        .routes()
        .iter()
        .flat_map(|(_, routes)| sorted(routes))
        .filter_map(|(name, slot)| {
            let mut wire = slot.active_wire()?.to_vec();
            let vhds = slot.active().and_then(|version| version.routes.vhds.as_ref());
            let hosts = vhds.and_then(|asker| configuration.virtual_hosts().of(asker.source()));
            // Messages one after the other are one message with the fields of both.
            hosts.into_iter().flat_map(|hosts| hosts.active_wires(name)).for_each(|host| {
                prost::encoding::bytes::encode(VIRTUAL_HOSTS_TAG, &host.to_vec(), &mut wire);
            });
            Some(version(slot, &wire, &fields))
        })
        .collect();
    value!({
        "@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump",
        "dynamic_route_configs": dynamic,
    })
}

/// Names and versions; what a secret holds is not kept. `/certs` shows the certificates.
fn secrets(configuration: &Configuration) -> Value {
    let mut secrets: Vec<_> = configuration.secrets().collect();
    secrets.sort_by_key(|(name, _)| (*name).clone());
    let secrets: Vec<Value> = secrets
        .into_iter()
        .map(|(name, leaf)| {
            let secret = value!({ "@type": ResourceType::Secret.type_url(), "name": &**name });
            value!({ "name": &**name, "version_info": &*leaf.version, "secret": secret })
        })
        .collect();
    value!({
        "@type": "type.googleapis.com/envoy.admin.v3.SecretsConfigDump",
        "dynamic_active_secrets": secrets,
    })
}

/// Only where there are any, as in Envoy.
fn extensions(configuration: &Configuration) -> Option<Value> {
    let all = configuration.inputs().registry.extensions.iter();
    let mut all: Vec<_> = all.flat_map(|(_, extensions)| extensions.iter()).collect();
    all.sort_by_key(|(name, _)| (*name).clone());
    let filters: Vec<Value> = all
        .into_iter()
        .map(|(_, leaf)| {
            value!({
                "version_info": &*leaf.version,
                "ecds_filter": resource(ResourceType::ExtensionConfig, &leaf.wire),
            })
        })
        .collect();
    (!filters.is_empty()).then(|| {
        value!({
            "@type": "type.googleapis.com/envoy.admin.v3.EcdsConfigDump",
            "ecds_filters": filters,
        })
    })
}

fn endpoints(configuration: &Configuration) -> Value {
    let mut all: Vec<_> = configuration.assignments().collect();
    all.sort_by_key(|(name, _)| (*name).clone());
    let dynamic: Vec<Value> = all
        .into_iter()
        .map(|(_, leaf)| {
            value!({
                "version_info": &*leaf.version,
                "endpoint_config": resource(ResourceType::ClusterLoadAssignment, &leaf.wire),
            })
        })
        .collect();
    value!({
        "@type": "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump",
        "dynamic_endpoint_configs": dynamic,
    })
}
