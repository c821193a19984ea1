//! Requests of xDS clients, one after the other (each behind its length), to the server sessions of both variants. The first byte
//! chooses the variant.

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::session::{ClientFeatures, Part, Resource, View, delta, sotw};
use outrigger_xds_api::wire::cluster::v3::Cluster;
use outrigger_xds_api::wire::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use outrigger_xds_api::wire::protobuf::Any;
use prost::Message;

use crate::input::{choose, messages};

const TYPE: ResourceType = ResourceType::Cluster;

/// Whatever was asked before, what is sent can be taken, and is not sent again.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some((is_delta, bytes)) = choose(&[true, false], bytes) else { return };
    let store = Store::new(&["a", "b", "c"]);
    if is_delta { delta(&store, bytes) } else { state_of_the_world(&store, bytes) }
}

fn delta(store: &Store, bytes: &[u8]) {
    let mut server = delta::Server::new(TYPE, ClientFeatures::default());
    for request in messages::<DeltaDiscoveryRequest>(bytes) {
        if server.on_request(&request).is_err() {
            return;
        }
        let Some(response) = server.next_response(store, Part::All) else { continue };
        for resource in &response.resources {
            assert!(server.is_wildcard() || server.is_subscribed(&resource.name), "{}", resource.name);
        }
        let mut client = delta::Client::new(TYPE);
        client.subscribe("*");
        client.on_response(response).unwrap();
        assert_eq!(server.next_response(store, Part::All), None);
    }
}

fn state_of_the_world(store: &Store, bytes: &[u8]) {
    let mut server = sotw::Server::new(TYPE, ClientFeatures::default());
    for request in messages::<DiscoveryRequest>(bytes) {
        if server.on_request(&request).is_err() {
            return;
        }
        let Some(response) = server.next_response(store, Part::All) else { continue };
        let mut client = sotw::Client::new(TYPE);
        client.subscribe("*");
        let received = client.on_response(response).unwrap();
        for resource in &received.updated {
            assert!(server.is_wildcard() || server.is_subscribed(&resource.name), "{}", resource.name);
        }
        assert_eq!(server.next_response(store, Part::All), None);
    }
}

/// Clusters that never change.
struct Store(Vec<(String, Any)>);

impl Store {
    fn new(names: &[&str]) -> Self {
        let cluster = |name: &str| Cluster { name: name.to_owned(), ..Cluster::default() };
        let any = |name: &str| Any {
            type_url: TYPE.type_url().to_owned(),
            value: cluster(name).encode_to_vec(),
        };
        Self(names.iter().map(|name| ((*name).to_owned(), any(name))).collect())
    }
}

impl View for Store {
    fn get(&self, name: &str) -> Option<Resource<'_>> {
        let (_, content) = self.0.iter().find(|(own, _)| own == name)?;
        Some(Resource { version: "1", content, ttl: None })
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}
