//! Responses of the incremental variant, one after the other (each behind its length), to a client session.

use std::collections::BTreeMap;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::session::{WILDCARD, delta::Client};
use outrigger_xds_api::wire::core::v3::Node;
use outrigger_xds_api::wire::discovery::v3::DeltaDiscoveryResponse;

use crate::input::messages;

/// What the session holds is what the accepted responses add up to, and that is what the next stream begins with.
pub(crate) fn fuzz(bytes: &[u8]) {
    let mut client = Client::new(ResourceType::Cluster);
    client.subscribe(WILDCARD);
    client.next_request(&Node::default());
    let mut held = BTreeMap::new();
    for response in messages::<DeltaDiscoveryResponse>(bytes) {
        let nonce = response.nonce.clone();
        let Ok(received) = client.on_response(response) else {
            client.nack_all(&nonce, "malformed").unwrap();
            continue;
        };
        // A stand-in for what is wrong with a resource.
        let (bad, good): (Vec<_>, Vec<_>) =
            received.updated.into_iter().partition(|update| update.version.starts_with('!'));
        let bad: Vec<String> = bad.into_iter().map(|update| update.name).collect();
        held.extend(good.into_iter().map(|update| (update.name, update.version)));
        received.removed.iter().for_each(|name| drop(held.remove(name)));
        let answer = if bad.is_empty() { client.ack(&nonce) } else { client.nack(&nonce, &bad, "bad") };
        assert_eq!(answer.unwrap().response_nonce, nonce);
        let now: BTreeMap<String, String> =
            client.held().map(|(name, version)| (name.to_owned(), version.to_owned())).collect();
        assert_eq!(now, held);
    }
    client.on_stream_closed();
    let first = client.next_request(&Node::default()).unwrap();
    assert_eq!(first.initial_resource_versions.into_iter().collect::<BTreeMap<_, _>>(), held);
}
