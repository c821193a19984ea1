//! Route configurations in a form whose encoding is always the same.
//!
//! `typed_per_filter_config` and the metadata are `HashMap`s in the generated messages, so their order, and with it the content hash,
//! would differ from process to process. The encoding of a message is the concatenation of those of its fields: each route is
//! encoded without them and the ordered maps are appended. (Each part of the metadata has one key.)

use std::collections::BTreeMap;

use outrigger_xds_api::wire::protobuf::{Any, Struct};
use outrigger_xds_api::wire::route::v3::{Route, RouteConfiguration};
use prost::Message;

/// `RouteConfiguration.virtual_hosts`, encoded.
#[derive(Clone, PartialEq, Message)]
struct VirtualHosts {
    #[prost(bytes = "vec", repeated, tag = "2")]
    virtual_hosts: Vec<Vec<u8>>,
}

/// `VirtualHost.routes`, encoded.
#[derive(Clone, PartialEq, Message)]
struct Routes {
    #[prost(bytes = "vec", repeated, tag = "3")]
    routes: Vec<Vec<u8>>,
}

/// `Metadata`
#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(btree_map = "string, message", tag = "1")]
    filter_metadata: BTreeMap<String, Struct>,
}

/// `Route.metadata` and `Route.typed_per_filter_config`
#[derive(Clone, PartialEq, Message)]
struct Maps {
    #[prost(message, optional, tag = "4")]
    metadata: Option<Metadata>,
    #[prost(btree_map = "string, message", tag = "13")]
    typed_per_filter_config: BTreeMap<String, Any>,
}

pub(super) fn encode(mut wire: RouteConfiguration) -> Vec<u8> {
    let virtual_hosts = std::mem::take(&mut wire.virtual_hosts).into_iter().map(|mut host| {
        let routes = std::mem::take(&mut host.routes).into_iter().map(route).collect();
        let mut encoded = host.encode_to_vec();
        encoded.extend(Routes { routes }.encode_to_vec());
        encoded
    });
    let virtual_hosts = VirtualHosts { virtual_hosts: virtual_hosts.collect() };
    let mut encoded = wire.encode_to_vec();
    encoded.extend(virtual_hosts.encode_to_vec());
    encoded
}

fn route(mut route: Route) -> Vec<u8> {
    let typed_per_filter_config = std::mem::take(&mut route.typed_per_filter_config).into_iter().collect();
    let metadata = route.metadata.take();
    let metadata =
        metadata.map(|metadata| Metadata { filter_metadata: metadata.filter_metadata.into_iter().collect() });
    let mut encoded = route.encode_to_vec();
    encoded.extend(Maps { metadata, typed_per_filter_config }.encode_to_vec());
    encoded
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use outrigger_xds_api::wire::core::v3 as core;
    use outrigger_xds_api::wire::route::v3::VirtualHost;

    use super::*;

    #[test]
    fn what_is_encoded_is_what_the_generated_message_reads() {
        let config = |name: &str| (name.to_owned(), Any { type_url: name.to_owned(), value: vec![1] });
        let names = ["e", "d", "c", "b", "a"];
        let with = |names: &mut dyn Iterator<Item = &&str>| {
            let names: Vec<&&str> = names.collect();
            let typed_per_filter_config = names.iter().map(|name| config(name)).collect();
            let filter_metadata =
                names.iter().map(|name| ((**name).to_string(), Struct::default())).collect();
            let metadata = Some(core::Metadata { filter_metadata, ..core::Metadata::default() });
            let route = Route { name: "r".into(), metadata, typed_per_filter_config, ..Route::default() };
            let host = VirtualHost { name: "h".into(), routes: vec![route; 2], ..VirtualHost::default() };
            RouteConfiguration { name: "c".into(), virtual_hosts: vec![host; 2], ..Default::default() }
        };
        let wire = with(&mut names.iter());
        let encoded = encode(wire.clone());
        assert_eq!(RouteConfiguration::decode(encoded.as_slice()).unwrap(), wire);
        assert_eq!(encode(with(&mut names.iter().rev())), encoded);
    }
}
