//! Encoded resources of every type: validation, and the JSON of `/config_dump`. The first byte chooses the type.

use outrigger_xds_api::wire::cluster::v3::Cluster;
use outrigger_xds_api::wire::core::v3::TypedExtensionConfig;
use outrigger_xds_api::wire::endpoint::v3::ClusterLoadAssignment;
use outrigger_xds_api::wire::listener::v3::Listener;
use outrigger_xds_api::wire::protobuf::Any;
use outrigger_xds_api::wire::route::v3::{RouteConfiguration, VirtualHost};
use outrigger_xds_api::wire::tls::v3::Secret;
use outrigger_xds_api::{ResourceType, json, resource, validate};
use prost::{Message, Name};

use crate::input::choose;

/// Our reader of the wire and prost agree about what the bytes say.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some((of, bytes)) = choose(&ResourceType::CLIENT, bytes) else { return };
    match of {
        ResourceType::Cluster => agree::<Cluster>(of, bytes),
        ResourceType::ClusterLoadAssignment => agree::<ClusterLoadAssignment>(of, bytes),
        ResourceType::Listener => agree::<Listener>(of, bytes),
        ResourceType::RouteConfiguration => agree::<RouteConfiguration>(of, bytes),
        ResourceType::VirtualHost => agree::<VirtualHost>(of, bytes),
        ResourceType::Secret => agree::<Secret>(of, bytes),
        ResourceType::ExtensionConfig => agree::<TypedExtensionConfig>(of, bytes),
    }
}

fn agree<M: Message + Name + Default>(of: ResourceType, bytes: &[u8]) {
    let name = of.message_name();
    let report = validate::validate(name, bytes);
    let printed = json::to_json(name, bytes);
    let any = Any { type_url: of.type_url().to_owned(), value: bytes.to_vec() };
    let named = resource::name_of(&any);
    let Ok(message) = M::decode(bytes) else { return };
    if !report.violations.is_empty() || !report.unknown.is_empty() {
        return;
    }
    named.unwrap();
    let printed = printed.unwrap();
    let encoded = message.encode_to_vec();
    assert_eq!(printed, json::to_json(name, &encoded).unwrap());
    assert!(validate::validate(name, &encoded).violations.is_empty());
}
